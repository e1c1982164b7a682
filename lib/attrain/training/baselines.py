"""What else keeps a classifier off the background: the methods that ISNet is compared with.

Each step has the signature of `attrain.training.isnet_step`: it takes the model, images x (N, C, H, W) in
[0, 1], labels y (N,) and foreground masks (N, H, W), 1 (or True) = foreground, and returns the logits
(N, classes), the loss to call `backward` on, and its detached parts. λ is called `weight` throughout.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.masks import fit_mask
from attrain.methods import GradCAM, Gradient
from attrain.numbers import number
from attrain.training.loop import Result, result


class Segments(Protocol):
    """A classifier that segments too: images -> logits (N, classes) and the foreground's logits (N, 1, H, W)."""

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


def rrr_step(model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, *, weight: float = 1.0) -> Result:
    """Right for the right reasons (Ross, Hughes, Doshi-Velez 2017, eq. 1): a penalty on the input gradient.

    L = CE + λ · mean_n Σ_pixels ((1 − M) · ∂/∂x Σ_k log p_k(x_n))²

    The log-probabilities are summed, so the size of the batch does not change the penalty; batch norm's statistics are
    constants of the gradient, so that it is of p(x_n) alone. ISNet's authors
    differentiate their *mean over the batch*: their λ is N² times ours at the same strength, and with a
    batch of 128 their default does nothing.

    Args:
        weight: λ ≥ 0.

    Returns:
        see the module's docstring; the parts are "classification" and "background" (without λ).
    """
    background = _background(x, mask, weight)
    total = lambda logits: F.log_softmax(logits, 1).sum(1)  # noqa: E731
    method = Gradient(batch_statistics=False)  # of x_n's own prediction
    logits, gradient, *_ = explain(model, x, total, method, create_graph=True)
    return _penalised(logits, y, weight, background=((background * gradient) ** 2).flatten(1).sum(1).mean())


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
    return _penalised(logits, y, weight, background=share.mean())


def multitask_step(model: Segments, x: Tensor, y: Tensor, mask: Tensor, *, weight: float = 1.0) -> Result:
    """Classification and segmentation by one network: L = CE + λ · BCE(segmentation, M).

    Args:
        model: has `outputs(x)` -> logits (N, classes) and logits of the foreground (N, 1, H, W).
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
    return _penalised(logits, y, weight, segmentation=loss)


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
    return _penalised(model(replace_background(x, mask, source=source, generator=generator)), y, 0.0)


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
        source_image = ((torch.arange(len(x), device="cpu") + shift) % len(x)).to(x.device)
        other = torch.where(background > 0, x, mean)[source_image]
    else:
        raise ValueError(f'source must be "batch" or "noise", got {source!r}')
    return torch.where(background > 0, other, x)


def _background(x: Tensor, mask: Tensor, weight: float = 0.0) -> Tensor:
    """1 − M as (N, 1, H, W), after a look at the arguments."""
    if not number("weight", weight) >= 0:
        raise ValueError(f"weight must be >= 0, got {weight}")
    if mask.shape[-2:] != x.shape[-2:]:
        raise ValueError(f"mask must have the images' size {tuple(x.shape[-2:])}, got {tuple(mask.shape)}")
    return 1 - fit_mask(mask, x)[:, None]


def _penalised(logits: Tensor, y: Tensor, weight: float, **penalty: Tensor) -> Result:
    """CE + weight · penalty, and both as parts."""
    classification = F.cross_entropy(logits, y)
    loss = classification + sum(weight * value for value in penalty.values())
    return result(logits, loss, classification=classification, **penalty)
