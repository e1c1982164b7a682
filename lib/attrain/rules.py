"""What each operation does while a map is made.

A set of rules is a `TorchFunctionMode`: active during the model's forward pass, it sees every torch
operation by name and may replace it by one whose backward follows the method's rule whenever
`explaining()` is on, and the ordinary derivative otherwise. So one forward pass serves the map and
the loss alike.
"""

from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode, resolve_name

# Linear (or, for max pooling, winner-takes-all) in the activations: relevance follows the ordinary gradient.
ORDINARY = frozenset(
    """conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear
    batch_norm dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum
    add add_ __add__ __radd__ __iadd__ sub sub_ __sub__ __rsub__ __isub__ rsub neg __neg__
    cat concat concatenate stack hstack vstack chunk split tensor_split unbind __getitem__ narrow select
    index_select gather view view_as reshape flatten unflatten squeeze unsqueeze expand expand_as repeat
    permute transpose t movedim moveaxis swapaxes contiguous clone to float double requires_grad_ pad
    interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle roll flip identity""".split()
)
# Linear only while one factor is no activation: a number, a constant or a parameter.
PRODUCTS = frozenset(
    """mul mul_ __mul__ __rmul__ __imul__ multiply matmul __matmul__ mm bmm
    div div_ __truediv__ __itruediv__ divide""".split()
)


class UnsupportedOperation(NotImplementedError):
    """The model called an operation that the method has no rule for."""


class Rules(TorchFunctionMode):
    """Base of all rule sets: every operation keeps its ordinary derivative.

    Args:
        x: the input, a leaf.
        entry: the copy of it that the model is given, and may change in place.

    Attributes:
        root: the tensor at which the gradient is read; the input here.
    """

    def __init__(self, x: Tensor, entry: Tensor):
        super().__init__()
        self.x, self.entry, self.root = x, entry, x
        # A box of its own, not self: autograd nodes keep it, and must not keep the tensors that self holds.
        self.switch = {"explaining": False}

    @contextmanager
    def explaining(self):
        """Within this context the backward pass follows the rules."""
        self.switch["explaining"] = True
        try:
            yield
        finally:
            self.switch["explaining"] = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.call(func, func.__name__, args, kwargs or {})

    def call(self, func, name: str, args: tuple, kwargs: dict):
        return func(*args, **kwargs)

    def contract(self, gradient: Tensor, create_graph: bool) -> Tensor:
        return gradient


class InputXGradientRules(Rules):
    """gradient · x."""

    def contract(self, gradient, create_graph):
        return gradient * self.x.detach()


class LRPRules(Rules):
    """LRP-ε for ReLU networks as a modified backward pass (Faster ISNet's LRP-Flex).

    At a ReLU with output y the backward pass multiplies by y/(y+ε) in place of the derivative; all
    other operations keep theirs, and R = gradient · activation then is LRP-ε at every layer that feeds
    a ReLU and LRP-0 elsewhere. The multiplier is a function of the activations, so the map can be
    differentiated. Operations that are neither ReLU nor linear raise `UnsupportedOperation`.
    """

    def __init__(self, x, entry, epsilon: float, first_layer=None):
        super().__init__(x, entry)
        self.epsilon = epsilon
        self.first = FirstLayer(first_layer) if first_layer else None

    def call(self, func, name, args, kwargs):
        if name in ("relu", "relu_"):
            out = _relu(args, kwargs, name == "relu_", self.epsilon, self.switch)
        else:
            out = func(*args, **kwargs)
            if name not in ORDINARY and _differentiable(out) and not _is_scaling(name, args):
                raise UnsupportedOperation(
                    f"LRP has no rule for {resolve_name(func) or name}: LRP-ε is defined for ReLU networks "
                    "(ReLU, convolution, linear, batch norm, pooling, sums, products with constants)"
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


def _differentiable(out) -> bool:
    if isinstance(out, (tuple, list)):
        return any(_differentiable(o) for o in out)
    return isinstance(out, Tensor) and out.requires_grad


def _is_scaling(name: str, args: tuple) -> bool:
    """A product or quotient in which one activation at most takes part, and not as the divisor."""
    active = [isinstance(a, Tensor) and a.requires_grad and not a.is_leaf for a in args[:2]]
    return name in PRODUCTS and not all(active) and not ("div" in name and active[1])


def _along(vector: Tensor, dim: int, ndim: int) -> Tensor:
    return vector if vector.ndim == 0 or dim == -1 else vector.view(-1, *[1] * (ndim - 2))
