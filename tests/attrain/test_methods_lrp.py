"""ReLUs that end at a number, under LRP-ε and z⁺: by the formulas, by Zennit, and their derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zennit.composites import NameMapComposite
from zennit.rules import Pass
from zennit.rules import ZPlus as ZennitZPlus

from attrain import LRP, ZB, Dual, UnsupportedOperation, ZPlus, explain
from attrain.methods import Zennit

EPSILON, CAP = 0.1, 0.8
SPELLINGS = {
    "hardtanh": lambda z: F.hardtanh(z, 0.0, CAP),
    "hardtanh in place": lambda z: F.hardtanh_(z, 0.0, CAP),
    "module": nn.Hardtanh(0.0, CAP),
    "clamp": lambda z: z.clamp(0, CAP),
    "clamp by keywords": lambda z: torch.clamp(z, min=0, max=CAP),
    "clamp in place": lambda z: z.clamp_(0, CAP),
    "clip": lambda z: torch.clip(z, 0.0, CAP),
}


class Two(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, activation, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 7).double(), nn.Linear(7, 3).double()
        self.activation, self.scale = activation, scale

    def forward(self, x):
        return self.b(self.activation(self.scale * self.a(x)))


def inputs():
    return 3 * torch.randn(4, 5, dtype=torch.float64)


def by_hand(net, x, cap, epsilon=EPSILON):
    """R = x · Wᵀ(y · w / (z + ε)) for class 1, with z > 0 and y = min(z, c)."""
    z = net.a(x)
    share = torch.where(z > 0, z.clamp(0, cap) / (z + epsilon), 0)
    return x * (net.b.weight[1] * share @ net.a.weight)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_capped_relu_hands_its_relevance_on(spelling):
    net, x = Two(SPELLINGS[spelling]), inputs()
    assert (net.a(x) > CAP).any()
    torch.testing.assert_close(explain(net, x, 1, LRP(EPSILON)).heatmap, by_hand(net, x, CAP))


@pytest.mark.parametrize(
    "activation",
    [F.relu6, nn.ReLU6(), nn.ReLU6(inplace=True), lambda z: F.relu6(z, inplace=True), lambda z: z.clip(min=0, max=6.0)],
)
def test_relu6_is_one_that_ends_at_six(activation):
    net, x = Two(activation), 10 * inputs()
    assert (net.a(x) > 6).any()
    torch.testing.assert_close(explain(net, x, 1, LRP(EPSILON)).heatmap, by_hand(net, x, 6))


@pytest.mark.parametrize(
    "activation", [lambda z: z.clamp(min=0), lambda z: z.clamp(0), lambda z: torch.clamp_min(z, 0)]
)
def test_a_clamp_at_zero_is_a_relu(activation):
    x = inputs()
    expected = explain(Two(F.relu), x, 1, LRP(EPSILON)).heatmap
    torch.testing.assert_close(explain(Two(activation), x, 1, LRP(EPSILON)).heatmap, expected)


@pytest.mark.parametrize(
    "activation",
    [lambda z: z.clamp(-1, 1), F.hardtanh, lambda z: z.clamp(max=1), lambda z: z.clamp(torch.zeros(7).double(), z + 1)],
)
@pytest.mark.parametrize("method", [LRP(), ZPlus()])
def test_other_clamps_have_no_rule(activation, method):
    with pytest.raises(UnsupportedOperation, match=r"clamp|hardtanh"):
        explain(Two(activation), inputs(), 1, method)


def test_relu6_by_z_plus_is_that_of_zennit():
    """Without biases, with positive inputs and last weights, where what explains a logit starts the same."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3, bias=False), nn.ReLU6(), nn.Conv2d(6, 4, 3, bias=False), nn.ReLU6(), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(16, 3, bias=False)).double()
    net[0].weight.data *= 20
    net[5].weight.data.abs_()
    x = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    assert (net[0](x) > 6).any()
    theirs = NameMapComposite([(["0", "2", "5"], ZennitZPlus(1e-9)), (["1", "3"], Pass())])
    expected = explain(net, x, 1, Zennit(theirs)).heatmap
    torch.testing.assert_close(explain(net, x, 1, ZPlus(1e-9)).heatmap, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("method", [LRP(EPSILON), LRP(EPSILON, ZB(-9, 9)), ZPlus(EPSILON), Dual(EPSILON)])
def test_the_maps_derivative_is_that_of_finite_differences(method, inplace):
    net, x = Two(nn.Hardtanh(0, CAP, inplace)), inputs()
    target = "all" if isinstance(method, Dual) else 1

    def heatmap(weight):
        with torch.nn.utils.stateless._reparametrize_module(net, {"a.weight": weight}):
            return explain(net, x, target, method, create_graph=True).heatmap

    torch.autograd.gradcheck(heatmap, net.a.weight.detach().clone().requires_grad_(), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("method", [LRP(EPSILON), ZPlus(EPSILON)])
def test_the_logits_keep_their_derivative(method):
    net, x = Two(nn.Hardtanh(0.0, CAP, inplace=True)), inputs()
    expected = torch.autograd.grad(net(x).square().sum(), net.a.weight)[0]
    logits = explain(net, x, 1, method, create_graph=True).logits
    torch.testing.assert_close(torch.autograd.grad(logits.square().sum(), net.a.weight)[0], expected)


def test_at_exactly_zero_and_at_the_end_nothing_is_nan():
    net = Two(lambda z: z.clamp(0, CAP))
    nn.init.zeros_(net.a.weight)
    net.a.bias.data = torch.tensor([0.0, CAP, -0.0, -1.0, 1.0, 0.0, CAP], dtype=torch.float64)
    for epsilon in (0.0, EPSILON):
        heatmap = explain(net, inputs(), 1, LRP(epsilon), create_graph=True).heatmap
        heatmap.sum().backward()
        assert heatmap.isfinite().all() and net.a.weight.grad.isfinite().all()
