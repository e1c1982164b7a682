"""Pictures of training: learning curves, reliability diagrams, decision surfaces."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from studies.pictures.charts import COLOURS, STYLE

BLUE, RED, GREEN, PINK, SKY, ORANGE, BLACK = COLOURS
# A method looks the same in every picture; in grey, markers and dashes tell it from others.
METHODS = {
    "plain": (BLACK, "o", "-"),
    "plain ×3": (BLACK, "v", "--"),
    "dropout": (SKY, "^", "-"),
    "input dropout": (SKY, ">", "--"),
    "cutout": (PINK, "P", "-"),
    "noise": (PINK, "X", "--"),
    "mixup": (GREEN, "d", "-"),
    "label smoothing": (GREEN, "p", "--"),
    "FGSM": (BLUE, "s", "-"),
    "RelDrop": (ORANGE, "*", "-"),
    "Challenger": (RED, "D", "-"),
    "Challenger gate": (RED, "<", "--"),
    "permuted": (RED, "x", ":"),
}
EMPHASISED = ("plain", "FGSM", "Challenger", "permuted")


def method_styles(names: Iterable[str]) -> dict[str, dict]:
    """How each method's line is drawn; methods beyond `METHODS` take colours and markers in their order."""
    names = list(names)
    others = [name for name in names if name not in METHODS]
    spare = {name: (COLOURS[i % 7], "h8H1234"[i % 7], "-.") for i, name in enumerate(others)}
    return {name: dict(zip(("color", "marker", "linestyle"), (METHODS | spare)[name])) for name in names}


def learning_curves(
    panels: Mapping[str, Mapping[str, Mapping[int, Mapping]]],
    xlabel: str = "training samples",
    emphasised: Collection[str] = EMPHASISED,
    columns: int = 3,
    bands: bool = True,
) -> Figure:
    """One panel an outcome, one line a method, along a logarithmic axis of sample counts.

    Args:
        panels: outcome -> method -> number of samples -> {"mean", "low", "high"}, see `studies.study.estimate`; a
            method may lack panels and sample counts.
        xlabel: what the sample counts are.
        emphasised: methods drawn thick and with their 95 % interval as a band, which may leave the panel; others are
            thin, without.
        columns: panels in a row.
        bands: whether intervals are drawn; over two seeds they would fill the panels.
    """
    if not panels or not all(line for lines in panels.values() for line in lines.values()):
        raise ValueError(f"panels must each hold lines with points, got {panels}")
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    sizes = sorted({n for lines in panels.values() for line in lines.values() for n in line})
    styles, columns = method_styles(names), min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3 * rows + 0.6), squeeze=False)
        figure.set_layout_engine("constrained")
        for axis, (outcome, lines) in zip(axes.flat, panels.items()):
            for name in sorted(lines, key=lambda name: name in emphasised):
                _line(axis, lines[name], styles[name], name in emphasised, bands)
            means = [point["mean"] for line in lines.values() for point in line.values()]
            margin = 0.2 * (max(means) - min(means)) or 0.1
            low = min(means) - margin
            low = max(low, 0) if min(means) >= 0 else low  # of what cannot be negative
            axis.set(title=outcome, xlabel=xlabel, xscale="log", ylim=(low, max(means) + margin))
            axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
            axis.xaxis.set_minor_locator(NullLocator())
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        handles = [plt.Line2D([], [], **styles[name], **_width(name in emphasised)) for name in names]
        figure.legend(handles, names, ncols=min(len(names), 2 * columns + 1), loc="outside lower center")
    return figure


def _width(emphasised: bool) -> dict:
    return {"linewidth": 2.2, "markersize": 6} if emphasised else {"linewidth": 1, "markersize": 4, "alpha": 0.75}


def _line(axis, line: Mapping[int, Mapping], style: Mapping, emphasised: bool, bands: bool) -> None:
    sizes = sorted(line)
    mean = [line[n]["mean"] for n in sizes]
    axis.plot(sizes, mean, **style, **_width(emphasised), zorder=3 if emphasised else 2)
    if emphasised and bands:
        low, high = ([line[n]["mean" if line[n][side] is None else side] for n in sizes] for side in ("low", "high"))
        axis.fill_between(sizes, low, high, color=style["color"], alpha=0.13, linewidth=0, zorder=1)


def reliability_diagrams(bins: Mapping[str, tuple], size: float = 2.7) -> Figure:
    """Accuracy against confidence, a panel a method; a calibrated network's points lie on the diagonal.

    Grey bars are the share of samples in each bin; a bin with less than 0.5 % of them has no point, as that would be
    noise. Below the diagonal a network is surer than it should be.

    Args:
        bins: method -> confidence, accuracy (both NaN where a bin is empty) and number of samples, each (bins,): what
            `attrain.metrics.calibration.reliability` returns.
        size: edge of a panel in inches.
    """
    styles = method_styles(bins)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(bins), figsize=(size * len(bins) + 0.4, size + 0.5), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, (name, found) in zip(axes[0], bins.items()):
            confidence, accuracy, count = (np.asarray(values, float) for values in found)
            share = count / count.sum()
            error = np.nansum(share * np.abs(accuracy - confidence))
            filled = share >= 0.005
            axis.bar((np.arange(len(count)) + 0.5) / len(count), share, 0.9 / len(count), color="0.85", zorder=1)
            axis.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle=":", zorder=2)
            axis.plot(confidence[filled], accuracy[filled], **styles[name], markersize=5, zorder=3)
            axis.set(title=f"{name}\nECE {error:.3f}", xlabel="confidence", xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axes[0, 0].set_ylabel("accuracy (bars: share)")
    return figure


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
        moves: network -> where its points go to (n, 2), drawn as arrows.
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
    x, y = ((2 * np.arange(cells) + 1 - cells) / cells for cells in truth.T.shape)
    with plt.rc_context(STYLE | {"axes.grid": False}):
        shape = dict(figsize=(columns * size + 0.8, rows * (size + 0.25)), squeeze=False, layout="constrained")
        figure, axes = plt.subplots(rows, columns, **shape)
        for axis, (name, surface) in zip(axes.flat, surfaces.items()):
            extent = {"extent": (-1, 1, -1, 1), "origin": "lower"}
            drawn = axis.imshow(surface, cmap="RdBu_r", vmin=0, vmax=1, alpha=0.75, **extent)
            axis.contour(x, y, truth, levels=[0], colors="black", linewidths=1.6)
            if surface.min() < 0.5 < surface.max():
                axis.contour(x, y, surface, levels=[0.5], colors="#007A5A", linewidths=1.3, linestyles="--")
            for c, marker in enumerate("o^"):
                style = dict(marker=marker, s=22, c=("#053061", "#67001F")[c], edgecolors="white", linewidths=0.7)
                axis.scatter(*points[labels == c].T, **style, zorder=3)
            if moves is not None:
                steps = (moves[name] - points).T
                axis.quiver(*points.T, *steps, angles="xy", scale_units="xy", scale=1, width=0.006, zorder=4)
            axis.set(title=name, xticks=[], yticks=[], xlim=(-1, 1), ylim=(-1, 1))
            axis.title.set_fontsize(10)
            axis.spines[:].set_visible(False)
        for axis in axes.flat[len(surfaces) :]:
            axis.set_visible(False)
        figure.colorbar(drawn, ax=axes, label="probability of class 1", fraction=0.03, pad=0.02, aspect=30)
        true, own = (plt.Line2D([], [], color=c, linestyle=s) for c, s in (("black", "-"), ("#007A5A", "--")))
        figure.legend([true, own], ["true boundary", "network's boundary"], ncols=2, loc="outside lower center")
    return figure
