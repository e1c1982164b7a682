"""How a figure reaches its reader: one PNG for the notebook and the record, with a caption and a text in its place."""

import io

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attrain.drawing.style import small_png

DOTS = 150  # an inch, as kept; shown at two thirds of that, which is sharp on fine screens too


def png(figure: Figure) -> bytes:
    """A figure as a PNG, the same bytes for the same figure."""
    figure.savefig(drawn := io.BytesIO(), dpi=DOTS, bbox_inches="tight", metadata={"Software": None})
    return small_png(drawn, dithered=False)


def show_figure(figure: Figure, caption: str, alt: str) -> None:
    """Show a figure that no record keeps, and close it; see `show`."""
    show(png(figure), caption, alt)
    plt.close(figure)


def show(picture: bytes, caption: str, alt: str) -> None:
    """Show a PNG in a notebook, its caption (Markdown) below.

    Args:
        picture: as `png` makes it.
        caption: what to see in it.
        alt: what is in it, for those who do not see it and where it does not load.
    """
    from IPython.display import Image, Markdown, display

    width = int.from_bytes(picture[16:20], "big") * 2 // 3
    display(Image(picture, format="png", width=width, alt=alt))
    if caption:
        display(Markdown(f"*{caption}*"))
