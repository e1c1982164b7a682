"""Boxes as masks: which pixels they hold, and what they may not be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrain import boxes_to_mask, dilate_boxes
from attrain.masks import surrounding_boxes

box = st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(1, 7), st.integers(1, 5)).map(
    lambda b: (min(b[0], b[2] - 1), min(b[1], b[3] - 1), b[2], b[3])
)


@given(st.lists(st.lists(box, max_size=4), min_size=1, max_size=3))
def test_whole_pixels_are_those_of_slices(boxes):
    expected = torch.zeros(len(boxes), 5, 7, dtype=torch.bool)
    for image, own in zip(expected, boxes):
        for left, top, right, bottom in own:
            image[top:bottom, left:right] = True
    assert torch.equal(boxes_to_mask(boxes, (5, 7)), expected)
    tensors = [torch.tensor(own).reshape(-1, 4) for own in boxes]
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


@given(st.lists(box, min_size=1, max_size=4))
def test_what_surrounds_a_box_is_all_that_is_not_in_it(boxes):
    boxes = torch.tensor([[own] for own in boxes])
    around = surrounding_boxes(boxes, (5, 7))
    assert around.shape == (len(boxes), 4, 4)
    assert torch.equal(boxes_to_mask(around, (5, 7)), ~boxes_to_mask(boxes, (5, 7)))


def test_what_surrounds_no_box_is_the_image_and_a_box_may_reach_out_of_it():
    boxes = torch.tensor([[[-1.0, -1, -1, -1]], [[-2.0, 1, 3, 9]]])
    around = boxes_to_mask(surrounding_boxes(boxes, (5, 7)), (5, 7))
    assert around[0].all() and torch.equal(around[1], ~boxes_to_mask(boxes, (5, 7))[1])
    with pytest.raises(ValueError, match=r"boxes must be \(N, 1, 4\)"):
        surrounding_boxes(torch.zeros(1, 2, 4), (5, 7))
