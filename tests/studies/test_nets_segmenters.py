"""Networks that segment: U-Net's shapes, and classifiers that use a segmentation."""

import pytest
import torch
from torch import nn

from attrain import LRP, ZB, explain
from attrain.training import correct, fit, segmentation_step
from studies.nets.segmenters import MultiTaskUNet, SegmentThenClassify, UNet
from studies.nets.small import SmallCNN


def batch(n=6, size=12, channels=1):
    x, y = torch.rand(n, channels, size, size), torch.randint(10, (n,))
    mask = torch.zeros(n, size, size, dtype=torch.bool)
    mask[:, 3:9, 3:9] = True
    return x, y, mask


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 30), (64, 64)])
@pytest.mark.parametrize(("channels", "classes", "depth"), [(1, 1, 3), (3, 2, 1)])
def test_unet_gives_logits_in_the_images_size_and_features_at_the_bottleneck(size, channels, classes, depth):
    net, x = UNet(channels, classes, width=4, depth=depth).eval(), torch.rand(2, channels, *size)
    assert net(x).shape == (2, classes, *size)
    features = net.encode(x)
    assert len(features) == depth + 1
    assert features[-1].shape == (2, 4 * 2**depth, -(-size[0] // 2**depth), -(-size[1] // 2**depth))


def test_unet_pads_at_the_bottom_and_the_right_with_zeros():
    net, x = UNet(width=4).eval(), torch.rand(1, 1, 21, 30)
    padded = torch.zeros(1, 1, 24, 32)
    padded[..., :21, :30] = x
    torch.testing.assert_close(net(x), net(padded)[..., :21, :30])


def test_every_parameter_of_a_unet_learns():
    net = UNet(width=4)
    net(torch.rand(4, 1, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"width": 0}, {"in_channels": -1}, {"out_channels": 1.5}])
def test_bad_sizes_of_a_unet_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number ≥ 1"):
        UNet(**wrong)


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 3, 16, 16), (2, 1, 0, 16)])
def test_images_that_do_not_fit_a_unet_are_named(shape):
    with pytest.raises(ValueError, match=r"UNet takes images \(N, 1, H, W\)"):
        UNet(width=2)(torch.zeros(shape))


def test_segmenter_learns_and_its_classifier_sees_the_foreground_alone():
    x, y, mask = batch(32)
    x = torch.where(mask[:, None], 0.9, 0.1 * x)
    segmenter = nn.Conv2d(1, 1, 1)
    curves = fit(segmenter, (x, mask), segmentation_step, epochs=60, batch_size=8, lr=0.1)
    assert curves["accuracy"][-1] > 0.99
    net = SegmentThenClassify(segmenter, SmallCNN(width=4))
    assert torch.equal(net.segment(x)[:, 0], mask)
    changed = torch.where(mask[:, None], x, 0.2 * torch.rand_like(x))
    torch.testing.assert_close(net(changed), net.classifier(x * mask[:, None]))
    before = [p.clone() for p in segmenter.parameters()]
    for p in segmenter.parameters():
        p.grad = None
    fit(net, (x, y), epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, segmenter.parameters()))
    assert all(p.grad is None for p in segmenter.parameters())


def test_training_the_classifier_leaves_the_segmenters_statistics_alone():
    x, y, _ = batch()
    segmenter = UNet(width=2, depth=1)
    net = SegmentThenClassify(segmenter, SmallCNN(width=2))
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    fit(net, (x, y), epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert net.train().classifier.training and not segmenter.training


def test_multitask_network_can_be_used_wherever_a_classifier_can():
    net, (x, y, _) = MultiTaskUNet(channels=3, classes=10, width=2), batch(channels=3)
    assert correct(net, x, y).shape == (6,) and explain(net, x, method=LRP(first_layer=ZB())).heatmap.shape == x.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: MultiTaskUNet()(x[..., :10]), "divisible by 4"),
        (lambda x: SegmentThenClassify(nn.Conv2d(1, 2, 1), SmallCNN(width=2))(x), "the segmenter must return"),
    ],
    ids=["sides", "two channels"],
)
def test_images_and_segmentations_of_another_shape_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(2, 1, 12, 12))
