import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from attrain.metrics import micro_f1
from studies.accuracy import lowest_recall


@given(st.integers(0, 2**32 - 1))
def test_the_lowest_recall_is_the_least_of_scikit_learns(seed):
    draw = torch.Generator().manual_seed(seed)
    y, decisions = torch.randint(2, (2, 30, 3), generator=draw)
    y[0] = 1  # each class has an image
    each = metrics.recall_score(y, decisions, average=None)
    assert lowest_recall(decisions, y).item() == pytest.approx(min(each))
    assert lowest_recall(2.0 * decisions - 1, y.double()).item() == pytest.approx(min(each))  # logits, too


def test_a_class_that_no_image_has_does_not_count():
    y, found = torch.tensor([[1, 0], [1, 0]]), torch.tensor([[1, 0], [0, 1]])
    assert lowest_recall(found, y) == 0.5
    assert lowest_recall(found, torch.zeros(2, 2)).isnan()


def test_a_class_given_up_is_seen_where_f1_rises():
    y = torch.tensor([[1, 0]] * 8 + [[0, 1]] * 2)
    unsure = torch.tensor([[1, 0]] * 5 + [[0, 1]] * 4 + [[1, 0]])
    always = torch.tensor([[1, 0]] * 10)
    assert micro_f1(always, y) > micro_f1(unsure, y)
    assert (lowest_recall(always, y), lowest_recall(unsure, y)) == (0, 0.5)
