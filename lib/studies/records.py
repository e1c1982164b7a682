"""Records of runs: find them, keep them, and see what they say as tables (pandas).

The records that the results pages and `notebooks/index.ipynb` speak of are those kept under `notebooks/results/`.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from studies.digests import figure_is_whole, record_digest
from studies.files import ROOT, atomic_write
from studies.parameters import scale_order
from studies.statistics import expectation, interval, number
from studies.verdicts import judged

RECORDS = ROOT / "notebooks" / "results"
VERDICTS = {"holds": "✓", "fails": "✗", "undecided": "?", "not judged": "–"}
SHAPE = Path(__file__).with_name("record.schema.json")


def load_record(file: Path) -> dict:
    """The record in a file, with its folder added; ValueError with one line if it is none, or not as it was written.

    Records of schema 1, the older ones, have no digest, so that of them only the form is checked.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_constant)
        _shape()(record)
        if record["schema"] > 1 and record["digest"] != record_digest(record):
            raise ValueError("it is not as it was written: its digest is of something else")
    except (ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is no record ({reason}): delete it and run its notebook again") from None
    return {**record, "folder": file.parent}


def _no_constant(name: str):
    raise ValueError(f"{name} is no number of JSON")


@cache
def _shape() -> Callable[[object], object]:
    """Raises ValueError for what is not of the form of a record."""
    import fastjsonschema  # here: a kernel that only runs a study reads no record

    return fastjsonschema.compile(json.loads(SHAPE.read_text("utf-8")))


def read_records(folder: Path) -> tuple[list[dict], dict[Path, str]]:
    """All records `<scale>/[<paper>/]<name>/record.json` below a folder, by experiment, then by scale.

    Returns:
        the records; and of each file that is none a line that says so, as it should cost no more than its own section.
    """
    files = [*folder.glob("*/*/record.json"), *folder.glob("*/*/*/record.json")]
    found, faults = [], {}
    for file in sorted(file for file in files if "seeds" not in file.relative_to(folder).parts):
        try:
            found.append(load_record(file))
        except ValueError as error:
            faults[file] = str(error)
    return sorted(found, key=lambda r: (r["experiment"], scale_order(scale(r)), str(r["folder"]))), faults


def load_records(folder: Path) -> list[dict]:
    """As `read_records`, where there must be no file that is no record: ValueError with the first such file's line."""
    found, faults = read_records(folder)
    if faults:
        raise ValueError(next(iter(faults.values())))
    return found


def keep(folder: Path, records_dir: Path = RECORDS) -> Path:
    """Copy a finished run's record and PNG figures to `<records_dir>/<scale>/<experiment>`; returns that folder.

    Figures of an earlier run that this one no longer has are removed there. ValueError if the run has not
    finished, if a figure is not the run's, or if its code was in no commit, as nobody could then repeat it.
    """
    if not (folder / "record.json").is_file():
        raise ValueError(f"{folder} holds no record.json: finish this run first")
    record = load_record(folder / "record.json")
    if not record["commit"] or record["commit"].endswith("+changes"):
        raise ValueError(f"{folder} was not run from a commit (it says {record['commit']}): commit and run again")
    if lost := [name for name in record["figures"] if not figure_is_whole(record, folder, name)]:
        raise ValueError(f"{folder} has not the figures that its run drew ({', '.join(lost)}): run it again")
    target = records_dir / scale(record) / record["experiment"]
    names = [f"figures/{name}.png" for name in record["figures"]]
    for name in [*names, "record.json"]:  # the record last: it never names a figure that is not there yet
        with atomic_write(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)
    for stale in {*target.glob("figures/*.png")} - {target / name for name in names}:
        stale.unlink()
    return target


# ---------------------------------------------------------------- tables


def claims(found: Path | Iterable[dict] = RECORDS):
    """All measurements of claims, a pandas DataFrame: what each table of claims, of whatever looks, is a part of.

    Args:
        found: a folder of records, by default those that are kept; or records, as `load_records` returns them.

    Returns:
        a row per record, claim and variant; of a claim stated twice (a cell run again) the last. Columns: experiment,
        scale, id, claim, of, measure, mean, low, high, interval, verdict, alone, family, decided by, ours, paper_value,
        source, setting, same_at, reproduced, of `studies.verdicts.judged`, and in words expected, measured, 95 % CI,
        paper's value (with its setting, where that is not ours).

    Example:
        >>> claims()[["id", "of", "measured", "95 % CI", "verdict"]].to_string(index=False)  # doctest: +SKIP
    """
    import pandas as pd  # slow to import, and a batch's jobs make no tables

    rows = []
    for record in load_records(found) if isinstance(found, Path) else found:
        for claim in judged(record):
            row = {"experiment": record["experiment"], "scale": scale(record), **claim, **claim["measured"]}
            row |= {"expected": expectation(claim), "measured": number(claim["measured"]["mean"])}
            row |= {"95 % CI": interval(claim["measured"]), "paper's value": paper_value(claim, scale(record))}
            rows.append(row)
    columns = "experiment scale id claim of measure mean low high interval verdict alone family ours paper_value source"
    words = ["setting", "same_at", "reproduced", "decided by", "expected", "measured", "95 % CI", "paper's value"]
    return pd.DataFrame(rows, columns=[*columns.split(), *words])


def runs(found: Path | Iterable[dict] = RECORDS):
    """A row a record, a pandas DataFrame: experiment, scale, seeds (their number), verdicts (in words), seconds."""
    import pandas as pd

    found = load_records(found) if isinstance(found, Path) else found
    rows = [(r["experiment"], scale(r), len(r["seeds"]), verdicts(claims([r])), round(seconds(r))) for r in found]
    return pd.DataFrame(rows, columns=["experiment", "scale", "seeds", "verdicts", "seconds"])


def verdicts(stated, brief: bool = False) -> str:
    """How many rows of a table of claims hold, fail and so on, in words: the paper's, then what is ours to ask.

    Args:
        stated: rows of `claims`.
        brief: leave out ours where there are some of the paper's.
    """
    ours = stated["ours"].notna()
    papers, own = _counted(stated[~ours]), _counted(stated[ours])
    if brief and papers:
        return papers
    return "; ".join(part for part in (papers, own and f"of ours {own}") if part) or "no claims"


def _counted(stated) -> str:
    counts = stated["verdict"].value_counts()
    return ", ".join(counted(verdict, counts[verdict]) for verdict in VERDICTS if verdict in counts)


def counted(verdict: str, count: int) -> str:
    """How many claims have a verdict, as one says it: "1 holds", "7 hold", "16 undecided"."""
    return f"{count} {verdict if count == 1 else verdict.removesuffix('s')}"


# ---------------------------------------------------------------- words and numbers


def paper_value(claim: dict, scale: str = "") -> str:
    """The paper's number or words as they stand there, with their setting where that is not ours, or "not read"."""
    value = plain_value(claim["paper_value"])
    if not value:
        return "not read"
    setting = claim.get("setting")
    return value if not setting or scale in claim.get("same_at", ()) else f"{value} (another setting: {setting})"


def plain_value(value) -> str:
    """A number or words of claims.yaml; "" where there is none."""
    missing = value is None or value != value  # NaN, as pandas has it
    return "" if missing else value if isinstance(value, str) else str(value).replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader would use."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds(record: dict) -> float:
    """What a study took, all seeds and the rest: a notebook that finds its seeds finished does not say so itself."""
    seeds, notebook = sum(record["times"]["seed_seconds"]), record["times"]["notebook_seconds"]
    return notebook if notebook >= seeds else notebook + seeds


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{len(seeds)} seed" + "s" * (len(seeds) != 1)


def scale(record: dict) -> str:
    """The name of its settings."""
    return record["parameters"]["scale"]
