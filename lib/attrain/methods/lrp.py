"""LRP-ε of ReLU networks, differentiable: the method, its rules, and the z^B rule of the first layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function

from attrain.engine.call import ADVICE, Call, UnsupportedOperation, is_copy
from attrain.engine.fast.batchnorm import affine
from attrain.engine.fast.convolution import geometry_of, input_gradient
from attrain.engine.mode import Mode, Tensors, derivative
from attrain.methods.gradient import InputXGradientMode, batch_norm, convolution
from attrain.methods.method import Method
from attrain.tensors import along, tensors


@dataclass(frozen=True)
class ZB:
    """The z^B rule of a first layer whose inputs lie in a box [low, high] (Montavon et al. 2017).

    Args:
        low, high: the range of the inputs; or a sequence with one number for each channel, as for normalised images.
        stabilizer: > 0, keeps the rule's denominator from zero. The authors of Faster ISNet take LRP's ε here too:
            with an ε other than 1e-2 their map is that of `ZB(low, high, stabilizer=ε)`.

    Raises:
        ValueError: not low < high, a stabilizer that is not positive; in `explain`, an input outside the box.
    """

    low: float | Sequence[float] = 0.0
    high: float | Sequence[float] = 1.0
    stabilizer: float = 1e-2

    def __post_init__(self):
        for name in ("low", "high"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)):
                object.__setattr__(self, name, tuple(float(v) for v in value))
        low, high = (torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (self.low, self.high))
        if low.ndim > 1 or high.ndim > 1 or (low.ndim and high.ndim and len(low) != len(high)):
            raise ValueError(f"ZB needs low and high as numbers or one number a channel, got {self.low}, {self.high}")
        if not (low < high).all():
            raise ValueError(f"ZB needs low < high, got low={self.low}, high={self.high}")
        if not self.stabilizer > 0:
            raise ValueError(f"ZB needs stabilizer > 0, got {self.stabilizer}")

    @staticmethod
    def imagenet() -> "ZB":
        """The box of images in 0..1 normalised by ImageNet's mean and standard deviation."""
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return ZB([-m / s for m, s in zip(mean, std)], [(1 - m) / s for m, s in zip(mean, std)])

    def check(self, x: Tensor, dim: int) -> None:
        """Raise ValueError if an input lies outside the box by more than rounding; `dim` is that of channels."""
        low, high = (self.bound(name, x, dim) for name in ("low", "high"))
        slack = 1e-5 * (high - low)
        if x.numel() and bool(((x < low - slack) | (x > high + slack)).any()):
            raise ValueError(
                f"the z^B rule needs inputs in its box, but x lies in [{x.min().item():.4g}, {x.max().item():.4g}] and "
                f"the box is ZB(low={self.low}, high={self.high}); give the range of the inputs, one a channel where "
                "they are normalised (ZB.imagenet())"
            )

    def bound(self, name: str, like: Tensor, dim: int) -> Tensor:
        """low or high in a shape that goes with values that have channels along `dim`."""
        bound = torch.as_tensor(getattr(self, name), dtype=like.dtype, device=like.device)
        if bound.ndim == 0:
            return bound
        dim = dim % like.ndim
        if len(bound) != like.shape[dim]:
            raise ValueError(f"ZB has {len(bound)} channels, but the input has {like.shape[dim]}: {tuple(like.shape)}")
        return bound.view(-1, *[1] * (like.ndim - dim - 1))


@dataclass(frozen=True)
class LRP(Method):
    """LRP-ε of a ReLU network in one backward pass (LRP-Flex; Bassi, Decherchi, Cavalli 2024).

    Args:
        epsilon: ≥ 0; the ReLU's multiplier is y/(y+ε). 0 is gradient × input.
        first_layer: `ZB(low, high)` for the z^B rule at the input, or None.

    Example:
        >>> from attrain import explain
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> explain(net, torch.rand(2, 1, 8, 8), target="all", method=LRP(1e-2, ZB(0, 1))).heatmap.shape
        torch.Size([2, 3, 1, 8, 8])
    """

    epsilon: float = 1e-2
    first_layer: ZB | None = None

    def __post_init__(self):
        if not self.epsilon >= 0:
            raise ValueError(f"LRP needs epsilon >= 0, got {self.epsilon}")

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return LRPMode(leaves, entries, create_graph, model, epsilon=self.epsilon, first_layer=self.first_layer)


# ---------------------------------------------------------------- rules


def epsilon_relu(mode: "LRPMode", call: Call):
    """y/(y+ε) in place of the derivative."""
    x = call.tensors[0]
    if not x.requires_grad:
        return call.run()
    return EpsilonReLU.apply(x, mode.epsilon, mode.backward, call.inplace)


def weighted(mode: Mode, call: Call):
    """A layer whose weight is no activation."""
    if mode.is_active(call.given["weight"]) or _is(mode, call.given.get("bias")):
        raise UnsupportedOperation(
            f"{mode.title} has no rule for {call} with a weight that is made of the input; {ADVICE}"
        )
    return convolution(mode, call) if call.kind == "convolutions" else call.run()


def normalisation(mode: Mode, call: Call):
    """A batch norm whose numbers are no activations: an affine map, whichever statistics it takes."""
    if call.times > 1:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} with numbers made of the input; {ADVICE}")
    return batch_norm(mode, call)


def one_activation(mode: Mode, call: Call):
    """A product in which one activation takes part, once."""
    if call.times > 1:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} of two activations{mode.instead}")
    return call.run()


def dividend(mode: Mode, call: Call):
    """A quotient whose divisor is no activation."""
    if _is(mode, call.given.get("other")) or call.given.get("rounding_mode") is not None:
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} by an activation{mode.instead}")
    return call.run()


def sampled(mode: Mode, call: Call):
    """Linear in its input at places that are no activations."""
    if call.times > 1 or not _is(mode, call.given.get("input", call.tensors[0])):
        raise UnsupportedOperation(
            f"{mode.title} has no rule for {call} at places that are made of the input; {ADVICE}"
        )
    return call.run()


def taken_out(mode: Mode, call: Call):
    """What happens to values outside of torch, or in a copy of their memory, nobody sees."""
    raise UnsupportedOperation(
        f"{mode.title} cannot follow {call}, which takes an activation out of torch's operations"
    )


def no_rule(mode: Mode, call: Call):
    """Raise, but for what makes no activation of activations, as comparisons: what they select is refused."""
    out = call.run()
    if any(t.requires_grad for t in tensors(out)):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call}{mode.instead}")
    return out


def _is(mode: Mode, value) -> bool:
    return isinstance(value, Tensor) and mode.is_active(value)


LINEAR = dict.fromkeys(
    "linear_maps spectral_maps sums maxima dropouts detached templates queries reads".split(), derivative
) | dict.fromkeys("grid_sample grid_sampler roi_align ps_roi_align".split(), sampled)
TABLE = LINEAR | {
    "relus": epsilon_relu,
    "normalisations": normalisation,
    "convolutions": weighted,
    "linear_layers": weighted,
    "products": one_activation,
    "quotients": dividend,
    **dict.fromkeys(
        "numpy array array_wrap dlpack to_dlpack storage untyped_storage deepcopy reduce_ex".split(), taken_out
    ),
    None: no_rule,
}


class LRPMode(InputXGradientMode):
    """LRP-ε for ReLU networks as a modified backward pass (Faster ISNet's LRP-Flex).

    At a ReLU with output y the backward pass multiplies by y/(y+ε) in place of the derivative; all
    other operations keep theirs, and R = gradient · activation then is LRP-ε at every layer that feeds
    a ReLU and LRP-0 elsewhere. The multiplier is a function of the activations, so the map can be
    differentiated. Operations that are neither ReLU nor linear raise `UnsupportedOperation`, and so does what
    selects by values of activations or scales by them, also by truth values, indices and detached values.

    A batch norm in training mode is an affine map to the rules: no relevance passes through the batch's
    statistics to other samples, but the map's own derivative knows them. (The authors' code lets it pass:
    half of a sample's relevance then lies on other samples.)
    """

    table, opens, sees_all, title = TABLE, True, True, "LRP"
    instead = (
        ": LRP-ε is defined for ReLU networks (ReLU, convolution, linear, batch norm, pooling, sums, products with "
        "constants); for transformers and networks with gates take AttnLRP; an operation of your own that is linear: "
        'attrain.register_rule(op, "linear")'
    )

    def __init__(self, *args, epsilon: float, first_layer: ZB | None = None):
        super().__init__(*args, through=False)
        self.epsilon = epsilon
        self.first = FirstLayer(first_layer, self.entries) if first_layer else None

    def answer(self, call, registered):
        with_graph = [t.requires_grad for t in call.active]
        if any(with_graph) and not all(with_graph) and call.kind != "queries":
            raise UnsupportedOperation(
                f"{self.title} has no rule for {call} with what has no derivative but is made of the input (a "
                f"comparison, an index, a detached value): it selects or scales by values of activations{self.instead}"
            )
        originals = [self.original(t) for t in call.tensors]  # as they are before a call in place
        out = super().answer(call, registered)
        if is_copy(call, out):
            out._attrain_copy = (self.token, self.original(call.active[0]), out._version)
        elif self.first is not None and any(t.requires_grad for t in tensors(out)):
            self.first.observe(call, out, originals)
        return out

    def original(self, value: Tensor) -> Tensor:
        """The tensor that a value is an unchanged copy of, or the value itself."""
        token, original, version = getattr(value, "_attrain_copy", (None, None, None))
        return original if token is self.token and value._version == version else value

    def roots(self):
        return super().roots() if self.first is None else [self.first.output]

    def contract(self, number, gradient):
        if self.first is None:
            return super().contract(number, gradient)
        return self.first.redistribute(gradient, self.first.output, self.leaves[0].detach(), self.create_graph)


class FirstLayer:
    """The z^B rule for a convolution or linear layer on the input, with a batch norm and a ReLU behind it.

    Pixels lie in [low, high], so a black pixel is evidence too: LRP-ε gives it x·g = 0 by construction,
    z^B does not. With R the relevance at the end of the chain, W⁺ and W⁻ the positive and negative
    parts of the weight (a batch norm folded in),

        z = conv(x; W, b) − low·(conv(1; W⁺) + b⁺) − high·(conv(1; W⁻) + b⁻),    s = R / (z + δ sign z)
        R_x = x·convᵀ(s; W) − low·convᵀ(s; W⁺) − high·convᵀ(s; W⁻)

    (Faster ISNet's code; zennit's ZBox clamps the bias in all three copies and so differs slightly).
    δ is the box's stabilizer; of low and high one a channel, the bias is multiplied by their means. Biases and batch
    statistics are constants for the map's derivative. conv(x; W) is the layer's own output, scaled, and conv(1; ·) the
    same for all samples.
    """

    LAYERS = ("conv1d", "conv2d", "conv3d", "linear")

    def __init__(self, box: ZB, entries: list[Tensor]):
        if len(entries) > 1:
            raise ValueError(f"the z^B rule needs one input, got {len(entries)}; use first_layer=None")
        self.box, self.entry = box, entries[0]
        self.output = None  # end of the chain layer → batch norm → ReLU, as far as it goes
        self.stage = self.terms = None

    def observe(self, call: Call, out, originals: list[Tensor]) -> None:
        """Follow the chain as the model runs; `originals` goes into the call, of a copy what it is a copy of."""
        enters = any(t is self.entry for t in originals)
        follows = bool(originals) and originals[0] is self.output
        view = bool(call.tensors) and call.tensors[0]._base is self.output  # in place there changes the output too
        changes = bool(call.tensors) and call.tensors[0] is self.output and call.name != "relu"
        if self.stage and call.inplace and (view or changes):
            raise UnsupportedOperation(
                f"the z^B rule needs the first layer's output as it is, but {call} changes it in place; use "
                "first_layer=None, or write the operation out of place"
            )
        if enters:
            self._begin(call, out)
        elif self.stage == "layer" and call.name == "batch_norm" and follows:
            self.scale, mean, shift = affine(out, **call.given)
            self.constant = shift + self.scale.detach() * (self.constant - mean)
            self.output, self.stage = out, "batch_norm"
        elif self.stage in ("layer", "batch_norm") and call.name == "relu" and follows:
            self.output, self.stage = out, "relu"

    def _begin(self, call: Call, out: Tensor) -> None:
        if call.name not in self.LAYERS or self.stage is not None:
            raise UnsupportedOperation(
                "the z^B rule needs the input to go into one convolution or linear layer and nowhere else, "
                f"but it goes into {call}; use first_layer=None, or move preprocessing out of the model"
            )
        given = dict(call.given)
        self.geometry = geometry_of(call.name, given) if call.kind == "convolutions" else None
        self.groups = given.get("groups", 1)
        x, self.weight, self.bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        self.channel_dim = -1 if call.name == "linear" else 1
        if self.groups > 1 and not isinstance(self.box.low, (int, float)):
            raise ValueError("ZB with one number a channel needs a first layer without groups")
        self.box.check(x.detach(), self.channel_dim)
        self.constant = out.new_zeros(()) if self.bias is None else self.bias.detach()
        self.layer, self.scale = (
            lambda x, weight, bias=None: call.func(input=x, weight=weight, bias=bias, **given),
            None,
        )
        self.first, self.version = out, out._version
        self.output, self.stage = out, "layer"

    def redistribute(self, gradient: Tensor, relevant: Tensor, x: Tensor, create_graph: bool) -> Tensor:
        """The map at the input, of the relevance gradient · relevant at the end of the chain."""
        with torch.set_grad_enabled(bool(create_graph)):
            if self.terms is None:
                self.terms = self._terms(x)
            z, weights = self.terms
            share = (gradient * relevant / z).to(self.first.dtype)
            dim = self.channel_dim % x.ndim
            shape = [*x.shape[:dim], 2 * x.shape[dim], *x.shape[dim + 1 :]]
            parts = self._back(share, weights, shape, create_graph).unflatten(dim, (self.groups, 2, -1))
            by_weight, by_extremes = (part.flatten(dim, dim + 1) for part in parts.unbind(dim + 1))
            return x * by_weight - by_extremes

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z + δ sign z, and W beside low·W⁺ + high·W⁻: few channels cost as much as twice as many."""
        dim, ndim = self.channel_dim, self.first.ndim
        weight, bias, scale = self.weight, self.bias, self.scale
        y = self.first if self.first._version == self.version else self.layer(x, weight, bias)  # if a ReLU changed it
        if scale is not None:
            weight = (weight * scale.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
            bias, y = bias if bias is None else bias * scale, y * along(scale, dim, ndim)
        extremes = self._extremes(weight)
        constant_extremes = self._mean("low") * self.constant.clamp(min=0) + self._mean("high") * self.constant.clamp(
            max=0
        )
        offset = along(self.constant - constant_extremes, dim, ndim)
        offset = offset - self.layer(torch.ones_like(x[:1]), extremes)
        z = y + (offset if bias is None else offset - along(bias, dim, ndim))
        return z + torch.copysign(z.new_tensor(self.box.stabilizer), z.detach()), torch.cat([weight, extremes], 1)

    def _back(self, share: Tensor, weights: Tensor, shape: list[int], create_graph: bool) -> Tensor:
        if self.geometry is not None:
            return input_gradient(share, weights.to(share.dtype), shape, self.geometry)
        with torch.enable_grad():
            probe = share.new_zeros(shape, requires_grad=True)
            output = self.layer(probe, weights)
            return torch.autograd.grad(output, probe, share.to(output.dtype), create_graph=create_graph)[0]

    def _extremes(self, weight: Tensor) -> Tensor:
        low, high = (self.box.bound(name, weight, 1) for name in ("low", "high"))
        return low * weight.clamp(min=0) + high * weight.clamp(max=0)

    def _mean(self, name: str) -> float:
        bound = getattr(self.box, name)
        return bound if isinstance(bound, (int, float)) else sum(bound) / len(bound)


class EpsilonReLU(Function):
    """ReLU; while explaining, its gradient is multiplied by y/(y+ε)."""

    @staticmethod
    def forward(ctx, x, epsilon, backward, inplace):
        y = x.relu_() if inplace else x.relu()
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        ctx.epsilon, ctx.rules = epsilon, backward
        return y

    @staticmethod
    def backward(ctx, g):
        if g is None or ctx.rules.ends:
            return None, None, None, None
        (y,) = ctx.saved_tensors
        if ctx.rules.explaining and ctx.epsilon > 0:
            return _EpsilonMultiplier.apply(g, y, ctx.epsilon), None, None, None
        return torch.ops.aten.threshold_backward(g, y, 0), None, None, None


class _EpsilonMultiplier(Function):
    """g · y/(y+ε)."""

    @staticmethod
    def forward(ctx, g, y, epsilon):
        ctx.save_for_backward(g, y)
        ctx.epsilon = epsilon
        total = y + epsilon
        return torch.div(y, total, out=total).mul_(g)

    @staticmethod
    def backward(ctx, h):
        g, y = ctx.saved_tensors
        total = y + ctx.epsilon
        share = h / total
        return share * y, (share * g).mul_(ctx.epsilon).div_(total), None
