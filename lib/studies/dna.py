"""DNA sequences: one-hot code, shuffling, motif matches, and contributions of letters.

A sequence is one-hot, (4, L), in the order A, C, G, T; a motif's matrix is (4, width) in that order.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.methods import DeepLift
from attrain.targets import Target
from data_prep.dna import BACKGROUND, smoothed

LETTERS = "ACGT"


def one_hot(sequences: Sequence[str]) -> Tensor:
    """Sequences of one length as (N, 4, L) of 0 and 1.

    Example:
        >>> one_hot(["ACGT", "ttta"]).argmax(1)
        tensor([[0, 1, 2, 3],
                [3, 3, 3, 0]])
    """
    for i, text in enumerate(sequences):
        if not text or len(text) != len(sequences[0]) or set(text.upper()) - set(LETTERS):
            raise ValueError(f"sequences must be of one length ≥ 1 and of A, C, G, T only, got {text!r} as number {i}")
    places = torch.tensor([[LETTERS.index(letter) for letter in text.upper()] for text in sequences], device="cpu")
    return F.one_hot(places, 4).movedim(-1, 1).float()


def dinucleotide_shuffle(x: Tensor, n: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """Shuffles of each sequence that keep its counts of letter pairs, its first and its last letter.

    Each letter's successors are permuted, all but the last one, and read off from the first letter on; keeping the
    last successors is what makes every walk reach the end. (Not all sequences with these counts can come out.)

    Args:
        x: (N, 4, L), one-hot, L ≥ 2.
        n: shuffles of each sequence.
        generator: draws (on the CPU); None uses torch's default generator.

    Returns:
        (n, N, 4, L), of x's dtype and device: references as `attrain.DeepLift` takes them.
    """
    check_one_hot(x)
    samples, _, length = x.shape
    letters = x.argmax(1).cpu()
    letter, successor = letters[:, :-1], letters[:, 1:]
    place = torch.arange(length - 1, device="cpu")
    last = torch.full((samples, 4), -1, device="cpu").scatter_reduce(1, letter, place.expand_as(letter), "amax")
    key = torch.rand(n, samples, length - 1, generator=generator, dtype=torch.float64, device="cpu")
    key = torch.where(last.gather(1, letter) == place, 1.0, key)  # the last successor stays the last
    order = (letter + key / 2).argsort(-1).flatten(0, 1)
    successors = successor.repeat(n, 1).gather(1, order)
    counts = F.one_hot(letter, 4).sum(1)
    slot = (counts.cumsum(1) - counts).repeat(n, 1)  # where the next successor of each letter stands
    now = letters[:, :1].repeat(n, 1)
    out, one = [now], torch.ones_like(now)
    for _ in range(length - 1):
        following = successors.gather(1, slot.gather(1, now))
        slot.scatter_add_(1, now, one)
        out.append(now := following)
    return F.one_hot(torch.cat(out, 1), 4).movedim(-1, 1).unflatten(0, (n, samples)).to(x)


# ---------------------------------------------------------------- motif matches


def log_odds_matrix(matrix: Tensor, background: Sequence[float] = BACKGROUND) -> Tensor:
    """ln of a motif's probabilities (4, width), see `data_prep.dna.smoothed`, less ln of the background's."""
    return smoothed(matrix).log() - torch.tensor(background, device=matrix.device).log()[:, None]


def scan(x: Tensor, log_odds: Tensor) -> Tensor:
    """Log-odds of a motif, (4, width), at every place of sequences (N, 4, L): (N, L − width + 1)."""
    if x.ndim != 3 or x.shape[1] != 4 or log_odds.ndim != 2 or not 1 <= log_odds.shape[1] <= x.shape[2]:
        shapes = f"got {tuple(x.shape)} and {tuple(log_odds.shape)}"
        raise ValueError(f"scan takes sequences (N, 4, L) and a matrix (4, width), 1 ≤ width ≤ L, {shapes}")
    return F.conv1d(x, log_odds[None].to(x))[:, 0]


def top_matches(scores: Tensor, n: int = 5, exclude: int = 5, reference_edges: bool = False) -> tuple[Tensor, Tensor]:
    """The n best places of each sequence, best first, none of them close to a better one.

    Args:
        scores: (N, places), as `scan` returns them.
        n: how many.
        exclude: a match at p excludes the places p − exclude to p + exclude − 2; the authors
            take half the motif's width.
        reference_edges: exclude nothing around a match at p < exclude, as the reference code does by an oversight: it
            then finds the same match up to n times. For exact reproduction only.

    Returns:
        scores and first positions, each (N, n); −inf where no place was left.

    Example:
        >>> scores = torch.tensor([[9.0, 8.0, 0.0, 7.0, 6.0]])
        >>> top_matches(scores, n=2, exclude=3)
        (tensor([[9., 7.]]), tensor([[0, 3]]))
        >>> top_matches(scores, n=2, exclude=3, reference_edges=True)[1]
        tensor([[0, 0]])
    """
    remaining, place, matches = scores.clone(), torch.arange(scores.shape[1], device=scores.device), []
    for _ in range(n):
        best, position = remaining.max(1, keepdim=True)
        matches.append((best, position))
        taken = (place >= position - exclude) & (place < position + max(exclude - 1, 1))
        remaining[taken & (position >= exclude) if reference_edges else taken] = -torch.inf
    values, positions = zip(*matches)
    return torch.cat(values, 1), torch.cat(positions, 1)


def window_sums(heatmap: Tensor, positions: Tensor, width: int) -> Tensor:
    """The importance of matches: the map's sum over the `width` positions from each first position on.

    Args:
        heatmap: (N, 4, L), or (N, L).
        positions: (N, n), as `top_matches` returns them.

    Returns:
        (N, n).
    """
    position = heatmap.sum(1) if heatmap.ndim == 3 else heatmap
    return position.unfold(1, width, 1).sum(-1).gather(1, positions)


# ---------------------------------------------------------------- contributions


def hypothetical_contributions(model: nn.Module, x: Tensor, target: Target = None, method: DeepLift | None = None):
    """What each letter would contribute at each place under the multipliers of the sequence as it is.

    H_i = Σ_c m_c (1[c = i] − r_c), with m the multipliers and r the reference: for the letter that is there the
    position's actual contribution. It shows which letters a network looks for; the other letters' own multipliers
    would be others, if they were there.

    Args:
        model, target: as for `attrain.attribution`.
        x: one-hot, (N, 4, L).
        method: with its reference and rule; None for `DeepLift()`.

    Returns:
        (N, 4, L), or (N, K, 4, L) where the target asks for K maps.
    """
    check_one_hot(x)
    return explain(model, x, target, replace(method or DeepLift(), hypothetical=True)).heatmap


def check_one_hot(x: Tensor) -> None:
    """Raise ValueError unless x is (N, 4, L), L ≥ 2, with one 1 at each place and 0 elsewhere."""
    if x.ndim != 3 or x.shape[1] != 4 or x.shape[2] < 2:
        raise ValueError(f"x must be one-hot sequences (N, 4, L), L ≥ 2, got {tuple(x.shape)}")
    if not (((x == 0) | (x == 1)).all() and (x.sum(1) == 1).all()):
        raise ValueError("x must be one-hot: one 1 of the four letters at each place, and 0 elsewhere")
