"""Small networks for small images, anything larger comes from torchvision; and networks with weights drawn anew."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torchvision.models import resnet


class SmallCNN(nn.Sequential):
    """Three 3×3 convolutions with ReLU, halving the image twice, then average pooling and a linear layer.

    Input (N, channels, H, W) with H, W ≥ 8, output (N, classes). No batch norm, so a sample's map never
    depends on the rest of its batch.
    """

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 32):
        super().__init__(
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(32 * width, classes),
        )  # fmt: skip


def classifier(name: str, classes: int = 10, channels: int = 1, width: int = 16) -> nn.Module:
    """A ReLU classifier from scratch by name: "cnn" (`SmallCNN`) or a ResNet of torchvision, as "resnet18".

    A ResNet takes `channels` input channels through a new first convolution, otherwise as torchvision's.
    """
    if name == "cnn":
        return SmallCNN(classes, channels, width)
    if name not in ("resnet18", "resnet34", "resnet50"):
        raise ValueError(f"model must be cnn, resnet18, resnet34 or resnet50, got {name!r}")
    model = resnet.__dict__[name](num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model


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
        >>> [name for name, _ in randomised(SmallCNN())]
        ['10', '6', '3', '0']
    """
    model = copy.deepcopy(model)
    parts = [(name, part) for name, part in model.named_children() if any(True for _ in part.parameters())]
    for depth, (name, part) in enumerate(reversed(parts)):
        device = next(part.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * len(parts) + depth)
            for layer in part.cpu().modules():  # drawn on the CPU: the same weights on every device
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
                elif any(True for _ in layer.parameters(recurse=False)):
                    raise TypeError(f"{type(layer).__name__} in {name!r} has no reset_parameters to draw its weights")
        part.to(device)
        yield name, copy.deepcopy(model)
