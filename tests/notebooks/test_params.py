"""Every file of notebooks/params is executed, made short: names, layers and methods that do not go together show here.

By `make scales`, a job of CI of its own, as it takes a quarter of an hour. What cannot run on a machine, for want of
data or of a GPU, says so in one line at once, and is run on the CPU, with data that are at hand.
"""

import subprocess
import sys

import pytest
import torch

from data_prep import MADE_HERE, DataError
from studies import run
from studies.files import NOTEBOOKS
from studies.parameters import check_data, data_sets, defaults, settings
from studies.records import load_records
from tests.conftest import free_environment

FILES = sorted(path.relative_to(NOTEBOOKS / "params").as_posix() for path in NOTEBOOKS.glob("params/**/*.yaml"))
SHORT = {
    "attribution_methods": "n_train 64 epochs 1 images 4 steps 4",
    "challenger/ambiguity": "steps 2 side 20 tuning_seeds 1 sizes 20",
    "challenger/few_samples_vision": "steps 2 n_validation 20 n_test 20 width 8 tuning_seeds 1 sizes 20 shown 20",
    "challenger/text": "steps 2 n_validation 20 width 8 tuning_seeds 1 sizes 60 shown 60",
    "challenger/time_series": "steps 2 width 8 tuning_seeds 1 sizes 18 shown 18",
    "deeplift/genomics": "n_train 64 n_test 20 epochs 1 references 2",
    "deeplift/mnist_digit_conversion": "n_train 300 epochs 1 pixels 3 repeats 1",
    "deeplift/toy_networks": "networks 5",
    "energy/distribution_shift": "n_train 24 n_val 16 n_test 24 plain_epochs 1 epochs 1 batch_size 8",
    "energy/guidance": "n_train 24 n_val 16 n_test 16 epochs 1 guided_epochs 1 batch_size 8",
    "energy/limited_boxes": "n_train 100 n_val 16 n_test 16 epochs 1 guided_epochs 1 batch_size 25",
    "isnet/covid_xray": "size 32 epochs 1 range_epochs 1 lung_epochs 1 draws 20",
    "isnet/hidden_shortcuts": "n_train 64 n_held 20 epochs 1 looks 1 range_images 64",
    "isnet/mnist_background_bias": "n_train 64 epochs 1 range_images 64",
    "isnet/natural_images": "n_train 64 n_test 32 epochs 1 range_epochs 1",
    "isnet/training_time": "image_size 32 batch_size 2 repeats 1",
    "isnet/vision_transformers": "n_train 64 epochs 1 range_images 64 repeats 1 width 16 layers 2",
    "own_inputs": "exchanges 2",
    "own_model": "epochs 1 guided_epochs 1 image_size 32",
    "tour": "n_train 64 epochs 1",
}
# Large networks, of which the layers' names are to be tried, on little data, and without weights to download.
PAPER = {
    "energy/distribution_shift": "dataset shifted_backgrounds canvas 64 pretrained False",
    "energy/guidance": "dataset scenes image_size 64 pretrained False n_train 8 n_val 8 n_test 8",
    "energy/limited_boxes": "dataset scenes image_size 64 boosts 10",
    "isnet/covid_xray": "dataset phantom_xray size 32 lung_width 8",
    "isnet/hidden_shortcuts": "dataset digits",
    "isnet/mnist_background_bias": "dataset digits n_val 32",
    "isnet/vision_transformers": "dataset digits",
    "tour": "dataset digits",
}
FEWER = {  # of the λ that are tried, the first of two losses
    "energy/distribution_shift": ("guidance", "energy 0.1, l1 0.1"),
    "energy/guidance": ("losses", "energy 0.0001, L1 0.0005"),
    "energy/limited_boxes": ("losses", "energy 0.0001, L1 0.0005"),
}
# For data that are not there: of the same kind, and with scikit-learn or made here.
AT_HAND = {"mnist": "digits", "fashion_mnist": "digits", "cifar10_jpeg": "digits", "covid_xray": "phantom_xray"}
AT_HAND |= {"trec": "booking_requests", "sst2": "booking_requests"}


def known(file: str) -> tuple[str, str, dict]:
    """Experiment, scale and the values of all parameters."""
    experiment, scale = file.removesuffix(".yaml").rsplit(".", 1)
    return experiment, scale, defaults(experiment) | settings(experiment, scale)


@pytest.mark.parametrize("file", FILES)
def test_what_a_scale_lacks_is_said_in_one_line_before_a_kernel_starts(file, results, monkeypatch, capsys):
    def started(*_):
        raise RuntimeError("the kernel was started")

    monkeypatch.setattr(run, "_execute", started)
    monkeypatch.setenv("ATTRAIN_DATA", str(results / "none"))
    experiment, scale, values = known(file)
    assert run.main([experiment, "--scale", scale]) == 1
    error = capsys.readouterr().err
    if values["device"] != "cpu" and not torch.cuda.is_available():
        why = f"device '{values['device']}' cannot be used here"
    else:
        needs = {name for name, _ in data_sets(values)} - {*MADE_HERE}
        why = f" {min(needs)}: " if needs else "the kernel was started"
    assert error.count("\n") == 1 and error.startswith(f"error: {experiment} {scale}: ") and why in error


def is_there(name: str, part: str) -> bool:
    try:
        check_data([(name, part)])
    except DataError:
        return False
    return True


def with_data_at_hand(values: dict) -> dict:
    """The parameters that name data which are not there, changed; skips where nothing stands for them."""
    lost = [(name, part) for name, part in data_sets(values) if not is_there(name, part)]
    changed = {p: AT_HAND[name] for name, _ in lost if name in AT_HAND for p, value in values.items() if value == name}
    named = [part.strip() for part in values.get("datasets", "").split(",") if part.strip()]
    if series := [name for name in named if ("ucr", name) not in lost]:
        changed["datasets"] = ", ".join(series)
    for name, part in lost:
        if name not in AT_HAND and not (part and series):
            pytest.skip(f"needs {name}: python -m data_prep {name}")
    return changed


@pytest.mark.scales
@pytest.mark.parametrize("file", FILES)
def test_every_scale_runs_made_short(file, tmp_path):
    experiment, scale, values = known(file)
    texts = [SHORT[experiment], PAPER.get(experiment, "") if scale != "laptop" else ""]
    words = " ".join(texts).split()
    given = {"seeds": "1", **dict(zip(words[::2], words[1::2]))}
    given |= dict([FEWER[experiment]]) if experiment in FEWER and scale == "paper" else {}
    given |= {"device": "cpu"} if not torch.cuda.is_available() else {}
    given |= with_data_at_hand(values | {n: v for n, v in given.items() if n == "dataset"})
    command = [sys.executable, "-m", "studies.run", experiment, "--scale", scale]
    command += [part for pair in given.items() for part in ("-p", *pair)]
    environment = free_environment(ATTRAIN_RESULTS=str(tmp_path), OMP_NUM_THREADS="1")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    (record,) = load_records(tmp_path)
    assert record["experiment"] == experiment and record["parameters"]["scale"] == scale
