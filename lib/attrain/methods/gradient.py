"""Attribution methods as values: frozen dataclasses that name a set of rules and its settings.

A method says how the rules of one pass are made and which passes `attrain.attribution` is to make.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from attrain.engine.rules import BCosRules, GradCAMRules, GuidedRules, InputXGradientRules, Rules, ZennitRules
from attrain.methods.deeplift.differences import OneByOne
from attrain.methods.deeplift.rules import DeepLiftRules
from attrain.methods.lrp import LRPRules
from attrain.targets import target_scores


class Method:
    """One pass with the method's rules. Methods are values: equal if all settings are, tensors by their numbers."""

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and all(map(_equal, vars(self).values(), vars(other).values()))

    def __hash__(self) -> int:
        return hash((type(self), *(value for value in vars(self).values() if not isinstance(value, Tensor))))

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        raise NotImplementedError

    def run(self, once, x: Tensor, target, layers: tuple, create_graph: bool):
        """The Explanation, from passes once(x, target, rules, layers)."""
        return once(x, target, self.rules, layers)


@dataclass(frozen=True)
class Gradient(Method):
    """The gradient of the explained number with respect to the input."""

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return Rules(x, entry)


@dataclass(frozen=True, eq=False)
class InputXGradient(Method):
    """Gradient times input: LRP-0 on ReLU networks, biases included.

    Args:
        reference: what is subtracted from the input, as for `DeepLift`; maps at layers are gradient times output.
        batch_statistics: whether the gradient passes through the mean and variance of a batch norm in training mode.
            Without, they are constants to the map, as they are to LRP: a sample's map has no part in other samples'
            logits, and a training step on maps costs less.
    """

    reference: float | Tensor = 0.0
    batch_statistics: bool = True

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return InputXGradientRules(x, entry, _mean_reference(self.reference, x), self.batch_statistics)


@dataclass(frozen=True, eq=False)
class GuidedBackprop(Method):
    """Guided backprop (Springenberg et al. 2015) times input: negative gradients at activation functions dropped.

    Args:
        reference: what is subtracted from the input, as for `DeepLift`; maps at layers are gradient times output.
    """

    reference: float | Tensor = 0.0

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return GuidedRules(x, entry, _mean_reference(self.reference, x))


@dataclass(frozen=True)
class BCos(Method):
    """A B-cos network as the input-dependent linear map that it computes, times the input (Böhle et al. 2022).

    Its scales |cos|^(B−1) are constants of the backward pass: the results of absolute values, norms,
    powers, roots, exponentials and gates, see `attrain.engine.rules.BCosRules`. A network without biases has
    maps that sum to the explained logit. No switch of the model's own (`explanation_mode`) is needed.
    """

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return BCosRules(x, entry)


@dataclass(frozen=True)
class ZB:
    """First-layer rule z^B, see `attrain.methods.lrp.FirstLayer`.

    Args:
        low, high: the range of the inputs.
        stabilizer: > 0, keeps the rule's denominator from zero. The authors of Faster ISNet take LRP's ε here too:
            with an ε other than 1e-2 their map is that of `ZB(low, high, stabilizer=ε)`.
    """

    low: float = 0.0
    high: float = 1.0
    stabilizer: float = 1e-2

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"ZB needs low < high, got low={self.low}, high={self.high}")
        if not self.stabilizer > 0:
            raise ValueError(f"ZB needs stabilizer > 0, got {self.stabilizer}")


@dataclass(frozen=True)
class LRP(Method):
    """LRP-ε of a ReLU network in one backward pass (LRP-Flex; Bassi, Decherchi, Cavalli 2024).

    Args:
        epsilon: ≥ 0; the ReLU's multiplier is y/(y+ε). 0 is gradient × input.
        first_layer: `ZB(low, high)` for the z^B rule at the input, or None.

    Example:
        >>> from attrain import explain
        >>> from studies.nets.small import SmallCNN
        >>> net = SmallCNN(classes=10)
        >>> explain(net, torch.rand(2, 1, 8, 8), target="all", method=LRP(1e-2, ZB(0, 1))).heatmap.shape
        torch.Size([2, 10, 1, 8, 8])
    """

    epsilon: float = 1e-2
    first_layer: ZB | None = None

    def __post_init__(self):
        if not self.epsilon >= 0:
            raise ValueError(f"LRP needs epsilon >= 0, got {self.epsilon}")

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return LRPRules(x, entry, self.epsilon, self.first_layer)


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Method):
    """Gradients along the straight line from the reference to the input, averaged, times the difference.

    The midpoint rule: points r + (i + ½)/steps · (x − r) (Sundararajan et al. 2017; DeepLIFT's experiments).

    Args:
        reference: as for `DeepLift`.
        steps: ≥ 1 forward and backward passes a reference.
    """

    reference: float | Tensor = 0.0
    steps: int = 10

    def __post_init__(self):
        if not self.steps >= 1:
            raise ValueError(f"IntegratedGradients needs steps >= 1, got {self.steps}")

    def run(self, once, x, target, layers, create_graph):
        if layers:
            raise ValueError("IntegratedGradients makes no maps at layers")
        logits = once.logits(x)
        target = logits.argmax(1) if target is None else target
        heatmap, before, references = 0, 0, _references(self.reference, x)
        for r in references:
            reference = r.expand_as(x)
            at = once.logits(reference if once.model.training else r).expand_as(logits)  # a shared row once for all
            before = before + target_scores(at, target) / len(references)
            for i in range(self.steps):
                point = once(reference + (i + 0.5) / self.steps * (x - reference), target, Rules, ())
                share = point.heatmap / (self.steps * len(references))
                apart = 2 if point.heatmap.ndim > x.ndim else 1
                heatmap = heatmap + share * (x - reference).detach().unflatten(0, (-1, *[1] * (apart - 1)))
        return once.explanation(logits, heatmap, {}, target_scores(logits, target) - before)


@dataclass(frozen=True, eq=False)
class DeepLift(Method):
    """Differences of activations from those on a reference input (Shrikumar, Greenside, Kundaje 2017).

    Args:
        reference: a float, or a tensor (1, ...) shared by all samples, (N, ...) one a sample, (R, 1, ...):
            R shared references, or (R, N, ...): R a sample; over R the maps are averaged.
        rule: "rescale": the secant of each nonlinearity; "reveal_cancel": positive and negative parts
            apart, their effects averaged over both orders; "genomics": RevealCancel after linear layers
            and Rescale after convolutions, an error elsewhere.
        hypothetical: of one-hot input, the contribution of each category were it there, with these multipliers;
            see `studies.dna.hypothetical_contributions`.

    Maps sum to `Explanation.delta`: the explained number less that of the reference.

    Example:
        >>> from attrain import explain
        >>> minimum = lambda x: (x[:, :1] - torch.relu(x[:, :1] - x[:, 1:]))
        >>> model = torch.nn.Identity()
        >>> model.forward = minimum
        >>> explain(model, torch.tensor([[5.0, 1.0]]), 0, DeepLift()).heatmap
        tensor([[0., 1.]])
        >>> explain(model, torch.tensor([[5.0, 1.0]]), 0, DeepLift(rule="reveal_cancel")).heatmap
        tensor([[0.5000, 0.5000]])
    """

    reference: float | Tensor = 0.0
    rule: str = "rescale"
    hypothetical: bool = False

    def __post_init__(self):
        if self.rule not in ("rescale", "reveal_cancel", "genomics"):
            raise ValueError(f'rule must be "rescale", "reveal_cancel" or "genomics", got {self.rule!r}')

    def run(self, once, x, target, layers, create_graph):
        references = _references(self.reference, x)
        rules = partial(DeepLiftRules, rule=self.rule, hypothetical=self.hypothetical)
        several, shared = len(references) > 1, len(references[0]) == 1
        if several and shared and self.rule == "rescale" and not create_graph:
            try:
                return once(x, target, partial(rules, reference=torch.cat(references), several=True), layers)
            except OneByOne:
                pass
        if target is None and several:
            target = once.logits(x).argmax(1)
        found = [once(x, target, partial(rules, reference=r), layers) for r in references]
        return found[0] if not several else once.mean(found)


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM (Selvaraju et al. 2017): ReLU(Σ_c mean(∂f/∂a_c) · a_c) at a convolutional layer.

    The map in `Explanation.layers` has the layer's resolution, (N, 1, h, w); `heatmap` is that map
    enlarged linearly to x's shape, the same for each of x's channels.

    Args:
        layer: name of a module with an output (N, C, ...), as in `model.named_modules()`.

    Example:
        >>> from attrain import explain
        >>> from studies.nets.small import SmallCNN
        >>> net = SmallCNN(classes=10)
        >>> found = explain(net, torch.rand(2, 1, 8, 8), method=GradCAM("4"))
        >>> found.heatmap.shape, found.layers["4"].shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 4, 4]))
    """

    layer: str

    def run(self, once, x, target, layers, create_graph):
        if set(layers) - {self.layer}:
            raise ValueError(f"GradCAM makes a map at its own layer {self.layer!r} only, got layers={layers}")
        found = replace(once, at_input=False)(x, target, GradCAMRules, (self.layer,))
        cam = found.layers[self.layer]
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[x.ndim - 2]
        large = F.interpolate(cam.reshape(-1, 1, *cam.shape[-(x.ndim - 2) :]), x.shape[2:], mode=mode)
        large = large.reshape(*cam.shape[: -(x.ndim - 2)], *x.shape[2:])
        heatmap = large.expand(*large.shape[: -(x.ndim - 1)], x.shape[1], *x.shape[2:])
        return found._replace(heatmap=heatmap, layers={self.layer: cam})


@dataclass(frozen=True, eq=False)
class Zennit(Method):
    """Any composite of zennit's, through the same `explain`.

    The backward pass starts from the logit at the explained class (zennit's own default, a one there,
    turns the map's sign where the logit is negative); in general from z ⊙ ∂score/∂z.
    zennit puts hooks on the model for the time of the call: one thread at a time, unlike other methods.

    Args:
        composite: for instance `zennit.composites.EpsilonPlusFlat()`.

    Example:
        >>> from attrain import explain
        >>> from zennit.composites import EpsilonPlusFlat
        >>> from studies.nets.small import SmallCNN
        >>> net = SmallCNN(classes=10)
        >>> explain(net, torch.rand(2, 1, 8, 8), method=Zennit(EpsilonPlusFlat())).heatmap.shape
        torch.Size([2, 1, 8, 8])
    """

    composite: object

    def rules(self, x, entry):
        return ZennitRules(x, entry, self.composite)

    def run(self, once, x, target, layers, create_graph):
        return once(x, target, self.rules, layers)


def _references(reference, x: Tensor) -> list[Tensor]:
    """The references one by one, each (1, ...) or (N, ...)."""
    if not isinstance(reference, Tensor):
        return [torch.full_like(x[:1] if len(x) else x.new_empty(1, *x.shape[1:]), reference)]
    reference = reference.detach().to(x)
    if not torch.isfinite(reference).all():
        raise ValueError("reference holds NaN or infinite values")
    if reference.ndim == x.ndim and reference.shape[1:] == x.shape[1:] and len(reference) in (1, len(x)):
        return [reference]
    one = tuple(x.shape[1:])
    if reference.ndim == x.ndim + 1 and reference.shape[1:] in ((1, *one), (len(x), *one)) and len(reference):
        return list(reference)
    raise ValueError(
        f"reference must be a number or have shape {(1, *one)}, {(len(x), *one)}, {('R', 1, *one)} or "
        f"{('R', len(x), *one)} for an input of shape {tuple(x.shape)}, got {tuple(reference.shape)}"
    )


def _mean_reference(reference, x: Tensor) -> float | Tensor:
    """For a gradient at x alone, which is linear in the reference."""
    references = _references(reference, x)
    return sum(references) / len(references)


def _equal(a, b) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
