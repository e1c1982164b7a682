"""Every classifier of torchvision is explained completely by DeepLIFT."""

import pytest
import torch
import torchvision

from attrain import DeepLift, explain
from studies.bench.sweep import classifier, incompleteness

LARGE = (
    "convnext_base convnext_large convnext_small efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l "
    "efficientnet_v2_m maxvit_t regnet_x_16gf regnet_x_32gf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_32gf "
    "regnet_y_8gf resnext101_32x8d resnext101_64x4d resnet152 swin_b swin_s swin_v2_b swin_v2_s vgg11 vgg11_bn vgg13 "
    "vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 "
    "wide_resnet50_2"
).split()
NAMES = torchvision.models.list_models(module=torchvision.models)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES])
def test_rescale_is_complete(name):
    model, x, reference = classifier(name)
    result = explain(model, x, 0, DeepLift(reference))
    with torch.no_grad():
        delta = (model(x) - model(reference))[:, 0]
    error = float((result.heatmap.flatten(1).sum(1) - delta).abs().max())
    terms = float(
        result.heatmap.abs().flatten(1).sum(1).max()
    )  # Δ is the sum of these, and no more exact than they are
    assert error < 1e-3 * float(delta.abs().max()) or error < 1e-6 * terms
    assert incompleteness(model.double(), x.double(), reference.double()) < 1e-6


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "densenet121", "mobilenet_v3_small", "swin_t"])
def test_reveal_cancel_is_complete(name):
    model, x, reference = classifier(name)
    assert incompleteness(model.double(), x.double(), reference.double(), "reveal_cancel") < 1e-6
