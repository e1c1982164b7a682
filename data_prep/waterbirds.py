"""Waterbirds-100: birds of CUB-200-2011 cut out and put on land or water, where the background tells the bird's class.

In train and val waterbirds are on water and landbirds on land; in test, and in the balanced validation split, each
class is as often on either. Two releases hold such images, and both leave a bird where it is in CUB, whose boxes and
segmentations fit them:

- `waterbird_1.0_forest2water2`, Waterbirds-100 itself (Petryk et al. 2022, GALS), as the paper on guidance by boxes
  used it. It lies on a file host that has to be visited by hand.
- `waterbird_complete95_forest2water2`, the original (Sagawa et al. 2020), in which 5 % of the training images are on
  the other background. Without these 240 images it is a Waterbirds-100 of 4,555 training images, not the paper's.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from data_prep import DataError, contents, data_root, images, inside, own_sha256, sha256
from data_prep.annotations import Picture
from data_prep.archives import get, unpack
from data_prep.boxed import by_split, cached

NAME = "waterbirds"
TITLE = "Waterbirds-100, 11,788 birds on land or water, with boxes and masks"
SIZE = "1.7 GB (and 2.5 GB of tensors at 224×224)"
LICENCE = "research use (CUB-200-2011, Places)"
SOURCE = "Sagawa, Koh, Hashimoto, Liang; Petryk et al.; Wah et al. (CUB-200-2011)"
CLASSES = ["landbird", "waterbird"]
BACKGROUNDS = ("land", "water")
RELEASES = ("waterbird_1.0_forest2water2", "waterbird_complete95_forest2water2")
CODES = {"train": 0, "val": 1, "test": 2}
# file -> address, sha256, what it holds. No checksum of the first is published, nor could we get it to make one, so
# `archives.get` reads it to its end, where its .gz has a checksum of the content. CUB's are TensorFlow Datasets'
# (url_checksums/caltech_birds2011.txt), and the files are those of the md5 that CaltechDATA states.
ARCHIVES = {
    RELEASES[1]: (f"https://nlp.stanford.edu/data/dro/{RELEASES[1]}.tar.gz", None, RELEASES[1]),
    "CUB_200_2011": (
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        "CUB_200_2011",
    ),
    "segmentations": (
        "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz",
        "dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
        "segmentations",
    ),
}
HOW = """`python -m data_prep waterbirds` gets the release of Sagawa et al. and CUB's boxes and segmentations.
Waterbirds-100 itself, waterbird_1.0_forest2water2.tar.gz, has to be downloaded by hand, by the link in
datasets/README.md of github.com/rensdebee/FACTifAI_2024_3, and unpacked so that
{folder}/waterbird_1.0_forest2water2/metadata.csv is there"""


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """sha256 of the metadata and the images of each release that is there, of CUB's boxes, and of the masks."""
    folder = data_root(root) / "waterbirds"
    found = [name for name in RELEASES if (folder / name / "metadata.csv").is_file()]
    if not found:
        raise DataError(f"{folder} holds no release: {HOW.format(folder=folder)}")
    files = [folder / name / "metadata.csv" for name in found]
    files += [folder / "CUB_200_2011" / name for name in ("images.txt", "bounding_boxes.txt")]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing: {HOW.format(folder=folder)}")
    sums = {f"waterbirds/{file.relative_to(folder)}": sha256(file) for file in files}
    parts = {name: (folder / name).rglob("*.jpg") for name in found}
    parts["segmentations"] = (folder / "segmentations").rglob("*.png")
    return sums | {f"waterbirds/{part}": contents(paths, folder) for part, paths in parts.items()}


def prepare(root: str | Path | None = None) -> Path:
    """Download and unpack what is missing; returns the folder `waterbirds`."""
    folder = data_root(root) / "waterbirds"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (url, expected, member) in ARCHIVES.items():
        if not (folder / name).is_dir() and not (name in RELEASES and (folder / RELEASES[0]).is_dir()):
            unpack([get(url, folder, expected, HOW.format(folder=folder))], member, folder / name)
    checksums(root)
    return folder


def load(root: str | Path | None = None, size: int = 224, release: str = RELEASES[0]) -> dict[str, Tensor]:
    """Images of train, val, balanced and test. The first time takes minutes; the tensors are then kept in files.

    `balanced` is the release's whole validation split, in which birds are on either background; `val` is that part
    of it where the background is the class's, as in training. Whoever chooses by balanced has seen the shift.

    Args:
        size: edge of the images, at least 16; they are squashed to it.
        release: one of `RELEASES`, see above. Training images on the other background are left out, if there are any.

    Returns:
        for each split: `_x` (N, 3, size, size) uint8; `_y` (N,) long, index into `CLASSES`; `_background` (N,) long;
        `_group` (N,) long, 2 · class + background; `_boxes` (N, 1, 4) float, xmin, ymin, xmax, ymax, half open;
        `_classes` (N, 1) long, the class; `_objects` (N, size, size) uint8, 1 on the bird, 0 on the background, 255 all
        over where CUB's segmentation is not there.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    if release not in RELEASES:
        raise ValueError(f"release must be one of {', '.join(RELEASES)}, got {release!r}")
    sums, folder = checksums(root), data_root(root) / "waterbirds"
    if not (folder / release / "metadata.csv").is_file():
        raise DataError(f"{folder / release / 'metadata.csv'} is missing: {HOW.format(folder=folder)}")
    table = _table(folder, release)
    alike = table["y"] == table["place"]
    rows = {split: table[(table["split"] == code) & (alike | (split == "test"))] for split, code in CODES.items()}
    rows["balanced"] = table[table["split"] == CODES["val"]]
    read = {split: partial(_pictures, folder, release, part) for split, part in rows.items()}
    data = by_split(cached(folder / "tensors", read, size, [sums, release, own_sha256(__file__)]))
    return data | {f"{split}_group": 2 * data[f"{split}_y"] + data[f"{split}_background"] for split in read}


def _table(folder: Path, release: str) -> pd.DataFrame:
    """A row an image: img_filename, y, split, place, and CUB's box, by the image's file name."""
    file = folder / release / "metadata.csv"
    try:
        table = pd.read_csv(file)[["img_filename", "y", "split", "place"]]
        if not (table[["y", "place"]].isin([0, 1]).all(axis=None) and table["split"].isin(CODES.values()).all()):
            raise ValueError("y and place must be 0 or 1, split 0, 1 or 2")
        names = _cub(folder, "images.txt", ["img_filename"])
        boxes = _cub(folder, "bounding_boxes.txt", ["left", "top", "width", "height"]).astype(float)
        for found, where in ((table, file), (names, folder / "CUB_200_2011/images.txt")):
            if found["img_filename"].duplicated().any():
                raise ValueError(
                    f"{where} has {found['img_filename'][found['img_filename'].duplicated()].iloc[0]} twice"
                )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} or CUB's tables are corrupt ({error}): get them again") from None
    table = table.merge(names.join(boxes), on="img_filename", how="left", validate="one_to_one")
    if table.isna().any(axis=None):
        missing = table["img_filename"][table.isna().any(axis=1)].iloc[0]
        raise DataError(f"CUB_200_2011 has no box for {missing} of {file}: get it again")
    return table


def _cub(folder: Path, name: str, columns: list[str]) -> pd.DataFrame:
    return pd.read_csv(folder / "CUB_200_2011" / name, sep=" ", header=None, names=["id", *columns], index_col="id")


def _pictures(folder: Path, release: str, rows: pd.DataFrame) -> list[Picture]:
    pictures = []
    for row in rows.itertuples():
        path = inside(folder / release, row.img_filename)
        mask = (folder / "segmentations" / row.img_filename).with_suffix(".png")
        objects = partial(_objects, mask) if mask.is_file() else None
        box = (row.left, row.top, row.left + row.width, row.top + row.height)
        more = {"y": row.y, "background": row.place}
        pictures.append(Picture(path, [box], [row.y], objects, more))
    return pictures


def _objects(mask: Path, height: int, width: int) -> np.ndarray:
    drawn = np.asarray(images.grey(mask))  # how many of five people called a pixel bird, up to 255
    if drawn.shape != (height, width):
        raise DataError(f"{mask} has another size than its image, {drawn.shape} and not {(height, width)}")
    return (drawn > 127).astype(np.uint8)
