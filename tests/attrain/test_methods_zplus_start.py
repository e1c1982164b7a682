"""Where z⁺ and Dual start: at z_k of the layers from which the explained number comes, however it is handed on.

The oracle has z⁺'s linear layers by hand (`oracles.zplus_linear`) and knows which of them are the last.
"""

import types
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain import LRP, ZB, Dual, ZPlus, explain
from tests.attrain.oracles import EPSILON, zplus_linear

Pair = namedtuple("Pair", "features logits")


@dataclass
class Output:
    logits: Tensor


class Net(nn.Module):
    """Two layers, and whatever is done with the logits (N, 6)."""

    def __init__(self, give=lambda logits: logits):
        super().__init__()
        self.a, self.b, self.give = nn.Linear(5, 8), nn.Linear(8, 6), give
        generator = torch.Generator().manual_seed(0)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)
        self.double().eval()

    def forward(self, x):
        self.hidden = self.a(x)
        self.kept = self.b(self.hidden.relu())
        return self.give(self.kept)


def images(n=3):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1)).double()


def by_hand(start, last=True, both=False) -> Tensor:
    """The map of start(logits), or start(hidden, logits), (N,) numbers; `last`: the logits come right from a layer."""
    net, x = Net(), images().requires_grad_()
    hidden = zplus_linear(x, net.a.weight, net.a.bias, last=both)
    plain = zplus_linear(x, net.a.weight, net.a.bias)
    logits = zplus_linear(plain.relu(), net.b.weight, net.b.bias, last=last)
    score = start(hidden, logits) if both else start(logits)
    return (torch.autograd.grad(score.sum(), x)[0] * x).detach()


def zeros(logits):
    return torch.zeros(logits.shape, dtype=logits.dtype)


def written(logits):
    found = zeros(logits)
    for k in range(logits.shape[1]):
        found[:, k] = logits[:, k]
    return found


def copied(logits):
    found = zeros(logits)
    found[:, :3].copy_(logits[:, :3])
    found[:, 3:] = logits[:, 3:]
    return found


HANDED_ON = {
    "itself": lambda y: y,
    "clone": lambda y: y.clone(),
    "torch.clone": lambda y: torch.clone(input=y),
    "* 1.0": lambda y: y * 1.0,
    "1 * logits": lambda y: 1 * y,
    "/ 1": lambda y: y / 1,
    "mul_": lambda y: y.mul_(1.0),
    "view": lambda y: y.view(len(y), 6),
    "view(-1, 6)": lambda y: y.view(-1, 6),
    "view_as": lambda y: y.view_as(y),
    "reshape": lambda y: y.reshape(len(y), -1),
    "flatten": lambda y: y.flatten(1),
    "F of nn.Flatten": nn.Flatten(),
    "unflatten": lambda y: y.unflatten(1, (2, 3)).flatten(1),
    "unsqueeze, squeeze": lambda y: y.unsqueeze(1).squeeze(1),
    "squeeze": lambda y: y[:, None].squeeze(),
    "squeeze_": lambda y: y.unsqueeze(2).squeeze_(2),
    "transpose": lambda y: y.transpose(0, 1).transpose(0, 1),
    "T": lambda y: y.T.T,
    "permute": lambda y: y.permute(1, 0).permute(1, 0),
    "contiguous": lambda y: y.T.contiguous().T.contiguous(),
    "to(float64)": lambda y: y.to(torch.float64),
    "double": lambda y: y.double(),
    "to and back": lambda y: y.to(torch.float32).to(torch.float64),
    "expand": lambda y: y.expand(len(y), 6),
    "nn.Identity": nn.Identity(),
    "dropout in evaluation": lambda y: F.dropout(y, 0.5, training=False),
    "[:]": lambda y: y[:],
    "a choice of columns": lambda y: y[:, [0, 1, 2, 3, 4, 5]],
    "index_select": lambda y: y.index_select(1, torch.arange(6)),
    "gather": lambda y: y.gather(1, torch.arange(6).expand(len(y), 6)),
    "flip twice": lambda y: y.flip(1).flip(1),
    "roll": lambda y: y.roll(1, 1).roll(-1, 1),
    "split and cat": lambda y: torch.cat(y.split(2, 1), 1),
    "unbind and stack": lambda y: torch.stack(y.unbind(1), 1),
    "chunk": lambda y: torch.cat(y.chunk(3, -1), -1),
    "with others behind": lambda y: torch.cat([y, torch.ones(len(y), 2).double()], 1),
    "masked_fill": lambda y: y.masked_fill(torch.arange(6) > 4, -9.0),
    "where": lambda y: torch.where(torch.arange(6) > 4, -9.0, y),
    "pad": lambda y: F.pad(y, (0, 2)),
    "written column by column": written,
    "copied into a constant": copied,
    "the mean of equals": lambda y: torch.stack([y, y], 1).mean(1),
    "the largest of equals": lambda y: F.max_pool1d(torch.stack([y, y], 2), 2)[..., 0],
    "pooled": lambda y: F.adaptive_avg_pool1d(y[..., None].expand(len(y), 6, 4), 1)[..., 0],
    "enlarged": lambda y: F.interpolate(y[..., None, None], (2, 2), mode="bilinear")[..., 0, 0],
    "cast in autocast": lambda y: _in_autocast(y),
}
RETURNED = {  # what the model returns, how the target takes the logits from it
    ".logits": (lambda y: types.SimpleNamespace(logits=y), None),
    ".logits, a copy": (lambda y: types.SimpleNamespace(logits=y.clone()), None),
    ".logits of a dataclass": (Output, None),
    ".logits, by a target": (Output, lambda found: found.logits),
    "a tuple": (lambda y: (y, y.relu()), lambda found: found[0]),
    "a list": (lambda y: [y.clone()], lambda found: found[0]),
    "a named tuple": (lambda y: Pair(0, y[:]), lambda found: found.logits),
    "a dict": (lambda y: {"out": y}, lambda found: found["out"]),
    "a dict in a tuple": (lambda y: ({"out": y.view(-1, 6)}, None), lambda found: found[0]["out"]),
    "rows": (lambda y: y.unbind(0), torch.stack),
    "columns": (lambda y: y.split(1, 1), lambda found: torch.cat(found, 1)),
    "a map": (lambda y: y[:, :, None, None].expand(len(y), 6, 2, 2), lambda found: found.mean((2, 3))),
    "transposed": (lambda y: y.T, lambda found: found.T),
    "a function": (lambda y: lambda: y, lambda found: found()),
}


def _in_autocast(y):
    with torch.autocast("cpu", torch.bfloat16):
        return y.contiguous()


@pytest.mark.parametrize("method", [ZPlus(EPSILON), Dual(EPSILON)], ids=["z+", "dual"])
@pytest.mark.parametrize("way", HANDED_ON)
def test_logits_that_are_handed_on_start_at_their_positive_part(way, method):
    found = explain(Net(HANDED_ON[way]), images(), *((1, method) if type(method) is ZPlus else ("all", method))).heatmap
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if way == "to and back" else {}
    if type(method) is ZPlus:
        torch.testing.assert_close(found, by_hand(lambda logits: logits[:, 1]), **tolerance)
        return
    shown = 5 if way in ("masked_fill", "where") else 6
    wanted = (
        by_hand(lambda logits: logits[:, :shown].sum(1)),
        explain(Net(), images(), _sum(shown), LRP(EPSILON)).heatmap,
    )
    torch.testing.assert_close(found, torch.stack(wanted, 1), **tolerance)


def _sum(count):
    return lambda logits: logits[:, :count].sum(1)


@pytest.mark.parametrize("way", RETURNED)
def test_what_the_model_returns_does_not_matter(way):
    give, take = RETURNED[way]
    target = 1 if take is None else lambda found: take(found)[:, 1]
    found = explain(Net(give), images(), target, ZPlus(EPSILON)).heatmap
    torch.testing.assert_close(found, by_hand(lambda logits: logits[:, 1]))


def test_one_logit_a_sample():
    for give in (lambda y: y[:, 1], lambda y: y[:, 1:2], lambda y: y[:, 1:2].squeeze(1), lambda y: y[:, 1:2].view(-1)):
        found = explain(Net(give), images(), 0, ZPlus(EPSILON)).heatmap
        torch.testing.assert_close(found, by_hand(lambda logits: logits[:, 1]))


def test_several_maps_a_sample_start_each_at_its_own():
    found = explain(Net(lambda y: y.clone()), images(), "all", ZPlus(EPSILON)).heatmap
    for k in range(6):
        torch.testing.assert_close(found[:, k], by_hand(lambda logits, k=k: logits[:, k]))


def test_a_factor_multiplies_where_it_starts():
    found = explain(Net(lambda y: y / 0.07), images(), 1, ZPlus(EPSILON)).heatmap
    torch.testing.assert_close(found, by_hand(lambda logits: logits[:, 1]) / 0.07)


@pytest.mark.parametrize(
    "end", [torch.relu, lambda y: y.clone().relu_(), lambda y: y.relu_(), lambda y: F.relu(y).clone()]
)
def test_behind_a_relu_it_starts_at_the_logit(end):
    found = explain(Net(end), images(), 1, ZPlus(EPSILON)).heatmap
    torch.testing.assert_close(found, by_hand(lambda logits: logits.relu()[:, 1], last=False))


@pytest.mark.parametrize("which", ["the logits", "the hidden layer", "both"])
def test_each_layer_starts_by_what_the_target_takes_of_it(which):
    """The hidden layer is returned too, and is a layer like others to what goes on to the logits."""
    net = Net()
    net.give = lambda y: (net.hidden, y)
    take = {
        "the logits": lambda hidden, logits: logits[:, 1],
        "the hidden layer": lambda hidden, logits: hidden[:, 2],
        "both": lambda hidden, logits: hidden[:, 2] + 3 * logits[:, 1],
    }[which]
    found = explain(net, images(), lambda found: take(*found), ZPlus(EPSILON)).heatmap
    torch.testing.assert_close(found, by_hand(take, both=True))


def test_a_target_that_takes_what_the_model_keeps():
    net = Net(lambda y: y * 0)
    found = explain(net, images(), lambda _: net.kept[:, 1], ZPlus(EPSILON)).heatmap
    torch.testing.assert_close(found, by_hand(lambda logits: logits[:, 1]))


@pytest.mark.parametrize(
    "copy", [lambda h: h.clone(), lambda h: h.contiguous(), lambda h: h.view_as(h), nn.Dropout(0.5).eval()]
)
@pytest.mark.parametrize(
    "method", [ZPlus(), ZPlus(first_layer=ZB()), LRP(first_layer=ZB())], ids=["z+", "z+, z^B", "z^B"]
)
@pytest.mark.parametrize("place", ["before the convolution", "before the norm", "before the ReLU", "after it"])
def test_a_copy_within_the_first_layers_changes_nothing(copy, method, place):
    torch.manual_seed(0)
    conv, norm, head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.bias.data.normal_()

    def model(at):
        def forward(x):
            for name, f in [("before the convolution", conv), ("before the norm", norm), ("before the ReLU", F.relu)]:
                x = f(copy(x) if at == name else x)
            return head((copy(x) if at == "after it" else x).mean((2, 3)))

        net = nn.Module()
        net.layers, net.forward = nn.ModuleList([conv, norm, head]), forward
        return net.eval()

    x = torch.rand(2, 3, 8, 8)
    wanted, found = (explain(model(at), x, 0, method).heatmap for at in (None, place))
    torch.testing.assert_close(found, wanted)


class Cast(nn.Module):
    """A network that casts by itself: its backward pass is run outside."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(200, 8), nn.ReLU(), nn.Linear(8, 4),
        ).eval()  # fmt: skip

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x)


@pytest.mark.parametrize("give", HANDED_ON.values(), ids=HANDED_ON)
def test_logits_in_half_precision_are_handed_on_too(give):
    torch.manual_seed(0)
    model, x, method = Cast(), torch.rand(2, 3, 16, 16), ZPlus()
    model.net.append(nn.Linear(4, 6))
    wanted = explain(model, x, 1, method)
    found = explain(nn.Sequential(model, Handed(give)), x, 1, method)
    torch.testing.assert_close(found.heatmap, wanted.heatmap, rtol=0.02, atol=0.02 * float(wanted.heatmap.abs().max()))


class Handed(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, y):
        return self.give(y)


@pytest.mark.parametrize(
    "method", [ZPlus(), Dual(), ZPlus(first_layer=ZB()), LRP()], ids=["z+", "dual", "z+, z^B", "lrp"]
)
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("where", ["inside", "around"])
def test_maps_under_autocast_are_those_of_single_precision_but_for_rounding(where, create_graph, method):
    torch.manual_seed(0)
    model, x, target = Cast(), torch.rand(2, 3, 16, 16), None if isinstance(method, Dual) else 0
    wanted = explain(model.net, x, target, method).heatmap
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "around"):
        result = explain(model if where == "inside" else model.net, x, target, method, create_graph=create_graph)
        found = result.heatmap
        if create_graph:
            found.sum().backward()
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert float((found.detach() - wanted).norm() / wanted.norm()) < 0.05
