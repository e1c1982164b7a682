"""The gradient, gradient × input and guided backprop; and the rules that all methods share with them."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn.attention import SDPBackend, sdpa_kernel

from attrain.engine.call import Call, UnsupportedOperation, by_batch, write
from attrain.engine.fast.batchnorm import batch_norm as fast_batch_norm
from attrain.engine.fast.convolution import convolution as fast_convolution
from attrain.engine.inputs import Form, Inputs
from attrain.engine.mode import Mode, Tensors, derivative
from attrain.engine.passes import Request, one_pass
from attrain.explanation import Explanation
from attrain.methods.method import Method, cut_reference, mean_reference, references_of
from attrain.tensors import along


def convolution(mode: Mode, call: Call):
    """The ordinary derivative, by a backward pass that is cheap to differentiate."""
    x, weights = call.given["input"], (call.given["weight"], call.given.get("bias"))
    if any(isinstance(w, Tensor) and mode.is_active(w) for w in weights):
        return call.run()
    at_entry = any(x is entry for entry in mode.entries) or (mode.create_graph and _depends_only_on(mode.leaves, x))
    if mode.create_graph or at_entry:
        y, _ = fast_convolution(call.name, call.given, mode.backward, at_entry)
        if y is not None:
            return y
    return call.run()


def batch_norm(mode: Mode, call: Call):
    """The ordinary derivative; where the batch's own statistics are taken, through them or not, as the mode says."""
    given = call.given
    own = by_batch(given.get("training"), given.get("running_mean"))
    if not own or (mode.through and not mode.create_graph):
        return call.run()
    if torch._C._functorch.is_batchedtensor(given["input"]):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} in torch.vmap, in training mode")
    weight, bias = (given.get(name) for name in ("weight", "bias"))
    made = [t is not None and mode.is_active(t) for t in (weight, bias)]  # of the input, as in a conditional norm
    if not any(made):
        return fast_batch_norm(mode.backward, mode.through, **given)
    x = given["input"]
    y = fast_batch_norm(mode.backward, mode.through, **given | {"weight": None, "bias": None})
    y = y if weight is None else y * along(weight, 1, x.ndim)
    return y if bias is None else y + along(bias, 1, x.ndim)


def native_batch_norm(mode: Mode, call: Call):
    """A spelling of batch norm that has no rule for maps where the batch's own statistics are taken."""
    if mode.through or not call.given.get("training"):
        return call.run()
    raise UnsupportedOperation(f"{mode.title} has no rule for {call} in training mode: write F.batch_norm")


def recurrent(mode: Mode, call: Call):
    """The ordinary derivative, by torch's own kernels: cuDNN's have none in evaluation mode, and never a second one."""
    with torch.backends.cudnn.flags(enabled=False):
        return call.run()


def activation(mode: Mode, call: Call):
    """The ordinary derivative; torch's own of the hard sigmoid has no second one."""
    if call.name != "hardsigmoid" or not mode.create_graph:
        return call.run()
    y = F.relu6(call.given["input"] + 3) / 6
    return write(call.tensors[0], y) if call.inplace else y


GRADIENT = {
    None: derivative,
    "activations": activation,
    "convolutions": convolution,
    "normalisations": batch_norm,
    "recurrent_layers": recurrent,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), native_batch_norm),
}


def differentiable(create_graph: bool):
    """A context in which derivatives have derivatives, if they are needed: attention's fused kernels have none."""
    return sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext()


class GradientMode(Mode):
    """Every operation keeps its ordinary derivative.

    What the model detaches, or computes under `no_grad`, is a constant, as for `torch.autograd.grad`.
    """

    table, opens, sees_all, title = GRADIENT, False, False, "the gradient"

    def __init__(self, *args, through: bool | None = None):
        super().__init__(*args)
        if through is not None:
            self.through = through

    def forward(self, run):
        with differentiable(self.create_graph):
            return super().forward(run)

    def passive(self, call):
        """Behind a part that nobody sees, as one in TorchScript, a batch norm may depend on the input."""
        return batch_norm(self, call) if call.name == "batch_norm" else call.run()


class InputXGradientMode(GradientMode):
    """gradient · (x − reference); gradient · output at layers."""

    title, through = "input × gradient", False

    def __init__(self, *args, reference: list[Tensor] | float = 0.0, through: bool | None = None):
        super().__init__(*args, through=through)
        self.reference = reference

    def contract(self, number, gradient):
        place = self.mapped[number]
        reference = self.reference[place] if isinstance(self.reference, list) else self.reference
        return gradient * (self.leaves[place].detach() - reference)

    def contract_at(self, gradient, activation, reference):
        return gradient * activation


@dataclass(frozen=True)
class Gradient(Method):
    """The gradient of the explained number with respect to the input.

    What the model detaches, or computes under `torch.no_grad`, is a constant, as it is to `torch.autograd.grad`.

    Args:
        batch_statistics: whether the gradient passes through the mean and variance of a batch norm in training mode, to
            the other samples, as torch's does; see `InputXGradient`, where it does not.
    """

    batch_statistics: bool = True

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return GradientMode(leaves, entries, create_graph, model, through=self.batch_statistics)


@dataclass(frozen=True, eq=False)
class _WithReference(Method):
    reference: float | Tensor | tuple | dict = 0.0

    def explanation(self, request: Request) -> Explanation:
        reference = mean_reference(references_of(self.reference, request.inputs))
        return one_pass(request, lambda *args: self._mode(*args, reference=reference))

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        reference = mean_reference(references_of(self.reference, Inputs(tuple(leaves))))
        return self._mode(leaves, entries, create_graph, model, reference=reference)

    def check(self, inputs: Inputs) -> None:
        references_of(self.reference, inputs)

    def rows(self, rows: slice, x: Form) -> Self:
        return type(self)(**{**vars(self), "reference": cut_reference(self.reference, rows, x)})


@dataclass(frozen=True, eq=False)
class InputXGradient(_WithReference):
    """Gradient times input: LRP-0 on ReLU networks, biases included.

    Args:
        reference: what is subtracted from the input, as for `DeepLift`; maps at layers are gradient times output.
        batch_statistics: whether the gradient passes through the mean and variance of a batch norm in training mode,
            to the other samples. As a rule they are constants to the map, as they are to LRP and DeepLIFT: else a
            sample's map is one of all samples' logits, and a network trained on it may look elsewhere once it is
            evaluated. (A norm that is written by hand, or scripted, or works across processes, as `SyncBatchNorm`
            does there, is not known as one, and keeps its derivative.)
    """

    batch_statistics: bool = False

    def _mode(self, *args, reference):
        return InputXGradientMode(*args, reference=reference, through=self.batch_statistics)


@dataclass(frozen=True, eq=False)
class GuidedBackprop(_WithReference):
    """Guided backprop (Springenberg et al. 2015) times input: negative gradients at activation functions dropped.

    Args:
        reference: what is subtracted from the input, as for `DeepLift`; maps at layers are gradient times output.
    """

    def _mode(self, *args, reference):
        return GuidedMode(*args, reference=reference)


def drop_negative(mode: Mode, call: Call):
    """The derivative, negative gradients dropped where they enter an activation function."""
    y = call.run(lambda t: t)
    if call.name == "hardsigmoid" and mode.create_graph:
        y = activation(mode, Call(F.hardsigmoid, (call.given["input"],), {}, mode.is_active))
    y = _DropNegative.apply(y, mode.backward)
    return write(call.tensors[0], y) if call.inplace else y


class GuidedMode(InputXGradientMode):
    """Guided backprop's rules."""

    table = GRADIENT | {"relus": drop_negative, "activations": drop_negative}
    opens, sees_all, title = True, True, "guided backprop"


class _DropNegative(Function):
    @staticmethod
    def forward(ctx, y, backward):
        ctx.rules = backward
        return y.view_as(y)

    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0) if ctx.rules.explaining else g, None


def _depends_only_on(leaves: list[Tensor], value: Tensor) -> bool:
    """Whether there is no leaf but these, as a parameter, that the value's gradient would reach."""
    inputs, nodes, seen = {id(leaf) for leaf in leaves}, [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if hasattr(node, "variable") and id(node.variable) not in inputs:
            return False
        seen.add(node)
        nodes += [following for following, _ in node.next_functions]
    return True
