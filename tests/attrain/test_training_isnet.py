import math
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchmetrics.functional.classification import binary_f1_score

from attrain import LRP, ZB, DeepLift, Dual, InputXGradient, explain, isnet_loss, softmax_target, stochastic_target
from attrain.targets import selective_target
from attrain.training import (
    at_epoch,
    correct,
    estimate_foreground_range,
    fit,
    fit_copy,
    fit_fresh,
    isnet_step,
    plain_step,
    ranged_isnet_step,
    segmentation_step,
)
from studies.nets.segmenters import UNet
from studies.nets.small import NormCNN, SmallCNN


def batch(n=8, size=12):
    x, y = torch.rand(n, 1, size, size), torch.randint(10, (n,))
    mask = torch.zeros(n, size, size, dtype=torch.bool)
    mask[:, 3:9, 3:9] = True
    return x, y, mask


def test_step_is_the_weighted_sum_of_its_losses():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    logits, loss, parts = isnet_step(net, x, y, mask, method=LRP(), P=0.3, C1=0.01, C2=1.0, w2=2.0)
    heatmap = explain(net, x, selective_target(), LRP()).heatmap
    expected = 0.7 * F.cross_entropy(net(x), y) + 0.3 * isnet_loss(heatmap, mask, C1=0.01, C2=1.0, w2=2.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, net(x))
    assert set(parts) == {"classification", "background", "foreground"}
    assert not any(part.requires_grad for part in parts.values())


def total_loss(net, y, logits, losses, P=0.7, layer_decay=0.8):
    """(1 − P)·CE + P·GWRP over the losses of several maps, written out."""
    ranked = sorted(losses, reverse=True)
    pooled = sum(layer_decay**r * v for r, v in enumerate(ranked)) / sum(layer_decay**r for r in range(len(ranked)))
    return (1 - P) * F.cross_entropy(logits, y) + P * pooled


def test_deep_supervision_pools_the_losses_of_all_maps():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    C1, C2 = {"input": 0.01, "1": 0.02, "4": 0.03}, {"input": 1.0, "1": 2.0, "4": 3.0}
    _, loss, parts = isnet_step(net, x, y, mask, method=LRP(), layers=["1", "4"], C1=C1, C2=C2)
    found = explain(net, x, selective_target(), LRP(), layers=["1", "4"])
    maps = {"input": found.heatmap, **found.layers}
    losses = [isnet_loss(m, mask, C1=C1[name], C2=C2[name]).item() for name, m in maps.items()]
    assert loss.item() == pytest.approx(total_loss(net, y, found.logits, losses).item(), rel=1e-5)
    assert parts["4.background"] + parts["4.foreground"] == pytest.approx(losses[2], rel=1e-5)
    assert {"classification", "background", "foreground", "1.background"} < set(parts)


def test_a_hidden_map_is_activation_times_gradient_under_the_rule():
    net, x = SmallCNN(width=4), batch()[0]
    hidden = explain(net, x, 3, LRP(epsilon=1e-2), layers=["4"]).layers["4"]
    below, above = nn.Sequential(*list(net)[:5]), nn.Sequential(*list(net)[5:])
    expected = explain(above, below(x).detach(), 3, LRP(epsilon=1e-2)).heatmap
    torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize("layers", [(), ("1",)], ids=["input", "deep"])
def test_dual_has_two_maps_each_with_a_range_of_its_own(layers):
    net, (x, y, mask), method = SmallCNN(width=4), batch(), Dual(first_layer=ZB())
    C1, C2 = estimate_foreground_range(net, x.split(4), target="all", method=method, layers=layers)
    _, loss, _ = isnet_step(net, x, y, mask, target="all", method=method, layers=layers, C1=C1, C2=C2)
    found = explain(net, x, "all", method, layers=layers)
    ranges = (C1, C2) if layers else ({"input": C1}, {"input": C2})
    losses = []
    for name, heatmap in {"input": found.heatmap, **found.layers}.items():
        low, high = ranges[0][name], ranges[1][name]
        assert len(low) == len(high) == 2 and low[0] != low[1]
        both = [isnet_loss(heatmap[:, k], mask, C1=low[k], C2=high[k]).item() for k in (0, 1)]
        losses.append(sum(both) / 2)
    assert loss.item() == pytest.approx(total_loss(net, y, found.logits, losses).item(), rel=1e-5)


def test_original_explains_every_class():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    _, loss, _ = isnet_step(net, x, y, mask, target="all", method=LRP(), C1=0.01, C2=1.0)
    losses = [isnet_loss(explain(net, x, c, LRP()).heatmap, mask, C1=0.01, C2=1.0).item() for c in range(10)]
    assert loss.item() == pytest.approx(total_loss(net, y, net(x), [sum(losses) / 10]).item(), rel=1e-5)


@pytest.mark.parametrize("form", ["softmax", "logits"])
def test_ablation_is_gradient_times_input(form):
    net, (x, y, mask) = SmallCNN(width=4).double(), batch()
    x = x.double().requires_grad_()
    if form == "softmax":
        (gradient,) = torch.autograd.grad(net(x).softmax(1).max(1).values.sum(), x)
        maps, target = (x * gradient)[:, None], softmax_target()
    else:
        gradients = [torch.autograd.grad(net(x)[:, c].sum(), x)[0] for c in range(10)]
        maps, target = torch.stack([x * g for g in gradients], 1), "all"
    expected = isnet_loss(maps.detach(), mask, C1=0.01, C2=1.0).item()
    settings = dict(target=target, method=InputXGradient(), P=1.0, C1=0.01, C2=1.0)
    assert isnet_step(net, x.detach(), y, mask, **settings)[1].item() == pytest.approx(expected, rel=1e-9)


def test_step_under_autocast_computes_its_losses_in_float32():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    expected = isnet_step(net, x, y, mask, C1=0.01, C2=1.0)[2]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss, parts = isnet_step(net, x, y, mask, C1=0.01, C2=1.0)
    loss.backward()
    assert logits.dtype == torch.bfloat16 and loss.dtype == parts["background"].dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())
    for name, value in expected.items():
        assert parts[name].item() == pytest.approx(value.item(), rel=0.2), f"{name}: the map itself has 8 bits"


class Reused(nn.Module):
    """One ReLU module used twice, once in place; a functional, a tensor's and an in-place ReLU; a sum."""

    def __init__(self, style):
        super().__init__()
        self.style, self.relu = style, nn.ReLU(inplace=style == "in place")
        self.first, self.second, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 10)

    def rectify(self, x):
        return {"functional": F.relu, "method": torch.Tensor.relu, "method in place": torch.Tensor.relu_}.get(
            self.style, self.relu
        )(x)

    def forward(self, x):
        x = self.rectify(self.first(x))
        return self.head(self.rectify(self.second(x) + x).mean((2, 3)))


@pytest.mark.parametrize("variant", ["Selective", "Dual"])
def test_every_spelling_of_a_relu_trains_alike(variant):
    settings = {"Selective": {}, "Dual": {"target": "all", "method": Dual(first_layer=ZB())}}[variant]
    (x, y, mask), results = batch(), []
    for style in ("reused", "in place", "functional", "method", "method in place"):
        torch.manual_seed(0)
        net = Reused(style)
        loss = isnet_step(net, x, y, mask, C1=0.01, C2=1.0, **settings)[1]
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in net.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            torch.testing.assert_close(a, b)


NETWORKS = "resnet18 vgg11_bn densenet121 squeezenet1_0 googlenet mnasnet0_5 shufflenet_v2_x0_5".split()


@pytest.mark.parametrize("name", NETWORKS)
def test_step_trains_any_relu_network_of_torchvision(name):
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    net = torchvision.models.get_model(name, weights=None, num_classes=5, **options).train()
    x, y, mask = torch.rand(4, 3, 64, 64), torch.arange(4), torch.zeros(4, 64, 64)
    mask[:, 16:48, 16:48] = 1
    _, loss, _ = isnet_step(net, x, y, mask)
    loss.backward()
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in net.parameters()) > 4


def test_step_without_a_map_loss_has_the_gradient_of_cross_entropy():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    isnet_step(net, x, y, mask, P=0.0)[1].backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    F.cross_entropy(net(x), y).backward()
    for parameter, gradient in zip(net.parameters(), gradients):
        torch.testing.assert_close(gradient, parameter.grad)


def test_gradient_of_the_step_is_the_derivative_of_its_loss():
    net, (x, y, mask) = SmallCNN(width=2).double(), batch()
    x = x.double()

    def loss():
        return isnet_step(net, x, y, mask, method=LRP(), C1=0.01, C2=1.0)[1]

    loss().backward()
    weight, h = net[3].weight, 1e-6
    index = int(weight.grad.abs().argmax())
    gradient = weight.grad.flatten()[index].item()
    values = []
    for step in (h, -2 * h):
        weight.data.view(-1)[index] += step
        values.append(loss().item())
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-3)


@pytest.mark.parametrize(
    "target", ["all", stochastic_target(torch.Generator().manual_seed(0))], ids=["all", "stochastic"]
)
def test_every_variant_trains_a_torchvision_network_with_batch_norm(target):
    net, (x, y, mask) = torchvision.models.resnet18(num_classes=10), batch(4, 32)
    before = net.bn1.running_mean.clone()
    logits, loss, _ = isnet_step(net.train(), x.expand(-1, 3, -1, -1), y, mask, target=target)
    loss.backward()
    assert logits.shape == (4, 10) and math.isfinite(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert not torch.equal(before, net.bn1.running_mean), "a training step updates the running statistics"


def test_several_labels_a_sample_are_trained_by_binary_cross_entropy():
    net, (x, _, mask) = SmallCNN(width=4), batch()
    y = torch.rand(8, 10).round()
    parts = isnet_step(net, x, y, mask)[2]
    torch.testing.assert_close(parts["classification"], F.binary_cross_entropy_with_logits(net(x), y).detach())


def test_fit_repeats_bit_for_bit_and_learns():
    x, y, mask = batch(64)
    x[torch.arange(64), 0, 0, y] = 5.0
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        net = SmallCNN(width=4)
        settings = dict(epochs=15, batch_size=16, lr=1e-2, clip=1.0)
        curves = fit(net, (x, y, mask), generator=torch.Generator().manual_seed(0), **settings)
        runs.append((curves, [p.clone() for p in net.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1]))
    assert not net.training and len(curves["loss"]) == 15 and curves["loss"][-1] < 0.5 * curves["loss"][0]
    assert correct(net, x, y).double().mean() > 0.8


def test_fit_learns_several_labels_a_sample_and_counts_each():
    torch.manual_seed(0)
    x = torch.randn(256, 5)
    y = (x[:, :3] > 0).float()
    net, generator = torch.nn.Linear(5, 3), torch.Generator().manual_seed(0)
    with torch.no_grad():
        right = ((net(x) > 0) == y.bool()).double().mean()
        loss = F.binary_cross_entropy_with_logits(net(x), y)
    first = fit(net, (x, y), epochs=1, batch_size=256, generator=generator)
    assert first["accuracy"] == [pytest.approx(right)] and first["loss"] == [pytest.approx(loss.item())]
    assert fit(net, (x, y), epochs=60, batch_size=32, lr=3e-2, generator=generator)["accuracy"][-1] > 0.95


def test_fit_follows_a_schedule_of_steps():
    data, seen = batch(16), []

    def step(weight, net, x, y, mask):
        seen.append(weight)
        logits, loss, parts = plain_step(net, x, y)
        return logits, loss, parts | ({"late": loss.detach()} if weight == 2 else {})

    schedule = {0: partial(step, 1), 2: partial(step, 2)}
    curves = fit(SmallCNN(width=2), data, schedule, epochs=4, batch_size=16)
    assert seen == [1, 1, 2, 2]
    assert [math.isnan(v) for v in curves["late"]] == [True, True, False, False]


@pytest.mark.parametrize(("schedule", "values"), [(0.7, [0.7] * 4), ({0: 1, 1: 2, 3: 4}, [1, 2, 2, 4])])
def test_schedule_holds_from_its_epochs_on(schedule, values):
    assert [at_epoch(schedule, epoch) for epoch in range(4)] == values


def test_clipping_bounds_the_step():
    data = batch(8)
    for clip, bound in ((1e-3, 1e-3), (None, math.inf)):
        torch.manual_seed(0)
        net = SmallCNN(width=2)
        before = [p.detach().clone() for p in net.parameters()]
        fit(net, data, epochs=1, batch_size=8, lr=1.0, optimizer="sgd", clip=clip)
        moved = math.sqrt(sum(float(((p.detach() - b) ** 2).sum()) for p, b in zip(net.parameters(), before)))
        assert moved <= bound * 1.001 and moved > 0.5e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": -1}, "epochs must be >= 1, got -1"),
        ({"lr": math.nan}, "lr must be > 0"),
        ({"clip": -1.0}, "clip must be > 0, or None"),
        ({"clip": 0.0}, "clip must be > 0, or None"),
        (
            {"data": (torch.rand(4, 1, 12, 12), torch.zeros(5, dtype=torch.long))},
            r"one length, at least 1, got \[4, 5\]",
        ),
        ({"data": (torch.rand(0, 1, 12, 12), torch.zeros(0).long())}, r"at least 1, got \[0, 0\]"),
        ({"lr": -1.0}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": "lbfgs"}, "optimizer"),
        ({"step": {1: plain_step}}, "from epoch 0 on"),
    ],
)
def test_fit_names_a_bad_setting(options, message):
    with pytest.raises(ValueError, match=message):
        fit(SmallCNN(width=2), **{"data": batch(), "epochs": 1, **options})


def test_fit_stops_at_a_loss_that_is_not_finite():
    with pytest.raises(FloatingPointError, match="epoch 1"):
        fit(SmallCNN(width=2), batch(), lambda m, *b: (m(b[0]), plain_step(m, *b)[1] * math.nan, {}), epochs=1)


def test_foreground_range_follows_its_formula_over_any_batches():
    net, x = SmallCNN(width=4), torch.rand(50, 1, 12, 12)
    totals = explain(net, x, 3, LRP()).heatmap.double().abs().sum((1, 2, 3))
    mean, sd = totals.mean().item(), totals.std().item()
    C1 = max(mean / 5, mean - 3 * sd)
    for sizes in ([50], [7, 20, 1, 22]):
        found = estimate_foreground_range(net, x.split(sizes), target=3, method=LRP())
        assert found == pytest.approx((C1, min(25 * C1, mean + 3 * sd)), rel=1e-5)


def test_foreground_range_averages_the_maps_of_classes_and_keeps_layers_apart():
    net, x = SmallCNN(width=4), torch.rand(20, 1, 12, 12)
    C1, C2 = estimate_foreground_range(net, x.split(6), target="all", method=LRP(), layers=["1"])
    found = explain(net, x, "all", LRP(), layers=["1"])
    for name, heatmap in {"input": found.heatmap, "1": found.layers["1"]}.items():
        totals = heatmap.double().abs().sum((2, 3, 4)).mean(1)
        mean, sd = totals.mean().item(), totals.std().item()
        assert C1[name] == pytest.approx(max(mean / 5, mean - 3 * sd), rel=1e-5)
        assert C2[name] == pytest.approx(min(25 * C1[name], mean + 3 * sd), rel=1e-5)


def test_ranged_step_is_the_step_with_the_estimated_range():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    C1, C2 = estimate_foreground_range(net, x.split(4), target="all", layers=["1"])
    step = ranged_isnet_step(net, x.split(4), target="all", layers=["1"], P=0.4)
    torch.testing.assert_close(
        step(net, x, y, mask)[1], isnet_step(net, x, y, mask, target="all", layers=["1"], P=0.4, C1=C1, C2=C2)[1]
    )


def test_foreground_range_in_training_mode_warns_of_nothing_as_the_step_does_not():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(400, 3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate_foreground_range(net.train(), torch.rand(6, 1, 12, 12).split(3))


def test_a_method_may_be_made_of_the_batch():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), torch.rand(6, 1, 4, 4)
    y, mask = torch.arange(6) % 3, torch.arange(4).expand(6, 4, 4) < 2
    other, settings = x.roll(1, 0), dict(target=0, C1=1.0, C2=2.0)
    found = isnet_step(model, x, y, mask, method=lambda x: DeepLift(x.roll(1, 0)), **settings)
    expected = isnet_step(model, x, y, mask, method=DeepLift(other), **settings)
    assert found[2] == expected[2] and found[1].item() == expected[1].item()
    ranges = [
        estimate_foreground_range(model, [x], target=0, method=m)
        for m in (lambda x: DeepLift(x.roll(1, 0)), DeepLift(other))
    ]
    assert ranges[0] == ranges[1]
    with pytest.raises(TypeError, match=r"DeepLift\(\)"):
        isnet_step(model, x, y, mask, method=DeepLift, **settings)


def test_foreground_range_needs_two_samples():
    with pytest.raises(ValueError, match="at least 2 samples"):
        estimate_foreground_range(SmallCNN(width=2), [torch.rand(1, 1, 12, 12)])


def test_a_range_that_lacks_a_layer_is_named():
    with pytest.raises(ValueError, match="C2 has no number for the map at '1'; it has input"):
        isnet_step(SmallCNN(width=2), *batch(), layers=["1"], C2={"input": 25.0})


def test_a_weight_outside_zero_and_one_is_named():
    with pytest.raises(ValueError, match="P must be in"):
        isnet_step(nn.Linear(1, 1), *batch(), P=1.5)


def test_fresh_networks_of_a_seed_start_alike_and_see_the_samples_in_one_order():
    def nets(seed):
        return fit_fresh(lambda: SmallCNN(width=2), batch_, epochs=2, batch_size=3, seed=seed)

    batch_ = batch()
    (one, curves), (two, again), (other, _) = nets(1), nets(1), nets(2)
    assert curves == again and not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one[0].weight, other[0].weight)


def test_batch_norms_statistics_are_those_of_the_final_weights():
    x, y, _ = batch(n=100)
    model, _ = fit_fresh(lambda: NormCNN(width=2), (5 * x, y), epochs=3, batch_size=10, lr=0.1, seed=0)
    first = model[0](5 * x)
    torch.testing.assert_close(model[1].running_mean, first.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, first.var((0, 2, 3)))
    assert not model.training and model[1].momentum == 0.1


def test_step_in_range_takes_c1_and_c2_from_the_plain_network():
    plain, net, (x, y, mask) = SmallCNN(width=4), SmallCNN(width=4), batch()
    step = ranged_isnet_step(plain, [x[:5], x[5:]], method=LRP(), P=0.6, decay=0.5)
    C1, C2 = estimate_foreground_range(plain, [x], method=LRP())
    _, loss, _ = step(net, x, y, mask)
    torch.testing.assert_close(loss, isnet_step(net, x, y, mask, method=LRP(), P=0.6, decay=0.5, C1=C1, C2=C2)[1])


# ---------------------------------------------------------------- segmentation


def discs(n, size=24, generator=None):
    """Noisy discs at random places, and where they are: a task that only a segmenter with a wide view solves."""
    centre = torch.randint(6, size - 6, (2, n, 1, 1), generator=generator)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 25
    return (0.4 * mask + 0.6 * torch.rand(n, size, size, generator=generator))[:, None], mask


def test_a_unet_learns_to_segment_discs():
    generator = torch.Generator().manual_seed(0)
    (x, mask), (test_x, test_mask) = discs(128, generator=generator), discs(64, generator=generator)
    net = UNet(width=4, depth=2)
    curves = fit(net, (x, mask), segmentation_step, epochs=15, batch_size=16, lr=1e-2, generator=generator)
    with torch.no_grad():
        dice = binary_f1_score(net(test_x)[:, 0], test_mask, multidim_average="samplewise")
    assert dice.mean() > 0.9
    assert {"accuracy", "loss", "cross_entropy", "dice"} == curves.keys()
    with torch.no_grad():
        pixels = ((net(x)[:, 0] > 0) == mask).double().mean().item()
    assert curves["accuracy"][-1] == pytest.approx(pixels, abs=0.05)


def test_segmentation_loss_of_a_certain_right_and_a_certain_wrong_answer():
    mask = torch.zeros(2, 4, 4)
    mask[0, :2] = 1
    right, wrong = (100 * (2 * mask - 1) * sign for sign in (1, -1))
    logits, loss, parts = segmentation_step(lambda x: right[:, None], None, mask)
    assert loss == pytest.approx(0, abs=1e-6) and torch.equal(logits.argmax(1), mask.long())
    _, loss, parts = segmentation_step(lambda x: wrong[:, None], None, mask)
    assert parts["cross_entropy"] == 100
    assert parts["dice"].item() == pytest.approx(((1 - 1 / 17) + (1 - 1 / 17)) / 2)
    assert loss == pytest.approx((parts["cross_entropy"] + parts["dice"]).item())


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 1, 4, 4)])
def test_logits_that_do_not_fit_the_mask_are_named(shape):
    with pytest.raises(ValueError, match="segmentation needs logits"):
        segmentation_step(lambda x: torch.zeros(shape), None, torch.ones(2, 8, 8))


def test_a_copy_is_trained_and_the_network_is_left_as_it_is():
    torch.manual_seed(0)
    net, data = nn.Linear(3, 2), (torch.randn(20, 3), torch.arange(20) % 2)
    before = net.weight.detach().clone()
    first, second = (fit_copy(net, data, seed=1, epochs=2, batch_size=4) for _ in range(2))
    assert torch.equal(net.weight, before) and net.training
    assert torch.equal(first.weight, second.weight) and not torch.equal(first.weight, before)
    assert not torch.equal(first.weight, fit_copy(net, data, seed=2, epochs=2, batch_size=4).weight)
