"""Foreground masks."""

import torch.nn.functional as F
from torch import Tensor


def fit_mask(mask: Tensor, heatmap: Tensor) -> Tensor:
    """A mask (N, H, W) or (N, 1, H, W) as (N, h, w) of 0 and 1 in the heatmap's size and dtype.

    Raises ValueError for shapes that do not fit and for values other than 0 and 1.
    """
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim != 3 or len(mask) != len(heatmap):
        raise ValueError(
            f"mask must be (N, H, W) or (N, 1, H, W) with N = {len(heatmap)} as in the heatmap, got {tuple(mask.shape)}"
        )
    mask = mask.to(device=heatmap.device, dtype=heatmap.dtype)
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold only 0 (background) and 1 (foreground)")
    size = heatmap.shape[-2:]
    if mask.shape[-2:] != size:
        mask = (F.adaptive_avg_pool2d(mask, size) > 0).to(heatmap.dtype)
    return mask
