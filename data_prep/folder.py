"""A folder of your own images with boxes or masks: COCO's JSON, VOC's XML files, or masks as PNG.

| annotations | in the folder |
|---|---|
| coco | `images/`, and `annotations.json` with images, annotations and categories as in COCO's instances files |
| voc | `images/` (or `JPEGImages/`), and `annotations/` (or `Annotations/`) with an XML file an image, of its name |
| masks | `images/`, and `masks/` with a PNG an image, of its name: 0 is background, all else the object |

Not a data set of the studies itself. With folders `train`, `val` and `test`, each of that form, the division is
theirs; else images are drawn. An image's class is its sub-folder in `images/`, or it has those of its objects.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_prep import DataError, coco2014, voc2007
from data_prep.boxed import Picture, arrays, multi_hot

ANNOTATIONS = ("coco", "voc", "masks")
LABELS = ("annotations", "folders")
SPLITS = ("train", "val", "test")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Folder(NamedTuple):
    """What `load` returns.

    Attributes:
        data: for each split, `_x` (N, 3, size, size) uint8; `_y` (N, classes) float, 1 for each class there is;
            `_boxes` (N, B, 4) float, xmin, ymin, xmax, ymax, half open, and `_classes` (N, B) long, −1 where there is
            no more; `_objects` (N, size, size) uint8, b + 1 on the object of box b, 0 elsewhere, 255 where not known.
        classes: their names, in the order of the labels.
        left_out: number of images without a label: none of the annotations is theirs.
    """

    data: dict[str, Tensor]
    classes: list[str]
    left_out: int


def load(
    folder: str | Path,
    annotations: str,
    size: int = 224,
    labels: str = "",
    classes: Sequence[str] = (),
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> Folder:
    """Read all of a folder into memory; images of any size are squashed to size × size, with their boxes and masks.

    Args:
        folder, annotations: see the module's docstring.
        size: edge of the images, at least 8.
        labels: "annotations" or "folders", see the module's docstring; "" for folders with masks, else annotations.
            With folders all objects of an image are of its class, and an image may lack annotations.
        classes: names, in the order of a model's outputs; by default COCO's by their id, others by their name.
        val, test: shares of the images that are drawn for these splits, if there are no folders `train`, `val`, `test`.
        seed: draws them.

    Raises:
        DataError: no images; an annotation without its image or of another size than it; an unknown class; a
            file that cannot be read; too few images for three splits. The message names the file.
    """
    folder, labels = Path(folder), labels or ("folders" if annotations == "masks" else "annotations")
    _check(folder, annotations, labels, size, val, test)
    parts = [folder / split for split in SPLITS if (folder / split).is_dir()]
    if parts and len(parts) < 3:
        raise DataError(f"{folder} has {' and '.join(p.name for p in parts)}, but not all of {', '.join(SPLITS)}")
    parts = parts or [folder]
    found = [_read(part, annotations, labels) for part in parts]
    names = list(classes) or _names(parts[0], annotations, labels, [e for entries, _ in found for e in entries])
    if len(names) < 2:
        raise DataError(f"{folder} has the classes {names}; there must be two or more")
    pictures = [[_labelled(*entry, names) for entry in entries] for entries, _ in found]
    if len(parts) == 1:
        pictures = _divide(pictures[0], val, test, seed, folder)
    data = {}
    for split, own in zip(SPLITS, pictures):
        with tempfile.TemporaryDirectory(prefix=f"{split}-") as scratch:
            arrays(own, size, Path(scratch))
            data |= {f"{split}_{file.stem}": torch.from_numpy(np.load(file)) for file in Path(scratch).glob("*.npy")}
        label = data.pop(f"{split}_label")[:, None] if labels == "folders" else data[f"{split}_classes"]
        data[f"{split}_y"] = multi_hot(label, len(names))
    return Folder(data, names, sum(without for _, without in found))


def checksums(folder: str | Path, annotations: str) -> dict[str, str]:
    """sha256 of the images' places and sizes, and of the annotations' content."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    digests = {"images (names and sizes)": hashlib.sha256(), annotations: hashlib.sha256()}
    for path in files:
        image = {"images", "JPEGImages"} & {*path.relative_to(folder).parts[:2]}
        digest = digests["images (names and sizes)" if image else annotations]
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(str(path.stat().st_size).encode() if image else path.read_bytes())
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _check(folder: Path, annotations: str, labels: str, size: int, val: float, test: float) -> None:
    if annotations not in ANNOTATIONS:
        raise ValueError(f"annotations must be one of {', '.join(ANNOTATIONS)}, got {annotations!r}")
    if labels not in LABELS:
        raise ValueError(f'labels must be one of {", ".join(LABELS)}, or "", got {labels!r}')
    if annotations == "masks" and labels == "annotations":
        raise ValueError('masks name no class: with annotations="masks" labels must be "folders"')
    if size < 8:
        raise ValueError(f"size must be at least 8, got {size}")
    if not (0 < val and 0 < test and val + test < 1):
        raise ValueError(f"val and test must be shares above 0 and together below 1, got {val} and {test}")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")


# ---------------------------------------------------------------- files


def _read(part: Path, annotations: str, labels: str) -> tuple[list[tuple], int]:
    """Entries (picture, its objects' names, its sub-folder or "") by path, and how many images have no label."""
    place = next((part / name for name in ("images", "JPEGImages") if (part / name).is_dir()), part / "images")
    images = {}
    for path in sorted(place.rglob("*")):
        if path.suffix.lower() in ENDINGS and not path.name.startswith("."):
            key = path.relative_to(place).with_suffix("").as_posix()
            if key in images:
                raise DataError(f"{images[key]} and {path} have one name: which of them is annotated?")
            images[key] = path
    if not images:
        raise DataError(f"{place} holds no images ({', '.join(ENDINGS)})")
    read = {"coco": _coco, "voc": _voc, "masks": _masks}[annotations]
    found = {picture.path: (picture, objects) for picture, objects in read(part, place, images)}
    if labels == "annotations":
        return [(*found[path], "") for path in sorted(found)], len(images.keys() - _keys(found, place))
    loose = [path for path in images.values() if path.parent == place]
    if loose:
        raise DataError(f"{loose[0]} lies in no sub-folder of {place}, and with labels from folders that is its class")
    every = [found.get(path, (Picture(path, [], []), [])) for path in images.values()]
    return [(*entry, entry[0].path.relative_to(place).parts[0]) for entry in every], 0


def _keys(found, place: Path) -> set[str]:
    return {path.relative_to(place).with_suffix("").as_posix() for path in found}


def _coco(part: Path, place: Path, images: dict[str, Path]) -> list[tuple]:
    file = part / "annotations.json"
    content = _json(file)
    try:
        names = {category["id"]: category["name"] for category in content["categories"]}
        sizes = {image["id"]: image["file_name"] for image in content["images"]}
        for entry in content["annotations"]:
            if entry["image_id"] not in sizes:
                raise DataError(
                    f"{file}: annotation {entry['id']} is of image {entry['image_id']}, which is not listed"
                )
            if entry["category_id"] not in names:
                raise DataError(f"{file}: annotation {entry['id']} has the unknown class {entry['category_id']}")
    except (KeyError, TypeError) as error:
        raise DataError(f"{file} is no file of COCO's instances ({type(error).__name__}: {error})") from None
    _all_there(file, [place / name for name in sizes.values()])
    names = list(names.values())
    return [(p, [names[c] for c in p.classes]) for p in coco2014.pictures(file, place, classes=names)]


def _json(file: Path) -> dict:
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error})") from None


def _voc(part: Path, place: Path, images: dict[str, Path]) -> list[tuple]:
    found = []
    for file, path in _beside(part, ("annotations", "Annotations"), ".xml", place, images):
        try:
            boxes, names, size = voc2007.annotation(file)
        except ValueError as error:
            raise DataError(f"{file} is no annotation of VOC's form ({error})") from None
        found.append((Picture(path, boxes, [], size=size), names))
    return found


def _masks(part: Path, place: Path, images: dict[str, Path]) -> list[tuple]:
    found = []
    for file, path in _beside(part, ("masks",), ".png", place, images):
        mask = _mask(file)
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        boxes = [(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else []
        draw = lambda height, width, file=file: _mask(file).astype(np.uint8)  # noqa: E731
        found.append((Picture(path, boxes, [], draw, size=mask.shape[::-1]), [""] * len(boxes)))
    return found


def _mask(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            mask = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA") else image) > 0
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error})") from None
    return mask.any(-1) if mask.ndim == 3 else mask


def _beside(part: Path, names: Sequence[str], ending: str, place: Path, images: dict[str, Path]) -> list[tuple]:
    """Annotation files and their images, by name."""
    folder = next((part / name for name in names if (part / name).is_dir()), part / names[0])
    files = sorted(path for path in folder.rglob(f"*{ending}") if not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder} holds no {ending} files")
    keys = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    for file, key in zip(files, keys):
        if key not in images:
            raise DataError(f"{file} is an annotation without its image: {place / key} is not there")
    return [(file, images[key]) for file, key in zip(files, keys)]


def _all_there(file: Path, paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"{file} has {len(missing)} annotations without their images: {missing[0]} is not there")


# ---------------------------------------------------------------- labels and splits


def _names(part: Path, annotations: str, labels: str, entries: list[tuple]) -> list[str]:
    if labels == "folders":
        return sorted({label for *_, label in entries})
    if annotations == "coco":
        categories = sorted(_json(part / "annotations.json")["categories"], key=lambda category: category["id"])
        return [category["name"] for category in categories]
    return sorted({name for _, objects, _ in entries for name in objects})


def _labelled(picture: Picture, objects: list[str], label: str, names: list[str]) -> Picture:
    """The picture with its objects' classes, and its own if it has a label."""
    wanted = [label] * len(objects) if label else objects
    unknown = {*wanted, label} - {*names, ""}
    if unknown:
        raise DataError(f"{picture.path} has the unknown class {min(unknown)!r}; there are {', '.join(names)}")
    picture.classes = [names.index(name) for name in wanted]
    picture.more = {"label": names.index(label)} if label else {}
    return picture


def _divide(pictures: list[Picture], val: float, test: float, seed: int, folder: Path) -> list[list[Picture]]:
    n = len(pictures)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    ends = n - round(val * n) - round(test * n), n - round(test * n)
    parts = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]
    if not all(parts):
        raise DataError(f"{folder} has {n} images, too few for three splits with val={val} and test={test}")
    return [[pictures[i] for i in sorted(part)] for part in parts]
