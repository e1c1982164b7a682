"""Jobs of a batch that fail, what is left to do, what is refused, and what a cluster would be given."""

from functools import partial
from importlib.util import find_spec

import pytest
import torch
import yaml

from studies import batch, run, study
from studies.records import KEYS
from studies.study import ROOT
from tests.batches import REAL, files, jobs, marks, plan

# ---------------------------------------------------------------- failures


def test_a_failing_run_is_named_the_others_run_and_it_is_done_again_next_time(notebooks, start, tmp_path):
    results = tmp_path / "results with spaces"
    broken = results / "tiny/toy/one"
    toys = ("studies.batch", "--experiments", "toy/one two", "--scale", "tiny", "--jobs", "2")
    (notebooks / "broken").touch()
    first = start(results, *toys)
    assert first.finish() == 1
    assert first.err == [
        f"error: toy/one tiny: RuntimeError: it was meant to fail (see {broken}/failed.ipynb)",
        "error: some runs failed, see the lines that begin with 'error' above",
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


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ("done: two smoke seed 0, 3 s, /r.json", "done", "done: two smoke seed 0, 3 s, /r.json"),
        ("    exec env run (one of)done: a/b laptop, 3 s, /r.json", "done", "done: a/b laptop, 3 s, /r.json"),
        ("Exiting.error: a/b smoke: E: no error: here", "error", "error: a/b smoke: E: no error: here"),
        ('Job stats:plan: [["a", "smoke", ""]]', "plan", 'plan: [["a", "smoke", ""]]'),
        ("RuleException: an error: of its own", None, None),
        ("nothing was done: all is here", None, None),
    ],
)
def test_what_a_job_says_is_found_behind_a_message_that_has_no_end_yet(line, kind, said):
    found = batch.SAID.search(line)
    assert (found and (found[1], line[found.start() :])) == (kind and (kind, said))


# ---------------------------------------------------------------- what is left


def finished(folder, experiment, seeds, seconds=0.0):
    """A record of an earlier run, with each seed's seconds and those of the notebook beside them."""
    record = dict.fromkeys(KEYS) | {"schema": study.SCHEMA, "seeds": [*range(len(seeds))], "claims": []}
    times = {"seed_seconds": seeds, "notebook_seconds": sum(seeds) + seconds}
    study.write_json(folder / experiment / "record.json", record | {"times": times})


@pytest.fixture
def progress(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.records.RECORDS", tmp_path / "kept")
    return batch.Progress(tmp_path / "results", cores=2)


JOBS = [["a/b", "laptop", "0", True, 1, 0], ["a/b", "laptop", "1", True, 1, 0], ["a/b", "laptop", "", False, 1, 0]]


def test_what_is_left_is_estimated_from_kept_records_and_the_pace_of_this_machine(progress, tmp_path, capsys):
    finished(tmp_path / "kept/laptop", "a/b", [600.0, 1200.0], 120.0)
    progress.plan(JOBS)
    assert (
        capsys.readouterr().out == "3 runs to do, about 17 min left by earlier runs\n"
    )  # (960 + 960 + 120) s / 2 cores
    line = progress.done("done: a/b laptop seed 1, 1920 s, /record.json")  # twice what was expected
    assert line.endswith("/record.json (1 of 3 done, about 32 min left by earlier runs)")  # not less than the longest
    line = progress.done("done: a/b laptop seed 0, 1920 s, /record.json")
    assert line.endswith("(2 of 3 done, about 4 min left by earlier runs)")
    assert progress.done("done: a/b laptop, 200 s, /record.json").endswith("(3 of 3 done, nothing left)")


def test_without_an_earlier_run_the_runs_so_far_tell_and_before_them_nothing(progress, capsys):
    progress.plan(JOBS)
    assert capsys.readouterr().out == "3 runs to do, time left unknown, as not all of it has run before\n"
    line = progress.done("done: a/b laptop seed 0, 300 s, /record.json")
    assert line.endswith("(1 of 3 done, about 5 min left by the runs so far)")


def test_the_run_on_this_machine_counts_before_the_kept_one_and_that_of_a_seed_before_that_of_its_study(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("studies.records.RECORDS", tmp_path / "kept")
    expected = partial(batch.earlier_seconds, tmp_path / "here", "a/b", "laptop")
    assert expected("1", True) is None
    places = {"kept/laptop/a/b": [7.0, 9.0], "here/laptop/a/b": [70.0, 90.0], "here/laptop/a/b/seeds/1": [500.0]}
    for (place, seeds), seconds in zip(places.items(), (8.0, 80.0, 500.0)):
        finished(tmp_path, place, seeds)
        assert expected("1", True) == seconds
    assert expected("0", True) == 80.0 and expected("", True) == 80.0 and expected("", False) == 0.0
    (tmp_path / "here/laptop/a/b/seeds/1/record.json").write_text("{")
    assert expected("1", True) == 80.0, "a broken record is no reason not to run"


def test_jobs_that_need_a_gpu_take_turns(progress, tmp_path, capsys):
    finished(tmp_path / "kept/paper", "a/b", [3600.0, 3600.0])
    progress.plan([["a/b", "paper", str(seed), True, 1, 1] for seed in range(2)])
    assert capsys.readouterr().out == "2 runs to do, about 2.0 h left by earlier runs\n"


def test_a_failed_seed_is_left_out_and_so_is_its_study(progress, capsys):
    progress.plan(JOBS)
    progress.failed("error: a/b laptop seed 1: RuntimeError: it was meant to fail")
    line = progress.done("done: a/b laptop seed 0, 3 s, /record.json")
    assert line.endswith("(1 of 1 done, nothing left)")


def test_a_snakemake_that_fails_by_itself_shows_why(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").write_text("raise ValueError('this file is broken')\n")
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path)
    with batch.sole_batch(tmp_path) as lock:
        problem = batch.snakemake(tmp_path, lock, "1", {})
    assert problem.startswith("Snakemake failed (exit code 1):\n") and "this file is broken" in problem


@pytest.fixture
def call(notebooks, tmp_path, monkeypatch, capfd):
    """Runs the command line in this process, for what it refuses before anything is started: (exit code, stderr)."""
    monkeypatch.setenv("ATTRAIN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(run, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(study, "NOTEBOOKS", notebooks)
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
        (["--experiments", "toy/none"], "unknown experiment 'toy/none'; there are isnet/"),
        (["--scale", "smoke huge"], "has no scale 'huge'; it has smoke, "),
        (["--device", "gpu"], "device 'gpu' cannot be used here"),
        (["--seeds", "0"], "parameter seeds must be at least 1, got 0"),
        (["--seeds", "two"], "argument --seeds: invalid int value: 'two'"),
        (["--jobs", "0"], "argument --jobs: "),
        (["--jobs", "many"], "argument --jobs: "),
        (["--sclae", "laptop"], "unrecognized arguments: --sclae"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_anything_is_started(call, arguments, words):
    code, err = call(*arguments)
    assert code in (1, 2) and len(err) == 1 and err[0].startswith("error: ") and words in err[0]


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
    for module in (run, study, batch):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    code, err = call()
    assert code == 1 and err == [f"error: there are no experiments in {tmp_path}"]


def test_at_smoke_scale_a_study_of_several_seeds_is_one_job(start, tmp_path):
    assert set(jobs(plan(start, tmp_path / "a", "--cores", 1, config=["scale=smoke", "seeds=3"]))) == marks("smoke")


# ---------------------------------------------------------------- on a cluster


def laptop_marks():
    return marks("laptop", *range(yaml.safe_load((ROOT / f"notebooks/params/{REAL}.laptop.yaml").read_text())["seeds"]))


def test_dry_run_on_slurm_has_a_job_a_seed_and_asks_for_a_gpu(start, tmp_path):
    found = jobs(
        plan(start, tmp_path / "a", "--executor", "slurm", "--jobs", 20, config=["scale=laptop", "device=cuda"])
    )
    assert set(found) == laptop_marks() and all("gpu=1" in resources for resources in found.values())


@pytest.mark.skipif(not find_spec("snakemake_storage_plugin_fs"), reason="needs snakemake-storage-plugin-fs")
def test_dry_run_on_kubernetes_has_a_job_a_seed(start, tmp_path):
    options = ("--executor", "kubernetes", "--jobs", 20)
    options += ("--default-storage-provider", "fs", "--default-storage-prefix", tmp_path)
    found = jobs(plan(start, tmp_path / "a", *options, config=["scale=laptop", f"results={tmp_path / 'a'}"]))
    assert set(found) == laptop_marks() and not any("gpu" in resources for resources in found.values())
