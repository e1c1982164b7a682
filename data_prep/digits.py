"""The embedded default: scikit-learn's 1,797 real handwritten digits, brought from 8×8 to 28×28.

Nothing to download: the images come with scikit-learn (the test part of UCI's Optical Recognition of
Handwritten Digits, Alpaydin and Kaynak 1998). Each is enlarged to 20×20 bilinearly and put in the middle
of a black 28×28 canvas, which is MNIST's layout.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data_prep import DataError

NAME = "digits"
TITLE = "1,797 handwritten digits of scikit-learn, 28×28"
SIZE = "0.1 MB"
LICENCE = "CC BY 4.0"
SOURCE = "UCI Optical Recognition of Handwritten Digits, as shipped with scikit-learn"
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
TEST = 360  # images of the test set; a fixed split, drawn once with seed 0


@cache  # checksums and images are asked of it, and it is a text of a quarter of a megabyte
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) and digits (1797,): `sklearn.datasets.load_digits` without its import, which takes seconds."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("the digits come with scikit-learn, which is not installed")
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    return table[:, :-1], table[:, -1]


def prepare(root: Path | None = None) -> None:
    """Nothing to get; verifies what scikit-learn ships."""
    checksums(root)


def checksums(root: Path | None = None) -> dict[str, str]:
    actual = hashlib.sha256(b"".join(part.astype("uint8").tobytes() for part in _table())).hexdigest()
    if actual != SHA256:
        raise DataError(f"scikit-learn's digits are corrupt or have changed (sha256 {actual[:12]}…): reinstall it")
    return {"sklearn.datasets.load_digits": actual}


def load(root: Path | None = None, size: int = 28) -> dict[str, torch.Tensor]:
    """Images in [0, 1] and labels: train_x (1437, 1, size, size), train_y (1437,), test_x (360, …), test_y.

    Args:
        size: 28, or 8 for the images as they are.
    """
    if size not in (8, 28):
        raise ValueError(f"the digits come with 8 or 28 pixels, got size={size}")
    checksums(root)
    pixels, digits = _table()
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    if size == 28:
        images = F.pad(F.interpolate(images, size=20, mode="bilinear", align_corners=False), (4,) * 4).clamp(0, 1)
    labels = torch.tensor(digits, dtype=torch.long)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = order[:TEST], order[TEST:]
    return {"train_x": images[train], "train_y": labels[train], "test_x": images[test], "test_y": labels[test]}
