"""What is wanted as a number and is none is refused by name, when it is given and not in the middle of a pass."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import attrain as at
from attrain import losses, metrics
from attrain.masks import dilate_boxes
from attrain.metrics.relevance import erase
from attrain.numbers import number
from attrain.targets import selective_target, stochastic_target
from attrain.training import baselines, fit, isnet_step, regularisers, retrain_last_layer
from attrain.training.boxes import guided_step
from attrain.training.challenger import Challenger

x, y, mask = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]), torch.ones(4, 4, 4)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
boxes = torch.tensor([[[0, 0, 2, 2]]] * 4)
one_hot, classes = torch.eye(2)[y], y[:, None]
SETTINGS = {
    "epsilon of LRP": lambda v: at.LRP(epsilon=v),
    "epsilon of ZPlus": lambda v: at.ZPlus(epsilon=v),
    "epsilon of Dual": lambda v: at.Dual(epsilon=v),
    "low": lambda v: at.ZB(low=v),
    "high": lambda v: at.ZB(high=v),
    "low of a channel": lambda v: at.ZB(low=(0.0, v)),
    "stabilizer": lambda v: at.ZB(stabilizer=v),
    "steps": lambda v: at.IntegratedGradients(steps=v),
    "noise": lambda v: at.SmoothGrad(noise=v),
    "eps": lambda v: selective_target(v),
    "highest": lambda v: stochastic_target(highest=v),
    "decay of gwrp": lambda v: losses.gwrp(x[0, 0], decay=v),
    "E": lambda v: losses.isnet_loss(x, mask, C1=1.0, C2=2.0, E=v),
    "threshold": lambda v: metrics.heatmap_iou(x[:, 0], mask, threshold=v),
    "fraction of dilate_boxes": lambda v: dilate_boxes([[(2, 2, 6, 4)]], v, (10, 7)),
    "fraction of erase": lambda v: erase(x, x[:, 0], fraction=v),
    "epochs": lambda v: fit(model, (x, y), epochs=v, batch_size=2, lr=0.1),
    "batch_size": lambda v: fit(model, (x, y), epochs=1, batch_size=v, lr=0.1),
    "lr": lambda v: fit(model, (x, y), epochs=1, batch_size=2, lr=v),
    "clip": lambda v: fit(model, (x, y), epochs=1, batch_size=2, lr=0.1, clip=v),
    "P": lambda v: isnet_step(model, x, y, mask, C1=1.0, C2=2.0, P=v),
    "weight of rrr_step": lambda v: baselines.rrr_step(model, x, y, mask, weight=v),
    "weight of guided_step": lambda v: guided_step(model, x, one_hot, boxes, classes, weight=v, loss=at.energy_loss),
    "p": lambda v: regularisers.input_dropout_step(model, x, y, p=v),
    "decay of retrain_last_layer": lambda v: retrain_last_layer(model, x, y, y, decay=v),
    "beta": lambda v: Challenger(beta=v),
    "eps_max": lambda v: Challenger(eps_max=v),
    "top": lambda v: Challenger(top=v),
}
NO_NUMBERS = {
    "text": "0.1",
    "no text": "",
    "list": [0.5],
    "dict": {},
    "bool": True,
    "complex": 1j,
    "tensor": torch.rand(2),
}
WHOLE = ("steps", "epochs", "batch_size")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_refused_by_name(setting, value):
    if setting.split()[0] in ("low", "high") and len(setting) < 5 and isinstance(value, (list, torch.Tensor)):
        pytest.skip("one a channel is accepted")
    with pytest.raises((TypeError, ValueError), match=rf"^{setting.split()[0]} must be a (whole )?number, got "):
        SETTINGS[setting](value)


@pytest.mark.parametrize("setting", sorted({*SETTINGS} - {"clip"}))
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_refused_with_its_name(setting, value):
    whole = TypeError if setting in WHOLE else ValueError
    with pytest.raises(whole, match=setting.split()[0]):
        SETTINGS[setting](value)


@pytest.mark.parametrize("setting", WHOLE)
def test_a_fraction_is_no_whole_number(setting):
    with pytest.raises(TypeError, match=f"{setting} must be a whole number, got 1.5"):
        SETTINGS[setting](1.5)


NUMBERS = [
    1,
    0.5,
    np.float32(0.5),
    np.float64(0.5),
    np.int64(1),
    np.array(0.5),
    torch.tensor(0.5),
    nn.Parameter(x[0, 0, 0, 0]),
]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: type(value).__name__)
def test_numbers_of_every_kind_are_taken_as_they_are(value, recwarn):
    assert number("epsilon", value) is value and at.LRP(epsilon=value) == at.LRP(epsilon=value) and not recwarn


COUNTS = {
    "samples": lambda v: at.explain(model, x, 0, at.SmoothGrad(samples=v)),
    "batch_size": lambda v: at.explain(model, x, 0, at.Occlusion(2, batch_size=v)),
    "chunk_size": lambda v: at.explain(model, x, 0, at.Gradient(), chunk_size=v),
    "steps": lambda v: at.explain(model, x, 0, at.IntegratedGradients(steps=v)),
}
FITTED = {name: lambda v, name=name: fit(model, (x, y), **{"epochs": 1, name: v}) for name in ("epochs", "batch_size")}


@pytest.mark.parametrize(
    "value", [2, np.int64(2), np.array(2), torch.tensor(2)], ids=lambda value: type(value).__name__
)
def test_whole_numbers_of_every_kind_are_taken(value):
    fit(model, (x, y), epochs=value, batch_size=value, lr=0.1, clip=float("inf"))
    assert Challenger(warmup=float("inf"))
    for explained in COUNTS.values():
        assert_close(explained(value).heatmap, explained(2).heatmap)


@pytest.mark.parametrize(("name", "given"), [*COUNTS.items(), *FITTED.items()])
@pytest.mark.parametrize("value", [2.0, True, "2", None, torch.tensor([2, 2]), torch.tensor(2.0)], ids=repr)
def test_what_is_no_whole_number_is_refused_by_name(name, given, value):
    if name == "chunk_size" and value is None:
        pytest.skip("all at once")
    with pytest.raises(TypeError, match=f"^{name} must be a whole number, got "):
        given(value)


@pytest.mark.parametrize(("name", "given"), [*COUNTS.items(), *FITTED.items()])
@pytest.mark.parametrize("value", [0, -1, np.int64(0), torch.tensor(-2)], ids=repr)
def test_less_than_one_of_a_thing_is_refused_by_name(name, given, value):
    with pytest.raises(ValueError, match=f"^{name} must be >= 1, got "):
        given(value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5)], ids=lambda v: type(v).__name__)
def test_a_fraction_of_every_kind_erases_as_many(value):
    heatmap = torch.rand(len(x), *x.shape[2:])
    assert_close(erase(x, heatmap, value), erase(x, heatmap, 0.5), rtol=0, atol=0)


@pytest.mark.parametrize("value", [10**400, torch.tensor(True), torch.tensor(1j)], ids=["large", "true", "complex"])
def test_numbers_that_are_none_or_too_large_end_in_no_bare_error(value):
    if isinstance(value, int):
        assert number("epsilon", value) == value
    else:
        with pytest.raises(TypeError, match="epsilon must be a number"):
            at.LRP(epsilon=value)


@pytest.mark.parametrize("method", [at.LRP, at.ZPlus, at.Dual])
@pytest.mark.parametrize("first_layer", ["zb", at.ZB, (0.0, 1.0), at.LRP()], ids=["text", "class", "bounds", "method"])
def test_a_first_layer_is_zb_or_none(method, first_layer):
    with pytest.raises(TypeError, match=r"^first_layer must be ZB\(low, high\) or None, got "):
        method(first_layer=first_layer)
