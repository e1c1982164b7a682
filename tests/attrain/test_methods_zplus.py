"""LRP-z⁺ against zennit's rule, conservation, finite differences, and Dual's two maps."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.rules import Norm, Pass
from zennit.rules import ZPlus as ZennitZPlus

from attrain import LRP, ZB, Dual, UnsupportedOperation, ZPlus, explain


def network(batch_norm=True, bias=True, inplace=False):
    """Convolutions, both poolings and two linear layers, in double precision and evaluation mode."""
    norm = nn.BatchNorm2d if batch_norm else lambda _: nn.Identity()
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, stride=2, bias=bias), norm(6), nn.ReLU(inplace), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, groups=2, bias=bias), norm(8), nn.ReLU(inplace), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 7, bias=bias), nn.ReLU(inplace), nn.Linear(7, 4, bias=bias),
    )  # fmt: skip
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            module.running_var.uniform_(0.5, 2)
    return net.double().eval()


def images(n=4, size=24):
    return torch.rand(n, 3, size, size, dtype=torch.float64)


def positive_logits(net, x):
    with torch.no_grad():
        return F.linear(net[:-1](x), net[-1].weight.clamp(min=0), net[-1].bias.clamp(min=0))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.5], ids=["unsigned", "signed"])
@pytest.mark.parametrize(("batch_norm", "tolerance"), [(False, 1e-9), (True, 1e-4)])
def test_map_equals_that_of_zennits_rule(batch_norm, tolerance, shift, inplace):
    """zennit merges batch norms with an ε of its own, hence the wider tolerance."""
    net, x, epsilon = network(batch_norm, inplace=inplace), images() - shift, 1e-6
    layers = [(torch.nn.modules.conv._ConvNd, ZennitZPlus(epsilon)), (nn.Linear, ZennitZPlus(epsilon))]
    composite = LayerMapComposite(
        [*layers, (nn.ReLU, Pass()), (nn.AvgPool2d, Norm(1e-12))], [SequentialMergeBatchNorm()] if batch_norm else []
    )
    start = torch.zeros(4, 4, dtype=torch.float64)
    start[:, 2] = positive_logits(net, x)[:, 2]
    with composite.context(net) as modified:
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(modified(leaf), leaf, start)
    found = explain(net, x, 2, ZPlus(epsilon)).heatmap
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


class Residual(nn.Module):
    """A sum of a signed and an unsigned branch, in place or not, and a batch norm before its ReLU."""

    def __init__(self, inplace):
        super().__init__()
        self.inplace = inplace
        self.first, self.second = nn.Conv2d(3, 5, 3, bias=False), nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(5, affine=False), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        x = F.relu(self.first(x), inplace=self.inplace)
        out = self.second(x)
        if self.inplace:
            out += x
        else:
            out = out + x
        return self.head(F.relu(self.norm(out), inplace=self.inplace).mean((2, 3)))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("make", [lambda inplace: network(True, False, inplace), Residual], ids=["sequential", "sum"])
def test_relevance_is_conserved_without_biases(make, inplace):
    net, x = make(inplace).double().eval(), images()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # no constants
            module.running_mean.zero_()
            if module.bias is not None:
                module.bias.data.zero_()
    head = net.head if isinstance(net, Residual) else net[-1]
    seen = []
    hook = head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    heatmap = explain(net, x, "all", ZPlus(1e-12)).heatmap
    hook.remove()
    start = F.linear(seen[0], head.weight.clamp(min=0)).detach()
    torch.testing.assert_close(heatmap.sum((2, 3, 4)), start, rtol=1e-6, atol=1e-9)
    assert (heatmap >= 0).all() and start.sum() > 0


def test_in_place_operations_and_reused_relus_change_nothing():
    torch.manual_seed(1)
    outside, inside = Residual(False).double().eval(), Residual(True).double().eval()
    inside.load_state_dict(outside.state_dict())
    x = images()
    expected, found = (explain(net, x, 1, ZPlus()).heatmap for net in (outside, inside))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_batch_norm_is_folded_only_into_a_layer_right_before_it():
    torch.manual_seed(1)
    conv, norm, x = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), images()
    nets = [nn.Sequential(conv, nn.ReLU(inplace), norm, nn.Flatten()).double().eval() for inplace in (False, True)]
    expected, found = (explain(net, x, 1, ZPlus()).heatmap for net in nets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_sum_follows_its_formula():
    """R_x = x⁺ / (x⁺ + y⁺ + ε) · R at the sum of two inputs of either sign."""
    net = nn.Module()
    net.forward = lambda v: v[:, :2] + v[:, 2:]
    v = torch.tensor([[1.0, -2.0, 3.0, 5.0]], dtype=torch.float64)
    heatmap = explain(net, v, "all", ZPlus(0.5)).heatmap
    first = torch.tensor([[1.0, 0.0, 3.0, 0.0]], dtype=torch.float64) / (1 + 3 + 0.5) * 4
    second = torch.tensor([0.0, -2.0, 0.0, 5.0], dtype=torch.float64) / (5 + 0.5) * 3
    torch.testing.assert_close(heatmap, torch.stack([first[0], second])[None])


@pytest.mark.parametrize("method", [ZPlus(), ZPlus(first_layer=ZB()), Dual()], ids=["z+", "z+ and z^B", "Dual"])
def test_maps_derivative_is_that_of_finite_differences(method):
    net, x = network(), images(2)
    weights = torch.rand(1, dtype=torch.float64) + torch.rand_like(explain(net, x, "all", method).heatmap)

    def value():
        return (explain(net, x, "all", method, create_graph=True).heatmap * weights).sum()

    value().backward()
    for layer in (0, 4, 9) if method.first_layer is None else (4, 9):  # z^B takes batch norms and biases for constants
        weight, step = net[layer].weight, 1e-6
        index = int(weight.grad.abs().argmax())
        gradient, values = weight.grad.flatten()[index].item(), []
        for change in (step, -2 * step):
            weight.data.view(-1)[index] += change
            values.append(value().item())
        weight.data.view(-1)[index] += step
        assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4), layer


def test_ordinary_gradients_stay_ordinary():
    net, x = network(), images(2)
    explain(net, x, "all", Dual(), create_graph=True).logits.sum().backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(x).sum().backward()
    for parameter, gradient in zip(net.parameters(), found):
        torch.testing.assert_close(gradient, parameter.grad)


def test_dual_is_both_maps_of_one_forward_pass():
    net, x, calls = network(), images(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    found = explain(net, x, "all", Dual(1e-2, ZB()), layers=["3"])
    assert len(calls) == 1 and found.heatmap.shape == (4, 2, 3, 24, 24) and found.layers["3"].shape[:2] == (4, 2)
    for k, method in enumerate((ZPlus(1e-2, ZB()), LRP(1e-2, ZB()))):
        alone = explain(net, x, lambda logits: logits.sum(1), method, layers=["3"])
        torch.testing.assert_close(found.heatmap[:, k], alone.heatmap, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.layers["3"][:, k], alone.layers["3"], rtol=1e-9, atol=1e-12)


ARCHITECTURES = "resnet18 densenet121 squeezenet1_0 googlenet mnasnet0_5 shufflenet_v2_x0_5".split()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torchvision_networks_have_maps_that_can_be_trained_on(name):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net = torchvision.models.get_model(name, weights=None, num_classes=3, **options).train()
    explain(net, torch.rand(4, 3, 64, 64), "all", Dual(first_layer=ZB()), create_graph=True).heatmap.sum().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients) and sum(g.abs().sum() for g in gradients) > 0


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x[:, 0].matmul(torch.ones(8, 2)).sum(1), "LRP-z⁺ has no rule for .*matmul"),
        (lambda x: (x - x.flip(3)).sum((2, 3)), "LRP-z⁺ has no rule for .*sub"),
        (lambda x: torch.add(x, x, alpha=2).sum((2, 3)), "alpha"),
        (lambda x: F.conv_transpose2d(x, torch.ones(3, 2, 1, 1)).sum((2, 3)), "LRP-z⁺ has no rule for .*transpose"),
        (lambda x: torch.sigmoid(x).sum((2, 3)), "no rule for .*sigmoid"),
    ],
)
def test_operations_without_a_rule_are_named(forward, message):
    net = nn.Module()
    net.forward = forward
    with pytest.raises(UnsupportedOperation, match=message):
        explain(net, torch.rand(2, 3, 8, 8), 0, ZPlus())


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="ZPlus needs epsilon > 0"):
        ZPlus(0.0)
    with pytest.raises(ValueError, match="target must be None"):
        explain(network(), images(), 3, Dual())


@pytest.mark.parametrize("first_layer", [None, ZB()])
@pytest.mark.parametrize("method", [ZPlus, Dual])
def test_between_a_layer_and_the_batch_norm_that_is_one_with_it_there_is_no_map(method, first_layer):
    net, x = network(), images()
    for layer, norm in (("0", "1"), ("4", "5")):
        with pytest.raises(ValueError, match=f"layer '{layer}' and the batch norm behind it as one"):
            explain(net, x, None, method(first_layer=first_layer), layers=[layer])
        assert explain(net, x, None, method(first_layer=first_layer), layers=[norm]).layers[norm].any()


class Copied(nn.Module):
    def forward(self, x):
        return x.clone()


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_nor_is_there_between_the_copies_that_a_batch_norm_takes(layer):
    norm = nn.BatchNorm2d(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Copied(), nn.Unflatten(1, (4,)), Copied(), norm, nn.Flatten(), nn.ReLU())
    with pytest.raises(ValueError, match="as one"):
        explain(net.eval(), torch.rand(2, 3, 4, 4), 0, ZPlus(), layers=[layer])


class Parallel(nn.Module):
    """A layer with a batch norm beside one without; in either order, and with a norm whose output is not used."""

    def __init__(self, first, watched=False):
        super().__init__()
        self.one, self.other, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.first, self.watched = first, watched
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        one = self.one(x) if self.first else None
        other = self.other(x)
        one = self.one(x) if one is None else one
        if self.watched:
            with torch.no_grad():
                self.norm(one)
            return (one.relu() + other).relu().mean((2, 3))
        return (self.norm(one).relu() + other).relu().mean((2, 3))


def test_the_map_does_not_depend_on_the_order_in_which_layers_side_by_side_are_called():
    net, x = Parallel(first=True).double().eval(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    heatmap = explain(net, x, 0, ZPlus()).heatmap
    net.first = False
    torch.testing.assert_close(explain(net, x, 0, ZPlus()).heatmap, heatmap)


def test_a_batch_norm_without_a_part_in_the_output_hides_no_layers_map():
    net, x = Parallel(first=True, watched=True).double().eval(), torch.rand(2, 3, 6, 6, dtype=torch.float64)
    found = explain(net, x, 0, ZPlus(), layers=["one"])
    assert found.layers["one"].any()


@pytest.mark.parametrize("method", [LRP, ZPlus])
def test_a_second_batch_norm_behind_the_first_layer_by_z_b_is_a_layer_of_its_own(method):
    norm, same = nn.BatchNorm2d(4, eps=0), nn.Conv2d(4, 4, 1, groups=4)
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value)
    same.weight.data, same.bias.data = (
        norm.weight.data[:, None, None, None],
        norm.bias - norm.weight * norm.running_mean,
    )
    first, last = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)], [nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
    x, nets = images(2, 6), [nn.Sequential(*first, second, *last).double().eval() for second in (norm, same)]
    torch.testing.assert_close(*(explain(net, x, 0, method(1e-2, first_layer=ZB(0, 1))).heatmap for net in nets))
