"""Guided residual networks: their layout, and what their maps sum to."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from attrain import BCos, InputXGradient, IntegratedGradients, energy_loss, explain
from attrain.training import fit, fit_fresh
from data_prep import digits
from studies.nets.resnets import DEPTHS, BCosConv2d, Scale, UncentredNorm2d, guided_resnet

METHOD = {"vanilla": InputXGradient(), "xdnn": InputXGradient(), "bcos": BCos()}


def lively(kind, size="small", width=4, channels=3):
    """A network in float64 whose weights are all at work: fixup starts with branches of zero."""
    net = guided_resnet(kind, size, classes=3, channels=channels, width=width).double()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.any():
            nn.init.kaiming_normal_(module.weight)
    return net


@pytest.mark.parametrize("size", ["resnet18", "resnet50"])
def test_vanilla_is_torchvisions_network_behind_a_normalisation(size):
    net, theirs = guided_resnet("vanilla", size, 5).eval(), torchvision.models.get_model(size, num_classes=5).eval()
    net.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 64, 64)
    normalised = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    torch.testing.assert_close(net(x), theirs(normalised))


def test_pretrained_takes_all_but_the_last_layer(monkeypatch):
    theirs = torchvision.models.resnet18()
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: theirs)
    net = guided_resnet("vanilla", "resnet18", 7, pretrained=True)
    ours = net.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in theirs.state_dict().items() if not k.startswith("fc."))
    assert net.fc.weight.shape == (7, 512)


@pytest.mark.parametrize("kind", ["vanilla", "xdnn", "bcos"])
@pytest.mark.parametrize(("size", "pixels", "channels"), [("small", 28, 1), ("resnet18", 64, 3), ("resnet50", 64, 3)])
def test_every_kind_and_size_has_every_depth(kind, size, pixels, channels):
    net = guided_resnet(kind, size, 4, channels).eval()
    found = explain(net, torch.rand(1, channels, pixels, pixels), 0, METHOD[kind], layers=list(DEPTHS.values()))
    assert found.logits.shape == (1, 4)
    sides = [m.shape[-1] for m in found.layers.values()]
    assert sides[0] == pixels and sides[1:] == sorted(sides[1:], reverse=True)
    assert found.layers["input"].shape[1] == (2 * channels if kind == "bcos" else channels)


@pytest.mark.parametrize("size", ["small", "resnet50"])
def test_xdnn_has_no_bias_and_no_norm_and_is_positively_homogeneous(size):
    net = lively("xdnn", size)
    assert not any(name.endswith("bias") for name, _ in net.named_parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    net.input = nn.Identity()
    x = torch.randn(2, 3, 32, 32).double()
    torch.testing.assert_close(net(7 * x), 7 * net(x), rtol=1e-10, atol=0)


def test_input_times_gradient_of_an_xdnn_is_integrated_gradients_from_the_mean_image():
    net, x = lively("xdnn"), torch.rand(2, 3, 24, 24).double()
    grey = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 24, 24)
    found = explain(net, x, 1, InputXGradient(), layers=["input"])
    integrated = explain(net, x, 1, IntegratedGradients(grey, steps=7))
    torch.testing.assert_close(found.layers["input"], integrated.heatmap, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", ["xdnn", "bcos"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("create_graph", [True, False])
@pytest.mark.parametrize("size", ["small", "resnet18"])
def test_maps_sum_to_the_logit_at_every_depth(kind, training, create_graph, size):
    net, x = lively(kind, size).train(training), torch.rand(3, 3, 32, 32).double()
    layers = list(DEPTHS.values())
    found = explain(net, x, torch.tensor([0, 1, 2]), METHOD[kind], layers=layers, create_graph=create_graph)
    logits = found.logits.diagonal()
    for heatmap in found.layers.values():
        torch.testing.assert_close(heatmap.sum((1, 2, 3)), logits, rtol=1e-11, atol=1e-16)


def dynamic_matrix(net, sample):
    """W(x) of a B-cos network, (classes, inputs): every scale as it is for x, applied to each unit vector."""
    fixed, scales = copy.deepcopy(net), {}

    def keep(name, module, args, out):
        scales[name] = out / torch.conv2d(args[0], unit(module.weight), None, module.stride, module.padding)

    unit = lambda w: w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)  # noqa: E731
    hooks = [
        module.register_forward_hook(partial(keep, name))
        for name, module in net.named_modules()
        if isinstance(module, BCosConv2d)
    ]
    with torch.no_grad():
        logits = net(sample[None])
        for hook in hooks:
            hook.remove()
        for name, module in fixed.named_modules():
            if isinstance(module, BCosConv2d):
                module.forward = lambda x, m=module, s=scales[name]: (
                    torch.conv2d(x, unit(m.weight), None, m.stride, m.padding) * s
                )
        fixed.input = nn.Identity()
        entry = net.input(sample[None])
        columns = torch.eye(entry.numel(), dtype=torch.float64).view(-1, *entry.shape[1:])
        return fixed(columns).T, entry, logits


def test_bcos_map_is_the_row_of_the_dynamic_matrix_times_the_input():
    net, x = lively("bcos", width=2).eval(), torch.rand(2, 3, 8, 8).double()
    for module in net.modules():
        if isinstance(module, UncentredNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    maps = explain(net, x, 2, BCos(), layers=["input"]).layers["input"]
    for sample, heatmap in zip(x, maps):
        matrix, entry, logits = dynamic_matrix(net, sample)
        torch.testing.assert_close((matrix @ entry.flatten())[None], logits)
        torch.testing.assert_close(matrix[2].view_as(heatmap) * entry[0], heatmap, rtol=1e-9, atol=1e-15)


def test_training_on_bcos_maps_leaves_the_logits_their_ordinary_gradient():
    net, x = lively("bcos").train(), torch.rand(3, 3, 16, 16).double()
    parameters = list(net.parameters())
    found = torch.autograd.grad(explain(net, x, 0, BCos(), create_graph=True).logits.square().sum(), parameters)
    expected = torch.autograd.grad(net(x).square().sum(), parameters)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layer", ["input", "layer2"])
def test_a_loss_of_bcos_maps_has_the_derivative_that_finite_differences_give(layer):
    net, x = lively("bcos").train(), torch.rand(3, 3, 16, 16).double()
    mask = torch.zeros(3, 16, 16)
    mask[:, :7, 2:9] = 1

    def loss():
        return energy_loss(explain(net, x, 1, BCos(), layers=[layer], create_graph=True).layers[layer], mask)

    for parameter in (net.conv1.weight, net.bn1.weight, net.layer3[0].conv2.weight, net.fc.weight):
        (gradient,) = torch.autograd.grad(loss(), parameter)
        i, flat = gradient.abs().argmax(), parameter.data.view(-1)
        values = []
        for move in (1e-6, -2e-6, 1e-6):
            flat[i] += move
            values.append(loss().item())
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient.view(-1)[i].item(), rel=1e-5)


def test_uncentred_norm_divides_by_the_deviation_and_keeps_it():
    norm, x = UncentredNorm2d(2).train(), torch.randn(8, 2, 5, 5) * 3 + 1
    torch.testing.assert_close(norm(x), x / (x.var((0, 2, 3), unbiased=False) + 1e-5).sqrt()[:, None, None])
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * x.var((0, 2, 3), unbiased=False))
    norm.momentum, _ = None, norm.reset_running_stats()
    for part in x.split(4):
        norm(part)
    torch.testing.assert_close(
        norm.running_var, torch.stack([p.var((0, 2, 3), unbiased=False) for p in x.split(4)]).mean(0)
    )


@pytest.mark.parametrize("kind", ["vanilla", "xdnn", "bcos"])
def test_every_kind_learns_digits(kind):
    data = digits.load()
    x, y = data["train_x"][:400], data["train_y"][:400]
    x = nn.functional.interpolate(x, (16, 16))
    _, curves = fit_fresh(
        partial(guided_resnet, kind, "small", 10, 1, 8), (x, y), seed=0, epochs=12, batch_size=32, lr=3e-3
    )
    assert curves["accuracy"][-1] > 0.9


def test_an_xdnn_starts_as_its_own_shortcut():
    net = guided_resnet("xdnn", "resnet18", 3)
    assert not net.fc.weight.any() and not net.layer2[1].conv2.weight.any()
    x = torch.rand(1, 64, 8, 8)
    torch.testing.assert_close(net.layer1(x), x)
    assert isinstance(net.layer1[0].bn2, Scale)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kind": "resnet"}, "kind must be vanilla, xdnn, bcos"),
        ({"size": "resnet34"}, "size must be small, resnet18, resnet50"),
        ({"classes": 0}, "classes must be"),
        ({"width": 1.5}, "width must be"),
        ({"pretrained": True, "kind": "bcos", "size": "resnet50"}, "pretrained weights for kind vanilla"),
        ({"pretrained": True, "size": "small"}, "pretrained weights for kind vanilla"),
        ({"pretrained": True, "size": "resnet18", "channels": 1}, "pretrained weights for kind vanilla"),
    ],
)
def test_bad_settings_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        guided_resnet(**{"kind": "vanilla", "size": "small", "classes": 3} | bad)


def test_training_in_several_passes_is_repeatable():
    x, y = torch.rand(8, 3, 16, 16), torch.randint(2, (8, 2)).float()
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        net = guided_resnet("bcos", "small", 2, width=4)
        fit(net, (x, y), epochs=2, batch_size=4, generator=torch.Generator().manual_seed(0))
        weights.append(net.state_dict())
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
