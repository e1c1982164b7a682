"""COCO 2014: 123,287 photographs with boxes and masks of eighty classes.

The splits follow the paper on guidance by boxes (Rao et al. 2023): test is the official val2014, and train2014 is
divided into train and val. The authors' division, two files that they took from another project (NN-Explainer), is used
with `division="authors"` once these are there. As in their code crowds (`iscrowd`) are kept, as label and as box.
"""

import hashlib
from functools import partial
from pathlib import Path

from torch import Tensor

from data_prep import DataError, annotations, contents, data_root, inside, own_sha256, sha256
from data_prep.annotations import Picture
from data_prep.archives import get, unpack
from data_prep.boxed import by_split, cached, multi_hot

NAME = "coco2014"
TITLE = "COCO 2014, 123,287 photographs with boxes and masks of 80 classes"
SIZE = "21 GB (and 25 GB of tensors at 224×224)"
LICENCE = "annotations CC BY 4.0, images Flickr terms of use"
SOURCE = "COCO consortium, cocodataset.org"
CLASSES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
).split(",")
HOST = "https://s3.amazonaws.com/images.cocodataset.org/"  # the same files; that name itself has no certificate
# What is in them -> address, sha256. The publisher states none; these are of TensorFlow Datasets (url_checksums).
ARCHIVES = {
    "train2014": ("zips/train2014.zip", "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
    "val2014": ("zips/val2014.zip", "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
    "annotations": (
        "annotations/annotations_trainval2014.zip",
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
}
AUTHORS = {"train": "train2014_train_split.json", "val": "train2014_val_split.json"}
REMEDY = "run `python -m data_prep coco2014`, or unpack the publisher's archives so that {folder}/annotations is there"
AUTHORS_REMEDY = """get {files} by the links in datasets/COCO2014/download.sh of github.com/sukrutrao/Model-Guidance
and put them into {folder}/annotations, or use division="hash\""""


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """sha256 of the annotation files and of all images. None is published but for the archives; see `ARCHIVES`."""
    folder = _folder(root)
    files = [folder / "annotations" / f"instances_{part}.json" for part in ("train2014", "val2014")]
    files += [file for name in AUTHORS.values() if (file := folder / "annotations" / name).is_file()]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing: {REMEDY.format(folder=folder)}")
    sums = {f"COCO2014/annotations/{file.name}": sha256(file) for file in files}
    parts = ("train2014", "val2014")
    return sums | {f"COCO2014/{part}": contents((folder / part).glob("*.jpg"), folder / part) for part in parts}


def prepare(root: str | Path | None = None) -> Path:
    """Download and unpack what is missing; returns the folder `COCO2014`."""
    folder = data_root(root) / "COCO2014"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (address, expected) in ARCHIVES.items():
        if not (folder / name).is_dir():
            unpack([get(HOST + address, folder, expected, REMEDY.format(folder=folder))], name, folder / name)
    checksums(root)
    return folder


def load(
    root: str | Path | None = None, size: int = 224, division: str = "hash", crowds: bool = True
) -> dict[str, Tensor]:
    """Images of train, val and test. The first time takes an hour or more; the tensors are then kept in files.

    They are mapped to these files, so that only what is used comes into memory.

    Args:
        size: edge of the images, at least 16.
        division: of train2014 into train and val: "authors", see above, or "hash", one image in ten by the hash of its
            number, for whoever lacks the authors' files.
        crowds: keep boxes around many objects (`iscrowd`) and their labels, as the paper's code does.

    Returns:
        for each split: `_x` (N, 3, size, size) uint8; `_y` (N, 80) float, 1 for each class there is; `_boxes`
        (N, B, 4) float, xmin, ymin, xmax, ymax, half open, and `_classes` (N, B) long, −1 where there is no more;
        `_objects` (N, size, size) uint8, b + 1 on the object of box b, else 0; of objects that overlap the smaller
        is on top.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    if division not in ("hash", "authors"):
        raise ValueError(f'division must be "hash" or "authors", got {division!r}')
    folder, key = _folder(root), [checksums(root), division, crowds, own_sha256(__file__)]
    read = {split: partial(_pictures, folder, split, division, crowds) for split in ("train", "val", "test")}
    data = by_split(cached(folder / "tensors", read, size, key))
    return data | {f"{split}_y": multi_hot(data[f"{split}_classes"], len(CLASSES)) for split in read}


def _folder(root) -> Path:
    folder = data_root(root) / "COCO2014"
    if not (folder / "annotations").is_dir():
        raise DataError(f"{folder / 'annotations'} is missing: {REMEDY.format(folder=folder)}")
    return folder


def _pictures(folder: Path, split: str, division: str, crowds: bool) -> list[Picture]:
    images = "val2014" if split == "test" else "train2014"
    name = f"instances_{images}.json"
    keep = None
    if split != "test" and division == "hash":
        keep = partial(_in_split, split)
    elif split != "test":
        name = AUTHORS[split]
        if not (folder / "annotations" / name).is_file():
            files = " and ".join(AUTHORS.values())
            raise DataError(f"{name} is missing: {AUTHORS_REMEDY.format(files=files, folder=folder)}")
    return pictures(folder / "annotations" / name, folder / images, crowds, keep, part=division == "authors")


def _in_split(split: str, number: int) -> bool:
    """Whether an image of train2014 is in train or val, always and everywhere alike."""
    validation = int(hashlib.sha256(str(number).encode()).hexdigest(), 16) % 10 == 0
    return validation == (split == "val")


def pictures(file: Path, images: Path, crowds: bool = True, keep=None, part: bool = False) -> list[Picture]:
    """The images of an instances_*.json, by their number.

    Args:
        file: the annotations; images: the folder of its images.
        crowds: see `load`.
        keep, part: see `annotations.coco`.
    """
    try:
        found, names = annotations.coco(file, partial(inside, images), crowds, keep, part)
        if unknown := {*names.values()} - {*CLASSES}:
            raise ValueError(f"unknown classes {', '.join(unknown)}")
        for picture, names in found:
            picture.classes = [CLASSES.index(name) for name in names]
    except (DataError, ValueError) as error:
        raise DataError(f"{file} is corrupt ({error}): get it again") from None
    return [picture for picture, _ in found]
