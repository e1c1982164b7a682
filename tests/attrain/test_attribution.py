"""LRP as a modified backward pass: against the definition, zennit, gradient × input, and on a user's own model."""

import copy
import gc
import threading

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.autograd import gradcheck
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon, Pass

from attrain import (
    LRP,
    ZB,
    BCos,
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    UnsupportedOperation,
    Zennit,
    explain,
    register_rule,
)
from attrain.methods.zplus import ZPlus
from attrain.targets import selective_target, stochastic_target
from tests.attrain.oracles import frozen


def conv_net(batch_norm=False, channels=2, dtype=torch.float64):
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU()]
    if batch_norm:
        layers.insert(1, nn.BatchNorm2d(4))
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).to(dtype)
    if batch_norm:
        net.train()(torch.randn(16, channels, 8, 8, dtype=dtype))
    return net.eval()


class Functional(nn.Module):
    """The same network spelled five ways."""

    def __init__(self, relu, layers=3, width=6):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.head = nn.Linear(width, 3)
        self.relu = relu

    def forward(self, x):
        for linear in self.linears:
            x = self.relu(linear(x))
        return self.head(x)


def layerwise_lrp(net, x, target, epsilon):
    """LRP of a chain of linear layers and ReLUs by its definition: ε where a ReLU follows, 0 at the head."""
    activations = [x]
    for layer in net:
        activations.append(layer(activations[-1]))
    relevance = torch.zeros_like(activations[-1])
    relevance[:, target] = activations[-1][:, target]
    for i in reversed(range(len(net))):
        layer, a = net[i], activations[i]
        if isinstance(layer, nn.ReLU):
            continue
        z = activations[i + 1]
        feeds_relu = i + 1 < len(net)
        denominator = z + epsilon if feeds_relu else z
        passed = torch.where((z > 0) | (not feeds_relu), relevance / denominator, 0)
        relevance = a * (passed @ layer.weight)
    return relevance


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2, 1.0])
def test_lrp_equals_its_layer_by_layer_definition(epsilon):
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    heatmap = explain(net, x, 1, LRP(epsilon)).heatmap
    torch.testing.assert_close(heatmap, layerwise_lrp(net, x, 1, epsilon), rtol=1e-10, atol=1e-12)


def test_lrp_equals_zennits_epsilon_rule():
    net, x = conv_net(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
    rules = [(nn.Conv2d, Epsilon(1e-2)), (nn.ReLU, Pass())]
    rules += [(nn.Linear, Epsilon(1e-12)), (nn.AdaptiveAvgPool2d, Epsilon(1e-12))]
    leaf = x.clone().requires_grad_()
    with LayerMapComposite(rules).context(net) as modified:
        z = modified(leaf)
        start = z.detach() * F.one_hot(torch.tensor([0, 1, 2]), 3)
        (expected,) = torch.autograd.grad(z, leaf, start)
    heatmap = explain(net, x, torch.tensor([0, 1, 2]), LRP(1e-2)).heatmap
    torch.testing.assert_close(heatmap, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_epsilon_zero_is_gradient_times_input(batch_norm):
    net, x = conv_net(batch_norm), torch.rand(3, 2, 8, 8, dtype=torch.float64)
    expected = explain(net, x, 2, InputXGradient()).heatmap
    torch.testing.assert_close(explain(net, x, 2, LRP(0.0)).heatmap, expected)
    torch.testing.assert_close(explain(net, x, 2, Gradient()).heatmap * x, expected)


def test_lrp_without_biases_conserves_relevance_as_epsilon_vanishes():
    net = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)).double()
    x = torch.randn(6, 5, dtype=torch.float64)
    logits, heatmap, *_ = explain(net, x, 0, LRP(1e-9))
    torch.testing.assert_close(heatmap.sum(1), logits[:, 0], rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------- spellings and models

SPELLINGS = {
    "module used thrice": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda x: x.relu(),
    "in-place method": lambda x: x.relu_(),
    "keyword": lambda x: F.relu(input=x),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_relu_gives_the_same_map(spelling):
    torch.manual_seed(1)
    net = Functional(SPELLINGS[spelling]).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    expected = layerwise_lrp([m for linear in net.linears for m in (linear, nn.ReLU())] + [net.head], x, 0, 1e-2)
    torch.testing.assert_close(explain(net, x, 0, LRP()).heatmap, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "resnet18", "densenet121", "squeezenet1_1", "googlenet"])
def test_torchvisions_relu_networks_are_explained_as_they_are(name):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options)
    x = torch.rand(2, 3, 64, 64)
    for module in model.modules():  # statistics of real data, so that signals do not vanish
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.rand(4, 3, 64, 64))
    model.eval()
    logits, heatmap, *_ = explain(model, x, None, LRP())
    torch.testing.assert_close(logits, model(x))
    assert heatmap.shape == x.shape and heatmap.isfinite().all()
    assert not torch.allclose(heatmap, explain(model, x, None, InputXGradient()).heatmap, rtol=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"])
def test_networks_that_are_no_relu_networks_are_refused(name):
    model = getattr(torchvision.models, name)(weights=None).eval()
    with pytest.raises(UnsupportedOperation, match="LRP has no rule for"):
        explain(model, torch.rand(1, 3, 32, 32), None, LRP())


@pytest.mark.parametrize(
    "operation", [torch.sigmoid, F.gelu, lambda x: x * x, lambda x: 1 / (x + 9), lambda x: x @ x.T, torch.exp, F.silu]
)
def test_an_operation_without_a_rule_is_named(operation):
    net = nn.Sequential(nn.Linear(3, 3))
    net.forward = lambda x: operation(net[0](x))
    with pytest.raises(UnsupportedOperation):
        explain(net, torch.rand(3, 3), 0, LRP())


def test_products_with_constants_and_parameters_are_linear():
    scale = nn.Parameter(torch.rand(3))
    net = nn.Linear(3, 3)
    scaled = copy.deepcopy(net)
    scaled.forward = lambda x: 2.0 * (F.linear(x, net.weight, net.bias) * scale) / torch.tensor(4.0)
    x = torch.rand(2, 3)
    torch.testing.assert_close(explain(scaled, x, 0, LRP()).heatmap, x * net.weight[0] * scale[0] / 2)


# ---------------------------------------------------------------- the first layer's rule


def slow_zb(weight, bias, x, relevance, low, high, stabilizer=1e-2):
    """The z^B rule of a linear layer, written out (isnet.md, section 2)."""
    out = torch.zeros_like(x)
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    for n in range(len(x)):
        for k in range(len(weight)):
            z = (x[n] * weight[k] - low * positive[k] - high * negative[k]).sum()
            z = z + bias[k] - low * bias[k].clamp(min=0) - high * bias[k].clamp(max=0)
            z = z + (stabilizer if z >= 0 else -stabilizer)
            out[n] += (x[n] * weight[k] - low * positive[k] - high * negative[k]) * relevance[n, k] / z
    return out


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 2.0), (0.5, 1.0), (-2.0, 0.0)])
@pytest.mark.parametrize("stabilizer", [1e-2, 1e-6, 1.0])
def test_zb_of_a_linear_layer_equals_its_formula(low, high, stabilizer):
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x = low + (high - low) * torch.rand(3, 5, dtype=torch.float64)
    y = net[:2](x)
    relevance = (y * net[2].weight[1]).detach()
    expected = slow_zb(net[0].weight.detach(), net[0].bias.detach(), x, relevance, low, high, stabilizer)
    heatmap = explain(net, x, 1, LRP(first_layer=ZB(low, high, stabilizer))).heatmap
    torch.testing.assert_close(heatmap, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kwargs", [{}, {"stride": 2, "padding": 1}, {"groups": 2}, {"dilation": 2}, {"bias": False}])
def test_zb_of_a_convolution_equals_the_same_layer_as_a_matrix(kwargs):
    conv = nn.Conv2d(2, 4, 3, **kwargs).double()
    x = torch.rand(2, 2, 7, 7, dtype=torch.float64)
    size = conv(x).flatten(1).shape[1]
    head = nn.Linear(size, 3).double()
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head)
    basis = torch.eye(98, dtype=torch.float64).view(98, 2, 7, 7)
    zero = conv(torch.zeros(1, 2, 7, 7, dtype=torch.float64)).flatten()
    matrix = (conv(basis).flatten(1) - zero).T.detach()
    y = conv(x).relu().flatten(1)
    expected = slow_zb(matrix, zero.detach(), x.flatten(1), (y * head.weight[0]).detach(), 0.0, 1.0).view_as(x)
    heatmap = explain(net, x, 0, LRP(first_layer=ZB())).heatmap
    torch.testing.assert_close(heatmap, expected, rtol=1e-8, atol=1e-10)


def test_zb_folds_a_batch_norm_in_evaluation_mode():
    net = conv_net(batch_norm=True)
    norm = net[1]
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    fused = copy.deepcopy(net)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    fused[0].weight.data *= scale[:, None, None, None]
    fused[0].bias.data = norm.bias.data + scale * (fused[0].bias.data - norm.running_mean)
    fused = nn.Sequential(*[m for m in fused if not isinstance(m, nn.BatchNorm2d)])
    x = torch.rand(3, 2, 8, 8, dtype=torch.float64)
    method = LRP(first_layer=ZB())
    torch.testing.assert_close(explain(net, x, 1, method).heatmap, explain(fused, x, 1, method).heatmap)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    "first", [nn.Conv2d(2, 4, 5, padding="same"), nn.Conv2d(2, 4, 3, 2)], ids=["by name", "strided"]
)
def test_zb_and_its_derivative_are_the_same_whether_the_relu_works_in_place(batch_norm, first):
    norm = [nn.BatchNorm2d(4)] if batch_norm else []
    rest = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    x, found = torch.rand(3, 2, 7, 6, dtype=torch.float64), []
    for inplace in (False, True):
        net = nn.Sequential(first, *norm, nn.ReLU(inplace), rest).double()
        logits, heatmap, *_ = explain(net, x, 1, LRP(first_layer=ZB()), create_graph=True)
        loss = logits.sum() + heatmap.square().sum()
        found.append((heatmap.detach(), *torch.autograd.grad(loss, list(net.parameters()))))
    for out_of_place, in_place in zip(*found):
        torch.testing.assert_close(in_place, out_of_place)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("method", [LRP(), LRP(first_layer=ZB()), ZPlus(), ZPlus(first_layer=ZB())])
def test_a_batch_norm_is_one_by_whichever_name_it_is_called(method, training):
    conv, norm, head = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    net = nn.Sequential(conv, norm, head).double().train(training)
    x = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    expected = explain(net, x, 1, method).heatmap
    numbers = norm.weight, norm.bias, norm.running_mean, norm.running_var, training, 0.1, norm.eps, False
    norm.forward = lambda x: torch.batch_norm(x, *numbers)
    assert torch.equal(explain(net, x, 1, method).heatmap, expected)


def test_the_stabilizer_of_zb_does_not_follow_epsilon():
    net, x = conv_net(), torch.rand(2, 2, 8, 8, dtype=torch.float64)
    map_of = lambda epsilon, *box: explain(net, x, 0, LRP(epsilon, first_layer=ZB(0, 1, *box))).heatmap  # noqa: E731
    assert torch.equal(map_of(1e-6), map_of(1e-6, 1e-2))
    assert not torch.allclose(map_of(1e-6), map_of(1e-6, 1e-6), rtol=1e-4)


def test_zb_gives_black_pixels_relevance_where_gradient_times_input_cannot():
    net, x = conv_net(), torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    net[0].bias.data.fill_(0.5)
    assert explain(net, x, 0, LRP()).heatmap.abs().sum() == 0
    assert explain(net, x, 0, LRP(first_layer=ZB())).heatmap.abs().sum() > 0


@pytest.mark.parametrize(
    "forward",
    [lambda net, x: net(x.flip(-1)), lambda net, x: net(x) + net(x), lambda net, x: net(x) + x[:, :2]],
    ids=["reversed", "twice", "beside it"],
)
def test_zb_is_refused_where_the_input_does_not_go_into_one_layer(forward):
    net = nn.Linear(4, 2)
    outer = nn.Module()
    outer.forward = lambda x: forward(net, x)
    with pytest.raises(UnsupportedOperation, match=r"z\^B rule needs"):
        explain(outer, torch.rand(2, 4), 0, LRP(first_layer=ZB()))


# ---------------------------------------------------------------- the other methods


def test_the_gradient_is_that_of_finite_differences():
    net, x = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)).double(), torch.randn(3, 4).double()
    heatmap = explain(net, x, 1, Gradient()).heatmap
    for i in range(4):
        step = 1e-6 * F.one_hot(torch.tensor(i), 4)
        torch.testing.assert_close(heatmap[:, i], (net(x + step) - net(x - step))[:, 1].detach() / 2e-6)


@pytest.mark.parametrize(
    "relu", [nn.ReLU(), nn.ReLU(inplace=True), Functional], ids=["module", "in place", "functional"]
)
def test_guided_backprop_drops_negative_gradients_at_each_relu(relu):
    relu = F.relu if relu is Functional else relu
    net = Functional(relu, layers=2).double()
    x = torch.randn(3, 6).double()
    first, second = net.linears
    h = first(x)
    g = net.head.weight[1].clamp(min=0) * (second(h.relu()) > 0)
    g = (g @ second.weight).clamp(min=0) * (h > 0)
    torch.testing.assert_close(explain(net, x, 1, GuidedBackprop()).heatmap, (g @ first.weight * x).detach())


@pytest.mark.parametrize("name", ["3", "4"])
def test_grad_cam_pools_gradients_at_its_layer(name):
    net, x = conv_net(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
    a = net[: int(name) + 1](x).detach().requires_grad_()
    scores = net[int(name) + 1 :](a)
    for target, start in ((1, torch.tensor([0.0, 1, 0])), ("all", None)):
        result = explain(net, x, target, GradCAM(name))
        for k, c in enumerate([1] if start is not None else range(3)):
            (g,) = torch.autograd.grad(scores[:, c].sum(), a, retain_graph=True)
            cam = (g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).relu().detach()
            large = F.interpolate(cam, (8, 8), mode="bilinear").expand(3, 2, 8, 8)
            found = result.layers[name], result.heatmap
            found = found if target == 1 else tuple(f[:, k] for f in found)
            torch.testing.assert_close(found, (cam, large))


class BCosLinear(nn.Module):
    """Of a B-cos network (Böhle et al. 2022), B = 2, with its own switch for explanations."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear, self.explaining = nn.Linear(inputs, outputs, bias=False), False

    def forward(self, x):
        out = F.linear(x, F.normalize(self.linear.weight, dim=1))
        scale = out.abs() / (x.norm(dim=1, keepdim=True) + 1e-6)
        return out * (scale.detach() if self.explaining else scale)


def test_bcos_maps_are_those_of_the_detached_network_and_sum_to_the_logit():
    net = nn.Sequential(BCosLinear(6, 8), BCosLinear(8, 3)).double()
    x = torch.randn(4, 6).double()
    logits, heatmap, *_ = explain(net, x, 2, BCos())
    torch.testing.assert_close(heatmap.sum(1), logits[:, 2])
    for layer in net:
        layer.explaining = True
    torch.testing.assert_close(explain(net, x, 2, InputXGradient()).heatmap, heatmap)


def test_a_zennit_composite_starts_from_the_logit():
    net, x = conv_net(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
    rules = [(nn.Conv2d, Epsilon(1e-2)), (nn.ReLU, Pass())]
    rules += [(nn.Linear, Epsilon(1e-12)), (nn.AdaptiveAvgPool2d, Epsilon(1e-12))]
    targets = torch.tensor([0, 1, 2])
    expected = explain(net, x, targets, LRP(1e-2)).heatmap
    found = explain(net, x, targets, Zennit(LayerMapComposite(rules)))
    torch.testing.assert_close(found.heatmap, expected, rtol=1e-4, atol=1e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    every = explain(net, x, "all", Zennit(LayerMapComposite(rules))).heatmap
    torch.testing.assert_close(every[torch.arange(3), targets], found.heatmap)


def test_an_operation_registered_as_linear_is_known_to_lrp():
    @torch.overrides.wrap_torch_function(lambda x: (x,))
    def halve(x):
        return torch.ldexp(x, torch.tensor(-1))

    net = nn.Linear(3, 3)
    scaled = copy.deepcopy(net)
    scaled.forward = lambda x: halve(F.linear(x, net.weight, net.bias))
    x = torch.rand(2, 3)
    with pytest.raises(UnsupportedOperation, match="halve"):
        explain(scaled, x, 0, LRP())
    register_rule(halve, "linear")
    for method in (LRP(), DeepLift()):
        torch.testing.assert_close(explain(scaled, x, 0, method).heatmap, x * net.weight[0].detach() / 2)


# ---------------------------------------------------------------- maps at layers


@pytest.mark.parametrize("inplace", [False, True])
def test_maps_at_layers_are_relevance_there(inplace):
    layers = [nn.Linear(5, 7), nn.ReLU(inplace), nn.Linear(7, 6), nn.ReLU(inplace), nn.Linear(6, 3)]
    net, x = nn.Sequential(*layers).double(), torch.randn(4, 5).double()
    result = explain(net, x, 1, LRP(1e-2), layers=["0", "1", "2", "3"])
    h = net[1](net[0](x))
    torch.testing.assert_close(result.layers["1"], layerwise_lrp(net[2:], h, 1, 1e-2).detach())
    z = net[2](h)
    multiplier = net[4].weight[1] * (z.relu() / (z.relu() + 1e-2))
    torch.testing.assert_close(
        result.layers["2"], (multiplier * net[2](h)).detach() if not inplace else result.layers["2"]
    )
    torch.testing.assert_close(result.heatmap, explain(net, x, 1, LRP(1e-2)).heatmap)
    every = explain(net, x, "all", LRP(1e-2), layers="1").layers["1"]
    assert every.shape == (4, 3, 7)
    torch.testing.assert_close(every[:, 1], result.layers["1"])


def test_maps_at_layers_can_be_trained_on():
    net, x = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)), torch.randn(4, 5)
    explain(net, x, 0, LRP(), layers=["1"], create_graph=True).layers["1"].square().sum().backward()
    assert net[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["layr1"], "near names: layer1"),
        (["unused"], "'unused' has no output"),
        (["zzz"], "near names: layer1, unused"),
    ],
)
def test_layers_that_do_not_exist_are_named(layers, message):
    net = nn.Module()
    net.layer1, net.unused = nn.Linear(3, 2), nn.Linear(3, 2)
    net.forward = lambda x: net.layer1(x)
    with pytest.raises(ValueError, match=message):
        explain(net, torch.rand(2, 3), 0, LRP(), layers=layers)
    assert not net.layer1._forward_hooks


# ---------------------------------------------------------------- training on maps


@pytest.mark.parametrize("first_layer", [None, ZB()])
@pytest.mark.parametrize("target", [0, selective_target(), "all"], ids=["class", "selective", "all"])
def test_maps_are_differentiable_with_respect_to_the_weights(first_layer, target):
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 3, bias=False)).double()
    x = torch.rand(2, 3, dtype=torch.float64)

    def heatmap(first, last):
        net.forward = lambda v: F.linear(F.linear(v, first).relu(), last)
        return explain(net, x, target, LRP(first_layer=first_layer), create_graph=True).heatmap

    weights = [p.detach().clone().requires_grad_() for p in net.parameters()]
    assert gradcheck(heatmap, weights)


def test_logits_of_the_same_pass_have_their_ordinary_gradient():
    net, x, y = conv_net(), torch.rand(4, 2, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    F.cross_entropy(net(x), y).backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    logits, *_ = explain(net, x, None, LRP(), create_graph=True)
    F.cross_entropy(logits, y).backward()
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("method", [Gradient(), LRP(), LRP(first_layer=ZB())])
def test_targets_agree_with_one_another(method):
    net, x = conv_net(), torch.rand(4, 2, 8, 8, dtype=torch.float64)
    logits, every, *_ = explain(net, x, "all", method)
    assert every.shape == (4, 3, 2, 8, 8)
    for c in range(3):
        torch.testing.assert_close(explain(net, x, c, method).heatmap, every[:, c])
    predicted = logits.argmax(1)
    torch.testing.assert_close(explain(net, x, None, method).heatmap, every[torch.arange(4), predicted])
    torch.testing.assert_close(explain(net, x, predicted, method).heatmap, every[torch.arange(4), predicted])
    pairs = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 0]])
    expected = every[torch.arange(4)[:, None], pairs]
    torch.testing.assert_close(explain(net, x, pairs, method).heatmap, expected)
    torch.testing.assert_close(explain(net, x, lambda z: z[:, 0] - z[:, 1], method).heatmap, every[:, 0] - every[:, 1])


@pytest.mark.parametrize(("eps", "value"), [(1e-2, -2.984095), (1e-7, -3.201411)])
def test_selective_target_equals_the_authors_value(eps, value):
    logits = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    eta = selective_target(eps)(logits)
    assert eta.item() == pytest.approx(value, abs=1e-6)
    if eps == 1e-7:
        (gradient,) = torch.autograd.grad(eta.sum(), logits)
        expected = torch.tensor([[-0.817572, 0.999997, -0.182425]], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)


def test_stochastic_target_draws_the_highest_logit_as_often_as_asked_and_the_others_evenly():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).expand(20_000, 4)
    drawn = stochastic_target(torch.Generator().manual_seed(0), highest=0.4)(logits)
    share = torch.stack([(drawn == value).double().mean() for value in (3.0, 0.0, 1.0, 2.0)])
    torch.testing.assert_close(share, torch.tensor([0.4, 0.2, 0.2, 0.2]).double(), atol=0.02, rtol=0)


def test_stochastic_target_repeats_with_its_generator():
    logits = torch.randn(50, 10)
    first, second = (stochastic_target(torch.Generator().manual_seed(3))(logits) for _ in range(2))
    assert torch.equal(first, second)


# ---------------------------------------------------------------- hygiene and errors


METHODS = [
    Gradient(), InputXGradient(), GuidedBackprop(), BCos(), LRP(), LRP(first_layer=ZB()), GradCAM("0"),
    IntegratedGradients(0.1, 3), DeepLift(), DeepLift(rule="reveal_cancel"), DeepLift(rule="genomics"),
    DeepLift(torch.linspace(0, 1, 384).reshape(3, 1, 2, 8, 8)),
]  # fmt: skip


def without_pool():
    net = conv_net(batch_norm=True)
    del net[3]
    return net


@pytest.mark.parametrize("method", METHODS, ids=lambda method: repr(method).split("tensor")[0])
class TestEveryMethod:
    def test_one_sample_alone_many_and_none(self, method):
        net, x = without_pool(), torch.rand(4, 2, 8, 8, dtype=torch.float64)
        whole = explain(net, x, 0, method)
        assert whole.heatmap.shape == x.shape
        torch.testing.assert_close(explain(net, x[2:3], 0, method).heatmap, whole.heatmap[2:3])
        empty = explain(net, x[:0], 0, method)
        assert empty.heatmap.shape == (0, 2, 8, 8) and empty.logits.shape == (0, 3)
        assert explain(net, x[:0], "all", method).heatmap.shape == (0, 3, 2, 8, 8)

    def test_memory_layouts(self, method):
        net, x = without_pool(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
        expected = explain(net, x, "all", method).heatmap
        for other in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
            assert not other.is_contiguous()
            torch.testing.assert_close(explain(net, other, "all", method).heatmap, expected)

    def test_autocast(self, method):
        net, x = without_pool().float(), torch.rand(3, 2, 8, 8)
        expected = explain(net, x, 0, method).heatmap
        with torch.autocast("cpu", torch.bfloat16):
            found = explain(net, x, 0, method).heatmap.float()
        assert (found - expected).abs().mean() <= 0.05 * expected.abs().mean()

    def test_the_model_is_untouched_also_by_an_exception(self, method):
        net, x = without_pool(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
        before = copy.deepcopy(net.state_dict())
        explain(net, x, 0, method)

        def fail(module, args, output):
            raise RuntimeError("inside the model")

        net[-1].register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="inside the model"):
            explain(net, x, 0, method)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert all(p.grad is None and "_attrain_pair" not in p.__dict__ for p in net.parameters())
        assert [len(m._forward_hooks) for m in net] == [0] * (len(net) - 1) + [1]
        assert not torch.overrides._get_current_function_mode_stack()

    def test_nothing_is_left_behind(self, method):
        net, x = without_pool(), torch.rand(2, 2, 8, 8, dtype=torch.float64)
        explain(net, x, 0, method)
        gc.collect()
        count = lambda: sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())  # noqa: E731
        before = count()
        gc.disable()
        try:
            for _ in range(10):
                explain(net, x, 0, method)
            assert count() <= before, "a reference cycle keeps tensors until the collector runs"
        finally:
            gc.enable()


def test_a_thousand_calls_leave_no_tensor():
    net, x = conv_net(), torch.rand(1, 2, 8, 8, dtype=torch.float64)
    count = lambda: sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())  # noqa: E731
    explain(net, x, 0, DeepLift(), layers=["0"])
    gc.collect()
    before = count()
    for _ in range(500):
        explain(net, x, 0, DeepLift(), layers=["0"])
        explain(net, x, 0, LRP())
    assert count() <= before


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_comes_back_as_it_went_in(fails, training):
    net = conv_net(batch_norm=True, dtype=torch.float32).train(training)
    net[0].weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(2, 2, 8, 8)
    kept = x.clone()
    if fails:
        net.append(nn.Sigmoid())
        with pytest.raises(UnsupportedOperation):
            explain(net, x, 0, LRP())
    else:
        explain(net, x, 0, LRP())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items() if name in before)
    assert all(p.grad is None for p in net.parameters()) and torch.equal(x, kept)
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * (len(list(net.parameters())) - 1)
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in net.modules())
    assert net.training is training and not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("method", [Gradient(), InputXGradient(), LRP()])
def test_an_in_place_operation_on_the_input_changes_neither_the_map_nor_the_callers_tensor(method):
    head, x = nn.Linear(3, 2), torch.randn(2, 3)
    kept = x.clone()
    heatmap = explain(nn.Sequential(nn.ReLU(inplace=True), head), x, 0, method).heatmap
    torch.testing.assert_close(heatmap, explain(nn.Sequential(nn.ReLU(), head), x, 0, method).heatmap)
    assert torch.equal(x, kept) and heatmap.abs().sum() > 0


def test_one_samples_map_does_not_depend_on_the_others():
    net, x = conv_net(batch_norm=True), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    method = LRP(first_layer=ZB())
    torch.testing.assert_close(explain(net, x, 0, method).heatmap[3:4], explain(net, x[3:4], 0, method).heatmap)


@pytest.mark.parametrize("method", [LRP(), LRP(first_layer=ZB())])
def test_in_training_mode_no_relevance_passes_through_batch_statistics(method):
    net, x = conv_net(batch_norm=True).train(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    net.insert(5, nn.BatchNorm2d(5).double())
    chosen = torch.tensor([1.0, 0, 0, 0, 0]).double()
    heatmap = explain(net, x, lambda z: z[:, 0] * chosen, method).heatmap
    assert heatmap[0].abs().sum() > 0 and heatmap[1:].abs().sum() == 0
    # The same map as with the batch's statistics as constants.
    torch.testing.assert_close(explain(frozen(net, x), x, 0, method).heatmap, explain(net, x, 0, method).heatmap)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("method", "layer"),
    [
        *((method, "0") for method in (InputXGradient(), GuidedBackprop(), BCos(), LRP(), DeepLift())),
        (GradCAM("0", relu=False), "0"),
        (ZPlus(), "1"),
    ],
)
def test_in_training_mode_a_samples_map_has_no_part_in_other_samples_logits(method, layer, create_graph):
    net, x = conv_net(batch_norm=True).train(), torch.rand(5, 2, 8, 8, dtype=torch.float64)
    net[-1].weight.data.abs_()  # guided backprop keeps positive gradients alone
    chosen = torch.tensor([1.0, 0, 0, 0, 0]).double()
    found = explain(net, x, lambda z: z[:, 0] * chosen, method, layers=[layer], create_graph=create_graph)
    for heatmap in (found.heatmap, found.layers[layer]):
        assert heatmap[0].abs().sum() > 0 and heatmap[1:].abs().sum() == 0


def test_maps_in_training_mode_are_differentiable_with_batch_statistics():
    x = torch.rand(4, 3, dtype=torch.float64)

    def heatmap(first, scale, last):
        net = nn.Linear(3, 3)
        net.forward = lambda v: F.linear(
            F.batch_norm(F.linear(v, first), None, None, scale, training=True).relu(), last
        )
        return explain(net, x, 0, LRP(), create_graph=True).heatmap

    weights = [torch.randn(s).double().requires_grad_() for s in ((5, 3), (5,), (2, 5))]
    assert gradcheck(heatmap, weights)


def test_two_threads_may_explain_one_model():
    net, x = conv_net(), torch.rand(8, 2, 8, 8, dtype=torch.float64)
    methods = (LRP(1e-2), LRP(1.0), DeepLift(), DeepLift(rule="reveal_cancel"))
    expected = {m: explain(net, x, 0, m, layers=["0"]) for m in methods}
    wrong = []

    def work(method):
        for _ in range(20):
            found = explain(net, x, 0, method, layers=["0"])
            if not torch.equal(found.heatmap, expected[method].heatmap):
                wrong.append(method)
            if not torch.equal(found.layers["0"], expected[method].layers["0"]):
                wrong.append(method)

    threads = [threading.Thread(target=work, args=(m,)) for m in expected]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_no_tensor_is_left_behind():
    net, x = conv_net(), torch.rand(2, 2, 8, 8, dtype=torch.float64)

    def tensors():
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    explain(net, x, 0, LRP(first_layer=ZB()))
    before = tensors()
    gc.disable()
    try:
        for _ in range(20):
            explain(net, x, 0, LRP(first_layer=ZB()))
        left = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()) - before
    finally:
        gc.enable()
    assert left <= 0, "a reference cycle keeps tensors until the collector runs"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net, x: explain(net, x.long()), TypeError, "floating point"),
        (lambda net, x: explain(net, x * float("nan")), ValueError, "NaN"),
        (lambda net, x: explain(net, x, 3), ValueError, r"target must be in \[0, 2\]"),
        (lambda net, x: explain(net, x, torch.tensor([0, -1])), ValueError, "target must be in"),
        (lambda net, x: explain(net, x, torch.tensor([0.0, 1.0])), ValueError, "LongTensor"),
        (lambda net, x: explain(net, x, torch.tensor([0])), ValueError, "LongTensor"),
        (lambda net, x: explain(net, x, "every"), ValueError, '"all"'),
        (lambda net, x: explain(net, x, lambda z: z[0]), ValueError, "one number a sample"),
        (lambda net, x: explain(net[:-1], x), ValueError, r"logits of shape \(2, C\)"),
        (lambda net, x: LRP(epsilon=-1), ValueError, "epsilon"),
        (lambda net, x: ZB(1.0, 0.0), ValueError, "low < high"),
        (lambda net, x: ZB(stabilizer=0.0), ValueError, "stabilizer > 0, got 0.0"),
        (lambda net, x: selective_target(0), ValueError, "eps must be > 0"),
        (lambda net, x: stochastic_target(highest=2), ValueError, "highest must be in"),
        (lambda net, x: stochastic_target()(torch.zeros(2, 1)), ValueError, "at least 2 classes"),
    ],
)
def test_bad_input_is_named(call, error, message):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Unflatten(1, (3, 1)), nn.Flatten())
    with pytest.raises(error, match=message):
        call(net, torch.rand(2, 1, 2, 2))


@pytest.mark.parametrize("relu_first", [False, True])
def test_zb_refuses_a_first_layer_whose_output_is_changed_in_place(relu_first):
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

        def forward(self, x):
            h = self.first(x)
            h = h.relu() if relu_first else h
            h += self.second(h.clone())
            return self.head(h.relu())

    with pytest.raises(UnsupportedOperation, match="changes it in place"):
        explain(Shortcut(), torch.rand(3, 4), 0, LRP(first_layer=ZB()))


@pytest.mark.parametrize("make", [InputXGradient, GuidedBackprop, DeepLift, IntegratedGradients, LRP, BCos, Gradient])
def test_methods_are_values(make):
    assert make() == make() and hash(make()) == hash(make()) and len({make(), make()}) == 1
    assert make() != GradCAM("0") and make() != 0.0


@pytest.mark.parametrize("make", [InputXGradient, GuidedBackprop, DeepLift, IntegratedGradients])
def test_methods_differ_by_their_references_numbers(make):
    zeros, ones = torch.zeros(1, 3), torch.ones(1, 3)
    assert make(zeros) == make(zeros.clone()) and hash(make(zeros)) == hash(make(zeros.clone()))
    assert make(zeros) != make(ones) and make(zeros) != make(0.0) and make(0.0) != make(1.0)


@pytest.mark.parametrize("method", [InputXGradient(), LRP(first_layer=ZB()), DeepLift(), ZPlus()])
@pytest.mark.parametrize("target", [0, "all"])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_without_the_map_at_the_input_those_at_layers_are_the_same(method, target, chunk_size):
    net, x = conv_net(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
    whole, layers_only = (
        explain(net, x, target, method, layers=["0", "2"], at_input=there, chunk_size=chunk_size)
        for there in (True, False)
    )
    assert layers_only.heatmap.numel() == 0 and len(layers_only.heatmap) == 3
    for name, heatmap in whole.layers.items():
        torch.testing.assert_close(layers_only.layers[name], heatmap)


def test_a_loss_of_a_layers_map_has_the_same_gradients_without_the_map_at_the_input():
    net, x = conv_net(batch_norm=True).train(), torch.rand(3, 2, 8, 8, dtype=torch.float64)
    found = []
    for there in (True, False):
        net.zero_grad()
        made = explain(net, x, 0, InputXGradient(), layers=["2"], at_input=there, create_graph=True)
        (made.layers["2"].square().sum() + made.logits.sum()).backward()
        found.append([p.grad.clone() for p in net.parameters()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


def test_no_map_at_all_is_refused():
    with pytest.raises(ValueError, match="at_input"):
        explain(conv_net(), torch.rand(1, 2, 8, 8, dtype=torch.float64), 0, at_input=False)
