"""Weights from files as trainers write them: every form gives the same network, and what cannot is said."""

import argparse
import copy
import pickle
import re
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from studies.checkpoints import load_weights


class Named(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, classes)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu().mean((2, 3)))


@pytest.fixture
def trained():
    torch.manual_seed(1)
    return Named()


def below(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


FORMS = {
    "alone": lambda m: m.state_dict(),
    "state_dict": lambda m: {"state_dict": m.state_dict(), "epoch": 3},
    "model": lambda m: {"model": m.state_dict()},
    "model_state_dict": lambda m: {"model_state_dict": m.state_dict(), "optimizer_state_dict": {}},
    "net": lambda m: {"net": m.state_dict()},
    "nested": lambda m: {"model": {"state_dict": m.state_dict()}},
    "DataParallel": lambda m: below("module.", m.state_dict()),
    "compiled": lambda m: torch.compile(m).state_dict(),
    "compiled within DataParallel": lambda m: {"model": below("module._orig_mod.", m.state_dict())},
    "a compiled part": lambda m: {n.replace("norm.", "norm._orig_mod."): v for n, v in m.state_dict().items()},
    "a part in DataParallel": lambda m: {n.replace("norm.", "norm.module."): v for n, v in m.state_dict().items()},
    "Lightning": lambda m: {
        "state_dict": below("model.", m.state_dict()) | {"loss.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
    },
    "averaged": lambda m: AveragedModel(m).state_dict(),
    "half precision": lambda m: copy.deepcopy(m).half().state_dict(),
    "before num_batches_tracked": lambda m: {n: v for n, v in m.state_dict().items() if "tracked" not in n},
    "with a trainer's options and numpy's numbers": lambda m: {
        "model": m.state_dict(),
        "args": argparse.Namespace(lr=0.1, where=types.SimpleNamespace(a=1)),
        "best": np.float64(0.9),
        "history": np.arange(3.0),
    },
    "with an optimiser's state": lambda m: {"model": m.state_dict(), "optimizer": stepped(m)},
    "twice the same": lambda m: {"model": m.state_dict(), "model_ema": below("module.", m.state_dict())},
}


def stepped(model):
    optimiser = torch.optim.Adam(copy.deepcopy(model).parameters())
    for parameter in optimiser.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser.state_dict()


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_whatever_form_they_were_saved(form, trained, tmp_path):
    torch.save(FORMS[form](trained), tmp_path / "weights.pt")
    model = Named()
    load_weights(model, tmp_path / "weights.pt")
    for name, value in trained.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-3 if form == "half precision" else 0), name


def test_the_old_file_format_is_read(trained, tmp_path):
    torch.save({"model": trained.state_dict()}, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    model = Named()
    load_weights(model, tmp_path / "weights.pt")
    assert torch.equal(model.last.weight, trained.last.weight)


def test_safetensors_are_read_where_the_package_is(trained, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(below("model.", trained.state_dict()), tmp_path / "weights.safetensors")
    model = Named()
    load_weights(model, tmp_path / "weights.safetensors")
    assert torch.equal(model.last.weight, trained.last.weight)


def test_a_model_that_is_compiled_takes_the_weights_of_one_that_is_not(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    model = torch.compile(Named())
    load_weights(model, tmp_path / "weights.pt")
    assert torch.equal(model.state_dict()["_orig_mod.last.weight"], trained.last.weight)


@pytest.mark.parametrize("wrap", [lambda m: m.state_dict(), lambda m: {"state_dict": below("module.", m.state_dict())}])
def test_a_model_may_have_a_part_with_the_name_of_a_wrapper(wrap, tmp_path):
    def made():
        model = Named()
        model.module = nn.ModuleDict({"first": nn.Conv2d(1, 4, 3)})
        return model

    trained, model = made(), made()
    torch.save(wrap(trained), tmp_path / "weights.pt")
    load_weights(model, tmp_path / "weights.pt")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.state_dict().items())


class Harmful:
    """Unpickled by Python, it would raise."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file has run')",)


REFUSED = {
    "a text": (lambda m: b"no weights", "are no state dict that can be read"),
    "a whole module": (pickle.dumps, "are no state dict that can be read"),
    "a list": (lambda m: [m.first.weight], "there is no state dict in it, and a module as a whole is not loaded"),
    "code": (lambda m: {"x": Harmful()}, "there is no state dict in it"),
    "other classes": (
        lambda m: {"state_dict": below("model.", Named(7).state_dict())},
        r"not of this model: 2 names or shapes differ: 'last.weight' is \(7, 4\), not \(3, 4\), 'last.bias' is \(7,\)",
    ),
    "a part missing": (
        lambda m: {n: v for n, v in m.state_dict().items() if n != "last.bias"},
        "not of this model: 1 names or shapes differ: 'last.bias' is missing",
    ),
    "a part too many": (
        lambda m: m.state_dict() | {"head.weight": torch.ones(1)},
        "1 names or shapes differ: 'head.weight' is none of the model's",
    ),
    "two that differ": (
        lambda m: {"model": m.state_dict(), "model_ema": below("module.", Named().state_dict())},
        "several that are of this model and differ, 'model/', 'model_ema/module.'",
    ),
    "NaN": (
        lambda m: {n: v * float("nan") for n, v in m.state_dict().items() if v.is_floating_point()},
        "8 of 9 tensors have NaN or infinite values, as 'first.weight'; has their training diverged",
    ),
    "infinite": (
        lambda m: m.state_dict() | {"last.bias": torch.tensor([1.0, float("inf"), 0.0])},
        "1 of 9 tensors have NaN or infinite values, as 'last.bias'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_models_weights_is_refused_with_file_and_tensor(case, trained, tmp_path):
    make, message = REFUSED[case]
    content = make(trained)
    if isinstance(content, bytes):
        (tmp_path / "weights.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=message) as error:
        load_weights(Named(), tmp_path / "weights.pt")
    assert "weights.pt" in str(error.value) and "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_saved_as_a_whole_is_not_loaded(trained, tmp_path):
    torch.save(trained, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="a module as a whole is not loaded: write torch"):
        load_weights(Named(), tmp_path / "weights.pt")


def test_buffers_may_be_infinite_as_masks_of_attention_are(tmp_path):
    def masked():
        model = nn.Linear(2, 2)
        model.register_buffer("mask", torch.full((2, 2), float("-inf")))
        return model

    torch.save(masked().state_dict(), tmp_path / "weights.pt")
    load_weights(masked(), tmp_path / "weights.pt")


@pytest.mark.parametrize("place", ["none.pt", "~/none-of-this-name.pt", "https://example.org/w.pt", "."])
def test_a_file_that_is_not_there_is_named(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape("weights: there is no file")):
        load_weights(Named(), place)


def test_home_is_understood(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    load_weights(Named(), "~/weights.pt")
