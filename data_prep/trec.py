"""TREC-6: questions, each with the kind of answer that it asks for (Li, Roth 2002), as Kim (2014) split them."""

from pathlib import Path

from torch import Tensor

from data_prep import data_root, sentences

NAME = "trec"
TITLE = "5,952 questions in six classes, by the kind of answer"
SIZE = "0.3 MB"
LICENCE = "MIT (the collection's)"
SOURCE = "Li, Roth 2002; github.com/harvardnlp/sent-conv-torch"
CLASSES = ("description", "entity", "abbreviation", "person", "place", "number")
FILES = {
    "TREC.train.all": "c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e",
    "TREC.test.all": "92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566",
}
REMEDY = "run `python -m data_prep trec`, or set ATTRAIN_DATA to a folder that holds text/TREC.train.all"


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the files; returns their sha256."""
    return sentences.checksums(root, FILES, REMEDY)


def prepare(root: str | Path | None = None, url: str = sentences.URL) -> Path:
    """Download what is missing or corrupt; returns the folder."""
    return sentences.prepare(root, FILES, url)


def load(root: str | Path | None = None, length: int | None = None) -> dict[str, Tensor]:
    """Word numbers, 0 where a sentence has ended and 1 for unknown words, and labels.

    Args:
        length: words of a sentence that are kept; None: as many as the longest of the training part has, 37.

    Returns:
        train_x (5452, T), train_y, test_x (500, T), test_y.
    """
    return sentences.tensors(_parts(root), length)


def words(root: str | Path | None = None) -> list[str]:
    """The word of each number."""
    return sentences.vocabulary(_parts(root)["train"])


def _parts(root) -> dict[str, sentences.Labelled]:
    checksums(root)
    folder = data_root(root) / "text"
    return {part: sentences.read(folder / f"TREC.{part}.all", "latin-1") for part in ("train", "test")}
