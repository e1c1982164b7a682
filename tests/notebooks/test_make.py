"""What make starts, with a stand-in for Python that prints its arguments."""

import os
import shutil
import subprocess

import pytest

from studies.files import ROOT

PRINTS = """#!/bin/sh
for argument in "$@"; do printf '<%s>' "$argument"; done
printf '\\n<%s>\\n' "$ATTRAIN_RESULTS"
"""
OURS = (
    "CI",
    "ALL",
    "BASE",
    "MAKEFLAGS",
    "MAKELEVEL",
    "SCALE",
    "EXPERIMENTS",
    "JOBS",
    "SEEDS",
    "DEVICE",
    "ONLY",
    "KEEP",
)
HARM = "$(shell touch harm1) $$(touch harm2) $(touch harm3) `touch harm4`; touch harm5 #\"'; touch harm6; echo '\""


@pytest.fixture
def make(tmp_path):
    """Runs make in a folder that has what it needs: the lines that are printed."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(PRINTS)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "lib/pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/.attrain-ready").touch()

    def make(*arguments, **environment):
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        kept |= {"ATTRAIN_RESULTS": "results", **environment}
        done = subprocess.run(["make", *arguments], cwd=tmp_path, env=kept, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return done.stdout.splitlines()

    return make


BATCH = "<-m><studies.batch>"


def test_what_is_not_given_is_the_batchs_default(make, tmp_path):
    assert make("reproduce") == [f"{BATCH}<--scale=smoke><--experiments=><--jobs=all>", f"<{tmp_path}/results>"]
    more = make("reproduce", "SEEDS=2", "DEVICE=cuda", "JOBS=4", "SCALE=smoke laptop", "ATTRAIN_RESULTS=/a b/c")
    assert more == [f"{BATCH}<--scale=smoke laptop><--experiments=><--jobs=4><--seeds=2><--device=cuda>", "</a b/c>"]


@pytest.mark.parametrize("given", ["on the command line", "in the environment"])
@pytest.mark.parametrize(
    ("target", "names", "told"),
    [
        ("reproduce", "SCALE EXPERIMENTS JOBS SEEDS DEVICE", "scale experiments jobs seeds device"),
        ("bench", "DEVICE ONLY KEEP", "device only keep"),
        ("reproduce", "ATTRAIN_DATA PYTHON BASE TORCH_INDEX ALL", ""),
        ("validate", "BASE", ""),
    ],
)
def test_no_variable_reaches_a_shell(make, tmp_path, target, names, told, given):
    values = dict.fromkeys(names.split(), HARM)
    if given == "in the environment":
        lines = make(target, **values)
    else:
        lines = make(target, *(f"{name}={value}" for name, value in values.items()))
    assert not list(tmp_path.rglob("harm*"))
    assert all(f"<--{option}={HARM}>" in "\n".join(lines) for option in told.split())


def test_results_with_a_command_in_their_name_are_a_folder_of_that_name(make, tmp_path):
    assert make("reproduce", f"ATTRAIN_RESULTS={HARM}")[-1] == f"<{tmp_path}/{HARM}>"
    assert not list(tmp_path.rglob("harm*"))


def test_make_validates_the_notebooks_that_differ_and_in_ci_all(make, tmp_path):
    """`make validate` names to nbval what differs from BASE, be it committed or not."""
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
    for name in ("tour", "isnet/covid_xray", "own_model"):
        for ending in ("py", "ipynb"):
            (tmp_path / f"notebooks/{name}.{ending}").parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"notebooks/{name}.{ending}").write_text("{}")
    for command in (["init", "-q"], ["add", "notebooks"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)

    def validated(**environment) -> list[str]:
        line = make("validate", "BASE=HEAD", **environment)[0]
        return line.partition("<--nbval-current-env>")[2].strip("<>").split("><") if "<" in line else [line]

    assert validated() == ["no notebook differs from HEAD"]
    (tmp_path / "notebooks/tour.py").write_text("1 + 1")
    (tmp_path / "notebooks/isnet/covid_xray.ipynb").write_text("{ }")
    (tmp_path / "notebooks/own_model.ipynb").unlink()
    assert validated() == ["notebooks/isnet/covid_xray.ipynb", "notebooks/tour.ipynb"]
    assert validated(CI="true") == validated(ALL="1") == ["notebooks"]


PIP = """#!/bin/sh
echo "pip $@"
case "$*" in *mistyped*) exit 1; esac
"""


def test_a_mistyped_index_of_torch_ends_the_install_before_anything_else_is_downloaded(make, tmp_path):
    (tmp_path / ".venv/.attrain-ready").unlink()
    (tmp_path / ".venv/bin/pip").write_text(PIP)
    (tmp_path / ".venv/bin/pip").chmod(0o755)
    lines = [line for line in make("install", "TORCH_INDEX=https://right") if line.startswith("pip ")]
    assert [" --index-url https://right torch==" in line for line in lines] == [True, False, False]
    (tmp_path / ".venv/.attrain-ready").unlink()
    command = ["make", "install", "TORCH_INDEX=https://mistyped"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and done.stdout.count("pip ") == 1
    assert "error: TORCH_INDEX must be the address of an index" in done.stderr and "got https://mistyped" in done.stderr
