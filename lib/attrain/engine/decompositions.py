"""Operations written out in simpler ones, for every method; their arguments are named as torch names them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attrain.engine.call import ADVICE, UnsupportedOperation


def softmax(input, dim=None, dtype=None, **_):
    return log_softmax(input, dim, dtype).exp()


def log_softmax(input, dim=None, dtype=None, **_):
    if dim is None:  # torch's choice of old, which it warns of
        dim = 0 if input.ndim in (0, 1, 3) else 1
    x = input if dtype is None else input.to(dtype)
    x = torch.nan_to_num(x, nan=math.nan, posinf=math.inf)  # a mask of −∞ becomes finite, so differences of it are 0
    x = x - amax(x, dim, True)  # what all have in common: else their sum's rounding is as large as it is
    return x - torch.logsumexp(x, dim, keepdim=True)


def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, **_):
    return _affine(_standardised(input, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def rms_norm(input, normalized_shape, weight=None, eps=None):
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    square = (input * input).mean(tuple(range(-len(normalized_shape), 0)), keepdim=True)
    return _affine(input * (square + eps).rsqrt(), weight, None)


def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, **_):
    normed = _standardised(input.reshape(input.shape[0], num_groups, -1), (-1,), eps).reshape(input.shape)
    return _affine(normed, *(_channels(v, input.ndim) for v in (weight, bias)))


def instance_norm(
    input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5,
    **_,
):  # fmt: skip
    weight, bias = _channels(weight, input.ndim), _channels(bias, input.ndim)
    if use_input_stats:
        return _affine(_standardised(input, tuple(range(2, input.ndim)), eps), weight, bias)
    mean, scale = _channels(running_mean, input.ndim), (_channels(running_var, input.ndim) + eps).rsqrt()
    return _affine((input - mean) * scale, weight, bias)


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    blind = None
    if attn_mask is not None:
        blocked = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask == -math.inf
        blind = blocked.all(-1, keepdim=True)
        scores = scores.masked_fill(blocked, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    if blind is None or not blind.any():
        return torch.dropout(F.softmax(scores, -1), dropout_p, True) @ value
    weights = F.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)  # zeros, as torch has it, not NaN
    return torch.dropout(weights, dropout_p, True) @ value


def addmm(input, mat1, mat2, beta=1, alpha=1, **_):
    return _added(input, mat1 @ mat2, beta, alpha)


def baddbmm(input, batch1, batch2, beta=1, alpha=1, **_):
    return _added(input, batch1 @ batch2, beta, alpha)


def addmv(input, mat, vec, beta=1, alpha=1):
    return _added(input, mat @ vec, beta, alpha)


def addcmul(input, tensor1, tensor2, value=1):
    return _added(input, tensor1 * tensor2, 1, value)


def bilinear(input1, input2, weight, bias=None):
    return _affine(torch.einsum("...i,oij,...j->...o", input1, weight, input2), None, bias)


def _added(a, b, beta, alpha):
    return (a if beta == 1 else beta * a) + (b if alpha == 1 else alpha * b)


def glu(input, dim=-1):
    a, gate = input.chunk(2, dim)
    return a * gate.sigmoid()


def div(input, other, **_):
    return input * torch.reciprocal(other)


def addcdiv(input, tensor1, tensor2, value=1):
    return input + value * tensor1 / tensor2


def lerp(input, end, weight):
    return input + (end - input) * weight


def logaddexp(input, other):
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other), -1), -1)


def var(input, dim=None, unbiased=None, keepdim=False, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    correction = (1 if unbiased in (None, True) else 0) if correction is None else correction
    dims = _dims(dim, input.ndim)
    centred = input - input.mean(dims, keepdim=True)
    count = math.prod(input.shape[d] for d in dims)
    return (centred * centred).sum(dims, keepdim=keepdim) / max(count - correction, 0)


def std(input, **options):
    return var(input, **options).sqrt()


def var_mean(input, dim=None, keepdim=False, **options):
    return var(input, dim, keepdim=keepdim, **options), input.mean(_dims(dim, input.ndim), keepdim=keepdim)


def std_mean(input, dim=None, keepdim=False, **options):
    return std(input, dim=dim, keepdim=keepdim, **options), input.mean(_dims(dim, input.ndim), keepdim=keepdim)


def vector_norm(input, ord=2, dim=None, keepdim=False, dtype=None):
    x = input if dtype is None else input.to(dtype)
    dim = _dims(dim, x.ndim)
    if ord == 1:
        return x.abs().sum(dim, keepdim=keepdim)
    if ord == math.inf:
        return amax(x.abs(), dim, keepdim)
    power = x * x if ord == 2 else x.abs() ** ord
    total = power.sum(dim, keepdim=keepdim)
    return total.sqrt() if ord == 2 else total ** (1 / ord)


def norm(input, p=2, dim=None, keepdim=False, dtype=None, **_):
    return vector_norm(input, 2 if p in (None, "fro") else p, dim, keepdim, dtype)


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    lengths = [torch.clamp(vector_norm(x, 2, dim, True), min=eps) for x in (x1, x2)]
    return ((x1 / lengths[0]) * (x2 / lengths[1])).sum(dim)


def pairwise_distance(x1, x2, p=2.0, eps=1e-6, keepdim=False):
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)


def cdist(x1, x2, p=2.0, **_):
    return vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def amax(input, dim=None, keepdim=False):
    dims = sorted(_dims(dim, input.ndim))
    moved = input.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims)) if dims else input.reshape(1)
    y = last_max(moved).squeeze(-1)
    for d in dims if keepdim else ():
        y = y.unsqueeze(d)
    return y


def amin(input, dim=None, keepdim=False):
    return -amax(-input, dim, keepdim)


def maximum(input, other):
    """The mean of a + relu(b − a) and b + relu(a − b), so that both have the same part in it, whichever comes first."""
    sizes, infinite = _sizes(input, other)
    if infinite:  # −∞ has no difference
        floor = torch.finfo(input.dtype).min / 2
        input, other = input.clamp(min=floor), other.clamp(min=floor)
    much = 1 / torch.finfo(input.dtype).eps ** 0.5
    if sizes[0] > 1 + sizes[1] * much:  # a − 1e38 loses a's digits: then first what is not much larger
        return other + torch.relu(input - other)
    one = input + torch.relu(other - input)
    return one if sizes[1] > 1 + sizes[0] * much else (one + other + torch.relu(input - other)) / 2


def minimum(input, other):
    return -maximum(-input, -other)


def _sizes(a, b):
    """The largest absolute numbers of two tensors, and whether one of them is infinite."""
    with torch._C.DisableTorchFunction():  # this decides about rounding, and nothing else
        sizes = [t.detach().abs().max() if t.numel() else t.new_zeros(()) for t in (a, b)]
    return sizes, bool(max(sizes) == torch.inf)


def maxima(input, dim=None, keepdim=False, other=None):
    """`torch.max` of all values, along a dimension with the indices, or of two tensors."""
    if other is not None:
        return maximum(input, other)
    if dim is None:
        return amax(input)
    return torch.return_types.max((amax(input, dim, keepdim), torch.argmax(input, dim, keepdim)))


def minima(input, dim=None, keepdim=False, other=None):
    """`torch.min` of all values, along a dimension with the indices, or of two tensors."""
    if other is not None:
        return minimum(input, other)
    if dim is None:
        return amin(input)
    return torch.return_types.min((amin(input, dim, keepdim), torch.argmin(input, dim, keepdim)))


def scatter_reduce(input, dim, index, src, reduce, include_self=True):
    """Sums, means or maxima of what goes to one place; a maximum by a table of all places and all values."""
    if input.movedim(dim, 0)[:0].shape != index.movedim(dim, 0)[:0].shape or reduce == "prod":
        raise UnsupportedOperation(f"scatter_reduce of these shapes, or by {reduce!r}, has no rule; {ADVICE}")
    src, places = src[tuple(map(slice, index.shape))], torch.arange(input.shape[dim], device=index.device)
    goes = index.movedim(dim, -1).unsqueeze(-2) == places[:, None]  # (..., places, values)
    values, own, met = src.movedim(dim, -1).unsqueeze(-2), input.movedim(dim, -1), goes.any(-1)
    if reduce in ("sum", "mean"):
        own = own if include_self else own.masked_fill(met, 0.0)
        total = torch.where(goes, values, 0.0).sum(-1) + own
        count = goes.sum(-1) + (1 if include_self else 0)
        return (total if reduce == "sum" else total / count.clamp(min=1)).movedim(-1, dim)
    sign = 1 if reduce == "amax" else -1
    table = torch.where(goes, sign * values, -math.inf)
    if include_self:
        return sign * last_max(torch.cat([table, sign * own.unsqueeze(-1)], -1)).squeeze(-1).movedim(-1, dim)
    largest = last_max(table.masked_fill(~met.unsqueeze(-1), 0.0)).squeeze(-1)
    return torch.where(met, sign * largest, own).movedim(-1, dim)


@torch.overrides.wrap_torch_function(lambda x: (x,))
def last_max(x):
    """The maximum along the last dimension, kept; an operation of its own, with a rule."""
    return x.amax(-1, keepdim=True)


def _dims(dim, ndim: int) -> tuple[int, ...]:
    """Dimensions from 0; all where none is given."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(ndim))
    return tuple(d % ndim for d in (dim if isinstance(dim, (tuple, list)) else (dim,))) if ndim else ()


# ---------------------------------------------------------------- recurrent layers, cell by cell


def lstm_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None, w_hr=None):
    h, c = hx
    i, f, g, o = (F.linear(input, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else F.linear(h, w_hr)), c


def gru_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    (r_x, z_x, n_x), (r_h, z_h, n_h) = F.linear(input, w_ih, b_ih).chunk(3, 1), F.linear(hx, w_hh, b_hh).chunk(3, 1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return n + z * (hx - n)


def rnn_tanh_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return (F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh)).tanh()


def rnn_relu_cell(input, hx, w_ih, w_hh, b_ih=None, b_hh=None):
    return (F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh)).relu()


def recurrent(cell):
    """nn.LSTM, nn.GRU and nn.RNN, several layers and both directions, of one cell."""
    lstm = cell is lstm_cell

    def run(
        input=None, hx=None, params=(), has_biases=True, num_layers=1, dropout=0.0, training=False,
        bidirectional=False, batch_first=False, data=None, batch_sizes=None,
    ):  # fmt: skip
        if data is None:
            x, valid = (input.transpose(0, 1) if batch_first else input), None
        else:  # of a packed sequence: padded, and a sample's state stays where its steps are over, or not yet begun
            sizes = batch_sizes.to(data.device)
            valid = torch.arange(int(sizes[0]), device=data.device) < sizes[:, None]
            places = valid.flatten().cumsum(0) - 1
            x = data.index_select(0, places).unflatten(0, valid.shape)
        directions, size = 1 + bidirectional, len(params) // (num_layers * (1 + bidirectional))
        final = []
        for layer in range(num_layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                weights = _of_cell(params[k * size : (k + 1) * size], has_biases)
                state = (hx[0][k], hx[1][k]) if lstm else hx[k]
                steps, hidden = x.unbind(0), []
                times = range(len(steps))
                for t in reversed(times) if direction else times:
                    new = cell(steps[t], state, *weights)
                    state = new if valid is None else _where(valid[t, :, None], new, state)
                    hidden.append(state[0] if lstm else state)
                outputs.append(torch.stack(hidden[::-1] if direction else hidden))
                final.append(state)
            x = torch.cat(outputs, -1) if directions > 1 else outputs[0]
            if layer + 1 < num_layers:
                x = torch.dropout(x, dropout, training)
        if valid is not None:
            x = x.flatten(0, 1).index_select(0, valid.flatten().nonzero()[:, 0])
        x = x.transpose(0, 1) if batch_first else x
        if lstm:
            return x, torch.stack([h for h, _ in final]), torch.stack([c for _, c in final])
        return x, torch.stack(final)

    return run


def _where(valid: Tensor, new, old):
    """A cell's new state, of an LSTM two tensors, where a sample has this step."""
    if isinstance(new, tuple):
        return tuple(torch.where(valid, a, b) for a, b in zip(new, old))
    return torch.where(valid, new, old)


def _of_cell(weights, has_biases: bool) -> list[Tensor | None]:
    """w_ih, w_hh, b_ih, b_hh and, where an LSTM projects its output, w_hr."""
    if has_biases:
        return list(weights)
    return [*weights[:2], None, None, *weights[2:]]


def _standardised(x, dims, eps):
    centred = x - x.mean(dims, keepdim=True)
    return centred * ((centred * centred).mean(dims, keepdim=True) + eps).rsqrt()


def _affine(x, weight, bias):
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _channels(vector, ndim):
    return None if vector is None else vector.view(-1, *[1] * (ndim - 2))


TABLE = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "addmm": addmm,
    "baddbmm": baddbmm,
    "addmv": addmv,
    "addcmul": addcmul,
    "bilinear": bilinear,
    "glu": glu,
    "div": div,
    "addcdiv": addcdiv,
    "lerp": lerp,
    "logaddexp": logaddexp,
    "var": var,
    "std": std,
    "var_mean": var_mean,
    "std_mean": std_mean,
    "linalg_vector_norm": vector_norm,
    "norm": norm,
    "cosine_similarity": cosine_similarity,
    "pairwise_distance": pairwise_distance,
    "cdist": cdist,
    "amax": amax,
    "amin": amin,
    "max": maxima,
    "min": minima,
    "maximum": maximum,
    "minimum": minimum,
    "scatter_reduce": scatter_reduce,
    "lstm": recurrent(lstm_cell),
    "gru": recurrent(gru_cell),
    "rnn_tanh": recurrent(rnn_tanh_cell),
    "rnn_relu": recurrent(rnn_relu_cell),
    "lstm_cell": lstm_cell,
    "gru_cell": gru_cell,
    "rnn_tanh_cell": rnn_tanh_cell,
    "rnn_relu_cell": rnn_relu_cell,
}
