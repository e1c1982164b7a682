"""Which number of the logits is explained."""

from collections.abc import Callable

import torch
from torch import Tensor

Target = None | int | str | Tensor | Callable[[Tensor], Tensor]


def target_scores(logits: Tensor, target: Target) -> Tensor:
    """The explained numbers, (N,) or (N, K); see `attrain.attribution` for what `target` may be."""
    n, classes = logits.shape
    if target is None:
        target = logits.detach().argmax(1)
    if isinstance(target, str):
        if target != "all":
            raise ValueError(f'target as a string must be "all", got {target!r}')
        return logits
    if isinstance(target, int):
        target = torch.full((n,), target, device=logits.device)
    if isinstance(target, Tensor):
        return _gather(logits, target, n, classes)
    scores = target(logits)
    if not isinstance(scores, Tensor) or scores.shape != (n,):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"a callable target must return one number a sample, shape ({n},), got {got}")
    return scores


def _gather(logits: Tensor, target: Tensor, n: int, classes: int) -> Tensor:
    if target.dtype != torch.long or target.ndim not in (1, 2) or len(target) != n:
        raise ValueError(
            f"target must be a LongTensor of shape ({n},) or ({n}, K), got {target.dtype} {tuple(target.shape)}"
        )
    if target.numel() and not (0 <= int(target.min()) and int(target.max()) < classes):
        raise ValueError(f"target must be in [0, {classes - 1}], got {int(target.min())}..{int(target.max())}")
    target = target.to(logits.device)
    return logits.gather(1, target[:, None])[:, 0] if target.ndim == 1 else logits.gather(1, target)


def selective_target(eps: float = 1e-2) -> Callable[[Tensor], Tensor]:
    """Selective ISNet: the log-odds of the least likely class (Faster ISNet, "Selective ISNet").

    η = ln(p_c + ε) − ln(1 − p_c + ε), p = softmax(logits), c = argmin of the logits. Its gradient reaches
    the evidence of all classes, so one map stands for the original ISNet's one map a class.

    Args:
        eps: > 0, keeps η finite; it also makes the map vanish as p_c falls below it.

    Returns:
        a callable from logits (N, C) to (N,).

    Example:
        >>> selective_target()(torch.tensor([[2.0, -1.0, 0.5]]))
        tensor([-2.9841])
    """
    if not eps > 0:
        raise ValueError(f"eps must be > 0, got {eps}")

    def target(logits: Tensor) -> Tensor:
        lowest = logits.detach().argmin(1, keepdim=True)
        p = logits.softmax(1).gather(1, lowest)[:, 0]
        return (p + eps).log() - (1 - p + eps).log()

    return target


def stochastic_target(generator: torch.Generator | None = None, highest: float = 5 / 11) -> Callable[[Tensor], Tensor]:
    """Stochastic ISNet: the highest logit, or another one at random, drawn anew for each sample.

    Args:
        generator: draws (on the CPU); None uses torch's default generator.
        highest: probability of the highest logit. The article says 50 %, the authors' code draws 5/11.

    Returns:
        a callable from logits (N, C), C ≥ 2, to (N,).
    """
    if not 0 <= highest <= 1:
        raise ValueError(f"highest must be in [0, 1], got {highest}")

    def target(logits: Tensor) -> Tensor:
        n, classes = logits.shape
        if classes < 2:
            raise ValueError(f"stochastic_target needs at least 2 classes, got {classes}")
        top = logits.detach().argmax(1)
        other = torch.randint(1, classes, (n,), generator=generator, device="cpu").to(top.device)
        keep = (torch.rand(n, generator=generator, device="cpu") < highest).to(top.device)
        return logits.gather(1, torch.where(keep, top, (top + other) % classes)[:, None])[:, 0]

    return target


def mean_normalised_target(target: int | Tensor) -> Callable[[Tensor], Tensor]:
    """A class's logit less the mean of all logits: what tells a softmax's classes apart (DeepLIFT, section 3.6).

    A softmax does not change when all logits rise alike. Maps of methods that are linear in the target (not guided
    backprop's) are then those of the class less their mean over classes, C_c − (1/n) Σ C_c', and sum to 0 over classes.

    Args:
        target: a class, or LongTensor (N,), one a sample.

    Returns:
        a callable from logits (N, C) to (N,).

    Example:
        >>> mean_normalised_target(0)(torch.tensor([[2.0, -1.0, 0.5]]))
        tensor([1.5000])
    """
    return lambda logits: target_scores(logits, target) - logits.mean(1)


def softmax_target() -> Callable[[Tensor], Tensor]:
    """The highest class probability, max softmax(logits); with gradient × input, the softmax form of ISNet's ablation.

    Returns:
        a callable from logits (N, C) to (N,).

    Example:
        >>> softmax_target()(torch.tensor([[0.0, 0.0]]))
        tensor([0.5000])
    """
    return lambda logits: logits.softmax(1).amax(1)


def random_positive_target(y: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One of each sample's positive classes, uniformly, as a target for `explain` (Rao et al. 2023, section 3.1).

    Args:
        y: labels (N, C), positive where > 0; each sample needs a positive class.
        generator: draws (on the CPU); None uses torch's default generator.

    Returns:
        LongTensor (N,), on y's device.

    Example:
        >>> random_positive_target(torch.tensor([[0, 1, 0], [1, 0, 0]]))
        tensor([1, 0])
    """
    if y.ndim != 2:
        raise ValueError(f"y must be labels (N, C), got {tuple(y.shape)}")
    positive = (y > 0).float().cpu()
    without = (positive.sum(1) == 0).nonzero().flatten().tolist()
    if without:
        raise ValueError(f"y has no positive class for sample(s) {without[:8]}")
    if not len(y):
        return torch.empty(0, dtype=torch.long, device=y.device)
    return positive.multinomial(1, generator=generator)[:, 0].to(y.device)
