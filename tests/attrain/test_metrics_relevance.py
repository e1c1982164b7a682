import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from attrain import DeepLift, background_share, explain
from attrain.metrics import (
    completeness_error,
    deletion_curve,
    erase,
    insertion_curve,
    log_odds,
    pixels_erased_log_odds,
    rank_correlation,
)


def test_share_is_the_background_part_of_the_absolute_relevance():
    heatmap = torch.tensor([[[[1.0, -1.0]], [[2.0, -4.0]]]])  # (1, 2, 1, 2)
    assert background_share(heatmap, torch.tensor([[[1, 0]]])).item() == pytest.approx(5 / 8)


def test_shares_of_foreground_and_background_sum_to_one():
    heatmap, mask = torch.randn(3, 2, 5, 5), torch.rand(3, 5, 5) > 0.4
    torch.testing.assert_close(background_share(heatmap, mask) + background_share(heatmap, ~mask), torch.ones(3))


def test_a_map_of_zeros_has_no_share():
    assert background_share(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).isnan().all()


# ---------------------------------------------------------------- completeness


def test_completeness_error_is_relative_and_one_a_map():
    heatmap, delta = torch.tensor([[[1.0, 2.0], [0.0, 4.0]]]), torch.tensor([[3.0, -4.0]])  # (1, K = 2, 2)
    assert completeness_error(heatmap, delta).tolist() == [[0.0, 2.0]]
    assert completeness_error(torch.tensor([[1.0], [0.0]]), torch.zeros(2)).tolist()[0] == math.inf


@pytest.mark.parametrize("target", [None, "all"])
def test_deeplift_is_complete_by_this_measure_and_half_its_map_is_not(target):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3)).double(), torch.rand(5, 1, 3, 3)
    result = explain(net, x.double(), target, DeepLift(0.3))
    assert completeness_error(result.heatmap, result.delta).max() < 1e-12
    torch.testing.assert_close(completeness_error(result.heatmap / 2, result.delta), 0.5 * result.delta**0)


def test_a_delta_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"delta must have shape \(N,\) or \(N, K\) of the maps \(2, 3, 4\)"):
        completeness_error(torch.ones(2, 3, 4), torch.ones(2, 4))


# ---------------------------------------------------------------- erasing


def test_log_odds_are_exact_where_probabilities_are_not():
    logits = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 1.0], [200.0, 0.0, 0.0]])
    target = torch.tensor([1, 0, 0])
    p = logits.double().softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, target)[:2].double(), p[:2].logit(), rtol=1e-6, atol=0)
    assert log_odds(logits, target)[2] == pytest.approx(200 - math.log(2))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), fraction=st.floats(0, 1), channels=st.integers(1, 3))
def test_erased_positions_are_the_most_relevant_ones(seed, fraction, channels):
    generator = torch.Generator().manual_seed(seed)
    x, heatmap = (torch.randn(2, channels, 4, 5, generator=generator) for _ in range(2))
    erased = (erase(x, heatmap, fraction, reference=9.0) == 9.0).all(1).flatten(1)
    relevance = heatmap.sum(1).flatten(1)
    assert (erased.sum(1) == round(20 * fraction)).all()
    for gone, values in zip(erased, relevance):
        assert not gone.any() or gone.all() or values[gone].min() >= values[~gone].max()


def test_erasing_puts_the_reference_in_place_and_leaves_the_image_as_it_is():
    x, reference = torch.rand(2, 3, 2, 2), torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64)
    before = x.clone()
    torch.testing.assert_close(erase(x, x, 1.0, reference), torch.full_like(x, 0.5))
    assert torch.equal(erase(x, x, 0.0), x) and torch.equal(x, before)
    torch.testing.assert_close(erase(x, x.sum(1), 0.5), erase(x, x, 0.5))


@pytest.mark.parametrize(
    ("shape", "fraction", "message"),
    [((2, 3, 3), 0.5, "heatmap must be"), ((1, 4, 4), 0.5, "heatmap must be"), ((2, 4, 4), 1.1, "fraction must be in"),
     ((2, 4, 4), float("nan"), "fraction must be in")],
)  # fmt: skip
def test_what_cannot_be_erased_is_refused(shape, fraction, message):
    with pytest.raises(ValueError, match=message):
        erase(torch.rand(2, 1, 4, 4), torch.rand(shape), fraction)


def test_the_deletion_curve_of_a_linear_network_is_the_sum_of_what_was_erased():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    net[1].weight.data[1] = 0
    x, target = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    heatmap = x * net[1].weight[0].detach().view(1, 1, 4, 4)  # the log-odds of class 0 are its sum
    curve = deletion_curve(net, x, heatmap, target, [0, 0.25, 0.5, 1])
    largest = heatmap.flatten(1).sort(1, descending=True).values
    torch.testing.assert_close(curve, torch.stack([largest[:, :k].sum(1) for k in (0, 4, 8, 16)], 1))
    assert not curve.requires_grad
    assert (deletion_curve(net, x, -heatmap, target, [0.25]) < curve[:, 1:2]).all(), "the best order there is"


def test_the_insertion_curve_of_a_linear_network_is_the_sum_of_what_was_inserted():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    net[1].weight.data[1] = 0
    x, target = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    weight = net[1].weight[0].detach().view(1, 1, 4, 4)
    heatmap = (x - 0.5) * weight
    curve = insertion_curve(net, x, heatmap, target, [0, 0.25, 1], reference=0.5)
    largest = heatmap.flatten(1).sort(1, descending=True).values
    torch.testing.assert_close(curve, torch.stack([largest[:, :k].sum(1) for k in (0, 4, 16)], 1))


@pytest.mark.parametrize(("shape", "heatmap"), [((2, 4, 10), (2, 4, 10)), ((2, 4, 10), (2, 10)), ((2, 10), (2, 10))])
def test_positions_of_sequences_and_features_are_erased(shape, heatmap):
    x, R = torch.rand(shape) + 1, torch.randn(heatmap)
    erased = (erase(x, R, 0.3) == 0).view(2, -1, 10)
    top = (R.sum(1) if R.ndim == 3 else R).topk(3).indices
    assert (erased.sum(2) == 3).all() and erased.all(1).gather(1, top).all()


def test_token_ids_are_erased_to_an_id_and_stay_whole_numbers():
    erased = erase(torch.tensor([[5, 6, 7]]), torch.tensor([[0.1, 0.9, 0.2]]), 1 / 3, reference=1)
    assert erased.tolist() == [[5, 1, 7]] and erased.dtype == torch.long


def test_a_callable_takes_the_place_of_the_log_odds():
    fall = deletion_curve(lambda x: {"sum": x.sum(1)}, torch.ones(2, 4), torch.rand(2, 4), lambda o: o["sum"], [0.5])
    assert fall.tolist() == [[2.0], [2.0]]


# ---------------------------------------------------------------- digit conversion


def conversion(scores, pixels, x=None, classes=(0, 1), **options):
    """Of images with one row of pixels, through a network whose logit c is the sum of the pixels times c + 1."""
    maps = torch.tensor(scores, dtype=torch.float64)[:, None, None]  # (N, 1, 1, W)
    maps = torch.stack([maps, torch.zeros_like(maps)], 1)
    x = torch.ones(maps[:, 0].shape, dtype=torch.float64) if x is None else x
    net = lambda images: images.sum((1, 2, 3))[:, None] * torch.tensor([1.0, 2.0, 4.0])  # noqa: E731
    return pixels_erased_log_odds(net, x, maps, torch.tensor([classes] * len(x)), pixels, **options)


@pytest.mark.parametrize(
    ("scores", "pixels", "kept"),
    [((4, 1, 3, 2), 2, (0, 1, 0, 1)), ((4, -1, -3, 0), 3, (0, 1, 1, 1)), ((-4, -1, -3, 0), 4, (1, 1, 1, 1)),
     ((3, 3, 3, 1), 2, (1, 1, 1, 1)), ((4, 3, 3, 1), 2, (0, 1, 1, 1)), ((3, 3, 2, 2), 2, (0, 0, 1, 1)),
     ((4, 1, 3, 2), 4, (0, 0, 0, 0)), ((4, 1, 3, 2), 100, (0, 0, 0, 0)), ((4, 1, 3, 2), 0, (1, 1, 1, 1))],
    ids=["the largest go", "only positive ones go", "none is positive", "ties at the border stay",
         "those above ties go", "ties that fit go", "all there are", "more than there are", "none"],
)  # fmt: skip
def test_pixels_that_tell_the_classes_apart_are_erased(scores, pixels, kept):
    assert conversion([scores], pixels).erased.flatten().tolist() == list(kept)


def test_the_change_is_that_of_the_difference_of_the_two_logits_and_images_are_erased_each_by_itself():
    x = torch.tensor([[[[1.0, 2, 3]]], [[[1.0, 2, 3]]], [[[1.0, 2, -8]]]]).double()
    before = x.clone()
    result = conversion([(0, 1, 2), (-1, -1, -1), (1, 2, 0)], 1, x, classes=(2, 0), reference=0.5)
    # of logits 4s and 1s of a pixels' sum s, by hand: s falls from 6 to 3.5, stays, rises from −5 to −6.5
    torch.testing.assert_close(result.change, 3 * torch.tensor([2.5, 0.0, 1.5]).double())
    assert result.flipped.tolist() == [False, False, True]
    assert torch.equal(x, before) and result.erased[0].flatten().tolist() == [1, 2, 0.5]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), pixels=st.integers(0, 25), channels=st.integers(1, 3), levels=st.sampled_from((2, 99)))
def test_conversion_is_the_papers_protocol_image_by_image(seed, pixels, channels, levels):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, channels, 4, 5, generator=generator)
    maps = (torch.randn(3, 2, channels, 4, 5, generator=generator) * levels).round() / levels
    net, classes = nn.Sequential(nn.Flatten(), nn.Linear(20 * channels, 4)), torch.tensor([[0, 3], [2, 1], [1, 0]])
    found = pixels_erased_log_odds(net, x, maps, classes, pixels)
    for i, (own, other) in enumerate(classes.tolist()):
        d = (maps[i, 0].sum(0) - maps[i, 1].sum(0)).flatten()
        largest = sorted(d.tolist(), reverse=True)
        erased = x[i].flatten(1).clone()
        erased[:, d > max(largest[pixels] if pixels < 20 else 0, 0)] = 0
        assert torch.equal(found.erased[i].flatten(1), erased) and (erased == 0).all(0).sum() <= pixels
        before, after = net(torch.stack([x[i], erased.view_as(x[i])])).detach()
        expected = (before[own] - before[other]) - (after[own] - after[other])
        torch.testing.assert_close(found.change[i], expected, rtol=1e-4, atol=1e-5)
        assert found.flipped[i] == (after[own] < after[other])
    torch.testing.assert_close(pixels_erased_log_odds(net, x, maps.sum(2), classes, pixels), found)


@pytest.mark.parametrize(
    ("shape", "classes", "pixels", "message"),
    [((2, 4, 4), (2, 2), 3, r"heatmap must be \(N, 2, H, W\)"), ((2, 3, 4, 4), (2, 2), 3, "heatmap must be"),
     ((1, 2, 4, 4), (2, 2), 3, "heatmap must be"), ((2, 2, 4, 4), (2,), 3, r"classes must be \(N, 2\)"),
     ((2, 2, 4, 4), (1, 2), 3, r"classes must be \(N, 2\)"), ((2, 2, 4, 4), (2, 2), -1, "pixels must be ≥ 0, got -1")],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(shape, classes, pixels, message):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=message):
        pixels_erased_log_odds(net, torch.rand(2, 1, 4, 4), torch.rand(shape), torch.zeros(classes).long(), pixels)


# ---------------------------------------------------------------- rank correlation


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), ties=st.booleans())
def test_rank_correlation_is_scipys_within_the_mask(seed, ties):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(3, 2, 4, 4, generator=generator), torch.randn(3, 2, 4, 4, generator=generator)
    a = a.round() if ties else a
    mask = torch.rand(a.shape, generator=generator) > 0.4
    found = rank_correlation(a, b, mask)
    expected = [spearmanr(p[m], q[m]).statistic for p, q, m in zip(a, b, mask)]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert rank_correlation(a, b).tolist() == pytest.approx([spearmanr(p.ravel(), q.ravel())[0] for p, q in zip(a, b)])


def test_rank_correlation_knows_order_only():
    a = torch.randn(2, 5, 5)
    torch.testing.assert_close(rank_correlation(a, a.exp()), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(rank_correlation(a, -(a**3)), -torch.ones(2, dtype=torch.float64))
    assert rank_correlation(a, torch.zeros_like(a)).isnan().all(), "a constant map has no order"


def test_of_values_that_are_not_finite_infinities_are_ranked_and_nan_is_left_out():
    a = torch.tensor([[1.0, torch.inf, 3.0, -torch.inf, torch.nan, 0.5]])
    b = torch.tensor([[2.0, 9.0, 4.0, -8.0, 0.0, 1.0]])
    assert rank_correlation(a[:, :4], b[:, :4]).item() == pytest.approx(1)
    assert rank_correlation(a, b, a == a).item() == pytest.approx(1)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 1, 4, 4)])
def test_maps_of_different_shapes_have_no_rank_correlation(mask):
    with pytest.raises(ValueError, match="maps and mask must have one shape, got"):
        rank_correlation(torch.rand(2, 4, 4), torch.rand(2, 4, 4 if mask is not None else 5), mask)
