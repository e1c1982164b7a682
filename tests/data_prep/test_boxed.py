"""VOC, COCO and Waterbirds in the formats of their publishers: small ones written here, and a true excerpt of COCO."""

import hashlib
import json
import shutil
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_prep import DataError, annotations, archives, boxed, coco2014, data_root, voc2007, waterbirds
from data_prep.__main__ import main


def photograph(path, width, height, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.linspace(0, value, height)[:, None, None] + np.linspace(0, 100, width)[None, :, None] + np.zeros(3)
    Image.fromarray(rows.astype(np.uint8)).save(path, quality=95)


def palette_image(path, labels):
    """A mask as VOC has them: indices into a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(list(range(256)) * 3)
    image.save(path)
    with Image.open(path) as back:
        assert back.mode == "P"


# ---------------------------------------------------------------- VOC 2007


XML = """<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename>
<size><width>80</width><height>40</height><depth>3</depth></size><segmented>1</segmented>{objects}</annotation>"""
OBJECT = """<object><name>{}</name><pose>Left</pose><truncated>0</truncated><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""
OBJECTS = {  # class, difficult, xmin, ymin, xmax, ymax as in the files: from 1 on, the last pixel is part of it
    "000001": [("dog", 0, 1, 1, 40, 40), ("person", 1, 41, 21, 80, 40), ("person", 0, 61, 1, 80, 20)],
    "000002": [("tvmonitor", 0, 11, 11, 20, 20)],
    "000003": [("cat", 1, 1, 1, 80, 40)],
}
LISTS = {"train": ["000001"], "val": ["000002"], "test": ["000003"]}


def write_voc(folder):
    for name, objects in OBJECTS.items():
        photograph(folder / "JPEGImages" / f"{name}.jpg", 80, 40)
        (folder / "Annotations").mkdir(exist_ok=True)
        text = XML.format(name=name, objects="".join(OBJECT.format(*entry) for entry in objects))
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for split, names in LISTS.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    instances, kinds = np.zeros((40, 80)), np.zeros((40, 80))
    # Instances in another order than the boxes: 1 is the second person, 2 the dog, 3 the difficult person.
    for number, kind, rows, columns in (
        (1, 15, (2, 19), (61, 79)),
        (2, 12, (1, 39), (2, 40)),
        (3, 15, (20, 40), (42, 80)),
    ):
        instances[slice(*rows), slice(*columns)], kinds[slice(*rows), slice(*columns)] = number, kind
    instances[0:1, 0:10] = kinds[0:1, 0:10] = 255
    palette_image(folder / "SegmentationObject" / "000001.png", instances)
    palette_image(folder / "SegmentationClass" / "000001.png", kinds)


@pytest.fixture
def voc(tmp_path, monkeypatch):
    monkeypatch.setattr(voc2007, "COUNTS", {"train": 1, "val": 1, "test": 1})
    write_voc(tmp_path / "VOC2007")
    return tmp_path


def test_vocs_boxes_are_half_open_and_scaled_to_the_squashed_image(voc):
    data = voc2007.load(voc, size=40)
    assert {key for key in data if key.startswith("train")} == {
        f"train_{k}" for k in "x y boxes classes objects".split()
    }
    assert data["train_x"].shape == (1, 3, 40, 40) and data["train_x"].dtype == torch.uint8
    assert data["train_boxes"][0].tolist() == [[0, 0, 20, 40], [20, 20, 40, 40], [30, 0, 40, 20]]
    assert data["train_classes"].tolist() == [[11, 14, 14]] and data["train_y"].nonzero()[:, 1].tolist() == [11, 14]
    assert data["val_boxes"].tolist() == [[[5, 10, 10, 20]]] and data["val_y"].argmax(1).tolist() == [19]
    assert data["train_y"].dtype == torch.float32 and data["train_classes"].dtype == torch.int64
    with Image.open(voc / "VOC2007/JPEGImages/000001.jpg") as image:
        expected = np.asarray(image.convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(data["train_x"][0].numpy(), expected)


def test_vocs_instances_find_their_boxes_and_what_is_not_segmented_is_255(voc):
    objects = voc2007.load(voc, size=80)["train_objects"][0]
    assert objects[60, 70] == 2 and objects[10, 65] == 3 and objects[40, 20] == 1 and objects[50, 40] == 0
    assert objects[0, 5] == 255, "the border"
    assert (voc2007.load(voc, size=80)["val_objects"] == 255).all()


def test_difficult_objects_are_kept_unless_unwanted(voc):
    assert voc2007.load(voc, size=40)["test_y"].sum() == 1
    easy = voc2007.load(voc, size=40, difficult=False)
    assert easy["test_y"].sum() == 0 and (easy["test_boxes"] == -1).all()
    assert easy["train_classes"].tolist() == [[11, 14]] and easy["train_boxes"][0].tolist() == [
        [0, 0, 20, 40],
        [30, 0, 40, 20],
    ]
    objects = voc2007.load(voc, size=80, difficult=False)["train_objects"][0]
    assert objects[60, 70] == 255, "an instance without a box of its own"
    assert objects[10, 65] == 2


def test_the_second_load_reads_files_and_a_changed_annotation_makes_new_ones(voc, monkeypatch):
    first = voc2007.load(voc, size=40)
    with monkeypatch.context() as patch:
        patch.setattr(voc2007, "_picture", None)
        second = voc2007.load(voc, size=40)
    assert all(torch.equal(first[key], second[key]) for key in first)
    second["train_x"][:] = 0
    assert torch.equal(voc2007.load(voc, size=40)["train_x"], first["train_x"]), "the files stay as they are"
    file = voc / "VOC2007/Annotations/000001.xml"
    file.write_text(file.read_text().replace("<name>dog</name>", "<name>cat</name>"))
    assert voc2007.load(voc, size=40)["train_classes"][0, 0] == 7
    assert not [p for p in (voc / "VOC2007/tensors").iterdir() if len(p.name.split("-")) != 3], (
        "nothing half done is left"
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "JPEGImages/000002.jpg").unlink(), "000002.jpg is missing: run `python -m data_prep voc2007`"),
        (lambda f: (f / "JPEGImages/000002.jpg").write_bytes(b"no"), "000002.jpg cannot be read"),
        (lambda f: (f / "Annotations/000001.xml").write_text("<annotation>"), "000001.xml is corrupt"),
        (lambda f: (f / "ImageSets/Main/val.txt").write_text(""), "val.txt is corrupt, 0 names of 1"),
        (lambda f: palette_image(f / "SegmentationObject/000001.png", np.ones((5, 5))), "has another size"),
    ],
)
def test_a_damaged_voc_is_an_error_that_says_what_to_do(voc, damage, message):
    damage(voc / "VOC2007")
    with pytest.raises(DataError, match=message):
        voc2007.load(voc, size=40)


def test_an_unknown_class_is_corrupt(voc):
    file = voc / "VOC2007/Annotations/000001.xml"
    file.write_text(file.read_text().replace("<name>dog</name>", "<name>unicorn</name>"))
    with pytest.raises(DataError, match=r"000001.xml is corrupt \('unicorn' is not in list"):
        voc2007.load(voc, size=40)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/", folder
        http.shutdown()


def pack(folder, archive, member):
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as file:
        file.add(folder, member)


def test_vocs_two_archives_are_downloaded_verified_and_merged(server, tmp_path, monkeypatch):
    address, mirror = server
    monkeypatch.setattr(voc2007, "COUNTS", {"train": 1, "val": 1, "test": 1})
    write_voc(tmp_path / "whole")
    test = tmp_path / "test"
    for part in ("JPEGImages/000003.jpg", "Annotations/000003.xml", "ImageSets/Main/test.txt"):
        (test / part).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "whole" / part).rename(test / part)
    sums = {}
    for name, folder in (("VOCtrainval_06-Nov-2007.tar", tmp_path / "whole"), ("VOCtest_06-Nov-2007.tar", test)):
        pack(folder, mirror / name, "VOCdevkit/VOC2007")
        sums[name] = hashlib.sha256((mirror / name).read_bytes()).hexdigest()
    monkeypatch.setattr(voc2007, "ARCHIVES", sums)
    monkeypatch.setattr(voc2007, "HOSTS", (f"{address}nowhere/", address))
    assert main(["voc2007", "--root", str(tmp_path / "data")]) == 0
    assert voc2007.load(tmp_path / "data", size=40)["test_y"].argmax(1).tolist() == [7]
    monkeypatch.setattr(voc2007, "HOSTS", ())
    assert voc2007.prepare(tmp_path / "data"), "nothing is downloaded again"


def test_an_archive_with_another_checksum_is_refused(server, tmp_path, monkeypatch, capsys):
    address, mirror = server
    (mirror / "VOCtrainval_06-Nov-2007.tar").write_bytes(b"not it")
    monkeypatch.setattr(voc2007, "HOSTS", (address,))
    assert main(["voc2007", "--root", str(tmp_path / "data")]) == 1
    assert "VOCtrainval_06-Nov-2007.tar could not be downloaded" in capsys.readouterr().err
    assert not (tmp_path / "data" / "VOC2007").exists()


@pytest.mark.parametrize("member", ["other", "VOCdevkit/VOC2007"])
def test_an_archive_that_cannot_be_unpacked_leaves_nothing(tmp_path, member):
    archive = tmp_path / "VOCtest.tar"
    if member == "other":
        write_voc(tmp_path / "whole")
        pack(tmp_path / "whole", archive, member)
    else:
        archive.write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"(does not hold|cannot be unpacked)"):
        archives.unpack([archive], "VOCdevkit/VOC2007", tmp_path / "VOC2007")
    assert not (tmp_path / "VOC2007").exists() and not list(tmp_path.glob(".unpack*"))


# ---------------------------------------------------------------- COCO 2014


def packed(counts):
    """COCO's run lengths as a string: five bits a character, from the fourth on as differences."""
    text = ""
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
    return text


def run_lengths(mask):
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int)])
    edges = np.flatnonzero(np.diff(flat)) if flat[1:].any() else np.array([], int)
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_are_decoded_in_both_forms(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(3, 90, 2)
    mask = rng.random((height, width)) < rng.choice([0.01, 0.5, 0.99])
    counts = run_lengths(mask)
    size = [int(height), int(width)]
    assert np.array_equal(annotations.decode({"size": size, "counts": counts}, *size), mask)
    assert np.array_equal(annotations.decode({"size": size, "counts": packed(counts)}, *size), mask)
    assert np.array_equal(annotations.decode({"size": size, "counts": packed(counts).encode()}, *size), mask)


def test_a_known_string_of_run_lengths():
    """Golden: pycocotools.mask.encode of a mask with rows 1-2, columns 1-3 of 5 × 6."""
    mask = np.zeros((5, 6), bool)
    mask[1:3, 1:4] = True
    assert np.array_equal(annotations.decode({"size": [5, 6], "counts": "6230009"}, 5, 6), mask)


def test_polygons_cover_the_pixels_whose_centres_they_hold():
    mask = annotations.decode([[2, 1, 7, 1, 7, 4, 2, 4], [0, 6, 1, 6, 1, 8, 0, 8]], 9, 10)
    expected = np.zeros((9, 10), bool)
    expected[1:4, 2:7] = expected[6:8, 0:1] = True
    assert np.array_equal(mask, expected)
    v, u = np.mgrid[:60, :80] + 0.5
    angles = np.linspace(0, 2 * np.pi, 90)
    disc = np.stack([40.3 + 25 * np.cos(angles), 30.6 + 20 * np.sin(angles)], 1).reshape(-1).tolist()
    truth = ((u - 40.3) / 25) ** 2 + ((v - 30.6) / 20) ** 2 <= 1
    found = annotations.decode([disc], 60, 80)
    assert (found & truth).sum() / (found | truth).sum() > 0.98
    outside = annotations.decode([[-5, -5, 200, -5, 200, 200, -5, 200]], 9, 10)
    assert outside.all(), "what is outside of the image is cut off"


@pytest.mark.parametrize(
    "counts", [[5, 2], [40, 20, 5], packed([10, 12])], ids=["too few", "too many", "too few, packed"]
)
def test_run_lengths_of_another_size_are_refused(counts):
    with pytest.raises(ValueError, match=r"run lengths must be of 5×12 pixels"):
        annotations.decode({"size": [5, 12], "counts": counts}, 5, 12)


def write_coco(folder):
    """Three images, of which two are in train2014; objects in all three forms."""
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}, {"id": 18, "name": "dog"}]
    crowd = np.zeros((40, 80), bool)
    crowd[:, 60:] = True
    small = np.zeros((40, 80), bool)
    small[10:20, 10:20] = True
    entries = [
        dict(image_id=7, category_id=90, iscrowd=0, area=100, bbox=[10, 10, 10, 10],
             segmentation={"size": [40, 80], "counts": packed(run_lengths(small))}),
        dict(image_id=7, category_id=1, iscrowd=0, area=1600, bbox=[0, 0, 40, 40],
             segmentation=[[0, 0, 40, 0, 40, 40, 0, 40]]),
        dict(image_id=7, category_id=18, iscrowd=1, area=800, bbox=[60, 0, 20, 40],
             segmentation={"size": [40, 80], "counts": run_lengths(crowd)}),
        dict(image_id=9, category_id=1, iscrowd=0, area=1, bbox=[79.2, 39.1, 0.5, 0.4],
             segmentation=[[79.2, 39.1, 79.7, 39.1, 79.7, 39.5]]),
    ]  # fmt: skip
    (folder / "annotations").mkdir(parents=True)
    for part, numbers in (("train2014", (9, 7)), ("val2014", (8,))):
        images = [dict(id=n, file_name=f"COCO_{part}_{n:012}.jpg", width=80, height=40) for n in numbers]
        for image in images:
            photograph(folder / part / image["file_name"], 80, 40, 100 + image["id"])
        content = dict(
            images=images, annotations=[e for e in entries if e["image_id"] in numbers], categories=categories
        )
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))


@pytest.fixture
def coco(tmp_path, monkeypatch):
    write_coco(tmp_path / "COCO2014")
    monkeypatch.setattr(coco2014, "_in_split", lambda split, number: (number == 9) == (split == "val"))
    return tmp_path


def test_cocos_boxes_and_masks_of_all_forms(coco):
    data = coco2014.load(coco, size=40)
    assert data["train_classes"].tolist() == [[79, 0, 16]]
    assert data["train_boxes"][0].tolist() == [[5, 10, 10, 20], [0, 0, 20, 40], [30, 0, 40, 40]]
    assert data["train_y"].nonzero()[:, 1].tolist() == [0, 16, 79]
    objects = data["train_objects"][0]
    assert objects[15, 7] == 1 and objects[5, 3] == 2 and objects[20, 35] == 3 and objects[20, 25] == 0
    assert data["val_boxes"].tolist() == [[[39, 39, 40, 40]]], "the smallest box still has a pixel"
    assert data["test_y"].sum() == 0 and (data["test_objects"] == 0).all() and (data["test_boxes"] == -1).all()


def test_crowds_are_kept_unless_unwanted(coco):
    assert coco2014.load(coco, size=40, crowds=False)["train_classes"].tolist() == [[79, 0]]


def test_the_division_by_hash_is_one_in_ten_and_fixed():
    validation = [coco2014._in_split("val", n) for n in range(5000)]
    assert 400 < sum(validation) < 600
    assert all(coco2014._in_split("train", n) != v for n, v in enumerate(validation))
    assert [n for n in range(100) if validation[n]] == [18, 72, 74, 87, 96]


def test_the_authors_division_is_used_once_it_is_there(coco):
    with pytest.raises(DataError, match=r"train2014_train_split.json is missing: [\s\S]*Model-Guidance"):
        coco2014.load(coco, size=40, division="authors")
    folder = coco / "COCO2014" / "annotations"
    content = json.loads((folder / "instances_train2014.json").read_text())
    for split, number in (("train", 9), ("val", 7)):
        part = content | {"images": [i for i in content["images"] if i["id"] == number]}
        (folder / coco2014.AUTHORS[split]).write_text(json.dumps(part))
    data = coco2014.load(coco, size=40, division="authors")
    assert data["train_classes"].tolist() == [[0]] and data["val_classes"].tolist() == [[79, 0, 16]]


@pytest.mark.parametrize(
    "text", ["{", '{"images": []}', '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "elf"}]}']
)
def test_corrupt_annotations_of_coco_are_an_error(coco, text):
    (coco / "COCO2014/annotations/instances_train2014.json").write_text(text)
    with pytest.raises(DataError, match=r"instances_train2014.json is corrupt"):
        coco2014.load(coco, size=40)


def test_a_true_excerpt_of_coco_keeps_the_contract(tmp_path):
    folder = data_root() / "tiny_coco"
    if not folder.is_dir():
        pytest.skip("needs the excerpt of COCO 2017 in the data folder, tiny_coco")
    pictures = coco2014.pictures(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    found = boxed.cached(tmp_path, {"val": lambda: pictures}, 112, None)["val"]
    assert found["x"].shape == (50, 3, 112, 112) and (found["classes"] >= 0).sum() == 382
    visible = 0
    for boxes, classes, objects in zip(found["boxes"], found["classes"], found["objects"]):
        for b in range(int((classes >= 0).sum())):
            rows, columns = (objects == b + 1).nonzero().T
            if len(rows):  # else it is hidden, or smaller than a pixel
                visible += 1
                left, top, right, bottom = boxes[b].tolist()
                assert left <= columns.min() and columns.max() < right and top <= rows.min() and rows.max() < bottom
    assert visible > 320


def test_tensors_that_another_run_has_made_meanwhile_are_taken(tmp_path):
    def pictures(meanwhile=None):
        if meanwhile:
            meanwhile()
        file = tmp_path / "a.png"
        photograph(file, 20, 10)
        return [annotations.Picture(file, [[0.0, 0.0, 5.0, 5.0]], [0])]

    folder = tmp_path / "made"
    other = partial(boxed.cached, folder, {"val": pictures}, 16, None)
    found = boxed.cached(folder, {"val": lambda: pictures(other)}, 16, None)
    assert found["val"]["x"].shape == (1, 3, 16, 16) and len([*folder.iterdir()]) == 1


# ---------------------------------------------------------------- Waterbirds


BIRDS = [  # CUB's number, file, class, split, place
    (1, "001.Black_footed_Albatross/A_1.jpg", 1, 0, 1),
    (2, "001.Black_footed_Albatross/A_2.jpg", 1, 0, 0),
    (3, "002.Wren/W_1.jpg", 0, 0, 0),
    (4, "002.Wren/W_2.jpg", 0, 1, 0),
    (5, "002.Wren/W_3.jpg", 0, 1, 1),
    (6, "001.Black_footed_Albatross/A_3.jpg", 1, 1, 1),
    (7, "001.Black_footed_Albatross/A_4.jpg", 1, 2, 0),
    (8, "002.Wren/W_4.jpg", 0, 2, 1),
]


def write_birds(folder, release):
    table = pd.DataFrame(BIRDS, columns=["img_id", "img_filename", "y", "split", "place"])
    table["place_filename"] = "/o/ocean/00000344.jpg"
    for name in table["img_filename"]:
        photograph(folder / release / name, 80, 40)
    table.to_csv(folder / release / "metadata.csv", index=False)
    cub = folder / "CUB_200_2011"
    cub.mkdir(exist_ok=True)
    (cub / "images.txt").write_text("".join(f"{n} {name}\n" for n, name, *_ in BIRDS))
    (cub / "bounding_boxes.txt").write_text(
        "".join(f"{n} {10.0 * n - 10} 10.0 20.0 20.0\n" for n, *_ in BIRDS[:7]) + "8 0.0 0.0 80.0 40.0\n"
    )
    mask = np.zeros((40, 80), np.uint8)
    mask[12:28, 2:18] = 255
    mask[11, 2:18] = 102  # two of five people
    path = (folder / "segmentations" / BIRDS[0][1]).with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def birds(tmp_path):
    write_birds(tmp_path / "waterbirds", waterbirds.RELEASES[1])
    return tmp_path


def test_waterbirds_are_split_by_the_metadata_and_training_and_validation_are_without_minorities(birds):
    data = waterbirds.load(birds, size=40, release=waterbirds.RELEASES[1])
    assert data["train_y"].tolist() == [1, 0] and data["train_background"].tolist() == [1, 0]
    assert data["val_y"].tolist() == [0, 1] and data["val_background"].tolist() == [0, 1]
    assert data["balanced_y"].tolist() == [0, 0, 1] and data["balanced_background"].tolist() == [0, 1, 1]
    assert data["test_group"].tolist() == [2, 1] and data["test_group"].dtype == torch.int64
    assert data["train_classes"].tolist() == [[1], [0]]


def test_waterbirds_have_cubs_boxes_and_segmentations_at_the_images_size(birds):
    data = waterbirds.load(birds, size=40, release=waterbirds.RELEASES[1])
    assert data["train_boxes"].tolist() == [[[0, 10, 10, 30]], [[10, 10, 20, 30]]]
    first = data["train_objects"][0]
    assert first.unique().tolist() == [0, 1] and first[12:28, 1:9].all() and first.sum() == 16 * 8
    assert (data["train_objects"][1] == 255).all(), "no segmentation"


def test_a_release_that_is_not_there_says_how_to_get_it_and_is_never_replaced(birds):
    with pytest.raises(DataError, match=r"waterbird_1.0_forest2water2[\s\S]*by hand[\s\S]*metadata.csv is there"):
        waterbirds.load(birds, size=40)
    with pytest.raises(ValueError, match="release must be one of"):
        waterbirds.load(birds, release="waterbirds")
    write_birds(birds / "waterbirds", waterbirds.RELEASES[0])
    assert waterbirds.load(birds, size=40)["train_y"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("CUB_200_2011/images.txt", "4 002.Wren/W_2.jpg", "4 002.Wren/other.jpg", "no box for 002.Wren/W_2.jpg"),
        (f"{waterbirds.RELEASES[1]}/metadata.csv", ",place,", ",spot,", "corrupt"),
        (f"{waterbirds.RELEASES[1]}/metadata.csv", "A_1.jpg,1,0,1", "A_1.jpg,1,0,2", "must be 0 or 1"),
    ],
)
def test_tables_of_waterbirds_that_do_not_fit_are_an_error(birds, file, old, new, message):
    path = birds / "waterbirds" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        waterbirds.load(birds, size=40, release=waterbirds.RELEASES[1])


def test_waterbirds_three_archives_are_downloaded_and_unpacked(server, tmp_path, monkeypatch):
    address, mirror = server
    write_birds(tmp_path / "whole", waterbirds.RELEASES[1])
    published = {}
    for name, (url, expected, member) in waterbirds.ARCHIVES.items():
        file = mirror / url.rpartition("/")[2]
        pack(tmp_path / "whole" / name, file.with_suffix(".gz"), member)
        file.with_suffix(".gz").rename(file)
        published[name] = (address + file.name, expected and hashlib.sha256(file.read_bytes()).hexdigest(), member)
    monkeypatch.setattr(waterbirds, "ARCHIVES", published)
    assert main(["waterbirds", "--root", str(tmp_path / "data")]) == 0
    data = waterbirds.load(tmp_path / "data", size=40, release=waterbirds.RELEASES[1])
    assert data["train_boxes"].tolist() == [[[0, 10, 10, 30]], [[10, 10, 20, 30]]]


def test_cocos_zip_archives_are_downloaded_and_unpacked(server, tmp_path, monkeypatch):
    address, mirror = server
    write_coco(tmp_path / "whole")
    published = {}
    for name, (path, _) in coco2014.ARCHIVES.items():
        archive = mirror / path
        archive.parent.mkdir(exist_ok=True)
        shutil.make_archive(str(archive.with_suffix("")), "zip", tmp_path / "whole", name)
        published[name] = (path, hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(coco2014, "HOST", address)
    monkeypatch.setattr(coco2014, "_in_split", lambda split, number: (number == 9) == (split == "val"))
    monkeypatch.setattr(coco2014, "ARCHIVES", published)
    assert main(["coco2014", "--root", str(tmp_path / "data")]) == 0
    assert coco2014.load(tmp_path / "data", size=40)["test_x"].shape == (1, 3, 40, 40)


# ---------------------------------------------------------------- all


@pytest.mark.parametrize("module", [voc2007, coco2014, waterbirds])
def test_without_its_files_a_set_says_what_to_do(module, tmp_path):
    with pytest.raises(DataError, match=f"python -m data_prep {module.NAME}"):
        module.load(tmp_path)
    with pytest.raises(ValueError, match="size must be at least 16"):
        module.load(tmp_path, size=8)


def test_a_box_that_is_inverted_is_an_error(tmp_path):
    photograph(tmp_path / "a.jpg", 80, 40)
    picture = boxed.Picture(tmp_path / "a.jpg", [(10, 10, 5, 20)], [0])
    with pytest.raises(DataError, match="inverted or not finite"):
        boxed.arrays([picture], 40, tmp_path)


def test_more_boxes_than_labels_are_refused(tmp_path):
    picture = boxed.Picture(tmp_path / "a.jpg", [(0, 0, 1, 1)] * 255, [0] * 255)
    with pytest.raises(DataError, match="255 boxes"):
        boxed.arrays([picture], 40, tmp_path)
