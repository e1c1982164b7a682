"""Operations written out in simpler ones, each of which has a DeepLIFT rule; so they need none of their own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax(x, dim, dtype=None):
    return log_softmax(x, dim, dtype).exp()


def log_softmax(x, dim, dtype=None):
    x = x if dtype is None else x.to(dtype)
    x = torch.nan_to_num(x, nan=math.nan, posinf=math.inf)  # a mask of −∞ becomes finite, so differences of it are 0
    return x - torch.logsumexp(x, dim, keepdim=True)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5, *_):
    return _affine(_standardised(x, tuple(range(-len(shape), 0)), eps), weight, bias)


def rms_norm(x, shape, weight=None, eps=None):
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(x * ((x * x).mean(tuple(range(-len(shape), 0)), keepdim=True) + eps).rsqrt(), weight, None)


def group_norm(x, groups, weight=None, bias=None, eps=1e-5, *_):
    normed = _standardised(x.reshape(x.shape[0], groups, -1), (-1,), eps).reshape(x.shape)
    return _affine(normed, *(_channels(v, x.ndim) for v in (weight, bias)))


def instance_norm(x, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, *_):
    weight, bias = _channels(weight, x.ndim), _channels(bias, x.ndim)
    if use_input_stats:
        return _affine(_standardised(x, tuple(range(2, x.ndim)), eps), weight, bias)
    mean, scale = _channels(running_mean, x.ndim), (_channels(running_var, x.ndim) + eps).rsqrt()
    return _affine((x - mean) * scale, weight, bias)


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
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.dropout(softmax(scores, -1), dropout_p, True) @ value


def glu(x, dim=-1):
    a, gate = x.chunk(2, dim)
    return a * gate.sigmoid()


def div(a, b):
    return a * torch.reciprocal(b)


def var(x, dim=None, unbiased=None, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    correction = (1 if unbiased in (None, True) else 0) if correction is None else correction
    dims = tuple(range(x.ndim)) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    centred = x - x.mean(dims, keepdim=True)
    count = math.prod(x.shape[d] for d in dims)
    return (centred * centred).sum(dims, keepdim=keepdim) / max(count - correction, 0)


def std(x, *args, **kwargs):
    return var(x, *args, **kwargs).sqrt()


def vector_norm(x, ord=2, dim=None, keepdim=False, dtype=None):
    x = x if dtype is None else x.to(dtype)
    dim = tuple(range(x.ndim)) if dim is None else dim
    if ord == 1:
        return x.abs().sum(dim, keepdim=keepdim)
    if ord == math.inf:
        return amax(x.abs(), dim, keepdim)
    power = x * x if ord == 2 else x.abs() ** ord
    total = power.sum(dim, keepdim=keepdim)
    return total.sqrt() if ord == 2 else total ** (1 / ord)


def amax(x, dim, keepdim=False):
    dims = sorted(d % x.ndim for d in (dim if isinstance(dim, (tuple, list)) else (dim,)))
    moved = x.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))
    y = last_max(moved).squeeze(-1)
    for d in dims if keepdim else ():
        y = y.unsqueeze(d)
    return y


def amin(x, dim, keepdim=False):
    return -amax(-x, dim, keepdim)


def maximum(a, b):
    return a + torch.relu(b - a)


def minimum(a, b):
    return a - torch.relu(a - b)


def maxima(x, dim, keepdim=False):
    """`torch.max` along a dimension, with the indices, or of two tensors."""
    if isinstance(dim, Tensor):
        return maximum(x, dim)
    return torch.return_types.max((amax(x, dim, keepdim), torch.argmax(x, dim, keepdim)))


def minima(x, dim, keepdim=False):
    """`torch.min` along a dimension, with the indices, or of two tensors."""
    if isinstance(dim, Tensor):
        return minimum(x, dim)
    return torch.return_types.min((amin(x, dim, keepdim), torch.argmin(x, dim, keepdim)))


@torch.overrides.wrap_torch_function(lambda x: (x,))
def last_max(x):
    """The maximum along the last dimension, kept; an operation of its own, with a rule."""
    return x.amax(-1, keepdim=True)


# ---------------------------------------------------------------- recurrent layers, cell by cell


def lstm_cell(x, state, w_ih, w_hh, b_ih=None, b_hh=None):
    h, c = state
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None):
    (r_x, z_x, n_x), (r_h, z_h, n_h) = F.linear(x, w_ih, b_ih).chunk(3, 1), F.linear(h, w_hh, b_hh).chunk(3, 1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return n + z * (h - n)


def rnn_tanh_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None):
    return (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).tanh()


def rnn_relu_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None):
    return (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).relu()


def recurrent(cell):
    """nn.LSTM, nn.GRU and nn.RNN, several layers and both directions, of one cell."""
    lstm = cell is lstm_cell

    def run(x, initial, weights, biased, layers, dropout, train, bidirectional, batch_first):
        if not isinstance(weights, (tuple, list)):
            raise NotImplementedError("DeepLIFT has no rule for packed sequences; pad them")
        x = x.transpose(0, 1) if batch_first else x
        directions, size = 1 + bidirectional, len(weights) // (layers * (1 + bidirectional))
        final = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                own = weights[k * size : (k + 1) * size]
                state = (initial[0][k], initial[1][k]) if lstm else initial[k]
                steps, found = x.unbind(0), []
                for step in reversed(steps) if direction else steps:
                    state = cell(step, state, *own[: 4 if biased else 2])
                    found.append(state[0] if lstm else state)
                outputs.append(torch.stack(found[::-1] if direction else found))
                final.append(state)
            x = torch.cat(outputs, -1) if directions > 1 else outputs[0]
            if layer + 1 < layers:
                x = torch.dropout(x, dropout, train)
        x = x.transpose(0, 1) if batch_first else x
        if lstm:
            return x, torch.stack([h for h, _ in final]), torch.stack([c for _, c in final])
        return x, torch.stack(final)

    return run


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
    "glu": glu,
    "div": div,
    "divide": div,
    "true_divide": div,
    "var": var,
    "std": std,
    "linalg_vector_norm": vector_norm,
    "amax": amax,
    "amin": amin,
    "max": maxima,
    "min": minima,
    "maximum": maximum,
    "minimum": minimum,
    "lstm": recurrent(lstm_cell),
    "gru": recurrent(gru_cell),
    "rnn_tanh": recurrent(rnn_tanh_cell),
    "rnn_relu": recurrent(rnn_relu_cell),
    "lstm_cell": lstm_cell,
    "gru_cell": gru_cell,
    "rnn_tanh_cell": rnn_tanh_cell,
    "rnn_relu_cell": rnn_relu_cell,
}
