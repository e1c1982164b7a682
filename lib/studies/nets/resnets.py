"""Residual networks whose maps can be guided: vanilla, X-ResNet (without biases) and B-cos, small and large.

All have torchvision's layout and names (conv1, bn1, layer1 … layer4, fc), and a first module `input`, so the maps
of all of them are read at the same places, see `DEPTHS`. They take images in [0, 1].

| kind      | input      | convolution  | norm                          | map, and what it sums to at every depth |
|-----------|------------|--------------|-------------------------------|-----------------------------------------|
| "vanilla" | normalised | ordinary     | batch norm                    | `InputXGradient`, `GradCAM`             |
| "xdnn"    | normalised | without bias | none; fixup's init and scales | `InputXGradient`: the logit             |
| "bcos"    | [x, 1 − x] | B-cos, B = 2 | uncentred, without bias       | `BCos`: the logit                       |
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {"Input": "input", "Mid1": "layer1", "Mid2": "layer2", "Mid3": "layer3", "Final": "layer4"}
_BLOCKS = {"small": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def guided_resnet(
    kind: str, size: str, classes: int, channels: int = 3, width: int = 16, pretrained: bool = False
) -> nn.Module:
    """A residual network for guidance by maps (Rao et al. 2023, section 3.3).

    Args:
        kind: "vanilla", "xdnn" (Hesse, Schaub-Meyer, Roth 2021) or "bcos" (Böhle et al. 2022; no logit bias).
        size: "small" (one block a stage, a first convolution of 3×3 that keeps the size, for 28 to 96 pixels),
            "resnet18" or "resnet50" (torchvision's).
        classes, channels: of the logits, (N, classes), and of the images, (N, channels, H, W) in [0, 1].
        width: channels of the first stage of "small"; the others have 64.
        pretrained: torchvision's ImageNet weights and a new last layer; vanilla, of three channels, alone has them.

    Example:
        >>> net = guided_resnet("bcos", "small", classes=4).eval()
        >>> net(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 4])
    """
    if kind not in _PARTS:
        raise ValueError(f"kind must be {', '.join(_PARTS)}, got {kind!r}")
    if size not in _BLOCKS:
        raise ValueError(f"size must be {', '.join(_BLOCKS)}, got {size!r}")
    for name, value in {"classes": classes, "channels": channels, "width": width}.items():
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} must be a whole number ≥ 1, got {value!r}")
    if pretrained and (kind != "vanilla" or size == "small" or channels != 3):
        raise ValueError(
            f"torchvision has pretrained weights for kind vanilla, size resnet18 or resnet50 and 3 channels, "
            f"not for {kind!r}, {size!r} and {channels}"
        )
    net = _ResNet(kind, size, classes, channels, width if size == "small" else 64)
    if pretrained:  # the weights that the authors start from
        import torchvision

        weights = torchvision.models.get_model(size, weights="IMAGENET1K_V1").state_dict()
        net.load_state_dict({name: w for name, w in weights.items() if not name.startswith("fc.")}, strict=False)
    return net


class AddInverse(nn.Module):
    """[x, 1 − x] along the channels, so that dark pixels can be evidence too (Böhle et al. 2022)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, 1 - x], 1)


class BCosConv2d(nn.Conv2d):
    """A B-cos transform of every patch, B = 2: |cos(w, patch)| · ŵᵀ patch, ŵ of norm 1; no bias."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight / torch.linalg.vector_norm(self.weight, dim=(1, 2, 3), keepdim=True)
        linear = self._conv_forward(x, weight, None)
        squares = x.square().sum(1, keepdim=True)
        sums = F.avg_pool2d(squares, self.kernel_size, self.stride, self.padding, divisor_override=1)
        return linear * (linear.abs() / (sums + 1e-6).sqrt())


class UncentredNorm2d(nn.BatchNorm2d):
    """Batch norm that divides by the standard deviation, and neither subtracts the mean nor adds a bias.

    With the standard deviation as a constant it is linear: `attrain.BCos` sees to that.
    """

    def __init__(self, channels: int):
        super().__init__(channels)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        variance = self.running_var
        if self.training:
            centred = x - x.mean((0, 2, 3), keepdim=True)
            variance = centred.square().mean((0, 2, 3))  # torch's var takes ten times as long on a CPU
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                self.running_var.copy_((1 - share) * self.running_var + share * variance.detach())
        return x * (self.weight / (variance + self.eps).sqrt())[:, None, None]


class Scale(nn.Module):
    """A learned factor for all channels, as fixup has it behind each branch (Zhang, Dauphin, Ma 2019)."""

    def __init__(self, channels: int, start: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _normalised(channels: int) -> nn.Module:
    from torchvision.transforms import Normalize  # slow to import

    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if channels == 3 else ([0.5], [0.25])
    return Normalize(mean, std)  # ImageNet's for colours


# What the three kinds are made of: input, convolution, norm, activation, pool.
_PARTS = {
    "vanilla": (_normalised, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d),
    "xdnn": (_normalised, nn.Conv2d, Scale, nn.ReLU, nn.MaxPool2d),
    "bcos": (lambda channels: AddInverse(), BCosConv2d, UncentredNorm2d, nn.Identity, nn.AvgPool2d),
}


class _Block(nn.Module):
    """A residual block: two convolutions, or three with a bottleneck."""

    def __init__(self, parts, inputs: int, width: int, stride: int, bottleneck: bool):
        super().__init__()
        _, conv, norm, act, _ = parts
        outputs = 4 * width if bottleneck else width
        sides, strides = ((1, 3, 1), (1, stride, 1)) if bottleneck else ((3, 3), (stride, 1))
        widths = [inputs, *[width] * (len(sides) - 1), outputs]
        self.depth = len(sides)
        for i, (a, b, side, step) in enumerate(zip(widths, widths[1:], sides, strides), 1):
            self.add_module(f"conv{i}", conv(a, b, side, step, side // 2, bias=False))
            self.add_module(f"bn{i}", norm(b))
        self.relu, self.downsample = act(), nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(out))
            out = self.relu(out) if i < self.depth else out
        return self.relu(out + self.downsample(x))


class _ResNet(nn.Module):
    def __init__(self, kind: str, size: str, classes: int, channels: int, width: int):
        super().__init__()
        parts, bottleneck, small = _PARTS[kind], size == "resnet50", size == "small"
        prepare, conv, norm, act, pool = parts
        self.input = prepare(channels)
        inputs = 2 * channels if kind == "bcos" else channels
        self.conv1 = conv(inputs, width, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1, self.relu = norm(width), act()
        self.maxpool = nn.Identity() if small else pool(3, 2, 1)
        inputs = width
        for i, depth in enumerate(_BLOCKS[size]):
            outputs = width * 2**i
            blocks = []
            for b in range(depth):
                blocks.append(_Block(parts, inputs, outputs, 2 if i and not b else 1, bottleneck))
                inputs = 4 * outputs if bottleneck else outputs
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        # A B-cos network judges every place and averages the judgements. They are small, so that a small network would
        # learn slowly; a factor changes nothing in that the map sums to the logit.
        self.places = kind == "bcos"
        self.scale = Scale(classes, 10.0 if small else 1.0) if self.places else nn.Identity()
        self.fc = (
            BCosConv2d(inputs, classes, 1, bias=False) if self.places else nn.Linear(inputs, classes, kind != "xdnn")
        )
        if kind == "xdnn":
            self._fixup(sum(_BLOCKS[size]))

    def _fixup(self, blocks: int) -> None:
        """Without norms: small branches that start at zero, so that depth does not change the size of the signal."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            for block in self.modules():
                if isinstance(block, _Block):
                    *inner, last = (block.get_submodule(f"conv{i}") for i in range(1, block.depth + 1))
                    for conv in inner:
                        conv.weight.mul_(blocks ** (-1 / (2 * len(inner))))
                    last.weight.zero_()
            self.fc.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.input(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.scale(self.fc(x).mean((2, 3))) if self.places else self.fc(x.mean((2, 3)))
