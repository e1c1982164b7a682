"""What goes into a model of one's own, whatever its form: its parts by name, exchanged one at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attrain import Explanation
from studies.own_model import check_layer

KNOWN = ("x", "target", "reference", "kwargs", "names", "classes")


def check_examples(given: object) -> dict:
    """What a function of examples returned; ValueError unless it is a dict of `KNOWN` with an x.

    Names that are given for an x of one tensor come back as those of its part "x".
    """
    if not isinstance(given, dict) or "x" not in given or not set(given) <= set(KNOWN):
        got = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise ValueError(f"examples must return a dict with x, and perhaps {', '.join(KNOWN[1:])}, got {got}")
    parts = parts_of(given["x"])
    if not all(isinstance(part, Tensor) for part in parts.values()):
        kinds = {name: type(part).__name__ for name, part in parts.items()}
        raise ValueError(
            f"examples: x must be a tensor, or a tuple or dict of tensors, got {kinds}; torch.as_tensor makes one"
        )
    if len({len(part) for part in parts.values()}) != 1:
        raise ValueError(f"examples: all parts of x must have N rows, got { ({n: len(p) for n, p in parts.items()}) }")
    names = given.get("names", {})
    names = {"x": names} if isinstance(given["x"], Tensor) and not isinstance(names, dict) else names
    if not isinstance(names, dict) or not set(names) <= set(parts):
        got = sorted(names) if isinstance(names, dict) else type(names).__name__
        raise ValueError(f"examples: names must be a dict, of a part of x its names; parts are {[*parts]}, got {got}")
    return given | {"names": names}


def parts_of(x: Tensor | tuple | dict) -> dict[str, Tensor]:
    """The parts of an input, or of its maps, by name: a dict's keys, "input 0", … of a tuple, "x" of one tensor.

    Example:
        >>> list(parts_of((torch.zeros(2, 3), torch.zeros(2, 5))))
        ['input 0', 'input 1']
    """
    if isinstance(x, dict):
        return {str(name): part for name, part in x.items()}
    return {f"input {i}": part for i, part in enumerate(x)} if isinstance(x, tuple) else {"x": x}


def check_embeddings(model: nn.Module, x: Tensor | tuple | dict, embeddings: dict[str, str]) -> None:
    """Raise ValueError unless each part of whole numbers has a layer of the model that embeds it, and no other name."""
    parts = parts_of(x)
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)]
    for name in [name for name, part in parts.items() if not part.is_floating_point()]:
        if name not in embeddings:
            raise ValueError(
                f"{name} holds whole numbers, whose map is made where they are embedded: give "
                f"embeddings={f'{name} LAYER'!r}, with a LAYER such as {', '.join(layers) or '(the model has none)'}"
            )
    if unknown := sorted({*embeddings} - {*parts}):
        raise ValueError(f"embeddings names {', '.join(unknown)}, and the parts of x are {', '.join(parts)}")
    for layer in embeddings.values():
        check_layer(model, layer)


def maps_of(explanation: Explanation, x: Tensor | tuple | dict, embeddings: dict[str, str]) -> dict[str, Tensor]:
    """Each part's map; that of token ids is the one at the layer that embeds them, features summed.

    Args:
        explanation: of x, with `layers=embeddings.values()`.
        embeddings: part of whole numbers -> name of its layer.
    """
    maps = parts_of(explanation.heatmap) if explanation.heatmap is not None else {}
    found = {}
    for name in parts_of(x):
        if name in embeddings:
            found[name] = explanation.layers[embeddings[name]].sum(-1)
        elif maps.get(name) is not None:
            found[name] = maps[name]
    return found


def exchanged(x: Tensor | tuple | dict, part: str, order: Tensor) -> Tensor | tuple | dict:
    """The input with one part taken from other samples, row i from row `order[i]`.

    Example:
        >>> exchanged({"a": torch.tensor([1, 2]), "b": torch.tensor([3, 4])}, "b", torch.tensor([1, 0]))
        {'a': tensor([1, 2]), 'b': tensor([4, 3])}
    """
    parts = {name: value[order] if name == part else value for name, value in parts_of(x).items()}
    if isinstance(x, dict):
        return dict(zip(x, parts.values()))
    return tuple(parts.values()) if isinstance(x, tuple) else parts["x"]


def called(model: Callable, x: Tensor | tuple | dict, kwargs: dict | None = None):
    """The model's output, called as `attrain.explain` calls it."""
    arguments = () if isinstance(x, dict) else x if isinstance(x, tuple) else (x,)
    weight = next((p for p in getattr(model, "parameters", list)() if p.is_floating_point()), None)
    for name, part in parts_of(x).items():
        if weight is not None and part.is_floating_point() and part.dtype != weight.dtype:
            raise ValueError(f"examples: {name} is {part.dtype}, and the model's parameters are {weight.dtype}")
    with torch.no_grad():
        return model(*arguments, **(x if isinstance(x, dict) else {}), **(kwargs or {}))
