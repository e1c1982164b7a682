"""LRP for networks with gates, norms and attention: AttnLRP (Achtibat et al. 2024) and CP-LRP (Ali et al. 2022).

As everywhere here the backward pass carries G = R/a, so a rule is what an operation does to a gradient. With x the
input of an operation, y its output and f its function:

| operation | backward pass | |
|---|---|---|
| gate or activation y = f(x): GELU, SiLU, tanh, … | G · y/x, the factor a constant; at 0 its limit | identity, eq. 9 |
| ReLU, leaky ReLU, PReLU, absolute value | the derivative, which is y/x | |
| layer, RMS, group, instance norm | the derivative, the standard deviation or root mean square a constant | identity |
| product or matrix product of n activations | the derivative, divided by n | uniform, eq. 7 |
| softmax | the derivative ("attn"); a constant ("cp") | |
| linear layer, convolution, sum, pooling, view, batch norm, dropout | the derivative | LRP-0 |

What a network scales by is known by the operation that made it, so that a norm or a gate written by hand is the same as
torch's: the results of sigmoid, tanh, erf, powers, roots, norms, variances and reciprocals are *scales*, and so is what
is made of scales alone. A scale is a constant where it multiplies or divides an activation, and counts as none of
the n. Where it does not, tanh, erf and powers are activation functions like others; a sigmoid or a root has no y/x at 0
and is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from attrain.engine import decompositions
from attrain.engine.call import Call, UnsupportedOperation, write
from attrain.engine.fast.attention import attention as fast_attention
from attrain.engine.fast.derivatives import gelu_multiplied, norm_multiplied
from attrain.engine.fast.derivatives import softmax as fast_softmax
from attrain.engine.mode import Mode, Tensors, derivative, refuse
from attrain.methods import lrp
from attrain.methods.gradient import InputXGradientMode, batch_norm
from attrain.methods.method import Method
from attrain.tensors import tensors


@dataclass(frozen=True)
class AttnLRP(Method):
    """LRP of transformers and of networks with gates and norms; `help(attrain.methods.attnlrp)` has its table of rules.

    R = gradient · x under these rules, at the input and at `layers`. The factors are functions of the activations, so
    the map can be trained on (`create_graph=True`). A ReLU network's map is gradient × input.

    Args:
        variant: `"attn"`, AttnLRP: relevance passes through the softmax, and half of it to each factor of a product.
            `"cp"`, CP-LRP: attention weights, and so query and key, are constants; all of it goes to the values. The
            product of a gated layer (LLaMA's) is halved as by "attn"; LXT's CP-LRP holds the gate constant.

    Raises:
        ValueError: another variant.
        UnsupportedOperation: in `explain`, an operation that has no rule.

    Token ids have no map: ask for one where they are numbers, as `explain(bert, ids, 1, AttnLRP(), kwargs=…,
    layers="bert.embeddings.word_embeddings")`; `.layers[...]`, (N, tokens, width), sums over the width to one a token.

    Example:
        >>> from attrain import explain
        >>> from torch import nn
        >>> block = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True).eval()
        >>> net = nn.Sequential(nn.Linear(8, 16), block, nn.Flatten(), nn.Linear(80, 3))
        >>> explain(net, torch.rand(2, 5, 8), target="all", method=AttnLRP()).heatmap.shape
        torch.Size([2, 3, 5, 8])
    """

    variant: Literal["attn", "cp"] = "attn"

    def __post_init__(self):
        if self.variant not in ("attn", "cp"):
            raise ValueError(f'AttnLRP needs variant "attn" or "cp", got {self.variant!r}')

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        kind = AttnLRPMode if self.variant == "attn" else CPLRPMode
        return kind(leaves, entries, create_graph, model, through=False)


# ---------------------------------------------------------------- activation functions


def _gelu(g: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return gelu_multiplied(g, x)
    return 0.5 * g * (1 + torch.tanh((2 / torch.pi) ** 0.5 * x * (1 + 0.044715 * x * x)))


# G · y/x where y/x has a form of its own, without a division.
MULTIPLIERS = {
    "gelu": _gelu,
    "silu": lambda g, x, **_: g * torch.sigmoid(x),
    "mish": lambda g, x, **_: g * torch.tanh(F.softplus(x)),
    "hardswish": lambda g, x, **_: g * F.hardsigmoid(x),
}


def activation(mode: "AttnLRPMode", call: Call):
    """y/x in place of the derivative, exact at x = 0."""
    x = call.given.get("input")
    if len(call.active) > 1 or not mode.is_active(x):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} with settings that are made of the input")
    multiplied = _multiplier(mode, call)
    x = x.clone() if call.inplace else x
    y = call.on(x) if call.inplace else call.run()
    out = Explained.apply(lambda g, x: (multiplied(g, x),), mode.backward, (y.detach(),), y, x)
    return write(call.tensors[0], out) if call.inplace else out


def _multiplier(mode: "AttnLRPMode", call: Call) -> Callable[[Tensor, Tensor], Tensor]:
    if call.name in MULTIPLIERS:
        settings = {k: v for k, v in call.given.items() if k == "approximate"}
        return partial(MULTIPLIERS[call.name], **settings)
    if call.on(call.active[0].detach().new_zeros(())).any():
        raise UnsupportedOperation(f"{mode.title} has no rule for {call}, which is not 0 at 0{mode.instead}")
    released = call.released()  # or the activation would be kept by its own graph
    return lambda g, x: g * _ratio(released.on, x)


def _ratio(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """f(x)/x; near 0 f'(x/2), which has the same value and slope there."""
    near = x.abs() < torch.finfo(x.dtype).eps ** (1 / 3)
    apart = torch.where(near, 1.0, x)
    ratio = f(apart) / apart
    if not near.any():
        return ratio
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        half = x / 2 if create_graph else x.detach() / 2
        half = half if half.requires_grad else half.requires_grad_()
        (slope,) = torch.autograd.grad(f(half).sum(), half, create_graph=create_graph)
    return torch.where(near, slope, ratio)


# ---------------------------------------------------------------- norms


def norm(mode: "AttnLRPMode", call: Call):
    """The derivative with the standard deviation a constant, from torch's own fused norm."""
    x, weight, bias, eps = (call.given.get(name) for name in ("input", "weight", "bias", "eps"))
    if any(isinstance(t, Tensor) and mode.is_active(t) for t in (weight, bias)):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} with a weight that is made of the input")
    if not call.given.get("use_input_stats", True):
        return call.run()
    if call.name in ("layer_norm", "rms_norm"):
        rows = x.shape[: x.ndim - len(call.given["normalized_shape"])].numel()
    else:
        rows = len(x) * call.given.get("num_groups", x.shape[1])
        weight = None if weight is None else weight.view(-1, *[1] * (x.ndim - 2))
    centred = call.name != "rms_norm"
    if eps is None:
        eps = 1e-5 if centred else torch.finfo(x.dtype).eps

    def vjp(g, x, *weights):
        g = g * weights[0] if weights else g
        return (norm_multiplied(g, x, rows, eps, centred), *[None for _ in weights])

    y = call.run()
    return Explained.apply(vjp, mode.backward, (y.detach(),), y, x, *([] if weight is None else [weight]))


# ---------------------------------------------------------------- products

SUMMED = "addmm addbmm baddbmm addcmul addmv addr".split()  # input + a product


def product(mode: "AttnLRPMode", call: Call):
    """The derivative, divided by the number of activations; scales are constants among them."""
    added = call.given.get("input") if call.name in SUMMED else None
    given = [t for t in call.tensors if mode.is_active(t) and t.requires_grad]
    summand = next((k for k, t in enumerate(given) if t is added), None)
    factors = [t for k, t in enumerate(given) if k != summand]
    if summand is not None and (len(factors) > 1 or mode.scale_of(added) is not None):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} of several activations; write the sum apart")
    activations = [t for t in factors if mode.scale_of(t) is None]
    if not activations:
        out = shared(mode, call, call.run(lambda t: t), len(factors))
        return mode.as_scale(call, out)
    constants = {id(t): mode.constant(t) for t in factors if mode.scale_of(t) is not None}
    return shared(mode, call, call.run(lambda t: constants.get(id(t), t)), len(activations))


def shared(mode: "AttnLRPMode", call: Call, y: Tensor, count: int):
    """A result whose gradient is divided among `count` factors."""
    y = Divided.apply(y, (y.detach(),), count, mode.backward) if count > 1 else y
    return write(call.tensors[0], y) if call.inplace else y


def quotient(mode: "AttnLRPMode", call: Call):
    """The derivative with the divisor a constant; one that divides what is no activation makes a scale."""
    x, divisor = call.given["input"], call.given.get("other")
    if call.given.get("rounding_mode") is not None:
        return lrp.no_rule(mode, call)
    of_input = isinstance(x, Tensor) and mode.is_active(x) and x.requires_grad
    by_activation = isinstance(divisor, Tensor) and mode.is_active(divisor)
    if not of_input or mode.scale_of(x) is not None:
        return mode.as_scale(call, call.run(), str(call) if by_activation else "")
    if not by_activation:
        return call.run()
    constant = mode.constant(divisor)
    y = call.run(lambda t: constant if t is divisor else t)
    return write(call.tensors[0], y) if call.inplace else y


# ---------------------------------------------------------------- scales, and what passes them on


def scale(mode: "AttnLRPMode", call: Call):
    """What a network scales by; it has no rule of its own as an activation."""
    return mode.as_scale(call, call.run(), str(call))


def gate(mode: "AttnLRPMode", call: Call):
    """What a network may scale by; else an activation function."""
    return mode.as_scale(call, activation(mode, call))


def power(mode: "AttnLRPMode", call: Call):
    """A gate for an exponent of at least 1, which is finite over x at 0; other powers are scales only."""
    exponent = call.given.get("exponent", 2)
    if not isinstance(exponent, (int, float)):
        return lrp.no_rule(mode, call)
    return (gate if exponent >= 1 else scale)(mode, call)


def passed(mode: "AttnLRPMode", call: Call):
    """The derivative; scales among themselves stay scales."""
    scales = mode.scales(call)
    if None in scales:
        mode.refuse_scales(call)
        return call.run()
    return mode.as_scale(call, call.run()) if scales else call.run()


def softmax(mode: "AttnLRPMode", call: Call):
    """The ordinary derivative, by one that is cheap to differentiate."""
    x, dim = call.given["input"], call.given.get("dim")
    if not mode.create_graph or dim is None:
        return call.run()
    return fast_softmax(x.to(call.given.get("dtype") or x.dtype), dim)


def attention(mode: "AttnLRPMode", call: Call):
    """Written out; or at once, where its map is to be differentiated and all that it takes are activations."""
    query, key, value, mask, scale = (call.given.get(n) for n in "query key value attn_mask scale".split())
    options = [n for n in ("dropout_p", "is_causal", "enable_gqa") if call.given.get(n)]
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and query.dtype == key.dtype == value.dtype
    activations = mode.scales(call) == [None] * len({id(query), id(key), id(value)})
    constant = mask is None or not mask.requires_grad
    if (
        not (mode.create_graph and alike and activations and constant and query.ndim > 2)
        or options
        or torch.is_autocast_enabled(query.device.type)
    ):
        return written_out(mode, call)
    if mask is not None and (mask if mask.dtype == torch.bool else mask > -torch.inf).any(-1).logical_not().any():
        return written_out(mode, call)  # a row that attends to nothing
    return fast_attention(query, key, value, mask, scale or query.shape[-1] ** -0.5, mode.backward)


def written_out(mode: "AttnLRPMode", call: Call):
    """By the rules of the simpler operations that it is made of."""
    with mode:
        out = decompositions.TABLE[call.name](**call.given)
    return write(call.tensors[0], out) if call.inplace else out


# ---------------------------------------------------------------- the mode

SCALES = """sigmoid hardsigmoid softplus erfc ndtr sqrt rsqrt reciprocal var std norm linalg_vector_norm""".split()
GATES = "tanh erf softsign relu6 hardtanh clamp clamp_min clamp_max".split()
HOMOGENEOUS = "relu leaky_relu prelu _prelu_kernel rrelu abs absolute".split()  # their derivative is y/x
WRITTEN_OUT = """glu addcdiv lerp cosine_similarity var_mean std_mean""".split()
TABLE = (
    dict.fromkeys("linear_maps spectral_maps sums maxima dropouts detached templates reads".split(), passed)
    | dict.fromkeys("convolutions linear_layers".split(), lrp.weighted)
    | dict.fromkeys("grid_sample grid_sampler roi_align ps_roi_align".split(), lrp.sampled)
    | dict.fromkeys(HOMOGENEOUS, passed)
    | dict.fromkeys(WRITTEN_OUT, written_out)
    | dict.fromkeys(SCALES, scale)
    | dict.fromkeys(GATES, gate)
    | dict.fromkeys("pow square float_power".split(), power)
    | dict.fromkeys("layer_norm rms_norm group_norm instance_norm".split(), norm)
    | {
        "scaled_dot_product_attention": attention,
        **dict.fromkeys(("scatter_reduce", "index_reduce"), partial(lrp.reduced, rule=passed)),
        "softmax": softmax,
        "log_softmax": derivative,
        "normalisations": batch_norm,
        "activations": activation,
        "products": product,
        "quotients": quotient,
        "recurrent_layers": refuse("it is defined for feed-forward networks and attention"),
        None: lrp.no_rule,
    }
)


class AttnLRPMode(InputXGradientMode):
    """AttnLRP's rules. What the model detaches, compares or selects by values is a constant, as for a gradient."""

    table, opens, sees_all, keeps, title = TABLE, True, True, True, "AttnLRP"
    instead = (
        ": it knows gates and activation functions that are 0 at 0, norms, attention, products, softmax and what is "
        'linear; an operation of your own that is linear: attrain.register_rule(op, "linear"), and of others a '
        "function that is made of these"
    )

    def answer(self, call, registered):
        scales = self.scales(call)
        if scales and all(scales):  # made of scales that are nothing else: so is the result
            return self.as_scale(call, call.run())
        out = super().answer(call, registered)
        if call.inplace and len(scales) > 1 and None in scales:  # a scale that an activation has changed is none
            call.tensors[0]._attrain_scale = (None, None)
        return out

    def forward(self, run):
        output = super().forward(run)
        for name in map(self.scale_of, tensors(output)):
            if name:
                raise UnsupportedOperation(
                    f"{self.title} has no rule for {name} at the output: explain what goes into it"
                )
        return output

    def constant(self, value: Tensor) -> Tensor:
        """A constant for the map; for the loss on the logits and on the map it depends on the parameters as ever."""
        if not self.create_graph:
            return value.detach()
        return Explained.apply(lambda g: (), self.backward, (value.detach(),), value)

    # A scale carries the name of the operation that has no other rule, or "" if it can be an activation as well.

    def scale_of(self, value: Tensor) -> str | None:
        """The name that a scale carries; None for what is none."""
        token, name = getattr(value, "_attrain_scale", (None, None))
        return name if token is self.token else None

    def scales(self, call: Call) -> list[str | None]:
        """`scale_of` of the arguments that have a derivative."""
        return [self.scale_of(t) for t in call.active if t.requires_grad]

    def as_scale(self, call: Call, out, name: str = ""):
        """Say of a result that it is a scale; one that is made of a scale with no other rule has none either."""
        name = next(filter(None, self.scales(call)), name)
        changed = [call.tensors[0]] if call.inplace else []
        for t in [*tensors(out), *changed]:
            t._attrain_scale = (self.token, name)
        return out

    def refuse_scales(self, call: Call) -> None:
        """Raise if a scale that is nothing else meets an activation."""
        for name in filter(None, self.scales(call)):
            raise UnsupportedOperation(
                f"{self.title} has no rule for {name} where it does not scale: in {call}{self.instead}"
            )


class CPLRPMode(AttnLRPMode):
    """CP-LRP's rules: attention weights are constants."""

    table, title = TABLE | {"softmax": scale, "scaled_dot_product_attention": written_out}, "CP-LRP"


class Explained(Function):
    """The identity on a result; while explaining, its gradient goes to the tensors that it was made of by a rule."""

    @staticmethod
    def forward(ctx, vjp, rules, result, usual, *values):
        ctx.save_for_backward(*values)
        ctx.set_materialize_grads(False)
        ctx.vjp, ctx.rules = vjp, rules
        return result[0]

    @staticmethod
    def backward(ctx, g):
        none = [None] * len(ctx.saved_tensors)
        if g is None or not ctx.rules.explaining:
            return None, None, None, g, *none
        return None, None, None, None, *ctx.vjp(g, *ctx.saved_tensors)


class Divided(Function):
    """The identity; while explaining, the gradient is divided."""

    @staticmethod
    def forward(ctx, value, result, count, rules):
        ctx.set_materialize_grads(False)
        ctx.count, ctx.rules = count, rules
        return result[0]

    @staticmethod
    def backward(ctx, g):
        return (g / ctx.count if g is not None and ctx.rules.explaining else g), None, None, None
