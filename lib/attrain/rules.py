"""What each operation does while a map is made: the table of operations, and the rules of the gradient family.

A set of rules is a `TorchFunctionMode`: active during the model's forward pass, it sees every torch
operation by name and may replace it by one whose backward follows the method's rule whenever
`explaining()` is on, and the ordinary derivative otherwise. So one forward pass serves the map and
the loss alike.

| operations              | gradient   | guided backprop | LRP-ε      | B-cos           | DeepLIFT (`deeplift.py`)   |
|-------------------------|------------|-----------------|------------|-----------------|----------------------------|
| LINEAR, PARTWISE, SUMS  | derivative | derivative      | derivative | derivative      | derivative                 |
| PRODUCTS of activations | derivative | derivative      | raises     | derivative      | derivative at the midpoint |
| MAXIMA                  | derivative | derivative      | derivative | derivative      | cross-max                  |
| ReLU                    | derivative | drops g < 0     | y/(y+ε)    | derivative      | secant; RevealCancel: two  |
| other ACTIVATIONS       | derivative | drops g < 0     | raises     | y/x, a constant | secant; RevealCancel: two  |
| FUNCTIONS, MAGNITUDES   | derivative | derivative      | raises     | constants       | secant                     |
| others                  | derivative | derivative      | raises     | derivative      | composed, or raises        |
"""

import types
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode, resolve_name

from attrain.targets import target_scores

# ---------------------------------------------------------------- the table of operations, by canonical name

# Linear in the activations, with a weight.
LINEAR = frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split())
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


def canonical(func) -> tuple[str, bool]:
    """The name of an operation whatever its spelling, and whether it changes its first argument.

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
        >>> @torch.overrides.wrap_torch_function(lambda x: (x,))
        ... def bump(x):
        ...     return MyCudaKernel.apply(x)
        >>> register_rule(bump, lambda x: torch.exp(-x * x))
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2))
        >>> model.append(torch.nn.Identity()).forward = lambda x: bump(model[0](x))
        >>> from attrain import DeepLift, explain
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
    """A Python function of torch's without its own look for overrides, so that what it calls is seen; or None."""
    if not isinstance(func, types.FunctionType) or not (func.__module__ or "").startswith("torch"):
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


# ---------------------------------------------------------------- the gradient family


class Rules(TorchFunctionMode):
    """Base of all rule sets: every operation keeps its ordinary derivative.

    Args:
        x: the input, a leaf.
        entry: the copy of it that the model is given, and may change in place.

    Attributes:
        root: the tensor at which the gradient is read; the input here.
        references: how many backward passes, each with a reference of its own, are averaged.
    """

    references = 1

    def __init__(self, x: Tensor, entry: Tensor):
        super().__init__()
        self.x, self.entry, self.root = x, entry, x
        # A box of its own, not self: autograd nodes keep it, and must not keep the tensors that self holds.
        self.switch = {"explaining": False, "reference": 0}

    @contextmanager
    def explaining(self, reference: int = 0):
        """Within this context the backward pass follows the rules, those of one reference."""
        self.switch.update(explaining=True, reference=reference)
        try:
            yield
        finally:
            self.switch["explaining"] = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        rule = registered(func)
        if callable(rule):
            with self:
                return rule(*args, **(kwargs or {}))
        return self.call(func, func.__name__, args, kwargs or {})

    def call(self, func, name: str, args: tuple, kwargs: dict):
        return func(*args, **kwargs)

    def around(self, model):
        """A context for the whole of a pass."""
        return nullcontext()

    def forward(self, model, x: Tensor) -> Tensor:
        """The model's output, with the rules on."""
        with self:
            return model(x)

    def scores(self, logits: Tensor, target) -> tuple[Tensor, Tensor | None]:
        """The explained numbers, (N,) or (N, K), and what their maps must sum to where that is known."""
        return target_scores(logits, target), None

    def start(self, logits: Tensor, score: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the backward pass starts, and with what."""
        return score.sum(), None

    def contract(self, gradient: Tensor, create_graph: bool) -> Tensor:
        """The map at the input."""
        return gradient

    def contract_at(self, gradient: Tensor, activation: Tensor, reference) -> Tensor:
        """The map at a layer's output."""
        return gradient


class InputXGradientRules(Rules):
    """gradient · x."""

    def contract(self, gradient, create_graph):
        return gradient * self.x.detach()

    def contract_at(self, gradient, activation, reference):
        return gradient * activation


class GuidedRules(InputXGradientRules):
    """The derivative, negative gradients dropped where they enter an activation function."""

    def call(self, func, name, args, kwargs):
        name, inplace = canonical(func)
        if name not in ACTIVATIONS:
            return func(*args, **kwargs)
        if opened(func):  # down to the operation that is in place or is not
            with self:
                return opened(func)(*args, **kwargs)
        if not inplace:
            out = func(*args, **kwargs)
            return _DropNegative.apply(out, self.switch) if _differentiable(out) else out
        return write(args[0], _DropNegative.apply(func(args[0].clone(), *args[1:], **kwargs), self.switch))


class BCosRules(InputXGradientRules):
    """B-cos networks as the linear maps that they compute: what depends on the input dynamically is a constant.

    A B-cos layer is y = |cos(x, w)|^(B−1) · ŵᵀx. Its scale is made of norms, absolute values, powers and
    roots; the outputs of these are constants here, and y/x is the constant of a gate such as GELU.
    """

    GATES = ACTIVATIONS - {"relu", "clamp", "clamp_min", "clamp_max", "threshold"} - MAGNITUDES

    def call(self, func, name, args, kwargs):
        name, inplace = canonical(func)
        if name in self.GATES and opened(func):
            with self:
                return opened(func)(*args, **kwargs)
        if name not in self.GATES | MAGNITUDES or not _differentiable(args):
            return func(*args, **kwargs)
        x, rest = args[0], args[1:]
        out = func(x.clone() if inplace else x, *rest, **kwargs)
        if name in MAGNITUDES:
            out = out.detach()
        else:
            out = x * torch.where(x == 0, 0.0, out / torch.where(x == 0, 1.0, x)).detach()
        return write(x, out) if inplace else out


class LRPRules(InputXGradientRules):
    """LRP-ε for ReLU networks as a modified backward pass (Faster ISNet's LRP-Flex).

    At a ReLU with output y the backward pass multiplies by y/(y+ε) in place of the derivative; all
    other operations keep theirs, and R = gradient · activation then is LRP-ε at every layer that feeds
    a ReLU and LRP-0 elsewhere. The multiplier is a function of the activations, so the map can be
    differentiated. Operations that are neither ReLU nor linear raise `UnsupportedOperation`.

    A batch norm in training mode is an affine map to the rules: no relevance passes through the batch's
    statistics to other samples, but the map's own derivative knows them. (The authors' code lets it pass:
    half of a sample's relevance then lies on other samples.)
    """

    def __init__(self, x, entry, epsilon: float, first_layer=None):
        super().__init__(x, entry)
        self.epsilon = epsilon
        self.first = FirstLayer(first_layer) if first_layer else None

    def call(self, func, name, args, kwargs):
        if name == "batch_norm" and func is F.batch_norm:
            out = _batch_norm(self.switch, *args, **kwargs)
        elif name in ("relu", "relu_"):
            out = _relu(args, kwargs, name == "relu_", self.epsilon, self.switch)
        else:
            out = func(*args, **kwargs)
            known = registered(func) == "linear" or canonical(func)[0] in ORDINARY
            if not known and _differentiable(out) and not _is_scaling(func, args):
                raise UnsupportedOperation(
                    f"LRP has no rule for {resolve_name(func) or name}: LRP-ε is defined for ReLU networks "
                    "(ReLU, convolution, linear, batch norm, pooling, sums, products with constants); "
                    'an operation of your own that is linear: attrain.register_rule(op, "linear")'
                )
        if self.first is not None and _differentiable(out):
            self.first.observe(func, name, args, kwargs, out, self.entry)
            self.root = self.first.output
        return out

    def contract(self, gradient, create_graph):
        if self.first is None:
            return gradient * self.x.detach()
        return self.first.redistribute(gradient * self.root, self.x.detach(), create_graph)


class FirstLayer:
    """The z^B rule for a convolution or linear layer on the input, with a batch norm and a ReLU behind it.

    Pixels lie in [low, high], so a black pixel is evidence too: LRP-ε gives it x·g = 0 by construction,
    z^B does not. With R the relevance at the end of the chain, W⁺ and W⁻ the positive and negative
    parts of the weight (a batch norm folded in),

        z = conv(x; W, b) − low·(conv(1; W⁺) + b⁺) − high·(conv(1; W⁻) + b⁻),    s = R / (z + ε sign z)
        R_x = x·convᵀ(s; W) − low·convᵀ(s; W⁺) − high·convᵀ(s; W⁻)

    (Faster ISNet's code; zennit's ZBox clamps the bias in all three copies and so differs slightly).
    Biases and batch statistics are constants for the map's derivative.
    """

    STABILIZER = 1e-2
    LAYERS = ("conv1d", "conv2d", "conv3d", "linear")

    def __init__(self, box):
        self.box = box
        self.output = None  # end of the chain layer → batch norm → ReLU, as far as it goes
        self.stage = None

    def observe(self, func, name, args, kwargs, out, entry):
        """Follow the chain as the model runs."""
        if any(a is entry for a in (*args, *kwargs.values())):
            if name not in self.LAYERS or self.stage is not None:
                raise UnsupportedOperation(
                    "the z^B rule needs the input to go into one convolution or linear layer and nowhere else, "
                    f"but it goes into {name}; use first_layer=None, or move preprocessing out of the model"
                )
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            call = dict(zip(names, args)) | kwargs
            call.pop("input")
            self.weight, bias = call.pop("weight"), call.pop("bias", None)
            self.bias = torch.zeros((), device=out.device, dtype=out.dtype) if bias is None else bias.detach()
            self.layer = lambda v, weight: func(v, weight, **call)
            self.channel_dim = -1 if name == "linear" else 1
            self.output, self.stage = out, "layer"
        elif self.stage == "layer" and name == "batch_norm" and args[0] is self.output:
            self._fold_batch_norm(*args, **kwargs)
            self.output, self.stage = out, "batch_norm"
        elif self.stage in ("layer", "batch_norm") and name in ("relu", "relu_") and args[0] is self.output:
            self.output, self.stage = out, "relu"

    def _fold_batch_norm(
        self, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
    ):
        if training or running_mean is None:
            dims = [d for d in range(x.ndim) if d != 1]
            mean, var = x.detach().mean(dims), x.detach().var(dims, correction=0)
        else:
            mean, var = running_mean.detach().clone(), running_var.detach().clone()
        scale = (var + eps).rsqrt() * (1 if weight is None else weight)
        shift = 0 if bias is None else bias.detach()
        self.weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        self.bias = shift + scale.detach() * (self.bias - mean)

    def redistribute(self, relevance: Tensor, x: Tensor, create_graph: bool) -> Tensor:
        low, high = self.box.low, self.box.high
        terms = [(x, self.weight, 1.0)]
        if low != 0:
            terms.append((torch.full_like(x, low), self.weight.clamp(min=0), -1.0))
        if high != 0:
            terms.append((torch.full_like(x, high), self.weight.clamp(max=0), -1.0))
        inputs = [value.requires_grad_() for value, _, _ in terms]
        outputs = [sign * self.layer(value, weight) for value, weight, sign in terms]
        bias = self.bias - low * self.bias.clamp(min=0) - high * self.bias.clamp(max=0)
        z = sum(outputs) + _along(bias, self.channel_dim, relevance.ndim)
        s = relevance / (z + torch.where(z >= 0, self.STABILIZER, -self.STABILIZER))
        gradients = torch.autograd.grad(outputs, inputs, [s] * len(outputs), create_graph=create_graph)
        return sum(value.detach() * g for value, g in zip(inputs, gradients))


class _EpsilonReLU(Function):
    @staticmethod
    def forward(ctx, x, epsilon, switch, inplace):
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.epsilon, ctx.switch = epsilon, switch
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        if ctx.switch["explaining"] and ctx.epsilon > 0:
            return g * (y / (y + ctx.epsilon)), None, None, None
        return torch.ops.aten.threshold_backward(g, y, 0), None, None, None


def _relu(args, kwargs, inplace, epsilon, switch):
    x, inplace = (*args, kwargs.get("inplace", inplace))[:2] if args else (kwargs["input"], inplace)
    return _EpsilonReLU.apply(x, epsilon, switch, inplace)


def _batch_norm(switch, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    statistics = training or running_mean is None
    if not statistics or x.numel() <= x.shape[1]:  # one value a channel: torch's own error
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    y, mean, inverse = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
    scale = _InverseDeviation.apply(x, mean, inverse) * (1 if weight is None else weight)
    return _Affine.apply(x, scale.view(-1, *[1] * (x.ndim - 2)), switch, (y.detach(),), y)


class _InverseDeviation(Function):
    """1/σ of the batch, which the batch norm has computed, with its derivative."""

    @staticmethod
    def forward(ctx, x, mean, inverse):
        ctx.save_for_backward(x, mean, inverse)
        return inverse.clone()

    @staticmethod
    def backward(ctx, g):
        x, mean, inverse = ctx.saved_tensors
        mean, factor = (v.view(-1, *[1] * (x.ndim - 2)) for v in (mean, -g * inverse**3 * x.shape[1] / x.numel()))
        return (x - mean) * factor, None, None


class _Affine(Function):
    """A result y that is scale · x + shift to the rules."""

    @staticmethod
    def forward(ctx, x, scale, switch, result, y):
        ctx.save_for_backward(scale)
        ctx.switch = switch
        return result[0]

    @staticmethod
    def backward(ctx, g):
        if ctx.switch["explaining"]:
            return g * ctx.saved_tensors[0], None, None, None, None
        return None, None, None, None, g


class _DropNegative(Function):
    @staticmethod
    def forward(ctx, y, switch):
        ctx.switch = switch
        return y.view_as(y)

    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0) if ctx.switch["explaining"] else g, None


def _differentiable(out) -> bool:
    if isinstance(out, (tuple, list)):
        return any(_differentiable(o) for o in out)
    return isinstance(out, Tensor) and out.requires_grad


def _is_scaling(func, args: tuple) -> bool:
    """A product or quotient in which one activation at most takes part, and not as the divisor."""
    name, factors = canonical(func)[0], args[:2]
    active = [isinstance(a, Tensor) and a.requires_grad and not a.is_leaf for a in factors]
    if name in QUOTIENTS:
        return len(active) == 2 and not active[1]
    return name in ("mul", "multiply", "matmul", "mm", "bmm") and not all(active)


def _along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    return vector if vector.ndim == 0 or dim == -1 else vector.view(-1, *[1] * (ndim - 2))
