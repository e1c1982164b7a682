"""COCO 2014: 123,287 photographs with boxes and masks of eighty classes.

The splits follow the paper on guidance by boxes (Rao et al. 2023): test is the official val2014, and train2014 is
divided into train and val. The authors' division, two files that they took from another project (NN-Explainer), is used
with `division="authors"` once these are there. As in their code crowds (`iscrowd`) are kept, as label and as box.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from data_prep import DataError, data_root, own_sha256, sha256
from data_prep.boxed import Picture, by_split, cached, get, multi_hot, unpack

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
HOST = "http://images.cocodataset.org/"
ARCHIVES = {  # what is in them -> address and the md5 that is in use in the field; the publisher states none
    "train2014": ("zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88"),
    "val2014": ("zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3"),
    "annotations": ("annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd"),
}
AUTHORS = {"train": "train2014_train_split.json", "val": "train2014_val_split.json"}
REMEDY = "run `python -m data_prep coco2014`, or unpack the publisher's archives so that {folder}/annotations is there"
AUTHORS_REMEDY = """get {files} by the links in datasets/COCO2014/download.sh of github.com/sukrutrao/Model-Guidance
and put them into {folder}/annotations, or use division="hash\""""


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """sha256 of the annotation files. None is published, and of the images the md5 of the archives is verified."""
    folder = _folder(root)
    files = [folder / "annotations" / f"instances_{part}.json" for part in ("train2014", "val2014")]
    files += [file for name in AUTHORS.values() if (file := folder / "annotations" / name).is_file()]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is missing: {REMEDY.format(folder=folder)}")
    return {f"COCO2014/annotations/{file.name}": sha256(file) for file in files}


def prepare(root: str | Path | None = None) -> Path:
    """Download and unpack what is missing; returns the folder `COCO2014`."""
    folder = data_root(root) / "COCO2014"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (address, md5) in ARCHIVES.items():
        if not (folder / name).is_dir():
            unpack(get(HOST + address, folder, md5, REMEDY.format(folder=folder)), name, folder / name)
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
    return pictures(folder / "annotations" / name, folder / images, crowds, keep)


def _in_split(split: str, number: int) -> bool:
    """Whether an image of train2014 is in train or val, always and everywhere alike."""
    validation = int(hashlib.sha256(str(number).encode()).hexdigest(), 16) % 10 == 0
    return validation == (split == "val")


def pictures(
    annotations: Path, images: Path, crowds: bool = True, keep=None, classes: Sequence[str] = CLASSES
) -> list[Picture]:
    """The images of an instances_*.json, by their number.

    Args:
        annotations: the file; images: the folder of its images.
        crowds: see `load`.
        keep: image's number -> whether it is wanted; None for all.
        classes: names of the categories that objects may have.
    """
    try:
        content = json.loads(annotations.read_text("utf-8"))
        of_category = {entry["id"]: classes.index(entry["name"]) for entry in content["categories"]}
        entries: dict[int, list[dict]] = {}
        for entry in content["annotations"]:
            if crowds or not entry["iscrowd"]:
                entries.setdefault(entry["image_id"], []).append(entry)
        wanted = [image for image in content["images"] if keep is None or keep(image["id"])]
        return [
            _picture(images / image["file_name"], entries.get(image["id"], []), of_category, image)
            for image in sorted(wanted, key=lambda image: image["id"])
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{annotations} is corrupt ({type(error).__name__}: {error}): get it again") from None


def _picture(path: Path, entries: list[dict], of_category: dict[int, int], image: dict) -> Picture:
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (entry["bbox"] for entry in entries)]
    classes = [of_category[entry["category_id"]] for entry in entries]
    size = (image["width"], image["height"]) if {"width", "height"} <= image.keys() else None
    if not all(entry.get("segmentation") for entry in entries):  # boxes only, as other tools write them
        return Picture(path, boxes, classes, size=size)
    outlines = [(b + 1, e.get("area", e["bbox"][2] * e["bbox"][3]), e["segmentation"]) for b, e in enumerate(entries)]
    return Picture(path, boxes, classes, partial(_objects, outlines), size=size)


def _objects(outlines: list[tuple[int, float, object]], height: int, width: int) -> np.ndarray:
    labels = np.zeros((height, width), np.uint8)
    for b, _, segmentation in sorted(outlines, key=lambda outline: -outline[1]):
        labels[decode(segmentation, height, width)] = b
    return labels


def decode(segmentation, height: int, width: int) -> np.ndarray:
    """A segmentation in any of COCO's three forms as (height, width) bool.

    The forms: polygons [[x1, y1, x2, y2, …], …]; run lengths {"size": [height, width], "counts": [...]}, of 0 and 1
    in turn, down the columns; or the same with the counts packed into a string.

    Raises:
        ValueError: run lengths of another size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), bool)
        for polygon in segmentation:
            _fill(mask, np.reshape(polygon, (-1, 2)))
        return mask
    counts = segmentation["counts"]
    counts = counts if isinstance(counts, list) else _unpacked(counts)
    if list(segmentation["size"]) != [height, width] or sum(counts) != height * width or min(counts) < 0:
        raise ValueError(
            f"run lengths must be of {height}×{width} pixels, got size {segmentation['size']} and {sum(counts)} pixels"
        )
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _fill(mask: np.ndarray, points: np.ndarray, fine: int = 5) -> None:
    """Set the pixels whose centres lie in the polygon (P, 2): it is drawn on a grid so much finer than the image's."""
    low = np.floor(points.min(0)).astype(int).clip(0)
    high = np.ceil(points.max(0)).astype(int).clip(max=mask.shape[::-1])
    if (low < high).all():
        drawn = Image.new("1", tuple((high - low) * fine))
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in ((points - low) * fine - 0.5).tolist()], fill=1)
        mask[low[1] : high[1], low[0] : high[0]] |= np.asarray(drawn)[fine // 2 :: fine, fine // 2 :: fine]


def _unpacked(packed: str | bytes) -> list[int]:
    """Counts of COCO's compressed string: five bits a character, from the fourth on less the one two before."""
    counts: list[int] = []
    value = shift = 0
    for character in packed.encode() if isinstance(packed, str) else packed:
        character -= 48
        value |= (character & 31) << shift
        shift += 5
        if not character & 32:  # the last of a number; its highest bit is the sign
            value -= (1 << shift) if character & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
