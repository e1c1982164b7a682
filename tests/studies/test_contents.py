"""The table of contents takes up what is in the tree, and does without what is not."""

import io

import pytest
from matplotlib.figure import Figure
from PIL import Image

from studies import contents, run, study


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two notebooks of one paper and one of none, and a folder of records."""
    monkeypatch.setattr(run, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(contents, "NOTEBOOKS", tmp_path)
    for name, text in (("one/a", "# # Is it | so?\n"), ("one/b", "# %%\n1\n"), ("own", "# # Mine\n"), ("index", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / f"{name}.ipynb").touch()
    return tmp_path / "results"


def put(
    folder, experiment="one/a", scale="laptop", verdicts=("holds", "holds", "fails"), figures=(), times=(30.0, 60.0)
):
    measured = {"mean": 0.5, "low": None, "high": None, "interval": "none: 1 seed"}
    stated = [{"id": "one-1", "of": str(i), "claim": "It is *so*", "verdict": v} for i, v in enumerate(verdicts)]
    record = {"schema": study.SCHEMA, "experiment": experiment, "parameters": {"scale": scale}, "seeds": [0]}
    record |= {"claims": [claim | {"measured": measured} for claim in stated], "figures": list(figures)}
    record |= {"times": {"seed_seconds": [times[0]], "notebook_seconds": times[1]}}
    record |= dict.fromkeys(("metrics", "summary", "data", "environment", "commit"))
    study.write_json(folder / scale / experiment / "record.json", record)
    for name in figures:
        (folder / scale / experiment / "figures").mkdir()
        figure = Figure(figsize=(12, 3))
        figure.text(0.5, 0.5, name)
        figure.savefig(folder / scale / experiment / "figures" / f"{name}.png", dpi=200)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed."""
    outputs = []
    monkeypatch.setattr(contents, "display", outputs.append)
    return outputs


def test_without_records_all_notebooks_are_listed(tree):
    assert contents.notebooks_table(folder=tree).splitlines()[2:] == [
        "| [one/a](one/a.ipynb) | Is it \\| so? | no run kept yet |",
        "| [one/b](one/b.ipynb) | one/b | no run kept yet |",
        "| [own](own.ipynb) | Mine | no run kept yet |",
    ]
    assert contents.claims_table(tree) == "No record with claims is kept yet."


def test_a_record_that_is_added_appears_with_its_time_and_verdicts(tree):
    put(tree, scale="paper", times=(7200.0, 30.0), verdicts=())
    put(tree)
    put(tree, experiment="gone/away")
    (row,) = contents.notebooks_table(["one/a"], tree).splitlines()[2:]
    assert row.endswith("| *laptop*, 60.0 s: 2 holds, 1 fails<br>*paper*, 2.0 h: no claims |")


def test_claims_are_counted_by_run_and_named_once(tree):
    put(tree)
    put(tree, experiment="one/b", verdicts=("undecided", "no interval"))
    assert contents.claims_table(tree).splitlines()[2:] == [
        "| one-1: It is \\*so\\* | one/a, laptop | 2 | 1 |  |  |",
        "|  | one/b, laptop |  |  | 1 | 1 |",
    ]


def test_a_paper_is_its_picture_made_small_and_its_notebooks(tree, shown):
    put(tree, figures=["maps"])
    contents.show_paper("one", "a/maps", tree, width=300)
    picture, caption, table = shown
    found = Image.open(io.BytesIO(picture.data))
    assert found.size == (300, 75) and len(found.getcolors()) <= 128 and picture.alt == "maps"
    assert caption.data == "*Maps, from one/a at laptop scale.*"
    assert "one/a" in table.data and "one/b" in table.data and "own" not in table.data


@pytest.mark.parametrize("figure", ["", "a/none", "b/maps", "c/maps"])
def test_a_figure_that_is_not_kept_is_left_out(tree, shown, figure):
    put(tree, figures=["maps"])
    contents.show_paper("one", figure, tree)
    assert [type(part).__name__ for part in shown] == ["Markdown"]


def test_a_paper_without_notebooks_says_so(tree, shown):
    contents.show_paper("two", "a/maps", tree)
    assert [part.data for part in shown] == ["There is no notebook yet."]
