"""A new last layer against scikit-learn's logistic regression, on images whose groups tell what it should learn."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from attrain.training import retrain_last_layer
from studies.nets.resnets import guided_resnet
from studies.nets.small import Mirrored, SmallCNN


def photographs(n=80):
    """Images 8×8 of two classes and two backgrounds, three of four of which go together; and their groups."""
    y = torch.arange(n) % 2
    background = torch.where(torch.arange(n) % 8 < 6, y, 1 - y)
    x = 0.3 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, :, :, 4:] += 0.3 * background[:, None, None, None]
    x[:, :, 2:5, 1:3] += 0.2 * y[:, None, None, None]
    return x, y, 2 * y + background


def features(net, x):
    kept = []
    net[-1].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        net.eval()(x)
    net[-1]._forward_pre_hooks.clear()
    return kept[0].double()


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_it_is_logistic_regression_in_which_each_group_weighs_the_same(decay):
    torch.manual_seed(0)
    net, (x, y, group) = SmallCNN(1, width=2), photographs()
    inputs = features(net, x)
    inputs = inputs / inputs.std(0).clamp(min=1e-6)
    share = (1 / (4 * group.bincount()))[group]  # sums to 1, so that C = 1 / decay
    theirs = LogisticRegression(C=1 / decay, tol=1e-10, max_iter=5000).fit(inputs, y, sample_weight=share.double())
    found = retrain_last_layer(net, x, y, group, decay=decay)
    wanted = torch.from_numpy(theirs.decision_function(inputs)).float()
    torch.testing.assert_close(found(x)[:, 0], wanted, rtol=1e-3, atol=1e-4)


def test_two_mirrored_logits_and_two_of_their_own_name_the_same_classes():
    torch.manual_seed(0)
    x, y, group = photographs()
    body = SmallCNN(2, width=2)
    two = retrain_last_layer(body, x, y, group, batch_size=7)
    one = nn.Sequential(*list(body)[:-1], nn.Linear(body[-1].in_features, 1), Mirrored())
    mirrored = retrain_last_layer(one, x, y, group, decay=5e-3)  # shared by two rows of weights, the penalty is half
    torch.testing.assert_close(mirrored(x).diff(dim=1), 2 * two(x).diff(dim=1), rtol=1e-2, atol=1e-2)


def test_the_model_is_left_as_it_is_and_its_features_are_kept():
    torch.manual_seed(0)
    net, (x, y, group) = SmallCNN(2, width=2).train(), photographs()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = retrain_last_layer(net, (255 * x).round().to(torch.uint8), y, group)
    assert net.training and not found.training and not net[-1]._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    changed = {name for name, value in found.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"10.weight", "10.bias"}


def test_a_layer_without_a_bias_gets_one():
    net, (x, y, group) = guided_resnet("xdnn", "small", 2, channels=1, width=4), photographs()
    assert net.fc.bias is None and retrain_last_layer(net, x, y, group).fc.bias.shape == (2,)


def test_bad_input():
    x, y, group = photographs()
    with pytest.raises(ValueError, match="decay must be > 0, got 0"):
        retrain_last_layer(SmallCNN(2, width=2), x, y, group, decay=0)
    with pytest.raises(ValueError, match="one length, got 80, 79 and 80"):
        retrain_last_layer(SmallCNN(2, width=2), x, y[1:], group)
    with pytest.raises(ValueError, match=r"must have an nn\.Linear"):
        retrain_last_layer(guided_resnet("bcos", "small", 2, channels=1), x, y, group)
    with pytest.raises(ValueError, match=r"features \(N, F\) with N = 80, got \(80, 1, 8, 8\)"):
        retrain_last_layer(nn.Sequential(nn.Linear(8, 3)), x, y, group)
