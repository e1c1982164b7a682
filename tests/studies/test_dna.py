import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multilabel_auroc

from attrain import DeepLift, GuidedBackprop, InputXGradient, IntegratedGradients, explain
from attrain.training import fit_fresh
from data_prep import DataError, deeplift_authors
from data_prep.dna import BACKGROUND as FREQUENCIES
from data_prep.dna import MOTIFS, simulate
from studies import dna
from studies.nets.small import SequenceCNN

WORDS = st.text("ACGT", min_size=2, max_size=40)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def text(x):
    return ["".join("ACGT"[i] for i in row) for row in x.argmax(-2).tolist()]


def pairs_of(word):
    return sorted(a + b for a, b in itertools.pairwise(word))


# ---------------------------------------------------------------- one-hot code


@given(st.lists(st.text("ACGTacgt", min_size=7, max_size=7), min_size=1, max_size=4))
def test_one_hot_keeps_every_letter(words):
    x = dna.one_hot(words)
    assert x.shape == (len(words), 4, 7) and (x.sum(1) == 1).all() and text(x) == [w.upper() for w in words]


@pytest.mark.parametrize(("words", "number"), [(["ACGT", "ACG"], 1), (["ACGN"], 0), (["A", "C", ""], 2), ([""], 0)])
def test_what_is_no_dna_of_one_length_is_refused(words, number):
    with pytest.raises(ValueError, match=f"A, C, G, T only, got .* as number {number}"):
        dna.one_hot(words)


# ---------------------------------------------------------------- shuffling


@given(WORDS, st.integers(1, 3), st.integers(0, 2**32))
def test_a_shuffle_keeps_letter_pairs_and_both_ends(word, n, seed):
    x = dna.one_hot([word, word[::-1]])
    shuffled = dna.dinucleotide_shuffle(x, n, seeded(seed))
    assert shuffled.shape == (n, *x.shape)
    for one in shuffled:
        for before, after in zip((word, word[::-1]), text(one)):
            assert (after[0], after[-1]) == (before[0], before[-1]) and pairs_of(after) == pairs_of(before)


def test_shuffles_reach_every_sequence_that_keeps_the_last_successors():
    word = "ACAGATA"  # after A: C, G, T permuted freely, the last A ends the sequence
    found = text(dna.dinucleotide_shuffle(dna.one_hot([word]), 600, seeded()).flatten(0, 1))
    counts = {w: found.count(w) for w in set(found)}
    assert set(counts) == {"ACAGATA", "AGACATA"}, "T is A's last successor and stays it"
    assert abs(counts["ACAGATA"] - 300) < 60


def test_a_shuffle_depends_on_its_generator_alone_and_keeps_dtype():
    x = simulate(8, 100, generator=seeded())["x"].double()
    one, same, other = (dna.dinucleotide_shuffle(x, 2, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.dtype == torch.float64
    assert not torch.equal(one[0], one[1]) and (one.mean(0) * x).sum(1).mean() < 0.6, "letters have moved"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((1, 4, 5), 0.25), "x must be one-hot: one 1"),
        (torch.zeros(1, 4, 5), "x must be one-hot: one 1"),
        (torch.eye(4), r"got \(4, 4\)"),
        (torch.ones(1, 5, 4), r"got \(1, 5, 4\)"),
    ],
)
def test_what_is_not_one_hot_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        dna.dinucleotide_shuffle(x)
    with pytest.raises(ValueError, match=message):
        dna.hypothetical_contributions(torch.nn.Flatten(), x)


# ---------------------------------------------------------------- motif matches


def test_matrices_are_probabilities_with_the_known_highest_log_odds():
    for (name, matrix), highest in zip(MOTIFS.items(), (11.003, 15.290)):
        assert matrix.sum(0).tolist() == pytest.approx([1] * matrix.shape[1], abs=1e-5), name
        assert dna.log_odds_matrix(matrix).amax(0).sum().item() == pytest.approx(highest, abs=1e-3)


@given(WORDS, st.integers(1, 2), st.integers(0, 2**32))
def test_a_scan_adds_up_the_log_odds_of_the_letters(word, width, seed):
    matrix = torch.randn(4, width, generator=seeded(seed))
    found = dna.scan(dna.one_hot([word]), matrix)[0]
    code = ["ACGT".index(letter) for letter in word]
    slow = [sum(matrix[code[p + k], k].item() for k in range(width)) for p in range(len(word) - width + 1)]
    assert found.tolist() == pytest.approx(slow, abs=1e-5)


def greedy(scores, n, exclude, reference_edges):
    """One sequence and one match at a time, by Python's own rules for slices."""
    scores, found = list(scores), []
    for _ in range(n):
        p = scores.index(max(scores))
        found.append((scores[p], p))
        first = p - exclude if reference_edges else max(0, p - exclude)
        for q in range(len(scores))[first : p + exclude - 1]:
            scores[q] = -np.inf
    return found


@settings(max_examples=60)
@given(st.lists(st.integers(-99, 99), min_size=30, max_size=60, unique=True), st.integers(2, 5), st.booleans())
def test_top_matches_are_the_greedy_ones(scores, exclude, reference_edges):
    values, places = dna.top_matches(torch.tensor([scores] * 2).float(), 4, exclude, reference_edges)
    expected = greedy(scores, 4, exclude, reference_edges)
    assert [list(zip(v, p)) for v, p in zip(values.tolist(), places.tolist())] == [expected] * 2


def test_top_matches_leave_the_scores_as_they_were_and_say_when_no_place_is_left():
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    values, _ = dna.top_matches(scores, 2, 5)
    assert scores.tolist() == [[1, 2, 3]] and values.tolist() == [[3, -np.inf]]


def test_the_importance_of_a_match_is_the_sum_below_it():
    heatmap = torch.arange(24.0).view(1, 4, 6)
    assert dna.window_sums(heatmap, torch.tensor([[0, 3]]), 3).tolist() == [
        [heatmap[0, :, :3].sum(), heatmap[0, :, 3:].sum()]
    ]
    assert torch.equal(
        dna.window_sums(heatmap.sum(1), torch.tensor([[2]]), 2),
        dna.window_sums(heatmap, torch.tensor([[2]]), 2),
    )


@pytest.mark.parametrize("shapes", [((2, 5, 9), (4, 3)), ((2, 4, 2), (4, 3)), ((4, 9), (4, 3)), ((2, 4, 9), (4, 3, 1))])
def test_a_scan_of_other_shapes_is_refused(shapes):
    with pytest.raises(ValueError, match="scan takes sequences"):
        dna.scan(*map(torch.zeros, shapes))


# ---------------------------------------------------------------- hypothetical contributions


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    net = SequenceCNN(width=6, kernel=3).eval().double()
    return net, simulate(3, 120, generator=seeded())["x"].double()


BACKGROUND = torch.tensor(FREQUENCIES, dtype=torch.float64)[:, None]
FLAT = BACKGROUND.expand(1, 4, 120)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel", "genomics"])
@pytest.mark.parametrize("references", ["zero", "flat", "shared", "own"])
def test_the_letter_that_is_there_has_its_contribution(small, rule, references):
    net, x = small
    shuffled = dna.dinucleotide_shuffle(x, 3, seeded())
    reference = {"zero": 0.0, "flat": FLAT, "shared": shuffled[:, :1], "own": shuffled}[references]
    method = DeepLift(reference, rule)
    actual = explain(net, x, "all", method).heatmap.sum(2)
    hypothetical = dna.hypothetical_contributions(net, x, "all", method)
    torch.testing.assert_close((hypothetical * x[:, None]).sum(2), actual)
    assert not torch.allclose(hypothetical, actual[:, :, None].expand_as(hypothetical))


def test_another_letter_has_the_multipliers_of_the_sequence_as_it_is():
    """A linear network has the same multipliers everywhere: the hypothetical letter is then the real one."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 9, 2)).double()
    x = dna.one_hot(["ACGTACGTA"]).double()
    hypothetical = dna.hypothetical_contributions(net, x, 1, DeepLift(FLAT[..., :9]))
    for i, letter in enumerate("ACGT"):
        put = dna.one_hot(["ACG" + letter + "ACGTA"]).double()
        expected = explain(net, put, 1, DeepLift(FLAT[..., :9])).heatmap[0, :, 3].sum()
        torch.testing.assert_close(hypothetical[0, i, 3], expected)


# ---------------------------------------------------------------- the authors' network: the paper's numbers


@pytest.fixture(scope="module")
def authors():
    """Maps of the authors' network for the authors' test sequences, (800, 3 tasks, 4, 200), by method."""
    try:
        data, net = deeplift_authors.load(), deeplift_authors.genomics_network()
    except DataError as error:
        pytest.skip(f"needs the authors' files: {error}")
    x, y = data["x"][data["test"]].float(), data["y"][data["test"]]
    flat = BACKGROUND.float().expand(1, 4, 200)
    methods = {
        "guided backprop": GuidedBackprop(flat),
        "gradient × input": InputXGradient(flat),
        "IG10": IntegratedGradients(flat, 10),
        "Rescale": DeepLift(flat),
        "RevealCancel": DeepLift(flat, "reveal_cancel"),
        "hybrid": DeepLift(flat, "genomics"),
    }
    both = y[:, 0] == 1
    maps = {n: torch.cat([explain(net, part, 0, m).heatmap for part in x[both].split(200)]) for n, m in methods.items()}
    return net, x[both], maps


COUNTS = [  # by method in the order above; stored bar labels of the authors' notebook, and with the left edge mended
    (True, "GATA_disc1", 313, (0, 12, 20, 14, 0, 0)),
    (True, "TAL1_known1", 398, (0, 46, 32, 28, 0, 0)),
    (False, "GATA_disc1", 294, (0, 12, 20, 14, 0, 0)),
    (False, "TAL1_known1", 341, (0, 40, 29, 25, 0, 0)),
]


@pytest.mark.parametrize(("reference_edges", "motif", "strong", "missed"), COUNTS)
def test_the_authors_network_misses_as_many_motifs_as_they_say(authors, reference_edges, motif, strong, missed):
    _, x, maps = authors
    matrix = MOTIFS[motif]
    width = matrix.shape[1]
    found = dna.scan(x, dna.log_odds_matrix(matrix))
    log_odds, places = dna.top_matches(found, 5, width // 2, reference_edges)
    assert (log_odds >= 7).sum() == strong
    importance = [dna.window_sums(heatmap, places, width)[log_odds >= 7] for heatmap in maps.values()]
    assert tuple(int((i <= 0).sum()) for i in importance) == missed


def test_only_deeplift_is_complete_on_the_authors_network(authors):
    net, x, maps = authors
    with torch.no_grad():
        delta = net(x)[:, 0] - net(BACKGROUND.float().expand(1, 4, 200))[:, 0]
    worst = {name: (heatmap.sum((1, 2)) - delta).abs().max().item() for name, heatmap in maps.items()}
    assert max(worst[name] for name in ("Rescale", "RevealCancel", "hybrid")) < 2e-5
    assert worst["guided backprop"] > worst["gradient × input"] > worst["IG10"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_from_scratch_learns_the_tasks_and_shuffled_references_miss_hardly_a_motif(seed):
    """The laptop scale of notebooks/deeplift/genomics. With the flat reference RevealCancel misses many in seed 1."""
    data = simulate(8000, generator=seeded(seed))
    x, y = data["x"], data["y"]
    net, _ = fit_fresh(SequenceCNN, (x[:7200], y[:7200]), seed=seed, epochs=8, batch_size=32, lr=3e-3)
    x, y = x[7200:], y[7200:]
    with torch.no_grad():
        areas = multilabel_auroc(net(x), y.long(), num_labels=3, average=None)
    assert areas.min() >= 0.97
    both = x[y[:, 0] == 1]
    references = dna.dinucleotide_shuffle(both, 5, seeded(seed))
    heatmap = explain(net, both, 0, DeepLift(references, "genomics")).heatmap
    for matrix in MOTIFS.values():
        width = matrix.shape[1]
        log_odds, places = dna.top_matches(dna.scan(both, dna.log_odds_matrix(matrix)), 5, width // 2)
        assert (dna.window_sums(heatmap, places, width)[log_odds >= 7] <= 0).float().mean() <= 0.01
