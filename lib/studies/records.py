"""Records of runs: find and keep them, put them in words, and in the Markdown tables of the README.

The records that the README and `notebooks/index.ipynb` speak of are those kept under `notebooks/results/`.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from studies.files import ROOT, SCHEMA, atomic_write
from studies.run import SCALES
from studies.statistics import expectation, interval, number

README = ROOT / "README.md"
RECORDS = ROOT / "notebooks" / "results"
BEGIN, END = "<!-- records: written by make report -->", "<!-- records end -->"
VERDICTS = {"holds": "✓", "fails": "✗", "undecided": "?", "no interval": "–"}
KEYS = set("experiment parameters seeds metrics summary claims figures data environment commit times".split())


def load_record(file: Path) -> dict:
    """The record in a file, with its folder added; ValueError if it is none of this version's."""
    remedy = "delete it and run its notebook again"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no valid JSON ({error}): {remedy}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not KEYS <= record.keys():
        raise ValueError(f"{file} is no record of schema {SCHEMA}: {remedy}")
    return {**record, "folder": file.parent}


def load_records(folder: Path) -> list[dict]:
    """All records `<scale>/[<paper>/]<name>/record.json` below a folder, by experiment, then by scale.

    Raises:
        ValueError: a file is no valid JSON or of another schema; names the file.
    """
    files = [*folder.glob("*/*/record.json"), *folder.glob("*/*/*/record.json")]
    return sorted((load_record(f) for f in files if "seeds" not in f.relative_to(folder).parts), key=_order)


def _order(record: dict) -> tuple:
    name = scale(record)
    return record["experiment"], SCALES.index(name) if name in SCALES else len(SCALES), name, str(record["folder"])


def claims(records: Iterable[dict]) -> list[tuple[dict, dict]]:
    """(record, claim) pairs, one a record, id and variant; of a claim stated twice (a cell run again) the last."""
    latest = [(record, {(claim["id"], claim["of"]): claim for claim in record["claims"]}) for record in records]
    return [(record, claim) for record, stated in latest for claim in stated.values()]


def keep(folder: Path, records_dir: Path = RECORDS) -> Path:
    """Copy a finished run's record and PNG figures to `<records_dir>/<scale>/<experiment>`; returns that folder.

    Figures of an earlier run that this one no longer has are removed there. ValueError if the run has not
    finished, or if its code was in no commit, as nobody could then repeat it.
    """
    if not (folder / "record.json").is_file():
        raise ValueError(f"{folder} holds no record.json: finish this run first")
    record = load_record(folder / "record.json")
    if not record["commit"] or record["commit"].endswith("+changes"):
        raise ValueError(f"{folder} was not run from a commit (it says {record['commit']}): commit and run again")
    target = records_dir / scale(record) / record["experiment"]
    names = [f"figures/{name}.png" for name in record["figures"]]
    for name in [*names, "record.json"]:  # the record last: it never names a figure that is not there yet
        with atomic_write(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)
    for stale in {*target.glob("figures/*.png")} - {target / name for name in names}:
        stale.unlink()
    return target


# ---------------------------------------------------------------- words and numbers


def paper_value(claim: dict) -> str:
    """The paper's number or words as they stand there, or "not read"."""
    value = claim["paper_value"]
    return "not read" if value is None else value if isinstance(value, str) else str(value).replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader would use."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def seconds(record: dict) -> float:
    """What a study took, all seeds and the rest: a notebook that finds its seeds finished does not say so itself."""
    seeds, notebook = sum(record["times"]["seed_seconds"]), record["times"]["notebook_seconds"]
    return notebook if notebook >= seeds else notebook + seeds


def seeds_in_words(record: dict) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{len(record['seeds'])} seed" + "s" * (len(record["seeds"]) != 1)


def scale(record: dict) -> str:
    """The name of its settings."""
    return record["parameters"]["scale"]


def verdicts(records: list[dict]) -> str:
    """How many claims hold, fail and so on, in words."""
    counts = Counter(claim["verdict"] for _, claim in claims(records))
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or "no claims"


def summary_table(records: list[dict]) -> str:
    """Plain text, one line a record: experiment, scale, seeds, verdicts, seconds."""
    rows = [("experiment", "scale", "seeds", "verdicts", "seconds")]
    for record in records:
        count, time = str(len(record["seeds"])), f"{seconds(record):.0f}"
        rows.append((record["experiment"], scale(record), count, verdicts([record]), time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


# ---------------------------------------------------------------- Markdown


def plain(text) -> str:
    """Text as it is in a cell of a Markdown table; an underscore within a word or a bracket alone is harmless."""
    return re.sub(r"[\\`*~$&<>|]|(?<![^\W_])_|_(?![^\W_])|\](?=\()", r"\\\g<0>", " ".join(str(text).split()))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown, so that other text goes through `plain` first."""
    lines = [header, ["---", *["--:" if name in ("Measured", "Mean") else "---" for name in header[1:]]]]
    lines += rows
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def readme_tables(records: list[dict]) -> str:
    """Markdown: for each record, folded, how many of its claims hold, and their table."""
    if not records:
        return "No records are kept yet."
    header = ("Claim", "", "Expected", "Measured", "95 % CI", "Verdict", "Paper's value")
    parts = []
    for record in records:
        rows = []
        for _, claim in claims([record]):
            measured = number(claim["measured"]["mean"]), interval(claim["measured"]), claim["verdict"]
            statement = claim["claim"] + (f" ({claim['of']})" if claim["of"] else "")
            cells = (claim["id"], statement, expectation(claim), *measured, paper_value(claim))
            rows.append([plain(cell) for cell in cells])
        title = f"{record['experiment']}, {scale(record)} scale, {seeds_in_words(record)}: {verdicts([record])}"
        table = markdown(header, rows) if rows else "No claims."
        file = quote(f"notebooks/results/{scale(record)}/{record['experiment']}/record.json")
        parts.append(
            f"<details><summary>{escape(title)}</summary>\n\n{table}\n\nAll metrics: [record]({file})\n\n</details>"
        )
    return "\n\n".join(parts)


def with_tables(text: str, records: list[dict]) -> str:
    """A README's text with the tables of these records between the two markers; ValueError without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md needs the lines {BEGIN} and {END}, in this order: the tables go between them")
    tables = f"\n\n{readme_tables(records)}\n\n"
    return before + begin + (tables.replace("\n", "\r\n") if "\r\n" in text else tables) + end + after


def update_readme(readme: Path, records: list[dict]) -> bool:
    """Put the tables of these records into a README; True if that changed it."""
    text = readme.read_bytes().decode()  # as bytes: line ends stay what they are
    changed = with_tables(text, records)
    if changed != text:
        with atomic_write(readme) as temporary:
            temporary.write_bytes(changed.encode())
    return changed != text
