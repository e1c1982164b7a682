"""Batch norm's rules for maps, against torch's own derivatives and finite differences."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from attrain import BCos, GradCAM, Gradient, GuidedBackprop, InputXGradient, UnsupportedOperation, explain
from attrain.engine.fast.batchnorm import _InputGradient, batch_norm
from attrain.engine.mode import Backward
from attrain.methods import Method
from attrain.methods.gradient import InputXGradientMode
from tests.attrain.oracles import frozen

SHAPES = [(6, 3), (3, 2, 4), (4, 3, 5, 2), (2, 3, 2, 3, 2)]


def inputs(shape, affine):
    draw = lambda *s: torch.randn(s, dtype=torch.float64, requires_grad=True)  # noqa: E731
    return draw(*shape), *((draw(shape[1]), draw(shape[1])) if affine else ())


def gradient_map(x, *affine, switch=None):
    """The gradient of something curved in the output, as a map is made; without a switch by torch's batch norm."""
    norm = F.batch_norm if switch is None else partial(batch_norm, switch, True)
    y = norm(x, None, None, *affine, training=True, eps=1e-3)
    switch = Backward() if switch is None else switch
    switch.explaining = True
    curved = (y**3 * torch.arange(1.0, x.numel() + 1).view_as(x)).sum()
    (gradient,) = torch.autograd.grad(curved, x, create_graph=True)
    switch.explaining = False
    return gradient


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_and_its_derivatives_are_torchs(shape, affine):
    values, direction = inputs(shape, affine), torch.randn(shape, dtype=torch.float64)
    found = []
    for switch in (Backward(), None):
        map_ = gradient_map(*values, switch=switch)
        found.append([map_, *torch.autograd.grad((map_ * direction).square().sum(), values)])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_are_those_of_finite_differences(shape):
    x, weight, _ = inputs(shape, True)
    dims = [d for d in range(x.ndim) if d != 1]

    def gradient(g, x, weight):
        var, mean = torch.var_mean(x.detach(), dims, correction=0)
        return _InputGradient.apply(g, x, weight, mean, (var + 1e-3).rsqrt(), 1e-3)

    torch.autograd.gradcheck(gradient, (torch.randn_like(x, requires_grad=True), x, weight))


def network(dtype=torch.float64):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(64, 3),
    ).to(dtype)  # fmt: skip


def trained(net, x, method, **options):
    net.zero_grad()
    found = explain(net, x, 0, method, create_graph=True, **options)
    (found.heatmap.square().sum() + F.cross_entropy(found.logits, torch.arange(len(x)) % 3)).backward()
    return found.heatmap, [p.grad.clone() for p in net.parameters()]


def test_a_map_trained_on_in_training_mode_has_the_gradients_of_plain_autograd():
    net, x = network(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    heatmap, found = trained(net, x, InputXGradient(batch_statistics=True))
    net.zero_grad()
    leaf = x.clone().requires_grad_()
    logits = net(leaf)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), leaf, create_graph=True)
    (((gradient * x) ** 2).sum() + F.cross_entropy(logits, torch.arange(5) % 3)).backward()
    torch.testing.assert_close(heatmap, gradient * x)
    for ours, parameter in zip(found, net.parameters()):
        torch.testing.assert_close(ours, parameter.grad)


def test_running_statistics_are_updated_once_as_ever():
    net, other, x = network(), network(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    trained(net, x, InputXGradient())
    other(x)
    for a, b in zip(net.buffers(), other.buffers()):
        torch.testing.assert_close(a, b)


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_keeps_its_types(autocast):
    net, x = network(torch.float32), torch.rand(5, 2, 8, 8)
    reference = trained(net, x, InputXGradient())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        heatmap, gradients = trained(net, x, InputXGradient())
    assert heatmap.dtype == torch.float32
    for a, b in ((heatmap, reference[0]), (flat(gradients), flat(reference[1]))):
        assert (a - b).norm() <= (0.1 if autocast else 1e-6) * b.norm()


@pytest.mark.parametrize("create_graph", [False, True])
def test_without_batch_statistics_the_map_is_that_of_the_network_with_these_statistics_fixed(create_graph):
    net, x = network(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    found = explain(net, x, 0, InputXGradient(), create_graph=create_graph)
    torch.testing.assert_close(found.heatmap, explain(frozen(net, x), x, 0, InputXGradient()).heatmap)
    assert not torch.allclose(found.heatmap, explain(net, x, 0, InputXGradient(batch_statistics=True)).heatmap)


def test_without_batch_statistics_the_maps_derivative_knows_the_batch():
    net, x = network(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    method = InputXGradient()
    _, found = trained(net, x, method)

    def loss():
        made = explain(net, x, 0, method, create_graph=True)
        return (made.heatmap.square().sum() + F.cross_entropy(made.logits, torch.arange(5) % 3)).item()

    for parameter, gradient in zip(net.parameters(), found):
        flat, step = parameter.data.view(-1), 1e-6
        flat[0] += step
        above = loss()
        flat[0] -= 2 * step
        below = loss()
        flat[0] += step
        assert (above - below) / (2 * step) == pytest.approx(gradient.view(-1)[0].item(), rel=1e-5, abs=1e-7)


METHODS = [InputXGradient(), GuidedBackprop(), GradCAM("0"), BCos(), Gradient(batch_statistics=False)]


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("affine", [True, False])
def test_what_a_checkpoint_recomputes_is_not_taken_for_what_the_map_needs(affine, method, create_graph):
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    norm = Checkpointed(nn.BatchNorm2d(4, affine=affine))
    net = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(UnsupportedOperation):
        explain(net, torch.rand(5, 2, 8, 8), 0, method, create_graph=create_graph)


class Conditional(nn.Module):
    """Batch norm whose scale, or whose running mean, is made of the input."""

    def __init__(self, what):
        super().__init__()
        self.what, self.running = what, [torch.zeros(2).double(), torch.ones(2).double()]

    def forward(self, x):
        scale = shift = None
        if self.what == "scale and shift":
            scale, shift = 1 + x.mean((0, 2, 3)), x.amax((0, 2, 3))
        if self.what == "running mean":
            self.running[0] = 0.9 * self.running[0] + x.detach().mean((0, 2, 3))
        return F.batch_norm(x, *self.running, scale, shift, True, 0.0)


@pytest.mark.parametrize("what", ["scale and shift", "running mean"])
def test_statistics_are_constants_also_where_other_numbers_of_the_norm_are_made_of_the_input(what):
    x = torch.rand(3, 2, 2, 2, dtype=torch.float64)
    found = explain(nn.Sequential(Conditional(what), nn.Flatten()), x, 5, InputXGradient(), create_graph=True).heatmap
    leaf, (var, mean) = x.clone().requires_grad_(), torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    y = (leaf - mean) * (var + 1e-5).rsqrt()
    if what == "scale and shift":
        y = y * (1 + leaf.mean((0, 2, 3)))[:, None, None] + leaf.amax((0, 2, 3))[:, None, None]
    (gradient,) = torch.autograd.grad(y.flatten(1)[:, 5].sum(), leaf)
    torch.testing.assert_close(found, gradient * x)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_statistics_are_constants_behind_a_part_that_nobody_sees():
    net, x = network(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    expected = explain(net, x, 0, InputXGradient()).heatmap
    net[0] = torch.jit.script(net[0])
    torch.testing.assert_close(explain(net, x, 0, InputXGradient()).heatmap, expected)


def test_batch_norm_over_a_vmapped_dimension_is_refused():
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    net = lambda x: torch.vmap(lambda w: norm(x @ w))(torch.ones(2, 3, 4)).sum(0)  # noqa: E731
    with pytest.raises(UnsupportedOperation, match=r"in torch\.vmap"):
        explain(net, torch.rand(5, 3), 0, InputXGradient())


def test_a_mode_of_ones_own_says_by_an_attribute_whether_the_map_passes_through_statistics():
    class Mine(InputXGradientMode):
        through = True

    class Own(Method):
        def mode(self, *args):
            return Mine(*args)

    net, x = network(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    expected = explain(net, x, 0, InputXGradient(batch_statistics=True)).heatmap
    torch.testing.assert_close(explain(net, x, 0, Own()).heatmap, expected)
