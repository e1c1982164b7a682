"""The pages that show records: `report.html` beside the results, the Markdown of the results pages and of the index.

    python -m studies.pages            # writes results/report.html, which needs no network and prints
    python -m studies.pages --write    # also the generated parts of the pages in notebooks/results (`make report`)
    python -m studies.pages --check    # are these in step with the kept records?
    python -m studies.pages --keep laptop/isnet/covid_xray    # copy this run's record to the kept ones

All tables are parts of `studies.records.claims`, and everything is read from the tree: a notebook or a kept record
that is added appears by itself.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from studies import claim_tables
from studies.figures import figures, shrunk
from studies.files import NOTEBOOKS, results_root, write_text
from studies.outline import README, chapters, question
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
from studies.report import html_page

MARKERS = ("<!-- records: written by make report -->", "<!-- records end -->")
README_MARKERS = ("<!-- verdicts: written by make report -->", "<!-- verdicts end -->")

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


def notebooks_table(
    chosen: Iterable[str] | None = None, folder: Path = RECORDS, here: Path | None = None, asks: bool = True
) -> str:
    """Markdown: a row a notebook with a link, its question, and what each kept record took and found.

    Args:
        chosen: experiments, by default all; as `studies.parameters.experiments` names them.
        folder: where the records are kept.
        here: the folder of the page, for its links; by default that of the notebooks.
        asks: with the questions.
    """
    import pandas as pd

    here = here or NOTEBOOKS
    chosen = experiments() if chosen is None else list(chosen)
    lines = {experiment: [] for experiment in chosen}
    for record in read_records(folder)[0]:
        paper, _, name = record["experiment"].partition("/")
        page = folder / f"{paper}.md" if name else record["folder"] / "record.json"
        found, row = verdicts(claims([record]), brief=True), lines.get(record["experiment"], [])
        if not (name and row):  # one link to a page is enough
            found = f"[{found}]({_link(page, here)})"
        row.append(f"*{plain(scale(record))}*, {duration(seconds(record))}: {found}")
    table = pd.DataFrame({"Notebook": [f"[{e}]({_link(NOTEBOOKS / f'{e}.ipynb', here)})" for e in chosen]})
    if asks:
        table["It asks"] = [plain(question(experiment)) for experiment in chosen]
    table["Kept runs: how long, and what the claims came to"] = [
        "<br>".join(lines[experiment]) or "no run kept yet" for experiment in chosen
    ]
    return markdown(table)


def show_paper(paper: str, figure: str = "", folder: Path = RECORDS, width: int = 1000) -> None:
    """Show, of the first kept record that has it, one figure, and below it a paper's notebooks: question and answer.

    Args:
        paper: the folder below `notebooks/`; "" for the notebooks of all papers.
        figure: "<name of the notebook>/<name of the figure>"; a figure that is not kept is left out.
        width: the most pixels that the picture is wide; it is kept in the notebook, so it should be small.
    """
    from IPython.display import Image, Markdown, display

    experiment = f"{paper}/{figure.partition('/')[0]}".lstrip("/")
    kept = [record for record in read_records(folder)[0] if record["experiment"] == experiment]
    for record, found in ((of, found) for of in kept for found in figures(of)):
        if found.name == figure.partition("/")[2] and found.file.is_file():
            png, wide, _ = shrunk(found.file, width, colours=128)
            display(Image(png, format="png", width=min(wide, width * 2 // 3), alt=found.alt))
            caption = found.caption or f"{found.title[:1].upper()}{found.title[1:]}."
            place = f"[{plain(experiment)}]({quote(experiment)}.ipynb), {plain(scale(record))} scale"
            display(Markdown(f"*{plain(caption)}* ({place})"))
            break
    display(Markdown(answers(paper) or "There is no notebook yet."))


def answers(paper: str) -> str:
    """A paper's notebooks, each with its question and the README's answer, as a list in Markdown; "" if there are none.

    Links are relative to the notebooks' folder.
    """
    lines = []
    for entry in next((chapter.studies for chapter in chapters() if chapter.paper == paper), ()):
        asked, said = entry.question or question(entry.experiment), entry.answer.replace("](notebooks/", "](")
        lines.append(f"- [{asked}]({quote(entry.experiment)}.ipynb) {said}{'.' if said else ''}".rstrip())
    return "\n".join(lines)


# ---------------------------------------------------------------- pages that are written between markers


def generated(folder: Path = RECORDS) -> dict[Path, str]:
    """The text of each page with generated parts, as it should be for the kept records.

    An overview, README.md, and a page a paper, all in the folder of the records: between the lines
    `<!-- records: written by make report -->` and `<!-- records end -->`. A page that is missing begins as a title, a
    sentence and these markers; ValueError for a page without them. The README of the repository may hold, between
    `<!-- verdicts: written by make report -->` and `<!-- verdicts end -->`, the overview: a row a notebook with a link
    and what each of its kept runs found with a link there (its questions stand above). Without these lines it is left
    alone.
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
        texts[README] = _filled(README, notebooks_table(folder=folder, here=README.parent, asks=False), README_MARKERS)
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
    """Write report.html of all records below the folder, and print where; returns what `read_records` found amiss."""
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
