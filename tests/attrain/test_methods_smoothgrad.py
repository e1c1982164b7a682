"""SmoothGrad: the mean of a method's maps of noisy inputs, around every method."""

import pytest
import torch
from torch import nn

from attrain import (
    DeepLift,
    GradCAM,
    Gradient,
    InSilicoMutagenesis,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    explain,
)
from attrain.methods import smoothgrad
from attrain.targets import stochastic_target
from tests.attrain.oracles import METHODS


def conv_net():
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double().eval()


def noise_of(monkeypatch):
    """The noise as it is drawn, kept."""
    kept, draw = [], smoothgrad._noise

    def drawn(x, generators):
        kept.append(draw(x, generators))
        return kept[-1]

    monkeypatch.setattr(smoothgrad, "_noise", drawn)
    return kept


EVERY = METHODS | {"gradcam": GradCAM("1"), "occlusion": Occlusion(3), "smoothgrad": SmoothGrad(Gradient(), 2, seed=5)}


@pytest.mark.parametrize("name", EVERY)
def test_the_map_is_the_mean_over_noisy_inputs(name, monkeypatch):
    net, x, method = conv_net(), torch.rand(3, 2, 6, 6, dtype=torch.float64), EVERY[name]
    target = None if name == "dual" else net(x).argmax(1)
    kept = noise_of(monkeypatch)
    options = {} if name == "occlusion" else {"layers": "1"}
    found = explain(net, x, None, SmoothGrad(method, 4, noise=0.2), **options)
    drawn = [n for n in kept if name != "smoothgrad"] or None
    if drawn is None:
        drawn = kept[::3]  # the others are those of the method within
    spread = 0.2 * (x.amax((1, 2, 3), True) - x.amin((1, 2, 3), True))
    each = [explain(net, x + spread * n, target, method, **options) for n in drawn]
    assert len(each) == 4
    torch.testing.assert_close(found.heatmap, torch.stack([e.heatmap for e in each]).mean(0))
    torch.testing.assert_close(found.logits, net(x).detach())
    if options:
        torch.testing.assert_close(found.layers["1"], torch.stack([e.layers["1"] for e in each]).mean(0))
    if each[0].delta is None:
        assert found.delta is None
    else:
        torch.testing.assert_close(found.delta, torch.stack([e.delta for e in each]).mean(0))


def test_complete_maps_sum_to_delta():
    net, x = conv_net(), torch.rand(3, 2, 6, 6, dtype=torch.float64)
    found = explain(net, x, "all", SmoothGrad(DeepLift(), 5))
    torch.testing.assert_close(found.heatmap.flatten(2).sum(2), found.delta)


def test_the_noise_is_gaussian_of_the_width_that_is_said(monkeypatch):
    x = torch.stack([torch.linspace(0, 1, 5000), torch.linspace(-3, 5, 5000)])
    seen = []
    explain(lambda t: seen.append(t.detach().clone()) or t[:, :1] * 1.0, x, 0, SmoothGrad(Gradient(), 3, noise=0.1))
    noise = torch.stack([t - x for t in seen if not torch.equal(t, x)])
    noise = noise[noise.abs().amax((1, 2)) < 10]
    for row, width in ((0, 0.1), (1, 0.8)):
        assert noise[:, row].std().item() == pytest.approx(width, rel=0.03)
        assert noise[:, row].mean().item() == pytest.approx(0, abs=0.03 * width)


def test_without_noise_it_is_the_method():
    net, x = conv_net(), torch.rand(3, 2, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(
        explain(net, x, 1, SmoothGrad(IntegratedGradients(), 3, noise=0.0)), explain(net, x, 1, IntegratedGradients())
    )


def test_a_seed_gives_the_same_map_and_none_draws_from_torchs_generator():
    net, x = conv_net(), torch.rand(3, 2, 6, 6, dtype=torch.float64)
    run = lambda seed: explain(net, x, 1, SmoothGrad(Gradient(), 3, seed=seed)).heatmap  # noqa: E731
    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1)) and not torch.equal(run(None), run(None))
    state = torch.get_rng_state()
    run(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(7)
    first = run(None)
    torch.manual_seed(7)
    assert torch.equal(run(None), first)


@pytest.mark.parametrize(
    "method", [Gradient(), DeepLift(torch.rand(5, 2, 6, 6, dtype=torch.float64)), IntegratedGradients()]
)
def test_a_samples_map_depends_neither_on_chunks_nor_on_the_others(method):
    net, x = conv_net(), torch.rand(5, 2, 6, 6, dtype=torch.float64)
    whole = explain(net, x, 1, SmoothGrad(method, 3))
    torch.testing.assert_close(explain(net, x, 1, SmoothGrad(method, 3), chunk_size=2), whole)
    first = SmoothGrad(method, 3).rows(slice(0, 1), x)
    torch.testing.assert_close(explain(net, x[:1], 1, first).heatmap, whole.heatmap[:1])


def test_a_random_target_is_drawn_once_for_the_input_without_noise():
    net, x = conv_net(), torch.rand(20, 2, 6, 6, dtype=torch.float64)
    found = explain(net, x, stochastic_target(torch.Generator().manual_seed(0)), SmoothGrad(Gradient(), 3)).heatmap
    each = torch.stack([explain(net, x, c, SmoothGrad(Gradient(), 3)).heatmap for c in range(3)])
    assert all(any(torch.allclose(m, e) for e in each[:, i]) for i, m in enumerate(found))


def test_several_inputs_have_a_range_each_and_ids_stay():
    class Net(nn.Module):
        def forward(self, a, ids, b):
            assert not ids.is_floating_point()
            return (a.square() * ids + b.square()).sum(1, keepdim=True)

    a, ids, b = torch.rand(2, 3), torch.randint(1, 5, (2, 3)), 100 * torch.rand(2, 3)
    found = explain(Net(), {"a": a, "ids": ids, "b": b}, 0, SmoothGrad(Gradient(), 200))
    assert found.heatmap["ids"] is None
    torch.testing.assert_close(found.heatmap["a"], 2 * a * ids, rtol=0.2, atol=0.2)
    torch.testing.assert_close(found.heatmap["b"], 2 * b, rtol=0.2, atol=10.0)


@pytest.mark.parametrize("method", [Gradient(), METHODS["lrp"], DeepLift(), IntegratedGradients(steps=2), Occlusion(3)])
def test_the_map_trains(method):
    net, x = conv_net(), torch.rand(3, 2, 6, 6, dtype=torch.float64)
    smooth = SmoothGrad(method, 2)
    found = explain(net, x, 1, smooth, create_graph=True)
    assert found.logits.requires_grad
    weight, step = net[0].weight, 1e-6
    (gradient,) = torch.autograd.grad(found.heatmap.square().sum() + found.logits.sum(), weight)
    direction, losses = torch.randn_like(weight), []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        again = explain(net, x, 1, smooth)
        losses.append(again.heatmap.square().sum() + again.logits.sum())
        with torch.no_grad():
            weight -= sign * step * direction
    torch.testing.assert_close((gradient * direction).sum(), (losses[0] - losses[1]) / (2 * step), rtol=1e-4, atol=1e-6)


def test_what_a_method_refuses_is_refused():
    net, x = conv_net(), torch.rand(3, 2, 6, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="one-hot"):
        explain(net, x, 1, SmoothGrad(InSilicoMutagenesis()))
    with pytest.raises(ValueError, match="reference must be"):
        explain(net, x, 1, SmoothGrad(DeepLift(torch.zeros(1, 5))), chunk_size=2)
    embedding = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(ValueError, match="adds noise to floating point inputs, and x holds whole numbers only"):
        explain(embedding, torch.zeros(2, 2, dtype=torch.long), 0, SmoothGrad(), layers="0")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SmoothGrad(Gradient), TypeError, r"a method's value such as Gradient\(\).*call it, Gradient\(\)"),
        (lambda: SmoothGrad("gradient"), TypeError, "a method's value"),
        (lambda: SmoothGrad(samples=0), ValueError, "samples must be >= 1, got 0"),
        (lambda: SmoothGrad(samples=2.5), TypeError, "samples must be a whole number, got 2.5"),
        (lambda: SmoothGrad(noise=-0.1), ValueError, "noise >= 0, got -0.1"),
        (lambda: SmoothGrad(noise=float("nan")), ValueError, "noise >= 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_no_samples_have_no_maps():
    assert explain(conv_net(), torch.rand(0, 2, 6, 6, dtype=torch.float64), 1, SmoothGrad()).heatmap.shape == (
        0,
        2,
        6,
        6,
    )
