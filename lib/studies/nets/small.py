"""Small networks for images, sentences and series; anything larger comes from torchvision."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class NormCNN(nn.Sequential):
    """Four 3×3 convolutions with batch norm and ReLU, halving the image three times, then the mean over places.

    Input (N, channels, H, W) with H, W ≥ 8, output (N, classes). Learns textured images faster than `SmallCNN`.
    """

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 16):
        super().__init__(
            *norm_layers(channels, width), nn.MaxPool2d(2),
            *norm_layers(width, 2 * width), nn.MaxPool2d(2),
            *norm_layers(2 * width, 4 * width), nn.MaxPool2d(2),
            *norm_layers(4 * width, 4 * width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes),
        )  # fmt: skip


class StridedCNN(nn.Sequential):
    """DeepLIFT's network for MNIST: two convolutions with ReLU that step over pixels instead of pooling, and two linear
    layers with dropout.

    Input (N, 1, size, size), output (N, classes). For MNIST's 28 pixels it is the authors' network, of 239,594
    parameters; for the 8 pixels of scikit-learn's digits the kernels are smaller.

    Args:
        size: edge of an image, 28 or 8.
    """

    def __init__(self, size: int = 28, classes: int = 10):
        if size not in (8, 28):
            raise ValueError(f"StridedCNN takes images of 28 or 8 pixels, got size={size}")
        first, second, places = ((4, 2), (4, 2), 25) if size == 28 else ((3, 1), (2, 2), 9)  # kernel and stride
        super().__init__(
            nn.Conv2d(1, 32, *first), nn.ReLU(), nn.Conv2d(32, 64, *second), nn.ReLU(), nn.Dropout(0.25),
            nn.Flatten(), nn.Linear(64 * places, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, classes),
        )  # fmt: skip


class SequenceCNN(nn.Sequential):
    """DeepLIFT's network for DNA: two convolutions with ReLU, the mean over all positions, two linear layers.

    Input (N, 4, L) with L ≥ 2·kernel − 1, output logits (N, tasks). Weights are Glorot's (as the authors', from Keras)
    and biases zero: with torch's smaller ones, the mean over positions long leaves it next to nothing to learn from.
    """

    def __init__(self, tasks: int = 3, width: int = 50, kernel: int = 11):
        super().__init__(
            nn.Conv1d(4, width, kernel), nn.ReLU(), nn.Conv1d(width, width, kernel), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(width, tasks),
        )  # fmt: skip
        for layer in self:
            if isinstance(layer, (nn.Conv1d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)


class TextCNN(nn.Module):
    """Kim's network for sentences (2014), with learned embeddings: convolutions of several widths over words, of each
    filter's ReLU the largest value, dropout, and a linear layer.

    Input: word numbers (N, T), T ≥ 1, 0 where a sentence has ended; output logits (N, classes). A logit does not depend
    on the number of zeros at the end: padding's embedding is zero, convolutions have no bias and see every
    window with a word in it, and all others are 0 before the maximum, as is a filter that finds nothing.

    Its embeddings are the module "embedding", of output (N, T, size): there a map is read and a word is changed. As no
    layer before the last has a bias, gradient × input there adds up to the logit less the last layer's bias.

    Args:
        vocabulary: how many word numbers there are, ≥ 1.
        size: of an embedding; filters: of each width; widths: of the convolutions, in words; all ≥ 1.
        dropout: in [0, 1).
    """

    def __init__(
        self, vocabulary: int, classes: int = 2, size: int = 50, filters: int = 50,
        widths: Sequence[int] = (3, 4, 5), dropout: float = 0.5,
    ):  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(size, filters, k, padding=k - 1, bias=False) for k in widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(filters * len(widths), classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x).movedim(-1, 1)
        return self.head(self.dropout(torch.cat([F.relu(conv(h)).amax(-1) for conv in self.convolutions], 1)))


class SeriesCNN(nn.Sequential):
    """The fully convolutional network for time series (Wang, Yan, Oates 2017), narrower: three convolutions of widths
    8, 5 and 3 with ReLU, the mean over time, and a linear layer.

    Input (N, channels, L) with L ≥ 1, output logits (N, classes).

    Args:
        width: filters of the first and the last convolution; the one between has twice as many. The paper's: 128.
        norm: with batch norm, as in the paper. Without, a sample's map never depends on the rest of its batch.
    """

    def __init__(self, classes: int = 2, channels: int = 1, width: int = 32, norm: bool = True):
        widths = (channels, width, 2 * width, width)
        layers = []
        for before, after, kernel in zip(widths, widths[1:], (8, 5, 3)):
            layers.append(nn.Conv1d(before, after, kernel, padding=kernel // 2, bias=not norm))
            layers += [nn.BatchNorm1d(after), nn.ReLU()] if norm else [nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))


class Mirrored(nn.Module):
    """Logits (N, 2) of two classes, [−s, s], from one logit s, (N, 1): what speaks for one speaks against the other.

    With two logits of their own a network can hide evidence from the map of the true class by holding it against the
    other class alone.
    """

    def forward(self, s: Tensor) -> Tensor:
        return torch.cat([-s, s], 1)


def classifier(name: str, classes: int = 10, channels: int = 1, width: int = 16) -> nn.Module:
    """A ReLU classifier from scratch by name: "cnn" (`SmallCNN`), "cnn-norm" (`NormCNN`), or torchvision's.

    Of torchvision there are resnet18, resnet34, resnet50 and densenet121; they take `channels` input channels through
    a new first convolution and have a width of their own.
    """
    if name in ("cnn", "cnn-norm"):
        return {"cnn": SmallCNN, "cnn-norm": NormCNN}[name](classes, channels, width)
    if name not in ("resnet18", "resnet34", "resnet50", "densenet121"):
        raise ValueError(f"model must be cnn, cnn-norm, resnet18, resnet34, resnet50 or densenet121, got {name!r}")
    import torchvision  # slow to import, and the small networks do without

    model = getattr(torchvision.models, name)(num_classes=classes)
    first = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    if name == "densenet121":
        model.features.conv0 = first
    else:
        model.conv1 = first
    return model


def small_vit(
    size: int = 28, classes: int = 10, channels: int = 1, width: int = 48, layers: int = 4, heads: int = 4,
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """A vision transformer for small images: torchvision's, of seven patches along an edge (four for 8 pixels).

    Input (N, channels, size, size), output (N, classes). No batch norm, so a sample's map never depends on the rest of
    its batch. Its last layer is drawn, not 0 as torchvision's is: else it has no map before the first step.

    Args:
        size: edge of an image, a multiple of 7 or 4; patches have a seventh or a quarter of it.
        width: of a token, a multiple of `heads`; its two-layer networks are twice as wide.

    Raises:
        ValueError: a size that is cut neither into 7 × 7 nor into 4 × 4 patches.
    """
    patches = next((n for n in (7, 4) if size % n == 0), None)
    if patches is None:
        raise ValueError(f"small_vit takes images whose edge is a multiple of 7 or 4, got size={size}")
    from torchvision.models import VisionTransformer  # slow to import, and the small networks do without

    model = VisionTransformer(size, size // patches, layers, heads, width, 2 * width, dropout, num_classes=classes)
    model.conv_proj = nn.Conv2d(channels, width, size // patches, stride=size // patches)
    nn.init.normal_(model.heads.head.weight, std=width**-0.5)
    return model


def norm_layers(channels: int, width: int) -> list[nn.Module]:
    """A 3×3 convolution that keeps the size, batch norm, ReLU."""
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
