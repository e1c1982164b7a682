"""B-cos networks as the linear maps that they compute (Böhle, Fritz, Schiele 2022)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.autograd import Function

from attrain.engine.call import Call, write
from attrain.engine.mode import Mode, Tensors
from attrain.methods.gradient import GRADIENT, InputXGradientMode
from attrain.methods.method import Method


@dataclass(frozen=True)
class BCos(Method):
    """A B-cos network as the input-dependent linear map that it computes, times the input (Böhle et al. 2022).

    Its scales |cos|^(B−1) are constants of the backward pass: the results of absolute values, norms,
    powers, roots, exponentials and gates, see `BCosMode`. A network without biases has
    maps that sum to the explained logit. No switch of the model's own (`explanation_mode`) is needed.
    """

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return BCosMode(leaves, entries, create_graph, model)


def magnitude(mode: Mode, call: Call):
    """Its result is a constant of the map."""
    if not any(t.requires_grad for t in call.active):
        return call.run()
    y = _constant(mode, call.run(lambda t: t))
    return write(call.tensors[0], y) if call.inplace else y


def gate(mode: Mode, call: Call):
    """y = x · (y/x), and the ratio is a constant of the map."""
    x = call.tensors[0]
    if not x.requires_grad:
        return call.run()
    x = x.clone() if call.inplace else x
    y = call.run(lambda t: t)
    ratio = torch.where(x == 0, 0.0, y / torch.where(x == 0, 1.0, x))
    y = Either.apply(y, x * _constant(mode, ratio), mode.backward)
    return write(call.tensors[0], y) if call.inplace else y


def quotient(mode: Mode, call: Call):
    """An activation as the divisor is a scale: its reciprocal is a constant of the map."""
    divisor = call.given.get("other")
    if (
        not isinstance(divisor, torch.Tensor)
        or not mode.is_active(divisor)
        or call.given.get("rounding_mode") is not None
    ):
        return call.run()
    y = call.given["input"] * _constant(mode, divisor.reciprocal())
    return write(call.tensors[0], y) if call.inplace else y


def _constant(mode: Mode, value):
    """A constant for the map; for the loss on the logits and on the map it depends on the parameters as ever."""
    return Either.apply(value, value.detach(), mode.backward) if mode.create_graph else value.detach()


# A B-cos network scales its linear outputs by these.
MAGNITUDES = """abs norm linalg_vector_norm sqrt rsqrt pow square reciprocal var std exp sigmoid softmax
    softplus tanh""".split()
LINEAR_PARTS = "clamp clamp_min clamp_max threshold".split()  # of the network, as ReLU is: the derivative


class BCosMode(InputXGradientMode):
    """What depends on the input dynamically is a constant of the map.

    A B-cos layer is y = |cos(x, w)|^(B−1) · ŵᵀx. Its scale is made of norms, absolute values, powers and
    roots; the outputs of these are constants of the map, and y/x is the constant of a gate such as GELU. The
    logits keep their ordinary derivative, and so does the map as a function of the parameters.
    """

    table = GRADIENT | {"activations": gate, "quotients": quotient} | dict.fromkeys(MAGNITUDES, magnitude)
    table = table | dict.fromkeys(LINEAR_PARTS, GRADIENT[None])
    opens, sees_all, keeps, title = True, True, True, "B-cos"


class Either(Function):
    """A value made in two ways: by the first for derivatives as usual, by the second for the map."""

    @staticmethod
    def forward(ctx, usual, explained, backward):
        ctx.rules = backward
        return usual.view_as(usual)

    @staticmethod
    def backward(ctx, g):
        return (None, g, None) if ctx.rules.explaining else (g, None, None)
