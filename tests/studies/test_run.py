"""One notebook run from the command line: what it leaves, what it refuses, and how it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from studies import digests, parameters, run
from studies.files import ROOT, remove_scratch, scratch_folder, write_bytes
from studies.records import load_records
from tests.batches import STUDY, write_notebook
from tests.conftest import flipped

REAL = "isnet/mnist_background_bias"
PARAMETERS = {
    "scale": ("str", "smoke", "the settings"),
    "rate": ("float", 0.5, "a number [rate > 0]"),
    "fast": ("bool", True, "a switch"),
    "action": ("str", "", "what goes wrong"),
    "seed": ("int", 0, "first seed"),
    "seeds": ("int", 1, "number of seeds"),
    "device": ("str", "cpu", "where"),
    "threads": ("int", 1, "CPU threads"),
    "out": ("str", "", "output folder"),
}
TOY = [
    "\n".join(f"{name}: {kind} = {value!r}  # {text}" for name, (kind, value, text) in PARAMETERS.items()),
    """
import os, sys, time, torch
from studies.study import Study
study = Study("toy/steps", globals())""",
    """
def run(seed):
    if action == "raise":
        raise RuntimeError("it was meant to\\nfail")
    if action == "data":
        from data_prep import mnist
        mnist.load()
    if action == "log":
        get_ipython().kernel.log.error("KeyboardInterrupt caught in kernel.")
    if action == "die":
        os._exit(1)
    if action == "wait":
        open(os.path.join(os.environ["ATTRAIN_RESULTS"], f"waiting-{os.getppid()}"), "w").close()
        time.sleep(60)
    ballast = torch.zeros(10**6 if action == "fill" else 1)
    return {"metrics": {"value": seed * rate}, "ballast": ballast}""",
    "results = [study.seed(s, run) for s in study.seeds]",
    "study.finish(results)",
]


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """A toy that fails on demand, with a tiny scale; and a real study with one."""
    folder = tmp_path_factory.mktemp("note books")
    (folder / "params/toy").mkdir(parents=True)
    write_notebook(folder, STUDY, TOY)
    (folder / f"params/{STUDY}.tiny.yaml").write_text("scale: tiny\nrate: 0.25\nseeds: 1\n")
    for scale in ("laptop", "paper"):
        (folder / f"params/{STUDY}.{scale}.yaml").write_text(f"scale: {scale}\n")
    for file in (f"{REAL}.py", f"{REAL}.ipynb", "claims.yaml"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "notebooks" / file, folder / file)
    (folder / "params" / REAL).parent.mkdir()
    (folder / f"params/{REAL}.tiny.yaml").write_text("scale: tiny\nepochs: 1\nn_train: 32\nrange_images: 32\n")
    return folder


@pytest.fixture(autouse=True)
def _isolated(notebooks, results, monkeypatch):
    """Nothing is read from or written to the repository's own folders, in this process or in a kernel."""
    monkeypatch.setenv("ATTRAIN_NOTEBOOKS", str(notebooks))
    for module in (run, parameters):
        monkeypatch.setattr(module, "NOTEBOOKS", notebooks)


@pytest.fixture
def call(capfd):
    """Runs the command line in this process: (exit code, lines of stdout, lines of stderr)."""

    def call(*arguments):
        try:
            code = run.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        captured = capfd.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


@contextmanager
def tmpfs(folder: Path, options: str):
    """A small file system of its own, where this user may mount one."""
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def files(folder):
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


# ---------------------------------------------------------------- parameters, without running anything


def test_experiments_are_the_paired_notebooks_at_the_top_or_one_folder_down(notebooks, tmp_path, monkeypatch):
    assert parameters.experiments() == [REAL, "toy/steps"]
    for name in (
        "a/b",
        "a/.ipynb_checkpoints/b-checkpoint",
        ".ipynb_checkpoints/c-checkpoint",
        *parameters.PAGES,
        "a/b/c",
        "d",
    ):
        for ending in (".py", ".ipynb"):
            file = tmp_path / f"{name}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    (tmp_path / "a/unpaired.ipynb").touch()
    (tmp_path / "a/helper.py").touch()
    monkeypatch.setattr(parameters, "NOTEBOOKS", tmp_path)
    assert parameters.experiments() == ["a/b", "d"]


def test_declared_reads_type_default_and_help_of_each_parameter():
    found = parameters.declared("toy/steps")
    ranges = {"seed": "0 ≤ seed < 2**32", "seeds": "seeds ≥ 1", "threads": "1 ≤ threads ≤ 1024", "rate": "rate > 0"}
    for name, (kind, value, text) in PARAMETERS.items():
        assert found.pop(name) == {"type": kind, "default": value, "help": text, "range": ranges.get(name, "")}
    assert not found


def test_values_are_read_as_the_types_that_the_notebook_declares():
    given = [("rate", "1e-2"), ("fast", "False"), ("action", "1"), ("seeds", "3"), ("unknown", "x")]
    values = parameters.parse_values(given, "toy/steps")
    assert values == {"rate": 0.01, "fast": False, "action": "1", "seeds": 3, "unknown": "x"}
    assert [type(v) for v in values.values()] == [float, bool, str, int, str]


@pytest.mark.parametrize("pair", [("rate", "high"), ("fast", "1"), ("seeds", "2.5"), ("seeds", ""), ("scale", "paper")])
def test_values_that_do_not_fit_are_refused_by_name(pair):
    with pytest.raises(ValueError, match=f"parameter {pair[0]} "):
        parameters.parse_values([pair], "toy/steps")


def test_settings_are_the_scales_file_then_what_is_given():
    assert parameters.settings("toy/steps", "smoke") == {"scale": "smoke"}
    assert parameters.settings("toy/steps", "smoke", {"seeds": 2}) == {"scale": "smoke", "seeds": 2}
    assert parameters.settings("toy/steps", "tiny", {"seeds": 4}) == {"scale": "tiny", "rate": 0.25, "seeds": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no YAML"), ("- 1", "is no YAML"), ("scale: other", "must say scale: own"), ("rat: 1", "'rat'"),
     ("rate: 1e-4", "rate must be float"), ("seeds: 0", "satisfy seeds ≥ 1"), ("", None), ("rate: 2", None)],
)  # fmt: skip
def test_settings_file_is_checked(notebooks, text, message):
    file = notebooks / "params/toy/steps.own.yaml"
    file.write_text(text)
    try:
        if message:
            with pytest.raises(ValueError, match=message):
                parameters.settings("toy/steps", "own")
        else:
            assert parameters.settings("toy/steps", "own")["scale"] == "own"
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("text", "kept"),
    [("a\n", "a\n"), ("\r 10%\r 50%\r100%\n", "100%\n"), ("one\r\ntwo\r\n", "one\ntwo\n"), ("x\r", "x"), ("", ""),
     ("first\n 0%|\r 9%|\nlast", "first\n 9%|\nlast")],
)  # fmt: skip
def test_of_a_progress_bar_its_last_state_is_kept(text, kept):
    cell = new_code_cell(outputs=[new_output("stream", name="stderr", text=text), new_output("display_data")])
    run.collapse_progress(new_notebook(cells=[new_code_cell(), cell]))
    assert cell.outputs[0].text == kept


def test_sockets_lie_where_their_paths_are_short_enough(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with scratch_folder() as folder:
        assert len(f"{folder}/kernel-5") < 100


@pytest.fixture
def aside(monkeypatch):
    """A temporary folder of the test's own, whose path is short enough for scratch folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_scratch_folder_is_there_for_its_block_alone(aside):
    with scratch_folder() as folder:
        remove_scratch()  # another process's
        assert Path(folder).is_dir() and Path(folder).name in left(aside)
    assert left(aside) == []


@pytest.mark.parametrize(
    "stopped_at",
    [
        pytest.param("fcntl.flock", id="when its lock is made"),
        pytest.param("Path.mkdir", id="when it is made"),
        pytest.param("_", id="while it is worked in"),
    ],
)
def test_a_scratch_folder_of_a_killed_process_is_removed_whenever_that_was(aside, stopped_at):
    code = f"""
import os, fcntl
from pathlib import Path
from studies import files
def die(*_, **__):
    os._exit(9)
{stopped_at} = die
with files.scratch_folder() as folder:
    Path(folder, "kernel").write_text("x")
    die()
"""
    environment = os.environ | {"TMPDIR": str(aside)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 9
    assert left(aside)
    remove_scratch()
    assert left(aside) == []


def test_a_scratch_folder_into_which_something_is_written_while_it_is_removed_is_removed_later(aside, monkeypatch):
    with monkeypatch.context() as patch:

        def written_to(folder):
            Path(folder, "late").touch()
            os.rmdir(folder)

        patch.setattr(shutil, "rmtree", written_to)
        with scratch_folder():
            pass
        assert len(left(aside)) == 2
    remove_scratch()
    assert left(aside) == []


def test_a_run_is_finished_only_with_its_mark_and_these_parameters(tmp_path):
    wanted = {"rate": 1, "seeds": 2, "out": "elsewhere"}
    finished = partial(run.is_finished, "toy/steps", tmp_path)
    assert not finished(wanted)
    picture = tmp_path / "figures/line.png"
    write_bytes(picture, b"drawn")
    record = {"schema": 2, "parameters": {"rate": 1.0, "seeds": 2}, "figures": {"line": digests.sha256(b"drawn")}}
    record |= {"digest": digests.record_digest(record)}
    (tmp_path / "record.json").write_text(json.dumps(record))
    assert not finished(wanted)
    (tmp_path / run.FINISHED).write_text(run.digest("toy/steps"))
    assert finished(wanted)
    assert not finished(wanted | {"seeds": 3})
    (tmp_path / run.FINISHED).write_text("of other code")
    assert not finished(wanted)
    (tmp_path / run.FINISHED).write_text(run.digest("toy/steps"))
    assert finished(wanted)
    picture.write_bytes(b"drown")
    assert not finished(wanted)
    picture.unlink()
    assert not finished(wanted)
    picture.write_bytes(b"drawn")
    assert finished(wanted)
    for text in ("{", "[]", "{}", json.dumps(record | {"seeds": [1]})):
        (tmp_path / "record.json").write_text(text)
        assert not finished(wanted)


def test_a_run_is_stale_once_a_code_cell_or_a_claim_has_changed_and_not_by_outputs_words_comments_or_times(
    notebooks, tmp_path, monkeypatch
):
    folder = shutil.copytree(notebooks, tmp_path / "edited")
    for module in (run, parameters):
        monkeypatch.setattr(module, "NOTEBOOKS", folder)
    before, file = run.digest("toy/steps"), folder / "toy/steps.ipynb"
    book = nbformat.read(file, as_version=4)
    book.cells[-1].outputs = [new_output("stream", text="said")]
    book.cells.append(new_markdown_cell("Words."))
    nbformat.write(book, file)
    os.utime(folder / "claims.yaml", (0, 0))
    assert run.digest("toy/steps") == before
    book.cells[1].source += "  # explained"
    nbformat.write(book, file)
    assert run.digest("toy/steps") == before
    book.cells[1].source += "\nedited = 1"
    nbformat.write(book, file)
    assert run.digest("toy/steps") != before
    shutil.copy(notebooks / "toy/steps.ipynb", file)
    assert run.digest("toy/steps") == before
    with open(folder / "claims.yaml", "a") as claims:
        claims.write("# explained\n")
    assert run.digest("toy/steps") == before
    with open(folder / "claims.yaml", "a") as claims:
        claims.write("edited: 1\n")
    assert run.digest("toy/steps") != before


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toy/none"], "unknown experiment 'toy/none'; there are isnet/"),
        (["toy/steps", "--scale", "huge"], "no scale 'huge'; it has smoke, laptop, paper, "),
        (
            ["toy/steps", "-p", "sed", "1"],
            "unknown parameter 'sed' (did you mean seed?); this notebook takes action, device, ",
        ),
        (["toy/steps", "-p", "sed=1"], "unknown parameter 'sed' (did you mean seed?); this notebook takes action, "),
        (["toy/steps", "-p", "seeds=two", "-p", "rate", "1"], "parameter seeds must be int, got 'two'"),
        (["toy/steps", "-p", "seeds"], "argument -p/--parameter: expected 2 arguments"),
        (["toy/steps", "-p", "seeds", "two"], "parameter seeds must be int, got 'two'"),
        (["toy/steps", "-p", "seeds", "0"], "parameter seeds must satisfy seeds ≥ 1, got 0"),
        (["toy/steps", "-p", "threads", "0"], "parameter threads must satisfy 1 ≤ threads ≤ 1024, got 0"),
        (["toy/steps", "-p", "threads", "100000"], "parameter threads must satisfy 1 ≤ threads ≤ 1024, got 100000"),
        (["toy/steps", "-p", "seed", "-1"], "parameter seed must satisfy 0 ≤ seed < 2**32, got -1"),
        (["toy/steps", "-p", "rate", "nan"], "parameter rate must satisfy rate > 0, got nan"),
        (["toy/steps", "-p", "rate", "inf"], "parameter rate must be finite, got inf"),
        ([REAL, "-p", "P", "3"], "parameter P must satisfy 0 ≤ P ≤ 1, got 3.0"),
        ([REAL, "-p", "lr", "0"], "parameter lr must satisfy lr > 0, got 0.0"),
        ([REAL, "-p", "epochs", "-1"], "parameter epochs must satisfy epochs ≥ 1, got -1"),
        ([REAL, "-p", "sweep_P", "0.1, 3"], "parameter sweep_P must satisfy 0 ≤ sweep_P ≤ 1, got '0.1, 3'"),
        ([REAL, "-p", "sweep_P", "much"], "parameter sweep_P must list numbers, got 'much'"),
        (["toy/steps", "-p", "out", "there"], "parameter out is given by --out"),
        (["toy/steps", "-p", "device", "gpu"], "device 'gpu' cannot be used here"),
        (["toy/steps", "-p", "device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["toy/steps", "--out", "/proc/attrain"], "cannot write to the output folder"),
        (["toy/steps", "--out", f"{__file__}/below"], "cannot write to the output folder"),
        (["toy/steps", "--loud"], "unrecognized arguments: --loud"),
        ([], "the following arguments are required: experiment"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(call, arguments, words, results):
    code, out, err = call(*arguments)
    assert code in (1, 2) and not out
    assert len(err) == 1 and err[0].startswith("error: ") and words in err[0]
    assert not list(results.rglob("*.ipynb"))


def test_a_refusal_on_a_terminal_is_one_line(results):
    command = [sys.executable, "-m", "studies.run", "toy/steps", "-p", "sed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and not done.stdout and not results.exists()
    assert done.stderr.startswith("error: toy/steps smoke: unknown parameter 'sed'") and done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_one_line(call):
    code, _, err = call("toy/steps", "-p", "device", "cuda")
    assert code == 1 and len(err) == 1 and "device 'cuda' cannot be used here" in err[0] and "try device=cpu" in err[0]


def test_a_folder_that_is_read_only_or_full_is_refused_and_keeps_its_record(call, tmp_path):
    with tmpfs(tmp_path / "disk", "size=64k") as disk:
        (disk / "record.json").write_text("kept")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        code, _, err = call("toy/steps", "--out", disk)
        assert code == 1 and len(err) == 1 and f"Read-only file system: '{disk}'" in err[0]
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        (disk / "other").write_bytes(bytes(60 << 10))
        code, _, err = call("toy/steps", "--out", disk)
        assert code == 1 and len(err) == 1 and f"No space left on device: '{disk}'" in err[0]
        assert (disk / "record.json").read_text() == "kept"


def test_a_parameter_may_be_given_as_name_and_value_or_with_a_sign_between():
    given = ["toy/steps", "-p", "rate=1", "--parameter", "action=a=b", "-p", "seeds", "x=2", "--scale=smoke"]
    read = ["toy/steps", "-p", "rate", "1", "--parameter", "action", "a=b", "-p", "seeds", "x=2", "--scale=smoke"]
    assert run._pairs(given) == read and run._pairs(read) == read


# ---------------------------------------------------------------- runs


def test_a_failing_run_says_why_and_leaves_what_an_earlier_one_has_made(call, results):
    folder = results / "smoke/toy/steps"
    assert call("toy/steps")[::2] == (0, [])
    kept = files(folder)
    code, out, err = call("toy/steps", "-p", "action", "raise")
    reason = f"error: toy/steps smoke: RuntimeError: it was meant to (see {folder}/failed.ipynb)"
    assert (code, out, err) == (1, [], [reason])
    after = files(folder)
    assert "it was meant to" in after.pop("failed.ipynb")[1].decode()
    kept.pop(".finished")
    assert after == kept, "only the mark is gone: a batch does this run again"
    code, _, err = call("toy/steps", "-p", "action", "die", "-p", "seed", "1")
    assert code == 1 and len(err) == 1 and err[0].startswith("error: toy/steps smoke seed 1: the kernel died")
    assert call("toy/steps")[::2] == (0, [])
    assert set(files(folder)) == set(kept) | {".finished"}


def test_what_a_kernel_logs_about_itself_is_not_said_with_the_runs_own_messages(call, results):
    assert call("toy/steps", "-p", "action", "log")[::2] == (0, [])


def test_a_seed_that_is_damaged_is_said_in_one_line_and_run_again(call, results):
    assert call("toy/steps", "-p", "seeds", "2")[::2] == (0, [])
    (record,), seeds = load_records(results), sorted(results.rglob("*.seed"))
    seeds[1].write_bytes(flipped(seeds[1].read_bytes(), 5000))
    code, _, err = call("toy/steps", "-p", "seeds", "2")
    said = f"note: toy/steps: {seeds[1]} is not as it was written: set aside as {seeds[1].name}.damaged, and run again"
    assert (code, err) == (0, [said])
    (again,) = load_records(results)
    assert again["metrics"] == record["metrics"] and sorted(results.rglob("*.seed")) == seeds


def test_a_missing_data_set_is_one_line_that_says_how_to_get_it(call, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTRAIN_DATA", str(tmp_path / "no data"))
    code, out, err = call("toy/steps", "-p", "action", "data")
    assert code == 1 and not out and len(err) == 1
    assert err[0].startswith("error: toy/steps smoke: DataError: ") and "python -m data_prep mnist" in err[0]
    assert str(tmp_path / "no data") in err[0]


def test_a_missing_data_set_that_a_parameter_names_is_said_before_anything_starts(call, results, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTRAIN_DATA", str(tmp_path / "no data"))
    monkeypatch.setattr(run, "_execute", lambda *_: pytest.fail("a kernel was started"))
    code, out, err = call(REAL, "-p", "dataset", "mnist")
    assert code == 1 and not out and len(err) == 1 and not list(results.rglob("*.ipynb"))
    assert err[0].startswith(f"error: {REAL} smoke: mnist: ") and "python -m data_prep mnist" in err[0]


def test_a_disk_that_fills_up_during_the_run_is_one_line_and_keeps_the_record(call, tmp_path, monkeypatch):
    with tmpfs(tmp_path / "disk", "size=200k") as disk:
        monkeypatch.setenv("ATTRAIN_RESULTS", str(disk))
        folder = disk / "smoke/toy/steps"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text("kept")
        code, out, err = call("toy/steps", "-p", "action", "fill")
        assert code == 1 and not out and len(err) == 1
        assert err[0].startswith("error: toy/steps smoke: ") and str(disk) in err[0]
        assert (folder / "record.json").read_text() == "kept"
        assert not [name for name in files(disk) if Path(name).name.startswith(".")]


def test_an_interrupted_run_ends_with_its_kernel_and_no_traceback(results, tmp_path):
    command = [sys.executable, "-m", "studies.run", "toy/steps", "-p", "action", "wait"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    streams["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    line = "interrupted: toy/steps smoke seed 1; the seeds that have finished are kept\n"
    endings = [(signal.SIGINT, 130, line), (signal.SIGTERM, 143, "")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    # A seed each, or one would wait for the other's result.
    processes = [subprocess.Popen([*command, "-p", "seed", str(n)], env=environment, **streams) for n in (1, 2)]
    try:
        for process, (number, code, last) in zip(processes, endings):
            while not (results / f"waiting-{process.pid}").exists():
                assert process.poll() is None
                time.sleep(0.1)
            kernels = psutil.Process(process.pid).children()
            os.killpg(process.pid, number)
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out, err) == (code, "", last)
            assert kernels and not psutil.wait_procs(kernels, timeout=30)[1]
        assert not list(tmp_path.glob("attrain-*")) and not list(results.rglob("*.ipynb"))
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_kept_outputs_are_those_of_the_notebook_alone(notebooks, tmp_path, monkeypatch, call):
    folder = tmp_path / "kept"
    shutil.copytree(notebooks, folder)
    monkeypatch.setenv("ATTRAIN_NOTEBOOKS", str(folder))
    for module in (run, parameters):
        monkeypatch.setattr(module, "NOTEBOOKS", folder)
    file = folder / "toy/steps.ipynb"
    before = nbformat.read(file, as_version=4)
    assert call("toy/steps", "--keep-outputs") == (0, [], [])
    after = nbformat.read(file, as_version=4)
    assert [cell.source for cell in after.cells] == [cell.source for cell in before.cells]
    counts = [cell.execution_count for cell in after.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    written = file.read_text()
    assert "papermill" not in json.dumps([after.metadata, *(cell.metadata for cell in after.cells)])
    assert not any(part in written for part in (str(ROOT), str(tmp_path), tempfile.gettempdir(), str(Path.home())))
    assert "the record" in json.dumps(after.cells[-1].outputs) and "](" not in json.dumps(after.cells[-1].outputs)


@pytest.mark.ci
def test_a_real_study_runs_from_the_command_line_and_states_its_claims(call, results):
    assert call(REAL, "--scale", "tiny")[::2] == (0, [])
    (record,) = load_records(results)
    assert record["experiment"] == REAL and record["parameters"]["n_train"] == 32
    assert record["claims"] and record["figures"] and record["data"]


@pytest.mark.parametrize("index", [(), ("index",)])
def test_outputs_of_all_are_kept_and_of_the_index_last(call, tmp_path, monkeypatch, index):
    for name in ("b", "c", *index):
        for ending in (".py", ".ipynb"):
            (tmp_path / f"{name}{ending}").touch()
    for module in (run, parameters):
        monkeypatch.setattr(module, "NOTEBOOKS", tmp_path)
    kept = []
    monkeypatch.setattr(run, "keep_outputs", kept.append)
    assert call("all", "--keep-outputs") == (0, [], [])
    assert kept == ["b", "c", *index]


def test_of_a_notebook_that_fails_nothing_is_kept(notebooks, call, monkeypatch):
    def fail(*_):
        raise RuntimeError("it was meant to fail")

    before = files(notebooks)
    monkeypatch.setattr(run, "_execute", fail)
    code, _, err = call("toy/steps", "--keep-outputs")
    assert code == 1 and err == ["error: toy/steps smoke: it was meant to fail"]
    assert files(notebooks) == before
