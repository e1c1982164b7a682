"""Records are made with study's own `estimate` and `verdict`, so that they stay in step with what runs write."""

import io
import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from matplotlib.figure import Figure
from PIL import Image

from studies import digests, figures, outline, pages, parameters, records, statistics, study
from studies.files import ROOT, results_root
from tests.conftest import flipped

HOSTILE = '<script>alert("x")</script> & \'|`*_$~[a](b)\\'
TIMES = {"finished": "2025-01-02T03:04:05Z", "notebook_seconds": 41.2, "seed_seconds": [12.0]}
LEVELS = ("h1", "h2", "h3", "h4", "h5", "h6")


@pytest.fixture(scope="session")
def png(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("png") / "tiny.png"
    Figure(figsize=(0.4, 0.2)).savefig(file, dpi=50)
    return file.read_bytes()


def claim(id="ignores-mark", values=(0.91, 0.93, 0.94), of="", above=0.5, paper_value=None, **changes):
    measured = statistics.estimate(values)
    decision = statistics.verdict(measured["low"], measured["high"], above=above)
    definition = {"claim": "it ignores the mark", "measure": "accuracy, mark moved", "above": above}
    definition |= {"paper_value": paper_value, "source": "Table 1"}
    return {"id": id, "of": of, **definition, "measured": measured, "verdict": decision, **changes}


def record(experiment="isnet/mark", scale="smoke", metrics=None, claims=None, figures=("maps",), png=b"", **changes):
    metrics = metrics or {"accuracy": [0.91, 0.93, 0.94], "loss": [1.25e-5, 2.5e-5, 2e-5]}
    count = len(next(iter(metrics.values())))
    made = {
        "schema": study.SCHEMA,
        "experiment": experiment,
        "parameters": {"scale": scale, "seed": 0, "seeds": count, "device": "cpu", "threads": 1, "rate": 0.001},
        "seeds": list(range(count)),
        "metrics": metrics,
        "summary": {name: statistics.estimate(values) for name, values in metrics.items()},
        "claims": [claim()] if claims is None else claims,
        "figures": {name: digests.sha256(png) for name in figures},
        "data": {"digits": {"digits.csv.gz": "ab" * 32}},
        "environment": {"python": "3.11.9", "torch": "2.8.0", "device": "cpu (x86_64)", "threads": 1},
        "commit": "c0ffee" * 6 + "c0ff",
        "times": TIMES | {"seed_seconds": [12.0] * count},
        **changes,
    }
    return made | {"digest": digests.record_digest(made)}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ATTRAIN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(pages, "RECORDS", tmp_path / "kept")
    monkeypatch.setattr(figures, "RECORDS", tmp_path / "kept")
    for module in (pages, outline):
        monkeypatch.setattr(module, "README", tmp_path / "README.md")
    return tmp_path / "results"


@pytest.fixture
def put(results, png):
    """Writes a record, its figures as PNG and SVG, and what else a run leaves, below the results."""

    def put(root=None, extras=(), **given) -> Path:
        made = record(png=png, **given)
        folder = (root or results_root()) / made["parameters"]["scale"] / made["experiment"]
        study.write_json(folder / "record.json", made)
        for name in made["figures"]:
            (folder / "figures").mkdir(exist_ok=True)
            (folder / "figures" / f"{name}.png").write_bytes(png)
            (folder / "figures" / f"{name}.svg").write_text("<svg/>")
        for name in extras:
            (folder / name).write_text("{}")
        return folder

    return put


@pytest.fixture
def tree(results, tmp_path, monkeypatch) -> Path:
    """Two notebooks of one paper and one of none; the folder where their records are kept."""
    for module in (parameters, outline, pages):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    for name, text in (("one/a", "# # Is it | so?\n"), ("one/b", "# %%\n1\n"), ("own", "# # Mine\n"), ("index", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / f"{name}.ipynb").touch()
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


class Page(HTMLParser):
    """The tags of a page in order, each with its attributes, and the text within elements of a kind."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.places, self._open, self._texts = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.places.append((tuple(self._open), tag))
        if tag not in ("img", "meta", "wbr"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self._texts.append((tuple(self._open), data))

    def all(self, *names) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag in names]

    def text(self, *names) -> str:
        return "".join(data for opened, data in self._texts if set(names) <= set(opened))


def render(results) -> Page:
    return Page(html(results))


def html(results) -> str:
    return pages.html_page(records.load_records(results), results / "report.html")


# ---------------------------------------------------------------- records


def test_records_come_by_experiment_then_scale(put, results):
    for experiment in ("isnet/mark", "energy/boxes"):
        for scale in ("paper", "zebra", "laptop", "ad-hoc", "smoke"):
            put(experiment=experiment, scale=scale)
    found = records.load_records(results)
    assert [r["parameters"]["scale"] for r in found] == ["smoke", "laptop", "paper", "ad-hoc", "zebra"] * 2
    assert [r["experiment"] for r in found] == ["energy/boxes"] * 5 + ["isnet/mark"] * 5
    assert found[0]["folder"] == results / "smoke/energy/boxes"


def test_kept_seeds_and_other_depths_are_no_records(put, results):
    folder = put()
    for other in ("seeds/isnet/mark", "seeds/methods", "smoke", "smoke/isnet/mark/figures", "smoke/methods/seeds/3"):
        (results / other).mkdir(parents=True, exist_ok=True)
        (results / other / "record.json").write_text("not even JSON")
    assert [r["folder"] for r in records.load_records(results)] == [folder]


def test_a_study_of_no_one_paper_is_a_record_with_a_place_on_the_page(put, results):
    put(experiment="methods")
    put(experiment="isnet/mark")
    assert [r["experiment"] for r in records.load_records(results)] == ["isnet/mark", "methods"]
    page = html(results)
    for place in ("smoke/methods", "smoke/isnet/mark"):
        assert f'href="#{place}"' in page and f'id="{place}"' in page


def test_no_folder_holds_no_records(tmp_path):
    assert records.load_records(tmp_path / "none") == []


def without(key, inside=None):
    made = record()
    (made if inside is None else made[inside] if isinstance(made[inside], dict) else made[inside][0]).pop(key)
    return made


def changed(**values):
    """With a digest that goes with it, as who edits a record by a program might write."""
    made = record() | values
    return made | {"digest": digests.record_digest(made)}


MALFORMED = {
    "cut off": json.dumps(record())[:-1],
    "not text": "\udcff",
    "nested without end": "[" * 100_000,
    "a list": [],
    "empty": {},
    "NaN": json.dumps(record()).replace("0.91", "NaN"),
    "of another schema": changed(schema=0),
    "of schema 1 with a digest": record() | {"schema": 1, "figures": ["maps"]},
    "without a digest": without("digest"),
    "with a digest of another name": without("digest") | {"digess": "0"},
    "no seeds": changed(seeds=[]),
    "no scale": changed(parameters={}),
    "no device": without("device", "environment"),
    "no times": changed(times={}),
    "a metric that is no list": changed(metrics={"accuracy": 0.5}),
    "a summary without a mean": changed(summary={"accuracy": {}}),
    "claims by name": changed(claims={"a": 1}),
    "a claim without a verdict": without("verdict", "claims"),
    "a verdict that there is not": changed(claims=[claim(verdict="certain")]),
    "a claim without bounds": changed(claims=[{n: v for n, v in claim().items() if n != "above"}]),
    "a figure elsewhere": changed(figures={"../../../private": ""}),
    "data that are a text": changed(data="digits"),
    "a number changed": record() | {"metrics": {"accuracy": [0.92, 0.93, 0.94], "loss": [1.25e-5, 2.5e-5, 2e-5]}},
    "a verdict changed": record() | {"claims": [claim(verdict="fails")]},
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_file_that_is_no_record_costs_its_own_place_and_no_page(put, results, capsys, what):
    put(experiment="isnet/other")
    text = MALFORMED[what] if isinstance(MALFORMED[what], str) else json.dumps(MALFORMED[what])
    file = put() / "record.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="delete it and run its notebook again") as error:
        records.load_records(results)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    found, faults = records.read_records(results)
    assert [r["experiment"] for r in found] == ["isnet/other"] and faults == {file: str(error.value)}
    assert pages.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{results}/report.html\n" and captured.err == f"studies.pages: {error.value}\n"
    page = Page((results / "report.html").read_text("utf-8"))
    assert str(error.value) in page.text("section", "p") and "isnet/other" in page.text("h3")


def test_a_kept_file_that_is_no_record_is_said_on_its_papers_page_which_has_the_others(tree, put, capsys):
    put(tree, experiment="one/a")
    (put(tree, experiment="one/b") / "record.json").write_text("{")
    assert pages.main(["--write"]) == 1 and "one/b/record.json is no record" in capsys.readouterr().err
    page = (tree / "one.md").read_text("utf-8")
    assert "<summary>one/a, smoke scale" in page and "\nsmoke/one/b/record.json is no record (" in page
    assert pages.main(["--check"]) == 1


def test_a_record_from_before_digests_is_one(put, results):
    old = {name: value for name, value in record().items() if name != "digest"}
    (put() / "record.json").write_text(json.dumps(old | {"schema": 1, "figures": ["maps"]}))
    assert len(render(results).all("img")) == 1


def test_a_digest_is_of_the_values_and_not_of_how_they_are_laid_out(put, results):
    file = put() / "record.json"
    file.write_bytes(json.dumps(json.loads(file.read_text()), indent=4).replace("\n", "\r\n").encode())
    assert len(records.load_records(results)) == 1


def test_every_flipped_bit_of_a_record_is_seen_unless_it_says_the_same(put):
    """As 1e-05 and 1E-05 do."""
    file, draws, same = put() / "record.json", random.Random(0), 0
    content = file.read_bytes()
    assert len(content) > 1000
    for bit in draws.sample(range(8 * len(content)), 300):
        file.write_bytes(flipped(content, bit))
        try:
            same += {**records.load_record(file), "folder": None} == json.loads(content) | {"folder": None}
        except ValueError:
            continue
    file.write_bytes(content)
    assert same <= 3 and records.load_record(file)


def test_a_claim_stated_twice_counts_once_and_the_last_time(put, results):
    twice = [claim(values=(0.1, 0.1)), claim(of="other"), claim(values=(0.9, 0.9))]
    put(claims=twice)
    stated = records.claims(results)
    assert list(zip(stated["of"], stated["mean"])) == [("", 0.9), ("other", pytest.approx(0.926667))]


def test_the_table_of_claims_has_a_row_a_measurement_with_its_numbers_and_words(put, results):
    put(scale="laptop", claims=[claim(of="Selective", paper_value=0.5), claim("single", [0.7])])
    put(experiment="methods")
    stated = records.claims(results)
    assert stated.equals(records.claims(records.load_records(results)))
    assert list(zip(stated["experiment"], stated["scale"], stated["id"])) == [
        ("isnet/mark", "laptop", "ignores-mark"),
        ("isnet/mark", "laptop", "single"),
        ("methods", "smoke", "ignores-mark"),
    ]
    first = stated.iloc[0]
    assert first["mean"] == pytest.approx(0.926667) and first["low"] < first["mean"] < first["high"]
    words = ["expected", "measured", "95 % CI", "verdict", "paper's value", "measure", "source"]
    assert first[words].tolist() == [
        "above 0.5", "0.927", "[0.889, 0.965]", "holds", "0.5", "accuracy, mark moved", "Table 1",
    ]  # fmt: skip
    assert stated.iloc[1][["95 % CI", "verdict"]].tolist() == ["none", "not judged"]
    assert stated.iloc[2]["verdict"] == "not judged", "smoke scale decides nothing"


def test_no_records_are_an_empty_table_of_the_same_columns(put, results):
    put()
    assert records.claims([]).empty and list(records.claims([]).columns) == list(records.claims(results).columns)
    assert records.runs([]).empty


# ---------------------------------------------------------------- words and numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.000"), (-0.0, "0.000"), (0.9126, "0.913"), (-0.5, "−0.500"), (0.0123, "0.012"), (1, "1.000"),
     (123.4567, "123.457"), (54321.7, "54322"), (0.00123, "0.0012"), (0.00399, "0.0040"),
     (-1.24e-5, "−1.2e−05"), (2.5e7, "2.5e+07"),
     (None, "none")],
)  # fmt: skip
def test_numbers_have_sensible_digits(value, text):
    assert statistics.number(value) == text


@pytest.mark.parametrize(
    ("bounds", "text"),
    [({"above": 0}, "above 0"), ({"below": -1.5}, "below −1.5"), ({"above": "5e-1", "below": 1}, "between 0.5 and 1")],
)
def test_expectation_is_put_in_words(bounds, text):
    assert statistics.expectation(bounds) == text


@pytest.mark.parametrize(("value", "text"), [(None, "not read"), (0, "0"), (-1.5, "−1.5"), ("1-2 % (Fig. 3)",) * 2])
def test_paper_value_stands_as_given(value, text):
    assert records.paper_value({"paper_value": value}) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (89, "89.0 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_durations_have_a_fitting_unit(seconds, text):
    assert records.duration(seconds) == text


@pytest.mark.parametrize(
    ("verdict", "count", "said"),
    [
        ("holds", 1, "1 holds"),
        ("holds", 7, "7 hold"),
        ("fails", 1, "1 fails"),
        ("fails", 4, "4 fail"),
        ("undecided", 16, "16 undecided"),
        ("not judged", 2, "2 not judged"),
    ],
)
def test_verdicts_are_counted_as_one_says_it(verdict, count, said):
    assert records.counted(verdict, count) == said


def test_summary_has_one_line_a_record(put, results):
    failing = claim("b", values=(0.1, 0.1, 0.2), of="x")
    put(scale="tiny", claims=[claim(), claim("c", values=[0.9]), failing, claim("isnet-7", (2.5, 2.6, 2.55))])
    put(experiment="challenger/long_name", scale="laptop", metrics={"ece": [0.1]}, claims=[])
    assert records.runs(results).values.tolist() == [
        ["challenger/long_name", "laptop", 1, "no claims", 41],
        ["isnet/mark", "tiny", 3, "1 holds, 1 fails, 1 not judged; of ours 1 holds", 41],
    ]


# ---------------------------------------------------------------- the page


@pytest.fixture
def full(put, results):
    """Results with every kind of verdict, one seed and many, and a hostile text wherever one can be."""
    values = {"holds": (0.8, 0.9, 0.85), "fails": (0.1, 0.11, 0.1), "undecided": (0.1, 0.9, 0.5), "not judged": [0.7]}
    put(
        scale="laptop",
        claims=[claim(f"claim-{i}", v, of=name) for i, (name, v) in enumerate(values.items())],
        figures=["a", "b_c"],
    )
    put(scale=HOSTILE.replace("/", ""), metrics={HOSTILE: [0.5]}, figures=[], data={HOSTILE: {HOSTILE: HOSTILE}},
        claims=[claim(HOSTILE, of=HOSTILE, claim=HOSTILE, measure=HOSTILE, source=HOSTILE, paper_value=HOSTILE)],
        environment={"device": HOSTILE, HOSTILE: HOSTILE}, commit=HOSTILE)  # fmt: skip
    return results


def test_hostile_text_is_text(full):
    page = render(full)
    assert not page.all("script")
    assert page.text("table").count(HOSTILE) >= 10


@pytest.mark.parametrize("name", ['<script>"&', "a b"])
def test_hostile_figure_name_is_text(put, results, name):
    put(figures=[name])
    (image,) = render(results).all("img")
    assert name in image["alt"]


def test_page_needs_nothing_from_elsewhere(full, put):
    put(extras=["notebook.ipynb"])
    page = render(full)
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
    assert not page.all("link", "script", "iframe", "object")
    assert not any("://" in link["href"] or link["href"].startswith("//") for link in page.all("a"))
    assert "url(" not in html(full) and "@import" not in html(full)


def test_links_within_the_page_lead_somewhere(full):
    page = render(full)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"] for link in page.all("a")} <= {f"#{id}" for id in ids}


def test_verdicts_come_before_any_figure(full):
    text = html(full)
    assert (
        0
        < text.index('class="badge')
        < text.index('class="glance"')
        < text.index('class="claims"')
        < text.index("<img")
    )


def test_all_tables_but_that_of_the_runs_are_folded_and_so_are_all_figures_but_the_first(put, results):
    put(figures=["a", "b", "c"])
    put(experiment="energy/boxes", figures=["d"])
    page = render(results)
    folded = [(tag, "details" in opened) for opened, tag in page.places if tag in ("table", "img")]
    assert [fold for tag, fold in folded if tag == "table"] == [False] + [True] * (len(folded) - 5)
    assert [fold for tag, fold in folded if tag == "img"] == [False, False, True, True]


README_TABLE = """
| **Second**, [Cohen 2020](https://arxiv.org/abs/1) | **[results](x.md)** |
| [Is it b?](notebooks/two/b.ipynb) | Yes |
| [Is it a \\| c?](notebooks/two/a.ipynb) (ours) | *No* |
| **First** | |
| [one](notebooks/one/a.ipynb) | 1 |
| no | row | of the table |
| [two](notebooks/two/gone.ipynb) | no such notebook |
"""


def test_papers_and_runs_come_in_the_readmes_order_and_others_last(put, results):
    outline.README.write_text(README_TABLE)
    for experiment in ("one/a", "two/a", "two/b", "two/z", "alone", "third/x"):
        put(experiment=experiment)
    put(experiment="two/b", scale="laptop")
    page = html(results)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Second", "First", "Further notebooks", "third"]
    order = ["smoke/two/b", "laptop/two/b", "smoke/two/a", "smoke/two/z", "smoke/one/a", "smoke/alone", "smoke/third/x"]
    assert re.findall(r'<section id="(.*?)" class="run">', page) == order
    contents = page[page.index("<nav") : page.index("</nav>")]
    assert re.findall(r'<li><a href="#(.*?)">', contents) == order
    assert "Cohen 2020" in page and "arxiv.org" not in page


def test_every_run_leads_back_to_its_paper_and_the_page_to_its_contents(put, results):
    put(experiment="one/a")
    put(experiment="alone")
    page = html(results)
    for anchor in re.findall(r'<section id="(paper-.*?)"', page):
        assert f'<li><a href="#{anchor}">back to ' in page
    assert '<a href="#glance" class="up">' in page


RESULTS_PAGE = """
![Dots](laptop/isnet/mark/figures/dots.png)

*Up is
better: see `P`.*

*What all of it says, [a link](x.png).*

![Lines](laptop/isnet/mark/figures/lines.png)

*Down is [better](y.png).*
"""


def test_captions_are_the_records_or_else_those_of_the_results_page_whose_first_figure_is_first(put, results, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/isnet.md").write_text(RESULTS_PAGE)
    put(scale="laptop", figures=["maps", "dots", "lines"], captions={"maps": {"caption": "See *it*.", "alt": "Maps"}})
    put(scale="smoke", figures=["maps", "dots"])
    smoke, laptop = ([f[2:] for f in figures.figures(r)] for r in records.load_records(results))
    assert laptop == [
        ("dots", "Up is better: see P.", "Dots"),
        ("maps", "See it.", "Maps"),
        ("lines", "Down is better.", "Lines"),
    ]
    assert [(title, caption) for title, caption, _ in smoke] == [("dots", ""), ("maps", "")]
    assert "isnet/mark at smoke scale" in smoke[0][2]
    assert "<figcaption><strong>Maps.</strong> See it.</figcaption>" in html(results)


@pytest.mark.parametrize(("given", "kept"), [((3000, 600), (1300, 260)), ((400, 300), (400, 300))])
def test_a_pages_picture_is_no_wider_than_it_must_be_and_shown_as_large_as_it_was_drawn(tmp_path, given, kept):
    Image.effect_noise(given, 80).save(tmp_path / "noise.png")
    data, *shown = figures.shrunk(tmp_path / "noise.png")
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size) == ("WEBP", kept) and shown == [given[0] * 2 // 3, given[1] * 2 // 3]


@pytest.mark.ci
def test_the_kept_records_are_a_page_of_5_megabytes_at_most_even_all_together():

    found = records.load_records(records.RECORDS)
    page = pages.html_page(found, ROOT / "results/report.html")
    assert len(found) > 20 and len(page.encode()) <= 5e6


def test_claims_table_says_all_there_is_about_a_claim(put, results):
    put(scale="laptop", claims=[claim(of="Selective", paper_value=0.987), claim("images", [[0.0, 1.0] * 50])])
    text = render(results).text("table")
    for part in ("ignores-mark: it ignores the mark", "Selective", "accuracy, mark moved", "isnet/mark", "laptop scale",
                 "0.987", "Table 1", "above 0.5", "0.927", "[0.889, 0.965]", "t over 3 seeds", "holds",
                 "not read", "exact over 100 test cases, 1 seed"):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize("verdict", pages.VERDICTS)
def test_every_verdict_is_a_badge_with_its_word(full, verdict):
    page = render(full)
    assert f"badge {verdict.replace(' ', '-')}" in [badge.get("class") for badge in page.all("span")]
    assert verdict in page.text("td", "span")


def test_headings_are_in_order_below_one_h1(full):
    levels = [LEVELS.index(tag) for tag, _ in render(full).tags if tag in LEVELS]
    assert levels.count(0) == 1 and levels[0] == 0
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_page_has_a_language_a_title_and_a_skip_link_first(full):
    page = render(full)
    assert page.all("html") == [{"lang": "en"}] and page.text("title")
    assert page.all("a")[0]["href"] == "#" + page.all("main")[0]["id"]


def test_every_image_has_a_speaking_alt_text(full):
    alts = [image["alt"] for image in render(full).all("img")]
    assert alts == [f"Figure: {name}, from isnet/mark at laptop scale" for name in ("a", "b c")]


def test_every_table_has_a_caption_and_scoped_headers(full):
    page = render(full)
    names = [tag for tag, _ in page.tags]
    assert page.all("table")
    assert all(names[i + 1] == "caption" for i, name in enumerate(names) if name == "table")
    assert {header.get("scope") for header in page.all("th")} == {"col", "row", "rowgroup"}
    assert all(names[i + 1] == "th" for i, name in enumerate(names) if name == "tr")


def test_what_is_said_of_a_claim_is_said_once_however_many_runs_measured_it(put, results):
    put(claims=[claim(of="Selective"), claim(of="Dual")])
    put(scale="laptop", claims=[claim(of="Selective"), claim("other", of="Dual")])
    page = render(results)
    groups = [group for group in page.all("th") if group.get("scope") == "rowgroup"]
    assert [group["colspan"] for group in groups] == ["3", "5", "5"]  # the paper at a glance, and two claims
    text = page.text("details", "table")
    assert text.count("ignores-mark: it ignores the mark") == 1
    assert text.count("Selective") == 2 and text.count("Dual") == 2


def test_every_link_has_words(full, put):
    put(extras=["notebook.ipynb", "notebook.html"])
    page = html(full)
    links = re.findall(r"<a [^>]*>(.*?)</a>", page, re.DOTALL)
    assert len(links) == len(render(full).all("a")) > 3
    assert all(re.sub(r"<[^>]*>", "", link).strip() for link in links)


STYLE = (ROOT / "lib/studies/page.html.j2").read_text("utf-8")


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_that_of_the_formula():
    assert luminance("#fff") == pytest.approx(1) and luminance("#000000") == 0
    assert luminance("#777777") == pytest.approx(0.184475, abs=1e-6)  # 4.48 to 1 on white, the known near miss


@pytest.mark.parametrize(("mode", "below", "behind"), [("light", "<style>", "#fff"), ("dark", "dark)", "#14171b")])
def test_every_colour_of_text_stands_out_from_what_is_behind_it(mode, below, behind):
    block = STYLE.split(below, 1)[1].split(":root {", 1)[1].split("}", 1)[0]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})\b", block))
    backgrounds = [colours.pop(name) for name in ("page", "band")]
    assert backgrounds[0] == behind and colours.pop("line")
    assert {"ink", "soft", "link", *(verdict.replace(" ", "-") for verdict in records.VERDICTS)} == colours.keys()
    for name, colour in colours.items():
        for background in backgrounds:
            low, high = sorted((luminance(colour), luminance(background)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"{name} on {background}, {mode}"


def test_no_colour_is_used_but_those_of_the_two_palettes():
    rules = STYLE.split("* { box-sizing", 1)[1]
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", rules)) == {"#fff"}, "behind figures, which are drawn on white"


@pytest.mark.parametrize(("seeds", "words"), [(3, "Student t interval over 3 seeds: 0, 1, 2"), (1, "no interval")])
def test_metrics_caption_says_what_the_interval_is(put, results, seeds, words):
    put(metrics={"accuracy": [0.5, 0.6, 0.7][:seeds]})
    assert words in render(results).text("caption")


@pytest.mark.parametrize("name", ["notebook.ipynb", "notebook.html"])
def test_notebook_is_linked_relative_to_the_page_if_it_is_there(put, results, name):
    put(extras=[name])
    put(scale="two words")
    links = [link["href"] for link in render(results).all("a") if not link["href"].startswith("#")]
    assert links == [f"smoke/isnet/mark/{name}"]


def test_a_figure_that_is_not_as_its_run_drew_it_is_said_to_be_missing(put, results, png):
    folder = put(figures=["here", "gone", "cut", "other"])
    (folder / "figures/gone.png").unlink()
    (folder / "figures/cut.png").write_bytes(png[:-1])
    (folder / "figures/other.png").write_bytes(b"")
    page = render(results)
    assert len(page.all("img")) == 1
    for name in ("gone", "cut", "other"):
        assert f"“{name}” is not beside the record as its run drew it" in page.text("p")


def test_page_of_runs_without_claims_says_so(put, results):
    put(claims=[])
    page = render(results)
    assert "These runs state no claims" in page.text("p") and len(page.all("img")) == 1


def test_page_is_the_same_for_the_same_records(full):
    assert html(full) == html(full)


def test_page_without_records_says_how_to_make_some(results):
    assert "make reproduce" in render(results).text("main").replace("\n", "")


# ---------------------------------------------------------------- Markdown


def test_tables_are_readable(put, results):
    put(scale="laptop", claims=[claim(of="Selective")])
    assert pages.record_tables(records.load_records(results), results).splitlines() == [
        "<details><summary>isnet/mark, laptop scale, 3 seeds: 1 holds</summary>",
        "",
        "| Claim | | Expected | Measured | 95 % CI | Verdict |",
        "|:---|:---|:---|---:|:---|:---|",
        "| ignores-mark | it ignores the mark (Selective) | above 0.5 | 0.927 | [0.889, 0.965] | holds |",
        "",
        "Intervals: t over 3 seeds (1).",
        "",
        "All metrics: [record](laptop/isnet/mark/record.json)",
        "",
        "</details>",
    ]


def test_the_papers_values_are_a_column_only_of_tables_that_have_one(put, results):
    put(claims=[claim(), claim("other", paper_value=0.987)])
    put(scale="laptop")
    first, second = pages.record_tables(records.load_records(results), results).split("<details>")[1:]
    assert "| Paper's value |" in first and "| 0.987 |" in first and "- other: Table 1" in first
    assert "Paper's value" not in second and "Table 1" not in second


def test_hostile_text_stays_in_its_cell(full):
    lines = pages.record_tables(records.load_records(full), full).splitlines()
    rows = [line.replace("\\\\", "").replace(r"\|", "") for line in lines if line.startswith("|")]
    assert {row.count("|") for row in rows} == {8}  # with what would decide it, or with a paper's value
    assert not any("<script" in line.replace(r"\<", "") for line in lines)


def test_without_records_or_claims_that_is_said(put, results):
    assert pages.record_tables([], results) == "No records are kept yet."
    put(claims=[])
    assert "\nNo claims.\n" in pages.record_tables(records.load_records(results), results)


def test_without_records_all_notebooks_are_listed(tree):
    assert pages.notebooks_table(folder=tree).splitlines()[2:] == [
        "| [one/a](one/a.ipynb) | Is it \\| so? | no run kept yet |",
        "| [one/b](one/b.ipynb) | one/b | no run kept yet |",
        "| [own](own.ipynb) | Mine | no run kept yet |",
    ]


def test_a_record_that_is_added_appears_with_its_time_its_verdicts_and_links(tree, put):
    put(tree, experiment="one/a", scale="paper", claims=[], times=TIMES | {"notebook_seconds": 7200.0})
    put(tree, experiment="one/a", scale="laptop", claims=[claim(), claim("b"), claim("c", (0.1, 0.1, 0.2))])
    put(tree, experiment="own", scale="laptop")
    put(tree, experiment="gone/away")
    a, own = (pages.notebooks_table([name], tree).splitlines()[2] for name in ("one/a", "own"))
    assert a.endswith("| *laptop*, 41.2 s: [2 hold, 1 fails](kept/one.md)<br>*paper*, 2.0 h: no claims |")
    assert own.endswith("| *laptop*, 41.2 s: [1 holds](kept/laptop/own/record.json) |")
    assert "| [own](../own.ipynb) |" in pages.notebooks_table(["own"], tree, here=tree)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed in a notebook."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", outputs.append)
    return outputs


def test_a_paper_is_its_picture_made_small_and_its_notebooks_with_the_readmes_answers(tree, put, shown):
    outline.README.write_text(README_TABLE)
    folder = put(tree, experiment="one/a", scale="laptop", captions={"maps": {"caption": "See *this*", "alt": "Maps"}})
    Figure(figsize=(12, 3)).savefig(folder / "figures/maps.png", dpi=200)
    pages.show_paper("one", "a/maps", tree, width=300)
    picture, caption, sentences = shown
    found = Image.open(io.BytesIO(picture.data))
    assert found.size == (300, 75) and len(found.getcolors()) <= 128 and picture.alt == "Maps" and picture.width == 200
    assert caption.data == "*See this* ([one/a](one/a.ipynb), laptop scale)"
    assert sentences.data == "- [one](one/a.ipynb) 1.\n- [one/b](one/b.ipynb)"


@pytest.mark.parametrize("figure", ["", "a/none", "b/maps", "c/maps"])
def test_a_figure_that_is_not_kept_is_left_out(tree, put, shown, figure):
    put(tree, experiment="one/a")
    pages.show_paper("one", figure, tree)
    assert [type(part).__name__ for part in shown] == ["Markdown"]


def test_notebooks_of_no_one_paper_are_listed_too(tree, shown):
    pages.show_paper("", folder=tree)
    assert shown[0].data == "- [Mine](own.ipynb)"


def test_a_paper_without_notebooks_says_so(tree, shown):
    pages.show_paper("two", "a/maps", tree)
    assert [part.data for part in shown] == ["There is no notebook yet."]


# ---------------------------------------------------------------- pages with generated parts

BEGIN, END = pages.MARKERS
PAGE = f"# Title\r\n\ntext\n{BEGIN}\nold\n{END}\nmore  \nno newline at the end"


@pytest.mark.parametrize("text", [PAGE, PAGE.replace("\r\n", "\n")])
def test_writing_changes_only_what_is_between_the_markers_and_only_once(tree, put, text):
    put(tree, experiment="one/a")
    page = tree / "one.md"
    page.write_bytes(text.encode())
    assert pages.main(["--write"]) == 0
    written = page.read_bytes()
    before, after = text.encode().split(b"old")
    assert written.startswith(before.rstrip()) and written.endswith(after.lstrip()) and b"it ignores" in written
    stamp = page.stat().st_mtime_ns, page.stat().st_ino
    assert pages.main(["--write"]) == 0
    assert page.read_bytes() == written and (page.stat().st_mtime_ns, page.stat().st_ino) == stamp


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END} {BEGIN}"])
def test_a_page_without_markers_is_an_error_naming_them(tree, text):
    (tree / "one.md").write_text(text)
    with pytest.raises(ValueError, match=f"one.md .*{BEGIN}.*{END}"):
        pages.generated(tree)
    assert (tree / "one.md").read_text() == text


def test_there_is_an_overview_and_a_page_a_paper_which_begin_as_a_title_and_markers(tree, put):
    put(tree, experiment="one/a", scale="laptop")
    put(tree, experiment="own", scale="laptop")
    texts = pages.generated(tree)
    assert [page.name for page in texts] == ["one.md", "README.md"]
    one, overview = texts.values()
    assert one.startswith("# Results: one\n\n") and "<summary>one/a, laptop scale, 3 seeds: 1 holds</summary>" in one
    assert "| [own](../own.ipynb) |" in overview and "[1 holds](one.md)" in overview
    assert BEGIN in overview and overview.endswith(f"{END}\n")


def test_the_readmes_block_is_written_if_it_has_the_markers_and_else_the_readme_is_left_alone(tree, put):
    put(tree, experiment="own", scale="laptop")
    pages.README.write_text("no markers")
    assert pages.README not in pages.generated(tree)
    pages.README.write_text("\n".join(pages.README_MARKERS))
    assert "| *laptop*, 41.2 s: [1 holds](" in pages.generated(tree)[pages.README]


def test_every_link_of_the_results_pages_leads_somewhere():
    for page in sorted(records.RECORDS.glob("*.md")):
        links = {unquote(link.partition("#")[0]) for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))}
        gone = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
        assert (links or page.stem == "zoo") and not gone, page


# ---------------------------------------------------------------- keeping, command line


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_keep_copies_the_record_and_its_pngs_alone(put, tmp_path):
    folder = put(figures=["a", "b"], extras=["notebook.ipynb", "notebook.html"])
    target = records.keep(folder, tmp_path / "kept")
    assert target == tmp_path / "kept/smoke/isnet/mark"
    assert files(target) == ["figures/a.png", "figures/b.png", "record.json"]
    assert (target / "record.json").read_bytes() == (folder / "record.json").read_bytes()


def test_keep_replaces_what_an_earlier_run_left(put, tmp_path):
    records.keep(put(figures=["a", "b"]), tmp_path / "kept")
    target = records.keep(put(figures=["b", "c"], commit="other"), tmp_path / "kept")
    assert files(target) == ["figures/b.png", "figures/c.png", "record.json"]
    assert "other" in (target / "record.json").read_text()


@pytest.mark.parametrize("commit", [None, "c0ffee+changes"])
def test_keep_refuses_a_run_that_nobody_could_repeat(put, tmp_path, commit):
    with pytest.raises(ValueError, match="commit and run again"):
        records.keep(put(commit=commit), tmp_path / "kept")


def test_command_line_writes_the_page_and_prints_where(put, results, capsys):
    put()
    assert pages.main([]) == 0
    assert capsys.readouterr().out.strip() == str(results / "report.html")
    assert (results / "report.html").read_text() == html(results)


def test_command_line_keeps_a_run_and_brings_the_pages_up_to_date(tree, put, results, capsys):
    put(experiment="one/a", scale="laptop")
    assert pages.main(["--keep", "laptop/one/a"]) == 0
    assert files(tree) == ["laptop/one/a/figures/maps.png", "laptop/one/a/record.json"]
    assert pages.main(["--check"]) == 1
    assert "--write" in capsys.readouterr().err
    assert pages.main(["--write"]) == 0
    assert "it ignores the mark" in (tree / "one.md").read_text() and (results / "report.html").exists()
    assert pages.main(["--check"]) == 0
    (tree / "README.md").write_text((tree / "README.md").read_text().replace("1 holds", "2 hold"))
    assert pages.main(["--check"]) == 1


@pytest.mark.parametrize("arguments", [["--check"], ["--write"], ["--keep", "smoke/isnet/none"], ["--keep", "a"], []])
def test_expected_errors_are_one_line_and_exit_code_1(tree, put, arguments, capsys):
    folder = put()
    (tree / "one.md").write_text("no markers")
    if not arguments:
        (folder / "record.json").write_text("{")
    assert pages.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
