"""Grad-CAM of any spatial rank, of tokens, of channels last: by autograd and interpolation, or refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import GradCAM, explain
from attrain.losses import energy_loss
from attrain.methods.gradcam import from_channels_last, from_tokens
from attrain.metrics import epg, heatmap_iou

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class ConvNet(nn.Module):
    def __init__(self, rank: int, channels: int = 3):
        super().__init__()
        self.conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1](channels, 5, 3, stride=2)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.conv(x).tanh().flatten(2).mean(2))


class Tokens(nn.Module):
    """A small vision transformer: a class token and 4 × 2 patches."""

    def __init__(self):
        super().__init__()
        self.patches, self.start = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
        self.block = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x):
        t = self.patches(x).flatten(2).mT
        return self.head(self.norm(self.block(torch.cat([self.start.expand(len(x), -1, -1), t], 1)))[:, 0])


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.keep, self.head = (
            nn.Conv2d(3, 12, 4, 4),
            nn.LayerNorm(12),
            nn.Identity(),
            nn.Linear(12, 4),
        )

    def forward(self, x):
        return self.head(self.keep(self.norm(self.conv(x).movedim(1, -1)).tanh()).mean((1, 2)))


class Sequence(nn.Module):
    """Features last, in and out: (N, T, F)."""

    def __init__(self, features=5):
        super().__init__()
        self.embed, self.rnn, self.keep = (
            nn.Embedding(9, features),
            nn.GRU(features, 8, batch_first=True),
            nn.Identity(),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = x if x.is_floating_point() else self.embed(x)
        return self.head(self.keep(self.rnn(x)[0]).square().mean(1))


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(8 + 2, 4)

    def forward(self, left, right, table):
        pooled = [c(x).tanh().mean((2, 3)) for c, x in ((self.left, left), (self.right, right))]
        return self.head(torch.cat([*pooled, table], 1))


def cam(net, x, layer, score, reshape=lambda a: a, relu=True):
    """By autograd: the layer's output and the gradient there, (N, C, ...)."""
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(
        lambda m, i, out: kept.append(out[0] if isinstance(out, tuple) else out)
    )
    x = x if isinstance(x, tuple) else (x,)
    out = score(net(*x))
    handle.remove()
    (g,) = torch.autograd.grad(out.sum(), kept[0])
    a, g = reshape(kept[0]).detach(), reshape(g)
    found = (g.flatten(2).mean(2).reshape(*g.shape[:2], *[1] * (g.ndim - 2)) * a).sum(1, keepdim=True)
    return found.relu() if relu else found


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_of_any_spatial_rank_and_with_negative_evidence(rank, relu):
    net, x = ConvNet(rank).double(), torch.randn(2, 3, *(9, 11, 13)[:rank], dtype=torch.float64)
    found = explain(net, x, 1, GradCAM("conv", relu=relu))
    want = cam(net, x, "conv", lambda out: out[:, 1], relu=relu)
    torch.testing.assert_close(found.layers["conv"], want)
    large = F.interpolate(want, x.shape[2:], mode=MODES[rank])
    torch.testing.assert_close(found.heatmap, large.expand_as(x))
    assert relu == bool((found.heatmap >= 0).all())


TRANSPOSED = {
    "tokens": (Tokens, "norm", from_tokens(4, 2)),
    "tokens of the block": (Tokens, "block", from_tokens(4, 2)),
    "channels last": (ChannelsLast, "keep", from_channels_last),
}


@pytest.mark.parametrize("target", [1, "all"])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_of_tokens_and_channels_last_it_is_that_of_the_transposed_layer(name, target):
    make, layer, reshape = TRANSPOSED[name]
    net, x = make().double().eval(), torch.randn(2, 3, 16, 8, dtype=torch.float64)
    found = explain(net, x, target, GradCAM(layer, reshape=reshape))
    wanted = [cam(net, x, layer, lambda out, c=c: out[:, c], reshape) for c in range(4)]
    want = wanted[1] if target == 1 else torch.stack(wanted, 1)
    torch.testing.assert_close(found.layers[layer], want)
    assert found.heatmap.shape == (*want.shape[:-3], 3, 16, 8)
    large = [F.interpolate(w, (16, 8), mode="bilinear").expand_as(x) for w in wanted]
    torch.testing.assert_close(found.heatmap, large[1] if target == 1 else torch.stack(large, 1))


def test_the_map_of_features_last_lies_along_the_sequence_of_x():
    net, x = Sequence().double(), torch.randn(2, 7, 5, dtype=torch.float64)
    want = cam(net, x, "keep", lambda out: out[:, 1], from_channels_last, relu=False)
    found = explain(net, x, 1, GradCAM("keep", False, from_channels_last, channel_dim=-1))
    torch.testing.assert_close(found.heatmap, want.mT.expand_as(x))
    torch.testing.assert_close(found.layers["keep"], want)


def test_token_ids_have_a_map_at_the_layer_and_none_at_the_input():
    net, ids = Sequence().double(), torch.randint(9, (2, 7))
    found = explain(net, ids, 1, GradCAM("keep", False, from_channels_last), layers="keep")
    assert found.heatmap is None
    torch.testing.assert_close(
        found.layers["keep"], cam(net, ids, "keep", lambda out: out[:, 1], from_channels_last, False)
    )


def test_without_at_input_the_map_is_that_of_the_layer_alone():
    net, x = ConvNet(2), torch.randn(2, 3, 9, 11)
    found = explain(net, x, 1, GradCAM("conv"), layers="conv", at_input=False)
    assert found.heatmap.shape == (2, 0)
    torch.testing.assert_close(found.layers["conv"], explain(net, x, 1, GradCAM("conv")).layers["conv"])


def test_of_several_inputs_the_map_lies_over_those_that_the_layer_sees():
    net = TwoBranches().double()
    x = tuple(torch.randn(2, *s, dtype=torch.float64) for s in ((3, 9, 9), (3, 12, 7), (2,)))
    left, right, table = explain(net, x, 0, GradCAM("right", relu=False)).heatmap
    assert left is None and table is None
    want = cam(net, x, "right", lambda out: out[:, 0], relu=False)
    torch.testing.assert_close(right, F.interpolate(want, (12, 7), mode="bilinear").expand_as(x[1]))


@pytest.mark.parametrize("relu", [True, False])
def test_the_map_trains(relu):
    net, x = ChannelsLast().double(), torch.randn(2, 3, 16, 8, dtype=torch.float64)
    weight, step = net.conv.weight, 1e-6
    found = explain(net, x, 1, GradCAM("keep", relu, from_channels_last), create_graph=True)
    (gradient,) = torch.autograd.grad(found.heatmap.square().sum() + found.logits.sum(), weight)
    direction, losses = torch.randn_like(weight), []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        small = cam(net, x, "keep", lambda out: out[:, 1], from_channels_last, relu)
        large = F.interpolate(small, x.shape[2:], mode="bilinear").expand_as(x)
        losses.append((large.square().sum() + net(x).sum()).detach())
        with torch.no_grad():
            weight -= sign * step * direction
    numeric = (losses[0] - losses[1]) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-8)


class Flat(nn.Module):
    """Takes (N, F) or (N, H, W) to images itself."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.conv(x.reshape(len(x), 1, 8, 8)).relu().mean((2, 3)))


REFUSED = {
    "a flat input": (Flat(), (2, 64), GradCAM("conv"), r"\(2, 2, 6, 6\) for x of shape \(2, 64\)"),
    "no axis of channels": (Flat(), (2, 8, 8), GradCAM("conv"), r"\(2, 2, 6, 6\) for x of shape \(2, 8, 8\)"),
    "one image's tokens": (
        Tokens(),
        (1, 3, 16, 8),
        GradCAM("norm"),
        r"\(1, 9, 12\) for x of shape \(1, 3, 16, 8\); .*from_tokens",
    ),
    "as many images as tokens": (Tokens(), (9, 3, 16, 8), GradCAM("norm"), r"\(9, 9, 12\)"),
    "a layer norm": (ChannelsLast(), (2, 3, 16, 8), GradCAM("norm"), r"channels of 'norm' .*last: \(2, 4, 2, 12\)"),
    "an unknown module, channels last": (
        ChannelsLast(),
        (2, 3, 16, 8),
        GradCAM("keep"),
        r"last: \(2, 4, 2, 12\).*from_channels_last",
    ),
    "a recurrent layer": (
        Sequence(),
        (2, 7, 5),
        GradCAM("rnn"),
        r"channels of 'rnn' .*last: \(2, 7, 8\) for x of shape \(2, 7, 5\)",
    ),
    "of x's length": (Sequence(), (2, 7, 5), GradCAM("keep"), r"channels of 'keep' .*last"),
    "features last on both sides": (
        Sequence(),
        (2, 7, 5),
        GradCAM("keep", reshape=from_channels_last),
        "channel_dim=-1",
    ),
    "a linear layer": (Flat(), (2, 64), GradCAM("head"), r"\(2, 3\) for x of shape"),
    "another grid": (
        Tokens(),
        (2, 3, 16, 8),
        GradCAM("norm", reshape=from_tokens(4, 4)),
        r"needs \(N, 17, C\), got \(2, 9, 12\)",
    ),
    "no class token": (
        Tokens(),
        (2, 3, 16, 8),
        GradCAM("norm", reshape=from_tokens(4, 2, skip=0)),
        r"needs \(N, 8, C\)",
    ),
    "another layer": (ConvNet(2), (2, 3, 9, 9), GradCAM("cnov"), "no layer 'cnov'; near names: conv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_mean_nothing_is_refused_with_both_shapes(case):
    net, shape, method, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        explain(net.eval(), torch.rand(shape), 0, method)


def test_settings_of_other_kinds_are_refused():
    with pytest.raises(TypeError, match="layer must be a module's name"):
        GradCAM(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="channel_dim must be"):
        GradCAM("conv", channel_dim=2)
    with pytest.raises(ValueError, match="its own layer 'conv' only"):
        explain(ConvNet(2), torch.rand(2, 3, 9, 9), 0, GradCAM("conv"), layers=["head"])


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 3, 32, 20)])
def test_the_layer_is_believed_where_its_sizes_do_not_speak_against_it(shape):
    explain(ConvNet(2), torch.rand(shape), 0, GradCAM("conv"))


def test_an_identity_says_that_channels_are_first_after_all():
    net, x = ConvNet(1, channels=5), torch.rand(2, 5, 9)
    net.act = nn.Tanh()
    net.forward = lambda x: net.head(net.act(net.conv(x)).mean(2))
    with pytest.raises(ValueError, match="seem to be last"):
        explain(net, x, 0, GradCAM("act"))
    found = explain(net, x, 0, GradCAM("act", reshape=lambda a: a))
    torch.testing.assert_close(found.layers["act"], cam(net, x, "act", lambda out: out[:, 0]))


# ---------------------------------------------------------------- metrics and losses


@pytest.mark.parametrize("measure", [epg, lambda h, m: heatmap_iou(h, m, threshold=0.5), energy_loss])
@pytest.mark.parametrize("shape", [(2, 9, 12), (2, 4, 2, 12), (2, 16, 8, 3)])
def test_maps_of_tokens_or_channels_last_are_refused_where_an_image_is_asked_for(measure, shape):
    mask = torch.zeros(2, 16, 8, dtype=torch.long)
    mask[:, :4] = 1
    with pytest.raises(ValueError):
        measure(torch.rand(shape), mask)


def test_a_reshaped_map_goes_into_metrics_and_losses():
    net, x = Tokens().eval(), torch.randn(2, 3, 16, 8)
    mask = torch.zeros(2, 16, 8, dtype=torch.long)
    mask[:, :4] = 1
    found = explain(net, x, 1, GradCAM("norm", reshape=from_tokens(4, 2)))
    assert epg(found.heatmap, mask).shape == epg(found.layers["norm"], mask).shape == (2,)
    assert energy_loss(found.layers["norm"], mask).isfinite()
