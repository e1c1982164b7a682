"""Tables of claims as a results page shows them, and the sentences that belong beneath them."""

from studies.records import plain_value
from studies.verdicts import MOST_SEEDS, SMOKE, case_of, load_claims, resolved

ALWAYS = ("Claim", "", "Expected", "Measured", "95 % CI", "Verdict")  # other columns only where they say something
SOON = 10  # seeds that are within reach


def tables(stated) -> dict:
    """The claims of one record: the paper's, then what is ours.

    Args:
        stated: rows of `studies.records.claims`.

    Returns:
        heading, "" for the paper's -> a DataFrame of text; one that would be empty is left out.
    """
    ours = stated["ours"].notna()
    parts = {"": stated[~ours], "Ours, not the paper's: targets that we set, and questions that we ask.": stated[ours]}
    return {heading: measurements(rows) for heading, rows in parts.items() if len(rows)}


def measurements(stated):
    """The columns that a reader of one record's claims wants."""
    import pandas as pd

    rows = []
    for row in stated.to_dict("records"):
        value, reproduced = plain_value(row["paper_value"]), plain_value(row["reproduced"])
        cells = {
            "Claim": row["id"],
            "": row["claim"] + (f" ({row['of']})" if row["of"] else ""),
            "Expected": row["expected"],
            "Measured": row["measured"],
            "95 % CI": row["95 % CI"],
            "Verdict": row["verdict"] + (", alone" if row["alone"] else ""),
            "Would decide it": row["decided by"],
            "Paper's value": value,
            "Reproductions": reproduced,
            "Their setting": their_setting(row) if value or reproduced else "",
        }
        rows.append(cells)
    table = pd.DataFrame(rows)
    return table[[name for name in table if name in ALWAYS or (table[name] != "").any()]]


def their_setting(row: dict) -> str:
    """Is a paper's value of the same network and data as ours, and if not, of which?"""
    setting = plain_value(row["setting"])
    same = isinstance(row["same_at"], list) and row["scale"] in row["same_at"]
    return "as here" if same else f"another: {setting}" if setting else ""


def notes(stated) -> list[str]:
    """Sentences on a record's claims: the scale, what the intervals cover, many comparisons, what would decide more."""
    said = [SMOKE] if (stated["scale"] == "smoke").all() else []
    covers = stated["interval"].value_counts()
    said.append(f"Intervals: {'; '.join(f'{words} ({count})' for words, count in covers.items())}.")
    if (stated["family"] > 1).any():
        alone = int(stated["alone"].sum())
        kept = f"the {alone} marked *alone* would be undecided" if alone else "none would change"
        said.append("Verdicts are not corrected for the number of comparisons.")
        said.append(f"With Holm's correction for those of each claim {kept}.")
    return [*said, *_what_would_decide(stated)]


def _what_would_decide(stated) -> list[str]:
    papers = stated[stated["ours"].isna() & (stated["verdict"] == "undecided")]
    if papers.empty:
        return []
    seeds = papers["decided by"].str.extract(r"^(\d+) seeds?$")[0].astype(float)
    counts = f"{(seeds <= SOON).sum()}, up to {MOST_SEEDS} seeds {seeds.notna().sum()}"
    said = f"Of the paper's {len(papers)} undecided, up to {SOON} seeds would decide {counts}"
    return [f"{said}, if means and spreads stayed as they are."]


def places(stated) -> list[str]:
    """Where in the paper its numbers stand, a line a claim that has any."""
    named = stated[stated["paper_value"].notna()].drop_duplicates("id")
    return [f"{row['id']}: {row['source']}" for row in named.to_dict("records")]


def without_runs(paper: str, stated):
    """The paper's numbers beside which no run of ours stands yet, a DataFrame of text.

    Args:
        paper: as claims' ids begin.
        stated: rows of `studies.records.claims`, of all kept records.
    """
    import pandas as pd

    have = {(id, name) for id, of in zip(stated["id"], stated["of"]) for name in (of, case_of(of))}
    measured = {*stated["id"]}
    rows = []
    for id, claim in load_claims().items():
        value, rest = claim["paper_value"], id not in measured
        each = value if isinstance(value, dict) else {"": value} if rest and value is not None else {}
        for of in each if id.partition("-")[0] == paper else ():
            found = resolved(claim, of)
            row = {"Claim": id, "": found["claim"] + (f" ({of})" if of else "")}
            row |= {"Paper's value": plain_value(found["paper_value"])}
            row |= {"Reproductions": plain_value(found.get("reproduced"))}
            row |= {"Their setting": plain_value(found.get("setting")), "Place": found["source"]}
            rows += [] if (id, of) in have else [row]
    return pd.DataFrame(rows)
