"""The rival steps against independent formulas; bad input."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import GradCAM, explain
from attrain.training import segmentation_step
from attrain.training.baselines import (
    background_replacement_step,
    gradcam_step,
    multitask_step,
    replace_background,
    rrr_step,
)
from studies.nets.segmenters import MultiTaskUNet
from studies.nets.small import SmallCNN
from tests.attrain.oracles import frozen


def batch(n=6, size=12, channels=1):
    x, y = torch.rand(n, channels, size, size), torch.randint(10, (n,))
    mask = torch.zeros(n, size, size, dtype=torch.bool)
    mask[:, 3:9, 3:9] = True
    return x, y, mask


def test_rrr_penalises_the_input_gradient_of_each_sample_alone():
    net, (x, y, mask) = SmallCNN(width=4).double(), batch()
    x = x.double()
    penalties = []
    for image, foreground in zip(x, mask):
        jacobian = torch.autograd.functional.jacobian(lambda v: F.log_softmax(net(v[None]), 1).sum(), image)
        penalties.append((((~foreground) * jacobian) ** 2).sum())
    expected = F.cross_entropy(net(x), y) + 3 * torch.stack(penalties).mean()
    logits, loss, parts = rrr_step(net, x, y, mask, weight=3.0)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, net(x))
    assert set(parts) == {"classification", "background"} and not any(p.requires_grad for p in parts.values())


def test_rrr_in_training_mode_penalises_no_part_in_other_samples_predictions():
    (x, y, mask), net = batch(), nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten())
    net = net.append(nn.Linear(300, 10)).train()
    found = rrr_step(net, x, y, mask)[2]["background"]
    torch.testing.assert_close(found, rrr_step(frozen(net, x), x, y, mask)[2]["background"])


def test_rrr_is_that_of_its_authors_code_for_the_square_of_the_batch_size():
    """ISNet's authors: ((1 − M) · ∂/∂x [mean_n Σ_k log p_nk])², summed over pixels, mean over the batch."""
    net, (x, y, mask) = SmallCNN(width=4).double(), batch()
    x = x.double().requires_grad_()
    (gradient,) = torch.autograd.grad(F.log_softmax(net(x), 1).sum(1).mean(), x)
    theirs = (((~mask[:, None]) * gradient) ** 2).sum((1, 2, 3)).mean()
    ours = rrr_step(net, x, y, mask)[2]["background"]
    torch.testing.assert_close(ours, theirs * len(x) ** 2)


def test_rrr_ignores_the_foreground():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    assert rrr_step(net, x, y, torch.ones_like(mask))[2]["background"] == 0


def test_gradcam_loss_is_the_background_share_of_the_enlarged_map():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    net[-1].weight.data.abs_()  # so that no map is zero everywhere
    cam = F.interpolate(explain(net, x, y, GradCAM("4")).layers["4"], x.shape[2:], mode="bilinear")
    share = (cam * ~mask[:, None]).sum((1, 2, 3)) / cam.sum((1, 2, 3))
    _, loss, parts = gradcam_step(net, x, y, mask, layer="4", weight=2.0)
    torch.testing.assert_close(parts["background"], share.mean())
    torch.testing.assert_close(loss, F.cross_entropy(net(x), y) + 2 * share.mean())


def test_a_gradcam_map_of_zeros_costs_nothing():
    net, (x, y, mask) = SmallCNN(width=4), batch()
    net[-1].weight.data.zero_()
    _, loss, parts = gradcam_step(net, x, y, mask, layer="4")
    loss.backward()
    assert parts["background"] == 0 and all(p.grad.isfinite().all() for p in net.parameters())


def test_multitask_loss_is_both_cross_entropies():
    net, (x, y, mask) = MultiTaskUNet(width=4).eval(), batch()
    logits, segmentation = net.outputs(x)
    p = segmentation[:, 0].sigmoid()
    pixels = -torch.where(mask, p.log(), (1 - p).log()).mean()
    torch.testing.assert_close(
        multitask_step(net, x, y, mask, weight=0.5)[1], F.cross_entropy(logits, y) + 0.5 * pixels
    )
    torch.testing.assert_close(net(x), logits)
    assert segmentation.shape == (6, 1, 12, 12)


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (SmallCNN(width=4), rrr_step),
        (SmallCNN(width=4), lambda *a: gradcam_step(*a, layer="4")),
        (MultiTaskUNet(width=4), multitask_step),
        (SmallCNN(width=4), background_replacement_step),
    ],
    ids=["rrr", "gradcam", "multitask", "replacement"],
)
def test_every_parameter_gets_a_gradient_and_the_penalty_reaches_it(model, step):
    x, y, mask = batch()
    model.zero_grad()
    for layer in [m for m in model.modules() if isinstance(m, nn.Linear)]:
        layer.weight.data.abs_()  # so that no Grad-CAM map is zero everywhere, as one of ReLUs may be
    step(model, x, y, mask)[1].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    total = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    assert any(p.grad is None or not torch.allclose(p.grad, t) for p, t in zip(model.parameters(), total))


def test_gradient_of_rrr_is_the_derivative_of_its_loss():
    torch.manual_seed(3)
    net, (x, y, mask) = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 10)).double(), batch()
    loss = lambda: rrr_step(net, x.double(), y, mask, weight=10.0)[1]  # noqa: E731
    loss().backward()
    weight, h = net[1].weight, 1e-6
    index = int(weight.grad.abs().argmax())
    gradient, values = weight.grad.flatten()[index].item(), []
    for step in (h, -2 * h):
        weight.data.view(-1)[index] += step
        values.append(loss().item())
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


@pytest.mark.parametrize("source", ["batch", "noise"])
def test_replacement_keeps_the_foreground_and_changes_the_background(source):
    x, _, mask = batch(channels=3)
    original = x.clone()
    replaced = replace_background(x, mask, source=source)
    inside = mask[:, None].expand_as(x)
    assert torch.equal(x, original) and torch.equal(replaced[inside], x[inside])
    assert (replaced[~inside] != x[~inside]).all()
    assert 0 <= replaced.min() and replaced.max() <= 1


def test_replacement_takes_another_images_background_and_its_mean_where_that_has_its_foreground():
    x = torch.stack([torch.full((1, 2, 2), float(i)) for i in range(4)])
    x[:, :, 1, 1] = 9.0
    mask = torch.zeros(4, 2, 2)
    mask[0, 0, 0] = mask[1:, 1, 1] = 1
    replaced = replace_background(x, mask, generator=torch.Generator().manual_seed(0))
    assert replaced[0, 0, 0, 0] == 0 and (replaced[1:, 0, 1, 1] == 9).all()
    backgrounds = torch.arange(4.0)
    assert (replaced[1:, 0, 0, 1] != backgrounds[1:]).all() and replaced[0, 0, 0, 1] in backgrounds[1:]
    assert replaced[0, 0, 1, 1] == replaced[0, 0, 0, 1], "the 9 is another image's foreground, filled with its mean"


def test_replacement_repeats_with_its_generator_and_of_one_image_is_that_image():
    x, _, mask = batch()
    first, again = (replace_background(x, mask, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(replace_background(x[:1], mask[:1]), torch.where(mask[:1, None], x[:1], x[:1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x, y, m: rrr_step(net, x, y, m, weight=-1.0), "weight must be >= 0"),
        (lambda net, x, y, m: rrr_step(net, x, y, m[:, :6]), "mask must have the images' size"),
        (lambda net, x, y, m: rrr_step(net, x, y, m * 0.5), "only 0 .* and 1"),
        (lambda net, x, y, m: gradcam_step(net, x, y, m[:3], layer="4"), "mask must be"),
        (lambda net, x, y, m: gradcam_step(net, x, y, m, layer="nowhere"), "no layer 'nowhere'"),
        (lambda net, x, y, m: replace_background(x, m, source="sky"), 'source must be "batch" or "noise"'),
        (lambda net, x, y, m: segmentation_step(nn.Conv2d(1, 2, 1), x, m), "segmentation needs"),
    ],
)
def test_bad_input_is_named(call, message):
    x, y, mask = batch()
    with pytest.raises(ValueError, match=message):
        call(SmallCNN(width=2), x, y, mask)
