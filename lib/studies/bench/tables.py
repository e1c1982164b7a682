"""What `make bench` has measured, as tables and pictures: of the records in `notebooks/results/benchmarks`."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import yaml
from matplotlib.figure import Figure

from studies.pictures.style import COLOURS, MARKERS, STYLE
from studies.records import RECORDS

FOLDER = RECORDS / "benchmarks"
KINDS = ("map", "step", "loss", "epoch")
UNITS = {"seconds": "time of a run in seconds", "megabytes": "peak memory in MB"}


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
    found = dict.fromkeys(row["case"] for record in reversed(records.values()) for row in record["cases"])
    return sorted(found, key=lambda case: KINDS.index(kind(case)))


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


WIDTHS = dict(
    zip(("ratio", "interval", "bound", "above it", "target", "ms", "MB", "of peak"), (7, 15, 7, 9, 20, 7, 13, 8))
)


def header() -> str:
    """The names of `line`'s columns."""
    return "".join(f"{name:>{width}}" for name, width in WIDTHS.items()) + "  case"


def line(row: Mapping) -> str:
    """A case's row for a terminal."""
    return "".join(f"{text:>{WIDTHS[name]}}" for name, text in cells(row).items()) + f"  {row['case']}"


def table(records: Mapping[str, dict]) -> pd.DataFrame:
    """A row a case: the ratios of each record, and the rest of the last one's that has it.

    Args:
        records: name, as "before" -> record; in the order of the columns.
    """
    found = {name: {} for name in names(records)}
    for name, record in records.items():
        for row in record["cases"]:
            told = cells(row)
            found[row["case"]][name] = f"{told['ratio']} {told['interval']}"
            found[row["case"]] |= {k: v for k, v in told.items() if k not in ("ratio", "interval")}
    frame = pd.DataFrame(found).T.fillna("")
    columns = [*records, *(name for name in frame if name not in records)]
    return frame.reindex(columns=columns, fill_value="").rename_axis("case")


def styled(frame: pd.DataFrame, caption: str) -> "pd.io.formats.style.Styler":
    """A table for a page: small letters, what a row is about on the left, no line breaks within intervals."""
    small = [{"selector": "th, td", "props": "font-size: 85%; text-align: left"}]
    small += [{"selector": "th.row_heading", "props": "font-weight: normal"}]
    whole = frame.map(lambda text: re.sub(r"(?<=[,/]) | (?=[/\[])", "\u00a0", text) if isinstance(text, str) else text)
    return whole.style.set_table_styles(small).set_caption(caption)


def scaling_table(record: dict) -> pd.DataFrame:
    """A row a run and what grows: the exponents of time and memory with their 95 % intervals."""
    rows = {}
    for found in record["scaling"]:
        told = {unit: exponent(found[f"exponent of {unit}"]) for unit in UNITS}
        sizes = f"{found['x'][0]:g} … {found['x'][-1]:g}"
        rows[found["run"], found["grows"]] = {"from … to": sizes, **told}
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
            told = cells(row)
            trial["measured"] = f"ratio {told['ratio']} {told['interval']}, MB {told['MB']}"
            trial["measured"] += f", error of the map {row['error']:.0%}" if row["error"] else ""
        rows.append([trial["what"], trial["expected"], trial.get("measured", "not measured yet"), trial["decision"]])
    return pd.DataFrame(rows, columns=["what", "expected", "measured", "kept or rejected, and why"])


# ---------------------------------------------------------------- pictures


@plt.rc_context(STYLE)
def ratios(records: Mapping[str, dict]) -> Figure:
    """All ratios as dots with their intervals on a logarithmic axis, ours, others' and those before; bounds as ticks.

    Args:
        records: name -> record; the last one is filled, those before it are pale.
    """
    places = {name: -i - 1.5 * KINDS.index(kind(name)) for i, name in enumerate(names(records))}
    figure, axis = plt.subplots(figsize=(11, 0.21 * (max(-min(places.values()), 8) + 6)), layout="constrained")
    for age, record in enumerate(reversed(records.values())):
        for row in record["cases"]:
            theirs, y = others(row["case"]), places[row["case"]] - 0.3 * age
            colour, shade = COLOURS[1 if theirs else 0], "white" if age else None
            look = dict(marker="D" if theirs else "o", color=colour, markerfacecolor=shade, markersize=4.5)
            reach = [[row["ratio"] - row["low"]], [row["high"] - row["ratio"]]]
            axis.errorbar(row["ratio"], y, xerr=reach, lw=1, alpha=0.55 if age else 1, **look)
            if row.get("bound") and not age:
                axis.plot(row["bound"], y, "|", color="black", markersize=9, markeredgewidth=2)
            if row.get("target") and not age:
                axis.plot(row["target"], y, marker=4, color=COLOURS[2], markersize=6)
    axis.set(
        xscale="log", xlabel="ratio (less is better)", yticks=[*places.values()], ylim=(min(places.values()) - 1, 1)
    )
    axis.set_yticklabels(places, fontsize=7.5)
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10, 20], "0.1 0.2 0.5 1 2 5 10 20".split())
    axis.axvline(1, color="0.5", lw=1)
    figure.legend(*_legend([*records]), ncols=5, loc="outside upper center", fontsize=9)
    return figure


def _legend(names: list[str]) -> tuple[list, list[str]]:
    dot = lambda **look: plt.Line2D([], [], linestyle="", **look)  # noqa: E731
    shown = {f"ours, {names[-1]}": dot(marker="o", color=COLOURS[0])}
    shown |= {f"ours, {name}": dot(marker="o", color=COLOURS[0], markerfacecolor="white") for name in names[:-1]}
    shown |= {"another package's": dot(marker="D", color=COLOURS[1])}
    shown |= {"bound": dot(marker="|", color="black", markersize=9, markeredgewidth=2)}
    shown |= {"target": dot(marker=4, color=COLOURS[2])}
    return list(shown.values()), list(shown)


@plt.rc_context(STYLE)
def scaling(record: dict) -> Figure:
    """Time (above) and memory (below) against what grows, a panel each; exponents stand at the ends of lines."""
    grows = list(dict.fromkeys(found["grows"] for found in record["scaling"]))
    runs = list(dict.fromkeys(found["run"] for found in record["scaling"]))
    size = 3.1 * len(grows), 6
    figure, axes = plt.subplots(2, len(grows), figsize=size, layout="constrained", sharex="col", squeeze=False)
    lines = {}
    for above, (unit, title) in zip(axes, UNITS.items()):
        above[0].set_ylabel(title)
        for axis, what in zip(above, grows):
            for found in (f for f in record["scaling"] if f["grows"] == what):
                look = dict(color=COLOURS[runs.index(found["run"])], marker=MARKERS[runs.index(found["run"])])
                (drawn,) = axis.loglog(found["x"], found[unit], **look, markersize=4, label=found["run"])
                end = dict(xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=look["color"])
                axis.annotate(
                    exponent(found[f"exponent of {unit}"]).split()[0], (found["x"][-1], found[unit][-1]), **end
                )
                lines[found["run"]] = drawn
            axis.set_xticks(found["x"], [f"{x:g}" for x in found["x"]])
            axis.minorticks_off()
    for axis, what in zip(axes[1], grows):
        axis.set_xlabel(what)
    figure.legend(lines.values(), lines, ncols=len(lines), loc="outside upper center")
    return figure
