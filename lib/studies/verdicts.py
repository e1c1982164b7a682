"""What is known of each claim: worked out from what a record measured whenever it is read, not kept with it.

A record's own "verdict" is what its notebook said on the day; every table is made from `judged`. So better rules, and
papers' values that somebody has read since, reach the pages by `python -m studies.pages --write`, without a new run.
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from itertools import groupby
from pathlib import Path

import yaml

from studies.files import NOTEBOOKS
from studies.statistics import FEWEST_SEEDS, clopper_pearson, half_width, holm, standard_errors, t_quantile, verdict

CLAIMS = NOTEBOOKS / "claims.yaml"
REQUIRED = {"claim", "measure", "paper_value", "source"}
OPTIONAL = {"above", "below", "unit", "ours", "setting", "same_at", "reproduced"}
BY_VARIANT = ("paper_value", "reproduced")  # may be one value, or one a variant: {of: value}
MOST_SEEDS = 100  # that are worth naming as what would decide a claim
SMOKE = "Smoke scale shows that everything works, in under a minute; it decides nothing, so there are no verdicts."


@cache
def load_claims(path: Path = CLAIMS) -> dict[str, dict]:
    """Claims by id, each with `claim`, `measure`, `above` and/or `below`, `paper_value`, `source`; see the file's head.

    Raises:
        ValueError: a claim lacks one of these, or has another key than these and `OPTIONAL`; names it.
    """
    claims = yaml.safe_load(path.read_text("utf-8"))
    for name, claim in claims.items():
        wrong = REQUIRED - set(claim) | set(claim) - REQUIRED - OPTIONAL
        wrong |= {"ours"} if claim.get("ours", "target") not in ("target", "question") else set()
        wrong |= {"unit"} if claim.get("unit", "share") != "share" else set()
        if wrong or not {"above", "below"} & set(claim):
            keys = sorted(REQUIRED | OPTIONAL)
            raise ValueError(f"{path.name}: {name} must have {keys} (above or below), see {sorted(wrong)}")
    return claims


def stated(id: str, of: str) -> dict:
    """A claim's definition as it bears on one variant of what was measured; {} for an id that is not in the file."""
    return resolved(load_claims().get(id, {}), of) if CLAIMS.is_file() else {}


def resolved(definition: Mapping, of: str) -> dict:
    """A definition with the values of this variant, else of what it is a case of, None where neither has one."""
    each = {key: definition[key] for key in BY_VARIANT if isinstance(definition.get(key), dict)}
    return {**definition} | {key: values.get(of, values.get(case_of(of))) for key, values in each.items()}


def case_of(of: str) -> str:
    """The variant that another is a case of, or itself.

    Example:
        >>> case_of("Energy, reversed at Input")
        'Energy, reversed'
    """
    return of.partition(" at ")[0]


def judged(record: Mapping) -> list[dict]:
    """A record's claims, each with its definition as of now and with what it comes to.

    Args:
        record: with "claims" and "parameters", as `Study.finish` writes it; of any age.

    Returns:
        each claim with "verdict": by its 95 % interval, or "not judged" where there is none and at smoke scale;
        "alone": does it take this comparison alone to decide, but not all `family` comparisons of this claim in this
        record at once (Holm 1979, two-sided level 5 %); "decided by": how many seeds or test cases would decide an
        undecided one if its mean and spread stayed as they are, in words. Of a claim stated twice (a cell run again)
        the last.
    """
    last = {(claim["id"], claim["of"]): claim for claim in record["claims"]}
    rows = [claim | stated(*key) for key, claim in last.items()]
    smoke = record["parameters"]["scale"] == "smoke"
    for row in rows:
        row["measured"] = completed(row["measured"], row.get("unit") == "share")
        low, high = (row["measured"][side] for side in ("low", "high"))
        row["verdict"] = "not judged" if smoke else verdict(low, high, **_bounds(row))
        row["decided by"] = "" if smoke else decided_by(row["measured"], row["verdict"], **_bounds(row))
    for _, family in groupby(sorted(rows, key=lambda row: row["id"]), key=lambda row: row["id"]):
        _correct([*family])
    return rows


def _bounds(row: Mapping) -> dict[str, float]:
    return {key: float(row[key]) for key in ("above", "below") if key in row}


def _correct(family: list[dict]) -> None:
    """Note in the rows of one claim how many were compared, and which are decided only when looked at alone."""
    compared = [row for row in family if row["verdict"] != "not judged"]
    corrected = holm([p_value(row["measured"], **_bounds(row)) for row in compared])
    for row in family:
        row |= {"family": len(compared), "alone": False}
    for row, p in zip(compared, corrected):
        row["alone"] = row["verdict"] in ("holds", "fails") and p > 0.025  # one side of 5 %


def completed(measured: dict, share: bool = False) -> dict:
    """What `estimate` returns today, of what it returned before it kept standard errors.

    Args:
        measured: "mean", "low", "high" and "interval"; what has an "error" is returned as it is.
        share: is it a share of the things that the interval is over?
    """
    if "error" in measured:
        return measured
    low, high, text = measured["low"], measured["high"], measured["interval"].replace("test images", "test cases")
    seeds = int((re.search(r"(\d+) seed", text) or [0, 1])[1])
    cases = int((re.search(r"over (\d+) test cases", text) or [0, 0])[1])
    found = {**measured, "interval": text, "seeds": seeds, "share_of": None}
    found |= {"error": 0.0, "freedom": None, "image_error": 0.0}
    none = found | {"low": None, "high": None}
    if low is None:
        return found
    if share and cases:
        low, high = clopper_pearson(measured["mean"], cases)
        return found | {
            "share_of": cases,
            "low": low,
            "high": high,
            "interval": f"exact over {cases} test cases, 1 seed",
        }
    if low == high:
        return none | {"interval": "none: all values agree"}
    if text.startswith("t over"):
        if seeds < FEWEST_SEEDS:
            return none | {"interval": f"none: {seeds} seeds"}
        return found | {"error": (high - low) / 2 / t_quantile(0.95, seeds - 1), "freedom": seeds - 1}
    freedom = cases - 1 if cases else None
    error = (high - low) / 2 / t_quantile(0.95, freedom)
    return found | {"error": error, "image_error": error, "freedom": freedom}


def p_value(measured: Mapping, above: float = -math.inf, below: float = math.inf) -> float:
    """One-sided p-value of the direction in which an estimate points: inside (above, below), or outside.

    It is below 0.025 where the 95 % interval decides.
    """
    inside = max(_p_up_to(measured, above), _p_from(measured, below))
    return min(inside, _p_from(measured, above), _p_up_to(measured, below))


def _p_up_to(measured: Mapping, bound: float) -> float:
    """p-value of the hypothesis that the true value is `bound` or less."""
    from scipy import stats

    mean, count, found = measured["mean"], measured["share_of"], []
    if not count or measured["seeds"] >= FEWEST_SEEDS:
        for error, freedom in standard_errors(measured):
            found.append(float(stats.t.sf((mean - bound) / error, math.inf if freedom is None else freedom)))
    if count:
        hits = mean * count
        found.append(float(bound >= 0 if hits == 0 else stats.beta.cdf(bound, hits, count - hits + 1)))
    return max(found)


def _p_from(measured: Mapping, bound: float) -> float:
    """p-value of the hypothesis that the true value is `bound` or more."""
    whole = 1.0 if measured["share_of"] else 0.0  # the share of the others, or the number with its sign turned
    return _p_up_to({**measured, "mean": whole - measured["mean"]}, whole - bound)


def decided_by(measured: Mapping, decision: str, above: float = -math.inf, below: float = math.inf) -> str:
    """What would decide a claim if mean and spread stayed as they are: "8 seeds", "1,200 test cases", or "".

    It says nothing of whether the claim would hold. One that is not judged for want of seeds needs three.
    """
    if re.match(r"none: \d+ seed", measured["interval"]):
        return f"{FEWEST_SEEDS} seeds or more"
    if decision != "undecided":
        return ""
    mean = measured["mean"]
    room = min(abs(mean - bound) for bound in (above, below))  # outside both bounds the nearer one counts, too
    if not room:
        return "nothing: it is on the bound"
    if measured["share_of"]:
        return _decided_by_more_of(measured, above, below)
    if measured["seeds"] >= FEWEST_SEEDS:
        return _decided_by_seeds(measured, room)
    images = ((measured["freedom"] or 0) + 1) * (t_quantile(0.95, None) * measured["error"] / room) ** 2
    return f"{_about(images)} test cases" if measured["freedom"] else "more test cases"


def _decided_by_seeds(measured: Mapping, room: float) -> str:
    """The least number of seeds whose interval is narrower than `room` to each side."""
    left = measured["image_error"] ** 2
    of_a_seed = (measured["error"] ** 2 - left) * measured["seeds"]
    for seeds in range(measured["seeds"] + 1, MOST_SEEDS + 1):
        part = of_a_seed / seeds
        freedom = (part + left) ** 2 * (seeds - 1) / part**2 if part > 0 else None
        more = {"error": math.sqrt(part + left), "freedom": freedom, "image_error": math.sqrt(left), "seeds": seeds}
        if half_width(more) < room:
            return f"{seeds} seeds"
    enough = t_quantile(0.95, None) * measured["image_error"] < room
    return f"more than {MOST_SEEDS} seeds" if enough else "more test cases, not seeds"


def _decided_by_more_of(measured: Mapping, above: float, below: float) -> str:
    """As many things of which a share is exact enough."""
    count, decision = measured["share_of"], "undecided"
    while decision == "undecided":
        count = math.ceil(count * 1.02)
        decision = verdict(*clopper_pearson(measured["mean"], count), above=above, below=below)
    return f"{_about(count)} test cases"


def _about(count: float) -> str:
    """A number rounded up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return f"{math.ceil(count / unit) * unit:,}"
