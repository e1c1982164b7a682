"""PASCAL VOC 2007: 9,963 photographs with boxes of twenty classes, 632 of them segmented; the official splits.

As in the paper on guidance by boxes (Rao et al. 2023) objects marked as difficult are kept, as label and as box, and
images are squashed to 224×224. The folder `VOC2007` holds what the publisher's two archives hold in VOCdevkit/VOC2007.
"""

from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from data_prep import DataError, annotations, contents, data_root, images, inside, own_sha256
from data_prep.annotations import Picture
from data_prep.archives import get, unpack
from data_prep.boxed import by_split, cached, multi_hot
from data_prep.images import UNKNOWN

NAME = "voc2007"
TITLE = "PASCAL VOC 2007, 9,963 photographs with boxes of 20 classes"
SIZE = "900 MB (and 2 GB of tensors at 224×224)"
LICENCE = "Flickr terms of use"
SOURCE = "Everingham, Van Gool, Williams, Winn, Zisserman; host.robots.ox.ac.uk/pascal/VOC/voc2007"
CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"
).split()
COUNTS = {"train": 2501, "val": 2510, "test": 4952}
HOSTS = ("https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/", "https://host.robots.ox.ac.uk/pascal/VOC/voc2007/")
# sha256, as TensorFlow Datasets have them (url_checksums/voc.txt); the publisher states none.
ARCHIVES = {
    "VOCtrainval_06-Nov-2007.tar": "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
    "VOCtest_06-Nov-2007.tar": "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
}
REMEDY = (
    "run `python -m data_prep voc2007`, or unpack the publisher's two archives so that {folder}/Annotations is there"
)


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """sha256 of the contents of annotations, lists of the splits, images and masks.

    None is published for these, so a copy is known by them, not verified; that every image is there is.
    """
    folder = _folder(root)
    names = [name for split in COUNTS for name in _names(folder, split)]
    parts = {"Annotations": "xml", "JPEGImages": "jpg"}
    files = {part: [folder / part / f"{name}.{end}" for name in names] for part, end in parts.items()}
    for file in (file for found in files.values() for file in found):
        if not file.is_file():
            raise DataError(f"{file} is missing: {REMEDY.format(folder=folder)}")
    files["ImageSets/Main"] = [folder / "ImageSets/Main" / f"{split}.txt" for split in COUNTS]
    for part in ("SegmentationObject", "SegmentationClass"):
        files[part] = sorted((folder / part).glob("*.png"))
    return {f"VOC2007/{part}": contents(found, folder) for part, found in files.items()}


def prepare(root: str | Path | None = None) -> Path:
    """Download and unpack what is missing; returns the folder `VOC2007`."""
    folder = data_root(root) / "VOC2007"
    try:
        checksums(root)
    except DataError:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remedy = REMEDY.format(folder=folder)
        got = [get([h + name for h in HOSTS], folder.parent, sha, remedy) for name, sha in ARCHIVES.items()]
        unpack(got, "VOCdevkit/VOC2007", folder)
        checksums(root)
    return folder


def load(root: str | Path | None = None, size: int = 224, difficult: bool = True) -> dict[str, Tensor]:
    """The official train, val and test images. The first time takes minutes; the tensors are then kept in files.

    Args:
        size: edge of the images, at least 16.
        difficult: keep objects that are marked as difficult to recognise, as the paper does; else they are neither
            label nor box. (An image may then be without any label.)

    Returns:
        for each split: `_x` (N, 3, size, size) uint8; `_y` (N, 20) float, 1 for each class there is; `_boxes`
        (N, B, 4) float, xmin, ymin, xmax, ymax, half open, and `_classes` (N, B) long, −1 where there is no more;
        `_objects` (N, size, size) uint8, b + 1 on the object of box b, 0 on the background, 255 where that is not
        known: on objects' borders, and all over an image that is not segmented.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16, got {size}")
    folder, key = _folder(root), [checksums(root), difficult, own_sha256(__file__)]
    read = {split: partial(_pictures, folder, split, difficult) for split in COUNTS}
    data = by_split(cached(folder / "tensors", read, size, key))
    return data | {f"{split}_y": multi_hot(data[f"{split}_classes"], len(CLASSES)) for split in read}


def _folder(root) -> Path:
    folder = data_root(root) / "VOC2007"
    if not (folder / "Annotations").is_dir():
        raise DataError(f"{folder / 'Annotations'} is missing: {REMEDY.format(folder=folder)}")
    return folder


def _names(folder: Path, split: str) -> list[str]:
    file = folder / "ImageSets" / "Main" / f"{split}.txt"
    names = file.read_text("utf-8", "replace").split() if file.is_file() else []
    if len(names) != COUNTS[split]:
        raise DataError(f"{file} is corrupt, {len(names)} names of {COUNTS[split]}: {REMEDY.format(folder=folder)}")
    return names


def _pictures(folder: Path, split: str, difficult: bool) -> list[Picture]:
    return [_picture(folder, name, difficult) for name in _names(folder, split)]


def _picture(folder: Path, name: str, difficult: bool) -> Picture:
    file = inside(folder / "Annotations", f"{name}.xml")
    try:
        boxes, names, _ = annotations.voc(file, difficult)
        classes = [CLASSES.index(name) for name in names]
    except (DataError, ValueError) as error:
        raise DataError(f"{file} is corrupt ({error}): {REMEDY.format(folder=folder)}") from None
    masks = [folder / part / f"{name}.png" for part in ("SegmentationObject", "SegmentationClass")]
    segmented = all(mask.is_file() for mask in masks)
    objects = partial(_objects, *masks, np.array(boxes).reshape(-1, 4), classes) if segmented else None
    return Picture(folder / "JPEGImages" / f"{name}.jpg", boxes, classes, objects)


def _objects(instances: Path, kinds: Path, boxes: np.ndarray, classes: list[int], height: int, width: int):
    """The label map of `Picture.objects`: each instance belongs to the box of its class that fits it best."""
    number, kind = images.labels(instances), images.labels(kinds)  # palette images: indices, 255 on borders
    if number.shape != (height, width) or kind.shape != (height, width):
        raise DataError(f"{instances} has another size than its image, {number.shape} and not {(height, width)}")
    labels = np.where(number == UNKNOWN, UNKNOWN, 0).astype(np.uint8)
    for instance in np.setdiff1d(number, [0, UNKNOWN]):
        where = number == instance
        rows, columns = where.any(1).nonzero()[0], where.any(0).nonzero()[0]
        own = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        of_class = np.array(classes) == np.bincount(kind[where]).argmax() - 1
        overlap = np.where(of_class, _iou(boxes, own), -1.0) if len(boxes) else np.array([-1.0])
        labels[where] = overlap.argmax() + 1 if overlap.max() > 0 else UNKNOWN  # a difficult object that was left out
    return labels


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    sides = (np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])).clip(0)
    both = sides.prod(1)
    return both / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - both)
