import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from attrain.metrics import calibration, reliability
from studies.pictures.learning import learning_curves, reliability_diagrams
from studies.pictures.style import line_styles


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def estimates(*means, wide=0.1):
    return {10**i: {"mean": m, "low": m - wide, "high": m + wide} for i, m in enumerate(means, 1)}


def test_a_panel_an_outcome_a_line_a_method_at_its_means_along_the_sample_counts():
    lines = {"plain": estimates(0.5, 0.7), "mixup": estimates(0.6, 0.8)}
    figure = learning_curves({"accuracy": lines, "NLL": {"plain": estimates(1.0, 0.4)}})
    accuracy, nll = figure.axes
    drawn = {tuple(line.get_ydata()): list(line.get_xdata()) for line in accuracy.lines}
    assert drawn == {(0.5, 0.7): [10, 100], (0.6, 0.8): [10, 100]}
    assert [tuple(line.get_ydata()) for line in nll.lines] == [(1.0, 0.4)]
    assert accuracy.get_xscale() == "log" and [t.get_text() for t in accuracy.get_xticklabels()] == ["10", "100"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "mixup"]


def test_emphasised_methods_have_their_intervals_as_whiskers_and_a_thicker_line():
    figure = learning_curves(
        {"accuracy": {"plain": estimates(0.5, 0.7), "mixup": estimates(0.6, 0.8)}}, emphasised=["mixup"]
    )
    (axis,) = figure.axes
    (whiskers,) = axis.collections
    ends = [(float(x), *y) for (x, *_), y in ((line[:, 0], line[:, 1]) for line in whiskers.get_segments())]
    assert ends == [pytest.approx((10, 0.5, 0.7)), pytest.approx((100, 0.7, 0.9))]
    widths = {tuple(line.get_ydata()): line.get_linewidth() for line in axis.lines}
    assert widths[0.6, 0.8] > widths[0.5, 0.7]
    without = learning_curves({"accuracy": {"mixup": estimates(0.6, 0.8)}}, emphasised=["mixup"], intervals=False)
    assert not without.axes[0].collections


def test_one_seed_has_no_interval_and_a_method_may_lack_sample_counts():
    point = {"mean": 0.4, "low": None, "high": None}
    figure = learning_curves(
        {"accuracy": {"plain": {10: point, 50: point}, "FGSM": {50: point}}}, emphasised=["plain", "FGSM"]
    )
    assert sorted(len(line.get_xdata()) for line in figure.axes[0].lines) == [1, 2]
    drawn = [line for whiskers in figure.axes[0].collections for line in whiskers.get_segments()]
    assert len(drawn) == 3 and all(np.ptp(line[:, 1]) == 0 for line in drawn)


def test_whiskers_of_methods_stand_beside_each_other_and_points_without_any_do_not():
    lines = {name: estimates(0.5, 0.7) for name in "abc"}
    for intervals, expected in ((True, [10 / 1.3**0.5, 10, 10 * 1.3**0.5]), (False, [10, 10, 10])):
        (axis,) = learning_curves({"accuracy": lines}, emphasised="abc", intervals=intervals).axes
        assert [line.get_xdata()[0] for line in axis.lines] == pytest.approx(expected)


def test_whiskers_of_close_sample_counts_do_not_meet():
    point = {"mean": 0.5, "low": 0.4, "high": 0.6}
    (axis,) = learning_curves({"accuracy": {name: {100: point, 110: point} for name in "ab"}}, emphasised="ab").axes
    first, last = (line.get_xdata() for line in axis.lines)
    assert first[0] < last[0] < first[1] < last[1]


def test_the_axis_is_set_by_the_means_and_goes_below_zero_only_with_them():
    figure = learning_curves({"NLL": {"plain": estimates(2.0, 0.1, wide=9)}, "log": {"plain": estimates(1.0, -1.0)}})
    nll, log = (axis.get_ylim() for axis in figure.axes)
    assert nll == pytest.approx((0, 2.38)) and log == pytest.approx((-1.4, 1.4))


def test_panels_go_into_rows_and_empty_places_are_left_out():
    panels = {str(i): {"plain": estimates(0.5, 0.7)} for i in range(4)}
    figure = learning_curves(panels, columns=3)
    assert [axis.get_title() for axis in figure.axes] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("panels", [{}, {"accuracy": {"plain": {}}}])
def test_nothing_to_draw_raises(panels):
    with pytest.raises(ValueError, match="panels must each hold lines with points"):
        learning_curves(panels)


def test_no_two_of_36_methods_are_alike_in_grey():
    styles = line_styles(map(str, range(36)))
    assert len({(style["marker"], style["linestyle"]) for style in styles.values()}) == 36


def test_methods_look_as_they_are_told_to_in_all_pictures():
    styles = line_styles(["plain", "mixup", "FGSM"])
    (curve,) = learning_curves({"accuracy": {"FGSM": estimates(0.5, 0.7)}}, styles).axes[0].lines
    bins = np.array([0.1, 0.9]), np.array([0.2, 0.8]), np.array([5, 5])
    points = reliability_diagrams({"FGSM": bins}, styles).axes[0].lines[-1]
    for line in (curve, points):
        look = {"color": line.get_color(), "marker": line.get_marker(), "linestyle": line.get_linestyle()}
        assert look == styles["FGSM"]


def test_a_reliability_diagram_shows_what_reliability_found_and_its_title_the_calibration_error():
    g = torch.Generator().manual_seed(0)
    logits, y = 3 * torch.randn(400, 5, generator=g), torch.randint(5, (400,), generator=g)
    figure = reliability_diagrams({"plain": reliability(logits, y), "FGSM": reliability(logits / 3, y)})
    confidence, accuracy, count = reliability(logits, y)
    filled = count > 0
    axis = figure.axes[0]
    points = axis.lines[-1]
    assert np.allclose(points.get_xdata(), confidence[filled]) and np.allclose(points.get_ydata(), accuracy[filled])
    assert sum(bar.get_height() for bar in axis.patches) == pytest.approx(1)
    error = float(re.search(r"ECE (\S+)", axis.get_title())[1])
    assert math.isclose(error, calibration(logits, y)["ece"], abs_tol=5e-4)
    assert figure.axes[1].get_title().startswith("FGSM")
    assert to_rgb(figure.get_facecolor()) == (1, 1, 1) and figure.patch.get_alpha() in (None, 1)


def test_bins_of_next_to_no_samples_have_no_point_but_count_in_the_calibration_error():
    bins = np.array([0.1, np.nan, 0.9]), np.array([1.0, np.nan, 0.8]), np.array([1, 0, 999])
    (axis,) = reliability_diagrams({"plain": bins}).axes
    assert axis.lines[-1].get_xdata().tolist() == [0.9]
    assert axis.get_title() == f"plain\nECE {(0.9 * 1 + 0.1 * 999) / 1000:.3f}"
