"""What an operation is does not depend on how it is spelled: one map, or one kind of error, for every method.

A table of operations; the spellings are worked out from torch's own names: function, method, in place, by position,
by keyword, `input=`, `axis=` for `dim=`, operator, module, a module used twice.
"""

import operator
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.attrain import oracles
from tests.attrain.oracles import DEEPLIFT, METHODS, Network, Unclear, attempt, close, inputs, refusal

CONSTANT = torch.tensor([1.5, -0.5, 2.0, 0.7, -1.2, 1.0], dtype=torch.float64)
ALIASES = {"dim": "axis", "keepdim": "keepdims"}


def activation(h: Tensor) -> Tensor:
    """Another activation of the same shape."""
    return h.roll(1, -1)


def given(value, h):
    return value(h) if callable(value) and not isinstance(value, type) else value


def spelled(name: str, arguments: dict | None = None, homes=(torch, F), on: Callable = lambda h: h) -> dict:
    """Every way that torch has to call an operation on an activation, the first the plainest.

    Args:
        name: as in `torch.name`, `Tensor.name`, `torch.nn.functional.name`, and each with a `_` behind it.
        arguments: further ones by name, in the order of positions; a callable is called with the activation.
        homes: modules that have it.
        on: what the operation is called on, from the activation.
    """
    arguments = arguments or {}
    by_place = lambda h: [given(v, h) for v in arguments.values()]  # noqa: E731
    by_name = lambda h, names=(): {dict(names).get(k, k): given(v, h) for k, v in arguments.items()}  # noqa: E731
    renamed = bool(ALIASES.keys() & arguments.keys())
    ways = {}
    if hasattr(Tensor, name):
        ways[f"h.{name}(…)"] = lambda h: getattr(on(h), name)(*by_place(h))
        ways[f"Tensor.{name}(h, …)"] = lambda h: getattr(Tensor, name)(on(h), *by_place(h))
        if arguments:
            ways[f"h.{name}(k=…)"] = lambda h: getattr(on(h), name)(**by_name(h))
        if renamed:
            ways[f"h.{name}(axis=…)"] = lambda h: getattr(on(h), name)(**by_name(h, ALIASES.items()))
    for home, label in zip(homes, ("torch", "F")):
        function = getattr(home, name, None)
        if function is None:
            continue
        ways[f"{label}.{name}(h, …)"] = lambda h, f=function: f(on(h), *by_place(h))
        ways[f"{label}.{name}(input=h, k=…)"] = lambda h, f=function: f(**by_name(h), input=on(h))
        if arguments:
            ways[f"{label}.{name}(h, k=…)"] = lambda h, f=function: f(on(h), **by_name(h))
        if renamed:
            ways[f"{label}.{name}(h, axis=…)"] = lambda h, f=function: f(on(h), **by_name(h, ALIASES.items()))
        ways[f"{label}.{name}(h, inplace=True)"] = lambda h, f=function: f(on(h), *by_place(h), inplace=True)
        ways[f"{label}.{name}(h, inplace=False)"] = lambda h, f=function: f(on(h), *by_place(h), inplace=False)
    for home, label in ((Tensor, "Tensor"), (torch, "torch"), (F, "F")):
        in_place = getattr(home, name + "_", None)
        if in_place is not None:
            ways[f"{label}.{name}_(h, …)"] = lambda h, f=in_place: f(on(h), *by_place(h))
            if arguments:
                ways[f"{label}.{name}_(h, k=…)"] = lambda h, f=in_place: f(on(h), **by_name(h))
    return ways


def binary(name: str, other, swapped=None, **operators) -> dict:
    """An operation of two, with its operators: by value, and in place."""
    ways = spelled(name, {"other": other})
    for sign, f in operators.items():
        ways[sign] = lambda h, f=f: f(h, given(other, h))
    if swapped:
        ways["~reflected"] = lambda h: swapped(given(other, h), h)
    return ways


def modules(*made: nn.Module, on: Callable = lambda h: h) -> dict:
    return {
        f"nn.{type(m).__name__}{' ' + str(k) if k else ''}": (lambda h, m=m.double().eval(): m(on(h)))
        for k, m in enumerate(made)
    }


def image(h):
    return h.view(-1, 1, 4, 6)


def sequence(h):
    return h.view(-1, 2, 12)


def volume(h):
    return h.view(-1, 1, 2, 3, 4)


def kernel(*shape):
    return torch.linspace(-1, 1.5, torch.Size(shape).numel(), dtype=torch.float64).view(shape)


def layer(kind, *args, **options):
    made = kind(*args, **options).double()
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(kernel(*p.shape))
    return made


def convolution(name: str, kind, on, shape, **options) -> dict:
    ways = spelled(name, {"weight": kernel(*shape), "bias": kernel(shape[0])} | options, (torch, F), on)
    return ways | modules(layer(kind, shape[1], shape[0], shape[2], **options), on=on)


def pool(name: str, kind, on, size=2, **options) -> dict:
    ways = spelled(name, {"kernel_size": size} | options, (torch, F), on)
    return ways | modules(kind(size, **options), on=on)


def _masks(h):
    return torch.arange(6) > 3


def _put(h, place, value):
    h = h.clone()
    h[place] = value
    return h


def norm(kind, *args):
    made = layer(kind, *args).eval()
    if hasattr(made, "running_mean"):
        made.running_mean.copy_(kernel(*made.running_mean.shape))
        made.running_var.copy_(1 + kernel(*made.running_var.shape) ** 2)
    return made


BN, LN, GN = norm(nn.BatchNorm1d, 24), norm(nn.LayerNorm, 24), norm(nn.GroupNorm, 2, 4)
QKV = dict.fromkeys(("query", "key", "value"), lambda h: h.view(-1, 4, 6))


def _channels(h):
    return h.view(-1, 4, 6)


# operation: its spellings, the first the one to compare with; with a ~, another function that says the same
OPERATIONS: dict[str, dict] = {
    "relu": spelled("relu")
    | modules(nn.ReLU(), nn.ReLU(inplace=True))
    | {"torch.ops.aten": lambda h: torch.ops.aten.relu(h)},
    **{
        f"{name}": spelled(name) | modules(kind())
        for name, kind in {
            "sigmoid": nn.Sigmoid,
            "tanh": nn.Tanh,
            "gelu": nn.GELU,
            "silu": nn.SiLU,
            "elu": nn.ELU,
            "selu": nn.SELU,
            "celu": nn.CELU,
            "mish": nn.Mish,
            "softplus": nn.Softplus,
            "softsign": nn.Softsign,
            "relu6": nn.ReLU6,
            "hardtanh": nn.Hardtanh,
            "hardsigmoid": nn.Hardsigmoid,
            "hardswish": nn.Hardswish,
            "leaky_relu": nn.LeakyReLU,
            "logsigmoid": nn.LogSigmoid,
            "tanhshrink": nn.Tanhshrink,
            "softshrink": nn.Softshrink,
            "hardshrink": nn.Hardshrink,
        }.items()
    },
    "prelu": spelled("prelu", {"weight": torch.full((1,), 0.25).double()}) | modules(nn.PReLU()),
    "threshold": spelled("threshold", {"threshold": 0.2, "value": 0.1}) | modules(nn.Threshold(0.2, 0.1)),
    "glu": spelled("glu", {"dim": 1}) | modules(nn.GLU(1)),
    **{
        f"{name}, {what}": binary(name, other, swapped, **operators)
        for name, swapped, operators in (
            (
                "add",
                None,
                {"+": operator.add, "+=": operator.iadd, "__add__": Tensor.__add__, "__iadd__": Tensor.__iadd__},
            ),
            ("sub", None, {"-": operator.sub, "-=": operator.isub, "__sub__": Tensor.__sub__}),
            ("mul", None, {"*": operator.mul, "*=": operator.imul, "__mul__": Tensor.__mul__}),
            ("div", None, {"/": operator.truediv, "/=": operator.itruediv, "__truediv__": Tensor.__truediv__}),
        )
        for what, other in (
            ("a number", 2.0),
            ("a constant", CONSTANT.repeat(4)),
            ("an activation", lambda h: activation(h) + 9.0),
        )
    },
    "add, reflected": {
        "2 + h": lambda h: 2.0 + h,
        "h.__radd__": lambda h: h.__radd__(2.0),
        "torch.add": lambda h: torch.add(h, 2.0),
    },
    "sub, reflected": {
        "2 - h": lambda h: 2.0 - h,
        "h.__rsub__": lambda h: h.__rsub__(2.0),
        "rsub": lambda h: torch.rsub(h, 2.0),
        "rsub(other=)": lambda h: torch.rsub(h, other=2.0),
    },
    "mul, reflected": {
        "2 * h": lambda h: 2.0 * h,
        "h.__rmul__": lambda h: h.__rmul__(2.0),
        "~C * h": lambda h: torch.tensor(2.0).double() * h,
        "~torch.mul(C, h)": lambda h: torch.mul(torch.tensor(2.0).double(), h),
        "~torch.mul(input=C, other=h)": lambda h: torch.mul(input=torch.tensor(2.0).double(), other=h),
    },
    "div, reflected": {
        "2 / h": lambda h: 2.0 / (h + 9),
        "h.__rtruediv__": lambda h: (h + 9).__rtruediv__(2.0),
        "torch.div": lambda h: torch.div(torch.tensor(2.0).double(), h + 9),
    },
    "add, alpha": {
        "torch.add(h, k, alpha=2)": lambda h: torch.add(h, activation(h), alpha=2),
        "h.add(k, alpha=2)": lambda h: h.add(activation(h), alpha=2),
        "h.add(other=k, alpha=2)": lambda h: h.add(other=activation(h), alpha=2),
        "torch.add(input=, other=, alpha=)": lambda h: torch.add(alpha=2, other=activation(h), input=h),
        "h.add_": lambda h: (h + 0).add_(activation(h), alpha=2),
    },
    "sub, alpha": {
        "torch.sub(h, k, alpha=2)": lambda h: torch.sub(h, activation(h), alpha=2),
        "h.sub(k, alpha=2)": lambda h: h.sub(activation(h), alpha=2),
        "h.subtract": lambda h: h.subtract(activation(h), alpha=2),
        "~rsub(alpha=2)": lambda h: torch.rsub(activation(h), h, alpha=2),
    },
    "multiply": binary("multiply", 2.0),
    "divide": binary("divide", 2.0),
    "true_divide": binary("true_divide", 2.0),
    "subtract": binary("subtract", 2.0),
    "neg": spelled("neg")
    | {
        "-h": lambda h: -h,
        "__neg__": lambda h: h.__neg__(),
        "negative": lambda h: torch.negative(h),
        "h.negative()": lambda h: h.negative(),
    },
    "positive": {"+h": lambda h: +h, "torch.positive": lambda h: torch.positive(h), "~h": lambda h: h * 1},
    "pow 2": binary("pow", 2.0)
    | spelled("pow", {"exponent": 2})
    | {
        "h ** 2": lambda h: h**2,
        "~square": lambda h: h.square(),
        "~torch.square(input=)": lambda h: torch.square(input=h),
        "__pow__": lambda h: h.__pow__(2),
    },
    "reflected pow": {
        "2 ** h": lambda h: 2**h,
        "torch.pow(2, h)": lambda h: torch.pow(2, h),
        "h.__rpow__": lambda h: h.__rpow__(2),
        "~exp2": lambda h: torch.exp2(h),
    },
    **{name: spelled(name) for name in ("exp", "abs", "sin", "cos", "atan", "erf", "expm1", "sinh", "square")},
    **{
        name: spelled(name, on=lambda h: h.abs() + 1)
        for name in ("log", "sqrt", "rsqrt", "reciprocal", "log1p", "log2")
    },
    "matmul, constant": spelled("matmul", {"other": kernel(24, 3)}, (torch,))
    | {
        "h @ C": lambda h: h @ kernel(24, 3),
        "mm": lambda h: torch.mm(h, kernel(24, 3)),
        "mm(mat2=)": lambda h: torch.mm(h, mat2=kernel(24, 3)),
        "~einsum": lambda h: torch.einsum("ni,ij->nj", h, kernel(24, 3)),
        "__matmul__": lambda h: h.__matmul__(kernel(24, 3)),
        "~addmm": lambda h: torch.addmm(torch.zeros(3).double(), h, kernel(24, 3)),
        "~tensordot": lambda h: torch.tensordot(h, kernel(24, 3), 1),
        "~inner": lambda h: torch.inner(h, kernel(24, 3).T.contiguous()),
    },
    "matmul, reflected": {
        "C @ h.T": lambda h: (kernel(3, 24) @ h.T).T,
        "torch.matmul": lambda h: torch.matmul(kernel(3, 24), h.T).T,
        "input=, other=": lambda h: torch.matmul(input=kernel(3, 24), other=h.T).T,
        "mm": lambda h: torch.mm(input=kernel(3, 24), mat2=h.T).T,
    },
    "matmul, activations": {
        "@": lambda h: _channels(h) @ _channels(h).mT,
        "torch.matmul": lambda h: torch.matmul(_channels(h), _channels(h).mT),
        "other=": lambda h: torch.matmul(_channels(h), other=_channels(h).mT),
        "bmm": lambda h: torch.bmm(_channels(h), _channels(h).mT),
        "bmm(mat2=)": lambda h: _channels(h).bmm(mat2=_channels(h).mT),
    },
    "linear": spelled("linear", {"weight": kernel(3, 24), "bias": kernel(3)}, (torch, F))
    | modules(layer(nn.Linear, 24, 3))
    | {
        "torch._C._nn": lambda h: torch._C._nn.linear(h, kernel(3, 24), kernel(3)),
        "one linear in a Sequential": nn.Sequential(layer(nn.Linear, 24, 3)),
    },
    "linear without bias": spelled("linear", {"weight": kernel(3, 24)}, (torch, F))
    | modules(layer(nn.Linear, 24, 3, bias=False))
    | {"bias=None": lambda h: F.linear(h, kernel(3, 24), bias=None)},
    "conv1d": convolution("conv1d", nn.Conv1d, sequence, (3, 2, 3)),
    "conv1d, stride": convolution("conv1d", nn.Conv1d, sequence, (3, 2, 3), stride=2),
    "conv2d": convolution("conv2d", nn.Conv2d, image, (2, 1, 3, 3)),
    "conv3d": convolution("conv3d", nn.Conv3d, volume, (2, 1, 2, 2, 2)),
    "conv_transpose1d": spelled("conv_transpose1d", {"weight": kernel(2, 3, 3)}, (torch, F), sequence)
    | modules(layer(nn.ConvTranspose1d, 2, 3, 3, bias=False), on=sequence),
    "conv_transpose2d": spelled("conv_transpose2d", {"weight": kernel(1, 2, 3, 3)}, (torch, F), image)
    | modules(layer(nn.ConvTranspose2d, 1, 2, 3, bias=False), on=image),
    "batch_norm": {
        "F.batch_norm": lambda h: F.batch_norm(h, BN.running_mean, BN.running_var, BN.weight, BN.bias),
        "nn.BatchNorm1d": lambda h: BN(h),
        "by name": lambda h: F.batch_norm(
            input=h,
            running_mean=BN.running_mean,
            running_var=BN.running_var,
            weight=BN.weight,
            bias=BN.bias,
            training=False,
            eps=1e-5,
        ),
        "torch.batch_norm": lambda h: torch.batch_norm(
            h, BN.weight, BN.bias, BN.running_mean, BN.running_var, False, 0.1, 1e-5, True
        ),
    },
    "layer_norm": {
        "F.layer_norm": lambda h: F.layer_norm(h, (24,), LN.weight, LN.bias),
        "nn.LayerNorm": lambda h: LN(h),
        "by name": lambda h: F.layer_norm(input=h, normalized_shape=(24,), weight=LN.weight, bias=LN.bias),
        "torch.layer_norm": lambda h: torch.layer_norm(h, (24,), LN.weight, LN.bias),
        "a list": lambda h: F.layer_norm(h, [24], bias=LN.bias, weight=LN.weight),
    },
    "group_norm": {
        "F.group_norm": lambda h: F.group_norm(_channels(h), 2, GN.weight, GN.bias),
        "nn.GroupNorm": lambda h: GN(_channels(h)),
        "by name": lambda h: F.group_norm(input=_channels(h), num_groups=2, weight=GN.weight, bias=GN.bias),
        "torch.group_norm": lambda h: torch.group_norm(_channels(h), 2, GN.weight, GN.bias),
    },
    "instance_norm": spelled("instance_norm", {}, (F,), _channels) | modules(nn.InstanceNorm1d(4), on=_channels),
    "rms_norm": spelled("rms_norm", {"normalized_shape": (24,)}) | modules(nn.RMSNorm(24)),
    "local_response_norm": spelled("local_response_norm", {"size": 2}, (F,), image)
    | modules(nn.LocalResponseNorm(2), on=image),
    "max_pool1d": pool("max_pool1d", nn.MaxPool1d, sequence),
    "max_pool2d": pool("max_pool2d", nn.MaxPool2d, image),
    "max_pool2d, stride": pool("max_pool2d", nn.MaxPool2d, image, stride=1),
    "max_pool3d": pool("max_pool3d", nn.MaxPool3d, volume),
    "avg_pool1d": pool("avg_pool1d", nn.AvgPool1d, sequence),
    "avg_pool2d": pool("avg_pool2d", nn.AvgPool2d, image),
    "avg_pool3d": pool("avg_pool3d", nn.AvgPool3d, volume),
    "adaptive_avg_pool2d": spelled("adaptive_avg_pool2d", {"output_size": 2}, (torch, F), image)
    | modules(nn.AdaptiveAvgPool2d(2), on=image)
    | {"(2, 2)": lambda h: F.adaptive_avg_pool2d(image(h), (2, 2))},
    "adaptive_avg_pool1d": spelled("adaptive_avg_pool1d", {"output_size": 3}, (torch, F), sequence)
    | modules(nn.AdaptiveAvgPool1d(3), on=sequence),
    "adaptive_max_pool2d": spelled("adaptive_max_pool2d", {"output_size": 2}, (F,), image)
    | modules(nn.AdaptiveMaxPool2d(2), on=image),
    "adaptive_max_pool1d": spelled("adaptive_max_pool1d", {"output_size": 3}, (F,), sequence)
    | modules(nn.AdaptiveMaxPool1d(3), on=sequence),
    "global average": {
        "mean((2, 3))": lambda h: image(h).mean((2, 3)),
        "mean(dim=)": lambda h: image(h).mean(dim=(2, 3)),
        "mean(axis=)": lambda h: image(h).mean(axis=(2, 3)),
        "mean of mean": lambda h: image(h).mean(3).mean(2),
        "torch.mean(input=)": lambda h: torch.mean(input=image(h), dim=(-1, -2)),
        "~flatten, mean": lambda h: image(h).flatten(2).mean(2),
        "~adaptive": lambda h: F.adaptive_avg_pool2d(image(h), 1),
    },
    **{
        f"{name}, dim": spelled(name, {"dim": 1}, (torch,))
        for name in (
            "sum",
            "mean",
            "amax",
            "amin",
            "var",
            "std",
            "logsumexp",
            "prod",
            "cumsum",
            "cumprod",
            "softmax",
            "log_softmax",
        )
    },
    **{
        f"{name}, keepdim": spelled(name, {"dim": 1, "keepdim": True}, (torch,))
        for name in ("sum", "mean", "amax", "logsumexp", "var", "std")
    },
    **{f"{name} of all": spelled(name, {}, (torch,)) for name in ("sum", "mean", "max", "min", "amax", "var", "std")},
    "max, dim": {
        "h.max(1)[0]": lambda h: h.max(1)[0],
        "values": lambda h: h.max(1).values,
        "dim=": lambda h: h.max(dim=1)[0],
        "axis=": lambda h: h.max(axis=1)[0],
        "torch.max(input=, dim=)": lambda h: torch.max(input=h, dim=1)[0],
        "unpacked": lambda h: (lambda v, i: v)(*torch.max(h, 1)),
    },
    "min, dim": {
        "h.min(1)[0]": lambda h: h.min(1)[0],
        "values": lambda h: h.min(1).values,
        "dim=": lambda h: h.min(dim=1)[0],
        "torch.min(input=, dim=)": lambda h: torch.min(input=h, dim=1)[0],
    },
    **{name: spelled(name, {"other": activation}, (torch,)) for name in ("maximum", "minimum", "fmax", "fmin")},
    "max of two": {
        "torch.max(h, k)": lambda h: torch.max(h, activation(h)),
        "h.max(k)": lambda h: h.max(activation(h)),
        "other=": lambda h: torch.max(h, other=activation(h)),
        "~maximum": lambda h: torch.maximum(h, activation(h)),
    },
    "clamp": spelled("clamp", {"min": -0.5, "max": 0.7})
    | {
        "clip": lambda h: h.clip(-0.5, 0.7),
        "torch.clip": lambda h: torch.clip(h, min=-0.5, max=0.7),
        "max= first": lambda h: torch.clamp(h, max=0.7, min=-0.5),
        "clip_": lambda h: (h + 0).clip_(-0.5, 0.7),
    },
    "clamp, min": spelled("clamp", {"min": 0})
    | {
        "~clamp_min": lambda h: h.clamp_min(0),
        "torch.clamp_min": lambda h: torch.clamp_min(h, 0),
        "clip": lambda h: h.clip(min=0),
    },
    "clamp, max": {
        "clamp(max=)": lambda h: h.clamp(max=0.3),
        "clamp_max": lambda h: h.clamp_max(0.3),
        "torch.clamp_max": lambda h: torch.clamp_max(h, max=0.3),
        "clamp(None, .)": lambda h: torch.clamp(h, None, 0.3),
    },
    "softmax as a module": {
        "h.softmax(1)": lambda h: h.softmax(1),
        "F.softmax": lambda h: F.softmax(h, dim=1),
        "nn.Softmax": nn.Softmax(1),
        "torch.softmax": lambda h: torch.softmax(h, -1),
        "~special": lambda h: torch.special.softmax(h, 1),
        "dtype=": lambda h: h.softmax(1, dtype=torch.float64),
        "~softmin": lambda h: F.softmin(-h, 1),
    },
    "cat": {
        "torch.cat": lambda h: torch.cat([h, activation(h)], 1),
        "dim=": lambda h: torch.cat((h, activation(h)), dim=1),
        "tensors=": lambda h: torch.cat(tensors=[h, activation(h)], dim=1),
        "axis=": lambda h: torch.cat([h, activation(h)], axis=1),
        "concat": lambda h: torch.concat([h, activation(h)], 1),
        "concatenate": lambda h: torch.concatenate([h, activation(h)], axis=1),
        "hstack": lambda h: torch.hstack([h, activation(h)]),
        "~column_stack": lambda h: torch.column_stack([h, activation(h)]),
    },
    "cat with a constant": {
        "torch.cat": lambda h: torch.cat([h, CONSTANT.expand(len(h), 6)], 1),
        "tensors=": lambda h: torch.cat(dim=-1, tensors=(h, CONSTANT.expand(len(h), 6))),
        "hstack": lambda h: torch.hstack((h, CONSTANT.expand(len(h), 6))),
    },
    "stack": {
        "torch.stack": lambda h: torch.stack([h, activation(h)], 1),
        "dim=": lambda h: torch.stack(tensors=(h, activation(h)), dim=1),
        "axis=": lambda h: torch.stack([h, activation(h)], axis=1),
        "~cat of unsqueezed": lambda h: torch.cat([h[:, None], activation(h)[:, None]], 1),
        "-2": lambda h: torch.stack([h, activation(h)], -2),
    },
    "split": {
        "split": lambda h: h.split(8, 1),
        "split_size=": lambda h: torch.split(h, split_size_or_sections=8, dim=1),
        "chunk": lambda h: h.chunk(3, 1),
        "torch.chunk(input=)": lambda h: torch.chunk(input=h, chunks=3, dim=1),
        "tensor_split": lambda h: h.tensor_split(3, 1),
        "list": lambda h: torch.split(h, [8, 8, 8], 1),
        "slices": lambda h: (h[:, :8], h[:, 8:16], h[:, 16:]),
        "unflatten.unbind": lambda h: h.unflatten(1, (3, 8)).unbind(1),
    },
    "columns": {
        "h[:, 2:5]": lambda h: h[:, 2:5],
        "narrow": lambda h: h.narrow(1, 2, 3),
        "torch.narrow(k=)": lambda h: torch.narrow(h, dim=1, start=2, length=3),
        "...": lambda h: h[..., 2:5],
        "index_select": lambda h: h.index_select(1, torch.arange(2, 5)),
        "h[:, [2, 3, 4]]": lambda h: h[:, [2, 3, 4]],
        "slice object": lambda h: h[(slice(None), slice(2, 5))],
        "~take_along_dim": lambda h: h.take_along_dim(torch.arange(2, 5)[None].expand(len(h), 3), 1),
        "gather": lambda h: h.gather(1, torch.arange(2, 5).expand(len(h), 3)),
        "gather(index=)": lambda h: torch.gather(input=h, dim=1, index=torch.arange(2, 5).expand(len(h), 3)),
        "__getitem__": lambda h: h.__getitem__((slice(None), slice(2, 5))),
        "mask": lambda h: h[:, (torch.arange(24) > 1) & (torch.arange(24) < 5)],
        "index_select(index=)": lambda h: torch.index_select(h, dim=1, index=torch.arange(2, 5)),
    },
    "a column": {
        "h[:, 2]": lambda h: h[:, 2],
        "select": lambda h: h.select(1, 2),
        "torch.select(index=)": lambda h: torch.select(h, dim=1, index=2),
        "unbind": lambda h: h.unbind(1)[2],
        "torch.unbind(dim=)": lambda h: torch.unbind(input=h, dim=1)[2],
        "squeeze": lambda h: h[:, 2:3].squeeze(1),
        "h.T[2]": lambda h: h.T[2],
    },
    "a new axis": {
        "h[:, None]": lambda h: h[:, None],
        "unsqueeze": lambda h: h.unsqueeze(1),
        "torch.unsqueeze(dim=)": lambda h: torch.unsqueeze(h, dim=1),
        "view": lambda h: h.view(-1, 1, 24),
        "unflatten": lambda h: h.unflatten(1, (1, 24)),
    },
    "reshape": {
        "view": lambda h: h.view(-1, 4, 6),
        "view(tuple)": lambda h: h.view((-1, 4, 6)),
        "reshape": lambda h: h.reshape(-1, 4, 6),
        "torch.reshape(shape=)": lambda h: torch.reshape(input=h, shape=(-1, 4, 6)),
        "reshape(len)": lambda h: h.reshape(len(h), 4, 6),
        "unflatten": lambda h: h.unflatten(1, (4, 6)),
        "unflatten(sizes=)": lambda h: torch.unflatten(h, dim=1, sizes=(4, 6)),
        "nn.Unflatten": nn.Unflatten(1, (4, 6)),
        "view_as": lambda h: h.view_as(torch.empty(len(h), 4, 6)),
        "reshape_as": lambda h: h.reshape_as(torch.empty(len(h), 4, 6)),
    },
    "flatten": {
        "flatten(1)": lambda h: _channels(h).flatten(1),
        "torch.flatten(start_dim=)": lambda h: torch.flatten(_channels(h), start_dim=1),
        "nn.Flatten": lambda h: nn.Flatten()(_channels(h)),
        "view": lambda h: _channels(h).view(len(h), -1),
        "~ravel": lambda h: torch.stack([v.ravel() for v in _channels(h)]),
        "view(size(0), -1)": lambda h: _channels(h).view(h.size(0), -1),
    },
    "transpose": {
        "transpose": lambda h: _channels(h).transpose(1, 2),
        "torch.transpose(dim0=)": lambda h: torch.transpose(_channels(h), dim0=1, dim1=2),
        "permute": lambda h: _channels(h).permute(0, 2, 1),
        "permute(dims=)": lambda h: torch.permute(_channels(h), dims=(0, 2, 1)),
        "mT": lambda h: _channels(h).mT,
        "swapaxes": lambda h: _channels(h).swapaxes(1, 2),
        "movedim": lambda h: _channels(h).movedim(1, 2),
        "~einsum": lambda h: torch.einsum("nij->nji", _channels(h)),
        "transpose(-1, -2)": lambda h: _channels(h).transpose(-1, -2),
        "adjoint": lambda h: _channels(h).adjoint(),
    },
    "masked_fill": {
        "h.masked_fill": lambda h: h.masked_fill(torch.arange(24) > 9, 0.5),
        "value=": lambda h: torch.masked_fill(h, mask=torch.arange(24) > 9, value=0.5),
        "masked_fill_": lambda h: (h + 0).masked_fill_(torch.arange(24) > 9, 0.5),
        "h[:, m] = v": lambda h: _put(h, (slice(None), torch.arange(24) > 9), 0.5),
        "a tensor": lambda h: h.masked_fill(torch.arange(24) > 9, torch.tensor(0.5).double()),
        "~index_fill": lambda h: h.index_fill(1, torch.arange(10, 24), 0.5),
        "h[:, 10:] = v": lambda h: _put(h, (slice(None), slice(10, None)), 0.5),
    },
    "where": {
        "torch.where": lambda h: torch.where(torch.arange(24) > 9, h, 0.5),
        "h.where": lambda h: h.where(torch.arange(24) > 9, torch.tensor(0.5).double()),
        "input=, other=": lambda h: torch.where(torch.arange(24) > 9, input=h, other=torch.tensor(0.5).double()),
        "other first": lambda h: torch.where(torch.arange(24) <= 9, 0.5, h),
    },
    "pad": {
        "F.pad": lambda h: F.pad(h, (1, 2)),
        "k=": lambda h: F.pad(input=h, pad=(1, 2), mode="constant", value=0),
        "nn.ConstantPad1d": nn.ConstantPad1d((1, 2), 0.0),
        "nn.ZeroPad1d": nn.ZeroPad1d((1, 2)),
        "constant_pad_nd": lambda h: torch.constant_pad_nd(h, (1, 2)),
        "~cat": lambda h: torch.cat([h.new_zeros(len(h), 1), h, h.new_zeros(len(h), 2)], 1),
    },
    "reflection pad": {
        "F.pad": lambda h: F.pad(sequence(h), (1, 2), mode="reflect"),
        "by place": lambda h: F.pad(sequence(h), (1, 2), "reflect"),
        "nn.ReflectionPad1d": lambda h: nn.ReflectionPad1d((1, 2))(sequence(h)),
    },
    "dropout (eval)": {
        "~h": lambda h: h * 1,
        "F.dropout": lambda h: F.dropout(h, 0.5, False) * 1,
        "k=": lambda h: F.dropout(input=h, p=0.5, training=False) * 1,
        "nn.Dropout": lambda h: nn.Dropout().eval()(h) * 1,
        "torch.dropout": lambda h: torch.dropout(h, 0.5, False) * 1,
        "dropout2d": lambda h: F.dropout2d(image(h), 0.5, False) * 1,
        "alpha_dropout": lambda h: F.alpha_dropout(h, 0.5, False) * 1,
        "nn.Identity": lambda h: nn.Identity()(h) * 1,
        "clone": lambda h: h.clone() * 1,
        "contiguous": lambda h: h.contiguous() * 1,
        "to": lambda h: h.to(torch.float64) * 1,
        "double": lambda h: h.double() * 1,
        "~h.div(1.0)": lambda h: h.div(1.0) * 1,
    },
    "expand": {
        "expand": lambda h: h[:, None].expand(-1, 3, -1),
        "expand(size=)": lambda h: h[:, None].expand(size=(-1, 3, -1)),
        "expand_as": lambda h: h[:, None].expand_as(torch.empty(len(h), 3, 24)),
        "broadcast_to": lambda h: torch.broadcast_to(h[:, None], (len(h), 3, 24)),
        "broadcast_to(size=)": lambda h: h[:, None].broadcast_to(size=(len(h), 3, 24)),
        "repeat": lambda h: h[:, None].repeat(1, 3, 1),
        "tile": lambda h: h[:, None].tile(1, 3, 1),
        "~stack": lambda h: torch.stack([h] * 3, 1),
        "repeat_interleave": lambda h: h[:, None].repeat_interleave(3, 1),
    },
    "roll": spelled("roll", {"shifts": 2, "dims": 1}, (torch,))
    | {"~cat": lambda h: torch.cat([h[:, -2:], h[:, :-2]], 1)},
    "flip": spelled("flip", {"dims": (1,)}, (torch,))
    | {
        "fliplr": lambda h: h.fliplr(),
        "flip(1)": lambda h: h.flip(1),
        "h[:, order]": lambda h: h[:, torch.arange(23, -1, -1)],
    },
    "norm": {
        "h.norm(dim=1)": lambda h: h.norm(dim=1),
        "torch.norm": lambda h: torch.norm(h, dim=1),
        "~linalg.norm": lambda h: torch.linalg.norm(h, dim=1),
        "~vector_norm": lambda h: torch.linalg.vector_norm(h, dim=1),
        "norm(p=2, dim=1)": lambda h: h.norm(p=2, dim=1),
        "norm(2, 1)": lambda h: h.norm(2, 1),
        "~vector_norm(ord=)": lambda h: torch.linalg.vector_norm(x=h, ord=2, dim=1),
    },
    "interpolate": {
        "F.interpolate": lambda h: F.interpolate(image(h), scale_factor=2, mode="nearest"),
        "nn.Upsample": lambda h: nn.Upsample(scale_factor=2)(image(h)),
        "input=": lambda h: F.interpolate(input=image(h), scale_factor=2),
        "size=": lambda h: F.interpolate(image(h), size=(8, 12)),
        "F.upsample": lambda h: F.upsample(image(h), scale_factor=2),
        "~repeat_interleave": lambda h: image(h).repeat_interleave(2, 2).repeat_interleave(2, 3),
        "UpsamplingNearest2d": lambda h: nn.UpsamplingNearest2d(scale_factor=2)(image(h)),
    },
    "interpolate, bilinear": {
        "F.interpolate": lambda h: F.interpolate(image(h), (8, 8), mode="bilinear", align_corners=False),
        "k=": lambda h: F.interpolate(input=image(h), size=(8, 8), mode="bilinear"),
        "nn.Upsample": lambda h: nn.Upsample((8, 8), mode="bilinear")(image(h)),
    },
    "pixel_shuffle": spelled("pixel_shuffle", {"upscale_factor": 2}, (torch, F), lambda h: h.view(-1, 4, 2, 3))
    | modules(nn.PixelShuffle(2), on=lambda h: h.view(-1, 4, 2, 3)),
    "attention": {
        "F.scaled_dot_product_attention": lambda h: F.scaled_dot_product_attention(
            _channels(h), _channels(h), _channels(h)
        ),
        "k=": lambda h: F.scaled_dot_product_attention(query=_channels(h), value=_channels(h), key=_channels(h)),
        "attn_mask=None": lambda h: F.scaled_dot_product_attention(
            _channels(h), _channels(h), _channels(h), attn_mask=None, dropout_p=0.0
        ),
        "torch._C._nn": lambda h: torch._C._nn.scaled_dot_product_attention(_channels(h), _channels(h), _channels(h)),
    },
    "attention by hand": {
        "softmax @": lambda h: (_channels(h) @ _channels(h).mT / 6**0.5).softmax(-1) @ _channels(h),
        "matmul": lambda h: torch.matmul(
            F.softmax(torch.matmul(_channels(h), _channels(h).transpose(-2, -1)) / 6**0.5, dim=-1), _channels(h)
        ),
        "bmm": lambda h: torch.bmm(
            torch.softmax(torch.bmm(_channels(h), _channels(h).transpose(1, 2)) / 6**0.5, 2), _channels(h)
        ),
        "~einsum": lambda h: torch.einsum(
            "nij,njk->nik",
            (torch.einsum("nik,njk->nij", _channels(h), _channels(h)) / 6**0.5).softmax(-1),
            _channels(h),
        ),
    },
    "normalize": {"F.normalize": lambda h: F.normalize(h), "p=, dim=": lambda h: F.normalize(input=h, p=2.0, dim=1)},
    "addcmul": {
        "torch.addcmul": lambda h: torch.addcmul(h, h, kernel(24)),
        "h.addcmul": lambda h: h.addcmul(h, kernel(24)),
        "tensor1=": lambda h: torch.addcmul(h, tensor1=h, tensor2=kernel(24)),
        "value=1": lambda h: torch.addcmul(h, h, kernel(24), value=1),
    },
    "lerp": {
        "torch.lerp": lambda h: torch.lerp(h, activation(h), 0.3),
        "h.lerp(end=, weight=)": lambda h: h.lerp(end=activation(h), weight=0.3),
        "lerp_": lambda h: (h + 0).lerp_(activation(h), 0.3),
    },
    "diff": {
        "torch.diff": lambda h: torch.diff(h),
        "h.diff(dim=)": lambda h: h.diff(dim=1),
        "~slices": lambda h: h[:, 1:] - h[:, :-1],
    },
    "unfold": {
        "F.unfold": lambda h: F.unfold(image(h), 2),
        "kernel_size=": lambda h: F.unfold(input=image(h), kernel_size=(2, 2)),
        "nn.Unfold": lambda h: nn.Unfold(2)(image(h)),
        "torch._C._nn.im2col": lambda h: torch._C._nn.im2col(image(h), (2, 2), (1, 1), (0, 0), (1, 1)),
    },
    "tril": spelled("tril", {"diagonal": 0}, (torch,), lambda h: h.view(-1, 4, 6))
    | {"~times a mask": lambda h: _channels(h) * torch.ones(4, 6).tril()},
    "squeeze": spelled("squeeze", {"dim": 1}, (torch,), lambda h: h[:, None])
    | {
        "h[:, 0]": lambda h: h[:, None][:, 0],
        "flatten(1)": lambda h: h[:, None].flatten(1),
        "squeeze()": lambda h: h[:, None].squeeze(),
    },
    "cosine_similarity": {
        "F": lambda h: F.cosine_similarity(h, activation(h) + 1, dim=1),
        "k=": lambda h: F.cosine_similarity(x1=h, x2=activation(h) + 1),
        "nn": lambda h: nn.CosineSimilarity()(h, activation(h) + 1),
    },
    "reused relu": {
        "F.relu twice": lambda h: F.relu(F.relu(h) - 0.3),
        "one nn.ReLU twice": lambda h, m=nn.ReLU(): m(m(h) - 0.3),
        "two": lambda h: nn.ReLU()(nn.ReLU()(h) - 0.3),
        "in place": lambda h, m=nn.ReLU(True): m(m(h) - 0.3),
        "shared by name": lambda h, m=nn.ModuleDict({"a": nn.ReLU()}): m["a"](m["a"](h) - 0.3),
    },
    "reused linear": {
        "F.linear twice": lambda h: F.linear(
            F.linear(h, kernel(24, 24), kernel(24)).relu(), kernel(24, 24), kernel(24)
        ),
        "one nn.Linear twice": lambda h, m=layer(nn.Linear, 24, 24): m(m(h).relu()),
        "two": lambda h, a=layer(nn.Linear, 24, 24), b=layer(nn.Linear, 24, 24): b(a(h).relu()),
    },
}


def _valid(ways: dict) -> dict:
    """The spellings that torch itself takes, all with one value."""
    h, kept, value = torch.randn(3, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64), {}, None
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for label, f in ways.items():
            try:
                found = f(h.clone())
            except (TypeError, RuntimeError, ValueError):
                continue
            found = oracles.as_rows(found, 3)
            value = found if value is None else value
            if found.shape == value.shape and torch.allclose(found, value, equal_nan=True):
                kept[label] = f
    return kept


VALID = {name: _valid(ways) for name, ways in OPERATIONS.items()}
COUNT = sum(len(ways) for ways in VALID.values())
IN_PLACE = ("_(", "+=", "-=", "*=", "/=", "inplace=True", "__iadd__")


def outcome(f: Callable, method) -> Tensor | type:
    """A map, or the kind of a clear refusal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return oracles.map_of(Network(f, (24,)), inputs()[0], method)
    except Exception as error:
        refusal(error)
        return type(error)


@pytest.fixture(scope="module")
def first():
    """The outcome of an operation's first spelling, once a method."""
    kept = {}

    def of(operation, name):
        if (operation, name) not in kept:
            kept[operation, name] = outcome(next(iter(VALID[operation].values())), METHODS[name])
        return kept[operation, name]

    return of


@pytest.mark.parametrize("operation", VALID)
def test_every_operation_has_several_spellings(operation):
    assert len(VALID[operation]) > 1, list(OPERATIONS[operation])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("operation", VALID)
def test_one_operation_has_one_map_however_spelled(operation, name, first):
    """All spellings of an operation under one method; what differs is listed, each with what it gave."""
    try:
        wanted = first(operation, name)
    except Unclear as error:
        wanted = error
    differs = [f"{next(iter(VALID[operation]))}: {wanted}"] if isinstance(wanted, Unclear) else []
    for label, f in list(VALID[operation].items())[1:]:
        try:
            found = outcome(f, METHODS[name])
        except Unclear as error:
            differs.append(f"{label}: {str(error)[:150]}")
            continue
        if name == "lrp_zb" and isinstance(found, type) and any(mark in label for mark in IN_PLACE):
            continue  # z^B needs the first layer's output as it is
        if label.startswith("~") and not (isinstance(found, Tensor) and isinstance(wanted, Tensor)):
            continue  # another function that says the same: it may have no rule
        if isinstance(found, type) or not isinstance(wanted, Tensor):
            if found is not wanted and not isinstance(wanted, Unclear):
                differs.append(
                    f"{label}: {'a map' if isinstance(found, Tensor) else found.__name__} instead of "
                    f"{'a map' if isinstance(wanted, Tensor) else wanted.__name__}"
                )
            continue
        try:
            close(found, wanted, label, 1e-9)
        except AssertionError as error:
            differs.append(str(error)[:150])
    assert not differs, f"{len(differs)} of {len(VALID[operation])} spellings: " + "; ".join(differs)


@pytest.mark.parametrize("rule", DEEPLIFT)
@pytest.mark.parametrize("operation", VALID)
def test_deeplift_of_the_first_spelling_is_complete(operation, rule):
    x, r = inputs()
    alone = "of all" not in operation
    oracles.complete_or_refuses(Network(next(iter(VALID[operation].values())), (24,)), x, r, rule, independent=alone)


@pytest.mark.parametrize("operation", VALID)
def test_gradients_of_the_first_spelling_are_autograds(operation):
    oracles.autograd_or_refuses(Network(next(iter(VALID[operation].values())), (24,)), inputs()[0])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "f", [torch.add, torch.mul, torch.matmul, torch.sigmoid, torch.exp, torch.cat], ids=lambda f: f.__name__
)
def test_a_result_written_to_out_is_right_or_refused(f, name):
    others = {torch.cat: lambda h: ([h, h], 1), torch.matmul: lambda h: (h, kernel(6, 6))}
    others |= dict.fromkeys((torch.sigmoid, torch.exp), lambda h: (h,))

    def operation(h, out=True):
        arguments = others.get(f, lambda h: (h, 2.0))(h)
        return f(*arguments, out=torch.empty(f(*arguments).shape, dtype=h.dtype)) if out else f(*arguments)

    x = inputs()[0]
    try:
        found = attempt(lambda: oracles.map_of(Network(operation), x, METHODS[name]), ["out="])
    except Unclear as error:
        assert "out=" in str(error)  # torch says it
        return
    if not isinstance(found, str):
        close(found, oracles.map_of(Network(lambda h: operation(h, False)), x, METHODS[name]), "out=")


def test_the_table_is_large(record_property):
    spellings = COUNT * len(METHODS)
    record_property("operations", len(VALID))
    record_property("spellings", COUNT)
    record_property("operation × spelling × method", spellings)
    assert len(VALID) >= 80 and COUNT >= 700 and spellings >= 8_000, (len(VALID), COUNT, spellings)
