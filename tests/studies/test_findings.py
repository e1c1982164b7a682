"""A sentence on what came out is printed only if it is true, of either run."""

import json
import math

import pytest

from studies import findings
from studies.findings import Measured, tell, true_sentences

CLAIM = {
    "id": "isnet-4", "of": "Selective", "claim": "Background relevance falls", "measure": "share", "below": 0.1,
    "paper_value": None, "source": "abstract", "verdict": "fails",
    "measured": {"mean": 0.25, "low": None, "high": None, "interval": "none"},
}  # fmt: skip


def record(scale="smoke", seeds=(0,), **means) -> dict:
    rest = {"low": None, "high": None, "interval": "none"}
    summary = {name.replace("_", "."): {"mean": mean, **rest} for name, mean in means.items()}
    return {
        "experiment": "isnet/x", "parameters": {"scale": scale, "dataset": "digits"}, "seeds": [*seeds],
        "summary": summary, "claims": [CLAIM],
    }  # fmt: skip


def came_out(m):
    yield (
        m["net.deceiving"] < 0.5 * m["net.biased"],
        f"The mark takes more than half: {m['net.deceiving']:.2f} is left.",
    )
    yield m["net.deceiving"] >= 0.5 * m["net.biased"], "The mark takes less than half."
    yield True, f"A rival has {m['rival.biased']:.2f}."


def test_a_record_gives_the_means_of_metrics_and_claims_and_nan_for_what_was_not_measured():
    measured = Measured(record(net_biased=0.9, undefined=None))
    assert measured["net.biased"] == 0.9 and measured["isnet-4", "Selective"] == 0.25
    assert math.isnan(measured["undefined"]) and math.isnan(measured["unknown"])


@pytest.mark.parametrize(
    ("deceiving", "said"),
    [(0.2, "The mark takes more than half: 0.20 is left."), (0.8, "The mark takes less than half.")],
)
def test_only_what_is_true_of_the_numbers_is_said_and_nothing_of_what_has_none(deceiving, said):
    assert true_sentences(came_out(Measured(record(net_biased=1.0, net_deceiving=deceiving)))) == [said]


def test_this_run_and_the_one_on_record_are_each_told_by_their_own_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "RECORDS", tmp_path)
    here = record(net_biased=1.0, net_deceiving=0.8)
    alone = tell(came_out, here)
    assert alone == "**In this run** (smoke scale, digits, 1 seed): The mark takes less than half."
    kept = record("laptop", (0, 1, 2), net_biased=1.0, net_deceiving=0.1)
    kept |= {"schema": 1, "metrics": {}, "figures": [], "data": {}, "commit": None}
    kept |= {
        "environment": {"device": "cpu"},
        "times": {"finished": "", "notebook_seconds": 1.0, "seed_seconds": [1.0]},
    }
    (tmp_path / "laptop/isnet/x").mkdir(parents=True)
    (tmp_path / "laptop/isnet/x/record.json").write_text(json.dumps(kept))
    there = "**In the run on record** (laptop scale, digits, 3 seeds): The mark takes more than half: 0.10 is left."
    assert tell(came_out, here) == f"{alone}\n\n{there}"
    assert tell(came_out, kept) == there.replace("the run on record", "this run")


def test_a_run_in_which_nothing_was_measured_says_so():
    assert tell(came_out, record()).endswith("Nothing that is asked here was measured.")


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"dataset": "scenes", "objects": "mnist"}, "scenes, mnist"),
        ({"dataset": "waterbirds", "objects": "mnist"}, "waterbirds"),
        ({"dataset": "shifted_backgrounds", "source": "fashion_mnist"}, "shifted_backgrounds, fashion_mnist"),
        ({"dataset": "waterbirds", "source": "digits"}, "waterbirds"),
    ],
)
def test_pictures_are_named_only_of_data_that_are_made_of_them(parameters, named):
    run = record()
    run["parameters"] |= parameters
    assert tell(came_out, run).startswith(f"**In this run** (smoke scale, {named}, 1 seed): ")
