"""Bring your own model: a function in a module or a file, or torchvision's by name, with weights from a file."""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studies.checkpoints import load_weights, weights_file
from studies.nets.small import classifier


def load_model(model: str, classes: int, channels: int = 3, weights: str = "") -> nn.Module:
    """A model named by a string, as notebooks and command lines need it.

    Args:
        model: "my_package.my_module:make" or "path/to/file.py:make", a function that returns the `nn.Module`; it is
            given `classes` and `channels` if it has parameters of these names. Without a colon a name for
            `studies.nets.small.classifier`, such as "cnn-norm" or "resnet18".
        classes: how many logits there are; channels: of the images.
        weights: a file as trainers write them, see `studies.checkpoints.load_weights`; "" for those that the model
            comes with.

    Raises:
        ValueError: no such module, function or model, weights that do not fit, or NaN; the message says which.
        FileNotFoundError: no such file.
    """
    if ":" not in model:
        network = classifier(model, classes, channels)
    else:
        network = function_of(model)(classes=classes, channels=channels)
    if not isinstance(network, nn.Module):
        raise ValueError(f"model {model!r} must return an nn.Module, got {type(network).__name__}")
    if weights:
        load_weights(network, weights)
    return network


def check_layer(model: nn.Module, layer: str) -> None:
    """Raise ValueError, with the names that come near, unless the model has a module of that name; "" is the input."""
    names = [name for name, _ in model.named_modules() if name]
    if layer and layer not in names:
        near = difflib.get_close_matches(layer, names, 3) or [name for name in names if "." not in name][:8]
        raise ValueError(f"layer {layer!r} is no module of the model; it has {', '.join(near)}")


def check_map(heatmap: torch.Tensor, layer: str, size: int) -> str:
    """Raise ValueError unless the map (N, C, H, W) has places; a sentence to print if it has few of them, else ""."""
    if heatmap.ndim != 4:
        raise ValueError(
            f"the map at layer {layer!r} is {tuple(heatmap.shape)} and must be (N, C, H, W), to lie over marks: take "
            "an earlier layer, or layer='' for the map at the input"
        )
    height, width = heatmap.shape[-2:]
    if height * width >= 16:
        return ""
    return (
        f"NOTE: of images of {size} × {size} the map at {layer!r} has {height} × {width} places only, each of which "
        f"covers {100 / (height * width):.0f} % of the image. Finer ones: a larger image_size, an earlier layer."
    )


def check_logits(model: nn.Module, x: torch.Tensor, classes: int) -> None:
    """Raise ValueError unless the model makes (N, classes) logits of the images (N, C, H, W)."""
    with torch.no_grad():
        try:
            logits = model(x)
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"the model cannot take images {tuple(x.shape)} in [0, 1]: {reason}") from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (len(x), classes):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"the model must make logits {(len(x), classes)}, one for each class of the data, got {got}")


def model_checksums(model: str, weights: str = "") -> dict[str, str]:
    """sha256 of the files that hold the model's code and weights, for the record."""
    files = [Path(_module(model).__file__)] if ":" in model else []
    files += [weights_file(weights)] if weights else []
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def function_of(model: str) -> Callable[..., Any]:
    """The function that "module:function" or "path.py:function" names, of `classes` and `channels` if it takes them.

    Raises:
        ValueError, FileNotFoundError: no such module, function or file; the message says which.
    """
    function = getattr(_module(model), model.rpartition(":")[2], None) if ":" in model else None
    if not callable(function):
        raise ValueError(f"model {model!r} must be module:function, and there is no such function in that module")
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return function
    return lambda **sizes: function(**{name: size for name, size in sizes.items() if name in parameters})


def _module(model: str):
    place = model.rpartition(":")[0]
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ImportError as error:
            raise ValueError(
                f"model {model!r} cannot be imported ({error}); or give a file, path.py:function"
            ) from None
    if not Path(place).is_file():
        raise FileNotFoundError(f"model {model!r}: there is no file {Path(place).absolute()}")
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
