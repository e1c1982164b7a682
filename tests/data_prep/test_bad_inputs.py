"""The table of bad and odd inputs: each row is something that people's files hold, and what must happen.

READ: as if it were written plainly (the tensors equal those of the plain folder, or the row's check holds). SAID: read,
and a warning counts it. REFUSED: one DataError, of one line, that names the file. Nothing else: no error or warning of
another library, and nothing silent.
"""

import gzip
import io
import json
import re
import shutil
import tarfile
import threading
import unicodedata
import warnings
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_prep import DataError, archives, contents, covid_xray, download, folder, images, inside, ucr, waterbirds

READ, SAID, REFUSED = "read", "said", "refused"
N, WIDTH, HEIGHT = 6, 20, 10
SQUARE = [[2, 1, 8, 1, 8, 5, 2, 5]]
XML = "<annotation>{size}{objects}</annotation>"
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"


def happens(call):
    """What a call does, its message, and what it returns."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            result = call()
        except DataError as error:
            return REFUSED, str(error), None
    assert all(type(warning.message) is UserWarning for warning in said), "a warning of another library"
    return (SAID if said else READ), " ".join(str(warning.message) for warning in said), result


def check(call, outcome, text, equal=None):
    found, message, result = happens(call)
    assert found == outcome, message
    assert re.search(text, message) and "\n" not in message, message
    if equal is not None and result is not None:
        assert equal(result) if callable(equal) else same(result, equal)


def same(found, plain):
    a, b = found.data, plain.data
    return found.classes == plain.classes and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def photograph(path, width=WIDTH, height=HEIGHT, value=90, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[: height // 2, : width // 2] = 200
    Image.fromarray(pixels).save(path, **options)


def row(change, outcome, text="", equal=None, id=""):
    return pytest.param(change, outcome, text, equal, id=id)


# ---------------------------------------------------------------- COCO


def coco(place, change=lambda content: None):
    for i in range(N):
        photograph(place / "images" / f"{i}.png", value=90 + i)
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(N)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": (1, 7)[i % 2], "bbox": [2, 1, 6, 4], "segmentation": SQUARE}
            for i in range(N)
        ],
    }
    made = change(content)
    text = json.dumps(content) if made is None else made
    (place / "annotations.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return place


def third(**values):
    """Change annotation 3; `...` takes a key away."""

    def change(content):
        entry = content["annotations"][3] | values
        content["annotations"][3] = {key: value for key, value in entry.items() if value is not ...}

    return change


def every(key, **values):
    return lambda content: [entry.update(values) for entry in content[key]] and None


def image(i, **values):
    return lambda content: content["images"][i].update(values)


def category(**values):
    return lambda content: content["categories"].append(values)


def corners(content):
    for i, entry in enumerate(content["annotations"]):
        entry.update(bbox=[4 + i, 3, 16 + i % 3, 9], segmentation=[])


def unknown_objects(found):
    """One image's objects are not known, all others are as ever."""
    objects = torch.cat([found.data[f"{split}_objects"] for split in folder.SPLITS])
    return (objects == 255).flatten(1).all(1).sum() == 1 and (objects == 1).flatten(1).any(1).sum() == N - 1


def classes(*names):
    return lambda found: found.classes == [*names]


COCO = [
    row(lambda c: "\ufeff" + json.dumps(c), READ, id="byte order mark"),
    row(lambda c: json.dumps(c).encode("utf-16"), READ, id="UTF-16, as PowerShell writes it"),
    row(lambda c: json.dumps(c)[:-9], REFUSED, "annotations.json cannot be read as JSON", id="cut short"),
    row(lambda c: "", REFUSED, "annotations.json cannot be read as JSON", id="empty file"),
    row(lambda c: b"\xff\xfe\xfa", REFUSED, "cannot be read as JSON", id="bytes that are no text"),
    row(lambda c: "[" * 100_000, REFUSED, "cannot be read as JSON", id="nested without end"),
    row(lambda c: json.dumps(c["annotations"]), REFUSED, "it has no list 'images'", id="a list of results"),
    row(lambda c: "null", REFUSED, "it has no list 'images'", id="null"),
    row(lambda c: c.pop("categories") and None, REFUSED, "no list 'categories'", id="no categories"),
    row(lambda c: c.update(annotations={"0": {}}), REFUSED, "no list 'annotations'", id="annotations by id"),
    row(lambda c: c["annotations"].append(None), REFUSED, "no list 'annotations'", id="an annotation that is null"),
    row(lambda c: c["annotations"].append([1]), REFUSED, "no list 'annotations'", id="an annotation that is a list"),
    row(third(image_id="3"), REFUSED, "annotation 3 is of image '3', which is not listed", id="image id as text"),
    row(third(image_id=77), REFUSED, "annotation 3 is of image 77", id="unknown image"),
    row(third(image_id=[3]), REFUSED, r"annotation 3 is of image \[3\]", id="image id as list"),
    row(third(image_id=...), REFUSED, "annotation 3 has no 'image_id'", id="no image id"),
    row(third(category_id=0), REFUSED, "annotation 3 has the unknown class 0", id="unknown class"),
    row(third(category_id="7"), REFUSED, "annotation 3 has the unknown class '7'", id="class id as text"),
    row(third(category_id=None), REFUSED, "annotation 3 has no 'category_id'", id="class id null"),
    row(third(id=..., category_id=99), REFUSED, "annotation number 4 has the unknown class", id="no id, unknown class"),
    row(every("annotations", id=1), READ, id="all annotations of one id, which nothing needs"),
    row(every("annotations", iscrowd=0, area=24.0, extra={}), READ, id="more keys than needed"),
    row(third(bbox=...), READ, id="segmentation without bbox"),
    row(third(bbox=None), READ, id="bbox null"),
    row(third(bbox=[]), READ, id="bbox empty"),
    row(
        third(bbox=..., segmentation=...), REFUSED, "annotation 3 has neither a bbox nor", id="neither bbox nor outline"
    ),
    row(third(bbox=[2, 1, 6]), REFUSED, "annotation 3 has the bbox", id="three numbers"),
    row(third(bbox=[2, 1, 6, 4, 0.9]), REFUSED, "annotation 3 has the bbox", id="five numbers, a score"),
    row(third(bbox={"x": 2}), REFUSED, "annotation 3 has the bbox", id="bbox as object"),
    row(third(bbox=["2", "1.0", "6", "4"]), READ, id="numbers as text"),
    row(third(bbox=[2, 1, "six", 4]), REFUSED, "annotation 3 has the bbox", id="a word for a number"),
    row(third(bbox=[2, 1, float("nan"), 4]), REFUSED, "annotation 3 has the bbox", id="NaN"),
    row(third(bbox=[2, 1, float("inf"), 4]), REFUSED, "annotation 3 has the bbox", id="infinity"),
    row(third(bbox=[8, 5, -6, -4]), REFUSED, "annotation 3 has the bbox", id="negative width"),
    row(third(bbox=[True, 1, 6, 4]), REFUSED, "annotation 3 has the bbox", id="true for a number"),
    row(
        third(bbox=[100, 100, 9, 9], segmentation=[]),
        REFUSED,
        r"annotation 3 \(3.png\) lies wholly outside",
        id="wholly outside",
    ),
    row(
        third(bbox=[-9, -9, 3, 3], segmentation=[]),
        REFUSED,
        r"annotation 3 \(3.png\) lies wholly outside",
        id="wholly outside, negative",
    ),
    row(
        third(bbox=[10, 5, 20, 10], segmentation=[]),
        SAID,
        "1 boxes reach out of their images and are cut",
        len,
        id="cut at the edge",
    ),
    row(third(bbox=[19.5, 9.2, 1.1, 1.3], segmentation=[]), READ, equal=len, id="less than a pixel over the edge"),
    row(third(bbox=[3, 3, 0, 2]), READ, equal=len, id="no width: one pixel, as the docstring says"),
    row(
        third(bbox=[0.1, 0.1, 0.3, 0.4], segmentation=[]),
        REFUSED,
        "annotation 3 .* fractions of the image",
        id="one box in fractions",
    ),
    row(every("annotations", bbox=[0, 0, 1, 1]), REFUSED, "annotation 0 .* fractions", id="all boxes 0, 0, 1, 1"),
    row(corners, REFUSED, r"annotation 0 \(0.png\) has the bbox .*are these corners", id="xyxy in place of xywh"),
    row(third(segmentation=SQUARE[0]), READ, id="flat polygon"),
    row(third(segmentation=[[[2, 1], [8, 1], [8, 5], [2, 5]]]), READ, id="polygon of pairs"),
    row(third(segmentation=[[2, 1], [8, 1], [8, 5], [2, 5]]), READ, id="flat polygon of pairs"),
    row(third(segmentation=[[str(v) for v in SQUARE[0]]]), READ, id="polygon of texts"),
    row(third(segmentation=[*SQUARE, [], [3, 3], [4, 4, 5, 5]]), READ, id="parts that enclose nothing"),
    row(third(segmentation=[]), READ, equal=unknown_objects, id="no outline"),
    row(third(segmentation=None), READ, equal=unknown_objects, id="outline null"),
    row(third(segmentation=[[]]), READ, equal=unknown_objects, id="outline empty"),
    row(third(segmentation=[[3, 3, 9, 9]]), READ, equal=unknown_objects, id="outline of two points"),
    row(third(segmentation=[SQUARE[0][:-1]]), REFUSED, "annotation 3 .* 7 numbers", id="odd count"),
    row(third(segmentation=[[1, 2, 3, None, 5, 6]]), REFUSED, "annotation 3", id="null in a polygon"),
    row(third(segmentation=[[1, 2, "x", 4, 5, 6]]), REFUSED, "annotation 3", id="a word in a polygon"),
    row(
        third(segmentation=[[1, 2, float("nan"), 4, 5, 6]]),
        REFUSED,
        "annotation 3 .* not finite",
        id="NaN in a polygon",
    ),
    row(third(segmentation=[[[1, 2], [3, 4, 5], [6, 7]]]), REFUSED, "annotation 3", id="ragged polygon"),
    row(third(segmentation="polygon"), REFUSED, "annotation 3", id="a word for an outline"),
    row(third(segmentation=5), REFUSED, "annotation 3", id="a number for an outline"),
    row(
        third(segmentation=[[9, 7, 19, 7, 19, 9]]), REFUSED, "annotation 3 .* outside of its bbox", id="outline outside"
    ),
    row(
        third(segmentation=[[0.1, 0.1, 0.4, 0.1, 0.4, 0.5]], bbox=[9, 5, 6, 4]),
        REFUSED,
        "outside of its bbox",
        id="one in fractions",
    ),
    row(third(segmentation={"size": [10, 20], "counts": [200]}), READ, equal=unknown_objects, id="RLE of nothing"),
    row(third(segmentation={}), REFUSED, "annotation 3 has a segmentation that is none", id="outline an empty object"),
    row(third(segmentation=""), REFUSED, "annotation 3 has a segmentation that is none", id="outline an empty text"),
    row(third(image_id=True), REFUSED, "annotation 3 is of image True", id="image id true"),
    row(
        third(segmentation={"size": [4, 6], "counts": [0, 24]}),
        REFUSED,
        "annotation 3 has run lengths of 6×4",
        id="RLE size",
    ),
    row(
        third(segmentation={"size": [10, 20], "counts": [0, 24]}),
        REFUSED,
        "annotation 3 .*24 pixels",
        id="RLE too short",
    ),
    row(third(segmentation={"size": [10, 20], "counts": [-1, 201]}), REFUSED, "annotation 3", id="RLE negative"),
    row(third(segmentation={"size": [10, 20], "counts": "zz"}), REFUSED, "annotation 3", id="RLE damaged text"),
    row(third(segmentation={"size": [10, 20], "counts": ""}), REFUSED, "annotation 3", id="RLE empty text"),
    row(third(segmentation={"size": [10, 20], "counts": "日本"}), REFUSED, "annotation 3", id="RLE foreign text"),
    row(
        third(segmentation={"size": [10, 20], "counts": [float("inf")]}),
        REFUSED,
        "annotation 3 has a segmentation",
        id="RLE infinite",
    ),
    row(
        third(segmentation={"size": [200_000, 200_000], "counts": [40_000_000_000]}),
        REFUSED,
        "annotation 3 .* more than a picture may have",
        id="RLE that would fill the memory",
    ),
    row(third(segmentation=[[1e30, 2, 3, 4, 5, 6]]), REFUSED, "annotation 3 .* of no picture", id="polygon far away"),
    row(third(segmentation={"counts": [200]}), REFUSED, "annotation 3", id="RLE without size"),
    row(third(segmentation={"size": 10, "counts": [200]}), REFUSED, "annotation 3", id="RLE size a number"),
    row(third(segmentation={"size": [10, 20], "counts": None}), REFUSED, "annotation 3", id="RLE counts null"),
    row(
        third(segmentation={"size": [10, 20], "counts": [21, *[4, 6] * 5, 4, 125]}, bbox=...),
        READ,
        id="RLE without bbox",
    ),
    row(every("images", width=0, height=0), READ, id="size 0"),
    row(every("images", width=-1, height=-1), READ, id="size -1, as VIA writes it"),
    row(every("images", width="20", height="10.0"), READ, id="size as text"),
    row(image(2, width=None), READ, id="width null"),
    row(image(2, width=20.5), REFUSED, "image 2 has the size 20.5", id="half a pixel"),
    row(image(2, width="wide"), REFUSED, "image 2 has the size 'wide'", id="a word for a width"),
    row(image(2, width=33), REFUSED, "2.png is 20×10 pixels, but its annotation is for 33×10", id="another size"),
    row(image(2, id=1), REFUSED, "the image id 1 stands there twice", id="image id twice"),
    row(image(2, id=None), REFUSED, "image number 3 has no 'id'", id="image without id"),
    row(image(2, id={}), REFUSED, "is no id", id="image id an object"),
    row(
        image(2, file_name="1.png"),
        REFUSED,
        "'1.png' is the file_name of two, image 1 and image 2",
        id="file name twice",
    ),
    row(image(2, file_name="images/1.png"), REFUSED, "names .*1.png twice", id="one file under two names"),
    row(image(2, file_name=None), REFUSED, "image 2 has no 'file_name'", id="no file name"),
    row(image(2, file_name="9.png"), REFUSED, "names the image '9.png'.* is not there", id="missing image"),
    row(image(2, file_name="../outside.png"), REFUSED, "nothing outside of it is opened", id="file name ../"),
    row(image(2, file_name="/etc/passwd"), REFUSED, "nothing outside of it is opened", id="absolute file name"),
    row(image(2, file_name="images/2.png"), READ, id="file name with images/"),
    row(image(2, file_name=".\\images\\2.png"), READ, id="file name with .\\images"),
    row(image(2, file_name="images\\2.png"), READ, id="file name with backslash"),
    row(image(2, file_name="./2.png"), READ, id="file name with ./"),
    row(image(2, file_name=""), REFUSED, "image 2 has the file_name ''; it must be a name", id="empty file name"),
    row(image(2, file_name=["2.png"]), REFUSED, "image 2 has the file_name", id="file name a list"),
    row(category(id=9, name=""), REFUSED, "category 9 has the name ''", id="empty class name"),
    row(category(id=9, name={"en": "cow"}), REFUSED, "category 9 has the name", id="class name an object"),
    row(
        category(id=9, name="cat"),
        REFUSED,
        "'cat' is the name of two, category 1 and category 9",
        id="class name twice",
    ),
    row(category(id=7, name="cow"), REFUSED, "the category id 7 stands there twice", id="class id twice"),
    row(category(id=9), REFUSED, "category 9 has no 'name'", id="class without name"),
    row(category(name="cow"), REFUSED, "category number 3 has no 'id'", id="class without id"),
    row(category(id=9, name="cow"), READ, equal=classes("cat", "dog", "cow"), id="class without objects"),
    row(
        lambda c: (every("categories", supercategory="pets")(c), category(id=0, name="pets", supercategory="none")(c))[
            0
        ],
        READ,
        id="Roboflow's grouping category",
    ),
    row(every("categories", supercategory="cat"), READ, id="a class with objects that others are grouped by"),
    row(
        lambda c: [entry.update(name=3 + i) for i, entry in enumerate(c["categories"])] and None,
        READ,
        equal=classes("3", "4"),
        id="class names that are numbers",
    ),
    row(
        lambda c: c.update(annotations=[]),
        READ,
        equal=lambda f: f.data["train_y"].sum() == 0,
        id="no annotation at all",
    ),
    row(lambda c: c.update(images=[], annotations=[]), REFUSED, "0 images, too few", id="no image listed"),
    row(lambda c: c.update(categories=[], annotations=[]), REFUSED, "there must be two or more", id="no class listed"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The plain folder of each form, as read."""
    root = tmp_path_factory.mktemp("plain")
    made = {"coco": coco(root / "coco"), "voc": voc(root / "voc"), "masks": masks(root / "masks")}
    return {form: folder.load(place, form, size=20) for form, place in made.items()}


@pytest.mark.parametrize(("change", "outcome", "text", "equal"), COCO)
def test_coco(tmp_path, plain, change, outcome, text, equal):
    coco(tmp_path, change)
    check(lambda: folder.load(tmp_path, "coco", size=20), outcome, text, equal or plain["coco"])


# ---------------------------------------------------------------- VOC


def element(name="cat", edges=(3, 2, 8, 5), more=""):
    box = "".join(f"<{edge}>{v}</{edge}>" for edge, v in zip(("xmin", "ymin", "xmax", "ymax"), edges))
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc(place):
    for i in range(N):
        photograph(place / "images" / f"{i}.png", value=90 + i)
        (place / "annotations").mkdir(exist_ok=True)
        text = XML.format(size=SIZE, objects=element(("cat", "dog")[i % 2]))
        (place / "annotations" / f"{i}.xml").write_text(text)
    return place


def xml(objects=element(), size=SIZE, encoding="utf-8", head=""):
    """Image 2's file anew; it has a cat."""

    def change(place):
        text = head + XML.format(size=size, objects=objects)
        (place / "annotations" / "2.xml").write_bytes(text.encode(encoding))

    return change


def content(text):
    return lambda place: (place / "annotations" / "2.xml").write_bytes(text)


def rename(old, new):
    return lambda place: (place / old).rename(place / new)


def add(name, text=b"x"):
    def change(place):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(text)

    return change


def accents(place):
    (place / "images/2.png").rename(place / "images" / (unicodedata.normalize("NFD", "café") + ".png"))
    (place / "annotations/2.xml").rename(place / "annotations" / (unicodedata.normalize("NFC", "café") + ".xml"))


def accented_classes(place):
    for i, form in enumerate(("NFC", "NFD") * 2):
        text = XML.format(size=SIZE, objects=element(unicodedata.normalize(form, "café")))
        (place / "annotations" / f"{i}.xml").write_text(text)


def sized(width, height):
    return f"<size><width>{width}</width><height>{height}</height></size>"


def unlabelled(n):
    return lambda found: found.data["train_x"].shape[0] == 4 and sum(
        int((found.data[f"{split}_classes"] == -1).all(1).sum()) for split in folder.SPLITS
    ) == n  # fmt: skip


VOC = [
    row(xml(size=sized(0, 0)), READ, id="labelImg's size 0"),
    row(xml(size=sized("20.0", "10.0")), READ, id="size 20.0"),
    row(xml(size=""), READ, id="no size"),
    row(xml(size="<size/>"), READ, id="empty size"),
    row(xml(size=sized("", "")), REFUSED, "2.xml: <size> has the size", id="size without numbers"),
    row(xml(size=sized("20.5", 10)), REFUSED, "2.xml: <size> has the size", id="half a pixel"),
    row(xml(size=sized(10, 20)), REFUSED, "2.png is 20×10 pixels, but its annotation is for 10×20", id="sides swapped"),
    row(xml(element(edges=("3.0", "2.0", "8.0", "5.0"))), READ, id="edges 3.0"),
    row(xml(element(edges=(" 3", "2\n", "8", "5"))), READ, id="spaces about numbers"),
    row(xml(element(name=" cat ")), READ, id="spaces about names"),
    row(xml(element(more="<difficult>1</difficult><pose>Left</pose>")), READ, id="difficult"),
    row(xml(element(more="<difficult/>")), READ, id="difficult, empty"),
    row(xml(element(edges=("", 2, 8, 5))), REFUSED, r"2.xml: object 1 \(cat\) has a <bndbox>", id="edge missing"),
    row(xml(element(edges=("3,5", 2, 8, 5))), REFUSED, "2.xml: object 1", id="decimal comma"),
    row(xml(element(edges=("nan", 2, 8, 5))), REFUSED, "2.xml: object 1", id="NaN"),
    row(xml(element(edges=("1e999", 2, 8, 5))), REFUSED, "2.xml: object 1", id="infinity"),
    row(xml(element(edges=(8, 5, 3, 2))), REFUSED, "2.xml: object 1 .*inverted", id="inverted"),
    row(xml(element(edges=(90, 90, 99, 99))), REFUSED, "2.xml: object 1 .*wholly outside", id="wholly outside"),
    row(xml(element(edges=(-9, -9, -5, -5))), REFUSED, "2.xml: object 1 .*wholly outside", id="outside, negative"),
    row(xml(element(edges=(15, 5, 29, 19))), SAID, "1 boxes reach out", len, id="cut at the edge"),
    row(xml(element(edges=(0, 0, 20, 10))), READ, equal=len, id="counted from 0"),
    row(xml(element(edges=(0.1, 0.2, 0.4, 0.5))), REFUSED, "2.xml: object 1 .*fractions", id="in fractions"),
    row(xml(element(edges=(5, 5, 5, 5))), READ, equal=len, id="one pixel"),
    row(xml("<object><name>cat</name></object>"), REFUSED, r"2.xml: object 1 \(cat\) has no <bndbox>", id="no box"),
    row(
        xml("<object><name>cat</name><polygon><x1>1</x1></polygon></object>"),
        REFUSED,
        "2.xml: object 1 .* has no <bndbox>",
        id="a polygon alone",
    ),
    row(xml("<object><bndbox/></object>"), REFUSED, r"2.xml: object 1 .*has no <name>", id="no name"),
    row(xml(element(name="")), REFUSED, "2.xml: object 1 .*has no <name>", id="empty name"),
    row(xml(""), READ, equal=unlabelled(1), id="no object: an image without any"),
    row(content(b""), REFUSED, "2.xml is no annotation", id="empty file"),
    row(content(b"<annotation><object>"), REFUSED, "2.xml is no annotation", id="cut short"),
    row(content(b"<html><body>404</body></html>"), REFUSED, "2.xml is no annotation .*<html>", id="a web page"),
    row(content(b"{}"), REFUSED, "2.xml is no annotation", id="JSON"),
    row(content(b"\x00\x01"), REFUSED, "2.xml is no annotation", id="bytes"),
    row(
        content(b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'),
        REFUSED,
        "2.xml is no annotation",
        id="an entity that names another file",
    ),
    row(xml(head="\ufeff"), READ, id="byte order mark"),
    row(xml(encoding="utf-16", head='<?xml version="1.0" encoding="utf-16"?>'), READ, id="UTF-16"),
    row(xml(element("chât"), encoding="latin-1"), REFUSED, "2.xml is no annotation", id="latin-1 that is not declared"),
    row(xml(head='<?xml version="1.0" encoding="klingon"?>'), REFUSED, "2.xml is no annotation", id="unknown encoding"),
    row(rename("annotations/2.xml", "annotations/2.XML"), READ, id=".XML"),
    row(rename("images/2.png", "images/2.PNG"), READ, id=".PNG"),
    row(
        rename("images/2.png", "images/9.png"), REFUSED, "2.xml is an annotation without its image", id="renamed image"
    ),
    row(rename("images/2.png", "images/2.heic"), REFUSED, "2.heic is of a kind that is not read", id="HEIC"),
    row(rename("images/2.png", "images/2.DCM"), REFUSED, "2.DCM is of a kind that is not read", id="DICOM"),
    row(rename("images/2.png", "images/2.jpg"), READ, id="a PNG that is called .jpg"),
    row(accents, READ, equal=lambda found: found.classes == ["cat", "dog"], id="one name in two Unicode forms"),
    row(accented_classes, READ, equal=classes("café", "cat", "dog"), id="one class in two Unicode forms"),
    row(add("images/2.jpg"), REFUSED, "2.jpg and .*2.png have one name", id="two images of one name"),
    row(add("annotations/2.XML"), REFUSED, "have one name", id="two annotations of one name"),
    row(add("images/._2.png"), READ, id="a Mac's shadow file"),
    row(add("images/__MACOSX/2.png"), READ, id="a Mac's zip"),
    row(add("images/.ipynb_checkpoints/2.png"), READ, id="Jupyter's checkpoints"),
    row(add("annotations/.ipynb_checkpoints/2.xml"), READ, id="Jupyter's checkpoints of annotations"),
    row(add("images/@eaDir/2.png/thumb.jpg"), READ, id="a network drive's thumbnails"),
    row(add("images/2.png.bak"), READ, id="a backup"),
    row(add("images/Thumbs.db"), READ, id="Windows' thumbnails"),
    row(lambda p: shutil.rmtree(p / "annotations"), REFUSED, "holds no XML files", id="no annotations"),
    row(lambda p: shutil.rmtree(p / "images"), REFUSED, "images holds no images", id="no images"),
    row(lambda p: shutil.rmtree(p), REFUSED, "is no folder", id="no folder"),
]


@pytest.mark.parametrize(("change", "outcome", "text", "equal"), VOC)
def test_voc(tmp_path, plain, change, outcome, text, equal):
    change(voc(tmp_path / "own"))
    check(lambda: folder.load(tmp_path / "own", "voc", size=20), outcome, text, equal or plain["voc"])


# ---------------------------------------------------------------- pictures


def picture(make):
    """Image 2 of the VOC folder anew, by a function of its path, or as bytes."""

    def change(place):
        path = place / "images" / "2.png"
        path.write_bytes(make) if isinstance(make, bytes) else make(path)

    return change


def array(values, kind="PNG", **options):
    return picture(lambda path: Image.fromarray(values).save(path, kind, **options))


def cut(share):
    return picture(lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)]))


def bomb(path):
    Image.new("1", (20_000, 20_000)).save(path)


def pages(path):
    frames = [Image.new("L", (WIDTH, HEIGHT), shade) for shade in (0, 255)]
    frames[0].save(path, "TIFF", save_all=True, append_images=frames[1:])


def greys(found):
    """Whether image 2, a ramp, has all of its greys."""
    x = torch.cat([found.data[f"{split}_x"] for split in folder.SPLITS]).flatten(1).float()
    return ((x.std(1) > 60) & (x.amax(1) > 240) & (x.amin(1) < 15)).sum() == 1


RAMP = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
PICTURES = [
    row(picture(b""), REFUSED, "2.png cannot be read", id="empty"),
    row(picture(b"<html>404</html>"), REFUSED, "2.png cannot be read", id="a web page"),
    row(
        picture(b"version https://git-lfs.github.com/spec/v1\n"),
        REFUSED,
        "2.png cannot be read",
        id="a pointer of Git LFS",
    ),
    row(cut(0.3), REFUSED, "2.png cannot be read", id="cut short early"),
    row(cut(0.6), REFUSED, "2.png cannot be read", id="cut short late"),
    row(picture(bomb), REFUSED, "2.png cannot be read .*bomb", id="a decompression bomb"),
    row(picture(lambda p: (p.unlink(), p.mkdir())), REFUSED, "2.png cannot be read", id="a folder"),
    row(
        picture(lambda p: (p.unlink(), p.symlink_to("nowhere"))), REFUSED, "2.png cannot be read", id="a dangling link"
    ),
    row(picture(lambda p: p.unlink()), REFUSED, "without its image", id="missing"),
    row(array(RAMP), READ, equal=greys, id="16 bits"),
    row(array(RAMP // 16), READ, equal=greys, id="12 bits in 16"),
    row(array(RAMP // 256), READ, equal=greys, id="8 bits in 16"),
    row(array(RAMP.astype(np.int32), "TIFF"), READ, equal=greys, id="32 bits"),
    row(array((RAMP / 65535).astype(np.float32), "TIFF"), READ, equal=greys, id="fractions"),
    row(array((RAMP / 257).astype(np.float32), "TIFF"), REFUSED, "2.png has values from 0 to 255", id="floats to 255"),
    row(array(RAMP.astype(np.float32) - 1000, "TIFF"), REFUSED, "2.png has values from -1000", id="floats below 0"),
    row(array(np.full((10, 20), np.nan, np.float32), "TIFF"), REFUSED, "2.png has values from nan", id="NaN"),
    row(array(RAMP.astype(np.int32) - 1024, "TIFF"), REFUSED, "2.png has values from -1024", id="Hounsfield units"),
    row(array(np.zeros((10, 20), np.uint16)), READ, equal=len, id="black, 16 bits"),
    row(picture(pages), REFUSED, "2.png holds 2 pictures", id="two pages"),
    row(
        picture(
            lambda p: Image.new("L", (20, 10)).save(
                p, "GIF", save_all=True, append_images=[Image.new("L", (20, 10), 9)]
            )
        ),
        REFUSED,
        "2.png holds 2 pictures",
        id="an animation",
    ),
    row(array(np.full((10, 20, 4), (9, 200, 9, 0), np.uint8)), READ, equal=len, id="wholly transparent"),
]


@pytest.mark.parametrize(("change", "outcome", "text", "equal"), PICTURES)
def test_pictures(tmp_path, change, outcome, text, equal):
    change(voc(tmp_path))
    check(lambda: folder.load(tmp_path, "voc", size=20), outcome, text, equal)


# ---------------------------------------------------------------- masks


THERE = np.zeros((HEIGHT, WIDTH), np.uint8)
THERE[1:5, 2:8] = 1


def masks(place):
    for i in range(N):
        photograph(place / "images" / "ab"[i % 2] / f"{i}.png", value=90 + i)
        (place / "masks" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(THERE * 255).save(place / "masks" / "ab"[i % 2] / f"{i}.png")
    return place


def mask(values, name="2.png", kind="PNG", **options):
    """Image 2's mask anew, by its pixels."""

    def change(place):
        (place / "masks/a/2.png").unlink()
        Image.fromarray(values).save(place / "masks/a" / name, kind, **options)

    return change


def all_masks(values):
    def change(place):
        for path in (place / "masks").rglob("*.png"):
            Image.fromarray(values).save(path)

    return change


def turned(place):
    """A photograph that EXIF turns, and its mask, drawn on the pixels as stored."""
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    with Image.open(place / "images/a/2.png") as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(place / "images/a/2.png", exif=exif.tobytes())
    Image.fromarray(THERE * 255).transpose(Image.Transpose.ROTATE_90).save(place / "masks/a/2.png")


def of_mask_2(*expected):
    """Pixels of image 2 that are background, object, not known."""

    def right(found):
        counts = [
            tuple((objects == value).sum().item() for value in (0, 1, 255))
            for split in folder.SPLITS
            for objects in found.data[f"{split}_objects"]
        ]
        return expected in counts

    return right


BORDER = THERE.copy()
BORDER[5:6, 2:8] = 255  # VOC's void below the object
REMAINS = 255 * THERE
REMAINS[8:, 18:] = 3
EDGES = (255 * THERE).astype(np.uint8)
EDGES[5, 2:8], EDGES[6, 2:8] = 200, 100
ALPHA = np.stack([0 * THERE] * 3 + [255 * THERE], -1)
MASKS = [
    row(mask(THERE), READ, id="0 and 1"),
    row(mask(THERE.astype(bool)), READ, id="1 bit"),
    row(mask(THERE.astype(np.uint16) * 65535), READ, id="16 bits"),
    row(mask(np.stack([THERE * 255] * 3, -1)), READ, id="colour"),
    row(mask(np.stack([THERE * 255] * 3 + [0 * THERE + 255], -1)), READ, id="opaque"),
    row(mask(ALPHA), READ, id="in the alpha channel alone"),
    row(mask(ALPHA[..., 2:]), READ, id="in the alpha channel of grey"),
    row(mask(np.stack([0 * THERE + 255] * 3 + [255 * THERE], -1)), READ, id="white, cut out by alpha"),
    row(mask(THERE.astype(np.float32), "2.tif", "TIFF"), READ, id="fractions in a TIFF"),
    row(mask(THERE * 255, "2.bmp", "BMP"), READ, id="BMP"),
    row(mask(THERE * 255, "2.PNG"), READ, id=".PNG"),
    row(all_masks(BORDER), SAID, "6 masks have 255 beside labels", of_mask_2(340, 48, 12), id="VOC's void"),
    row(all_masks(REMAINS), SAID, "6 masks have greys", of_mask_2(352, 48, 0), id="remains of a JPEG"),
    row(mask(EDGES), SAID, "1 masks have greys", of_mask_2(340, 60, 0), id="smooth edges"),
    row(mask(0 * THERE), READ, equal=of_mask_2(400, 0, 0), id="nothing marked"),
    row(mask(THERE.astype(np.float32) * np.nan, "2.tif", "TIFF"), REFUSED, "2.tif is no mask", id="NaN"),
    row(mask(-THERE.astype(np.int32), "2.tif", "TIFF"), REFUSED, "2.tif is no mask", id="negative"),
    row(mask(THERE * 255, "2.jpg", "JPEG"), REFUSED, "2.jpg is a JPEG, which blurs", id="JPEG"),
    row(mask(THERE[:5] * 255), REFUSED, "2.png is 20×10 pixels, but its annotation is for 20×5", id="another size"),
    row(turned, READ, id="drawn on the stored pixels of a picture that EXIF turns"),
    row(add("masks/a/2.png", b"x"), REFUSED, "masks/a/2.png cannot be read", id="no picture"),
    row(add("masks/a/2.tif"), REFUSED, "2.png and .*2.tif have one name", id="two masks of one name"),
    row(add("masks/a/9.png"), REFUSED, "9.png is an annotation without its image", id="mask without image"),
    row(add("masks/a/._2.png"), READ, id="a Mac's shadow file"),
    row(lambda p: (p / "masks/a/2.png").unlink(), SAID, "nothing of 1 of 6 images, as 2.png", len, id="no mask"),
    row(rename("images/a/2.png", "images/2.png"), REFUSED, "without its image", id="image outside its class's folder"),
    row(lambda p: shutil.rmtree(p / "masks"), REFUSED, "masks holds no mask files", id="no masks"),
    row(
        lambda p: shutil.rmtree(p / "images" / "b") or shutil.rmtree(p / "masks" / "b"),
        REFUSED,
        "two or more",
        id="one class",
    ),
]


@pytest.mark.parametrize(("change", "outcome", "text", "equal"), MASKS)
def test_masks(tmp_path, plain, change, outcome, text, equal):
    change(masks(tmp_path))
    check(lambda: folder.load(tmp_path, "masks", size=20), outcome, text, equal or plain["masks"])


# ---------------------------------------------------------------- time series


TS = "#c\n@problemName A\n@univariate true\n@classLabel true 1 2\n@data\n1,2,3:1\n4,5,6:2\n"
SERIES = ([[1, 2, 3], [4, 5, 6]], [0, 1], ("1", "2"))


@pytest.mark.parametrize(
    ("text", "outcome", "message"),
    [
        pytest.param(TS, READ, "", id="plain"),
        pytest.param(TS.replace("\n", "\r\n"), READ, "", id="CRLF"),
        pytest.param(TS.replace("@data", "@DATA"), READ, "", id="@DATA"),
        pytest.param(TS.replace("@data", "@data \t"), READ, "", id="a space after @data"),
        pytest.param(TS.replace("@classLabel", "@CLASSLABEL"), READ, "", id="@CLASSLABEL"),
        pytest.param(TS.replace("true 1 2", "true\t1\t2"), READ, "", id="tabs"),
        pytest.param(TS.replace(",", ", ").replace(":", " : "), READ, "", id="spaces"),
        pytest.param(TS + "\n\n", READ, "", id="blank lines at the end"),
        pytest.param(TS.replace(":1\n", ":1\n\n"), READ, "", id="blank line between"),
        pytest.param(TS.replace(":1\n", ":1\n# c\n"), READ, "", id="a comment among the series"),
        pytest.param("\ufeff" + TS, READ, "", id="byte order mark"),
        pytest.param(TS.replace("#c", "#\xe9").encode("latin-1"), READ, "", id="latin-1 in a comment"),
        pytest.param(TS.strip(), READ, "", id="no line end"),
        pytest.param("", REFUSED, "a.ts must have a line `@classLabel", id="empty"),
        pytest.param(TS.replace("@data\n", ""), REFUSED, "a.ts must have", id="no @data"),
        pytest.param(TS.replace("@classLabel true 1 2\n", ""), REFUSED, "a.ts must have", id="no @classLabel"),
        pytest.param(TS.replace("true 1 2", "false"), REFUSED, "a.ts must have", id="no classes"),
        pytest.param(TS[: TS.index("1,2,3")], REFUSED, "a.ts holds no series", id="no series"),
        pytest.param(TS.replace("2,3", "?,3"), REFUSED, "a.ts, line 6", id="a gap"),
        pytest.param(TS.replace("2,3", "NaN,3"), REFUSED, "a.ts, line 6", id="NaN"),
        pytest.param(TS.replace("2,3", "inf,3"), REFUSED, "a.ts, line 6", id="infinity"),
        pytest.param(TS.replace("5,6", "5"), REFUSED, "a.ts, line 7", id="unequal lengths"),
        pytest.param(TS.replace(":2", ":3"), REFUSED, "a.ts, line 7", id="unknown class"),
        pytest.param(TS.replace(":2", ""), REFUSED, "a.ts, line 7", id="no class"),
        pytest.param(TS.replace("4,5,6", "4,5:6"), REFUSED, "a.ts, line 7", id="several variables"),
        pytest.param(TS.replace("4,5,6", "(0,4),(1,5)"), REFUSED, "a.ts, line 7", id="time stamps"),
        pytest.param(TS.replace("4,5,6", "4;5;6"), REFUSED, "a.ts, line 7", id="semicolons"),
        pytest.param(b"\x00\xff\x00", REFUSED, "a.ts must have", id="bytes"),
        pytest.param(None, REFUSED, "a.ts cannot be read", id="missing"),
    ],
)
def test_time_series(tmp_path, text, outcome, message):
    if text is not None:
        (tmp_path / "a.ts").write_bytes(text if isinstance(text, bytes) else text.encode())

    def right(found):
        return (found[0].tolist(), found[1].tolist(), found[2]) == SERIES

    check(lambda: ucr.parse(tmp_path / "a.ts"), outcome, message, right)


# ---------------------------------------------------------------- tables


def birds(root, change=lambda table: table, cub=lambda text: text, boxes=lambda text: text):
    place, names = root / "waterbirds", [f"001.A/b_{i}.jpg" for i in range(12)]
    for name in names:
        photograph(place / waterbirds.RELEASES[0] / name)
    table = pd.DataFrame(
        {"img_filename": names, "y": [0, 1] * 6, "split": [0] * 4 + [1] * 4 + [2] * 4, "place": [0, 1] * 6}
    )
    text = change(table)
    text = text if isinstance(text, str) else text.to_csv(index=False)
    (place / waterbirds.RELEASES[0] / "metadata.csv").write_text(text)
    (place / "CUB_200_2011").mkdir()
    (place / "CUB_200_2011" / "images.txt").write_text(cub("".join(f"{i + 1} {n}\n" for i, n in enumerate(names))))
    (place / "CUB_200_2011" / "bounding_boxes.txt").write_text(
        boxes("".join(f"{i + 1} 2.0 1.0 6.0 4.0\n" for i in range(12)))
    )


def put(column, value):
    def change(table):
        table = table.astype({column: object})
        table.loc[2, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("changes", "outcome", "message"),
    [
        pytest.param({}, READ, "", id="plain"),
        pytest.param({"cub": lambda text: text.replace("\n", "\r\n")}, READ, "", id="CRLF"),
        pytest.param({"change": lambda t: pd.concat([t, t[:1]])}, REFUSED, "001.A/b_0.jpg twice", id="a row twice"),
        pytest.param(
            {"cub": lambda text: text + "13 001.A/b_0.jpg\n"}, REFUSED, "001.A/b_0.jpg twice", id="a bird twice"
        ),
        pytest.param({"change": lambda t: t.drop(columns="place")}, REFUSED, "metadata.csv", id="a column lost"),
        pytest.param({"change": put("y", -1)}, REFUSED, "metadata.csv .*must be 0 or 1", id="classes -1 and 1"),
        pytest.param({"change": put("y", "water")}, REFUSED, "metadata.csv .*must be 0 or 1", id="classes by name"),
        pytest.param({"change": put("split", "train")}, REFUSED, "metadata.csv .*split 0, 1 or 2", id="splits by name"),
        pytest.param({"change": put("place", None)}, REFUSED, "metadata.csv .*must be 0 or 1", id="background missing"),
        pytest.param(
            {"change": put("img_filename", "001.A/zz.jpg")}, REFUSED, "no box for 001.A/zz.jpg", id="no CUB image"
        ),
        pytest.param({"change": lambda t: ""}, REFUSED, "metadata.csv", id="empty table"),
        pytest.param({"change": lambda t: '"'}, REFUSED, "metadata.csv", id="a table that is none"),
        pytest.param({"boxes": lambda text: text.replace("6.0", "six")}, REFUSED, "corrupt", id="a box of words"),
        pytest.param({"boxes": lambda text: text.replace("6.0", "nan")}, REFUSED, "no box for", id="a box of NaN"),
        pytest.param(
            {"boxes": lambda text: text.replace("2.0", "99.0")}, REFUSED, "wholly outside", id="a box outside"
        ),
        pytest.param(
            {"change": put("img_filename", "../x"), "cub": lambda text: text.replace("001.A/b_2.jpg", "../x")},
            REFUSED,
            "nothing outside of it is opened",
            id="../ in both tables",
        ),
    ],
)
def test_waterbirds(tmp_path, changes, outcome, message):
    birds(tmp_path, **changes)
    check(lambda: waterbirds.load(tmp_path, size=20), outcome, message, lambda data: len(data["train_x"]) == 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no file of Darwin's"),
        ("[]", "no file of Darwin's"),
        ("{}", "no file of Darwin's"),
        ('{"image": {"width": 9}}', "no file of Darwin's"),
        ('{"item": {"name": "a", "slots": []}, "annotations": []}', "no file of Darwin's"),
        ('{"image": {"filename": "a", "width": "x", "height": 1}, "annotations": []}', "no file of Darwin's"),
        (
            '{"image": {"filename": "a", "width": 9, "height": 9}, '
            '"annotations": [{"name": "Lung", "polygon": {"path": [{"x": 1}]}}]}',
            "no file of Darwin's",
        ),
    ],
    ids=["cut short", "a list", "empty", "no height", "no slot", "a word for a width", "a point without y"],
)
def test_lung_polygons(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    check(lambda: covid_xray._darwin(tmp_path / "a.json"), REFUSED, f"a.json is {message}")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", '"'], ids=["empty", "other columns", "no table"])
def test_tables_of_x_rays(tmp_path, text):
    (tmp_path / "cxr").mkdir()
    (tmp_path / "cxr" / "metadata.csv").write_text(text)
    check(lambda: covid_xray.records(tmp_path), REFUSED, "metadata.csv (cannot be read|lacks the columns)")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "", " "])
def test_a_name_that_leads_out_of_its_folder(tmp_path, name):
    check(lambda: inside(tmp_path, name), REFUSED, "nothing outside of it is opened")


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "..a", "a..b/c"])
def test_a_name_that_only_looks_so(tmp_path, name):
    check(lambda: inside(tmp_path, name), READ, "", lambda path: path == tmp_path / name)


# ---------------------------------------------------------------- archives


def tar(path, entries, mode="w:gz"):
    with tarfile.open(path, mode) as file:
        for name, text in entries.items():
            entry = tarfile.TarInfo(name)
            if isinstance(text, str):  # a link to that
                entry.type, entry.linkname, text = tarfile.SYMTYPE, text, b""
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text))


def zipped(path, entries):
    with zipfile.ZipFile(path, "w") as file:
        for name, text in entries.items():
            file.writestr(name, text)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


NOISE = np.random.default_rng(0).bytes(5000)
FILTERS = hasattr(tarfile, "data_filter")


@pytest.mark.parametrize(
    ("name", "make", "outcome", "message"),
    [
        pytest.param("a.tgz", lambda p: tar(p, {"set/x": NOISE}), READ, "", id="tar"),
        pytest.param("a.zip", lambda p: zipped(p, {"set/x": NOISE}), READ, "", id="zip"),
        pytest.param(
            "a.tgz", lambda p: tar(p, {"other/x": NOISE}), REFUSED, "a.tgz does not hold set", id="another set"
        ),
        pytest.param("a.tgz", lambda p: p.write_bytes(b""), REFUSED, "a.tgz cannot be unpacked", id="empty"),
        pytest.param("a.tgz", lambda p: p.write_bytes(b"<html>"), REFUSED, "a.tgz cannot be unpacked", id="a web page"),
        pytest.param(
            "a.tgz",
            lambda p: (tar(p, {"set/x": NOISE}), p.write_bytes(p.read_bytes()[:2000])),
            REFUSED,
            "a.tgz cannot be unpacked",
            id="cut short",
        ),
        pytest.param(
            "a.zip",
            lambda p: (zipped(p, {"set/x": NOISE}), p.write_bytes(p.read_bytes()[:2000])),
            REFUSED,
            "a.zip cannot be unpacked",
            id="zip cut short",
        ),
        pytest.param(
            "a.zip",
            lambda p: (zipped(p, {"set/x": NOISE}), flipped(p)),
            REFUSED,
            "a.zip cannot be",
            id="zip with a flipped byte",
        ),
        pytest.param(
            "a.tgz", lambda p: tar(p, {"set/x": NOISE, "../out": b"x"}), REFUSED, "a.tgz", id="tar that leads out"
        ),
        pytest.param(
            "a.tgz", lambda p: tar(p, {"set/x": NOISE, "set/l": "/etc/passwd"}), REFUSED, "a.tgz", id="a link out"
        ),
        pytest.param("a.zip", lambda p: zipped(p, {"set/x": NOISE, "../out": b"x"}), READ, "", id="zip that leads out"),
        pytest.param("a.rar", lambda p: p.write_bytes(NOISE), REFUSED, "a.rar cannot be unpacked", id="unknown kind"),
    ],
)
@pytest.mark.parametrize(
    "filters",
    [
        pytest.param(True, marks=pytest.mark.skipif(not FILTERS, reason="this Python's tarfile has no filters")),
        pytest.param(False, id="Python before 3.11.4", marks=pytest.mark.filterwarnings("ignore:Python 3.14")),
    ],
)
def test_archives(tmp_path, monkeypatch, filters, name, make, outcome, message):
    if FILTERS and not filters:
        monkeypatch.delattr(tarfile, "data_filter")
    make(tmp_path / name)
    place = tmp_path / "data" / "set"
    place.parent.mkdir()
    check(lambda: archives.unpack([tmp_path / name], "set", place), outcome, message)
    assert [path.name for path in place.parent.iterdir()] == (["set"] if outcome == READ else [])
    assert not (tmp_path / "out").exists() and not (tmp_path.parent / "out").exists()


def test_a_second_unpacking_replaces_whole_files_and_leaves_others(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "x").write_bytes(b"cut")
    (tmp_path / "set" / "own").write_bytes(b"mine")
    tar(tmp_path / "a.tgz", {"set/x": NOISE})
    archives.unpack([tmp_path / "a.tgz"], "set", tmp_path / "set")
    assert (tmp_path / "set" / "x").read_bytes() == NOISE and (tmp_path / "set" / "own").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("damage", "outcome"),
    [
        pytest.param(lambda content: content, READ, id="whole"),
        pytest.param(lambda content: content[:-4000], REFUSED, id="cut short"),
        pytest.param(lambda content: content[:-1], REFUSED, id="cut short by a byte"),
        pytest.param(lambda content: content[:2000] + b"????" + content[2004:], REFUSED, id="overwritten"),
        pytest.param(lambda content: content[:-8] + b"????" + content[-4:], REFUSED, id="another checksum at its end"),
        pytest.param(lambda content: b"<html>", REFUSED, id="a web page"),
    ],
)
def test_an_archive_without_a_published_checksum_is_read_to_its_end(tmp_path, damage, outcome):
    """Also one that lies there already, as a killed download of another program leaves it."""
    tar(tmp_path / "whole.tgz", {"set/x": NOISE})
    content = damage((tmp_path / "whole.tgz").read_bytes())
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a.tgz").write_bytes(content)
    url = (tmp_path / "from" / "a.tgz").as_uri()
    check(lambda: archives.get(url, tmp_path / "to", None, "try again"), outcome, "" if outcome == READ else "damaged")
    assert [path.name for path in (tmp_path / "to").iterdir()] == (["a.tgz"] if outcome == READ else [])
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.tgz").write_bytes(content)
    (tmp_path / "from" / "a.tgz").write_bytes((tmp_path / "whole.tgz").read_bytes())
    found = archives.get(url, tmp_path / "there", None, "try again")
    assert gzip.decompress(found.read_bytes()) == gzip.decompress((tmp_path / "whole.tgz").read_bytes())


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://example.org/a", "example.org/a", "", "https://[x/a"])
def test_an_address_that_is_not_https(tmp_path, url):
    check(lambda: download(url, tmp_path / "a", None), REFUSED, "could not be downloaded: ")
    assert not list(tmp_path.iterdir())


class Short(BaseHTTPRequestHandler):
    """Announces more than comes, or sends elsewhere."""

    def do_GET(self):
        self.send_response(302 if self.path == "/elsewhere" else 200)
        self.send_header("Location", "http://example.org/a")
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"50 bytes, and no more" if self.path != "/whole" else bytes(100))

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("path", "outcome", "message"),
    [
        ("whole", READ, ""),
        ("short", REFUSED, "21 bytes came of 100"),
        ("elsewhere", REFUSED, "example.org/a is not https"),
    ],
)
def test_a_download_that_breaks_off_or_is_sent_elsewhere(tmp_path, path, outcome, message):
    with ThreadingHTTPServer(("127.0.0.1", 0), Short) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{http.server_port}/{path}"
        check(lambda: download(url, tmp_path / "a", None), outcome, message)
        http.shutdown()
    assert [file.name for file in tmp_path.iterdir()] == (["a"] if outcome == READ else [])


def test_every_address_of_the_package_is_https():
    sources = Path(images.__file__).parent.glob("*.py")
    assert not [line for path in sources for line in path.read_text("utf-8").splitlines() if "http://" in line]


def test_a_checksum_of_many_files_is_of_names_and_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"bc")
    (tmp_path / "b").write_bytes(b"")
    first = contents(tmp_path.iterdir(), tmp_path)
    assert first == contents(sorted(tmp_path.iterdir(), reverse=True), tmp_path)
    (tmp_path / "a").write_bytes(b"b")
    (tmp_path / "b").write_bytes(b"c")
    assert contents(tmp_path.iterdir(), tmp_path) != first


def test_the_table_is_long_and_nothing_in_it_is_there_twice():
    rows = [case.id for table in (COCO, VOC, PICTURES, MASKS) for case in table]
    assert len(rows) > 200
    for table in (COCO, VOC, PICTURES, MASKS):
        assert len({case.id for case in table}) == len(table)
