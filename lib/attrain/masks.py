"""Masks, boxes, and the maps that go with them: shapes checked, sizes matched, the share of a map inside."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attrain.numbers import number
from attrain.tensors import finite

Boxes = Tensor | Sequence[Tensor | Sequence[Sequence[float]]]
_TINY = 1e-7  # the least energy, in the code of Rao et al. 2023


def fit_mask(mask: Tensor, heatmap: Tensor) -> Tensor:
    """A mask (N, H, W) or (N, 1, H, W) as (N, h, w) of 0 and 1 in the heatmap's size and dtype.

    Raises ValueError as `check_mask` does.
    """
    mask = check_mask(mask, heatmap).to(heatmap)
    height, width = heatmap.shape[-2:]
    if mask.shape[-2:] == (height, width):
        return mask
    return (F.adaptive_avg_pool2d(mask, (height, width)) > 0).to(heatmap.dtype)


def check_mask(mask: Tensor, heatmap: Tensor) -> Tensor:
    """The mask as (N, H, W), if it and the heatmap fit each other.

    Args:
        mask: (N, H, W) or (N, 1, H, W) of 0 and 1.
        heatmap: (N, h, w), (N, C, h, w) or (N, K, C, h, w). It may be coarser than the mask, or finer, but must have
            its proportions, give or take what layers without padding lose: tokens (N, T, E), or channels that
            come last, would otherwise be taken for places.

    Raises:
        ValueError: another rank, another N, h : w more than twice H : W or less than half of it; other values than
            0 and 1.
    """
    if not isinstance(mask, Tensor):
        hint = "; of boxes boxes_to_mask makes one" if isinstance(mask, (list, tuple)) else ""
        raise TypeError(f"mask must be a tensor (N, H, W) of 0 and 1, got {type(mask).__name__}{hint}")
    shapes = f"got a heatmap {tuple(heatmap.shape)} and a mask {tuple(mask.shape)}"
    if heatmap.ndim not in (3, 4, 5):
        raise ValueError(f"heatmap must be (N, H, W), (N, C, H, W) or (N, K, C, H, W), {shapes}")
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim != 3 or len(mask) != len(heatmap):
        raise ValueError(f"mask must be (N, H, W) or (N, 1, H, W) with N = {len(heatmap)} as in the heatmap, {shapes}")
    sides = [(a, b) for a, b in zip(heatmap.shape[-2:], mask.shape[-2:]) if (a, b) != (1, 1)]
    size = mask.shape[-2:]
    last = heatmap.ndim > 3 and heatmap.shape[-3:-1] == size != heatmap.shape[-2:]  # channels come last
    if last or any(a * d > 2 * c * b for a, b in sides for c, d in sides):
        raise ValueError(f"heatmap must end in H and W in the mask's proportions, not in channels or tokens, {shapes}")
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        given = f"from {mask.min().item():g} to {mask.max().item():g}"
        raise ValueError(
            f"mask must hold only 0 (background, outside the boxes) and 1 (foreground, inside), got {given}"
        )
    return mask


def as_maps(heatmap: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A heatmap, channels summed, as (N, K, H, W), and its mask as (N, 1, h, w), in one dtype of float32 at least.

    Raises ValueError as `check_mask` does, and for NaN or infinite values.
    """
    mask = check_mask(mask, heatmap)[:, None]
    if heatmap.dtype in (torch.float16, torch.bfloat16):
        heatmap = heatmap.float()
    if not finite(heatmap):
        raise ValueError("heatmap holds NaN or infinite values")
    maps = heatmap[:, None] if heatmap.ndim == 3 else heatmap.sum(-3)
    return maps if heatmap.ndim != 4 else maps[:, None], mask.to(heatmap)


def annotated(mask: Tensor) -> Tensor:
    """Which images have boxes, (N,) bool, from masks (N, h, w) or (N, 1, h, w)."""
    return mask.flatten(1).any(1)


def share_inside(maps: Tensor, inside: Tensor, least: float | None = None) -> Tensor:
    """Σ A⁺M / Σ A⁺, (N, K); where Σ A⁺ < 1e-7 Σ A⁺M, or `least` if given."""
    energy, total = energies(maps, inside)
    share = energy / torch.where(total < _TINY, 1.0, total)
    return share if least is None else torch.where(total < _TINY, least, share)


def energies(maps: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Σ A⁺M and Σ A⁺ of maps enlarged to the mask, (N, K) each."""
    positive = positive_part(enlarged(maps, inside))
    return (positive * inside).sum((-2, -1)), positive.sum((-2, -1))


def positive_part(maps: Tensor) -> Tensor:
    """A⁺, with the derivative of 1 at 0, as `clamp(min=0)` has it, whose derivative takes many times as long."""
    return F.threshold(maps, -torch.finfo(maps.dtype).tiny, 0.0)


def enlarged(maps: Tensor, inside: Tensor) -> Tensor:
    """Maps (N, K, H, W) in the size of the mask (N, 1, h, w), bilinearly."""
    size = inside.shape[-2:]
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size, mode="bilinear", align_corners=False)


def boxes_to_mask(boxes: Boxes, size: tuple[int, int]) -> Tensor:
    """The union of each image's boxes, as a mask.

    Args:
        boxes: (N, B, 4), or a sequence of N tensors or lists (B_i, 4): xmin, ymin, xmax, ymax in pixels, half
            open, so (0, 0, W, H) is the whole image. A pixel is inside if its centre is. In the tensor, a row
            of four −1 is no box. What lies outside of the image is cut off.
        size: (H, W).

    Returns:
        (N, H, W) bool; all False for an image without boxes.

    Raises:
        ValueError: a box that is empty, inverted, not finite, or wholly outside of the image.

    Example:
        >>> boxes_to_mask([[(0, 0, 2, 1)], []], (2, 3)).int()
        tensor([[[1, 1, 0],
                 [0, 0, 0]],
        <BLANKLINE>
                [[0, 0, 0],
                 [0, 0, 0]]], dtype=torch.int32)
    """
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"size must be (H, W), got {size!r}")
    height, width = size
    boxes, is_box = _boxes(boxes)
    left, top, right, bottom = boxes.unbind(-1)
    bad = is_box & ~(
        boxes.isfinite().all(-1) & (left < right) & (top < bottom)
        & (left < width) & (top < height) & (right > 0) & (bottom > 0)
    )  # fmt: skip
    if bad.any():
        n, b = bad.nonzero()[0].tolist()
        raise ValueError(
            f"box {b} of image {n}, {tuple(boxes[n, b].tolist())}, must be (xmin, ymin, xmax, ymax) with xmin < xmax, "
            f"ymin < ymax, and reach into the image of {width}×{height} pixels"
        )
    x, y = (torch.arange(n, device=boxes.device) + 0.5 for n in (width, height))
    across = (left[..., None] <= x) & (x < right[..., None]) & is_box[..., None]  # (N, B, W)
    down = (top[..., None] <= y) & (y < bottom[..., None])
    return down.float().mT @ across.float() > 0  # how many boxes a pixel is in


def dilate_boxes(boxes: Boxes, fraction: float, size: tuple[int, int]) -> Tensor:
    """Boxes with every side pushed out by a fraction of their width or height, cut to the image.

    (Rao et al. 2023, "coarse annotations": 10 %, 25 % and 50 %. The authors' code cuts one pixel too early,
    at 223 of 224, and rounds margins down to whole pixels; ours does neither.)

    Args:
        boxes: as for `boxes_to_mask`.
        fraction: ≥ 0.
        size: (H, W).

    Returns:
        (N, B, 4), rows of −1 where an image has fewer than B boxes.

    Example:
        >>> dilate_boxes([[(2, 2, 6, 4)]], 0.5, (10, 7))
        tensor([[[0., 1., 7., 5.]]])
    """
    if not number("fraction", fraction) >= 0:
        raise ValueError(f"fraction must be >= 0, got {fraction}")
    boxes, is_box = _boxes(boxes)
    margin = fraction * (boxes[..., 2:] - boxes[..., :2])
    limit = torch.tensor([size[1], size[0]], device=boxes.device, dtype=boxes.dtype)
    low, high = (boxes[..., :2] - margin).clamp(min=0), torch.minimum(boxes[..., 2:] + margin, limit)
    return torch.cat([low, high], -1).masked_fill(~is_box[..., None], -1.0)


def _boxes(boxes: Boxes) -> tuple[Tensor, Tensor]:
    """Boxes as (N, B, 4), and which rows are boxes, (N, B)."""
    if not isinstance(boxes, Tensor):
        rows = [torch.as_tensor(image_boxes, dtype=torch.float32) for image_boxes in boxes] or [torch.empty(0, 4)]
        wrong = [tuple(row.shape) for row in rows if row.numel() and (row.ndim != 2 or row.shape[1] != 4)]
        if wrong:
            raise ValueError(f"the boxes of an image must be (B, 4), got {wrong[0]}")
        rows = [row.reshape(-1, 4) for row in rows]
        boxes = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)[: len(boxes)]
    if boxes.ndim != 3 or boxes.shape[2] != 4:
        raise ValueError(f"boxes must be (N, B, 4), or N sequences of (B, 4), got {tuple(boxes.shape)}")
    boxes = boxes if boxes.is_floating_point() else boxes.float()
    return boxes, ~(boxes == -1).all(-1)
