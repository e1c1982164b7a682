"""Jobs of a batch that fail, what is left to do, what is refused, and what a cluster would be given."""

import shutil
from importlib.util import find_spec

import pytest
import torch

from studies import batch, parameters
from studies.files import ROOT
from tests.batches import TOY, files, jobs, marks, plan, write_notebook

# ---------------------------------------------------------------- failures


def test_a_failing_run_is_named_the_others_run_and_it_is_done_again_next_time(notebooks, start, tmp_path):
    results = tmp_path / "results with spaces"
    broken = results / "tiny/toy/one"
    toys = ("studies.batch", "--experiments", "toy/one two", "--scale", "tiny", "--jobs", "2")
    (notebooks / "broken").touch()
    first = start(results, *toys)
    assert first.finish() == 1
    assert [line for line in first.err if line.startswith("error: ")] == [
        f"error: toy/one tiny: RuntimeError: it was meant to fail (see {broken}/failed.ipynb)",
        "error: not everything has run, see the lines above",
    ]
    done = sorted(line.split(",")[0] for line in first.out if line.startswith("done:"))
    assert done == ["done: two tiny", "done: two tiny seed 0", "done: two tiny seed 1"]
    assert first.out[-3].split()[:2] == ["two", "tiny"] and first.out[-1] == f"{results}/report.html"
    assert not (broken / "record.json").exists() and (broken / "failed.ipynb").exists()
    kept = files(results / "tiny/two")

    (notebooks / "broken").unlink()
    again = start(results, *toys)
    assert again.finish() == 0 and not again.err
    assert [line.split(",")[0] for line in again.out if line.startswith("done:")] == ["done: toy/one tiny"]
    assert not (broken / "failed.ipynb").exists() and (broken / "notebook.ipynb").exists()
    assert files(results / "tiny/two") == kept


def test_a_snakemake_that_fails_by_itself_shows_why(notebooks, start, tmp_path):
    folder = shutil.copytree(notebooks, tmp_path / "notebooks")
    (folder / "Snakefile").write_text("raise ValueError('this file is broken')\n")
    command = start(tmp_path / "results", "studies.batch", notebooks=folder)
    assert command.finish() == 1 and "this file is broken" in "\n".join(command.err)
    assert command.err[-1] == "error: not everything has run, see the lines above"


@pytest.fixture
def call(notebooks, tmp_path, monkeypatch, capfd):
    """Runs the command line in this process, for what it refuses before anything is started: (exit code, stderr)."""
    monkeypatch.setenv("ATTRAIN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(parameters, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(batch, "snakemake", lambda *_: pytest.fail("the batch was started"))

    def call(*arguments):
        try:
            code = batch.main(list(arguments))
        except SystemExit as error:
            code = error.code
        captured = capfd.readouterr()
        assert not captured.out
        return code, captured.err.splitlines()

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--experiments", "toy/none"],
            "unknown experiment 'toy/none' (did you mean toy/one?); there are toy/one, toy/steps, two",
        ),
        (["--scale", "smoke huge"], "has no scale 'huge'; it has smoke, "),
        (["--device", "gpu"], "device 'gpu' cannot be used here"),
        (["--seeds", "0"], "parameter seeds must satisfy seeds ≥ 1, got 0"),
        (["--seeds", "two"], "argument --seeds: invalid int value: 'two'"),
        (["--jobs", "0"], "argument --jobs: must be all or a whole number from 1 on, got '0'"),
        (["--jobs=-1"], "argument --jobs: must be all or a whole number from 1 on, got '-1'"),
        (["--jobs", "1.5"], "argument --jobs: must be all or a whole number from 1 on, got '1.5'"),
        (["--jobs="], "argument --jobs: must be all or a whole number from 1 on, got ''"),
        (["--jobs", "many"], "argument --jobs: must be all or a whole number from 1 on, got 'many'"),
        (["--experiments", "toy/steps", "--scale", "greedy"], "threads must satisfy 1 ≤ threads ≤ 1024, got 100000"),
        (["--sclae", "laptop"], "unrecognized arguments: --sclae"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_started(call, arguments, words):
    code, err = call(*arguments)
    assert code in (1, 2) and len(err) == 1 and err[0].startswith("error: ") and words in err[0]


def test_data_that_are_missing_are_said_once_in_one_line_before_anything_is_started(call, monkeypatch, tmp_path):
    books = tmp_path / "books"
    books.mkdir()
    for name, data in (("a", "mnist"), ("b", "mnist"), ("c", "trec"), ("d", "digits")):
        write_notebook(books, name, [f'dataset: str = "{data}"\n{TOY}', "pass"])
    monkeypatch.setattr(parameters, "NOTEBOOKS", books)
    monkeypatch.setenv("ATTRAIN_DATA", str(tmp_path / "none"))
    code, err = call()
    assert code == 1 and len(err) == 1 and err[0].startswith("error: mnist: ") and "; trec: " in err[0]
    for remedy in ("python -m data_prep mnist", "python -m data_prep trec"):
        assert err[0].count(remedy) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_started(call):
    code, err = call("--device", "cuda")
    assert code == 1 and len(err) == 1 and err[0].startswith("error: device 'cuda' cannot be used here")


@pytest.mark.parametrize("folder", ["/proc/attrain", f"{__file__}/below"])
def test_a_results_folder_that_cannot_be_written_to_is_refused(call, monkeypatch, folder):
    monkeypatch.setenv("ATTRAIN_RESULTS", folder)
    code, err = call()
    assert (
        code == 1 and len(err) == 1 and err[0].startswith("error: ") and "cannot write to the output folder" in err[0]
    )


def test_no_notebooks_at_all_are_an_error(call, monkeypatch, tmp_path):
    for module in (parameters, batch):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    code, err = call()
    assert code == 1 and err == [f"error: there are no experiments in {tmp_path}"]


def test_at_smoke_scale_a_study_of_several_seeds_is_one_job(start, tmp_path):
    assert set(jobs(plan(start, tmp_path / "a", "--cores", 1, config=["scale=smoke", "seeds=3"]))) == marks("smoke")


# ---------------------------------------------------------------- on a cluster


LAPTOP = marks("laptop", 0, 1, 2)
CLUSTER = ROOT / "notebooks/cluster"


def test_dry_run_on_slurm_has_a_job_a_seed_and_asks_for_a_gpu(start, tmp_path):
    found = jobs(plan(start, tmp_path / "a", "--profile", CLUSTER / "slurm", config=["scale=laptop", "device=cuda"]))
    assert set(found) == LAPTOP and all("gpu=1" in resources for resources in found.values())
    assert all("runtime=1440" in resources and "mem_mb=16000" in resources for resources in found.values())


@pytest.mark.skipif(not find_spec("snakemake_storage_plugin_fs"), reason="needs snakemake-storage-plugin-fs")
def test_dry_run_on_kubernetes_has_a_job_a_seed(start, tmp_path):
    options = ("--profile", CLUSTER / "kubernetes", "--default-storage-prefix", tmp_path)
    found = jobs(plan(start, tmp_path / "a", *options, config=["scale=laptop", f"results={tmp_path / 'a'}"]))
    assert set(found) == LAPTOP and not any("gpu" in resources for resources in found.values())
    assert all("runtime=1440" in resources and "mem_mb=16000" in resources for resources in found.values())
