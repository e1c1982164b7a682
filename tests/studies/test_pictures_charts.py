import os
import subprocess
import sys
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from studies.pictures import charts, style

# Machado, Oliveira, Fernandes 2009, severity 1, for linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colours, sight="usual"):
    """CIELAB (n, 3) of sRGB colours as somebody with that sight sees them."""
    colours = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    xyz = (linear @ np.transpose(SIGHT[sight])).clip(0, 1) @ XYZ.T / XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def apart(a, b):
    """Colour difference ΔE; about 2 is just noticeable side by side."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def drawn(axes):
    return [axis for axis in axes if axis.images]


def test_colours_are_known_values_in_cielab():
    assert lab(["white", "black", "red"]) == pytest.approx(
        np.array([[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2]]), abs=0.2
    )
    assert apart(*lab(["#ff0000", "#6d5700"], "protanopia")[:, None]).item() < 6, "they confuse red and dark olive"


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_stay_apart_from_each_other_and_from_paper(sight):
    for colours in (charts.COLOURS, charts.LETTER_COLOURS):
        seen = lab(colours, sight)
        assert apart(seen, seen)[~np.eye(len(seen), dtype=bool)].min() > 12
        assert apart(seen, lab(["white"], sight)).min() > 30


@pytest.mark.parametrize("sight", SIGHT)
def test_for_and_against_stay_apart_and_zero_is_white(sight):
    strength = np.linspace(0.1, 1, 10)
    red, blue = (lab(colormaps[style.DIVERGING](0.5 + sign * strength / 2), sight) for sign in (1, -1))
    assert np.diagonal(apart(red, blue))[1:].min() > 15
    assert min(apart(lab(["white"]), end).min() for end in (red[1:], blue[1:])) > 8
    assert apart(lab([colormaps[style.DIVERGING](0.5)]), lab(["white"])).max() < 5


def test_neighbours_without_colour_differ_by_dashes_markers_or_hatching():
    lines = charts.curves({"loss": {f"net {i}": [[1.0, 0.0]] for i in range(8)}}).axes[0].lines
    dashes = [line.get_linestyle() for line in lines]
    assert all(a != b for a, b in pairwise(dashes)) and len({*dashes[:4]}) == 4
    groups = {"net": {f"test {i}": {"mean": 0.5, "low": 0.4, "high": 0.6} for i in range(4)}}
    rows = charts.interval_rows(groups, "accuracy").axes[0]
    assert len({line.get_marker() for line in rows.lines if line.get_marker() in style.MARKERS}) == 4
    cloud = {name: (np.arange(2), np.arange(2)) for name in "abc"}
    points = charts.scatter_panels({"method": cloud}, "x", "y").axes[0].lines[1:]
    assert len({point.get_marker() for point in points}) == 3


def test_figures_are_opaque_white_whatever_the_readers_page_is():
    values = {"a": {"b": {"mean": 0.5, "low": 0.4, "high": 0.6}}}
    with plt.rc_context({"figure.facecolor": "none", "axes.facecolor": "black"}):
        figures = [
            charts.map_rows(np.eye(4)[None], {"net": np.ones((1, 4, 4))}),
            charts.interval_rows(values, "accuracy"),
            charts.curves({"loss": {"net": [[1.0, 0.0]]}}),
        ]
        for figure in figures:
            figure.canvas.draw()
            assert np.asarray(figure.canvas.buffer_rgba())[0, 0].tolist() == [255] * 4
            assert all(to_rgb(axis.get_facecolor()) == (1, 1, 1) for axis in figure.axes)


def test_image_rows_share_one_grey_scale_and_name_rows_and_columns():
    figure = charts.image_rows({"a": np.ones((3, 1, 4, 4)), "b": np.zeros((3, 4, 4))}, titles=["x", "y", "z"])
    images = drawn(figure.axes)
    assert len(images) == 6 and {axis.images[0].get_clim() for axis in images} == {(0, 1)}
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["a", "b"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["x", "y", "z"]


def test_a_colour_image_is_shown_in_its_colours():
    photographs = np.random.default_rng(0).random((2, 3, 5, 4))
    figures = charts.image_rows({"a": photographs}), charts.map_rows(photographs, {"net": np.ones((2, 5, 4))})
    for figure in figures:
        for axis, photograph in zip(figure.axes, photographs):
            assert np.array_equal(axis.images[0].get_array(), photograph.transpose(1, 2, 0))


def test_map_colours_are_centred_on_zero_whatever_the_map():
    maps = np.stack([np.linspace(-1, 3, 16).reshape(4, 4), np.full((4, 4), -2.0), np.zeros((4, 4))])
    figure = charts.map_rows(np.random.default_rng(0).random((3, 4, 4)), {"net": maps})
    *maps, bar = figure.axes[3:]
    assert len(maps) == 3 and [label.get_text() for label in bar.get_yticklabels()] == ["against", "0", "for"]
    for axis in maps:
        low, high = axis.images[0].get_clim()
        assert low == -high < 0


@pytest.mark.parametrize("shared", [False, True])
def test_maps_of_a_row_share_a_scale_where_asked(shared):
    maps = np.ones((2, 4, 4)) * np.array([1.0, 4.0])[:, None, None]
    figure = charts.map_rows(np.zeros((2, 4, 4)) + np.eye(4), {"net": maps}, shared=shared)
    drawn = [axis.images[0].get_array().max() for axis in figure.axes[2:4]]
    assert drawn == [0.25 if shared else 1.0, 1.0]


@pytest.mark.parametrize("label", ["a", "integrated gradients, 50 steps, Gauss–Legendre", "word " * 15])
@pytest.mark.parametrize(("columns", "size"), [(1, 0.95), (2, 1.9), (6, 0.7)])
def test_maps_stand_below_their_image_however_long_a_rows_label_is(label, columns, size):
    images = np.random.default_rng(0).random((columns, 8, 8))
    figure = charts.map_rows(images, {label: images, "other": images}, ["title"] * columns, size)
    figure.draw_without_rendering()
    places = [[axis.get_window_extent().x0, axis.get_window_extent().x1] for axis in drawn(figure.axes)]
    image, *maps = np.reshape(places, (3, columns, 2))
    assert np.abs(np.array(maps) - image).max() < 0.5, "pixels"
    labels = [axis.yaxis.label.get_window_extent() for axis in figure.axes[: 3 * columns : columns]]
    assert min(box.x0 for box in labels) >= 0, "no label leaves the figure"


def test_a_coarse_map_covers_the_whole_image():
    figure = charts.map_rows(np.eye(8)[None], {"layer": np.ones((1, 3, 2, 2))})
    assert figure.axes[0].images[0].get_extent() == figure.axes[1].images[0].get_extent()
    assert figure.axes[1].images[0].get_array().shape == (2, 2)


def test_maps_show_the_masks_outline_where_masks_are_given():
    images, masks = np.zeros((1, 8, 8)), np.zeros((1, 8, 8), bool)
    masks[0, 2:6, 2:6] = True
    axis = charts.map_rows(images, {"net": np.ones((1, 8, 8))}, masks=masks).axes[1]
    outline = axis.collections[0].get_paths()[0].vertices
    assert outline.min() == pytest.approx(1.5) and outline.max() == pytest.approx(5.5)


@pytest.mark.parametrize("seeds", [1, 3])
def test_curves_draw_the_mean_and_each_of_several_seeds(seeds):
    figure = charts.curves({"loss": {"net": [[3.0, 2.0, float(s)] for s in range(seeds)]}})
    lines = figure.axes[0].lines
    assert len(lines) == (1 if seeds == 1 else 1 + seeds)
    assert lines[0].get_ydata()[-1] == np.mean(range(seeds))


def test_a_model_keeps_its_colour_in_a_panel_that_lacks_the_others():
    figure = charts.curves({"accuracy": {"a": [[0.0, 1.0]], "b": [[0.0, 1.0]]}, "loss": {"b": [[1.0, 0.0]]}})
    first, second = figure.axes
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()


def test_controls_are_grey_and_curves_may_run_over_anything():
    figure = charts.curves(
        {"fall": {"a": [[0.0, 1.0]], "chance": [[0.0, 0.5]]}}, "erased", [0, 30], "fall", ("chance",)
    )
    (axis,) = figure.axes
    assert [line.get_xdata().tolist() for line in axis.lines] == [[0, 30]] * 2 and axis.get_ylabel() == "fall"
    assert [line.get_color() for line in axis.lines] == [charts.COLOURS[0], "0.55"]


@pytest.mark.parametrize(("names", "rotation"), [(["none", "fc"], 0), (["none", *(f"layer{i}" for i in range(6))], 30)])
def test_long_names_below_curves_do_not_touch(names, rotation):
    figure = charts.curves({"fall": {"a": [range(len(names))]}}, "layer", names)
    figure.draw_without_rendering()
    assert [label.get_rotation() for label in figure.axes[0].get_xticklabels()] == [rotation] * len(names)


def test_ten_models_look_different():
    figure = charts.curves({"fall": {f"m{i}": [[0.0, 1.0]] for i in range(10)}})
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 10


def test_beyond_the_palette_models_differ_by_the_style_of_their_line():
    names = [f"net {i}" for i in range(14)]
    (axis,) = charts.curves({"loss": {name: [[1.0, 0.0]] for name in names}}).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 14


def test_rows_show_means_intervals_and_every_seed_from_top_to_bottom():
    groups = {m: {"biased": {"mean": 0.9, "low": 0.8, "high": 0.95}} for m in ("first", "second")}
    groups["second"]["biased"] = {"mean": 0.0, "low": None, "high": None}
    (axis,) = charts.interval_rows(groups, "accuracy", dots={m: {"biased": [0.8, 1.0]} for m in groups}).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["first", "second"] and axis.yaxis_inverted()
    low, high = axis.collections[0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((0.8, 0.95))
    assert [line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "."] == [[0.8, 1.0]] * 2


def test_log_log_lines_go_through_the_medians_and_show_every_repetition():
    figure = charts.log_log({"seconds": {"a": {2: [1.0, 3.0, 8.0], 10: [4.0]}}}, "classes")
    (axis,) = figure.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    line, *dots = axis.lines
    assert line.get_xdata().tolist() == [2, 10] and line.get_ydata().tolist() == [3.0, 4.0]
    assert [d.get_ydata() if isinstance(d.get_ydata(), list) else list(d.get_ydata()) for d in dots] == [[1, 3, 8], [4]]


def test_boxes_span_the_quartiles_and_whiskers_nine_tenths():
    values = np.arange(101.0)
    figure = charts.box_rows({case: {"first": values, "second": 2 * values} for case in ("a", "b")}, "change")
    axis = figure.axes[0]
    boxes = [(box.get_x(), box.get_width()) for box in axis.patches]
    assert boxes == pytest.approx(np.array([(25, 50), (50, 100)]))
    whisker, median = (lines.get_segments()[0] for lines in axis.collections[:2])
    assert whisker[:, 0].tolist() == [5, 95] and median[:, 0].tolist() == [50, 50]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"] and axis.yaxis_inverted()


def test_labelled_paths_join_their_points_in_order():
    (axis,) = charts.labelled_paths({"P": {"0.3": (0.9, 0.5), "0.7": (0.8, 0.7)}}, "accuracy", "resistance").axes
    assert axis.lines[0].get_xdata().tolist() == [0.9, 0.8] and axis.lines[0].get_ydata().tolist() == [0.5, 0.7]
    assert [text.get_text() for text in axis.texts] == ["0.3", "0.7"]


def test_a_notebook_shows_all_figures_also_if_the_first_is_drawn_in_our_style():
    program = (
        "from IPython.core.interactiveshell import InteractiveShell; InteractiveShell.instance()\n"
        "import matplotlib; from studies.pictures import charts; charts.curves({'a': {'b': [[1, 2]]}})\n"
        "print(matplotlib.is_interactive())"
    )
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    run = subprocess.run([sys.executable, "-c", program], env={**os.environ, **backend}, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


def test_panels_of_curves_have_the_size_that_is_asked_for():
    panels = {name: {"a": [[0.0, 1.0]]} for name in "xyz"}
    assert charts.curves(panels, size=(2, 1.5)).get_size_inches().tolist() == [6, 1.5]
    assert charts.curves(panels).get_size_inches().tolist() == pytest.approx([10.2, 2.8])


@pytest.mark.parametrize(("mean", "cut"), [(0.7, True), (1.2, False)])
def test_intervals_of_shares_end_where_shares_end(mean, cut):
    (axis,) = charts.interval_rows({"net": {"test": {"mean": mean, "low": -1.0, "high": 3.0}}}, "accuracy").axes
    low, high = axis.get_xlim()
    assert (low > -0.1 and high < 1.1) == cut


def test_letters_are_as_tall_as_their_values_stacked_from_zero_smallest_first():
    values = np.zeros((4, 3))
    values[:, 0] = (2.0, 0.5, 0.0, -1.0)
    values[2, 2] = -3.0
    (axis,) = charts.sequence_logos({"map": values}, start=10).axes
    drawn = {p.get_facecolor()[:3]: p.get_path().get_extents() for p in axis.patches}
    a, c, g, t = (drawn[plt.matplotlib.colors.to_rgb(colour)] for colour in charts.LETTER_COLOURS)
    assert (c.y0, c.y1) == pytest.approx((0, 0.5)) and (a.y0, a.y1) == pytest.approx((0.5, 2.5))
    assert (t.y0, t.y1) == pytest.approx((-1, 0)) and (g.y0, g.y1) == pytest.approx((-3, 0))
    assert a.x0 > 9.5 and a.x1 < 10.5 and g.x0 > 11.5 and g.x1 < 12.5
    assert axis.get_ylabel() == "map" and axis.get_xlim() == pytest.approx((9.4, 12.6))


def test_a_letter_below_zero_stands_upside_down():
    one = np.array([[0.0], [0.0], [0.0], [1.0]])  # T: broad at the top
    broad = {}
    for sign in (1, -1):
        (axis,) = charts.sequence_logos({"map": sign * one}).axes
        path = axis.patches[0].get_path()
        wide = np.abs(path.vertices[path.codes != path.CLOSEPOLY, 0]) > 0.3
        broad[sign] = path.vertices[path.codes != path.CLOSEPOLY, 1][wide]
    assert broad[1].min() > 0.5 and broad[-1].max() < -0.5


def test_stretches_are_shaded_in_every_row():
    figure = charts.sequence_logos({"a": np.eye(4), "b": np.eye(4)}, spans={"x": [(0, 2)], "y": [(1, 2), (3, 4)]})
    for axis in figure.axes:
        spans = [p.get_extents().transformed(axis.transData.inverted()) for p in axis.patches[:3]]
        assert [(s.x0, s.x1) for s in spans] == [pytest.approx(s) for s in ((-0.5, 1.5), (0.5, 1.5), (2.5, 3.5))]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y"]


def test_clouds_have_a_panel_for_each_method_with_a_scale_of_its_own_and_a_line_at_the_threshold():
    cloud = {"a": (np.arange(3), np.arange(3) + 5.0), "b": (np.zeros(1), np.zeros(1))}
    panels = {"m1": cloud, "m2": {"a": ([9], [90.0]), "b": ([], [])}, "m3": cloud}
    figure = charts.scatter_panels(panels, "x", "y", columns=2, threshold=7.0)
    first, second, _ = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["m1", "m2", "m3"]
    assert first.get_xlim() == second.get_xlim() and first.get_ylim() != second.get_ylim()
    assert first.lines[1].get_xdata() == [7.0, 7.0] and first.lines[2].get_ydata().tolist() == [5, 6, 7]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_quantities_of_other_units_have_panels_of_their_own_with_and_without_intervals():
    groups = {
        n: {"EPG": {"mean": 0.2, "low": 0.1, "high": 0.3}, "F1": {"mean": 0.6, "low": None, "high": None}} for n in "ab"
    }
    left, right = charts.interval_panels(groups).axes
    assert [left.get_xlabel(), right.get_xlabel()] == ["EPG", "F1"] and left.yaxis_inverted()
    assert left.get_xlim()[1] < 0.5 < right.get_xlim()[0]
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]


def test_of_lines_that_lie_on_each_other_each_is_seen():
    figure = charts.log_log({"seconds": {name: {1: [1.0], 10: [1.0]} for name in "abc"}}, "classes")
    widths = [
        line.get_linewidth() for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_marker() != "."
    ]
    assert widths == sorted(widths, reverse=True) and len({*widths}) == 3


def test_pareto_fronts_join_what_no_other_point_surpasses_and_mark_the_control():
    points = {"a": [(0.8, 0.2), (0.7, 0.5), (0.6, 0.4)], "b": [(0.5, 0.1)], "control": [(0.8, 0.1)]}
    figure = charts.pareto_fronts({"net: EPG": points, "net: IoU": points}, "F1")
    first, second = figure.axes
    assert (first.get_title(), first.get_ylabel(), second.get_ylabel()) == ("net", "EPG", "IoU")
    dots, front = first.lines[:2]
    assert len(dots.get_xdata()) == 3 and front.get_xydata().tolist() == [[0.7, 0.5], [0.8, 0.2]]
    assert first.lines[4].get_marker() == "*"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "control"]
