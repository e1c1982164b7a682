"""Which number of a model's output is explained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrain.numbers import number
from attrain.tensors import logits_of

Target = None | int | str | Tensor | Sequence[int] | Callable[[Tensor], Tensor]
_ACCEPTED = (
    'None (the predicted class), an int, a sequence or LongTensor of N classes, a LongTensor (N, K), "all", '
    "or a callable from the model's output to (N,) or (N, K) numbers"
)


@dataclass(frozen=True, eq=False)
class Scores:
    """From a model's output to the explained numbers.

    Args:
        target: see `attrain.explain`.
        n: the number of samples.
        state: of torch's random numbers, for a callable that draws: each time the same.
    """

    target: Any  # as `check_target` gives it
    n: int
    state: Tensor | None = None

    @property
    def callable(self) -> bool:
        """Whether the target is a function of the output."""
        return callable(self.target)

    @property
    def is_default(self) -> bool:
        """Whether no class is chosen: None or "all"."""
        return self.target is None or (isinstance(self.target, str) and self.target == "all")

    def logits(self, output: Any, scores: Tensor | None = None) -> Tensor:
        """The output as `Explanation` keeps it: a tensor, an object's `.logits`, or else the explained numbers."""
        logits = logits_of(output)
        return logits if isinstance(logits, Tensor) or scores is None else scores

    def check(self, output: object) -> None:
        """Raise ValueError if the output is none that the target can be taken from."""
        if self.callable:
            return
        logits = self.logits(output)
        if not isinstance(logits, Tensor) or logits.ndim not in (1, 2) or len(logits) != self.n:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
            raise ValueError(
                f"model must return logits of shape ({self.n}, C) or ({self.n},), or an object with such .logits, got "
                f"{got}; of any other output a callable target takes the explained numbers"
            )

    def __call__(self, output: Any) -> Tensor:
        """The explained numbers, (N,) or (N, K)."""
        if self.callable:
            return self._called(output)
        logits = self.logits(output)
        if logits.ndim == 1:
            return _single(logits, self.target)
        return target_scores(logits, self.target)

    def _called(self, output: Any) -> Tensor:
        if self.state is not None:
            before = torch.get_rng_state()
            torch.set_rng_state(self.state)
        scores = self.target(output)
        if self.state is not None:
            torch.set_rng_state(before)
        if not isinstance(scores, Tensor) or scores.ndim not in (1, 2) or len(scores) != self.n:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"a callable target must return one number a sample, shape ({self.n},), or K of them, ({self.n}, K), "
                f"got {got}"
            )
        if not scores.is_floating_point():
            raise ValueError(f"a callable target must return floating point numbers, got {scores.dtype}")
        return scores

    def fixed(self, output: Any) -> "Scores":
        """The same with its choice from this output made for good: a predicted or drawn class, random numbers."""
        if self.target is None and self.logits(output).ndim == 2:
            return Scores(self.logits(output).detach().argmax(1), self.n)
        if hasattr(self.target, "draw"):
            return Scores(self.target.draw(self.logits(output).detach()), self.n)
        return Scores(self.target, self.n, torch.get_rng_state()) if self.callable else self


def check_target(target: Any, n: int) -> Any:
    """A target in a form that `Scores` takes: an int, a LongTensor, None, "all" or a callable.

    Raises:
        TypeError, ValueError: what is none of them, does not have one row for each sample, or looks one-hot.
    """
    target = _classes(target, n)
    several = isinstance(target, Tensor) and target.ndim == 2 and target.shape[1] > 1
    if several and bool(((target == 0) | (target == 1)).all() and (target.sum(1) == 1).all()):
        raise ValueError(
            f"target of shape {tuple(target.shape)} looks one-hot, and would be read as {target.shape[1]} classes a "
            'sample: give target.argmax(1), or "all" for one map a class'
        )
    return target


def _classes(target: Any, n: int) -> Any:
    """A target in a form that `Scores` takes."""
    if target is None or callable(target) or (isinstance(target, str) and target == "all"):
        return target
    if isinstance(target, bool | np.bool_ | str | float):
        raise ValueError(f"target must be {_ACCEPTED}, got {target!r}")
    if isinstance(target, int | np.integer):
        return int(target)
    if isinstance(target, np.ndarray | list | tuple | range):
        try:
            found = np.asarray(target)
            target = torch.as_tensor(found if found.size else found.astype(int), device="cpu")  # of none, floats
        except (TypeError, ValueError):
            raise ValueError(f"target must be {_ACCEPTED}, got {target!r}") from None
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be {_ACCEPTED}, got {type(target).__name__}")
    given = f"{target.dtype} {tuple(target.shape)}"
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(f"target must be a LongTensor, whole numbers, got {given}")
    if target.ndim == 0:
        return int(target)
    if target.ndim > 2 or len(target) != n:
        raise ValueError(f"target must be a LongTensor of shape ({n},) or ({n}, K), got {given}")
    with torch.inference_mode(False):  # where one is made in it, nothing with a derivative can be taken by it
        return target.long().clone() if target.is_inference() else target.long()


def target_scores(logits: Tensor, target: Any) -> Tensor:
    """The explained numbers of logits (N, C), (N,) or (N, K); see `attrain.explain` for what `target` may be."""
    n, classes = logits.shape
    target = _classes(target, n)
    if target is None:
        target = logits.detach().argmax(1)
    if isinstance(target, str):
        return logits
    if callable(target):
        return Scores(target, n)(logits)
    if isinstance(target, int):
        target = torch.full((n,), target, device=logits.device)
    if target.numel() and not (0 <= int(target.min()) and int(target.max()) < classes):
        raise ValueError(f"target must be in [0, {classes - 1}], got {int(target.min())}..{int(target.max())}")
    target = target.to(logits.device)
    return logits.gather(1, target[:, None])[:, 0] if target.ndim == 1 else logits.gather(1, target)


def _single(logits: Tensor, target: Any) -> Tensor:
    """The one logit a sample of an output (N,)."""
    if isinstance(target, str):
        return logits[:, None]
    zeros = isinstance(target, Tensor) and not bool(target.any())
    if target is None or zeros or (isinstance(target, int) and target == 0):
        return logits[:, None].expand(target.shape) if zeros and target.ndim == 2 else logits
    raise ValueError(
        f"the model returns one logit a sample, shape {tuple(logits.shape)}: target must be None or 0, got {target!r}"
    )


def selective_target(eps: float = 1e-2) -> Callable[[Tensor], Tensor]:
    """Selective ISNet: the log-odds of the least likely class (Faster ISNet, "Selective ISNet").

    η = ln(p_c + ε) − ln(1 − p_c + ε), p = softmax(logits), c = argmin of the logits. Its gradient reaches
    the evidence of all classes, so one map stands for the original ISNet's one map for each class.

    Args:
        eps: > 0, keeps η finite; it also makes the map vanish as p_c falls below it.

    Returns:
        a callable from logits (N, C) to (N,).

    Example:
        >>> selective_target()(torch.tensor([[2.0, -1.0, 0.5]]))
        tensor([-2.9841])
    """
    if isinstance(eps, Tensor) and eps.ndim:
        raise TypeError("eps must be a number, got a tensor: the target is what selective_target() returns")
    if not number("eps", eps) > 0:
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
    if not 0 <= number("highest", highest) <= 1:
        raise ValueError(f"highest must be in [0, 1], got {highest}")

    def draw(logits: Tensor) -> Tensor:
        n, classes = logits.shape
        if classes < 2:
            raise ValueError(f"stochastic_target needs at least 2 classes, got {classes}")
        top = logits.detach().argmax(1)
        other = torch.randint(1, classes, (n,), generator=generator, device="cpu").to(top.device)
        keep = (torch.rand(n, generator=generator, device="cpu") < highest).to(top.device)
        return torch.where(keep, top, (top + other) % classes)

    def target(logits: Tensor) -> Tensor:
        return logits.gather(1, draw(logits)[:, None])[:, 0]

    target.draw = draw  # type: ignore[attr-defined]  # the classes, for methods of several passes, which draw once
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
