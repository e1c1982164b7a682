"""One look for all pictures: colour-blind safe, opaque on dark pages, one scale of colours from against to for."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

# Okabe and Ito's palette without yellow, which vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DIVERGING = "RdBu_r"  # blue, white at 0, red
LETTER_COLOURS = (COLOURS[2], COLOURS[0], COLOURS[5], COLOURS[1])  # A green, C blue, G orange, T red
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",  # not transparent: a dark page would swallow the axes
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "font.size": 10,
    "legend.frameon": False,
    "svg.hashsalt": "attrain",
    "text.parse_math": False,  # a "$" in a class's name is one
}


@contextmanager
def styled() -> Iterator[Any]:
    """matplotlib.pyplot in this look, whatever a matplotlibrc says, but for fonts: names may need their signs."""
    import matplotlib.pyplot as plt

    plt.draw_if_interactive()  # loads a notebook's backend now: within rc_context its settings would be lost again
    with plt.rc_context():
        forget_matplotlibrc()
        plt.rcParams.update(STYLE)
        yield plt


def forget_matplotlibrc() -> None:
    """Set matplotlib to its own defaults, but for fonts."""
    import matplotlib.pyplot as plt

    fonts = {name: value for name, value in plt.rcParams.items() if name.startswith("font.")}
    plt.style.use("default")
    plt.rcParams.update(fonts)


def small_png(drawn: IO[bytes], dithered: bool) -> bytes:
    """A PNG in 256 colours: a third of the bytes. Dithered, photos keep their shades."""
    from PIL import Image

    with Image.open(drawn) as picture:
        whole = picture.convert("RGB")
    # By how far colours are apart and not by how often they occur: a colour bar's few are not merged, and a cat's green
    # eyes stay green.
    few = whole.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few = whole.quantize(palette=few) if dithered else few
    few.save(small := io.BytesIO(), format="png", optimize=True)
    return small.getvalue()


def limit(values: np.ndarray) -> float:
    """What is drawn in the darkest colour: the 99.5th percentile of |values|, and 1 of values that are all 0."""
    size = np.abs(values[np.isfinite(values)])
    return float(np.quantile(size, 0.995) or size.max() or 1.0) if size.size else 1.0


def pale(values: np.ndarray) -> np.ndarray:
    """Colours (…, 4) for values in [−1, 1], none at 0, to be laid over something: red for, blue against."""
    import matplotlib

    colours = matplotlib.colormaps[DIVERGING](0.5 + 0.5 * np.where(values < 0, -0.8, 0.8))
    colours[..., 3] = np.abs(np.clip(np.nan_to_num(values), -1, 1))
    return colours


def text_width(texts: Sequence[str], fontsize: float) -> float:
    """Inches of the longest line."""
    from matplotlib.textpath import TextPath

    lines = [line for text in texts for line in text.replace("$", "S").split("\n") if line.strip()]
    return max((TextPath((0, 0), line, size=fontsize).get_extents().width for line in lines), default=0.0) / 72


def side_label(axis: Any, text: str) -> None:
    """A label beside an axis, to be read without turning the head."""
    axis.set_ylabel(text, rotation=0, ha="right", va="center", labelpad=8)
