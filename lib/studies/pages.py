"""The looks of records: `report.html` beside the results, the Markdown of the results pages and of the index.

    python -m studies.pages            # writes results/report.html, which needs no network and prints
    python -m studies.pages --write    # also the generated parts of the pages in notebooks/results (`make report`)
    python -m studies.pages --check    # are these in step with the kept records?
    python -m studies.pages --keep laptop/isnet/covid_xray    # copy this run's record to the kept ones

All tables are parts of `studies.records.claims`, and everything is read from the tree: a notebook or a kept record
that is added appears by itself.
"""

import argparse
import base64
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from studies import claim_tables
from studies.digests import figure_is_whole
from studies.files import NOTEBOOKS, ROOT, results_root, write_text
from studies.parameters import experiments
from studies.records import (
    RECORDS,
    VERDICTS,
    claims,
    duration,
    keep,
    read_records,
    scale,
    seconds,
    seeds_in_words,
    verdicts,
)
from studies.statistics import interval, number

README = ROOT / "README.md"
MARKERS = ("<!-- records: written by make report -->", "<!-- records end -->")
README_MARKERS = ("<!-- verdicts: written by make report -->", "<!-- verdicts end -->")
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, undefined=StrictUndefined
)
for function in (number, interval, duration, seeds_in_words, quote):
    TEMPLATES.filters[function.__name__] = function

# ---------------------------------------------------------------- HTML


def html_page(records: list[dict], path: Path, faults: Iterable[str] = ()) -> str:
    """One self-contained page: the claims of all records, then each record's figures and tables.

    Args:
        records: as `load_records` returns them.
        faults: a line for each file that is none.
        path: where the page will lie; links to executed notebooks are relative to its folder.
    """
    stated = claims(records)
    about = ["id", "claim", "measure", "expected", "paper's value", "source"]
    groups = [(rows.iloc[0], rows.to_dict("records")) for _, rows in stated.groupby(about, dropna=False)]
    runs = [_run(record, path.absolute().parent) for record in records]
    page = TEMPLATES.get_template("page.html.j2")
    return page.render(runs=runs, groups=groups, verdicts=verdicts(stated), marks=VERDICTS, faults=[*faults])


def _run(record: dict, folder: Path) -> dict:
    """What the template shows of a record; `folder` is the page's."""
    names = {"notebook.ipynb": "executed notebook", "notebook.html": "executed notebook as a page"}
    there = {record["folder"] / name: words for name, words in names.items() if (record["folder"] / name).is_file()}
    links = {Path(os.path.relpath(file, folder)).as_posix(): words for file, words in there.items()}
    pictures = {name: _picture(record, name) for name in record["figures"]}
    titles = {name: re.sub(r"[_\s]+", " ", name) for name in pictures}
    found = {"scale": scale(record), "took": seconds(record), "links": links, "pictures": pictures, "titles": titles}
    return record | found | {"anchor": quote(f"{scale(record)}/{record['experiment']}")}


def _picture(record: dict, name: str) -> dict | None:
    """A figure as the page holds it, None if it is not as its run drew it; kept at 150 dots an inch, shown at 100."""
    if not figure_is_whole(record, record["folder"], name):
        return None
    data = (record["folder"] / "figures" / f"{name}.png").read_bytes()
    width, height = (int.from_bytes(data[i : i + 4], "big") * 2 // 3 for i in (16, 20))
    return {"base64": base64.b64encode(data).decode(), "width": width, "height": height}


# ---------------------------------------------------------------- Markdown


def plain(text) -> str:
    """Text as it is in a cell of a Markdown table; an underscore within a word or a bracket alone is harmless."""
    return re.sub(r"[\\`*~$&<>|]|(?<![^\W_])_|_(?![^\W_])|\](?=\()", r"\\\g<0>", " ".join(str(text).split()))


def markdown(table) -> str:
    """A DataFrame whose cells are Markdown, as other text becomes by `plain`; numbers stand to the right."""
    sides = ["right" if name in ("Measured", *VERDICTS) else "left" for name in table.columns]
    head, rule, rest = table.to_markdown(index=False, disable_numparse=True, colalign=sides).split("\n", 2)
    text = "\n".join([head, re.sub("-+", "---", rule), rest])
    return re.sub(" {2,}", " ", text)  # without the padding, which would change all rows with the widest


def record_tables(records: list[dict], here: Path, faults: Mapping[Path, str] | None = None) -> str:
    """For each record, folded, how many of its claims hold, and their table, with the paper's values if there are any.

    Args:
        records, faults: as `read_records` returns them.
        here: the folder of the page, for its links to the records.
    """
    parts = []
    for record in records:
        stated = claims([record])
        title = f"{record['experiment']}, {scale(record)} scale, {seeds_in_words(record['seeds'])}: {verdicts(stated)}"
        file = _link(record["folder"] / "record.json", here)
        parts += [f"<details><summary>{escape(title)}</summary>", *_claims(stated)]
        parts += [f"All metrics: [record]({file})", "</details>"]
    parts += [plain(fault.replace(str(file), _link(file, here))) for file, fault in (faults or {}).items()]
    return "\n\n".join(parts) or "No records are kept yet."


def _claims(stated) -> list[str]:
    """Paragraphs on the claims of a record: their tables, and what is to be known about both."""
    if stated.empty:
        return ["No claims."]
    parts = []
    for heading, table in claim_tables.tables(stated).items():
        parts += [*([f"**{heading}**"] if heading else []), markdown(table.map(plain))]
    named = [f"- {plain(place)}" for place in claim_tables.places(stated)]
    parts.append(" ".join(claim_tables.notes(stated)))
    return [*parts, *(["Where the paper has its numbers:", "\n".join(named)] if named else [])]


def _without_runs(paper: str, records: list[dict]) -> str:
    """The paper's numbers beside which no kept run stands, folded; "" if there are none."""
    table = claim_tables.without_runs(paper, claims(records))
    if table.empty:
        return ""
    title = f"The paper's numbers beside which no kept run of ours stands yet: {len(table)}"
    return "\n\n".join(["", f"<details><summary>{title}</summary>", markdown(table.map(plain)), "</details>"])


def _link(file: Path, here: Path) -> str:
    return quote(Path(os.path.relpath(file, here)).as_posix())


def question(experiment: str) -> str:
    """A notebook's title: the first heading of its script."""
    text = (NOTEBOOKS / f"{experiment}.py").read_text("utf-8")
    heading = re.search(r"^# # (.+)$", text, re.MULTILINE)
    return heading[1] if heading else experiment


def notebooks_table(chosen: Iterable[str] | None = None, folder: Path = RECORDS, here: Path | None = None) -> str:
    """Markdown: a row a notebook with a link, its question, and what each kept record took and found.

    Args:
        chosen: experiments, by default all; as `studies.parameters.experiments` names them.
        folder: where the records are kept.
        here: the folder of the page, for its links; by default that of the notebooks.
    """
    import pandas as pd

    here = here or NOTEBOOKS
    chosen = experiments() if chosen is None else list(chosen)
    lines = {experiment: [] for experiment in chosen}
    for record in read_records(folder)[0]:
        paper, _, name = record["experiment"].partition("/")
        page = folder / f"{paper}.md" if name else record["folder"] / "record.json"
        found = f"[{verdicts(claims([record]), brief=True)}]({_link(page, here)})"
        lines.get(record["experiment"], []).append(f"*{plain(scale(record))}*, {duration(seconds(record))}: {found}")
    table = pd.DataFrame({"Notebook": [f"[{e}]({_link(NOTEBOOKS / f'{e}.ipynb', here)})" for e in chosen]})
    table["It asks"] = [plain(question(experiment)) for experiment in chosen]
    table["Kept runs: how long, and what the claims came to"] = [
        "<br>".join(lines[experiment]) or "no run kept yet" for experiment in chosen
    ]
    return markdown(table)


def show_paper(paper: str, figure: str = "", folder: Path = RECORDS, width: int = 1000) -> None:
    """Show a paper's notebooks and, of the first kept record that has it, one figure.

    Args:
        paper: the folder below `notebooks/`.
        figure: "<name of the notebook>/<name of the figure>"; a figure that is not kept is left out.
        width: the most pixels that the picture is wide; it is kept in the notebook, so it should be small.
    """
    from IPython.display import Markdown, display

    name, _, figure = figure.partition("/")
    for record in read_records(folder)[0]:
        file = record["folder"] / "figures" / f"{figure}.png"
        if record["experiment"] == f"{paper}/{name}" and file.is_file():
            display(_small(file, width))
            title = f"{figure[:1].upper()}{figure[1:]}".replace("_", " ")
            display(Markdown(f"*{title}, from {record['experiment']} at {scale(record)} scale.*"))
            break
    ours = [experiment for experiment in experiments() if experiment.split("/")[0] == paper]
    display(Markdown(notebooks_table(ours, folder) if ours else "There is no notebook yet."))


def _small(file: Path, width: int):
    """The picture in no more than 128 colours."""
    from IPython.display import Image
    from PIL import Image as Picture

    picture, png = Picture.open(file).convert("RGB"), io.BytesIO()
    picture.thumbnail((width, 2 * width))
    picture.quantize(128).save(png, "png", optimize=True)
    return Image(png.getvalue(), format="png", width=picture.width * 2 // 3, alt=file.stem)


# ---------------------------------------------------------------- pages that are written between markers


def generated(folder: Path = RECORDS) -> dict[Path, str]:
    """The text of each page with generated parts, as it should be for the kept records.

    An overview, README.md, and a page a paper, all in the folder of the records: between the lines
    `<!-- records: written by make report -->` and `<!-- records end -->`. A page that is missing begins as a title, a
    sentence and these markers; ValueError for a page without them. The README of the repository may hold, between
    `<!-- verdicts: written by make report -->` and `<!-- verdicts end -->`, the overview: a row a notebook with a link,
    its question, and what each of its kept runs found with a link there. Without these lines it is left alone.
    """
    records, faults = read_records(folder)
    texts = {}
    for paper in sorted({experiment.split("/")[0] for experiment in experiments() if "/" in experiment}):
        ours = [record for record in records if record["experiment"].split("/")[0] == paper]
        no_records = {file: fault for file, fault in faults.items() if file.parent.parent.name == paper}
        page = folder / f"{paper}.md"
        texts[page] = _filled(page, record_tables(ours, folder, no_records) + _without_runs(paper, ours))
    texts[folder / "README.md"] = _filled(folder / "README.md", notebooks_table(folder=folder, here=folder))
    if README.is_file() and README_MARKERS[0] in README.read_text("utf-8"):
        texts[README] = _filled(README, notebooks_table(folder=folder, here=README.parent), README_MARKERS)
    return texts


def _filled(page: Path, part: str, markers: tuple[str, str] = MARKERS) -> str:
    """The page's text with this part between its markers; line ends stay what they are."""
    name = "All results" if page.stem == "README" else f"Results: {page.stem}"
    new = (
        f"# {name}\n\nWritten from the records of our runs that are kept beside this page.\n\n{chr(10).join(markers)}\n"
    )
    text = page.read_bytes().decode() if page.is_file() else new
    before, begin, rest = text.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (begin and end):
        raise ValueError(f"{page} needs the lines {markers[0]} and {markers[1]}, in this order: tables go between them")
    part = f"\n\n{part}\n\n"
    return before + begin + (part.replace("\n", "\r\n") if "\r\n" in text else part) + end + after


def update(page: Path, text: str) -> bool:
    """Write a page if that changes it; True if so."""
    if page.is_file() and page.read_bytes().decode() == text:
        return False
    write_text(page, text)
    return True


# ---------------------------------------------------------------- command line


def report(folder: Path) -> dict[Path, str]:
    """Write report.html of all records below the folder, print where it is; return what `read_records` found amiss."""
    records, faults = read_records(folder)
    page = folder / "report.html"
    update(page, html_page(records, page, faults.values()))
    print(page, flush=True)
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m studies.pages", description="Render the records of runs.")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--write", action="store_true", help="also write the pages' tables from the kept records")
    one.add_argument("--check", action="store_true", help="only check the pages' tables against the kept records")
    one.add_argument("--keep", metavar="SCALE/EXPERIMENT", help="only copy this run to notebooks/results")
    options = parser.parse_args(arguments)
    try:
        if options.keep:
            print(keep(results_root() / options.keep, RECORDS))
            return 0
        faults = {} if options.check else report(results_root())
        for page, text in generated(RECORDS).items() if options.check or options.write else ():
            if options.write:
                update(page, text)
            elif not page.is_file() or page.read_bytes().decode() != text:
                raise ValueError(f"{page} differs from the kept records: python -m studies.pages --write")
        if options.check or options.write:
            faults |= read_records(RECORDS)[1]
    except (OSError, ValueError) as error:
        print(f"studies.pages: {error}", file=sys.stderr)
        return 1
    for fault in faults.values():
        print(f"studies.pages: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
