"""Pictures and masks are read here and nowhere else, as a person sees them in a viewer, or refused by name.

| in the file | what is read |
|---|---|
| EXIF orientation | applied |
| something transparent | composited on white |
| grey of more than 8 bits | white is the largest number of so many bits (`BITS`) as hold all values |
| floating point | white is 1; values below 0 or above 1 are refused |
| colour of 16 bits | the upper 8; refused if these are almost empty, as 12 bits in 16 are |
| several pictures (an animation, pages) | refused; of a telephone's stereo or gain-map JPEG (MPO) the photograph |
| truncated, damaged, huge beyond Pillow's limit | refused |

A refusal is a `DataError` that names the file.
"""

import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from data_prep import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
NOT_READ = (".heic", ".heif", ".avif", ".jfif", ".jp2", ".jxl", ".dcm", ".nii", ".psd", ".svg", ".dng", ".cr2", ".nef")
JUNK = ("__MACOSX", "@eaDir")  # folders that a Mac's zip and a network drive leave, beside those with a dot
UNKNOWN = 255  # in a label map: not known
BACKGROUND = (255, 255, 255)  # what shows where a picture is transparent
BITS = (8, 10, 12, 14, 16, 24, 32)
ORIENTATION = 0x0112  # EXIF's number for it
WHITE_IS_ZERO = 0  # TIFF's photometric interpretation
TURNS = {  # orientation -> what shows the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find(folder: Path, endings: Iterable[str] = ENDINGS) -> list[Path]:
    """All files with these endings, in small or capital letters, in a folder and those in it, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in endings
        and not any(part.startswith(".") or part in JUNK for part in path.relative_to(folder).parts)
    )


def rgb(source: Path | BinaryIO, white: int = 0) -> Image.Image:
    """A picture in colour, 8 bits a channel.

    Args:
        source: the file.
        white: what is white in grey of more than 8 bits; 0 to see from the picture's own values, see above. For
            several pictures that are to be compared see `whitest`.

    Raises:
        DataError: see above.
    """
    with _named(source):
        return _opaque(_load(source), source, white).convert("RGB")


def grey(source: Path | BinaryIO, white: int = 0) -> Image.Image:
    """A picture in grey, 8 bits; as `rgb` in all else."""
    with _named(source):
        return _opaque(_load(source), source, white).convert("L")


def whitest(paths: Iterable[Path]) -> int:
    """What is white in all of these pictures that have more than 8 bits of grey, 0 if none has."""
    deep = (image for path in paths if _is_deep(_header(path)) for image in [_load(path)] if image.mode != "F")
    return max((_white(np.asarray(image)) for image in deep), default=0)


def size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture as it is seen; its pixels are not read."""
    return _header(path)["size"]


def orientation(path: Path) -> int:
    """EXIF's orientation of a picture, 1 for upright."""
    return _header(path)["orientation"]


def turned_boxes(boxes: np.ndarray, orientation: int, width: int, height: int) -> np.ndarray:
    """Boxes (B, 4) in the stored pixels of a picture (width, height) as boxes in the picture as it is seen.

    Example:
        >>> turned_boxes(np.array([[0, 0, 20, 30]]), 6, 60, 40).tolist()  # a quarter to the right
        [[10, 0, 40, 20]]
    """
    left, top, right, bottom = boxes.T
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    if orientation >= 5:
        left, top, right, bottom = top, left, bottom, right
    return np.stack([left, top, right, bottom], 1)


# ---------------------------------------------------------------- masks


def labels(path: Path) -> np.ndarray:
    """A mask's values (height, width): a palette's indices, greys, or the strongest channel of colours.

    What is transparent counts as 0. If nothing else is there, because the mask is held in the alpha channel alone, it
    is that channel.
    """
    image = _load(path)
    if _is_transparent(image):
        colours = np.asarray(image.convert("RGBA"))
        alpha = colours[..., 3]
        shown = np.where(alpha > 127, np.asarray(image) if image.mode == "P" else colours[..., :3].max(-1), 0)
        return shown if shown.any() or alpha.min() == alpha.max() else alpha
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    values = np.asarray(image)
    values = values.max(-1) if values.ndim == 3 else values
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError(f"{path} is no mask: it has values that are negative or not finite")
    return values


def mask_kind(values: np.ndarray) -> str:
    """What a mask's values (height, width) tell of it: "plain", "void" or "soft", see `mask`."""
    there = np.unique(values)
    there = there[there > 0]
    if values.dtype.kind == "f":
        return "soft" if len(there) > 1 and there.max() <= 1 else "plain"
    top = np.iinfo(np.uint8).max if values.max(initial=0) <= 255 else np.iinfo(np.uint16).max
    if len(there) < 2 or top not in there:
        return "plain"
    return "soft" if ((there > top // 2) & (there < top)).any() else "void"


def mask(values: np.ndarray, kind: str = "plain") -> np.ndarray:
    """A mask's values (height, width) as 0 on the background, 1 on the object, 255 where it is not known, uint8.

    - plain: 0 is background and all else the object: one grey, or labels without 255;
    - void: labels in the lower half and 255, which means not known, as VOC's masks have it on the objects' borders;
    - soft: greys up to 255, as at smooth edges or from a JPEG, or fractions: from half of white on it is the object.
    """
    if kind == "soft":
        half = 0.5 if values.dtype.kind == "f" else (128 if values.max(initial=0) <= 255 else 32768)
        return (values >= half).astype(np.uint8)
    found = (values > 0).astype(np.uint8)
    if kind == "void":
        found[values == (255 if values.max(initial=0) <= 255 else 65535)] = UNKNOWN
    return found


# ---------------------------------------------------------------- steps


def _header(path: Path) -> dict:
    with _named(path), Image.open(path) as image:
        turn = image.getexif().get(ORIENTATION, 1)
        swapped = turn in (5, 6, 7, 8) and image.format != "TIFF"  # Pillow has turned a TIFF's size already
        shape = image.size[::-1] if swapped else image.size
        return {"size": shape, "orientation": turn if turn in TURNS else 1, "mode": image.mode}


def _is_deep(header: dict) -> bool:
    return header["mode"].startswith(("I", "F"))


def _load(source: Path | BinaryIO) -> Image.Image:
    """The picture upright, with all of its pixels read, in its own mode."""
    with _named(source), Image.open(source) as image:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise DataError(
                f"{_name(source)} holds {image.n_frames} pictures: save the one that is meant as its own file"
            )
        raw = str(image.tile[0][3]) if image.tile else ""
        inverted = image.format == "TIFF" and image.tag_v2.get(262) == WHITE_IS_ZERO
        image.load()
        if ";16" in raw and image.mode in ("RGB", "RGBA", "LA", "L") and 0 < _highest(image) < 64:
            raise DataError(
                f"{_name(source)} has 16 bits a channel and uses fewer than 15: nearly black. Scale its values to "
                "the whole range, or to 8 bits"
            )
        image = ImageOps.exif_transpose(image)
        if inverted and image.mode.startswith("I;16"):  # Pillow inverts up to 8 bits
            values = np.asarray(image).astype(np.uint16)
            image = Image.fromarray((_white(values) - values).astype(np.uint16))
        return image


def _highest(image: Image.Image) -> int:
    """The largest value of the colours, whatever the alpha channel holds."""
    return int(np.asarray(image.convert("RGB")).max())


def _opaque(image: Image.Image, source, white: int) -> Image.Image:
    """The picture in 8 bits a channel, without anything transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(np.asarray(image), source, white)
    if not _is_transparent(image):
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image)


def _scaled(values: np.ndarray, source, white: int) -> Image.Image:
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (0 <= low and high <= 1):  # nor NaN
            raise DataError(
                f"{_name(source)} has values from {low:g} to {high:g}; those of floating point must be 0 to 1"
            )
        return Image.fromarray((values * 255).round().astype(np.uint8))
    if low < 0:
        raise DataError(f"{_name(source)} has values from {low} to {high}: what of them is black, and what is white?")
    scaled = values.astype(np.float64) * (255 / max(white, _white(values)))
    return Image.fromarray(scaled.round().astype(np.uint8))


def _white(values: np.ndarray) -> int:
    return next(2**bits - 1 for bits in BITS if values.max(initial=0) < 2**bits)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _name(source) -> str:
    return str(source) if isinstance(source, Path | str) else "a picture in memory"


@contextmanager
def _named(source):
    """Whatever Pillow raises (of a damaged file many kinds) becomes a DataError with the file's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange metadata, and of large pictures; beyond the limit it is an error
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{_name(source)} cannot be read as a picture ({error})") from None
