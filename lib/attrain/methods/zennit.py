"""Any composite of zennit's."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from attrain.engine.mode import Mode, Tensors
from attrain.engine.watch import Watch
from attrain.methods.gradient import InputXGradientMode
from attrain.methods.method import Method, name_of_given
from attrain.tensors import logits_of


@dataclass(frozen=True, eq=False)
class Zennit(Method):
    """Any composite of zennit's, through the same `explain`.

    The backward pass starts from the logit at the explained class (zennit's own default, a one there,
    turns the map's sign where the logit is negative); in general from z ⊙ ∂score/∂z.
    zennit puts hooks on the model for the time of the call: one thread at a time, unlike other methods.

    Args:
        composite: for instance `zennit.composites.EpsilonPlusFlat()`.

    Raises:
        TypeError: no composite.

    Example:
        >>> from attrain import explain
        >>> from zennit.composites import EpsilonPlusFlat
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> explain(net, torch.rand(2, 1, 8, 8), method=Zennit(EpsilonPlusFlat())).heatmap.shape
        torch.Size([2, 1, 8, 8])
    """

    composite: object

    def __post_init__(self):
        if isinstance(self.composite, type) or not callable(getattr(self.composite, "context", None)):
            raise TypeError(
                f"composite must be one of zennit's, such as EpsilonPlusFlat(), got {name_of_given(self.composite)}"
            )

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return ZennitMode(leaves, entries, create_graph, model, composite=self.composite)


class ZennitMode(InputXGradientMode):
    """No rules of ours: zennit's hooks make the backward pass, and its gradient at the input is the map."""

    title = "zennit"

    def __init__(self, *args, composite):
        super().__init__(*args)
        self.composite = composite

    def around(self, model):
        return self.composite.context(model)

    def forward(self, run):
        with Watch(self.findings, self.model):
            return run()

    def start(self, output, score):
        logits = logits_of(output)
        (share,) = torch.autograd.grad(score.sum(), logits, retain_graph=True)
        return logits, logits.detach() * share

    def contract(self, number, gradient):
        return gradient

    def contract_at(self, gradient, activation, reference):
        return gradient
