"""Images, maps over them, and sequences as letters. Notebooks find these in `studies.pictures.charts`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from studies.pictures.style import COLOURS, DIVERGING, LETTER_COLOURS, picture


@picture()
def image_rows(
    rows: Mapping[str, np.ndarray], titles: Sequence[str] | None = None, size: float = 0.95, smooth: bool = False
) -> Figure:
    """Rows of images on one scale from 0 to 1, grey or in colour.

    Args:
        rows: row label -> images (n, H, W), (n, 1, H, W) or (n, 3, H, W).
        titles: one for each column.
        size: edge of an image in inches.
        smooth: draw pixels as points of a smooth surface; small images are easier to read so.
    """
    columns = max(len(images) for images in rows.values())
    figure, axes = _grid(list(rows), columns, size, titles)
    for row, images in zip(axes, rows.values()):
        _draw_images(row, images, "bicubic" if smooth else None)
    return figure


@picture()
def map_rows(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    titles: Sequence[str] | None = None,
    size: float = 0.95,
    shared: bool = False,
    masks: np.ndarray | None = None,
) -> Figure:
    """The images in the first row, below them one row of maps for each model, drawn over the image's outline.

    Red is evidence for the explained number, blue against it, white none. Each map is scaled by its own
    99.5th percentile of |R|, as the size of relevance means nothing across models.

    Args:
        images: (n, H, W), (n, 1, H, W) or, in colour, (n, 3, H, W), in [0, 1].
        rows: model or method -> maps (n, h, w) or (n, C, h, w), of the images' size or coarser.
        titles: one for each column.
        size: edge of an image in inches.
        shared: scale the maps of a row together, by the largest of their percentiles, to compare them.
        masks: (n, H, W), whose outline is drawn instead of the image's.
    """
    outlines, level = (images, 0.3) if masks is None else (np.asarray(masks, float), 0.5)
    figure, axes = _grid(["image", *rows], len(images), size, titles, right=0.8)
    _draw_images(axes[0], images)
    for row, maps in zip(axes[1:], rows.values()):
        planes = [_plane(heatmap) for heatmap in maps]
        limits = [np.quantile(np.abs(plane), 0.995) or 1.0 for plane in planes]
        for axis, outline, plane, limit in zip(row, map(_plane, outlines), planes, limits):
            height, width = outline.shape
            place = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "nearest"}
            scaled = plane / (max(limits) if shared else limit)
            drawn = axis.imshow(scaled, cmap=DIVERGING, vmin=-1, vmax=1, **place)
            axis.contour(outline, levels=[level], colors="0.35", linewidths=0.5)
    below, above = axes[-1, -1].get_position(), axes[1, -1].get_position()
    width = figure.get_figwidth()
    place = (below.x1 + 0.1 / width, below.y0, 0.08 / width, above.y1 - below.y0)
    bar = figure.colorbar(drawn, figure.add_axes(place), ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(["against", "0", "for"], fontsize=9)
    bar.outline.set_visible(False)
    return figure


@picture(axes_grid=False)
def sequence_logos(
    rows: Mapping[str, np.ndarray],
    start: int = 0,
    spans: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    size: float = 9.5,
    height: float = 0.85,
) -> Figure:
    """One sequence by several methods: letters as tall as their contributions, upside down below zero.

    Args:
        rows: label -> contributions (4, L) in the order A, C, G, T; zeros are not drawn.
        start: number of the first position.
        spans: label -> (first, last + 1) of stretches to shade, in the same numbers.
        size, height: width of the figure and height of a row in inches.
    """
    hatched = zip(COLOURS[4:], ("", "///", "..."))
    shades = [dict(facecolor=c, hatch=hatch, edgecolor="0.4", alpha=0.25, linewidth=0) for c, hatch in hatched]
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(size, height * len(rows) + 0.7), sharex=True, squeeze=False, layout="constrained"
    )
    for axis, (label, heights) in zip(axes[:, 0], rows.items()):
        for i, stretches in enumerate((spans or {}).values()):
            for first, end in stretches:
                axis.axvspan(first - 0.5, end - 0.5, **shades[i])
        _draw_letters(axis, np.asarray(heights, float), start)
        axis.axhline(0, color="0.3", linewidth=0.8)
        _label(axis, label)
        axis.tick_params(labelsize=8)
    axes[-1, 0].set(xlabel="position", xlim=(start - 0.6, start + heights.shape[1] - 0.4))
    if spans:
        handles = [plt.Rectangle((0, 0), 1, 1, **shade) for shade, _ in zip(shades, spans)]
        figure.legend(handles, list(spans), ncols=len(spans), loc="outside upper right")
    return figure


def _draw_letters(axis, heights: np.ndarray, start: int) -> None:
    """Stack each position's letters from zero outwards, the smallest first, those below zero downwards."""
    order = np.argsort(np.abs(heights), axis=0)
    stacked = np.take_along_axis(heights, order, 0)
    bases = np.zeros_like(heights)
    for part in (np.clip(stacked, 0, None), np.clip(stacked, None, 0)):
        below = np.where(part != 0, part.cumsum(0) - part, np.take_along_axis(bases, order, 0))
        np.put_along_axis(bases, order, below, 0)
    for letter, colour, tall, base in zip("ACGT", LETTER_COLOURS, heights, bases):
        outline = TextPath((0, 0), letter, size=1, prop={"weight": "bold"})
        box = outline.get_extents()
        unit = (outline.vertices - box.min) / box.size - [0.5, 0]
        drawn = [Path(unit * [0.95, tall[p]] + [start + p, base[p]], outline.codes) for p in np.flatnonzero(tall)]
        if drawn:
            axis.add_patch(PathPatch(Path.make_compound_path(*drawn), color=colour, linewidth=0))
    axis.autoscale_view()


def _grid(labels: Sequence[str], columns: int, size: float, titles: Sequence[str] | None, right: float = 0.05):
    """A figure of images of one size without axes, their rows named on the left, in columns as wide as the titles.

    Args:
        right: inches beside the images, for a colour bar.
    """
    titles = titles or ()
    left = _text_width(labels, 10) + 0.25
    top = 0.1 + 0.17 * max((title.count("\n") + 1 for title in titles), default=0)
    column = max(size, _text_width(titles, 9) + 0.1)
    width, height = left + columns * column + right, top + len(labels) * size + 0.05
    edges = dict(left=left / width, right=1 - right / width, bottom=0.05 / height, top=1 - top / height)
    figure, axes = plt.subplots(len(labels), columns, squeeze=False, figsize=(width, height))
    figure.subplots_adjust(**edges, wspace=0.04, hspace=0.04)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, label in zip(axes[:, 0], labels):
        _label(axis, label)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=9)
    return figure, axes


def _text_width(texts: Sequence[str], fontsize: float) -> float:
    """Inches of the longest line."""
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    return max((TextPath((0, 0), line, size=fontsize).get_extents().width for line in lines), default=0.0) / 72


def _draw_images(axes, images, interpolation: str | None = None) -> None:
    for axis, image in zip(axes, images):
        axis.imshow(_picture(image), cmap="gray", vmin=0, vmax=1, interpolation=interpolation)


def _plane(image) -> np.ndarray:
    """(H, W), channels summed."""
    image = np.asarray(image)
    return image.sum(0) if image.ndim == 3 and len(image) > 1 else image.reshape(image.shape[-2:])


def _picture(image) -> np.ndarray:
    """(H, W, 3) of a colour image, else (H, W)."""
    image = np.asarray(image)
    return np.moveaxis(image, 0, -1) if image.ndim == 3 and len(image) == 3 else _plane(image)


def _label(axis, text: str) -> None:
    axis.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)
