"""Render study records: a page to look at, tables for the README, one line a run for the terminal.

`python -m attrain.report` writes `report.html` beside the results; `--help` lists what else it does.
The records that the README speaks of are the ones kept under `notebooks/results/`.
"""

import argparse
import base64
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from attrain.intervals import expectation, interval, number
from attrain.study import ROOT, SCHEMA, atomic_write, results_root

README = ROOT / "README.md"
RECORDS = ROOT / "notebooks" / "results"
BEGIN, END = "<!-- records: written by make report -->", "<!-- records end -->"
SCALES = ("smoke", "laptop", "paper")
VERDICTS = {"holds": "✓", "fails": "✗", "undecided": "?", "no interval": "–"}
INLINE = ("a", "code", "small", "span", "strong")
KEYS = set("experiment parameters seeds metrics summary claims figures data environment commit times".split())

# ---------------------------------------------------------------- records


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
    scale = _scale(record)
    return record["experiment"], SCALES.index(scale) if scale in SCALES else len(SCALES), scale, str(record["folder"])


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
    target = records_dir / _scale(record) / record["experiment"]
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


def _statement(claim: dict) -> str:
    return claim["claim"] + (f" ({claim['of']})" if claim["of"] else "")


def _seeds(record: dict) -> str:
    return f"{len(record['seeds'])} seed" + "s" * (len(record["seeds"]) != 1)


def _scale(record: dict) -> str:
    return record["parameters"]["scale"]


def _verdicts(records: list[dict]) -> str:
    counts = Counter(claim["verdict"] for _, claim in claims(records))
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict]) or "no claims"


def summary_table(records: list[dict]) -> str:
    """Plain text, one line a record: experiment, scale, seeds, verdicts, seconds."""
    rows = [("experiment", "scale", "seeds", "verdicts", "seconds")]
    for record in records:
        seconds = f"{sum(record['times']['seed_seconds']):.0f}"  # the notebook's own time is short if it resumed
        rows.append((record["experiment"], _scale(record), str(len(record["seeds"])), _verdicts([record]), seconds))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


# ---------------------------------------------------------------- Markdown


def _plain(text) -> str:
    """Text as it is in a cell of a Markdown table; an underscore within a word or a bracket alone is harmless."""
    return re.sub(r"[\\`*~$&<>|]|(?<![^\W_])_|_(?![^\W_])|\](?=\()", r"\\\g<0>", " ".join(str(text).split()))


def _markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = [header, ["---", *["--:" if name in ("Measured", "Mean") else "---" for name in header[1:]]]]
    lines += [[_plain(cell) for cell in row] for row in rows]
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
            rows.append((claim["id"], _statement(claim), expectation(claim), *measured, paper_value(claim)))
        title = f"{record['experiment']}, {_scale(record)} scale, {_seeds(record)}: {_verdicts([record])}"
        table = _markdown(header, rows) if rows else "No claims."
        file = quote(f"notebooks/results/{_scale(record)}/{record['experiment']}/record.json")
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


# ---------------------------------------------------------------- HTML


class Html(str):
    """Finished markup. `tag` escapes every other text, so nothing gets into the page unescaped by oversight."""


def tag(element: str, *children, **attributes) -> Html:
    """An element; a child that is not `Html` is escaped. `class_` stands for class, `aria_label` for aria-label."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for k, v in attributes.items())
    inside = "".join(child if isinstance(child, Html) else escape(str(child)) for child in children)
    ending = "" if element in ("img", "meta") else f"</{element}>"
    return Html(f"<{element}{given}>{inside}{ending}" + ("" if element in INLINE else "\n"))


def _table(kind: str, title: str, note: str, header: Sequence[str], rows: Iterable[Sequence]) -> Html:
    """A table of the class `kind`, captioned; the first column names the rows."""
    head = tag("tr", *(tag("th", name, scope="col") for name in header))
    body = (tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)) for first, *rest in rows)
    caption = tag("caption", tag("strong", title), " ", note)
    table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_=kind)
    return tag("div", table, class_="scroll", tabindex=0, role="group", aria_label=title)  # wide ones scroll by keys


def _lines(first, second) -> Html:
    return Html(tag("span", first) + tag("small", second))


def _badge(verdict: str) -> Html:
    mark = tag("span", VERDICTS[verdict], aria_hidden="true")
    return tag("span", mark, " ", verdict, class_=f"badge {verdict.replace(' ', '-')}")


def _anchor(record: dict) -> str:
    depth = len(Path(record["experiment"]).parts)
    return quote("/".join(record["folder"].parts[-1 - depth :]))  # <scale>/<experiment>


def _claims_table(records: list[dict]) -> Html:
    rows = []
    for record, claim in claims(records):
        measured, name = claim["measured"], re.sub("([/_])", r"\1<wbr>", escape(record["experiment"]))
        rows.append((
            _lines(_statement(claim), f"{claim['id']}: {claim['measure']}"),
            _badge(claim["verdict"]),
            number(measured["mean"]),
            _lines(interval(measured), measured["interval"].removeprefix("none: ")),
            expectation(claim),
            _lines(paper_value(claim), claim["source"] or ""),
            _lines(tag("a", Html(name), href=f"#{_anchor(record)}"), f"{_scale(record)} scale"),
        ))  # fmt: skip
    header = ("Claim, and what is measured", "Verdict", "Mean", "95 % CI", "Expected", "Paper", "Run")
    return _table("claims", "Claims and measurements.", f"{_verdicts(records)}.", header, rows)


def _legend() -> Html:
    text = ("A claim ", _badge("holds"), " if the whole interval lies where it is expected, ", _badge("fails"))
    text += (" if none of it does, and is ", _badge("undecided"), " in between. One number alone has ")
    text += (_badge("no interval"), ". Smoke runs show on small data that the code works, not what a paper found.")
    return tag("p", *text, class_="note")


def _figure(record: dict, name: str) -> Html:
    file, title = record["folder"] / "figures" / f"{name}.png", re.sub(r"[_\s]+", " ", name)
    if not file.is_file():
        return tag("p", f"The figure “{title}” is not beside the record.", class_="note")
    png = file.read_bytes()
    width, height = (int.from_bytes(png[i : i + 4], "big") * 2 // 3 for i in (16, 20))  # kept at 150 dots an inch
    alt = f"Figure: {title}, from {record['experiment']} at {_scale(record)} scale"
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    image = tag("img", src=source, alt=alt, width=width, height=height)
    return tag("figure", image, tag("figcaption", title[:1].upper() + title[1:]))


def _metrics(record: dict) -> Html:
    header, seeds = ("Metric", "Mean", "95 % CI", "Every seed’s value"), ", ".join(map(str, record["seeds"]))
    note = f"Mean and 95 % Student t interval over {_seeds(record)}: {seeds}."
    if len(record["seeds"]) == 1:
        note = f"One seed ({seeds}), so there is no interval."
    rows = [
        (name, number(mean["mean"]), interval(mean), ", ".join(map(number, record["metrics"][name])))
        for name, mean in record["summary"].items()
    ]
    return _table("metrics", "Metrics.", note, header, rows)


def _settings(record: dict) -> Html:
    given = [(name, tag("code", "empty" if value == "" else value)) for name, value in record["parameters"].items()]
    times, seconds = record["times"], ", ".join(map(duration, record["times"]["seed_seconds"]))
    facts = [("finished", times["finished"]), ("this notebook run", duration(times["notebook_seconds"]))]
    facts += [("each seed", seconds), ("commit", tag("code", record["commit"] or "not in a clone"))]
    facts += record["environment"].items()
    sums = [(name, *item) for name, checksums in record["data"].items() for item in checksums.items()]
    files = [(name, tag("code", file), tag("code", sha)) for name, file, sha in sums]
    parameters = _table("values", "Parameters.", "", ("Name", "Value"), given)
    machine = _table("values", "Code, machine and times.", "", ("What", "Value"), facts)
    data = _table("data", "Data.", "", ("Data set", "File", "sha256"), files) if files else ""
    title = tag("summary", "Parameters and provenance: versions, device, commit, data, times")
    return tag("details", title, tag("div", parameters, machine, class_="pair"), data)


def _facts(record: dict, page: Path) -> Html:
    facts = [_seeds(record), record["environment"]["device"], duration(sum(record["times"]["seed_seconds"]))]
    for name, words in (("notebook.ipynb", "executed notebook"), ("notebook.html", "executed notebook as a page")):
        if (record["folder"] / name).is_file():
            link = Path(os.path.relpath(record["folder"] / name, page.absolute().parent)).as_posix()
            facts.append(tag("a", words, href=quote(link)))
    return tag("ul", *(tag("li", fact) for fact in facts), class_="facts")


def _run_section(record: dict, page: Path) -> Html:
    title = tag("h2", record["experiment"], " ", tag("small", f"{_scale(record)} scale"))
    figures = tag("div", *(_figure(record, name) for name in dict.fromkeys(record["figures"])), class_="figures")
    body = (title, _facts(record, page), figures, _metrics(record), _settings(record))
    return tag("section", *body, id=_anchor(record), class_="run")


def html_page(records: list[dict], path: Path) -> str:
    """One self-contained page: the claims of all records, then each record's figures and tables.

    Args:
        records: as `load_records` returns them.
        path: where the page will lie; links to executed notebooks are relative to its folder.
    """
    if records:
        count = f"{len(records)} run" + "s" * (len(records) != 1)
        lead = f"What {count} measured, and what that says about the papers’ claims."
        names = ((f"{record['experiment']} ({_scale(record)})", _anchor(record)) for record in records)
        links = (tag("li", tag("a", name, href=f"#{anchor}")) for name, anchor in names)
        runs = (_run_section(record, path) for record in records)
        table = (_claims_table(records), _legend()) if claims(records) else (tag("p", "These runs state no claims."),)
        main = (tag("section", tag("h2", "Claims"), *table), tag("nav", tag("ul", *links), aria_label="Runs"), *runs)
    else:
        lead, first, then = "No runs yet.", tag("code", "make reproduce"), tag("code", "make report")
        main = (tag("p", first, " runs the notebooks, which write records; ", then, " then shows them here."),)
    metas = ({"charset": "utf-8"}, {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    metas += ({"name": "color-scheme", "content": "light dark"},)
    head = tag("head", *(tag("meta", **meta) for meta in metas), tag("title", "attrain: study report"), STYLE)
    skip = tag("a", "Skip to the results", href="#results", class_="skip")
    top = tag("header", tag("h1", "Study report"), tag("p", lead))
    return "<!doctype html>\n" + tag("html", head, tag("body", skip, top, tag("main", *main, id="results")), lang="en")


STYLE = Html("""<style>
:root { --page: #fff; --ink: #1c2127; --soft: #545d68; --line: #d4d9df; --band: #f4f6f8; --link: #0b5394;
  --holds: #10632f; --fails: #9c1c1c; --undecided: #7a4b00; --no-interval: #4b5563 }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e4e7eb; --soft: #a5aeb9;
  --line: #343b44; --band: #1d2228; --link: #8ec1ff; --holds: #6fd695; --fails: #ff9c94; --undecided: #f0bd62;
  --no-interval: #b3bcc7 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif }
h1 { margin: 0; font-size: 2rem; line-height: 1.2 }
header p { margin: .25rem 0 0; color: var(--soft) }
h2 { margin: 0 0 .5rem; font-size: 1.3rem; overflow-wrap: anywhere }
section { margin-top: 2.5rem }
.run { padding-top: 1.5rem; border-top: 2px solid var(--line) }
small, .note, .facts, figcaption, h2 small { font-size: .85rem; font-weight: normal; color: var(--soft) }
th small, td small { display: block; font-size: .8rem }
a { color: var(--link) }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: .5rem; padding: .5rem 1rem; background: var(--page) }
.facts, nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; padding: 0; list-style: none }
.facts { margin: 0 0 1rem }
.scroll { overflow-x: auto; margin: 1rem 0 }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { padding-bottom: .4rem; text-align: left; color: var(--soft) }
caption strong { color: var(--ink) }
th, td { padding: .45rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { vertical-align: bottom; background: var(--band); white-space: nowrap }
tbody th { font-weight: normal }
.claims tbody th { min-width: 14rem }
.claims tr > :is(:nth-child(3), :nth-child(4)), .metrics tr > :is(:nth-child(2), :nth-child(3)) { text-align: right }
.claims td:nth-child(4) span, .metrics td:nth-child(3) { white-space: nowrap }
.claims td:nth-child(6) { min-width: 6rem }
code { font: .92em ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
.badge { display: inline-block; padding: .05rem .55rem; border: 1px solid; border-radius: 1rem; font-weight: 600;
  font-size: .85rem; white-space: nowrap }
.holds { color: var(--holds) } .fails { color: var(--fails) }
.undecided { color: var(--undecided) } .no-interval { color: var(--no-interval) }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem 2rem }
figure { margin: 0; max-width: 100% }
img { display: block; max-width: 100%; height: auto; border-radius: .25rem; background: #fff }
.pair { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 0 2.5rem }
.values :is(th, td) { padding-block: .2rem }
summary { cursor: pointer; color: var(--link) }
@media screen and (max-width: 48rem) { .pair { display: block } }
@media print { @page { margin: 15mm }
  body { max-width: none; padding: 0; font-size: 8.5pt } .skip, nav { display: none } .scroll { overflow: visible }
  .run { break-before: page; border: 0; padding: 0; margin: 0 } .claims tbody th { min-width: 10rem }
  h2, summary { break-after: avoid } tr, figure, .run table { break-inside: avoid } a { color: inherit }
  th, td { padding: .3rem .4rem } .values :is(th, td) { padding-block: .05rem } img { zoom: .8 }
  details::details-content { display: block; content-visibility: visible } }
</style>""")

# ---------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m attrain.report", description="Render the records of runs.")
    parser.add_argument("--readme", action="store_true", help="also rewrite the README's tables from the kept records")
    parser.add_argument("--check", action="store_true", help="only check the README's tables against the kept records")
    parser.add_argument("--keep", metavar="SCALE/EXPERIMENT", help="only copy this run to notebooks/results")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (OSError, ValueError) as error:
        print(f"attrain.report: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.check:
        text = README.read_bytes().decode()
        if with_tables(text, load_records(RECORDS)) != text:
            raise ValueError("the README's tables differ from the kept records: python -m attrain.report --readme")
        return 0
    if options.keep:
        print(keep(results_root() / options.keep, RECORDS))
    else:
        page = results_root() / "report.html"
        html = html_page(load_records(results_root()), page)
        with atomic_write(page) as temporary:
            temporary.write_text(html, encoding="utf-8")
        print(page)
    if options.readme:
        update_readme(README, load_records(RECORDS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
