"""Digests (sha256): of the code that results come from, and of what is kept, so that damage to it is seen.

    results/seeds/<experiment>/<seed>-<fingerprint>.seed    begins with a line, the sha256 of its name and of the rest
    record.json                                             "digest" is the sha256 of the rest, "figures" has theirs

They tell accidents (a flipped bit, half a copy, another file's content), and are no signature.
"""

import ast
import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from studies.files import ROOT, write_bytes

# Of the kit: what does not change what a seed finds.
SHOWS_OR_RUNS = (
    "batch bench claim_tables figures findings needs outline pages pairs pictures records report run verdicts".split()
)


def sha256(content: bytes) -> str:
    """The digest in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- of code


@lru_cache(1024)
def code(source: str) -> str:
    """What a Python source does, as text: without comments, docstrings and layout; the source if it is no plain Python.

    Example:
        >>> code('''def one():  # the first
        ...     "One."
        ...     return 1''') == code("def one(): return 1")
        True
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell with a magic command
        return source
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_text(statement)]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    """A text that stands alone, as docstrings do, and does nothing."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def code_digest(without: Sequence[str] = ()) -> str:
    """sha256 of the code that results come from, by what it does: the library, the data code and the kit.

    Args:
        without: modules and packages of the kit to leave out: `SHOWS_OR_RUNS` for what a seed depends on.
    """
    kit = ROOT / "lib/studies"
    left_out = {*without, *(f"{name}.py" for name in without)}
    sources = [file for folder in ("lib/attrain", "data_prep") for file in (ROOT / folder).rglob("*.py")]
    sources += [file for file in kit.rglob("*.py") if file.relative_to(kit).parts[0] not in left_out]
    digest = hashlib.sha256()
    for file in sorted(sources):
        digest.update(f"{file.relative_to(ROOT)}\n{code(file.read_text('utf-8'))}\n".encode())
    return digest.hexdigest()


# ---------------------------------------------------------------- of a seed's file


def write_sealed(file: Path, content: bytes) -> None:
    """Write a file that `read_sealed` knows as whole and its own, at once and not in part."""
    write_bytes(file, _seal(file, content) + b"\n" + content)


def read_sealed(file: Path) -> bytes:
    """What `write_sealed` wrote; ValueError if the file is damaged, cut off, renamed or something else wrote it."""
    seal, _, content = file.read_bytes().partition(b"\n")
    if seal != _seal(file, content):
        raise ValueError(f"{file} is not as it was written")
    return content


def _seal(file: Path, content: bytes) -> bytes:
    """With the name, so that another seed's file in its place is seen."""
    return sha256(file.name.encode() + b"\n" + content).encode()


# ---------------------------------------------------------------- of a record


def record_digest(record: dict) -> str:
    """sha256 of a record's values, but for its digest, however it is laid out in its file."""
    values = {name: value for name, value in record.items() if name != "digest"}
    return sha256(json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())


def figure_is_whole(record: dict, folder: Path, name: str) -> bool:
    """Is the figure beside the record, as it was written? Records of schema 1 only name their figures."""
    file = folder / "figures" / f"{name}.png"
    return file.is_file() and (record["schema"] == 1 or sha256(file.read_bytes()) == record["figures"][name])
