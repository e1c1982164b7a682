"""Training with attribution maps: one step that any loop can call, and a short loop for tensors."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from attrain.attribution import explain
from attrain.losses.isnet import gwrp, isnet_losses
from attrain.masks import fit_mask
from attrain.methods import LRP, ZB
from attrain.methods import Dual
from attrain.targets import Target, selective_target

Step = Callable[..., tuple[Tensor, Tensor, dict[str, Tensor]]]
Range = float | Sequence[float] | Mapping[str, "float | Sequence[float]"]
INPUT = "input"  # the name of the input's map beside those of layers


def plain_step(model: nn.Module, x: Tensor, y: Tensor, *_) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Classification alone; further members of the batch (a mask) are ignored. Returns as `isnet_step`."""
    logits = model(x)
    loss = classification_loss(logits, y)
    return logits, loss, {"classification": loss.detach()}


def classification_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy for labels (N,), the mean binary cross-entropy for several a sample, floats (N, classes)."""
    return (F.binary_cross_entropy_with_logits if y.is_floating_point() else F.cross_entropy)(logits, y)


def isnet_step(
    model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, *, target: Target = selective_target(),
    method=LRP(first_layer=ZB()), layers: Sequence[str] = (), P: float = 0.7, decay: float = 0.9,
    layer_decay: float = 0.8, E: float = 1.0, C1: Range = 1.0, C2: Range = 25.0, form: str = "L2",
    w1: float = 1.0, w2: float = 1.0,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:  # fmt: skip
    """The loss of Faster ISNet, (1 − P)·CE + P·L_heat with L_heat = w1·L_bg + w2·L_fg, from one forward pass.

    | variant | settings |
    |---|---|
    | Selective | as they are |
    | Stochastic | `target=stochastic_target(generator)` |
    | Dual | `target="all", method=Dual(first_layer=ZB())`, `C1` and `C2` of two numbers each |
    | original | `target="all"`: one map a class, its time grows with their number |
    | LRP deep supervision (LDS) | any of these and `layers=["layer1", …]` |
    | ablation | `method=InputXGradient()` with `target="all"` or `softmax_target()` |

    Args:
        model: (N, C, H, W) -> logits (N, classes), a ReLU network; in training mode.
        x, y, mask: images (N, C, H, W) in the range of the first-layer rule, labels (N,) or, for several
            labels a sample, floats (N, classes) (then binary cross-entropy), foreground (N, H, W).
        target: which number is explained, as in `attrain.attribution`.
        method: how the map is made; without a first-layer rule black pixels have no relevance.
        layers: names of modules with outputs (N, C, h, w) whose maps are supervised too. Each map has a
            loss of its own, and L_heat is their global weighted rank pooling with `layer_decay`.
        P: weight of the heatmap loss in [0, 1]. A schedule: `P=at_epoch({0: 0.3, 5: 0.7}, epoch)`.
        decay, E, form, w1, w2: see `attrain.losses`.
        layer_decay: GWRP's d over layers in [0, 1]; 1 is their mean.
        C1, C2: natural range of the foreground's relevance, as `estimate_foreground_range` returns it: a
            number; a sequence with a number for each map of a sample; or, with layers, a mapping from
            "input" and each layer's name to either.

    Returns:
        logits (N, classes), the loss to call `backward` on, and its detached parts "classification",
        "background" and "foreground" (those of the input's map), and the latter two as
        "<layer>.background" and "<layer>.foreground" for each of `layers`.

    Raises:
        ValueError: as the losses do; P outside [0, 1]; a mapping C1 or C2 that lacks a map.
    """
    if not 0 <= P <= 1:
        raise ValueError(f"P must be in [0, 1], got {P}")
    logits, heatmap, at_layers, _ = explain(model, x, target, method, layers=layers, create_graph=True)
    parts, losses = {"classification": classification_loss(logits, y)}, []
    for name, relevance in {INPUT: heatmap, **at_layers}.items():
        low, high = _range_of(name, C1, "C1"), _range_of(name, C2, "C2")
        background, foreground = isnet_losses(relevance, mask, decay=decay, E=E, C1=low, C2=high, form=form)
        prefix = "" if name == INPUT else f"{name}."
        parts |= {f"{prefix}background": background, f"{prefix}foreground": foreground}
        losses.append(w1 * background + w2 * foreground)
    loss = (1 - P) * parts["classification"] + P * gwrp(torch.stack(losses), layer_decay)
    return logits, loss, {name: part.detach() for name, part in parts.items()}


def _range_of(map_name: str, values: Range, argument: str):
    if not isinstance(values, Mapping):
        return values
    if map_name not in values:
        raise ValueError(f"{argument} has no number for the map at {map_name!r}; it has {', '.join(values)}")
    return values[map_name]


def at_epoch(schedule, epoch: int):
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


def segmentation_step(model: nn.Module, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Binary cross-entropy plus soft Dice loss, for a segmenter such as `studies.nets.small.UNet`.

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
        step: returns logits, loss and parts, as `isnet_step`; or a schedule {first epoch: step}, as
            `{0: plain_step, 5: isnet_step}` or one of P, `{0: partial(isnet_step, P=0.3), 5: isnet_step}`.
        epochs, batch_size, lr: ≥ 1, ≥ 1, > 0.
        optimizer: "adam", or "sgd" with momentum 0.9.
        clip: largest gradient norm, or None.
        generator: shuffles the samples (on the CPU).
        on_epoch: called after each epoch, for a progress bar.

    Returns:
        curves, one number an epoch: "accuracy" in training (with several labels a sample the share of right
        decisions, a class being found where its logit is ≥ 0), "loss" and each part of the loss.

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


def _epoch(model, data, step: Step, batches: Sequence[Tensor], descent, clip: float | None) -> dict[str, Tensor]:
    """One pass over batches of indices; accuracy, loss and its parts, the means over all samples."""
    totals: dict[str, Tensor | float] = {}
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
    order = torch.randperm(len(data[0]), generator=generator, device="cpu").to(data[0].device)
    update_bn((data[0][index] for index in order.split(128)), model)  # their running means lag behind the weights
    return model, curves


def fit_copy(
    model: nn.Module, data: tuple[Tensor, ...], step: Step = plain_step, *, seed: int, **settings
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


def estimate_foreground_range(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    target: Target = selective_target(),
    method=LRP(first_layer=ZB()),
    layers: Sequence[str] = (),
) -> tuple[Range, Range]:
    """C1 and C2 of `isnet_foreground_loss` from the maps of a classifier trained without them.

    With μ and σ the mean and standard deviation of Σ|R| over samples (whole map),
    C1 = max(μ/5, μ − 3σ) and C2 = min(25·C1, μ + 3σ), by Welford's update over the batches.
    (The authors' code; it takes them from the last of five epochs of plain training.)

    Args:
        model: the plainly trained classifier, used as it is.
        batches: inputs (N, C, H, W); at least two samples in all.
        target, method, layers: as in the training that the range is for.

    Returns:
        C1 and C2, each a number; a list of two for `Dual`, whose maps are of different size (the maps of
        one rule, one a class, say, are averaged); with `layers`, a dict from "input" and each layer's name
        to that. `isnet_step` takes them as they are.
    """
    ranges: dict[str, _Welford] = {}
    for x in batches:
        if not len(x):
            continue
        found = explain(model, x, target, method, layers=layers)
        for name, heatmap in {INPUT: found.heatmap, **found.layers}.items():
            totals = heatmap.detach().double().abs().flatten(-3).sum(-1).reshape(len(x), -1)
            apart = isinstance(method, Dual)
            ranges.setdefault(name, _Welford()).add(totals if apart else totals.mean(1, keepdim=True))
    count = ranges[INPUT].count if ranges else 0
    if count < 2:
        raise ValueError(f"estimate_foreground_range needs at least 2 samples, got {count}")
    C1, C2 = ({name: r.interval()[i] for name, r in ranges.items()} for i in (0, 1))
    return (C1, C2) if layers else (C1[INPUT], C2[INPUT])


def ranged_isnet_step(
    plain: nn.Module,
    batches: Iterable[Tensor],
    *,
    target: Target = selective_target(),
    method=LRP(first_layer=ZB()),
    layers: Sequence[str] = (),
    **settings,
) -> Step:
    """`isnet_step` with C1 and C2 from the maps of a plainly trained classifier, as `fit` takes it.

    Args:
        plain, batches: see `estimate_foreground_range`.
        target, method, layers, settings: see `isnet_step`.
    """
    C1, C2 = estimate_foreground_range(plain, batches, target=target, method=method, layers=layers)
    return partial(isnet_step, target=target, method=method, layers=layers, C1=C1, C2=C2, **settings)


class _Welford:
    """Mean and sum of squared deviations of each column, over batches of rows."""

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, rows: Tensor) -> None:
        n, mean = len(rows), rows.mean(0).cpu()
        delta = mean - self.mean
        self.squares = self.squares + ((rows.cpu() - mean) ** 2).sum(0) + delta**2 * self.count * n / (self.count + n)
        self.mean = self.mean + delta * n / (self.count + n)
        self.count += n

    def interval(self) -> tuple:
        """C1 and C2, a number each if there is one column."""
        sd = (self.squares / (self.count - 1)).sqrt()
        C1 = torch.maximum(self.mean / 5, self.mean - 3 * sd)
        C2 = torch.minimum(25 * C1, self.mean + 3 * sd)
        return tuple(c.item() if len(c) == 1 else c.tolist() for c in (C1, C2))
