"""DeepLIFT's engine: each activation paired with its reference (Shrikumar, Greenside, Kundaje 2017).

While the model runs, every tensor that depends on the input carries a `Pair`: the activation on the
reference input, computed beside it without a graph, and for RevealCancel the mass |Δ⁺| + |Δ⁻| of its
difference Δ = Δ⁺ + Δ⁻. The activations stay exact; their autograd graph is the graph of multipliers,
since every operation that is not linear is replaced by a `Link` whose backward applies the rule. A
reference shared by all samples is carried as one row, several as R rows, until an operation needs
them in full.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import resolve_name

from attrain.engine.operations import UnsupportedOperation, canonical, mapped, opened, registered, tensors, write
from attrain.engine.rules import Rules
from attrain.engine.unseen import mark
from attrain.targets import target_scores

# What reads values out of a tensor; and what leaves it as it is.
READS = frozenset("item tolist numpy __bool__ __float__ __int__ __index__ __complex__ equal allclose __array__".split())
AS_IS = frozenset("requires_grad_ retain_grad register_hook __repr__ __format__ __str__ __hash__".split())


class OneByOne(Exception):
    """Several references do not fit through this model at once; they are taken one at a time."""


class Pair:
    """What an activation carries: its reference, its mass (None: |Δ|), and the kind of layer it comes from."""

    __slots__ = ("layer", "mass", "reference")

    def __init__(self, reference: Tensor, mass: Tensor | None = None, layer: str | None = None):
        self.reference, self.mass, self.layer = reference, mass, layer


def pair(value) -> Pair | None:
    """What this activation carries, if it is one."""
    return getattr(value, "_attrain_pair", None) if isinstance(value, Tensor) else None


class Link(Function):
    """A step of the model whose backward is a rule, and outside of `explaining` the ordinary derivative.

    `inputs` are `count` activations, for the rule, and then the step's results with their ordinary graph.
    """

    @staticmethod
    def forward(ctx, switch, pull, values, count, *inputs):
        ctx.set_materialize_grads(False)
        ctx.switch, ctx.pull, ctx.count, ctx.ordinary = switch, pull, count, len(inputs) - count
        if values[0] is inputs[0]:
            ctx.mark_dirty(inputs[0])
        return values if len(values) > 1 else values[0]

    @staticmethod
    def backward(ctx, *gradients):
        if ctx.switch["explaining"]:
            found = (*ctx.pull(ctx.switch["reference"], *gradients), *[None] * ctx.ordinary)
        else:
            found = (*[None] * ctx.count, *gradients[: ctx.ordinary])
        return None, None, None, None, *found


class AbsoluteLinear(Function):
    """a @ |W|ᵀ, by parts of W that fit in a cache: a copy of a large W costs more than the product."""

    PART = 2**20

    @staticmethod
    def parts(weight):
        return (w.abs() for w in weight.detach().split(max(1, AbsoluteLinear.PART // weight.shape[1])))

    @staticmethod
    def forward(ctx, a, weight):
        ctx.weight = weight
        return torch.cat([F.linear(a, w) for w in AbsoluteLinear.parts(weight)], -1)

    @staticmethod
    def backward(ctx, g):
        rows = max(1, AbsoluteLinear.PART // ctx.weight.shape[1])
        return sum(part @ w for part, w in zip(g.split(rows, -1), AbsoluteLinear.parts(ctx.weight))), None


class Call:
    """An operation as called, to be run again on other values.

    Attributes:
        active: the arguments that depend on the input, each once.
        times: how often they occur.
    """

    def __init__(self, func, args, kwargs):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name, self.inplace = canonical(func)
        found = [t for t in tensors((args, kwargs)) if pair(t)]
        self.active, self.times = list({id(t): t for t in found}.values()), len(found)

    def __str__(self):
        return resolve_name(self.func) or self.name

    def run(self, change=None):
        """The result, every tensor t replaced by change(t); then never in place."""
        if change is None:
            return self.func(*self.args, **self.kwargs)
        args, kwargs = mapped(change, self.args), mapped(change, self.kwargs)
        if self.inplace and self.name == "relu":
            return args[0].relu()
        if self.inplace:
            args = (args[0].clone(), *args[1:])
        return self.func(*args, **kwargs)

    def on(self, *values):
        """The result with other activations."""
        new = {id(t): v for t, v in zip(self.active, values)}
        return self.run(lambda t: new.get(id(t), t))

    def released(self):
        """The same call, to be run with `on`, without a hold on its activations."""
        call, stand_ins = object.__new__(Call), [torch.empty(0) for _ in self.active]
        new = {id(t): s for t, s in zip(self.active, stand_ins)}
        change = lambda t: new.get(id(t), t)  # noqa: E731
        call.func, call.args, call.kwargs = self.func, mapped(change, self.args), mapped(change, self.kwargs)
        call.name, call.inplace, call.active, call.times = self.name, self.inplace, stand_ins, self.times
        return call

    def argument(self, index: int, name: str, default=None):
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)


class PairRules(Rules):
    """Pairs through the model, one rule an operation.

    Args:
        x, entry: as for `Rules`.
        reference: (1, ...), (N, ...) or, with `several`, (R, ...).
        several: the rows of `reference` serve all samples and their maps are averaged.

    With `create_graph` the graph of the references and of the multipliers is kept.
    """

    sees_all = True

    def __init__(self, x, entry, reference, several=False):
        super().__init__(x, entry)
        self.several = several
        self.references = len(reference) if several else 1
        if several and self.references == len(x):  # one row more, or rows of references could be taken for samples
            reference = torch.cat([reference, reference[:1]])
        self.reference, self.rows, self.selecting = reference, len(reference), False
        entry._attrain_pair = Pair(reference.clone())

    # -------------------------------------------------------- which rule

    def call(self, func, name, args, kwargs):
        call = Call(func, args, kwargs)
        if not call.active or name in AS_IS:
            return func(*args, **kwargs)
        if name in READS:
            return self.read(call)
        own = registered(func)
        body = opened(func) if own is None else None
        with torch.enable_grad():
            if body is not None:  # torch's own Python: run with this mode on inside
                with self:
                    return body(*args, **kwargs)
            return self.rule_of(call, own)(self, call)

    def rule_of(self, call: Call, registered: str | None):
        """The rule of an operation, a function of these rules and the call."""
        raise NotImplementedError

    def read(self, call: Call):
        """A value taken out of a tensor: right for the reference too only where it is the same."""
        out = call.run(Tensor.detach)
        if not self.selecting and call.run(lambda t: self.full(t).detach()) != out:
            raise UnsupportedOperation(f"the model reads a value of an activation ({call}); a reference has another")
        return out

    # -------------------------------------------------------- the reference's side

    def on_reference(self, call: Call, out):
        """The operation on the references: in as few rows as they have, or in full where that does not fit."""
        full = all(pair(t).reference.shape == t.shape for t in call.active)
        try:
            found = self._run(call, self._row if not full else self.full, narrow=not full)
        except (RuntimeError, IndexError, ValueError):
            if full:
                raise
            found = None
        if found is not None and (full or all(map(self._aligned, tensors([out]), tensors([found])))):
            return found
        if self.several:
            raise OneByOne
        return self._run(call, self.full)

    def _run(self, call, change, narrow=False):
        if narrow and call.name in ("view", "reshape", "expand") and len(call.args) > 1:
            first, *rest = call.args[1] if isinstance(call.args[1], (tuple, list)) else call.args[1:]
            if first == len(self.x):
                call = Call(call.func, (call.args[0], (self.rows, *rest)), {})
        with torch.set_grad_enabled(self.create_graph):
            return call.run(change)

    def _row(self, value: Tensor) -> Tensor:
        """The argument for the references' own rows; a constant that is alike for all samples too."""
        if pair(value):
            return pair(value).reference
        alike = value.ndim > 0 and len(value) == len(self.x) > 1 and value.stride(0) == 0
        return value[:1].expand(self.rows, *value.shape[1:]) if alike else value

    def full(self, value: Tensor) -> Tensor:
        return pair(value).reference.expand_as(value) if pair(value) else value

    def _aligned(self, out, reference) -> bool:
        return (
            out.ndim > 0
            and (len(out), len(reference)) == (len(self.x), self.rows)
            and (out.shape[1:] == reference.shape[1:])
        )

    def row(self, reference: Tensor, number: int) -> Tensor:
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

    def attach(self, call: Call, out, reference, mass=None, layer=None):
        """Give an operation's outputs their pairs; write them where an operation in place wants them."""
        if call.inplace and out is not call.args[0]:
            out = _write(call.args[0], out, reference)
        outs, references = tensors([out]), tensors([reference])
        masses = [None] * len(outs) if mass is None else tensors([mass])
        for o, r, m in zip(outs, references, masses):
            o._attrain_pair = Pair(r, m, layer)
        mark(outs, active=True)
        return out

    def link(self, call: Call, y: Tensor, reference: Tensor, pull, layer=None):
        """The result y of a call, with pull(number of the reference, gradient) as its backward."""
        ordinary = [y] if self.create_graph else []
        values = (y if y is call.active[0] else y.detach(),)  # an activation itself: overwritten already
        out = Link.apply(self.switch, pull, values, len(call.active), *call.active, *ordinary)
        return self.attach(call, out, reference, layer=layer)

    # -------------------------------------------------------- after the model

    def scores(self, logits, target):
        if callable(target):  # its operations are attributed too; what it selects, it selects for the input
            self.selecting = True
            with self:
                scores = target_scores(logits, target)
            reference = pair(scores).reference if pair(scores) else scores
        else:
            target = logits.detach().argmax(1) if target is None else target
            scores = target_scores(logits, target)
            rows = pair(logits).reference
            rows = [self.row(rows, b) for b in range(self.references)]
            reference = torch.stack([target_scores(row.expand_as(logits), target) for row in rows]).mean(0)
        if self.several and callable(target):
            reference = reference[: self.references].mean()
        return scores, (scores - reference).detach()

    def contract(self, gradient, create_graph):
        return self.contract_at(gradient, self.x.detach(), self.reference)

    def contract_at(self, gradient, activation, reference):
        return gradient * (activation - self.row(reference, self.switch["reference"]))


def _write(target: Tensor, value: Tensor, reference: Tensor) -> Tensor:
    """Make an operation's result the new value and graph of the tensor that it changes in place."""
    own, base = pair(target), target._base if target._is_view() else None
    if pair(base):
        if own.reference.shape != reference.shape or own.reference._base is None:
            raise UnsupportedOperation("DeepLIFT cannot follow this operation in place on a view of an activation")
        with torch.no_grad():
            own.reference.copy_(reference)
        pair(base).mass = pair(base).layer = None
    return write(target, value)
