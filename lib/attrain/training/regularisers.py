"""What else keeps a network from learning too few samples by heart: the methods that Challenger is compared with.

Each step has the signature of `attrain.training.plain_step`: it takes the model, x (N, ...), labels y (N,),
and returns logits (N, C), the loss to call `backward` on, and its detached parts. Inputs are floating
point; random numbers are drawn on the CPU by `generator`, or by torch's default generator.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.methods import LRP, Method
from attrain.numbers import number
from attrain.training.loop import Result, result
from attrain.training.modules import evaluating, hooked, statistics_kept

Generator = torch.Generator | None


def label_smoothing_step(model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, smoothing: float = 0.1) -> Result:
    """Cross-entropy with labels that give `smoothing` of their weight to all classes alike (Szegedy et al. 2016)."""
    logits = model(x)
    return _classified(logits, F.cross_entropy(logits, y, label_smoothing=smoothing))


def noise_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, sd: float = 0.3, generator: Generator = None
) -> Result:
    """Cross-entropy on inputs with Gaussian noise of standard deviation `sd`."""
    return _on(model, x + sd * torch.randn(x.shape, generator=generator, device="cpu").to(x), y)


def input_dropout_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, p: float = 0.2, generator: Generator = None
) -> Result:
    """Cross-entropy on inputs of which a share `p` is zero and the rest is divided by 1 − p."""
    if not 0 <= number("p", p) < 1:
        raise ValueError(f"p must be in [0, 1), got {p}")
    return _on(model, x * (torch.rand(x.shape, generator=generator, device="cpu") >= p).to(x) / (1 - p), y)


def cutout_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, size: int = 3, generator: Generator = None
) -> Result:
    """Cutout (DeVries, Taylor 2017): a square (or, of series, a stretch) of edge `size` is zero, centred anywhere.

    Args:
        x: (N, C, H, W) or (N, C, L).
    """
    outside = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool, device="cpu")
    for axis, length in enumerate(x.shape[2:], 1):
        centre = torch.randint(length, (len(x), 1), generator=generator, device="cpu")
        first = centre - size // 2
        places = torch.arange(length, device="cpu")
        hit = (places >= first) & (places < first + size)  # (N, length)
        outside |= ~hit.reshape(len(x), *(length if a == axis else 1 for a in range(1, x.ndim - 1)))
    return _on(model, x * outside[:, None].to(x), y)


def mixup_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, alpha: float = 0.4, layer: str = "", generator: Generator = None
) -> Result:
    """Mixup (Zhang et al. 2018): λ·x + (1 − λ)·x', and the labels likewise, λ of Beta(α, α), one a batch.

    The logits that it returns are those of mixed inputs: an accuracy in training says little.

    Args:
        layer: a module's name, to mix its output instead of the input (Verma et al. 2019): embeddings of words.
    """
    a, b = torch._standard_gamma(torch.full((2,), float(alpha), device="cpu"), generator=generator).tolist()
    share = a / (a + b) if a + b else 0.5
    other = torch.randperm(len(x), generator=generator, device="cpu").to(x.device)
    logits = _changed(model, x, layer, lambda h: share * h + (1 - share) * h[other])
    return _classified(logits, share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other]))


def dropout_step(model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, layer: str, p: float = 0.5) -> Result:
    """Cross-entropy with dropout at the output of `layer`, a module's name; drawn by torch's default generator."""
    logits = _changed(model, x, layer, lambda h: F.dropout(h, p))
    return _classified(logits, F.cross_entropy(logits, y))


def word_dropout_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, p: float = 0.1, unknown: int = 1, generator: Generator = None
) -> Result:
    """Cross-entropy on sentences of which a share `p` of the words is replaced by the unknown one.

    Args:
        x: word numbers (N, T); 0, where a sentence has ended, stays.
        unknown: that word's number.
    """
    dropped = torch.rand(x.shape, generator=generator, device="cpu").to(x.device) < p
    return _on(model, x.masked_fill(dropped & (x != 0), unknown), y)


def fgsm_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, eps: float = 0.6, beta: float = 0.5, generator: Generator = None
) -> Result:
    """Training on adversarial samples too (Goodfellow et al. 2015): (1 − β)·CE(x) + β·CE(x + e·s·sign(∂CE/∂x)).

    As in `attrain.challenger.Challenger`, e is uniform in [0, eps) a sample, s the standard deviation of the sample,
    and adversarial samples leave batch norm's running statistics alone.
    """
    one = (len(x), *[1] * (x.ndim - 1))
    with evaluating(model):
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    draw = torch.rand(one, generator=generator, device="cpu").to(x)
    step = eps * draw * x.flatten(1).std(1, correction=0).reshape(one)
    logits = model(x)
    with statistics_kept(model):
        adversarial = F.cross_entropy(model(x + step * gradient.sign()), y)
    return _classified(logits, (1 - beta) * F.cross_entropy(logits, y) + beta * adversarial)


def relevance_dropout_step(
    model: nn.Module, x: Tensor, y: Tensor, *_: Tensor, method: Method = LRP(epsilon=1e-3), **settings: Any
) -> Result:
    """Cross-entropy on images after `relevance_dropout`, with the label's relevance in evaluation mode."""
    with evaluating(model):
        relevance = explain(model, x, y, method).heatmap
    return _on(model, relevance_dropout(x, relevance, **settings), y)


def relevance_dropout(
    x: Tensor, R: Tensor, *, form: str = "pixel", alpha: float = 0.3, beta: float = 0.5, p: float | None = None,
    k: int = 1, area: tuple[float, float] = (0.02, 0.4), aspect: float = 0.3, fill: float | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """RelDrop (Gururaj et al. 2025): images with relevant places replaced by the mean.

    "pixel": where α·u + (1 − α)·r ≥ 1 − β, with u uniform in [0, 1) a pixel and r the relevance, summed over
    channels and scaled to [0, 1] in each image. "block": a rectangle centred on one of the k most relevant pixels.

    Args:
        x, R: images and their relevance, (N, C, H, W).
        p: probability that an image is changed at all; None: .3 for pixels, .5 for blocks, the authors' defaults.
        area, aspect: of a block: bounds of its share of the image, and the least ratio of its sides.
        fill: what replaces a pixel; None: the mean of the image's channel.
        generator: draws (on the CPU); None uses torch's default generator.
    """
    if x.ndim != 4 or R.shape != x.shape:
        raise ValueError(f"x and R must both be (N, C, H, W), got {tuple(x.shape)} and {tuple(R.shape)}")
    if form not in ("pixel", "block"):
        raise ValueError(f'form must be "pixel" or "block", got {form!r}')
    r = R.sum(1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device="cpu").to(r)

    if form == "pixel":
        low, high = r.amin((1, 2), keepdim=True), r.amax((1, 2), keepdim=True)
        r = (r - low) / torch.where(high > low, high - low, 1.0)
        dropped = alpha * uniform(*r.shape) + (1 - alpha) * r >= 1 - beta
    else:
        dropped = _blocks(r, k, area, aspect, uniform)
    p = {"pixel": 0.3, "block": 0.5}[form] if p is None else p
    dropped = dropped & (uniform(len(x)) < p)[:, None, None]
    fill = x.mean((2, 3), keepdim=True) if fill is None else torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    return torch.where(dropped[:, None], fill, x)


def _blocks(r: Tensor, k: int, area: tuple[float, float], aspect: float, uniform: Callable[..., Tensor]) -> Tensor:
    n, height, width = r.shape
    best = r.flatten(1).topk(k, 1).indices
    centre = best.gather(1, (uniform(n, 1) * k).long().clamp(max=k - 1))[:, 0]
    share = (area[0] + (area[1] - area[0]) * uniform(n)) * height * width
    widest = torch.log(torch.tensor(aspect, dtype=torch.float32, device=r.device)).to(r)
    ratio = torch.exp((2 * uniform(n) - 1) * -widest)
    half = torch.stack([(share * ratio).sqrt(), (share / ratio).sqrt()], 1) / 2
    rows, columns = torch.arange(height, device=r.device), torch.arange(width, device=r.device)
    down = (rows - (centre // width)[:, None]).abs() <= half[:, :1]
    across = (columns - (centre % width)[:, None]).abs() <= half[:, 1:]
    return down[:, :, None] & across[:, None, :]


def _changed(model: nn.Module, x: Tensor, layer: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits with a layer's output changed, or with the input if there is no layer."""
    with hooked(model, layer, lambda module, args, output: change(output)):
        return model(x if layer else change(x))


def _on(model: nn.Module, x: Tensor, y: Tensor) -> Result:
    logits = model(x)
    return _classified(logits, F.cross_entropy(logits, y))


def _classified(logits: Tensor, loss: Tensor) -> Result:
    return result(logits, loss, classification=loss)
