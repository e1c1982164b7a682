"""Tables of claims: columns that say something, ours apart, and the sentences beneath."""

import pytest

from studies import claim_tables, records
from studies.statistics import estimate
from studies.verdicts import load_claims

SEEDS = {"sure": [0.1, 0.11, 0.12], "open": [0.0, 0.2, 0.11], "bare": [0.1, 0.2, 0.15], "wide": [-9.0, 9.1, 0.0]}


def stated(*claims, scale="laptop"):
    """The table of a record with claims (id, of, kind of values)."""
    made = [{"id": i, "of": of, "measured": estimate(SEEDS[kind]), "verdict": ""} for i, of, kind in claims]
    unknown = {"claim": "c", "measure": "m", "above": 0, "paper_value": None, "source": "s"}
    record = {"experiment": "energy/x", "parameters": {"scale": scale}, "claims": [unknown | claim for claim in made]}
    return records.claims([record])


def test_the_papers_numbers_reproductions_and_setting_are_in_the_row_of_their_variant():
    rows = stated(("energy-6-land", "Energy, reversed", "sure"), ("energy-6-land", "L1, conventional", "open"))
    table = claim_tables.measurements(rows).to_dict("records")
    assert [row["Paper's value"][:5] for row in table] == ["0.062", "0.077"]
    assert [row["Reproductions"][:6] for row in table] == ["", "+0.062"]
    assert all(row["Their setting"].startswith("another: Waterbirds-100, B-cos") for row in table)
    assert [row["Verdict"] for row in table] == ["holds", "undecided"] and table[1]["Would decide it"].endswith(
        " seeds"
    )


@pytest.mark.parametrize(("scale", "setting"), [("authors", "as here"), ("laptop", "another: the authors' network")])
def test_a_setting_is_the_same_at_the_scales_that_say_so(scale, setting):
    rows = stated(("deeplift-6", "IG-10, GATA_disc1", "sure"), scale=scale)
    (row,) = claim_tables.measurements(rows).to_dict("records")
    assert row["Paper's value"] == "0.0639" and row["Their setting"].startswith(setting)
    assert ("another setting" in rows["paper's value"].iloc[0]) == (scale == "laptop")


def test_columns_that_say_nothing_are_left_out():
    assert [*claim_tables.measurements(stated(("a", "", "sure")))] == [*claim_tables.ALWAYS]


def test_what_is_ours_has_a_table_of_its_own():
    (first, papers), (second, ours) = claim_tables.tables(
        stated(("energy-8", "", "sure"), ("energy-6", "", "sure"))
    ).items()
    assert first == "" and papers["Claim"].tolist() == ["energy-6"]
    assert second.startswith("Ours") and ours["Claim"].tolist() == ["energy-8"]
    assert [*claim_tables.tables(stated(("energy-8", "", "sure")))] == [second]


def test_notes_say_what_intervals_cover_what_stands_alone_and_what_would_decide_the_rest():
    said = claim_tables.notes(stated(*(("a", kind, kind) for kind in SEEDS)))
    assert said[0] == "Intervals: t over 3 seeds (4)."
    assert said[2] == "With Holm's correction for those of each claim the 1 marked *alone* would be undecided."
    assert said[3].startswith("Of the paper's 2 undecided, up to 10 seeds would decide 1, up to 100 seeds 1")
    assert claim_tables.notes(stated(("a", "", "sure"))) == ["Intervals: t over 3 seeds (1)."]


def test_at_smoke_scale_the_notes_say_what_it_is_for():
    assert claim_tables.notes(stated(("a", "", "sure"), scale="smoke"))[0].startswith(
        "Smoke scale shows that everything"
    )


def test_numbers_without_a_run_are_those_of_the_paper_that_no_record_measured():
    named = {(id, of) for id, claim in load_claims().items() if isinstance(claim["paper_value"], dict)
             for of in claim["paper_value"] if id.startswith("energy-")}  # fmt: skip
    case = "Energy, reversed at Input"
    table = claim_tables.without_runs("energy", stated(("energy-6-land", case, "sure")))
    assert len(table) == len(named) - 1 + 1  # all but the one that is measured, and energy-9, which has no variants
    assert {"energy-9", "energy-4-EPG"} <= {*table["Claim"]} and all(table["Place"].str.contains("2303.11932"))
    assert claim_tables.without_runs("challenger", stated()).empty
