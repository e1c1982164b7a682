"""What an input that a model cannot take has that the model's parameters do not go with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def hints(model: Any, x: Any) -> Iterator[None]:
    """Add to an error that comes out of the model what may be wrong with x, as a note below it; else it is the same."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        for note in found(model, x):
            error.add_note(note)
        raise


def found(model: Any, x: Any) -> list[str]:
    """Sentences, one for each thing that is seen.

    Example:
        >>> import torch
        >>> found(nn.Sequential(nn.Conv2d(3, 8, 3)), torch.zeros(2, 16, 16, 3))
        ['hint: x is (2, 16, 16, 3), and channels come second: x.movedim(-1, 1)']
    """
    if not isinstance(model, nn.Module):
        name = getattr(model, "__name__", "<")
        return (
            [] if "<" in name else [f"hint: model is the function {name}; if it makes a network, give that: {name}()"]
        )
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if not isinstance(x, Tensor) or not x.is_floating_point() or weight is None:
        return []
    seen = []
    if x.dtype != weight.dtype:
        seen.append(f"hint: x is {x.dtype}, and the model's parameters are {weight.dtype}: x.to({weight.dtype})")
    if x.device != weight.device:
        seen.append(f"hint: x is on {x.device}, and the model on {weight.device}: x.to({str(weight.device)!r})")
    convolution = next((m for m in model.modules() if isinstance(m, CONVOLUTIONS)), None)
    wrong = _channels(x, convolution.in_channels, convolution.weight.ndim) if convolution is not None else ""
    return [*seen, f"hint: x is {tuple(x.shape)}, and {wrong}"] if wrong else seen


def _channels(x: Tensor, channels: int, dims: int) -> str:
    """What is wrong with the form of x for a first convolution of so many channels and dimensions (N, C, …); or ""."""
    if x.ndim == dims - 1:
        return "a batch has one dimension more: x[None]"
    if x.ndim != dims or x.shape[1] == channels:
        return ""
    if x.shape[-1] == channels:
        return "channels come second: x.movedim(-1, 1)"
    said = f"the first convolution takes {channels} channels"
    if channels == 3 and x.shape[1] in (1, 4):  # grey, or with transparency
        return f'{said}: photo.convert("RGB"), or {"x.expand(-1, 3, -1, -1)" if x.shape[1] == 1 else "x[:, :3]"}'
    return said
