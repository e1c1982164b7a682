"""The rivals of Challenger against plain formulas; RelDrop's definition; bad input."""

import copy

import pytest
import torch
import torch.nn.functional as F

from attrain.challenger import Challenger
from attrain.training import regularisers as reg
from studies.nets.small import NormCNN, SmallCNN, TextCNN

STEPS = {
    "label smoothing": (reg.label_smoothing_step, {}),
    "noise": (reg.noise_step, {"generator": 0}),
    "input dropout": (reg.input_dropout_step, {"generator": 0}),
    "cutout": (reg.cutout_step, {"generator": 0}),
    "mixup": (reg.mixup_step, {"generator": 0}),
    "mixup of a layer": (reg.mixup_step, {"generator": 0, "layer": "2"}),
    "dropout": (reg.dropout_step, {"layer": "9"}),
    "FGSM": (reg.fgsm_step, {"generator": 0}),
    "RelDrop pixel": (reg.relevance_dropout_step, {"generator": 0, "p": 1.0}),
    "RelDrop block": (reg.relevance_dropout_step, {"form": "block", "generator": 0, "p": 1.0}),
}


def batch(n=6):
    return torch.randn(n, 1, 8, 8), torch.arange(n) % 10


def call(name, net, x, y):
    step, settings = STEPS[name]
    settings = {k: torch.Generator().manual_seed(v) if k == "generator" else v for k, v in settings.items()}
    return step(net, x, y, **settings)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_returns_logits_a_loss_to_train_on_and_its_part_and_is_the_same_again(name):
    net, (x, y) = SmallCNN(width=4), batch()
    before = x.clone()
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(call(name, net, x, y))
    logits, loss, parts = results[0]
    assert logits.shape == (6, 10) and loss.isfinite() and torch.equal(parts["classification"], loss.detach())
    assert torch.equal(loss, results[1][1]) and torch.equal(x, before)
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", [n for n in STEPS if n != "dropout"])
def test_batch_norm_sees_one_batch_a_step(name):
    net, (x, y) = NormCNN(width=4), batch()
    call(name, net, x, y)
    assert net.training and net[1].num_batches_tracked == 1 and net[1].track_running_stats


def test_label_smoothing_and_input_dropout_are_their_formulas():
    net, (x, y) = SmallCNN(width=4), batch()
    log_p = net(x).log_softmax(1)
    expected = -(0.9 * log_p.gather(1, y[:, None])[:, 0] + 0.1 * log_p.mean(1)).mean()
    torch.testing.assert_close(reg.label_smoothing_step(net, x, y)[1], expected)
    kept = (torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) >= 0.2).float()
    loss = reg.input_dropout_step(net, x, y, generator=torch.Generator().manual_seed(0))[1]
    torch.testing.assert_close(loss, F.cross_entropy(net(x * kept / 0.8), y))


def seen_by(step, x, **settings):
    """What a step gives to the network."""
    inputs = []

    def network(value):
        inputs.append(value)
        return value.flatten(1)[:, :10]

    step(network, x, torch.zeros(len(x), dtype=torch.long), **settings)
    return inputs[-1]


@pytest.mark.parametrize("shape", [(200, 2, 9, 9), (200, 1, 30)])
def test_cutout_clears_a_square_that_may_reach_over_the_border(shape):
    seen = seen_by(reg.cutout_step, torch.ones(shape), size=3, generator=torch.Generator().manual_seed(0))
    assert ((seen == 0) | (seen == 1)).all() and (seen == seen[:, :1]).all()
    cleared = (seen[:, 0] == 0).flatten(1).sum(1)
    full = 3 ** (len(shape) - 2)
    assert cleared.max() == full and cleared.min() >= 2 ** (len(shape) - 2) and (cleared == full).double().mean() > 0.5
    assert (seen == 0).any(0).all(), "every place is cleared in some sample"


def test_mixup_mixes_pairs_by_one_share():
    x = torch.eye(5)[:, None, None].expand(5, 1, 2, 5).clone()
    seen = seen_by(reg.mixup_step, x, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(seen.sum(-1), torch.ones(5, 1, 2))
    shares = seen[:, 0, 0].diagonal()
    assert ((shares == 1) | torch.isclose(shares, shares[shares < 1][:1])).all() or (shares == 1).all()
    with pytest.raises(ValueError, match="p must be in"):
        reg.input_dropout_step(SmallCNN(), *batch(), p=1.0)


def test_mixup_of_embeddings_mixes_what_stands_for_the_words():
    net, x, y = TextCNN(9, 3, dropout=0.0), torch.randint(1, 9, (5, 4)), torch.arange(5) % 3
    logits, loss, _ = reg.mixup_step(net, x, y, layer="embedding", generator=torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(1)
    a, b = torch._standard_gamma(torch.full((2,), 0.4), generator=draws).tolist()
    share, other = a / (a + b), torch.randperm(5, generator=draws)
    h = net.embedding(x)
    handle = net.embedding.register_forward_hook(lambda *_: share * h + (1 - share) * h[other])
    torch.testing.assert_close(logits, net(x))
    handle.remove()
    torch.testing.assert_close(
        loss, share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])
    )
    assert not net.embedding._forward_hooks


def test_word_dropout_makes_words_unknown_at_its_rate_but_never_padding():
    seen = []

    def net(x):
        seen.append(x)
        return torch.zeros(len(x), 2)

    x = torch.randint(2, 50, (200, 30))
    x[:, 20:] = 0
    reg.word_dropout_step(net, x, torch.zeros(200).long(), p=0.3, generator=torch.Generator().manual_seed(0))
    dropped = seen[0] != x
    assert (seen[0][dropped] == 1).all() and (seen[0][:, 20:] == 0).all()
    assert dropped[:, :20].double().mean() == pytest.approx(0.3, abs=0.02)


def test_fgsm_on_embeddings_is_a_challenger_whose_map_is_against_the_loss():
    net, y = TextCNN(30, 3, dropout=0.0).double(), torch.arange(6) % 3
    x = F.pad(torch.randint(1, 30, (6, 5)), (0, 2))

    def against_loss(tail, h, y):
        leaf = h.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(tail(leaf), y, reduction="sum"), leaf)
        return -h * gradient

    h = net.embedding(x).detach()
    leaf = h.clone().requires_grad_()
    handle = net.embedding.register_forward_hook(lambda *_: leaf)
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y, reduction="sum"), leaf)
    handle.remove()
    settings = dict(site="embedding", channel_dim=-1, attribution=against_loss, top=1.0, eps_max=0.7)
    challenger = Challenger(**settings, generator=torch.Generator().manual_seed(5))
    moved = challenger.challenge(h, challenger.relevance(net, x, h, y))
    eps = 0.7 * torch.rand((6, 1, 1), generator=torch.Generator().manual_seed(5)).double()
    step = eps * h.flatten(1).std(1, correction=0)[:, None, None] * gradient.sign()
    torch.testing.assert_close(moved[:, :5], (h + step)[:, :5], atol=1e-12, rtol=0)
    assert (moved[:, 5:] == 0).all() and (step[:, 5:] != 0).any(), "padding stays padding, where plain FGSM would not"


def test_fgsm_moves_up_the_loss_by_at_most_its_strength():
    net, (x, y) = SmallCNN(width=4), batch()
    reference = copy.deepcopy(net).eval()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(reference(leaf), y, reduction="sum"), leaf)
    u = torch.rand(6, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    moved = x + 0.6 * u * x.flatten(1).std(1, correction=0).view(6, 1, 1, 1) * gradient.sign()
    expected = 0.5 * F.cross_entropy(net(x), y) + 0.5 * F.cross_entropy(net(moved), y)
    loss = reg.fgsm_step(net, x, y, eps=0.6, generator=torch.Generator().manual_seed(0))[1]
    torch.testing.assert_close(loss, expected)
    assert F.cross_entropy(net(moved), y) > F.cross_entropy(net(x), y)


# ---------------------------------------------------------------- RelDrop


def test_pixels_are_dropped_by_relevance_and_by_chance_and_replaced_by_the_channels_mean():
    x = torch.rand(4, 3, 6, 6)
    R = torch.rand(4, 3, 6, 6)
    u = torch.rand(4, 6, 6, generator=torch.Generator().manual_seed(2))
    r = R.sum(1)
    r = (r - r.amin((1, 2), keepdim=True)) / (r.amax((1, 2), keepdim=True) - r.amin((1, 2), keepdim=True))
    dropped = 0.3 * u + 0.7 * r >= 0.5
    found = reg.relevance_dropout(x, R, p=1.0, generator=torch.Generator().manual_seed(2))
    expected = torch.where(dropped[:, None], x.mean((2, 3), keepdim=True).expand_as(x), x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(reg.relevance_dropout(x, R, p=0.0), x)


def test_blocks_are_rectangles_around_the_most_relevant_pixel():
    x, R = torch.rand(300, 1, 20, 20), torch.zeros(300, 1, 20, 20)
    R[:, :, 9, 12] = 1.0
    found = reg.relevance_dropout(x, R, form="block", p=1.0, fill=-1.0, generator=torch.Generator().manual_seed(0))
    dropped = found[:, 0] == -1
    assert dropped[:, 9, 12].all()
    down, across = dropped.any(2), dropped.any(1)
    assert torch.equal(dropped, down[:, :, None] & across[:, None, :])
    share = dropped.flatten(1).double().mean(1)
    assert share.max() < 0.5 and 0.1 < share.mean() < 0.3
    ratio = down.sum(1) / across.sum(1)
    assert ratio.min() > 0.2 and ratio.max() < 5 and (ratio > 1.3).any() and (ratio < 0.77).any()


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((torch.rand(2, 1, 4, 4), torch.rand(2, 4, 4)), {}, r"x and R must both be \(N, C, H, W\)"),
        ((torch.rand(2, 1, 4, 4),) * 2, {"form": "circle"}, 'form must be "pixel" or "block"'),
    ],
)
def test_bad_input_raises(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        reg.relevance_dropout(*arguments, **settings)
