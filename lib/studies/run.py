"""Run one notebook in batch.

    python -m studies.run isnet/mnist_background_bias --scale laptop -p seeds 3

executes the notebook by papermill with the parameters of `notebooks/params/<experiment>.<scale>.yaml` and
those given, after checking their names and types, and leaves `notebook.ipynb`, `notebook.html`,
`record.json` and `figures/` in the output folder. A run that fails says why in one line, exits with 1,
leaves `failed.ipynb` and touches nothing that an earlier run has left there.
"""

import argparse
import ast
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

from studies.files import NOTEBOOKS, atomic_write, check_writable, results_root, scratch_folder
from studies.parameters import NOT_RECORDED, check_parameters

SCALES = ("smoke", "laptop", "paper")
INDEX = "index"  # the table of contents, which shows what the others found
PAGES = ("benchmarks", INDEX)  # notebooks that show what is on record, and no experiments themselves
# glibc hands the memory of large tensors back at once, and the system gives it out again page by page: about 5 % of a
# training on a CPU. Other libraries of C do not know these; older glibcs refuse a larger second one.
MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
FINISHED = ".finished"  # made at the end of a run that succeeds, removed at the start of the next


def experiments() -> list[str]:
    """All experiments: the notebooks that are paired with a script, "<paper>/<name>", or "<name>" of no one paper.

    `PAGES`, as the table of contents, are none.
    """
    found = [path for depth in ("*.ipynb", "*/*.ipynb") for path in NOTEBOOKS.glob(depth)]
    pairs = [path.relative_to(NOTEBOOKS).with_suffix("") for path in found if path.with_suffix(".py").is_file()]
    return sorted(path.as_posix() for path in pairs if not path.parts[0].startswith(".") and str(path) not in PAGES)


def declared(experiment: str) -> dict[str, dict]:
    """The notebook's parameters: name -> {"type", "default", "help"}, read without running it."""
    if experiment not in experiments():
        known = ", ".join(experiments()) or f"none in {NOTEBOOKS}"
        raise ValueError(f"unknown experiment {experiment!r}; there are {known}")
    cells = json.loads((NOTEBOOKS / f"{experiment}.ipynb").read_text("utf-8"))["cells"]
    tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    found = {}
    for node in ast.parse(tagged[0]).body if tagged else []:
        if isinstance(node, ast.AnnAssign):
            rest = tagged[0].splitlines()[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
            kind, default = ast.unparse(node.annotation), ast.literal_eval(node.value)
            found[node.target.id] = {"type": kind, "default": default, "help": rest.partition("#")[2].strip()}
    return found


def settings(experiment: str, scale: str, given: dict | None = None) -> dict:
    """The parameters to inject for a scale: those of its file, then those given; checked.

    Raises ValueError for an unknown experiment, scale or parameter, and for a value of the wrong type.
    """
    types = {name: p["type"] for name, p in declared(experiment).items()}
    files = {path.name.split(".")[1]: path for path in (NOTEBOOKS / "params").glob(f"{experiment}.*.yaml")}
    if scale != "smoke" and scale not in files:
        known = ", ".join(sorted({"smoke", *files}, key=lambda s: (SCALES.index(s) if s in SCALES else 3, s)))
        raise ValueError(f"{experiment} has no scale {scale!r}; it has {known}")
    values = {"scale": scale}
    if scale in files:
        try:
            values |= yaml.safe_load(files[scale].read_text("utf-8")) or {}
        except (yaml.YAMLError, TypeError):
            raise ValueError(f"{files[scale]} is no YAML of names and values") from None
        if values["scale"] != scale:
            raise ValueError(f"{files[scale]} must say scale: {scale}")
    values |= given or {}
    check_parameters(values, types)
    for name in ("seeds", "threads"):
        if values.get(name, 1) < 1:
            raise ValueError(f"parameter {name} must be at least 1, got {values[name]}")
    return values


def check_device(name: str) -> None:
    """Raise ValueError if the device cannot be used. A CPU can: for that torch, seconds to import, is not asked."""
    if name != "cpu":
        from studies import study

        study.check_device(name)


def parse_values(pairs: list[tuple[str, str]], experiment: str) -> dict:
    """Command-line values as the notebook's types; an unknown name passes through, to be refused later."""
    kinds = {name: p["type"] for name, p in declared(experiment).items()}
    convert = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}
    values = {}
    for name, text in pairs:
        if name in ("scale", "out"):
            raise ValueError(f"parameter {name} is given by --{name}")
        kind = kinds.get(name, "str")
        try:
            values[name] = convert.get(kind, str)(text.lower() if kind == "bool" else text)
        except (ValueError, KeyError):
            raise ValueError(f"parameter {name} must be {kind}, got {text!r}") from None
    return values


def run(experiment: str, scale: str, given: dict, out: Path) -> Path:
    """Execute the notebook into the folder `out`; returns the record's path.

    Raises RuntimeError with one line if the notebook raises or its kernel dies.
    """
    import nbformat  # here and below: these imports are slow, and a batch needs of this module what is above
    from nbconvert import HTMLExporter

    values = settings(experiment, scale, given)
    check_device(values.get("device", "cpu"))
    check_writable(out)
    (out / FINISHED).unlink(missing_ok=True)
    with scratch_folder() as scratch:
        running = Path(scratch, "notebook.ipynb")
        try:
            notebook = _execute(experiment, running, {**values, "out": str(out)})
        except RuntimeError as error:
            raise RuntimeError(str(error) + _keep_failed(running, out)) from None
        notebook.metadata.papermill["output_path"] = str(out / "notebook.ipynb")
    _write(out / "notebook.html", HTMLExporter().from_notebook_node(notebook)[0])
    _write(out / "notebook.ipynb", nbformat.writes(notebook))
    (out / "failed.ipynb").unlink(missing_ok=True)
    (out / FINISHED).touch()
    return out / "record.json"


def is_finished(out: Path, parameters: dict) -> bool:
    """Has a run with these parameters finished in the folder `out`?"""
    try:
        record = json.loads((out / "record.json").read_text("utf-8"))
        recorded = record["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    wanted = {name: value for name, value in parameters.items() if name not in NOT_RECORDED}
    return (out / FINISHED).exists() and recorded == wanted


def keep_outputs(experiment: str) -> None:
    """Run a notebook as it is, at smoke scale, and keep the outputs in it, for readers and for nbval."""
    import nbformat

    if experiment not in PAGES:
        declared(experiment)
    with scratch_folder() as scratch:
        os.environ["ATTRAIN_RESULTS"] = scratch
        notebook = _execute(experiment, Path(scratch, "notebook.ipynb"), {})
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    _write(NOTEBOOKS / f"{experiment}.ipynb", nbformat.writes(notebook).replace(scratch, "results") + "\n")


def _execute(experiment: str, running: Path, parameters: dict):
    """Run by papermill into the file `running`, saved after each cell; returns the notebook."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    for name, value in MEMORY.items():
        os.environ.setdefault(name, value)
    # Kernels over IPC, sockets in a folder of their own: free of TCP's port races between parallel runs.
    config = Config({"KernelManager": {"transport": "ipc", "ip": str(running.with_name("kernel"))}})
    try:
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{experiment}.ipynb"),
            str(running),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str((NOTEBOOKS / experiment).parent),
            config=config,
            start_timeout=300,  # seconds; both are generous, for machines that are busy
            iopub_timeout=60,
            shutdown_kernel="immediate",  # all cells have run, or nobody waits for them any more
        )
    except DeadKernelError:
        raise RuntimeError("the kernel died; it may have run out of memory") from None
    except PapermillExecutionError as error:
        raise RuntimeError(f"{error.ename}: {_first_line(error.evalue)}") from None
    notebook = nbformat.read(running, as_version=4)
    collapse_progress(notebook)
    return notebook


def collapse_progress(notebook) -> None:
    """Keep of each progress bar what a terminal would show at the end, as JupyterLab does."""
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", []):
            if outputs and output.output_type == "stream" and outputs[-1].get("name") == output.name:
                outputs[-1].text += output.text  # each refresh of a bar arrives as an output of its own
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                lines = output.text.split("\n")
                output.text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)
        if outputs:
            cell.outputs = outputs


def _first_line(text) -> str:
    """The first line of a message, without colours."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(text)).strip().splitlines()
    return lines[0].strip() if lines else ""


def _write(path: Path, text: str) -> None:
    try:
        with atomic_write(path) as file:
            file.write_text(text, "utf-8")
    except OSError as error:  # that of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None


def _keep_failed(running: Path, out: Path) -> str:
    """Leave what has run of a notebook that failed; returns where it is, for the end of the message."""
    try:
        _write(out / "failed.ipynb", running.read_text("utf-8"))
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


def _say(line: str, stream) -> None:
    """Print in one write, so that the jobs of a batch, which share a pipe, do not write into each other's lines."""
    stream.write(f"{line}\n")
    stream.flush()


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as all errors here do."""

    def error(self, message):
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m studies.run", description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="<paper>/<name>, or <name> alone; with --keep-outputs also all")
    parser.add_argument("--scale", default="smoke", help="smoke (default), laptop, paper, or one of your own")
    parser.add_argument("--out", type=Path, help="output folder (default: results/<scale>/<experiment>)")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter"
    )
    parser.add_argument("--keep-outputs", action="store_true", help="run as it is and keep the outputs in the notebook")
    parser.add_argument("--end-with", type=int, metavar="PID", help="end when this process, the parent, has ended")
    options = parser.parse_args(arguments)
    if options.end_with:
        _end_with(options.end_with)
    started = time.time()
    label = f"{options.experiment} {options.scale}"
    try:
        if options.keep_outputs:
            pages = [page for page in PAGES if (NOTEBOOKS / f"{page}.ipynb").is_file()]  # the last: they show results
            for experiment in [*experiments(), *pages] if options.experiment == "all" else [options.experiment]:
                keep_outputs(experiment)
            return 0
        given = parse_values(options.parameter, options.experiment)
        label += f" seed {given['seed']}" if "seed" in given else ""
        out = (options.out or results_root() / options.scale / options.experiment).absolute()
        record = run(options.experiment, options.scale, given, out)
    except (ValueError, OSError, RuntimeError) as error:
        _say(f"error: {label}: {_first_line(error)}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {label}; the seeds that have finished are kept", file=sys.stderr)
        return 130
    _say(f"done: {label}, {time.time() - started:.0f} s, {record}", sys.stdout)
    return 0


if __name__ == "__main__":
    # jsonschema, which nbformat brings, builds a parser of international web addresses at import if it finds this
    # package: for more than a second, and a notebook has no such address to check.
    sys.modules["rfc3987_syntax"] = None
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, _interrupt)
    sys.exit(main())
