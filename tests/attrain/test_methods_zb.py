"""The z^B rule where a model scales or pads its input before the first layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import Normalize

from attrain import LRP, ZB, Dual, UnsupportedOperation, ZPlus, explain
from attrain.training import isnet_step

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISE = Normalize(MEAN, STD)
COLUMNS = [torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD)]


class Prepared(nn.Module):
    """A small network behind a function of the input."""

    def __init__(self, prepare, padding=1):
        super().__init__()
        torch.manual_seed(0)
        self.prepare = prepare
        layers = [nn.Conv2d(3, 6, 3, padding=padding), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3)).double().eval()

    def forward(self, x):
        return self.layers(self.prepare(x))


def batch_norm(x):
    mean, std = (values.flatten() for values in COLUMNS)
    return F.batch_norm(x, mean, std**2, eps=0.0)


def images(n=4):
    return torch.rand(n, 3, 9, 9, dtype=torch.float64)


METHODS = {"lrp": lambda box: LRP(1e-2, box), "z+": lambda box: ZPlus(1e-2, box)}
SPELLINGS = {
    "torchvision": NORMALISE,
    "operators": lambda x: (x - COLUMNS[0]) / COLUMNS[1],
    "one product": lambda x: x * (1 / COLUMNS[1]) + (-COLUMNS[0] / COLUMNS[1]),
    "turned round twice": lambda x: -((COLUMNS[0] - x) / COLUMNS[1]),
    "in place on a copy": lambda x: x.clone().sub_(COLUMNS[0]).div_(COLUMNS[1]),
    "batch norm": batch_norm,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_map_is_that_of_normalised_images_in_their_box(spelling, method):
    x = images()
    found = explain(Prepared(SPELLINGS[spelling]), x, 1, METHODS[method](ZB(0, 1)))
    expected = explain(Prepared(nn.Identity()), NORMALISE(x), 1, METHODS[method](ZB.imagenet()))
    torch.testing.assert_close(found.heatmap, expected.heatmap)
    torch.testing.assert_close(found.logits, expected.logits)


@pytest.mark.parametrize("method", METHODS)
def test_a_negative_scale_turns_the_box_round(method):
    x = images()
    found = explain(Prepared(lambda x: 1 - x), x, 1, METHODS[method](ZB(0.0, 3.0))).heatmap
    expected = explain(Prepared(nn.Identity()), 1 - x, 1, METHODS[method](ZB(-2.0, 1.0))).heatmap
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_padding_before_a_layer_is_one_of_the_layer(method):
    x = images()
    found = explain(Prepared(lambda x: F.pad(NORMALISE(x), (1, 1, 1, 1)), padding=0), x, 1, METHODS[method](ZB()))
    expected = explain(Prepared(NORMALISE), x, 1, METHODS[method](ZB()))
    torch.testing.assert_close(found.heatmap, expected.heatmap)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_negative_padding_cuts_off_gets_nothing(method):
    x = images()
    found = explain(Prepared(lambda x: F.pad(x, (0, -1, -2, 0))), x, 1, METHODS[method](ZB())).heatmap
    expected = explain(Prepared(nn.Identity()), x[..., 2:, :-1], 1, METHODS[method](ZB())).heatmap
    torch.testing.assert_close(found, F.pad(expected, (0, 1, 2, 0)))


def test_a_padding_of_one_side_follows_the_formula():
    """z = conv(x) − high·(conv(1; W⁻) + b⁻), R = x·convᵀ(s; W) − high·convᵀ(s; W⁻), 1 on the image alone."""
    torch.manual_seed(0)
    pad, conv, head = nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(3, 6, 3).double(), nn.Linear(486, 3).double()
    net, x, high = nn.Sequential(pad, conv, nn.Flatten(), head), images(), 2.0
    relevance = conv(pad(x)) * head.weight[1].view(1, 6, 9, 9)
    minus = conv.weight.clamp(max=0)
    z = conv(pad(x)) - high * F.conv2d(pad(torch.ones_like(x)), minus, conv.bias.clamp(max=0))
    s = relevance / (z + 1e-2 * z.sign())
    back = lambda weight: torch.nn.grad.conv2d_input((4, 3, 11, 11), weight, s)[..., :9, :9]  # noqa: E731
    expected = x * back(conv.weight) - high * back(minus)
    torch.testing.assert_close(explain(net, x, 1, LRP(1e-2, ZB(0.0, high))).heatmap, expected)


@pytest.mark.parametrize("method", [LRP(1e-2, ZB()), Dual(1e-2, ZB())])
def test_a_training_step_is_that_of_images_normalised_before(method):
    x, y, mask = images(), torch.tensor([0, 1, 2, 0]), torch.zeros(4, 9, 9, dtype=torch.bool)
    mask[:, 2:6, 2:6] = True
    settings = {"target": "all"} if isinstance(method, Dual) else {}
    gradients = []
    for net, images_, box in ((Prepared(NORMALISE), x, ZB()), (Prepared(nn.Identity()), NORMALISE(x), ZB.imagenet())):
        ranges = dict(C1=[1.0, 1.0], C2=[9.0, 9.0]) if settings else dict(C1=1.0, C2=9.0)
        step = isnet_step(net.train(), images_, y, mask, method=type(method)(1e-2, box), **settings, **ranges)
        gradients.append(torch.autograd.grad(step[1], list(net.parameters())))
    for found, expected in zip(*gradients):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", ["product", "in place", "batch norm", "quotient and difference"])
def test_the_map_s_derivative_knows_learned_numbers_before_the_layer(spelling, method, inplace):
    x = images(2)
    prepare = {
        "product": lambda x, k: x * k,
        "in place": lambda x, k: x.clone().mul_(k),
        "batch norm": lambda x, k: F.batch_norm(x, *(v.flatten() for v in COLUMNS), k.flatten(), k.flatten()),
        "quotient and difference": lambda x, k: k - x / k,
    }[spelling]

    def heatmap(k):
        net = Prepared(lambda x: prepare(x, k))
        net.layers[1], net.layers[2] = nn.Identity(), nn.ReLU(inplace)
        return explain(net, x, 1, METHODS[method](ZB()), create_graph=True).heatmap

    torch.autograd.gradcheck(heatmap, COLUMNS[1].clone().mul(2).requires_grad_(), eps=1e-7, atol=1e-5)


def changed_later(x):
    mean = COLUMNS[0].clone()
    out = x - mean
    mean.fill_(7.0)
    return out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("prepare", "same"),
    [
        pytest.param(changed_later, lambda x: x - COLUMNS[0], id="numbers that change after their use"),
        pytest.param(lambda x: x.mul_(2).sub_(1), lambda x: 2 * x - 1, id="in place on the input"),
        pytest.param(lambda x: x.contiguous().sub_(0.5), lambda x: x - 0.5, id="in place on what may be the input"),
    ],
)
def test_the_map_is_that_of_the_same_said_otherwise(prepare, same, method):
    x = images()
    found, expected = (explain(Prepared(f), x, 1, METHODS[method](ZB())).heatmap for f in (prepare, same))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prepare", [lambda x: x / 255, lambda x: x.div_(255)], ids=["/", "div_"])
def test_the_box_is_asked_of_the_input_as_it_came(prepare, method):
    with pytest.raises(ValueError, match=r"z\^B rule needs inputs in its box, but x lies in \[.*, 25"):
        explain(Prepared(prepare), 255 * images(), 1, METHODS[method](ZB()))


@pytest.mark.parametrize("numbers", ["one", "one a channel"])
def test_a_layer_with_groups_is_one_layer_for_each(numbers):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 6, 3, groups=2).double(), torch.rand(3, 4, 7, 7, dtype=torch.float64)
    scale = torch.tensor([1.0, 2.0, -1.0, 0.5]).double()[:, None, None] if numbers == "one a channel" else 2.0
    rest = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(150, 3)).double()
    found = explain(nn.Sequential(nn.Identity(), conv, rest), x, 1, LRP(1e-2, ZB())).heatmap
    dense = nn.Conv2d(4, 6, 3).double()
    dense.weight.data.zero_()
    for g in range(2):
        dense.weight.data[3 * g : 3 * g + 3, 2 * g : 2 * g + 2] = conv.weight.data[3 * g : 3 * g + 3]
    dense.bias.data = conv.bias.data
    for prepare in (nn.Identity(), lambda x: x * scale - 0.3):
        models = [nn.Sequential(layer, rest) for layer in (conv, dense)]
        outer = []
        for model in models:
            whole = nn.Module()
            whole.forward = lambda x, model=model, prepare=prepare: model(prepare(x))
            outer.append(explain(whole, x, 1, LRP(1e-2, ZB())).heatmap)
        torch.testing.assert_close(*outer)
    assert found.shape == x.shape


def test_a_channel_that_is_multiplied_by_nothing_gets_nothing():
    keep = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)[:, None, None]
    heatmap = explain(Prepared(lambda x: x * keep), images(), 1, LRP(1e-2, ZB())).heatmap
    assert not heatmap[:, 1].any() and heatmap[:, 0].any()


@pytest.mark.parametrize("shape", [(4, 5), (4, 6, 5)])
def test_features_may_be_normalised_and_a_batch_norm_of_places_is_no_part_of_the_layer(shape):
    torch.manual_seed(0)
    mean, std = torch.randn(5).double(), torch.rand(5).double() + 0.5
    norm = nn.BatchNorm1d(shape[1]).double() if len(shape) == 3 else nn.BatchNorm1d(7).double()
    layers = nn.Sequential(nn.Linear(5, 7), norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.rand(shape, dtype=torch.float64)
    layers(x)
    layers.eval()
    whole = nn.Module()
    whole.forward = lambda x: layers((x - mean) / std)
    box = ZB(list(-mean / std), list((1 - mean) / std))
    found, expected = explain(whole, x, 1, LRP(1e-2, ZB())), explain(layers, (x - mean) / std, 1, LRP(1e-2, box))
    torch.testing.assert_close(found.heatmap, expected.heatmap)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda x: x * x, id="a square"),
        pytest.param(lambda x: x + x, id="a sum with itself"),
        pytest.param(lambda x: 1 / (x + 2), id="an inverse"),
        pytest.param(lambda x: torch.div(x, 0.3, rounding_mode="floor"), id="a rounded quotient"),
        pytest.param(lambda x: F.pad(x, (1, 1, 1, 1), value=0.5), id="a padding with another number"),
        pytest.param(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), id="a reflection"),
        pytest.param(lambda x: F.pad(x, (1, 1, 1, 1)) - 0.5, id="a shift of the padding"),
        pytest.param(lambda x: F.pad(x[:, :2], (0, 0, 0, 0, 0, 1)), id="a channel of zeros"),
        pytest.param(lambda x: F.pad(x, (0, 0, 0, 0, 1, -1)), id="a padding of channels"),
        pytest.param(lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, -1)), id="a padding of samples"),
        pytest.param(lambda x: x - torch.rand(9, 9, dtype=torch.float64), id="an image's own mean"),
        pytest.param(lambda x: x * torch.rand(4, 1, 1, 1, dtype=torch.float64), id="a number a sample"),
        pytest.param(lambda x: F.batch_norm(x, None, None, training=True), id="statistics of the batch"),
        pytest.param(lambda x: F.avg_pool2d(x, 2), id="a pooling"),
        pytest.param(lambda x: x.flip(-1), id="a reversal"),
        pytest.param(lambda x: (x - 0.5) + 0 * x, id="an input that forks"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_other_preprocessing_is_refused(prepare, method):
    with pytest.raises((UnsupportedOperation, ValueError), match=r"z\^B rule|has no rule"):
        explain(Prepared(prepare), images(), 1, METHODS[method](ZB()))


def test_the_box_is_that_of_the_model_s_input():
    with pytest.raises(
        ValueError, match=r"z\^B rule needs inputs in its box, but x lies in \[.*\] and the box is ZB\(low=0.0"
    ):
        explain(Prepared(NORMALISE), 2 * images(), 1, LRP(1e-2, ZB()))
