"""The z^B rule of a first layer whose inputs lie in a box (Montavon et al. 2017)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attrain.engine.call import Call, UnsupportedOperation
from attrain.engine.fast.batchnorm import affine
from attrain.engine.fast.convolution import geometry_of, input_gradient
from attrain.numbers import number
from attrain.tensors import along, mapped

CAPPED_RELUS = ("relu6", "hardtanh", "clamp", "clamp_min")  # where they begin at 0; LRP has no rule for others


def check_first_layer(first_layer: object) -> None:
    """Raise TypeError if it is neither a value of `ZB` nor None."""
    if not isinstance(first_layer, ZB | None):
        hint = ": call it, ZB()" if first_layer is ZB else ""
        raise TypeError(f"first_layer must be ZB(low, high) or None, got {first_layer!r}{hint}")


def _one_a_channel(name: str, bound):
    """A bound as a number, or one a channel as a tuple of them."""
    several = not isinstance(bound, (str, bytes, dict, set)) and hasattr(bound, "__len__") and getattr(bound, "ndim", 1)
    return tuple(float(number(name, v)) for v in bound) if several else number(name, bound)


@dataclass(frozen=True)
class ZB:
    """The z^B rule of a first layer whose inputs lie in a box [low, high] (Montavon et al. 2017).

    Args:
        low, high: the range of the inputs; or a sequence with one number for each channel, as for normalised images.
        stabilizer: > 0, keeps the rule's denominator from zero. The authors of Faster ISNet take LRP's ε here too:
            with an ε other than 1e-2 their map is that of `ZB(low, high, stabilizer=ε)`.

    Raises:
        TypeError: what is no number.
        ValueError: not low < high, a stabilizer that is not positive; in `explain`, an input outside the box.
    """

    low: float | Sequence[float] = 0.0
    high: float | Sequence[float] = 1.0
    stabilizer: float = 1e-2

    def __post_init__(self):
        for name in ("low", "high"):
            object.__setattr__(self, name, _one_a_channel(name, getattr(self, name)))
        low, high = (torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (self.low, self.high))
        if low.ndim > 1 or high.ndim > 1 or (low.ndim and high.ndim and len(low) != len(high)):
            raise ValueError(f"ZB needs low and high as numbers or one number a channel, got {self.low}, {self.high}")
        if not (low < high).all():
            raise ValueError(f"ZB needs low < high, got low={self.low}, high={self.high}")
        if not number("stabilizer", self.stabilizer) > 0:
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

    Before the layer, the input may be scaled and shifted (normalised, by numbers that are the same at all places of a
    channel): x and its box are then what the layer sees of them, and a pixel keeps its relevance. And it may be padded
    with zeros, to which no relevance goes, as to those of a layer that pads by itself.
    """

    LAYERS = ("conv1d", "conv2d", "conv3d", "linear")
    RELUS = ("relu", *CAPPED_RELUS)
    SCALES = ("add", "sub", "rsub", "neg", "positive", "mul", "div", "batch_norm")
    PADS = ("pad", "constant_pad_nd")

    def __init__(self, box: ZB, leaves: list[Tensor], entries: list[Tensor]):
        if len(entries) > 1:
            raise ValueError(f"the z^B rule needs one input, got {len(entries)}; use first_layer=None")
        self.box, self.x = box, leaves[0].detach()
        self.before: list[Tensor] = [entries[0]]  # what the input is made into before the layer,
        self.scaled: list[Call] = []  # and by which calls
        self.padding: list[int] = []
        self.output = None  # end of the chain layer → batch norm → ReLU, as far as it goes
        self.stage = self.terms = None
        self.chain: list[tuple] = []  # its links: output, version of that, scale, constant
        self.used = 3  # the first link that goes elsewhere too

    def observe(self, call: Call, out, originals: list[Tensor]) -> None:
        """Follow the chain as the model runs; `originals` goes into the call, of a copy what it is a copy of."""
        enters = any(t is each for t in originals for each in self.before)
        follows = bool(originals) and originals[0] is self.output
        view = bool(call.tensors) and call.tensors[0]._base is self.output  # in place there changes the output too
        changes = bool(call.tensors) and call.tensors[0] is self.output and call.name not in self.RELUS
        if self.stage and call.inplace and (view or changes):
            raise UnsupportedOperation(
                f"the z^B rule needs the first layer's output as it is, but {call} changes it in place; use "
                "first_layer=None, or write the operation out of place"
            )
        if enters:
            self._begin(call, out, originals)
        elif self.stage == "layer" and call.name == "batch_norm" and follows and self.channel_dim == 1:
            self.scale, mean, shift = affine(out, **call.given)
            self.constant = shift + self.scale.detach() * (self.constant - mean)
            self._link(out, "batch_norm")
        elif self.stage in ("layer", "batch_norm") and call.name in self.RELUS and follows:
            self._link(out, "relu")
        else:
            numbers = {id(link): number for number, (link, *_) in enumerate(self.chain)}
            self.used = min(self.used, *(numbers.get(id(t), 3) for t in originals), 3)

    @property
    def begun(self) -> bool:
        """Whether the model has come to the layer."""
        return self.stage is not None

    def _link(self, out: Tensor, stage: str) -> None:
        self.output, self.stage = out, stage
        self.chain.append((out, out._version, self.scale, self.constant))

    def end(self) -> Tensor:
        """Where the relevance is taken: the end of the chain, or where it forks, as before a block with a shortcut."""
        if self.used < len(self.chain) - 1:
            output, version, scale, constant = self.chain[self.used]
            if output._version != version:
                raise UnsupportedOperation(
                    "the z^B rule needs the first layer's output as it is, but it goes elsewhere too before it is "
                    "changed in place; use first_layer=None, or write the operation out of place"
                )
            self.output, self.scale, self.constant = output, scale, constant
            self.chain = self.chain[: self.used + 1]
        if self.output is None:
            raise UnsupportedOperation(
                "the z^B rule needs a first layer, convolution or linear, and found none that takes the input, at most "
                "scaled, shifted or padded with zeros before, and not so within no_grad or by detach"
            )
        return self.output

    def _begin(self, call: Call, out: Tensor, originals: list[Tensor]) -> None:
        goes_on = self.stage is None and call.times == 1 and any(t is self.before[-1] for t in originals)
        if goes_on and not self.padding and self._prepares(call, out):
            self.before.append(out)
            return
        if call.name not in self.LAYERS or not goes_on:
            raise UnsupportedOperation(
                "the z^B rule needs the input to go into one convolution or linear layer and nowhere else, at most "
                f"scaled, shifted or padded with zeros before, but it goes into {call}; use first_layer=None, or move "
                "other preprocessing out of the model"
            )
        given = dict(call.given)
        self.geometry = geometry_of(call.name, given) if call.kind == "convolutions" else None
        self.groups = given.get("groups", 1)
        given.pop("input")
        self.weight, self.bias = given.pop("weight"), given.pop("bias", None)
        self.channel_dim = (-1 if call.name == "linear" else 1) % out.ndim
        self._see()
        self.constant = out.new_zeros(()) if self.bias is None else self.bias.detach()
        self.layer, self.scale = (
            lambda x, weight, bias=None: call.func(input=x, weight=weight, bias=bias, **given),
            None,
        )
        self.first, self.version = out, out._version
        self._link(out, "layer")

    def _prepares(self, call: Call, out: Tensor) -> bool:
        """Whether a call before the layer only scales, shifts or pads; it is then kept."""
        given = call.given
        if call.name in self.PADS and given.get("mode", "constant") == "constant" and not given.get("value"):
            self.padding = list(given["pad"])
            return True
        divides = call.name == "div" and (given.get("rounding_mode") or given.get("input") is not call.active[0])
        batch = call.name == "batch_norm" and given.get("training", given.get("running_mean") is None)
        if call.name not in self.SCALES or divides or batch or out.shape != call.active[0].shape:
            return False
        active = {id(t) for t in call.active}
        copy = lambda t: t if id(t) in active else t.clone()  # noqa: E731  as the model may change its numbers later
        kept = Call(call.func, mapped(copy, call.args), mapped(copy, call.kwargs), lambda t: id(t) in active)
        self.scaled.append(kept.released())
        return True

    def _see(self) -> None:
        """The input and its box as the layer sees them: low and high, each a number or one for each channel."""
        dim = self.channel_dim
        self.box.check(self.x, dim)
        if any(self.padding[2 * (self.x.ndim - 1 - dim) :]):
            raise UnsupportedOperation(
                f"the z^B rule needs a padding of places, not of channels or samples, got pad={self.padding} of an "
                f"input {tuple(self.x.shape)}; use first_layer=None, or move preprocessing out of the model"
            )
        bounds = [self.box.bound(name, self.x, dim) for name in ("low", "high")]
        if self.scaled:
            bounds = [self._scale(bound.expand(1, *self.x.shape[1:])).movedim(dim, 0).flatten(1) for bound in bounds]
            if any((bound != bound[:, :1]).any() for bound in bounds):
                raise UnsupportedOperation(
                    "the z^B rule needs numbers before the first layer that are the same at all places of a channel, "
                    "as a mean and a standard deviation are; use first_layer=None, or move preprocessing out of the "
                    "model"
                )
            low, high = (bound[:, 0] for bound in bounds)
            bounds = [torch.minimum(low, high), torch.maximum(low, high)]
        self.low, self.high = (bound if bound.ndim == 0 else bound.flatten() for bound in bounds)
        self.seen = self._padded(self._scale(self.x))

    def _scale(self, x: Tensor) -> Tensor:
        for call in self.scaled:
            x = call.on(x)
        return x

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding) if self.padding else x

    def redistribute(self, gradient: Tensor, relevant: Tensor, create_graph: bool) -> Tensor:
        """The map at the input, of the relevance gradient · relevant at the end of the chain."""
        with torch.set_grad_enabled(bool(create_graph)):
            x, dim = self.seen, self.channel_dim
            if self.terms is None:
                self.terms = self._terms(x)
            z, weights = self.terms
            share = (gradient * relevant / z).to(self.first.dtype)
            shape = [*x.shape[:dim], 2 * x.shape[dim], *x.shape[dim + 1 :]]
            parts = self._back(share, weights, shape, create_graph).unflatten(dim, (self.groups, 2, -1))
            by_weight, by_extremes = (part.flatten(dim, dim + 1) for part in parts.unbind(dim + 1))
            relevance = x * by_weight - by_extremes
            return F.pad(relevance, [-width for width in self.padding]) if self.padding else relevance

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z + δ sign z, and W beside low·W⁺ + high·W⁻: few channels cost as much as twice as many."""
        dim, ndim = self.channel_dim, self.first.ndim
        weight, bias, scale = self.weight, self.bias, self.scale
        y = self.first if self.first._version == self.version else self.layer(x, weight, bias)  # if a ReLU changed it
        if scale is not None:
            weight = (weight * scale.view(-1, *[1] * (weight.ndim - 1))).to(weight.dtype)
            bias, y = bias if bias is None else bias * scale, y * along(scale, dim, ndim)
        extremes = self._extremes(weight)
        below, above = self.constant.clamp(min=0), self.constant.clamp(max=0)
        offset = along(self.constant - self.low.mean() * below - self.high.mean() * above, dim, ndim)
        offset = offset - self.layer(self._padded(torch.ones_like(self.x[:1])), extremes)
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
        low, high = (self._by_weight(bound.to(weight.dtype), weight) for bound in (self.low, self.high))
        return low * weight.clamp(min=0) + high * weight.clamp(max=0)

    def _by_weight(self, bound: Tensor, weight: Tensor) -> Tensor:
        """A number, or one a channel, in a shape that goes with the layer's weight, which may have groups."""
        if bound.ndim == 0:
            return bound
        rows, inner = weight.shape[:2]
        each = bound.view(self.groups, 1, inner).expand(-1, rows // self.groups, -1)
        return each.reshape(rows, inner, *[1] * (weight.ndim - 2))
