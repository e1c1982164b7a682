"""Integrated gradients: points, weights, layers; against naive loops, closed forms and captum."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import IntegratedGradients, explain

QUADRATURES = ("midpoint", "gauss_legendre")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()).sigmoid() ** 2)

    def from_first(self, h):
        return self.head(self.second(h.tanh()).sigmoid() ** 2)


def net_and_x():
    torch.manual_seed(0)
    return Net().double(), torch.randn(3, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)


def points(quadrature, steps):
    if quadrature == "midpoint":
        return [((i + 0.5) / steps, 1 / steps) for i in range(steps)]
    return [((p + 1) / 2, w / 2) for p, w in zip(*np.polynomial.legendre.leggauss(steps))]


def naive(function, x, r, quadrature, steps):
    """One sample, one point after another."""
    total = torch.zeros_like(x)
    for i in range(len(x)):
        for place, weight in points(quadrature, steps):
            point = (r[i] + place * (x[i] - r[i])).detach().requires_grad_()
            total[i] += weight * torch.autograd.grad(function(point[None])[0], point)[0]
    return total * (x - r)


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_the_map_is_the_naive_loop_at_the_input_and_at_a_layer(quadrature, steps):
    net, x, r = net_and_x()
    found = explain(net, x, 1, IntegratedGradients(r, steps, quadrature), layers="first")
    torch.testing.assert_close(found.heatmap, naive(lambda t: net(t)[:, 1], x, r.expand_as(x), quadrature, steps))
    ends = [net.first(t).detach() for t in (x, r.expand_as(x))]
    torch.testing.assert_close(
        found.layers["first"], naive(lambda h: net.from_first(h)[:, 1], *ends, quadrature, steps)
    )
    torch.testing.assert_close(found.delta, (net(x) - net(r))[:, 1].detach())


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
def test_gauss_legendre_is_exact_for_polynomials_and_midpoints_are_not(degree):
    model = lambda x: x**degree  # noqa: E731
    x = torch.rand(2, 3, dtype=torch.float64) + 1
    steps = (degree + 1) // 2  # the derivative's degree is 2 · steps − 2
    exact = explain(model, x, 0, IntegratedGradients(0.0, steps, "gauss_legendre"))
    torch.testing.assert_close(exact.heatmap[:, 0], x[:, 0] ** degree, rtol=1e-12, atol=0)
    if degree > 1:
        rough = explain(model, x, 0, IntegratedGradients(0.0, steps))
        assert (rough.heatmap[:, 0] - x[:, 0] ** degree).abs().min() > 1e-3


def test_gauss_legendre_is_closer_on_a_smooth_network():
    net, x, r = net_and_x()
    gaps = {}
    for quadrature in QUADRATURES:
        found = explain(net, x, 1, IntegratedGradients(r, 10, quadrature), layers="first")
        for name, value in (("x", found.heatmap), ("layer", found.layers["first"])):
            gaps[quadrature, name] = float((value.sum(1) - found.delta).abs().max())
    assert all(gaps["gauss_legendre", w] < 1e-6 < gaps["midpoint", w] < 1e-2 for w in ("x", "layer")), gaps


@pytest.mark.parametrize("steps", [5, 20])
def test_captum_has_the_same_points_and_weights(steps):
    captum = pytest.importorskip("captum.attr")
    net, x, r = net_and_x()
    want = captum.IntegratedGradients(net).attribute(x, r, target=2, n_steps=steps, method="gausslegendre")
    found = explain(net, x, 2, IntegratedGradients(r, steps, "gauss_legendre"), layers="first")
    torch.testing.assert_close(found.heatmap, want, rtol=1e-5, atol=1e-7)
    at_layer = captum.LayerIntegratedGradients(net, net.first).attribute(
        x, r, target=2, n_steps=steps, method="gausslegendre"
    )
    torch.testing.assert_close(found.layers["first"], at_layer, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (5, 1, 4), (5, 3, 4)])
@pytest.mark.parametrize("target", [1, "all", [0, 2, 1]])
def test_references_and_targets_at_layers(shape, target):
    net, x, _ = net_and_x()
    r = torch.randn(shape, dtype=torch.float64)
    found = explain(net, x, target, IntegratedGradients(r, 4), layers=["first", "second"])
    each = [
        explain(net, x, target, IntegratedGradients(one, 4), layers=["second", "first"])
        for one in (r if r.ndim == 3 else [r])
    ]
    for name in ("first", "second"):
        torch.testing.assert_close(found.layers[name], torch.stack([e.layers[name] for e in each]).mean(0))
        assert found.layers[name].shape == (3, *((3,) if target == "all" else ()), 5 if name == "first" else 6)


def test_at_the_last_layer_the_map_is_that_of_the_logits():
    net, x, r = net_and_x()
    found = explain(net, x, 1, IntegratedGradients(r, 2), layers="head", at_input=False)
    want = torch.zeros(3, 3, dtype=torch.float64)
    want[:, 1] = (net(x) - net(r))[:, 1].detach()
    torch.testing.assert_close(found.layers["head"], want)
    assert found.heatmap.shape == (3, 0)


class Tuples(nn.Module):
    """A layer that returns several tensors, and one whose output the model changes in place."""

    def __init__(self):
        super().__init__()
        self.rnn, self.linear, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        h, _ = self.rnn(x)
        h = self.linear(h)
        h += 1.0
        return self.head(h.tanh().mean(1))


@pytest.mark.parametrize("layer", ["rnn", "linear"])
def test_layers_of_several_tensors_and_changed_in_place(layer):
    net, x = Tuples().double(), torch.randn(2, 6, 4, dtype=torch.float64)
    found = explain(net, x, 1, IntegratedGradients(0.0, 300), layers=layer)
    torch.testing.assert_close(found.layers[layer].flatten(1).sum(1), found.delta, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_maps_at_the_input_and_at_layers_train(quadrature):
    net, x, r = net_and_x()
    method, step = IntegratedGradients(r, 3, quadrature), 1e-6
    run = lambda **options: explain(net, x, 1, method, layers=["first", "second"], **options)  # noqa: E731

    def loss(found):
        return sum(m.square().sum() for m in (found.heatmap, *found.layers.values())) + found.logits.sum()

    for weight in (net.first.weight, net.second.weight, net.head.weight):
        (gradient,) = torch.autograd.grad(loss(run(create_graph=True)), weight)
        direction, losses = torch.randn_like(weight), []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * step * direction
            losses.append(loss(run()))
            with torch.no_grad():
                weight -= sign * step * direction
        numeric = (losses[0] - losses[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=1e-8)


def test_another_thread_sees_the_model_as_it_is():
    net, x, r = net_and_x()
    want, seen, running = net(x).detach(), [], threading.Event()

    def watch():
        while not running.is_set():
            with torch.no_grad():
                seen.append(net(x))

    thread = threading.Thread(target=watch)
    thread.start()
    explain(net, x, 1, IntegratedGradients(r, 60), layers="first")
    running.set()
    thread.join()
    assert seen and all(torch.equal(s, want) for s in seen)
    assert not any(m._forward_hooks for m in net.modules())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(self.linear(x).tanh())


REFUSED = {
    "a misspelt layer": ("frist", Net, "no layer 'frist'; near names: first"),
    "a layer called twice": ("linear", Twice, "called 2 times in a pass"),
    "a layer never called": ("unused", Twice, "called 0 times in a pass"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_without_a_path_are_refused(case):
    layer, make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        explain(make().double(), net_and_x()[1], 1, IntegratedGradients(steps=2), layers=layer)


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_are_at_least_one(steps):
    with pytest.raises(ValueError, match="steps must be >= 1"):
        IntegratedGradients(steps=steps)


def test_a_quadrature_is_one_of_two():
    with pytest.raises(ValueError, match='"midpoint" or "gauss_legendre", got \'simpson\''):
        IntegratedGradients(quadrature="simpson")


def test_an_error_leaves_no_hook_behind():
    net, x, _ = net_and_x()

    def target(logits):
        if logits.requires_grad:
            raise KeyError("mine")
        return logits[:, 0]

    with pytest.raises(KeyError, match="mine"):
        explain(net, x, target, IntegratedGradients(steps=2), layers="first", at_input=False)
    assert not any(m._forward_hooks for m in net.modules())


def test_a_model_with_a_constant_for_each_sample_is_given_all_of_them_on_the_reference_too():
    grid = torch.rand(2, 5, 5, 2, dtype=torch.float64) * 2 - 1
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softplus(), nn.Flatten(), nn.Linear(50, 3)).double().eval()
    sampled = lambda x: model[3](model[2](F.grid_sample(model[1](model[0](x)), grid, align_corners=False)))  # noqa: E731
    x = torch.rand(2, 1, 7, 7, dtype=torch.float64)
    found = explain(sampled, x, 0, IntegratedGradients(steps=20, quadrature="gauss_legendre"))
    wanted = (sampled(x) - sampled(torch.zeros_like(x)))[:, 0].detach()
    torch.testing.assert_close(found.delta, wanted)
    torch.testing.assert_close(found.heatmap.flatten(1).sum(1), wanted, atol=1e-6, rtol=1e-6)
