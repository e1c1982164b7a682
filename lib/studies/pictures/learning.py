"""Pictures of training: learning curves, reliability diagrams, decision surfaces."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from studies.pictures.style import legend_below, line_styles, panel_axes, picture

THICK = {"linewidth": 2.2, "markersize": 6, "zorder": 3}
THIN = {"linewidth": 1, "markersize": 4, "alpha": 0.75, "zorder": 2}
TRUE, LEARNED = ({"color": "black", "linestyle": "-"}, {"color": "#007A5A", "linestyle": "--"})  # boundaries


@picture()
def learning_curves(
    panels: Mapping[str, Mapping[str, Mapping[int, Mapping]]],
    styles: Mapping[str, Mapping] | None = None,
    emphasised: Collection[str] = (),
    xlabel: str = "training samples",
    columns: int = 3,
    intervals: bool = True,
) -> Figure:
    """One panel for each outcome, one line for each method, along a logarithmic axis of sample counts.

    Args:
        panels: outcome -> method -> number of samples -> {"mean", "low", "high"}, see `studies.statistics.estimate`; a
            method may lack panels and sample counts.
        styles: method -> how its line is drawn, so that it looks the same in other pictures; by default
            `studies.pictures.style.line_styles` of the methods here.
        emphasised: methods drawn thick and with their 95 % intervals as whiskers beside each other, which may leave the
            panel; others are thin, without.
        xlabel: what the sample counts are.
        columns: panels in a row.
        intervals: whether intervals are drawn; over two seeds they would leave the panels.
    """
    if not panels or not all(line for lines in panels.values() for line in lines.values()):
        raise ValueError(f"panels must each hold lines with points, got {panels}")
    lines_of_all = [(name, line) for lines in panels.values() for name, line in lines.items()]
    styles = styles or line_styles(name for name, _ in lines_of_all)
    styles = {name: {**styles[name], **(THICK if name in emphasised else THIN)} for name, _ in lines_of_all}
    sizes = sorted({size for _, line in lines_of_all for size in line})
    columns = min(columns, len(panels))
    figure, axes = panel_axes(len(panels), 4.2, 3.2, columns)
    for axis, (outcome, lines) in zip(axes, panels.items()):
        beside = _beside([name for name in lines if name in emphasised], sizes) if intervals else {}
        for name, line in lines.items():
            _draw_line(axis, line, styles[name], beside.get(name, 1.0), intervals and name in emphasised)
        axis.set(title=outcome, xlabel=xlabel, xscale="log", ylim=_limits_of_means(lines))
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30 if len(sizes) > 5 else 0)
        axis.xaxis.set_minor_locator(NullLocator())
    legend_below(figure, styles, 2 * columns + 1)
    return figure


def _beside(names: Sequence[str], sizes: Sequence[int]) -> dict[str, float]:
    """Factors that set the methods' whiskers apart: by 1.3 from first to last, less where counts are close."""
    nearest = min((b / a for a, b in itertools.pairwise(sizes)), default=2.0)
    places = [0.0] if len(names) < 2 else [i / (len(names) - 1) - 0.5 for i in range(len(names))]
    return {name: min(nearest ** (1 / 3), 1.3) ** place for name, place in zip(names, places)}


def _draw_line(axis, line: Mapping[int, Mapping], style: Mapping, beside: float, whiskers: bool) -> None:
    sizes = sorted(line)
    places, means = [size * beside for size in sizes], [line[size]["mean"] for size in sizes]
    axis.plot(places, means, **style)
    if whiskers:
        ends = [[line[size][end] for size in sizes] for end in ("low", "high")]
        low, high = ([m if e is None else e for e, m in zip(side, means)] for side in ends)
        axis.vlines(places, low, high, color=style["color"], linewidth=1.2, alpha=0.6, zorder=style["zorder"] - 1)


def _limits_of_means(lines: Mapping[str, Mapping[int, Mapping]]) -> tuple[float, float]:
    """Means and a margin; not below zero of what cannot be negative."""
    means = [point["mean"] for line in lines.values() for point in line.values()]
    least, largest = min(means), max(means)
    margin = 0.2 * (largest - least) or 0.1
    return max(least - margin, 0) if least >= 0 else least - margin, largest + margin


@picture()
def reliability_diagrams(
    bins: Mapping[str, tuple], styles: Mapping[str, Mapping] | None = None, size: float = 2.7
) -> Figure:
    """Accuracy against confidence, a panel a method; a calibrated network's points lie on the diagonal.

    Grey bars are the share of samples in each bin; a bin with less than 0.5 % of them has no point, as that would be
    noise. Below the diagonal a network is surer than it should be.

    Args:
        bins: method -> confidence, accuracy (both NaN where a bin is empty) and number of samples, each (bins,): what
            `attrain.metrics.reliability` returns.
        styles: as for `learning_curves`.
        size: edge of a panel in inches.
    """
    styles = styles or line_styles(bins)
    figure, axes = panel_axes(len(bins), size + 0.1, size + 0.8, sharey=True)
    for axis, (name, diagram) in zip(axes, bins.items()):
        confidence, accuracy, count = (np.asarray(values, float) for values in diagram)
        share = count / count.sum()
        error = np.nansum(share * np.abs(accuracy - confidence))
        filled = share >= 0.005
        axis.bar((np.arange(len(count)) + 0.5) / len(count), share, 0.9 / len(count), color="0.85", zorder=1)
        axis.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle=":", zorder=2)
        axis.plot(confidence[filled], accuracy[filled], **styles[name], zorder=3)
        axis.set(title=f"{name}\nECE {error:.3f}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    axes[0].set_ylabel("accuracy (bars: share)")
    return figure


@picture(axes_grid=False)
def decision_surface(
    surfaces: Mapping[str, np.ndarray],
    truth: np.ndarray,
    points: np.ndarray,
    labels: Sequence[int],
    moves: Mapping[str, np.ndarray] | None = None,
    columns: int = 4,
    size: float = 2.2,
) -> Figure:
    """What networks make of a plane with two classes: one panel a network, the probability of class 1 in colour.

    The true boundary is a black line, the network's own, where the probability is 1/2, a dashed green one;
    training points are circles (class 0) and triangles (class 1).

    Args:
        surfaces: network -> probability of class 1, (rows, columns), on cells that cover [−1, 1]² evenly; the first
            row is the lowest.
        truth: (rows, columns), such as the signed distance to the true boundary, which lies where this is 0.
        points, labels: the training points (n, 2), their classes (n,), 0 or 1.
        moves: network -> where its points go to (n, 2), drawn as arrows, of twelve points at most.
        columns: of panels at most.
        size: edge of a panel in inches.
    """
    points, labels, truth = np.asarray(points), np.asarray(labels), np.asarray(truth)
    surfaces = {name: np.asarray(surface) for name, surface in surfaces.items()}
    for name, surface in surfaces.items():
        if surface.shape != truth.shape or not (0 <= surface.min() and surface.max() <= 1):
            raise ValueError(f"{name!r} must be probabilities of truth's shape {truth.shape}, got {surface.shape}")
    rows = math.ceil(len(surfaces) / columns)
    columns = math.ceil(len(surfaces) / rows)  # five panels are three and two, not four and one
    figure, axes = panel_axes(len(surfaces), size + 0.8 / columns, size + 0.25, columns)
    for axis, (name, surface) in zip(axes, surfaces.items()):
        drawn = _draw_surface(axis, surface, truth)
        for c, (marker, colour) in enumerate((("o", "#053061"), ("^", "#67001F"))):
            look = dict(marker=marker, s=22, c=colour, edgecolors="white", linewidths=0.7)
            axis.scatter(*points[labels == c].T, **look, zorder=3)
        if moves is not None:
            some = slice(None, None, math.ceil(len(points) / 12))  # more would be a tangle
            steps = (moves[name] - points)[some].T
            axis.quiver(*points[some].T, *steps, angles="xy", scale_units="xy", scale=1, width=0.008, zorder=4)
        axis.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(-1, 1))
        axis.set_title(name, fontsize=10)
        axis.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes, label="probability of class 1", fraction=0.03, pad=0.02, aspect=30)
    legend_below(figure, {"true boundary": TRUE, "network's boundary": LEARNED}, columns=2)
    return figure


def _draw_surface(axis, surface: np.ndarray, truth: np.ndarray):
    """The probabilities as an image, which is returned, and both boundaries."""
    x, y = ((2 * np.arange(cells) + 1 - cells) / cells for cells in truth.T.shape)
    extent = {"extent": (-1, 1, -1, 1), "origin": "lower"}
    image = axis.imshow(surface, cmap="RdBu_r", vmin=0, vmax=1, alpha=0.75, **extent)
    axis.contour(x, y, truth, levels=[0], colors=TRUE["color"], linewidths=1.6)
    if surface.min() < 0.5 < surface.max():
        axis.contour(x, y, surface, levels=[0.5], colors=LEARNED["color"], linewidths=1.3, linestyles="--")
    return image
