import matplotlib.pyplot as plt
import numpy as np
import pytest

from attrain import plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def drawn(axes):
    return [axis for axis in axes if axis.images]


def test_image_rows_share_one_grey_scale_and_name_rows_and_columns():
    figure = plots.image_rows({"a": np.ones((3, 1, 4, 4)), "b": np.zeros((3, 4, 4))}, titles=["x", "y", "z"])
    images = drawn(figure.axes)
    assert len(images) == 6 and {axis.images[0].get_clim() for axis in images} == {(0, 1)}
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["a", "b"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["x", "y", "z"]


def test_map_colours_are_centred_on_zero_whatever_the_map():
    maps = np.stack([np.linspace(-1, 3, 16).reshape(4, 4), np.full((4, 4), -2.0), np.zeros((4, 4))])
    figure = plots.map_rows(np.random.default_rng(0).random((3, 4, 4)), {"net": maps})
    for axis in figure.axes[3:]:
        low, high = axis.images[0].get_clim()
        assert low == -high < 0


def test_maps_show_the_masks_outline_where_masks_are_given():
    images, masks = np.zeros((1, 8, 8)), np.zeros((1, 8, 8), bool)
    masks[0, 2:6, 2:6] = True
    axis = plots.map_rows(images, {"net": np.ones((1, 8, 8))}, masks=masks).axes[1]
    outline = axis.collections[0].get_paths()[0].vertices
    assert outline.min() == pytest.approx(1.5) and outline.max() == pytest.approx(5.5)


def test_bars_show_means_intervals_and_every_seed():
    groups = {m: {"biased": {"mean": 0.9, "low": 0.8, "high": 0.95}} for m in ("a", "b")}
    groups["b"]["biased"] = {"mean": 0.0, "low": None, "high": None}
    figure = plots.interval_bars(groups, "accuracy", dots={m: {"biased": [0.8, 1.0]} for m in groups})
    (axis,) = figure.axes
    assert [patch.get_height() for patch in axis.patches] == [0.9, 0.0]
    low, high = axis.collections[0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.8, 0.95))
    assert [line.get_ydata().tolist() for line in axis.lines if line.get_marker() == "."] == [[0.8, 1.0]] * 2


@pytest.mark.parametrize("seeds", [1, 3])
def test_curves_draw_the_mean_and_each_of_several_seeds(seeds):
    figure = plots.curves({"loss": {"net": [[3.0, 2.0, float(s)] for s in range(seeds)]}})
    lines = figure.axes[0].lines
    assert len(lines) == (1 if seeds == 1 else 1 + seeds)
    assert lines[0].get_ydata()[-1] == np.mean(range(seeds))


def test_a_model_keeps_its_colour_in_a_panel_that_lacks_the_others():
    figure = plots.curves({"accuracy": {"a": [[0.0, 1.0]], "b": [[0.0, 1.0]]}, "loss": {"b": [[1.0, 0.0]]}})
    first, second = figure.axes
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
