"""Batches of runs, as users start, kill, repeat and double them; each test here is a real one of a tiny study."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from attrain import batch, run, study
from attrain.records import KEYS
from attrain.study import ROOT

REAL = "isnet/mnist_background_bias"
NOTES = (".lock", "report.html", run.FINISHED)  # made anew by each batch, or given a new time by Snakemake
TOY = """
scale: str = "smoke"  # the settings
seed: int = 0  # first seed
seeds: int = 1  # number of seeds
device: str = "cpu"  # where
threads: int = 1  # CPU threads
out: str = ""  # output folder
"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """The real study with a tiny scale of two seeds, a toy that can fail, and one of no paper with two seeds."""
    folder = tmp_path_factory.mktemp("note books")
    for name in ("Snakefile", "claims.yaml"):
        shutil.copy(ROOT / "notebooks" / name, folder)
    for name in ("isnet", "params"):
        shutil.copytree(ROOT / "notebooks" / name, folder / name)
    tiny = "scale: tiny\nepochs: 1\nn_train: 32\nrange_images: 32\nseeds: 2\n"
    (folder / f"params/{REAL}.tiny.yaml").write_text(tiny)
    (folder / "toy").mkdir()
    for name, seeds in (("toy/one", 1), ("two", 2)):
        broken = "Path('../broken').exists()" if name == "toy/one" else "False"
        cells = [
            TOY.strip().replace("seeds: int = 1", f"seeds: int = {seeds}"),
            f"from pathlib import Path\nfrom attrain.study import Study\nstudy = Study({name!r}, globals())",
            f"if {broken}:\n    raise RuntimeError('it was meant to fail')",
            "study.finish([study.seed(s, lambda seed: {'metrics': {'value': seed / 2}}) for s in study.seeds])",
        ]
        cells = [new_code_cell(cell) for cell in cells]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")
        (folder / f"{name}.py").touch()
    return folder


class Command:
    """A command in a session of its own, with what it has printed so far; ended, with all it started, by `close`."""

    def __init__(self, notebooks: Path, results: Path, *arguments):
        self.results = results
        self.environment = {"ATTRAIN_NOTEBOOKS": str(notebooks), "ATTRAIN_RESULTS": str(results)}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-m", *map(str, arguments)]
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, and theirs, ignore it
        self.process = subprocess.Popen(
            command,
            env=os.environ | self.environment,
            start_new_session=True,
            cwd=notebooks,
            preexec_fn=heed,
            **streams,
        )
        self.out, self.err = [], []
        pipes = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self.readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self.readers:
            reader.start()

    def _read(self, pipe, lines):
        with pipe:
            for line in pipe:
                lines.append(line.rstrip("\n"))

    def finish(self, timeout=300) -> int:
        code = self.process.wait(timeout)
        for reader in self.readers:
            reader.join(20)
        return code

    def below(self, part: str) -> list[psutil.Process]:
        """The processes below this one whose command line has that part."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                found += [process] if part in " ".join(process.cmdline()) else []
        return found

    def left(self) -> list[psutil.Process]:
        """All processes of this results folder, wherever they are in the tree."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("ATTRAIN_RESULTS") == self.environment["ATTRAIN_RESULTS"]
                found += [process] if ours and process.pid != os.getpid() else []
        return found

    def wait_for(self, condition, timeout=120):
        deadline = time.time() + timeout
        while not condition():
            assert self.process.poll() is None, f"ended too early: {self.out} {self.err}"
            assert time.time() < deadline, f"waited in vain: {self.out} {self.err}"
            time.sleep(0.2)

    def gone(self, timeout=120) -> bool:
        deadline = time.time() + timeout
        while self.left() and time.time() < deadline:
            time.sleep(0.1)
        return not self.left()

    def close(self):
        for process in [psutil.Process(self.process.pid)] if self.process.poll() is None else []:
            process.kill()
        for process in self.left():
            process.kill()
        self.process.wait(120)


@pytest.fixture
def start(notebooks):
    """Starts commands, and ends them with the test."""
    started = []

    def start(results, *arguments):
        started.append(Command(notebooks, results, *arguments))
        return started[-1]

    yield start
    for command in started:
        command.close()


def tiny(jobs):
    return ("attrain.batch", "--experiments", REAL, "--scale", "tiny", "--jobs", jobs)


@pytest.fixture(scope="module")
def undisturbed(notebooks, tmp_path_factory):
    """What nothing has happened to: a batch of one job at a time, and beside it one run of all seeds."""
    folder = tmp_path_factory.mktemp("undisturbed")
    commands = {
        "batch": Command(notebooks, folder / "batch", *tiny(1)),
        "run": Command(notebooks, folder / "run", "attrain.run", REAL, "--scale", "tiny"),
    }
    try:
        for command in commands.values():
            assert command.finish() == 0 and not command.err, command.err
        yield commands
    finally:
        for command in commands.values():
            command.close()


def records(results) -> dict:
    """All records below a folder, but for what they say of times."""
    return {
        str(file.relative_to(results)): {k: v for k, v in json.loads(file.read_text()).items() if k != "times"}
        for file in results.rglob("record.json")
    }


def files(folder) -> dict:
    """Name -> time and content of what runs have written."""
    found = [file for file in folder.rglob("*") if file.is_file() and ".snakemake" not in file.parts]
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in found if f.name not in NOTES}


# ---------------------------------------------------------------- what a batch makes and prints


def test_a_batch_prints_one_line_a_job_a_table_and_the_page(undisturbed):
    results, out = undisturbed["batch"].results, undisturbed["batch"].out
    first, done, table = out[0], [*sorted(out[1:3]), out[3]], out[4:]
    folder = results / "tiny" / REAL
    assert first == "3 runs to do, time left unknown, as not all of it has run before"
    for line, label, where in zip(done, (" seed 0", " seed 1", ""), ("/seeds/0", "/seeds/1", "")):
        assert re.match(rf"done: {REAL} tiny{label}, \d+ s, {folder}{where}/record.json \(\d of 3 done, ", line)
    left = [line.rpartition(" done, ")[2] for line in out[1:4]]
    assert all(re.fullmatch(r"(under a minute|about \d+ min) left by the runs so far\)", words) for words in left[:2])
    assert left[2] == "nothing left)"
    assert table[0] == "" and table[1].split() == ["experiment", "scale", "seeds", "verdicts", "seconds"]
    assert table[2].split()[:3] == [REAL, "tiny", "2"] and table[3:] == ["", str(results / "report.html")]
    assert REAL in (results / "report.html").read_text()


def test_a_batch_leaves_nothing_but_results(undisturbed):
    names = {Path(name).name for name in files(undisturbed["batch"].results)}
    assert not [name for name in names if name.startswith((".", "failed"))]


def test_one_run_of_all_seeds_gives_the_record_of_a_batch(undisturbed):
    alone, batched = (records(undisturbed[name].results) for name in ("run", "batch"))
    assert len(alone) == 1 and len(batched) == 3
    assert alone.items() <= batched.items()


def test_one_run_prints_one_line_and_leaves_record_notebook_page_and_figures(undisturbed):
    folder, out = undisturbed["run"].results / "tiny" / REAL, undisturbed["run"].out
    assert len(out) == 1 and re.fullmatch(rf"done: {REAL} tiny, \d+ s, {folder}/record.json", out[0])
    record = json.loads((folder / "record.json").read_text())
    assert record["parameters"]["n_train"] == 32 and record["parameters"]["scale"] == "tiny"
    figures = {f"figures/{name}.png" for name in record["figures"]}
    assert figures and set(files(folder)) == {"record.json", "notebook.ipynb", "notebook.html"} | figures
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "\\r" not in json.dumps(notebook) and notebook.metadata.papermill.output_path == f"{folder}/notebook.ipynb"


# ---------------------------------------------------------------- interruptions


def test_a_batch_that_is_killed_again_and_again_goes_on_and_ends_as_if_undisturbed(undisturbed, start, tmp_path):
    """At four moments, by SIGKILL and by Ctrl-C; then two batches at once finish what is left."""
    results = tmp_path / "results"
    kernels = "ipykernel_launcher"

    def snakemake_starts(command):
        command.wait_for(lambda: command.below("-m snakemake"))

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

    moments = [(snakemake_starts, launcher), (first_seed_runs, group), (seed_is_done, ctrl_c)]
    for moment, kill in [*moments, (study_runs, launcher)]:
        command = start(results, *tiny(2))
        moment(command)
        finished = {file.parent for file in results.rglob(run.FINISHED)}
        kept = {folder: files(folder) for folder in finished}
        kill(command.process)
        code = command.finish(120)
        assert code == (130 if kill is ctrl_c else -signal.SIGKILL)
        assert len(command.err) == (kill is ctrl_c) and "Traceback" not in "".join(command.err)
        assert command.gone(), command.left()
        # Another run may have finished between the look and the kill: what counts is that nothing finished is touched.
        assert {folder: files(folder) for folder in finished} == kept
    assert len(finished) == 2, "both seeds had finished before the last kill"
    # Whatever a kill at the worst moment leaves, nothing takes it for a result.
    for name in ("record.json", "notebook.ipynb", "failed.ipynb"):
        (results / "tiny" / REAL / f".{Path(name).stem}-x1y2z3{Path(name).suffix}").write_text("{")

    first = start(results, *tiny(2))
    first.wait_for(lambda: first.below("-m snakemake"))
    second = start(results, *tiny(2))
    assert first.finish() == 0 and not first.err
    done, now = files(results), time.time()
    assert second.finish() == 0 and not second.err
    assert time.time() - now < 30, "seconds, most of them to import Snakemake and torch"
    assert [line.split(":")[0] for line in first.out if ":" in line] == ["done"], "only the study was left to do"
    assert "1 run to do, time left unknown" in first.out[0]
    assert second.out[0] == f"waiting: another batch is writing to {results}"
    assert not any(line.startswith("done:") for line in second.out)
    assert files(results) == done, "nothing was left to do for the second"
    assert {folder: files(folder) for folder in finished} == kept
    assert records(results) == records(undisturbed["batch"].results)


# ---------------------------------------------------------------- failures


def test_a_failing_run_is_named_the_others_run_and_it_is_done_again_next_time(notebooks, start, tmp_path):
    results = tmp_path / "results with spaces"
    broken = results / "smoke/toy/one"
    toys = ("attrain.batch", "--experiments", "toy/one two", "--jobs", "2")
    (notebooks / "broken").touch()
    first = start(results, *toys)
    assert first.finish() == 1
    assert first.err == [
        f"error: toy/one smoke: RuntimeError: it was meant to fail (see {broken}/failed.ipynb)",
        "error: some runs failed, see the lines that begin with 'error' above",
    ]
    done = sorted(line.split(",")[0] for line in first.out if line.startswith("done:"))
    assert done == ["done: two smoke", "done: two smoke seed 0", "done: two smoke seed 1"]
    assert first.out[-3].split()[:2] == ["two", "smoke"] and first.out[-1] == f"{results}/report.html"
    assert not (broken / "record.json").exists() and (broken / "failed.ipynb").exists()
    kept = files(results / "smoke/two")

    (notebooks / "broken").unlink()
    again = start(results, *toys)
    assert again.finish() == 0 and not again.err
    assert [line.split(",")[0] for line in again.out if line.startswith("done:")] == ["done: toy/one smoke"]
    assert not (broken / "failed.ipynb").exists() and (broken / "notebook.ipynb").exists()
    assert files(results / "smoke/two") == kept


# ---------------------------------------------------------------- what is left


def finished(folder, experiment, seeds, seconds=0.0):
    """A record of an earlier run, with each seed's seconds and those of the notebook beside them."""
    record = dict.fromkeys(KEYS) | {"schema": study.SCHEMA, "seeds": [*range(len(seeds))], "claims": []}
    times = {"seed_seconds": seeds, "notebook_seconds": sum(seeds) + seconds}
    study.write_json(folder / experiment / "record.json", record | {"times": times})


@pytest.fixture
def progress(tmp_path, monkeypatch):
    monkeypatch.setattr("attrain.records.RECORDS", tmp_path / "kept")
    return batch.Progress(tmp_path / "results", cores=2)


JOBS = [["a/b", "laptop", "0", True, 1, 0], ["a/b", "laptop", "1", True, 1, 0], ["a/b", "laptop", "", False, 1, 0]]


def test_what_is_left_is_estimated_from_kept_records_and_the_pace_of_this_machine(progress, tmp_path, capsys):
    finished(tmp_path / "kept/laptop", "a/b", [600.0, 1200.0], 120.0)
    progress.plan(JOBS)
    assert (
        capsys.readouterr().out == "3 runs to do, about 17 min left by earlier runs\n"
    )  # (960 + 960 + 120) s / 2 cores
    line = progress.done("done: a/b laptop seed 1, 1920 s, /record.json")  # twice what was expected
    assert line.endswith("/record.json (1 of 3 done, about 32 min left by earlier runs)")  # not less than the longest
    line = progress.done("done: a/b laptop seed 0, 1920 s, /record.json")
    assert line.endswith("(2 of 3 done, about 4 min left by earlier runs)")
    assert progress.done("done: a/b laptop, 200 s, /record.json").endswith("(3 of 3 done, nothing left)")


def test_without_an_earlier_run_the_runs_so_far_tell_and_before_them_nothing(progress, capsys):
    progress.plan(JOBS)
    assert capsys.readouterr().out == "3 runs to do, time left unknown, as not all of it has run before\n"
    line = progress.done("done: a/b laptop seed 0, 300 s, /record.json")
    assert line.endswith("(1 of 3 done, about 5 min left by the runs so far)")


def test_the_run_on_this_machine_counts_before_the_kept_one_and_that_of_a_seed_before_that_of_its_study(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("attrain.records.RECORDS", tmp_path / "kept")
    expected = partial(batch.earlier_seconds, tmp_path / "here", "a/b", "laptop")
    assert expected("1", True) is None
    places = {"kept/laptop/a/b": [7.0, 9.0], "here/laptop/a/b": [70.0, 90.0], "here/laptop/a/b/seeds/1": [500.0]}
    for (place, seeds), seconds in zip(places.items(), (8.0, 80.0, 500.0)):
        finished(tmp_path, place, seeds)
        assert expected("1", True) == seconds
    assert expected("0", True) == 80.0 and expected("", True) == 80.0 and expected("", False) == 0.0
    (tmp_path / "here/laptop/a/b/seeds/1/record.json").write_text("{")
    assert expected("1", True) == 80.0, "a broken record is no reason not to run"


def test_jobs_that_need_a_gpu_take_turns(progress, tmp_path, capsys):
    finished(tmp_path / "kept/paper", "a/b", [3600.0, 3600.0])
    progress.plan([["a/b", "paper", str(seed), True, 1, 1] for seed in range(2)])
    assert capsys.readouterr().out == "2 runs to do, about 2.0 h left by earlier runs\n"


def test_a_failed_seed_is_left_out_and_so_is_its_study(progress, capsys):
    progress.plan(JOBS)
    progress.failed("error: a/b laptop seed 1: RuntimeError: it was meant to fail")
    line = progress.done("done: a/b laptop seed 0, 3 s, /record.json")
    assert line.endswith("(1 of 1 done, nothing left)")


def test_a_snakemake_that_fails_by_itself_shows_why(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").write_text("raise ValueError('this file is broken')\n")
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    with batch.sole_batch(tmp_path) as lock:
        problem = batch.snakemake(tmp_path, lock, "1", {})
    assert problem.startswith("Snakemake failed (exit code 1):\n") and "this file is broken" in problem


@pytest.fixture
def call(notebooks, tmp_path, monkeypatch, capfd):
    """Runs the command line in this process, for what it refuses before anything is started: (exit code, stderr)."""
    monkeypatch.setenv("ATTRAIN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(run, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(study, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(batch, "snakemake", lambda *_: pytest.fail("the batch was started"))

    def call(*arguments):
        try:
            code = batch.main(list(arguments))
        except SystemExit as error:
            code = error.code
        captured = capfd.readouterr()
        assert not captured.out
        return code, captured.err.splitlines()

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--experiments", "toy/none"], "unknown experiment 'toy/none'; there are isnet/"),
        (["--scale", "smoke huge"], "has no scale 'huge'; it has smoke, "),
        (["--device", "gpu"], "device 'gpu' cannot be used here"),
        (["--seeds", "0"], "parameter seeds must be at least 1, got 0"),
        (["--seeds", "two"], "argument --seeds: invalid int value: 'two'"),
        (["--jobs", "0"], "argument --jobs: "),
        (["--jobs", "many"], "argument --jobs: "),
        (["--sclae", "laptop"], "unrecognized arguments: --sclae"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_started(call, arguments, words):
    code, err = call(*arguments)
    assert code in (1, 2) and len(err) == 1 and err[0].startswith("error: ") and words in err[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_started(call):
    code, err = call("--device", "cuda")
    assert code == 1 and len(err) == 1 and err[0].startswith("error: device 'cuda' cannot be used here")


@pytest.mark.parametrize("folder", ["/proc/attrain", f"{__file__}/below"])
def test_a_results_folder_that_cannot_be_written_to_is_refused(call, monkeypatch, folder):
    monkeypatch.setenv("ATTRAIN_RESULTS", folder)
    code, err = call()
    assert (
        code == 1 and len(err) == 1 and err[0].startswith("error: ") and "cannot write to the output folder" in err[0]
    )


def test_no_notebooks_at_all_are_an_error(call, monkeypatch, tmp_path):
    for module in (run, study, batch):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    code, err = call()
    assert code == 1 and err == [f"error: there are no experiments in {tmp_path}"]


# ---------------------------------------------------------------- on a cluster


def plan(start, results, *options, config=()):
    """Start a dry run; what it says is read by `jobs`."""
    results.mkdir(exist_ok=True)
    arguments = ("snakemake", "--snakefile", "Snakefile", "--directory", results, "--dry-run", *options)
    return start(results, *arguments, "--config", f"experiments={REAL}", *config)


def jobs(command):
    """What Snakemake would run: output -> resources."""
    assert command.finish(120) == 0, command.err
    text = "\n".join(command.out + command.err)
    found = re.findall(r"^rule (?:seed|study):\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    found = [(re.search("output: (.*)", job)[1], re.search("resources: (.*)", job)[1]) for job in found]
    return {output.removeprefix(f"{command.results}/"): resources for output, resources in found}


def marks(scale, *seeds):
    return {f"{scale}/{REAL}/{run.FINISHED}"} | {f"{scale}/{REAL}/seeds/{seed}/{run.FINISHED}" for seed in seeds}


def test_only_what_does_not_go_with_its_record_is_run_again(undisturbed, start, tmp_path):
    copies = [shutil.copytree(undisturbed["batch"].results, tmp_path / name) for name in ("a", "b")]
    (copies[1] / "tiny" / REAL / "record.json").unlink()
    same = plan(start, copies[0], "--cores", 1, config=["scale=tiny"])
    other = plan(start, copies[1], "--cores", 1, config=["scale=tiny", "seeds=3"])
    assert jobs(same) == {}
    assert set(jobs(other)) == marks("tiny", 2) and not any("gpu" in resources for resources in jobs(other).values())


def laptop_marks():
    return marks("laptop", *range(yaml.safe_load((ROOT / f"notebooks/params/{REAL}.laptop.yaml").read_text())["seeds"]))


def test_dry_run_on_slurm_has_a_job_a_seed_and_asks_for_a_gpu(start, tmp_path):
    found = jobs(
        plan(start, tmp_path / "a", "--executor", "slurm", "--jobs", 20, config=["scale=laptop", "device=cuda"])
    )
    assert set(found) == laptop_marks() and all("gpu=1" in resources for resources in found.values())


@pytest.mark.skipif(not find_spec("snakemake_storage_plugin_fs"), reason="needs snakemake-storage-plugin-fs")
def test_dry_run_on_kubernetes_has_a_job_a_seed(start, tmp_path):
    options = ("--executor", "kubernetes", "--jobs", 20)
    options += ("--default-storage-provider", "fs", "--default-storage-prefix", tmp_path)
    found = jobs(plan(start, tmp_path / "a", *options, config=["scale=laptop", f"results={tmp_path / 'a'}"]))
    assert set(found) == laptop_marks() and not any("gpu" in resources for resources in found.values())
