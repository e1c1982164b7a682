"""Batches as users start them, for the tests: a folder of notebooks, commands, and what they leave."""

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
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from studies import run
from studies.records import load_record
from studies.study import ROOT

STUDY = "toy/steps"  # of two seeds at the scale tiny, of three at the scale laptop
NOTES = (".batch.lock", "report.html", run.FINISHED)  # made anew by each batch
NOT_THE_SAME = ("times", "digest", "folder")  # in two runs of one study
TOY = """
scale: str = "smoke"  # the settings
rate: float = 0.5  # a number
seed: int = 0  # first seed
seeds: int = 1  # number of seeds
device: str = "cpu"  # where
threads: int = 1  # CPU threads
out: str = ""  # output folder
"""
DRAWN = """
from matplotlib.figure import Figure
figure = Figure((2, 1))
figure.text(0.5, 0.5, str(seeds))
study.figure(figure, "seeds")"""


def write_notebook(folder: Path, name: str, cells: list[str]) -> None:
    """A paired notebook of code cells, the first its parameters."""
    book = new_notebook(cells=[new_code_cell(cell.strip()) for cell in cells])
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    (folder / name).parent.mkdir(exist_ok=True)
    nbformat.write(book, folder / f"{name}.ipynb")
    (folder / f"{name}.py").touch()


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    return write_notebooks(tmp_path_factory.mktemp("note books"))


BREAKS = """from studies.files import NOTEBOOKS
if (NOTEBOOKS / "broken").exists():
    raise RuntimeError("it was meant to fail")"""


def write_notebooks(folder: Path) -> Path:
    """Three toys: a study with a claim and a figure, one that can fail, and one of two seeds that is of no paper."""
    for name in ("Snakefile", "claims.yaml"):
        shutil.copy(ROOT / "notebooks" / name, folder)
    (folder / "params/toy").mkdir(parents=True)
    ends = {
        STUDY: ["study.claim('isnet-1', [r['metrics']['value'] for r in results])", DRAWN],
        "toy/one": [BREAKS],
        "two": [],
    }
    for name, end in ends.items():
        cells = [
            TOY.replace("seeds: int = 1", "seeds: int = 2") if name == "two" else TOY,
            f"from pathlib import Path\nfrom studies.study import Study\nstudy = Study({name!r}, globals())",
            "results = [study.seed(s, lambda seed: {'metrics': {'value': rate * seed}}) for s in study.seeds]",
        ]
        write_notebook(folder, name, [*cells, *end, "study.finish(results)"])
        (folder / f"params/{name}.tiny.yaml").write_text("scale: tiny\n")
    for scale, settings in (("tiny", "seeds: 2"), ("laptop", "seeds: 3"), ("greedy", "threads: 100000")):
        (folder / f"params/{STUDY}.{scale}.yaml").write_text(f"scale: {scale}\n{settings}\n")
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

    def start(results, *arguments, notebooks=notebooks):
        started.append(Command(notebooks, results, *arguments))
        return started[-1]

    yield start
    for command in started:
        command.close()


def records(results) -> dict:
    """All records below a folder, each as it was written, but for what they say of times."""
    return {
        str(file.relative_to(results)): {k: v for k, v in load_record(file).items() if k not in NOT_THE_SAME}
        for file in results.rglob("record.json")
    }


def files(folder) -> dict:
    """Name -> time and content of what runs have written."""
    found = [file for file in folder.rglob("*") if file.is_file() and ".snakemake" not in file.parts]
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.read_bytes()) for f in found if f.name not in NOTES}


def plan(start, results, *options, config=(), **where):
    """Start a dry run; what it says is read by `jobs`."""
    results.mkdir(exist_ok=True)
    arguments = ("snakemake", "--snakefile", "Snakefile", "--directory", results, "--dry-run", *options)
    return start(results, *arguments, "--config", f"experiments={STUDY}", *config, **where)


def jobs(command):
    """What Snakemake would run: output -> resources."""
    assert command.finish(120) == 0, command.err
    text = "\n".join(command.out + command.err)
    found = re.findall(r"^rule (?:seed|study):\n(.*?)^\S", text, re.MULTILINE | re.DOTALL)
    found = [(re.search("output: (.*)", job)[1], re.search("resources: (.*)", job)[1]) for job in found]
    return {output.removeprefix(f"{command.results}/"): resources for output, resources in found}


def marks(scale, *seeds):
    return {f"{scale}/{STUDY}/{run.FINISHED}"} | {f"{scale}/{STUDY}/seeds/{seed}/{run.FINISHED}" for seed in seeds}
