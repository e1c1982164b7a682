"""One's own model by name, and the notebook as a user runs it: papermill, a folder, a file with a model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from data_prep import DataError
from data_prep.example_folder import write_example
from studies.early import ATTRIBUTIONS, LOSSES, NETWORKS, check_early, check_early_inputs
from studies.files import NOTEBOOKS
from studies.nets.small import NormCNN
from studies.own_model import check_layer, check_logits, check_map, load_model, model_checksums

MODEL = """
import torch
import torchvision
from torch import nn

class Small(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 4, 3, stride=2), nn.Linear(4, classes)

    def forward(self, x):
        return self.last(torch.relu(self.first((x - 0.5) / 0.25)).mean((2, 3)))

def make(classes, channels=3):
    return Small(classes, channels)

def fixed():
    return Small(7, 3)

def with_all(**given):
    return Small(**given)

def vit(classes):
    sizes = dict(num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32)
    return torchvision.models.VisionTransformer(image_size=16, patch_size=8, num_classes=classes, **sizes)

def wrong():
    return "a string"

number = 3
"""


@pytest.fixture
def file(tmp_path) -> Path:
    file = tmp_path / "my_model.py"
    file.write_text(MODEL)
    return file


def test_a_function_in_a_file_gets_what_it_has_parameters_for(file):
    assert load_model(f"{file}:make", 5)(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    assert load_model(f"{file}:with_all", 5, 1)(torch.rand(2, 1, 16, 16)).shape == (2, 5)
    assert load_model(f"{file}:fixed", 5)(torch.rand(2, 3, 16, 16)).shape == (2, 7)


def test_a_module_that_can_be_imported_and_the_kits_own_names_will_do():
    assert isinstance(load_model("studies.nets.small:NormCNN", 5, 3), NormCNN)
    assert isinstance(load_model("cnn-norm", 5, 3), NormCNN)


def test_weights_of_the_model_are_loaded_and_others_are_not(file, tmp_path):
    trained = load_model(f"{file}:make", 5)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    again = load_model(f"{file}:make", 5, weights=str(tmp_path / "weights.pt"))
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), again.state_dict().values()))
    with pytest.raises(ValueError, match="are not of this model"):
        load_model("cnn-norm", 5, weights=str(tmp_path / "weights.pt"))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("nowhere.py:make", FileNotFoundError, "there is no file .*nowhere.py"),
        ("no_such_package.models:make", ValueError, "cannot be imported .*no_such_package"),
        ("studies.nets.small:make", ValueError, "no such function in that module"),
        ("{file}:number", ValueError, "no such function in that module"),
        ("{file}:wrong", ValueError, "must return an nn.Module, got str"),
        ("resnet999", ValueError, "model must be cnn, .* got 'resnet999'"),
    ],
)
def test_a_model_that_is_not_there_is_named(file, model, error, message):
    with pytest.raises(error, match=message):
        load_model(model.format(file=file), 5)


def test_logits_that_do_not_go_with_the_data_are_refused():
    x = torch.rand(2, 3, 8, 8)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    check_logits(flat, x, 4)
    with pytest.raises(ValueError, match=r"must make logits \(2, 5\), one for each class of the data, got \(2, 4\)"):
        check_logits(flat, x, 5)
    with pytest.raises(ValueError, match=r"cannot take images \(2, 3, 9, 9\) in \[0, 1\]: .*mat1 and mat2"):
        check_logits(flat, torch.rand(2, 3, 9, 9), 4)


def test_the_record_knows_the_models_code_and_weights(file, tmp_path):
    before = model_checksums(f"{file}:make")
    assert list(before) == ["my_model.py"] and model_checksums("cnn-norm") == {}
    file.write_text(MODEL + "\n")
    (tmp_path / "weights.pt").write_bytes(b"1")
    after = model_checksums(f"{file}:make", str(tmp_path / "weights.pt"))
    assert list(after) == ["my_model.py", "weights.pt"] and after["my_model.py"] != before["my_model.py"]


def test_a_layer_that_is_not_there_is_refused_with_those_that_come_near():
    model = nn.Sequential()
    model.layer4, model.head = nn.Sequential(nn.ReLU()), nn.Linear(2, 2)
    check_layer(model, ""), check_layer(model, "layer4.0")
    with pytest.raises(ValueError, match="layer 'layer5' is no module of the model; it has layer4"):
        check_layer(model, "layer5")
    with pytest.raises(ValueError, match="it has layer4, head"):
        check_layer(model, "xyz")


def test_a_map_with_few_places_is_said_and_one_without_is_refused():
    assert check_map(torch.zeros(2, 8, 4, 4), "layer3", 64) == ""
    said = check_map(torch.zeros(2, 8, 2, 2), "layer4", 64)
    assert "images of 64 × 64 the map at 'layer4' has 2 × 2 places only, each of which covers 25 %" in said
    with pytest.raises(ValueError, match=r"the map at layer 'blocks' is \(2, 17, 8\) and must be \(N, C, H, W\)"):
        check_map(torch.zeros(2, 17, 8), "blocks", 32)


# ---------------------------------------------------------------- before anything slow is imported

FINE = dict(
    data="", annotations="coco", model="cnn", weights="", guide_by="boxes", attribution="IxG", layer="", losses="l1 1"
)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"data": "nowhere"}, DataError, "nowhere is no folder"),
        ({"annotations": "yolo"}, ValueError, "annotations must be one of coco, voc, masks, got 'yolo'"),
        ({"guide_by": "lines"}, ValueError, "guide_by must be one of boxes, pixels"),
        ({"attribution": "SHAP"}, ValueError, "attribution must be one of IxG, LRP"),
        ({"attribution": "GradCAM"}, ValueError, "reads its map at a layer"),
        ({"weights": "none.pt"}, FileNotFoundError, "weights: there is no file .*none.pt"),
        ({"losses": "energy"}, ValueError, "each with its weight, as 'energy 3'; got 'energy'"),
        ({"losses": "energy 1, l2 3"}, ValueError, "got 'l2 3'"),
        ({"model": "nowhere.py:make"}, FileNotFoundError, "there is no file .*nowhere.py"),
        ({"model": "no_such_package.models:make"}, ValueError, "cannot be imported .*no_such_package"),
        ({"model": "studies.no_such_module:make"}, ValueError, "cannot be imported .*no_such_module"),
        ({"model": "studies.nets.small:make_nothing"}, ValueError, "no such function in that module"),
        ({"model": "{file}:wrong_name"}, ValueError, "no such function in that module; it has Small, make, fixed, "),
        ({"model": "my_model.py"}, ValueError, "model must be FILE.py:FUNCTION .* as my_model.py:make, or one of cnn"),
        ({"model": "my_package.mine"}, ValueError, "as my_package.mine:make, .* got 'my_package.mine'"),
        ({"model": "resnet19"}, ValueError, "or one of cnn, cnn-norm, resnet18, .* got 'resnet19'"),
        ({"model": "my_model.py:"}, ValueError, "as my_model.py:make, .* got 'my_model.py:'"),
        ({"layer": 14}, ValueError, r"layer must be text, got 14 \(int\); with papermill: -r layer 14"),
    ],
)
def test_what_is_wrong_is_known_early(file, given, error, message):
    given = {name: value.format(file=file) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(error, match=message):
        check_early(**FINE | given)


def test_what_is_right_passes_early(file, tmp_path):
    (tmp_path / "star.py").write_text("from elsewhere import *")
    for model in ("cnn", f"{file}:make", "studies.nets.small:NormCNN", "torchvision.models:resnet18", "torch:zeros"):
        check_early(**FINE | {"model": model, "data": str(tmp_path), "weights": str(file)})
    check_early(**FINE | {"model": f"{tmp_path / 'star.py'}:make"})


def test_the_early_check_loads_nothing_slow_and_stands_before_what_does():
    slow = "torch numpy pandas matplotlib torchvision sklearn"
    code = f"import sys, studies.early; print([name for name in {slow.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    script = (NOTEBOOKS / "own_model.py").read_text("utf-8")
    code = script.partition('tags=["parameters"]')[2]
    assert code.index("check_early(") < min(code.index(f"import {name}") for name in ("pandas", "torch", "check_layer"))
    methods = set(re.findall(r'^    "(\w+)": (?:partial\()?at\.', code, re.MULTILINE))
    losses = set(re.findall(r'"(\w+)": (?:at\.\w+_loss|None)', code))
    assert methods == {*ATTRIBUTIONS} and losses == {*LOSSES}, "the notebook and the check know the same"
    for network in NETWORKS:
        load_model(network, 2)
    with pytest.raises(ValueError, match=", ".join(NETWORKS[:-1])):
        load_model("another", 2)


EXAMPLES = "studies.example_inputs:examples"
INPUTS = {"model": "studies.example_inputs:model", "examples": EXAMPLES, "embeddings": "", "methods": "LRP"}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "my_model.py"}, ValueError, "model must be FILE.py:FUNCTION .* as my_model.py:make; got"),
        ({"examples": "mine"}, ValueError, "examples must be FILE.py:FUNCTION .* as mine:make; got 'mine'"),
        ({"examples": "nowhere.py:examples"}, FileNotFoundError, "examples .* there is no file .*nowhere.py"),
        ({"examples": f"{EXAMPLES}x"}, ValueError, "no such function in that module; it has RequestNetwork, model, ex"),
        ({"embeddings": "words"}, ValueError, "embeddings must be pairs of a part of x and a layer, .* got 'words'"),
        ({"methods": " , "}, ValueError, "methods must name one method"),
        ({"methods": 3}, ValueError, "methods must be text, got 3"),
    ],
)
def test_what_is_wrong_with_own_inputs_is_known_early(given, error, message):
    check_early_inputs(**INPUTS)
    with pytest.raises(error, match=message):
        check_early_inputs(**INPUTS | given)
    code = (NOTEBOOKS / "own_inputs.py").read_text("utf-8").partition('tags=["parameters"]')[2]
    assert code.index("check_early_inputs(") < min(code.index(f"import {name}") for name in ("pandas", "torch"))


# ---------------------------------------------------------------- the notebook

TINY = {"image_size": 16, "epochs": 1, "guided_epochs": 1, "losses": "energy 1, isnet 0.5"}


def papermill(folder: Path, **parameters) -> subprocess.CompletedProcess:
    given = {"data": "photos", "out": folder / "out", **TINY, **parameters}
    command = [sys.executable, "-m", "papermill", NOTEBOOKS / "own_model.ipynb", "out.ipynb", "--no-progress-bar"]
    for name, value in given.items():
        command += [
            "-r" if name == "layer" else "-p",
            name,
            str(value),
        ]  # -r: a name, also where it looks like a number
    environment = os.environ | {"ATTRAIN_RESULTS": str(folder / "results")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("annotations", "parameters", "score"),
    [
        ("coco", {"model": "my_model.py:make", "weights": "weights.pt", "epochs": 0, "guide_by": "pixels"}, "F1"),
        ("voc", {"model": "my_model:make", "layer": "first", "losses": "l1 0.1, ppce 0.1, rrr 0.1"}, "F1"),
        ("masks", {"model": "cnn", "layer": "7", "attribution": "GradCAM", "guide_by": "pixels"}, "accuracy"),
        ("voc", {"model": "my_model.py:vit", "attribution": "AttnLRP"}, "F1"),
    ],
)
def test_a_folder_and_a_model_give_a_report_of_before_and_after(file, tmp_path, annotations, parameters, score):
    write_example(tmp_path / "photos", annotations, n=30)
    torch.save(load_model(f"{file}:make", 4).state_dict(), tmp_path / "weights.pt")
    run = papermill(tmp_path, annotations=annotations, **parameters)
    assert run.returncode == 0, run.stderr[-3000:]
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    losses = [part.split()[0] for part in (TINY | parameters)["losses"].split(", ")]
    values = (score, "EPG", "IoU", "background share", "lowest recall")
    assert list(record["metrics"]) == [f"{m}.{key}" for m in ("before", "no guidance", *losses) for key in values]
    assert all(0 <= value <= 1 for (value,) in record["metrics"].values())
    assert [*record["figures"]] == ["images", "report", "maps"] and record["claims"] == []
    assert ("my_model.py" in record["data"]["model"]) == ("my_model" in parameters["model"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"data": "nowhere"}, "DataError: nowhere is no folder"),
        ({"model": "my_model.py:fixed"}, r"must make logits \(2, 4\), one for each class of the data, got \(2, 7\)"),
        ({"annotations": "voc", "guide_by": "pixels"}, "guide_by='pixels' no training image has anything marked"),
    ],
)
def test_what_is_wrong_is_said_in_the_last_line(file, tmp_path, parameters, message):
    write_example(tmp_path / "photos", parameters.get("annotations", "coco"), n=30)
    run = papermill(tmp_path, **parameters)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode != 0 and re.search(message, last), run.stderr[-2000:]
