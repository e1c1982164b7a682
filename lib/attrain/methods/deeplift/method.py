"""DeepLIFT as a method (Shrikumar, Greenside, Kundaje 2017)."""

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from attrain.engine.call import UnsupportedOperation
from attrain.engine.inputs import Form, Inputs
from attrain.engine.passes import Request, one_pass
from attrain.engine.state import restart, undone
from attrain.explanation import Explanation
from attrain.methods.deeplift.differences import OneByOne, RowBySample
from attrain.methods.deeplift.rules import DeepLiftMode
from attrain.methods.method import Method, apart, cut_reference, mean_explanation, references_of
from attrain.tensors import tensors


@dataclass(frozen=True, eq=False)
class DeepLift(Method):
    """Differences of activations from those on a reference input (Shrikumar, Greenside, Kundaje 2017).

    Args:
        reference: a float, or a tensor (1, ...) shared by all samples, (N, ...) one a sample, (R, 1, ...):
            R shared references, or (R, N, ...): R a sample; over R the maps are averaged. Of a tuple or dict of inputs
            the same form; of token ids, token ids.
        rule: "rescale": the secant of each nonlinearity; "reveal_cancel": positive and negative parts
            apart, their effects averaged over both orders; "genomics": RevealCancel after linear layers
            and Rescale after convolutions, an error elsewhere.
        hypothetical: of one-hot input, the contribution of each category were it there, with these multipliers.
        multipliers: the map before it is multiplied by the difference of the input.

    Maps sum to `Explanation.delta`: the explained number less that of the reference. Batch norm in training mode takes
    the statistics of the inputs for both; they are constants of the map. Where a map misses it by more than
    rounding, a warning says by how much. A layer's map does where all that depends on x passes through that layer: of
    token ids from which positions are counted too, as in RoBERTa, ask at `roberta.embeddings`, not at its words alone.

    Example:
        >>> from attrain import explain
        >>> minimum = lambda x: (x[:, :1] - torch.relu(x[:, :1] - x[:, 1:]))
        >>> explain(minimum, torch.tensor([[5.0, 1.0]]), 0, DeepLift()).heatmap
        tensor([[0., 1.]])
        >>> explain(minimum, torch.tensor([[5.0, 1.0]]), 0, DeepLift(rule="reveal_cancel")).heatmap
        tensor([[0.5000, 0.5000]])
    """

    reference: float | Tensor | tuple | dict = 0.0
    rule: str = "rescale"
    hypothetical: bool = False
    multipliers: bool = False

    def __post_init__(self):
        if self.rule not in ("rescale", "reveal_cancel", "genomics"):
            raise ValueError(f'rule must be "rescale", "reveal_cancel" or "genomics", got {self.rule!r}')
        if self.hypothetical and self.multipliers:
            raise ValueError("hypothetical and multipliers are two forms of one map: give one of them")

    def check(self, inputs: Inputs) -> None:
        references_of(self.reference, inputs)

    def rows(self, rows: slice, x: Form) -> Self:
        return replace(self, reference=cut_reference(self.reference, rows, x))

    @property
    def form(self) -> str:
        """What the map holds: "contributions", "multipliers" or "hypothetical" contributions."""
        return "hypothetical" if self.hypothetical else "multipliers" if self.multipliers else "contributions"

    def explanation(self, request: Request) -> Explanation:
        references = references_of(self.reference, request.inputs)
        mode = partial(DeepLiftMode, rule=self.rule, form=self.form)
        explanation = self._together(request, references, mode) or self._one_by_one(request, references, mode)
        whole = any(not t.is_floating_point() for t in request.inputs.tensors)  # their part is in no map at the input
        if self.form == "contributions" and request.at_input and not whole:
            _check_sum(explanation)
        return explanation

    def _together(self, request: Request, references: list, mode) -> Explanation | None:
        """All references in one forward pass, where they are shared by the samples and the model allows it."""
        alone = request.inputs.single and len(references[0][0]) == 1
        if len(references) < 2 or not alone or self.rule != "rescale" or request.create_graph:
            return None
        try:
            with undone(request.model):
                return one_pass(request, partial(mode, reference=[torch.cat([r[0] for r in references])], several=True))
        except (OneByOne, RowBySample):
            return None

    def _one_by_one(self, request: Request, references: list, mode) -> Explanation:
        if len(references) > 1:
            request = replace(request, score=request.score.fixed(request.output()))
        return mean_explanation(apart(request.model, lambda r: self._one(request, r, mode), references))

    def _one(self, request: Request, reference: list, mode) -> Explanation:
        """The maps for one reference: as one row for all samples, or where that does not fit a row a sample."""
        try:
            return one_pass(request, partial(mode, reference=reference))
        except RowBySample:
            restart(request.model)
        rows = [r.expand_as(x).contiguous() for r, x in zip(reference, request.inputs.tensors)]
        try:
            return one_pass(request, partial(mode, reference=rows))
        except RowBySample:
            raise UnsupportedOperation(
                "DeepLIFT cannot follow what is written in place into an activation of which there are views, or into "
                "such a view; write it out of place"
            ) from None


def _check_sum(explanation: Explanation) -> None:
    """Warn where the maps do not sum to delta; rounding is allowed."""
    delta = explanation.delta.detach()
    maps = [m.detach() for m in tensors([explanation.heatmap])]
    if not maps or not delta.numel() or not all(m.numel() for m in maps):
        return
    total = sum(m.flatten(delta.ndim).sum(-1) for m in maps)
    size = sum(m.flatten(delta.ndim).abs().sum(-1) for m in maps)
    eps = max(torch.finfo(t.dtype).eps for t in (delta, explanation.logits, *maps) if t.is_floating_point())
    gap = (total - delta).abs()
    if bool(
        (gap > 0.01 * delta.abs() + 1e3 * eps * (size + delta.abs() + explanation.logits.detach().abs().max())).any()
    ):
        warnings.warn(
            f"DeepLIFT's map misses what it must sum to by up to {gap.max().item():.3g} (delta up to "
            f"{delta.abs().max().item():.3g}): values cancel in this precision, as where a layer norm is given a flat "
            "reference, or an operation escapes its rules; explain model.double() with x.double(), or take another "
            "reference, and if the gap stays there, report the operation",
            UserWarning,
            stacklevel=5,
        )
