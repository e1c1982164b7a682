"""Pictures in one style: colour-blind safe, a diverging map centred on zero, readable in print."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette without yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLE = {
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "attrain",
}


def image_rows(rows: Mapping[str, np.ndarray], titles: Sequence[str] | None = None, size: float = 0.95) -> Figure:
    """Rows of grey images on one scale from 0 to 1.

    Args:
        rows: row label -> images (n, H, W) or (n, 1, H, W).
        titles: one a column.
        size: edge of an image in inches.
    """
    columns = max(len(images) for images in rows.values())
    figure, axes = _grid(len(rows), columns, size)
    for row, (label, images) in zip(axes, rows.items()):
        for axis, image in zip(row, images):
            axis.imshow(_plane(image), cmap="gray", vmin=0, vmax=1)
        _label(row[0], label)
    _titles(axes[0], titles)
    return figure


def map_rows(
    images: np.ndarray,
    rows: Mapping[str, np.ndarray],
    titles: Sequence[str] | None = None,
    size: float = 0.95,
    masks: np.ndarray | None = None,
) -> Figure:
    """The images in the first row, below them one row of maps for each model, drawn over the image's outline.

    Red is evidence for the explained number, blue against it, white none. Each map is scaled by its own
    99.5th percentile of |R|, as the size of relevance means nothing across models.

    Args:
        images: (n, H, W) or (n, 1, H, W) in [0, 1].
        rows: model -> maps, of the images' shape.
        titles: one a column.
        masks: (n, H, W), whose outline is drawn instead of the image's.
    """
    outlines, level = (images, 0.3) if masks is None else (np.asarray(masks, float), 0.5)
    figure, axes = _grid(len(rows) + 1, len(images), size)
    for axis, image in zip(axes[0], images):
        axis.imshow(_plane(image), cmap="gray", vmin=0, vmax=1)
    _label(axes[0][0], "image")
    for row, (label, maps) in zip(axes[1:], rows.items()):
        for axis, outline, heatmap in zip(row, outlines, maps):
            heatmap = _plane(heatmap)
            limit = np.quantile(np.abs(heatmap), 0.995) or 1.0
            axis.imshow(heatmap, cmap="RdBu_r", vmin=-limit, vmax=limit)
            axis.contour(_plane(outline), levels=[level], colors="0.35", linewidths=0.5)
        _label(row[0], label)
    _titles(axes[0], titles)
    return figure


def interval_bars(groups: Mapping[str, Mapping[str, dict]], ylabel: str, dots: Mapping | None = None) -> Figure:
    """Bars with 95 % intervals, one group a model and one bar a test.

    Args:
        groups: model -> test -> {"mean", "low", "high"}, see `attrain.study.estimate`.
        ylabel: what the bars measure, with its unit.
        dots: model -> test -> the seeds' own values, drawn over the bars.
    """
    names = list(next(iter(groups.values())))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(1.9 * len(groups) + 1, 3.2), layout="constrained")
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            x = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
            rows = [group[name] for group in groups.values()]
            means = np.array([row["mean"] for row in rows])
            bounds = [(r["mean"], r["mean"]) if r["low"] is None else (r["low"], r["high"]) for r in rows]
            errors = np.abs(np.array(bounds).T - means)
            axis.bar(x, means, 0.92 * width, label=name, color=COLOURS[i], alpha=0.85)
            axis.errorbar(x, means, errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
            for position, group in zip(x, dots or ()):
                values = dots[group][name]
                axis.plot([position] * len(values), values, ".", color="black", markersize=4)
        axis.set_xticks(range(len(groups)), groups)
        axis.set_ylabel(ylabel)
        axis.grid(axis="x", visible=False)
        axis.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def curves(panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], xlabel: str = "epoch") -> Figure:
    """One panel a quantity, one line a model: the mean over seeds, with every seed as a thin line.

    Args:
        panels: quantity -> model -> one curve a seed.
    """
    models = list(dict.fromkeys(model for lines in panels.values() for model in lines))
    colours = dict(zip(models, COLOURS))  # a model keeps its colour in panels that lack the others
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 2.8), layout="constrained")
        for axis, (quantity, lines) in zip(np.atleast_1d(axes), panels.items()):
            for model, seeds in lines.items():
                values = np.array(seeds, float)
                epochs = np.arange(1, values.shape[1] + 1)
                axis.plot(epochs, values.mean(0), color=colours[model], label=model)
                if len(values) > 1:
                    axis.plot(epochs, values.T, color=colours[model], alpha=0.3, linewidth=0.7)
            axis.set(title=quantity, xlabel=xlabel)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = [plt.Line2D([], [], color=colours[model]) for model in models]
        figure.legend(handles, models, ncols=len(models), loc="outside lower center")
    return figure


def _grid(rows: int, columns: int, size: float):
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size + 1.1, rows * size + 0.3), squeeze=False, layout="constrained"
    )
    figure.patch.set_facecolor("white")
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, axes


def _plane(image) -> np.ndarray:
    image = np.asarray(image)
    return image.sum(0) if image.ndim == 3 and len(image) > 1 else image.reshape(image.shape[-2:])


def _label(axis, text: str) -> None:
    axis.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)


def _titles(axes, titles) -> None:
    for axis, title in zip(axes, titles or ()):
        axis.set_title(title, fontsize=9)
