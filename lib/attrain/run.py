"""Run one notebook in batch.

    python -m attrain.run isnet/mnist_background_bias --scale laptop -p seeds 3

executes the notebook by papermill with the parameters of `notebooks/params/<experiment>.<scale>.yaml` and
those given, after checking their names and types, and leaves `notebook.ipynb`, `notebook.html`,
`record.json` and `figures/` in the output folder. A run that fails says why in one line, exits with 1,
leaves `failed.ipynb` and touches nothing that an earlier run has left there.
"""

import argparse
import ast
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from attrain.study import NOTEBOOKS, atomic_write, check_device, check_parameters, check_writable, results_root

SCALES = ("smoke", "laptop", "paper")


def experiments() -> list[str]:
    """All experiments, as "<paper>/<name>": the notebooks that are paired with a script, but the index."""
    found = [path.relative_to(NOTEBOOKS).with_suffix("") for path in NOTEBOOKS.rglob("*.py")]
    return sorted(str(path) for path in found if path.with_suffix(".ipynb").name != "index.ipynb")


def declared(experiment: str) -> dict[str, dict]:
    """The notebook's parameters: name -> {"type", "default", "help"}, read without running it."""
    if experiment not in experiments():
        raise ValueError(f"unknown experiment {experiment!r}; there are {', '.join(experiments())}")
    found = papermill.inspect_notebook(str(NOTEBOOKS / f"{experiment}.ipynb"))
    return {
        name: {"type": p["inferred_type_name"], "default": ast.literal_eval(p["default"]), "help": p["help"]}
        for name, p in found.items()
    }


def settings(experiment: str, scale: str, given: dict | None = None) -> dict:
    """The parameters to inject for a scale: those of its file, then those given; checked.

    Raises ValueError for an unknown experiment, scale or parameter, and for a value of the wrong type.
    """
    types = {name: p["type"] for name, p in declared(experiment).items()}
    file = NOTEBOOKS / "params" / f"{experiment}.{scale}.yaml"
    if scale != "smoke" and not file.is_file():
        known = [s for s in SCALES if s == "smoke" or (NOTEBOOKS / "params" / f"{experiment}.{s}.yaml").is_file()]
        raise ValueError(f"{experiment} has no scale {scale!r}; it has {', '.join(known)}")
    values = (yaml.safe_load(file.read_text()) if file.is_file() else {}) | (given or {})
    check_parameters(values, types)
    return values


def parse_values(pairs: list[tuple[str, str]], experiment: str) -> dict:
    """Command-line values as the notebook's types; an unknown name passes through, to be refused later."""
    kinds = {name: p["type"] for name, p in declared(experiment).items()}
    convert = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}
    values = {}
    for name, text in pairs:
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
    values = settings(experiment, scale, given)
    check_device(values.get("device", "cpu"))
    check_writable(out)
    with atomic_write(out / "notebook.ipynb") as running:
        try:
            notebook = _execute(experiment, running, {**values, "out": str(out)})
        except RuntimeError as error:
            with atomic_write(out / "failed.ipynb") as failed:
                failed.write_bytes(running.read_bytes())
            raise RuntimeError(f"{error} (see {out / 'failed.ipynb'})") from None
        with atomic_write(out / "notebook.html") as page:
            page.write_text(HTMLExporter().from_notebook_node(notebook)[0])
    (out / "failed.ipynb").unlink(missing_ok=True)
    return out / "record.json"


def keep_outputs(experiment: str) -> None:
    """Run a notebook as it is, at smoke scale, and keep the outputs in it, for readers and for nbval."""
    with tempfile.TemporaryDirectory() as scratch, atomic_write(NOTEBOOKS / f"{experiment}.ipynb") as running:
        os.environ["ATTRAIN_RESULTS"] = scratch
        notebook = _execute(experiment, running, {})
        for part in (notebook, *notebook.cells):
            part.metadata.pop("papermill", None)
            part.metadata.pop("execution", None)
        nbformat.write(notebook, running)


def _execute(experiment: str, running: Path, parameters: dict):
    """Run by papermill into the file `running`, saved after each cell; returns the notebook."""
    with tempfile.TemporaryDirectory(prefix="attrain-") as sockets:
        # Kernels over IPC in a folder of their own: free of TCP's port races between parallel runs.
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        try:
            papermill.execute_notebook(
                str(NOTEBOOKS / f"{experiment}.ipynb"),
                str(running),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=str((NOTEBOOKS / experiment).parent),
                config=config,
            )
        except (PapermillExecutionError, DeadKernelError) as error:
            raise RuntimeError(_reason(error)) from None
    notebook = nbformat.read(running, as_version=4)
    collapse_progress(notebook)
    nbformat.write(notebook, running)
    return notebook


def collapse_progress(notebook) -> None:
    """Keep of each progress bar what a terminal would show at the end, as JupyterLab does."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                lines = output.text.split("\n")
                output.text = "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)


def _reason(error: Exception) -> str:
    if isinstance(error, DeadKernelError):
        return "the kernel died; it may have run out of memory"
    lines = str(error.evalue).splitlines()
    return f"{error.ename}: {lines[0] if lines else ''}"


def _end_with_parent() -> None:
    """End this run, and with it its kernel, when the batch that started it is gone."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m attrain.run", description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="<paper>/<name>; with --keep-outputs also all")
    parser.add_argument("--scale", default="smoke", help="smoke (default), laptop or paper")
    parser.add_argument("--out", type=Path, help="output folder (default: results/<scale>/<experiment>)")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter"
    )
    parser.add_argument("--keep-outputs", action="store_true", help="run as it is and keep the outputs in the notebook")
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.end_with_parent:
        _end_with_parent()
    started = time.time()
    label = f"{options.experiment} {options.scale}"
    try:
        if options.keep_outputs:
            for experiment in experiments() if options.experiment == "all" else [options.experiment]:
                keep_outputs(experiment)
            return 0
        given = parse_values(options.parameter, options.experiment)
        out = (options.out or results_root() / options.scale / options.experiment).absolute()
        record = run(options.experiment, options.scale, given, out)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {label}: {error}", file=sys.stderr)
        return 1
    seed = f" seed {given['seed']}" if "seed" in given else ""
    print(f"done: {label}{seed}, {time.time() - started:.0f} s, {record}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
