"""Nested containers of tensors, and whether numbers are finite."""

import pytest
import torch

from attrain.tensors import along, finite, mapped, tensors


def test_tensors_of_nested_containers_come_in_order_and_others_are_left_out():
    a, b, c = (torch.tensor(i) for i in range(3))
    assert tensors({"x": [a, "text", (b, None)], "y": c, "z": 3}) == [a, b, c]
    assert tensors("text") == tensors(None) == []


def test_a_change_reaches_every_tensor_and_keeps_the_form():
    nested = {"x": [torch.ones(2), "text"], "y": (torch.zeros(1), None)}
    assert mapped(len, nested) == {"x": [2, "text"], "y": (1, None)}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found(bad):
    values = torch.ones(3, 4)
    assert finite(values) and finite(torch.full((4,), 3e38)), "though their sum is infinite"
    values[1, 2] = bad
    assert not finite(values)
    assert not finite(torch.tensor([torch.inf, -torch.inf]))


def test_a_vector_of_channels_goes_along_their_axis():
    assert along(torch.ones(3), 1, 4).shape == (3, 1, 1)
    assert along(torch.ones(3), -1, 3).shape == (3,) and along(torch.tensor(1.0), 1, 4).shape == ()
