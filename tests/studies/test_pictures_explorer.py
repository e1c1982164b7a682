"""The explorer: its picture without widgets, and what its sliders change with them."""

import subprocess
import sys
import time

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import attrain as at
from studies.nets.small import SmallCNN
from studies.pictures import explorer

METHODS = {
    "input × gradient": at.InputXGradient(),
    "LRP-ε": at.LRP(),
    "Rescale": at.DeepLift(),
    "Grad-CAM": at.GradCAM("7"),
}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SmallCNN(width=4).eval()


@pytest.fixture
def panel(network):
    images = torch.rand(5, 1, 28, 28)
    widget = explorer.panel(network, images, METHODS, ["1", "7"])
    (*controls, _), (picture, words) = (box.children for box in widget.children)
    return {control.description: control for control in controls}, picture, words


@pytest.mark.parametrize(
    ("control", "value"), [("image", 3), ("class", 4), ("method", "Rescale"), ("layer", "7"), ("ε", 1.0)]
)
def test_each_control_changes_the_picture(panel, control, value):
    controls, picture, _ = panel
    controls["method"].value = "LRP-ε"
    before = bytes(picture.value)
    controls[control].value = value
    assert bytes(picture.value).startswith(b"\x89PNG") and bytes(picture.value) != before


def test_the_reference_changes_deeplift_and_only_settings_of_the_method_can_be_moved(panel):
    controls, picture, _ = panel
    controls["method"].value = "LRP-ε"
    assert not controls["ε"].disabled and controls["reference"].disabled
    controls["method"].value = "Rescale"
    assert controls["ε"].disabled and not controls["reference"].disabled
    before = bytes(picture.value)
    controls["reference"].value = 0.5
    assert bytes(picture.value) != before


def test_the_map_is_that_of_explain_with_the_chosen_settings(network):
    images = torch.rand(2, 1, 28, 28)
    chosen = dict(image=1, target=2, method="LRP-ε", layer="7", epsilon=0.5, reference=0.0)
    figure, words = explorer.draw(network, images, METHODS, list("abcdefghij"), **chosen)
    found = at.explain(network, images[1:], 2, at.LRP(0.5), layers=["7"])
    heatmap = found.layers["7"][0].sum(0)
    limit = np.quantile(heatmap.abs(), 0.995)
    assert np.allclose(figure.axes[1].images[0].get_array(), heatmap / limit, atol=1e-6)
    assert "explained: c" in words and f"sums to {heatmap.sum():.3g}" in words


def test_grad_cam_moves_to_the_chosen_layer(network):
    images = torch.rand(1, 1, 28, 28)
    chosen = dict(image=0, target=0, method="Grad-CAM", layer="1", epsilon=0.1, reference=0.0)
    figure, _ = explorer.draw(network, images, METHODS, **chosen)
    drawn = figure.axes[1].images[0].get_array()
    expected = at.explain(network, images, 0, at.GradCAM("1")).heatmap[0, 0]
    assert np.allclose(drawn * np.quantile(expected, 0.995), expected, atol=1e-5)


def test_a_method_without_such_a_map_says_so_and_the_picture_stays(panel):
    controls, picture, words = panel
    before = bytes(picture.value)
    controls["layer"].options = ["", "no such layer"]
    controls["layer"].value = "no such layer"
    assert "no map:" in words.value and "no such layer" in words.value and bytes(picture.value) == before


def test_the_map_follows_in_well_under_a_second(panel):
    controls, picture, _ = panel
    controls["method"].value = "LRP-ε"
    took = []
    for value in (1e-4, 1e-3, 1e-1, 1.0, 10.0):
        started, before = time.process_time(), bytes(picture.value)
        controls["ε"].value = value
        took.append(time.process_time() - started)
        assert bytes(picture.value) != before
    assert sorted(took)[2] < 0.8, took


@pytest.mark.parametrize("widgets", [False, True, None])
def test_widgets_are_shown_in_jupyterlab_and_a_picture_elsewhere(network, monkeypatch, widgets):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    figure = explorer.explore(network, torch.rand(2, 1, 28, 28), METHODS, widgets=widgets)
    assert len(figure.axes) == 3 and plt.fignum_exists(figure.number) == (not widgets)
    assert [type(widget) for widget in shown] == [ipywidgets.HBox] * bool(widgets)
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    explorer.explore(network, torch.rand(2, 1, 28, 28), METHODS, widgets=widgets)
    assert len(shown) == {False: 0, True: 2, None: 1}[widgets]


def test_without_ipywidgets_there_is_the_picture():
    program = (
        "import sys; sys.modules['ipywidgets'] = None\n"
        "import torch, attrain, os; os.environ['JPY_SESSION_NAME'] = 'x'\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'ipywidgets' else find(name)\n"
        "from studies.pictures import explorer; from studies.nets.small import SmallCNN\n"
        "f = explorer.explore(SmallCNN(width=2), torch.rand(1, 1, 28, 28), {'a': attrain.LRP()})\n"
        "print(len(f.axes))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "3\n", run.stderr


def test_the_library_needs_no_ipywidgets():
    program = (
        "import sys, attrain, studies.pictures.charts;"
        "print('ipywidgets' in sys.modules, 'studies.pictures.explorer' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False False\n"
