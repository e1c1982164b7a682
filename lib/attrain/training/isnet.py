"""ISNet's training step, and the range of relevance that its foreground loss needs (Bassi et al. 2024)."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.losses.isnet import gwrp, isnet_losses
from attrain.methods import LRP, ZB, Method
from attrain.numbers import number
from attrain.targets import Target, selective_target
from attrain.training.loop import Result, Step, classification_loss, result

Range = float | Sequence[float] | Mapping[str, "float | Sequence[float]"]
MethodOf = Method | Callable[[Tensor], Method]  # one method, or a batch's
INPUT = "input"  # the name of the input's map beside those of layers


def isnet_step(
    model: nn.Module, x: Tensor, y: Tensor, mask: Tensor, *, target: Target = selective_target(),
    method: MethodOf = LRP(first_layer=ZB()), layers: Sequence[str] = (), P: float = 0.7, decay: float = 0.9,
    layer_decay: float = 0.8, E: float = 1.0, C1: Range = 1.0, C2: Range = 25.0, form: str = "L2",
    w1: float = 1.0, w2: float = 1.0,
) -> Result:  # fmt: skip
    """The loss of Faster ISNet, (1 − P)·CE + P·L_heat with L_heat = w1·L_bg + w2·L_fg, from one forward pass.

    | variant | settings |
    |---|---|
    | Selective | as they are |
    | Stochastic | `target=stochastic_target(generator)` |
    | Dual | `target="all", method=Dual(first_layer=ZB())`, `C1` and `C2` of two numbers each |
    | original | `target="all"`: one map for each class, its time grows with their number |
    | LRP deep supervision (LDS) | any of these and `layers=["layer1", …]` |
    | on DeepLIFT's maps (ours) | `method=DeepLift(reference)`, a reference for all or one a sample |
    | … against another sample of the batch (ours) | `method=lambda x: DeepLift(x.roll(1, 0))` |
    | ablation | `method=InputXGradient()` with `target="all"` or `softmax_target()` |

    Args:
        model: (N, C, H, W) -> logits (N, classes), a ReLU network; in training mode.
        x, y, mask: images (N, C, H, W) in the range of the first-layer rule, labels (N,) or, for several
            labels a sample, floats (N, classes) (then binary cross-entropy), foreground (N, H, W).
        target: which number is explained, as in `attrain.attribution`.
        method: how the map is made, or x -> that, for what changes with the batch; without a first-layer rule black
            pixels have no relevance.
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
    if not 0 <= number("P", P) <= 1:
        raise ValueError(f"P must be in [0, 1], got {P}")
    logits, heatmap, at_layers, _ = explain(model, x, target, _method_for(method, x), layers=layers, create_graph=True)
    parts, losses = {"classification": classification_loss(logits, y)}, []
    for name, relevance in {INPUT: heatmap, **at_layers}.items():
        low, high = _range_of(name, C1, "C1"), _range_of(name, C2, "C2")
        background, foreground = isnet_losses(relevance, mask, decay=decay, E=E, C1=low, C2=high, form=form)
        prefix = "" if name == INPUT else f"{name}."
        parts |= {f"{prefix}background": background, f"{prefix}foreground": foreground}
        losses.append(w1 * background + w2 * foreground)
    loss = (1 - P) * parts["classification"] + P * gwrp(torch.stack(losses), layer_decay)
    return result(logits, loss, **parts)


def _method_for(method: MethodOf, x: Tensor) -> Any:
    """That of a batch; a class in the place of its value is for `explain` to refuse."""
    return method if isinstance(method, Method | type) else method(x)


def _range_of(map_name: str, values: Range, argument: str) -> float | Sequence[float]:
    if not isinstance(values, Mapping):
        return values
    if map_name not in values:
        raise ValueError(f"{argument} has no number for the map at {map_name!r}; it has {', '.join(values)}")
    return values[map_name]


def estimate_foreground_range(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    target: Target = selective_target(),
    method: MethodOf = LRP(first_layer=ZB()),
    layers: Sequence[str] = (),
) -> tuple[Range, Range]:
    """C1 and C2 of `isnet_foreground_loss` from the maps of a classifier trained without them.

    With μ and σ the mean and standard deviation of Σ|R| over samples (whole map),
    C1 = max(μ/5, μ − 3σ) and C2 = min(25·C1, μ + 3σ).
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
    totals: dict[str, list[Tensor]] = {}
    for x in batches:
        if not len(x):
            continue
        with warnings.catch_warnings():  # maps as those of a step, in training mode
            warnings.filterwarnings("ignore", "batch norm takes|the forward pass is random")
            explanation = explain(model, x, target, _method_for(method, x), layers=layers)
        for name, heatmap in {INPUT: explanation.heatmap, **explanation.layers}.items():
            each = heatmap.detach().double().abs().flatten(-3).sum(-1).reshape(len(x), -1).cpu()
            apart = getattr(method, "maps_apart", False)  # maps of different size need a range each
            totals.setdefault(name, []).append(each if apart else each.mean(1, keepdim=True))
    count = sum(map(len, totals.get(INPUT, ())))
    if count < 2:
        raise ValueError(f"estimate_foreground_range needs at least 2 samples, got {count}")
    ranges = {name: _natural_range(torch.cat(each)) for name, each in totals.items()}
    C1, C2 = ({name: bounds[i] for name, bounds in ranges.items()} for i in (0, 1))
    return (C1, C2) if layers else (C1[INPUT], C2[INPUT])


def _natural_range(totals: Tensor) -> tuple:
    """C1 and C2 of samples' totals (N, maps), a number each if there is one map."""
    mean, sd = totals.mean(0), totals.std(0)
    C1 = torch.maximum(mean / 5, mean - 3 * sd)
    C2 = torch.minimum(25 * C1, mean + 3 * sd)
    return tuple(c.item() if len(c) == 1 else c.tolist() for c in (C1, C2))


def ranged_isnet_step(
    plain: nn.Module,
    batches: Iterable[Tensor],
    *,
    target: Target = selective_target(),
    method: MethodOf = LRP(first_layer=ZB()),
    layers: Sequence[str] = (),
    **settings: Any,
) -> Step:
    """`isnet_step` with C1 and C2 from the maps of a plainly trained classifier, as `fit` takes it.

    Args:
        plain, batches: see `estimate_foreground_range`.
        target, method, layers, settings: see `isnet_step`.
    """
    C1, C2 = estimate_foreground_range(plain, batches, target=target, method=method, layers=layers)
    return partial(isnet_step, target=target, method=method, layers=layers, C1=C1, C2=C2, **settings)
