"""Batches of runs, as users start, kill, repeat and double them; each test here is a real one of a tiny study."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import nbformat
import pytest

from studies import run
from tests.batches import STUDY, Command, files, jobs, marks, plan, records


def tiny(jobs):
    return ("studies.batch", "--experiments", STUDY, "--scale", "tiny", "--jobs", jobs)


@pytest.fixture(scope="module")
def undisturbed(notebooks, tmp_path_factory):
    """What nothing has happened to: a batch of one job at a time, and beside it one run of all seeds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    commands = {
        "batch": Command(notebooks, folder / "batch", *tiny(1)),
        "run": Command(notebooks, folder / "run", "studies.run", STUDY, "--scale", "tiny"),
    }
    try:
        for command in commands.values():
            assert command.finish() == 0 and not command.err, command.err
        yield commands
    finally:
        for command in commands.values():
            command.close()


# ---------------------------------------------------------------- what a batch makes and prints


def test_a_batch_prints_one_line_a_job_a_table_and_the_page(undisturbed):
    results, out = undisturbed["batch"].results, undisturbed["batch"].out
    done, left = ([line for line in out if word in line] for word in ("done: ", " runs done in "))
    folder = results / "tiny" / STUDY
    for line, label, where in zip(
        [*sorted(done[:2]), done[2]], (" seed 0", " seed 1", ""), ("/seeds/0", "/seeds/1", "")
    ):
        assert re.fullmatch(rf"done: {STUDY} tiny{label}, \d+ s, {folder}{where}/record.json", line)
    for n, line in enumerate(left, 1):
        assert re.fullmatch(rf"{n} of 3 runs done in \d\d:\d\d, about \d\d:\d\d left", line)
    assert left[-1].endswith("about 00:00 left")
    table = [line for line in out if line not in [*done, *left]]
    assert table[0] == "" and table[1].split() == ["experiment", "scale", "seeds", "verdicts", "seconds"]
    assert table[2].split()[:3] == [STUDY, "tiny", "2"] and table[3:] == ["", str(results / "report.html")]
    assert STUDY in (results / "report.html").read_text()


def test_a_batch_leaves_nothing_but_results(undisturbed):
    names = {Path(name).name for name in files(undisturbed["batch"].results)}
    assert not [name for name in names if name.startswith((".", "failed"))]


def test_one_run_of_all_seeds_gives_the_record_of_a_batch(undisturbed):
    alone, batched = (records(undisturbed[name].results) for name in ("run", "batch"))
    assert len(alone) == 1 and len(batched) == 3
    assert alone.items() <= batched.items()


def test_one_run_prints_one_line_and_leaves_record_notebook_page_and_figures(undisturbed):
    folder, out = undisturbed["run"].results / "tiny" / STUDY, undisturbed["run"].out
    assert len(out) == 1 and re.fullmatch(rf"done: {STUDY} tiny, \d+ s, {folder}/record.json", out[0])
    record = json.loads((folder / "record.json").read_text())
    assert record["parameters"]["seeds"] == 2 and record["parameters"]["scale"] == "tiny"
    figures = {f"figures/{name}.png" for name in record["figures"]}
    assert figures and set(files(folder)) == {"record.json", "notebook.ipynb", "notebook.html"} | figures
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "\\r" not in json.dumps(notebook) and notebook.metadata.papermill.output_path == f"{folder}/notebook.ipynb"


# ---------------------------------------------------------------- interruptions


def test_a_batch_that_is_killed_again_and_again_goes_on_and_ends_as_if_undisturbed(undisturbed, start, tmp_path):
    """At four moments, by SIGKILL and by Ctrl-C; then two batches at once finish what is left."""
    results = tmp_path / "results"
    kernels = ".hist_file="  # of their command lines

    def first_job_starts(command):
        command.wait_for(lambda: command.below("-m studies.run"))

    def first_seed_runs(command):
        command.wait_for(lambda: command.below(kernels))

    def seed_is_done(command):
        command.wait_for(lambda: any(line.startswith("done:") for line in command.out))

    def study_runs(command):
        command.wait_for(lambda: command.below(kernels) and not command.below("-p seed "))

    def launcher(process):
        os.kill(process.pid, signal.SIGKILL)

    def group(process):
        os.killpg(process.pid, signal.SIGKILL)

    def ctrl_c(process):
        os.killpg(process.pid, signal.SIGINT)

    moments = [(first_job_starts, launcher), (first_seed_runs, group), (seed_is_done, ctrl_c)]
    for moment, kill in [*moments, (study_runs, launcher)]:
        command = start(results, *tiny(2))
        moment(command)
        finished = {file.parent for file in results.rglob(run.FINISHED)}
        kept = {folder: files(folder) for folder in finished}
        kill(command.process)
        code = command.finish(120)
        assert code == (130 if kill is ctrl_c else -signal.SIGKILL)
        if kill is ctrl_c:
            assert len(command.err) == 1, command.err
        else:  # the killed say nothing; a kernel may still say that its parent, or its connection file, is gone
            assert not any("studies" in line for line in command.err), command.err
        assert command.gone(), command.left()
        # Another run may have finished between the look and the kill: what counts is that nothing finished is touched.
        assert {folder: files(folder) for folder in finished} == kept
    assert len(finished) == 2, "both seeds had finished before the last kill"
    # Whatever a kill at the worst moment leaves, nothing takes it for a result.
    for name in ("record.json", "notebook.ipynb", "failed.ipynb"):
        (results / "tiny" / STUDY / f".{Path(name).stem}-x1y2z3{Path(name).suffix}").write_text("{")

    first = start(results, *tiny(2))
    first.wait_for(lambda: first.below("-m studies.run"))
    second = start(results, *tiny(2))
    assert first.finish() == 0 and not first.err
    done, now = files(results), time.time()
    assert second.finish() == 0 and not second.err
    assert time.time() - now < 60, "seconds, most of them to import Snakemake and torch"
    assert [line.split(",")[0] for line in first.out if "done: " in line] == [f"done: {STUDY} tiny"], (
        "the rest was done"
    )
    number = first.process.pid
    ending = f"(process {number}; to end it: kill {number}, or at once kill -9 {number})"
    assert second.out[0] == f"waiting: another batch is writing to {results} {ending}"
    assert not any(line.startswith("done:") for line in second.out)
    assert files(results) == done, "nothing was left to do for the second"
    assert {folder: files(folder) for folder in finished} == kept
    assert records(results) == records(undisturbed["batch"].results)


def test_only_what_does_not_go_with_its_record_is_run_again(undisturbed, start, tmp_path):
    copies = [shutil.copytree(undisturbed["batch"].results, tmp_path / name) for name in ("a", "b")]
    (copies[1] / "tiny" / STUDY / "record.json").unlink()
    same = plan(start, copies[0], "--cores", 1, config=["scale=tiny"])
    other = plan(start, copies[1], "--cores", 1, config=["scale=tiny", "seeds=3"])
    assert jobs(same) == {}
    assert set(jobs(other)) == marks("tiny", 2) and not any("gpu" in resources for resources in jobs(other).values())


def test_what_is_run_again_goes_by_content_and_not_by_the_times_of_files(undisturbed, notebooks, start, tmp_path):
    books = shutil.copytree(notebooks, tmp_path / "books")
    results = [shutil.copytree(undisturbed["batch"].results, tmp_path / name) for name in ("a", "b")]
    for n, mark in enumerate(sorted(results[0].rglob(run.FINISHED))):
        os.utime(mark, (10**9 + n, 10**9 + n))  # the study's before its seeds'
    shutil.rmtree(results[0] / ".snakemake")
    for file in books.rglob("*.*"):
        file.touch()
    same = plan(start, results[0], "--cores", 1, config=["scale=tiny"], notebooks=books)
    assert jobs(same) == {}
    book = nbformat.read(books / f"{STUDY}.ipynb", as_version=4)
    book.cells[-2].source += "\nedited = 1"
    nbformat.write(book, books / f"{STUDY}.ipynb")
    other = plan(start, results[1], "--cores", 1, config=["scale=tiny"], notebooks=books)
    assert set(jobs(other)) == marks("tiny", 0, 1)
