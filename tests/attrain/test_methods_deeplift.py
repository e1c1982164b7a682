"""DeepLIFT: values of the paper and its code, the definition layer by layer, captum where it is right, and its laws."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

from attrain import (
    LRP,
    DeepLift,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    UnsupportedOperation,
    explain,
    mean_normalised_target,
    register_rule,
    selective_target,
)
from tests.attrain.oracles import frozen

RULES = ["rescale", "reveal_cancel"]


class Fn(nn.Module):
    """A network spelled as a function of x."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def contributions(f, x, reference=0.0, rule="rescale", target=0):
    """One sample's map."""
    model = f if isinstance(f, nn.Module) else Fn(f)
    x = x if isinstance(x, torch.Tensor) else t(*x)
    reference = reference if isinstance(reference, float) else t(*reference)[None]
    result = explain(model, x[None], target, DeepLift(reference, rule))
    torch.testing.assert_close(result.heatmap.sum()[None], result.delta)
    return result.heatmap[0]


def close(found, expected, atol=1e-6):
    expected = expected if isinstance(expected, torch.Tensor) else t(*expected)
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def dense(weight, bias=None):
    """x ↦ x·W + b, W with a column a unit."""
    weight = torch.tensor(weight, dtype=torch.float64)
    layer = nn.Linear(*weight.shape).double()
    layer.weight.data, layer.bias.data = weight.T.contiguous(), t(*(bias or [0.0] * weight.shape[1]))
    return layer


# ---------------------------------------------------------------- golden values (paper, reference code, its issues)


@pytest.mark.parametrize(("x", "share"), [((1, 1, 1, 1), (0.9, 0.1)), ((2, 2, 2, 2), (0.95, 0.05))])
def test_golden_1_rescale_multipliers_of_a_dense_layer(x, share):
    w = t(1, 2, 3, 4)
    net = nn.Sequential(dense(torch.stack([w, -w], 1).tolist(), [-1, 1]), nn.ReLU())
    for unit, sign in enumerate((1, -1)):
        close(contributions(net, x, target=unit), share[unit] * sign * w * t(*x))


def test_golden_2_reveal_cancel_of_a_dense_layer():
    net = nn.Sequential(dense([[1.0], [-2.0], [-3.0], [4.0]], [1]), nn.ReLU())
    found = contributions(net, (-1, -1, 1, 1), rule="reveal_cancel")
    close(found, (-0.625, 1.5, -1.875, 3.0))


def test_golden_3_parts_that_cancel_still_have_effects():
    shallow = nn.Sequential(dense([[1.0], [-1.0]]), nn.ReLU(), dense([[2.0]]))
    close(contributions(shallow, (1, 1)), (0, 0))
    close(contributions(shallow, (1, 1), rule="reveal_cancel"), (1, -1))
    deep = nn.Sequential(dense([[1.0, 1], [-1, 1]]), nn.ReLU(), dense([[2.0], [1]], [-1]), nn.ReLU())
    close(contributions(deep, (1, 1)), (0.5, 0.5))
    close(contributions(deep, (1, 1), rule="reveal_cancel"), (1, 0))
    close(explain(deep, t(1, 1)[None], 0, InputXGradient()).heatmap[0], (1, 1))

    def spelled(x):
        z, s = (x[:, :1] - x[:, 1:]).relu(), (x[:, :1] + x[:, 1:]).relu()
        return (2 * z + s - 1).relu()

    close(contributions(spelled, (1, 1), rule="reveal_cancel"), (1, 0))


MINIMUM = [lambda x: x[:, :1] - F.relu(x[:, :1] - x[:, 1:]), lambda x: torch.minimum(x[:, :1], x[:, 1:])]


@pytest.mark.parametrize("minimum", MINIMUM)
@pytest.mark.parametrize(
    ("x", "rescale", "reveal"),
    [
        ((3, 2), (0, 2), (1, 1)),
        ((2, 3), (2, 0), (1, 1)),
        ((5, 1), (0, 1), (0.5, 0.5)),
    ],
)
def test_golden_4_minimum(minimum, x, rescale, reveal):
    close(contributions(minimum, x), rescale)
    close(contributions(minimum, x, rule="reveal_cancel"), reveal)


@pytest.mark.parametrize(("minimum", "rescale"), [*zip(MINIMUM, ((1, 0), (0.5, 0.5)))])
def test_golden_4_a_tie_goes_to_the_first_as_the_paper_writes_minimum_and_to_both_as_torch_does(minimum, rescale):
    close(contributions(minimum, (1, 1)), rescale)
    close(contributions(minimum, (1, 1), rule="reveal_cancel"), (0.5, 0.5))


@pytest.mark.parametrize(
    ("x", "expected"),
    [((1, 1), (0.5, 0.5)), ((1, 0), (1, 0)), ((0.5, 0.25), (0.5, 0.25)), ((2, 1), (2 / 3, 1 / 3))],
)
@pytest.mark.parametrize("rule", RULES)
def test_golden_5_saturation(x, expected, rule):
    close(contributions(lambda x: 1 - F.relu(1 - x[:, :1] - x[:, 1:]), x, rule=rule), expected)


@pytest.mark.parametrize(("x", "expected"), [(9, 0), (10, 0), (10.001, 0.001), (12, 2), (20, 10)])
def test_golden_6_threshold(x, expected):
    close(contributions(lambda x: F.relu(x - 10), (x,)), (expected,))


@pytest.mark.parametrize(
    ("x", "reference", "rescale", "reveal"),
    [
        ((2, 1), 0.0, (-9.142857, 1.142857), (-7.142857, -0.857143)),
        ((2, 1), (1, -1), (-2, -6), (-3.5, -4.5)),
        ((-1, 2), 0.0, (2, 4), (2.5, 3.5)),
        ((1, 0), (1, -1), (0, -3), (0, -3)),
    ],
)
def test_golden_7_one_hidden_layer(x, reference, rescale, reveal):
    net = nn.Sequential(dense([[1.0, 3, -1], [-2, 1, 1]], [0, -1, 1]), nn.ReLU(), dense([[1.0], [-1], [2]], [0.5]))
    close(contributions(net, x, reference), rescale)
    close(contributions(net, x, reference, "reveal_cancel"), reveal)
    close(contributions(net, x, reference, "genomics"), reveal)


@pytest.mark.parametrize(
    ("x", "reference", "rescale", "reveal"),
    [
        ((3, 2), 0.0, (1.673077, 3.326923), (3.75, 1.25)),
        ((1, 2), 0.0, (1, 1), (0.666667, 1.333333)),
        ((2, -1), (-1, 1), (-4.2, 3.2), (-1.95, 0.95)),
    ],
)
def test_golden_8_two_hidden_layers(x, reference, rescale, reveal):
    first, second = dense([[1.0, 2], [-1, 1]], [0, -1]), dense([[1.0, -1], [-2, 1]], [1, 0])
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(inplace=True), dense([[1.0], [1]]))
    close(contributions(net, x, reference), rescale)
    close(contributions(net, x, reference, "reveal_cancel"), reveal)


@pytest.mark.parametrize(
    ("f", "rescale", "reveal"),
    [
        (torch.sigmoid, (0.34445, -0.086113), (0.34124, -0.082902)),
        (torch.tanh, (0.669214, -0.167303), (0.744262, -0.242352)),
        (F.elu, (2, -0.5), (2, -0.5)),
    ],
)
def test_golden_9_smooth_activations(f, rescale, reveal):
    net = nn.Sequential(dense([[2.0], [-1.0]], [0.5]), Fn(f))
    close(contributions(net, (1, 0.5)), rescale, 1e-5)
    close(contributions(net, (1, 0.5), rule="reveal_cancel"), reveal, 1e-5)


@pytest.mark.parametrize(("x", "rescale", "reveal"), [((3, 1), (3, -1), (2.5, -0.5)), ((1, -2), (1, 2), (-0.5, 3.5))])
def test_golden_10_batch_norm(x, rescale, reveal):
    norm = nn.BatchNorm1d(2, eps=0).double().eval()
    norm.weight.data, norm.bias.data = t(2, -2), t(1, -1)
    norm.running_mean, norm.running_var = t(1, -1), t(4, 1)
    net = nn.Sequential(dense([[1.0, 2], [-1, 1]]), norm, nn.ReLU(), dense([[1.0], [3]])).eval()
    close(contributions(net, x), rescale)
    close(contributions(net, x, rule="reveal_cancel"), reveal)
    close(contributions(net, x, rule="genomics"), reveal)


@pytest.mark.parametrize(
    ("x", "reference", "expected"),
    [
        ((1, 1, 1, 1), (1, 2, 3, 9), (0, 0, 0, -8)),
        ((3, 0, 1, 2), (0, 0, 0, 0), (3, 0, 0, 0)),
        ((3, 0, 1, 2), (1, 2, 0, 0), (1, 0, 0, 0)),
        ((0, 5, 1, 2), (4, 1, 0, 0), (0, 1, 0, 0)),
    ],
)
@pytest.mark.parametrize(
    "f",
    [lambda x: F.max_pool1d(x[:, None], 4)[:, 0], lambda x: x.amax(1, keepdim=True), lambda x: x.max(1)[0][:, None]],
)
def test_golden_11_cross_max(f, x, reference, expected):
    close(contributions(f, x, reference), expected)


def test_golden_12_positive_and_negative_parts_of_a_convolution():
    kernel = t(-2, -1, 0, 1).view(2, 2)  # (channel, width)
    weight = torch.stack([kernel, -kernel])
    x = torch.arange(-8.0, 8).double().view(2, 2, 4)
    d = x - 1
    total, size = F.conv1d(d, weight), F.conv1d(d.abs(), weight.abs())
    positive, negative = (total + size) / 2, (total - size) / 2
    expected = t(26, 23, 20, 4, 3, 2, 6, 5, 6, 0, 1, 4).view(2, 2, 3)
    close(positive, expected)
    close(negative, t(-4, -3, -2, -26, -23, -20, 0, -1, -4, -6, -5, -6).view(2, 2, 3))
    # RevealCancel of relu(conv) is its mean of secants of these parts
    net = nn.Sequential(nn.Conv1d(2, 2, 2, bias=False), nn.ReLU(), nn.Flatten()).double()
    net[0].weight.data = weight
    start = F.conv1d(torch.ones_like(x), weight)
    up = (start + positive).relu() - start.relu() + (start + total).relu() - (start + negative).relu()
    result = explain(net, x, "all", DeepLift(torch.ones(1, 2, 4), "reveal_cancel"))
    parts = (up / 2).flatten(1)
    down = result.delta - parts
    expected = torch.stack([_conv_contributions(weight, d[i], parts[i], down[i]) for i in range(2)])
    close(result.heatmap, expected)


def _conv_contributions(weight, d, up, down):
    """Effects of a unit's positive and negative part, shared among its terms in proportion."""
    out = torch.zeros(6, 2, 4, dtype=torch.float64)
    for unit in range(6):
        filter_, position = divmod(unit, 3)
        terms = weight[filter_] * d[:, position : position + 2]
        for sign, effect in ((1, up[unit]), (-1, down[unit])):
            part = (sign * terms).clamp(min=0)
            if part.sum() > 0:
                out[unit, :, position : position + 2] += effect * part / part.sum()
    return out


def test_golden_13_overlapping_pools():
    x = t(0, 1, 4, 3, 3, 2, 1, 0).view(2, 4)
    weights = t(2, 3)[:, None]
    for pool, multipliers in ((F.max_pool1d, (0, 1, 2, 0, 1, 1, 1, 0)), (F.avg_pool1d, (0.5, 1, 1, 0.5) * 2)):
        net = Fn(lambda x, pool=pool: (pool(x, 2, 1) * weights).sum((1, 2))[:, None])
        expected = (t(*multipliers).view(2, 4) * weights * x)[None]
        torch.testing.assert_close(explain(net, x[None], 0, DeepLift()).heatmap, expected)


def test_golden_14_captums_relu_model():
    close(contributions(lambda x: 2 * F.relu(x[:, :1]) + 2 * F.relu(x[:, 1:] - 1.5), (1, 2)), (2, 1))


def test_golden_15_integrated_gradients_midpoint_rule():
    net = Fn(lambda x: F.relu(2.5 - x[:, :1] - 4 * x[:, 1:]))
    result = explain(net, t(1.1, 1.1)[None], 0, IntegratedGradients(0.1, 10))
    close(result.heatmap[0], (-0.4, -1.6))
    close(result.delta, (-2.0,))
    saturating = Fn(lambda x: 1 - F.relu(1 - x[:, :1] - x[:, 1:]))
    close(explain(saturating, t(2, 1)[None], 0, IntegratedGradients()).heatmap[0], (0.6, 0.3))


def test_golden_16_softmax_normalised_contributions():
    net = nn.Linear(4, 2, bias=False).double()
    net.weight.data = t(1, 1, 0, -1, 1, 0, 1, -3).view(2, 4)
    maps = explain(net, torch.ones(1, 4).double(), "all", DeepLift()).heatmap
    close((maps - maps.mean(1, keepdim=True))[0], t(0, 0.5, -0.5, 1, 0, -0.5, 0.5, -1).view(2, 4))


# ---------------------------------------------------------------- the definition, layer by layer


def oracle(net, x, reference, target, rules):
    """Multipliers by the paper's rules on the two parts, for a chain of Linear, Conv1d, Flatten and nonlinearities.

    `rules` names the rule of each nonlinearity. Slow: a linear layer is a matrix, in its four parts.
    """
    values = [(x, reference)]
    parts = [((x - reference).clamp(min=0), (x - reference).clamp(max=0))]
    kept = []
    rules = iter(rules)
    for layer in net:
        (a, r), (p, n) = values[-1], parts[-1]
        y, y0 = layer(a), layer(r)
        if isinstance(layer, nn.Flatten):
            p, n = layer(p), layer(n)
            kept.append((layer, a.shape))
        elif isinstance(layer, (nn.Linear, nn.Conv1d)):
            basis = torch.eye(a[0].numel(), dtype=a.dtype).view(-1, *a.shape[1:])
            matrix = (layer(basis) - layer(torch.zeros_like(basis[:1]))).flatten(1)
            terms = (a - r).flatten(1)[:, :, None] * matrix
            p, n = terms.clamp(min=0).sum(1).view_as(y), terms.clamp(max=0).sum(1).view_as(y)
            kept.append((layer, (matrix, (a - r))))
        elif next(rules) == "rescale":
            s = torch.where(a == r, 0, (y - y0) / (a - r))
            kept.append(("parts", (s, s)))
            p, n = s * p, s * n
        else:
            p, n = p + 1e-7 * (p < 5e-8), n + 1e-7 * (n > -5e-8)  # the reference code's guard
            up = (layer(r + p) - y0 + layer(r + p + n) - layer(r + n)) / 2
            down = (layer(r + n) - y0 + layer(r + p + n) - layer(r + p)) / 2
            kept.append(("parts", (up / p, down / n)))
            p, n = up, down
        values.append((y, y0))
        parts.append((p, n))
    m_p = torch.zeros_like(values[-1][0])
    m_p[:, target] = 1
    m_n = m_p
    for layer, saved in reversed(kept):
        if layer == "parts":
            m_p, m_n = saved[0] * m_p, saved[1] * m_n
        elif isinstance(layer, nn.Flatten):
            m_p, m_n = m_p.view(saved), m_n.view(saved)
        else:
            matrix, d = saved
            m_p, m_n, flat = m_p.flatten(1), m_n.flatten(1), d.flatten(1)
            positive, negative = matrix.clamp(min=0), matrix.clamp(max=0)
            rising, falling = m_p @ positive.T + m_n @ negative.T, m_p @ negative.T + m_n @ positive.T
            m = torch.where(flat > 0, rising, torch.where(flat < 0, falling, (rising + falling) / 2))
            m_p = m_n = m.view_as(d)
    return m_p * (x - reference)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.ELU, nn.LeakyReLU])
@pytest.mark.parametrize(("rule", "each"), [("rescale", "sss"), ("reveal_cancel", "ccc"), ("genomics", "ssc")])
@pytest.mark.parametrize("rows", [1, 4])
def test_the_rules_layer_by_layer(activation, rule, each, rows):
    convolutions = [nn.Conv1d(2, 4, 3), activation(), nn.Conv1d(4, 3, 2, stride=2), activation(), nn.Flatten()]
    net = nn.Sequential(*convolutions, nn.Linear(9, 6), activation(), nn.Linear(6, 3)).double()
    x, reference = torch.randn(4, 2, 9).double(), torch.randn(rows, 2, 9).double()
    expected = oracle(net, x, reference.expand_as(x), 1, [{"s": "rescale", "c": "reveal_cancel"}[c] for c in each])
    found = explain(net, x, 1, DeepLift(reference, rule)).heatmap
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_captums_values_where_it_is_right():
    from captum.attr import DeepLift as Captum

    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(28, 5), nn.Sigmoid(), nn.Linear(5, 2))
    net, x = net.double(), torch.randn(3, 2, 9).double()
    reference = torch.randn(1, 2, 9).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Captum(net).attribute(x.clone().requires_grad_(), reference.expand_as(x).clone(), target=1)
    torch.testing.assert_close(explain(net, x, 1, DeepLift(reference)).heatmap, expected.detach())


# ---------------------------------------------------------------- laws


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-9))


def is_complete(net, x, method=DeepLift(), target=0, tolerance=1e-9):
    result = explain(net, x, target, method)
    assert relative(result.heatmap.flatten(result.delta.ndim).sum(-1), result.delta) < tolerance
    return result


ACTIVATIONS = {
    "relu": F.relu, "gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh, "elu": F.elu, "hardswish": F.hardswish,
    "relu6": F.relu6, "softplus": F.softplus, "mish": F.mish, "leaky": lambda x: F.leaky_relu(x, 0.2),
    "clamp": lambda x: x.clamp(-0.5, 0.5), "abs": torch.abs, "hardsigmoid": F.hardsigmoid, "selu": F.selu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "logsigmoid": F.logsigmoid, "sigmoid": torch.sigmoid,
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_activations_are_complete_and_near_the_reference_they_are_derivatives(name, rule):
    net = nn.Sequential(nn.Linear(6, 8), Fn(ACTIVATIONS[name]), nn.Linear(8, 2)).double()
    x = torch.randn(5, 6).double()
    is_complete(net, x, DeepLift(torch.randn(1, 6), rule))
    net, x = net.float(), x.float()
    tiny = explain(net, x + 1e-6 * torch.randn(5, 6), 0, DeepLift(x))
    multipliers = explain(net, x, 0, DeepLift(x - 1e-6)).heatmap / (x - (x - 1e-6))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, 0].sum(), leaf)
    torch.testing.assert_close(multipliers, gradient, rtol=2e-2, atol=2e-3)
    assert tiny.heatmap.isfinite().all()


@pytest.mark.parametrize("scale", [10.0**-k for k in range(13)])
@pytest.mark.parametrize("rule", RULES)
def test_secants_are_exact_at_every_scale_of_a_function(scale, rule):
    """As a norm's 1/√(σ² + ε) has it: differences far below 1 are no rounding where ε is small too."""
    net = Fn(lambda x: 1e-5**0.5 * (x + 1e-5).rsqrt())
    x, reference = scale * torch.tensor([[1.0, 2.0]]).double(), scale * torch.tensor([[3.0, 0.5]]).double()
    result = explain(net, x, 0, DeepLift(reference, rule))
    wanted = (net(x) - net(reference))[:, 0]
    torch.testing.assert_close(result.heatmap.sum(1), wanted, rtol=1e-6 if scale > 1e-9 else 1e-3, atol=0)


def layer_cases():
    image, sequence, vector = (4, 6, 8, 8), (4, 5, 6), (4, 12)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    attention = nn.MultiheadAttention(6, 2, batch_first=True)
    late = nn.MultiheadAttention(6, 3)

    def changed(x):
        h = x.tanh().clone()
        h[:, :4].relu_()
        h[:, 4:8].mul_(h[:, 8:])
        return h

    def filled(x):
        out = torch.zeros(len(x), 12, dtype=x.dtype)
        out[:, :6], out[:, 6:] = x[:, :6], x[:, 6:].tanh()
        return out

    def added(x):
        h = F.relu(x)
        h += x
        h *= h.sigmoid()
        h /= 1 + h.square()
        return h

    return {
        "conv2d grouped": (nn.Conv2d(6, 4, 3, groups=2, padding=1), image),
        "conv3d": (nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv3d(2, 3, 2)), image),
        "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2), image),
        "overlapping max": (nn.MaxPool2d(3, 1), image),
        "padded dilated max": (nn.MaxPool2d(3, 2, 1, dilation=2), image),
        "adaptive max": (nn.AdaptiveMaxPool2d(3), image),
        "adaptive average": (nn.AdaptiveAvgPool2d((3, 1)), image),
        "average": (nn.AvgPool2d(3, 2, 1), image),
        "group norm": (nn.GroupNorm(3, 6), image),
        "instance norm": (nn.InstanceNorm2d(6, affine=True), image),
        "interpolate": (Fn(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear")), image),
        "pad": (Fn(lambda x: F.pad(x, (1, 2, 0, 1), value=0.3)), image),
        "reflect": (nn.ReflectionPad2d(2), image),
        "shuffle": (Fn(lambda x: F.pixel_shuffle(x[:, :4], 2)), image),
        "dynamic filter": (
            Fn(lambda x: F.conv2d(x[:1], x[:, :, :3, :3]).mean((2, 3)) * x.mean((1, 2))[:, :1]),
            (1, 6, 8, 8),
        ),
        "layer norm": (nn.LayerNorm(12), vector),
        "rms norm": (nn.RMSNorm(12), vector),
        "softmax": (nn.Softmax(1), vector),
        "log softmax": (nn.LogSoftmax(1), vector),
        "logsumexp": (Fn(lambda x: x * torch.logsumexp(x, 1, keepdim=True)), vector),
        "logsumexp, dimension dropped": (Fn(lambda x: x + torch.logsumexp(x, 1)[:, None]), vector),
        "gate": (Fn(lambda x: x * torch.sigmoid(x)), vector),
        "glu": (nn.GLU(), vector),
        "division": (Fn(lambda x: x / (x * x + 1)), vector),
        "square": (Fn(lambda x: x**2 + x.square() + x * x), vector),
        "standardised": (Fn(lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)), vector),
        "normalised": (Fn(F.normalize), vector),
        "bilinear": (Fn(lambda x, b=nn.Bilinear(12, 12, 5).double(): b(x, x.tanh())), vector),
        "einsum": (Fn(lambda x: torch.einsum("bi,bj->bij", x, x.relu()).mean(2)), vector),
        "matmul": (Fn(lambda x: x.view(-1, 3, 4) @ x.view(-1, 4, 3)), vector),
        "reshaped": (Fn(lambda x: x.view(x.shape[0], 3, 4).amax(1)), vector),
        "literal batch": (Fn(lambda x: x.reshape(4 * 3, 4).tanh().reshape(4, 12)), vector),
        "detached": (Fn(lambda x: x * x.detach().sigmoid()), vector),
        "no grad": (Fn(torch.no_grad()(lambda x: x.sigmoid())), vector),
        "in place on views": (Fn(changed), vector),
        "written into a constant": (Fn(filled), vector),
        "in place": (Fn(added), vector),
        "concatenated": (Fn(lambda x: torch.cat([x, x.tanh(), torch.ones_like(x)], 1)), vector),
        "maximum": (Fn(lambda x: torch.maximum(x, x.flip(1)) - torch.min(x, dim=1, keepdim=True).values), vector),
        "lstm": (Fn(_first(nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True))), sequence),
        "gru": (Fn(_first(nn.GRU(6, 4, batch_first=True))), sequence),
        "rnn": (Fn(_first(nn.RNN(6, 4, batch_first=True, nonlinearity="relu"))), sequence),
        "cells": (Fn(lambda x, c=nn.LSTMCell(6, 4).double(): c(x[:, 1], c(x[:, 0]))[0]), sequence),
        "attention": (Fn(lambda x, a=attention.double(): a(x, x, x, need_weights=False)[0]), sequence),
        "attention, weights": (Fn(lambda x, a=attention.double(): a(x, x, x, attn_mask=~mask)[0]), sequence),
        "sequence first": (Fn(lambda x, a=late.double(): a(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1)), sequence),
        "sdpa": (Fn(lambda x: F.scaled_dot_product_attention(x, x.tanh(), x, is_causal=True)), sequence),
        "masked sdpa": (Fn(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=mask)), sequence),
        "transformer": (nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), sequence),
    }


def _first(layer):
    layer.double()
    return lambda x: layer(x)[0]


@pytest.mark.parametrize("name", layer_cases())
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_layers_are_complete_for_every_kind_of_reference(name, rule):
    layer, shape = layer_cases()[name]
    first = nn.Linear(shape[-1], shape[-1])
    x = torch.randn(shape).double()
    with torch.no_grad():
        size = layer.double().eval()(x).flatten(1).shape[1]
    net = nn.Sequential(first, nn.ReLU(), first, layer, nn.Flatten(), nn.Linear(size, 3)).double().eval()
    one, own = torch.randn(1, *shape[1:]).double(), torch.randn(shape).double()
    several = torch.randn(3, 1, *shape[1:]).double()
    single = {}
    for reference in (0.0, one, own, several):
        result = is_complete(net, x, DeepLift(reference, rule))
        single[id(reference)] = result
    fixed = name in ("literal batch", "dynamic filter")
    before = torch.stack([net(r.expand_as(x) if fixed else r)[:, 0].expand(len(x)) for r in several]).mean(0)
    torch.testing.assert_close(single[id(several)].delta, (net(x)[:, 0] - before).detach())
    mean = sum(explain(net, x, 0, DeepLift(r, rule)).heatmap for r in several) / 3
    torch.testing.assert_close(single[id(several)].heatmap, mean)


class Random(nn.Module):
    """A small network of a random plan: linear, convolutional, residual, gated and reused steps."""

    def __init__(self, plan, activation, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.plan, self.activation = plan, ACTIVATIONS[activation]
        self.shared = nn.Conv1d(3, 3, 3, padding=1)
        self.steps = nn.ModuleList(nn.Conv1d(3, 3, 3, padding=1) for _ in plan)
        self.gates = nn.ModuleList(nn.Linear(6, 6) for _ in plan)
        self.head = nn.Linear(18, 3)
        self.double()

    def forward(self, x):
        for step, conv, gate in zip(self.plan, self.steps, self.gates):
            if step == "conv":
                x = self.activation(conv(x))
            elif step == "residual":
                x = x + self.activation(conv(x))
            elif step == "gated":
                x = x * torch.sigmoid(gate(x))
            elif step == "reused":
                x = self.activation(self.shared(x))
            elif step == "linear":
                x = self.activation(gate(x))
            else:
                x = F.max_pool1d(x, 3, 1, 1)
        return self.head(x.flatten(1))


networks = st.builds(
    Random,
    st.lists(st.sampled_from(["conv", "residual", "gated", "reused", "linear", "pool"]), min_size=1, max_size=4),
    st.sampled_from(["relu", "gelu", "tanh", "hardswish", "elu"]),
    st.integers(0, 2**16),
)


@settings(max_examples=40, deadline=None)
@given(networks, st.sampled_from(RULES))
def test_laws_on_random_networks(net, rule):
    x, r = torch.randn(4, 3, 6).double(), torch.randn(4, 3, 6).double()
    result = is_complete(net, x, DeepLift(r, rule), target="all", tolerance=torch.inf)
    every, size = result.heatmap, float(result.heatmap.abs().max())
    assert (every.flatten(2).sum(2) - result.delta).abs().max() <= 1e-9 * max(size, 1)
    torch.testing.assert_close(result.delta, (net(x) - net(r)).detach())
    back = explain(net, r, "all", DeepLift(x, rule)).heatmap
    torch.testing.assert_close(every, -back, rtol=1e-5, atol=1e-7 * max(size, 1))
    difference = explain(net, x, lambda z: 2 * z[:, 0] - z[:, 2], DeepLift(r, rule)).heatmap
    torch.testing.assert_close(difference, 2 * every[:, 0] - every[:, 2])
    torch.testing.assert_close(explain(net, x[2:3], "all", DeepLift(r[2:3], rule)).heatmap, every[2:3])


def test_a_linear_network_has_its_gradient():
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(9, 2)).double()
    x, r = torch.randn(3, 2, 8).double(), torch.randn(1, 2, 8).double()
    expected = explain(net, x - r, 0, InputXGradient()).heatmap
    for rule in RULES:
        torch.testing.assert_close(explain(net, x, 0, DeepLift(r, rule)).heatmap, expected)


def test_a_relu_network_without_biases_has_gradient_times_input_and_lrp():
    net = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)).double()
    x = torch.randn(4, 5).double()
    heatmap = explain(net, x, 0, DeepLift()).heatmap
    torch.testing.assert_close(heatmap, explain(net, x, 0, InputXGradient()).heatmap)
    torch.testing.assert_close(heatmap, explain(net, x, 0, LRP(1e-10)).heatmap)


def test_with_one_hidden_layer_rescale_is_the_limit_of_integrated_gradients():
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x, r = torch.randn(4, 5).double(), torch.randn(1, 5).double()
    limit = explain(net, x, 0, IntegratedGradients(r, 500))
    rescale = explain(net, x, 0, DeepLift(r))
    torch.testing.assert_close(limit.heatmap, rescale.heatmap, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(limit.delta, rescale.delta)


def test_without_negative_parts_reveal_cancel_is_rescale():
    net = nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 2)).double()
    net[0].weight.data.abs_()
    x = torch.rand(4, 5).double()
    maps = [explain(net, x, 0, DeepLift(0.0, rule)).heatmap for rule in RULES]
    torch.testing.assert_close(*maps)


@pytest.mark.parametrize("rule", RULES)
def test_a_callable_target_is_attributed_with_its_own_operations(rule):
    net, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double(), torch.randn(4, 5).double()
    result = is_complete(net, x, DeepLift(torch.randn(1, 5), rule), selective_target())
    assert result.delta.abs().max() > 0
    is_complete(net, x, DeepLift(torch.randn(3, 1, 5), rule), selective_target())


def test_maps_at_hidden_layers_are_complete_too():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 2)).double()
    for reference in (torch.randn(1, 5), torch.randn(3, 1, 5)):
        result = explain(net, torch.randn(4, 5).double(), "all", DeepLift(reference), layers=["0", "1", "3"])
        for heatmap in result.layers.values():
            torch.testing.assert_close(heatmap.sum(2), result.delta)


@pytest.mark.parametrize("rule", RULES)
def test_maps_are_differentiable_with_respect_to_the_weights(rule):
    x, r = torch.randn(3, 4).double(), torch.randn(1, 4).double()
    net = Fn(None)

    def heatmap(first, last):
        net.f = lambda v: F.linear(F.gelu(F.linear(v, first).tanh()), last).softmax(1)
        return explain(net, x, 0, DeepLift(r, rule), create_graph=True).heatmap

    weights = [torch.randn(5, 4).double().requires_grad_(), torch.randn(2, 5).double().requires_grad_()]
    assert gradcheck(heatmap, weights)


# ---------------------------------------------------------------- numbers, states, errors


def test_large_and_masked_scores_do_not_overflow():
    net = nn.Sequential(
        nn.Linear(6, 6), Fn(lambda x: (300 * x).masked_fill(torch.eye(6)[:4] > 0, -torch.inf)), nn.Softmax(1)
    )
    x = torch.randn(4, 6)
    result = explain(net, x, 3, DeepLift(torch.randn(1, 6)))
    assert result.heatmap.isfinite().all()
    torch.testing.assert_close(result.heatmap.sum(1), result.delta, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:the forward pass is random")
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel", "genomics"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("reference", [0.0, torch.randn(1, 4).double(), torch.randn(3, 4).double()])
def test_active_dropout_is_the_same_factor_for_the_input_and_the_reference(rule, inplace, reference):
    dense, head = nn.Linear(4, 6).double(), nn.Linear(6, 2).double()
    net = nn.Sequential(dense, nn.Dropout(0.5, inplace), nn.ReLU(), head).train()
    x = torch.randn(3, 4).double()
    torch.manual_seed(0)
    found = explain(net, x, 0, DeepLift(reference, rule))
    torch.manual_seed(0)
    factor = F.dropout(torch.ones(3, 6).double(), 0.5)
    by_hand = lambda x: head((dense(x) * factor).relu())  # noqa: E731
    want = explain(by_hand, x, 0, DeepLift(reference, "rescale" if rule == "rescale" else "reveal_cancel"))
    torch.testing.assert_close(found.heatmap, want.heatmap)
    r = reference if isinstance(reference, torch.Tensor) else torch.zeros_like(x)
    torch.testing.assert_close(found.heatmap.sum(1), (by_hand(x) - by_hand(r))[:, 0].detach())


def test_what_is_no_factor_is_refused_while_it_is_active():
    net = nn.Sequential(nn.Linear(4, 4), nn.AlphaDropout(0.5), nn.Linear(4, 2)).train()
    with pytest.raises(UnsupportedOperation, match=r"alpha_dropout .* call model.eval\(\) first"):
        explain(net, torch.rand(3, 4), 0, DeepLift())
    assert explain(net.eval(), torch.rand(3, 4), 0, DeepLift()).delta.shape == (3,)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_without_running_statistics_is_refused(training):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).train(training)
    with pytest.raises(UnsupportedOperation, match="without running statistics"):
        explain(net, torch.rand(3, 4), 0, DeepLift())


# ---------------------------------------------------------------- batch norm in training mode


def normed(seed=0):
    """Layers with batch norm of each form."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 5), nn.BatchNorm1d(5),
    ).double()  # fmt: skip


REFERENCES = {
    "black": lambda x: 0.0,
    "one for all": lambda x: x.mean(0, keepdim=True),
    "another of the batch": lambda x: x.roll(1, 0),
    "three": lambda x: torch.stack([x[:1], x[1:2], -x[:1]]),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("reference", REFERENCES)
def test_batch_statistics_are_constants_for_the_inputs_and_the_reference(reference, rule):
    x = torch.randn(6, 2, 6, 6).double()
    method = DeepLift(REFERENCES[reference](x), rule)
    found = explain(normed(), x, 0, method, layers=["2"])
    wanted = explain(frozen(normed(), x), x, 0, method, layers=["2"])
    for a, b in zip(found, wanted):
        a, b = (a["2"], b["2"]) if isinstance(a, dict) else (a, b)
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(found.heatmap.flatten(1).sum(1), found.delta)


@pytest.mark.parametrize("rule", RULES)
def test_a_loss_of_a_map_under_batch_statistics_has_the_derivative_that_differences_show(rule):
    net, x = normed(), torch.randn(5, 2, 6, 6).double()
    weight = torch.rand_like(x)

    def loss():
        explanation = explain(net, x, 0, DeepLift(x.roll(1, 0), rule), create_graph=True)
        return (explanation.heatmap.abs() * weight).sum() + explanation.logits.pow(2).sum()

    loss().backward()
    for parameter in net.parameters():
        at, step = int(parameter.grad.abs().argmax()), 1e-6
        with torch.no_grad():
            value = parameter.view(-1)
            value[at] += step
            above = loss().item()
            value[at] -= 2 * step
            below = loss().item()
            value[at] += step
        assert parameter.grad.view(-1)[at].item() == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-5)


def test_a_training_step_on_deeplifts_maps_updates_the_running_statistics_as_a_plain_one():
    net, plain, x = normed(), normed(), torch.randn(5, 2, 6, 6).double()
    explain(net, x, 0, DeepLift(x.roll(1, 0)), create_graph=True)
    plain(x)
    for found, wanted in zip(net.buffers(), plain.buffers()):
        torch.testing.assert_close(found, wanted)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2


@torch.overrides.wrap_torch_function(lambda x: (x,))
def cube(x):
    return Cube.apply(x)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (Cube.apply, "autograd.Function Cube has no rule.*register_rule"),
        (cube, "DeepLIFT has no rule for .*cube.*register_rule"),
        (lambda x: x.cumprod(1), "cumprod.*register_rule"),
        (lambda x: torch.where(x > 0, x, 0.1 * x), "selects by values"),
        (lambda x: x * float(x.mean()), "reads a value"),
        (lambda x: x[:, x[0].argsort()], "selects by values"),
    ],
)
def test_an_operation_without_a_rule_is_named(operation, message):
    net = nn.Sequential(nn.Linear(4, 4), Fn(operation))
    with pytest.raises(UnsupportedOperation, match=message):
        explain(net, torch.randn(3, 4), 0, DeepLift(torch.randn(1, 4)))


@pytest.mark.parametrize("rule", ["elementwise", lambda x: x * x * x])
def test_an_operation_of_ones_own_can_be_given_a_rule(rule):
    @torch.overrides.wrap_torch_function(lambda x: (x,))
    def own(x):
        return Cube.apply(x)

    register_rule(own, rule)
    net = nn.Sequential(nn.Linear(4, 4), Fn(own), nn.Linear(4, 2)).double()
    is_complete(net, torch.randn(3, 4).double(), DeepLift(torch.randn(1, 4)))
    with pytest.raises(ValueError, match="rule must be"):
        register_rule(own, "magic")


def test_the_genomics_rule_needs_a_layer_before_each_activation():
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(UnsupportedOperation, match="needs a convolution or a linear layer"):
        explain(net, torch.rand(2, 4), 0, DeepLift(rule="genomics"))


@pytest.mark.parametrize(
    "reference",
    [torch.zeros(2, 4), torch.zeros(4), torch.zeros(1, 5), torch.zeros(2, 2, 4), torch.full((1, 4), torch.nan)],
)
@pytest.mark.parametrize("method", [DeepLift, IntegratedGradients, InputXGradient, GuidedBackprop])
def test_a_reference_that_does_not_fit_is_refused(reference, method):
    with pytest.raises(ValueError, match="reference"):
        explain(nn.Linear(4, 2), torch.rand(3, 4), 0, method(reference))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="rule must be"):
        DeepLift(rule="reveal")
    with pytest.raises(ValueError, match="steps"):
        IntegratedGradients(steps=0)


@pytest.mark.parametrize("method", [IntegratedGradients, *(partial(DeepLift, rule=r) for r in ("rescale", "genomics"))])
def test_several_references_a_sample_are_averaged_sample_by_sample(method):
    """(R, N, ...): what each sample alone has with its own R references, (R, 1, ...)."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2)
    ).double()
    x, references = torch.randn(5, 2, 6).double(), torch.randn(3, 5, 2, 6).double()
    found = explain(net, x, "all", method(references))
    for i in range(5):
        alone = explain(net, x[i : i + 1], "all", method(references[:, i : i + 1]))
        torch.testing.assert_close(found.heatmap[i], alone.heatmap[0])
        torch.testing.assert_close(found.delta[i], alone.delta[0])


@pytest.mark.parametrize("shape", [(2, 5, 3), (3, 4, 2), (0, 5, 2), (5, 1, 1, 2), (2,)])
def test_references_of_other_shapes_are_refused(shape):
    for method in (DeepLift, IntegratedGradients, InputXGradient, GuidedBackprop):
        with pytest.raises(ValueError, match=r"reference must be a number or have shape \(1, 2\), \(5, 2\), .*got"):
            explain(nn.Linear(2, 3), torch.zeros(5, 2), 0, method(torch.zeros(shape)))


@pytest.mark.parametrize("method", [InputXGradient, GuidedBackprop])
@pytest.mark.parametrize("shape", [(), (1, 6), (4, 6), (3, 1, 6), (3, 4, 6)])
def test_gradients_are_multiplied_by_the_difference_from_the_mean_reference(method, shape):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x, reference = torch.randn(4, 6).double(), torch.randn(shape).double()
    found = explain(net, x, "all", method(reference if shape else 0.7), layers=["1"])
    plain = explain(net, x, "all", method(), layers=["1"])
    mean = 0.7 if not shape else reference.mean(0) if len(shape) == 3 else reference
    torch.testing.assert_close(found.heatmap, plain.heatmap / x[:, None] * (x - mean)[:, None])
    torch.testing.assert_close(found.layers["1"], plain.layers["1"])


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_mean_normalised_contributions_sum_to_zero_over_classes(rule):
    """Class logits' contributions (1, 1, 0, −1) and (1, 0, 1, −3) become (0, .5, −.5, 1) and its negative."""
    net = nn.Linear(4, 2, bias=False).double()
    net.weight.data = torch.tensor([[1.0, 1, 0, -1], [1, 0, 1, -3]]).double()
    x = torch.ones(1, 4).double()
    maps = [explain(net, x, mean_normalised_target(c), DeepLift(rule=rule)).heatmap[0] for c in (0, 1)]
    assert maps[0].tolist() == [0, 0.5, -0.5, 1] and maps[1].tolist() == [0, -0.5, 0.5, -1]
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    x, classes = torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    every = explain(deep, x, "all", DeepLift(rule=rule)).heatmap
    found = explain(deep, x, mean_normalised_target(classes), DeepLift(rule=rule)).heatmap
    torch.testing.assert_close(found, (every - every.mean(1, keepdim=True))[torch.arange(6), classes])


DENSE = {
    "matmul": lambda h, weight, bias: h @ weight.T + bias,
    "addmm": lambda h, weight, bias: torch.addmm(bias, h, weight.T),
    "einsum": lambda h, weight, bias: torch.einsum("ni,oi->no", h, weight) + bias,
    "tensordot": lambda h, weight, bias: torch.tensordot(h, weight, ([1], [1])) + bias,
    "inner": lambda h, weight, bias: torch.inner(h, weight) + bias,
    "transposed": lambda h, weight, bias: (weight @ h.T).T + bias,
    "written out": lambda h, weight, bias: (h[:, None] * weight).sum(2) + bias,
}


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel", "genomics"])
@pytest.mark.parametrize("form", DENSE)
def test_a_layer_with_a_weight_is_one_however_it_is_written(form, rule):
    class Network(nn.Module):
        def __init__(self, dense):
            super().__init__()
            self.dense, self.first, self.last = dense, nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            h = F.relu(self.dense(x, self.first.weight, self.first.bias))
            return self.dense(h, self.last.weight, self.last.bias)

    torch.manual_seed(0)
    net, x, method = Network(F.linear).double(), torch.randn(4, 6).double(), DeepLift(torch.randn(1, 6).double(), rule)
    expected = explain(net, x, 0, method).heatmap
    net.dense = DENSE[form]
    if rule == "genomics" and form in ("transposed", "written out"):
        with pytest.raises(UnsupportedOperation, match="needs a convolution or a linear layer"):
            explain(net, x, 0, method)
    else:
        assert torch.allclose(explain(net, x, 0, method).heatmap, expected, atol=1e-12)
