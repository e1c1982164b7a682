"""Guidance losses against their definitions, image by image and box by box, and at the edges of what they accept."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from attrain import boxes_to_mask, energy_loss, l1_loss, ppce_loss, rrr_loss
from attrain.losses import annotated

LOSSES = [energy_loss, l1_loss, ppce_loss, rrr_loss]
losses = pytest.mark.parametrize("loss", LOSSES)


def by_definition(loss, heatmap, mask):
    """Of one map (H, W), pixel by pixel, in Python's floats."""
    pixels = [(float(a), bool(m)) for a, m in zip(heatmap.flatten(), mask.flatten())]
    positive = [max(a, 0.0) for a, _ in pixels]
    inside = [p for p, (_, m) in zip(positive, pixels) if m]
    if loss is energy_loss:
        total = sum(positive)
        return 1 - sum(inside) / (total if total >= 1e-7 else 1)
    largest = max(positive) or 1.0
    if loss is l1_loss:
        return sum(abs(p / largest - m) for p, (_, m) in zip(positive, pixels)) / len(pixels)
    if loss is ppce_loss:
        return sum(-math.log(p / largest) if p > 0 else 100.0 for p in inside) / len(inside)
    largest = max(abs(a) for a, _ in pixels) or 1.0
    return sum((a / largest) ** 2 for a, m in pixels if not m)


@losses
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e4]))
def test_values_are_those_of_the_definition(loss, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    heatmap = scale * torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 6, 5, generator=generator) < 0.4
    mask[:, 0, 0], mask[:, 0, 1] = True, False
    expected = [by_definition(loss, a, m) for a, m in zip(heatmap, mask)]
    torch.testing.assert_close(loss(heatmap, mask, reduction="none").tolist(), expected, rtol=1e-9, atol=1e-12)
    assert loss(heatmap, mask, reduction="sum").item() == pytest.approx(sum(expected))
    assert loss(heatmap, mask).item() == pytest.approx(sum(expected) / 4)


def test_golden_values():
    """Two boxes that overlap; worked out by hand."""
    heatmap = torch.tensor([[[0.5, 1.0, -0.2], [0.2, -1.0, 0.04], [0.0, 0.6, 0.16]]])
    mask = boxes_to_mask([[(0, 0, 1, 2), (0, 1, 1, 2)]], (3, 3))
    assert energy_loss(heatmap, mask).item() == pytest.approx(1 - 0.7 / 2.5)
    assert l1_loss(heatmap, mask).item() == pytest.approx((0.5 + 0.8 + 1.0 + 0.04 + 0.6 + 0.16) / 9)
    assert ppce_loss(heatmap, mask).item() == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2)
    assert rrr_loss(heatmap, mask).item() == pytest.approx(1.0 + 0.04 + 1.0 + 0.0016 + 0.36 + 0.0256)


@losses
def test_channels_are_summed_and_maps_of_a_sample_averaged(loss):
    torch.manual_seed(0)
    maps, mask = torch.randn(2, 3, 4, 5, 5), torch.rand(2, 5, 5) < 0.5
    each = torch.stack([loss(maps[:, k].sum(1), mask, reduction="none") for k in range(3)], 1)
    torch.testing.assert_close(loss(maps, mask, reduction="none"), each.mean(1))
    torch.testing.assert_close(loss(maps[:, 0], mask[:, None]), each[:, 0].mean())


@losses
def test_images_without_boxes_are_left_out(loss):
    torch.manual_seed(0)
    maps, mask = torch.randn(3, 4, 4), torch.rand(3, 4, 4) < 0.5
    mask[1] = False
    assert annotated(mask).tolist() == [True, False, True]
    torch.testing.assert_close(loss(maps, mask), loss(maps[::2], mask[::2]))
    assert loss(maps, mask, reduction="none").isnan().tolist() == [False, True, False]
    leaf = maps.clone().requires_grad_()
    nothing = loss(leaf, torch.zeros(3, 4, 4))
    nothing.backward()
    assert nothing == 0 and (leaf.grad == 0).all()


@losses
@pytest.mark.parametrize("fill", [0.0, -1.0, 1.0])
def test_maps_that_have_nothing_positive_or_no_structure_have_finite_gradients(loss, fill):
    leaf = torch.full((2, 4, 4), fill, requires_grad=True)
    loss(leaf, torch.ones(2, 4, 4).tril()).backward()
    assert leaf.grad.isfinite().all()


@losses
def test_gradients_are_those_of_finite_differences(loss):
    torch.manual_seed(0)
    maps, mask = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True), torch.rand(2, 4, 4) < 0.5
    assert gradcheck(lambda m: loss(m, mask), (maps,))


@losses
def test_coarse_maps_are_enlarged_to_the_mask(loss):
    maps, mask = torch.ones(1, 2, 2), torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    expected = {energy_loss: 0.5, l1_loss: 0.5, ppce_loss: 0.0, rrr_loss: 32.0}
    assert loss(maps, mask).item() == pytest.approx(expected[loss])


@losses
def test_half_precision_is_computed_in_float32(loss):
    torch.manual_seed(0)
    maps, mask = torch.rand(2, 64, 64), torch.rand(2, 64, 64) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(maps.bfloat16(), mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(maps.bfloat16().float(), mask))


@losses
@pytest.mark.parametrize(
    ("heatmap", "mask", "message"),
    [
        (torch.ones(4, 4), torch.ones(4, 4), "heatmap must be"),
        (torch.ones(2, 4, 4), torch.ones(3, 4, 4), "mask must be"),
        (torch.ones(2, 4, 4), torch.ones(2, 2, 4, 4), "mask must be"),
        (torch.ones(2, 4, 4), torch.full((2, 4, 4), 0.5), "only 0"),
        (torch.full((2, 4, 4), torch.nan), torch.ones(2, 4, 4), "NaN"),
    ],
)
def test_bad_input_is_refused(loss, heatmap, mask, message):
    with pytest.raises(ValueError, match=message):
        loss(heatmap, mask)
    with pytest.raises(ValueError, match="reduction"):
        loss(torch.ones(1, 2, 2), torch.ones(1, 2, 2), reduction="median")
