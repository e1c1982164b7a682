"""Maps that are trained on have the parameter gradients that torch's own double backward gives."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import LRP, ZB, DeepLift, InputXGradient, explain
from attrain.engine.fast import convolution

GEOMETRIES = {
    "1d": (nn.Conv1d(4, 6, 3), (4, 9)),
    "2d": (nn.Conv2d(4, 6, 3, padding=1), (4, 7, 6)),
    "3d": (nn.Conv3d(2, 3, 2), (2, 4, 3, 4)),
    "strided, dilated": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 2)), (4, 9, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), (4, 7, 6)),
    "padding by name": (nn.Conv2d(4, 6, 5, padding="same"), (4, 7, 6)),
    "padded in a circle": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 7, 6)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1), (4, 5, 4)),
    "transposed, grouped": (nn.ConvTranspose1d(4, 6, 3, groups=2, dilation=2), (4, 5)),
    "weight larger than the image": (nn.Conv2d(4, 40, 3, padding=1), (4, 2, 2)),
    "few channels, strided": (nn.Conv2d(3, 6, 7, stride=2, padding=3), (3, 9, 10)),
    "patches, and a rest": (nn.Conv2d(1, 6, 4, stride=4), (1, 9, 11)),
    "stride larger than the kernel": (nn.Conv2d(2, 6, (2, 1), stride=3, padding=(1, 0)), (2, 8, 7)),
    "uneven kernel and padding": (nn.Conv2d(3, 6, (5, 4), stride=2, padding=(1, 2)), (3, 8, 7)),
}


def gradients(model, x, maps):
    """Of a loss of the logits and of the maps (K, N, ...), by name of the parameter."""
    logits, heatmaps = maps(model, x)
    loss = F.cross_entropy(logits, torch.arange(len(x)) % logits.shape[1]) + (heatmaps**2).sum(0).tanh().mean()
    names, parameters = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad])
    return dict(zip(names, torch.autograd.grad(loss, parameters)))


def by_explain(model, x):
    found = explain(model, x, "all", InputXGradient(), create_graph=True)
    return found.logits, found.heatmap.transpose(0, 1)


def by_torch(model, x):
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    maps = [torch.autograd.grad(logit.sum(), leaf, create_graph=True)[0] * x for logit in logits.unbind(1)]
    return logits, torch.stack(maps)


def network(convolution, shape):
    torch.manual_seed(0)
    convolution = copy.deepcopy(convolution)
    first = nn.Sequential(nn.Linear(shape[-1], shape[-1]), nn.Tanh(), convolution, nn.Tanh(), nn.Flatten())
    features = first(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(*first, nn.Linear(features, 3)).double(), torch.rand(2, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_parameter_gradients_are_those_of_the_ordinary_double_backward(name, frozen):
    model, x = network(*GEOMETRIES[name])
    model[2].weight.requires_grad_(not frozen)
    expected, found = gradients(model, x, by_torch), gradients(model, x, by_explain)
    assert found.keys() == expected.keys()
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, msg=parameter)


@pytest.mark.parametrize("image", [2, 12], ids=["weight larger", "image larger"])
def test_a_loss_of_the_map_alone_reaches_the_weight(image):
    """Without activation functions no gradient comes back through the activations."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * image**2, 2)).double()
    x = torch.rand(2, 3, image, image, dtype=torch.float64)
    loss = explain(model, x, 0, InputXGradient(), create_graph=True).heatmap.square().sum()
    expected = by_torch(model, x)[1][0].square().sum()
    torch.testing.assert_close(*(torch.autograd.grad(v, model[0].weight) for v in (loss, expected)))


def test_the_graph_can_be_used_twice():
    model, x = network(*GEOMETRIES["weight larger than the image"])
    logits, heatmaps = by_explain(model, x)
    loss = logits.sum() + heatmaps.square().sum()
    first = torch.autograd.grad(loss, model[2].weight, retain_graph=True)
    torch.testing.assert_close(first, torch.autograd.grad(loss, model[2].weight))


def test_maps_can_be_differentiated_three_times():
    model, x = network(*GEOMETRIES["weight larger than the image"])
    weight, results = model[2].weight, []
    for maps in (by_explain, by_torch):
        loss = maps(model, x)[1].square().sum()
        (g,) = torch.autograd.grad(loss, weight, create_graph=True)
        results.append(torch.autograd.grad(g.square().sum(), weight)[0])
    torch.testing.assert_close(*results)


class Front(nn.Module):
    """What stands before the first convolution: fixed, with a parameter, or a sum of both."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.scale = kind, nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        fixed, learned = (x - 0.4) / 0.3, self.scale * x
        return {"fixed": fixed, "learned": learned, "both": learned.tanh() + fixed}[self.kind]


@pytest.mark.parametrize("kind", ["fixed", "learned", "both"])
def test_only_before_the_first_parameter_is_no_input_gradient_made_for_the_loss(kind, monkeypatch):
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(27, 3)
    model, x = nn.Sequential(Front(kind), *layers).double(), torch.rand(2, 2, 5, 5, dtype=torch.float64)
    model[0].scale.requires_grad_(kind != "fixed")
    expected, made = gradients(model, x, by_torch), []
    backward = convolution._backward
    monkeypatch.setattr(
        convolution, "_backward", lambda *args: made.append((args[2].shape[1], args[-1][0])) or backward(*args)
    )
    found = gradients(model, x, by_explain)
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, msg=parameter)
    maps, losses = 3, kind != "fixed"  # input gradients of the layer of two channels
    assert made.count((2, True)) == maps + losses and made.count((4, True)) == maps + 1


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("method", [InputXGradient(), DeepLift()], ids=["input × gradient", "DeepLIFT"])
def test_the_first_layers_map_is_that_of_torchs_gradient(name, method):
    torch.manual_seed(0)
    layer, shape = GEOMETRIES[name]
    first = copy.deepcopy(layer)
    model = nn.Sequential(first, nn.Flatten(), nn.Linear(first(torch.zeros(1, *shape)).numel(), 3)).double()
    x = torch.rand(2, *shape, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    torch.testing.assert_close(explain(model, x.detach(), 1, method).heatmap, gradient * x.detach())


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 2.0), (-2.0, 0.0)])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_zb_maps_of_convolutions_are_the_same_with_and_without_a_graph(low, high, dims):
    torch.manual_seed(0)
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    model = nn.Sequential(convolution(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4**dims, 2)).double()
    x = torch.rand(2, 2, *[4] * dims, dtype=torch.float64) * (high - low) + low
    maps = [explain(model, x, 0, LRP(first_layer=ZB(low, high)), create_graph=graph).heatmap for graph in (0, 1)]
    torch.testing.assert_close(maps[0], maps[1].detach())


def rectified(name):
    """Two layers, of which the first writes into its result."""
    layer, shape = GEOMETRIES[name]
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(shape[-1], shape[-1]), nn.ReLU(), copy.deepcopy(layer), nn.ReLU(inplace=True))
    features = first(torch.zeros(1, *shape)).flatten(1).shape[1]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(features, 3)).double(), torch.rand(3, *shape).double()


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("frozen", ["", "2.weight", "0"])
def test_a_reference_that_shares_the_batchs_pass_gives_what_one_a_sample_does(name, frozen):
    model, x = rectified(name)
    for parameter, value in model.named_parameters():
        value.requires_grad_(not frozen or not parameter.startswith(frozen))
    one = torch.rand_like(x[:1])

    def by(reference):
        def maps(model, x):
            found = explain(model, x, "all", DeepLift(reference), create_graph=True)
            return found.logits, found.heatmap.transpose(0, 1)

        return maps

    for ways in zip(by(one)(model, x), by(one.expand_as(x).contiguous())(model, x)):
        torch.testing.assert_close(*ways)
    expected, found = gradients(model, x, by(one.expand_as(x).contiguous())), gradients(model, x, by(one))
    for parameter, value in expected.items():
        torch.testing.assert_close(found[parameter], value, msg=parameter)


def test_a_reference_of_one_sample_is_not_convolved_apart(monkeypatch):
    model, x = rectified("2d")
    seen, plain = [], torch.convolution
    monkeypatch.setattr(torch, "convolution", lambda x, *rest: seen.append(len(x)) or plain(x, *rest))
    explain(model, x, 0, DeepLift(), create_graph=True)
    assert seen == [len(x) + 1]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("cut", [False, True], ids=["dense", "every other pixel"])
def test_a_shared_pass_leaves_the_layout_of_activations_as_it_is(channels, cut):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.seen = nn.Conv2d(channels, 4, 3), nn.Linear(64, 3), []

        def forward(self, x):
            h = self.first(x[:, :, ::2] if cut else x)
            self.seen.append((h.stride(), h.shape))
            return self.last(h.permute(0, 2, 3, 1).reshape(len(x), -1).relu())

    model, x = Looks(), torch.rand(3, channels, 12 if cut else 6, 6).contiguous(memory_format=torch.channels_last)
    reference = torch.rand(1, *x.shape[1:])
    logits = explain(model, x, 0, DeepLift(reference), create_graph=True).logits
    torch.testing.assert_close(logits, model(x))
    assert len({*model.seen}) == 1


def test_a_stride_may_be_numpys():
    model, x = rectified("2d")
    strided = lambda x: model[3:](F.conv2d(model[:2](x), model[2].weight, padding=np.int64(1), stride=np.int64(1)))  # noqa: E731
    plain = lambda x: model[3:](F.conv2d(model[:2](x), model[2].weight, padding=1))  # noqa: E731
    maps = [explain(f, x, 0, DeepLift(), create_graph=True).heatmap for f in (strided, plain)]
    torch.testing.assert_close(*maps)
