import pytest
import torch
from sklearn import metrics

from attrain.metrics.classification import balanced_accuracy, macro_auc, macro_f1, micro_f1, patient_draws


@pytest.fixture(scope="module")
def answers():
    """Logits, labels and draws of 60 images, three classes, 25 patients; some scores are equal."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    logits = (torch.randn(60, 3, generator=generator) + 1.5 * torch.eye(3)[y]).mul(4).round().div(4)
    return logits, y, patient_draws(torch.arange(60) % 25, draws=20)


ORACLES = {
    balanced_accuracy: lambda logits, y, w: metrics.balanced_accuracy_score(y, logits.argmax(1), sample_weight=w),
    macro_f1: lambda logits, y, w: metrics.f1_score(y, logits.argmax(1), average="macro", sample_weight=w),
    macro_auc: lambda logits, y, w: metrics.roc_auc_score(
        y, logits.double().softmax(1), average="macro", multi_class="ovr", sample_weight=w
    ),
}


@pytest.mark.parametrize("score", ORACLES)
def test_scores_equal_scikit_learns_for_every_draw(score, answers):
    logits, y, weights = answers
    expected = torch.tensor([ORACLES[score](logits, y, w) for w in weights], dtype=torch.float64)
    torch.testing.assert_close(score(logits, y, weights), expected, rtol=1e-9, atol=0)
    assert score(logits, y).item() == pytest.approx(ORACLES[score](logits, y, None), rel=1e-12)


@pytest.mark.parametrize(("score", "perfect"), [(balanced_accuracy, 1), (macro_f1, 1), (macro_auc, 1)])
def test_a_perfect_answer_scores_one_though_a_class_is_missing(score, perfect):
    y = torch.tensor([0, 0, 2])
    assert score(10 * torch.eye(3)[y], y) == perfect


def test_a_score_without_any_class_to_tell_apart_is_nan():
    assert macro_auc(torch.rand(3, 2), torch.zeros(3, dtype=torch.long)).isnan()


def test_draws_take_patients_whole_and_as_many_as_there_are():
    patients = torch.tensor([5, 5, 5, 8, 9, 9])
    draws = patient_draws(patients, draws=500)
    assert draws.shape == (500, 6) and torch.equal(draws, patient_draws(patients, draws=500))
    assert torch.equal(draws[:, 0], draws[:, 2]) and torch.equal(draws[:, 4], draws[:, 5])
    assert (draws[:, [0, 3, 4]].sum(1) == 3).all()
    assert draws.mean(0) == pytest.approx(torch.ones(6), abs=0.1)


def test_weights_of_another_length_are_named():
    with pytest.raises(ValueError, match=r"weights must be \(B, 2\)"):
        macro_f1(torch.rand(2, 2), torch.tensor([0, 1]), torch.ones(3))


def test_micro_f1_of_several_labels_equals_scikit_learns_for_every_draw():
    generator = torch.Generator().manual_seed(0)
    y, decisions = (torch.rand(40, 5, generator=generator) < 0.3 for _ in range(2))
    weights = patient_draws(torch.arange(40), draws=20)
    expected = [metrics.f1_score(y, decisions, average="micro", sample_weight=w) for w in weights]
    torch.testing.assert_close(micro_f1(decisions, y.float(), weights), torch.tensor(expected).float())
    assert micro_f1(decisions, y).item() == pytest.approx(metrics.f1_score(y, decisions, average="micro"))
    assert micro_f1(torch.zeros(3, 2), torch.zeros(3, 2)) == 0
