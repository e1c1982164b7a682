"""CONTRIBUTING's worked examples do what they say: a data set, a paper. (Its doctests: tests/attrain.)"""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

import data_prep
from data_prep.__main__ import main
from studies.files import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TABLE = "width,height,weight,river\n10,20,2.5,0\n11,7,1.25,1\n"


def block(first: str, language: str = "python") -> str:
    """The block of code that begins with this line."""
    return re.search(rf"^```{language}\n({re.escape(first)}\n.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def pebbles(tmp_path, monkeypatch):
    """The example's data set beside the others, with a table at its address."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code/pebbles.py").write_text(block("# data_prep/pebbles.py"))
    (tmp_path / "published.csv").write_text(TABLE)
    monkeypatch.setattr(data_prep, "__path__", [*data_prep.__path__, str(tmp_path / "code")])
    monkeypatch.setattr(data_prep, "DATASETS", (*data_prep.DATASETS, "pebbles"))
    module = data_prep.dataset("pebbles")
    monkeypatch.setattr(module, "SOURCE", (tmp_path / "published.csv").as_uri())
    monkeypatch.setattr(module, "SHA256", data_prep.sha256(tmp_path / "published.csv"))
    yield module
    del sys.modules["data_prep.pebbles"]


def test_the_data_set_is_missing_then_fetched_and_read_and_refused_once_it_is_damaged(pebbles, tmp_path, capsys):
    with pytest.raises(data_prep.DataError, match="missing: python -m data_prep pebbles"):
        pebbles.load(tmp_path)
    assert main(["pebbles", "--root", str(tmp_path)]) == 0 and capsys.readouterr().out == "pebbles: ready\n"
    found = pebbles.load(tmp_path)
    assert torch.equal(found["train_x"], torch.tensor([[10, 20, 2.5], [11, 7, 1.25]]))
    assert found["train_y"].tolist() == [0, 1]
    pebbles.prepare(tmp_path).write_text(TABLE.replace("1.25", "1.26"))
    with pytest.raises(data_prep.DataError, match="corrupt"):
        pebbles.load(tmp_path)


@pytest.mark.parametrize("name", ["NAME", "TITLE", "SIZE", "LICENCE", "SOURCE", "load", "prepare", "checksums"])
def test_the_data_set_has_all_that_the_text_asks_for(pebbles, name):
    assert f"`{name}`" in TEXT and getattr(pebbles, name)


@pytest.mark.ci
def test_the_paper_runs_and_its_record_has_what_it_claims(tmp_path):
    folder = tmp_path / "notebooks/halves"
    folder.mkdir(parents=True)
    (folder / "left_half.py").write_text(block("# notebooks/halves/left_half.py"))
    (folder.parent / "claims.yaml").write_text(block("halves-1:", "yaml"))
    (command,) = re.findall(r"`.venv/bin/(jupytext [^`]*) notebooks/<paper>/<name>.py`", TEXT)
    subprocess.run([sys.executable, "-m", *command.split(), folder / "left_half.py"], check=True, capture_output=True)
    environment = os.environ | {
        "ATTRAIN_NOTEBOOKS": str(folder.parent),
        "ATTRAIN_RESULTS": str(tmp_path / "results"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "lib"), str(ROOT)]),
    }
    run = [sys.executable, "-m", "studies.run", "halves/left_half"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "results/smoke/halves/left_half/record.json").read_text("utf-8"))
    (claim,) = record["claims"]
    assert record["summary"]["accuracy"]["mean"] > 0.7 and claim["id"] == "halves-1"
    assert claim["measured"]["mean"] == pytest.approx(record["summary"]["share"]["mean"]) and claim["above"] == 0.5
    assert 0.5 < claim["measured"]["low"] < claim["measured"]["mean"] < 1
