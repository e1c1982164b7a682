"""DeepLIFT's rules, one an operation: each is a function of the engine and the call."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from attrain.engine import decompositions, operations
from attrain.engine.fast import tiles
from attrain.engine.fast.convolution import convolution
from attrain.engine.operations import UnsupportedOperation, along, mapped, tensors
from attrain.engine.unseen import ADVICE
from attrain.methods.deeplift.differences import AbsoluteLinear, Call, Link, OneByOne, Pair, PairRules, pair
from attrain.methods.deeplift.secants import phi, ratio, secant_of


class DeepLiftRules(PairRules):
    """DeepLIFT's rules on pairs.

    Args:
        x, entry, reference, several: see `PairRules`.
        rule: "rescale", "reveal_cancel" or "genomics".
        hypothetical: see `attrain.DeepLift`.
    """

    def __init__(self, x, entry, reference, rule, several=False, hypothetical=False):
        super().__init__(x, entry, reference, several)
        self.rule, self.hypothetical = rule, hypothetical

    def contract(self, gradient, create_graph):
        if not self.hypothetical:
            return super().contract(gradient, create_graph)
        reference = self.row(self.reference, self.switch["reference"])
        return gradient - (gradient * reference).sum(1, keepdim=True)

    def rule_of(self, call, registered):
        if registered:
            return {"linear": partwise, "elementwise": elementwise, "product": product}[registered]
        return TABLE.get(call.name, other)

    def mass(self, value: Tensor) -> Tensor:
        """|Δ⁺| + |Δ⁻| of an activation."""
        return (value - pair(value).reference).abs() if pair(value).mass is None else pair(value).mass

    def wants_mass(self, call: Call, dense: bool = False) -> bool:
        if self.rule == "genomics":
            return dense or any(pair(t).layer == "dense" for t in call.active)
        return self.rule == "reveal_cancel"


def partwise(engine, call):
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
        shape = torch.broadcast_shapes(*(t.shape for t in tensors(call.args[:2])))
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
    if call.name in operations.CONVOLUTIONS and call.active[0] is engine.entry:
        call.func = partial(convolution, call.func, call.name, engine.switch, True)
    return linear(engine, call, mass, "dense" if dense else "conv")


def batch_norm(engine, call):
    """An affine map a·x + b in evaluation mode: the parts pass through, exchanged where a < 0."""
    x, weight, _, _, variance, training = call.args[:6]
    if training:
        raise UnsupportedOperation("DeepLIFT has no rule for batch norm in training mode: call model.eval() first")
    mass = None
    if engine.wants_mass(call):
        scale = (1 if weight is None else weight.abs()) * (variance + call.args[7]).rsqrt()
        mass = engine.mass(x) * along(scale, 1, x.ndim)
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
    pairs = [(engine.kept(call, t), pair(t).reference) for t in call.active]

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

    pull = engine.guard(pull, [v for p in pairs for v in p])
    return engine.link(call, y, reference, pull)


def elementwise(engine, call):
    """A function of one activation: Rescale's secant, or RevealCancel's pair of mean secants."""
    if any(not t.is_floating_point() for t in call.active):
        return choice(engine, call, call.run())
    if call.times > 1:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} of several activations; {ADVICE}")
    (x,) = call.active
    reveals = call.name in operations.ACTIVATIONS and _reveals(engine, call)
    if call.name == "relu" and not (reveals or engine.several or engine.create_graph):
        return _relu(engine, call)
    with engine.graph():
        y = call.on(x)
    y0 = engine.on_reference(call, y)
    r = pair(x).reference
    if reveals:
        return _reveal_cancel(engine, call, y, y0)
    slope = secant_of(call.released())
    if engine.several:
        kept = engine.kept(call, x), y.detach()

        def product(g, x, y, a, f_a):
            return (g * slope(a, x, f_a, y),)

        def pull(number, g):
            rows = r[number : number + 1], y0[number : number + 1]
            return tiles.elementwise(product, g, *kept, *rows) if call.name == "relu" else product(g, *kept, *rows)

        return engine.link(call, y, y0, engine.guard(pull, (*kept, r, y0)))
    with engine.graph():
        s = slope(r, x, y0, y)
    return engine.link(call, y, y0, lambda _, g: (g * s,))


def _relu(engine, call):
    """Rescale's secants of the one operation that most networks have most of; in place where the model is."""
    (x,), switch, slope = call.active, engine.switch, secant_of(call)
    r, y0, inplace = pair(x).reference, engine.on_reference(call, x), call.inplace and not x._is_view()

    def both(x, r):
        y = x.relu()
        return y, slope(r, x, r.relu(), y)

    with torch.no_grad():
        y, s = tiles.elementwise(both, x.detach(), r, out=[x.detach()] if inplace else [])
    pull = lambda _, g: (s.mul_(g) if switch["last"] else g * s,)  # noqa: E731
    return engine.link(call, x if inplace else y, y0, pull)


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
    kept = engine.kept(call, x), y.detach() if engine.several else y

    def weights(number):
        (x, y), b, b_y = kept, engine.row(r, number), engine.row(y0, number)
        return (torch.maximum(x, b) - torch.maximum(y, b_y)).exp() * phi(x - b) / phi(y - b_y)

    w = None
    if not engine.several:
        with engine.graph():
            w = weights(0)
    pull = engine.guard(lambda number, g: (g * (weights(number) if w is None else w),), (*kept, r, y0))
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

    def multiplier(y, x, winner, b, b_y, b_winner):
        place = flat(torch.where(y >= b_y, winner, b_winner.expand_as(winner)))
        d = flat(x).gather(dim, place) - flat(b.expand_as(x)).gather(dim, place)
        return place, ratio(flat(y - b_y), d, lambda: 1.0)

    def multipliers(number):
        return tiles.samplewise(multiplier, *kept, *(engine.row(v, number) for v in (r, y0, other_winner)))

    kept, ready, switch = (y, x, winner), None, engine.switch
    if engine.several:
        kept = y.detach(), x.detach(), winner
    else:
        with engine.graph():
            ready = multipliers(0)
        kept = ()
    shape, empty = x.shape, flat(x.detach()).shape

    def pull(number, g):
        place, m = ready or multipliers(number)
        share = m.mul_(flat(g)) if switch["last"] or not ready else flat(g) * m
        return (g.new_zeros(empty).scatter_add_(dim, place, share).reshape(shape),)

    return engine.link(find, y, y0, engine.guard(pull, () if ready else (*kept, r, y0)))


def setitem(engine, call):
    """An activation is written into a part of a tensor, perhaps of a constant one."""
    target = call.args[0]
    if any(pair(t) and not t.is_floating_point() for t in tensors(call.args[1:2])):
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
        call.func(own.reference, *mapped(engine.full, call.args[1:]))
    own.mass, own.layer = None, None


def composed(engine, call):
    """Written out in operations that have rules."""
    with engine:
        out = decompositions.TABLE[call.name](*call.args, **call.kwargs)
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
    found = tensors([out])
    if name.endswith("_like") or name.startswith("new_"):
        return out
    if not found:
        return out
    return choice(engine, call, out)


def choice(engine, call, out):
    """Integers and truth values: constants as long as the reference has the same."""
    found = tensors([out])
    if any(t.is_floating_point() or t.is_complex() for t in found) or call.inplace:
        what = "selects by values of activations" if any(not t.is_floating_point() for t in call.active) else "no rule"
        what = f"{call} {what}" if what != "no rule" else f"DeepLIFT has no rule for {call}"
        raise UnsupportedOperation(f"{what}; {ADVICE}")
    if engine.selecting:
        return out
    reference = engine.on_reference(call, out)
    if not engine.several and all(torch.equal(o, r.expand_as(o)) for o, r in zip(found, tensors([reference]))):
        return out
    return engine.attach(call, out, reference)


TABLE = (
    dict.fromkeys(decompositions.TABLE, composed)
    | dict.fromkeys(operations.PARTWISE, partwise)
    | dict.fromkeys(operations.SUMS, sums)
    | dict.fromkeys(operations.LINEAR, weighted)
    | dict.fromkeys(operations.PRODUCTS, product)
    | dict.fromkeys(operations.QUOTIENTS, quotient)
    | dict.fromkeys(operations.DROPOUT, dropout)
    | dict.fromkeys(operations.ACTIVATIONS | operations.FUNCTIONS, elementwise)
    | dict.fromkeys(operations.MAXIMA - {"amax"}, maximum_of_window)
    | {"batch_norm": batch_norm, "logsumexp": logsumexp, "setitem": setitem, "last_max": maximum_of_dim}
)
