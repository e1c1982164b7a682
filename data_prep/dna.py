"""Simulated DNA of DeepLIFT's section 4.2 (Shrikumar et al. 2017): sequences with none, one or both of two motifs.

A sequence is one-hot, (4, L), in the order A, C, G, T; a motif's matrix is (4, width) in that order.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

BACKGROUND = (0.3, 0.2, 0.2, 0.3)  # the paper's frequencies of A, C, G, T; 40 % GC
# ENCODE's motifs (Kheradpour, Kellis 2014): probabilities of A, C, G, T, place by place.
_GATA_DISC1 = torch.tensor([
    [0.322751, 0.185185, 0.359788, 0.132275], [0.137566, 0.476190, 0.322751, 0.063492],
    [0.666667, 0.100529, 0.000000, 0.232804], [0.000000, 0.000000, 1.000000, 0.000000],
    [1.000000, 0.000000, 0.000000, 0.000000], [0.000000, 0.000000, 0.000000, 1.000000],
    [0.878307, 0.000000, 0.000000, 0.121693], [0.973545, 0.026455, 0.000000, 0.000000],
    [0.000000, 0.052910, 0.947090, 0.000000], [0.243386, 0.248677, 0.507937, 0.000000],
]).T  # fmt: skip
_TAL1_KNOWN1 = torch.tensor([
    [0.23, 0.35, 0.28, 0.14], [0.15, 0.30, 0.23, 0.32], [0.14, 0.23, 0.44, 0.19], [0.66, 0.09, 0.14, 0.11],
    [0.61, 0.30, 0.03, 0.06], [0.00, 1.00, 0.00, 0.00], [1.00, 0.00, 0.00, 0.00], [0.00, 0.00, 1.00, 0.00],
    [0.86, 0.01, 0.10, 0.03], [0.00, 0.00, 0.00, 1.00], [0.00, 0.00, 1.00, 0.00], [0.01, 0.03, 0.61, 0.35],
    [0.03, 0.17, 0.01, 0.79], [0.20, 0.43, 0.17, 0.20], [0.27, 0.23, 0.31, 0.19], [0.23, 0.26, 0.32, 0.19],
]).T  # fmt: skip
MOTIFS = {"GATA_disc1": _GATA_DISC1, "TAL1_known1": _TAL1_KNOWN1}  # each (4, width)
PSEUDOCOUNT = 0.001  # of the authors' simulation


def simulate(
    n: int,
    length: int = 200,
    *,
    background: Sequence[float] = BACKGROUND,
    means: tuple[float, float] = (2.0, 1.0),
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Sequences with neither motif, GATA_disc1, TAL1_known1, or both, a quarter each (the paper's section 4.2).

    Where a motif is to be, it has one to three instances, a Poisson number given that. Each instance stands at a place
    drawn from all those where it overlaps no other, and its letters are drawn from the motif's matrix.

    Args:
        n: how many; quarters as even as n allows, in random order.
        length: letters of a sequence.
        background: frequencies of A, C, G, T. Those of the released sequences are `deeplift_authors.BACKGROUND`.
        means: the Poisson means with one motif and with both; the defaults fit the released sequences' counts.
        generator: draws (on the CPU); None uses torch's default generator.

    Returns:
        "x" (n, 4, length) of 0 and 1; "y" (n, 3), 1 where both motifs, GATA, TAL1 are there; "motifs" (M, 3): row,
        motif (0 GATA_disc1, 1 TAL1_known1) and first position of each instance.

    Raises:
        ValueError: no place is left for an instance, as length is too small.
    """
    draw = partial(torch.multinomial, generator=generator)
    letters = draw(torch.tensor(background, device="cpu"), n * length, replacement=True).view(n, length)
    kind = torch.randperm(n, generator=generator, device="cpu") % 4
    has_motif = torch.stack([kind % 2 == 1, kind >= 2], 1)
    mean = torch.where(has_motif.all(1), means[1], means[0])
    odds = torch.stack([mean**k / math.factorial(k) for k in (1, 2, 3)], 1)
    counts = (draw(odds, 2, replacement=True) + 1) * has_motif
    free, instances = torch.ones(n, length, dtype=torch.bool, device="cpu"), []
    for motif, matrix in enumerate(MOTIFS.values()):
        width = matrix.shape[1]
        for instance in range(3):
            rows = (counts[:, motif] > instance).nonzero()
            if not len(rows):
                continue
            fits = free[rows[:, 0]].unfold(1, width, 1).all(-1) if width <= length else torch.zeros(1, 1, device="cpu")
            if not fits.any(1).all():
                raise ValueError(f"length = {length} leaves no place for another instance of {width} letters")
            start = draw(fits.float(), 1)
            places = start + torch.arange(width, device="cpu")
            letters[rows, places] = draw(smoothed(matrix).T, len(rows), replacement=True).T
            free[rows, places] = False
            instances.append(torch.cat([rows, torch.full_like(rows, motif), start], 1))
    y = torch.stack([has_motif.all(1), has_motif[:, 0], has_motif[:, 1]], 1).float()
    motifs = torch.cat([torch.empty(0, 3, dtype=torch.long, device="cpu"), *instances])
    return {"x": F.one_hot(letters, 4).movedim(-1, 1).float(), "y": y, "motifs": motifs}


def smoothed(matrix: Tensor) -> Tensor:
    """A motif's probabilities (4, width) with `PSEUDOCOUNT` of their weight spread evenly over the letters."""
    return matrix * (1 - PSEUDOCOUNT) + PSEUDOCOUNT / 4
