"""Simulated DNA: which motifs are where, how often, and which letters they have."""

import pytest
import torch

from data_prep.dna import BACKGROUND, MOTIFS, simulate


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def simulated():
    return simulate(8000, generator=seeded())


def test_a_quarter_of_the_sequences_has_each_combination_of_motifs(simulated):
    groups, counts = simulated["y"].unique(dim=0, return_counts=True)
    assert groups.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 1]] and counts.tolist() == [2000] * 4
    rows, motif, _ = simulated["motifs"].T
    has_motif = torch.zeros(8000, 2).index_put((rows, motif), torch.ones(1))
    assert torch.equal(has_motif, simulated["y"][:, 1:])


def test_instances_overlap_nowhere_and_stand_everywhere(simulated):
    rows, motif, first = simulated["motifs"].T
    width = torch.tensor([10, 16])[motif]
    covered = torch.zeros(8000, 200)
    for offset in range(16):
        inside = offset < width
        covered.index_put_((rows[inside], first[inside] + offset), torch.ones(1), accumulate=True)
    assert covered.max() == 1 and (first + width <= 200).all()
    for m, places in ((0, 191), (1, 185)):
        assert first[motif == m].bincount(minlength=places).min() > 5, "each place is used"


def test_instances_are_counted_as_in_the_released_sequences(simulated):
    """742/774/484 and 733/744/523 sequences with one to three alone; 1205/585/210 and 1187/619/194 beside the other."""
    rows, motif, _ = simulated["motifs"].T
    counts = torch.zeros(8000, 2, dtype=torch.long).index_put((rows, motif), torch.tensor(1), accumulate=True)
    both = simulated["y"][:, 0] == 1
    for m in (0, 1):
        alone = counts[~both, m].bincount(minlength=4)[1:].tolist()
        beside = counts[both, m].bincount(minlength=4)[1:].tolist()
        assert alone == pytest.approx([750, 750, 500], abs=80) and beside == pytest.approx([1200, 600, 200], abs=80)


def test_letters_follow_the_background_and_the_matrices(simulated):
    empty = simulated["x"][simulated["y"].sum(1) == 0]
    assert empty.mean((0, 2)).tolist() == pytest.approx(BACKGROUND, abs=0.003)
    other = simulate(2000, background=(0.1, 0.2, 0.3, 0.4), generator=seeded())
    assert other["x"][other["y"].sum(1) == 0].mean((0, 2)).tolist() == pytest.approx((0.1, 0.2, 0.3, 0.4), abs=0.006)
    rows, motif, first = simulated["motifs"].T
    for m, matrix in enumerate(MOTIFS.values()):
        chosen = motif == m
        places = first[chosen, None] + torch.arange(matrix.shape[1])
        letters = simulated["x"].movedim(1, 2)[rows[chosen, None], places]
        torch.testing.assert_close(letters.mean(0).T, matrix, atol=0.025, rtol=0)


def test_a_simulation_depends_on_its_generator_alone():
    one, same, other = (simulate(20, generator=seeded(s)) for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.values(), same.values())) and not torch.equal(one["x"], other["x"])


@pytest.mark.parametrize("length", [9, 40])
def test_sequences_too_short_for_their_motifs_are_refused(length):
    with pytest.raises(ValueError, match=f"length = {length} leaves no place"):
        simulate(400, length, generator=seeded())
