import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from sklearn.datasets import load_digits

import data_prep
from data_prep import DataError, dataset, digits, fashion_mnist, marks, mnist
from data_prep.__main__ import main

# ---------------------------------------------------------------- digits and marks


def test_digits_have_mnists_layout_and_a_fixed_split():
    data = digits.load()
    assert data["train_x"].shape == (1437, 1, 28, 28) and data["test_x"].shape == (360, 1, 28, 28)
    assert data["train_y"].shape == (1437,) and sorted(set(data["test_y"].tolist())) == list(range(10))
    images = torch.cat([data["train_x"], data["test_x"]])
    assert 0 <= images.min() and images.max() <= 1
    border = torch.ones(28, 28, dtype=torch.bool)
    border[4:24, 4:24] = False
    assert images[:, 0, border].sum() == 0, "the digit lies in the middle 20×20"
    assert all(torch.equal(a, b) for a, b in zip(data.values(), digits.load().values()))
    assert len({hashlib.sha256(x.numpy().tobytes()).digest() for x in images}) == 1797, "no image in both parts"


def test_digits_of_eight_pixels_are_scikit_learns_in_the_same_split():
    small, large = digits.load(size=8), digits.load()
    assert small["test_x"].shape == (360, 1, 8, 8) and torch.equal(small["train_y"], large["train_y"])
    originals = {image.tobytes(): label for image, label in zip(load_digits().images / 16, load_digits().target)}
    found = [originals[image.numpy().tobytes()] for image in small["test_x"][:, 0].double()]
    assert found == small["test_y"].tolist()
    with pytest.raises(ValueError, match="8 or 28 pixels, got size=16"):
        digits.load(size=16)


def test_digits_that_changed_are_refused(monkeypatch):
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    with pytest.raises(DataError, match="reinstall"):
        digits.load()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_class_has_its_own_place_that_overlaps_no_other(size):
    canvas = torch.zeros(10, 1, 28, 28)
    marked = marks.add_mark(canvas, torch.arange(10), size)
    assert marked.sum((1, 2, 3)).tolist() == [size**2] * 10
    assert marked.sum(0).max() == 1 and canvas.sum() == 0
    assert marked[:, :, [0, -1]].sum() == 0 and marked[:, :, :, [0, -1]].sum() == 0


def test_marks_of_size_two_lie_in_the_background_of_every_digit():
    images = digits.load()["train_x"]
    places = marks.add_mark(torch.zeros(10, 1, 28, 28), torch.arange(10), 2).sum(0)[0] > 0
    assert not (marks.foreground_mask(images) & places).any()


def test_the_class_minus_one_leaves_an_image_unmarked():
    assert marks.add_mark(torch.zeros(2, 1, 28, 28), torch.tensor([-1, -1])).sum() == 0


def test_deceiving_classes_are_never_the_true_ones_and_cover_the_others_evenly():
    labels = torch.arange(10).repeat(1000)
    others = marks.other_classes(labels)
    assert not (others == labels).any()
    shifts = ((others - labels) % 10).bincount(minlength=10)[1:]
    assert shifts.min() > 900 and torch.equal(others, marks.other_classes(labels))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: marks.add_mark(x, torch.tensor([0]), 6), r"size must be in \[1, 5\]"),
        (lambda x: marks.add_mark(x, torch.tensor([0]), 0), "size must be in"),
        (lambda x: marks.add_mark(x, torch.tensor([10])), "classes must be in"),
    ],
)
def test_bad_marks_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 1, 28, 28))


# ---------------------------------------------------------------- MNIST and its like


def idx(images: int) -> dict[str, bytes]:
    """The four files of a tiny MNIST."""
    files = {}
    for part, n in (("train", images), ("t10k", 2)):
        pixels = bytes(i % 256 for i in range(n * 784))
        files[f"{part}-images-idx3-ubyte"] = (
            b"\0\0\x08\x03" + b"".join(v.to_bytes(4, "big") for v in (n, 28, 28)) + pixels
        )
        files[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01" + n.to_bytes(4, "big") + bytes(i % 10 for i in range(n))
    return files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror of a tiny MNIST on this machine: (address, folder of its files)."""
    files = idx(3)
    monkeypatch.setattr(mnist, "FILES", {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/", folder
        http.shutdown()


def test_a_download_is_verified_and_loads(server, tmp_path):
    folder = mnist.prepare(tmp_path / "data", [server[0]])
    assert sorted(p.name for p in folder.iterdir()) == sorted(mnist.FILES)
    data = mnist.load(tmp_path / "data")
    assert data["train_x"].shape == (3, 1, 28, 28) and data["train_y"].tolist() == [0, 1, 2]
    assert data["train_x"].max() == 1 and data["test_x"].shape == (2, 1, 28, 28)


def test_files_that_are_right_are_not_downloaded_again(server, tmp_path):
    mnist.prepare(tmp_path / "data", [server[0]])
    assert mnist.prepare(tmp_path / "data", [])


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_file_is_an_error_with_the_remedy_and_prepare_mends_it(server, tmp_path, damage):
    file = mnist.prepare(tmp_path / "data", [server[0]]) / "train-images-idx3-ubyte"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + b"?")
    with pytest.raises(DataError, match=r"(is missing|is corrupt).*run `python -m data_prep mnist`"):
        mnist.load(tmp_path / "data")
    mnist.prepare(tmp_path / "data", [server[0]])
    assert mnist.load(tmp_path / "data")


@pytest.mark.parametrize("damage", ["not gzip", "cut short", "other content", "absent"])
def test_a_bad_download_leaves_nothing_behind_and_falls_to_the_next_mirror(server, tmp_path, damage):
    address, folder = server
    file = folder / "train-labels-idx1-ubyte.gz"
    content = file.read_bytes()
    broken = {"not gzip": b"<html>", "cut short": content[:-10], "other content": gzip.compress(b"x")}
    file.write_bytes(broken[damage]) if damage in broken else file.unlink()
    with pytest.raises(DataError, match="train-labels-idx1-ubyte could not be downloaded"):
        mnist.prepare(tmp_path / "data", [address])
    left = [p.name for p in (tmp_path / "data" / "MNIST" / "raw").iterdir()]
    assert set(left) <= set(mnist.FILES) and "train-labels-idx1-ubyte" not in left
    (folder / "again").mkdir()
    for name in mnist.FILES:
        (folder / "again" / f"{name}.gz").write_bytes(gzip.compress(idx(3)[name]))
    assert mnist.prepare(tmp_path / "data", [address, f"{address}again/"])


def test_fashion_mnist_comes_to_a_folder_of_its_own(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "FILES", mnist.FILES)
    folder = fashion_mnist.prepare(tmp_path, [server[0]])
    assert folder == tmp_path / "FashionMNIST/raw" and fashion_mnist.checksums(tmp_path) == mnist.FILES
    assert fashion_mnist.load(tmp_path)["train_y"].tolist() == [0, 1, 2] and not (tmp_path / "MNIST").exists()
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"is missing: run `python -m data_prep fashion_mnist`.*FashionMNIST/raw"):
        fashion_mnist.load(tmp_path)


def test_real_fashion_mnist_has_its_known_size_and_labels():
    try:
        data = fashion_mnist.load()
    except DataError as error:
        pytest.skip(f"needs Fashion-MNIST: {error}")
    assert data["train_x"].shape == (60_000, 1, 28, 28) and data["train_y"].bincount().tolist() == [6000] * 10
    assert data["test_x"].shape == (10_000, 1, 28, 28) and data["test_y"][:5].tolist() == [9, 2, 1, 1, 6]


def test_real_mnist_has_its_known_size_and_labels(mnist_data):
    assert mnist_data["train_x"].shape == (60_000, 1, 28, 28) and mnist_data["test_x"].shape == (10_000, 1, 28, 28)
    assert mnist_data["test_y"][:5].tolist() == [7, 2, 1, 0, 4]
    assert mnist_data["train_y"].bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


# ---------------------------------------------------------------- command line


def test_list_names_every_data_set_with_its_state_size_and_licence(tmp_path, capsys):
    assert main(["--list", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in data_prep.DATASETS:
        assert name in out and dataset(name).LICENCE in out and dataset(name).SIZE in out
    assert "not here" in out and "ready" in out


@pytest.mark.parametrize(("arguments", "message"), [(["cifar"], "unknown data set 'cifar'; there are digits, mnist")])
def test_an_unknown_data_set_is_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_root_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["mnist", "--root", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_data_root_is_the_argument_then_the_variable_then_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTRAIN_DATA", str(tmp_path))
    assert data_prep.data_root() == tmp_path and data_prep.data_root("/x").as_posix() == "/x"
    monkeypatch.delenv("ATTRAIN_DATA")
    assert data_prep.data_root().name == "data"
