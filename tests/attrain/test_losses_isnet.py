"""Values from the authors' code (the paper's notes, b.7), an independent slow form, and properties."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from attrain import gwrp, isnet_background_loss, isnet_foreground_loss, isnet_loss
from attrain.masks import fit_mask

R = torch.tensor([[[1.0, -2.0], [3.0, -4.0]]], dtype=torch.float64)
M = torch.tensor([[[1, 0], [0, 1]]])


def slow_gwrp(values, decay):
    ranked = sorted(values.tolist(), reverse=True)
    weights = [decay**r for r in range(len(ranked))]  # 0**0 = 1
    return sum(w * v for w, v in zip(weights, ranked)) / sum(weights)


def slow_background_loss(heatmap, mask, decay, E):
    """The definition, image by image: (N, K, C, H, W), (N, H, W)."""
    losses = []
    for maps, m in zip(heatmap.abs(), mask.double()):
        terms = []
        for a in maps:
            mean = (a * m).sum() / (m.sum() * len(a))
            for channel in a / mean:
                b = slow_gwrp((channel * (1 - m)).flatten(), decay)
                s = b / (b + E)
                terms.append(-math.log(1 - s))
        losses.append(sum(terms) / len(terms))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize(
    ("E", "decay", "value"),
    [
        (1, 0, 0.788457), (1, 0.9, 0.443597), (1, 0.996, 0.406934), (1, 1, 0.405465),
        (10, 0, 0.113329), (10, 0.9, 0.054327), (10, 0.996, 0.049000), (10, 1, 0.048790),
    ],
)  # fmt: skip
def test_background_loss_equals_the_authors_values(E, decay, value):
    assert isnet_background_loss(R, M, decay=decay, E=E).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("C1", "C2", "form", "value"),
    [
        (1, 25, "L2", 0), (10, 25, "L2", 0.25), (1, 3, "L2", 4), (1, 2, "L2", 9),
        (1, 25, "hybrid", 0), (10, 25, "hybrid", 0.25), (1, 3, "hybrid", 2), (1, 2, "hybrid", 3),
    ],
)  # fmt: skip
def test_foreground_loss_equals_the_authors_values(C1, C2, form, value):
    assert isnet_foreground_loss(R, M, C1=C1, C2=C2, form=form).item() == pytest.approx(value, abs=1e-6)


def test_total_equals_the_authors_value():
    assert isnet_loss(R, M, C1=10, C2=25, w2=3).item() == pytest.approx(1.193597, abs=1e-6)


def waves():
    """Two maps of three channels for each of two samples, with both signs, and a mask."""
    i = torch.arange(2 * 2 * 3 * 4 * 6, dtype=torch.float64)
    heatmap = (torch.sin(1.7 * i) * (1 + i % 5) / 3).reshape(2, 2, 3, 4, 6)
    return heatmap.float(), (torch.arange(48) * 7 % 10 < 4).reshape(2, 4, 6)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"w2": 0}, [0.735952, 0.828969]),
        ({"w2": 0, "decay": 0.0}, [1.243549, 1.297710]),
        ({"w2": 0, "decay": 1.0, "E": 10}, [0.057709, 0.070067]),
        ({"w1": 0, "C1": 20, "C2": 30}, [0.006047, 0.051678]),
        ({"w1": 0, "C1": 1, "C2": 5}, [195.878296, 113.133774]),
        ({"w1": 0, "C1": 1, "C2": 5, "form": "hybrid"}, [13.948493, 10.582088]),
        ({"w1": 0, "C1": [30, 1], "C2": [40, 6]}, [69.680580, 36.293785]),
        ({"decay": 0.996, "E": 2, "C1": 20, "C2": 25, "w2": 3}, [0.284907, 0.471965]),
    ],
)
def test_loss_of_several_maps_and_channels_equals_what_the_authors_code_returns(options, values):
    loss = isnet_loss(*waves(), **options, reduction="none")
    assert loss.tolist() == pytest.approx(values, rel=1e-5, abs=1e-6)


def test_loss_with_a_larger_mask_equals_what_the_authors_code_returns():
    heatmap, mask = waves()
    mask = mask.repeat_interleave(3, 1).repeat_interleave(3, 2)
    loss = isnet_loss(heatmap, mask, C1=1, C2=5, reduction="none")
    assert loss.tolist() == pytest.approx([196.614243, 113.962746], rel=1e-5)


def test_loss_of_a_map_with_nan_and_infinities_equals_what_the_authors_code_returns():
    heatmap, mask = waves()
    heatmap[0, 0, 0, 0, 0] = heatmap[1, 1, 1] = math.nan
    heatmap[0, 1, 2, 3, 1], heatmap[1, 0, 1, 2, 2] = math.inf, -math.inf
    loss = isnet_loss(heatmap, mask, C1=1, C2=5, reduction="none")
    assert loss.tolist() == pytest.approx([204.924271, 79.828659], rel=1e-5)


def test_a_map_of_nothing_but_nan_has_a_finite_loss_and_no_gradient():
    heatmap = torch.full((1, 2, 2), math.nan, requires_grad=True)
    loss = isnet_loss(heatmap, M)
    loss.backward()
    assert loss.isfinite() and heatmap.grad.abs().sum() == 0


@pytest.mark.parametrize("loss", [isnet_background_loss, isnet_foreground_loss, isnet_loss])
def test_autocast_changes_no_digit(loss):
    heatmap, mask = waves()
    expected = loss(heatmap, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(heatmap, mask)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_hybrid_is_continuous_where_it_turns_linear():
    maps = torch.tensor([0.06 + 0.95 - 1e-9, 0.06 + 0.95 + 1e-9], dtype=torch.float64).reshape(2, 1, 1)
    below, above = isnet_foreground_loss(maps, torch.ones(2, 1, 1), C1=0.06, C2=0.95, form="hybrid", reduction="none")
    assert below.item() == pytest.approx(above.item(), abs=1e-6)
    assert above.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.996, 1.0])
@pytest.mark.parametrize("E", [0.5, 1.0])
def test_background_loss_equals_the_slow_definition(decay, E):
    heatmap = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64)
    mask = torch.rand(3, 5, 4) > 0.5
    fast = isnet_background_loss(heatmap, mask, decay=decay, E=E, reduction="none")
    torch.testing.assert_close(fast, slow_background_loss(heatmap, mask, decay, E), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("n", [1, 7, 300, 1000])
def test_gwrp_is_exact_to_rounding_for_every_decay(dtype, decay, n):
    values = torch.rand(2, n, dtype=dtype)
    expected = torch.tensor([slow_gwrp(v, decay) for v in values], dtype=dtype)
    torch.testing.assert_close(gwrp(values, decay), expected, rtol=20 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["torch sorts", "numpy sorts"])
@pytest.mark.parametrize("decay", [0.5, 0.99], ids=["some", "all"])
def test_gwrps_gradient_is_the_weight_of_the_rank_and_nan_is_not_lost(dtype, decay):
    values = torch.randperm(200, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(gwrp(values, decay), values)
    expected = decay ** (199 - values.detach().double())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected / expected.sum(), rtol=4 * eps, atol=eps)
    for nan in (math.nan, -math.nan, values.new_tensor(math.inf) * 0):
        assert gwrp(values.detach().index_fill(0, torch.tensor([3]), nan), decay).isnan()


def test_gwrp_can_be_transformed_by_torch_func():
    values = torch.rand(3, 300)
    torch.testing.assert_close(torch.func.vmap(lambda v: gwrp(v, 0.9))(values), gwrp(values, 0.9))
    leaf = values.clone().requires_grad_()
    (expected,) = torch.autograd.grad(gwrp(leaf, 0.9).sum(), leaf)
    torch.testing.assert_close(torch.func.grad(lambda v: gwrp(v, 0.9).sum())(values), expected)


@pytest.mark.parametrize("shape", [(5, 300), (2, 3, 7), (3, 400_000), (0, 4)], ids=str)
@pytest.mark.parametrize("kind", ["zeros", "equals", "negative", "infinite", "strided"])
def test_gwrp_is_that_of_the_sorted_values(shape, kind):
    """Whoever sorts: few values or many, equal ones, and those below zero as long as all are sorted."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    decay = 0.999999 if kind == "negative" else 0.9
    match kind:
        case "zeros":
            values = values * (values > 0.8)
        case "equals":
            values = (values * 5).round() / 5
        case "negative":
            values = values - 0.5
        case "infinite":
            values[..., 1] = math.inf
        case "strided":
            values = values.transpose(0, 1).contiguous().transpose(0, 1)
    weights = decay ** torch.arange(shape[-1], dtype=torch.float64)
    expected = (values.double().sort(descending=True).values * (weights / weights.sum())).sum(-1)
    torch.testing.assert_close(gwrp(values, decay), expected.float(), rtol=1e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(decay=st.floats(0, 1), seed=st.integers(0, 2**16), n=st.integers(1, 60))
def test_gwrp_lies_between_mean_and_maximum_and_ignores_order(decay, seed, n):
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(n, generator=g, dtype=torch.float64)
    pooled = gwrp(values, decay)
    assert values.mean() - 1e-12 <= pooled <= values.max() + 1e-12
    torch.testing.assert_close(pooled, gwrp(values[torch.randperm(n, generator=g)], decay))


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**16))
def test_background_loss_ignores_scale_sign_and_order_of_samples(scale, seed):
    g = torch.Generator().manual_seed(seed)
    heatmap = torch.randn(4, 2, 3, 3, generator=g, dtype=torch.float64)
    mask = torch.zeros(4, 3, 3, dtype=torch.bool)
    mask[:, 1, 1:] = True
    losses = isnet_background_loss(heatmap, mask, reduction="none")
    scaled = isnet_background_loss(-scale * heatmap, mask, reduction="none")
    torch.testing.assert_close(scaled, losses, rtol=1e-4, atol=0)  # the 1e-10 in the denominators
    torch.testing.assert_close(isnet_background_loss(heatmap.flip(0), mask.flip(0), reduction="none"), losses.flip(0))


@pytest.mark.parametrize("loss", [isnet_background_loss, isnet_foreground_loss, isnet_loss])
def test_gradients_are_right(loss):
    heatmap = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(2, 3, 4)
    mask[:, :2, 1:3] = 1
    assert gradcheck(lambda h: loss(h, mask), heatmap)


def test_background_loss_keeps_its_gradient_where_the_foreground_has_none():
    heatmap = torch.tensor([[[0.0, 1.0]]], dtype=torch.float64, requires_grad=True)
    isnet_background_loss(heatmap, torch.tensor([[[1, 0]]])).backward()
    assert heatmap.grad.abs().sum() > 0


def test_full_mask_has_no_background_loss():
    assert isnet_background_loss(R, torch.ones(1, 2, 2)).item() == 0


def test_a_full_mask_takes_its_image_out_of_the_background_loss_only():
    maps, mask = R.repeat(2, 1, 1), torch.cat([M, torch.ones_like(M)])
    assert isnet_background_loss(maps, mask, reduction="none")[1] == 0
    assert isnet_foreground_loss(maps, mask, C1=20, C2=25, reduction="none")[1].item() == pytest.approx(0.25)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions_agree_with_none(reduction):
    heatmap, mask = torch.randn(3, 1, 4, 4), torch.ones(3, 4, 4)
    mask[:, 0] = 0
    per_sample = isnet_loss(heatmap, mask, reduction="none")
    assert per_sample.shape == (3,)
    torch.testing.assert_close(isnet_loss(heatmap, mask, reduction=reduction), getattr(per_sample, reduction)())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_computed_in_float32(dtype):
    loss = isnet_loss(R.to(dtype), M)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(isnet_loss(R, M).item(), rel=1e-5)


def test_nan_counts_as_mean_foreground_relevance_and_infinity_as_the_largest():
    heatmap = torch.tensor([[[1.0, 3.0], [math.nan, math.inf]]], dtype=torch.float64)
    mask = torch.tensor([[[1, 1], [0, 0]]])
    filled = torch.tensor([[[1.0, 3.0], [2.0, 3.0]]], dtype=torch.float64)
    assert isnet_loss(heatmap, mask).item() == pytest.approx(isnet_loss(filled, mask).item())


def test_mask_of_another_size_is_pooled_so_that_any_foreground_counts():
    mask = torch.zeros(1, 4, 4)
    mask[0, 0, 0] = 1
    assert fit_mask(mask, torch.zeros(1, 2, 2)).tolist() == [[[1, 0], [0, 0]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: isnet_background_loss(R, torch.zeros(1, 2, 2)), r"no foreground for sample\(s\) \[0\]"),
        (lambda: isnet_background_loss(R, 2 * torch.ones(1, 2, 2)), "only 0 .* and 1"),
        (lambda: isnet_background_loss(R, torch.ones(2, 2, 2)), "mask must be"),
        (lambda: isnet_background_loss(R[0], M), "heatmap must be"),
        (lambda: isnet_background_loss(R, M, decay=1.1), "decay must be in"),
        (lambda: isnet_background_loss(R, M, E=0), "E must be > 0"),
        (lambda: isnet_background_loss(R, M, reduction="max"), "reduction must be"),
        (lambda: isnet_foreground_loss(R, M, C1=2, C2=1), "C1 and C2 must satisfy"),
        (lambda: isnet_foreground_loss(R, M, C1=[1, 2], C2=9), "one for each of 1 maps"),
        (lambda: isnet_foreground_loss(R, M, C1=math.nan, C2=9), "C1 and C2 must satisfy"),
        (lambda: isnet_foreground_loss(R, M, form="L3"), "form must be"),
        (lambda: isnet_loss(R, torch.full((1, 2, 2), math.nan)), "only 0 .* and 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
