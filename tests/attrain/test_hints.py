"""What is said of an input that the model cannot take, below the model's own error."""

import pytest
import torch
from torch import nn

import attrain
from attrain import Gradient, compare, explain, show


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 5)).eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 16, 16)


def step(net, x, y):
    return attrain.training.plain_step(net, x, y)


def makes(x):
    """As torchvision's functions, which make a network."""
    raise RuntimeError("Boolean value of Tensor")


@pytest.mark.parametrize(
    ("wrong", "note"),
    [
        (lambda x: x[0], "x is (3, 16, 16), and a batch has one dimension more: x[None]"),
        (lambda x: x.movedim(1, -1), "x is (2, 16, 16, 3), and channels come second: x.movedim(-1, 1)"),
        (lambda x: x[:, :1], 'first convolution takes 3 channels: photo.convert("RGB"), or x.expand(-1, 3, -1, -1)'),
        (lambda x: torch.rand(1, 4, 16, 16), 'takes 3 channels: photo.convert("RGB"), or x[:, :3]'),
        (lambda x: x.repeat(1, 2, 1, 1), "x is (2, 6, 16, 16), and the first convolution takes 3 channels"),
        (lambda x: x.double(), "x is torch.float64, and the model's parameters are torch.float32: x.to(torch.float32)"),
    ],
)
def test_what_does_not_go_with_the_model_is_said_below_its_error(net, x, wrong, note):
    for call in (explain, lambda net, x: explain(net, x, chunk_size=1), lambda net, x: compare(net, x, [Gradient()])):
        with pytest.raises((RuntimeError, ValueError)) as raised:
            call(net, wrong(x))
        error = raised.value.__cause__ or raised.value  # the model's own, as it was
        (said,) = error.__notes__
        assert said.startswith("hint: ") and note in said


def test_an_error_of_another_kind_has_no_hint(net, x):
    with pytest.raises(ValueError, match="target must be in") as raised:
        explain(net, x, 9)
    assert not getattr(raised.value, "__notes__", [])


def test_what_makes_a_network_is_no_network(x):
    with pytest.raises(RuntimeError) as raised:
        explain(makes, x)
    assert raised.value.__notes__ == ["hint: model is the function makes; if it makes a network, give that: makes()"]
    with pytest.raises(TypeError, match=r"model must be a network, got the class Linear: make one, Linear"):
        explain(nn.Linear, x)


def test_a_photo_of_bytes_is_no_text(net, x):
    with pytest.raises(TypeError, match=r"x holds bytes, as a photo is read; .* x.float\(\) / 255"):
        explain(net, (255 * x).byte())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda n, x: compare(n, x, ["LRP", "DeepLift"]), TypeError, r"values such as LRP\(\) or .*, got 'LRP'"),
        (lambda n, x: compare(n, x, {"a": Gradient}), TypeError, r"got Gradient: call it, Gradient\(\)"),
        (lambda n, x: compare(n, x, [Gradient()], reference="mean"), TypeError, "reference must be a number or a ten"),
        (lambda n, x: compare(n, x, [Gradient()], fractions=(1, 5)), ValueError, r"fractions must be .* got \(1, 5\)"),
        (lambda n, x: compare(n, x, [Gradient()], fractions=()), ValueError, "fractions must be .* at least one"),
        (lambda n, x: compare(n, x, [Gradient()], fractions=0.5), ValueError, "fractions must be .* got 0.5"),
        (lambda n, x: compare(n.train(), x, [Gradient()]), ValueError, r"training mode: call model.eval\(\) first"),
        (lambda n, x: compare(n, x.numpy(), [Gradient()]), TypeError, "x must be a tensor .* got numpy.ndarray"),
        (lambda n, x: show(explain(n, x), x), TypeError, r"got an Explanation: show\(x, explanation\)"),
        (lambda n, x: show(x, [x, x]), TypeError, "a dict of them by the name of their method, got a list"),
        (lambda n, x: show(x, x, labels="cat"), TypeError, "labels must be a list of one text a sample, got 'cat'"),
        (lambda n, x: show(x[:1], x), ValueError, r"heatmap must be of 1 samples as x, got \(2, 3, 16, 16"),
        (lambda n, x: show(x.movedim(1, -1), x), ValueError, "channels second, got .*: x.transpose"),
        (lambda n, x: show(Photo(), x), TypeError, r"got Photo; of a photo make one with .*to_tensor\(photo\)\[None\]"),
        (
            lambda n, x: attrain.energy_loss(x, [[0, 0, 4, 4]]),
            TypeError,
            "mask must be a tensor .* boxes_to_mask makes",
        ),
        (lambda n, x: attrain.energy_loss(x, 255 * torch.ones(2, 16, 16)), ValueError, "only 0 .* got from 255 to 255"),
        (lambda n, x: attrain.boxes_to_mask([[(0, 0, 4, 4)]], 16), TypeError, r"size must be \(H, W\), got 16"),
        (lambda n, x: step(n, x, torch.tensor([0, 9])), ValueError, r"y must be classes in \[0, 4\], got 0 to 9"),
        (
            lambda n, x: step(n, x, torch.rand(2)),
            ValueError,
            r"floats \(2, 5\) for several a sample, got .*float32 \(2,",
        ),
        (lambda n, x: attrain.GradCam("0"), AttributeError, "no attribute 'GradCam'; did you mean GradCAM"),
        (lambda n, x: attrain.nothing_like_it, AttributeError, "no attribute 'nothing_like_it'$"),
    ],
)
def test_what_a_newcomer_mistypes_is_answered_by_name(net, x, call, error, message):
    with pytest.raises(error, match=message):
        call(net, x)


class Photo:
    """As PIL's."""

    size = (16, 16)

    def convert(self, mode):
        raise AssertionError


def test_rooms_of_the_library_are_there_by_name():
    assert attrain.training.isnet_step and attrain.losses.energy_loss and attrain.metrics.epg
