"""DeepLIFT: rules on pairs of an activation and its reference (Shrikumar, Greenside, Kundaje 2017).

While the model runs, every tensor that depends on the input carries a `Pair`: the activation on the
reference input, computed beside it without a graph, and for RevealCancel the mass |Δ⁺| + |Δ⁻| of its
difference Δ = Δ⁺ + Δ⁻. The activations stay exact; their autograd graph is the graph of multipliers,
since every operation that is not linear is replaced by a `Link` whose backward applies the rule. A
reference shared by all samples is carried as one row, several as R rows, until an operation needs
them in full.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import resolve_name

from attrain import compositions, rules
from attrain.rules import Rules, UnsupportedOperation, canonical, opened, registered, write
from attrain.targets import target_scores

NEAR = 1e-7  # below this difference a secant is the derivative at the reference
ADVICE = "give it a rule with attrain.register_rule(op, rule)"
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
    return getattr(value, "_attrain_pair", None) if isinstance(value, Tensor) else None


class Link(Function):
    """A step of the model whose backward is a rule, and outside of `explaining` the ordinary derivative.

    `inputs` are `count` activations, for the rule, and then the step's results with their ordinary graph.
    """

    @staticmethod
    def forward(ctx, switch, pull, values, count, *inputs):
        ctx.set_materialize_grads(False)
        ctx.switch, ctx.pull, ctx.count, ctx.ordinary = switch, pull, count, len(inputs) - count
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
        found = [t for t in _tensors((args, kwargs)) if pair(t)]
        self.active, self.times = list({id(t): t for t in found}.values()), len(found)

    def __str__(self):
        return resolve_name(self.func) or self.name

    def run(self, change=None):
        """The result, every tensor t replaced by change(t); then never in place."""
        if change is None:
            return self.func(*self.args, **self.kwargs)
        args, kwargs = _map(change, self.args), _map(change, self.kwargs)
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
        call.func, call.args, call.kwargs = self.func, _map(change, self.args), _map(change, self.kwargs)
        call.name, call.inplace, call.active, call.times = self.name, self.inplace, stand_ins, self.times
        return call

    def argument(self, index: int, name: str, default=None):
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)


class DeepLiftRules(Rules):
    """Pairs through the model, one rule an operation.

    Args:
        x, entry: as for `Rules`.
        reference: (1, ...), (N, ...) or, with `several`, (R, ...).
        rule: "rescale", "reveal_cancel" or "genomics".
        several: the rows of `reference` serve all samples and their maps are averaged; Rescale only.
        create_graph: keep the graph of the references and of the multipliers.
    """

    def __init__(self, x, entry, reference, rule, several=False, create_graph=False):
        super().__init__(x, entry)
        self.rule, self.several, self.create_graph = rule, several, create_graph
        self.references = len(reference) if several else 1
        if several and self.references == len(x):  # one row more, or rows of references could be taken for samples
            reference = torch.cat([reference, reference[:1]])
        self.reference, self.rows, self.selecting = reference, len(reference), False
        entry._attrain_pair = Pair(reference.clone())

    # -------------------------------------------------------- which rule

    def call(self, func, name, args, kwargs):
        call = Call(func, args, kwargs)
        for value in _tensors((args, kwargs)):
            if value.grad_fn is not None and not pair(value) and _reaches(value.grad_fn, self.x):
                raise UnsupportedOperation(f"{call} is given the result of an operation that cannot be seen; {ADVICE}")
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
            rule = {"linear": partwise, "elementwise": elementwise, "product": product}[own] if own else None
            return (rule or TABLE.get(call.name, other))(self, call)

    def read(self, call: Call):
        """A value taken out of a tensor: right for the reference too only where it is the same."""
        out = call.run(Tensor.detach)
        if not self.selecting and call.run(lambda t: self._full(t).detach()) != out:
            raise UnsupportedOperation(f"the model reads a value of an activation ({call}); a reference has another")
        return out

    # -------------------------------------------------------- the reference's side

    def on_reference(self, call: Call, out):
        """The operation on the references: in as few rows as they have, or in full where that does not fit."""
        full = all(pair(t).reference.shape == t.shape for t in call.active)
        try:
            found = self._run(call, self._row if not full else self._full, narrow=not full)
        except (RuntimeError, IndexError, ValueError):
            if full:
                raise
            found = None
        if found is not None and (full or all(map(self._aligned, _tensors([out]), _tensors([found])))):
            return found
        if self.several:
            raise OneByOne
        return self._run(call, self._full)

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

    def _full(self, value: Tensor) -> Tensor:
        return pair(value).reference.expand_as(value) if pair(value) else value

    def _aligned(self, out, reference) -> bool:
        return (
            out.ndim > 0
            and (len(out), len(reference)) == (len(self.x), self.rows)
            and (out.shape[1:] == reference.shape[1:])
        )

    def row(self, reference: Tensor, number: int) -> Tensor:
        return reference[number : number + 1] if self.several else reference

    def graph(self):
        """The context in which references and multipliers are computed."""
        return torch.set_grad_enabled(self.create_graph)

    # -------------------------------------------------------- results

    def attach(self, call: Call, out, reference, mass=None, layer=None):
        """Give an operation's outputs their pairs; write them where an operation in place wants them."""
        if call.inplace and out is not call.args[0]:
            out = _write(call.args[0], out, reference)
        outs, references = _tensors([out]), _tensors([reference])
        masses = [None] * len(outs) if mass is None else _tensors([mass])
        for o, r, m in zip(outs, references, masses):
            o._attrain_pair = Pair(r, m, layer)
        return out

    def link(self, call: Call, y: Tensor, reference: Tensor, pull, layer=None):
        """The result y of a call, with pull(number of the reference, gradient) as its backward."""
        ordinary = [y] if self.create_graph else []
        out = Link.apply(self.switch, pull, (y.detach(),), len(call.active), *call.active, *ordinary)
        return self.attach(call, out, reference, layer=layer)

    def mass(self, value: Tensor) -> Tensor:
        """|Δ⁺| + |Δ⁻| of an activation."""
        return (value - pair(value).reference).abs() if pair(value).mass is None else pair(value).mass

    def wants_mass(self, call: Call, dense: bool = False) -> bool:
        if self.rule == "genomics":
            return dense or any(pair(t).layer == "dense" for t in call.active)
        return self.rule == "reveal_cancel"

    # -------------------------------------------------------- after the model

    def forward(self, model, x):
        logits = super().forward(model, x)
        if isinstance(logits, Tensor):
            if not pair(logits):
                raise UnsupportedOperation(f"the model's output is that of an operation that cannot be seen; {ADVICE}")
            _check_graph(logits.grad_fn, self.x)
        return logits

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


# ---------------------------------------------------------------- rules


def partwise(engine: DeepLiftRules, call: Call):
    """Linear with weights ≥ 0: the two parts of a difference pass alike, and no other argument has a part."""
    if any(not t.is_floating_point() for t in call.active):
        return choice(engine, call, call.run())
    if call.name in ("detach", "data"):  # a constant of the derivative is no constant of the difference
        call = Call(torch.clone, call.active, {})
    mass = None
    if engine.wants_mass(call) and call.name not in ("pad", "constant_pad_nd", "masked_fill", "nan_to_num"):
        mass = call.run(lambda t: engine.mass(t) if pair(t) else torch.zeros_like(t) if t.is_floating_point() else t)
    keeps = call.name in ("clone", "contiguous", "identity", "dropout", "to")
    return linear(engine, call, mass, pair(call.active[0]).layer if keeps else None)


def linear(engine, call, mass=None, layer=None):
    """Affine in the activations: an ordinary step."""
    direct = not (call.inplace and call.args[0]._is_view())
    out = call.run() if direct else call.run(lambda t: t)
    return engine.attach(call, out, engine.on_reference(call, out), mass, layer)


def sums(engine, call):
    """a ± b: the parts add up."""
    mass = None
    if engine.wants_mass(call):
        terms = [engine.mass(t) for t in call.args[:2] if pair(t)]
        if pair(call.argument(1, "other")) and "alpha" in call.kwargs:
            terms[-1] = abs(call.kwargs["alpha"]) * terms[-1]
        shape = torch.broadcast_shapes(*(t.shape for t in _tensors(call.args[:2])))
        mass = sum(terms).expand(shape)
    return linear(engine, call, mass, pair(call.active[0]).layer if call.times == 1 else None)  # once: a bias


def weighted(engine, call):
    """A layer with a weight: the positive part of its difference gathers the positive terms (LINEAR rule)."""
    if pair(call.argument(1, "weight")):
        return product(engine, call)
    dense, mass = call.name == "linear", None
    if engine.wants_mass(call, dense):
        x, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
        size = (x - pair(x).reference).abs()
        if dense and not engine.create_graph and not torch.is_autocast_enabled(x.device.type):
            mass = AbsoluteLinear.apply(size, weight)
        else:
            change = {id(x): size, id(weight): weight.abs(), id(bias): None}
            mass = call.run(lambda t: change.get(id(t), t))
    return linear(engine, call, mass, "dense" if dense else "conv")


def batch_norm(engine, call):
    """An affine map a·x + b in evaluation mode: the parts pass through, exchanged where a < 0."""
    x, weight, _, _, variance, training = call.args[:6]
    if training:
        raise UnsupportedOperation("DeepLIFT has no rule for batch norm in training mode: call model.eval() first")
    mass = None
    if engine.wants_mass(call):
        scale = (1 if weight is None else weight.abs()) * (variance + call.args[7]).rsqrt()
        mass = engine.mass(x) * scale.view(-1, *[1] * (x.ndim - 2))
    return linear(engine, call, mass, pair(x).layer)


def dropout(engine, call):
    if call.argument(2, "train", True) and call.argument(1, "p", 0.5) > 0:
        raise UnsupportedOperation("DeepLIFT has no rule for active dropout: call model.eval() first")
    return partwise(engine, call)


def product(engine, call):
    """Linear in each factor, or a square: the derivative at the midpoint, which is exact."""
    if call.times == 1:
        mass = None
        if engine.wants_mass(call) and call.name not in ("addmm", "addbmm", "baddbmm", "addcmul", "addmv", "bilinear"):
            args = tuple(abs(a) if isinstance(a, (int, float)) else a for a in call.args)
            mass = Call(call.func, args, call.kwargs).run(lambda t: engine.mass(t) if pair(t) else t.abs())
        return linear(engine, call, mass)
    with engine.graph():
        y = call.on(*call.active)
    reference = engine.on_reference(call, y)
    pairs = [(_kept(engine, call, t), pair(t).reference) for t in call.active]

    def middle(number):
        with engine.graph():
            return [(x + engine.row(r, number)) / 2 for x, r in pairs]

    ready, again = None if engine.several else middle(0), call.released()

    def pull(number, g):
        create = torch.is_grad_enabled()
        with torch.enable_grad():
            at = middle(number) if ready is None else ready
            at = at if create and at[0].requires_grad else [m.detach().requires_grad_() for m in at]
            return torch.autograd.grad(again.on(*at), at, g, create_graph=create)

    pull = _guard(engine, pull, [v for p in pairs for v in p])
    return engine.link(call, y, reference, pull)


def elementwise(engine, call):
    """A function of one activation: Rescale's secant, or RevealCancel's pair of mean secants."""
    if any(not t.is_floating_point() for t in call.active):
        return choice(engine, call, call.run())
    if call.times > 1:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} of several activations; {ADVICE}")
    (x,) = call.active
    with engine.graph():
        y = call.on(x)
    y0 = engine.on_reference(call, y)
    r = pair(x).reference
    if call.name in rules.ACTIVATIONS and _reveals(engine, call):
        return _reveal_cancel(engine, call, y, y0)
    slope = secant_of(call.released())
    if engine.several:
        kept = _kept(engine, call, x), y.detach()

        def pull(number, g):
            return (g * slope(r[number : number + 1], kept[0], y0[number : number + 1], kept[1]),)

        return engine.link(call, y, y0, _guard(engine, pull, (*kept, r, y0)))
    with engine.graph():
        s = slope(r, x, y0, y)
    return engine.link(call, y, y0, lambda _, g: (g * s,))


def _reveals(engine, call) -> bool:
    if engine.rule == "genomics":
        layer = pair(call.active[0]).layer
        if layer is None:
            raise UnsupportedOperation(
                f'the rule "genomics" needs a convolution or a linear layer, and at most a batch norm, before {call}'
            )
        return layer == "dense"
    return engine.rule == "reveal_cancel"


def _reveal_cancel(engine, call, y, y0):
    """The Shapley values of the two parts: each part's own secant, averaged over the other's absence and presence."""
    (x,), slope = call.active, secant_of(call, from_right=True)
    r, mass = pair(x).reference, engine.mass(x)
    with engine.graph():
        d = x - r
        p, n = (d + mass) / 2, (d - mass) / 2
        up, down = r + p, r + n
        f_up, f_down = call.on(up), call.on(down)
        s_p = (slope(r, up, y0, f_up) + slope(down, x, f_down, y)) / 2
        s_n = (slope(r, down, y0, f_down) + slope(up, x, f_up, y)) / 2
        mass_y = s_p * p - s_n * n

    def pull(_, g, g_mass):
        g = 0 if g is None else g
        g_p, g_n = (g, g) if g_mass is None else (g + g_mass, g - g_mass)
        m_p, m_n = g_p * s_p, g_n * s_n
        return (m_p + m_n) / 2, (m_p - m_n) / 2

    ordinary = [y, mass_y] if engine.create_graph else []
    out, out_mass = Link.apply(engine.switch, pull, (y.detach(), mass_y.detach()), 2, x, mass, *ordinary)
    return engine.attach(call, out, y0, out_mass)


def logsumexp(engine, call):
    """log Σ exp: the secants of exp, summed, through the secant of log; in closed form, safe from overflow."""
    x, dim = call.argument(0, "input"), call.argument(1, "dim")
    r = pair(x).reference
    with engine.graph():
        y = torch.logsumexp(x, dim, keepdim=True)
    y0 = engine.on_reference(Call(torch.logsumexp, (x, dim, True), {}), y)
    kept = _kept(engine, call, x), y.detach() if engine.several else y

    def weights(number):
        (x, y), b, b_y = kept, engine.row(r, number), engine.row(y0, number)
        return (torch.maximum(x, b) - torch.maximum(y, b_y)).exp() * _phi(x - b) / _phi(y - b_y)

    w = None
    if not engine.several:
        with engine.graph():
            w = weights(0)
    pull = _guard(engine, lambda number, g: (g * (weights(number) if w is None else w),), (*kept, r, y0))
    out = engine.link(Call(torch.logsumexp, (x, dim, True), {}), y, y0, pull)
    if call.argument(2, "keepdim", False):
        return out
    with engine:
        return out.squeeze(dim)


def maximum_of_window(engine, call):
    """Cross-max: a rise of the maximum belongs to the input's winner, a fall to the reference's."""
    x = call.argument(0, "input")
    pool = partial(getattr(F, call.name), return_indices=True)
    options = {k: v for k, v in call.kwargs.items() if k not in ("return_indices", "input")}
    find = Call(pool, (x, *call.args[1:6]), options)
    if call.argument(6, "return_indices", False):
        raise UnsupportedOperation(f"DeepLIFT has no rule for the indices of {call}; {ADVICE}")
    return _cross_max(engine, find, lambda t: t.flatten(2), 2)


def maximum_of_dim(engine, call):
    """Cross-max along the last dimension (`compositions` bring the others there)."""

    def find(value):
        return value.max(-1, keepdim=True)

    return _cross_max(engine, Call(find, (call.args[0],), {}), lambda t: t, -1)


def _cross_max(engine, find: Call, flat, dim):
    (x,) = find.active
    r = pair(x).reference
    with engine.graph():
        y, winner = find.run(lambda t: t)
    y0, other_winner = engine.on_reference(find, (y, winner))

    def multipliers(number):
        b, b_y, b_winner = (engine.row(v, number) for v in (r, y0, other_winner))
        place = flat(torch.where(y_kept >= b_y, winner, b_winner.expand_as(winner)))
        d = flat(x_kept).gather(dim, place) - flat(b.expand_as(x_kept)).gather(dim, place)
        return place, torch.where(d == 0, 1.0, flat(y_kept - b_y) / torch.where(d == 0, 1.0, d))

    x_kept, y_kept = (x, y) if not engine.several else (x.detach(), y.detach())
    ready = None
    if not engine.several:
        with engine.graph():
            ready = multipliers(0)
        x_kept = y_kept = None
    shape, empty = x.shape, flat(x.detach()).shape

    def pull(number, g):
        place, m = multipliers(number) if ready is None else ready
        return (g.new_zeros(empty).scatter_add(dim, place, flat(g) * m).reshape(shape),)

    return engine.link(find, y, y0, _guard(engine, pull, () if ready else (x_kept, y_kept, r, y0)))


def setitem(engine, call):
    """An activation is written into a part of a tensor, perhaps of a constant one."""
    target = call.args[0]
    if any(pair(t) and not t.is_floating_point() for t in _tensors(call.args[1:2])):
        return choice(engine, call, target)
    if engine.several:
        raise OneByOne
    if not pair(target):
        target._attrain_pair = Pair(target.detach().clone())
    own = pair(target)
    if own.reference.shape != target.shape:
        if target._is_view():
            raise UnsupportedOperation(f"DeepLIFT has no rule for {call} on a view of an activation; use torch.cat")
        own.reference = own.reference.expand_as(target).clone()
    call.func(*call.args)
    with engine.graph():
        call.func(own.reference, *_map(engine._full, call.args[1:]))
    own.mass, own.layer = None, None


def composed(engine, call):
    """Written out in operations that have rules."""
    with engine:
        out = compositions.TABLE[call.name](*call.args, **call.kwargs)
    if not call.inplace:
        return out
    return engine.attach(call, out, pair(out).reference)


def quotient(engine, call):
    """Linear in the dividend; a divisor that is an activation is a factor 1/b."""
    if call.argument(2, "rounding_mode") is not None:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with rounding; {ADVICE}")
    return composed(engine, call) if pair(call.argument(1, "other")) else product(engine, call)


def other(engine, call):
    """What returns no activation needs no rule; everything else does."""
    if call.inplace:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call}; {ADVICE}")
    out, name = call.run(), getattr(call.func, "__name__", "")
    found = _tensors([out])
    if name.endswith("_like") or name.startswith("new_"):
        return out
    if not found:
        return out
    return choice(engine, call, out)


def choice(engine, call, out):
    """Integers and truth values: constants as long as the reference has the same."""
    found = _tensors([out])
    if any(t.is_floating_point() or t.is_complex() for t in found) or call.inplace:
        what = "selects by values of activations" if any(not t.is_floating_point() for t in call.active) else "no rule"
        what = f"{call} {what}" if what != "no rule" else f"DeepLIFT has no rule for {call}"
        raise UnsupportedOperation(f"{what}; {ADVICE}")
    if engine.selecting:
        return out
    reference = engine.on_reference(call, out)
    if not engine.several and all(torch.equal(o, r.expand_as(o)) for o, r in zip(found, _tensors([reference]))):
        return out
    return engine.attach(call, out, reference)


TABLE = (
    dict.fromkeys(compositions.TABLE, composed)
    | dict.fromkeys(rules.PARTWISE, partwise)
    | dict.fromkeys(rules.SUMS, sums)
    | dict.fromkeys(rules.LINEAR, weighted)
    | dict.fromkeys(rules.PRODUCTS, product)
    | dict.fromkeys(rules.QUOTIENTS, quotient)
    | dict.fromkeys(rules.DROPOUT, dropout)
    | dict.fromkeys(rules.ACTIVATIONS | rules.FUNCTIONS, elementwise)
    | dict.fromkeys(rules.MAXIMA - {"amax"}, maximum_of_window)
    | {"batch_norm": batch_norm, "logsumexp": logsumexp, "setitem": setitem, "last_max": maximum_of_dim}
)


# ---------------------------------------------------------------- secants


def secant_of(call: Call, from_right=False):
    """A function (a, b, f(a), f(b)) -> (f(b) − f(a)) / (b − a), the derivative at a where the two are close.

    At a kink that is the derivative as torch has it, ReLU'(0) = 0, or the one from the right: the
    reference code takes RevealCancel's small parts as +1e-7.
    """
    if call.name == "relu":
        return partial(_relu_secant, from_right)
    if call.name == "exp":
        return lambda a, b, f_a, f_b: torch.maximum(a, b).exp() * _phi(b - a)
    return partial(_secant, call.on, from_right)


def _relu_secant(from_right, a, b, f_a, f_b):
    d = b - a
    near = d.abs() < NEAR
    return torch.where(near, ((a >= 0) if from_right else (a > 0)).to(d.dtype), (f_b - f_a) / d.masked_fill(near, 1.0))


def _secant(f, from_right, a, b, f_a, f_b):
    """The quotient; in rounding's reach the trapezoid, unless a kink lies between."""
    dtype = f_b.dtype
    if dtype in (torch.float16, torch.bfloat16):
        a, b, f_a, f_b = (v.float() for v in (a, b, f_a, f_b))
    d = b - a
    slope_a, slope_b = _derivative(f, a + NEAR if from_right else a), _derivative(f, b)
    small = d.abs()
    near = small < NEAR
    quotient = (f_b - f_a) / d.masked_fill(near, 1.0)
    smooth = (slope_a - slope_b).abs() <= 0.01 * (slope_a.abs() + slope_b.abs()) + small
    close = (small < 0.1 * torch.finfo(f_b.dtype).eps ** (1 / 3)) & smooth
    return torch.where(near, slope_a, torch.where(close, (slope_a + slope_b) / 2, quotient)).to(dtype)


def _derivative(f, at):
    with torch.enable_grad():
        leaf = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(leaf).sum(), leaf)
    return slope.nan_to_num(0.0, 0.0, 0.0)


def _phi(d):
    """(1 − exp(−|d|)) / |d|, 1 at 0; also where both of a difference are −∞."""
    d = d.abs().nan_to_num(0.0)
    return torch.where(d == 0, 1.0, -torch.expm1(-d) / torch.where(d == 0, 1.0, d))


# ---------------------------------------------------------------- tools


def _tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [t for v in value for t in _tensors(v)]


def _map(change, value):
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: _map(change, v) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_map(change, v) for v in value)
    return value


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


def _kept(engine, call, value):
    """An activation for the backward pass: a copy where it is about to be overwritten."""
    if not engine.several:
        return value
    return value.detach().clone() if call.inplace else value.detach()


def _guard(engine, pull, kept):
    """With several references `pull` reads activations later; refuse if the model has overwritten them."""
    if not engine.several:
        return pull
    versions = [v._version for v in kept]

    def guarded(number, *gradients):
        if [v._version for v in kept] != versions:
            raise OneByOne
        return pull(number, *gradients)

    return guarded


def _reaches(node, leaf: Tensor) -> bool:
    return any(getattr(n, "variable", None) is leaf for n in _nodes(node))


def _check_graph(node, leaf) -> None:
    """An `autograd.Function` of the model's hides a derivative that no rule has replaced."""
    ours = (Link._backward_cls, AbsoluteLinear._backward_cls)
    for found in _nodes(node):
        foreign = isinstance(found, torch.autograd.function.BackwardCFunction) and not isinstance(found, ours)
        if foreign and _reaches(found, leaf):
            raise UnsupportedOperation(
                f"the autograd.Function {found.name().removesuffix('Backward')} has no rule: make it visible with "
                f"torch.overrides.wrap_torch_function, then {ADVICE}"
            )


def _nodes(node):
    seen, queue = set(), [node]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        queue.extend(n for n, _ in node.next_functions)
