"""The table of operations: what kind each torch operation is, under one name whatever its spelling."""

import types
from functools import cache

from torch import Tensor

# Linear in the activations, with a weight.
CONVOLUTIONS = frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split())
LINEAR = CONVOLUTIONS | {"linear"}
RECURRENT = frozenset("lstm gru rnn_tanh rnn_relu".split())
DROPOUT = frozenset(
    """dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    native_dropout""".split()
)
MAXIMA = frozenset(
    """max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax""".split()
)
# Linear with weights ≥ 0 and no constant of their own: they act alike on a value and on its parts.
PARTWISE = frozenset(
    """avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum cumsum
    cat concat concatenate stack hstack vstack chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split
    unbind getitem narrow select index_select gather take_along_dim scatter scatter_add index_add index_put
    select_scatter slice_scatter diagonal diag_embed tril triu
    view view_as reshape reshape_as flatten unflatten unfold fold im2col col2im as_strided
    squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile permute transpose t T mT adjoint
    movedim moveaxis swapaxes swapdims ravel roll flip fliplr flipud rot90 contiguous clone detach data alias identity
    to float double half bfloat16 type type_as cpu cuda pad constant_pad_nd
    reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    interpolate upsample upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d grid_sampler
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    masked_fill masked_select where setitem copy nan_to_num""".split()
)
SUMS = frozenset("add sub subtract rsub neg negative".split())
# Linear only while one factor is no activation: a number, a constant or a parameter.
PRODUCTS = frozenset(
    "mul multiply matmul mm bmm mv dot einsum bilinear addmm addbmm baddbmm addcmul addmv outer".split()
)
QUOTIENTS = frozenset("div divide true_divide".split())
# One-input nonlinearities on the whole real line.
ACTIVATIONS = frozenset(
    """relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish sigmoid tanh hardtanh hardsigmoid hardswish
    softplus softsign log_sigmoid logsigmoid hardshrink softshrink tanhshrink threshold clamp clip clamp_min clamp_max
""".split()
)
# One-input functions of which some have a domain of their own.
FUNCTIONS = frozenset(
    """exp expm1 exp2 log log1p log2 log10 sqrt rsqrt reciprocal square pow abs absolute erf erfc sin cos tan
    sinh cosh asin acos atan asinh acosh atanh sinc logit sign sgn round floor ceil trunc frac heaviside fix""".split()
)
# A B-cos network scales its linear outputs by these.
MAGNITUDES = frozenset(
    """abs absolute norm linalg_vector_norm vector_norm sqrt rsqrt pow square reciprocal var std exp sigmoid softmax
    softplus tanh""".split()
)

# What ReLU networks consist of, besides ReLUs: relevance follows the ordinary gradient.
NAMED = LINEAR | DROPOUT | MAXIMA | PARTWISE | SUMS | PRODUCTS | QUOTIENTS | ACTIVATIONS | FUNCTIONS
ORDINARY = (
    LINEAR
    | DROPOUT
    | MAXIMA
    | (PARTWISE - {"where", "masked_select", "nan_to_num", "grid_sampler", "detach", "data"})
    | SUMS
    | {"batch_norm", "requires_grad"}
)

_ARITHMETIC = {
    "truediv": "div", "radd": "add", "rmul": "mul", "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div",
    "ipow": "pow", "rmatmul": "matmul", "imatmul": "matmul",
}  # fmt: skip


@cache
def canonical(func) -> tuple[str, bool]:
    """The name of an operation whatever its spelling, and whether it changes its first argument.

    >>> import torch
    >>> canonical(torch.Tensor.__iadd__), canonical(torch.relu_), canonical(torch.Tensor.T.__get__)
    (('add', True), ('relu', True), ('T', False))
    """
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return func.__self__.__name__, False
    if name.startswith("__") and name.endswith("__"):
        core = name.strip("_")
        return _ARITHMETIC.get(core, core), core in ("setitem", "iadd", "isub", "imul", "itruediv", "ipow")
    if name.endswith("_"):
        return name[:-1], True
    return name.split(".")[0], False


class UnsupportedOperation(NotImplementedError):
    """The model called an operation that the method has no rule for."""


REGISTERED = {}


def register_rule(op, rule) -> None:
    """Say what the methods do at an operation of your own.

    Args:
        op: a torch function, a custom operator (`torch.ops.mine.op`), or a Python function made visible by
            `torch.overrides.wrap_torch_function` (an `autograd.Function` is otherwise seen by nobody).
        rule: `"linear"`: linear, and homogeneous, in the activations: every method uses its derivative;
            `"elementwise"`: a function of one activation, value by value: DeepLIFT takes the secant;
            `"product"`: linear in each of several activations: DeepLIFT takes the derivative at the midpoint;
            or a function with the operation's arguments that computes the same from known operations.

    LRP, which is defined for ReLU networks only, takes `"linear"` rules and functions.

    Example:
        >>> import torch
        >>> from attrain import DeepLift, explain, register_rule
        >>> @torch.overrides.wrap_torch_function(lambda x: (x,))
        ... def bump(x):
        ...     return MyCudaKernel.apply(x)
        >>> register_rule(bump, lambda x: torch.exp(-x * x))
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2))
        >>> model.append(torch.nn.Identity()).forward = lambda x: bump(model[0](x))
        >>> result = explain(model, torch.ones(1, 3), 0, DeepLift())
        >>> torch.allclose(result.heatmap.sum(), result.delta.sum(), atol=1e-6)
        True
    """
    if not (callable(rule) or rule in ("linear", "elementwise", "product")):
        raise ValueError(f'rule must be "linear", "elementwise", "product" or a function, got {rule!r}')
    REGISTERED[op] = rule


def registered(func):
    """The user's rule for an operation, or None."""
    return REGISTERED.get(func) or REGISTERED.get(getattr(func, "overloadpacket", None))


@cache
def opened(func):
    """A Python function of torch's without its own look for overrides, so that what it calls is seen; or None.

    Not `interpolate`, which is linear whatever it calls: on a GPU, with deterministic algorithms, parts without names.
    """
    if not isinstance(func, types.FunctionType) or not (func.__module__ or "").startswith("torch"):
        return None
    if func.__name__ == "interpolate":
        return None
    names = [n for n in func.__code__.co_names if n.startswith("has_torch_function")]
    if not names or (func.__module__ == "torch._tensor" and canonical(func)[0] in NAMED):
        return None
    scope = func.__globals__ | dict.fromkeys(names, lambda *_: False)
    body = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


def write(target: Tensor, value: Tensor) -> Tensor:
    """Make an operation's result the value and the graph of the tensor that it changes in place."""
    return (target if target._is_view() else target.detach_()).copy_(value)


def differentiable(value) -> bool:
    """Whether a tensor, or one of several, has a graph."""
    if isinstance(value, (tuple, list)):
        return any(differentiable(v) for v in value)
    return isinstance(value, Tensor) and value.requires_grad


def tensors(value) -> list[Tensor]:
    """All tensors of nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [t for v in value if isinstance(v, (Tensor, tuple, list, dict)) for t in tensors(v)]


def mapped(change, value):
    """Nested tuples, lists and dicts with every tensor t replaced by change(t)."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: mapped(change, v) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(mapped(change, v) for v in value)
    return value


def finite(value: Tensor) -> bool:
    """Whether all numbers are finite; a finite sum says so at once."""
    return bool(value.detach().sum().isfinite() or value.isfinite().all())


def along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    """A vector with one number a channel, in the shape that goes with activations of `ndim` dimensions."""
    return vector if vector.ndim == 0 or dim == -1 else vector.view(-1, *[1] * (ndim - 2))
