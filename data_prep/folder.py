"""A folder of your own images with boxes or masks: COCO's JSON, VOC's XML files, or masks.

| annotations | in the folder |
|---|---|
| coco | `images/`, and `annotations.json` with images, annotations and categories as in COCO's instances files |
| voc | `images/` (or `JPEGImages/`), and `annotations/` (or `Annotations/`) with an XML file an image, of its name |
| masks | `images/`, and `masks/` with a PNG an image, of its name: 0 is background, see `images.mask` |

As tools write them, these are read too: COCO's own `annotations/instances_train2017.json` with `train2017/` (or CVAT's
`instances_default.json` with `images/`), and Roboflow's `train/` and `valid/` with `_annotations.coco.json` or XML
files beside the images.

Not a data set of the studies itself. With folders `train`, `val` (or `valid`) and `test`, each of that form, the
division is theirs; with train and one of the others that one is the test, and val is drawn from train; else images are
drawn. An image's class is its sub-folder in `images/`, or it has those of its objects.

What is read is the folder's: a name in an annotation that leads out of it is an error. What can be read but may not be
meant (boxes cut at the edge, masks with several greys) is counted in a warning.
"""

import tempfile
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_prep import DataError, contents, images
from data_prep.annotations import Picture, check_in_pixels, coco, voc
from data_prep.boxed import arrays, multi_hot

ANNOTATIONS = ("coco", "voc", "masks")
LABELS = ("annotations", "folders")
SPLITS = ("train", "val", "test")
ALSO_CALLED = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
MASKS = tuple(ending for ending in images.ENDINGS if ending not in (".jpg", ".jpeg"))


class Part(NamedTuple):
    """Where the images of a split lie, and its annotations: a file for COCO's, else a folder."""

    images: Path
    annotations: Path


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
        val, test: shares of the images that are drawn for these splits, where folders do not say which they are.
        seed: draws them.

    Raises:
        DataError: no images; an annotation without its image or of another size than it; an unknown class; a
            file that cannot be read; too few images for three splits. The message names the file.
    """
    folder, labels = Path(folder), labels or ("folders" if annotations == "masks" else "annotations")
    _check(annotations, labels, size, val, test, classes)
    found, ids = {}, {}
    for split, part in _parts(folder, annotations).items():
        found[split] = _read(part, annotations, labels, ids)
    entries = [entry for own, _ in found.values() for entry in own]
    if annotations != "masks":
        _check_boxes(folder, [picture for picture, *_ in entries], annotations == "coco")
    names = [_nfc(name) for name in classes] or _names(ids, labels, entries)
    if len(names) < 2:
        raise DataError(f"{folder} has the classes {names}; there must be two or more")
    pictures = {split: [_labelled(*entry, names) for entry in own] for split, (own, _) in found.items()}
    data, white = {}, images.whitest(picture.path for picture, *_ in entries)
    for split, own in _divided(pictures, val, test, seed, folder).items():
        with tempfile.TemporaryDirectory(prefix=f"{split}-") as scratch:
            arrays(own, size, Path(scratch), white)
            data |= {f"{split}_{file.stem}": torch.from_numpy(np.load(file)) for file in Path(scratch).glob("*.npy")}
        label = data.pop(f"{split}_label")[:, None] if labels == "folders" else data[f"{split}_classes"]
        data[f"{split}_y"] = multi_hot(label, len(names))
    return Folder(data, names, sum(without for _, without in found.values()))


def checksums(folder: str | Path, annotations: str) -> dict[str, str]:
    """sha256 of the places and the contents of all images, and of the annotations."""
    folder = Path(folder)
    _check_form(annotations)
    parts = _parts(folder, annotations).values()
    notes = {"coco": lambda file: [file], "voc": _xml_files, "masks": _mask_files}[annotations]
    return {
        "images": contents([path for part in parts for path in images.find(part.images)], folder),
        annotations: contents([path for part in parts for path in notes(part.annotations)], folder),
    }


def _check_form(annotations: str) -> None:
    if annotations not in ANNOTATIONS:
        raise ValueError(f"annotations must be one of {', '.join(ANNOTATIONS)}, got {annotations!r}")


def _check(annotations: str, labels: str, size: int, val: float, test: float, classes: Sequence[str]) -> None:
    _check_form(annotations)
    if labels not in LABELS:
        raise ValueError(f'labels must be one of {", ".join(LABELS)}, or "", got {labels!r}')
    if annotations == "masks" and labels == "annotations":
        raise ValueError('masks name no class: with annotations="masks" labels must be "folders"')
    if size < 8:
        raise ValueError(f"size must be at least 8, got {size}")
    if not (0 < val and 0 < test and val + test < 1):
        raise ValueError(f"val and test must be shares above 0 and together below 1, got {val} and {test}")
    if len({_nfc(name) for name in classes}) < len(classes):
        raise ValueError(f"classes must differ, got {', '.join(classes)}")


# ---------------------------------------------------------------- where things lie


def _parts(folder: Path, annotations: str) -> dict[str, Part]:
    """The parts of a folder by split; of one that is not divided, one part "train"."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    instances = sorted((folder / "annotations").glob("instances_*.json")) if annotations == "coco" else []
    if instances:
        found = [(file.stem.removeprefix("instances_"), _cocos_own(folder, file)) for file in instances]
    else:
        names = [name for also in ALSO_CALLED.values() for name in also if (folder / name).is_dir()]
        found = [(name, _part(folder / name, annotations)) for name in names]
    parts: dict[str, Part] = {}
    for name, part in found:
        split = next((split for split, also in ALSO_CALLED.items() if name.startswith(also)), name)
        if split in parts:
            raise DataError(f"{folder} has two parts for {split}: {parts[split].annotations} and {part.annotations}")
        parts[split] = part
    if len(parts) == 1 and (instances or "train" in parts):
        return {"train": next(iter(parts.values()))}
    if parts and ("train" not in parts or not parts.keys() <= {*SPLITS}):
        raise DataError(f"{folder} has {' and '.join(parts)}; it must have train, and val or test or both")
    return parts or {"train": _part(folder, annotations)}


def _cocos_own(folder: Path, file: Path) -> Part:
    name = file.stem.removeprefix("instances_")
    places = [folder / name, folder / "images" / name, folder / "images"]
    return Part(next((place for place in places if place.is_dir()), places[0]), file)


def _part(folder: Path, annotations: str) -> Part:
    """The part that lies in a folder; with COCO's and VOC's annotations the images may lie in the folder itself."""
    place = next((folder / name for name in ("images", "JPEGImages") if (folder / name).is_dir()), None)
    if not place and annotations != "masks" and any(p.suffix.lower() in images.ENDINGS for p in folder.iterdir()):
        place = folder
    place = place or folder / "images"
    if annotations == "coco":
        files = [folder / name for name in ("annotations.json", "_annotations.coco.json")]
        return Part(place, next((file for file in files if file.is_file()), files[0]))
    names = ("annotations", "Annotations") if annotations == "voc" else ("masks",)
    beside = place if place == folder else folder / names[0]
    return Part(place, next((folder / name for name in names if (folder / name).is_dir()), beside))


def _xml_files(folder: Path) -> list[Path]:
    return images.find(folder, (".xml",))


def _mask_files(folder: Path) -> list[Path]:
    return images.find(folder)


def _nfc(name: str) -> str:
    """A name in the form that most systems write; a Mac's files have accents as characters of their own."""
    return unicodedata.normalize("NFC", name)


# ---------------------------------------------------------------- reading


def _read(part: Part, annotations: str, labels: str, ids: dict) -> tuple[list[tuple], int]:
    """Entries (picture, its objects' names, its sub-folder or "") by path, and how many images have no label.

    Args:
        ids: takes COCO's names of categories by their id.
    """
    place = part.images
    paths = images.find(place)
    if foreign := images.find(place, images.NOT_READ):
        raise DataError(f"{foreign[0]} is of a kind that is not read here: save it as PNG or JPEG")
    if not paths:
        raise DataError(f"{place} holds no images ({', '.join(images.ENDINGS)})")
    read = {"coco": partial(_coco, ids=ids), "voc": _voc, "masks": _masks}[annotations]
    found = {}
    for picture, objects in read(part, paths):
        if picture.path in found:
            raise DataError(f"{part.annotations} names {picture.path} twice")
        found[picture.path] = (picture, [_nfc(name) for name in objects])
    if labels == "annotations":
        return [(*found[path], "") for path in sorted(found)], len(paths) - len(found)
    loose = [path for path in paths if path.parent == place]
    if loose:
        raise DataError(f"{loose[0]} lies in no sub-folder of {place}, and with labels from folders that is its class")
    if unmarked := [path for path in paths if path not in found]:
        _say(f"{part.annotations} has nothing of {len(unmarked)} of {len(paths)} images, as {unmarked[0].name}")
    every = [found.get(path, (Picture(path, [], []), [])) for path in paths]
    return [(*entry, _nfc(entry[0].path.relative_to(place).parts[0])) for entry in every], 0


def _coco(part: Part, paths: list[Path], ids: dict) -> list[tuple[Picture, list[str]]]:
    by_name = {_nfc(path.relative_to(part.images).as_posix()): path for path in paths}

    def place(name: str) -> Path:
        key = _nfc(name.replace("\\", "/")).removeprefix("./")
        path = by_name.get(key) or by_name.get(key.removeprefix(f"{part.images.name}/"))
        if not path:
            outside = Path(name).is_absolute() or ".." in Path(name).parts
            why = "nothing outside of it is opened" if outside else f"{part.images / name} is not there"
            raise DataError(f"{part.annotations} names the image {name!r}, which is not in {part.images}: {why}")
        return path

    found, names = coco(part.annotations, place)
    for number, name in names.items():
        name = _nfc(name)
        if ids.get(number, name) != name or next((n for n, known in ids.items() if known == name), number) != number:
            raise DataError(f"{part.annotations}: category {number} is {name!r}, and not so in another part")
        ids[number] = name
    return found


def _voc(part: Part, paths: list[Path]) -> list[tuple[Picture, list[str]]]:
    found = []
    for file, path in _beside(part, paths, _xml_files(part.annotations), "XML"):
        boxes, names, size = voc(file)
        where = [f"{file}: object {i + 1} ({name})" for i, name in enumerate(names)]
        found.append((Picture(path, boxes, [], size=size, where=where), names))
    return found


def _masks(part: Part, paths: list[Path]) -> list[tuple[Picture, list[str]]]:
    pairs = _beside(part, paths, _mask_files(part.annotations), "mask")
    kinds = _mask_kinds(part, [file for file, _ in pairs])
    found = []
    for file, path in pairs:
        draw = partial(_mask, file, kinds[file])
        mask = draw()
        rows, columns = (mask == 1).any(1).nonzero()[0], (mask == 1).any(0).nonzero()[0]
        boxes = [(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else []
        found.append((Picture(path, boxes, [], draw, size=mask.shape[::-1]), [""] * len(boxes)))
    return found


def _mask(file: Path, kind: str, *size: int) -> np.ndarray:
    return images.mask(images.labels(file), kind)


def _mask_kinds(part: Part, files: list[Path]) -> dict[Path, str]:
    """How each mask is to be read, `images.mask`'s `kind`; what may be meant otherwise is said."""
    kinds, shares = {}, {}
    for file in files:
        if file.suffix.lower() not in MASKS:
            raise DataError(f"{file} is a JPEG, which blurs what a mask says: save it as PNG")
        values = images.labels(file)
        kinds[file] = images.mask_kind(values)
        shares[file] = ((values == values.max()).mean(), (values > 0).mean())
    mixed = [shares[file] for file, kind in kinds.items() if kind == "void"]
    if sum(white for white, _ in mixed) > sum(marked for _, marked in mixed) / 2:
        # Borders cover less than objects do: here white is the object, and what is dark are remains.
        kinds = {file: "soft" if kind == "void" else kind for file, kind in kinds.items()}
    how = {
        "void": "255 beside labels, taken as not known",
        "soft": "greys, of which half of white and more is the object",
    }
    for kind, text in how.items():
        if n := [*kinds.values()].count(kind):
            _say(f"{part.annotations}: {n} masks have {text}")
    return kinds


def _beside(part: Part, paths: list[Path], files: list[Path], what: str) -> list[tuple[Path, Path]]:
    """Annotation files and their images, by name."""
    if not files:
        raise DataError(f"{part.annotations} holds no {what} files")
    ours, theirs = _by_key(part.images, paths), _by_key(part.annotations, files)
    for key, file in theirs.items():
        if key not in ours:
            raise DataError(f"{file} is an annotation without its image: {part.images / key} is not there")
    return [(file, ours[key]) for key, file in theirs.items()]


def _by_key(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their place in a folder, without the ending."""
    found: dict[str, Path] = {}
    for path in paths:
        key = _nfc(path.relative_to(folder).with_suffix("").as_posix())
        if key in found:
            raise DataError(f"{found[key]} and {path} have one name: which belongs to which?")
        found[key] = path
    return found


def _check_boxes(folder: Path, pictures: Sequence[Picture], corners: bool) -> None:
    sizes = {p.path: p.size or images.size(p.path) for p in pictures if p.boxes}
    if cut := check_in_pixels(pictures, lambda picture: sizes[picture.path], corners):
        _say(f"{folder}: {cut} boxes reach out of their images and are cut at the edge")


def _say(message: str) -> None:
    warnings.warn(message, stacklevel=4)


# ---------------------------------------------------------------- labels and splits


def _names(ids: dict, labels: str, entries: list[tuple]) -> list[str]:
    if labels == "folders":
        return sorted({label for *_, label in entries})
    if ids:
        return [ids[number] for number in sorted(ids, key=lambda number: (str(type(number)), number))]
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


def _divided(
    parts: dict[str, list[Picture]], val: float, test: float, seed: int, folder: Path
) -> dict[str, list[Picture]]:
    """The three splits, those that are not there drawn."""
    if len(parts) == 3:
        return parts
    train, held_out = parts["train"], [own for split, own in parts.items() if split != "train"]
    shares = {"val": val} if held_out else {"val": val, "test": test}
    n = len(train)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    drawn = {}
    for split, share in reversed(shares.items()):
        k = len(order) - round(share * n)
        drawn[split], order = order[k:], order[:k]
    if not all(drawn.values()) or not order:
        raise DataError(f"{folder} has {n} images, too few to draw {' and '.join(shares)} from, {shares}")
    own = {split: [train[i] for i in sorted(rows)] for split, rows in {"train": order, **drawn}.items()}
    return {split: own[split] if split in own else held_out[0] for split in SPLITS}
