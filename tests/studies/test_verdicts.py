"""What a claim comes to: every path to a verdict, many comparisons, what would decide more, and old records."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from studies import verdicts
from studies.files import ROOT
from studies.records import claims
from studies.statistics import clopper_pearson, estimate, t_interval, verdict
from studies.verdicts import completed, decided_by, judged, load_claims, p_value, stated


def claim(values, id="made-up", of="", share=False, measured=None, **bounds):
    definition = {"claim": "c", "measure": "m", "paper_value": None, "source": "s", **(bounds or {"above": 0})}
    definition |= {"unit": "share"} if share else {}
    measured = estimate(values, share=share) if measured is None else measured
    return {"id": id, "of": of, **definition, "measured": measured, "verdict": "as said on the day"}


def judge(*stated, scale="laptop"):
    return judged({"parameters": {"scale": scale}, "claims": list(stated)})


THREE = [0.1, 0.2, 0.3]


# ---------------------------------------------------------------- every path


@pytest.mark.parametrize(
    ("values", "bounds", "expected"),
    [
        (THREE, {"above": -0.1}, "holds"),
        (THREE, {"above": 0.5}, "fails"),
        (THREE, {"above": 0.15}, "undecided"),
        (THREE, {"above": -0.1, "below": 0.5}, "holds"),
        (THREE, {"above": 0.6, "below": 0.8}, "fails"),
        ([0.0, 0.0, 0.0], {"above": 0}, "not judged"),  # ties
        ([0.4, 0.4, 0.4], {"above": 0}, "not judged"),  # no spread
        ([0.4], {"above": 0}, "not judged"),
        ([0.4, 0.5], {"above": 0}, "not judged"),  # two seeds without images
        ([[0.0] * 50], {"above": -0.01, "below": 0.01}, "not judged"),  # no image differs
        ([[0.0] * 50] * 3, {"above": -0.01, "below": 0.01}, "not judged"),
        ([[0.4, 0.5, 0.4] * 9], {"above": 0}, "holds"),  # one seed, of its images
        ([[0.4, 0.5, 0.4] * 9] * 2, {"above": 0}, "holds"),
    ],
)
def test_verdicts_need_knowledge(values, bounds, expected):
    (row,) = judge(claim(values, **bounds))
    assert row["verdict"] == expected


@pytest.mark.parametrize(
    ("misses", "count", "expected"), [(0, 51, "undecided"), (0, 313, "undecided"), (0, 368, "holds"), (10, 51, "fails")]
)
def test_none_of_a_few_is_not_below_one_percent(misses, count, expected):
    (row,) = judge(claim([[1.0] * misses + [0.0] * (count - misses)], share=True, below=0.01))
    assert row["verdict"] == expected


@pytest.mark.parametrize("values", [[1.0, math.nan, 1.0], [[1.0, math.inf]]])
def test_what_is_no_number_is_refused_before_it_can_be_judged(values):
    with pytest.raises(ValueError, match="values must be finite"):
        claim(values)


def test_at_smoke_scale_nothing_is_judged_and_nothing_would_decide_it():
    (row,) = judge(claim(THREE), scale="smoke")
    assert (row["verdict"], row["decided by"], row["alone"]) == ("not judged", "", False)
    assert row["measured"]["low"] is not None


def test_of_a_claim_stated_twice_the_last_counts():
    rows = judge(claim([0.9, 0.8, 0.7]), claim(THREE, of="b"), claim([-0.9, -0.8, -0.7]))
    assert [(row["of"], row["verdict"]) for row in rows] == [("", "fails"), ("b", "undecided")]


# ---------------------------------------------------------------- many comparisons


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([{"above": 0.3}, {"below": -0.2}, {"above": -1.0, "below": 1.0}]))
def test_p_is_below_one_side_of_five_percent_exactly_where_the_interval_decides(seed, bounds):
    rng = np.random.default_rng(seed)
    for values, share in (
        (rng.normal(size=(3, 9)), False),
        (rng.normal(size=4), False),
        (rng.random((1, 30)) < 0.3, True),
    ):
        measured = estimate(values, share=share)
        decides = verdict(measured["low"], measured["high"], **bounds) in ("holds", "fails")
        assert decides == (p_value(measured, **bounds) < 0.025)


def test_p_is_students_and_the_binomials():
    assert p_value(estimate(THREE), above=0) == pytest.approx(stats.ttest_1samp(THREE, 0, alternative="greater").pvalue)
    measured = estimate([[1.0] * 9 + [0.0] * 41], share=True)
    assert p_value(measured, above=0.1) == pytest.approx(stats.binomtest(9, 50, 0.1, "greater").pvalue)
    assert p_value(measured, below=0.3) == pytest.approx(stats.binomtest(9, 50, 0.3, "less").pvalue)
    assert p_value(estimate([[0.0] * 50], share=True), below=0.01) == pytest.approx(0.99**50)


def test_holms_procedure_marks_what_is_decided_only_alone():
    """p of 0.004, 0.009, 0.013, 0.2, one-sided: times 4, 3, 2, 1 against 0.025, so that the first alone stands."""
    spread = np.array([-0.1, 0.0, 0.1])

    def with_p(p, of):
        return claim(stats.t.isf(p, 2) * stats.sem(spread) + spread, of=of)

    rows = judge(*(with_p(p, str(p)) for p in (0.2, 0.004, 0.013, 0.009)))
    assert [row["verdict"] for row in rows] == ["undecided", "holds", "holds", "holds"]
    assert [row["alone"] for row in rows] == [False, False, True, True] and {row["family"] for row in rows} == {4}


def test_each_claim_is_a_family_of_its_own_and_what_is_not_judged_belongs_to_none():
    rows = judge(claim(THREE, above=-0.1), claim([0.1], of="b"), claim(THREE, "other", above=-0.1))
    assert [row["family"] for row in rows] == [1, 1, 1] and not any(row["alone"] for row in rows)


# ---------------------------------------------------------------- what would decide it


def needed(values, share=False, **bounds):
    measured = estimate(values, share=share)
    return decided_by(measured, verdict(measured["low"], measured["high"], **bounds), **bounds)


def test_the_seeds_that_would_decide_are_the_fewest_whose_interval_is_narrow_enough():
    words = needed(THREE, above=0)
    count, deviation = int(words.removesuffix(" seeds")), np.std(THREE, ddof=1)
    widths = [stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n) for n in (count - 1, count)]
    assert widths[1] < 0.2 <= widths[0] and count > 3


@pytest.mark.parametrize(
    ("values", "bounds", "words"),
    [
        (THREE, {"above": -1}, ""),
        ([0.4], {"above": 0}, "3 seeds or more"),
        ([0.4, 0.4, 0.4], {"above": 0}, ""),
        ([[0.0] * 9], {"above": 0}, ""),
        ([-0.01, 0.0, 0.02], {"above": 0}, "84 seeds"),
        ([-1.0, 0.01, 1.0], {"above": 0}, "more than 100 seeds"),
        ([-1.0, 0.0, 1.0], {"above": 0}, "nothing: it is on the bound"),
        ([[-1.0, 1.0] * 8 + [0.1]] * 3, {"above": 0}, "more test cases, not seeds"),
        ([[-1.0, 1.0] * 8], {"above": 0}, "nothing: it is on the bound"),
    ],
)
def test_what_would_decide_a_claim_is_said(values, bounds, words):
    assert needed(values, **bounds) == words


def test_the_images_that_would_decide_are_as_many_as_make_the_interval_narrow_enough():
    values = [[-1.0, 1.0] * 8 + [1.0]]  # a mean of 1/17, a deviation of 1.03
    assert needed(values, above=0) == "1,200 test cases"
    error = np.std(values, ddof=1) / math.sqrt(1200)
    assert 1.96 * error < 1 / 17 < 1.96 * error * math.sqrt(1.1)
    assert needed([[0.0] * 51], share=True, below=0.01) == "380 test cases"
    assert clopper_pearson(0, 380)[1] < 0.01


# ---------------------------------------------------------------- records from before errors were kept


@pytest.mark.parametrize(
    ("old", "share", "expected"),
    [
        ((0.2, *t_interval(THREE), "t over 3 seeds"), False, "t over 3 seeds"),
        ((0.5, 0.3, 0.7, "t over 2 seeds"), False, "none: 2 seeds"),
        ((0.5, 0.5, 0.5, "t over 3 seeds"), False, "none: all values agree"),
        ((0.0, 0.0, 0.0, "bootstrap over 313 test images, 1 seed"), False, "none: all values agree"),
        ((0.0, 0.0, 0.0, "bootstrap over 313 test images, 1 seed"), True, "exact over 313 test cases, 1 seed"),
        ((0.5, 0.3, 0.7, "bootstrap over 50 test images, 1 seed"), False, "bootstrap over 50 test cases, 1 seed"),
        ((0.5, 0.3, 0.7, "bootstrap over patients, 1 seed"), False, "bootstrap over patients, 1 seed"),
        ((0.5, None, None, "none: 1 seed"), False, "none: 1 seed"),
    ],
)
def test_old_measurements_are_judged_by_what_their_intervals_tell(old, share, expected):
    measured = dict(zip(("mean", "low", "high", "interval"), old))
    found = completed(measured, share)
    assert found["interval"] == expected and (found["low"] is None) == expected.startswith("none")
    if found["low"] is not None and not share:
        assert p_value(found, above=found["low"]) == pytest.approx(0.025)


def test_an_old_interval_over_seeds_tells_all_that_the_seeds_did():
    new = estimate(THREE)
    old = completed({key: new[key] for key in ("mean", "low", "high", "interval")})
    assert old["error"] == pytest.approx(new["error"]) and (old["freedom"], old["seeds"]) == (2, 3)
    assert decided_by(old, "undecided", above=0) == decided_by(new, "undecided", above=0)


def test_an_old_share_is_judged_exactly():
    old = {"mean": 0.0, "low": 0.0, "high": 0.0, "interval": "bootstrap over 313 test images, 1 seed"}
    (row,) = judge(claim(None, share=True, measured=old, below=0.01))
    assert row["verdict"] == "undecided" and row["measured"]["high"] == pytest.approx(0.0117, abs=5e-5)


# ---------------------------------------------------------------- definitions


def test_a_record_is_judged_by_the_claims_as_they_stand_now():
    old = claim([0.02, 0.03, 0.04], id="isnet-3", of="Selective") | {"above": 0.9, "source": "unknown"}
    (row,) = judge(old)
    assert row["verdict"] == "holds" and row["source"] == load_claims()["isnet-3"]["source"]


def test_a_value_of_one_variant_is_no_other_ones():
    assert stated("energy-6-land", "L1, reversed")["paper_value"].startswith("0.022")
    assert stated("energy-6-land", "RRR*, reversed")["paper_value"] is None
    assert stated("energy-6-land", "L1, reversed at Final") == stated("energy-6-land", "L1, reversed")
    assert stated("energy-9", "B-cos")["paper_value"] == 1.7 and stated("no such", "") == {}


PAPER = {  # Table 1 of the paper in points, (worst group, overall)
    "conventional": {"baseline": (43.4, 68.7), "Energy": (56.1, 71.2), "L1": (51.1, 69.5)},
    "reversed": {"baseline": (56.6, 80.1), "Energy": (62.8, 83.6), "L1": (58.8, 82.2)},
}


@pytest.mark.parametrize("task", PAPER)
@pytest.mark.parametrize("loss", ["Energy", "L1"])
@pytest.mark.parametrize(("column", "id"), [(0, "energy-6-land"), (1, "energy-6-overall")])
def test_waterbirds_differences_are_those_of_table_1(task, loss, column, id):
    before, after = PAPER[task]["baseline"][column] / 100, PAPER[task][loss][column] / 100
    words = load_claims()[id]["paper_value"][f"{loss}, {task}"]
    assert words.startswith(f"{after - before:.3f} ({before:.3f} ± ") and f" to {after:.3f} ± " in words


def test_all_variants_with_a_number_are_ones_that_a_kept_record_or_a_notebook_can_name():
    known = {(row["id"], row["of"]) for row in claims().to_dict("records")}
    scripts = " ".join(path.read_text("utf-8") for path in (ROOT / "notebooks").glob("*/*.py"))
    for id, definition in load_claims().items():
        named = definition["paper_value"] if isinstance(definition["paper_value"], dict) else {}
        if {(id, of) for of in named} & known:
            assert {(id, of) for of in named} <= known, f"{id} names a variant that no run has"
        assert f'"{id}"' in scripts or id.startswith("challenger"), f"no notebook states {id}"


@pytest.mark.parametrize("key", ["ours", "unit"])
def test_unknown_words_in_a_definition_are_refused(tmp_path, key):
    file = tmp_path / "claims.yaml"
    file.write_text(f"a: {{claim: a, measure: b, above: 1, paper_value: null, source: c, {key}: nonsense}}")
    with pytest.raises(ValueError, match=f"claims.yaml: a must have .*{key}"):
        load_claims(file)


def test_bounds_that_are_ours_are_no_claims_of_a_paper():
    ours = {id for id, definition in load_claims().items() if definition.get("ours") == "target"}
    assert ours == {"isnet-7", "isnet-vit-6", "energy-8", "deeplift-4"}
    assert all(load_claims()[id].get("ours") for id in load_claims() if load_claims()[id]["source"].startswith("ours"))
    assert verdicts.CLAIMS == ROOT / "notebooks/claims.yaml"
