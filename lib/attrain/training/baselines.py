"""What else keeps a classifier off the background: the methods that ISNet is compared with.

Each step has the signature of `attrain.training.isnet_step`: it takes the model, images x (N, C, H, W) in
[0, 1], labels y (N,) and foreground masks (N, H, W), 1 (or True) = foreground, and returns the logits
(N, classes), the loss to call `backward` on, and its detached parts. λ is called `weight` throughout.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.masks import fit_mask
from attrain.methods import GradCAM
from studies.nets.small import UNet

Result = tuple[Tensor, Tensor, dict[str, Tensor]]


def rrr_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, *, weight: float = 1.0) -> Result:
    """Right for the right reasons (Ross, Hughes, Doshi-Velez 2017, eq. 1): a penalty on the input gradient.

    L = CE + λ · mean_n Σ_pixels ((1 − M) · ∂/∂x Σ_k log p_k(x_n))²

    The log-probabilities are summed, so the size of the batch does not change the penalty. ISNet's authors
    differentiate their *mean over the batch*: their λ is N² times ours at the same strength, and with a
    batch of 128 their default does nothing.

    Args:
        weight: λ ≥ 0.

    Returns:
        see the module's docstring; the parts are "classification" and "background" (without λ).
    """
    background = _background(x, mask, weight)
    x = x.detach().requires_grad_()
    logits = model(x)
    (gradient,) = torch.autograd.grad(F.log_softmax(logits, 1).sum(), x, create_graph=True)
    return _result(logits, y, weight, background=((background * gradient) ** 2).flatten(1).sum(1).mean())


def gradcam_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, *, layer: str, weight: float = 1.0) -> Result:
    """Guidance by Grad-CAM: the share of the true class's Grad-CAM map that lies on the background.

    L = CE + λ · mean_n Σ (1 − M)·A / Σ A,   A = Grad-CAM at `layer`, enlarged linearly to the image

    The idea is that of guided attention (GAIN, Li et al. 2018) in the energy form of Rao et al. 2023. A map
    that is zero everywhere costs nothing.

    Args:
        layer: name of a module with an output (N, C, h, w).
        weight: λ ≥ 0.

    Returns:
        see the module's docstring; the parts are "classification" and "background" (without λ).
    """
    background = _background(x, mask, weight)
    logits, heatmap, *_ = explain(model, x, y, GradCAM(layer), create_graph=True)
    cam = heatmap[:, :1]
    share = (background * cam).flatten(1).sum(1) / (cam.flatten(1).sum(1) + 1e-10)
    return _result(logits, y, weight, background=share.mean())


def multitask_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, *, weight: float = 1.0) -> Result:
    """Classification and segmentation by one network: L = CE + λ · BCE(segmentation, M).

    Args:
        model: has `outputs(x)` -> logits (N, classes) and logits of the foreground (N, 1, H, W), as
            `MultiTaskUNet`.
        weight: λ ≥ 0.

    Returns:
        see the module's docstring; the parts are "classification" and "segmentation" (without λ).
    """
    foreground = 1 - _background(x, mask, weight)
    logits, segmentation = model.outputs(x)
    if segmentation.shape != foreground.shape:
        raise ValueError(
            f"model.outputs must segment to {tuple(foreground.shape)} (N, 1, H, W), got {tuple(segmentation.shape)}"
        )
    loss = F.binary_cross_entropy_with_logits(segmentation, foreground)
    return _result(logits, y, weight, segmentation=loss)


def background_replacement_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    source: str = "batch",
    generator: torch.Generator | None = None,
) -> Result:
    """Cross-entropy on images whose background has been replaced at random, see `replace_background`."""
    return _result(model(replace_background(x, mask, source=source, generator=generator)), y, 0.0)


def replace_background(
    x: Tensor, mask: Tensor, *, source: str = "batch", generator: torch.Generator | None = None
) -> Tensor:
    """Images on another background: M·x + (1 − M)·b.

    Args:
        x, mask: see the module's docstring.
        source: where b comes from. "batch": another image of the batch, drawn anew for each image (with two
            or more), its own foreground filled with the mean of its background; "noise": uniform in [0, 1).
        generator: draws (on the CPU); None uses torch's default generator.

    Returns:
        (N, C, H, W).

    Example:
        >>> x, mask = torch.tensor([[[[1.0, 0.2]]], [[[0.9, 0.6]]]]), torch.tensor([[[1, 0]], [[1, 0]]])
        >>> replace_background(x, mask).flatten(1)
        tensor([[1.0000, 0.6000],
                [0.9000, 0.2000]])
    """
    background = _background(x, mask)
    if source == "noise":
        other = torch.rand(x.shape, generator=generator, device="cpu").to(x)
    elif source == "batch":
        area = background.sum((2, 3), keepdim=True)
        mean = (x * background).sum((2, 3), keepdim=True) / area.clamp(min=1)
        shift = torch.randint(1, max(len(x), 2), (len(x),), generator=generator, device="cpu")
        another = ((torch.arange(len(x), device="cpu") + shift) % len(x)).to(x.device)
        other = torch.where(background > 0, x, mean)[another]
    else:
        raise ValueError(f'source must be "batch" or "noise", got {source!r}')
    return torch.where(background > 0, other, x)


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
            found = self.segmenter(x)
        found = found[:, None] if found.ndim == 3 else found
        if found.shape != (len(x), 1, *x.shape[-2:]):
            raise ValueError(f"the segmenter must return (N, 1, H, W) for {tuple(x.shape)}, got {tuple(found.shape)}")
        return found > 0

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


def _background(x: Tensor, mask: Tensor, weight: float = 0.0) -> Tensor:
    """1 − M as (N, 1, H, W), after a look at the arguments."""
    if not weight >= 0:
        raise ValueError(f"weight must be >= 0, got {weight}")
    if mask.shape[-2:] != x.shape[-2:]:
        raise ValueError(f"mask must have the images' size {tuple(x.shape[-2:])}, got {tuple(mask.shape)}")
    return 1 - fit_mask(mask, x)[:, None]


def _result(logits: Tensor, y: Tensor, weight: float, **penalty: Tensor) -> Result:
    """CE + weight · penalty, and both as parts."""
    parts = {"classification": F.cross_entropy(logits, y), **penalty}
    loss = parts["classification"] + sum(weight * value for value in penalty.values())
    return logits, loss, {name: part.detach() for name, part in parts.items()}
