"""Small networks for small images; anything larger comes from torchvision."""

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
