"""The library's look, and what charts need beyond it: readable in grey too.

Colour never stands alone: lines differ by their dashes too, points by their shape, bars and shades by their hatching.
"""

import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attrain.drawing.style import COLOURS as COLOURS
from attrain.drawing.style import DIVERGING as DIVERGING
from attrain.drawing.style import LETTER_COLOURS as LETTER_COLOURS
from attrain.drawing.style import STYLE as LIBRARY

# Now, as a notebook's backend, loaded within `rc_context` below, would lose its setting to show figures when that ends.
plt.switch_backend(plt.get_backend())

MARKERS, DASHES = "osD^vP*Xp", ("-", "--", ":", "-.")
STYLE = LIBRARY | {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.markersize": 5,
}


def line_styles(names: Iterable[str]) -> dict[str, dict]:
    """How each name's line is drawn: 36 in a row differ in grey too, by their markers and dashes.

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
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure, styles: dict[str, dict], columns: int) -> None:
    """A legend of lines below all panels."""
    handles = [plt.Line2D([], [], **style) for style in styles.values()]
    figure.legend(handles, styles, ncols=min(len(styles), columns), loc="outside lower center")
