"""Run one notebook, with checked parameters.

    python -m studies.run isnet/mnist_background_bias --scale laptop -p seeds 3

executes the notebook by papermill with the parameters of `notebooks/params/<experiment>.<scale>.yaml` and
those given, names and types checked before anything runs, and leaves `notebook.ipynb`, `notebook.html`,
`record.json` and `figures/` in the output folder. A run that fails says why in one line, exits with 1,
leaves `failed.ipynb` and touches nothing that an earlier run has left there.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import yaml

from studies.digests import code, code_digest, figure_is_whole, record_digest
from studies.files import NOTE, NOTEBOOKS, check_writable, results_root, scratch_folder, write_text
from studies.parameters import (
    NOT_RECORDED,
    PAGES,
    check_data,
    code_cells,
    data_sets,
    defaults,
    experiments,
    parse_values,
    settings,
)

# glibc hands the memory of large tensors back at once, and the system gives it out again page by page: about 5 % of a
# training on a CPU. Other libraries of C do not know these; older glibcs refuse a larger second one.
MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
FINISHED = ".finished"  # made at the end of a run that succeeds, with the digest of its code; removed at the next


def check_device(name: str) -> None:
    """Raise ValueError if the device cannot be used. A CPU can: for that torch, seconds to import, is not asked."""
    if name != "cpu":
        from studies import study

        study.check_device(name)


def run(experiment: str, scale: str, given: dict, out: Path, checked: bool = False) -> Path:
    """Execute the notebook into the folder `out`; returns the record's path.

    Paths among the parameters are looked for from the present folder, where it runs.

    Raises RuntimeError with one line if the notebook raises, its kernel dies, or data that it needs are missing; that
    these are there is not looked at again if they are `checked`, as by a batch.
    """
    import nbformat  # here and below: these imports are slow, and a batch needs of this module what is above
    from nbconvert import HTMLExporter

    values = settings(experiment, scale, given)
    check_device(values.get("device", "cpu"))
    check_writable(out)
    if not checked:
        check_data(data_sets(defaults(experiment) | values))
    done = digest(experiment)
    (out / FINISHED).unlink(missing_ok=True)
    with scratch_folder() as scratch:
        running = Path(scratch, "notebook.ipynb")
        try:
            notebook = _execute(experiment, running, {**values, "out": str(out)}, Path.cwd())
        except RuntimeError as error:
            raise RuntimeError(str(error) + _keep_failed(running, out)) from None
        notebook.metadata.papermill["output_path"] = str(out / "notebook.ipynb")
    for note in notes(notebook):
        print(f"{NOTE}{experiment}: {note}", file=sys.stderr)
    write_text(out / "notebook.html", HTMLExporter().from_notebook_node(notebook)[0])
    write_text(out / "notebook.ipynb", nbformat.writes(notebook))
    (out / "failed.ipynb").unlink(missing_ok=True)
    write_text(out / FINISHED, done)  # whole or not at all: other jobs of a batch look at it meanwhile
    return out / "record.json"


def digest(experiment: str) -> str:
    """sha256 of what a run's record and figures depend on beside its parameters: all code, the notebook, the claims.

    By what these say, without comments, and not by the times of files.
    """
    claims = yaml.safe_load((NOTEBOOKS / "claims.yaml").read_text("utf-8"))
    state = [code_digest(), [code(cell) for cell in code_cells(experiment)], claims]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def is_finished(experiment: str, out: Path, parameters: dict) -> bool:
    """Has a run of this notebook, as it is now, with these parameters finished in the folder `out`, and is it whole?"""
    try:
        mark = (out / FINISHED).read_text()
        record = json.loads((out / "record.json").read_text("utf-8"))
        whole = record["digest"] == record_digest(record)
        whole = whole and all(figure_is_whole(record, out, name) for name in record["figures"])
        recorded = record["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    wanted = {name: value for name, value in parameters.items() if name not in NOT_RECORDED}
    return whole and recorded == wanted and mark == digest(experiment)


def keep_outputs(experiment: str) -> None:
    """Run a notebook as it is, at smoke scale, and keep the outputs in it, for readers and for nbval."""
    import nbformat

    if experiment not in PAGES:
        code_cells(experiment)  # raises if there is none
    with scratch_folder() as scratch:
        os.environ["ATTRAIN_RESULTS"] = scratch
        notebook = _execute(experiment, Path(scratch, "notebook.ipynb"), {}, (NOTEBOOKS / experiment).parent)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
        if not part.metadata.get("tags", True):  # papermill's, of a cell without
            del part.metadata["tags"]
    text, there = nbformat.writes(notebook), re.escape(os.path.relpath(scratch, (NOTEBOOKS / experiment).parent))
    text = re.sub(rf"\[([^][]*)\]\({there}[^)]*\)", r"\1", text)  # a link to what is not kept
    text = text.replace(scratch, "results")
    write_text(NOTEBOOKS / f"{experiment}.ipynb", text + "\n")


def _execute(experiment: str, running: Path, parameters: dict, folder: Path | str):
    """Run by papermill, in a folder, into the file `running`, saved after each cell; returns the notebook."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    for name, value in MEMORY.items():
        os.environ.setdefault(name, value)
    # Whatever the kernel puts aside goes with the scratch folder, even if all are killed.
    aside, before = dict.fromkeys(("TMPDIR", "JUPYTER_RUNTIME_DIR"), str(running.parent)), dict(os.environ)
    os.environ.update(aside)
    # Kernels over IPC, sockets in a folder of their own: free of TCP's port races between parallel runs.
    config = Config({"KernelManager": {"transport": "ipc", "ip": str(running.with_name("kernel"))}})
    try:
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{experiment}.ipynb"), str(running), parameters, cwd=str(folder),
            kernel_name="python3", progress_bar=False, config=config,
            extra_arguments=["--log-level=CRITICAL"],  # or an idle kernel logs, past the notebook, that it was ended
            start_timeout=300, iopub_timeout=60,  # seconds, generous, for machines that are busy
            shutdown_kernel="immediate",  # all cells have run, or nobody waits for them any more
        )  # fmt: skip
    except DeadKernelError:
        raise RuntimeError("the kernel died; it may have run out of memory") from None
    except PapermillExecutionError as error:
        raise RuntimeError(f"{error.ename}: {_first_line(error.evalue)}") from None
    finally:
        for name in aside:
            del os.environ[name]
        os.environ.update({name: before[name] for name in aside if name in before})
    notebook = nbformat.read(running, as_version=4)
    collapse_progress(notebook)
    return notebook


def notes(notebook) -> list[str]:
    """What the notebook's code had to say to who does not read its outputs."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    return re.findall(f"{NOTE}(.+)", "\n".join(said))


def collapse_progress(notebook) -> None:
    """Keep of each progress bar what a terminal would show at the end, as JupyterLab does."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    CoalesceStreamsPreprocessor().preprocess(notebook, {})
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = output.text.replace("\r", "")  # before an end of line


def _first_line(text) -> str:
    """The first line of a message, without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(text)).strip().splitlines()
    return lines[0].strip() if lines else ""


def _keep_failed(running: Path, out: Path) -> str:
    """Leave what has run of a notebook that failed; returns where it is, for the end of the message."""
    try:
        write_text(out / "failed.ipynb", running.read_text("utf-8"))
    except OSError as error:  # most likely what the run failed of
        return f" (nor could failed.ipynb be written: {error})"
    return f" (see {out / 'failed.ipynb'})"


def _end_with(parent: int) -> None:
    """End this run, and with it its kernel, when the process that started it is gone."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _interrupt(number, frame):
    """End by way of the clean-up, so that the kernel ends too, and asyncio does not tell that it did."""
    logging.disable()
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(143)


def _pairs(arguments: list[str]) -> list[str]:
    """The arguments, with NAME VALUE for each -p NAME=VALUE."""
    found: list[str] = []
    for argument in arguments:
        after_p = found[-1:] in (["-p"], ["--parameter"])
        found += argument.split("=", 1) if after_p and re.match(r"\w+=", argument) else [argument]
    return found


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as all errors here do."""

    def error(self, message):
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m studies.run", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("experiment", help="<paper>/<name>, or <name> alone; with --keep-outputs also all")
    parser.add_argument("--scale", default="smoke", help="smoke (default), laptop, paper, or one of your own")
    parser.add_argument("--out", type=Path, help="output folder (default: results/<scale>/<experiment>)")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter; also NAME=VALUE",
    )  # fmt: skip
    parser.add_argument("--keep-outputs", action="store_true", help="run as it is and keep the outputs in the notebook")
    parser.add_argument("--end-with", type=int, metavar="PID", help="end when this process, the parent, has ended")
    options = parser.parse_args(_pairs(sys.argv[1:] if arguments is None else arguments))
    if options.end_with:
        _end_with(options.end_with)
    started = time.time()
    label = f"{options.experiment} {options.scale}"
    try:
        if options.keep_outputs:
            pages = [page for page in PAGES if (NOTEBOOKS / f"{page}.ipynb").is_file()]
            every = [*experiments(), *pages]  # pages last: they show results
            for experiment in every if options.experiment == "all" else [options.experiment]:
                keep_outputs(experiment)
            return 0
        given = parse_values(options.parameter, options.experiment)
        label += f" seed {given['seed']}" if "seed" in given else ""
        out = (options.out or results_root() / options.scale / options.experiment).absolute()
        record = run(options.experiment, options.scale, given, out, checked=options.end_with is not None)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {label}: {_first_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if not options.end_with:  # a batch says so itself
            print(f"interrupted: {label}; the seeds that have finished are kept", file=sys.stderr)
        return 130
    print(f"done: {label}, {time.time() - started:.0f} s, {record}", flush=True)
    return 0


if __name__ == "__main__":
    # jsonschema, which nbformat brings, builds a parser of international web addresses at import if it finds this
    # package: for more than a second, and a notebook has no such address to check.
    sys.modules["rfc3987_syntax"] = None
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, _interrupt)
    sys.exit(main())
