"""Photographs pasted on larger canvases whose texture gives the class away.

What is pasted is known, so the foreground is too: the ellipse that the photograph fills. The textures are ours:
gratings whose direction and width tell the class, in random colours, at random phases, under noise.
"""

import math

import torch
from torch import Tensor

CLASSES = 10


def texture(classes: Tensor, size: int, channels: int, generator: torch.Generator) -> Tensor:
    """Canvases (N, channels, size, size) in [0, 1].

    Args:
        classes: (N,) in 0..9, the direction and width of the stripes; -1 for noise without stripes.
        size: edge, at least 16, so that the narrowest stripes can be seen.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    if len(classes) and not (-1 <= int(classes.min()) and int(classes.max()) < CLASSES):
        raise ValueError(f"classes must be in -1..{CLASSES - 1}")
    n = len(classes)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(n, *shape, 1, 1, generator=generator)

    line = torch.arange(size) / size
    angle = (classes * (math.pi / CLASSES))[:, None, None, None]
    cycles = torch.where(classes % 2 == 0, 5.0, 8.0)[:, None, None, None] * size / 64
    across = line[None, :] * torch.cos(angle) + line[:, None] * torch.sin(angle)
    stripes = torch.sin(2 * math.pi * (cycles * across + uniform(0, 1, 1)))
    stripes = stripes * uniform(0.1, 0.25, channels) * (classes >= 0)[:, None, None, None]
    noise = 0.05 * torch.randn(n, channels, size, size, generator=generator)
    return (uniform(0.3, 0.7, channels) + stripes + noise).clamp(0, 1)


def paste(images: Tensor, classes: Tensor, size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Each image, cut to an ellipse, at a random place of a canvas of the given class's texture.

    Args:
        images: (N, C, h, w) in [0, 1], not larger than the canvas.
        classes: of the textures, see `texture`.
        size: edge of the canvases.
        seed: of places, colours, phases and noise.

    Returns:
        canvases (N, C, size, size) and their foreground (N, size, size) bool.
    """
    n, channels, height, width = images.shape
    if max(height, width) > size:
        raise ValueError(f"size must be at least {max(height, width)}, the images' edge, got {size}")
    if classes.shape != (n,):
        raise ValueError(f"classes must be ({n},), one an image, got {tuple(classes.shape)}")
    generator = torch.Generator().manual_seed(seed)
    canvas = texture(classes.cpu(), size, channels, generator)
    top = torch.randint(size - height + 1, (n,), generator=generator)
    left = torch.randint(size - width + 1, (n,), generator=generator)
    v, u = (torch.linspace(-1 + 1 / edge, 1 - 1 / edge, edge) for edge in (height, width))
    ellipse = v[:, None] ** 2 + u**2 <= 1
    mask = torch.zeros(n, size, size, dtype=torch.bool)
    for i, image in enumerate(images.cpu()):
        place = slice(top[i], top[i] + height), slice(left[i], left[i] + width)
        mask[i][place] = ellipse
        canvas[i][:, place[0], place[1]] = torch.where(ellipse, image, canvas[i][:, place[0], place[1]])
    return canvas.to(images.device), mask.to(images.device)
