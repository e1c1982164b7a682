import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from attrain import LRP, DeepLift, InputXGradient, IntegratedGradients, explain
from attrain.targets import selective_target
from studies.nets.small import NormCNN, SmallCNN

X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(7) % 3


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SmallCNN(3, width=4).double().eval()


@pytest.mark.parametrize("target", [None, 1, Y, Y[:, None].expand(7, 2), "all", selective_target()])
@pytest.mark.parametrize(
    "method",
    [
        LRP(),
        InputXGradient(reference=X.double() / 2),
        DeepLift(),
        DeepLift(reference=X.flip(0).double()),
        DeepLift(reference=torch.rand(3, 1, 1, 8, 8).double()),
        DeepLift(reference=torch.rand(3, 7, 1, 8, 8).double()),
        IntegratedGradients(reference=torch.rand(1, 1, 8, 8).double(), steps=2),
    ],
)
@pytest.mark.parametrize("chunk_size", [3, 100])
def test_chunks_give_what_the_whole_gives(net, method, target, chunk_size):
    whole = explain(net, X.double(), target, method)
    parts = explain(net, X.double(), target, method, chunk_size=chunk_size)
    torch.testing.assert_close(parts, whole)


def test_layers_are_put_together_too(net):
    whole, parts = (explain(net, X.double(), 0, LRP(), layers=["1", "4"], chunk_size=c) for c in (None, 3))
    torch.testing.assert_close(parts, whole)
    assert list(parts.layers) == ["1", "4"]


def test_maps_are_written_to_out(net):
    out = torch.full((7, 1, 8, 8), torch.nan)
    found = explain(net, X.double(), 0, chunk_size=2, out=out)
    assert found.heatmap is out
    torch.testing.assert_close(out, explain(net, X.double(), 0).heatmap.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be >= 1"),
        ({"chunk_size": 2, "create_graph": True}, "create_graph=True"),
        ({"out": torch.zeros(7, 1, 8, 8)}, "give a chunk_size"),
        ({"chunk_size": 2, "out": torch.zeros(7, 8, 8)}, r"of shape \(7, 1, 8, 8\), got \(7, 8, 8\)"),
        ({"chunk_size": 2, "out": torch.zeros(7, 1, 8, 8, dtype=torch.long)}, "floating point"),
    ],
)
def test_what_makes_no_sense_raises(net, options, message):
    with pytest.raises(ValueError, match=message):
        explain(net, X.double(), 0, **options)


def test_batch_norm_in_training_mode_raises():
    with pytest.raises(ValueError, match=r"call model.eval\(\) first"):
        explain(NormCNN(3).train(), X, 0, chunk_size=2)


def test_no_samples_give_no_maps(net):
    assert explain(net, X[:0].double(), 0, InputXGradient(), chunk_size=2).heatmap.shape == (0, 1, 8, 8)


STREAM = """
import sys, numpy as np, torch
from attrain import LRP, explain
from studies.nets.small import SmallCNN
n, folder = int(sys.argv[1]), sys.argv[2]
opened = lambda name, mode: torch.from_numpy(np.memmap(f"{folder}/{name}", "float32", mode, shape=(10000, 3, 32, 32)))
torch.manual_seed(0)
net = SmallCNN(10, 3, width=4).eval()
explain(net, opened("x", "c")[:n], 0, LRP(), chunk_size=100, out=opened("maps", "r+")[:n])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's count of pages that belong to no file")
def test_ten_thousand_images_stream_from_file_to_file_with_flat_memory(tmp_path):
    np.memmap(tmp_path / "x", "float32", "w+", shape=(10000, 3, 32, 32))[:] = 0.5
    np.memmap(tmp_path / "maps", "float32", "w+", shape=(10000, 3, 32, 32))

    def kilobytes(n):
        command = [sys.executable, "-c", STREAM, str(n), str(tmp_path)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert kilobytes(10000) < kilobytes(1000) + 20_000


def test_progress_shows_a_bar_of_chunks_and_changes_no_map(net, capsys):
    found = explain(net, X.double(), 0, chunk_size=2, progress=True)
    assert torch.equal(found.heatmap, explain(net, X.double(), 0, chunk_size=2).heatmap)
    said = capsys.readouterr().err
    assert "explain: 100%" in said and "4/4" in said


def test_without_tqdm_progress_says_what_it_needs_before_anything_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    called = []
    with pytest.raises(ImportError, match="progress=True needs tqdm: pip install tqdm"):
        explain(lambda x: called.append(1) or x, torch.rand(5, 3), 0, chunk_size=2, progress=True)
    assert not called


def test_batch_norm_without_running_statistics_is_refused_in_chunks_and_told_of_without():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(72, 2)
    )
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match="without running statistics"):
        explain(net.eval(), x, 0, chunk_size=2)
    with pytest.warns(UserWarning, match="batch norm takes the statistics of the batch"):
        explain(net, x, 0, InputXGradient())


def test_an_instance_norm_in_training_mode_sees_its_own_sample_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2), nn.Flatten(), nn.Linear(72, 2)).train()
    x, method = torch.rand(4, 1, 8, 8), InputXGradient()
    whole, chunks = (explain(net, x, 0, method, chunk_size=size).heatmap for size in (None, 2))
    torch.testing.assert_close(chunks, whole)
