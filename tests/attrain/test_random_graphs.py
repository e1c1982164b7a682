"""Random networks of layers, selections, constants, writes in place and reuse: each map is right, or refused."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.attrain import oracles
from tests.attrain.oracles import EPSILON, METHODS, attempt, autograd_or_refuses, close, complete_or_refuses, inputs

WIDTH = 5
LAYERS = [torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(3)]
CONSTANT = torch.linspace(-1, 1, WIDTH, dtype=torch.float64)


def _written(target: Tensor, place, value: Tensor) -> Tensor:
    target[place] = value
    return target


def _zeros(a):
    return torch.zeros(a.shape, dtype=a.dtype)


def _ungraded(f, a):
    with torch.no_grad():
        return f(a)


# name: a function of two activations, and the sum that is written to. Of a ReLU network, and of others.
FOR_RELU = {
    "linear": lambda a, b, s: F.linear(a, LAYERS[0], CONSTANT),
    "linear, by name": lambda a, b, s: F.linear(input=a, weight=LAYERS[1], bias=CONSTANT),
    "relu": lambda a, b, s: s.relu(a),
    "add": lambda a, b, s: a + b,
    "add, by name": lambda a, b, s: torch.add(a, other=b),
    "sub": lambda a, b, s: a - b,
    "add_": lambda a, b, s: a.clone().add_(b),
    "a constant": lambda a, b, s: a * 2.0 + CONSTANT,
    "zeros += a": lambda a, b, s: _zeros(a).add_(a),
    "zeros[:, :3] = a": lambda a, b, s: _written(_zeros(a), (slice(None), slice(0, 3)), a[:, :3]),
    "b[:, 1] = a": lambda a, b, s: _written(b.clone(), (slice(None), 1), a[:, 2]),
    "zeros.view": lambda a, b, s: (c := _zeros(a), c.view(-1)[2:].add_(a.reshape(-1)[2:]))[0],
    "index_add": lambda a, b, s: _zeros(a).index_add_(1, torch.tensor([1, 0, 1, 2, 4]), a),
    "scatter_add": lambda a, b, s: b.scatter_add(1, torch.tensor([1, 0, 1, 2, 4]).expand(a.shape), a),
    "cat": lambda a, b, s: torch.cat([a[:, 2:], b[:, :2]], 1),
    "flip": lambda a, b, s: a.flip(1),
    "roll": lambda a, b, s: a.roll(1, 1),
    "cumsum": lambda a, b, s: a.cumsum(1) / 2,
    "gather": lambda a, b, s: a.gather(1, torch.tensor([4, 3, 3, 0, 1]).expand(a.shape)),
    "max_pool": lambda a, b, s: F.max_pool1d(a[:, None], 3, 1, 1)[:, 0],
    "amax": lambda a, b, s: torch.stack([a, b]).amax(0),
    "mean": lambda a, b, s: a.mean(1, keepdim=True).expand(-1, WIDTH),
    "stack, sum": lambda a, b, s: torch.stack([a, b], 1).sum(1),
    "transpose": lambda a, b, s: a.T.contiguous().mT,
    "masked": lambda a, b, s: a.masked_fill(CONSTANT > 0, 0.5),
    "reshape": lambda a, b, s: a.reshape(-1, 1, WIDTH)[:, 0],
    "the sum += a": lambda a, b, s: s.write(a),
    "the sum": lambda a, b, s: s.total.clone(),
}  # fmt: skip
OTHERS = {
    "tanh": lambda a, b, s: a.tanh(),
    "sigmoid_": lambda a, b, s: a.clone().sigmoid_(),
    "gelu": lambda a, b, s: F.gelu(a),
    "softplus": lambda a, b, s: F.softplus(a),
    "softmax": lambda a, b, s: a.softmax(1),
    "layer_norm": lambda a, b, s: F.layer_norm(a, (WIDTH,)),
    "mul": lambda a, b, s: a * b,
    "div": lambda a, b, s: a / (1 + b * b),
    "a * b * a": lambda a, b, s: torch.einsum("ni,ni,ni->ni", a, b, a),
    "matmul": lambda a, b, s: (a[:, None] @ (b[:, :, None] * CONSTANT))[:, 0],
    "maximum": lambda a, b, s: torch.maximum(a, b),
    "where": lambda a, b, s: torch.where(a > 0, a, b),
    "where, by another": lambda a, b, s: torch.where(b > 0.5, a, CONSTANT),
    "masked_fill": lambda a, b, s: a.masked_fill(b > 0, 0.0),
    "a[b > 0] = 0": lambda a, b, s: _written(a.clone(), b > 0, 0.0),
    "a * (b > 0)": lambda a, b, s: a * (b > 0),
    "a * (b > 0).to": lambda a, b, s: a * (b > 0).to(a.dtype),
    "a > b": lambda a, b, s: (a > b).double(),
    "argmax": lambda a, b, s: a * F.one_hot(b.argmax(1), WIDTH),
    "argmax's number": lambda a, b, s: a + b.argmax(1, keepdim=True),
    "sort by gather": lambda a, b, s: a.gather(1, b.argsort(1)),
    "long": lambda a, b, s: a + (2 * b).long(),
    "round": lambda a, b, s: a.round() + b,
    "detach": lambda a, b, s: a.detach() + 1,
    "a * b.detach()": lambda a, b, s: a * b.detach(),
    "no_grad": lambda a, b, s: _ungraded(torch.sigmoid, a) * b,
    "data": lambda a, b, s: a.data * 0.5,
    "a copy": lambda a, b, s: _zeros(a).copy_(a).tanh(),
    "a copy of detached": lambda a, b, s: _zeros(a).copy_(a.detach()),
    "numpy": lambda a, b, s: a + torch.from_numpy(b.detach().numpy() * 2),
    "if": lambda a, b, s: 2 * a if a.sum() > 1 else b,
    "a number": lambda a, b, s: a * float(b.detach().amax()),
    "clamp": lambda a, b, s: a.clamp(-0.5, 0.5),
    "abs": lambda a, b, s: a.abs(),
    "norm": lambda a, b, s: F.normalize(a + 2, dim=1),
}  # fmt: skip
OPERATIONS = FOR_RELU | OTHERS
MIXES_SAMPLES = ("if", "a number", "zeros.view")


class Program(nn.Module):
    """Steps, each of an operation on two of the values made so far; all values are read in the end.

    `relu` and `total` are what an operation may use: the ReLU, and a constant that steps write to.
    """

    def __init__(self, steps: list[tuple[str, int, int]], relu=torch.relu):
        super().__init__()
        self.steps, self.relu = steps, relu
        generator = torch.Generator().manual_seed(9)
        self.weight = torch.randn(2, WIDTH * (len(steps) + 1), generator=generator, dtype=torch.float64)

    def write(self, value: Tensor) -> Tensor:
        self.total += value
        return self.total * 0.5

    def forward(self, x: Tensor) -> Tensor:
        self.total = _zeros(x)
        values = [F.linear(x, LAYERS[2], CONSTANT)]
        for name, i, j in self.steps:
            values.append(OPERATIONS[name](values[i % len(values)], values[j % len(values)], self))
        self.total = None
        return F.linear(torch.cat([v.to(x.dtype) for v in values], 1), self.weight)


def steps(names, most: int = 6):
    numbers = st.integers(0, most)
    return st.lists(st.tuples(st.sampled_from(list(names)), numbers, numbers), min_size=1, max_size=most)


def often(n: int):
    return settings(
        max_examples=n, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


X, R = inputs(3, WIDTH)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@often(120)
@given(steps=steps(OPERATIONS))
def test_deeplift_of_any_network_is_complete_or_refused(rule, steps):
    alone = not any(name in MIXES_SAMPLES for name, _, _ in steps)
    complete_or_refuses(Program(steps), X, R, rule, independent=alone)


@often(120)
@given(steps=steps(FOR_RELU))
def test_deeplift_of_relu_networks_is_complete(steps):
    assert complete_or_refuses(Program(steps), X, R) == "right"


@often(100)
@given(steps=steps([n for n in OPERATIONS if n != "numpy"]))
def test_gradients_of_any_network_are_autograds(steps):
    autograd_or_refuses(Program(steps), X)


@often(120)
@given(steps=steps(FOR_RELU))
def test_lrp_of_relu_networks_is_the_twins_by_hand(steps):
    wanted = X * oracles.gradient_by_autograd(Program(steps, oracles.epsilon_relu), X)
    found = attempt(lambda: oracles.map_of(Program(steps), X, METHODS["lrp"]))
    assert not isinstance(found, str), found
    close(found, wanted, f"LRP with ε = {EPSILON}")


@pytest.mark.parametrize("name", ["lrp", "zplus"])
@often(80)
@given(
    steps=steps([n for n in FOR_RELU if n != "the sum"], 3),
    other=st.sampled_from(list(OTHERS)),
    i=st.integers(0, 4),
    j=st.integers(0, 4),
)
def test_relevance_refuses_whatever_is_not_of_a_relu_network(name, steps, other, i, j):
    found = attempt(lambda: oracles.map_of(Program([*steps, (other, i, j), ("linear", -1, 0)]), X, METHODS[name]))
    assert isinstance(found, str), f"a map of a network with {other}"


@often(60)
@given(steps=steps(OPERATIONS))
def test_samples_have_their_own_maps(steps):
    if any(name in MIXES_SAMPLES for name, _, _ in steps):
        return
    method = oracles.with_reference(METHODS["rescale"], R)
    together = attempt(lambda: oracles.map_of(Program(steps), X, method))
    if not isinstance(together, str):
        close(oracles.map_of(Program(steps), X[1:2], method), together[1:2], "a sample alone")
