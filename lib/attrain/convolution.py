"""Convolutions whose input gradient is cheap to differentiate again, for maps that are trained on.

torch differentiates the input gradient with respect to the weight by a convolution whose kernel is as
large as the image. But it is the gradient of an ordinary convolution's weight, and can cost as little.
"""

import torch
from torch import Tensor
from torch.autograd import Function

_ORDER = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_ORDER = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_backward = torch.ops.aten.convolution_backward


def convolution(func, name: str, switch: dict, at_entry: bool, *args, **kwargs) -> Tensor:
    """The result of func, a convolution as torch calls it, with a backward pass made to be differentiated.

    Args:
        func, name: `torch.conv2d` or its like.
        switch: the rules' switch; while "explaining" only the gradient of the input is made.
        at_entry: whether the input is the model's, whose gradient is of no use but for the map.
        args, kwargs: what func is called with.
    """
    call = dict(zip(_TRANSPOSED_ORDER if "transpose" in name else _ORDER, args)) | kwargs
    x, weight, bias = call["input"], call["weight"], call.get("bias")
    if isinstance(call.get("padding"), str) or x.ndim != weight.ndim:
        return func(*args, **kwargs)
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = (t if t is None else t.to(dtype) for t in (x, weight, bias))
    d = x.ndim - 2
    stride, padding, dilation, output_padding = (
        [v] * d if isinstance(v, int) else list(v) * (d if len(v) == 1 else 1)
        for v in (call.get(key, least) for key, least in _DEFAULTS.items())
    )
    geometry = (stride, padding, dilation, "transpose" in name, output_padding, call.get("groups", 1))
    return _Convolution.apply(x, weight, bias, geometry, switch, at_entry)[0]


_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}


class _Convolution(Function):
    """The convolution, and two stand-ins of no memory: by them a map hands its share of the weight's gradient back.

    Where the weight is larger than the activations, one gradient of the weight for the loss and the map
    together costs about as much as either.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, geometry, switch, at_entry):
        y = torch.convolution(x, weight, bias, *geometry)
        for_x, for_y = (v.new_empty(()).expand_as(v) for v in (x, y))
        ctx.save_for_backward(x, weight, for_x, for_y)
        ctx.set_materialize_grads(False)
        ctx.geometry, ctx.switch, ctx.at_entry = geometry, switch, at_entry
        ctx.biased, ctx.together = bias is not None, weight.numel() > x.numel()
        return y, for_x, for_y

    @staticmethod
    def backward(ctx, g, h, g_of_map):
        x, weight, *stand_ins = ctx.saved_tensors
        if ctx.switch["explaining"]:
            together = ctx.together and ctx.needs_input_grad[1]
            stand_ins, ctx.together = stand_ins if together else (None, None), False  # for one map only
            return _InputGradient.apply(g, weight, x.detach(), ctx.geometry, *stand_ins), *[None] * 5
        of_x = of_weight = of_bias = None
        if g is not None:
            wanted = [ctx.needs_input_grad[0] and not ctx.at_entry, *ctx.needs_input_grad[1:3]]
            wanted[1] &= h is None
            if wanted == [False, True, False]:
                of_weight = weight_gradient(g, x, weight, ctx.geometry)
            elif any(wanted):
                sizes = [g.shape[1]] if ctx.biased else None
                of_x, of_weight, of_bias = _backward(g, x, weight, sizes, *ctx.geometry, wanted)
            if h is not None:
                h, g_of_map = torch.cat([x, h]), torch.cat([g, g_of_map])
        if h is not None:
            of_weight = weight_gradient(g_of_map, h, weight, ctx.geometry)
        return of_x, of_weight, of_bias, *[None] * 3


class _InputGradient(Function):
    """The gradient of Σ g ⊙ convolution(x, weight) with respect to x."""

    @staticmethod
    def forward(ctx, g, weight, x, geometry, for_x, for_y):
        ctx.save_for_backward(g, weight)
        ctx.geometry, ctx.together = geometry, for_x is not None
        return _backward(g, x, weight, None, *geometry, [True, False, False])[0]

    @staticmethod
    def backward(ctx, h):
        g, weight = ctx.saved_tensors
        of_g = torch.convolution(h, weight, None, *ctx.geometry) if ctx.needs_input_grad[0] else None
        if ctx.together:
            return of_g, None, None, None, h, g
        wanted = ctx.needs_input_grad[1]
        return of_g, weight_gradient(g, h, weight, ctx.geometry) if wanted else None, *[None] * 4


def weight_gradient(g: Tensor, x: Tensor, weight: Tensor, geometry: tuple) -> Tensor:
    """The gradient of Σ g ⊙ convolution(x, weight) with respect to the weight."""
    *_, transposed, _, groups = geometry
    if x.device.type == "cpu" and 3 < x.shape[1] <= 6 and groups == 1 and not transposed:
        # oneDNN takes less than half as long for twice three channels, those of z^B's layer, as for six.
        parts = zip(x.split(3, 1), weight.split(3, 1))
        return torch.cat([weight_gradient(g, *part, geometry) for part in parts], 1)
    return _backward(g, x, weight, None, *geometry, [False, True, False])[1]
