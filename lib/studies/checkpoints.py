"""Weights from a file, as trainers write them: alone, below other keys, with the prefixes of wrappers."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # parts of names: torch.compile, FSDP


def load_weights(model: nn.Module, weights: str | Path) -> None:
    """Load the model's weights from a file that `torch.save` or safetensors has written.

    The state dict may lie at any depth of the file's dictionaries ("state_dict", "model", "model_state_dict", …), its
    names may have a prefix in common ("module.", "model.", …), and what else is in the file may be anything: Python
    objects in it are passed over and never made. What counts is that names and shapes are the model's, all of them, but
    for batch norm's `num_batches_tracked`, which old files lack.

    Args:
        model: gets the weights, converted to its own types.
        weights: the file; "~" is one's home.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no state dict in it, none of this model, or several that differ; a NaN among the weights, or an
            infinite parameter. The message names the file and the tensor.
    """
    file = weights_file(weights)
    found = {place: state for place, state in _states(_read(file)) if any(map(torch.is_tensor, state.values()))}
    if not found:
        raise ValueError(
            f"weights {file}: there is no state dict in it, and a module as a whole is not loaded: "
            "write torch.save(model.state_dict(), …)"
        )
    expected = model.state_dict()
    fitting = {}
    for place, state in found.items():
        for prefix, part in _readings(state, expected):
            if not _differences(part, expected):
                fitting[f"{place}{prefix}"] = part
    if not fitting:
        parts = [part for state in found.values() for _, part in _readings(state, expected)]
        nearest = min(parts, key=lambda part: len(_differences(part, expected)))
        raise ValueError(f"weights {file} are not of this model: {_in_words(_differences(nearest, expected))}")
    first, *others = fitting.values()
    if not all(_same(first, other) for other in others):
        raise ValueError(
            f"weights {file} hold several that are of this model and differ, {', '.join(map(repr, fitting))}: "
            "write the ones that you mean to a file of their own"
        )
    model.load_state_dict(expected | first)
    _check_finite(model, file)


def weights_file(weights: str | Path) -> Path:
    """The file's path; FileNotFoundError if there is none."""
    file = Path(weights).expanduser()
    if not file.is_file():
        hint = " (get it first: nothing is downloaded here)" if "://" in str(weights) else ""
        raise FileNotFoundError(f"weights: there is no file {weights if hint else file.absolute()}{hint}")
    return file


class _Ignored:
    """Stands for a Python object in a file that is no tensor, as the trainer's options: takes all, does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, name, value):
        pass


def _read(file: Path):
    """What the file holds; objects of classes other than torch's own are `_Ignored`."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        others = get_unsafe_globals_in_checkpoint(file)
    except Exception:  # not of today's format: if torch can read it, then as it is
        others = []
    try:
        with safe_globals([(_Ignored, name) for name in others]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch have many
        reason = str(error).splitlines()[0].partition(". ")[0]
        if "weights only" in reason.lower() or "weights_only" in reason:  # torch's advice, to load it all the same
            reason = "it holds what is no tensor"
        raise ValueError(
            f"weights {file} are no state dict that can be read ({reason or type(error).__name__}): "
            "write torch.save(model.state_dict(), …)"
        ) from None


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(f"weights {file}: to read them needs the package safetensors") from None
    try:
        return load_file(file)
    except Exception as error:  # of its own kinds
        raise ValueError(f"weights {file} cannot be read ({str(error).splitlines()[0]})") from None


def _states(value, place: str = "") -> Iterator[tuple[str, dict]]:
    """All dictionaries with names for keys, at any depth, and where: "model/state_dict/"."""
    if isinstance(value, dict) and place.count("/") < 8:  # a hostile file's may hold itself
        named = {name: each for name, each in value.items() if isinstance(name, str)}
        yield place, named
        for name, each in named.items():
            yield from _states(each, f"{place}{name}/")


def _readings(state: dict, expected: dict) -> Iterator[tuple[str, dict]]:
    """A state under the names that a model may mean: without a prefix, without the names of wrappers.

    Yields:
        prefix, name -> tensor, with the model's spelling of names where they are the same.
    """
    for dropped in (WRAPPERS, (*WRAPPERS, "module")):
        spelling = {_without(name, dropped): name for name in expected}
        names = {_without(name, dropped): value for name, value in state.items()}
        if len(spelling) < len(expected) or len(names) < len(state):
            continue  # the model has such a part itself, and without its name two would be one
        dots = [(name, n + 1) for name in names for n, letter in enumerate(name) if letter == "."]
        for prefix in sorted({""} | {name[:n] for name, n in dots if name[n:] in spelling}):
            below = {n.removeprefix(prefix): value for n, value in names.items() if n.startswith(prefix)}
            yield prefix, {spelling.get(name, name): value for name, value in below.items()}


def _without(name: str, parts: tuple[str, ...]) -> str:
    return ".".join(part for part in name.split(".") if part not in parts)


def _differences(state: dict, expected: dict) -> dict[str, str]:
    """Name -> what is wrong with it, for a model that expects other names and shapes."""
    wrong = {}
    for name, value in expected.items():
        wanted, got = (tuple(getattr(each, "shape", ())) for each in (value, state.get(name)))
        if name not in state and not name.endswith("num_batches_tracked"):
            wrong[name] = f"{name!r} is missing"
        elif name in state and wanted != got:
            wrong[name] = f"{name!r} is {got}, not {wanted}"
    return wrong | {name: f"{name!r} is none of the model's" for name in state if name not in expected}


def _in_words(differences: dict[str, str]) -> str:
    shown = ", ".join(list(differences.values())[:3])
    return f"{len(differences)} names or shapes differ: {shown}" + (", …" if len(differences) > 3 else "")


def _same(state: dict, other: dict) -> bool:
    pairs = [(value, other[name]) for name, value in state.items() if torch.is_tensor(value) and name in other]
    return all(torch.equal(value.double(), theirs.double()) for value, theirs in pairs)


def _check_finite(model: nn.Module, file: Path) -> None:
    """Buffers may be infinite, as masks of attention are."""
    parameters = dict(model.named_parameters())
    tensors = {name: value for name, value in model.state_dict().items() if torch.is_tensor(value)}
    bad = [n for n, value in tensors.items() if value.isnan().any() or (n in parameters and value.isinf().any())]
    if bad:
        raise ValueError(
            f"weights {file} are not all numbers: {len(bad)} of {len(tensors)} tensors have NaN or infinite values, "
            f"as {bad[0]!r}; has their training diverged?"
        )
