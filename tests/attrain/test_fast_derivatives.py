"""Derivatives that are cheap to differentiate equal those of torch's own operations."""

import pytest
import torch

from attrain.engine.fast import derivatives

NORM = dict(rows=6, eps=1e-3)
PAIRS = {
    "gelu": (derivatives.gelu_multiplied, derivatives.plain_gelu_multiplied, {}),
    "layer norm": (derivatives.norm_multiplied, derivatives.plain_norm_multiplied, NORM | {"centred": True}),
    "rms norm": (derivatives.norm_multiplied, derivatives.plain_norm_multiplied, NORM | {"centred": False}),
    "softmax": (
        lambda g, x, dim: torch.autograd.grad(derivatives.softmax(x, dim), x, g, create_graph=True)[0],
        lambda g, x, dim: torch.autograd.grad(torch.softmax(x, dim), x, g, create_graph=True)[0],
        {"dim": 1},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_values_and_derivatives_equal_those_of_the_plain_twin(name):
    fast, plain, settings = PAIRS[name]
    g, x, weight = (torch.randn(2, 3, 5, dtype=torch.float64) for _ in range(3))
    g, x = g.requires_grad_(), x.requires_grad_()
    found, expected = fast(g, x, **settings), plain(g, x, **settings)
    assert torch.allclose(found, expected, rtol=1e-12)
    for f, e in zip(torch.autograd.grad(found, (g, x), weight), torch.autograd.grad(expected, (g, x), weight)):
        assert torch.allclose(f, e, rtol=1e-10)


@pytest.mark.parametrize("name", PAIRS)
def test_a_derivative_more_equals_that_of_the_plain_twin_too(name):
    fast, plain, settings = PAIRS[name]
    g, x = (torch.randn(2, 3, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    third = []
    for function in (fast, plain):
        gradients = torch.autograd.grad(function(g, x, **settings).square().sum(), (g, x), create_graph=True)
        third.append(torch.autograd.grad(sum(d.square().sum() for d in gradients), (g, x)))
    for found, expected in zip(*third):
        assert torch.allclose(found, expected, rtol=1e-10)


POINTS = {
    "apart": (torch.randn(4, 5), torch.randn(4, 5)),
    "one row for all": (torch.randn(1, 5), torch.randn(4, 5)),
    "equal in places": (
        torch.tensor([[1.0, -1.0, 0.0, 2.0]]),
        torch.tensor([[1.0, -1.0, 0.0, -3.0], [0.0, 0.0, 1.0, 2.0]]),
    ),
}


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize("name", POINTS)
def test_secants_of_relu_equal_those_of_the_plain_twin_with_their_derivatives(name, further):
    found, expected = [], []
    for function, results in ((derivatives.relu_secant, found), (derivatives.plain_relu_secant, expected)):
        a, b = (p.double().requires_grad_() for p in POINTS[name])
        results.append(function(a, b))
        gradients = torch.autograd.grad(results[0].square().sum(), (a, b), create_graph=further)
        results.extend(gradients)
        if further:
            results.extend(torch.autograd.grad(sum(g.square().sum() for g in gradients), (a, b)))
    for f, e in zip(found, expected):
        torch.testing.assert_close(f, e, rtol=1e-10, atol=1e-12)
