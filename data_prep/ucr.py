"""Fifteen data sets of the UCR archive: univariate time series of equal length, in the archive's .ts files.

The archive itself (timeseriesclassification.com, cs.ucr.edu/~eamonn/time_series_data_2018) comes in one piece; these
sets lie one by one in the repositories of tslearn (BSD-2) and aeon (BSD-3), and are downloaded from there.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from data_prep import DataError, data_root, download, verify

NAME = "ucr"
TITLE = "fifteen sets of time series of the UCR archive"
SIZE = "11 MB"
LICENCE = "the archive's: free, to be cited"
SOURCE = "Dau et al. 2018 (UCR archive); github.com/tslearn-team/tslearn, github.com/aeon-toolkit/aeon"
REMEDY = "run `python -m data_prep ucr`, or set ATTRAIN_DATA to a folder that holds ucr/<set>_TRAIN.ts and _TEST.ts"
TSLEARN = (
    "https://raw.githubusercontent.com/tslearn-team/tslearn/46586963d332c908ca4a4dc9457e231bb275e703/docs/datasets/"
)
AEON = (
    "https://raw.githubusercontent.com/aeon-toolkit/aeon/a101ddc8b35a65441609b45c9bcce5aeafa0c131/aeon/datasets/data/"
)
# set -> (where <set>/<set>_TRAIN.ts and _TEST.ts are published, their sha256)
SETS = {
    "ACSF1": (
        AEON,
        "0646b90dc4843e02baed6b2ba345c5601a4991b6796565489cef1b2d92a7537b",
        "93e8aaeb44a10af181d24a156e60da7021193cd990ca28f263fccf3b905bfebf",
    ),
    "ArrowHead": (
        AEON,
        "a83c470aaf611a5f5284377cce27a5fc9f6292bc3d110257b0fd4905ced5ee72",
        "5417dab42626d41df5e435bb22458c2df40dfad4bcd3b59559bbe72e20e84904",
    ),
    "Beef": (
        TSLEARN,
        "ba418361b1b3d28f4c3ec971546294678bece32ce985421df2ca7d2559914c59",
        "691597afc2a930c81ba2d011e0632e758ec64fbe3edb51000135ddc220ffca19",
    ),
    "Car": (
        TSLEARN,
        "b30e4084b0aef0db714447671baed25798b33e84fab78c7021de546d02472fed",
        "7ed7fe3b6732e842d03870b143a332b43afabf2592fc181d32b4f554d3efc71e",
    ),
    "Coffee": (
        TSLEARN,
        "8895cbfd605adfa65b155b9ff81beb81c238ca4151abd4e964538c9c5fedc1ec",
        "914a553a055b913859a4e0d80aa7fb080166b33e06cdbcb4f1e5ed80f10417e6",
    ),
    "ECG200": (
        TSLEARN,
        "6b855dbcbae2d968937c2416d22bdc2dc74be90d5ce6345f56950fa7e754b3fe",
        "526d18e133ea51ac13dc528fa2bb13f63b4f93473bc329f0fb8a03d4ec92c235",
    ),
    "FaceFour": (
        TSLEARN,
        "5f02a142d03bdc1482819c39f96c100af981d406d62be2a9a208d11060aa59fd",
        "1626e83a59757dbf318ee91d4263f0b966886b0641e7c337caa01293c4258939",
    ),
    "GunPoint": (
        TSLEARN,
        "f842401779fd9800d247d8b33121a1a4643710a19b24917dbdd9a060ca8630d5",
        "79332750788a6227b325b96bd0d70130c8eb707b9731f8d7dec62b7a7d36017e",
    ),
    "ItalyPowerDemand": (
        AEON,
        "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c",
        "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144",
    ),
    "Lightning2": (
        TSLEARN,
        "e52c127f3c83d98325e4c6c29d39df72e244633996ca1a5c75e8e36fe1f7ad46",
        "0e68d9d11b9b2000d4e16bbc3064a5a98be12a23cf1f38e26b073d2488fd3a87",
    ),
    "Lightning7": (
        TSLEARN,
        "87a13f8e3af3d8cff169bc27ee632ef8b66173dd57b5fc8784e3ed8e5943e3ee",
        "b0f7feaa0f2602e3b639e00ccbfafcc9d523bc5e7aaa3440bd5c7190e6c1d285",
    ),
    "OSULeaf": (
        AEON,
        "86b9d6e860414ffd26cebc62fff84ffb37fa588ef3e5bf79e4094a437c36ddfc",
        "6c549dd354f9e42d5985fa5fab75321ca9acefc7873457e71467fc8a31f107ce",
    ),
    "OliveOil": (
        TSLEARN,
        "6103dcc8dd0d4f02a54eaf6257ecf4cf4c646e12ff6a74706f25c53b905577a9",
        "5d0d35cbfa8fc190b4f672b48284a09a06a62066405fef999e5c83b6786c0135",
    ),
    "Plane": (
        TSLEARN,
        "75f51b8698b3594dd7b3735db528398d0888dc519f5dfa70c5113c783ca8762f",
        "63cb3549529f3f64f0b60bf9d4f4a36f87783de9fd7e3ba7152849a4a19e0410",
    ),
    "SyntheticControl": (
        TSLEARN,
        "cacc277a961ec777f3387d0d51f6c944a624882f3cd8df84ad82d0041848a1ea",
        "c6ea3033d689f4a120f17958da8d23de35fe33a9a2bcaa4857be5138cbe31cc0",
    ),
}


def checksums(root: str | Path | None = None, names: Iterable[str] = tuple(SETS)) -> dict[str, str]:
    """Verify the files of these sets, by default of all; returns their sha256."""
    found = {f"ucr/{file}": expected for name in names for file, _, expected in _files(name)}
    for file, expected in found.items():
        verify(data_root(root) / file, expected, REMEDY)
    return found


def prepare(root: str | Path | None = None) -> Path:
    """Download what is missing or corrupt of all sets; returns the folder."""
    for name in SETS:
        for file, url, expected in _files(name):
            download(url, data_root(root) / "ucr" / file, expected)
    return data_root(root) / "ucr"


def load(root: str | Path | None = None, name: str = "SyntheticControl") -> dict[str, Tensor]:
    """One set, each series with mean 0 and standard deviation 1: train_x (N, 1, L), train_y (N,), test_x, test_y.

    Labels are numbered in the order in which the file lists them.

    Args:
        name: one of `SETS`.
    """
    checksums(root, [name])
    data = {}
    for part in ("train", "test"):
        x, data[f"{part}_y"], _ = parse(data_root(root) / "ucr" / f"{name}_{part.upper()}.ts")
        data[f"{part}_x"] = standardised(x)[:, None]
    return data


def parse(path: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """A .ts file of univariate series of equal length: values (N, L), labels (N,), and the classes' names.

    After `@data` a line is `value,value,…:label`; before it `@classLabel true …` lists the classes. Lines that begin
    with `#` are comments; small and capital letters, spaces, tabs and blank lines make no difference.

    Raises:
        DataError: what the file lacks, or which line is not of that form.
    """
    lines = _lines(path)
    start = next((k for k, (_, line) in enumerate(lines) if line.lower() == "@data"), None)
    header = [line[1:].split() for _, line in lines[:start] if line.startswith("@") and line[1:].strip()]
    classes = next((tuple(values[1:]) for key, *values in header if key.lower() == "classlabel"), ())
    if start is None or not classes:
        raise DataError(f"{path} must have a line `@classLabel true …` with the classes, and a line `@data`")
    rows, labels = [], []
    for number, line in lines[start + 1 :]:
        values, _, label = line.rpartition(":")
        try:
            rows.append(torch.tensor([float(value) for value in values.split(",")]))
            labels.append(classes.index(label.strip()))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: a univariate series without gaps, `value,value,…:label`, is expected ({error})"
            ) from None
        if len(rows[-1]) != len(rows[0]) or not rows[-1].isfinite().all():
            raise DataError(
                f"{path}, line {number}: all series must have the same length and finite values, got {len(rows[-1])} "
                f"values after {len(rows[0])}"
            )
    if not rows:
        raise DataError(f"{path} holds no series")
    return torch.stack(rows), torch.tensor(labels), classes


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are neither blank nor comments, with their numbers."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error})") from None
    text = content.decode("utf-8-sig", "replace")  # comments are in all sorts of encodings; numbers are not
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    return [(i, line) for i, line in lines if line and not line.startswith("#")]


def standardised(x: Tensor) -> Tensor:
    """Series (..., L) less their means and over their standard deviations; constant ones become zero."""
    x = x - x.mean(-1, keepdim=True)
    return x / x.std(-1, correction=0, keepdim=True).clamp(min=1e-8)


def _files(name: str) -> list[tuple[str, str, str]]:
    """(file, its address, sha256) of a set's two parts."""
    if name not in SETS:
        raise ValueError(f"unknown UCR set {name!r}; there are {', '.join(SETS)}")
    url, *sums = SETS[name]
    files = [f"{name}_{part}.ts" for part in ("TRAIN", "TEST")]
    return [(file, f"{url}{name}/{file}", expected) for file, expected in zip(files, sums)]
