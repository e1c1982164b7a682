"""An edit that is in a notebook alone is said before its script is written over it."""

import os
import subprocess

import jupytext
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from studies import pairs, parameters


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A notebook and its script in a git clone, both committed."""
    for module in (pairs, parameters):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    file = tmp_path / "toy.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("a = 1")]), file)
    jupytext.write(nbformat.read(file, as_version=4), tmp_path / "toy.py", fmt="py:percent")
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    os.utime(file.with_suffix(".py"), (10**9, 10**9))
    return file


def edit(file):
    """As VS Code saves it: the notebook alone."""
    changed = nbformat.read(file, as_version=4)
    changed.cells[0].source += "\nb = 2"
    nbformat.write(changed, file)


def test_a_notebook_in_step_with_its_script_is_fine(book, capsys):
    assert pairs.main() == 0 and not capsys.readouterr().err


def test_an_edit_in_the_notebook_alone_is_said_with_how_to_bring_it_over(book, capsys):
    edit(book)
    assert pairs.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {book} was edited and its script was not: `jupytext --to py:percent {book}`")
    jupytext.write(nbformat.read(book, as_version=4), book.with_suffix(".py"), fmt="py:percent")
    assert pairs.main() == 0


def test_a_script_edited_after_its_notebook_is_what_counts(book):
    edit(book)
    book.with_suffix(".py").write_text("# %%\na = 3\n")
    os.utime(book, (10**9, 10**9))
    assert pairs.main() == 0


def test_a_script_edited_since_the_last_commit_is_fine_and_so_is_a_folder_without_git(book):
    book.with_suffix(".py").write_text("# %%\na = 3\n")
    assert pairs.main() == 0


def test_other_outputs_are_no_edit(book):
    changed = nbformat.read(book, as_version=4)
    changed.cells[0].execution_count = 5
    nbformat.write(changed, book)
    assert pairs.main() == 0
