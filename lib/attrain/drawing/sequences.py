"""Letters as tall as their relevance, words on its colour (also as HTML), series as coloured lines, numbers as bars."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from attrain.drawing.style import DIVERGING, LETTER_COLOURS, pale

LETTER = 0.087  # inches of a character of 9 points
DARKEST = 1.6  # words: the darkest colours would hide them
SHADES = {"relevance": (DIVERGING, -DARKEST), "change": ("Oranges", 0.0)}  # map of colours, and what is at its low end


def draw_letters(axis: Any, heights: np.ndarray, start: int = 0) -> None:
    """The letters A, C, G, T, heights (4, L), stacked from zero outwards, the smallest first."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.textpath import TextPath

    order = np.argsort(np.abs(heights), axis=0)
    stacked = np.take_along_axis(heights, order, 0)
    bases = np.zeros_like(heights)
    for part in (np.clip(stacked, 0, None), np.clip(stacked, None, 0)):
        below = np.where(part != 0, part.cumsum(0) - part, np.take_along_axis(bases, order, 0))
        np.put_along_axis(bases, order, below, 0)
    for letter, colour, tall, base in zip("ACGT", LETTER_COLOURS, heights, bases):
        outline = TextPath((0, 0), letter, size=1, prop=FontProperties(weight="bold"))
        box = outline.get_extents()
        unit = (outline.vertices - box.min) / box.size - [0.5, 0]
        drawn = [Path(unit * [0.95, tall[p]] + [start + p, base[p]], outline.codes) for p in np.flatnonzero(tall)]
        if drawn:
            axis.add_patch(PathPatch(Path.make_compound_path(*drawn), color=colour, linewidth=0))
    axis.autoscale_view()


def shade(value: float, kind: str = "relevance") -> tuple[float, float, float, float]:
    """The colour behind a word of this value: "relevance" in [−1, 1], or "change" in [0, 1], orange."""
    import matplotlib

    colours, low = SHADES[kind]
    return matplotlib.colormaps[colours]((np.clip(value, -1, 1) - low) / (DARKEST - low))


def draw_words(axis: Any, row: float, words: Sequence[str], values: Sequence[float], kind: str = "relevance") -> None:
    """A line of words, each on the colour of its value; the axis counts characters to the right and lines down."""
    x = 0.5
    for word, value in zip(words, values):
        box = {"facecolor": shade(value, kind), "edgecolor": "none", "boxstyle": "square,pad=0.25"}
        axis.text(x, row, word, va="center", family="monospace", fontsize=9, color="black", bbox=box)
        x += len(word) + 2


def lines_of(words: Sequence[str], width: int) -> list[slice]:
    """The words by lines of so many characters at most, if no word is longer.

    Example:
        >>> lines_of(["one", "two", "three"], 12)
        [slice(0, 2, None), slice(2, 3, None)]
    """
    starts, used = [0], 0
    for i, word in enumerate(words):
        if used and used + len(word) + 2 > width:
            starts.append(i)
            used = 0
        used += len(word) + 2
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(words)])]


def words_as_html(label: str, words: Sequence[str], values: Sequence[float], scale: float) -> str:
    """A paragraph of words, each on the colour of its value / scale, with the value as its tooltip."""
    spans = []
    for word, value in zip(words, values):
        red, green, blue, _ = (round(255 * part) for part in shade(value / scale))
        style = f"background:rgb({red},{green},{blue});color:#000;padding:.1em .25em;border-radius:.15em"
        spans.append(f'<span style="{style}" title="{value:.3g}">{escape(word)}</span>')
    name = f'<span style="color:#555">{escape(label)}</span> ' if label else ""
    return f'<p style="line-height:1.9;background:#fff;color:#000;padding:.2em .5em">{name}{" ".join(spans)}</p>'


def draw_series(axis: Any, series: np.ndarray, values: np.ndarray) -> None:
    """A series (L,) as a thin line, with a band of colour over it: values (l,) in [−1, 1], l up to L."""
    from matplotlib.collections import LineCollection

    time = np.arange(len(series))
    values = values[time * len(values) // len(series)]
    axis.plot(time, series, color="0.3", linewidth=0.8)
    middles = np.concatenate([series[:1], (series[1:] + series[:-1]) / 2, series[-1:]])
    edges = np.concatenate([time[:1], time[1:] - 0.5, time[-1:]])
    places = [np.column_stack([edges[[i, i + 1]], middles[[i, i + 1]]]) for i in range(len(series))]
    peaks = [np.insert(p, 1, [t, y], axis=0) for p, t, y in zip(places, time, series)]
    axis.add_collection(LineCollection(peaks, colors=pale(values), linewidths=5, capstyle="butt"))
    axis.autoscale_view()


def draw_bars(axis: Any, names: Sequence[str], values: np.ndarray) -> None:
    """A bar a feature, from the top down: red for, blue against."""
    axis.barh(np.arange(len(values)), values, color=np.where(values > 0, "#b2182b", "#2166ac"))
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(values) - 0.4, -0.6)
