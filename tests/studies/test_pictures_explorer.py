"""The explorer: its picture without widgets, and what its sliders change with them."""

import subprocess
import sys
import time
import types

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from jupyter_client.manager import start_new_kernel

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


EXPLORE = (
    "import torch, attrain; from studies.pictures import explorer; from studies.nets.small import SmallCNN\n"
    "f = explorer.explore(SmallCNN(width=2), torch.rand(1, 1, 28, 28), {'a': attrain.LRP()}); print(len(f.axes))"
)


@pytest.mark.parametrize("widgets", [False, True, None])
def test_widgets_are_shown_if_asked_for_and_outside_of_notebooks_a_picture(network, monkeypatch, widgets):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    figure = explorer.explore(network, torch.rand(2, 1, 28, 28), METHODS, widgets=widgets)
    assert len(figure.axes) == 3 and plt.fignum_exists(figure.number) == (not widgets)
    assert [type(widget) for widget in shown] == [ipywidgets.HBox] * bool(widgets)


def test_widgets_are_shown_where_somebody_can_be_asked_for_input_as_in_jupyterlab_and_vs_code():
    manager, client = start_new_kernel()
    try:
        found = {}
        for somebody in (True, False):  # False: as papermill, nbconvert and nbval ask a kernel
            shown = []
            answer = client.execute_interactive(EXPLORE, allow_stdin=somebody, output_hook=shown.append, timeout=240)
            assert answer["content"]["status"] == "ok", answer["content"]
            kinds = [kind for message in shown for kind in message["content"].get("data", {})]
            found[somebody] = {"application/vnd.jupyter.widget-view+json", "image/png"} & set(kinds)
        assert found == {True: {"application/vnd.jupyter.widget-view+json"}, False: {"image/png"}}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_widgets_are_shown_in_colab(network, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    explorer.explore(network, torch.rand(2, 1, 28, 28), METHODS)
    assert len(shown) == 1


def test_without_ipywidgets_there_is_the_picture():
    program = (
        "import sys; sys.modules['ipywidgets'] = None; sys.modules['google.colab'] = sys\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'ipywidgets' else find(name)\n"
    )
    run = subprocess.run([sys.executable, "-c", program + EXPLORE], capture_output=True, text=True)
    assert run.stdout == "3\n", run.stderr


def test_the_library_needs_no_ipywidgets():
    program = (
        "import sys, attrain, studies.pictures.charts;"
        "print('ipywidgets' in sys.modules, 'studies.pictures.explorer' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False False\n"
