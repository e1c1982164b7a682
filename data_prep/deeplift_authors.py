"""What the authors of DeepLIFT released: their simulated DNA sequences, and two trained networks.

The folder `deeplift_authors` holds two files as published (sequences and the ids of the test set) and the weights of
two Keras networks as .npz: arrays named "<layer>/kernel" and "<layer>/bias", in Keras' layouts. The publisher has the
weights as HDF5 files; `prepare` takes the arrays out of them at their known places, so no HDF5 library is needed.
"""

import gzip
import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data_prep import DataError, data_root, download, verify

NAME = "deeplift_authors"
TITLE = "DeepLIFT: 8,000 simulated DNA sequences, and the authors' networks for these and for MNIST"
SIZE = "2 MB"
LICENCE = "none stated"
SOURCE = "Shrikumar, Greenside, Kundaje: github.com/AvantiShri/model_storage"
URL = "https://raw.githubusercontent.com/AvantiShri/model_storage/d53ee8e7206873fcddb594c92cb2445f77f20da5/deeplift/"
REMEDY = "run `python -m data_prep deeplift_authors`, or set ATTRAIN_DATA to a folder that holds deeplift_authors"

# As published: file -> (path below URL, sha256).
FILES = {
    "sequences.simdata.gz": (
        "genomics/sequences.simdata.gz",
        "84a4f65ee3a9b75e40f7d9aaa72e74ad0c4de5529784f381f51000daf4b79d57",
    ),
    "test.txt.gz": ("genomics/test.txt.gz", "c3005b68b1ed37e03902808f47c39ff0fa4a2456e6efd66edf06cb2713b44c9f"),
}
# file -> (path of the HDF5 file below URL, its sha256, sha256 of the arrays' bytes in the order of `LAYOUT`).
WEIGHTS = {
    "genomics_conv1d.npz": (
        "genomics/keras2_conv1d_record_5_model_PQzyq_modelWeights.h5",
        "f1650759a946a4aaf8e8f7a897bd37e387945b280857647bc60167e8b892bc20",
        "abcd33558d55cb24bb0ba7127a619d317b446089282dec1358bf3dee031263fd",
    ),
    "mnist_cnn_allconv.npz": (
        "mnist/keras2_mnist_cnn_allconv.h5",
        "365caefd59f3bdb1d18e8a4d3846168fef0cda03fad2e19a074aff9761ff2314",
        "6ea29a9b189155c5a3800215290806410d19545624798a3567e969fa7f58e4bc",
    ),
}
# file -> array -> (shape, its first byte in the HDF5 file, where it lies uncompressed as little-endian float32).
LAYOUT = {
    "genomics_conv1d.npz": {
        "conv1d_1/bias": ((50,), 19136),
        "conv1d_1/kernel": ((11, 4, 50), 8288),
        "conv1d_2/bias": ((50,), 19336),
        "conv1d_2/kernel": ((11, 50, 50), 23232),
        "dense_1/bias": ((50,), 19536),
        "dense_1/kernel": ((50, 50), 138016),
        "dense_2/bias": ((3,), 20336),
        "dense_2/kernel": ((50, 3), 19736),
    },
    "mnist_cnn_allconv.npz": {
        "conv2d_1/bias": ((32,), 13552),
        "conv2d_1/kernel": ((4, 4, 1, 32), 9456),
        "conv2d_2/bias": ((64,), 13680),
        "conv2d_2/kernel": ((4, 4, 32, 64), 17648),
        "dense_1/bias": ((128,), 13936),
        "dense_1/kernel": ((1600, 128), 153592),
        "dense_2/bias": ((10,), 14448),
        "dense_2/kernel": ((128, 10), 977536),
    },
}
MOTIFS = ("GATA_disc1", "TAL1_known1")
BACKGROUND = (0.27, 0.23, 0.23, 0.27)  # how frequent A, C, G, T are between the motifs of the released sequences


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify all four files; returns their sha256, of the weights that of the arrays."""
    folder = data_root(root) / NAME
    for name, (_, expected) in FILES.items():
        verify(folder / name, expected, REMEDY)
    for name in WEIGHTS:
        _arrays(name, root)
    digests = {name: expected for name, (_, expected) in FILES.items()} | {n: w[2] for n, w in WEIGHTS.items()}
    return {f"{NAME}/{name}": digest for name, digest in digests.items()}


def prepare(root: str | Path | None = None, url: str = URL) -> Path:
    """Download what is missing or corrupt, and take the weights out of their HDF5 files; returns the folder."""
    folder = data_root(root) / NAME
    folder.mkdir(parents=True, exist_ok=True)
    for name, (path, expected) in FILES.items():
        download(url + path, folder / name, expected)
    for name, (path, expected, _) in WEIGHTS.items():
        try:
            _arrays(name, root)
        except DataError:
            with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
                hdf5, made = Path(scratch) / "weights.h5", Path(scratch) / name
                download(url + path, hdf5, expected)
                np.savez(made, **_from_hdf5(hdf5.read_bytes(), LAYOUT[name]))
                made.replace(folder / name)
    checksums(root)
    return folder


def load(root: str | Path | None = None) -> dict[str, Tensor]:
    """The sequences, in the file's order.

    Returns:
        "x" (8000, 4, 200) uint8, one-hot in the order A, C, G, T; "y" (8000, 3) uint8: both motifs, GATA, TAL (the
        file's task1, task2, task3); "test" (800,), the test set's rows, ascending; "motifs" (M, 3): row, motif
        (0 GATA_disc1, 1 TAL1_known1) and first position of each inserted instance.
    """
    folder = data_root(root) / NAME
    for name, (_, expected) in FILES.items():
        verify(folder / name, expected, REMEDY)
    with gzip.open(folder / "sequences.simdata.gz", "rt") as file:
        ids, sequences, inserted, *labels = zip(*(line.rstrip("\n").split("\t") for line in list(file)[1:]))
    with gzip.open(folder / "test.txt.gz", "rt") as file:
        test = set(file.read().split())
    letters = torch.frombuffer(bytearray("".join(sequences).encode()), dtype=torch.uint8).view(len(ids), 1, -1)
    return {
        "x": (letters == torch.tensor(list(b"ACGT"))[:, None]).to(torch.uint8),
        "y": torch.tensor([[int(label) for label in column] for column in labels], dtype=torch.uint8).T.contiguous(),
        "test": torch.tensor([row for row, name in enumerate(ids) if name in test]),
        "motifs": torch.tensor(
            [_place(row, part) for row, text in enumerate(inserted) for part in text.split(",") if part]
        ),
    }


def genomics_network(root: str | Path | None = None) -> nn.Sequential:
    """The authors' convolutional network for the sequences, (N, 4, 200) -> logits (N, 3), in evaluation mode."""
    net = nn.Sequential(
        nn.Conv1d(4, 50, 11), nn.ReLU(), nn.Conv1d(50, 50, 11), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(50, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 3),
    )  # fmt: skip
    return _filled(net, _arrays("genomics_conv1d.npz", root))


def mnist_network(root: str | Path | None = None) -> nn.Sequential:
    """The authors' convolutional network for MNIST, (N, 1, 28, 28) -> logits (N, 10), in evaluation mode."""
    net = nn.Sequential(
        nn.Conv2d(1, 32, 4, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    arrays = _arrays("mnist_cnn_allconv.npz", root)
    # Keras flattens (height, width, channel), torch (channel, height, width).
    flat = arrays["dense_1/kernel"].reshape(5, 5, 64, 128).transpose(2, 0, 1, 3).reshape(1600, 128)
    return _filled(net, arrays | {"dense_1/kernel": flat})


def _filled(net: nn.Sequential, arrays: dict[str, np.ndarray]) -> nn.Sequential:
    """The network with the weights, kernels (…, in, out) turned to (out, in, …)."""
    layers = [layer for layer in net if hasattr(layer, "weight")]
    with torch.no_grad():
        for layer, name in zip(layers, sorted({key.split("/")[0] for key in arrays})):
            kernel = torch.from_numpy(arrays[f"{name}/kernel"])
            layer.weight.copy_(kernel.movedim((-1, -2), (0, 1)))
            layer.bias.copy_(torch.from_numpy(arrays[f"{name}/bias"]))
    return net.eval()


def _place(row: int, text: str) -> list[int]:
    """pos-120_GATA_disc1-GCAGATAAGA -> [row, 0, 120]"""
    position, motif = text.removeprefix("pos-").rsplit("-", 1)[0].split("_", 1)
    return [row, MOTIFS.index(motif), int(position)]


def _arrays(name: str, root) -> dict[str, np.ndarray]:
    path = data_root(root) / NAME / name
    if not path.is_file():
        raise DataError(f"{path} is missing: {REMEDY}")
    try:
        with open(path, "rb") as content, np.load(content) as file:
            arrays = {key: file[key] for key in LAYOUT[name]}
    except Exception as error:  # a damaged archive raises many kinds
        raise DataError(f"{path} is corrupt ({error}): delete it and {REMEDY}") from None
    digest = hashlib.sha256(b"".join(a.tobytes() for a in arrays.values())).hexdigest()
    if digest != WEIGHTS[name][2]:
        raise DataError(f"{path} is corrupt or another (sha256 of its arrays {digest[:12]}…): delete it and {REMEDY}")
    return arrays


def _from_hdf5(content: bytes, layout: dict[str, tuple[tuple[int, ...], int]]) -> dict[str, np.ndarray]:
    return {key: np.frombuffer(content, "<f4", math.prod(s), first).reshape(s) for key, (s, first) in layout.items()}
