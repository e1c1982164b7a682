"""Background marks that give a class away, and the foreground masks that leave them out.

The geometry is ours: the article's mark could not be recovered. Class c has its own place in the border
of the canvas, five along the top edge and five along the bottom, one pixel in from the edge.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def foreground_mask(images: Tensor, threshold: float = 0.1) -> Tensor:
    """Where the digit is, grown by one pixel: (N, 1, H, W) in [0, 1] -> (N, H, W) bool."""
    return F.max_pool2d((images > threshold).float(), 3, stride=1, padding=1)[:, 0] > 0


def add_mark(images: Tensor, classes: Tensor, size: int = 2, brightness: float = 1.0) -> Tensor:
    """Copies of the images with a square mark at the place of the given class.

    Args:
        images: (N, C, H, W).
        classes: (N,) in 0..9; -1 leaves an image without a mark.
        size: edge of the mark in pixels, at least 1 and at most (W − 2) / 5, so that places never overlap.
        brightness: value of the mark's pixels.
    """
    height, width = images.shape[-2:]
    if not 1 <= size <= (width - 2) // 5:
        raise ValueError(f"size must be in [1, {(width - 2) // 5}] for images {width} wide, got {size}")
    if len(classes) and not (-1 <= int(classes.min()) and int(classes.max()) <= 9):
        raise ValueError("classes must be in -1..9")
    marked = images.clone()
    for c in range(10):
        row = 1 if c < 5 else height - 1 - size
        column = 1 + round((c % 5) * (width - 2 - size) / 4)
        marked[classes == c, :, row : row + size, column : column + size] = brightness
    return marked


def other_classes(labels: Tensor, seed: int = 0) -> Tensor:
    """For each label in 0..9 another one, drawn uniformly with that seed."""
    shift = torch.randint(1, 10, labels.shape, generator=torch.Generator().manual_seed(seed))
    return (labels + shift.to(labels.device)) % 10
