"""Whether a map depends on what the network has learned: networks that forget it (Adebayo et al. 2018)."""

import copy
from collections.abc import Iterator

import torch
from torch import nn


def randomised(model: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """A network that loses what it has learned, part by part from the output on: (part's name, copy so far).

    The cascading randomisation of Adebayo et al. 2018 ("Sanity checks for saliency maps"). The parts are the
    model's children that have parameters, in the reverse of the order in which it lists them: a sequence's
    layers, a ResNet's blocks. Their layers are initialised anew, as by `reset_parameters`.

    Args:
        model: never modified; lists its children from input to output, as torchvision's do.
        seed: draws the weights; torch's own random state is left as it is.

    Raises:
        TypeError: a layer with parameters of its own has no `reset_parameters`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
        >>> [name for name, _ in randomised(model)]
        ['3', '0']
    """
    model = copy.deepcopy(model)
    parts = [(name, part) for name, part in model.named_children() if any(True for _ in part.parameters())]
    for depth, (name, part) in enumerate(reversed(parts)):
        device = next(part.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * len(parts) + depth)
            for layer in part.cpu().modules():  # drawn on the CPU: the same weights on every device
                reset = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
                elif any(True for _ in layer.parameters(recurse=False)):
                    raise TypeError(f"{type(layer).__name__} in {name!r} has no reset_parameters to draw its weights")
        part.to(device)
        yield name, copy.deepcopy(model)
