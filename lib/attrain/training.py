"""Training with attribution maps: one step that any loop can call, and a short loop for tensors."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from attrain.explain import explain
from attrain.losses import isnet_background_loss, isnet_foreground_loss
from attrain.masks import fit_mask
from attrain.methods import LRP, ZB
from attrain.targets import Target, selective_target

Step = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]


def plain_step(model: nn.Module, x: Tensor, y: Tensor, *_) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Cross-entropy alone; further members of the batch (a mask) are ignored. Returns as `isnet_step`."""
    logits = model(x)
    loss = F.cross_entropy(logits, y)
    return logits, loss, {"classification": loss.detach()}


def isnet_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    target: Target = selective_target(),
    method=LRP(first_layer=ZB()),
    P: float = 0.7,
    decay: float = 0.9,
    E: float = 1.0,
    C1: float = 1.0,
    C2: float = 25.0,
    form: str = "L2",
    w1: float = 1.0,
    w2: float = 1.0,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The loss of Faster ISNet, (1 − P)·CE + P·(w1·L_bg + w2·L_fg), from one forward and one map a sample.

    Args:
        model: (N, C, H, W) -> logits (N, classes), a ReLU network; in training mode.
        x, y, mask: images (N, C, H, W) in the range of the first-layer rule, labels (N,) or, for several
            labels a sample, floats (N, classes) (then binary cross-entropy), foreground (N, H, W).
        target: `selective_target()` for Selective, `stochastic_target(generator)` for Stochastic ISNet,
            `"all"` for the original, one map a class.
        method: how the map is made; without a first-layer rule black pixels have no relevance.
        P: weight of the heatmap loss in [0, 1].
        decay, E, C1, C2, form, w1, w2: see `attrain.losses`.

    Returns:
        logits (N, classes), the loss to call `backward` on, and its detached parts
        "classification", "background", "foreground".
    """
    if not 0 <= P <= 1:
        raise ValueError(f"P must be in [0, 1], got {P}")
    logits, heatmap, *_ = explain(model, x, target, method, create_graph=True)
    classify = F.binary_cross_entropy_with_logits if y.is_floating_point() else F.cross_entropy
    classification = classify(logits, y)
    background = isnet_background_loss(heatmap, mask, decay=decay, E=E)
    foreground = isnet_foreground_loss(heatmap, mask, C1=C1, C2=C2, form=form)
    loss = (1 - P) * classification + P * (w1 * background + w2 * foreground)
    parts = {"classification": classification, "background": background, "foreground": foreground}
    return logits, loss, {name: part.detach() for name, part in parts.items()}


def ranged_isnet_step(
    plain: nn.Module,
    batches: Iterable[Tensor],
    *,
    target: Target = selective_target(),
    method=LRP(first_layer=ZB()),
    **settings,
) -> Step:
    """`isnet_step` with C1 and C2 from the maps of a plainly trained network, see `estimate_foreground_range`.

    Args:
        plain, batches, target, method: as there.
        settings: further arguments of `isnet_step`, as P and decay.
    """
    C1, C2 = estimate_foreground_range(plain, batches, target=target, method=method)
    return partial(isnet_step, target=target, method=method, C1=C1, C2=C2, **settings)


def segmentation_step(model: nn.Module, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Binary cross-entropy plus soft Dice loss, for a segmenter such as `attrain.models.UNet`.

    Args:
        model: images (N, C, H, W) -> logits (N, 1, H, W).
        x, mask: images, and foreground (N, H, W) of 0 and 1 in their size.

    Returns:
        as `isnet_step`, with parts "cross_entropy" and "dice". The logits are those of two classes,
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
    parts = {"cross_entropy": cross_entropy.detach(), "dice": dice.detach()}
    return torch.cat([torch.zeros_like(logits), logits], 1), cross_entropy + dice, parts


def fit(
    model: nn.Module,
    data: tuple[Tensor, ...],
    step: Step = plain_step,
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
        data: tensors of equal length, given to `step(model, *batch)`; the second is the labels, (N,) or, of
            pixels, (N, H, W).
        step: returns logits, loss and parts, as `isnet_step`.
        epochs, batch_size, lr: ≥ 1, ≥ 1, > 0.
        optimizer: "adam", or "sgd" with momentum 0.9.
        clip: largest gradient norm, or None.
        generator: shuffles the samples (on the CPU).
        on_epoch: called after each epoch, for a progress bar.

    Returns:
        curves, one number an epoch: "accuracy" in training, "loss" and each part of the loss.

    Raises:
        FloatingPointError: the loss is not finite; the model is then not usable.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("lr", lr)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f'optimizer must be "adam" or "sgd", got {optimizer!r}')
    parameters = list(model.parameters())
    descent = torch.optim.Adam(parameters, lr) if optimizer == "adam" else torch.optim.SGD(parameters, lr, momentum=0.9)
    curves: dict[str, list[float]] = {}
    n = len(data[0])
    model.train()
    for epoch in range(epochs):
        totals: dict[str, Tensor | float] = {}
        for index in torch.randperm(n, generator=generator).to(data[0].device).split(batch_size):
            batch = [tensor[index] for tensor in data]
            logits, loss, parts = step(model, *batch)
            descent.zero_grad()
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            descent.step()
            correct = (logits.detach().argmax(1) == batch[1]).double().mean()
            for name, value in {"accuracy": correct, "loss": loss.detach(), **parts}.items():
                totals[name] = totals.get(name, 0.0) + value * (len(index) / n)
        if not math.isfinite(totals["loss"]):
            raise FloatingPointError(f"loss is {float(totals['loss'])} in epoch {epoch + 1}; lower lr, or clip")
        for name, value in totals.items():
            curves.setdefault(name, []).append(float(value))
        if on_epoch is not None:
            on_epoch()
    model.eval()
    return curves


def fit_fresh(
    make: Callable[[], nn.Module], data: tuple[Tensor, ...], step: Step = plain_step, *, seed: int, **settings
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
    order = torch.randperm(len(data[0]), generator=generator).to(data[0].device)
    update_bn((data[0][index] for index in order.split(128)), model)  # their running means lag behind the weights
    return model, curves


@torch.no_grad()
def correct(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 1024) -> Tensor:
    """Whether each sample is classified correctly, (N,) bool; the model as it is (call `eval()` first)."""
    pairs = zip(x.split(batch_size), y.split(batch_size))
    return torch.cat([model(a).argmax(1) == b for a, b in pairs])


def estimate_foreground_range(
    model: nn.Module, batches: Iterable[Tensor], *, target: Target = selective_target(), method=LRP(first_layer=ZB())
) -> tuple[float, float]:
    """C1 and C2 of `isnet_foreground_loss` from the maps of a classifier trained without them.

    With μ and σ the mean and standard deviation of Σ|R| over samples (whole map; averaged over the maps of
    a sample), C1 = max(μ/5, μ − 3σ) and C2 = min(25·C1, μ + 3σ), by Welford's update over the batches.
    (The authors' code; it takes them from the last of five epochs of plain training.)

    Args:
        model: the plainly trained classifier, used as it is.
        batches: inputs (N, C, H, W); at least two samples in all.
        target, method: as in the training that the range is for.
    """
    count, mean, squares = 0, 0.0, 0.0
    for x in batches:
        heatmap = explain(model, x, target, method).heatmap
        totals = heatmap.double().abs().sum((-3, -2, -1)).reshape(len(x), -1).mean(1)
        n, batch_mean = len(totals), float(totals.mean())
        delta = batch_mean - mean
        squares += float(((totals - batch_mean) ** 2).sum()) + delta**2 * count * n / (count + n)
        mean += delta * n / (count + n)
        count += n
    if count < 2:
        raise ValueError(f"estimate_foreground_range needs at least 2 samples, got {count}")
    sd = math.sqrt(squares / (count - 1))
    C1 = max(mean / 5, mean - 3 * sd)
    return C1, min(25 * C1, mean + 3 * sd)
