"""The pointing game and the overlap of maps with boxes, against their definitions; Pareto fronts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attrain import EPG, HeatmapIoU, energy_loss, epg, heatmap_iou, random_positive_target
from attrain.metrics.localisation import choose_threshold, on_object_epg, pareto_front


def examples(n=6):
    generator = torch.Generator().manual_seed(0)
    maps, mask = torch.randn(n, 8, 8, generator=generator), torch.rand(n, 8, 8, generator=generator) < 0.3
    return maps, mask


def test_epg_is_one_less_the_energy_loss():
    maps, mask = examples()
    torch.testing.assert_close(epg(maps, mask), 1 - energy_loss(maps, mask, reduction="none"))


def test_a_map_without_positive_relevance_points_nowhere_and_an_image_without_boxes_has_no_value():
    maps, mask = torch.stack([-torch.ones(4, 4), torch.ones(4, 4)]), torch.zeros(2, 4, 4)
    mask[0, 0] = 1
    assert epg(maps, mask).nan_to_num(7.0).tolist() == [0.0, 7.0]


def test_corrected_epg_is_zero_for_even_maps_and_one_for_perfect_ones():
    mask = torch.zeros(3, 4, 4)
    mask[0, 0], mask[1, :3], mask[2] = 1, 1, 1
    assert epg(torch.ones(3, 4, 4), mask, corrected=True).tolist() == [0.0, 0.0, 1.0]
    assert epg(mask, mask, corrected=True).tolist() == [1.0, 1.0, 1.0]


def test_on_object_epg_counts_only_what_lies_in_the_boxes():
    heatmap = torch.tensor([[[4.0, 1.0, 3.0, 9.0]]])
    mask, objects = torch.tensor([[[1, 1, 1, 0]]]), torch.tensor([[[0, 1, 1, 0]]])
    assert on_object_epg(heatmap, mask, objects).item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="objects"):
        on_object_epg(heatmap, mask, objects[..., :2])


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.9])
def test_iou_is_that_of_sets_of_pixels(threshold):
    maps, mask = examples()
    for a, m, found in zip(maps, mask, heatmap_iou(maps, mask, threshold=threshold)):
        positive = a.clamp(min=0)
        large = (positive - positive.min()) / (positive.max() - positive.min()) > threshold
        a_set, m_set = ({tuple(p) for p in v.nonzero().tolist()} for v in (large, m))
        assert found.item() == pytest.approx(len(a_set & m_set) / len(a_set | m_set))


def test_constant_maps_are_large_everywhere_and_empty_ones_nowhere():
    mask = torch.zeros(2, 4, 4)
    mask[:, :2] = 1
    maps = torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), -3.0)])
    assert heatmap_iou(maps, mask, threshold=0.5).tolist() == [0.5, 0.0]


def test_the_threshold_is_chosen_by_the_mean_overlap():
    maps, mask = torch.tensor([[[1.0, 0.4, 0.4, 0.1]]]), torch.tensor([[[1, 1, 1, 0]]])
    assert choose_threshold(maps, mask) == 0.0  # 0.1 is the least value, and so becomes 0
    assert choose_threshold(maps, mask, [0.9, 0.2, 0.3]) == 0.2
    with pytest.raises(ValueError, match="no boxes"):
        choose_threshold(maps, mask * 0)


@pytest.mark.parametrize(
    ("metric", "function", "options"),
    [(EPG, epg, {}), (EPG, epg, {"corrected": True}), (HeatmapIoU, heatmap_iou, {"threshold": 0.2})],
)
def test_metrics_gather_the_mean_of_their_function_over_images_with_boxes(metric, function, options):
    maps, mask = examples()
    mask[2] = False
    gathered = metric(**options)
    for batch in range(3):
        part = slice(2 * batch, 2 * batch + 2)
        gathered.update(maps[part], mask[part])
    assert gathered.compute().item() == pytest.approx(function(maps, mask, **options).nanmean().item())
    gathered.reset()
    gathered.update(maps[:0], mask[:0])
    assert gathered.compute().isnan()


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        heatmap_iou(*examples(), threshold=threshold)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=12))
def test_the_front_holds_what_nothing_surpasses(points):
    front = pareto_front(torch.tensor(points) * 0.1)
    for own, on_front in zip(points, front):
        surpassed = any(all(a >= b for a, b in zip(p, own)) and p != own for p in points)
        assert bool(on_front) != surpassed


def test_values_that_differ_by_less_than_a_bin_are_equal_on_the_front():
    points = torch.tensor([[0.8001, 0.5], [0.7999, 0.5]])
    assert pareto_front(points).all() and pareto_front(points, bin_width=0).tolist() == [True, False]
    with pytest.raises(ValueError, match="points"):
        pareto_front(torch.tensor([1.0, 2.0]))


def test_positive_targets_are_drawn_uniformly():
    y = torch.tensor([[1, 0, 1, 1]]).expand(6000, 4)
    counts = random_positive_target(y, torch.Generator().manual_seed(0)).bincount(minlength=4)
    assert counts[1] == 0 and (counts[[0, 2, 3]] - 2000).abs().max() < 150
    assert random_positive_target(y[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("y", "message"), [(torch.tensor([[0, 1], [0, 0]]), r"sample\(s\) \[1\]"), (torch.tensor([1]), "labels")]
)
def test_labels_without_a_positive_class_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        random_positive_target(y)
