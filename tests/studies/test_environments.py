"""A study in other people's environments: a home that cannot be written to, another locale, python -OO, odd paths."""

import json
import os
import subprocess
import sys

import pytest

from tests.batches import STUDY, records

NOWHERE = {name: "/proc/nowhere" for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
SETTINGS = {
    "no home, the locale C, python -OO, no screen": NOWHERE
    | {"LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Kiritimati", "PYTHONOPTIMIZE": "2", "MPLBACKEND": "Agg"},
    "warnings are errors, as many threads as there are": {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": ""},
}


def run(notebooks, folder, **settings):
    """Run the study into a folder of that name; returns what `records` says of it."""
    (folder / "tmp é").mkdir(parents=True)
    own = {"ATTRAIN_NOTEBOOKS": str(notebooks), "ATTRAIN_RESULTS": str(folder), "TMPDIR": str(folder / "tmp é")}
    environment = {name: value for name, value in (os.environ | own | settings).items() if value}
    command = [sys.executable, "-m", "studies.run", STUDY, "--scale", "tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=400)
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    book = json.loads((folder / "tiny" / STUDY / "notebook.ipynb").read_text("utf-8"))
    assert any(cell.get("outputs") for cell in book["cells"])
    return {name: {k: v for k, v in each.items() if k != "digest"} for name, each in records(folder).items()}


@pytest.fixture(scope="module")
def usual(notebooks, tmp_path_factory):
    return run(notebooks, tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_study_makes_the_same_record(setting, usual, notebooks, tmp_path):
    assert run(notebooks, tmp_path / "größer (1)", **SETTINGS[setting]) == usual and len(usual) == 1
