"""A short loop for tensors, the plain step, and what every step has in common.

A step is called as `step(model, *batch)` and returns the logits, the loss to call `backward` on, and the loss's parts,
detached, by name. Any loop can call it; `fit` is one.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from attrain.masks import fit_mask
from attrain.numbers import count, number

Result = tuple[Tensor, Tensor, dict[str, Tensor]]
Step = Callable[..., Result]


def result(logits: Tensor, loss: Tensor, **parts: Tensor) -> Result:
    """What a step returns: the parts detached."""
    return logits, loss, {name: part.detach() for name, part in parts.items()}


def plain_step(model: nn.Module, x: Tensor, y: Tensor, *_: Tensor) -> Result:
    """Classification alone; further members of the batch (a mask) are ignored. The only part is "classification"."""
    logits = model(x)
    loss = classification_loss(logits, y)
    return result(logits, loss, classification=loss)


def classification_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy for labels (N,), the mean binary cross-entropy for several a sample, floats (N, classes)."""
    if y.is_floating_point():
        if y.shape != logits.shape:
            forms = f"classes ({len(logits)},), whole numbers, or floats {tuple(logits.shape)} for several a sample"
            raise ValueError(f"y must be {forms}, got {y.dtype} {tuple(y.shape)}")
        return F.binary_cross_entropy_with_logits(logits, y)
    try:
        return F.cross_entropy(logits, y)
    except IndexError:
        given = f"{y.min().item()} to {y.max().item()}"
        raise ValueError(f"y must be classes in [0, {logits.shape[1] - 1}], got {given}") from None


def at_epoch(schedule: Any, epoch: int) -> Any:
    """What a schedule {first epoch: value} says for an epoch (counted from 0); any other value is for all epochs.

    Example:
        >>> [at_epoch({0: 0.3, 2: 0.7}, epoch) for epoch in range(4)]
        [0.3, 0.3, 0.7, 0.7]
    """
    if not isinstance(schedule, Mapping):
        return schedule
    if 0 not in schedule:
        raise ValueError(f"a schedule needs a value from epoch 0 on, got epochs {sorted(schedule)}")
    return schedule[max(first for first in schedule if first <= epoch)]


def segmentation_step(model: nn.Module, x: Tensor, mask: Tensor) -> Result:
    """Binary cross-entropy plus soft Dice loss, for a segmenter, a U-Net for example.

    Args:
        model: images (N, C, H, W) -> logits (N, 1, H, W).
        x, mask: images, and foreground (N, H, W) of 0 and 1 in their size.

    Returns:
        as every step, with parts "cross_entropy" and "dice". The logits are those of two classes,
        (N, 2, H, W), background (always 0) and foreground, so that with `fit(model, (x, mask), segmentation_step)`
        "accuracy" is that of the pixels.
    """
    logits = model(x)
    target = fit_mask(mask, logits)[:, None]
    if logits.shape != target.shape or mask.shape[-2:] != logits.shape[-2:]:
        raise ValueError(
            f"segmentation needs logits (N, 1, H, W) and a mask (N, H, W) of that size, "
            f"got {tuple(logits.shape)} and {tuple(mask.shape)}"
        )
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    foreground = logits.sigmoid()
    overlap, total = (foreground * target).sum((1, 2, 3)), (foreground + target).sum((1, 2, 3))
    dice = (1 - (2 * overlap + 1) / (total + 1)).mean()  # + 1: nothing found where nothing is has no loss
    two_classes = torch.cat([torch.zeros_like(logits), logits], 1)
    return result(two_classes, cross_entropy + dice, cross_entropy=cross_entropy, dice=dice)


def fit(
    model: nn.Module,
    data: tuple[Tensor, ...],
    step: Step | Mapping[int, Step] = plain_step,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    optimizer: str = "adam",
    clip: float | None = None,
    generator: torch.Generator | None = None,
    on_epoch: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Train on tensors that fit in memory.

    Args:
        model: trained in place and left in evaluation mode.
        data: tensors of equal length, given to `step(model, *batch)`; the second is the labels, (N,), of
            pixels (N, H, W), or several a sample, floats (N, classes).
        step: a step, see the module's docstring; or a schedule {first epoch: step}, as
            `{0: plain_step, 5: isnet_step}` or one of P, `{0: partial(isnet_step, P=0.3), 5: isnet_step}`.
        epochs, batch_size, lr: ≥ 1, ≥ 1, > 0.
        optimizer: "adam", or "sgd" with momentum 0.9.
        clip: largest gradient norm, > 0, or None.
        generator: shuffles the samples (on the CPU).
        on_epoch: called after each epoch, for a progress bar.

    Returns:
        curves, one number for each epoch: "accuracy" in training (with several labels a sample the share of right
        decisions, a class being found where its logit is ≥ 0), "loss" and each part of the loss.

    Raises:
        TypeError, ValueError: an argument that is no number or out of its range, or data of different lengths.
        FloatingPointError: the loss is not finite; the model is then not usable.
    """
    epochs, batch_size = count("epochs", epochs), count("batch_size", batch_size)
    if not number("lr", lr) > 0:
        raise ValueError(f"lr must be > 0, got {lr}")
    if clip is not None and not number("clip", clip, finite=False) > 0:
        raise ValueError(f"clip must be > 0, or None, got {clip}")
    if len({len(tensor) for tensor in data}) != 1 or not len(data[0]):
        raise ValueError(f"data must be tensors of one length, at least 1, got {[len(tensor) for tensor in data]}")
    batch_size = int(batch_size)
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f'optimizer must be "adam" or "sgd", got {optimizer!r}')
    parameters = list(model.parameters())
    descent = torch.optim.Adam(parameters, lr) if optimizer == "adam" else torch.optim.SGD(parameters, lr, momentum=0.9)
    curves: dict[str, list[float]] = {}
    model.train()
    for epoch in range(epochs):
        batches = torch.randperm(len(data[0]), generator=generator, device="cpu").to(data[0].device).split(batch_size)
        totals = _epoch(model, data, at_epoch(step, epoch), batches, descent, clip)
        if not math.isfinite(totals["loss"]):
            raise FloatingPointError(f"loss is {float(totals['loss'])} in epoch {epoch + 1}; lower lr, or clip")
        for name in {**curves, **totals}:  # a part that a schedule's step lacks is NaN in its epochs
            curve = curves.setdefault(name, [math.nan] * epoch)
            curve.append(float(totals.get(name, math.nan)))
        if on_epoch is not None:
            on_epoch()
    model.eval()
    return curves


def _epoch(
    model: nn.Module,
    data: tuple[Tensor, ...],
    step: Step,
    batches: Sequence[Tensor],
    descent: torch.optim.Optimizer,
    clip: float | None,
) -> dict[str, Tensor]:
    """One pass over batches of indices; accuracy, loss and its parts, the means over all samples."""
    totals: dict[str, Tensor] = {}
    for index in batches:
        batch = [tensor[index] for tensor in data]
        logits, loss, parts = step(model, *batch)
        descent.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        descent.step()
        measured = {"accuracy": _accuracy(logits.detach(), batch[1]), "loss": loss.detach(), **parts}
        for name, value in measured.items():
            totals[name] = totals.get(name, 0.0) + value * (len(index) / len(data[0]))
    return totals


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    right = (logits >= 0) == (y > 0) if y.is_floating_point() else logits.argmax(1) == y
    return right.double().mean()


def fit_fresh(
    make: Callable[[], nn.Module], data: tuple[Tensor, ...], step: Step = plain_step, *, seed: int, **settings: Any
) -> tuple[nn.Module, dict[str, list[float]]]:
    """A new network, trained, and its curves: all networks of a seed start alike and see the samples in one order.

    Batch norm's running statistics are taken anew over all samples, with the final weights.

    Args:
        make: () -> the network, with weights from torch's global generator.
        data, step, settings: see `fit`.
        seed: of the weights and of the order.
    """
    torch.manual_seed(seed)
    model, generator = make().to(data[0].device), torch.Generator().manual_seed(seed)
    curves = fit(model, data, step, generator=generator, **settings)
    order = torch.randperm(len(data[0]), generator=generator, device="cpu").to(data[0].device)
    update_bn((data[0][index] for index in order.split(128)), model)  # their running means lag behind the weights
    return model, curves


def fit_copy(
    model: nn.Module, data: tuple[Tensor, ...], step: Step = plain_step, *, seed: int, **settings: Any
) -> nn.Module:
    """A copy of the network, trained on: all copies of a seed see the samples in one order.

    Args:
        model: left as it is.
        data, step, settings: see `fit`.
        seed: of the order.
    """
    model = copy.deepcopy(model)
    fit(model, data, step, generator=torch.Generator().manual_seed(seed), **settings)
    return model


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1024) -> Tensor:
    """Whether each sample is classified correctly, (N,) bool; the model as it is (call `eval()` first)."""
    pairs = zip(x.split(batch_size), y.split(batch_size))
    return torch.cat([model(a).argmax(1) == b for a, b in pairs])
