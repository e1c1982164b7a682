"""Batches as users start them, for the tests: a folder of notebooks, commands, and what they leave."""

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
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from studies import run
from studies.study import ROOT

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
    """The real study with a tiny scale of two seeds; with that scale too, a toy that can fail and one of no paper."""
    folder = tmp_path_factory.mktemp("note books")
    for name in ("Snakefile", "claims.yaml"):
        shutil.copy(ROOT / "notebooks" / name, folder)
    for name in ("isnet", "params"):
        shutil.copytree(ROOT / "notebooks" / name, folder / name)
    tiny = "scale: tiny\nepochs: 1\nn_train: 32\nrange_images: 32\nseeds: 2\n"
    (folder / f"params/{REAL}.tiny.yaml").write_text(tiny)
    for name in ("toy", "params/toy"):
        (folder / name).mkdir()
    for name, seeds in (("toy/one", 1), ("two", 2)):
        broken = "Path('../broken').exists()" if name == "toy/one" else "False"
        cells = [
            TOY.strip().replace("seeds: int = 1", f"seeds: int = {seeds}"),
            f"from pathlib import Path\nfrom studies.study import Study\nstudy = Study({name!r}, globals())",
            f"if {broken}:\n    raise RuntimeError('it was meant to fail')",
            "study.finish([study.seed(s, lambda seed: {'metrics': {'value': seed / 2}}) for s in study.seeds])",
        ]
        cells = [new_code_cell(cell) for cell in cells]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / f"{name}.ipynb")
        (folder / f"{name}.py").touch()
        (folder / f"params/{name}.tiny.yaml").write_text("scale: tiny\n")
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
