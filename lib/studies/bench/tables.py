"""What `make bench` has measured, as tables and pictures: of the records in `notebooks/results/benchmarks`."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

import matplotlib.pyplot as plt
import pandas as pd
import yaml
from matplotlib.figure import Figure

from studies.pictures.style import COLOURS, STYLE, line_styles
from studies.records import RECORDS

FOLDER = RECORDS / "benchmarks"
KINDS = ("map", "step", "loss", "epoch")
UNITS = {"seconds": "time of a run in seconds", "megabytes": "peak memory in MB"}
OURS, OTHERS = {"marker": "o", "color": COLOURS[0]}, {"marker": "D", "color": COLOURS[1]}  # dots of ratios
BEFORE = {"markerfacecolor": "white", "alpha": 0.55}
MARKS = {
    "bound": {"marker": "|", "color": "black", "markersize": 9, "markeredgewidth": 2},
    "target": {"marker": 4, "color": COLOURS[2], "markersize": 6},
}


def path(device: str, label: str) -> Path:
    """Where the record of a device's run is kept, as "cpu-after.json"."""
    return FOLDER / f"{device}-{label}.json"


def load(device: str, label: str) -> dict:
    """A kept record; FileNotFoundError with what to do if there is none."""
    file = path(device, label)
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in FOLDER.glob("*.json"))) or "none"
        raise FileNotFoundError(
            f"{file.name} is not kept (there are: {known}): make bench DEVICE={device} KEEP={label}"
        )
    return json.loads(file.read_text("utf-8"))


def kind(case: str) -> str:
    """The first word of a case's name: map, step, loss, epoch."""
    return re.match(r"\w+", case)[0]


def names(records: Mapping[str, dict]) -> list[str]:
    """All cases of the records, in the order of the last one, then those that it lacks; by kind."""
    cases = dict.fromkeys(row["case"] for record in reversed(records.values()) for row in record["cases"])
    return sorted(cases, key=lambda case: KINDS.index(kind(case)))


def others(case: str) -> bool:
    """Is the numerator another package's?"""
    return bool(re.search(r": (zennit|captum|shap|tangermeme)'s", case))


# ---------------------------------------------------------------- tables


def cells(row: Mapping) -> dict[str, str]:
    """A case's row in words: ratio, interval, bound, distance to it, target, time, memory, share of the peak."""
    target = f"≤ {row['target']:g}: {row['verdict']}" if row.get("target") else ""
    if row.get("memory_target"):
        target += f"; memory ≤ {row['memory_target']:g}: {'holds' if row['memory_met'] else 'fails'}"
    return {
        "ratio": f"{row['ratio']:.2f}",
        "interval": f"[{row['low']:.2f}, {row['high']:.2f}]",
        "bound": f"{row['bound']:.2f}" if row.get("bound") else "",
        "above it": f"{row['ratio'] / row['bound'] - 1:+.0%}".replace("-", "−") if row.get("bound") else "",
        "target": target,
        "ms": f"{row['milliseconds']:.0f}" if row["milliseconds"] >= 10 else f"{row['milliseconds']:.1f}",
        "MB": " / ".join(f"{each:.0f}" for each in row["megabytes"]),
        "of peak": f"{row['share_of_peak']:.0%}" if row.get("share_of_peak") else "",
    }


LINE = "{ratio:>7}{interval:>15}{bound:>7}{above it:>9}{target:>20}{ms:>7}{MB:>13}{of peak:>8}  {case}"


def header() -> str:
    """The names of `line`'s columns."""
    return LINE.format_map({name: name for _, name, _, _ in Formatter().parse(LINE)})


def line(row: Mapping) -> str:
    """A case's row for a terminal."""
    return LINE.format_map(cells(row) | {"case": row["case"]})


def table(records: Mapping[str, dict]) -> pd.DataFrame:
    """A row a case: the ratios of each record, and the rest of the last one's that has it.

    Args:
        records: name, as "before" -> record; in the order of the columns.
    """
    rows = {case: dict.fromkeys(records, "") for case in names(records)}
    for name, record in records.items():
        for row in record["cases"]:
            words = cells(row)
            rows[row["case"]] |= {name: f"{words.pop('ratio')} {words.pop('interval')}", **words}
    return pd.DataFrame.from_dict(rows, "index").fillna("").rename_axis("case")


def styled(frame: pd.DataFrame, caption: str) -> "pd.io.formats.style.Styler":
    """A table for a page: small letters, what a row is about on the left, no line breaks within intervals."""
    small = [{"selector": "th, td", "props": "font-size: 85%; text-align: left"}]
    small += [{"selector": "th.row_heading", "props": "font-weight: normal"}]
    whole = frame.map(lambda text: re.sub(r"(?<=[,/]) | (?=[/\[])", "\u00a0", text) if isinstance(text, str) else text)
    return whole.style.set_table_styles(small).set_caption(caption)


def scaling_table(record: dict) -> pd.DataFrame:
    """A row a run and what grows: the exponents of time and memory with their 95 % intervals."""
    rows = {}
    for growth in record["scaling"]:
        exponents = {unit: exponent(growth[f"exponent of {unit}"]) for unit in UNITS}
        sizes = f"{growth['x'][0]:g} … {growth['x'][-1]:g}"
        rows[growth["run"], growth["grows"]] = {"from … to": sizes, **exponents}
    return pd.DataFrame(rows).T.rename_axis(["run", "grows with"])


def exponent(values: Sequence[float]) -> str:
    """A slope and its interval, with the minus sign of the other tables.

    Example:
        >>> exponent([-0.001, -0.25, 0.25])
        '0.00 [−0.25, 0.25]'
    """
    return "{} [{}, {}]".format(*(f"{round(v, 2) + 0.0:.2f}".replace("-", "−") for v in values))


def profile_table(record: dict) -> pd.DataFrame:
    """The time of torch's operations, one column a step, where that of a plain step is 1; the largest first."""
    frame = pd.DataFrame(record["profile"])
    order = frame.drop(index="all others", errors="ignore").max(axis=1).sort_values(ascending=False).index
    frame = frame.loc[[*order, *(frame.index.intersection(["all others"]))]]
    return pd.concat([frame, frame.sum().to_frame("sum").T])


def tried(record: dict, file: Path = FOLDER / "tried.yaml") -> pd.DataFrame:
    """What was tried to make it faster: a row a trial with what was expected, measured, and decided.

    Args:
        record: the measurements of trials that are cases of `make bench` ("case" in the file).
        file: a list of trials, each with what, expected, measured or case, and decision.
    """
    rows, known = [], {row["case"]: row for row in record["cases"]}
    for trial in yaml.safe_load(file.read_text("utf-8")):
        row = known.get(trial.get("case"))
        if row:
            words = cells(row)
            trial["measured"] = f"ratio {words['ratio']} {words['interval']}, MB {words['MB']}"
            trial["measured"] += f", error of the map {row['error']:.0%}" if row["error"] else ""
        rows.append([trial["what"], trial["expected"], trial.get("measured", "not measured yet"), trial["decision"]])
    return pd.DataFrame(rows, columns=["what", "expected", "measured", "kept or rejected, and why"])


# ---------------------------------------------------------------- pictures


@plt.rc_context(STYLE)
def ratios(records: Mapping[str, dict], of: str = "") -> Figure:
    """All ratios as dots with their intervals on a logarithmic axis, ours, others' and those before; bounds as ticks.

    Args:
        records: name -> record; the last one is filled, those before it are pale.
        of: the kind of case to draw alone: map, step, loss or epoch.
    """
    records = {
        name: r | {"cases": [c for c in r["cases"] if of in ("", kind(c["case"]))]} for name, r in records.items()
    }
    gaps = 0 if of else 1.5
    places = {name: -i - gaps * KINDS.index(kind(name)) for i, name in enumerate(names(records))}
    lowest = min(places.values())
    figure, axis = plt.subplots(figsize=(11, 0.25 * (max(-lowest, 8) + 6)), layout="constrained")
    for age, record in enumerate(reversed(records.values())):
        for row in record["cases"]:
            y, look = places[row["case"]] - 0.3 * age, OTHERS if others(row["case"]) else OURS
            reach = [[row["ratio"] - row["low"]], [row["high"] - row["ratio"]]]
            axis.errorbar(row["ratio"], y, xerr=reach, lw=1, markersize=4.5, **look | (BEFORE if age else {}))
            for name, mark in MARKS.items():
                if row.get(name) and not age:
                    axis.plot(row[name], y, **mark)
    axis.set(
        xscale="log",
        xlabel="ratio (less is better)",
        yticks=[*places.values()],
        ylim=(lowest - 1, max(places.values()) + 1),
    )
    axis.set_yticklabels(places, fontsize=9.5)
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20], "0.1 0.2 0.5 1 2 5 10 20".split())
    axis.axvline(1, color="0.5", lw=1)
    *before, last = records
    shown = {f"ours, {last}": OURS} | {f"ours, {name}": OURS | BEFORE for name in before}
    shown |= {"another package's": OTHERS} | MARKS
    handles = [plt.Line2D([], [], linestyle="", **look) for look in shown.values()]
    figure.legend(handles, shown, ncols=5, loc="outside upper center", fontsize=9)
    return figure


@plt.rc_context(STYLE)
def scaling(record: dict) -> Figure:
    """Time (above) and memory (below) against what grows, each in a panel; exponents stand at the ends of lines."""
    grows = list(dict.fromkeys(growth["grows"] for growth in record["scaling"]))
    looks = line_styles(growth["run"] for growth in record["scaling"])
    size = 3.1 * len(grows), 6
    figure, axes = plt.subplots(2, len(grows), figsize=size, layout="constrained", sharex="col", squeeze=False)
    for row, (unit, title) in zip(axes, UNITS.items()):
        row[0].set_ylabel(title)
        for growth in record["scaling"]:
            axis, look = row[grows.index(growth["grows"])], looks[growth["run"]]
            axis.loglog(growth["x"], growth[unit], **look, markersize=4)
            end = dict(xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=look["color"])
            text = exponent(growth[f"exponent of {unit}"]).split()[0]
            axis.annotate(text, (growth["x"][-1], growth[unit][-1]), **end)
            axis.set_xticks(growth["x"], [f"{x:g}" for x in growth["x"]])
            axis.minorticks_off()
    for axis, quantity in zip(axes[1], grows):
        axis.set_xlabel(quantity)
    handles = [plt.Line2D([], [], **look) for look in looks.values()]
    figure.legend(handles, looks, ncols=len(looks), loc="outside upper center")
    return figure
