"""Folders of one's own images: what is written comes back, and what is wrong with a folder is said."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep import DataError, scenes
from data_prep.example_folder import write_example
from data_prep.folder import ANNOTATIONS, SPLITS, checksums, load

VOC = (
    "<annotation><size><width>{w}</width><height>{h}</height></size><object><name>{name}</name><bndbox>"
    "<xmin>3</xmin><ymin>2</ymin><xmax>8</xmax><ymax>5</ymax></bndbox></object></annotation>"
)


def photograph(path, width=20, height=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)


def voc_folder(folder, names="aabbab"):
    for i, name in enumerate(names):
        photograph(folder / "images" / f"{i}.jpg")
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{i}.xml").write_text(VOC.format(w=20, h=10, name=name))
    return folder


def masks_folder(folder, names="aabbab"):
    for i, name in enumerate(names):
        photograph(folder / "images" / name / f"{i}.jpg")
        (folder / "masks" / name).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((10, 20), np.uint8)
        mask[1:5, 2:8] = 7
        Image.fromarray(mask).save(folder / "masks" / name / f"{i}.png")
    return folder


def coco_folder(folder, change=lambda content: None, n=6, split=""):
    """With a split as COCO lays it out, else as `load`'s table says."""
    for i in range(n):
        photograph(folder / (split or "images") / f"{i}.jpg")
    box = {"bbox": [2, 1, 6, 4]}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 20, "height": 10} for i in range(n)],
        "categories": [{"id": 9, "name": "a"}, {"id": 4, "name": "b"}],
        "annotations": [{"id": i, "image_id": i, "category_id": (9, 4)[i % 2], **box} for i in range(n)],
    }
    change(content)
    file = folder / (f"annotations/instances_{split}.json" if split else "annotations.json")
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return folder


def every(data, key):
    return torch.cat([data[f"{split}_{key}"] for split in SPLITS])


@pytest.mark.parametrize("annotations", ANNOTATIONS)
def test_generated_scenes_come_back_as_they_were_written(tmp_path, annotations):
    found = load(write_example(tmp_path, annotations, n=30), annotations, size=32)
    assert found.classes == [f"digit {c}" for c in range(4)] and found.left_out == 0
    made = scenes.load(canvas=32, edge=14, classes=4, train=150 if annotations == "masks" else 30, val=20, test=20)
    place = {x.numpy().tobytes(): i for i, x in enumerate(made["train_x"][:, 0])}
    assert [len(found.data[f"{split}_x"]) for split in SPLITS] == [18, 6, 6]
    x, y, boxes, classes, objects = (every(found.data, key) for key in ("x", "y", "boxes", "classes", "objects"))
    assert (x[:, :1] == x).all() and len({*map(bytes, x[:, 0].numpy())}) == 30
    for n in range(30):
        i = place[x[n, 0].numpy().tobytes()]
        there = made["train_classes"][i] >= 0
        assert torch.equal(boxes[n][: there.sum()], made["train_boxes"][i][there])
        assert torch.equal(classes[n][: there.sum()], made["train_classes"][i][there])
        assert torch.equal(y[n], made["train_y"][i])
        assert (objects[n] == (255 if annotations == "voc" else made["train_objects"][i])).all()


@pytest.mark.parametrize(
    ("make", "annotations"),
    [(voc_folder, "voc"), (masks_folder, "masks"), (coco_folder, "coco")],
    ids=ANNOTATIONS[::-1],
)
def test_images_of_any_size_are_squashed_with_their_boxes(tmp_path, make, annotations):
    found = load(make(tmp_path), annotations, size=40)
    assert (every(found.data, "boxes")[:, 0] == torch.tensor([4.0, 4, 16, 20])).all()
    assert found.classes == (["b", "a"] if annotations == "coco" else ["a", "b"]), "COCO's by their id"
    assert every(found.data, "y").sum(0).tolist() == [3, 3] and found.data["train_x"].dtype == torch.uint8
    if annotations == "masks":
        expected = torch.zeros(40, 40, dtype=torch.uint8)
        expected[4:20, 4:16] = 1
        assert (every(found.data, "objects") == expected).all()


def test_the_division_is_that_of_the_folders_where_there_are_some(tmp_path):
    for split, names in (("train", "aab"), ("val", "b"), ("test", "ab")):
        voc_folder(tmp_path / split, names)
    found = load(tmp_path, "voc", size=16)
    assert [len(found.data[f"{split}_x"]) for split in SPLITS] == [3, 1, 2]
    assert found.data["val_y"].tolist() == [[0, 1]]


@pytest.mark.parametrize("other", ["val", "valid", "validation", "test"])
def test_train_and_one_other_folder_suffice_it_is_the_test_and_val_is_drawn_from_train(tmp_path, other):
    voc_folder(tmp_path / "train", "aabbaabbaa")
    for i in range(3):
        photograph(voc_folder(tmp_path / other, "abb") / "images" / f"{i}.jpg", 20, 10)
    found = load(tmp_path, "voc", size=16)
    assert [len(found.data[f"{split}_x"]) for split in SPLITS] == [8, 2, 3]
    assert found.data["test_y"].tolist() == [[1, 0], [0, 1], [0, 1]]
    shutil.rmtree(tmp_path / other)
    assert [len(load(tmp_path, "voc", size=16).data[f"{split}_x"]) for split in SPLITS] == [6, 2, 2]


@pytest.mark.parametrize(
    ("names", "message"), [(["val", "test"], "it must have train"), (["train", "val", "valid"], "two parts for val")]
)
def test_folders_that_are_no_division_are_named(tmp_path, names, message):
    for name in names:
        voc_folder(tmp_path / name)
    with pytest.raises(DataError, match=message):
        load(tmp_path, "voc", size=16)


def test_cocos_own_layout_is_read(tmp_path):
    for split, n in (("train2017", 5), ("val2017", 2)):
        coco_folder(tmp_path, split=split, n=n)
    found = load(tmp_path, "coco", size=16)
    assert [len(found.data[f"{split}_x"]) for split in SPLITS] == [4, 1, 2] and found.classes == ["b", "a"]
    before = checksums(tmp_path, "coco")
    photograph(tmp_path / "val2017" / "1.jpg", 21)
    assert checksums(tmp_path, "coco")["images"] != before["images"]


@pytest.mark.parametrize("names", [("a", "c"), ("b", "a")])
def test_a_category_that_means_different_things_in_two_parts_is_refused(tmp_path, names):
    coco_folder(tmp_path, split="train2017")
    coco_folder(tmp_path, lambda c: [e.update(name=n) for e, n in zip(c["categories"], names)], split="val2017")
    with pytest.raises(DataError, match=r"instances_val2017.json: category \d is '\w', and not so in another part"):
        load(tmp_path, "coco", size=16)


def test_cvats_layout_is_read(tmp_path):
    coco_folder(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations.json").rename(tmp_path / "annotations" / "instances_default.json")
    assert len(every(load(tmp_path, "coco", size=16).data, "x")) == 6


@pytest.mark.parametrize("annotations", ["coco", "voc"])
def test_roboflows_layout_is_read_with_its_grouping_category(tmp_path, annotations):
    for split in ("train", "valid", "test"):
        folder = tmp_path / split
        if annotations == "coco":
            coco_folder(
                folder, lambda c: c["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
            )
            content = json.loads((folder / "annotations.json").read_text())
            for category in content["categories"][1:]:
                category["supercategory"] = "things"
            (folder / "annotations.json").unlink()
            (folder / "_annotations.coco.json").write_text(json.dumps(content))
        else:
            voc_folder(folder)
        for path in [*(folder / "images").iterdir(), *folder.glob("annotations/*")]:
            path.rename(folder / path.name)
        for part in ("images", "annotations"):
            shutil.rmtree(folder / part, ignore_errors=True)
    found = load(tmp_path, annotations, size=16)
    assert [len(found.data[f"{split}_x"]) for split in SPLITS] == [6, 6, 6]
    assert found.classes == (["b", "a"] if annotations == "coco" else ["a", "b"]) and found.left_out == 0


def test_labels_may_be_sub_folders_and_then_an_image_may_lack_annotations(tmp_path):
    voc_folder(tmp_path)
    for i, name in enumerate(("x", "y", "x", "y", "x", "y")):
        for part, ending in (("images", "jpg"), ("annotations", "xml")):
            (tmp_path / part / name).mkdir(exist_ok=True)
            (tmp_path / part / f"{i}.{ending}").rename(tmp_path / part / name / f"{i}.{ending}")
    (tmp_path / "annotations" / "y" / "1.xml").unlink()
    with pytest.warns(UserWarning, match=r"annotations has nothing of 1 of 6 images, as 1.jpg"):
        found = load(tmp_path, "voc", size=16, labels="folders")
    assert found.classes == ["x", "y"] and every(found.data, "y").sum(0).tolist() == [3, 3]
    assert (every(found.data, "classes") == -1).sum() == 1
    by_category = load(tmp_path, "voc", size=16)
    assert by_category.classes == ["a", "b"] and by_category.left_out == 1 and len(every(by_category.data, "x")) == 5


def test_classes_can_be_put_in_the_order_of_a_models_outputs(tmp_path):
    found = load(masks_folder(tmp_path, "aabbbb"), "masks", size=16, classes=["b", "c", "a"])
    assert found.classes == ["b", "c", "a"] and every(found.data, "y").sum(0).tolist() == [4, 0, 2]


def test_images_are_drawn_anew_for_another_seed_and_alike_for_the_same(tmp_path):
    folder = write_example(tmp_path, "coco", n=30)
    first, again, other = (load(folder, "coco", size=16, seed=seed).data["test_x"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_checksums_are_of_the_content_of_images_and_annotations_in_all_layouts(tmp_path):
    for annotations, make in (("voc", voc_folder), ("masks", masks_folder), ("coco", coco_folder)):
        folder = make(tmp_path / annotations)
        path = next((folder / "images").rglob("0.jpg"))
        before, content = checksums(folder, annotations), path.read_bytes()
        (folder / "notes.txt").write_text("not read")
        assert checksums(folder, annotations) == before
        path.write_bytes(content[:-3] + b"?" + content[-2:])
        assert checksums(folder, annotations)["images"] != before["images"], "an image of the same size"
        path.write_bytes(content)
        assert checksums(folder, annotations) == before


def test_checksums_notice_another_annotation_and_an_image_in_another_place(tmp_path):
    before = checksums(masks_folder(tmp_path), "masks")
    (tmp_path / "images" / "a" / "0.jpg").rename(tmp_path / "images" / "b" / "0.jpg")
    moved = checksums(tmp_path, "masks")
    assert moved["masks"] == before["masks"] and moved != before
    Image.fromarray(np.ones((10, 20), np.uint8)).save(tmp_path / "masks" / "a" / "0.png")
    assert checksums(tmp_path, "masks")["masks"] != before["masks"]


def no_images(folder):
    shutil.rmtree(voc_folder(folder) / "images")


def no_annotations(folder):
    shutil.rmtree(voc_folder(folder) / "annotations")


def no_image(folder):
    (voc_folder(folder) / "images" / "3.jpg").unlink()


def unreadable_image(folder):
    (voc_folder(folder) / "images" / "3.jpg").write_bytes(b"\xff\xd8 half of a photograph")


def unreadable_annotation(folder):
    (voc_folder(folder) / "annotations" / "3.xml").write_text("<annotation><object>")


def another_size(folder):
    photograph(voc_folder(folder) / "images" / "3.jpg", 30, 10)


def two_of_one_name(folder):
    photograph(voc_folder(folder) / "images" / "3.png")


def one_class(folder):
    voc_folder(folder, "aaaaaa")


def too_few(folder):
    voc_folder(folder, "ab")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_images, "images holds no images"),
        (no_annotations, "annotations holds no XML files"),
        (no_image, r"3.xml is an annotation without its image: .*images/3 is not there"),
        (unreadable_image, "3.jpg cannot be read"),
        (unreadable_annotation, "3.xml is no annotation of VOC's form"),
        (another_size, "3.jpg is 30×10 pixels, but its annotation is for 20×10"),
        (two_of_one_name, r"3.jpg and .*3.png have one name"),
        (one_class, r"the classes \['a'\]; there must be two or more"),
        (too_few, "2 images, too few to draw val and test from"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path, "voc", size=16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["images"].append({"id": 9, "file_name": "9.jpg"}),
            r"names the image '9.jpg', which is not in .*images: .*9.jpg is not there",
        ),
        (lambda c: c["annotations"][0].update(image_id=77), "annotation 0 is of image 77, which is not listed"),
        (lambda c: c["annotations"][0].update(category_id=5), "annotation 0 has the unknown class 5"),
        (lambda c: c["images"][2].update(width=33), "2.jpg is 20×10 pixels, but its annotation is for 33×10"),
        (lambda c: c.pop("categories"), "no file of COCO's instances"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 0 has neither a bbox nor a segmentation"),
    ],
)
def test_what_is_wrong_with_cocos_file_is_said(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        load(coco_folder(tmp_path, change), "coco", size=16)


def test_cocos_file_must_be_there_and_be_json(tmp_path):
    coco_folder(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(DataError, match=r"annotations.json cannot be read"):
        load(tmp_path, "coco", size=16)
    (tmp_path / "annotations.json").unlink()
    with pytest.raises(DataError, match=r"annotations.json cannot be read .*No such file"):
        load(tmp_path, "coco", size=16)


def test_what_is_wrong_with_masks_is_said(tmp_path):
    masks_folder(tmp_path)
    with pytest.raises(DataError, match="unknown class 'b'; there are a, c"):
        load(tmp_path, "masks", size=16, classes=["a", "c"])
    photograph(tmp_path / "images" / "loose.jpg")
    with pytest.raises(DataError, match=r"loose.jpg lies in no sub-folder"):
        load(tmp_path, "masks", size=16)
    (tmp_path / "images" / "loose.jpg").unlink()
    Image.fromarray(np.ones((20, 20), np.uint8)).save(tmp_path / "masks" / "a" / "0.png")
    with pytest.raises(DataError, match=r"0.jpg is 20×10 pixels, but its annotation is for 20×20"):
        load(tmp_path, "masks", size=16)
    (tmp_path / "masks" / "a" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0.png cannot be read"):
        load(tmp_path, "masks", size=16)
    (tmp_path / "masks" / "a" / "0.png").rename(tmp_path / "masks" / "a" / "99.png")
    with pytest.raises(DataError, match=r"99.png is an annotation without its image"):
        load(tmp_path, "masks", size=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(annotations="yolo"), "annotations must be one of coco, voc, masks, got 'yolo'"),
        (dict(annotations="masks", labels="annotations"), 'labels must be "folders"'),
        (dict(labels="names"), "labels must be one of annotations, folders"),
        (dict(size=4), "size must be at least 8, got 4"),
        (dict(val=0.6, test=0.5), "together below 1, got 0.6 and 0.5"),
    ],
)
def test_bad_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load(voc_folder(tmp_path), **{"annotations": "voc", "size": 16} | options)


def test_checksums_say_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="nowhere is no folder"):
        checksums(tmp_path / "nowhere", "voc")
    with pytest.raises(ValueError, match="annotations must be one of coco, voc, masks, got 'yolo'"):
        checksums(tmp_path, "yolo")
    (coco_folder(tmp_path) / "annotations.json").unlink()
    with pytest.raises(DataError, match=r"annotations.json cannot be read \(No such file"):
        checksums(tmp_path, "coco")


def test_a_path_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere is no folder"):
        load(tmp_path / "nowhere", "voc")
