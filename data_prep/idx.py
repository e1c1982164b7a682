"""MNIST and data sets in its layout: four idx files, `<root>/<name>/raw` as torchvision has it, verified by sha256."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets import MNIST

from data_prep import DataError, data_root, download, sha256, verify


def raw(kind: type[MNIST], root: str | Path | None) -> Path:
    """The folder of the four files of a torchvision data set."""
    return data_root(root) / kind.__name__ / "raw"


def checksums(folder: Path, files: dict[str, str], remedy: str) -> dict[str, str]:
    """Verify the files, name -> sha256; returns a copy of that."""
    for name, expected in files.items():
        verify(folder / name, expected, remedy)
    return dict(files)


def prepare(folder: Path, files: dict[str, str], remedy: str, mirrors: Sequence[str]) -> Path:
    """Download what is missing or corrupt, from the first mirror that has it; returns the folder."""
    for name, expected in files.items():
        path, reasons = folder / name, []
        if path.is_file() and sha256(path) == expected:
            continue
        for mirror in mirrors:
            try:
                download(f"{mirror}{name}.gz", path, expected, gunzip=True)
                break
            except DataError as error:
                reasons.append(str(error))
        else:
            raise DataError(f"{name} could not be downloaded ({'; '.join(reasons)}): {remedy}")
    return folder


def load(kind: type[MNIST], root: str | Path | None) -> dict[str, torch.Tensor]:
    """Images in [0, 1] and labels: train_x (60000, 1, 28, 28), train_y (60000,), test_x (10000, …), test_y."""
    parts = {}
    for part in ("train", "test"):
        data = kind(data_root(root), train=part == "train")
        parts[f"{part}_x"], parts[f"{part}_y"] = data.data[:, None].float() / 255, data.targets
    return parts
