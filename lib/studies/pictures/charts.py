"""Charts: intervals, points and curves."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from studies.pictures.images import image_rows, map_rows, sequence_logos
from studies.pictures.style import COLOURS, DASHES, HATCHES, LETTER_COLOURS, MARKERS, STYLE

__all__ = ["COLOURS", "LETTER_COLOURS", "box_rows", "curves", "image_rows", "interval_bars", "interval_rows",
           "labelled_paths", "log_log", "map_rows", "pareto_fronts", "scatter_grid", "sequence_logos"]  # fmt: skip


@plt.rc_context(STYLE)
def interval_bars(groups: Mapping[str, Mapping[str, dict]], ylabel: str, dots: Mapping | None = None) -> Figure:
    """Bars with 95 % intervals, one group a model and one bar a test.

    Args:
        groups: model -> test -> {"mean", "low", "high"}, see `studies.study.estimate`.
        ylabel: what the bars measure, with its unit.
        dots: model -> test -> the seeds' own values, drawn over the bars.
    """
    figure, axis = plt.subplots(figsize=(1.9 * len(groups) + 1, 3.2), layout="constrained")
    _draw_intervals(axis, groups, dots, 0.8 / len(next(iter(groups.values()))), bars=True)
    axis.set(ylim=_within_shares(groups, axis.get_ylim()), ylabel=ylabel)
    axis.set_xticks(range(len(groups)), groups)
    axis.grid(axis="x", visible=False)
    return figure


@plt.rc_context(STYLE)
def interval_rows(groups: Mapping[str, Mapping[str, dict]], xlabel: str, dots: Mapping | None = None) -> Figure:
    """As `interval_bars`, for many models: a row a model, a marker with its 95 % interval a test.

    Args:
        groups: model -> test -> {"mean", "low", "high"}, see `studies.study.estimate`.
        xlabel: what is measured, with its unit.
        dots: model -> test -> the seeds' own values, drawn beside the intervals.
    """
    figure, axis = plt.subplots(figsize=(7.5, 0.42 * len(groups) + 1.1), layout="constrained")
    _draw_intervals(axis, groups, dots, 0.22, bars=False)
    axis.set(xlim=_within_shares(groups, axis.get_xlim()), xlabel=xlabel)
    axis.set_yticks(range(len(groups)), groups)
    axis.invert_yaxis()
    return figure


def _draw_intervals(axis, groups, dots, step: float, bars: bool) -> None:
    """Each test's means and intervals beside those of the others, and a legend above."""
    names = list(next(iter(groups.values())))
    for i, (name, look) in enumerate(_looks(names).items()):
        places = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * step
        means, errors = _error_bars([group[name] for group in groups.values()])
        if bars:
            filled = dict(color=look["color"], hatch=HATCHES[i % 5], edgecolor="white", linewidth=0)
            axis.bar(places, means, 0.92 * step, label=name, **filled)
            axis.errorbar(places, means, errors, fmt="none", ecolor="black", elinewidth=1, capsize=3)
        else:
            axis.errorbar(means, places, xerr=errors, label=name, linestyle="", **look, elinewidth=1.5, capsize=2)
        for place, group in zip(places, groups if dots else ()):
            values = dots[group][name]
            points = [place] * len(values), values
            axis.plot(*points[:: 1 if bars else -1], ".", color="black", markersize=3)
    axis.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _looks(names) -> dict[str, dict]:
    """Colour and marker of each name."""
    return {name: dict(color=COLOURS[i % 7], marker=MARKERS[i % 7], markersize=5) for i, name in enumerate(names)}


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


@plt.rc_context(STYLE)
def box_rows(panels: Mapping[str, Mapping[str, np.ndarray]], xlabel: str, width: float = 2.3) -> Figure:
    """Where many values lie: one panel a case, one box a row, from quartile to quartile, with whiskers from 5 to 95 %.

    Args:
        panels: case -> row -> values (n,); all cases have the same rows.
        xlabel: what the values measure, with its unit.
        width: of a panel in inches.
    """
    rows = list(next(iter(panels.values())))
    beside = 0.08 * max(map(len, rows)) / len(panels)
    figure, axes = _panels(panels, width + beside, 0.26 * len(rows) + 1.0, sharey=True)
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


@plt.rc_context(STYLE)
def labelled_paths(
    paths: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, ylabel: str, size: float = 3.8
) -> Figure:
    """Points joined in order, each with its label: how two measures move together along a parameter; a panel each.

    Args:
        paths: parameter -> its value -> (x, y).
        xlabel, ylabel: what is measured, with its unit.
        size: edge of a panel in inches.
    """
    figure, axes = _panels(paths, size, size, sharex=True, sharey=True)
    for axis, (name, points), colour in zip(axes, paths.items(), COLOURS):
        x, y = zip(*points.values())
        axis.plot(x, y, marker="o", color=colour)
        for i, (label, point) in enumerate(points.items()):  # neighbours' labels on either side of the path
            axis.annotate(label, point, xytext=(-6, 5) if i % 2 else (6, -12), textcoords="offset points",
                          color=colour, ha="right" if i % 2 else "left")  # fmt: skip
        axis.set(xlabel=xlabel, title=name)
        axis.margins(0.16)
    axes[0].set_ylabel(ylabel)
    return figure


@plt.rc_context(STYLE | {"font.size": 9})
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
    edges = {"figsize": (size * shape[1] + 0.6, size * shape[0] + 0.8), "sharex": True, "sharey": "col"}
    figure, axes = plt.subplots(*shape, **edges, squeeze=False, layout="constrained")
    for i, (row, columns) in enumerate(panels.items()):
        for axis, (column, groups) in zip(axes[i], columns.items()):
            axis.axhline(0, color="0.3", linewidth=0.8)
            for (name, (x, y)), look in zip(groups.items(), _looks(groups).values()):
                axis.plot(x, y, label=name, **look | dict(linestyle="", markersize=2.5, alpha=0.6, markeredgewidth=0))
            axis.set_title("" if i else column, fontsize=9)
            axis.tick_params(labelsize=7)
        axes[i, 0].set_ylabel(row)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.supxlabel(xlabel, fontsize=9)
    legend = figure.legend(handles, names, ncols=len(names), loc="outside upper center", markerscale=3)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    return figure


@plt.rc_context(STYLE)
def pareto_fronts(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], xlabel: str, control: str = "control"
) -> Figure:
    """Points of several methods in two measures of which more is better, those that no other surpasses joined.

    Args:
        panels: "<title>: <what y measures>" -> method -> points (x, y); a point of `control` is a star.
        xlabel: what x measures.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series if name != control))
    looks = _looks(names) | {control: dict(color="black", marker="*", markersize=13, zorder=3)}
    figure, axes = _panels(panels, 4.3, 3.6)
    for axis, (title, series) in zip(axes, panels.items()):
        for name, points in series.items():
            axis.plot(*zip(*points), label=name, linestyle="", **looks[name])
            front = sorted(p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points))
            axis.plot(*zip(*front), color=looks[name]["color"], linewidth=1)
        axis.set(title=title.rpartition(": ")[0], xlabel=xlabel, ylabel=title.rpartition(": ")[2])
        axis.margins(0.1)
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=len(names) + 1, loc="outside lower center")
    return figure


@plt.rc_context(STYLE)
def log_log(panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]], xlabel: str) -> Figure:
    """One panel a quantity, one line a thing measured, both axes logarithmic; every repetition is a point.

    Args:
        panels: quantity -> thing -> x -> the repetitions' values, all > 0.
        xlabel: what x is.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    looks = _looks(names)
    figure, axes = _panels(panels, 4.6, 3.6)
    for axis, (quantity, lines) in zip(axes, panels.items()):
        for name, points in lines.items():
            axis.loglog(list(points), [np.median(v) for v in points.values()], **looks[name])
            for x, values in points.items():
                axis.plot([x] * len(values), values, ".", color=looks[name]["color"], markersize=3)
        axis.set(title=quantity, xlabel=xlabel)
    handles = [plt.Line2D([], [], **look) for look in looks.values()]
    figure.legend(handles, names, ncols=min(len(names), 6), loc="outside lower center")
    return figure


@plt.rc_context(STYLE)
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
    named = [m for m in models if m not in controls]  # a model looks alike in all panels
    looks = {m: dict(color=COLOURS[i % 7], linestyle=DASHES[i % 4]) for i, m in enumerate(named)}
    looks |= {m: dict(color="0.55", linestyle=DASHES[2 + i % 2]) for i, m in enumerate(controls)}
    width, height = size or ((3.4, 2.8) if x is None else (4.4, 3.6))
    figure, axes = _panels(panels, width, height, sharey=bool(ylabel))
    for axis, (quantity, lines) in zip(axes, panels.items()):
        for model, seeds in lines.items():
            values = np.array(seeds, float)
            places = np.arange(1, values.shape[1] + 1) if x is None else x
            axis.plot(places, values.mean(0), label=model, **looks[model])
            if len(values) > 1:
                axis.plot(places, values.T, alpha=0.3, linewidth=0.7, color=looks[model]["color"])
        axis.set(title=quantity, xlabel=xlabel)
        if x is None:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif isinstance(x[0], str) and sum(map(len, x)) > 30:  # names that would touch
            axis.tick_params(axis="x", labelrotation=30)
    axes[0].set_ylabel(ylabel)
    handles = [plt.Line2D([], [], **looks[model]) for model in models]
    figure.legend(handles, models, ncols=min(len(models), 2 * len(panels)), loc="outside lower center")
    return figure


def _panels(panels, width: float, height: float, **shared):
    """A figure of one row, a panel each, and its axes; a panel is so large in inches."""
    size = (width * len(panels), height)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False, **shared)
    return figure, axes[0]
