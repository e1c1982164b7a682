"""A notebook's parameters: the annotated names of its tagged cell, read and checked without running it.

    lr: float = 2.0e-3  # learning rate [lr > 0]

A comment says what the parameter is for and, in brackets at its end, which values it takes: an expression of Python
with ≤ and ≥ (papermill finds no parameter in a line of several =), that may name other parameters. Of a text that
lists numbers it is said of each. A number must be finite in any case.
"""

import ast
import difflib
import json
import math
import re
from collections.abc import Iterable

import yaml

from studies.files import NOTEBOOKS

SCALES = ("smoke", "laptop", "paper")
PAGES = ("benchmarks", "first_look", "index")  # notebooks that are no experiments: of the library, of what is on record
NOT_RECORDED = ("out",)  # where a run writes does not change what it finds
RANGES = {  # of the parameters that every notebook has
    "seed": "0 ≤ seed < 2**32",
    "seeds": "seeds ≥ 1",
    "threads": "1 ≤ threads ≤ 1024",  # far more than a machine has cores end the kernel
}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
_READ = {**_TYPES, "bool": lambda text: {"true": True, "false": False}[text.lower()]}


def experiments() -> list[str]:
    """All experiments: the notebooks that are paired with a script, "<paper>/<name>", or "<name>" of no one paper.

    `PAGES`, as the table of contents, are none.
    """
    found = [path for depth in ("*.ipynb", "*/*.ipynb") for path in NOTEBOOKS.glob(depth)]
    pairs = [path.relative_to(NOTEBOOKS).with_suffix("") for path in found if path.with_suffix(".py").is_file()]
    return sorted(path.as_posix() for path in pairs if not path.parts[0].startswith(".") and str(path) not in PAGES)


def code_cells(experiment: str, tag: str | None = None) -> list[str]:
    """The sources of a notebook's code cells, of those with a tag if one is given; ValueError if there is none."""
    if experiment not in experiments():
        known = ", ".join(experiments()) or f"none in {NOTEBOOKS}"
        near = difflib.get_close_matches(experiment, experiments(), 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"unknown experiment {experiment!r}{hint}; there are {known}")
    cells = json.loads((NOTEBOOKS / f"{experiment}.ipynb").read_text("utf-8"))["cells"]
    chosen = [cell for cell in cells if tag is None or tag in cell["metadata"].get("tags", [])]
    return ["".join(cell["source"]) for cell in chosen if cell["cell_type"] == "code"]


def declared(experiment: str) -> dict[str, dict]:
    """The notebook's parameters: name -> {"type", "default", "help", "range"}; range is "" where any value will do.

    The same as `papermill.inspect_notebook` finds, without the seconds that it takes to import papermill.
    """
    found = {}
    for source in code_cells(experiment, "parameters")[:1]:
        for node in ast.parse(source).body:
            if isinstance(node, ast.AnnAssign):
                line = source.splitlines()[node.end_lineno - 1].encode()
                comment = line[node.end_col_offset :].decode().partition("#")[2].strip()
                kind, default = ast.unparse(node.annotation), ast.literal_eval(node.value)
                within = re.search(r"\[(.+)\]$", comment)
                within = within[1] if within else RANGES.get(node.target.id, "")
                found[node.target.id] = {"type": kind, "default": default, "help": comment, "range": within}
    return found


def defaults(experiment: str) -> dict:
    """The values of a notebook's parameters as it is."""
    return {name: about["default"] for name, about in declared(experiment).items()}


def check_parameters(given: dict, kinds: dict[str, str]) -> None:
    """Raise ValueError for a parameter that a notebook does not have, or whose value cannot be one of its.

    Args:
        given: name -> value.
        kinds: name -> type name, one of int, float, str, bool.
    """
    for name, value in given.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"unknown parameter {name!r}{hint}; this notebook takes {', '.join(sorted(kinds))}")
        kind = _TYPES[kinds[name]]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"parameter {name} must be {kinds[name]}, got {value!r} ({type(value).__name__})")


def check_ranges(values: dict, ranges: dict[str, str]) -> None:
    """Raise ValueError for a number that is not finite or not in its range.

    Args:
        values: name -> value, of all parameters.
        ranges: name -> condition, as `declared` has them.
    """
    for name, within in ranges.items():
        condition = within.replace("≤", "<=").replace("≥", ">=")
        for number in _numbers(name, values[name]) if within else ():
            if not eval(condition, {"__builtins__": {}}, values | {name: number}):
                raise ValueError(f"parameter {name} must satisfy {within}, got {values[name]!r}")
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"parameter {name} must be finite, got {value}")


def _numbers(name: str, value) -> list[float]:
    """The numbers that a parameter is or lists; of none at all, as of "", nothing is asked."""
    if not isinstance(value, str):
        return [value]
    try:
        return [float(part) for part in re.split(r"[,\s]+", value) if part]
    except ValueError:
        raise ValueError(f"parameter {name} must list numbers, got {value!r}") from None


def settings(experiment: str, scale: str, given: dict | None = None) -> dict:
    """The parameters to inject for a scale: those of its file, then those given; checked.

    Raises ValueError for an unknown experiment, scale or parameter, and for a value of the wrong type or out of range.
    """
    ours = declared(experiment)
    files = {path.name.split(".")[1]: path for path in (NOTEBOOKS / "params").glob(f"{experiment}.*.yaml")}
    if scale != "smoke" and scale not in files:
        known = ", ".join(sorted({"smoke", *files}, key=scale_order))
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
    check_parameters(values, {name: about["type"] for name, about in ours.items()})
    check_ranges(defaults(experiment) | values, {name: about["range"] for name, about in ours.items()})
    return values


def data_sets(values: dict) -> set[tuple[str, str]]:
    """The data sets that a notebook with these values of all its parameters reads: (name, the part of it or "").

    Which it reads is said by its parameters `dataset`; of data that are made from another's images also `objects` or
    `source`; `datasets`, where what is none of ours is a set of UCR's; and `network` or `model`, if its weights are a
    data set.
    """
    from data_prep import DATASETS, MADE_OF_OTHERS

    names = [values[name] for name in ("dataset",) if name in values]
    if {*names} & {*MADE_OF_OTHERS}:
        names += [values[name] for name in ("objects", "source") if name in values]
    parts = [part.strip() for part in values.get("datasets", "").split(",") if part.strip()]
    found = {(name, "") for name in names} | {(p, "") if p in DATASETS else ("ucr", p) for p in parts}
    weights = {"authors": "deeplift_authors"}
    weights |= {"efficientnet_lite0": "efficientnet_lite0"} if values.get("pretrained") else {}
    networks = [values[name] for name in ("network", "model") if name in values]
    return found | {(weights[network], "") for network in networks if network in weights}


def check_data(needed: Iterable[tuple[str, str]]) -> None:
    """Raise DataError, one line, if any of these data sets (see `data_sets`) is missing or not whole."""
    from data_prep import MADE_HERE, DataError, dataset

    lost = []
    for name, part in sorted({*needed}):
        try:
            if name not in MADE_HERE:  # to import a module of data takes seconds
                dataset(name).checksums(**({"names": [part]} if part else {}))
        except DataError as error:
            lost.append(f"{name}: {error}")
    if lost:
        raise DataError("; ".join(lost))


def scale_order(scale: str) -> tuple:
    """For sorting: the common scales by size, then others by name."""
    return SCALES.index(scale) if scale in SCALES else len(SCALES), scale


def parse_values(pairs: Iterable[tuple[str, str]], experiment: str) -> dict:
    """Command-line values as the notebook's types; an unknown name passes through, to be refused by `settings`."""
    kinds = {name: about["type"] for name, about in declared(experiment).items()}
    values = {}
    for name, text in pairs:
        if name in ("scale", "out"):
            raise ValueError(f"parameter {name} is given by --{name}")
        kind = kinds.get(name, "str")
        try:
            values[name] = _READ[kind](text)
        except (ValueError, KeyError):
            raise ValueError(f"parameter {name} must be {kind}, got {text!r}") from None
    return values


def of_notebook(namespace: dict, experiment: str) -> dict:
    """Values of a running notebook's parameters, from its `globals()`: the annotated names, and what is injected."""
    kinds = {n: t if isinstance(t, str) else t.__name__ for n, t in namespace.get("__annotations__", {}).items()}
    kinds = {name: kind for name, kind in kinds.items() if kind in _TYPES}
    injected = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters")]  # papermill's cell
    names = {t.id for cell in injected for s in ast.parse(cell).body if isinstance(s, ast.Assign) for t in s.targets}
    check_parameters({name: namespace[name] for name in [*names, *kinds]}, kinds)
    ours = declared(experiment) if experiment in experiments() else {}
    ranges = RANGES | {name: about["range"] for name, about in ours.items()}
    check_ranges({name: namespace[name] for name in kinds}, {n: ranges[n] for n in kinds if n in ranges})
    values = {name: float(namespace[name]) if kind == "float" else namespace[name] for name, kind in kinds.items()}
    return {name: value for name, value in values.items() if name not in NOT_RECORDED}
