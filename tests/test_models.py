import pytest
import torch

from attrain.models import SmallCNN, classifier


@pytest.mark.parametrize(("name", "channels", "size"), [("cnn", 1, 28), ("cnn", 3, 8), ("resnet18", 1, 28)])
def test_classifiers_map_images_to_logits(name, channels, size):
    assert classifier(name, classes=7, channels=channels).eval()(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_small_cnn_has_no_batch_norm_so_samples_are_independent():
    net, x = SmallCNN(), torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="model must be cnn"):
        classifier("vgg")
