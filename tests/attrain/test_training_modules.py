"""Looking into a network for the time of a call, and nothing left behind; the network from a layer on."""

import pytest
import torch
from torch import nn

from attrain import LRP, Dual, InputXGradient, explain
from attrain.training import NetworkFrom, estimate_foreground_range, evaluating, hooked, statistics_kept


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2)
    )


WORDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def test_the_network_from_a_layer_on_is_explained_where_words_cannot_be():
    net = network().eval()
    h = net[0](WORDS).detach()
    explanation = explain(NetworkFrom(net, "0", WORDS), h, 1, InputXGradient())
    assert torch.equal(explanation.logits, net(WORDS))
    leaf = h.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net[1:](leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(explanation.heatmap, gradient * h)


def test_the_network_from_a_layer_on_shares_its_parameters_and_its_mode():
    net = network()
    tail = NetworkFrom(net, "0", WORDS)
    assert [p is q for p, q in zip(tail.parameters(), net.parameters())] == [True] * 5
    tail.eval()
    assert not net.training


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match="no layer 'embedding'; it must be '', the input, or a module's name: 0, 1, 2"):
        NetworkFrom(network(), "embedding", WORDS)(torch.zeros(2, 3, 4))


@pytest.mark.parametrize("layer", ["", "2"])
def test_hooks_are_gone_after_an_exception(layer):
    net = network()
    with pytest.raises(RuntimeError, match="stop"), hooked(net, layer, lambda *_: None):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in net.modules())


def test_modes_and_statistics_come_back_module_by_module_after_an_exception():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.BatchNorm1d(3, track_running_stats=False))
    net[1].eval()
    with pytest.raises(RuntimeError, match="stop"), evaluating(net):
        assert not any(module.training for module in net.modules())
        raise RuntimeError("stop")
    assert [module.training for module in net] == [True, False, True]
    before = net[0].running_mean.clone()
    with statistics_kept(net):
        net(torch.randn(5, 3))
    assert torch.equal(net[0].running_mean, before)
    assert [net[0].track_running_stats, net[2].track_running_stats] == [True, False]


def test_only_a_method_whose_maps_are_apart_has_a_range_for_each():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3))
    x = torch.rand(8, 1, 4, 4)
    ranges = {m: estimate_foreground_range(net, [x], target="all", method=m) for m in (LRP(), Dual())}
    assert isinstance(ranges[LRP()][0], float) and len(ranges[Dual()][0]) == len(ranges[Dual()][1]) == 2
