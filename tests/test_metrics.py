import pytest
import torch

from attrain import background_share


def test_share_is_the_background_part_of_the_absolute_relevance():
    heatmap = torch.tensor([[[[1.0, -1.0]], [[2.0, -4.0]]]])  # (1, 2, 1, 2)
    assert background_share(heatmap, torch.tensor([[[1, 0]]])).item() == pytest.approx(5 / 8)


def test_shares_of_foreground_and_background_sum_to_one():
    heatmap, mask = torch.randn(3, 2, 5, 5), torch.rand(3, 5, 5) > 0.4
    torch.testing.assert_close(background_share(heatmap, mask) + background_share(heatmap, ~mask), torch.ones(3))


def test_a_map_of_zeros_has_no_share():
    assert background_share(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).isnan().all()
