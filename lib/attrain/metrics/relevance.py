"""Where a map's relevance lies, what it sums to, and whether the network agrees with it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrain.masks import fit_mask
from attrain.numbers import number


def background_share(heatmap: Tensor, mask: Tensor) -> Tensor:
    """Share of the absolute relevance that lies on the background, Σ|R|(1−M) / Σ|R|, for each sample.

    A low share alone does not prove that the background is unused: a network trained on its maps can hide its use.

    Args:
        heatmap: (N, H, W), (N, C, H, W) or (N, K, C, H, W).
        mask: (N, H, W) or (N, 1, H, W), 1 = foreground; pooled to the map's size as in the losses.

    Returns:
        (N,) in [0, 1]; NaN where a map is zero everywhere, as it then has no share.

    Example:
        >>> import torch
        >>> background_share(torch.tensor([[[1.0, -3.0]]]), torch.tensor([[[1, 0]]]))
        tensor([0.7500])
    """
    foreground = fit_mask(mask, heatmap)
    position = heatmap.abs().flatten(1, -3).sum(1) if heatmap.ndim > 3 else heatmap.abs()
    return (position * (1 - foreground)).sum((1, 2)) / position.sum((1, 2))


def completeness_error(heatmap: Tensor, delta: Tensor) -> Tensor:
    """How far a map's sum is from what it should sum to, |ΣR − Δ| / |Δ|, for each map.

    Completeness (Sundararajan et al. 2017; "summation to delta", Shrikumar et al. 2017, eq. 1) says that
    nothing of the explained number is lost or made up on the way. It does not say that the map is right.

    Args:
        heatmap: (N, ...), or (N, K, ...) with K maps a sample.
        delta: (N,) or (N, K), as `Explanation.delta`.

    Returns:
        delta's shape, ≥ 0; infinite where delta is 0 and the map's sum is not, NaN where both are 0.

    Example:
        >>> import torch
        >>> completeness_error(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([3.0, 4.0]))
        tensor([0.0000, 0.2500])
    """
    if heatmap.shape[: delta.ndim] != delta.shape:
        raise ValueError(f"delta must have shape (N,) or (N, K) of the maps {tuple(heatmap.shape)}, got {delta.shape}")
    total = heatmap.flatten(delta.ndim).sum(-1) if heatmap.ndim > delta.ndim else heatmap
    return (total - delta).abs() / delta.abs()


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    """ln p/(1 − p) of a class a sample, from logits (N, C), C ≥ 2, and classes (N,); exact where p is 0 or 1 in floats.

    Example:
        >>> import torch
        >>> log_odds(torch.tensor([[100.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))
        tensor([100.,  -2.])
    """
    others = logits.scatter(1, target[:, None], -torch.inf)
    return logits.gather(1, target[:, None])[:, 0] - others.logsumexp(1)


def erase(x: Tensor, heatmap: Tensor, fraction: float, reference: float | Tensor = 0.0) -> Tensor:
    """Copies of the images with their most relevant positions, by the maps, set to a reference.

    Args:
        x: images (N, C, H, W), series or DNA (N, C, L), features (N, F) or token ids (N, L).
        heatmap: without channels, as (N, H, W), or of x's shape, then summed over channels; the largest values go
            first, so what speaks against the explained class goes last. Of equal values the first position goes first.
        fraction: of the positions, in [0, 1]; rounded to a whole number of them.
        reference: what takes their place, a number or a tensor that broadcasts to x; of token ids an id.

    Example:
        >>> import torch
        >>> erase(torch.ones(1, 1, 1, 4), torch.tensor([[[0.1, 0.9, -2.0, 0.3]]]), fraction=0.5)
        tensor([[[[1., 0., 1., 0.]]]])
    """
    if not 0 <= number("fraction", fraction) <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    places = x.shape[2:] if x.ndim > 2 else x.shape[1:]
    position = heatmap.sum(1) if heatmap.ndim == x.ndim > 2 else heatmap
    if position.shape != (len(x), *places):
        raise ValueError(
            f"heatmap must be {(len(x), *places)}, with channels or without, for x {tuple(x.shape)}, "
            f"got {tuple(heatmap.shape)}"
        )
    position = position.flatten(1)
    first = position.argsort(dim=1, descending=True, stable=True)[:, : round(float(fraction) * position.shape[1])]
    erased = torch.zeros_like(position, dtype=torch.bool).scatter(1, first, True)
    erased = erased.view(len(x), *(1,) * (x.ndim > 2), *places)
    return torch.where(erased, torch.as_tensor(reference, dtype=x.dtype, device=x.device), x)


@torch.no_grad()
def class_score(model: Callable[[Tensor], Any], x: Tensor, target: Tensor | Callable[[Any], Tensor]) -> Tensor:
    """(N,) log-odds of the classes (N,), or what a callable target makes of the model's output."""
    return log_odds(model(x), target) if isinstance(target, Tensor) else target(model(x))


@torch.no_grad()
def deletion_curve(
    model: Callable[[Tensor], Any],
    x: Tensor,
    heatmap: Tensor,
    target: Tensor | Callable[[Any], Tensor],
    fractions: Sequence[float],
    reference: float | Tensor = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """The fall of a class's log-odds as the most relevant positions are erased; a better map falls faster.

    (Samek et al. 2017, "region perturbation", with single pixels; Shrikumar et al. 2017 use log-odds.)
    Erased images are unlike the data, and a network may do anything there: compare with a random order.

    Args:
        model: x -> logits (N, classes); used as it is (call `eval()` first).
        x, heatmap, reference: see `erase`.
        target: classes (N,), or what makes numbers (N,) of the model's output, which then take the place of log-odds.
        fractions: of the positions that are erased, each from the full image.
        start: (N,), `class_score` of the full image, where it is known: it is the same for all maps of an image.

    Returns:
        (N, len(fractions)): log-odds of the full image − log-odds of the erased one.
    """
    full = class_score(model, x, target) if start is None else start
    return torch.stack([full - class_score(model, erase(x, heatmap, f, reference), target) for f in fractions], 1)


def insertion_curve(
    model: Callable[[Tensor], Any],
    x: Tensor,
    heatmap: Tensor,
    target: Tensor | Callable[[Any], Tensor],
    fractions: Sequence[float],
    reference: float | Tensor = 0.0,
    start: Tensor | None = None,
) -> Tensor:
    """The rise of a class's log-odds as the most relevant positions are put into a reference: faster by a better map.

    (Petsiuk et al. 2018, with log-odds.) Arguments as for `deletion_curve`; `start` is of the reference.

    Returns:
        (N, len(fractions)): log-odds of the reference with these positions of x − log-odds of the reference alone.
    """
    blank = torch.as_tensor(reference, dtype=x.dtype, device=x.device).expand_as(x)
    return 0.0 - deletion_curve(model, blank, heatmap, target, fractions, x, start)  # and not −0 where nothing changes


class Conversion(NamedTuple):
    """What `pixels_erased_log_odds` returns, each of length N.

    Attributes:
        change: (N,), the fall of the log-odds of the first class against the second.
        flipped: (N,) bool, whether the second class's logit is above the first's afterwards.
        erased: (N, C, H, W), the images without the pixels.
    """

    change: Tensor
    flipped: Tensor
    erased: Tensor


@torch.no_grad()
def pixels_erased_log_odds(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    heatmap: Tensor,
    classes: Tensor,
    pixels: int = 157,
    reference: float | Tensor = 0.0,
) -> Conversion:
    """Turn images of one class into another by erasing the pixels that most tell the first from the second.

    With D = S_o − S_t, the difference of the maps of the class o that an image has and the class t that it is to
    become, at most `pixels` pixels are set to the reference: those with D above max(θ, 0), where θ is the largest
    value of D after the first `pixels`. Pixels with D ≤ 0 stay, and so do all that are equal to θ: of equal values
    at the border either all go or none. (Shrikumar et al. 2017, section 4.1: 157 are 20 % of MNIST's 784 pixels.)

    Args:
        model: images (N, C, H, W) -> logits (N, classes); used as it is (call `eval()` first).
        x: images (N, C, H, W). Never modified.
        heatmap: (N, 2, H, W) or (N, 2, C, H, W), the maps of the two classes, as `explain(model, x, classes)`
            returns them; summed over channels.
        classes: (N, 2), an image's own class and the one that it is to become.
        pixels: how many are erased at most, ≥ 0; from H·W on, all with D > 0.
        reference: what takes their place, a number or a tensor that broadcasts to x.

    Returns:
        the change of the log-odds ln p_o/p_t = logit_o − logit_t, before less after, whether the image flipped
        (logit_o < logit_t afterwards), and the erased images.

    Raises:
        ValueError: shapes that do not fit, or a number of pixels below 0.

    Example:
        >>> import torch
        >>> model = lambda x: torch.stack([x.sum((1, 2, 3)), x[..., 0].sum((1, 2))], 1)
        >>> heatmap = torch.tensor([[[[1.0, 2.0, 3.0]], [[1.0, 0.0, 0.0]]]])
        >>> result = pixels_erased_log_odds(model, torch.ones(1, 1, 1, 3), heatmap, torch.tensor([[0, 1]]), pixels=1)
        >>> result.change, result.flipped, result.erased.flatten()
        (tensor([1.]), tensor([False]), tensor([1., 1., 0.]))
    """
    if x.ndim != 4 or heatmap.shape not in ((len(x), 2, *x.shape[2:]), (len(x), 2, *x.shape[1:])):
        raise ValueError(
            f"heatmap must be (N, 2, H, W) or (N, 2, C, H, W) of x {tuple(x.shape)}, got {tuple(heatmap.shape)}"
        )
    if classes.shape != (len(x), 2):
        raise ValueError(f"classes must be (N, 2), an image's own and another, got {tuple(classes.shape)}")
    if number("pixels", pixels, whole=True) < 0:
        raise ValueError(f"pixels must be ≥ 0, got {pixels}")
    position = heatmap.sum(2) if heatmap.ndim == 5 else heatmap
    difference = (position[:, 0] - position[:, 1]).flatten(1)
    threshold: float | Tensor = 0.0
    if pixels < difference.shape[1]:
        threshold = difference.sort(1, descending=True).values[:, pixels, None].clamp(min=0)
    gone = (difference > threshold).view(len(x), 1, *x.shape[2:])
    erased = torch.where(gone, torch.as_tensor(reference, dtype=x.dtype, device=x.device), x)
    before, after = (model(images).gather(1, classes) for images in (x, erased))
    odds = after[:, 0] - after[:, 1]
    return Conversion(before[:, 0] - before[:, 1] - odds, odds < 0, erased)


def rank_correlation(first: Tensor, second: Tensor, mask: Tensor | None = None) -> Tensor:
    """Spearman's rank correlation of two maps, for each sample; equal values share their mean rank.

    Args:
        first, second: maps of equal shape (N, ...).
        mask: of that shape; values where it is 0 are left out. None: all count.

    Returns:
        (N,) in [−1, 1], float64 on the CPU; NaN where a map is constant, as it then has no order.

    Example:
        >>> import torch
        >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 50.0, 10.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    if first.shape != second.shape or (mask is not None and mask.shape != first.shape):
        shapes = [tuple(t.shape) for t in (first, second, mask) if t is not None]
        raise ValueError(f"maps and mask must have one shape, got {', '.join(map(str, shapes))}")
    values = torch.stack([first, second]).detach().cpu().double()
    if mask is not None:
        values = values.masked_fill(~mask.cpu().bool(), torch.nan)
    ranks = _ranks(values.flatten(2))
    centred = (ranks - ranks.nanmean(2, keepdim=True)).nan_to_num()
    a, b = centred
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def _ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, of equal values their mean rank; NaN has none and counts for none."""
    none = values.isnan()
    ordered = values.masked_fill(none, torch.inf).sort(-1).values  # NaN last
    below, up_to = (torch.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    up_to = up_to.minimum((~none).sum(-1, keepdim=True))
    return ((below + up_to + 1) / 2).double().masked_fill(none, torch.nan)
