"""The order of the studies, and their answers in a sentence: as the README's table of questions has them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from studies.files import NOTEBOOKS, ROOT
from studies.parameters import experiments

README = ROOT / "README.md"


class Entry(NamedTuple):
    """A row of the README's table: the notebook, its question there and the answer, both Markdown, or empty."""

    experiment: str
    question: str = ""
    answer: str = ""


class Chapter(NamedTuple):
    """The studies of one paper (its folder below `notebooks/`), or of none ("")."""

    paper: str
    title: str
    about: str  # Markdown: the paper's authors, with a link
    studies: list[Entry]


def chapters(known: Iterable[str] | None = None) -> list[Chapter]:
    """The README's chapters in its order; a notebook that it does not name is the last of its paper's.

    Args:
        known: experiments, by default those in the tree.
    """
    found = _table(README.read_text("utf-8") if README.is_file() else "")
    known = experiments() if known is None else sorted({*known})
    named = {study.experiment for chapter in found for study in chapter.studies}
    for experiment in [experiment for experiment in known if experiment not in named]:
        paper = experiment.rpartition("/")[0]
        chapter = next((chapter for chapter in found if chapter.paper == paper), None)
        if chapter is None:
            chapter = Chapter(paper, paper or "Further notebooks", "", [])
            found.append(chapter)
        chapter.studies.append(Entry(experiment))
    kept = [c._replace(studies=[study for study in c.studies if study.experiment in known]) for c in found]
    return [chapter for chapter in kept if chapter.studies]


def _table(readme: str) -> list[Chapter]:
    """The rows `| **Paper**, authors | … |`, each with its rows `| [question](notebooks/….ipynb) … | answer |`.

    Other tables may follow it.
    """
    found = []
    for line in readme.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 2:
            if found:
                break
            continue
        if title := re.match(r"\*\*(.+?)\*\*[,;]? ?(.*)", cells[0]):
            found.append(Chapter("", title[1], title[2], []))
        elif found and (link := re.match(r"\[(.+?)\]\(notebooks/(.+?)\.ipynb\)", cells[0])):
            found[-1].studies.append(Entry(link[2], link[1], cells[1]))
    return [c._replace(paper=c.studies[0].experiment.rpartition("/")[0]) for c in found if c.studies]


def question(experiment: str) -> str:
    """A notebook's title: the first heading of its script, or its name if there is none."""
    script = NOTEBOOKS / f"{experiment}.py"
    heading = re.search(r"^# # (.+)$", script.read_text("utf-8"), re.MULTILINE) if script.is_file() else None
    return heading[1] if heading else experiment
