"""Pictures of training: learning curves, reliability diagrams, decision surfaces."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from attrain.plots import STYLE


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
