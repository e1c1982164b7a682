"""Losses that guide a network's maps by boxes (Rao, Böhle, Parchami-Araghi, Schiele 2023, section 3.2).

Shapes, throughout: a heatmap is (N, H, W), (N, C, H, W), summed over its C channels, or (N, K, C, H, W) for
K maps a sample, whose losses are averaged; a mask is (N, h, w) or (N, 1, h, w) with 1 (or True) = inside
the boxes, see `attrain.masks.boxes_to_mask`. A is the map of a sample, A⁺ = max(A, 0) and M the mask.

Each loss takes the raw map and normalises it as its paper does; a map of another size than the mask (one of
a hidden layer) is then enlarged bilinearly. (The energy needs no normalising: A is enlarged, then A⁺ taken.)
The values are those of the authors' code, whose sum over images is `reduction="sum"`. Half-precision maps are
computed in float32.

An image whose mask is empty has no boxes: it adds nothing to the sum, is left out of the mean, and is NaN
where `reduction="none"`. A batch without any boxes has a loss of 0. `annotated(mask)` counts the others.
"""

import torch
from torch import Tensor

from attrain.masks import as_maps, energies, enlarged, positive_part, share_inside


def energy_loss(heatmap: Tensor, mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """The share of positive relevance outside the boxes, 1 − Σ A⁺M / Σ A⁺.

    It asks for nothing within the boxes, so a map may settle on the object there. Where Σ A⁺ < 1e-7, the
    value is 1 − Σ A⁺M, so that a map that has vanished still has a gradient.

    Args:
        heatmap: (N, H, W), (N, C, H, W) or (N, K, C, H, W), any finite values; see the module's docstring.
        mask: (N, h, w) or (N, 1, h, w) of 0 and 1, 1 = inside the boxes.
        reduction: "mean" or "sum" over images with boxes, or "none" for (N,).

    Raises:
        ValueError: shapes that do not fit, a mask that is not 0/1, a map with NaN or infinite values.

    Example:
        >>> energy_loss(torch.tensor([[[3.0, 1.0, -2.0]]]), torch.tensor([[[1, 0, 0]]]))
        tensor(0.2500)
    """
    maps, inside = as_maps(heatmap, mask)
    return _reduce(1 - share_inside(maps, inside), inside, reduction)


def l1_loss(heatmap: Tensor, mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """Mean over all pixels of |A⁺ / max A⁺ − M| (GRADIA, Gao et al. 2022): relevance is to fill the boxes.

    Args:
        heatmap, mask, reduction: (N, [K,] [C,] H, W), (N, h, w), as for `energy_loss`, with what is raised.
            A map without positive values stays 0.

    Example:
        >>> l1_loss(torch.tensor([[[4.0, 1.0, -2.0, 0.0]]]), torch.tensor([[[1, 1, 0, 0]]]))
        tensor(0.1875)
    """
    maps, inside = as_maps(heatmap, mask)
    # |A⁺/max − M| is A⁺/max outside and 1 − A⁺/max inside: two sums are enough.
    energy, total = energies(positive_part(maps) if maps.shape[-2:] != inside.shape[-2:] else maps, inside)
    sums = (total - 2 * energy) / _largest(maps) + inside.sum((-2, -1))
    return _reduce(sums / inside[0, 0].numel(), inside, reduction)


def ppce_loss(heatmap: Tensor, mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """Mean over the pixels inside the boxes of −ln(A⁺ / max A⁺) (per-pixel cross-entropy; HAICS, Shen et al. 2021).

    It says nothing of the pixels outside.

    Args:
        heatmap, mask, reduction: (N, [K,] [C,] H, W), (N, h, w), as for `energy_loss`, with what is raised.
            The logarithm is at least −100; a pixel of 0 is there, and has no gradient.

    Example:
        >>> ppce_loss(torch.tensor([[[1.0, 0.5, -2.0]]]), torch.tensor([[[1, 1, 0]]]))
        tensor(0.3466)
    """
    maps, inside = as_maps(heatmap, mask)
    # Only what is inside is normalised and has its logarithm taken: both are slow.
    is_inside = (inside > 0).expand(*maps.shape[:2], *inside.shape[-2:])
    lengths = inside.sum((-2, -1)).long().expand(maps.shape[:2])
    values = enlarged(positive_part(maps), inside).masked_select(is_inside)
    values = values / _largest(maps).flatten().repeat_interleave(lengths.flatten())
    relevant = values > 0
    cross_entropy = torch.where(relevant, -values.masked_fill(~relevant, 1.0).log(), 100.0).clamp(max=100.0)
    sums = torch.segment_reduce(cross_entropy, "sum", lengths=lengths.flatten(), initial=0).view_as(lengths)
    return _reduce(sums / lengths.clamp(min=1), inside, reduction)


def rrr_loss(heatmap: Tensor, mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """Sum over the pixels outside the boxes of (A / max|A|)² (RRR*, after Ross et al. 2017).

    Args:
        heatmap, mask, reduction: (N, [K,] [C,] H, W), (N, h, w), as for `energy_loss`, with what is raised.
            A map of zeros stays 0.

    Example:
        >>> rrr_loss(torch.tensor([[[4.0, 2.0, -1.0]]]), torch.tensor([[[1, 0, 0]]]))
        tensor(0.3125)
    """
    maps, inside = as_maps(heatmap, mask)
    outside = enlarged(maps, inside) * (1 - inside)
    return _reduce(outside.square().sum((-2, -1)) / _largest(maps.abs()) ** 2, inside, reduction)


def _largest(maps: Tensor) -> Tensor:
    """The largest positive value of each map, (N, K); 1 where there is none."""
    largest = maps.flatten(-2).max(-1).values
    return torch.where(largest <= 0, 1.0, largest)


def _reduce(each: Tensor, inside: Tensor, reduction: str) -> Tensor:
    """From (N, K) to a number, or to (N,)."""
    each, has_boxes = each.mean(1), inside.sum((1, 2, 3)) > 0
    if reduction == "none":
        return each.masked_fill(~has_boxes, torch.nan)
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    total = torch.where(has_boxes, each, 0.0).sum()
    return total if reduction == "sum" else total / has_boxes.sum().clamp(min=1)
