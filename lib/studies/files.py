"""Where studies are read from and written to, and how: a reader sees a file whole or not at all.

Results are written to the folder named by the environment variable ATTRAIN_RESULTS, by default `results/`
in the repository; notebooks are read from ATTRAIN_NOTEBOOKS, by default `notebooks/` there.
"""

import fcntl
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = Path(os.environ.get("ATTRAIN_NOTEBOOKS") or ROOT / "notebooks").absolute()
SCHEMA = 1  # of a record


def results_root() -> Path:
    """Folder for run outputs: ATTRAIN_RESULTS, or `results/` in the repository."""
    return Path(os.environ.get("ATTRAIN_RESULTS") or ROOT / "results").absolute()


def check_writable(folder: Path) -> None:
    """Raise OSError with one clear line if files cannot be written to the folder (made if missing)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise type(error)(error.errno, f"cannot write to the output folder: {error.strerror}", str(folder)) from None


def scratch_folder() -> tempfile.TemporaryDirectory:
    """A folder for sockets; in /tmp where the usual place is too deep for a socket's path (104 characters)."""
    usual = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(prefix="attrain-", dir=usual if len(usual) < 70 else "/tmp")


@contextmanager
def atomic_write(path: Path):
    """A path to write to that takes the place of `path` when the block ends without an exception.

    A reader, another run or a kill at any moment sees the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def sole(path: Path):
    """Wait until no other process makes the file `path`. The lock ends with its holder, even if that is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with open(lock, "w") as file:
        with suppress(OSError):  # a file system without locks: each process then makes its own
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # one that waits for it finds the file, or makes it


def write_json(path: Path, value) -> None:
    """Write a value as JSON, at once and not in part; ValueError for NaN, which JSON does not have."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
