"""Fashion-MNIST in torchvision's layout, `<root>/FashionMNIST/raw`, every file verified by its sha256."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets import FashionMNIST

from data_prep import idx

NAME = "fashion_mnist"
TITLE = "70,000 articles of clothing in ten classes, 28×28"
SIZE = "55 MB (download 31 MB)"
LICENCE = "MIT"
SOURCE = "Zalando Research (Xiao, Rasul, Vollgraf 2017)"
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MIRRORS = ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",)
REMEDY = "run `python -m data_prep fashion_mnist`, or set ATTRAIN_DATA to a folder that holds FashionMNIST/raw"


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the four files; returns their sha256."""
    return idx.checksums(idx.raw(FashionMNIST, root), FILES, REMEDY)


def prepare(root: str | Path | None = None, mirrors: Sequence[str] = MIRRORS) -> Path:
    """Download what is missing or corrupt from the first mirror that has it; returns the folder."""
    return idx.prepare(idx.raw(FashionMNIST, root), FILES, REMEDY, mirrors)


def load(root: str | Path | None = None) -> dict[str, torch.Tensor]:
    """Images in [0, 1] and labels: train_x (60000, 1, 28, 28), train_y (60000,), test_x (10000, …), test_y."""
    checksums(root)
    return idx.load(FashionMNIST, root)
