"""DeepLIFT's rules of functions of one activation, and of maxima: Rescale's secants, RevealCancel's pair, cross-max."""

import types

import torch
import torch.nn.functional as F

from attrain.engine.call import ADVICE, Call, UnsupportedOperation
from attrain.engine.fast import tiles
from attrain.engine.fast.derivatives import relu_secant
from attrain.methods.deeplift.differences import Link
from attrain.methods.deeplift.secants import phi, ratio, secant_of
from attrain.methods.deeplift.selections import choice


def elementwise(mode, call: Call):
    """A function of one activation: Rescale's secant, or RevealCancel's pair of mean secants."""
    if any(not t.is_floating_point() for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    if call.times > 1:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} of several activations; {ADVICE}")
    if call.name == "rrelu" and call.given.get("training", False):
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with random slopes: call model.eval() first")
    (x,) = call.active
    reveals = call.kind in ("relus", "activations") and _reveals(mode, call)
    if call.name == "relu" and x.ndim and not (reveals or mode.several or mode.create_graph):
        return _relu(mode, call)
    with mode.graph():
        y = call.on(x)
    y0, r = mode.on_reference(call, y), mode.of(x).reference
    r = mode.full(x) if y0.shape == y.shape else r  # where other arguments differ between samples
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
        if call.name == "relu" and mode.create_graph and y.dtype == x.dtype == r.dtype:
            s = relu_secant(r, x.clone() if call.inplace else x)
        else:
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


def maximum_of_window(mode, call: Call):
    """Cross-max: a rise of the maximum belongs to the input's winner, a fall to the reference's."""
    given = dict(call.given)
    x, name = given.pop("input"), call.name.removesuffix("_with_indices")
    pool, size = getattr(F, name), int(name[-2])
    builtin = name.startswith("adaptive") and not isinstance(call.func, types.FunctionType)
    wants_indices = given.pop("return_indices", False) or name != call.name or builtin

    def find(value):
        return pool(value, **given, return_indices=True)

    y, indices = _cross_max(mode, Call(find, (x,), {}, mode.is_active), lambda t: t.flatten(-size), -1)
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
