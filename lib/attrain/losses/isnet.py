"""ISNet's heatmap losses (Bassi, Dertkigil, Cavalli 2024; Bassi, Decherchi, Cavalli 2024).

Shapes, throughout: a heatmap is (N, H, W), (N, C, H, W) or (N, K, C, H, W) for K maps a sample; a mask is
(N, H, W) or (N, 1, H, W) with 1 (or True) = foreground. A mask of another size is average-pooled to the
map's and every cell with any foreground counts as foreground. The formulas are the authors' code's,
which these values equal. Half-precision maps are computed in float32, under autocast too.

What is defined at the edges:

- A mask without foreground raises, and names the samples: the map is measured relative to its foreground,
  and there is none. (The authors' code prints a line; the sample then adds a constant and trains nothing.)
  An image whose foreground is not known takes a full mask: it has no background loss, and the foreground
  loss still holds the amount of its relevance. So a batch never has to be taken apart.
- A full mask has the background loss 0.
- NaN in a map counts as the batch's mean relevance over the foreground, +inf and -inf as the map's largest
  and smallest finite value in the batch, as in the authors' code. The loss stays finite, but no gradient
  reaches what made the NaN: a network whose weights have diverged shows in its classification loss.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrain.masks import fit_mask
from attrain.numbers import number
from attrain.tensors import finite

Bound = float | Sequence[float]  # one for all maps of a sample, or one each
_TINY = 1e-10


def gwrp(values: Tensor, decay: float) -> Tensor:
    """Global weighted rank pooling over the last dimension.

    Σ_r d^r v_(r) / Σ_r d^r with v sorted in descending order: d = 0 is the maximum, d = 1 the mean.
    Ranks whose weight is below the dtype's resolution are not sorted out, so small d is fast and exact.

    Args:
        values: (..., n), non-negative (else the resolution argument fails and the result is approximate).
        decay: d in [0, 1].

    Returns:
        (...)

    Example:
        >>> gwrp(torch.tensor([1.0, 4.0, 2.0]), decay=0.5)
        tensor(3.)
    """
    if not 0 <= number("decay", decay) <= 1:
        raise ValueError(f"decay must be in [0, 1], got {decay}")
    if decay == 1:
        return values.mean(-1)
    if decay == 0:
        return values.amax(-1)
    n = values.shape[-1]
    k = min(n, math.ceil(math.log(torch.finfo(values.dtype).eps) / math.log(decay)))
    powers = torch.arange(k - 1, -1, -1, dtype=torch.float64, device="cpu")  # those of d near 1 need the digits
    weights = decay**powers
    largest = values.topk(k).values.flip(-1) if k < n else values.sort().values
    return (largest * (weights / weights.sum()).to(values)).sum(-1)  # no matmul: autocast would halve them


def isnet_background_loss(
    heatmap: Tensor, mask: Tensor, *, decay: float = 0.9, E: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Background relevance, relative to the foreground's mean: L_bg = ln(1 + B/E).

    |R| is divided by its mean over the foreground, the foreground is set to zero, and GWRP over the
    positions gives B for each channel and map; the loss is the mean over channels and maps.

    Args:
        heatmap: (N, H, W), (N, C, H, W) or (N, K, C, H, W), any values; see the module's docstring.
        mask: (N, H, W) or (N, 1, H, W) of 0 and 1, 1 = foreground; every sample needs some.
        decay: GWRP's d in [0, 1]; near 0 the most relevant background pixel decides.
        E: > 0, the background level at which the loss starts to saturate.
        reduction: "mean" or "sum" over samples, or "none" for (N,).

    Raises:
        ValueError: shapes that do not fit, a mask that is not 0/1 or empty for some sample.

    The authors write −ln(1 − B/(B+E)) and clamp it at B/E = 1e7, beyond which their gradient is zero;
    ours is the same number below and keeps its gradient above.

    Example:
        >>> mask = torch.tensor([[[1, 1, 0, 0]]])
        >>> isnet_background_loss(torch.tensor([[[2.0, 4.0, 3.0, 0.0]]]), mask, decay=0)  # ln(1 + 3/3)
        tensor(0.6931)
    """
    outside, _, mean = _prepare(heatmap, mask)
    return _reduce(_background(outside, mean, decay, E), reduction)


def isnet_foreground_loss(
    heatmap: Tensor,
    mask: Tensor,
    *,
    C1: Bound = 1.0,
    C2: Bound = 25.0,
    form: str = "L2",
    reduction: str = "mean",
) -> Tensor:
    """Keeps the foreground's total relevance F = Σ |R|·M in its natural range [C1, C2].

    L_fg = (min(F/C1, 1) − 1)² + (max(F/C1, C2/C1) − C2/C1)², mean over maps. Without it a network can
    lower the background loss by letting its whole map vanish or explode.

    Args:
        heatmap, mask, reduction: (N, [K,] [C,] H, W) and (N, H, W), as in `isnet_background_loss`; the raw map,
            not normalised.
        C1, C2: 0 < C1 ≤ C2, one number or one a map (K of them, as Dual ISNet's two maps need); see
            `attrain.training.estimate_foreground_range`.
        form: "L2" as above, or "hybrid": above F = C1 + C2 linear, F − C1 − C2 + 1.

    Example:
        >>> isnet_foreground_loss(torch.tensor([[[0.1, 0.4, 9.0]]]), torch.tensor([[[1, 1, 0]]]))  # (0.5 − 1)²
        tensor(0.2500)
    """
    return _reduce(_foreground(_prepare(heatmap, mask)[1], C1, C2, form), reduction)


def isnet_losses(
    heatmap: Tensor,
    mask: Tensor,
    *,
    decay: float = 0.9,
    E: float = 1.0,
    C1: Bound = 1.0,
    C2: Bound = 25.0,
    form: str = "L2",
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """`isnet_background_loss` and `isnet_foreground_loss`, arguments as there, in little more than the time of one."""
    outside, total, mean = _prepare(heatmap, mask)
    background, foreground = _background(outside, mean, decay, E), _foreground(total, C1, C2, form)
    return _reduce(background, reduction), _reduce(foreground, reduction)


def isnet_loss(heatmap: Tensor, mask: Tensor, *, w1: float = 1.0, w2: float = 1.0, **settings: Any) -> Tensor:
    """w1 · `isnet_background_loss` + w2 · `isnet_foreground_loss`, the L_heat that `attrain.training.isnet_step` adds.

    Args:
        heatmap, mask: (N, [K,] [C,] H, W) and (N, H, W); these and the settings decay, E, C1, C2, form and reduction
            as in the two losses.
    """
    background, foreground = isnet_losses(heatmap, mask, **settings)
    return w1 * background + w2 * foreground


def _background(outside: Tensor, mean: Tensor, decay: float, E: float) -> Tensor:
    if not number("E", E) > 0:
        raise ValueError(f"E must be > 0, got {E}")
    pooled = gwrp(outside.flatten(-2), decay) / (mean[..., None] + _TINY)  # (N, K, C)
    return torch.log1p(pooled / E).mean((1, 2))


def _foreground(total: Tensor, C1: Bound, C2: Bound, form: str) -> Tensor:
    if form not in ("L2", "hybrid"):
        raise ValueError(f'form must be "L2" or "hybrid", got {form!r}')
    low, high = _range(C1, C2, total)
    below = ((total / low).clamp(max=1) - 1) ** 2
    above = (total / low - high / low).clamp(min=0) ** 2
    if form == "hybrid":
        above = torch.where(total > low + high, total - (low + high) + 1, above)
    return (below + above).mean(1)


def _prepare(heatmap: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """|R| in the background (N, K, C, H, W), and its sum and mean in the foreground (N, K) each."""
    if heatmap.dtype in (torch.float16, torch.bfloat16):
        heatmap = heatmap.float()
    foreground = fit_mask(mask, heatmap)
    area = foreground.flatten(1).sum(1, keepdim=True)
    empty = (area == 0).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"mask has no foreground for sample(s) {empty[:8]}; leave them out of the loss")
    foreground = foreground[:, None, None]
    maps = heatmap.reshape(len(heatmap), *[1] * (5 - heatmap.ndim), *heatmap.shape[1:])
    relevance = _finite(maps, foreground).abs()
    inside = relevance * foreground
    total = inside.sum((-3, -2, -1))
    return relevance - inside, total, total / (area * relevance.shape[2] + _TINY)


def _finite(maps: Tensor, foreground: Tensor) -> Tensor:
    if finite(maps):
        return maps
    known = maps.detach().nan_to_num(0.0, 0.0, 0.0)
    inside = foreground.expand_as(maps)
    mean = (known * inside).sum() / (inside.sum() + _TINY)
    filled = torch.where(maps.isnan(), mean, torch.where(maps > 0, known.max(), known.min()))
    return torch.where(maps.isfinite(), maps, filled)


def _range(C1: Bound, C2: Bound, total: Tensor) -> tuple[Tensor, Tensor]:
    """C1 and C2 as tensors that go with the totals (N, K)."""
    said = f"C1={C1}, C2={C2}"
    low, high = (torch.as_tensor(c, dtype=total.dtype, device="cpu") for c in (C1, C2))  # checked without the device
    for c in (low, high):
        if c.ndim and c.shape != total.shape[1:]:
            raise ValueError(f"C1 and C2 must be one number, or one for each of {total.shape[1]} maps, got {said}")
    if not ((low > 0) & (low <= high)).all():
        raise ValueError(f"C1 and C2 must satisfy 0 < C1 <= C2, got {said}")
    return low.to(total.device), high.to(total.device)


def _reduce(per_sample: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return per_sample
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    return per_sample.mean() if reduction == "mean" else per_sample.sum()
