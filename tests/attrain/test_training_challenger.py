"""Challenger: what is selected, how it is changed, what the step leaves behind; controls, schedules, bad input."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attrain import LRP, Gradient, InputXGradient, explain
from attrain.challenger import Challenger, contrast_target, rival_target
from attrain.training import fit
from studies.nets.small import NormCNN, SmallCNN

MODES = ("push", "gate", "erase", "noise", "swap")


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


class Words(nn.Module):
    """Tokens (N, T) -> logits (N, 3)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.convolution, self.dropout, self.head = nn.Conv1d(6, 8, 3, padding=1), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, tokens):
        hidden = torch.relu(self.convolution(self.embedding(tokens).transpose(1, 2)))
        return self.head(self.dropout(hidden.amax(2)))


# ---------------------------------------------------------------- the challenged activation


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("push", lambda s: [3 - 0.5 * s, -1, -1 - 0.5 * s, 5]),  # sign(h)·sign(R) is 1 at both chosen places
        ("gate", lambda s: [3 * 0.5, -1, -1, 5 * (1 - 0.5 * 0.25)]),
        ("erase", lambda s: [0, -1, 0, 5]),
    ],
)
def test_each_mode_is_its_formula(monkeypatch, mode, expected):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 0.5))
    h, R = torch.tensor([[3.0, -1.0, -1.0, 5.0]]), torch.tensor([[4.0, 0.0, -2.0, 1.0]])
    moved = Challenger(mode=mode, top=0.5).challenge(h, R)
    torch.testing.assert_close(moved[0], torch.tensor(expected(h.std(correction=0).item()), dtype=torch.float))


def test_swap_takes_from_a_sample_of_another_class_and_noise_follows_relevance():
    h = torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [10.0, 20.0, 30.0]])
    R, y = torch.tensor([[0.0, 1.0, 0.5]]).expand(3, 3), torch.tensor([0, 0, 1])
    moved = Challenger(mode="swap", top=1 / 3, eps_max=1e9).challenge(h, R, y)
    torch.testing.assert_close(moved[:2], torch.tensor([[1.0, 20.0, 3.0], [1.5, 20.0, 3.5]]))
    assert moved[2, 1] in (2.0, 2.5) and moved[2, 0] == 10
    alone = Challenger(mode="swap").challenge(h, R, torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(alone, h)
    noisy = Challenger(mode="noise", top=1.0, eps_max=5.0).challenge(h, -R + 0.5)
    assert ((noisy != h) == (-R + 0.5 > 0)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from(MODES), st.floats(0.01, 1), st.sampled_from(["element", "position"]))
def test_only_the_chosen_share_changes_never_what_has_no_relevance_and_by_no_more_than_the_strength(
    seed, mode, top, per
):
    g = drawn(seed)
    h, R = torch.randn(3, 2, 5, generator=g), torch.randn(3, 2, 5, generator=g)
    R = R * (torch.rand(3, 1, 5, generator=g) < 0.7)
    challenger = Challenger(mode=mode, top=top, per=per, eps_max=0.8, generator=g)
    moved = challenger.challenge(h, R, torch.tensor([0, 1, 2]))
    changed = (moved != h).flatten(1)
    places, each = (5, 2) if per == "position" else (10, 1)
    if mode != "gate":
        assert (changed.sum(1) <= math.ceil(top * places - 1e-6) * each).all()
    assert not changed[R.flatten(1) == 0].any()
    if mode == "push":
        limit = 0.8 * h.flatten(1).std(1, correction=0)
        assert ((moved - h).abs().flatten(1).amax(1) <= limit + 1e-6).all()


@pytest.mark.parametrize("per", ["element", "position"])
@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_the_permuted_control_keeps_the_values_and_gives_none_to_places_without_relevance(per, seed):
    g = drawn(seed)
    R = torch.randn(4, 3, 6, generator=g) * (torch.rand(4, 1 if per == "position" else 3, 6, generator=g) < 0.6)
    moved = Challenger(control="permute", per=per, generator=g)._controlled(R)
    assert torch.equal(moved.flatten(1).sort(1).values, R.flatten(1).sort(1).values)
    assert torch.equal(moved == 0, R == 0)
    if per == "position":  # channels of a position stay together
        columns = {tuple(c.tolist()) for c in R[0].T}
        assert {tuple(c.tolist()) for c in moved[0].T} == columns


def test_permutations_are_uniform():
    R = torch.tensor([[0.0, 1.0, 2.0, 0.0, 3.0]]).expand(6000, 5)
    moved = Challenger(control="permute", generator=drawn())._controlled(R)
    for value in (1, 2, 3):
        share = (moved == value).double().mean(0)[[1, 2, 4]]
        torch.testing.assert_close(share, torch.full((3,), 1 / 3, dtype=torch.double), atol=0.03, rtol=0)


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize("attribution", ["lrp", "gxi", Gradient()])
def test_relevance_at_a_layer_is_the_map_that_explain_gives_there(attribution):
    net, x, y = NormCNN(width=4).eval(), torch.rand(3, 1, 16, 16), torch.tensor([1, 2, 3])
    method = {"lrp": LRP(), "gxi": InputXGradient()}.get(attribution, attribution)
    head, tail = nn.Sequential(*list(net)[:4]), nn.Sequential(*list(net)[4:])
    h = head(x).detach()
    R = Challenger(attribution, site="3").relevance(net, x, h, y)
    expected = explain(tail, h, y, method).heatmap
    torch.testing.assert_close(R, expected)
    assert not R.requires_grad


def test_push_by_gradient_times_input_is_fgsm_on_the_logit():
    net, x, y = SmallCNN(width=4), torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    challenger = Challenger(top=1.0, generator=drawn())
    moved = challenger.challenge(x, challenger.relevance(net, x, x, y), y)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf).gather(1, y[:, None]).sum(), leaf)
    step = torch.rand(4, 1, 1, 1, generator=drawn()) * x.flatten(1).std(1, correction=0).view(4, 1, 1, 1)
    torch.testing.assert_close(moved, x - step * gradient.sign())
    assert (net(moved).gather(1, y[:, None]) < net(x).gather(1, y[:, None])).all()


@pytest.mark.parametrize("site", ["", "embedding"])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_the_mean_of_both_cross_entropies_and_every_layer_learns_from_both(site, mode):
    if site:
        net, x = Words().eval(), torch.randint(20, (5, 7))
        settings = dict(site=site, channel_dim=-1, per="position")
    else:
        net, x, settings = SmallCNN(width=4).eval(), torch.randn(5, 1, 8, 8), {}
    y = torch.tensor([0, 1, 2, 0, 1])
    challenger = Challenger(mode=mode, beta=0.25, generator=drawn(3), **settings)
    logits, loss, parts = challenger(net, x, y)
    torch.testing.assert_close(logits, net(x))
    torch.testing.assert_close(parts["classification"], F.cross_entropy(net(x), y))
    torch.testing.assert_close(loss.detach(), 0.75 * parts["classification"] + 0.25 * parts["challenged"])
    assert all(p.grad is None for p in net.parameters()), "relevance leaves no gradient behind"
    challenged = loss - 0.75 * F.cross_entropy(net(x), y)
    grads = torch.autograd.grad(challenged, list(net.parameters()))
    assert all(g.abs().sum() > 0 for g in grads)


def test_without_strength_a_step_is_cross_entropy_exactly():
    net, x, y = SmallCNN(width=4), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    _, loss, _ = Challenger(eps_max=0.0)(net, x, y)
    assert torch.equal(loss, F.cross_entropy(net(x), y))


def test_warm_up_ramp_and_probability_say_which_steps_challenge_and_how_strongly():
    challenger = Challenger(warmup=2, ramp=3, eps_max=1.0)
    net, x, y = SmallCNN(width=4), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    strengths = []
    for _ in range(8):
        strengths.append(challenger._strength())
        parts = challenger(net, x, y)[2]
        assert (parts["challenged"] != parts["classification"]) == (strengths[-1] > 0)
    assert strengths == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    seldom = Challenger(p_batch=0.25, generator=drawn())
    steps = [seldom(net, x, y)[2] for _ in range(80)]
    assert 10 <= sum(bool(p["challenged"] != p["classification"]) for p in steps) <= 30


def test_erasing_waits_for_the_warm_up_too():
    challenger = Challenger(mode="erase", warmup=1)
    net, x, y = SmallCNN(width=4), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    first, second = challenger(net, x, y)[2], challenger(net, x, y)[2]
    assert first["challenged"] == first["classification"] and second["challenged"] != second["classification"]


def test_challenged_samples_leave_the_running_statistics_and_the_modes_as_they_are():
    net, x, y = NormCNN(width=4).train(), torch.randn(6, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2])
    net[1].eval()  # frozen by its user
    twin = copy.deepcopy(net)
    modes = [m.training for m in net.modules()]
    Challenger("lrp")(net, x, y)[1].backward()
    twin(x)
    for (name, a), (_, b) in zip(net.named_buffers(), twin.named_buffers()):
        assert torch.equal(a, b), name
    assert [m.training for m in net.modules()] == modes
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("attribution", ["lrp", "gxi"])
def test_the_same_generator_gives_the_same_training_bit_for_bit(attribution):
    x, y = torch.randn(40, 1, 8, 8), torch.arange(40) % 10
    weights = []
    for _ in range(2):
        torch.manual_seed(1)
        net = SmallCNN(width=4)
        step = Challenger(attribution, generator=drawn(5))
        fit(net, (x, y), step, epochs=2, batch_size=16, generator=drawn(6))
        weights.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(*weights)


def test_contrast_is_the_margin_and_its_gradient_that_of_two_logits():
    logits = torch.tensor([[1.0, 4.0, 3.0], [2.0, 0.0, 1.0]], requires_grad=True)
    margin = contrast_target(torch.tensor([1, 2]))(logits)
    assert margin.tolist() == [1.0, -1.0]
    (gradient,) = torch.autograd.grad(margin.sum(), logits)
    assert gradient.tolist() == [[0, 1, -1], [-1, 0, 1]]


def test_a_rival_is_any_other_class_each_as_often_and_a_function_of_the_generator():
    y = torch.tensor([0, 1, 2]).repeat(2000)
    logits = torch.tensor([[0.0, 1.0, 10.0]]).expand(6000, 3)
    margin = rival_target(y, drawn(1))(logits)
    counts = {c: margin[y == c].unique(return_counts=True) for c in range(3)}
    assert {c: values.tolist() for c, (values, _) in counts.items()} == {0: [-10, -1], 1: [-9, 1], 2: [9, 10]}
    assert all(900 < count < 1100 for _, found in counts.values() for count in found)
    assert torch.equal(margin, rival_target(y, drawn(1))(logits))
    assert not torch.equal(margin, rival_target(y, drawn(2))(logits))


@pytest.mark.parametrize("start", ["logit", "contrast", "rival"])
def test_the_push_goes_against_the_gradient_of_what_is_explained(start):
    torch.manual_seed(0)
    net, x, y = SmallCNN(2, width=4).eval(), torch.randn(6, 1, 8, 8), torch.tensor([0, 1, 0, 1, 1, 0])
    challenger = Challenger(start=start, top=0.2, generator=drawn())  # with two classes every rival is the strongest
    moved = challenger.challenge(x, challenger.relevance(net, x, x, y), y)
    leaf = x.clone().requires_grad_()
    logits = net(leaf)
    own, other = (logits.gather(1, c[:, None]).sum() for c in (y, 1 - y))
    (gradient,) = torch.autograd.grad(own if start == "logit" else own - other, leaf)
    pushed = moved != x
    assert pushed.flatten(1).sum(1).tolist() == [13] * 6
    assert ((moved - x).sign() == -gradient.sign())[pushed].all()


def test_a_callable_gets_the_network_from_the_site_on():
    net, x, y = Words(), torch.randint(20, (2, 5)), torch.tensor([0, 1])
    seen = {}

    def attribution(tail, h, labels):
        seen["logits"], seen["training"] = tail(h), tail.training
        return torch.ones_like(h)

    h = net.embedding(x).detach()
    R = Challenger(attribution, site="embedding").relevance(net, x, h, y)
    torch.testing.assert_close(seen["logits"], net.eval()(x))
    assert torch.equal(R, torch.ones_like(h))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(attribution="lpr"), 'attribution must be "lrp", "gxi"'),
        (dict(start="label"), "start must be one of 'logit', 'contrast', 'rival', got 'label'"),
        (dict(mode="shove"), "mode must be one of"),
        (dict(per="pixel"), "per must be one of"),
        (dict(control="shuffle"), "control must be one of"),
        (dict(top=0.0), r"top must be in \(0, 1\], got 0.0"),
        (dict(beta=1.5), r"beta must be in \[0, 1\], got 1.5"),
        (dict(p_batch=-0.1), r"p_batch must be in \[0, 1\]"),
        (dict(eps_max=-1.0), "eps_max must be >= 0"),
        (dict(eps_max=math.nan), "eps_max must be >= 0"),
        (dict(warmup=-1), "warmup must be >= 0"),
    ],
)
def test_settings_that_make_no_sense_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        Challenger(**settings)


def test_activations_and_relevance_that_do_not_fit_raise():
    h = torch.randn(2, 3)
    with pytest.raises(ValueError, match="R must have h's shape"):
        Challenger().challenge(h, h[:1])
    with pytest.raises(ValueError, match="NaN or infinite"):
        Challenger().challenge(h, h * torch.nan)
    with pytest.raises(ValueError, match='"swap" needs the labels'):
        Challenger(mode="swap").challenge(h, h)
    with pytest.raises(ValueError, match="no layer 'emb'; it must be '', the input, or a module's name: embedding"):
        Challenger(site="emb")(Words(), torch.randint(20, (2, 5)), torch.tensor([0, 1]))


def test_a_site_that_is_called_twice_raises():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(torch.relu(self.layer(x)))

    with pytest.raises(ValueError, match="called once"):
        Challenger(site="layer")(Twice(), torch.randn(2, 4), torch.tensor([0, 1]))
