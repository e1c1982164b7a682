"""Where studies are read from and written to, and how: a reader sees a file whole or not at all.

Results are written to the folder named by the environment variable ATTRAIN_RESULTS, by default `results/`
in the repository; notebooks are read from ATTRAIN_NOTEBOOKS, by default `notebooks/` there.
"""

import fcntl
import json
import os
import platform
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = Path(os.environ.get("ATTRAIN_NOTEBOOKS") or ROOT / "notebooks").absolute()
SCHEMA = 2  # of a record
SCRATCH = "attrain-"  # begins the names of folders in the temporary folder
NOTE = "note: "  # begins a line on a notebook's stderr that who runs it without looking should see


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


@contextmanager
def scratch_folder():
    """A folder for what a kernel puts aside, its sockets too; removed at the end, or by the next run after a kill.

    Its lock lies beside it, is there first and goes last: whatever is killed when, it is found again.
    """
    remove_scratch()
    with _held_lock() as lock:
        (folder := lock.with_suffix("")).mkdir(mode=0o700)
        try:
            yield str(folder)
        finally:
            with suppress(OSError):  # a dying kernel writes into it: then it is the next run's
                _remove(lock)


@contextmanager
def _held_lock():
    """A new lock in the place for scratch folders, held; a remover that finds it between two lines takes it away."""
    held = False
    while not held:
        handle, name = tempfile.mkstemp(prefix=SCRATCH, suffix=".lock", dir=_scratch())
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if not (held := Path(name).exists()):
            os.close(handle)
    try:
        yield Path(name)
    finally:
        os.close(handle)


def remove_scratch() -> None:
    """Remove the scratch folders of processes that were killed: those whose lock nobody holds."""
    for lock in _scratch().glob(f"{SCRATCH}*.lock"):
        with suppress(OSError), open(lock, "rb") as file:  # gone, or held
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock)


def _remove(lock: Path) -> None:
    if (folder := lock.with_suffix("")).exists():
        shutil.rmtree(folder)
    lock.unlink()


def _scratch() -> Path:
    """Where they lie: in /tmp where the usual place is too deep for a socket's path (104 characters)."""
    usual = tempfile.gettempdir()
    return Path(usual if len(usual) < 70 else "/tmp")


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
def sole(path: Path, waiting: str = ""):
    """Let one process at a time make the file, or work in the folder, `path`; the others wait for it.

    Args:
        path: what is locked, by a hidden file beside it, which holds the holder's process id. The lock ends with its
            holder, even if that is killed.
        waiting: what to print if another process is at it; who that is, and how to end it, is added.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    with suppress(OSError, NotImplementedError):  # a file system without locks: each process then works alone
        try:
            lock.acquire(blocking=not waiting)
        except Timeout:
            print(f"{waiting} ({_holder(file)})", flush=True)
            lock.acquire()
        file.write_text(f"{os.getpid()} {platform.node()}")
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # one that waits for it makes it anew
        lock.release()


def _holder(file: Path) -> str:
    """Who holds a lock, and how to end it, as after its terminal or `make` was killed and it was not."""
    with suppress(OSError, ValueError):
        number, machine = file.read_text().split(" ", 1)
        where = f" on {machine}" if machine != platform.node() else ""
        return f"process {number}{where}; to end it: kill {number}, or at once kill -9 {number}"
    return "an unknown process"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file at once and not in part."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:  # that of a full disk does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_text(path: Path, text: str) -> None:
    """Write a text, line ends as they are, at once and not in part."""
    write_bytes(path, text.encode())


def write_json(path: Path, value) -> None:
    """Write a value as JSON, at once and not in part; ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
