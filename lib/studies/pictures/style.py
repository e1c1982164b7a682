"""One style for all pictures: colour-blind safe, opaque for dark pages, and readable in grey.

Colour never stands alone: lines differ by their dashes too, points by their shape, bars and shades by their hatching.
"""

import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Now, as a notebook's backend, loaded within `rc_context` below, would lose its setting to show figures when that ends.
plt.switch_backend(plt.get_backend())

# Okabe and Ito's palette without yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, DASHES = "osD^vP*Xp", ("-", "--", ":", "-.")
DIVERGING = "RdBu_r"  # blue, white at 0, red
LETTER_COLOURS = (COLOURS[2], COLOURS[0], COLOURS[5], COLOURS[1])  # A green, C blue, G orange, T red
STYLE = {
    "figure.facecolor": "white",  # not transparent: a dark page would swallow the axes
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "lines.markersize": 5,
    "svg.hashsalt": "attrain",
}


def line_styles(names: Iterable[str]) -> dict[str, dict]:
    """How the line of each name is drawn: 36 in a row differ in grey too, by their markers and dashes.

    Returns:
        name -> "color", "marker" and "linestyle", in the order of the names.
    """
    return {
        name: {"color": COLOURS[i % 7], "marker": MARKERS[i % 9], "linestyle": DASHES[i % 4]}
        for i, name in enumerate(dict.fromkeys(names))
    }


def point_styles(names: Iterable[str]) -> dict[str, dict]:
    """As `line_styles`, for points that no line joins."""
    return {name: look | {"linestyle": ""} for name, look in line_styles(names).items()}


def panel_axes(count: int, width: float, height: float, columns: int = 0, **shared) -> tuple[Figure, list]:
    """A figure with so many panels, in one row or in rows of `columns` at most, and their axes.

    Args:
        width, height: of a panel in inches.
        shared: sharex, sharey of `plt.subplots`.
    """
    columns = min(columns or count, count)
    rows = math.ceil(count / columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **shared)
    figure.get_layout_engine().set(h_pad=0.1)  # else a row's labels stand on the next row's titles
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure, styles: dict[str, dict], columns: int) -> None:
    """A legend of lines below all panels."""
    handles = [plt.Line2D([], [], **style) for style in styles.values()]
    figure.legend(handles, styles, ncols=min(len(styles), columns), loc="outside lower center")
