"""Pictures in one style: colour-blind safe, a diverging map centred on zero, readable in print."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

# Now, as a notebook's backend, loaded within `rc_context` below, would lose its setting to show figures when that ends.
plt.switch_backend(plt.get_backend())

# Okabe and Ito's palette without yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LETTER_COLOURS = (COLOURS[2], COLOURS[0], COLOURS[5], COLOURS[1])  # A green, C blue, G orange, T red
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
    """Rows of images on one scale from 0 to 1, grey or in colour.

    Args:
        rows: row label -> images (n, H, W), (n, 1, H, W) or (n, 3, H, W).
        titles: one a column.
        size: edge of an image in inches.
    """
    columns = max(len(images) for images in rows.values())
    figure, axes = _grid(len(rows), columns, size, max(map(len, rows)))
    for row, (label, images) in zip(axes, rows.items()):
        for axis, image in zip(row, images):
            axis.imshow(_picture(image), cmap="gray", vmin=0, vmax=1)
        _label(row[0], label)
    _titles(axes[0], titles)
    return figure


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
        titles: one a column.
        size: edge of an image in inches.
        shared: scale the maps of a row together, by the largest of their percentiles, to compare them.
        masks: (n, H, W), whose outline is drawn instead of the image's.
    """
    outlines, level = (images, 0.3) if masks is None else (np.asarray(masks, float), 0.5)
    figure, axes = _grid(len(rows) + 1, len(images), size, max(map(len, rows)))
    for axis, image in zip(axes[0], images):
        axis.imshow(_picture(image), cmap="gray", vmin=0, vmax=1)
    _label(axes[0][0], "image")
    for row, (label, maps) in zip(axes[1:], rows.items()):
        maps = [_plane(heatmap) for heatmap in maps]
        limits = [np.quantile(np.abs(heatmap), 0.995) or 1.0 for heatmap in maps]
        for axis, outline, heatmap, limit in zip(row, outlines, maps, limits):
            limit = max(limits) if shared else limit
            height, width = _plane(outline).shape
            place = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "nearest"}
            drawn = axis.imshow(heatmap / limit, cmap="RdBu_r", vmin=-1, vmax=1, **place)
            axis.contour(_plane(outline), levels=[level], colors="0.35", linewidths=0.5)
        _label(row[0], label)
    bar = figure.colorbar(drawn, ax=axes[1:], ticks=[-1, 0, 1], fraction=0.04, pad=0.02, aspect=12 * len(rows))
    bar.ax.set_yticklabels(["against", "0", "for"], fontsize=9)
    bar.outline.set_visible(False)
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
            means, errors = _error_bars([group[name] for group in groups.values()])
            axis.bar(x, means, 0.92 * width, label=name, color=COLOURS[i], alpha=0.85)
            axis.errorbar(x, means, errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
            for position, group in zip(x, dots or ()):
                values = dots[group][name]
                axis.plot([position] * len(values), values, ".", color="black", markersize=4)
        axis.set_ylim(*_within_shares(groups, axis.get_ylim()))
        axis.set_xticks(range(len(groups)), groups)
        axis.set_ylabel(ylabel)
        axis.grid(axis="x", visible=False)
        axis.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def interval_rows(groups: Mapping[str, Mapping[str, dict]], xlabel: str, dots: Mapping | None = None) -> Figure:
    """As `interval_bars`, for many models: a row a model, a marker with its 95 % interval a test.

    Args:
        groups: model -> test -> {"mean", "low", "high"}, see `attrain.study.estimate`.
        xlabel: what is measured, with its unit.
        dots: model -> test -> the seeds' own values, drawn beside the intervals.
    """
    names = list(next(iter(groups.values())))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.5, 0.42 * len(groups) + 1.1), layout="constrained")
        for i, name in enumerate(names):
            y = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * 0.22
            means, errors = _error_bars([group[name] for group in groups.values()])
            style = dict(fmt="osD^v"[i % 5], color=COLOURS[i], markersize=5, elinewidth=1.5, capsize=2)
            axis.errorbar(means, y, xerr=errors, label=name, **style)
            for position, group in zip(y, groups if dots else ()):
                values = dots[group][name]
                axis.plot(values, [position] * len(values), ".", color="black", markersize=3)
        axis.set_xlim(*_within_shares(groups, axis.get_xlim()))
        axis.set_yticks(range(len(groups)), groups)
        axis.invert_yaxis()
        axis.set_xlabel(xlabel)
        axis.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _error_bars(rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Means (n,) and how far the intervals reach below and above them (2, n), 0 without an interval."""
    means = np.array([row["mean"] for row in rows])
    bounds = [(r["mean"], r["mean"]) if r["low"] is None else (r["low"], r["high"]) for r in rows]
    return means, np.abs(np.array(bounds).T - means)


def _within_shares(groups, limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis: of shares from 0 to 1, an interval of few seeds may go beyond what there can be."""
    means = [row["mean"] for group in groups.values() for row in group.values()]
    if not all(0 <= mean <= 1 for mean in means):
        return limits
    return max(limits[0], -0.03), min(limits[1], 1.03)


def box_rows(panels: Mapping[str, Mapping[str, np.ndarray]], xlabel: str, width: float = 2.3) -> Figure:
    """Where many values lie: one panel a case, one box a row, from quartile to quartile, with whiskers from 5 to 95 %.

    Args:
        panels: case -> row -> values (n,); all cases have the same rows.
        xlabel: what the values measure, with its unit.
        width: of a panel in inches.
    """
    rows = list(next(iter(panels.values())))
    size = (width * len(panels) + 0.08 * max(map(len, rows)), 0.26 * len(rows) + 1.0)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained")
        for axis, (case, boxes) in zip(axes[0], panels.items()):
            for y, row in enumerate(rows):
                low, first, median, third, high = np.quantile(
                    np.asarray(boxes[row], float), (0.05, 0.25, 0.5, 0.75, 0.95)
                )
                axis.hlines(y, low, high, color="0.3", linewidth=1, zorder=1)
                axis.barh(y, third - first, 0.6, first, color=COLOURS[4], edgecolor="0.3", linewidth=0.8, zorder=2)
                axis.vlines(median, y - 0.3, y + 0.3, color=COLOURS[1], linewidth=2.5, zorder=3)
            axis.axvline(0, color="0.6", linewidth=0.8)
            axis.grid(axis="y", visible=False)
            axis.set_title(case)
        axes[0, 0].set_yticks(range(len(rows)), rows)
        axes[0, 0].invert_yaxis()
        figure.supxlabel(xlabel, fontsize=10)
    return figure


def labelled_paths(
    paths: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, ylabel: str, size: float = 3.8
) -> Figure:
    """Points joined in order, each with its label: how two measures move together along a parameter; a panel each.

    Args:
        paths: parameter -> its value -> (x, y).
        xlabel, ylabel: what is measured, with its unit.
        size: edge of a panel in inches.
    """
    with plt.rc_context(STYLE):
        options = dict(figsize=(len(paths) * size, size), layout="constrained", sharex=True, sharey=True, squeeze=False)
        figure, axes = plt.subplots(1, len(paths), **options)
        for axis, (name, points), colour in zip(axes[0], paths.items(), COLOURS):
            x, y = zip(*points.values())
            axis.plot(x, y, marker="o", color=colour)
            for i, (label, point) in enumerate(points.items()):  # neighbours' labels on either side of the path
                axis.annotate(label, point, xytext=(-6, 5) if i % 2 else (6, -12), textcoords="offset points",
                              color=colour, ha="right" if i % 2 else "left")  # fmt: skip
            axis.set(xlabel=xlabel, title=name)
            axis.margins(0.16)
        axes[0, 0].set_ylabel(ylabel)
    return figure


def scatter_grid(
    panels: Mapping[str, Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]], xlabel: str, size: float = 1.55
) -> Figure:
    """Clouds of points: a row and a column of panels a quantity, one colour a group. A column shares its axes.

    Args:
        panels: row -> column -> group -> (x, y), each (n,).
        xlabel: what x is, with its unit.
        size: edge of a panel in inches.
    """
    shape = len(panels), len(next(iter(panels.values())))
    with plt.rc_context(STYLE | {"font.size": 9}):
        edges = {"figsize": (size * shape[1] + 0.6, size * shape[0] + 0.8), "sharex": True, "sharey": "col"}
        figure, axes = plt.subplots(*shape, **edges, squeeze=False, layout="constrained")
        for i, (row, columns) in enumerate(panels.items()):
            for axis, (column, groups) in zip(axes[i], columns.items()):
                axis.axhline(0, color="0.3", linewidth=0.8)
                for (name, (x, y)), colour in zip(groups.items(), COLOURS):
                    axis.plot(x, y, ".", color=colour, markersize=3.5, alpha=0.6, label=name, markeredgewidth=0)
                axis.set_title("" if i else column, fontsize=9)
                axis.tick_params(labelsize=7)
            axes[i, 0].set_ylabel(row)
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.supxlabel(xlabel, fontsize=9)
        legend = figure.legend(handles, names, ncols=len(names), loc="outside upper center", markerscale=3)
        for handle in legend.legend_handles:
            handle.set_alpha(1)
    return figure


def sequence_logos(
    rows: Mapping[str, np.ndarray],
    start: int = 0,
    spans: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    size: float = 9.5,
) -> Figure:
    """One sequence by several methods: letters as tall as their contributions, upside down below zero.

    Args:
        rows: label -> contributions (4, L) in the order A, C, G, T; zeros are not drawn.
        start: number of the first position.
        spans: label -> (first, last + 1) of stretches to shade, in the same numbers.
        size: width in inches.
    """
    with plt.rc_context(STYLE | {"axes.grid": False}):
        height = 0.85 * len(rows) + 0.7
        figure, axes = plt.subplots(
            len(rows), 1, figsize=(size, height), sharex=True, squeeze=False, layout="constrained"
        )
        for axis, (label, heights) in zip(axes[:, 0], rows.items()):
            for i, stretches in enumerate((spans or {}).values()):
                for first, end in stretches:
                    axis.axvspan(first - 0.5, end - 0.5, color=COLOURS[4 + i], alpha=0.25, linewidth=0)
            _draw_letters(axis, np.asarray(heights, float), start)
            axis.axhline(0, color="0.3", linewidth=0.8)
            axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8)
            axis.tick_params(labelsize=7)
        axes[-1, 0].set(xlabel="position", xlim=(start - 0.6, start + heights.shape[1] - 0.4))
        handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[4 + i], alpha=0.25) for i in range(len(spans or ()))]
        if spans:
            figure.legend(handles, list(spans), ncols=len(spans), loc="outside upper right")
    return figure


def pareto_fronts(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], xlabel: str, control: str = "control"
) -> Figure:
    """Points of several methods in two measures of which more is better, those that no other surpasses joined.

    Args:
        panels: "<title>: <what y measures>" -> method -> points (x, y); a point of `control` is a star.
        xlabel: what x measures.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series if name != control))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.3 * len(panels), 3.6), layout="constrained")
        for axis, (title, series) in zip(np.atleast_1d(axes), panels.items()):
            for name, points in series.items():
                place = dict(color="black", marker="*", markersize=13, linestyle="none", zorder=3)
                if name != control:
                    i = names.index(name)
                    place = dict(color=COLOURS[i % 7], marker="osD^v"[i % 5], linestyle="none", markersize=6)
                axis.plot(*zip(*points), label=name, **place)
                front = sorted(p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points))
                axis.plot(*zip(*front), color=place["color"], linewidth=1)
            axis.set(title=title.rpartition(": ")[0], xlabel=xlabel, ylabel=title.rpartition(": ")[2])
            axis.margins(0.1)
        handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
        figure.legend(handles, labels, ncols=len(labels), loc="outside lower center")
    return figure


def log_log(panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]], xlabel: str) -> Figure:
    """One panel a quantity, one line a thing measured, both axes logarithmic; every repetition is a point.

    Args:
        panels: quantity -> thing -> x -> the repetitions' values, all > 0.
        xlabel: what x is.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    styles = {name: {"color": COLOURS[i % 7], "marker": "osD^vP*"[i % 7]} for i, name in enumerate(names)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), layout="constrained")
        for axis, (quantity, lines) in zip(np.atleast_1d(axes), panels.items()):
            for name, points in lines.items():
                axis.loglog(list(points), [np.median(v) for v in points.values()], markersize=5, **styles[name])
                for x, values in points.items():
                    axis.plot([x] * len(values), values, ".", color=COLOURS[names.index(name) % 7], markersize=3)
            axis.set(title=quantity, xlabel=xlabel)
        handles = [plt.Line2D([], [], **style) for style in styles.values()]
        figure.legend(handles, names, ncols=min(len(names), 6), loc="outside lower center")
    return figure


def curves(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    xlabel: str = "epoch",
    x: Sequence[float] | Sequence[str] | None = None,
    ylabel: str = "",
    controls: Collection[str] = (),
    size: tuple[float, float] | None = None,
) -> Figure:
    """One panel a quantity, one line a model: the mean over seeds, with every seed as a thin line.

    Args:
        panels: quantity -> model -> one curve a seed.
        xlabel: what the curves run over.
        x: the places of a curve's values, numbers or names; by default epochs, 1, 2, …
        ylabel: what all panels measure alike; they then share the axis.
        controls: models that the others are to be compared with, drawn in grey.
        size: width and height of a panel in inches, if not the usual ones.
    """
    models = list(dict.fromkeys(model for lines in panels.values() for model in lines))
    # A model keeps its colour in panels that lack the others; beyond the palette, the line's style tells them apart.
    named = [m for m in models if m not in controls]
    styles = {m: {"color": COLOURS[i % 7], "linestyle": ("-", "--", ":")[i // 7 % 3]} for i, m in enumerate(named)}
    styles |= {m: {"color": "0.55", "linestyle": (":", "-.")[i % 2]} for i, m in enumerate(controls)}
    with plt.rc_context(STYLE):
        width, height = size or ((3.4, 2.8) if x is None else (4.4, 3.6))
        size = (width * len(panels), height)
        figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", sharey=bool(ylabel))
        for axis, (quantity, lines) in zip(np.atleast_1d(axes), panels.items()):
            for model, seeds in lines.items():
                values = np.array(seeds, float)
                places = np.arange(1, values.shape[1] + 1) if x is None else x
                axis.plot(places, values.mean(0), label=model, **styles[model])
                if len(values) > 1:
                    axis.plot(places, values.T, alpha=0.3, linewidth=0.7, **styles[model])
            axis.set(title=quantity, xlabel=xlabel)
            if x is None:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            elif isinstance(x[0], str) and sum(map(len, x)) > 30:  # names that would touch
                axis.tick_params(axis="x", labelrotation=30)
        np.atleast_1d(axes)[0].set_ylabel(ylabel)
        handles = [plt.Line2D([], [], **styles[model]) for model in models]
        figure.legend(handles, models, ncols=min(len(models), 2 * len(panels)), loc="outside lower center")
    return figure


def _draw_letters(axis, heights: np.ndarray, start: int) -> None:
    """Stack each position's letters from zero outwards, the smallest first, those below zero downwards."""
    order = np.argsort(np.abs(heights), axis=0)
    stacked = np.take_along_axis(heights, order, 0)
    bases = np.zeros_like(heights)
    for part in (np.clip(stacked, 0, None), np.clip(stacked, None, 0)):
        np.put_along_axis(
            bases, order, np.where(part != 0, part.cumsum(0) - part, np.take_along_axis(bases, order, 0)), 0
        )
    for letter, colour, tall, base in zip("ACGT", LETTER_COLOURS, heights, bases):
        outline = TextPath((0, 0), letter, size=1, prop={"weight": "bold"})
        box = outline.get_extents()
        unit = (outline.vertices - box.min) / box.size - [0.5, 0]
        drawn = [Path(unit * [0.95, tall[p]] + [start + p, base[p]], outline.codes) for p in np.flatnonzero(tall)]
        if drawn:
            axis.add_patch(PathPatch(Path.make_compound_path(*drawn), color=colour, linewidth=0))
    axis.autoscale_view()


def _grid(rows: int, columns: int, size: float, letters: int = 0):
    beside = max(1.1, 0.075 * letters + 0.8)  # for the rows' names and a colour bar
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size + beside, rows * size + 0.3), squeeze=False, layout="constrained"
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


def _picture(image) -> np.ndarray:
    image = np.asarray(image)
    return np.moveaxis(image, 0, -1) if image.ndim == 3 and len(image) == 3 else _plane(image)


def _label(axis, text: str) -> None:
    axis.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)


def _titles(axes, titles) -> None:
    for axis, title in zip(axes, titles or ()):
        axis.set_title(title, fontsize=9)
