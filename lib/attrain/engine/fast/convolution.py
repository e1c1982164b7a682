"""Convolutions whose input gradient is cheap to differentiate again, for maps that are trained on.

torch differentiates the input gradient with respect to the weight by a convolution whose kernel is as
large as the image. But it is the gradient of an ordinary convolution's weight, and can cost as little.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from attrain.engine.mode import Backward

_backward = torch.ops.aten.convolution_backward


def convolution(
    name: str, given: dict, backward: Backward, at_entry: bool, beside: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None]:
    """The result of a convolution, with a backward pass made to be differentiated; None where torch's own must do.

    Args:
        name: "conv2d" or its like.
        given: its arguments by name.
        backward: while explaining only the gradient of the input is made.
        at_entry: whether the input is the model's, or made of it alone; its gradient is of no use but for the map.
        beside: another input, of one sample or few, that shares the pass but is not explained.

    Returns:
        the result, and that of `beside`.
    """
    x, weight, bias, geometry = given["input"], given["weight"], given.get("bias"), geometry_of(name, given)
    if geometry is None:
        return None, None
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias, beside = (
            t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, weight, bias, beside)
        )
    return _Convolution.apply(x, beside, weight, bias, geometry, backward, at_entry)[:2]


def geometry_of(name: str, given: dict) -> tuple | None:
    """Stride, padding, dilation, whether transposed, output padding and groups; None where padding has a name."""
    if isinstance(given.get("padding"), str) or given["input"].ndim != given["weight"].ndim:
        return None
    d = given["weight"].ndim - 2
    stride, padding, dilation, output_padding = (
        list(v) * (d if len(v) == 1 else 1) if isinstance(v, (tuple, list)) else [int(v)] * d
        for v in (given.get(key, least) for key, least in _DEFAULTS.items())
    )
    return stride, padding, dilation, "transpose" in name, output_padding, given.get("groups", 1)


_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}


class _Convolution(Function):
    """The convolution, and two stand-ins of no memory: by them a map hands its share of the weight's gradient back.

    Where the weight is larger than the activations, one gradient of the weight for the loss and the map
    together costs about as much as either. So it does for what is beside: torch takes a single sample of few pixels to
    another algorithm than a batch, which costs as much as four more samples.
    """

    @staticmethod
    def forward(ctx, x, beside, weight, bias, geometry, backward, at_entry):
        if beside is None:
            y, y_beside = torch.convolution(x, weight, bias, *geometry), None
        else:
            if beside.stride()[1:] != x.stride()[1:]:  # else `cat`, and with it the result, has another layout than x
                beside = beside.new_empty_strided(beside.shape, x.stride()).copy_(beside)
            both = torch.convolution(torch.cat([x, beside]), weight, bias, *geometry)
            y, y_beside = (part.clone() for part in both.split([len(x), len(beside)]))  # may be written in place
        ctx.biased, ctx.together = bias is not None, weight.numel() > x.numel()
        stand_ins = [v.new_empty(()).expand_as(v) if ctx.together else None for v in (x, y)]
        ctx.save_for_backward(x, beside, weight, *stand_ins)
        ctx.set_materialize_grads(False)
        ctx.geometry, ctx.rules, ctx.at_entry = geometry, backward, at_entry
        return y, y_beside, *stand_ins

    @staticmethod
    def backward(ctx, g, g_beside, h, g_of_map):
        x, beside, weight, *stand_ins = ctx.saved_tensors
        if g is not None and ctx.rules.explaining:
            together = ctx.together and ctx.needs_input_grad[2]
            stand_ins, ctx.together = stand_ins if together else (None, None), False  # for one map only
            return input_gradient(g, weight, x.shape, ctx.geometry, *stand_ins), *[None] * 6
        wanted = [ctx.needs_input_grad[0] and not ctx.at_entry, *ctx.needs_input_grad[1:4]]
        pairs = [pair for pair in ((x, g, wanted[0]), (beside, g_beside, wanted[1])) if pair[1] is not None]
        of_inputs, of_weight, of_bias = _gradients(pairs, h, g_of_map, weight, ctx.biased, ctx.geometry, wanted[2:])
        of_x, of_beside = (of_inputs.pop(0) if d is not None else None for d in (g, g_beside))
        return of_x, of_beside, of_weight, of_bias, *[None] * 3


def _gradients(pairs, h, g_of_map, weight, biased, geometry, wanted) -> tuple[list, Tensor | None, Tensor | None]:
    """Of all inputs (with the gradient of their results, and whether theirs is wanted), of the weight and of the bias.

    A map's own share of the weight's gradient, h and g_of_map, comes in the same pass.
    """
    of_inputs, of_weight, of_bias = [None] * len(pairs), None, None
    if pairs:
        x, g = (_joined([pair[i] for pair in pairs]) for i in (0, 1))
        asked = [any(pair[2] for pair in pairs), wanted[0] and h is None, wanted[1]]
        if asked == [False, True, False]:
            of_weight = weight_gradient(g, x, weight, geometry)
        elif any(asked):
            of_x, of_weight, of_bias = _backward(g, x, weight, [g.shape[1]] if biased else None, *geometry, asked)
            of_inputs = [None] * len(pairs) if of_x is None else [*of_x.split([len(pair[0]) for pair in pairs])]
        if h is not None:
            h, g_of_map = torch.cat([x, h]), torch.cat([g, g_of_map])
    if h is not None:
        of_weight = weight_gradient(g_of_map, h, weight, geometry)
    return of_inputs, of_weight, of_bias


def _joined(batches: list[Tensor]) -> Tensor:
    return torch.cat(batches) if len(batches) > 1 else batches[0]


def input_gradient(g: Tensor, weight: Tensor, shape: torch.Size, geometry: tuple, *stand_ins) -> Tensor:
    """The gradient of Σ g ⊙ convolution(x, weight) with respect to x of that shape; differentiable."""
    return _InputGradient.apply(g, weight, shape, geometry, *stand_ins or (None, None))


class _InputGradient(Function):
    @staticmethod
    def forward(ctx, g, weight, shape, geometry, for_x, for_y):
        ctx.save_for_backward(g, weight)
        ctx.geometry, ctx.together = geometry, for_x is not None
        if _by_phases(g, weight, geometry):
            return _phases(g, weight, shape, *geometry[:2])
        x = g.new_empty(()).expand(shape)
        return _backward(g, x, weight, None, *geometry, [True, False, False])[0]

    @staticmethod
    def backward(ctx, h):
        g, weight = ctx.saved_tensors
        of_g = torch.convolution(h, weight, None, *ctx.geometry) if ctx.needs_input_grad[0] else None
        if ctx.together:
            return of_g, None, None, None, h, g
        wanted = ctx.needs_input_grad[1]
        return of_g, weight_gradient(g, h, weight, ctx.geometry) if wanted else None, *[None] * 4


def _by_phases(g: Tensor, weight: Tensor, geometry: tuple) -> bool:
    """Whether it is a strided convolution of few channels, as the first layers of ResNets and transformers are."""
    (stride, *_), (_, _, dilation, transposed, _, groups) = geometry[0], geometry
    return (
        (g.device.type, g.ndim, groups, transposed) == ("cpu", 4, 1, False)
        and weight.shape[1] <= 6
        and geometry[0] == [stride] * 2 != [1, 1] == dilation
    )


def _phases(g: Tensor, weight: Tensor, shape: torch.Size, stride: list, padding: list) -> Tensor:
    """An input gradient by one ordinary convolution with a channel for each phase of the stride, then sorted in.

    oneDNN's own takes two to five times as long for few channels. At pixel stride·q + r, the phase r of the padded
    image, the gradient is Σ_m g[q − m] w[stride·m + r].
    """
    s, (channels, tall, wide) = stride[0], weight.shape[1:]
    m = [-(-size // s) for size in (tall, wide)]
    kernel = F.pad(weight, (0, s * m[1] - wide, 0, s * m[0] - tall)).view(-1, channels, m[0], s, m[1], s)
    kernel = kernel.permute(1, 3, 5, 0, 2, 4).reshape(channels * s * s, -1, *m).flip(2, 3)
    padded = F.pixel_shuffle(F.conv2d(g, kernel, padding=[size - 1 for size in m]), s)
    (top, left), (height, width) = padding, padded.shape[2:]
    return F.pad(padded, (-left, shape[3] + left - width, -top, shape[2] + top - height))


def weight_gradient(g: Tensor, x: Tensor, weight: Tensor, geometry: tuple) -> Tensor:
    """The gradient of Σ g ⊙ convolution(x, weight) with respect to the weight."""
    *_, transposed, _, groups = geometry
    if x.device.type == "cpu" and 3 < x.shape[1] <= 6 and groups == 1 and not transposed:
        # oneDNN takes less than half as long for twice three channels, those of z^B's layer, as for six.
        parts = zip(x.split(3, 1), weight.split(3, 1))
        return torch.cat([weight_gradient(g, *part, geometry) for part in parts], 1)
    return _backward(g, x, weight, None, *geometry, [False, True, False])[1]
