"""What is wrong with the parameters of own_model and own_inputs, said before anything slow is imported."""

import ast
import importlib.util
from pathlib import Path

from data_prep import DataError

ANNOTATIONS = ("coco", "voc", "masks")
ATTRIBUTIONS = ("IxG", "LRP", "AttnLRP", "DeepLIFT", "GradCAM", "BCos")
LOSSES = ("energy", "l1", "ppce", "rrr", "isnet")
NETWORKS = ("cnn", "cnn-norm", "resnet18", "resnet34", "resnet50", "densenet121")  # of studies.nets.small.classifier


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
    given_texts = dict(data=data, annotations=annotations, model=model, weights=weights, layer=layer, losses=losses)
    check_texts(**given_texts)
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
    if model not in NETWORKS:
        check_function("model", model, NETWORKS)


def check_texts(**parameters: object) -> None:
    """Raise ValueError for a parameter that is no text, as papermill makes a number of `-p layer 14`."""
    for name, given in parameters.items():
        if not isinstance(given, str):
            raise ValueError(
                f"{name} must be text, got {given!r} ({type(given).__name__}); with papermill: -r {name} {given}"
            )


def check_early_inputs(model: str, examples: str, embeddings: str, methods: str) -> None:
    """The same for own_inputs.

    Example:
        >>> made = "studies.example_inputs:model"
        >>> check_early_inputs(made, made, "words embedding", "LRP")
        >>> check_early_inputs(made, made, "words", "LRP")
        Traceback (most recent call last):
        ValueError: embeddings must be pairs of a part of x and a layer, as 'words embedding, ids layer', got 'words'
    """
    check_texts(model=model, examples=examples, embeddings=embeddings, methods=methods)
    check_function("model", model)
    check_function("examples", examples)
    if any(len(pair.split()) != 2 for pair in embeddings.split(",") if pair.strip()):
        form = "'words embedding, ids layer'"
        raise ValueError(f"embeddings must be pairs of a part of x and a layer, as {form}, got {embeddings!r}")
    if not methods.replace(",", " ").strip():
        raise ValueError("methods must name one method of attrain at least, as 'DeepLift, AttnLRP', got none")


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def check_function(parameter: str, given: str, names: tuple[str, ...] = ()) -> None:
    """Raise unless `given` is "module:function" or "path.py:function"; nothing of what it names is run.

    Args:
        parameter: its name, for the message.
        given: its value.
        names: what else may be given.

    Raises:
        ValueError, FileNotFoundError: another form, no such module, file or name in it.
    """
    place, colon, function = given.rpartition(":")
    if not colon or not place or not function:
        start = given.partition(":")[0] or "my_model.py"
        others = f", or one of {', '.join(names)}" if names else ""
        form = (
            f"{start}:make" if start.endswith(".py") or start.replace(".", "_").isidentifier() else "my_model.py:make"
        )
        raise ValueError(f"{parameter} must be FILE.py:FUNCTION or MODULE:FUNCTION, as {form}{others}; got {given!r}")
    if place.endswith(".py"):
        file: Path | None = Path(place)
        if not Path(place).is_file():
            raise FileNotFoundError(f"{parameter} {given!r}: there is no file {Path(place).absolute()}")
    else:
        file = _file_of_module(parameter, given, place)
    if file and not _may_define(file, function):
        raise ValueError(f"{parameter} {given!r}: no such function in that module; it has {_defined(file)}")


def _file_of_module(parameter: str, given: str, place: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(place)
    except ImportError as error:
        raise ValueError(
            f"{parameter} {given!r} cannot be imported ({error}); or give a file, path.py:function"
        ) from None
    if spec is None:
        hint = f"no module named {place!r} in {Path.cwd()} or among the installed ones"
        raise ValueError(f"{parameter} {given!r} cannot be imported ({hint}); or give a file, path.py:function")
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _defined(file: Path) -> str:
    """The names of functions and classes in a file, for a message."""
    nodes = ast.parse(file.read_bytes()).body
    names = [node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
    return ", ".join(names[:8]) or "no function"


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
