"""EfficientNet-Lite0 (Google, 2020): convolutions and ReLU6 only, so every method explains it; small enough for a CPU.

EfficientNet-B0 (Tan, Le 2019) without squeeze-and-excitation and swish. It takes images in [0, 1], of 96 to 224 pixels,
and its first module is `input`, as in `studies.nets.resnets`, so that maps are read at the places named in `DEPTHS`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep import efficientnet_lite0 as imagenet

DEPTHS = {"Input": "input", "Mid1": "stages.2", "Mid2": "stages.4", "Final": "stages.6"}
_STAGES = [  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) in [0, 1] -> logits (N, classes).

    Args:
        classes: of the logits.
        weights: ImageNet's, from `data_prep.efficientnet_lite0.load()`; the last layer's are taken where it has
            1000 classes. None: drawn at random.

    Example:
        >>> import torch
        >>> EfficientNetLite0(classes=2).eval()(torch.rand(1, 3, 96, 96)).shape
        torch.Size([1, 2])
    """

    def __init__(self, classes: int, weights: dict[str, Tensor] | None = None):
        super().__init__()
        self.input, self.stem = Normalised(), _layer(3, 32, 3, stride=2)
        stages, channels = [], 32
        for kernel, stride, expansion, width, blocks in _STAGES:
            stage = []
            for i in range(blocks):
                stage.append(InvertedResidual(channels, width, kernel, 1 if i else stride, expansion))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.stages, self.head, self.fc = nn.Sequential(*stages), _layer(320, 1280, 1), nn.Linear(1280, classes)
        if weights is not None:
            self._load(weights)
        self.to(memory_format=torch.channels_last)  # as fast convolutions of few channels want it, also on a CPU

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.head(self.stages(self.stem(self.input(x)))).mean((2, 3)))

    def _load(self, weights: dict[str, Tensor]) -> None:
        """Theirs have other names and the same order."""
        own = {name: values for name, values in zip(self.state_dict(), weights.values(), strict=True)}
        if len(self.fc.bias) != 1000:
            own |= {f"fc.{name}": values for name, values in self.fc.state_dict().items()}
        self.load_state_dict(own)


def efficientnet_lite0(classes: int, pretrained: bool = False) -> EfficientNetLite0:
    """One that starts from ImageNet's weights (`python -m data_prep efficientnet_lite0`), or is drawn at random."""
    return EfficientNetLite0(classes, imagenet.load() if pretrained else None)


class Normalised(nn.Module):
    """(255 x − 127) / 128."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (255 / 128) - 127 / 128


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ⌈size / stride⌉ places, padded below and to the right where it cannot be even."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride):
            more = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [more // 2, more - more // 2]
        left, right, top, bottom = sides
        if (left, top) == (right, bottom):
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), self.dilation, self.groups)
        return super().forward(F.pad(x, sides))


class InvertedResidual(nn.Module):
    """1×1 to more channels, one filter a channel, 1×1 back without a ReLU; added to its input where that fits."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        layers = [_layer(inputs, inner, 1)] if expansion > 1 else []
        layers += [_layer(inner, inner, kernel, stride, groups=inner), _layer(inner, outputs, 1, active=False)]
        self.layers, self.adds = nn.Sequential(*layers), stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


def _layer(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True) -> nn.Module:
    convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
    return nn.Sequential(convolution, norm, *([nn.ReLU6()] if active else []))
