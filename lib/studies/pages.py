"""Render study records as a page to look at: `report.html`, beside the results.

`python -m studies.pages` writes it; `--help` lists what else it does. It needs no network and prints.
"""

import argparse
import base64
import os
import re
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from studies.files import atomic_write, results_root
from studies.records import (
    README,
    RECORDS,
    VERDICTS,
    claims,
    duration,
    keep,
    load_records,
    paper_value,
    scale,
    seconds,
    seeds_in_words,
    update_readme,
    verdicts,
    with_tables,
)
from studies.statistics import expectation, interval, number

INLINE = ("a", "code", "small", "span", "strong")


class Html(str):
    """Finished markup. `tag` escapes every other text, so nothing gets into the page unescaped by oversight."""


def tag(element: str, *children, **attributes) -> Html:
    """An element; a child that is not `Html` is escaped. `class_` stands for class, `aria_label` for aria-label."""
    given = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for k, v in attributes.items())
    inside = "".join(child if isinstance(child, Html) else escape(str(child)) for child in children)
    ending = "" if element in ("img", "meta") else f"</{element}>"
    return Html(f"<{element}{given}>{inside}{ending}" + ("" if element in INLINE else "\n"))


def _table(kind: str, title: str, note: str, header: Sequence[str], rows: Iterable[Sequence]) -> Html:
    """A table of the class `kind`, captioned; the first column names the rows. A row of one cell begins a group."""
    head, bodies = tag("tr", *(tag("th", name, scope="col") for name in header)), [""]
    for first, *rest in rows:
        if not rest:
            bodies.append(tag("tr", tag("th", first, scope="rowgroup", colspan=len(header))))
            continue
        bodies[-1] += tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest))
    caption = tag("caption", tag("strong", title), " ", note)
    table = tag("table", caption, tag("thead", head), *(tag("tbody", Html(b)) for b in bodies if b), class_=kind)
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
    """The claims by their number, each with what all runs measured for it."""
    groups = {}
    for record, claim in claims(records):
        paper = f"{paper_value(claim)}; {claim['source']}" if claim["source"] else paper_value(claim)
        about = f"{claim['measure']}. Expected {expectation(claim)}. The paper’s value: {paper}."
        groups.setdefault((claim["id"], claim["claim"], about), []).append((record, claim))
    rows = []
    for id, statement, about in sorted(groups):
        rows.append((_lines(f"{id}: {statement}", about),))
        for record, claim in groups[id, statement, about]:
            measured, name = claim["measured"], re.sub("([/_])", r"\1<wbr>", escape(record["experiment"]))
            run = _lines(tag("a", Html(name), href=f"#{_anchor(record)}"), f"{scale(record)} scale")
            spread = _lines(interval(measured), measured["interval"].removeprefix("none: "))
            rows.append((claim["of"] or "as stated", _badge(claim["verdict"]), number(measured["mean"]), spread, run))
    header = ("Claim, and what of it", "Verdict", "Mean", "95 % CI", "Run")
    return _table("claims", "Claims and measurements.", f"{verdicts(records)}.", header, rows)


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
    alt = f"Figure: {title}, from {record['experiment']} at {scale(record)} scale"
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    image = tag("img", src=source, alt=alt, width=width, height=height)
    return tag("figure", image, tag("figcaption", title[:1].upper() + title[1:]))


def _metrics(record: dict) -> Html:
    header, seeds = ("Metric", "Mean", "95 % CI", "Every seed’s value"), ", ".join(map(str, record["seeds"]))
    note = f"Mean and 95 % Student t interval over {seeds_in_words(record)}: {seeds}."
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
    facts = [seeds_in_words(record), record["environment"]["device"], duration(seconds(record))]
    for name, words in (("notebook.ipynb", "executed notebook"), ("notebook.html", "executed notebook as a page")):
        if (record["folder"] / name).is_file():
            link = Path(os.path.relpath(record["folder"] / name, page.absolute().parent)).as_posix()
            facts.append(tag("a", words, href=quote(link)))
    return tag("ul", *(tag("li", fact) for fact in facts), class_="facts")


def _run_section(record: dict, page: Path) -> Html:
    title = tag("h2", record["experiment"], " ", tag("small", f"{scale(record)} scale"))
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
        names = ((f"{record['experiment']} ({scale(record)})", _anchor(record)) for record in records)
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
.claims td:last-child { min-width: 15.5rem }
[scope=rowgroup] { padding-top: 1.1rem; background: var(--band) }
[scope=rowgroup] > span { font-weight: 600 }
.claims tr > :is(:nth-child(3), :nth-child(4)), .metrics tr > :is(:nth-child(2), :nth-child(3)) { text-align: right }
.claims td:nth-child(4) span, .metrics td:nth-child(3) { white-space: nowrap }
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
  html { font-size: 8.5pt } body { max-width: none; padding: 0 } .skip, nav { display: none }
  .scroll { overflow: visible }
  .run { break-before: page; border: 0; padding: 0; margin: 0 }
  h2, summary, [scope=rowgroup] { break-after: avoid } tr, figure, .run table { break-inside: avoid }
  a { color: inherit } .claims td:nth-child(4) small { white-space: nowrap }
  th, td { padding: .3rem .4rem } .values :is(th, td) { padding-block: .05rem } img { zoom: .8 }
  details::details-content { display: block; content-visibility: visible } }
</style>""")

# ---------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m studies.pages", description="Render the records of runs.")
    parser.add_argument("--readme", action="store_true", help="also rewrite the README's tables from the kept records")
    parser.add_argument("--check", action="store_true", help="only check the README's tables against the kept records")
    parser.add_argument("--keep", metavar="SCALE/EXPERIMENT", help="only copy this run to notebooks/results")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            text = README.read_bytes().decode()
            if with_tables(text, load_records(RECORDS)) != text:
                raise ValueError("the README's tables differ from the kept records: python -m studies.pages --readme")
        elif options.keep:
            print(keep(results_root() / options.keep, RECORDS))
        else:
            page = results_root() / "report.html"
            html = html_page(load_records(results_root()), page)
            with atomic_write(page) as temporary:
                temporary.write_text(html, encoding="utf-8")
            print(page)
        if options.readme and not options.check:
            update_readme(README, load_records(RECORDS))
        return 0
    except (OSError, ValueError) as error:
        print(f"studies.pages: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
