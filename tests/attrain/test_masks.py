"""Boxes as masks: which pixels they hold, and what they may not be; which maps go with a mask."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrain import (
    background_share,
    boxes_to_mask,
    dilate_boxes,
    energy_loss,
    epg,
    heatmap_iou,
    isnet_loss,
    l1_loss,
    ppce_loss,
    rrr_loss,
)

box = st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(1, 7), st.integers(1, 5)).map(
    lambda b: (min(b[0], b[2] - 1), min(b[1], b[3] - 1), b[2], b[3])
)

MASK = torch.zeros(2, 32, 48)
MASK[:, 8:24, 12:36] = 1


def iou(heatmap, mask):
    return heatmap_iou(heatmap, mask, threshold=0.5)


FITTED = [energy_loss, l1_loss, ppce_loss, rrr_loss, isnet_loss, epg, iou, background_share]


@given(st.lists(st.lists(box, max_size=4), min_size=1, max_size=3))
def test_whole_pixels_are_those_of_slices(boxes):
    expected = torch.zeros(len(boxes), 5, 7, dtype=torch.bool)
    for image, image_boxes in zip(expected, boxes):
        for left, top, right, bottom in image_boxes:
            image[top:bottom, left:right] = True
    assert torch.equal(boxes_to_mask(boxes, (5, 7)), expected)
    tensors = [torch.tensor(image_boxes).reshape(-1, 4) for image_boxes in boxes]
    assert torch.equal(boxes_to_mask(tensors, (5, 7)), expected)
    padded = dilate_boxes(boxes, 0.0, (5, 7))
    assert padded.shape == (len(boxes), max(map(len, boxes)), 4)
    assert torch.equal(boxes_to_mask(padded, (5, 7)), expected)


def test_fractions_of_pixels_count_by_the_pixels_centre_and_the_rest_is_cut_off():
    mask = boxes_to_mask([[(0.4, 0.6, 1.6, 9.0)], [(-3, -3, 0.5, 0.6)]], (3, 3)).int()
    assert mask.tolist() == [[[0, 0, 0], [1, 1, 0], [1, 1, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]]


def test_no_images_and_no_boxes():
    assert boxes_to_mask([], (3, 4)).shape == (0, 3, 4)
    assert not boxes_to_mask([[], []], (3, 4)).any()
    assert boxes_to_mask([[], []], (3, 4)).shape == (2, 3, 4)


@pytest.mark.parametrize(
    "wrong",
    [(2, 1, 2, 3), (3, 1, 2, 3), (0, 3, 2, 1), (8, 0, 9, 1), (0, 5, 1, 6), (-2, 0, 0, 1), (0, 0, float("nan"), 2)],
    ids=["empty", "inverted", "upside down", "to the right", "below", "to the left", "not a number"],
)
def test_a_box_that_holds_nothing_of_the_image_is_named(wrong):
    with pytest.raises(ValueError, match="box 1 of image 1"):
        boxes_to_mask([[], [(0, 0, 1, 1), wrong]], (5, 7))


@pytest.mark.parametrize("boxes", [torch.zeros(4), torch.zeros(2, 3), torch.zeros(2, 3, 5), [[(1, 2, 3)]]])
def test_boxes_of_another_shape_are_refused(boxes):
    with pytest.raises(ValueError, match=r"B, 4"):
        boxes_to_mask(boxes, (5, 7))


def test_dilation_pushes_every_side_out_and_stops_at_the_border():
    boxes = torch.tensor([[[4, 4, 8, 6]], [[-1, -1, -1, -1]]])
    assert dilate_boxes(boxes, 0.25, (20, 20)).tolist() == [[[3.0, 3.5, 9.0, 6.5]], [[-1.0] * 4]]
    assert dilate_boxes(boxes, 5.0, (7, 20)).tolist() == [[[0.0, 0.0, 20.0, 7.0]], [[-1.0] * 4]]
    with pytest.raises(ValueError, match="fraction"):
        dilate_boxes(boxes, -0.1, (20, 20))


# ---------------------------------------------------------------- maps and masks that do not fit each other


@pytest.mark.parametrize(
    "shape",
    [(2, 32, 48), (2, 3, 32, 48), (2, 4, 3, 32, 48), (2, 1, 2, 3), (2, 64, 96), (2, 5, 6)],
    ids=["map", "channels", "maps of a class", "a layer", "finer", "a layer without padding"],
)
@pytest.mark.parametrize("measure", FITTED, ids=lambda f: f.__name__)
def test_maps_in_the_masks_proportions_are_taken(measure, shape):
    assert measure(torch.ones(shape), MASK).isfinite().all()


@pytest.mark.parametrize(
    "shape",
    [(2,), (2, 32), (2, 17, 192), (2, 32, 48, 3), (2, 7, 7, 512), (1, 2, 3, 4, 32, 48), (3, 32, 48), (2, 48, 3)],
    ids=[
        "numbers",
        "series",
        "tokens",
        "channels last",
        "a layer's channels last",
        "rank 6",
        "other images",
        "columns",
    ],
)
@pytest.mark.parametrize("measure", FITTED, ids=lambda f: f.__name__)
def test_maps_that_do_not_fit_the_mask_are_refused_and_both_shapes_named(measure, shape):
    with pytest.raises(ValueError, match=re.escape(f"got a heatmap {shape} and a mask (2, 32, 48)")):
        measure(torch.ones(shape), MASK)


@pytest.mark.parametrize("shape", [(32, 48), (2, 3, 32, 48), (3, 32, 48)])
def test_masks_of_another_shape_are_refused_and_both_shapes_named(shape):
    with pytest.raises(ValueError, match=re.escape(f"got a heatmap (2, 32, 48) and a mask {shape}")):
        energy_loss(torch.ones(2, 32, 48), torch.ones(shape))


def test_one_image_without_a_batch_is_refused():
    with pytest.raises(ValueError, match="N = 3 as in the heatmap"):
        epg(torch.ones(3, 32, 48), torch.ones(1, 32, 48))


def test_a_series_as_an_image_of_one_row_may_have_a_coarser_map():
    assert epg(torch.ones(2, 1, 12), torch.ones(2, 1, 48)).tolist() == [1.0, 1.0]
