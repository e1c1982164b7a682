import matplotlib.pyplot as plt
import numpy as np
import pytest

from studies.pictures.learning import decision_surface

LINE = (2 * np.arange(20) + 1 - 20) / 20
TRUTH = np.broadcast_to(LINE[:, None] - 0.3, (20, 20))  # class 1 lies above u₂ = 0.3
POINTS, LABELS = np.array([[-0.5, -0.2], [0.5, 0.7], [0.0, 0.9]]), np.array([0, 1, 1])
SURFACE = np.broadcast_to((LINE[None, :] + 1) / 2, (20, 20))  # this network is undecided at u₁ = 0


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def panels(figure):
    return [axis for axis in figure.axes if axis.images]


def lines(axis):
    """The contours' vertices: the true boundary, then the network's own."""
    return [np.concatenate([p.vertices for p in c.get_paths()]) for c in axis.collections[:2]]


def test_each_network_has_a_panel_on_one_scale_of_probability():
    figure = decision_surface({"a": SURFACE, "b": 1 - SURFACE, "c": SURFACE}, TRUTH, POINTS, LABELS, columns=2)
    assert [axis.get_title() for axis in panels(figure)] == ["a", "b", "c"]
    assert {axis.images[0].get_clim() for axis in panels(figure)} == {(0, 1)}
    assert len(figure.axes) == 3 + 1, "the fourth place of two rows of two is empty; the last one is the colour bar"


def test_panels_are_shared_out_evenly_among_rows():
    figure = decision_surface(dict.fromkeys("abcde", SURFACE), TRUTH, POINTS, LABELS, columns=4)
    rows = [axis.get_subplotspec().rowspan.start for axis in panels(figure)]
    assert rows == [0, 0, 0, 1, 1]


def test_both_boundaries_lie_where_they_are():
    (axis,) = panels(decision_surface({"a": SURFACE}, TRUTH, POINTS, LABELS))
    true, own = lines(axis)
    assert true[:, 1] == pytest.approx(0.3) and np.ptp(true[:, 0]) > 1.8
    assert own[:, 0] == pytest.approx(0.0, abs=1e-6) and np.ptp(own[:, 1]) > 1.8


def test_the_first_row_is_drawn_lowest():
    (axis,) = panels(decision_surface({"a": SURFACE}, TRUTH, POINTS, LABELS))
    assert axis.images[0].origin == "lower" and axis.images[0].get_extent() == [-1, 1, -1, 1]
    assert axis.get_xlim() == axis.get_ylim() == (-1, 1)


def test_training_points_are_marked_by_class_and_moves_are_arrows():
    ends = POINTS + np.array([[0.0, 0.4], [0.1, 0.0], [0.0, -0.3]])
    (axis,) = panels(decision_surface({"a": SURFACE}, TRUTH, POINTS, LABELS, moves={"a": ends}))
    zero, one, arrows = axis.collections[2:]
    assert np.array_equal(zero.get_offsets(), POINTS[:1]) and np.array_equal(one.get_offsets(), POINTS[1:])
    assert not np.array_equal(zero.get_paths()[0].vertices, one.get_paths()[0].vertices), "two shapes"
    assert np.stack([arrows.U, arrows.V], 1) == pytest.approx(ends - POINTS)


def test_a_network_that_knows_one_class_only_has_no_boundary():
    (axis,) = panels(decision_surface({"a": np.full((20, 20), 0.9)}, TRUTH, POINTS, LABELS))
    assert len(axis.collections) == 3, "the true boundary and two kinds of points"


@pytest.mark.parametrize("surface", [np.zeros((20, 19)), np.full((20, 20), 1.5), np.full((20, 20), np.nan)])
def test_what_is_not_a_probability_everywhere_is_refused(surface):
    with pytest.raises(ValueError, match=r"'a' must be probabilities of truth's shape \(20, 20\)"):
        decision_surface({"a": surface}, TRUTH, POINTS, LABELS)
