"""MNIST in torchvision's layout, `<root>/MNIST/raw`, every file verified by its sha256."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets import MNIST

from data_prep import idx

NAME = "mnist"
TITLE = "70,000 handwritten digits, 28×28"
SIZE = "55 MB (download 12 MB)"
LICENCE = "CC BY-SA 3.0"
SOURCE = "LeCun, Cortes, Burges"
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",)  # PyTorch's; the publisher's has no https
REMEDY = "run `python -m data_prep mnist`, or set ATTRAIN_DATA to a folder that holds MNIST/raw"


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the four files; returns their sha256."""
    return idx.checksums(idx.raw(MNIST, root), FILES, REMEDY)


def prepare(root: str | Path | None = None, mirrors: Sequence[str] = MIRRORS) -> Path:
    """Download what is missing or corrupt from the first mirror that has it; returns the folder."""
    return idx.prepare(idx.raw(MNIST, root), FILES, REMEDY, mirrors)


def load(root: str | Path | None = None) -> dict[str, torch.Tensor]:
    """Images in [0, 1] and labels: train_x (60000, 1, 28, 28), train_y (60000,), test_x (10000, …), test_y."""
    checksums(root)
    return idx.load(MNIST, root)
