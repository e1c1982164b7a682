"""Data sets: fetch, verify, build. `python -m data_prep --list` says what is there.

Each module of this package is one data set and holds NAME, TITLE, SIZE, LICENCE, SOURCE and

- `load(root=None) -> dict` of tensors, after verifying the files; a missing or corrupt file is an error
  that says what to do;
- `prepare(root=None) -> Path | None`, which gets the files if they are missing;
- `checksums(root=None) -> {file: sha256}` of the content of what `load` reads.

What they share: `images` and `annotations` read, `boxed` makes tensors of pictures with boxes, `archives` unpacks;
`folder` reads a folder of one's own.

Data lies in the folder named by the environment variable ATTRAIN_DATA, by default `data/` in the
repository.
"""

import gzip
import hashlib
import http.client
import importlib
import os
import shutil
import tempfile
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterable
from pathlib import Path

DATASETS = ("digits", "mnist", "fashion_mnist", "phantom_xray", "covid_xray", "cifar10_jpeg", "deeplift_authors")
DATASETS += ("booking_requests", "trec", "sst2", "waves", "ucr")  # text and time series
DATASETS += ("scenes", "shifted_backgrounds", "voc2007", "coco2014", "waterbirds")  # with boxes
DATASETS += ("curved_plane", "efficientnet_lite0")  # with its true boundary; weights
MADE_OF_OTHERS = ("scenes", "shifted_backgrounds")  # of the images of another of these
MADE_HERE = ("digits", "phantom_xray", "booking_requests", "waves", "curved_plane", *MADE_OF_OTHERS)  # nothing to get


class DataError(RuntimeError):
    """A data set is missing, incomplete or corrupt; the message says what to do about it."""


def data_root(root: str | Path | None = None) -> Path:
    """Folder of the data: `root`, or ATTRAIN_DATA, or `data/` beside this package."""
    return Path(root or os.environ.get("ATTRAIN_DATA") or Path(__file__).resolve().parents[1] / "data").absolute()


def dataset(name: str):
    """The module of a data set; ValueError with the names there are for an unknown one."""
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
    return importlib.import_module(f"data_prep.{name}")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(files: Iterable[Path], root: Path) -> str:
    """One sha256 of many files: of their places below `root` and their contents, in any order."""
    try:
        lines = [f"{path.relative_to(root).as_posix()}\n{sha256(path)}\n" for path in files]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read ({error.strerror})") from None
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def inside(folder: Path, name: str) -> Path:
    """The path of what a table names in a folder; DataError for a name that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not name.strip():
        raise DataError(f"{name!r} is no name of a file in {folder}, and nothing outside of it is opened")
    return folder / name


def own_sha256(*files: str) -> dict[str, str]:
    """sha256 of modules of this package, by name."""
    return {f"data_prep/{Path(file).name}": sha256(Path(file)) for file in files}


def verify(path: Path, expected: str, remedy: str) -> None:
    """Raise DataError unless the file is there with that sha256."""
    if not path.is_file():
        raise DataError(f"{path} is missing: {remedy}")
    actual = sha256(path)
    if actual != expected:
        raise DataError(f"{path} is corrupt (sha256 {actual[:12]}…, expected {expected[:12]}…): delete it and {remedy}")


def download(url: str, path: Path, expected: str | None, gunzip: bool = False) -> None:
    """Get a file, unless it is there with that sha256 already; DataError with the address if that fails.

    It is downloaded beside its place, verified, and only then renamed, so that an interrupted download leaves nothing
    that looks finished. Addresses must be https, but for those of this
    machine itself.

    Args:
        expected: the file's sha256; None if none is published: then its length must be the one that was announced, and
            the caller has to look at its content.
        gunzip: what is published is the file's .gz.
    """
    if expected and path.is_file() and sha256(path) == expected:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    temporary = Path(name)
    try:
        opener = urllib.request.build_opener(_SecureRedirects)
        with os.fdopen(handle, "wb") as file, opener.open(_secure(url), timeout=60) as answer:
            shutil.copyfileobj(gzip.GzipFile(fileobj=answer) if gunzip else answer, file)
            announced = answer.headers.get("Content-Length")
            if announced and not gunzip and file.tell() != int(announced):
                raise DataError(f"{file.tell()} bytes came of {announced}: try again")
        if expected:
            verify(temporary, expected, "try again")
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, EOFError, zlib.error, ValueError, http.client.HTTPException, DataError) as error:
        raise DataError(f"{url} could not be downloaded: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return super().redirect_request(req, fp, code, msg, headers, _secure(newurl))


def _secure(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    here = parts.scheme == "file" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
    if parts.scheme != "https" and not here:
        raise DataError(f"{url} is not https")
    return url
