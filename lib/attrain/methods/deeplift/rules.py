"""DeepLIFT's table of rules, and the mode that asks it."""

import torch
from torch import Tensor

from attrain.engine import decompositions
from attrain.engine.call import ADVICE, Call, UnsupportedOperation
from attrain.methods.deeplift.differences import Difference, DifferenceMode, OneByOne
from attrain.methods.deeplift.linear import (
    batch_norm,
    detached,
    dropout,
    embedding,
    packed,
    partwise,
    product,
    sampled,
    spectral,
    sums,
    weighted,
)
from attrain.methods.deeplift.nonlinear import elementwise, logsumexp, maximum_of_dim, maximum_of_window
from attrain.methods.deeplift.selections import choice, continuous, ordered, read, setitem
from attrain.tensors import tensors


def decomposed(mode, call: Call):
    """Written out in operations that have rules."""
    if any(not continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    given = dict(call.given)
    with mode:
        if call.inplace:
            given["input"] = given["input"].clone()  # the operations save it, and then it is overwritten
        out = decompositions.TABLE[call.name](**given)
    if not call.inplace:
        return out
    return mode.attach(call, out, mode.of(out).reference)


def magnitude(mode, call: Call):
    """|x|; of complex numbers √(re² + im²)."""
    if not call.active[0].is_complex():
        return elementwise(mode, call)
    with mode:
        return decompositions.vector_norm(torch.view_as_real(call.active[0].resolve_conj()), dim=-1)


def quotient(mode, call: Call):
    """Linear in the dividend; a divisor that is an activation is a factor 1/b."""
    if call.given.get("rounding_mode") is not None:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with rounding; {ADVICE}")
    return decomposed(mode, call) if mode.of(call.given.get("other")) else product(mode, call)


def template(mode, call: Call):
    """Only the shape of the argument matters."""
    return call.run()


def unchanged(mode, call: Call):
    """A flag on a tensor; whether it has a graph is ours to say."""
    return call.tensors[0]


def other(mode, call: Call):
    """What returns no activation needs no rule; everything else does."""
    if call.inplace:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call}; {ADVICE}")
    out = call.run()
    return choice(mode, call, out) if tensors([out]) else out


TABLE = {
    **dict.fromkeys(decompositions.TABLE, decomposed),
    "linear_maps": partwise,
    "nan_to_num": partwise,
    "spectral_maps": spectral,
    **dict.fromkeys("grid_sample grid_sampler roi_align ps_roi_align".split(), sampled),
    **dict.fromkeys("embedding embedding_bag".split(), embedding),
    **dict.fromkeys("_pack_padded_sequence _pad_packed_sequence".split(), packed),
    "sums": sums,
    "convolutions": weighted,
    "linear_layers": weighted,
    "products": product,
    "div": quotient,
    "dropouts": dropout,
    "relus": elementwise,
    "activations": elementwise,
    "functions": elementwise,
    "abs": magnitude,
    "maxima": maximum_of_window,
    "normalisations": batch_norm,
    "logsumexp": logsumexp,
    "last_max": maximum_of_dim,
    **dict.fromkeys("sort topk msort".split(), ordered),
    "setitem": setitem,
    "detached": detached,
    "templates": template,
    "requires_grad": unchanged,
    "reads": read,
    None: other,
}


class DeepLiftMode(DifferenceMode):
    """DeepLIFT's rules on differences.

    Args:
        reference, several: see `DifferenceMode`.
        rule: "rescale", "reveal_cancel" or "genomics".
        form: "contributions", "multipliers" or "hypothetical", see `attrain.DeepLift`.
    """

    table, keeps, title = TABLE, True, "DeepLIFT"

    def __init__(self, *args, reference, rule: str, several: bool = False, form: str = "contributions"):
        super().__init__(*args, reference=reference, several=several)
        self.rule, self.form = rule, form

    def answer(self, call, registered):
        with torch.enable_grad():
            return super().answer(self._settled(call), registered)

    def _settled(self, call: Call) -> Call:
        """Beside activations, what is made of token ids and is the same on the reference, as a mask, is a constant."""
        whole = [t for t in call.active if self.of(t).whole]
        if not whole or len(whole) == len(call.active):
            return call
        if self.several:
            raise OneByOne
        if not all(torch.equal(t, self.full(t)) for t in whole):
            return call
        return Call(call.func, call.args, call.kwargs, lambda t: self.is_active(t) and not self.of(t).whole)

    def contract(self, number, gradient):
        if self.form == "contributions":
            return super().contract(number, gradient)
        if self.form == "multipliers":
            return gradient
        reference = self.row(self.reference[self.mapped[number]], self.backward.reference)
        return gradient - (gradient * reference).sum(1, keepdim=True)

    def spread_of(self, value: Tensor) -> Tensor:
        """|Δ⁺| + |Δ⁻| of an activation."""
        own: Difference = self.of(value)
        return (value - own.reference).abs() if own.spread is None else own.spread

    def wants_spread(self, call: Call, dense: bool = False) -> bool:
        """Whether the rule needs the two parts of a difference behind this operation."""
        if self.rule == "genomics":
            return dense or any(self.of(t).layer == "dense" for t in call.active)
        return self.rule == "reveal_cancel"
