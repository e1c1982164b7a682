"""The figures of a record for a page: the one that tells most first, each with its caption and a text in its place."""

import io
import re
from pathlib import Path
from typing import NamedTuple

from studies.records import RECORDS, scale

WIDTH = 1300  # pixels of a picture on a page, at the most
SHOWN = re.compile(  # ![alt](place/figures/name.png), and below it perhaps *caption*
    r"!\[([^\]]*)\]\(([^)]+)/figures/([^)/]+)\.png\)(?:\n+\*([^*]+)\*$)?", re.MULTILINE
)


class Figure(NamedTuple):
    """A figure beside a record; `caption` and `alt` say what to see, and what is drawn."""

    name: str
    file: Path
    title: str
    caption: str
    alt: str


def figures(record: dict) -> list[Figure]:
    """A record's figures, as `load_record` returns it; first the one that the results pages show of its notebook first.

    Captions are the record's own. A record that has none is given those that the results pages have for its figures.
    """
    said = {}
    first = None
    for place, name, *words in _shown():
        if place.partition("/")[2] == record["experiment"]:
            first = first or name
            if place.partition("/")[0] == scale(record):
                said.setdefault(name, words)
    found = []
    for name in dict.fromkeys(record["figures"]):
        caption, alt = (record.get("captions", {}).get(name, {}).get(key, "") for key in ("caption", "alt"))
        alt_of_page, caption_of_page = said.get(name, ("", ""))
        title = re.sub(r"[_\s]+", " ", name)
        alt = alt or alt_of_page or f"Figure: {title}, from {record['experiment']} at {scale(record)} scale"
        caption = words_of(caption or caption_of_page)
        found.append(Figure(name, record["folder"] / "figures" / f"{name}.png", title, caption, words_of(alt)))
    return sorted(found, key=lambda figure: figure.name != first)


def _shown() -> list[tuple[str, str, str, str]]:
    """Of each figure on the results pages: its record's folder, its name, its alt text and its caption."""
    pages = sorted(RECORDS.glob("*.md"))
    found = [match.groups() for page in pages for match in SHOWN.finditer(page.read_text("utf-8"))]
    return [(place, name, alt, " ".join((caption or "").split())) for alt, place, name, caption in found]


def words_of(markdown: str) -> str:
    """A sentence of Markdown as plain words.

    Example:
        >>> words_of("*Dual* fails, see [the sweep](sweep.png) of `P`.")
        'Dual fails, see the sweep of P.'
    """
    return re.sub(r"(?<!\\)[*`]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)).replace("\\", "")


def shrunk(file: Path, width: int = WIDTH, colours: int | None = None) -> tuple[bytes, int, int]:
    """A PNG in few bytes: WebP, which all browsers show; or with so many colours a PNG, as for a notebook.

    Returns:
        the bytes, and the width and height to show it at: that of 100 dots an inch, where figures are kept at 150.
    """
    from PIL import Image

    picture, data = Image.open(file).convert("RGB"), io.BytesIO()
    shown = picture.width * 2 // 3, picture.height * 2 // 3
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    if colours:
        picture.quantize(colours).save(data, "png", optimize=True)
    else:
        picture.save(data, "webp", quality=40, method=2)
    return data.getvalue(), *shown
