"""What COCO's JSON and VOC's XML files say of pictures, of the official sets and of anybody's own.

What can only mean one thing is read, however it is spelled (a byte order mark, `40.0`, a polygon as one flat list, a
segmentation without a box); what cannot be is a `DataError` of one sentence, with the file and the annotation.
"""

import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_prep import DataError


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
        where: of each box, where it stands, for messages; may be empty.
    """

    path: Path
    boxes: list[Sequence[float]]
    classes: list[int]
    objects: Callable[[int, int], np.ndarray] | None = None
    more: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    where: list[str] = field(default_factory=list)

    def named(self, box: int) -> str:
        """A box of this picture, for a message."""
        return f"{self.where[box]} ({self.path.name})" if self.where else f"box {box + 1} of {self.path}"


# ---------------------------------------------------------------- COCO


def coco(
    file: Path,
    place: Callable[[str], Path],
    crowds: bool = True,
    keep: Callable[[int], bool] | None = None,
    part: bool = False,
) -> tuple[list[tuple[Picture, list[str]]], dict[object, str]]:
    """The pictures of a file of COCO's instances, by their id, each with its objects' names.

    Args:
        file: has `images`, `annotations` and `categories`.
        place: an image's `file_name` -> its path; raises DataError.
        crowds: keep annotations with `iscrowd`.
        keep: image's id -> whether it is wanted; None for all.
        part: the file may list a part of the images only, and annotations of all.

    Returns:
        the pictures, with no classes yet, and the categories' names by id. One that only groups others (it is their
        `supercategory` and has no annotation, as Roboflow writes it) is not among them.
    """
    content = _lists(file, ("images", "annotations", "categories"))
    images = _by_id(file, "image", content["images"], "file_name")
    categories = _by_id(file, "category", content["categories"], "name")
    entries: dict[object, list[dict]] = {number: [] for number in images}
    for i, entry in enumerate(content["annotations"]):
        where = f"{file}: annotation {entry.get('id', f'number {i + 1}')}"
        image, category = (_got(entry, key, where) for key in ("image_id", "category_id"))
        if part and not _known(image, images):
            continue
        if not _known(image, images):
            raise DataError(f"{where} is of image {image!r}, which is not listed")
        if not _known(category, categories):
            raise DataError(f"{where} has the unknown class {category!r}")
        if crowds or not entry.get("iscrowd"):
            entries[image].append(entry | {"where": where})
    names = _names(file, categories, {entry["category_id"] for entry in content["annotations"]})
    wanted = sorted((number for number in images if keep is None or keep(number)), key=lambda n: (str(type(n)), n))
    found = [
        (_picture(file, images[n], entries[n], place), [names[e["category_id"]] for e in entries[n]]) for n in wanted
    ]
    return found, names


def _lists(file: Path, keys: Sequence[str]) -> dict[str, list[dict]]:
    try:
        content = json.loads(file.read_bytes())  # bytes: UTF-8, 16 or 32, with or without a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON ({error})") from None
    for key in keys:
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            raise DataError(f"{file} is no file of COCO's instances: it has no list {key!r} of objects")
    return content


def _by_id(file: Path, what: str, entries: list[dict], name: str) -> dict[object, dict]:
    """Entries by id; of two with one id or one name it would be unclear which is meant."""
    found: dict[object, dict] = {}
    names: dict[str, object] = {}
    for i, entry in enumerate(entries):
        number = _got(entry, "id", f"{file}: {what} number {i + 1}")
        if not isinstance(number, int | str) or number in found:
            raise DataError(f"{file}: the {what} id {number!r} stands there twice, or is no id")
        text = _got(entry, name, f"{file}: {what} {number}")
        if not isinstance(text, int | str) or not str(text).strip():
            raise DataError(f"{file}: {what} {number} has the {name} {text!r}; it must be a name")
        text = str(text)
        if text in names:
            raise DataError(f"{file}: {text!r} is the {name} of two, {what} {names[text]} and {what} {number}")
        found[number], names[text] = entry, number
    return found


def _names(file: Path, categories: dict[object, dict], used: set) -> dict[object, str]:
    names = {number: str(entry["name"]) for number, entry in categories.items()}
    above = {str(e.get("supercategory")) for n, e in categories.items() if str(e.get("supercategory")) != names[n]}
    return {number: name for number, name in names.items() if number in used or name not in above}


def _picture(file: Path, image: dict, entries: list[dict], place: Callable[[str], Path]) -> Picture:
    size = _size(image.get("width"), image.get("height"), f"{file}: image {image['id']}")
    outlines = [_outline(entry.get("segmentation"), size, entry["where"]) for entry in entries]
    boxes = [_box(entry, outline) for entry, outline in zip(entries, outlines)]
    where = [entry["where"] for entry in entries]
    picture = Picture(place(str(image["file_name"])), boxes, [], size=size, where=where)
    if all(outline is not None for outline in outlines):  # else boxes only, as other tools write them
        areas = [_area(entry, box) for entry, box in zip(entries, boxes)]
        drawn = [(b + 1, area, outline) for b, (area, outline) in enumerate(zip(areas, outlines))]
        picture.objects = partial(_objects, drawn, where)
    return picture


def _box(entry: dict, outline) -> tuple[float, ...]:
    """An annotation's box, half open; around its segmentation if it states none."""
    where, stated = entry["where"], entry.get("bbox")
    if not stated:
        if outline is None:
            raise DataError(f"{where} has neither a bbox nor a segmentation")
        return _around(outline)
    numbers = [_number(value) for value in stated] if isinstance(stated, list) else []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) < 0:
        raise DataError(f"{where} has the bbox {stated!r}; it must be x, y, width and height, in pixels")
    x, y, width, height = numbers
    box = x, y, x + width, y + height
    if isinstance(outline, list):
        left, top, right, bottom = _around(outline)
        if max(left - box[2], box[0] - right, top - box[3], box[1] - bottom) > 1:
            raise DataError(f"{where} has a segmentation that lies outside of its bbox {stated}")
    return box


def _outline(segmentation, size: tuple[int, int] | None, where: str):
    """A segmentation as a list of polygons (P, 2), or as run lengths; None if it is absent or encloses nothing."""
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, dict):
        lengths, shape = _run_lengths(segmentation, where)
        if size and (size[1], size[0]) != shape:
            raise DataError(
                f"{where} has run lengths of {shape[1]}×{shape[0]} pixels in an image of {size[0]}×{size[1]}"
            )
        return {"size": shape, "counts": lengths} if sum(lengths[1::2]) else None
    try:
        parts = _polygons(segmentation)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{where} has a segmentation that is none: {error}") from None
    return [part for part in parts if len(part) >= 3] or None


def _polygons(segmentation) -> list[np.ndarray]:
    """Polygons [[x1, y1, x2, y2, …], …], [[[x1, y1], …], …], or one alone: [x1, y1, …] or [[x1, y1], [x2, y2], …]."""
    if not isinstance(segmentation, list):
        raise TypeError(f"{segmentation!r}")
    one = not any(isinstance(part, list) for part in segmentation)
    pairs = len(segmentation) > 2 and all(isinstance(p, list) and len(p) == 2 for p in segmentation)
    parts = []
    for part in [segmentation] if one or pairs else segmentation:
        numbers = np.asarray(part, np.float64).reshape(-1)
        if len(numbers) % 2:
            raise ValueError(f"a polygon of {len(numbers)} numbers, where x and y take turns")
        if not (abs(numbers) < 1e6).all():  # nor NaN
            raise ValueError("a polygon with numbers that are not finite, or of no picture")
        parts.append(numbers.reshape(-1, 2))
    return parts


def _run_lengths(segmentation: dict, where: str) -> tuple[list[int], tuple[int, int]]:
    """Run lengths of 0 and 1 in turn, down the columns, and the (height, width) that they are of."""
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        counts = [int(count) for count in counts] if isinstance(counts, list) else _unpacked(counts)
        if height * width > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"run lengths of {height}×{width} pixels, more than a picture may have")
        if sum(counts) != height * width or min(counts, default=0) < 0:
            raise ValueError(f"run lengths must be of {height}×{width} pixels, got {sum(counts)} pixels")
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{where} has a segmentation that is none: {error}") from None
    return counts, (height, width)


def _around(outline) -> tuple[float, ...]:
    if isinstance(outline, list):
        points = np.concatenate(outline)
        return (*points.min(0).tolist(), *points.max(0).tolist())
    mask = decode(outline, *outline["size"])
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)


def _area(entry: dict, box: Sequence[float]) -> float:
    stated = _number(entry.get("area"))
    return stated if math.isfinite(stated) else (box[2] - box[0]) * (box[3] - box[1])


def _objects(outlines: list[tuple[int, float, object]], where: list[str], height: int, width: int) -> np.ndarray:
    """The label map of `Picture.objects`; of objects that overlap the smaller is on top."""
    labels = np.zeros((height, width), np.uint8)
    for b, _, outline in sorted(outlines, key=lambda outline: -outline[1]):
        try:
            labels[decode(outline, height, width)] = b
        except ValueError as error:
            raise DataError(f"{where[b - 1]}: {error}") from None
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


# ---------------------------------------------------------------- VOC


def voc(file: Path, difficult: bool = True) -> tuple[list[tuple], list[str], tuple[int, int] | None]:
    """A picture's boxes, half open, their classes' names, and its (width, height) if that is stated.

    Args:
        file: an XML file of VOC's form.
        difficult: keep objects that are marked as difficult.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{file} is no annotation of VOC's form ({error})") from None
    if root.tag != "annotation":
        raise DataError(f"{file} is no annotation of VOC's form: it is <{root.tag}>, and not <annotation>")
    boxes, names = [], []
    for i, entry in enumerate(root.iter("object")):
        if difficult or entry.findtext("difficult", "0").strip() != "1":
            name = (entry.findtext("name") or "").strip()
            where = f"{file}: object {i + 1} ({name or 'without a name'})"
            if not name:
                raise DataError(f"{where} has no <name>")
            xmin, ymin, xmax, ymax = _edges(entry.find("bndbox"), where)
            boxes.append((xmin - 1, ymin - 1, xmax, ymax))  # theirs begin at 1 and hold their last pixel
            names.append(name)
    size = root.find("size")
    stated = None if size is None else _size(size.findtext("width"), size.findtext("height"), f"{file}: <size>")
    return boxes, names, stated


def _edges(box: ElementTree.Element | None, where: str) -> list[float]:
    if box is None:
        raise DataError(f"{where} has no <bndbox>")
    edges = {edge: box.findtext(edge) for edge in ("xmin", "ymin", "xmax", "ymax")}
    numbers = [_number(value) for value in edges.values()]
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{where} has a <bndbox> that is none: {', '.join(f'{k} {v}' for k, v in edges.items())}")
    if numbers[0] > numbers[2] + 1 or numbers[1] > numbers[3] + 1:
        raise DataError(f"{where} has a box that is inverted: {', '.join(f'{k} {v}' for k, v in edges.items())}")
    return numbers


# ---------------------------------------------------------------- both


def _size(width, height, where: str) -> tuple[int, int] | None:
    """(width, height), None where they are not stated: absent, or 0 or -1, as labelImg and VIA write it."""
    if width is None or height is None:
        return None
    sides = [_number(width), _number(height)]
    if not all(side.is_integer() for side in sides if math.isfinite(side)) or not all(map(math.isfinite, sides)):
        raise DataError(f"{where} has the size {width!r} × {height!r}; it must be whole numbers of pixels")
    return (int(sides[0]), int(sides[1])) if min(sides) > 0 else None


def _number(value) -> float:
    """What is written as a number, also as text, as `40.0`; NaN for anything else."""
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _got(entry: dict, key: str, where: str):
    if entry.get(key) is None:
        raise DataError(f"{where} has no {key!r}")
    return entry[key]


def _known(key, entries: dict) -> bool:
    return isinstance(key, int | str) and not isinstance(key, bool) and key in entries


def check_in_pixels(found: Sequence[Picture], sizes: Callable[[Picture], tuple[int, int]], corners: bool) -> int:
    """Raise DataError for boxes that are not in pixels, or corners where sizes belong; how many will be cut.

    Args:
        found: pictures whose boxes were written by one person or tool.
        sizes: a picture's (width, height).
        corners: also see whether the boxes, read as x, y, width, height, are xmin, ymin, xmax, ymax: if many reach
            out of their pictures so read, and all of them fit in as corners.

    Returns:
        the number of boxes that reach out of their pictures by more than a pixel.
    """
    boxes = [(p, b, np.asarray(box, np.float64)) for p in found for b, box in enumerate(p.boxes)]
    tiny = [(p, b, box) for p, b, box in boxes if box.min() >= -1 and box.max() <= 1 and max(sizes(p)) > 2]
    for picture, b, box in tiny:
        if len(tiny) == len(boxes) or (box % 1).any():
            raise DataError(
                f"{picture.named(b)} has the box {_shown(box)} in the first pixel: are boxes in fractions of the "
                "image? They must be in pixels"
            )
    limits = [np.tile(sizes(picture), 2) for picture, *_ in boxes]
    outside = [((box < -1) | (box > limit + 1)).any() for (*_, box), limit in zip(boxes, limits)]
    swapped = [np.concatenate([box[:2], box[2:] - box[:2]]) for *_, box in boxes]
    fit = [(s[2:] >= s[:2]).all() and (s >= 0).all() and (s <= limit).all() for s, limit in zip(swapped, limits)]
    if corners and sum(outside) > len(boxes) / 4 and all(fit):
        first = outside.index(True)
        picture, b, _ = boxes[first]
        raise DataError(
            f"{picture.named(b)} has the bbox {_shown(swapped[first])}, which reaches out of the image: are these "
            "corners, xmin, ymin, xmax, ymax? COCO's are x, y, width, height"
        )
    return sum(outside)


def _shown(box: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in box)
