"""MNIST and data sets in its layout: four idx files, `<root>/<name>/raw` as torchvision has it, verified by sha256."""

import gzip
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets import MNIST

from data_prep import DataError, data_root, verify


def raw(kind: type[MNIST], root: str | Path | None) -> Path:
    """The folder of the four files of a torchvision data set."""
    return data_root(root) / kind.__name__ / "raw"


def checksums(folder: Path, files: dict[str, str], remedy: str) -> dict[str, str]:
    """Verify the files, name -> sha256; returns a copy of that."""
    for name, expected in files.items():
        verify(folder / name, expected, remedy)
    return dict(files)


def prepare(folder: Path, files: dict[str, str], remedy: str, mirrors: Sequence[str]) -> Path:
    """Download what is missing or corrupt; returns the folder.

    A file is downloaded beside its place, verified, and only then renamed, so that an interrupted
    download leaves nothing that looks finished.
    """
    for name, expected in files.items():
        try:
            verify(folder / name, expected, remedy)
        except DataError:
            folder.mkdir(parents=True, exist_ok=True)
            _download(folder / name, expected, mirrors, remedy)
    return folder


def load(kind: type[MNIST], root: str | Path | None) -> dict[str, torch.Tensor]:
    """Images in [0, 1] and labels: train_x (60000, 1, 28, 28), train_y (60000,), test_x (10000, …), test_y."""
    parts = {}
    for part in ("train", "test"):
        data = kind(data_root(root), train=part == "train")
        parts[f"{part}_x"], parts[f"{part}_y"] = data.data[:, None].float() / 255, data.targets
    return parts


def _download(path: Path, expected: str, mirrors: Sequence[str], remedy: str) -> None:
    reasons = []
    for mirror in mirrors:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        temporary = Path(name)
        try:
            url = f"{mirror}{path.name}.gz"
            with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as packed:
                shutil.copyfileobj(gzip.GzipFile(fileobj=packed), file)
            verify(temporary, expected, "try again")
            temporary.chmod(0o644)
            temporary.replace(path)
            return
        except (OSError, EOFError, DataError) as error:  # HTTP, network, gzip and checksum errors
            reasons.append(f"{mirror}: {error}")
        finally:
            temporary.unlink(missing_ok=True)
    raise DataError(f"{path.name} could not be downloaded ({'; '.join(reasons)}): {remedy}")
