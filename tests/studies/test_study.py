import json
import math
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import time

import matplotlib.pyplot as plt
import pytest
import torch
import yaml

from studies import digests, files, parameters, study
from studies.files import atomic_write
from studies.parameters import check_parameters
from studies.study import Study
from tests.conftest import flipped

TYPES = {"scale": str, "seed": int, "seeds": int, "device": str, "threads": int, "out": str, "lr": float, "fast": bool}
VALUES = {"scale": "smoke", "seed": 3, "seeds": 2, "device": "cpu", "threads": 1, "out": "", "lr": 0.1, "fast": True}


@pytest.fixture(autouse=True)
def _torch_settings():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def namespace(cells=("", "defaults", "study"), **changes):
    return {"__annotations__": TYPES, "In": list(cells), **VALUES, **changes}


def run(seed):
    return {"metrics": {"x": seed + 0.5}, "array": torch.full((2,), float(seed))}


def written(study, results) -> dict:
    """The record that a study writes."""
    study.finish(results)
    return json.loads((study.out / "record.json").read_text())


def test_a_gpu_computes_float32_as_such_and_warns_of_what_it_cannot_repeat(results, monkeypatch):
    from tests.pretended_device import NAME

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    study = Study("isnet/x", namespace(device=NAME))
    assert study.device == torch.device(NAME)
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.allow_tf32


def test_what_a_users_start_up_file_has_set_of_torch_is_set_back(results):
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    try:
        Study("isnet/x", namespace())
        made = torch.rand(1)
        assert made.dtype == torch.float32 and made.device.type == "cpu" and torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)


# ---------------------------------------------------------------- files


def test_atomic_write_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a" / "file.json"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def _write_for_ever(path):
    while True:
        study.write_json(path, {"numbers": list(range(20_000))})


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "record.json"
    for delay in (0.3, 0.35, 0.42, 0.5):
        process = multiprocessing.get_context("fork").Process(target=_write_for_ever, args=(path,))
        process.start()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert json.loads(path.read_text()) == {"numbers": list(range(20_000))}


@pytest.mark.parametrize("folder", ["/proc/attrain", "a file/below"])
def test_a_folder_that_cannot_be_written_to_is_named_at_once(folder, tmp_path, results):
    (tmp_path / "a file").write_text("")
    with pytest.raises(OSError, match="cannot write to the output folder"):
        Study("isnet/x", namespace(out=str(tmp_path / folder)))


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sede": 1}, r"unknown parameter 'sede' \(did you mean seed\?\); this notebook takes .*seed"),
        ({"seed": "1"}, "parameter seed must be int, got '1'"),
        ({"seed": True}, "parameter seed must be int, got True"),
        ({"lr": "1e-4"}, "parameter lr must be float, got '1e-4'"),
        ({"fast": 1}, "parameter fast must be bool, got 1"),
        ({"out": None}, "parameter out must be str, got None"),
    ],
)
def test_a_wrong_parameter_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(given, {name: kind.__name__ for name, kind in TYPES.items()})


def test_an_int_is_a_float_and_is_recorded_as_one(results):
    assert Study("isnet/x", namespace(lr=1)).parameters["lr"] == 1.0


@pytest.mark.parametrize("cell", ["# Parameters\nlr = 0.5\nsede = 5\n", "# Parameters\nsede = 5\n"])
def test_a_parameter_injected_by_papermill_that_the_notebook_does_not_have_is_named(cell, results):
    with pytest.raises(ValueError, match="unknown parameter 'sede'"):
        Study("isnet/x", namespace(["", "defaults", cell, "study"], sede=5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must satisfy seeds ≥ 1"),
        ({"threads": 0}, "threads must satisfy"),
        ({"seed": -1}, "seed must satisfy"),
        ({"lr": math.inf}, "lr must be finite"),
        ({"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_an_impossible_value_is_named(changes, message, results):
    with pytest.raises(ValueError, match=message):
        Study("isnet/x", namespace(**changes))


def test_a_notebook_that_runs_checks_its_own_ranges(results):
    """As in JupyterLab, where nothing has looked at the parameters before."""
    kinds = {name: about["type"] for name, about in parameters.declared("tour").items()}
    with pytest.raises(ValueError, match=r"parameter P must satisfy 0 ≤ P ≤ 1, got 3\.0"):
        Study("tour", {"__annotations__": kinds, **parameters.defaults("tour"), "P": 3.0})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_here_is_named_with_a_remedy(results):
    with pytest.raises(ValueError, match=r"device 'cuda' cannot be used here .* try device=cpu"):
        Study("isnet/x", namespace(device="cuda"))


# ---------------------------------------------------------------- seeds and records


def test_a_finished_seed_is_not_run_again_until_something_changes(results):
    calls = []

    def counted(seed):
        calls.append(seed)
        return run(seed)

    def go(**changes):
        cells = changes.pop("cells", ("", "defaults", "study"))
        return Study("isnet/x", namespace(cells, **changes)).seed(3, counted)

    first = go()
    assert go()["array"].tolist() == first["array"].tolist() == [3.0, 3.0]
    assert go(seeds=5, out=str(results / "elsewhere"), scale="laptop")["seconds"] == first["seconds"]
    assert calls == [3], "which seeds, where to and under which name do not matter"
    go(lr=0.2)
    go(cells=("", "defaults", "edited"))
    assert calls == [3, 3, 3]
    go(cells=("", "defaults", "# Parameters\nseeds = 2\n", "study"))
    assert calls == [3, 3, 3], "what papermill injects is in the parameters already"


KIT = {path.relative_to(files.ROOT / "lib/studies") for path in (files.ROOT / "lib/studies").rglob("*.py")}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the code, which the digest is of."""
    for folder in ("lib/attrain", "lib/studies", "data_prep"):
        shutil.copytree(files.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("edited", "stale"),
    [("lib/attrain/masks.py", True), ("data_prep/marks.py", True), ("lib/studies/study.py", True),
     ("lib/studies/nets/small.py", True), ("lib/studies/pictures/charts.py", False), ("lib/studies/pages.py", False),
     ("lib/studies/bench/cases.py", False), ("lib/studies/page.html.j2", False)],
)  # fmt: skip
def test_a_seed_is_stale_by_the_content_of_what_it_depends_on_and_not_by_what_shows_it(tree, edited, stale):
    before = digests.code_digest(digests.SHOWS_OR_RUNS)
    for file in tree.rglob("*.py"):
        os.utime(file, (0, 0))
    assert digests.code_digest(digests.SHOWS_OR_RUNS) == before, "the times of files say nothing"
    with open(tree / edited, "a") as file:
        file.write("\n# edited\n")
    assert digests.code_digest(digests.SHOWS_OR_RUNS) == before, "nor do comments"
    with open(tree / edited, "a") as file:
        file.write("edited = 1\n")
    assert (digests.code_digest(digests.SHOWS_OR_RUNS) != before) == stale


def test_a_new_file_that_is_not_python_changes_no_digest_and_a_module_that_goes_does(tree):
    before = digests.code_digest()
    (tree / "lib/attrain/notes.txt").write_text("")
    assert digests.code_digest() == before
    (tree / "lib/studies/pages.py").unlink()
    assert digests.code_digest() != before


@pytest.mark.parametrize(
    ("source", "other", "same"),
    [
        ("x = 1", "x=1  # one", True),
        ("def f():\n    return 1", 'def f():\n    "One."\n\n    return 1', True),
        ("class A:\n    x: int = 0", 'class A:\n    """An a."""\n\n    x: int = 0', True),
        ("x = '#'", "x = ''", False),
        ("x = 1", "x = 1.0", False),
        ("def f(): return 1", "def f(): return 2", False),
        ("if a:\n    b()\nc()", "if a:\n    b()\n    c()", False),
        ("%time f()", "%time f()  # a magic command: no plain Python, and taken as it is", False),
    ],
)
def test_code_is_known_by_what_it_does(source, other, same):
    assert (digests.code(source) == digests.code(other)) == same


def test_what_only_shows_or_runs_is_there_and_nothing_that_a_seed_depends_on_imports_it():
    """But for the study, which shows its claims by the table of all records, and judges them as that does."""
    names = {path.parts[0].removesuffix(".py") for path in KIT}
    assert {*digests.SHOWS_OR_RUNS} <= names
    shown = re.compile(rf"studies(?:\.| import [\w, ]*)({'|'.join(digests.SHOWS_OR_RUNS)})\b")
    for path in KIT:
        if path.parts[0].removesuffix(".py") not in digests.SHOWS_OR_RUNS:
            imported = {*shown.findall((files.ROOT / "lib/studies" / path).read_text("utf-8"))}
            allowed = {"records", "findings", "pictures", "verdicts"} if path.name == "study.py" else set()
            assert imported <= allowed, path


def test_a_change_of_data_runs_a_seed_again(results):
    calls = []
    for checksum in ("a", "a", "b"):
        current = Study("isnet/x", namespace())
        current.data("digits", {"file": checksum})
        current.seed(3, lambda seed: calls.append(seed) or run(seed))
    assert calls == [3, 3]


def test_a_seed_whose_run_fails_is_not_kept(results):
    def fails(seed):
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        Study("isnet/x", namespace()).seed(3, fails)
    assert not list(results.rglob("*.seed"))
    assert Study("isnet/x", namespace()).seed(3, run)["metrics"] == {"x": 3.5}


def _run_slowly(seconds, calls, seed=3):
    def slow(seed):
        with open(calls, "a") as file:
            file.write("x")
        time.sleep(seconds)
        return {"metrics": {"x": 1.0}}

    Study("isnet/x", namespace()).seed(seed, slow)


@pytest.mark.parametrize("kill", [False, True])
def test_of_two_processes_at_one_seed_the_second_waits_and_goes_on_if_the_first_is_killed(results, tmp_path, kill):
    calls, fork = tmp_path / "calls", multiprocessing.get_context("fork")
    processes = [fork.Process(target=_run_slowly, args=(seconds, calls)) for seconds in (60 if kill else 1, 0)]
    processes[0].start()
    while not calls.exists():
        time.sleep(0.01)
    processes[1].start()
    if kill:
        time.sleep(0.2)
        processes[0].kill()
    for process in processes:
        process.join(50)
    assert [process.exitcode for process in processes] == [-signal.SIGKILL if kill else 0, 0]
    assert calls.read_text() == ("xx" if kill else "x")
    assert [file.suffix for file in results.rglob("*") if file.is_file()] == [".seed"]


def test_stages_of_a_seed_are_kept_apart_and_their_times_add_up(results):
    """By the functions' names: nbval runs cells without noting them in `In`."""

    def first(seed):
        return {"metrics": {"x": 1.0}}

    def second(seed):
        return {"metrics": {"x": 2.0}}

    for _ in range(2):  # the second time, both are found
        current = Study("isnet/x", namespace(seeds=1))
        for stage, value in ((first, 1.0), (second, 2.0)):
            assert current.seed(3, stage)["metrics"] == {"x": value}
            current._seconds[3] += value
        times = written(current, [second(3)])["times"]
        assert times["seed_seconds"] == [pytest.approx(3.0, abs=0.2)]
    assert len(list(results.rglob("*.seed"))) == 2


@pytest.fixture
def kept(results):
    """The file of a seed that has run."""
    Study("isnet/x", namespace()).seed(3, run)
    (file,) = results.rglob("*.seed")
    return file


def test_of_1000_flipped_bits_in_a_kept_seed_all_are_noticed(kept):
    content, draws = kept.read_bytes(), random.Random(0)
    first = 8 * 65  # all bits of the line with the digest; the rest at random
    for bit in [*range(first), *draws.sample(range(first, 8 * len(content)), 1000 - first)]:
        kept.write_bytes(flipped(content, bit))
        with pytest.raises(ValueError, match="is not as it was written"):
            digests.read_sealed(kept)
    kept.write_bytes(content)
    assert digests.read_sealed(kept)


DAMAGES = {
    "a flipped bit": lambda content: flipped(content, 8 * len(content) - 3),
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
    "without its digest": lambda content: content.partition(b"\n")[2],
    "of another program": lambda content: pickle.dumps({"metrics": {"x": 0.0}}),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_kept_seed_that_is_damaged_is_said_and_set_aside_and_run_again(kept, capsys, what):
    kept.write_bytes(damaged := DAMAGES[what](kept.read_bytes()))
    for _ in range(2):  # the second time it is as good as new
        assert Study("isnet/x", namespace()).seed(3, run)["metrics"] == {"x": 3.5}
    aside = kept.with_name(f"{kept.name}.damaged")
    said = f"note: {kept} is not as it was written: set aside as {aside.name}, and run again\n"
    assert capsys.readouterr().err == said and aside.read_bytes() == damaged


def test_a_kept_seed_in_the_place_of_another_is_run_again(kept, results, capsys):
    first = kept.read_bytes()
    Study("isnet/x", namespace()).seed(4, run)
    (other,) = {*results.rglob("*.seed")} - {kept}
    other.write_bytes(first)
    assert Study("isnet/x", namespace()).seed(4, run)["metrics"] == {"x": 4.5}
    assert f"note: {other} is not as it was written" in capsys.readouterr().err


def test_record_holds_what_it_takes_to_judge_and_repeat_a_run(results):
    current = Study("isnet/x", namespace(scale="laptop"))
    current.data("digits", {"file": "abc"})
    runs = [current.seed(seed, run) for seed in current.seeds]
    current.claim("isnet-1", [0.7, 0.8], of="net")
    current.claim("isnet-1", [[0.9, 0.8] * 2, [1.0, 0.9] * 2], of="net")
    open_before = plt.get_fignums()
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    current.figure(figure, "line", "It rises.", "A line")
    record = written(current, runs)
    assert record["parameters"] == {k: v for k, v in VALUES.items() if k != "out"} | {"scale": "laptop"}
    assert record["seeds"] == [3, 4] and record["metrics"] == {"x": [3.5, 4.5]}
    assert record["summary"]["x"] == {"mean": 4.0, "low": None, "high": None, "interval": "none: 2 seeds"}
    (claim,) = record["claims"]
    assert claim["measured"]["mean"] == 0.9 and claim["verdict"] == "holds", "a claim stated again replaces the first"
    assert claim["measured"]["per_seed"] == pytest.approx([0.85, 0.95]) and claim["measured"]["error"] > 0
    assert claim["paper_value"] is None and claim["source"]
    assert record["data"] == {"digits": {"file": "abc"}}
    assert record["environment"]["torch"] == torch.__version__.split("+")[0] or record["environment"]["torch"]
    assert {"commit", "times", "schema"} <= set(record)
    assert (results / "laptop/isnet/x/figures/line.png").read_bytes().startswith(b"\x89PNG")
    assert record["captions"] == {"line": {"caption": "It rises.", "alt": "A line"}}
    assert plt.get_fignums() == open_before
    assert not list((results / "laptop").rglob(".*"))


def test_same_parameters_give_the_same_record_but_for_the_times(results, tmp_path):
    records = []
    for out in ("a", "b"):
        current = Study("isnet/x", namespace(out=str(tmp_path / out)))
        runs = [current.seed(seed, run) for seed in current.seeds]
        current.claim("isnet-1", [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
        record = written(current, runs)
        assert record.pop("times") and record.pop("digest")
        records.append(json.dumps(record))
    assert records[0] == records[1]


@pytest.mark.parametrize(
    ("seeds", "mean", "interval"),
    [
        ({3: math.nan}, 4.5, "none: 1 seed; undefined in 1 of 2"),
        ({3: math.nan, 4: math.nan}, None, "none; undefined in 2 of 2"),
    ],
)
def test_a_metric_that_is_undefined_in_a_seed_is_null_there_and_said_to_be(results, seeds, mean, interval):
    current = Study("isnet/x", namespace())
    runs = [current.seed(seed, lambda s: {"metrics": {"x": seeds.get(s, s + 0.5)}}) for seed in current.seeds]
    record = written(current, runs)
    assert record["metrics"]["x"] == [None, None if mean is None else 4.5]
    assert record["summary"]["x"] == {"mean": mean, "low": None, "high": None, "interval": interval}


def test_an_infinite_metric_is_an_error(results):
    current = Study("isnet/x", namespace())
    with pytest.raises(ValueError, match="values must be finite"):
        current.finish([current.seed(seed, lambda s: {"metrics": {"x": math.inf}}) for seed in current.seeds])


def test_an_unknown_claim_is_named(results):
    with pytest.raises(ValueError, match=r"unknown claim 'isnet-99'; claims\.yaml has isnet-1"):
        Study("isnet/x", namespace()).claim("isnet-99", [1.0])


def test_the_table_of_claims_shows_each_once_with_its_words(results):
    current = Study("isnet/x", namespace(scale="laptop"))
    assert current.claims_table().data.empty
    current.claim("isnet-1", [[0.7, 0.2, 0.8]], of="net")
    current.claim("isnet-2", [[0.0, 0.0]])
    table = current.claims_table().data
    assert list(table.index) == ["isnet-1", "isnet-2"]
    assert list(table.columns) == ["claim", "of", "expected", "measured", "95 % interval", "verdict"]
    assert table["measured"].tolist() == ["0.567", "0.000"] and table["verdict"].tolist() == ["undecided", "not judged"]
    assert table["95 % interval"].tolist() == ["[−0.232, 1.365]", "none"]


def test_at_smoke_scale_no_verdict_is_spoken_and_a_line_says_why(results, capsys):
    current = Study("isnet/x", namespace())
    assert current.claim("isnet-1", [0.7, 0.71, 0.72])["verdict"] == "not judged"
    assert list(current.claims_table().data.columns) == ["claim", "of", "expected", "measured", "95 % interval"]
    assert capsys.readouterr().out.startswith("Smoke scale shows that everything works")


def test_all_claims_are_declared_whole():
    claims = study.load_claims()
    assert {"isnet-1", "isnet-2", "isnet-3", "isnet-4"} <= set(claims)


@pytest.mark.parametrize("change", [{"mesure": "x"}, {"above": None, "below": None}, {"claim": None}])
def test_a_claim_that_is_not_whole_is_named(change, tmp_path):
    claim = {"claim": "a", "measure": "b", "above": 1, "paper_value": None, "source": "c"}
    claim |= {name: value for name, value in change.items() if value is not None}
    claim = {name: value for name, value in claim.items() if name not in change or change[name] is not None}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"x-1": claim}))
    with pytest.raises(ValueError, match="x-1 must have"):
        study.load_claims(tmp_path / "claims.yaml")


def test_what_a_parameter_names_must_be_known():
    study.check_known("methods", ["plain"], ["plain", "FGSM"])
    with pytest.raises(ValueError, match=r"parameter methods: unknown \['FSGM', 'mix'\]; there are plain, FGSM"):
        study.check_known("methods", ["plain", "mix", "FSGM"], {"plain": 1, "FGSM": 2})
