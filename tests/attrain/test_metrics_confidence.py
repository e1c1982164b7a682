"""Calibration against sums by hand; filters' similarity and rank at known matrices; bad input."""

import math

import pytest
import torch

from attrain.metrics import calibration, effective_rank, filter_similarity, reliability


def by_hand(logits, y, bins):
    confidence, predicted = logits.double().softmax(1).max(1)
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = (predicted == y)[inside].double().mean() - confidence[inside].mean()
            error += inside.double().mean() * abs(gap)
    return float(error)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0, 200.0])
@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_error_is_that_of_bins_by_hand_with_certain_samples_in_the_last(scale, bins):
    logits, y = scale * torch.randn(500, 4), torch.randint(4, (500,))
    found = calibration(logits, y, bins)
    assert found["ece"] == pytest.approx(by_hand(logits, y, bins), abs=1e-6)
    confidence, accuracy, count = reliability(logits, y, bins)
    assert count.sum() == 500
    assert ((accuracy - confidence).abs().nan_to_num() * count).sum() / 500 == pytest.approx(found["ece"], abs=1e-6)


def test_likelihood_and_brier_score_of_a_known_case():
    logits, y = torch.tensor([[0.8, 0.2], [0.3, 0.7]]).log(), torch.tensor([0, 0])
    found = calibration(logits, y)
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 2)
    assert found["brier"] == pytest.approx((2 * 0.2**2 + 2 * 0.7**2) / 2)


def test_filters_that_are_alike_and_filters_that_are_not():
    alike = torch.randn(1, 3, 3, 3).expand(5, 3, 3, 3) * torch.tensor([1.0, -2, 3, 4, 5]).view(5, 1, 1, 1)
    assert filter_similarity(alike) == pytest.approx(1) and effective_rank(alike) == pytest.approx(1 / 5)
    unlike = torch.eye(6)
    assert filter_similarity(unlike) == pytest.approx(0, abs=1e-12) and effective_rank(unlike) == pytest.approx(1)
    half = torch.eye(4)[[0, 1, 0, 1]]
    assert filter_similarity(half) == pytest.approx(1 / 3) and effective_rank(half) == pytest.approx(0.5)


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.ones(1, 4), torch.ones(5), torch.full((2, 2), torch.nan)])
def test_weights_without_filters_raise(weight):
    for measure in (filter_similarity, effective_rank):
        with pytest.raises(ValueError, match="weight must be"):
            measure(weight)


def test_logits_that_do_not_fit_raise():
    for logits, y in (
        (torch.randn(3, 2), torch.zeros(2).long()),
        (torch.full((1, 2), torch.nan), torch.zeros(1).long()),
    ):
        with pytest.raises(ValueError, match="logits must be finite"):
            calibration(logits, y)
        with pytest.raises(ValueError, match="logits must be finite"):
            reliability(logits, y)
