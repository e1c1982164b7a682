"""DeepLIFT's rules, one a kind of operation: each is a function of the mode and the call."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attrain.engine import decompositions
from attrain.engine.call import ADVICE, Call, UnsupportedOperation
from attrain.engine.fast import tiles
from attrain.engine.fast.convolution import convolution
from attrain.methods.deeplift.differences import Difference, DifferenceMode, Link, OneByOne
from attrain.methods.deeplift.secants import phi, ratio, secant_of
from attrain.methods.deeplift.spread import absolute_linear
from attrain.tensors import along, mapped, tensors

# ---------------------------------------------------------------- linear operations


def partwise(mode: "DeepLiftMode", call: Call):
    """Linear with weights ≥ 0: the two parts of a difference pass alike, and no other argument has a part."""
    if any(not _continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    spread = None
    if mode.wants_spread(call) and call.name not in ("pad", "constant_pad_nd", "masked_fill", "nan_to_num"):
        spread = call.run(lambda t: mode.spread_of(t) if mode.of(t) else torch.zeros_like(t) if _continuous(t) else t)
    keeps = call.name in ("clone", "contiguous", "dropout", "to")
    return linear(mode, call, spread, mode.of(call.active[0]).layer if keeps else None)


def linear(mode, call: Call, spread=None, layer=None):
    """Affine in the activations: an ordinary step."""
    apart = call.inplace and mode.in_memory(call.tensors[0])  # then the reference's memory is written too
    out = call.run(lambda t: t) if apart else call.run()
    return mode.attach(call, out, mode.on_reference(call, out), spread, layer)


def detached(mode, call: Call):
    """A constant of the derivative is no constant of the difference."""
    return partwise(mode, Call(torch.clone, (call.tensors[0],), {}, mode.is_active))


def spectral(mode, call: Call):
    """Linear with weights of any phase."""
    return linear(mode, call)


def sampled(mode, call: Call):
    """Linear in its input at places that are the same for the reference."""
    if call.times > 1 or not mode.of(call.given.get("input", call.tensors[0])):
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} at places that depend on the input; {ADVICE}")
    return partwise(mode, call)


def embedding(mode, call: Call):
    """Rows of a table, by whole numbers that are the input's own or the same for the reference."""
    if mode.of(call.given.get("weight")):
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with a table that is made of the input; {ADVICE}")
    return choice(mode, call, call.run())


def sums(mode, call: Call):
    """a ± b: the parts add up."""
    if any(not _continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    spread, terms = None, [call.given["input"], call.given.get("other")]
    if mode.wants_spread(call):
        scale = [1, abs(call.given.get("alpha", 1))]
        spreads = [s * mode.spread_of(t) for s, t in zip(scale, terms) if mode.of(t)]
        spread = sum(spreads).expand(torch.broadcast_shapes(*(t.shape for t in tensors(terms))))
    return linear(mode, call, spread, mode.of(call.active[0]).layer if call.times == 1 else None)  # once: a bias


def weighted(mode, call: Call):
    """A layer with a weight: the positive part of its difference gathers the positive terms (LINEAR rule)."""
    x, weight, bias = (call.given.get(name) for name in ("input", "weight", "bias"))
    if mode.of(weight) or mode.of(bias):
        return product(mode, call)
    dense, spread = call.name == "linear", None
    if mode.wants_spread(call, dense):
        size = (x - mode.of(x).reference).abs()
        if dense and not mode.create_graph and not torch.is_autocast_enabled(x.device.type):
            spread = absolute_linear(size, weight)
        else:
            change = {id(x): size, id(weight): weight.abs(), id(bias): None}
            spread = call.run(lambda t: change.get(id(t), t))
    out = None
    if call.kind == "convolutions" and x is mode.entries[0]:
        out = convolution(call.name, call.given, mode.backward, True)
    out = call.run() if out is None else out
    return mode.attach(call, out, mode.on_reference(call, out), spread, "dense" if dense else "conv")


def batch_norm(mode, call: Call):
    """An affine map a·x + b in evaluation mode: the parts pass through, exchanged where a < 0."""
    x, weight = call.given["input"], call.given.get("weight")
    if call.times > 1:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with numbers made of the input; {ADVICE}")
    if call.given.get("training") or call.given.get("running_mean") is None:
        raise UnsupportedOperation("DeepLIFT has no rule for batch norm in training mode: call model.eval() first")
    spread = None
    if mode.wants_spread(call):
        scale = (call.given["running_var"] + call.given.get("eps", 1e-5)).rsqrt()
        scale = scale if weight is None else scale * weight.abs()
        spread = mode.spread_of(x) * along(scale, 1, x.ndim)
    return linear(mode, call, spread, mode.of(x).layer)


def dropout(mode, call: Call):
    """The identity in evaluation mode."""
    if call.given.get("training", True) and call.given.get("p", 0.5) > 0:
        raise UnsupportedOperation("DeepLIFT has no rule for active dropout: call model.eval() first")
    return partwise(mode, call)


# ---------------------------------------------------------------- products


def product(mode, call: Call):
    """Linear in each factor: the mean derivative between reference and input, exactly, by Gauss's points.

    Along the straight line the derivative of a product of k activations is a polynomial of degree k − 1: one point
    (the middle) is exact for two factors, two for three and four.
    """
    if any(not _continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    if call.times == 1:
        spread = None
        if mode.wants_spread(call) and call.name in (
            "mul",
            "matmul",
            "mm",
            "bmm",
            "mv",
            "dot",
            "outer",
            "einsum",
            "div",
        ):
            args = tuple(abs(a) if isinstance(a, (int, float)) else a for a in call.args)
            size = Call(call.func, args, call.kwargs, mode.is_active)
            spread = size.run(lambda t: mode.spread_of(t) if mode.of(t) else t if t.dtype == torch.bool else t.abs())
        return linear(mode, call, spread)
    with mode.graph():
        y = call.on(*call.active)
    reference = mode.on_reference(call, y)
    pairs = [(mode.kept(call, t), mode.of(t).reference) for t in call.active]
    places = [((p + 1) / 2, w / 2) for p, w in zip(*np.polynomial.legendre.leggauss((call.times + 1) // 2))]
    again = call.released()

    def between(number, place):
        with mode.graph():
            return [r + float(place) * (x - r) for x, r in ((x, mode.row(r, number)) for x, r in pairs)]

    ready = None if mode.several else [between(0, place) for place, _ in places]

    def pull(number, g):
        total, create = None, torch.is_grad_enabled()
        for k, (place, weight) in enumerate(places):
            with torch.enable_grad():
                at = ready[k] if ready else between(number, place)
                at = at if create and at[0].requires_grad else [m.detach().requires_grad_() for m in at]
                found = torch.autograd.grad(again.on(*at), at, g, create_graph=create)
            found = [float(weight) * f for f in found] if len(places) > 1 else found
            total = found if total is None else [a + b for a, b in zip(total, found)]
        return total

    pull = mode.guard(pull, [v for p in pairs for v in p])
    return mode.link(call, y, reference, pull)


_PARTED = frozenset("mul matmul mm bmm mv dot outer einsum div".split())  # of whose result |Δ⁺| and |Δ⁻| are known


def quotient(mode, call: Call):
    """Linear in the dividend; a divisor that is an activation is a factor 1/b."""
    if call.given.get("rounding_mode") is not None:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with rounding; {ADVICE}")
    return decomposed(mode, call) if mode.of(call.given.get("other")) else product(mode, call)


# ---------------------------------------------------------------- functions of one activation


def elementwise(mode, call: Call):
    """A function of one activation: Rescale's secant, or RevealCancel's pair of mean secants."""
    if any(not t.is_floating_point() for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    if call.times > 1:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} of several activations; {ADVICE}")
    (x,) = call.active
    reveals = call.kind in ("relus", "activations") and _reveals(mode, call)
    if call.name == "relu" and x.ndim and not (reveals or mode.several or mode.create_graph):
        return _relu(mode, call)
    with mode.graph():
        y = call.on(x)
    y0 = mode.on_reference(call, y)
    r = mode.of(x).reference
    if reveals:
        return _reveal_cancel(mode, call, y, y0)
    slope = secant_of(call.released())
    if mode.several:
        kept = mode.kept(call, x), y.detach()

        def product(g, x, y, a, f_a):
            return (g * slope(a, x, f_a, y),)

        def pull(number, g):
            rows = r[number : number + 1], y0[number : number + 1]
            return tiles.elementwise(product, g, *kept, *rows) if call.name == "relu" else product(g, *kept, *rows)

        return mode.link(call, y, y0, mode.guard(pull, (*kept, r, y0)))
    with mode.graph():
        s = slope(r, x, y0, y)
    return mode.link(call, y, y0, lambda _, g: (g * s,))


def _relu(mode, call: Call):
    """Rescale's secants of the one operation that most networks have most of; in place where the model is."""
    (x,), backward, slope = call.active, mode.backward, secant_of(call)
    inplace = call.inplace and not mode.in_memory(x)
    r, y0 = mode.of(x).reference, mode.on_reference(call, x)

    def both(x, r):
        y = x.relu()
        return y, slope(r, x, r.relu(), y)

    with torch.no_grad():
        y, s = tiles.elementwise(both, x.detach(), r, out=[x.detach()] if inplace else [])
    pull = lambda _, g: (s.mul_(g) if backward.last else g * s,)  # noqa: E731
    return mode.link(call, x if inplace else y, y0, pull)


def _reveals(mode, call: Call) -> bool:
    if mode.rule == "genomics":
        layer = mode.of(call.active[0]).layer
        if layer is None:
            raise UnsupportedOperation(
                f'the rule "genomics" needs a convolution or a linear layer, and at most a batch norm, before {call}'
            )
        return layer == "dense"
    return mode.rule == "reveal_cancel"


def _reveal_cancel(mode, call: Call, y, y0):
    """The Shapley values of the two parts: each part's own secant, averaged over the other's absence and presence."""
    (x,), slope = call.active, secant_of(call, from_right=True)
    r, spread = mode.of(x).reference, mode.spread_of(x)
    with mode.graph():
        d = x - r
        p, n = (d + spread) / 2, (d - spread) / 2
        up, down = r + p, r + n
        f_up, f_down = call.on(up), call.on(down)
        s_p = (slope(r, up, y0, f_up) + slope(down, x, f_down, y)) / 2
        s_n = (slope(r, down, y0, f_down) + slope(up, x, f_up, y)) / 2
        spread_y = s_p * p - s_n * n

    def pull(_, g, g_spread):
        g = 0 if g is None else g
        g_p, g_n = (g, g) if g_spread is None else (g + g_spread, g - g_spread)
        m_p, m_n = g_p * s_p, g_n * s_n
        return (m_p + m_n) / 2, (m_p - m_n) / 2

    ordinary = [y, spread_y] if mode.create_graph else []
    out, out_spread = Link.apply(mode.backward, pull, (y.detach(), spread_y.detach()), 2, x, spread, *ordinary)
    return mode.attach(call, out, y0, out_spread)


def logsumexp(mode, call: Call):
    """log Σ exp: the secants of exp, summed, through the secant of log; in closed form, safe from overflow."""
    x, dim = call.given["input"], call.given["dim"]
    r = mode.of(x).reference
    simple = Call(torch.logsumexp, (x, dim, True), {}, mode.is_active)
    with mode.graph():
        y = torch.logsumexp(x, dim, keepdim=True)
    y0 = mode.on_reference(simple, y)
    kept = mode.kept(call, x), y.detach() if mode.several else y

    def weights(number):
        (x, y), b, b_y = kept, mode.row(r, number), mode.row(y0, number)
        top = x.detach().amax(dim, keepdim=True)
        top = torch.where(top.isfinite(), top, 0.0)  # what all have in common, else rounding is as large as it is
        x, b = x - top, b.expand_as(x) - top
        y, b_y = torch.logsumexp(x, dim, keepdim=True), torch.logsumexp(b, dim, keepdim=True)
        return (torch.maximum(x, b) - torch.maximum(y, b_y)).exp() * phi(x - b) / phi(y - b_y)

    w = None
    if not mode.several:
        with mode.graph():
            w = weights(0)
    pull = mode.guard(lambda number, g: (g * (weights(number) if w is None else w),), (*kept, r, y0))
    out = mode.link(simple, y, y0, pull)
    if call.given.get("keepdim", False):
        return out
    with mode:
        return out.squeeze(dim)


# ---------------------------------------------------------------- maxima


def maximum_of_window(mode, call: Call):
    """Cross-max: a rise of the maximum belongs to the input's winner, a fall to the reference's."""
    given = dict(call.given)
    x, wants_indices = given.pop("input"), given.pop("return_indices", False) or (call.name or "").endswith("_indices")
    pool = getattr(F, (call.name or "").removesuffix("_with_indices"))

    def find(value):
        return pool(value, **given, return_indices=True)

    y, indices = _cross_max(mode, Call(find, (x,), {}, mode.is_active), lambda t: t.flatten(2), 2)
    return (y, indices) if wants_indices else y


def maximum_of_dim(mode, call: Call):
    """Cross-max along the last dimension (`decompositions` bring the others there)."""

    def find(value):
        return value.max(-1, keepdim=True)

    return _cross_max(mode, Call(find, (call.args[0],), {}, mode.is_active), lambda t: t, -1)[0]


def _cross_max(mode, find: Call, flat, dim):
    (x,) = find.active
    r = mode.of(x).reference
    with mode.graph():
        y, winner = find.run(lambda t: t)
    y0, other_winner = mode.on_reference(find, (y, winner))

    def multiplier(y, x, winner, b, b_y, b_winner):
        place = flat(torch.where(y >= b_y, winner, b_winner.expand_as(winner)))
        d = flat(x).gather(dim, place) - flat(b.expand_as(x)).gather(dim, place)
        return place, ratio(flat(y - b_y), d, lambda: 1.0)

    def multipliers(number):
        return tiles.samplewise(multiplier, *kept, *(mode.row(v, number) for v in (r, y0, other_winner)))

    kept, ready, backward = (y, x, winner), None, mode.backward
    if mode.several:
        kept = y.detach(), x.detach(), winner
    else:
        with mode.graph():
            ready = multipliers(0)
        kept = ()
    shape, empty = x.shape, flat(x.detach()).shape

    def pull(number, g):
        place, m = ready or multipliers(number)
        share = m.mul_(flat(g)) if backward.last or not ready else flat(g) * m
        return (g.new_zeros(empty).scatter_add_(dim, place, share).reshape(shape),)

    out = mode.link(find, y, y0, mode.guard(pull, () if ready else (*kept, r, y0)))
    return out, mode.attach(find, winner, other_winner)


def ordered(mode, call: Call):
    """Sorted values are a selection by whole numbers: exact where the reference has the same order, else refused."""
    out = call.run()
    values, indices = out
    reference = mode.on_reference(call, out)
    if not torch.equal(indices, reference[1].expand_as(indices)):
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} of values in another order than the reference's")
    mode.attach(call, values, reference[0])
    return out


# ---------------------------------------------------------------- writing, choosing, reading


def setitem(mode, call: Call):
    """An activation is written into a part of a tensor, perhaps of a constant one."""
    target = call.args[0]
    if any(not _continuous(t) for t in tensors(call.args[1:2]) if mode.of(t)):
        return choice(mode, call, target)
    if mode.several:
        raise OneByOne
    own = mode.adopt(target)
    if own.reference.shape != target.shape:
        if target._is_view():
            raise UnsupportedOperation(f"DeepLIFT has no rule for {call} on a view of an activation; use torch.cat")
        own.reference = own.reference.expand_as(target).clone()
    call.func(*call.args)
    with mode.graph():
        call.func(own.reference, *mapped(mode.full, call.args[1:]))
    for t in (target, target._base):
        if t is not None and mode.of(t):
            t._attrain_pair.spread = t._attrain_pair.layer = None


def decomposed(mode, call: Call):
    """Written out in operations that have rules."""
    if any(not _continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    with mode:
        out = decompositions.TABLE[call.name](**call.given)
    if not call.inplace:
        return out
    return mode.attach(call, out, mode.of(out).reference)


def choice(mode, call: Call, out):
    """Whole numbers and truth values: constants as long as the reference has the same."""
    found = tensors([out])
    whole = all(mode.of(t).whole for t in call.active)  # made of token ids alone: where activations begin
    if not whole and (any(_continuous(t) for t in found) or call.inplace):
        reads = any(not _continuous(t) for t in call.active)
        raise UnsupportedOperation(
            f"{call} selects by values of activations; {ADVICE}"
            if reads
            else f"DeepLIFT has no rule for {call}; {ADVICE}"
        )
    if mode.selecting:
        return out
    reference = mode.on_reference(call, out)
    if not all(map(mode.alike, found, tensors([reference]))):
        raise UnsupportedOperation(f"{call} selects by values of activations: how many, differs from the reference's")
    same = not mode.several and all(torch.equal(o, r.expand_as(o)) for o, r in zip(found, tensors([reference])))
    if same and not whole:
        return out
    return mode.attach(call, out, reference, whole=all(not _continuous(t) for t in found) and whole)


def read(mode, call: Call):
    """A value taken out of a tensor: right for the reference too only where it is the same."""
    if not mode.selecting and any(not torch.equal(t, mode.full(t)) for t in call.active):
        raise UnsupportedOperation(f"the model reads a value of an activation ({call}); a reference has another")
    return call.run(Tensor.detach)


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


def _continuous(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


TABLE = {
    **dict.fromkeys(decompositions.TABLE, decomposed),
    "linear_maps": partwise,
    "nan_to_num": partwise,
    "spectral_maps": spectral,
    **dict.fromkeys("grid_sample grid_sampler roi_align ps_roi_align".split(), sampled),
    **dict.fromkeys("embedding embedding_bag".split(), embedding),
    "sums": sums,
    "convolutions": weighted,
    "linear_layers": weighted,
    "products": product,
    "div": quotient,
    "dropouts": dropout,
    "relus": elementwise,
    "activations": elementwise,
    "functions": elementwise,
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

    table, title = TABLE, "DeepLIFT"

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
        reference = self.row(self.reference[number], self.backward.reference)
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
