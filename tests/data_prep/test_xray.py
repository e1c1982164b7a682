"""Chest X-rays: the phantoms, and the real ones in the formats of their publishers, small, written here."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from data_prep import DataError, covid_xray, dataset, phantom_xray
from data_prep.__main__ import main
from data_prep.covid_xray import CLASSES, SPLITS

KEYS = {"x", "y", "mask", "has_mask", "patient", "source", "split"}


def split_of(data, name):
    return data["split"] == list(SPLITS).index(name)


# ---------------------------------------------------------------- phantoms


@pytest.fixture(scope="module")
def phantoms():
    return phantom_xray.load(size=48)


def test_phantoms_are_images_with_lungs_and_the_same_every_time(phantoms):
    again, other = phantom_xray.load(size=48), phantom_xray.load(size=48, seed=1)
    assert phantoms.keys() == KEYS
    assert all(torch.equal(phantoms[key], again[key]) for key in KEYS)
    assert not torch.equal(phantoms["x"], other["x"])
    n = len(phantoms["y"])
    assert phantoms["x"].shape == (n, 1, 48, 48) and phantoms["mask"].shape == (n, 48, 48)
    assert 0 <= phantoms["x"].min() and phantoms["x"].max() <= 1
    area = phantoms["mask"].float().mean((1, 2))
    assert area.min() > 0.1 and area.max() < 0.4


def test_phantom_lungs_are_two_and_dark(phantoms):
    x, mask = phantoms["x"][:, 0], phantoms["mask"]
    assert not mask[:, :, 23:25].any(), "nothing of the lungs in the middle"
    assert mask[:, :, :23].flatten(1).any(1).all() and mask[:, :, 25:].flatten(1).any(1).all()
    normal = phantoms["y"] == 0
    body = ~mask & (torch.linspace(-1, 1, 48).abs() < 0.5)[None, None, :]
    lungs, rest = ((x * where).sum((1, 2)) / where.sum((1, 2)) for where in (mask, body))
    assert (lungs < rest - 0.1)[normal].all()


def test_classes_and_hospitals_go_together_in_training_only(phantoms):
    for name, hospitals in phantom_xray.HOSPITALS.items():
        chosen = split_of(phantoms, name)
        pairs = set(zip(phantoms["y"][chosen].tolist(), phantoms["source"][chosen].tolist()))
        assert pairs == {(c, hospital) for c, hospital in enumerate(hospitals) if hospital is not None}
        assert chosen.sum() == 2 * phantom_xray.PATIENTS[name] * len(pairs)


def test_the_hospital_changes_nothing_on_the_lungs_and_the_class_nothing_outside_them():
    y, patient = torch.arange(3).repeat_interleave(4), torch.arange(12)

    def draw(y, hospital):
        return phantom_xray.draw(y, hospital, patient, 64, torch.Generator().manual_seed(0))

    one, mask = draw(y, torch.zeros(12, dtype=torch.long))
    for hospital in (1, 2, 3):
        other, same = draw(y, torch.full((12,), hospital))
        assert torch.equal(mask, same)
        assert ((one - other)[:, 0][mask]).abs().max() < 0.02 and ((one - other)[:, 0][~mask]).abs().max() > 0.5
    healthy, _ = draw(torch.zeros_like(y), torch.zeros(12, dtype=torch.long))
    change = (one - healthy)[:, 0].abs()
    assert (change[y == 0] == 0).all() and (change[y > 0].flatten(1).amax(1) > 0.05).all()
    far = torch.nn.functional.max_pool2d(mask[:, None].float(), 9, stride=1, padding=4)[:, 0] == 0
    assert change[far].max() < 0.01


def test_patients_of_phantoms_stay_in_one_split_and_have_two_images(phantoms):
    assert set(phantoms["patient"].bincount().tolist()) == {2}
    splits = pd.Series(phantoms["split"]).groupby(phantoms["patient"].numpy()).nunique()
    assert splits.max() == 1


def test_phantoms_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="size must be at least 32"):
        phantom_xray.load(size=16)


# ---------------------------------------------------------------- the publishers' formats


def picture(path, width, height, value=100, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width), value, np.uint16 if mode == "I;16" else np.uint8)
    pixels[0, 0] = 65535 if mode == "I;16" else value  # so that all 16 bits are in use
    Image.fromarray(pixels).convert(mode if mode != "I;16" else None).save(path)


COHEN = """patientid,offset,sex,age,finding,view,modality,date,location,folder,filename,license
1,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,2020,"Hospital, Berlin, Germany",images,a.b-1.jpg,CC BY
2,0,F,45,Pneumonia/Viral/COVID-19,AP Supine,X-ray,2020,"Rome, Italy",images,two.png,CC BY-NC-SA
3a,,F,,No Finding,PA,X-ray,,"Rome, Italy",images,three.jpeg,
4,,,,Pneumonia/Viral/COVID-19,L,X-ray,,Italy,images,lateral.jpg,
5,,,,Pneumonia/Viral/COVID-19,Axial,CT,,Italy,volumes,slices.nii,
6,,,,Pneumonia/Bacterial,PA,X-ray,,Spain,images,absent.jpg,
"""
DARWIN = {  # version 1, as the dataset was first published
    "dataset": "covid-19-chest-x-ray-dataset",
    "image": {"width": 400, "height": 200, "original_filename": "a.b-1.jpg", "filename": "7.jpg"},
    "annotations": [
        {"name": "Lung", "polygon": {"path": [{"x": x, "y": y} for x, y in ((0, 0), (199, 0), (199, 199), (0, 199))]}},
        {"name": "Viral Pneumonia", "tag": {}},
    ],
}


@pytest.fixture
def sources(tmp_path):
    """A data folder with everything that a person downloads, tiny."""
    folder = tmp_path / "cxr-sources"
    cohen = folder / "covid-chestxray-dataset"
    picture(cohen / "images" / "a.b-1.jpg", 400, 200, mode="RGB")
    picture(cohen / "images" / "two.png", 30, 20, 50 * 256, mode="I;16")
    picture(cohen / "images" / "three.jpeg", 40, 40)
    picture(cohen / "images" / "lateral.jpg", 40, 40)
    picture(cohen / "annotations" / "lungVAE-masks" / "two_mask.png", 30, 20, 1)
    (cohen / "metadata.csv").write_text(COHEN)
    (folder / "v7-lungs").mkdir()
    (folder / "v7-lungs" / "7.json").write_text(json.dumps(DARWIN))
    for kind, name in (("No_findings", "00000011_000"), ("Pneumonia", "00000022_001"), ("Pneumonia", "00000022_004")):
        picture(folder / "COVID-19" / "Dataset" / kind / f"{name}.png", 64, 64, mode="RGBA")
    for kind, name in (
        ("NORMAL", "IM-0115-0001"), ("NORMAL", "NORMAL2-IM-0033-0001-0002"),
        ("PNEUMONIA", "person1_virus_6"), ("PNEUMONIA", "person3_bacteria_10"),
    ):  # fmt: skip
        picture(folder / "chest_xray" / "train" / kind / f"{name}.jpeg", 300, 200)
    picture(folder / "chest_xray" / "test" / "NORMAL" / "IM-0115-0001.jpeg", 300, 200)
    return tmp_path


def test_the_publishers_files_become_images_masks_and_metadata(sources):
    folder = covid_xray.prepare(sources)
    table = pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False).set_index("name")
    assert list(table.reset_index().columns) == covid_xray.COLUMNS
    assert set(table.index) == {
        "cohen_a_b-1", "cohen_two", "cohen_three",
        "nih_00000011_000", "nih_00000022_001", "nih_00000022_004",
        "kermany_IM-0115-0001", "kermany_NORMAL2-IM-0033-0001-0002", "kermany_person1_virus_6",
        "kermany_person3_bacteria_10",
    }  # fmt: skip
    assert table["finding"].to_dict() == {
        "cohen_a_b-1": "COVID-19", "cohen_two": "COVID-19", "cohen_three": "No Finding",
        "nih_00000011_000": "No Finding", "nih_00000022_001": "Pneumonia", "nih_00000022_004": "Pneumonia",
        "kermany_IM-0115-0001": "No Finding", "kermany_NORMAL2-IM-0033-0001-0002": "No Finding",
        "kermany_person1_virus_6": "Pneumonia/Viral", "kermany_person3_bacteria_10": "Pneumonia/Bacterial",
    }  # fmt: skip
    assert table.loc["nih_00000022_004", "patient"] == "00000022"
    assert table.loc["kermany_NORMAL2-IM-0033-0001-0002", "patient"] == "NORMAL2-IM-0033-0001"
    assert table.loc["kermany_person1_virus_6", "patient"] == "person1"
    assert table["mask_from"][table["mask_from"] != ""].to_dict() == {
        "cohen_a_b-1": "v7 polygons",
        "cohen_two": "lungVAE",
    }
    with (
        Image.open(folder / "images" / "cohen_a_b-1.jpg") as image,
        Image.open(folder / "masks" / "cohen_a_b-1.png") as mask,
    ):
        assert image.size == mask.size == (256, 128) and image.mode == "L"
        lungs = np.asarray(mask)
    assert (lungs[:, :127] == 255).all() and (lungs[:, 129:] == 0).all(), "the polygon: the left half"
    with Image.open(folder / "images" / "cohen_two.jpg") as image:
        assert image.size == (30, 20) and abs(int(np.asarray(image).mean()) - 50) <= 2, "16 bits become 8"
    assert covid_xray.prepare(sources) == folder, "again: verified, not built"


def test_a_built_collection_loads_with_patients_kept_apart(sources):
    covid_xray.prepare(sources)
    data, table = covid_xray.load(sources, size=32), covid_xray.records(sources)
    assert data.keys() == KEYS and data["x"].shape == (9, 1, 32, 32), "bacterial pneumonia of children is left out"
    names = table["name"].tolist()
    where = {name: list(SPLITS)[int(split)] for name, split in zip(names, data["split"])}
    assert where["kermany_person1_virus_6"] == "external" and where["cohen_three"] == "swapped"
    assert where["cohen_two"] == "external", "Italy is one of the other countries"
    assert where["nih_00000022_001"] == where["nih_00000022_004"]
    wide = names.index("cohen_a_b-1")
    assert data["has_mask"].nonzero().flatten().tolist() == [wide, names.index("cohen_two")]
    assert data["mask"][wide, :, :15].all() and not data["mask"][wide, :, 17:].any(), "stretched to a square"
    assert [CLASSES[y] for y in data["y"][[wide, names.index("cohen_three")]]] == ["COVID-19", "normal"]


def test_version_2_of_the_polygon_format_is_read_too(tmp_path):
    square = [[{"x": x, "y": y} for x, y in ((2, 2), (5, 2), (5, 5), (2, 5))]]
    content = {
        "version": "2.0",
        "item": {"name": "x.png", "slots": [{"type": "image", "width": 10, "height": 8}]},
        "annotations": [{"name": "Lung", "polygon": {"paths": square}}, {"name": "COVID-19", "tag": {}}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    name, mask = covid_xray._darwin(tmp_path / "x.json")
    assert name == "x.png" and mask.size == (10, 8)
    assert (np.asarray(mask) > 0).sum() == 16 and np.asarray(mask)[2:6, 2:6].all()
    (tmp_path / "x.json").write_text(json.dumps(content | {"annotations": content["annotations"][1:]}))
    assert covid_xray._darwin(tmp_path / "x.json") == ("x.png", None)


@pytest.mark.parametrize("missing", ["covid-chestxray-dataset", "COVID-19", "chest_xray"])
def test_what_is_missing_is_named_with_what_to_download_and_where_to_put_it(sources, missing, capsys):
    shutil.rmtree(sources / "cxr-sources" / missing)
    assert main(["covid_xray", "--root", str(sources)]) == 1
    said = capsys.readouterr().err
    source = {"covid-chestxray-dataset": "cohen", "COVID-19": "nih", "chest_xray": "kermany"}[missing]
    assert f"no images of {source} in" in said
    assert str(sources / "cxr-sources") in said and "git clone" in said and "data.mendeley.com" in said
    assert sorted(path.name for path in sources.iterdir()) == ["cxr-sources"], "nothing half-built is left"


@pytest.mark.parametrize("damage", ["truncated image", "missing image", "other metadata", "missing mask"])
def test_a_damaged_collection_is_an_error_with_the_remedy(sources, damage):
    folder = covid_xray.prepare(sources)
    image, mask = folder / "images" / "cohen_two.jpg", folder / "masks" / "cohen_two.png"
    if damage == "truncated image":
        image.write_bytes(image.read_bytes()[:-20])
    elif damage == "other metadata":
        (folder / "metadata.csv").write_text("name\n")
    else:
        (image if damage == "missing image" else mask).unlink()
    with pytest.raises(DataError, match=r"is corrupt or incomplete.*delete .*python -m data_prep covid_xray"):
        covid_xray.load(sources)


def test_a_damaged_download_is_named_and_leaves_nothing(sources):
    file = sources / "cxr-sources" / "COVID-19" / "Dataset" / "Pneumonia" / "00000022_001.png"
    file.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"00000022_001.png cannot be read"):
        covid_xray.prepare(sources)
    assert sorted(path.name for path in sources.iterdir()) == ["cxr-sources"]


def test_a_patient_in_training_is_in_no_test_and_doubtful_findings_are_nowhere():
    def row(name, patient, finding, location):
        return {"name": name, "source": "cohen", "finding": finding, "patient": patient, "location": location}

    rows = [row(f"{p}-{i}", p, "COVID-19", "Berlin, Germany") for i, p in enumerate(map(str, range(40)))]
    rows += [row(f"{p}-n", f"{p}b", "No Finding", "Berlin, Germany") for p in map(str, range(40))]
    rows += [row(f"{p}-i", p, "COVID-19", "Rome, Italy") for p in map(str, range(40))]
    rows += [row("x", "99", "todo", ""), row("y", "98", "ARDS", "")]
    table = covid_xray._with_splits(pd.DataFrame(rows))
    train = set(table["group"][table["split"] == "train"])
    tests = table[table["split"] != "train"]
    assert 20 < len(train) < 40 and not train & set(tests["group"]) and len(tests) > 0
    assert not {"x", "y"} & set(table["name"])


def test_metadata_that_contradicts_itself_is_refused():
    row = {"name": "a", "source": "nih", "finding": "Pneumonia", "patient": "1", "location": ""}
    covid_xray._with_splits(pd.DataFrame([row, row]))
    with pytest.raises(DataError, match="different things of a"):
        covid_xray._with_splits(pd.DataFrame([row, row | {"finding": "No Finding"}]))


@pytest.mark.parametrize("size", [8, 300])
def test_a_size_out_of_range_is_named(size):
    with pytest.raises(ValueError, match=r"size must be in \[16, 256\]"):
        covid_xray.load("/nowhere", size=size)


# ---------------------------------------------------------------- the real collection


@pytest.fixture(scope="module")
def real():
    try:
        return covid_xray.load(size=32)
    except DataError as error:
        pytest.skip(f"needs the X-rays: {str(error).splitlines()[0]}")


def test_the_real_collection_has_its_known_parts(real):
    counts = {name: real["y"][split_of(real, name)].bincount(minlength=3).tolist() for name in SPLITS}
    assert counts == {
        "train": [382, 373, 191],
        "internal": [118, 127, 79],
        "external": [542, 282, 157],
        "swapped": [15, 77, 0],
    }
    assert real["has_mask"].sum() == 464 and (real["mask"].flatten(1).any(1) == real["has_mask"]).all()


def test_real_patients_of_training_are_in_no_test(real):
    train = set(real["patient"][split_of(real, "train")].tolist())
    assert not train & set(real["patient"][~split_of(real, "train")].tolist())


def test_both_collections_are_listed():
    assert dataset("covid_xray") is covid_xray and dataset("phantom_xray") is phantom_xray
