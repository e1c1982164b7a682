import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from attrain.challenger import Challenger
from attrain.training import plain_step
from attrain.training.regularisers import fgsm_step, label_smoothing_step
from studies.nets.small import SmallCNN
from studies.search import balanced_subset, best_settings, judge, paired_tests, predict, searched, train
from studies.statistics import holm


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(n=st.integers(3, 30), seed=st.integers(0, 99))
def test_a_subset_is_balanced_and_others_are_all_others(n, seed):
    y = torch.arange(60) % 3
    chosen, others = balanced_subset(y, n, seeded(seed))
    counts = y[chosen].bincount(minlength=3)
    assert len(chosen) == n and counts.max() - counts.min() <= 1
    assert sorted([*chosen.tolist(), *others.tolist()]) == list(range(60))


def test_a_subset_is_a_function_of_the_generator():
    y = torch.arange(60) % 3
    assert torch.equal(balanced_subset(y, 12, seeded())[0], balanced_subset(y, 12, seeded())[0])
    assert not torch.equal(balanced_subset(y, 12, seeded())[0], balanced_subset(y, 12, seeded(1))[0])


@pytest.mark.parametrize("n", [2, 5, 61])
def test_a_subset_that_cannot_be_balanced_raises(n):
    y = torch.tensor([0] * 58 + [1] + [2])
    with pytest.raises(ValueError, match=f"n={n} of 60"):
        balanced_subset(y, n)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (plain_step, {}),
        (label_smoothing_step, {"smoothing": 0.2}),
        (fgsm_step, {"eps": 0.1}),
        (Challenger, {"top": 0.5}),
    ],
)
def test_training_is_a_function_of_the_seed_and_starts_alike(kind, settings):
    x, y = torch.randn(20, 1, 8, 8, generator=seeded()), torch.arange(20) % 2
    starts = []

    def make():
        starts.append(SmallCNN(2, width=4))
        return starts[-1]

    run = partial(train, make, x, y, kind, settings, steps=6, batch_size=8)
    first, second = (predict(run(seed=3), x) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, predict(run(seed=4), x))


def test_training_takes_at_least_as_many_steps_as_asked_and_whole_passes():
    calls = []

    def counted(model, x, y):
        calls.append(len(x))
        return plain_step(model, x, y)

    train(lambda: nn.Linear(3, 2), torch.randn(20, 3), torch.arange(20) % 2, counted, {}, seed=0, steps=7, batch_size=8)
    assert calls == [8, 8, 4] * 3


def test_judge_gives_calibration_filters_and_spread():
    torch.manual_seed(0)
    model = SmallCNN(3, width=4).eval()
    x, y = torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    found = judge(model, x, y)
    assert set(found) == {"accuracy", "ece", "nll", "brier", "similarity", "rank", "spread"}
    assert found["accuracy"] == (model(x).argmax(1) == y).double().mean().item()
    assert judge(model, x, y, removed=0.0)["spread"] == found["accuracy"]


def test_a_model_that_reads_one_pixel_has_no_spread():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]])
    x = torch.zeros(6, 1, 2, 2)
    x[:, 0, 0, 0] = torch.tensor([1.0, -1, 1, -1, 1, -1])
    y = (x[:, 0, 0, 0] > 0).long()
    found = judge(model, x, y, removed=0.25)
    assert found["accuracy"] == 1.0 and found["spread"] == 0.5
    assert "similarity" not in found


def test_best_settings_are_those_of_least_total_score_and_nan_is_worst():
    methods = {"plain": (plain_step, [{}]), "FGSM": (fgsm_step, [{"eps": e} for e in (0.1, 0.2, 0.3)])}
    scores = [{"FGSM": [1.0, 0.1, math.nan]}, {"FGSM": [1.0, 1.5, 0.0]}]
    assert best_settings(methods, ["plain", "FGSM"], scores) == {"plain": {}, "FGSM": {"eps": 0.2}}


@pytest.mark.parametrize("names", [["permuted"], ["Challenger", "permuted"]])
@pytest.mark.parametrize("least, scores", [(1, [{"Challenger": [3.0, 2.0]}]), (0, [])], ids=["searched", "one setting"])
def test_a_control_takes_what_is_best_for_its_method(names, least, scores):
    tried = [{"eps_max": 0.5}, {"eps_max": 1.0}][: 1 + least]
    methods = dict.fromkeys(("Challenger", "permuted"), (Challenger, tried))
    controls = {"permuted": ("Challenger", {"control": "permute"})}
    assert searched(methods, names, controls) == ({"Challenger": tried} if least else {})
    best = best_settings(methods, names, scores, controls)
    assert best["permuted"] == tried[least] | {"control": "permute"}
    assert best.get("Challenger", tried[least]) == tried[least]


def test_paired_tests_are_scipys():
    draws = torch.randn(3, 8, generator=seeded(), dtype=torch.float64)
    values = {"plain": draws[0].tolist(), "a": (draws[0] + draws[1] * 0.1 + 0.2).tolist(), "b": draws[2].tolist()}
    table = paired_tests(values, "plain")
    assert list(table.index) == ["a", "b"]
    for name in table.index:
        expected = stats.ttest_rel(values[name], values["plain"])
        low, high = expected.confidence_interval()
        assert table.loc[name, ["t", "low", "high"]].tolist() == pytest.approx([expected.pvalue, low, high])
        assert table.loc[name, "wilcoxon"] == pytest.approx(stats.wilcoxon(values[name], values["plain"]).pvalue)
    assert table["holm"].tolist() == pytest.approx(holm(table["t"]))


@pytest.mark.parametrize("gain", [0.0, 0.5])
def test_methods_that_differ_by_the_same_in_all_seeds_have_p_1(gain):
    values = [1.0, 2.0, 4.0]
    table = paired_tests({"plain": values, "other": [value + gain for value in values]}, "plain")
    assert table.loc["other", ["difference", "t", "wilcoxon", "holm"]].tolist() == [gain, 1, 1, 1]


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_a_difference_and_no_more(seeds):
    table = paired_tests({"plain": [1.0, 2.0][:seeds], "a": [1.5, 2.5][:seeds], "b": [1.0, 2.0][:seeds]}, "plain")
    assert table["difference"].tolist() == [0.5, 0.0]
    assert table[["low", "high", "t", "wilcoxon", "holm"]].isna().all().all()
