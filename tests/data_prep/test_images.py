"""Pictures and masks are read as a person sees them; the oracle is the picture that was written."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep import DataError, annotations, boxed, images

STORED = {  # EXIF orientation -> how an upright picture's pixels lie in the file
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
RAMP = np.linspace(0, 65535, 2400).reshape(60, 40).round().astype(np.uint16)
EIGHT = (RAMP / 257).round().astype(np.uint8)


def upright():
    picture = np.full((30, 20, 3), 20, np.uint8)
    picture[:15, :10] = 200
    picture[0, -1] = (255, 0, 0)
    return picture


def stored(picture, orientation):
    image = Image.fromarray(picture)
    return image.transpose(STORED[orientation]) if orientation > 1 else image


def save_turned(picture, path, orientation):
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {}
    stored(picture, orientation).save(path, exif=exif.tobytes(), **options)


def deep_png(values):
    """A PNG of 16 bits a channel, (H, W, 1 to 4), which Pillow does not write but for grey."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_is_read_upright_with_its_size(tmp_path, orientation, ending):
    path = tmp_path / f"a.{ending}"
    save_turned(upright(), path, orientation)
    assert np.array_equal(images.rgb(path), upright()) and images.size(path) == (20, 30)
    assert images.orientation(path) == orientation


@pytest.mark.parametrize("orientation", STORED)
def test_boxes_and_masks_drawn_on_the_stored_pixels_turn_with_the_picture_if_their_size_tells(tmp_path, orientation):
    path, there = tmp_path / "a.png", np.zeros((30, 20), np.uint8)
    there[:15, :10] = 1
    save_turned(upright(), path, orientation)
    lying = stored(there, orientation)
    rows, columns = np.asarray(lying).any(1).nonzero()[0], np.asarray(lying).any(0).nonzero()[0]
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert images.turned_boxes(np.array([box]), orientation, *lying.size).tolist() == [[0, 0, 10, 15]]
    seen = orientation < 5  # the sizes are the same: an annotation is taken as drawn on what is seen
    picture = annotations.Picture(
        path, [(0, 0, 10, 15) if seen else box], [0], lambda *_: there if seen else np.asarray(lying), size=lying.size
    )
    boxed.arrays([picture], 20, tmp_path)
    objects = np.load(tmp_path / "objects.npy")[0]
    assert np.load(tmp_path / "boxes.npy").tolist() == [[[0, 0, 10, 10]]]
    assert (objects == (np.add.outer(np.arange(20) // 10, np.arange(20) // 10 * 2) == 0)).all()


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        (RAMP, "png"), (RAMP, "tif"), (RAMP, "pgm"), (RAMP // 4, "tif"), (RAMP // 16, "tif"), (RAMP // 16, "png"),
        (RAMP // 64, "png"), (RAMP // 256, "tif"), (RAMP.astype(np.int32), "tif"), (RAMP.astype(np.int32) * 256, "tif"),
        ((RAMP / 65535).astype(np.float32), "tif"), (RAMP.astype(">u2"), "tif"),
    ],
    ids=[*"16-png 16-tif 16-pgm 14 12-tif 12-png 10 8-in-16 int32 24-in-32 float big-endian".split()],
)  # fmt: skip
def test_grey_of_more_than_eight_bits_keeps_its_greys(tmp_path, values, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path)
    for read in (images.rgb(path).getchannel(1), images.grey(path)):
        assert abs(np.asarray(read).astype(int) - EIGHT).max() <= 1


def test_several_deep_pictures_can_have_one_white(tmp_path):
    for name, values in (("dark", RAMP // 256), ("light", RAMP // 16)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    Image.fromarray(EIGHT).save(tmp_path / "plain.png")
    paths = sorted(tmp_path.iterdir())
    assert images.whitest(paths) == 4095 and images.whitest([tmp_path / "plain.png"]) == 0
    assert np.asarray(images.grey(tmp_path / "dark.png", 4095)).max() == 16
    assert np.array_equal(images.grey(tmp_path / "plain.png", 4095), EIGHT)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_sixteen_bits_are_read_by_their_upper_eight(tmp_path, channels):
    values = np.repeat(RAMP[..., None], channels, 2)
    if channels != 3:
        values[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(deep_png(values))
    assert abs(np.asarray(images.rgb(tmp_path / "a.png")).mean() - 127.5) < 1


@pytest.mark.parametrize("values", [RAMP, EIGHT], ids=["16 bits", "8 bits"])
def test_a_tiff_in_which_zero_is_white_is_not_read_as_a_negative(tmp_path, values):
    Image.fromarray(values if values.dtype == np.uint8 else 65535 - values).save(tmp_path / "a.tif", tiffinfo={262: 0})
    assert abs(np.asarray(images.grey(tmp_path / "a.tif")).astype(int) - EIGHT).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "RGBA", "PA"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(upright()).convert("RGBA" if mode == "PA" else mode)
    ending = "tif" if mode in ("CMYK", "YCbCr") else "png"
    image = image.convert("RGB") if mode == "HSV" else image.quantize() if mode == "PA" else image
    image.save(tmp_path / f"a.{ending}")
    read = np.asarray(images.rgb(tmp_path / f"a.{ending}")).astype(int)
    assert read.shape == (30, 20, 3) and abs(read - np.asarray(image.convert("RGB"))).max() <= 3


def transparent(path, kind):
    rubbish = np.random.default_rng(0).integers(0, 255, (30, 20, 4), dtype=np.uint8)
    rubbish[..., 3] = 0
    rubbish[:15, :10] = (200, 100, 50, 255)
    if kind == "RGBA":
        Image.fromarray(rubbish).save(path)
    elif kind == "LA":
        Image.fromarray(rubbish[..., [0, 3]]).save(path)
    else:
        image = Image.new("P", (20, 30), 1)
        image.putpalette([0, 0, 0, 255, 0, 255, 200, 100, 50])
        image.paste(2, (0, 0, 10, 15))
        image.save(path, transparency=1)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_whatever_colours_lie_hidden(tmp_path, kind):
    transparent(tmp_path / "a.png", kind)
    read = np.asarray(images.rgb(tmp_path / "a.png"))
    assert (read[15:] == images.BACKGROUND).all() and (read[:15, :10, 0] == 200).all()


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "a.png")
    assert abs(np.asarray(images.rgb(tmp_path / "a.png")).astype(int) - 127).max() <= 1


def test_the_photograph_of_a_telephones_jpeg_with_several_pictures_is_read(tmp_path):
    second = Image.new("RGB", (20, 30))
    Image.fromarray(upright()).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    assert abs(np.asarray(images.rgb(tmp_path / "a.jpg")).astype(int)[2:14, 2:8] - 200).max() < 10


# ---------------------------------------------------------------- masks


def drawn(path, kind):
    there = np.zeros((8, 6), np.uint8)
    there[:4, :3] = 1
    nothing = np.zeros_like(there)
    if kind == "palette":
        image = Image.fromarray(there)
        image.putpalette([0, 0, 0, 255, 0, 0])
    elif kind in ("1", "I;16"):
        image = Image.fromarray(there.astype(bool)) if kind == "1" else Image.fromarray(there.astype(np.uint16) * 65535)
    else:
        image = {
            "0 and 1": lambda: Image.fromarray(there),
            "0 and 255": lambda: Image.fromarray(there * 255),
            "several labels": lambda: Image.fromarray(there * np.array([1, 2, 7, 0, 0, 0], np.uint8)),
            "colour": lambda: Image.fromarray(np.stack([there * 90, nothing, there * 40], -1)),
            "opaque": lambda: Image.fromarray(np.stack([there * 255] * 3 + [nothing + 255], -1)),
            "alpha alone": lambda: Image.fromarray(np.stack([nothing] * 3 + [there * 255], -1)),
            "white, cut out by alpha": lambda: Image.fromarray(np.stack([nothing + 255] * 3 + [there * 255], -1)),
            "grey with alpha alone": lambda: Image.fromarray(np.stack([nothing, there * 255], -1)),
            "float": lambda: Image.fromarray(there.astype(np.float32)),
        }[kind]()
    image.save(path)
    return there


KINDS = (
    ("palette,1,I;16,0 and 1,0 and 255,several labels,colour,opaque,alpha alone,white,grey with alpha alone,float")
    .replace("white", "white; cut out by alpha")
    .split(",")
)


@pytest.mark.parametrize("kind", [kind.replace(";", ",") if kind != "I;16" else kind for kind in KINDS])
def test_a_mask_is_the_same_however_it_is_stored(tmp_path, kind):
    path = tmp_path / ("a.tif" if kind == "float" else "a.png")
    there = drawn(path, kind)
    values = images.labels(path)
    assert images.mask_kind(values) == "plain" and np.array_equal(images.mask(values), there)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0, 1, 15, 255], "void", [0, 1, 1, 255]),
        ([0, 3, 127, 128, 250, 255], "soft", [0, 0, 0, 1, 1, 1]),
        ([0, 1, 2, 254], "plain", [0, 1, 1, 1]),
        ([0, 1000, 65535], "void", [0, 1, 255]),
    ],
)
def test_greys_beside_255_are_labels_or_edges_by_where_they_lie(values, kind, expected):
    values = np.array([values], np.uint16)
    assert images.mask_kind(values) == kind and images.mask(values, kind).tolist() == [expected]


def test_fractions_are_the_object_from_a_half_on():
    values = np.array([[0, 0.2, 0.5, 1]], np.float32)
    assert images.mask_kind(values) == "soft" and images.mask(values, "soft").tolist() == [[0, 0, 1, 1]]


def test_whatever_is_damaged_is_refused_by_name(tmp_path):
    """700 files cut short or with flipped bits: read (a bit may be a colour's) or a DataError, nothing else."""
    rng = np.random.default_rng(0)
    refused = 0
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)
        whole = path.read_bytes()
        for trial in range(100):
            content = bytearray(whole[: rng.integers(len(whole))] if trial % 2 else whole)
            for place in rng.integers(0, min(len(content), 200) or 1, 0 if trial % 2 else 3):
                content[place] ^= 1 << rng.integers(8)
            path.write_bytes(content)
            for read in (images.rgb, images.labels, images.size):
                try:
                    read(path)
                except DataError as error:
                    refused += 1
                    assert f"a.{ending}" in str(error)
                else:
                    assert not trial % 2 or read is images.size or len(content) > 0.9 * len(whole), "cut short and read"
    assert refused > 1000
