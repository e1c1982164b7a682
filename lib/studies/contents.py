"""The table of contents, `notebooks/index.ipynb`, in Markdown: all notebooks, what they take, what they have found.

Everything is read from the tree, so that a notebook or a kept record that is added appears by itself.
"""

import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from IPython.display import Image, Markdown, display

from studies.files import NOTEBOOKS
from studies.records import RECORDS, VERDICTS, claims, duration, load_records, markdown, plain, scale, seconds, verdicts
from studies.run import experiments


def question(experiment: str) -> str:
    """A notebook's title: the first heading of its script."""
    text = (NOTEBOOKS / f"{experiment}.py").read_text("utf-8")
    heading = re.search(r"^# # (.+)$", text, re.MULTILINE)
    return heading[1] if heading else experiment


def notebooks_table(chosen: Iterable[str] | None = None, folder: Path = RECORDS) -> str:
    """Markdown: a row a notebook with a link, its question, and what each kept record took and found.

    Args:
        chosen: experiments, by default all; as `studies.run.experiments` names them.
        folder: where the records are kept.
    """
    chosen = experiments() if chosen is None else list(chosen)
    found = {experiment: [] for experiment in chosen}
    for record in load_records(folder):
        found.get(record["experiment"], []).append(record)
    rows = []
    for experiment, records in found.items():
        lines = [f"*{scale(r)}*, {duration(seconds(r))}: {verdicts([r])}" for r in records]
        link = f"[{experiment}]({experiment}.ipynb)"
        rows.append((link, plain(question(experiment)), "<br>".join(lines) or "no run kept yet"))
    return markdown(("Notebook", "It asks", "Kept runs: how long, and what the claims came to"), rows)


def claims_table(folder: Path = RECORDS) -> str:
    """Markdown: a row a claim, in how many of its measurements it holds, fails and so on, by run."""
    counts = {}
    for record, claim in claims(load_records(folder)):
        row = counts.setdefault((f"{claim['id']}: {claim['claim']}", record["experiment"], scale(record)), Counter())
        row[claim["verdict"]] += 1
    rows, above = [], ""
    for (claim, experiment, name), row in sorted(counts.items()):
        told = [row[verdict] or "" for verdict in VERDICTS]
        rows.append([plain(cell) for cell in (claim if claim != above else "", f"{experiment}, {name}", *told)])
        above = claim
    return markdown(("Claim", "Run", *VERDICTS), rows) if rows else "No record with claims is kept yet."


def show_paper(paper: str, figure: str = "", folder: Path = RECORDS, width: int = 1000) -> None:
    """Show a paper's notebooks and, of the first kept record that has it, one figure.

    Args:
        paper: the folder below `notebooks/`.
        figure: "<name of the notebook>/<name of the figure>"; a figure that is not kept is left out.
        width: the most pixels that the picture is wide; it is kept in the notebook, so it should be small.
    """
    name, _, figure = figure.partition("/")
    for record in load_records(folder):
        file = record["folder"] / "figures" / f"{figure}.png"
        if record["experiment"] == f"{paper}/{name}" and file.is_file():
            display(_small(file, width))
            title = f"{figure[:1].upper()}{figure[1:]}".replace("_", " ")
            display(Markdown(f"*{title}, from {record['experiment']} at {scale(record)} scale.*"))
            break
    ours = [experiment for experiment in experiments() if experiment.split("/")[0] == paper]
    display(Markdown(notebooks_table(ours, folder) if ours else "There is no notebook yet."))


def _small(file: Path, width: int) -> Image:
    """The picture in no more than 128 colours."""
    from PIL import Image as Picture

    picture, png = Picture.open(file).convert("RGB"), io.BytesIO()
    picture.thumbnail((width, 2 * width))
    picture.quantize(128).save(png, "png", optimize=True)
    return Image(png.getvalue(), format="png", width=picture.width * 2 // 3, alt=file.stem)
