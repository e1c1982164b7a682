"""Images in rows and columns, and maps over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from attrain.drawing.style import DIVERGING, pale, side_label, text_width


@dataclass(frozen=True)
class Grid:
    """Where images without axes stand: rows named on the left, columns as wide as their titles. In inches.

    Attributes:
        labels: one a row; titles: one a column, or none.
        columns: how many; edges: (width, height) of an image.
        right: room beside the images, for a colour bar; below: under each image, for a line of text.
    """

    labels: Sequence[str]
    columns: int
    edges: tuple[float, float]
    titles: Sequence[str] = ()
    right: float = 0.05
    below: float = 0.0

    @cached_property  # texts take long to measure
    def left(self) -> float:
        wide = text_width(self.labels, 10)
        return wide + 0.25 if wide else 0.05

    @property
    def top(self) -> float:
        return 0.1 + 0.17 * max((title.count("\n") + 1 for title in self.titles), default=0)

    @cached_property
    def column(self) -> float:
        return max(self.edges[0], text_width(self.titles, 9) + 0.1)

    @property
    def size(self) -> tuple[float, float]:
        """Of the figure."""
        rows = len(self.labels) * (self.edges[1] + self.below)
        return self.left + self.columns * self.column + self.right, self.top + rows + 0.05

    def axes(self, figure: Any) -> np.ndarray:
        """The axes (rows, columns), on a figure, or a part of one, of this size or wider; the rest stays white."""
        wide, high = figure.bbox.width / figure.dpi, figure.bbox.height / figure.dpi
        (width, height), gap = self.edges, 0.04 * min(self.edges)
        made = np.empty((len(self.labels), self.columns), object)
        for r, c in np.ndindex(made.shape):
            x = self.left + c * self.column + (self.column - width) / 2
            y = high - self.top - (r + 1) * (height + self.below) + self.below
            axis = figure.add_axes((x / wide, y / high, (width - gap) / wide, (height - gap) / high))
            axis.set(xticks=[], yticks=[], anchor="N")
            axis.spines[:].set_visible(False)
            made[r, c] = axis
        for axis, label in zip(made[:, 0], self.labels):
            side_label(axis, label)
        for axis, title in zip(made[0], self.titles):
            axis.set_title(title, fontsize=9)
        return made


def plane(image: Any) -> np.ndarray:
    """(H, W), channels summed."""
    image = np.asarray(image)
    return image.sum(0) if image.ndim == 3 and len(image) > 1 else image.reshape(image.shape[-2:])


def coloured(image: Any) -> np.ndarray:
    """(H, W, 3) of a colour image, else (H, W)."""
    image = np.asarray(image)
    return np.moveaxis(image, 0, -1) if image.ndim == 3 and len(image) == 3 else plane(image)


def draw_image(axis: Any, image: Any, smooth: bool = False) -> None:
    """An image (H, W), (1, H, W) or (3, H, W), in [0, 1]; smooth: its pixels as points of a smooth surface."""
    axis.imshow(coloured(image), cmap="gray", vmin=0, vmax=1, interpolation="bicubic" if smooth else None)


def draw_map(axis: Any, values: np.ndarray, size: tuple[int, int]) -> Any:
    """A map (h, w), scaled to [−1, 1], over the place of an image of this (height, width), of its size or coarser."""
    return axis.imshow(values, cmap=DIVERGING, vmin=-1, vmax=1, extent=_place(size), interpolation="nearest")


def draw_over(axis: Any, image: Any, values: np.ndarray) -> None:
    """A map (h, w), scaled to [−1, 1], as colour over a pale grey photo; a coarser one is smoothed."""
    grey = coloured(image)
    grey = grey @ np.array([0.299, 0.587, 0.114]) if grey.ndim == 3 else grey
    axis.imshow(0.5 + 0.5 * grey, cmap="gray", vmin=0, vmax=1)
    coarse = values.shape != grey.shape
    colours = pale(values)
    axis.imshow(colours, extent=_place(grey.shape), interpolation="bicubic" if coarse else "nearest")


def draw_bar(figure: Any, place: tuple[float, float, float, float], over: bool = False) -> None:
    """The scale of colours, from against to for: of `draw_map`, or of `draw_over`.

    Args:
        place: left, bottom, width, height, in fractions of the figure.
    """
    import matplotlib

    values = np.linspace(-1, 1, 63)[:, None]
    colours = pale(values) if over else matplotlib.colormaps[DIVERGING](0.5 + values / 2)
    bar = figure.add_axes(place)
    bar.pcolormesh([0, 1], np.linspace(-1, 1, 64), colours)
    bar.set(xticks=[], yticks=[-1, 0, 1])
    bar.set_yticklabels(["against", "0", "for"], fontsize=9)
    bar.yaxis.tick_right()
    bar.spines[:].set_visible(False)


def _place(size: Sequence[int]) -> tuple[float, float, float, float]:
    height, width = size
    return -0.5, width - 0.5, height - 0.5, -0.5
