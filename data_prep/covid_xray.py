"""Real chest X-rays of three sources, in which class and source are confounded. Not for diagnosis.

COVID-19 comes from one collection (many hospitals), normal lungs and pneumonia from one American hospital, so a
classifier can win by the look of the source: burnt-in letters, borders, black bars, cables. `load` splits the
images by patient for the protocol of `notebooks/isnet/covid_xray`; `SPLITS` says how.

The folder `cxr` holds images/NAME.jpg (grey, longest side 256), masks/NAME.png (lungs, of some images) and
metadata.csv. `python -m data_prep covid_xray` builds it from what the publishers give; without their files it says
what to download and where to put it.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from data_prep import DataError, data_root, images, inside, sha256

NAME = "covid_xray"
TITLE = "chest X-rays of three sources with lung masks"
SIZE = "38 MB (downloads 3 GB)"
LICENCE = "per image: CC BY, CC BY-NC-SA, Apache 2.0, NIH with attribution"
SOURCE = "ieee8023/covid-chestxray-dataset, v7labs/covid-19-xray-dataset, muhammedtalo/COVID-19 (NIH), Kermany et al."
CLASSES = ("normal", "pneumonia", "COVID-19")
SOURCES = ("nih", "cohen", "kermany")
SPLITS = {
    "train": "nih (normal, pneumonia) and cohen's COVID-19 of two thirds of the countries",
    "internal": "other patients of the same hospitals and countries, one in four",
    "external": "kermany (children; normal, viral pneumonia) and cohen's COVID-19 of the other countries",
    "swapped": "cohen without COVID-19: the look of the training's COVID-19 on patients who do not have it",
}
COLUMNS = "name source finding patient view location license mask_from sex age date".split()
KEPT = "view location license sex age date".split()  # of cohen's columns, and these are needed too:
COHEN = ("filename", "modality", "patientid", "finding", *KEPT)
EDGE = 256  # longest side of the kept images
# sha256 of the collection that our records are from; one that was built here has its own in sha256.json.
KNOWN = {
    "cxr/metadata.csv": "05d2f8d4a0893a8441eb7d95a7b9e53c2ee7de0cbcb5061f79a77285753b5070",
    "cxr/images": "ff18c3051c0f9fef693a3dae6532994319c4537e3f9e646c10169c2032e72edf",
    "cxr/masks": "05f6673b153b9a5e40d3dba0fa95f0d406342663345bde27cd24f665860c43b3",
}
SOURCES_FOLDER = "cxr-sources"
HOW = """put these folders into {folder} and run `python -m data_prep covid_xray` again:
  covid-chestxray-dataset/  git clone https://github.com/ieee8023/covid-chestxray-dataset
                            (images/, metadata.csv, annotations/)
  v7-lungs/                 lung polygons, one Darwin JSON file an image (pip install darwin-py; darwin dataset pull
                            v7-labs/covid-19-chest-x-ray-dataset:covid-only); may be left out
  COVID-19/                 git clone https://github.com/muhammedtalo/COVID-19
                            (NIH's images: Dataset/No_findings, Dataset/Pneumonia)
  chest_xray/               https://data.mendeley.com/datasets/rscbjbr9sj/2, ChestXRay2017.zip unpacked (train/, test/)
Or set ATTRAIN_DATA to a folder that holds cxr/."""


# ---------------------------------------------------------------- what is there


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the metadata, the images and the masks; returns their sha256 (a folder's: of names and sha256)."""
    folder = data_root(root) / "cxr"
    if not (folder / "metadata.csv").is_file():
        raise DataError(f"{folder / 'metadata.csv'} is missing: {_how(root)}")
    expected, actual = KNOWN | _built(folder / "sha256.json"), _digests(folder)
    for name, digest in expected.items():
        if actual.get(name) != digest:
            raise DataError(
                f"{folder.parent / name} is corrupt or incomplete (sha256 {actual.get(name, 'none')[:12]}…, "
                f"expected {digest[:12]}…): delete {folder} and {_how(root)}"
            )
    return actual


def _built(file: Path) -> dict[str, str]:
    """The sha256 of a collection that was built here, as `prepare` noted them."""
    if not file.is_file():
        return {}
    try:
        return {str(name): str(digest) for name, digest in json.loads(file.read_bytes()).items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file} is corrupt ({error}): delete {file.parent} and {_how(file.parents[1])}") from None


def records(root: str | Path | None = None) -> pd.DataFrame:
    """metadata.csv without repeated rows, with the columns "label", "country", "group" and "split".

    "label" indexes `CLASSES`; "group" is the patient, in a form that never runs over two splits of `SPLITS`;
    images that belong to none, as of other diseases or of children with bacterial pneumonia, are left out.
    """
    return _with_splits(_table(data_root(root) / "cxr" / "metadata.csv", COLUMNS))


def _table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as a table ({error})") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{file} lacks the columns {', '.join(missing)}")
    return table


def load(root: str | Path | None = None, size: int = 64) -> dict[str, Tensor]:
    """The images of all splits, after verifying the files.

    An image is stretched to a square, as usual in the field. That puts a little of the source into the shape of the
    lungs; black bars would put it outside them, but tell it much more clearly.

    Args:
        size: edge of the images, 16 to 256.

    Returns:
        x (N, 1, size, size) in [0, 1]; y (N,), index into `CLASSES`; mask (N, size, size) bool, the lungs, where
        `has_mask` (N,) bool, else all False; `patient` (N,), one number for each patient; `source` (N,), index into
        `SOURCES`; `split` (N,), index into `SPLITS`.
    """
    if not 16 <= size <= EDGE:
        raise ValueError(f"size must be in [16, {EDGE}], got {size}")
    checksums(root)
    folder, table = data_root(root) / "cxr", records(root)
    pixels = np.stack([_square(inside(folder / "images", f"{name}.jpg"), size) for name in table["name"]])
    masks = np.zeros(pixels.shape, bool)
    has_mask = (table["mask_from"] != "").to_numpy()
    for i in has_mask.nonzero()[0]:
        masks[i] = _square(folder / "masks" / f"{table['name'].iloc[i]}.png", size) > 127
    return {
        "x": torch.from_numpy(pixels)[:, None].float() / 255,
        "y": torch.tensor(table["label"].to_numpy()),
        "mask": torch.from_numpy(masks),
        "has_mask": torch.tensor(has_mask),
        "patient": torch.tensor(table.groupby(["source", "group"]).ngroup().to_numpy()),
        "source": torch.tensor([SOURCES.index(s) for s in table["source"]]),
        "split": torch.tensor([list(SPLITS).index(s) for s in table["split"]]),
    }


def _with_splits(table: pd.DataFrame) -> pd.DataFrame:
    table = table.drop_duplicates()
    repeated = table["name"][table["name"].duplicated()].unique()
    if len(repeated):
        raise DataError(f"metadata.csv says different things of {', '.join(repeated[:5])}: {HOW.splitlines()[0]}")
    table = table.assign(
        label=table["finding"].map(_label),
        country=table["location"].map(_country),
        group=table["patient"].str.replace(r"(?<=\d)[a-z]$", "", regex=True),  # 311a and 311b: one publication
    )
    table = table[table["label"] >= 0]
    table = table.assign(split=[_split(row) for row in table.itertuples()])
    # A patient of cohen's with images in several countries, or before and after the disease, stays out of the tests.
    key = table["source"] + ":" + table["group"]
    trained = set(key[table["split"] == "train"])
    table = table[(table["split"] != "") & ((table["split"] == "train") | ~key.isin(trained))]
    return table.sort_values("name").reset_index(drop=True)


def _label(finding: str) -> int:
    """Index into `CLASSES`, or -1: not said, or a syndrome whose cause is open."""
    if "COVID-19" in finding:
        return 2
    if finding == "No Finding":
        return 0
    return -1 if finding in ("", "todo", "Unknown", "ARDS", "Tuberculosis") else 1


def _country(location: str) -> str:
    country = location.strip().rpartition(",")[2].strip()
    return {"Hong Kong": "China"}.get(country, country)


def _split(row) -> str:
    if row.source == "kermany":
        return "external" if row.finding in ("No Finding", "Pneumonia/Viral") else ""
    if row.source == "cohen" and row.label != 2:
        return "swapped"
    if row.source == "cohen" and row.country and _hash(row.country) % 3 == 0:
        return "external"
    return "internal" if _hash(f"{row.source}:{row.group}") % 4 == 0 else "train"


def _hash(text: str) -> int:
    """The same number for a text everywhere and always, so that a split depends on nothing else."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def _square(path: Path, size: int) -> np.ndarray:
    """(size, size) uint8."""
    return np.asarray(images.grey(path).resize((size, size), Image.Resampling.BOX))


def _shrink(image: Image.Image, edge: int) -> Image.Image:
    scale = edge / max(image.size)
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)


def _digests(folder: Path) -> dict[str, str]:
    digests = {"cxr/metadata.csv": sha256(folder / "metadata.csv")}
    for part in ("images", "masks"):
        files = sorted(path for path in (folder / part).glob("*") if path.is_file())
        text = "".join(f"{path.name} {sha256(path)}\n" for path in files)
        digests[f"cxr/{part}"] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def _how(root) -> str:
    return HOW.format(folder=data_root(root) / SOURCES_FOLDER)


# ---------------------------------------------------------------- building it from the publishers' files


def prepare(root: str | Path | None = None) -> Path:
    """The folder `cxr`, verified, or built from the publishers' files in `cxr-sources`.

    It is built beside its place and renamed when it is whole. Kermany's collection is taken whole; the one our
    records are from holds 1,124 of its images.

    Raises:
        DataError: files are missing or damaged; the message says what to download and where to put it.
    """
    folder, sources = data_root(root) / "cxr", data_root(root) / SOURCES_FOLDER
    if (folder / "metadata.csv").is_file():
        checksums(root)
        return folder
    found = [*_cohen(sources), *_nih(sources), *_kermany(sources)]
    missing = sorted(set(SOURCES) - {row["source"] for row, *_ in found})
    if missing:
        raise DataError(f"no images of {', '.join(missing)} in {sources}: {_how(root)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".cxr-", dir=folder.parent))
    try:
        _write(temporary, found)
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    checksums(root)
    return folder


def _write(folder: Path, found: list[tuple[dict, Path, Image.Image | None]]) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for row, path, mask in tqdm(found, desc="images"):
        image = images.grey(path)
        small = _shrink(image, EDGE) if max(image.size) > EDGE else image
        small.save(folder / "images" / f"{row['name']}.jpg", quality=90)
        if mask is not None:
            mask.resize(small.size, Image.Resampling.NEAREST).save(folder / "masks" / f"{row['name']}.png")
    table = pd.DataFrame([row for row, *_ in found], columns=COLUMNS).fillna("")
    table.to_csv(folder / "metadata.csv", index=False)
    (folder / "sha256.json").write_text(json.dumps(_digests(folder), indent=1) + "\n")


def _cohen(sources: Path):
    """Frontal X-rays of covid-chestxray-dataset, with v7's polygons or else lungVAE's masks."""
    base = sources / "covid-chestxray-dataset"
    if not (base / "metadata.csv").is_file():
        return
    polygons = {_stem(name): mask for name, mask in map(_darwin, sorted((sources / "v7-lungs").rglob("*.json")))}
    table = _table(base / "metadata.csv", COHEN)
    frontal = table[(table["modality"] == "X-ray") & table["view"].isin(["PA", "AP", "AP Supine", "AP Erect"])]
    for row in frontal.drop_duplicates("filename").to_dict("records"):
        path = inside(base / "images", row["filename"])
        if not path.is_file():
            continue  # metadata.csv names images of other folders too
        lungs, said = polygons.get(_stem(row["filename"])), "v7 polygons"
        drawn = base / "annotations" / "lungVAE-masks" / f"{path.stem}_mask.png"
        if lungs is None and drawn.is_file():
            lungs, said = Image.fromarray(255 * images.mask(images.labels(drawn))), "lungVAE"
        kept = {key: row[key] for key in KEPT}
        kept |= {"name": f"cohen_{_stem(row['filename'])}", "source": "cohen", "patient": row["patientid"]}
        kept |= {"finding": row["finding"].rpartition("/")[2], "mask_from": said if lungs is not None else ""}
        yield kept, path, lungs


def _darwin(path: Path) -> tuple[str, Image.Image | None]:
    """Name of the original image and its lungs, of a Darwin JSON file (version 1 or 2); None without lungs."""
    try:
        content = json.loads(path.read_bytes())
        if "image" in content:  # version 1
            size, name = content["image"], content["image"].get("original_filename") or content["image"]["filename"]
        else:
            size, name = content["item"]["slots"][0], content["item"]["name"]
        mask = Image.new("L", (int(size["width"]), int(size["height"])))
        lungs = [a["polygon"] for a in content["annotations"] if a["name"].lower() == "lung" and "polygon" in a]
        for polygon in lungs:
            for outline in polygon.get("paths") or [polygon["path"]]:
                ImageDraw.Draw(mask).polygon([(point["x"], point["y"]) for point in outline], fill=255)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is no file of Darwin's annotations ({type(error).__name__}: {error})") from None
    return name, mask if lungs else None


def _nih(sources: Path):
    for folder, finding in (("No_findings", "No Finding"), ("Pneumonia", "Pneumonia")):
        for path in sorted((sources / "COVID-19" / "Dataset" / folder).glob("*.png")):
            if re.fullmatch(r"\d{8}_\d{3}", path.stem):
                row = {"source": "nih", "finding": finding, "patient": path.stem[:8], "name": f"nih_{path.stem}"}
                row |= {"location": "NIH Clinical Center, USA", "license": "NIH: free use with attribution"}
                yield row, path, None


def _kermany(sources: Path):
    findings = {"bacteria": "Pneumonia/Bacterial", "virus": "Pneumonia/Viral"}
    place = "Guangzhou Women and Children's Medical Center, China (children)"
    seen = set()
    for path in sorted((sources / "chest_xray").glob("*/*/*.jpeg")):
        kind = next((finding for word, finding in findings.items() if f"_{word}_" in path.stem), "No Finding")
        patient = path.stem.split("_")[0] if kind != "No Finding" else path.stem.rpartition("-")[0]
        if path.stem not in seen and path.parent.name in ("NORMAL", "PNEUMONIA"):
            seen.add(path.stem)
            row = {"source": "kermany", "finding": kind, "patient": patient, "name": f"kermany_{path.stem}"}
            yield row | {"view": "AP", "location": place, "license": "CC BY 4.0"}, path, None


def _stem(filename: str) -> str:
    """A file's name without its ending, as the name of a file of ours."""
    return re.sub(r"[^\w-]", "_", Path(filename).stem)
