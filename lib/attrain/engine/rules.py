"""What each operation does while a map is made, and the rules of the gradient family.

A set of rules is a `TorchFunctionMode`: active during the model's forward pass, it sees every torch
operation by name and may replace it by one whose backward follows the method's rule whenever
`explaining()` is on, and the ordinary derivative otherwise. So one forward pass serves the map and
the loss alike.

| `operations.py`         | gradient   | guided backprop | LRP-ε (`lrp.py`) | B-cos     | DeepLIFT (`deeplift.py`)   |
|-------------------------|------------|-----------------|------------|-----------------|----------------------------|
| LINEAR, PARTWISE, SUMS  | derivative | derivative      | derivative | derivative      | derivative                 |
| PRODUCTS of activations | derivative | derivative      | raises     | derivative      | derivative at the midpoint |
| MAXIMA                  | derivative | derivative      | derivative | derivative      | cross-max                  |
| ReLU                    | derivative | drops g < 0     | y/(y+ε)    | derivative      | secant; RevealCancel: two  |
| other ACTIVATIONS       | derivative | drops g < 0     | raises     | y/x, a constant | secant; RevealCancel: two  |
| FUNCTIONS, MAGNITUDES   | derivative | derivative      | raises     | constants       | secant                     |
| others                  | derivative | derivative      | raises     | derivative      | composed, or raises        |
"""

from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.overrides import TorchFunctionMode

from attrain.engine import unseen
from attrain.engine.fast.batchnorm import batch_norm
from attrain.engine.fast.convolution import arguments, convolution
from attrain.engine.operations import (
    ACTIVATIONS,
    CONVOLUTIONS,
    MAGNITUDES,
    RECURRENT,
    canonical,
    differentiable,
    opened,
    registered,
    tensors,
    write,
)
from attrain.targets import target_scores


class Rules(TorchFunctionMode):
    """Base of all rule sets: every operation keeps its ordinary derivative.

    Args:
        x: the input, a leaf.
        entry: the copy of it that the model is given, and may change in place.

    Attributes:
        root: the tensor at which the gradient is read; the input here.
        references: how many backward passes, each with a reference of its own, are averaged.
        create_graph: whether the map is to be differentiated.
        sees_all: whether an operation that cannot be seen would make the map wrong, and is refused.
        through: whether the gradient passes through the statistics of a batch norm in training mode.
        known: kinds of `autograd.Function` that belong to operations with a rule.
    """

    references, create_graph, sees_all, through = 1, False, False, True

    def __init__(self, x: Tensor, entry: Tensor):
        super().__init__()
        self.x, self.entry, self.root, self.known = x, entry, x, set()
        # A box of its own, not self: autograd nodes keep it, and must not keep the tensors that self holds.
        self.switch = {"explaining": False, "reference": 0, "last": False}

    @contextmanager
    def explaining(self, reference: int = 0, last: bool = False):
        """Within this context the backward pass follows the rules, those of one reference; the last may use them up."""
        self.switch.update(explaining=True, reference=reference, last=last)
        try:
            yield
        finally:
            self.switch["explaining"] = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, rule = kwargs or {}, registered(func)
        if callable(rule):
            with self:
                return rule(*args, **kwargs)
        if not self.sees_all:
            return self.call(func, func.__name__, args, kwargs)
        given, name = tensors([*args, *kwargs.values()]), func.__name__
        unseen.check(given, self.x, f"{name} is given")
        active = any(map(unseen.active, given))
        out = self.call(func, name, args, kwargs) if active else func(*args, **kwargs)
        found = tensors(out)
        unseen.mark(found + tensors(args[:1] if canonical(func)[1] else ()), active)
        if rule:
            self.known |= {kind for f in found for kind in unseen.functions(f.grad_fn, given)}
        return out

    def call(self, func, name: str, args: tuple, kwargs: dict):
        """The result of an operation; the ordinary one, unless a set of rules says otherwise."""
        if name in RECURRENT:  # cuDNN's have no gradient in evaluation mode, and never one of their gradient
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **kwargs)
        if name in CONVOLUTIONS:
            given = arguments(name, args, kwargs)["input"]
            at_entry = given is self.entry or (self.create_graph and _depends_only_on(self.x, given))
            if self.create_graph or at_entry:
                return convolution(func, name, self.switch, at_entry, *args, **kwargs)
        if func is F.batch_norm and (self.create_graph or not self.through):
            return batch_norm(self.switch, self.through, *args, **kwargs)
        return func(*args, **kwargs)

    def around(self, model):
        """A context for the whole of a pass."""
        return nullcontext()

    def forward(self, model, x: Tensor) -> Tensor:
        """The model's output, with the rules on."""
        if self.sees_all:
            unseen.mark([x], active=True)
        with self:
            logits = model(x)
        if self.sees_all and isinstance(logits, Tensor):
            unseen.check([logits], self.x, "the model returns")
            unseen.check_functions(logits.grad_fn, self.x, self.known)
        return logits

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
    """gradient · (x − reference)."""

    def __init__(self, x, entry, reference: float | Tensor = 0.0, through: bool = True):
        super().__init__(x, entry)
        self.reference, self.through = reference, through

    def contract(self, gradient, create_graph):
        return gradient * (self.x.detach() - self.reference)

    def contract_at(self, gradient, activation, reference):
        return gradient * activation


class GuidedRules(InputXGradientRules):
    """The derivative, negative gradients dropped where they enter an activation function."""

    sees_all = True

    def call(self, func, name, args, kwargs):
        name, inplace = canonical(func)
        if name not in ACTIVATIONS:
            return super().call(func, name, args, kwargs)
        if opened(func):  # down to the operation that is in place or is not
            with self:
                return opened(func)(*args, **kwargs)
        if not inplace:
            out = func(*args, **kwargs)
            return _DropNegative.apply(out, self.switch) if differentiable(out) else out
        return write(args[0], _DropNegative.apply(func(args[0].clone(), *args[1:], **kwargs), self.switch))


class BCosRules(InputXGradientRules):
    """B-cos networks as the linear maps that they compute: what depends on the input dynamically is a constant.

    A B-cos layer is y = |cos(x, w)|^(B−1) · ŵᵀx. Its scale is made of norms, absolute values, powers and
    roots; the outputs of these are constants of the map, and y/x is the constant of a gate such as GELU. The
    logits keep their ordinary derivative, and so does the map as a function of the parameters.
    """

    sees_all = True
    GATES = ACTIVATIONS - {"relu", "clamp", "clamp_min", "clamp_max", "threshold"} - MAGNITUDES

    def call(self, func, name, args, kwargs):
        name, inplace = canonical(func)
        if name in self.GATES and opened(func):
            with self:
                return opened(func)(*args, **kwargs)
        if name not in self.GATES | MAGNITUDES or not differentiable(args):
            return super().call(func, name, args, kwargs)
        x, rest = args[0], args[1:]
        out = func(x.clone() if inplace else x, *rest, **kwargs)
        if name in MAGNITUDES:
            out = self.constant(out)
        else:
            ratio = torch.where(x == 0, 0.0, out / torch.where(x == 0, 1.0, x))
            out = _Either.apply(out, x * self.constant(ratio), self.switch)
        return write(x, out) if inplace else out

    def constant(self, value):
        """A constant for the map; for the loss on the logits and on the map it depends on the parameters as ever."""
        return _Either.apply(value, value.detach(), self.switch) if self.create_graph else value.detach()


class GradCAMRules(Rules):
    """Pools the gradient over space, weighs the activation's channels by it."""

    def contract_at(self, gradient, activation, reference):
        if activation.ndim < 3:
            raise ValueError(f"GradCAM needs a layer with an output (N, C, ...), got {tuple(activation.shape)}")
        weights = gradient.mean(tuple(range(2, gradient.ndim)), keepdim=True)
        return (weights * activation).sum(1, keepdim=True).relu()


class ZennitRules(Rules):
    """No rules of ours: zennit's hooks make the backward pass."""

    def __init__(self, x, entry, composite):
        super().__init__(x, entry)
        self.composite = composite

    def around(self, model):
        return self.composite.context(model)

    def forward(self, model, x):
        return model(x)

    def start(self, logits, score):
        (share,) = torch.autograd.grad(score.sum(), logits, retain_graph=True)
        return logits, logits.detach() * share


def _depends_only_on(x: Tensor, value: Tensor) -> bool:
    """Whether there is no leaf but x, as a parameter, that the value's gradient would reach."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", x) is not x:
            return False
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
    return True


class _Either(Function):
    """A value made in two ways: by the first for derivatives as usual, by the second for the map."""

    @staticmethod
    def forward(ctx, usual, explained, switch):
        ctx.switch = switch
        return usual.view_as(usual)

    @staticmethod
    def backward(ctx, g):
        return (None, g, None) if ctx.switch["explaining"] else (g, None, None)


class _DropNegative(Function):
    @staticmethod
    def forward(ctx, y, switch):
        ctx.switch = switch
        return y.view_as(y)

    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0) if ctx.switch["explaining"] else g, None
