"""Batch norm's rules for maps, against torch's own derivatives and finite differences."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import InputXGradient, explain
from attrain.engine.fast.batchnorm import _InputGradient, batch_norm
from attrain.engine.mode import Backward

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


def frozen(net, x):
    """The network with the statistics of this batch, in evaluation mode."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(_take_statistics)
    with torch.no_grad():
        net(x)
    return net


def _take_statistics(norm, args):
    var, mean = torch.var_mean(args[0].detach(), (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean), norm.running_var.copy_(var)
    norm.eval()


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
