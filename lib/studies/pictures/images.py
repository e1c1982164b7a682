"""Images, maps over them, and sequences as letters. Notebooks find these in `studies.pictures.charts`."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from attrain.drawing.images import Grid, draw_bar, draw_image, draw_map, plane
from attrain.drawing.sequences import draw_letters
from attrain.drawing.style import limit, side_label
from studies.pictures.style import COLOURS, picture


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
    figure, axes, _ = _grid(list(rows), columns, size, titles)
    for row, images in zip(axes, rows.values()):
        for axis, image in zip(row, images):
            draw_image(axis, image, smooth)
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
    figure, axes, grid = _grid(["image", *rows], len(images), size, titles, right=0.8)
    for axis, image in zip(axes[0], images):
        draw_image(axis, image)
    for row, maps in zip(axes[1:], rows.values()):
        planes = [plane(heatmap) for heatmap in maps]
        limits = [limit(values) for values in planes]
        for axis, outline, values, own in zip(row, map(plane, outlines), planes, limits):
            draw_map(axis, values / (max(limits) if shared else own), outline.shape)
            axis.contour(outline, levels=[level], colors="0.35", linewidths=0.5)
    below, above, width = axes[-1, -1].get_position(), axes[1, -1].get_position(), grid.size[0]
    draw_bar(figure, (below.x1 + 0.1 / width, below.y0, 0.08 / width, above.y1 - below.y0))
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
        draw_letters(axis, np.asarray(heights, float), start)
        axis.axhline(0, color="0.3", linewidth=0.8)
        side_label(axis, label)
        axis.tick_params(labelsize=8)
    axes[-1, 0].set(xlabel="position", xlim=(start - 0.6, start + heights.shape[1] - 0.4))
    if spans:
        handles = [plt.Rectangle((0, 0), 1, 1, **shade) for shade, _ in zip(shades, spans)]
        figure.legend(handles, list(spans), ncols=len(spans), loc="outside upper right")
    return figure


def _grid(labels: Sequence[str], columns: int, size: float, titles: Sequence[str] | None, right: float = 0.05):
    """A figure of square images in rows and columns, its axes, and the grid that they stand in."""
    grid = Grid(labels, columns, (size, size), titles or (), right)
    figure = plt.figure(figsize=grid.size)
    return figure, grid.axes(figure), grid
