"""Intervals against published values, closed forms and a bootstrap; what they cover; what decides a claim."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studies.statistics import bounds_of, clopper_pearson, estimate, holm, interval, t_interval, verdict

NORMAL = 1.959964


def crossed(seeds, images, of_seeds=0.0, of_images=0.0, rest=0.0, seed=0):
    """Values (seeds, images) about 0, with these standard deviations."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(seeds, 1)) * of_seeds, rng.normal(size=(1, images)) * of_images
    return sum(parts) + rng.normal(size=(seeds, images)) * rest


# ---------------------------------------------------------------- Student's t


def test_t_interval_equals_the_textbook_value():
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


def test_t_interval_covers_the_mean_of_three_seeds_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    covered = np.mean([low < 0 < high for low, high in map(t_interval, draws)])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_t_interval_needs_two_values():
    with pytest.raises(ValueError, match="at least 2 values, got 1"):
        t_interval([1.0])


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    [
        (0, 51, (0.0, 0.0698)),  # the rule of three's exact form, 1 − 0.025^(1/n)
        (0, 313, (0.0, 0.0117)),
        (81, 263, (0.2527, 0.3676)),  # Newcombe 1998, Table I, method 5
        (15, 148, (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1684)),
        (1, 29, (0.0009, 0.1776)),
    ],
)
def test_the_exact_interval_has_its_published_values(hits, count, expected):
    assert clopper_pearson(hits / count, count) == pytest.approx(expected, abs=5e-5)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), st.data())
def test_the_exact_interval_is_scipys_and_turns_round_with_the_share(count, data):
    hits = data.draw(st.integers(0, count))
    low, high = clopper_pearson(hits / count, count)
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (1 - high, 1 - low) == pytest.approx(clopper_pearson(1 - hits / count, count), abs=1e-9)
    assert low <= hits / count <= high


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.integers(2, 6), st.data())
def test_the_same_share_of_more_is_known_better(count, times, data):
    share = data.draw(st.integers(0, count)) / count
    few, many = (clopper_pearson(share, n) for n in (count, times * count))
    assert many[1] - many[0] < few[1] - few[0]


@pytest.mark.parametrize(("share", "count"), [(-0.1, 5), (1.1, 5), (0.5, 0), (math.nan, 5)])
def test_what_is_no_share_is_refused(share, count):
    with pytest.raises(ValueError, match="a share must lie in"):
        clopper_pearson(share, count)


def test_a_share_of_one_seed_has_the_exact_interval():
    measured = estimate([[0.0] * 51])
    assert measured["interval"] == "exact over 51 test cases, 1 seed"
    assert (measured["low"], measured["high"]) == clopper_pearson(0, 51) and measured["share_of"] == 51


def test_of_a_share_over_three_seeds_no_interval_is_narrower_than_the_exact_one_or_leaves_0_to_1():
    values = np.zeros((3, 100))
    values[0, :2] = 1
    measured = estimate(values)
    assert measured["low"] == 0 and measured["high"] >= clopper_pearson(2 / 300, 100)[1]
    assert measured["interval"] == "t over 3 seeds and 100 test cases, no narrower than exact over 100 test cases"


def test_a_share_that_is_0_in_all_seeds_keeps_the_exact_interval_over_the_images():
    measured = estimate(np.zeros((3, 100)))
    assert (measured["low"], measured["high"]) == clopper_pearson(0, 100)
    assert measured["interval"] == "exact over 100 test cases, 3 seeds"


def test_a_difference_of_shares_that_is_0_everywhere_is_a_tie_and_no_share():
    assert estimate(np.zeros((1, 100)), share=False)["interval"] == "none: all values agree"


# ---------------------------------------------------------------- seeds and images


@pytest.mark.parametrize(
    ("values", "covers"),
    [
        ([0.5], "none: 1 seed"),
        ([0.5, 0.7], "none: 2 seeds"),
        ([0.5, 0.6, 0.7], "t over 3 seeds"),
        ([[0.5, 0.1, 0.7]], "t over 3 test cases, 1 seed"),
        ([[0.5, 0.1, 0.7], [0.5, 0.2, 0.7]], "t over 3 test cases, 2 seeds"),
        ([[1.0, 0.0, 1.0]], "exact over 3 test cases, 1 seed"),
        ([[0.5, 0.1], [0.4, 0.1], [0.3, 0.2]], "t over 3 seeds and 2 test cases"),
        ([1.0, 1.0, 1.0], "none: all values agree"),
        ([0.1 + 0.2, 0.3, 0.3], "none: all values agree"),  # but for rounding
        ([[0.3, 0.3]], "none: all values agree"),
        ([[2.0, 2.0]] * 3, "none: all values agree"),
    ],
)
def test_what_an_interval_covers_is_said(values, covers):
    measured = estimate(values)
    assert measured["interval"] == covers and measured["mean"] == pytest.approx(np.mean(values))
    assert (measured["low"] is None) == (measured["high"] is None) == covers.startswith("none")
    assert measured["seeds"] == len(values) and measured["per_seed"] == pytest.approx([np.mean(v) for v in values])


def test_where_only_seeds_differ_the_interval_is_students_t_over_seeds():
    seeds = [0.1, 0.4, 0.3]
    for values in (seeds, [[value] * 50 for value in seeds]):
        measured = estimate(values)
        assert (measured["low"], measured["high"]) == pytest.approx(t_interval(seeds))
        assert measured["freedom"] == pytest.approx(2) and measured["image_error"] == 0


def test_where_only_images_differ_the_interval_is_students_t_over_images():
    images = crossed(1, 40, rest=1.0)
    for values in (images, images.repeat(3, 0)):
        measured = estimate(values)
        assert (measured["low"], measured["high"]) == pytest.approx(t_interval(images[0]))


def test_variances_of_seeds_and_images_add_up():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])  # means 1.5, 3.5, 7 of seeds, 3, 5 of images
    of_seeds, of_images = np.var([1.5, 3.5, 7], ddof=1) / 3, np.var([3, 5], ddof=1) / 2
    measured = estimate(values)
    assert measured["error"] ** 2 == pytest.approx(of_seeds + of_images)
    assert measured["image_error"] ** 2 == pytest.approx(of_images)
    assert measured["freedom"] == pytest.approx((of_seeds + of_images) ** 2 / (of_seeds**2 / 2 + of_images**2 / 1))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_no_interval_is_narrower_than_over_the_seeds_alone_and_no_error_smaller_than_over_the_images(seed):
    values = crossed(3, 20, 1.0, 1.0, 1.0, seed)
    both, seeds, images = (estimate(each) for each in (values, values.mean(1), values.mean(0)[None]))
    assert both["low"] <= seeds["low"] + 1e-9 and seeds["high"] <= both["high"] + 1e-9
    assert both["error"] >= images["error"] and seeds["low"] < seeds["high"]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 5), st.floats(0.1, 10))
def test_an_interval_moves_and_grows_with_its_values_whatever_their_order(seed, shift, factor):
    values, rng = crossed(4, 9, 1.0, 1.0, 1.0, seed), np.random.default_rng(seed)
    first = estimate(values)
    moved = estimate(factor * rng.permutation(rng.permutation(values), axis=1) + shift)
    for side in ("low", "mean", "high"):
        assert moved[side] == pytest.approx(factor * first[side] + shift, abs=1e-7)
    assert first["low"] < first["mean"] < first["high"]


def test_the_error_is_that_of_a_two_level_bootstrap_where_there_are_many_seeds():
    seeds, images = 60, 80
    values, rng = crossed(seeds, images, 1.0, 1.2, 1.0), np.random.default_rng(1)
    drawn = [rng.multinomial(n, np.ones(n) / n, size=4000) / n for n in (seeds, images)]
    bootstrap = np.einsum("bs,sn,bn->b", drawn[0], values, drawn[1], optimize=True).std()
    assert estimate(values)["error"] == pytest.approx(bootstrap, rel=0.05)


@pytest.mark.parametrize(("of_seeds", "of_images"), [(1.0, 0.0), (0.1, 1.0), (0.03, 1.0), (0.0, 1.0), (0.3, 0.5)])
def test_three_seeds_and_their_images_cover_the_mean_as_often_as_they_say(of_seeds, of_images):
    """Which neither t over the seeds alone does (66 % of the third) nor a two-level bootstrap (72 % of the first)."""
    found = [estimate(crossed(3, 100, of_seeds, of_images, 0.5, seed)) for seed in range(800)]
    covered = np.mean([measured["low"] < 0 < measured["high"] for measured in found])
    assert 0.93 <= covered <= 0.995


def test_draws_are_of_the_test_cases_beside_the_seeds():
    draws = np.random.default_rng(0).normal(size=1000)
    alone = estimate([0.6], draws)
    assert alone["interval"] == "normal over bootstrap draws of test cases, 1 seed"
    assert alone["high"] - 0.6 == pytest.approx(NORMAL * draws.std(ddof=1)) == pytest.approx(0.6 - alone["low"])
    both = estimate([0.5, 0.6, 0.7], draws)
    assert both["error"] ** 2 == pytest.approx(0.01 / 3 + draws.var(ddof=1))
    assert both["interval"] == "t over 3 seeds and bootstrap draws of test cases"
    assert estimate([0.5, 0.6, 0.7], [0.6] * 9)["high"] == pytest.approx(t_interval([0.5, 0.6, 0.7])[1])


@pytest.mark.parametrize("values", [[], [float("nan")], [0.5, math.inf], 1.0, [[[1.0]]]])
def test_values_that_are_no_measurement_are_refused(values):
    with pytest.raises(ValueError, match="values must be finite"):
        estimate(values)


def test_values_that_are_not_finite_are_counted():
    with pytest.raises(ValueError, match=r"got shape \(2, 3\), 2 of them not finite"):
        estimate([[1.0, math.nan, 2.0], [math.inf, 1.0, 1.0]])


def test_an_interval_at_another_level_is_wider_or_narrower():
    measured = estimate([[0.5, 0.1, 0.7], [0.4, 0.1, 0.6], [0.3, 0.2, 0.9]])
    wide, usual, narrow = (bounds_of(measured, level) for level in (0.99, 0.95, 0.5))
    assert wide[0] < usual[0] < narrow[0] and usual == (measured["low"], measured["high"])


# ---------------------------------------------------------------- words and decisions


def test_an_interval_without_width_is_written_as_none():
    assert interval({"low": 0.5, "high": 0.5}) == interval({"low": None, "high": None}) == "none"
    assert interval({"low": -0.5, "high": 0.5}) == "[−0.500, 0.500]"


@pytest.mark.parametrize(
    ("low", "high", "bounds", "expected"),
    [
        (0.6, 0.7, {"above": 0.5}, "holds"),
        (0.4, 0.7, {"above": 0.5}, "undecided"),
        (0.3, 0.5, {"above": 0.5}, "fails"),
        (-0.005, 0.005, {"above": -0.01, "below": 0.01}, "holds"),
        (0.01, 0.02, {"above": -0.01, "below": 0.01}, "fails"),
        (-0.02, 0.02, {"above": -0.01, "below": 0.01}, "undecided"),
        (0.05, 0.2, {"below": 0.1}, "undecided"),
        (None, None, {"below": 0.1}, "not judged"),
    ],
)
def test_verdicts(low, high, bounds, expected):
    assert verdict(low, high, **bounds) == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_keeps_the_order_and_is_between_p_and_bonferroni(p):
    corrected = holm(p)
    assert all(a <= b + 1e-12 and b <= min(1, len(p) * a) + 1e-12 for a, b in zip(p, corrected))
    order = sorted(range(len(p)), key=p.__getitem__)
    assert all(corrected[a] <= corrected[b] for a, b in pairwise(order))


def test_holms_correction_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
