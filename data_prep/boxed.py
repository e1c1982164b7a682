"""What the data sets with boxes share: annotated pictures become tensors of one size, kept in files for the next time.

Not a data set itself. A picture is squashed to size × size with its boxes, as in the paper on guidance by boxes.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data_prep import DataError, annotations, images, own_sha256
from data_prep.annotations import Picture
from data_prep.images import UNKNOWN


def arrays(pictures: Sequence[Picture], size: int, folder: Path, white: int = 0) -> None:
    """Write x, boxes, classes, objects and what is in `more` as .npy files into a folder, one picture at a time.

    Boxes are rounded outwards to whole pixels, so that the smallest still has one. Boxes and objects are taken as drawn
    on the picture as it is seen. Only if the annotation is for the size of its stored pixels, which EXIF's orientation
    turns on their side, they are turned as the picture is.

    Args:
        white: for `images.rgb`.
    """
    n, most = len(pictures), max([1, *(len(p.boxes) for p in pictures)])
    if not n:
        raise DataError(f"the annotations name no image for {folder}")
    if most >= UNKNOWN:
        raise DataError(f"a picture has {most} boxes; a label map has room for {UNKNOWN - 1}")
    shapes = {"x": (n, 3, size, size), "objects": (n, size, size), "boxes": (n, most, 4), "classes": (n, most)}
    kinds = {"x": np.uint8, "objects": np.uint8, "boxes": np.float32, "classes": np.int64}
    out = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kinds[name], shape)
        for name, shape in shapes.items()
    }
    out["boxes"][:], out["classes"][:], out["objects"][:] = -1, -1, UNKNOWN
    for i, picture in enumerate(tqdm(pictures, desc=folder.name.split("-")[0], disable=n < 1000, file=sys.stdout)):
        image = images.rgb(picture.path, white)
        turn = _turn(picture, image.size)
        out["x"][i] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        if picture.boxes:
            out["boxes"][i, : len(picture.boxes)] = _scaled(picture, turn, *image.size, size)
            out["classes"][i, : len(picture.boxes)] = picture.classes
        if picture.objects is not None:
            width, height = picture.size if turn else image.size
            labels = Image.fromarray(picture.objects(height, width))
            labels = labels.transpose(images.TURNS[turn]) if turn else labels
            out["objects"][i] = np.asarray(labels.resize((size, size), Image.Resampling.NEAREST))
    for name in pictures[0].more:
        np.save(folder / f"{name}.npy", np.array([p.more[name] for p in pictures], np.int64))


def cached(
    folder: Path, splits: dict[str, Callable[[], list[Picture]]], size: int, key: object
) -> dict[str, dict[str, Tensor]]:
    """For each split its tensors, from files in `folder`, which are made if they are not there.

    The tensors are mapped to these files: only what is used comes into memory, and a change to one stays in memory.

    Args:
        folder: of the files, one folder a split; written beside its place and renamed when it is whole.
        splits: name -> reads the annotations of a split.
        key: all that the content depends on beside the code that reads, as JSON; another key makes other files.
    """
    code = own_sha256(__file__, images.__file__, annotations.__file__)
    digest = hashlib.sha256(json.dumps([key, code], sort_keys=True).encode()).hexdigest()[:12]
    found = {}
    for split, read in splits.items():
        place = folder / f"{split}-{size}-{digest}"
        if not place.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f"{split}-", dir=folder))
            try:
                arrays(read(), size, temporary)
                temporary.chmod(0o755)
                _rename(temporary, place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        files = sorted(place.glob("*.npy"))
        found[split] = {file.stem: torch.from_numpy(np.load(file, mmap_mode="c")) for file in files}
    return found


def _rename(temporary: Path, place: Path):
    """Rename a folder that is whole, unless another run was first with the same."""
    try:
        temporary.rename(place)
    except OSError:
        if not place.is_dir():
            raise


def by_split(found: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `cached` returns as `load` does: {split}_{name} -> tensor."""
    return {f"{split}_{name}": tensor for split, tensors in found.items() for name, tensor in tensors.items()}


def multi_hot(classes: Tensor, n: int) -> Tensor:
    """(N, B) long, −1 for none -> (N, n) float, 1 for each class there is."""
    y = torch.zeros(len(classes), n + 1)
    return y.scatter_(1, classes + 1, 1.0)[:, 1:].contiguous()


def some_of(data: dict[str, Tensor], counts: dict[str, int], classes: int) -> dict[str, Tensor]:
    """Splits of images of one class each as those of several classes are: x, y (N, classes), boxes, classes, objects.

    Args:
        data: as `load` of such a data set returns it.
        counts: split -> how many of its images at most, at equal distances, as files are often sorted.
        classes: their number.
    """
    found = {}
    for split, count in counts.items():
        n = len(data[f"{split}_x"])
        rows = torch.linspace(0, n - 1, min(count, n)).long()
        found |= {f"{split}_{key}": data[f"{split}_{key}"][rows] for key in ("x", "boxes", "classes", "objects")}
        found[f"{split}_y"] = multi_hot(found[f"{split}_classes"], classes)
    return found


def _turn(picture: Picture, seen: tuple[int, int]) -> int:
    """The orientation by which a picture's annotation must be turned, 0 for none."""
    if not picture.size or picture.size == seen:
        return 0
    turn = images.orientation(picture.path)
    if turn >= 5 and picture.size == seen[::-1]:
        return turn
    raise DataError(
        f"{picture.path} is {seen[0]}×{seen[1]} pixels, but its annotation is for {picture.size[0]}×{picture.size[1]}"
    )


def _scaled(picture: Picture, turn: int, width: int, height: int, size: int) -> np.ndarray:
    """The boxes (B, 4) in a picture of that size, each of a pixel or more."""
    boxes = np.asarray(picture.boxes, np.float64)
    boxes = images.turned_boxes(boxes, turn, height, width) if turn else boxes
    edge = np.array([width, height])
    outside = ((boxes[:, :2] >= edge) & (boxes[:, 2:] > edge + 1)) | ((boxes[:, 2:] <= 0) & (boxes[:, :2] < -1))
    for b, box in enumerate(boxes):
        shown = ", ".join(f"{value:g}" for value in box)
        if not (np.isfinite(box).all() and (box[:2] <= box[2:]).all()):
            raise DataError(f"{picture.named(b)} is inverted or not finite: {shown}")
        if outside[b].any():
            raise DataError(f"{picture.named(b)} lies wholly outside of the image of {width}×{height} pixels: {shown}")
    boxes = boxes * (size / np.tile(edge, 2))
    low, high = np.floor(boxes[:, :2] + 1e-6).clip(0, size - 1), np.ceil(boxes[:, 2:] - 1e-6).clip(1, size)
    return np.concatenate([low, np.maximum(high, low + 1)], 1)
