"""What a notebook tells is true of its record, and a reader finds words between code, captions and no leftovers."""

import ast
import json
import re

import jupytext
import nbformat
import pytest

from studies import findings
from studies.files import NOTEBOOKS, ROOT
from studies.findings import Measured, true_sentences
from studies.parameters import experiments
from studies.records import RECORDS, load_records, scale

ALL = sorted(
    path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    for path in NOTEBOOKS.rglob("*.py")
    if "results" not in path.parts
)
STUDIES = [name for name in experiments() if "study.tell(" in (NOTEBOOKS / f"{name}.py").read_text("utf-8")]
KEPT = [record for record in load_records(RECORDS) if record["experiment"] in STUDIES]


def cells(name: str) -> list:
    return jupytext.read(NOTEBOOKS / f"{name}.py").cells


def came_out(name: str):
    """The notebook's function that says what came out, which needs nothing but the record's numbers."""
    (source,) = [cell.source for cell in cells(name) if "def came_out" in cell.source]
    definition = next(part for part in ast.parse(source).body if isinstance(part, ast.FunctionDef))
    names = {key: getattr(findings, key) for key in ("shortcut_cost", "from_few_samples")}
    exec(compile(ast.Module([definition], []), name, "exec"), names)
    return names["came_out"]


def test_all_studies_of_papers_tell_what_came_out():
    assert {name for name in experiments() if "/" in name} <= {*STUDIES}


@pytest.mark.parametrize("record", KEPT, ids=lambda record: record["folder"].relative_to(RECORDS).as_posix())
def test_what_a_kept_record_tells_is_said_with_its_own_numbers(record):
    """Each sentence that is printed comes with a condition that is true; of two opposites one is printed."""
    said = [(bool(true), text) for true, text in came_out(record["experiment"])(Measured(record))]
    printed = true_sentences(said)
    assert printed and all((True, text) in said for text in printed)
    assert not re.search(r"\b(nan|inf)\b", " ".join(printed))


MARKS = "laptop/isnet/mnist_background_bias"
SAID = {  # record: a sentence that must be among those told, worked out here by hand from its numbers
    MARKS: "Under a wrong mark the accuracy of standard falls from 1.00 to 0.04, by more than half.",
    "laptop/energy/limited_boxes": "Boxes on a tenth of the images bring 14 % of that gain, on a hundredth 16 %.",
    "laptop/isnet/training_time": "The original's time grows 1.9-fold from 10 to 20 classes.",
    "laptop/challenger/text": "Of 2 cases its mean accuracy is higher than plain training's in 2, "
    "than permuted maps' in 2 and than FGSM's in 1.",
    "laptop/energy/distribution_shift": "In the conventional task the worst group's accuracy rises from 0.00 to 0.27 "
    "with the energy loss.",
}


@pytest.mark.parametrize("kept", SAID)
def test_known_records_tell_what_their_numbers_say(kept):
    record = json.loads((RECORDS / kept / "record.json").read_text("utf-8"))
    assert SAID[kept] in true_sentences(came_out(record["experiment"])(Measured(record)))


LAPTOP = {record["experiment"]: record for record in KEPT if scale(record) == "laptop"}


@pytest.mark.parametrize("name", LAPTOP)
def test_the_outputs_in_a_notebook_tell_what_the_record_that_is_kept_now_does(name):
    told = findings.tell(came_out(name), LAPTOP[name]).removeprefix("**In this run**")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "\n".join(output.data.get("text/markdown", "") for output in outputs if "data" in output)
    assert f"**In the run on record**{told}" in shown, f"python -m studies.run --keep-outputs {name}"


def test_a_sentence_changes_with_the_numbers():
    record = json.loads((RECORDS / MARKS / "record.json").read_text("utf-8"))
    told = true_sentences(came_out(record["experiment"])(Measured(record)))
    record["summary"]["standard.deceiving"]["mean"] = 0.995
    changed = true_sentences(came_out(record["experiment"])(Measured(record)))
    assert "Under a wrong mark standard loses no more than one point of accuracy (1.00, 0.99)." in {*changed} - {*told}


# ---------------------------------------------------------------- a page that can be read


@pytest.mark.parametrize("name", ALL)
def test_there_are_words_between_the_cells_of_code(name):
    """At most two in a row, besides those that set up and those that only the tests need."""
    run = 0
    for cell in cells(name):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code":
            run = 0
        elif not {"parameters", "nbval-check-output"} & {*tags}:
            run += 1
        assert run <= 2, f"more words before: {cell.source.splitlines()[0]}"


@pytest.mark.parametrize("name", experiments())
def test_every_picture_has_a_caption_and_an_alternative_text(name):
    calls = [node for cell in cells(name) if cell.cell_type == "code" for node in ast.walk(ast.parse(cell.source))]
    figures = [node for node in calls if isinstance(node, ast.Call) and ast.unparse(node.func) == "study.figure"]
    assert figures and all(len(node.args) + len(node.keywords) >= 4 for node in figures)


@pytest.mark.parametrize("name", ALL)
def test_teaching_material_has_no_leftovers(name):
    text = (NOTEBOOKS / f"{name}.py").read_text("utf-8")
    assert "noqa" not in text and "tqdm" not in text, "studies.study.progress counts, on stdout"
    assert "꜀" not in text, "a glyph that fonts lack"


STIFF = ROOT / "tests/notebooks/stiff.txt"  # phrases that a native reader stumbled over, one in each line
PROSE = ["README.md", "CONTRIBUTING.md", *(f"notebooks/{name}.py" for name in ALL)]
PROSE += sorted(page.relative_to(ROOT).as_posix() for page in RECORDS.glob("*.md"))


@pytest.mark.parametrize("page", PROSE)
def test_phrases_that_readers_stumbled_over_do_not_come_back(page):
    text = re.sub(
        r"<!-- \w+: written by make report -->.*?<!-- \w+ end -->",
        "",
        (ROOT / page).read_text("utf-8"),
        flags=re.DOTALL,
    )
    text = " ".join(re.sub(r"^# ?", "", text, flags=re.MULTILINE).split())
    assert not [phrase for phrase in STIFF.read_text("utf-8").splitlines() if phrase in text]


def words_of(name: str) -> set[str]:
    """What a notebook explains in bold, in the paragraph that begins with *Words*."""
    found = re.search(
        r"^\*Words\*:.*?(?=\n\n|\Z)", "\n\n".join(c.source for c in cells(name)), re.MULTILINE | re.DOTALL
    )
    return set(re.findall(r"\*\*([^*\\]+)\\?\*?\*\*", found[0])) if found else set()


def test_every_abbreviation_that_a_notebook_explains_is_in_the_glossary():
    glossary = (NOTEBOOKS / "glossary.md").read_text("utf-8")
    explained = {word for name in ALL for word in words_of(name)}
    short = {word for word in explained if word.upper() == word or re.search(r"[A-Z].*[A-Z]|ε|ᴮ|⁺", word)}
    assert len(short) > 15 and not [word for word in short if word not in glossary]
