"""Notebooks that were edited where their scripts are not saved with them, as in VS Code, before `make notebooks`.

    python -m studies.pairs

The script is what is reviewed, and `make notebooks` writes it into the notebook. An edit that is in the notebook alone
would be lost by that, so it is said here, with how to bring it over, and the exit code is 1.
"""

import subprocess
import sys
from pathlib import Path

from studies.files import NOTEBOOKS
from studies.parameters import PAGES, experiments


def edited(notebook: Path) -> bool:
    """Has a notebook of a git clone other cells than its script and than at the last commit, and was written later?"""
    import jupytext
    import nbformat

    script, ours = notebook.with_suffix(".py"), nbformat.read(notebook, as_version=4)
    if script.stat().st_mtime > notebook.stat().st_mtime or _cells(ours) == _cells(jupytext.read(script)):
        return False
    asked = ["git", "-C", notebook.parent, "show", f"HEAD:./{notebook.name}"]
    try:
        committed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False  # no clone, or a new notebook
    return _cells(ours) != _cells(nbformat.reads(committed, as_version=4))


def _cells(book) -> list:
    return [(cell.cell_type, cell.source, sorted(cell.metadata.get("tags", []))) for cell in book.cells]


def main() -> int:
    """The command line; returns the exit code."""
    names = [*experiments(), *(page for page in PAGES if (NOTEBOOKS / f"{page}.ipynb").is_file())]
    found = [file for name in names if edited(file := NOTEBOOKS / f"{name}.ipynb")]
    for file in found:
        print(
            f"error: {file} was edited and its script was not: `jupytext --to py:percent {file}` brings the edit over, "
            f"`git checkout {file}` drops it",
            file=sys.stderr,
        )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
