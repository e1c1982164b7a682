"""Charts: intervals, points and curves; words and series with their relevance."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from attrain.drawing.sequences import LETTER, draw_words
from studies.pictures.images import image_rows, map_rows, sequence_logos
from studies.pictures.style import (
    COLOURS,
    DASHES,
    LETTER_COLOURS,
    legend_below,
    line_styles,
    panel_axes,
    picture,
    point_styles,
)

__all__ = [
    "COLOURS",
    "LETTER_COLOURS",
    "box_rows",
    "curves",
    "image_rows",
    "interval_panels",
    "interval_rows",
    "labelled_paths",
    "log_log",
    "map_rows",
    "pareto_fronts",
    "scatter_panels",
    "sentence_rows",
    "sequence_logos",
    "series_columns",
]  # fmt: skip


@picture()
def interval_rows(groups: Mapping[str, Mapping[str, dict]], xlabel: str, dots: Mapping | None = None) -> Figure:
    """Means with 95 % intervals: one row for each model, in it a marker with its interval for each test.

    Args:
        groups: model -> test -> {"mean", "low", "high"}, see `studies.statistics.estimate`.
        xlabel: what is measured, with its unit.
        dots: model -> test -> the seeds' own values, drawn beside the intervals.
    """
    step = 0.22 if len(next(iter(groups.values()))) <= 3 else 0.17
    figure, axis = plt.subplots(figsize=(7.5, 0.42 * len(groups) * step / 0.17 + 1.1), layout="constrained")
    _draw_intervals(axis, groups, xlabel, dots, step)
    axis.legend(ncols=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


@picture()
def interval_panels(groups: Mapping[str, Mapping[str, dict]], dots: Mapping | None = None) -> Figure:
    """As `interval_rows`, but each test, being another quantity, has a panel and an axis of its own.

    Args:
        groups: model -> quantity -> {"mean", "low", "high"}; without an interval there is the marker alone.
        dots: model -> quantity -> the seeds' own values.
    """
    quantities = list(next(iter(groups.values())))
    figure, axes = panel_axes(len(quantities), 7.5 / len(quantities) + 0.8, 0.32 * len(groups) + 0.9, sharey=True)
    for axis, quantity in zip(axes, quantities):
        alone = {name: {quantity: values[quantity]} for name, values in groups.items()}
        _draw_intervals(axis, alone, quantity, dots, 0)
    return figure


def _draw_intervals(axis, groups, xlabel: str, dots: Mapping | None, step: float) -> None:
    """The rows of `groups` from top to bottom, the tests within a row `step` apart."""
    styles = point_styles(next(iter(groups.values())))
    for test, places, means, errors in _intervals(groups, step):
        axis.errorbar(means, places, xerr=errors, label=test, **styles[test], elinewidth=1.5, capsize=2)
        for place, values in _seeds(dots, test, places):
            axis.plot(values, [place] * len(values), ".", color="black", markersize=3)
    axis.set(xlim=_within_shares(groups, axis.get_xlim()), xlabel=xlabel, ylim=(len(groups) - 0.4, -0.6))
    axis.set_yticks(range(len(groups)), groups)


def _intervals(groups, step: float) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Of each test its places beside those of the others, means (n,), and how far intervals reach below and above."""
    tests = list(next(iter(groups.values())))
    for i, test in enumerate(tests):
        rows = [group[test] for group in groups.values()]
        means = np.array([row["mean"] for row in rows])
        bounds = [(r["mean"], r["mean"]) if r["low"] is None else (r["low"], r["high"]) for r in rows]
        places = np.arange(len(groups)) + (i - (len(tests) - 1) / 2) * step
        yield test, places, means, np.abs(np.array(bounds).T - means)


def _seeds(dots: Mapping | None, test: str, places) -> list[tuple[float, Sequence[float]]]:
    """Each model's place and its seeds' values."""
    return [(place, model[test]) for place, model in zip(places, dots.values())] if dots else []


def _within_shares(groups, limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis: of shares from 0 to 1, an interval of few seeds may go beyond what there can be."""
    means = [row["mean"] for group in groups.values() for row in group.values()]
    if not all(0 <= mean <= 1 for mean in means):
        return limits
    return max(limits[0], -0.03), min(limits[1], 1.03)


@picture()
def box_rows(panels: Mapping[str, Mapping[str, np.ndarray]], xlabel: str, width: float = 2.3) -> Figure:
    """Where many values lie: a panel for each case, boxes from quartile to quartile, whiskers from 5 to 95 %.

    Args:
        panels: case -> row -> values (n,); all cases have the same rows.
        xlabel: what the values measure, with its unit.
        width: of a panel in inches.
    """
    rows = list(next(iter(panels.values())))
    beside = 0.08 * max(map(len, rows)) / len(panels)
    figure, axes = panel_axes(len(panels), width + beside, 0.26 * len(rows) + 1.0, sharey=True)
    for axis, (case, boxes) in zip(axes, panels.items()):
        for y, row in enumerate(rows):
            low, first, median, third, high = np.quantile(np.asarray(boxes[row], float), (0.05, 0.25, 0.5, 0.75, 0.95))
            axis.hlines(y, low, high, color="0.3", linewidth=1, zorder=1)
            axis.barh(y, third - first, 0.6, first, color=COLOURS[4], edgecolor="0.3", linewidth=0.8, zorder=2)
            axis.vlines(median, y - 0.3, y + 0.3, color=COLOURS[1], linewidth=2.5, zorder=3)
        axis.axvline(0, color="0.6", linewidth=0.8)
        axis.grid(axis="y", visible=False)
        axis.set_title(case)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    figure.supxlabel(xlabel, fontsize=10)
    return figure


@picture(lines_markersize=6)
def labelled_paths(
    paths: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, ylabel: str, size: float = 3.8
) -> Figure:
    """Points joined in order, each with its label: how two measures move together along a parameter; a panel each.

    Args:
        paths: parameter -> its value -> (x, y).
        xlabel, ylabel: what is measured, with its unit.
        size: edge of a panel in inches.
    """
    figure, axes = panel_axes(len(paths), size, size, sharex=True, sharey=True)
    for axis, (name, points), colour in zip(axes, paths.items(), COLOURS):
        axis.plot(*zip(*points.values()), marker="o", color=colour)
        for i, (label, point) in enumerate(points.items()):  # neighbours' labels on either side of the path
            offset, side = ((-6, 5), "right") if i % 2 else ((6, -12), "left")
            axis.annotate(label, point, xytext=offset, textcoords="offset points", color=colour, ha=side)
        axis.set(xlabel=xlabel, title=name)
        axis.margins(0.16)
    axes[0].set_ylabel(ylabel)
    return figure


@picture(lines_markersize=3.5)
def scatter_panels(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    xlabel: str,
    ylabel: str,
    columns: int = 4,
    threshold: float | None = None,
) -> Figure:
    """Clouds of points, one panel for each method and one colour and shape for each group.

    Args:
        panels: method -> group -> (x, y), each (n,); a method has a scale of its own.
        xlabel, ylabel: what is measured, with its unit.
        columns: panels in a row at most.
        threshold: an x at which a line is drawn.
    """
    figure, axes = panel_axes(len(panels), 2.5, 2.3, columns, sharex=True)
    for axis, (method, groups) in zip(axes, panels.items()):
        axis.axhline(0, color="0.3", linewidth=0.8)
        if threshold is not None:
            axis.axvline(threshold, color="0.3", linewidth=0.8, linestyle=":")
        for name, style in point_styles(groups).items():
            axis.plot(*groups[name], label=name, **style, alpha=0.7, markeredgewidth=0)
        axis.set_title(method, fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    legend = figure.legend(handles, names, ncols=len(names), loc="outside upper center", markerscale=2)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    return figure


@picture()
def pareto_fronts(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], xlabel: str, control: str = "control"
) -> Figure:
    """Points of several methods in two measures of which more is better, those that no other surpasses joined.

    Args:
        panels: "<title>: <what y measures>" -> method -> points (x, y); a point of `control` is a star.
        xlabel: what x measures.
    """
    styles = point_styles(name for series in panels.values() for name in series if name != control)
    styles |= {control: dict(color="black", marker="*", markersize=13, linestyle="", zorder=3)}
    figure, axes = panel_axes(len(panels), 4.3, 3.6)
    for axis, (title, series) in zip(axes, panels.items()):
        for name, points in series.items():
            axis.plot(*zip(*points), label=name, **styles[name])
            front = sorted(p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points))
            axis.plot(*zip(*front), color=styles[name]["color"], linewidth=1)
        axis.set(title=title.rpartition(": ")[0], xlabel=xlabel, ylabel=title.rpartition(": ")[2])
        axis.margins(0.1)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(styles), loc="outside lower center")
    return figure


@picture()
def log_log(panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]], xlabel: str) -> Figure:
    """One panel for each quantity, one line for each thing measured, axes logarithmic, every repetition a point.

    Args:
        panels: quantity -> thing -> x -> the repetitions' values, all > 0.
        xlabel: what x is.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    widths = np.linspace(3.6, 1.2, len(names))  # one that lies under another is still seen beside it
    styles = {name: look | {"linewidth": w} for (name, look), w in zip(line_styles(names).items(), widths)}
    styles = {name: look | {"markerfacecolor": "white", "markersize": 7} for name, look in styles.items()}
    figure, axes = panel_axes(len(panels), 4.8, 3.8)
    for axis, (quantity, lines) in zip(axes, panels.items()):
        for name, points in lines.items():
            axis.loglog(list(points), [np.median(values) for values in points.values()], **styles[name])
            for x, values in points.items():
                axis.plot([x] * len(values), values, ".", color=styles[name]["color"], markersize=3)
        axis.margins(0.08)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:g}")
        axis.set(title=quantity, xlabel=xlabel)
    legend_below(figure, styles, columns=6)
    return figure


@picture()
def curves(
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    xlabel: str = "epoch",
    x: Sequence[float] | Sequence[str] | None = None,
    ylabel: str = "",
    controls: Collection[str] = (),
    size: tuple[float, float] | None = None,
) -> Figure:
    """One panel for each quantity, one line for each model: the mean over seeds, with every seed as a thin line.

    Args:
        panels: quantity -> model -> one curve for each seed.
        xlabel: what the curves run over.
        x: the places of a curve's values, numbers or names; by default epochs, 1, 2, …
        ylabel: what all panels measure alike; they then share the axis.
        controls: models that the others are to be compared with, drawn in grey.
        size: width and height of a panel in inches, if not the usual ones.
    """
    models = list(dict.fromkeys(model for lines in panels.values() for model in lines))
    compared = [model for model in models if model not in controls]
    styles = {m: dict(color=COLOURS[i % 7], linestyle=DASHES[i % 4]) for i, m in enumerate(compared)}
    styles |= {m: dict(color="0.55", linestyle=DASHES[2 + i % 2]) for i, m in enumerate(controls)}
    width, height = size or ((3.4, 2.8) if x is None else (4.4, 3.6))
    figure, axes = panel_axes(len(panels), width, height, sharey=bool(ylabel))
    for axis, (quantity, lines) in zip(axes, panels.items()):
        for model, seeds in lines.items():
            values = np.array(seeds, float)
            places = np.arange(1, values.shape[1] + 1) if x is None else x
            axis.plot(places, values.mean(0), label=model, **styles[model])
            if len(values) > 1:
                axis.plot(places, values.T, alpha=0.3, linewidth=0.7, color=styles[model]["color"])
        axis.set(title=quantity, xlabel=xlabel)
        if x is None:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif isinstance(x[0], str) and sum(map(len, x)) > 30:  # names that would touch
            axis.tick_params(axis="x", labelrotation=30)
    axes[0].set_ylabel(ylabel)
    legend_below(figure, {model: styles[model] for model in models}, columns=2 * len(panels))
    return figure


@picture()
def sentence_rows(rows: Sequence[tuple[str, Sequence[str], Sequence[float], str]]) -> Figure:
    """Sentences, one in each row, each word on the colour of its value.

    Args:
        rows: (label, words, one value for each word, what the values are): "relevance", in [−1, 1], red for and blue
            against; or "change", in [0, 1], more orange where there is more.
    """
    height = 0.3  # inches
    beside = 0.068 * max(len(label) for label, *_ in rows) + 0.2
    wide = max(sum(len(word) + 2 for word in words) for _, words, *_ in rows)
    figure = plt.figure(figsize=(beside + wide * LETTER, height * len(rows) + 0.1))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(-beside / LETTER, wide), ylim=(len(rows) - 0.4, -0.6))
    axis.axis("off")
    for y, (label, words, values, kind) in enumerate(rows):
        axis.text(-1, y, label, ha="right", va="center", fontsize=8)
        draw_words(axis, y, words, values, kind)
    return figure


@picture(font_size=9)
def series_columns(columns: Sequence[tuple[str, Mapping[str, np.ndarray], np.ndarray]], width: float = 3.2) -> Figure:
    """Series side by side, each with the relevance of its values below: red for, blue against.

    Args:
        columns: (title, line's name -> values (L,), relevance (L,)); the first line is black and thick.
        width: of a column in inches.
    """
    figure, axes = plt.subplots(
        2, len(columns), figsize=(width * len(columns) + 0.5, 3.2), sharex="col", squeeze=False,
        layout="constrained", height_ratios=(2, 1),
    )  # fmt: skip
    for (title, lines, relevance), (above, below) in zip(columns, axes.T):
        for i, (name, values) in enumerate(lines.items()):
            style = dict(color="black", linewidth=1.8) if i == 0 else dict(color=COLOURS[i], linewidth=1)
            above.plot(np.asarray(values), label=name, **style)
        relevance = np.asarray(relevance)
        below.bar(np.arange(len(relevance)), relevance, 1.0, color=np.where(relevance > 0, "#b2182b", "#2166ac"))
        above.set_title(title, fontsize=9)
        below.set(xlabel="time", yticks=[0], yticklabels=["0"])
    axes[0, 0].set_ylabel("value")
    axes[1, 0].set_ylabel("relevance")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(names), loc="outside upper right")
    return figure
