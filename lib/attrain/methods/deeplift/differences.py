"""DeepLIFT's bookkeeping: each activation with its reference (Shrikumar, Greenside, Kundaje 2017).

While the model runs, every tensor that depends on the input carries a `Difference`: the activation on the
reference input, computed beside it without a graph, and for RevealCancel the spread |Δ⁺| + |Δ⁻| of its
difference Δ = Δ⁺ + Δ⁻. The activations stay exact; their autograd graph is the graph of multipliers,
since every operation that is not linear is replaced by a `Link` whose backward applies the rule. A
reference shared by all samples is carried as one row, several as R rows, until an operation needs
them in full.
"""

import torch
from torch import Tensor
from torch.autograd import Function

from attrain.engine.call import Call, UnsupportedOperation, write
from attrain.engine.mode import Mode
from attrain.tensors import tensors

_DIMENSIONS = ("dim", "dims", "dim0", "dim1", "dim2", "source", "destination", "start_dim")
_VIEWS = ("view", "reshape", "expand")


class OneByOne(Exception):
    """Several references do not fit through this model at once; they are taken one at a time."""


class RowBySample(Exception):
    """A reference shared by the samples does not fit through this model as one row; it is taken once a sample."""


class Difference:
    """What an activation carries.

    Attributes:
        reference: the activation on the reference: as large, or one row for all samples, or R rows.
        spread: |Δ⁺| + |Δ⁻|; None: |Δ|.
        layer: the kind of layer it comes from, "conv" or "dense"; None: another.
        whole: whether it is made of whole numbers of the input alone, as token ids are.
        viewed: whether another tensor is a view of it.
        apart: whether such a view's reference has memory of its own, so that what is written into one is not in both.
    """

    __slots__ = ("apart", "layer", "reference", "spread", "token", "viewed", "whole")

    def __init__(self, token, reference: Tensor, spread: Tensor | None = None, layer: str | None = None, whole=False):
        self.token, self.reference, self.spread, self.layer = token, reference, spread, layer
        self.whole, self.viewed, self.apart = whole, False, False


class Link(Function):
    """A step of the model whose backward is a rule, and outside of `explaining` the ordinary derivative.

    `inputs` are `count` activations, for the rule, and then the step's results with their ordinary graph.
    """

    @staticmethod
    def forward(ctx, backward, pull, values, count, *inputs):
        ctx.set_materialize_grads(False)
        ctx.rules, ctx.pull, ctx.count, ctx.ordinary = backward, pull, count, len(inputs) - count
        if values[0] is inputs[0]:
            ctx.mark_dirty(inputs[0])
        return values if len(values) > 1 else values[0]

    @staticmethod
    def backward(ctx, *gradients):
        if ctx.rules.explaining:
            found = (*ctx.pull(ctx.rules.reference, *gradients), *[None] * ctx.ordinary)
        else:
            found = (*[None] * ctx.count, *gradients[: ctx.ordinary])
        return None, None, None, None, *found


class DifferenceMode(Mode):
    """Differences through the model.

    Args:
        leaves, entries, create_graph, model: as for `Mode`.
        reference: one an input, (1, ...) or (N, ...); or with `several` (R, ...) for one input.
        several: the rows of `reference` serve all samples and their maps are averaged.

    With `create_graph` the graph of the references and of the multipliers is kept.
    """

    def __init__(self, *args, reference: list[Tensor], several: bool = False):
        super().__init__(*args)
        self.several, self.selecting = several, False
        self.samples = len(self.leaves[0])
        self.references = len(reference[0]) if several else 1
        if several and self.references == self.samples:  # one row more, or rows could be taken for samples
            reference = [torch.cat([reference[0], reference[0][:1]])]
        self.reference, self.rows = reference, len(reference[0])
        if any(len(r) != self.rows for r in reference):
            self.reference = [r.expand_as(x) for r, x in zip(reference, self.leaves)]
            self.rows = self.samples
        for entry, r in zip(self.entries, self.reference):
            entry._attrain_pair = Difference(self.token, r.clone(), whole=not r.is_floating_point())

    # -------------------------------------------------------- what depends on the input

    def of(self, value) -> Difference | None:
        """What an activation carries, else None; a view made while its base was a constant has a part of the base's."""
        if not isinstance(value, Tensor):
            return None
        own = getattr(value, "_attrain_pair", None)
        if own is not None and own.token is self.token:
            return own
        base = value._base
        whole = getattr(base, "_attrain_pair", None)
        if whole is None or whole.token is not self.token:
            return None
        return Difference(self.token, _part(value, base, whole.reference), whole=whole.whole)

    def is_active(self, value) -> bool:
        return self.of(value) is not None

    def reference_of(self, value):
        own = self.of(value)
        return None if own is None else own.reference.clone()

    def second_of(self, value):
        """RevealCancel's |Δ⁺| + |Δ⁻|: with m± the multipliers of the parts, m⁺Δ⁺ + m⁻Δ⁻ is the contribution."""
        own = self.of(value)
        return own.spread if own is not None and own.spread is not None and own.spread.requires_grad else None

    # -------------------------------------------------------- the reference's side

    def on_reference(self, call: Call, out):
        """The operation on the references: in as few rows as they have, or in full where that does not fit."""
        if call.name == "as_strided":
            _check_strides(call)
        full = all(self.of(t).reference.shape == t.shape for t in call.active)
        if not full and not _mixes_samples(call):
            try:
                found = self._run(call, self._row, narrow=True)
            except (RuntimeError, IndexError, ValueError):
                found = None
            if found is not None and self._all_aligned(tensors([out]), tensors([found])):
                return found
        if self.several:
            raise OneByOne
        return self._run(call, self.full)

    def _run(self, call: Call, change, narrow=False):
        if narrow and call.name in _VIEWS and len(call.args) > 1:
            first, *rest = call.args[1] if isinstance(call.args[1], (tuple, list)) else call.args[1:]
            if first == self.samples:
                call = Call(call.func, (call.args[0], (self.rows, *rest)), {}, self.is_active)
        with self.graph():
            return call.run(change)

    def _row(self, value: Tensor) -> Tensor:
        """The argument for the references' own rows; a constant that is alike for all samples too."""
        own = self.of(value)
        if own:
            return own.reference
        alike = value.ndim > 0 and len(value) == self.samples > 1 and value.stride(0) == 0
        return value[:1].expand(self.rows, *value.shape[1:]) if alike else value

    def full(self, value: Tensor) -> Tensor:
        """The reference of an activation as large as that is; a constant as it is."""
        own = self.of(value)
        if own and self.several:
            raise OneByOne
        if own is None or own.reference.shape == value.shape:
            return value if own is None else own.reference
        return own.reference.expand_as(value).contiguous()  # of an expanded row, without memory, not all can be made

    def alike(self, out: Tensor, reference: Tensor) -> bool:
        """Whether a result is as large as its reference, or that has rows for all samples."""
        return out.shape == reference.shape or self._aligned(out, reference)

    def _all_aligned(self, outs: list[Tensor], references: list[Tensor]) -> bool:
        return len(outs) == len(references) and all(map(self._aligned, outs, references))

    def _aligned(self, out: Tensor, reference: Tensor) -> bool:
        return (
            out.ndim > 0
            and (len(out), len(reference)) == (self.samples, self.rows)
            and (out.shape[1:] == reference.shape[1:])
        )

    def row(self, reference: Tensor, number: int) -> Tensor:
        """The rows of one reference."""
        return reference[number : number + 1] if self.several else reference

    def kept(self, call: Call, value: Tensor) -> Tensor:
        """An activation for the backward pass; with several references a copy where it is about to be overwritten."""
        if not self.several:
            return value
        return value.detach().clone() if call.inplace else value.detach()

    def guard(self, pull, kept):
        """With several references `pull` reads activations later; refuse if the model has overwritten them."""
        if not self.several:
            return pull
        versions = [v._version for v in kept]

        def guarded(number, *gradients):
            if [v._version for v in kept] != versions:
                raise OneByOne
            return pull(number, *gradients)

        return guarded

    def graph(self):
        """The context in which references and multipliers are computed."""
        return torch.set_grad_enabled(self.create_graph)

    # -------------------------------------------------------- results

    def attach(self, call: Call, out, reference, spread=None, layer=None, whole=False):
        """Give an operation's outputs their differences; write them where an operation in place wants them."""
        if call.inplace and out is not call.tensors[0]:
            return self._write(call, call.tensors[0], out, reference, spread, layer)
        outs, references = tensors([out]), tensors([reference])
        spreads = [None] * len(outs) if spread is None else tensors([spread])
        for o, r, s in zip(outs, references, spreads):
            o._attrain_pair = Difference(self.token, r, s, layer, whole)
            base = getattr(o._base, "_attrain_pair", None)
            if base is not None:
                base.viewed, base.apart = True, base.apart or not _share_memory(r, base.reference)
        return out

    def link(self, call: Call, y: Tensor, reference: Tensor, pull, layer=None):
        """The result y of a call, with pull(number of the reference, gradient) as its backward."""
        ordinary = [y] if self.create_graph else []
        values = (y if y is call.active[0] else y.detach(),)  # an activation itself: overwritten already
        out = Link.apply(self.backward, pull, values, len(call.active), *call.active, *ordinary)
        return self.attach(call, out, reference, layer=layer)

    def in_memory(self, target: Tensor) -> bool:
        """Whether others share its memory, or it is a constant: then its reference is written in place."""
        own = getattr(target, "_attrain_pair", None)
        return target._is_view() or own is None or own.token is not self.token or own.viewed

    def adopt(self, target: Tensor) -> Difference:
        """What a tensor to be written carries; a constant until now gets a reference equal to it, in its own memory."""
        base = target._base if target._is_view() else target
        if getattr(base, "_attrain_pair", None) is not None and base._attrain_pair.apart:
            raise RowBySample
        if self.of(base) is None:
            if self.several:
                raise OneByOne
            copy = torch.empty_strided(base.shape, base.stride(), dtype=base.dtype, device=base.device)
            whole = not (base.is_floating_point() or base.is_complex())
            base._attrain_pair = Difference(self.token, copy.copy_(base.detach()), whole=whole)
            base._attrain_pair.viewed = True
        own = self.of(target)
        target._attrain_pair = own
        return own

    def _write(self, call: Call, target: Tensor, value: Tensor, reference: Tensor, spread=None, layer=None) -> Tensor:
        """Make an operation's result the new value and graph of the tensor that it changes in place."""
        if value.shape != target.shape:
            raise UnsupportedOperation(f"DeepLIFT cannot follow {call} in place, which changes the shape")
        if not self.in_memory(target):
            own = self.of(target)
            own.reference, own.spread, own.layer = reference, spread, layer
            return write(target, value)
        own = self.adopt(target)
        if own.reference.shape not in (reference.shape, target.shape):
            raise UnsupportedOperation("DeepLIFT cannot follow this operation in place on a view of an activation")
        with self.graph():
            own.reference.copy_(reference)
        own.spread = own.layer = None
        base = getattr(target._base, "_attrain_pair", None)
        if base is not None:
            base.spread = base.layer = None
        return write(target, value)

    # -------------------------------------------------------- after the model

    def scores(self, output, score):
        if score.callable:  # its operations are attributed too; what it selects, it selects for the input
            self.selecting = True
            with self:
                scores = score(output)
            own = self.of(scores)
            reference = own.reference if own else scores
            if self.several:
                reference = reference[: self.references].mean(0, keepdim=True)
            return scores, (scores - reference).detach()
        score, logits = score.fixed(output), score.logits(output)
        scores, own = score(output), self.of(logits)
        if own is None:
            return scores, torch.zeros_like(scores)
        rows = [self.row(own.reference, b) for b in range(self.references)]
        reference = torch.stack([score(row.expand_as(logits)) for row in rows]).mean(0)
        return scores, (scores - reference).detach()

    def contract(self, number, gradient):
        place = self.mapped[number]
        return self.contract_at(gradient, self.leaves[place].detach(), self.reference[place])

    def contract_at(self, gradient, activation, reference):
        return gradient * (activation - self.row(reference, self.backward.reference))


def _mixes_samples(call: Call) -> bool:
    """Whether an operation works along axis 0, where a shared reference has one row only."""
    ndim = max(t.ndim for t in call.active)
    if call.name == "getitem":
        first = call.args[1][0] if isinstance(call.args[1], tuple) and call.args[1] else call.args[1]
        return not (first is Ellipsis or (isinstance(first, slice) and first == slice(None)))
    if call.name == "permute":
        dims = call.given.get("dims", (0,))
        return (dims[0] if isinstance(dims, (tuple, list)) else dims) % ndim != 0
    if call.name == "roll" and not call.given.get("dims"):
        return True
    if (
        call.kind == "spectral_maps"
        and call.given.get("dim") is None
        and (call.name or "").removeprefix("h")[-1:] in "2nt"
    ):
        return ndim < 3 or not call.name.endswith("2")  # several dimensions, by default the last two or all
    if call.name in ("tril", "triu", "diag", "trace") and ndim < 3:
        return True
    if call.name in _ALWAYS or (call.name in _BY_DEFAULT and not {"dim", "dims"} & call.given.keys()):
        return True
    if call.name in ("pad", "constant_pad_nd"):
        return len(call.given["pad"]) >= 2 * ndim
    if call.name == "einsum":
        return not _is_samplewise(call)
    if call.name in ("diagonal", "diagonal_scatter") and 0 in (call.given.get("dim1", 0), call.given.get("dim2", 1)):
        return True
    for name in _DIMENSIONS:
        value = call.given.get(name)
        dims = value if isinstance(value, (tuple, list)) else [value]
        if any(isinstance(d, int) and not isinstance(d, bool) and ndim and d % ndim == 0 for d in dims):
            return True
    return False


# What works along axis 0 whatever its arguments, and if it is not told another.
_ALWAYS = frozenset(
    "flipud index_put as_strided tensordot grouped_mm _grouped_mm _pack_padded_sequence _pad_packed_sequence".split()
)
_BY_DEFAULT = frozenset("rot90 slice_scatter chunk split tensor_split unbind cat concat concatenate stack".split())


def _is_samplewise(call: Call) -> bool:
    """Whether an einsum's activations, and its result, have the samples first: one letter, or the first of "..."."""
    if not isinstance(call.args[0], str):
        return False
    terms, arrow, result = call.args[0].replace(" ", "").partition("->")
    active = {id(t) for t in call.active}
    found = [(term, t) for term, t in zip(terms.split(","), call.tensors) if id(t) in active]
    if not arrow or any(term[:1] != result[:1] or term.count(term[:1]) > max(term.count("."), 1) for term, _ in found):
        return False
    dots = {t.ndim - len(term) + 3 for term, t in found if term[:1] == "."}
    return not dots or (len(dots) == 1 and dots != {0})


def _check_strides(call: Call) -> None:
    """Raise if as_strided reads memory that lies otherwise in a reference."""
    for t in call.active:
        if t.storage_offset() or not t.is_contiguous() or t.untyped_storage().nbytes() != t.nbytes:
            raise UnsupportedOperation(
                f"DeepLIFT cannot follow {call} of a view, whose memory lies otherwise on the reference; copy it first"
            )


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _part(view: Tensor, base: Tensor, reference: Tensor) -> Tensor:
    """The part of a base's reference that a view of the base sees."""
    if reference.shape != base.shape or reference.stride() != base.stride() or view.dtype != base.dtype:
        raise UnsupportedOperation(
            "DeepLIFT cannot follow this view of a tensor that is written in place; use torch.cat"
        )
    offset = view.storage_offset() - base.storage_offset() + reference.storage_offset()
    return reference.as_strided(view.shape, view.stride(), offset)
