"""The library's look, and what charts need beyond it: readable in grey too.

Colour never stands alone: lines differ by their dashes too, points by their shape, bars and shades by their hatching.

Importing this sets matplotlib to its own defaults, but for fonts, whose signs a user's names may need: a matplotlibrc
with `text.usetex: True` or `image.origin: lower` changes no picture here. A notebook shows its figures, whatever
MPLBACKEND says, as machines without a screen set it for programs.
"""

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attrain.drawing.style import COLOURS as COLOURS
from attrain.drawing.style import DIVERGING as DIVERGING
from attrain.drawing.style import LETTER_COLOURS as LETTER_COLOURS
from attrain.drawing.style import STYLE as LIBRARY
from attrain.drawing.style import forget_matplotlibrc

NOTEBOOK_BACKENDS = ("inline", "ipympl", "widget", "nbagg", "notebook")  # parts of names: they draw below the cell


def _show_in_notebooks() -> None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    backends = os.environ.get("MPLBACKEND", "inline"), plt.get_backend()
    if hasattr(shell, "kernel") and not any(part in name for part in NOTEBOOK_BACKENDS for name in backends):
        shell.enable_matplotlib("inline")
    # Now, as a notebook's backend, loaded within `rc_context` below, would lose its setting to show figures then.
    plt.switch_backend(plt.get_backend())


forget_matplotlibrc()
_show_in_notebooks()

MARKERS, DASHES = "osD^vP*Xp", ("-", "--", ":", "-.")
STYLE = LIBRARY | {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.markersize": 5,
    "text.parse_math": True,  # powers of ten on axes are formulas; names are none, see `picture`
}


def picture(**settings) -> Callable:
    """Decorator of a function that draws: in `STYLE`, and with all texts as they are, as a "$" in a class's name.

    Args:
        settings: of matplotlib, beside those of `STYLE`; with "_" for "." in their names, as axes_grid=False.
    """
    style = STYLE | {name.replace("_", ".", 1): value for name, value in settings.items()}

    def decorate(draw):
        @wraps(draw)
        def drawn(*args, **kwargs):
            with plt.rc_context(style):
                return draw(*_without_mathematics(args), **_without_mathematics(kwargs))

        return drawn

    return decorate


def _without_mathematics(value):
    """The same with "$" in all its texts escaped, at any depth: two would set what is between them as a formula."""
    if isinstance(value, str):
        return value.replace("$", r"\$")
    if isinstance(value, Mapping):
        return {_without_mathematics(key): _without_mathematics(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(_without_mathematics, value))
    return value


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
