"""What the data sets with boxes share: annotated pictures become tensors of one size, kept in files for the next time.

Not a data set itself. A picture is squashed to size × size with its boxes, as in the paper on guidance by boxes.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.utils import download_url
from tqdm import tqdm

from data_prep import DataError

UNKNOWN = 255  # in `objects`: not segmented


@dataclass
class Picture:
    """An annotated image file.

    Attributes:
        path: the image.
        boxes: xmin, ymin, xmax, ymax in its pixels, half open; classes: one a box.
        objects: draws, for its (height, width), the label map (H, W) uint8: b + 1 on the object of box b, 0 on the
            background, 255 where that is not known; None if the image has no segmentation.
        more: further whole numbers of the image, by name.
        size: (width, height) of the image that the annotation was made for, if it says so.
    """

    path: Path
    boxes: list[Sequence[float]]
    classes: list[int]
    objects: Callable[[int, int], np.ndarray] | None = None
    more: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] | None = None


def arrays(pictures: Sequence[Picture], size: int, folder: Path) -> None:
    """Write x, boxes, classes, objects and what is in `more` as .npy files into a folder, one picture at a time.

    Boxes are rounded outwards to whole pixels, so that the smallest still has one.
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
    for i, picture in enumerate(tqdm(pictures, desc=folder.name.split("-")[0], disable=n < 100)):
        image = _open(picture.path)
        width, height = image.size
        if picture.size and picture.size != image.size:
            raise DataError(f"{picture.path} is {width}×{height} pixels, but its annotation is for {picture.size}")
        out["x"][i] = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        if picture.boxes:
            out["boxes"][i, : len(picture.boxes)] = _scaled(picture, width, height, size)
            out["classes"][i, : len(picture.boxes)] = picture.classes
        if picture.objects is not None:
            labels = Image.fromarray(picture.objects(height, width))
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
        key: all that the content depends on beside this module, as JSON; another key makes other files.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode() + Path(__file__).read_bytes()).hexdigest()[:12]
    found = {}
    for split, read in splits.items():
        place = folder / f"{split}-{size}-{digest}"
        if not place.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f"{split}-", dir=folder))
            try:
                arrays(read(), size, temporary)
                temporary.chmod(0o755)
                temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        files = sorted(place.glob("*.npy"))
        found[split] = {file.stem: torch.from_numpy(np.load(file, mmap_mode="c")) for file in files}
    return found


def by_split(found: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `cached` returns as `load` does: {split}_{name} -> tensor."""
    return {f"{split}_{name}": tensor for split, tensors in found.items() for name, tensor in tensors.items()}


def multi_hot(classes: Tensor, n: int) -> Tensor:
    """(N, B) long, −1 for none -> (N, n) float, 1 for each class there is."""
    y = torch.zeros(len(classes), n + 1)
    return y.scatter_(1, classes + 1, 1.0)[:, 1:].contiguous()


def get(url: str | Sequence[str], folder: Path, md5: str | None, remedy: str) -> Path:
    """Download an archive, from the first address that answers, unless it is there with that md5."""
    reasons = []
    for address in [url] if isinstance(url, str) else url:
        path = folder / address.rpartition("/")[2]
        try:
            download_url(address, str(folder), path.name, md5)
            return path
        except (OSError, RuntimeError) as error:  # network, and a file with another md5
            reasons.append(f"{address}: {error}")
    raise DataError(f"{path.name} could not be downloaded ({'; '.join(reasons)}): {remedy}")


def unpack(archive: Path, member: str, place: Path) -> None:
    """Unpack an archive and move one folder or file of it to `place`, whole or not at all."""
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=place.parent))
    try:
        options = {} if archive.suffix == ".zip" else {"filter": "data"}
        shutil.unpack_archive(archive, temporary, **options)
        if not (temporary / member).exists():
            raise DataError(f"{archive} does not hold {member}: delete it and try again")
        if place.is_dir():  # another archive of the same data set has filled it
            shutil.copytree(temporary / member, place, dirs_exist_ok=True)
        else:
            (temporary / member).rename(place)
    except (shutil.ReadError, EOFError, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked ({error}): delete it and try again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def listing(files: Sequence[Path], content: bool) -> str:
    """sha256 of the files' names with their sizes, or with their content."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + (path.read_bytes() if content else str(path.stat().st_size).encode()))
    return digest.hexdigest()


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): get it again") from None


def _scaled(picture: Picture, width: int, height: int, size: int) -> np.ndarray:
    """The boxes (B, 4) in a picture of that size, each of a pixel or more."""
    boxes = np.asarray(picture.boxes, np.float64) * (size / np.array([width, height, width, height]))
    low, high = np.floor(boxes[:, :2] + 1e-6).clip(0, size - 1), np.ceil(boxes[:, 2:] - 1e-6).clip(1, size)
    if not (np.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
        raise DataError(f"{picture.path} has a box that is inverted or not finite: {picture.boxes}")
    return np.concatenate([low, np.maximum(high, low + 1)], 1)
