"""Parts of a model that Python cannot see are run as written, or refused; they never make a wrong map."""

import threading

import pytest
import torch
from torch import nn

from attrain import LRP, ZB, BCos, DeepLift, GuidedBackprop, UnsupportedOperation, explain, register_rule

METHODS = [GuidedBackprop(), LRP(), LRP(first_layer=ZB()), BCos(), DeepLift(), DeepLift(rule="reveal_cancel")]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__ + getattr(m, "rule", ""))


class ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class ReLUInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.clamp_(min=0))
        return x

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


@torch.overrides.wrap_torch_function(lambda x: (x,))
def twice(x):
    return Twice.apply(x)


class Between(nn.Module):
    """Two layers with an operation between them."""

    def __init__(self, operation):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.operation = nn.Linear(4, 5), nn.Linear(5, 3), operation
        self.double()

    def forward(self, x):
        return self.last(self.operation(self.first(x)))


x = torch.rand(3, 4, dtype=torch.float64)
UNSEEN = {
    "scripted": lambda: torch.jit.script(Between(nn.ReLU())),
    "traced": lambda: torch.jit.trace(Between(nn.ReLU()), x),
    "a scripted part": lambda: Between(torch.jit.script(nn.ReLU())),
    "autograd.Function": lambda: Between(ReLU.apply),
    "autograd.Function in place": lambda: Between(ReLUInPlace.apply),
    "a checkpoint": lambda: Between(lambda h: torch.utils.checkpoint.checkpoint(torch.relu, h, use_reentrant=True)),
    "the last operation": lambda: nn.Sequential(Between(nn.ReLU()), torch.jit.script(nn.Softplus())),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@methods
@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_seen_is_refused(method, name):
    with pytest.raises(UnsupportedOperation, match=r"cannot be seen|autograd\.Function|no rule"):
        explain(UNSEEN[name](), x, 0, method)


@methods
def test_a_registered_autograd_function_serves_every_method(method):
    register_rule(twice, "linear")
    known, own = Between(lambda h: torch.relu(2 * h)), Between(lambda h: torch.relu(twice(h)))
    torch.testing.assert_close(explain(own, x, 0, method).heatmap, explain(known, x, 0, method).heatmap)


@methods
def test_compiled_models_are_explained_as_they_were_written(method):
    plain = Between(nn.ReLU())
    compiled = torch.compile(plain, backend="eager")
    compiled(x)
    torch.testing.assert_close(explain(compiled, x, 0, method).heatmap, explain(plain, x, 0, method).heatmap)


def test_compiled_models_are_compiled_again_after_explain():
    calls = []

    def backend(graph, inputs):
        return lambda *args: calls.append(1) or graph(*args)

    model = torch.compile(Between(nn.ReLU()), backend=backend)
    model(x)
    explain(model, x, 0, LRP())
    with pytest.raises(ValueError):
        explain(model, x, 7, LRP())
    threads = [threading.Thread(target=explain, args=(model, x, 0, LRP())) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(calls) == 1
    model(x)
    assert len(calls) == 2


def test_constants_with_a_graph_of_their_own_are_no_concern():
    """A weight computed outside of the model, as by a hypernetwork, does not depend on the input."""
    scale = ReLU.apply(torch.ones(5, dtype=torch.float64, requires_grad=True))
    for method in METHODS:
        assert explain(Between(lambda h: torch.relu(h * scale)), x, 0, method).heatmap.shape == x.shape
