"""The report of runs: one self-contained page, in the README's order, for a desk, a telephone and paper."""

import base64
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from studies.digests import figure_is_whole
from studies.figures import WIDTH, Figure, figures, shrunk, words_of
from studies.outline import chapters, question
from studies.records import VERDICTS, claims, counted, duration, scale, seconds, seeds_in_words, verdicts
from studies.statistics import interval, number

MANY = 50  # pictures; where there are more, they are smaller, so that the page stays below 5 MB
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, undefined=StrictUndefined
)
for function in (number, interval, counted, duration, seeds_in_words, quote):
    TEMPLATES.filters[function.__name__] = function


def html_page(records: Sequence[dict], path: Path, faults: Iterable[str] = ()) -> str:
    """What came of all records at a glance, then by paper the claims, and each record's figures and tables.

    Args:
        records: as `load_records` returns them.
        path: where the page will lie; links to executed notebooks are relative to its folder.
        faults: a line for each file that is no record.
    """
    pictures = sum(len(record["figures"]) for record in records)
    width = round(WIDTH * min(1, math.sqrt(MANY / max(pictures, 1))))
    parts = []
    for chapter in chapters(record["experiment"] for record in records):
        ours = [record for entry in chapter.studies for record in records if record["experiment"] == entry.experiment]
        about = {"title": chapter.title, "about": words_of(chapter.about), "anchor": f"paper-{chapter.paper or 'none'}"}
        parts.append(about | _claims(ours) | {"runs": [_run(record, path.absolute().parent, width) for record in ours]})
    return TEMPLATES.get_template("page.html.j2").render(
        chapters=parts, marks=VERDICTS, faults=[*faults], **_claims(records)
    )


def _claims(records: Sequence[dict]) -> dict:
    """How many of the papers' claims hold and so on, how many are ours, and the rows of both, grouped by claim."""
    stated = claims(records)
    about = ["id", "claim", "measure", "expected", "paper's value", "source"]
    groups = [(rows.iloc[0], rows.to_dict("records")) for _, rows in stated.groupby(about, dropna=False, sort=False)]
    papers = stated[stated["ours"].isna()]["verdict"].value_counts()
    counts = [(verdict, int(papers[verdict])) for verdict in VERDICTS if verdict in papers]
    return {"groups": groups, "counts": counts, "ours": int(stated["ours"].notna().sum()), "verdicts": verdicts(stated)}


def _run(record: dict, folder: Path, width: int) -> dict:
    """What the template shows of a record; `folder` is the page's."""
    names = {"notebook.ipynb": "executed notebook", "notebook.html": "executed notebook as a page"}
    there = {record["folder"] / name: words for name, words in names.items() if (record["folder"] / name).is_file()}
    links = {Path(os.path.relpath(file, folder)).as_posix(): words for file, words in there.items()}
    with ThreadPoolExecutor() as pool:  # as Pillow works without Python's lock
        pictures = [*pool.map(lambda figure: _picture(record, figure, width), figures(record))]
    found = {"scale": scale(record), "took": seconds(record), "links": links, "pictures": pictures}
    found |= {"question": words_of(question(record["experiment"])), "claimed": _claims([record])}
    return record | found | {"anchor": quote(f"{scale(record)}/{record['experiment']}")}


def _picture(record: dict, figure: Figure, width: int) -> dict:
    """A figure as the page holds it; without "base64" if its file is not as its run drew it."""
    found = figure._asdict()
    if figure_is_whole(record, record["folder"], figure.name):
        data, wide, high = shrunk(figure.file, width)
        found |= {"base64": base64.b64encode(data).decode(), "width": wide, "height": high}
    return found
