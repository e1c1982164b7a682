import gzip
import hashlib
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multilabel_auroc

from data_prep import DataError, data_root, deeplift_authors
from data_prep.dna import simulate
from studies.nets.small import SequenceCNN


@pytest.fixture(scope="module")
def released():
    try:
        deeplift_authors.checksums()
    except DataError as error:
        pytest.skip(f"needs the authors' files: {error}")
    return deeplift_authors.load()


def test_released_sequences_are_one_hot_with_labels_and_a_test_set(released):
    x, y, test = released["x"], released["y"], released["test"]
    assert x.shape == (8000, 4, 200) and x.dtype == torch.uint8 and (x.sum(1) == 1).all()
    groups, counts = y.unique(dim=0, return_counts=True)
    assert groups.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 1]] and counts.tolist() == [2000] * 4
    assert test.shape == (800,) and (test.diff() > 0).all()
    assert y[test].unique(dim=0, return_counts=True)[1].tolist() == [190, 188, 186, 236]


def test_released_motifs_stand_where_the_file_says(released):
    with gzip.open(data_root() / "deeplift_authors/sequences.simdata.gz", "rt") as file:
        rows = file.read().splitlines()[1:]
    letters = ["".join("ACGT"[i] for i in one) for one in released["x"].argmax(1).tolist()]
    found = [tuple(m) for m in released["motifs"].tolist()]
    said = [
        (row, ["GATA_disc1", "TAL1_known1"].index(name), int(position), letters[row][int(position) :].startswith(word))
        for row, line in enumerate(rows)
        for position, name, word in re.findall(r"pos-(\d+)_(\w+?)-([ACGT]+)", line.split("\t")[2])
    ]
    assert found == [s[:3] for s in said] and all(s[3] for s in said)
    assert np.bincount(released["motifs"][:, 1]).tolist() == [6747, 6797]


def test_released_letters_are_as_frequent_as_is_said(released):
    empty = released["x"][~released["y"].bool().any(1)].double()
    assert empty.mean((0, 2)).tolist() == pytest.approx(deeplift_authors.BACKGROUND, abs=0.002)


def test_the_genomics_network_ranks_new_simulated_sequences_as_well_as_the_released_ones(released):
    new = simulate(2000, background=deeplift_authors.BACKGROUND, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = deeplift_authors.genomics_network()(new["x"])
    areas = multilabel_auroc(logits, new["y"].long(), num_labels=3, average=None)
    assert areas.tolist() == pytest.approx([0.98918, 0.98845, 0.99706], abs=0.005)


def test_the_genomics_network_has_the_authors_accuracy(released):
    test = released["test"]
    with torch.no_grad():
        logits = deeplift_authors.genomics_network()(released["x"][test].float())
    areas = multilabel_auroc(logits, released["y"][test].long(), num_labels=3, average=None)
    assert areas.tolist() == pytest.approx([0.98918, 0.98845, 0.99706], abs=1e-5)
    right = ((logits > 0) == released["y"][test].bool()).float().mean(0)
    assert right.tolist() == pytest.approx([0.948, 0.939, 0.973], abs=1e-3)


def test_the_genomics_network_is_the_librarys(released):
    ours, theirs = SequenceCNN().eval(), deeplift_authors.genomics_network()
    ours.load_state_dict(theirs.state_dict())
    x = released["x"][:4].float()
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("scale", "accuracy"), [(1, 0.9924), (255, 0.9921)])
def test_the_mnist_network_has_the_authors_accuracy(released, mnist_data, scale, accuracy):
    with torch.no_grad():
        logits = deeplift_authors.mnist_network()(scale * mnist_data["test_x"])
    assert (logits.argmax(1) == mnist_data["test_y"]).sum() == round(accuracy * 10_000)


@pytest.mark.parametrize("name", deeplift_authors.WEIGHTS)
def test_networks_compute_what_keras_layouts_say(released, name):
    """Kernels as Keras has them, (…, in, out), on inputs with the channels last, by a sum over windows."""
    arrays = deeplift_authors._arrays(name, None)
    genomics = name.startswith("genomics")
    net = deeplift_authors.genomics_network() if genomics else deeplift_authors.mnist_network()
    torch.manual_seed(0)
    x = torch.rand(2, 4, 200) if genomics else torch.rand(2, 1, 28, 28)
    h, step = x.movedim(1, -1).numpy().astype(float), 1 if genomics else 2
    for conv in sorted(key[:-7] for key in arrays if "conv" in key and "kernel" in key):
        kernel = arrays[f"{conv}/kernel"]
        window = kernel.shape[:-2]
        axes = tuple(range(1, 1 + len(window)))
        views = np.lib.stride_tricks.sliding_window_view(h, window, axes)[
            (slice(None), *[slice(None, None, step)] * len(axes))
        ]
        h = np.einsum("nlcw,wco->nlo" if genomics else "nabchw,hwco->nabo", views, kernel) + arrays[f"{conv}/bias"]
        h = np.maximum(h, 0)
    h = h.mean(1) if genomics else h.reshape(2, -1)
    h = np.maximum(h @ arrays["dense_1/kernel"] + arrays["dense_1/bias"], 0)
    expected = h @ arrays["dense_2/kernel"] + arrays["dense_2/bias"]
    np.testing.assert_allclose(net.double()(x.double()).detach(), expected, atol=1e-6)


# ---------------------------------------------------------------- getting the files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """A publisher on this machine, with few sequences and weights that are counted through: (address, its folder)."""
    lines = ["seqName\tsequence\tembeddings\ttask1\ttask2\ttask3", "a_0\tACGT\tpos-1_TAL1_known1-CG\t0\t0\t1"]
    lines += ["b_1\tTTTT\t\t0\t0\t0"]
    files = {"sequences.simdata.gz": gzip.compress("\n".join(lines).encode()), "test.txt.gz": gzip.compress(b"b_1\n")}
    digest = lambda content: hashlib.sha256(content).hexdigest()  # noqa: E731
    published = {name: (name, digest(content)) for name, content in files.items()}
    monkeypatch.setattr(deeplift_authors, "FILES", published)
    weights = {}
    for number, (name, layout) in enumerate(deeplift_authors.LAYOUT.items()):
        content, arrays = bytearray(10**6), []
        for key, (shape, first) in layout.items():
            arrays.append(np.arange(np.prod(shape), dtype="<f4") + len(key) + number)
            content[first : first + arrays[-1].nbytes] = arrays[-1].tobytes()
        files[f"{number}.h5"] = bytes(content)
        weights[name] = (f"{number}.h5", digest(files[f"{number}.h5"]), digest(b"".join(a.tobytes() for a in arrays)))
    monkeypatch.setattr(deeplift_authors, "WEIGHTS", weights)
    folder = tmp_path / "published"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/", folder
        http.shutdown()


def test_a_download_is_verified_converted_and_loads(publisher, tmp_path):
    folder = deeplift_authors.prepare(tmp_path, publisher[0])
    assert sorted(p.name for p in folder.iterdir()) == sorted([*deeplift_authors.FILES, *deeplift_authors.WEIGHTS])
    data = deeplift_authors.load(tmp_path)
    assert data["x"].argmax(1).tolist() == [[0, 1, 2, 3], [3, 3, 3, 3]]
    assert data["y"].tolist() == [[0, 0, 1], [0, 0, 0]] and data["test"].tolist() == [1]
    assert data["motifs"].tolist() == [[0, 1, 1]]
    first = deeplift_authors.genomics_network(tmp_path)[0]
    assert first.weight[7, 2, 3] == 3 * 200 + 2 * 50 + 7 + len("conv1d_1/kernel")
    shutil.rmtree(publisher[1])
    assert deeplift_authors.prepare(tmp_path, publisher[0]) == folder, "nothing is downloaded again"


@pytest.mark.parametrize(
    "name", ["sequences.simdata.gz", "test.txt.gz", "genomics_conv1d.npz", "mnist_cnn_allconv.npz"]
)
@pytest.mark.parametrize("damage", ["missing", "cut short", "other content"])
def test_a_damaged_file_is_an_error_with_the_remedy_and_prepare_mends_it(publisher, tmp_path, name, damage):
    file = deeplift_authors.prepare(tmp_path, publisher[0]) / name
    content = file.read_bytes()
    file.unlink()
    if damage == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "other content" and name.endswith("npz"):
        layout = deeplift_authors.LAYOUT[name]
        np.savez(file, **{key: np.zeros(shape, "<f4") for key, (shape, _) in layout.items()})
    elif damage == "other content":
        file.write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match=r"(is missing|is corrupt).*run `python -m data_prep deeplift_authors`"):
        deeplift_authors.checksums(tmp_path)
    deeplift_authors.prepare(tmp_path, publisher[0])
    assert deeplift_authors.checksums(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "another"])
def test_a_bad_download_is_an_error_that_names_the_address_and_leaves_nothing(publisher, tmp_path, damage):
    address, folder = publisher
    (folder / "0.h5").write_bytes(b"x") if damage == "another" else (folder / "0.h5").unlink()
    with pytest.raises(DataError, match=r"/0\.h5 could not be downloaded"):
        deeplift_authors.prepare(tmp_path, address)
    assert sorted(p.name for p in (tmp_path / "deeplift_authors").iterdir()) == sorted(deeplift_authors.FILES)
