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
