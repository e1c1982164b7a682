"""What is wrong with own_model's parameters, said before anything slow is imported."""

import ast
import importlib.util
from pathlib import Path

from data_prep import DataError

ANNOTATIONS = ("coco", "voc", "masks")
ATTRIBUTIONS = ("IxG", "LRP", "AttnLRP", "DeepLIFT", "GradCAM", "BCos")
LOSSES = ("energy", "l1", "ppce", "rrr", "isnet")


def check_early(
    data: str, annotations: str, model: str, weights: str, guide_by: str, attribution: str, layer: str, losses: str
) -> None:
    """Raise for a folder, a file, a module or a function that is not there, or a setting that there is not.

    Args:
        data, annotations, model, weights, guide_by, attribution, layer, losses: own_model's parameters of these names.

    Raises:
        DataError, FileNotFoundError, ValueError: each names the parameter, what was given and what is accepted.

    Example:
        >>> check_early("", "coco", "cnn", "", "boxes", "IxG", "", "energy 3, isnet 0.7")
        >>> check_early("", "coco", "cnn", "", "boxes", "GradCAM", "", "energy 3")
        Traceback (most recent call last):
        ValueError: attribution='GradCAM' reads its map at a layer: give one, as layer=layer4
    """
    for name, given, known in (
        ("annotations", annotations, ANNOTATIONS),
        ("guide_by", guide_by, ("boxes", "pixels")),
        ("attribution", attribution, ATTRIBUTIONS),
    ):
        if given not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}")
    if attribution == "GradCAM" and not layer:
        raise ValueError("attribution='GradCAM' reads its map at a layer: give one, as layer=layer4")
    if data and not Path(data).is_dir():
        raise DataError(f"{data} is no folder (data, looked for in {Path.cwd()})")
    if weights and not Path(weights).is_file():
        raise FileNotFoundError(f"weights: there is no file {Path(weights).absolute()}")
    for part in (part.strip() for part in losses.split(",") if part.strip()):
        loss, _, weight = part.partition(" ")
        if loss not in LOSSES or not _is_number(weight):
            raise ValueError(f"losses are {', '.join(LOSSES)}, each with its weight, as 'energy 3'; got {part!r}")
    if ":" in model:
        _check_function(model)


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _check_function(model: str) -> None:
    """Raise unless the module's file is there and defines, or imports, that name; nothing of it is run."""
    place, _, function = model.rpartition(":")
    if place.endswith(".py"):
        file = Path(place)
        if not file.is_file():
            raise FileNotFoundError(f"model {model!r}: there is no file {file.absolute()}")
    else:
        file = _file_of_module(model, place)
    if file and not _may_define(file, function):
        raise ValueError(f"model {model!r} must be module:function, and there is no such function in that module")


def _file_of_module(model: str, place: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(place)
    except ImportError as error:
        raise ValueError(f"model {model!r} cannot be imported ({error}); or give a file, path.py:function") from None
    if spec is None:
        raise ValueError(
            f"model {model!r} cannot be imported (no module named {place!r}); or give a file, path.py:function"
        )
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _may_define(file: Path, name: str) -> bool:
    """Whether a file's text has the name anywhere as what is defined, assigned or imported; True if it imports "*"."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{file} is no Python: {error}") from None
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
    return name in found or "*" in found or "__getattr__" in found
