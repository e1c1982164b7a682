"""Every notebook is paired, executed, documented and clean; nbval checks that its outputs still hold."""

import ast
import json
import math
import re
from importlib.util import find_spec
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
import yaml
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command

from studies.files import NOTEBOOKS, ROOT
from studies.parameters import declared, experiments, settings

SCRIPTS = [path for path in NOTEBOOKS.rglob("*.py") if "results" not in path.parts]
ALL = sorted(str(path.relative_to(NOTEBOOKS).with_suffix("")) for path in SCRIPTS)
PARAMETERS = {"scale", "seed", "seeds", "device", "threads", "out"}


def notebook(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def cells(book):
    return [(cell.cell_type, cell.source, sorted(cell.metadata.get("tags", []))) for cell in book.cells]


def outputs(name):
    return [output for cell in notebook(name).cells for output in cell.get("outputs", [])]


def test_every_notebook_has_its_script():
    books = {
        str(p.relative_to(NOTEBOOKS).with_suffix("")) for p in NOTEBOOKS.rglob("*.ipynb") if "." not in p.parent.name
    }
    assert books == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_notebook_and_script_are_in_step(name):
    assert cells(notebook(name)) == cells(jupytext.read(NOTEBOOKS / f"{name}.py")), "make notebooks"


@pytest.mark.parametrize("name", ALL)
def test_notebook_is_executed_in_order_without_errors(name):
    code = [cell for cell in notebook(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "make notebooks"
    assert not any(output.output_type == "error" for output in outputs(name))


@pytest.mark.parametrize("name", ALL)
def test_outputs_are_clean(name):
    book = notebook(name)
    text = json.dumps([output for cell in book.cells for output in cell.get("outputs", [])])
    assert str(ROOT) not in text and not re.search(r"/(root|home|Users|tmp)/", text), "a path of one machine"
    assert "Warning" not in text and "\\r" not in text
    assert "papermill" not in json.dumps(book.metadata) + json.dumps([cell.metadata for cell in book.cells])
    assert book.metadata.kernelspec.name == "python3"
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", experiments())
def test_nbval_compares_at_least_three_cells(name):
    checked = [cell for cell in notebook(name).cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(checked) >= 3 and all(cell.outputs for cell in checked)


@pytest.mark.parametrize("name", experiments())
def test_every_parameter_has_a_type_a_plain_default_and_help(name):
    tagged = [cell for cell in notebook(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and notebook(name).cells.index(tagged[0]) <= 1, "the first code cell"
    found = declared(name)
    assert PARAMETERS <= found.keys() and len(found) == len(tagged[0].source.splitlines())
    for parameter, about in found.items():
        assert about["type"] in ("int", "float", "str", "bool") and len(about["help"]) > 5, parameter
        assert type(about["default"]).__name__ == about["type"], parameter
    assert found["scale"]["default"] == "smoke" and found["device"]["default"] == "cpu"


@pytest.mark.parametrize("name", experiments())
def test_papermills_help_shows_every_parameter_with_its_type_default_and_meaning(name):
    path = str(NOTEBOOKS / f"{name}.ipynb")
    shown = papermill.inspect_notebook(path)
    found = {
        parameter: {"type": p["inferred_type_name"], "default": ast.literal_eval(p["default"]), "help": p["help"]}
        for parameter, p in shown.items()
    }
    own = {parameter: {k: v for k, v in p.items() if k != "range"} for parameter, p in declared(name).items()}
    assert found == own
    printed = CliRunner().invoke(papermill_command, ["--help-notebook", path])
    assert printed.exit_code == 0, printed.output
    words = " ".join(printed.output.split())  # it breaks long lines
    for parameter, about in found.items():
        assert f"{parameter}: {about['type']} (default {shown[parameter]['default']})" in words
        assert " ".join(about["help"].split()) in words


@pytest.mark.parametrize("file", sorted((NOTEBOOKS / "params").rglob("*.yaml")), ids=lambda f: f.stem)
def test_every_scale_is_of_a_notebook_and_sets_known_parameters(file):
    experiment, scale = str(file.relative_to(NOTEBOOKS / "params")).removesuffix(".yaml").rsplit(".", 1)
    values = settings(experiment, scale)
    assert values["scale"] == scale and values == yaml.safe_load(file.read_text())


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_has_a_laptop_and_a_paper_scale(name):
    assert settings(name, "laptop")["seeds"] >= 3 and settings(name, "paper")


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_has_no_name_of_a_package(name):
    """A kernel finds what lies beside its notebook first: a notebook called transformers hid the package there."""
    assert find_spec(Path(name).name) is None or Path(name).name in ("index", "tour")


@pytest.mark.parametrize("name", experiments())
def test_every_number_among_the_parameters_has_a_range_that_the_scales_keep_to_and_nonsense_does_not(name):
    ours = declared(name)
    for scale in ("smoke", *(path.name.split(".")[1] for path in (NOTEBOOKS / "params").glob(f"{name}.*.yaml"))):
        settings(name, scale)  # raises where a value is out of range
    for parameter, about in ours.items():
        if about["type"] in ("int", "float"):
            for value in {"int": (-1,), "float": (-1.0, math.nan, math.inf)}[about["type"]]:
                with pytest.raises(ValueError, match=f"parameter {parameter} must "):
                    settings(name, "smoke", {parameter: value})
        elif about["range"] and about["type"] == "bool":
            with pytest.raises(ValueError, match=f"parameter {parameter} must satisfy"):
                settings(name, "smoke", {parameter: not about["default"]})
        elif about["range"]:  # of each number that it lists
            with pytest.raises(ValueError, match=f"parameter {parameter} must satisfy"):
                settings(name, "smoke", {parameter: f"{about['default']}, -1"})


@pytest.mark.parametrize("name", ALL)
def test_code_cells_are_short(name):
    code = [c for c in notebook(name).cells if c.cell_type == "code" and "parameters" not in c.metadata.get("tags", [])]
    read = lambda cell: [line for line in cell.source.splitlines() if not line.startswith(("import ", "from "))]  # noqa: E731
    assert max(len(read(cell)) for cell in code) <= 20
