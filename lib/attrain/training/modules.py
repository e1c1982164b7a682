"""Looking into a network for the time of a call: a layer's output, its modes, its part from a layer on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class NetworkFrom(nn.Module):
    """The network from a layer on: that layer's output h -> what the model returns for x with h in its place.

    So a network whose input cannot be explained, as words are numbers, is explained at its embeddings. What lies
    below the layer is computed and has no effect, but where it reaches the output past the layer.

    Args:
        model: used as it is.
        layer: a module's name, called once in a forward pass, whose output is one tensor.
        x: the samples (N, ...) that the model is called with.

    Raises:
        ValueError: when called: there is no such module.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(6, 2))
        >>> words = torch.tensor([[1, 2, 3]])
        >>> torch.equal(NetworkFrom(model, "0", words)(model[0](words)), model(words))
        True
    """

    def __init__(self, model: nn.Module, layer: str, x: Tensor) -> None:
        super().__init__()
        self.model, self.layer, self.x = model, layer, x

    def forward(self, h: Tensor) -> Any:
        with hooked(self.model, self.layer, lambda module, args, output: h):
            return self.model(self.x)


@contextmanager
def hooked(model: nn.Module, layer: str, hook: Callable) -> Iterator[None]:
    """Let the hook (module, args, output) see, or replace, a layer's output; does nothing for "", the input.

    Raises ValueError if no module has that name.
    """
    if not layer:
        yield
        return
    modules = dict(model.named_modules())
    if layer not in modules:
        names = ", ".join(list(modules)[1:])
        raise ValueError(f"there is no layer {layer!r}; it must be '', the input, or a module's name: {names}")
    handle = modules[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norm in training mode uses the batch's statistics, as ever, but its running ones stay as they are."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    norms = [m for m in norms if m.track_running_stats]
    try:
        for module in norms:
            module.track_running_stats = False
        yield
    finally:
        for module in norms:
            module.track_running_stats = True
