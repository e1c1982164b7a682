"""Networks that segment: U-Net, a classifier on what one leaves of an image, and one that does both."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studies.nets.small import norm_layers


class UNet(nn.Module):
    """U-Net (Ronneberger, Fischer, Brox 2015) with batch norm, for small images.

    Two 3×3 convolutions a level; the image is halved and the number of channels doubled `depth` times, then
    brought back by transposed convolutions with the encoder's features beside them. An image whose sides are no
    multiples of 2^depth is padded with zeros at the bottom and the right, and the logits are cropped again.

    Input (N, in_channels, H, W), output logits (N, out_channels, H, W). The encoder alone is `encode`: its last
    feature map, (N, width·2^depth, ⌈H/2^depth⌉, ⌈W/2^depth⌉), is what a classifier beside the decoder takes.

    Args:
        in_channels, out_channels: ≥ 1.
        width: channels of the first level, ≥ 1.
        depth: how often the image is halved, ≥ 1.

    Example:
        >>> net = UNet().eval()
        >>> net(torch.rand(2, 1, 50, 33)).shape
        torch.Size([2, 1, 50, 33])
        >>> net.encode(torch.rand(2, 1, 50, 33))[-1].shape
        torch.Size([2, 128, 7, 5])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 16, depth: int = 3):
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "width": width, "depth": depth}
        for name, value in sizes.items():
            if not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be a whole number ≥ 1, got {value!r}")
        widths = [width * 2**level for level in range(depth + 1)]
        self.in_channels = in_channels
        self.encoder = nn.ModuleList(_double_convolution(a, b) for a, b in zip([in_channels, *widths], widths))
        deeper = list(zip(widths[::-1], widths[-2::-1]))  # (channels below, channels of this level), deepest first
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, level, 2, stride=2) for below, level in deeper)
        self.decoder = nn.ModuleList(_double_convolution(2 * level, level) for _, level in deeper)
        self.head = nn.Conv2d(width, out_channels, 1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The feature map of each level, finest first, of the padded image."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or 0 in x.shape:
            raise ValueError(f"UNet takes images (N, {self.in_channels}, H, W) with N, H, W ≥ 1, got {tuple(x.shape)}")
        multiple = 2 ** len(self.up)
        x = F.pad(x, (0, -x.shape[-1] % multiple, 0, -x.shape[-2] % multiple))
        features = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits (N, out_channels, h, w) of the padded image, from what `encode` returns."""
        x = features[-1]
        for up, block, skipped in zip(self.up, self.decoder, features[-2::-1]):
            x = block(torch.cat([skipped, up(x)], 1))
        return self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))[..., : x.shape[-2], : x.shape[-1]]


class SegmentThenClassify(nn.Module):
    """Classifies x with everything that the segmenter takes for background set to zero.

    Args:
        segmenter: x (N, C, H, W) -> logits of the foreground (N, 1, H, W) or (N, H, W); > 0 is foreground.
            It is used as it is: its parameters get no gradient, and it stays in evaluation mode.
        classifier: (N, C, H, W) -> logits (N, classes), to be trained on segmented images.

    With masks that are given (an oracle), call the classifier on x · mask instead.
    """

    def __init__(self, segmenter: nn.Module, classifier: nn.Module):
        super().__init__()
        self.segmenter, self.classifier = segmenter.eval(), classifier

    def train(self, mode: bool = True) -> "SegmentThenClassify":
        super().train(mode)
        self.segmenter.eval()
        return self

    def segment(self, x: Tensor) -> Tensor:
        """The foreground, (N, 1, H, W) bool."""
        with torch.no_grad():
            logits = self.segmenter(x)
        logits = logits[:, None] if logits.ndim == 3 else logits
        if logits.shape != (len(x), 1, *x.shape[-2:]):
            raise ValueError(f"the segmenter must return (N, 1, H, W) for {tuple(x.shape)}, got {tuple(logits.shape)}")
        return logits > 0

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x * self.segment(x).to(x))


class MultiTaskUNet(UNet):
    """A `UNet` that classifies from its bottleneck and segments at its end.

    Input (N, channels, H, W) with H and W divisible by 2^depth. Called, it returns the logits (N, classes)
    alone, and the decoder does not run; `outputs` returns the segmentation as well.
    """

    def __init__(self, classes: int = 10, channels: int = 1, width: int = 16, depth: int = 2):
        super().__init__(channels, 1, width, depth)
        bottleneck = width * 2**depth
        self.classify = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * bottleneck, classes))

    def encode(self, x: Tensor) -> list[Tensor]:
        """The feature map of each level; without padding, so that z^B finds the image go straight into a layer."""
        multiple = 2 ** len(self.up)
        if x.shape[-1] % multiple or x.shape[-2] % multiple:
            raise ValueError(f"MultiTaskUNet needs H and W divisible by {multiple}, got {tuple(x.shape)}")
        features = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            features.append(block(F.max_pool2d(features[-1], 2)))
        return features

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.encode(x)[-1])

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classes (N, classes) and of the foreground (N, 1, H, W)."""
        features = self.encode(x)
        return self.classify(features[-1]), self.decode(features)


def _double_convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(*norm_layers(channels, width), *norm_layers(width, width))
