"""How well maps agree with boxes: the energy pointing game and the intersection over union, and Pareto fronts.

Shapes are those of `attrain.losses.boxes`. Functions return a value for each image, NaN where an image has no boxes;
`attrain.metrics.stateful` gathers the mean over all images that have.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attrain.masks import annotated, as_maps, enlarged, share_inside
from attrain.numbers import number


def epg(heatmap: Tensor, mask: Tensor, *, corrected: bool = False) -> Tensor:
    """Energy pointing game (Wang et al. 2020): the share of positive relevance inside the boxes, Σ A⁺M / Σ A⁺.

    Args:
        heatmap, mask: see `attrain.losses.boxes`.
        corrected: relative to chance, (e − c) / (1 − c) with c the boxes' share of the image: 0 for a map that
            is spread evenly, 1 for one inside the boxes, and 1 where the boxes are the whole image.

    Returns:
        (N,) in [0, 1], or up to 1 if corrected; a map without positive relevance has e = 0, as in the paper.

    Example:
        >>> heatmap, mask = torch.tensor([[[3.0, 1.0, -2.0, 0.0]]]), torch.tensor([[[1, 0, 0, 1]]])
        >>> epg(heatmap, mask), epg(heatmap, mask, corrected=True)
        (tensor([0.7500]), tensor([0.5000]))
    """
    maps, inside = as_maps(heatmap, mask)
    energy = share_inside(maps, inside, least=0.0)
    if corrected:
        chance = inside.mean((-2, -1))
        energy = torch.where(chance == 1, 1.0, (energy - chance) / (1 - chance).masked_fill(chance == 1, 1.0))
    return energy.mean(1).masked_fill(~annotated(mask), torch.nan)


def on_object_epg(heatmap: Tensor, mask: Tensor, objects: Tensor) -> Tensor:
    """Of the positive relevance inside the boxes, the share that lies on the objects: does a map go beyond its boxes?

    Args:
        heatmap, mask: see `attrain.losses.boxes`.
        objects: segmentation of the objects, shaped as the mask.

    Returns:
        (N,) in [0, 1]; NaN where an image has no object.
    """
    if objects.shape != mask.shape:
        raise ValueError(f"objects must have the mask's shape {tuple(mask.shape)}, got {tuple(objects.shape)}")
    maps, inside = as_maps(heatmap, mask)
    return epg(enlarged(maps, inside).clamp(min=0)[:, :, None] * inside[:, None], objects)


def heatmap_iou(heatmap: Tensor, mask: Tensor, *, threshold: float) -> Tensor:
    """Intersection over union of the boxes and of the pixels where a map is large.

    A⁺ is scaled to [0, 1] by its least and largest value; large is > threshold.

    Args:
        heatmap, mask: see `attrain.losses.boxes`.
        threshold: in [0, 1); to be chosen on validation images, see `choose_threshold`. Maps at the input are so
            peaked that 0.5 leaves almost nothing.

    Returns:
        (N,) in [0, 1].

    Example:
        >>> heatmap_iou(torch.tensor([[[4.0, 1.0, -2.0]]]), torch.tensor([[[1, 1, 0]]]), threshold=0.5)
        tensor([0.5000])
    """
    if not 0 <= number("threshold", threshold) < 1:
        raise ValueError(f"threshold must be in [0, 1), got {threshold}")
    maps, inside = as_maps(heatmap, mask)
    large, inside = _scaled(enlarged(maps, inside).clamp(min=0)) > threshold, inside > 0
    union = (large | inside).sum((-2, -1))
    iou = (large & inside).sum((-2, -1)).float() / union.clamp(min=1)
    return iou.mean(1).masked_fill(~annotated(mask), torch.nan)


def choose_threshold(heatmap: Tensor, mask: Tensor, candidates: Sequence[float] | None = None) -> float:
    """The threshold with the largest mean IoU on validation images, the lowest of equals.

    Args:
        heatmap, mask: of validation images, see `attrain.losses.boxes`.
        candidates: in [0, 1); None: 0, 0.01, 0.02, 0.05, 0.1, 0.15, … 0.95.
    """
    candidates = candidates or [0.0, 0.01, 0.02, *(i / 20 for i in range(1, 20))]
    if not annotated(mask).any():
        raise ValueError("mask has no boxes, so no threshold is better than another")
    return max(sorted(candidates), key=lambda t: heatmap_iou(heatmap, mask, threshold=t).nanmean().item())


def pareto_front(points: Tensor, bin_width: float = 0.005) -> Tensor:
    """Which points no other surpasses: none is at least as good in every measure and better in one.

    Args:
        points: (P, M), larger is better, as (F1, EPG, IoU) of P models.
        bin_width: values are first rounded to its multiples (the paper: 0.005), 0 for none.

    Returns:
        (P,) bool; points that are equal after rounding are all on the front, or none is.

    Example:
        >>> pareto_front(torch.tensor([[0.8, 0.2], [0.7, 0.5], [0.6, 0.4]]))
        tensor([ True,  True, False])
    """
    if points.ndim != 2 or not points.isfinite().all():
        raise ValueError(f"points must be finite, of shape (P, M), got {tuple(points.shape)}")
    values = (points / bin_width).round() if bin_width else points
    as_good = (values[None] >= values[:, None]).all(2)
    return ~(as_good & (values[None] > values[:, None]).any(2)).any(1)


def _scaled(positive: Tensor) -> Tensor:
    least, largest = positive.amin((-2, -1), keepdim=True), positive.amax((-2, -1), keepdim=True)
    least = torch.where(largest - least < 1e-7, 0.0, least)  # a constant map is large everywhere
    return (positive - least) / torch.where(largest == 0, 1.0, largest - least)
