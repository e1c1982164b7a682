"""Explanations: unpacked as tuples, printed as shapes, written whole and read without executing anything."""

import pickle

import pytest
import torch
from torch import nn

from attrain import DeepLift, Explanation, explain


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.table = nn.Linear(3, 4), nn.Embedding(2, 4)

    def forward(self, a, ids):
        return self.a(a).relu() + self.table(ids).mean(1)


MADE = {
    "a tensor": lambda: explain(nn.Linear(3, 2), torch.rand(5, 3), "all", DeepLift(), layers=[""]),
    "a tuple": lambda: explain(Two(), (torch.rand(5, 3), torch.ones(5, 2, dtype=torch.long)), 1, layers="a"),
    "a dict": lambda: explain(Two(), {"a": torch.rand(5, 3), "ids": torch.ones(5, 2, dtype=torch.long)}, 1),
    "with a graph": lambda: explain(nn.Linear(3, 2), torch.rand(5, 3), 1, create_graph=True),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_saved_is_loaded(name, tmp_path):
    found = MADE[name]()
    found.save(tmp_path / "maps.pt")
    again = Explanation.load(tmp_path / "maps.pt")
    assert type(again) is Explanation and type(again.heatmap) is type(found.heatmap)
    torch.testing.assert_close(tuple(again), tuple(found))
    assert not again.logits.requires_grad
    assert [p.name for p in tmp_path.iterdir()] == ["maps.pt"]


def test_it_is_a_tuple_of_four():
    logits, heatmap, layers, delta = found = MADE["a tensor"]()
    assert logits is found.logits and heatmap is found[1] and layers is found.layers and delta is found[3]


def test_it_prints_shapes_and_no_numbers():
    assert (
        repr(MADE["a tensor"]())
        == "Explanation(logits=(5, 2), heatmap=(5, 2, 3), layers={'': (5, 2, 2)}, delta=(5, 2))"
    )
    assert (
        repr(MADE["a tuple"]())
        == "Explanation(logits=(5, 4), heatmap=((5, 3), None), layers={'a': (5, 4)}, delta=None)"
    )
    assert repr(MADE["a dict"]()).startswith(
        "Explanation(logits=(5, 4), heatmap={'a': (5, 3), 'ids': None}, layers={},"
    )


def test_a_part_of_a_large_tensor_is_written_alone(tmp_path):
    large = torch.zeros(1000, 1000)
    Explanation(large[:1], large[:1, :2], {}, None).save(tmp_path / "maps.pt")
    assert (tmp_path / "maps.pt").stat().st_size < 20_000


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "maps.pt"
    MADE["a tensor"]().save(path)
    before = path.read_bytes()

    def fails(value, file):
        file.write_bytes(b"half") if hasattr(file, "write_bytes") else None
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="no space left"):
        MADE["a tuple"]().save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["maps.pt"]


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"logits": 1}, path),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: torch.save(Evil(), path),
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no file of torch's"),
    ],
)
def test_another_file_is_refused_by_name_and_not_executed(write, tmp_path, capsys):
    write(tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt holds no explanation"):
        Explanation.load(tmp_path / "other.pt")
    assert "executed" not in capsys.readouterr().out


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path / "none.pt")
