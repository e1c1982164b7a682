"""DeepLIFT's rules of what is linear in each activation: sums, layers with a weight, selections, products."""

import numpy as np
import torch

from attrain.engine.call import ADVICE, Call, UnsupportedOperation, is_bicubic
from attrain.engine.fast.batchnorm import batch_norm as fast_batch_norm
from attrain.engine.fast.convolution import convolution
from attrain.methods.deeplift.selections import choice, continuous
from attrain.methods.deeplift.spread import absolute_linear
from attrain.tensors import along, tensors


def partwise(mode, call: Call):
    """Linear with weights ≥ 0: the two parts of a difference pass alike, and no other argument has a part."""
    if any(not continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    spread = None
    if is_bicubic(call) and call.times == 1 and call.kind == "linear_maps" and "grid" not in call.name:
        return _bicubic(mode, call)
    known = call.name not in ("pad", "constant_pad_nd", "masked_fill", "nan_to_num") and not is_bicubic(call)
    if mode.wants_spread(call) and known:
        spread = call.run(lambda t: mode.spread_of(t) if mode.of(t) else torch.zeros_like(t) if continuous(t) else t)
    keeps = call.name in ("clone", "contiguous", "dropout", "to")
    return linear(mode, call, spread, mode.of(call.active[0]).layer if keeps else None)


def _bicubic(mode, call: Call):
    """A layer with the weights of both signs of its rows, and of its columns: their product is the matrix."""
    spread, x = None, call.given["input"]
    if mode.wants_spread(call, dense=True):
        size = (x - mode.of(x).reference).abs()
        out = call.on(x.detach())
        rows, columns = (_weights_along(call, x, d).abs() for d in (-2, -1))
        spread = torch.einsum("...hw,Hh,Ww->...HW", size, rows, columns).reshape(out.shape)
    return linear(mode, call, spread, "dense")


def _weights_along(call: Call, x, dim: int):
    """How interpolation weighs rows, or columns, (out, in): where all that it is given is alike in the other."""
    unit = torch.eye(x.shape[dim], dtype=x.dtype, device=x.device)
    unit = unit[:, None, :, None] if dim == -2 else unit[:, None, None, :]
    found = call.on(unit.expand(-1, 1, *x.shape[-2:]).contiguous())
    return (found[:, 0, :, 0] if dim == -2 else found[:, 0, 0, :]).T


def linear(mode, call: Call, spread=None, layer=None):
    """Affine in the activations: an ordinary step."""
    if call.inplace and call.name in _SHAPES:
        reference = mode.on_reference(call, call.run(lambda t: t))
        return mode.attach(call, call.run(), reference, spread, layer)
    apart = call.inplace and mode.in_memory(call.tensors[0])  # then the reference's memory is written too
    out = call.run(lambda t: t) if apart else call.run()
    return mode.attach(call, out, mode.on_reference(call, out), spread, layer)


_SHAPES = frozenset("squeeze unsqueeze transpose t swapaxes swapdims".split())  # no value is written


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


def packed(mode, call: Call):
    """The steps of sequences one behind another, or padded again; their lengths are constants."""
    out = call.run()
    reference, spread = mode.on_reference(call, out), None
    if mode.wants_spread(call):
        spread = call.run(lambda t: mode.spread_of(t) if mode.of(t) else t)[0]
    mode.attach(call, out[0], reference[0], spread, mode.of(call.active[0]).layer)
    return out


def sums(mode, call: Call):
    """a ± b: the parts add up."""
    if any(not continuous(t) for t in call.active):
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
    out, reference, at_entry = None, None, x is mode.entries[0]
    if call.kind == "convolutions" and (mode.create_graph or at_entry):
        beside = _row_beside(mode, x) if mode.create_graph else None
        out, reference = convolution(call.name, call.given, mode.backward, at_entry, beside)
    out = call.run() if out is None else out
    reference = mode.on_reference(call, out) if reference is None else reference
    return mode.attach(call, out, reference, spread, "dense" if dense else "conv")


def _row_beside(mode, x):
    """The reference of a batch, where it has fewer rows: it can share the batch's pass."""
    reference = mode.of(x).reference
    alike = reference.shape[1:] == x.shape[1:] and reference.dtype == x.dtype
    formats = [torch.contiguous_format, *([_CHANNELS_LAST[x.ndim]] if x.ndim in _CHANNELS_LAST else [])]
    dense = any(x.is_contiguous(memory_format=each) for each in formats)
    return reference if alike and dense and len(reference) < len(x) and not mode.several else None


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def batch_norm(mode, call: Call):
    """An affine map a·x + b of each channel: the parts pass through, exchanged where a < 0."""
    x, weight = call.given["input"], call.given.get("weight")
    if call.times > 1:
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} with numbers made of the input; {ADVICE}")
    if call.given.get("running_mean") is None:
        raise UnsupportedOperation(
            "DeepLIFT has no rule for batch norm without running statistics, as its reference would be normalised by "
            "statistics of its own"
        )
    if call.given.get("training"):
        return _by_batch(mode, call, x, weight)
    spread = None
    if mode.wants_spread(call):
        scale = (call.given["running_var"] + call.given.get("eps", 1e-5)).rsqrt()
        scale = scale if weight is None else scale * weight.abs()
        spread = mode.spread_of(x) * along(scale, 1, x.ndim)
    return linear(mode, call, spread, mode.of(x).layer)


def _by_batch(mode, call: Call, x, weight):
    """Batch norm in training mode: the inputs' statistics are constants of the map, for the reference too.

    So a reference need not be like a batch, and the maps sum to f(x) − f(reference) under the statistics as they are;
    LRP takes them as constants likewise. The loss's derivative knows that they are made of the batch.
    """
    if x.numel() <= x.shape[1]:
        return call.run()  # torch's own error
    out = fast_batch_norm(mode.backward, False, **call.given)
    with mode.graph():
        inverse = out._attrain_statistics[1]
        scale = along(inverse if weight is None else inverse * weight, 1, x.ndim).to(out.dtype)
        first = (slice(1), slice(None), *[slice(1)] * (x.ndim - 2))
        reference = mode.of(x).reference * scale + (out[first] - x[first] * scale)
    spread = mode.spread_of(x) * scale.abs() if mode.wants_spread(call) else None
    return mode.attach(call, out, reference, spread, mode.of(x).layer)


def dropout(mode, call: Call):
    """The identity in evaluation mode; else a factor, which is drawn once, for the reference too."""
    if not (call.given.get("training", True) and call.given.get("p", 0.5) > 0):
        return partwise(mode, call)
    if "alpha" in call.name or call.name == "native_dropout":
        raise UnsupportedOperation(f"DeepLIFT has no rule for {call} while it is active: call model.eval() first")
    x = call.given["input"]
    factor = call.on(torch.ones_like(x, requires_grad=False))
    spread = mode.spread_of(x) * factor if mode.wants_spread(call) else None
    scaled = Call(torch.Tensor.mul_ if call.inplace else torch.mul, (x, factor), {}, mode.is_active)
    return linear(mode, scaled, spread, mode.of(x).layer)


# With constants: what sums up weighted terms is a layer with a weight, however it is written, and what scales passes
# the parts on; of anything else |Δ⁺| and |Δ⁻| are not known.
_GATHERING = frozenset(
    "matmul mm bmm mv dot inner einsum tensordot chain_matmul multi_dot grouped_mm _grouped_mm".split()
)
_SCALING = frozenset("mul div outer ger kron".split())


def product(mode, call: Call):
    """Linear in each factor: the mean derivative between reference and input, exactly, by Gauss's points.

    Along the straight line the derivative of a product of k activations is a polynomial of degree k − 1: one point
    (the middle) is exact for two factors, two for three and four.
    """
    if any(not continuous(t) for t in call.active):
        return choice(mode, call, call.run(lambda t: t))
    if call.times == 1:
        gathers, spread = call.name in _GATHERING, None
        if mode.wants_spread(call, gathers) and (gathers or call.name in _SCALING):
            size_of = (lambda t: (t - mode.of(t).reference).abs()) if gathers else mode.spread_of
            args = tuple(abs(a) if isinstance(a, (int, float)) else a for a in call.args)
            size = Call(call.func, args, call.kwargs, mode.is_active)
            spread = size.run(lambda t: size_of(t) if mode.of(t) else t if t.dtype == torch.bool else t.abs())
        return linear(mode, call, spread, "dense" if gathers else None)
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
