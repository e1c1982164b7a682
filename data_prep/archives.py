"""Archives of publishers: downloaded whole, verified, and unpacked whole or not at all."""

import gzip
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data_prep import DataError, download, sha256

DAMAGED = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, RuntimeError)  # the last: encrypted


def get(url: str | Sequence[str], folder: Path, expected: str | None, remedy: str) -> Path:
    """Download an archive, from the first address that answers, unless it is there, whole.

    Args:
        url: one address or several.
        folder: where the archive goes, with the address's last part as its name.
        expected: its sha256; None for a .gz of which none is published: it is read to its end, where a checksum of its
            content stands.
        remedy: what to do if it cannot be had.
    """
    reasons = []
    for address in [url] if isinstance(url, str) else url:
        path = folder / address.rpartition("/")[2]
        try:
            if not (path.is_file() and _is_whole(path, expected)):
                download(address, path, expected)
            if _is_whole(path, expected):
                return path
            path.unlink()
            reasons.append(f"{address}: what came is damaged")
        except DataError as error:
            reasons.append(str(error))
    raise DataError(f"{path.name} could not be downloaded ({'; '.join(reasons)}): {remedy}")


def _is_whole(path: Path, expected: str | None) -> bool:
    if expected:
        return sha256(path) == expected
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
        return True
    except DAMAGED:
        return False


def _extract(archive: Path, folder: Path) -> None:
    """All of an archive; never anything outside the folder."""
    if archive.suffix == ".zip":
        shutil.unpack_archive(archive, folder)
        return
    with tarfile.open(archive) as file:
        if hasattr(tarfile, "data_filter"):
            file.extractall(folder, filter="data")
            return
        # Python before 3.11.4 has no filter: plain files and folders below this one, or nothing.
        for member in file.getmembers():
            below = (folder / member.name).resolve().is_relative_to(folder.resolve())
            if not (below and (member.isfile() or member.isdir())):
                raise tarfile.TarError(f"{member.name!r} is not a file or folder below the archive's own")
        file.extractall(folder)


def unpack(archives: Sequence[Path], member: str, place: Path) -> None:
    """Unpack archives together and move one folder or file of them to `place`, whole or not at all.

    If `place` is a folder already, each of its files is replaced.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".unpack-", dir=place.parent))
    try:
        for archive in archives:
            _extract(archive, temporary)
        if not (temporary / member).exists():
            raise DataError(f"{archives[-1]} does not hold {member}: delete it and try again")
        if place.is_dir():
            shutil.copytree(temporary / member, place, dirs_exist_ok=True, copy_function=os.replace)
        else:
            (temporary / member).rename(place)
    except DAMAGED as error:
        if isinstance(error, DataError):
            raise
        names = " or ".join(str(archive) for archive in archives)
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{names} cannot be unpacked ({reason}): delete it and try again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
