"""Work in blocks gives what work at once gives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attrain import DeepLift, explain
from attrain.engine.fast import tiles
from studies.nets.small import SmallCNN


def shifted(x, r):
    return x - r, (x - r).clamp(min=0)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 7), width=st.integers(1, 90), size=st.integers(1, 64), shared=st.booleans())
def test_elementwise_work_is_the_same_in_blocks_of_any_size(n, width, size, shared):
    x, r = torch.rand(n, width), torch.rand(1 if shared else n, width)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(tiles, "BLOCK", size)
        found = tiles.elementwise(shifted, x, r)
        for a, b in zip(found, shifted(x, r), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(300, 700), (3, 5, 70, 130), (2**17 + 3, 2)])
def test_results_may_be_written_over_what_they_are_made_of(shape):
    x, r = torch.randn(shape), torch.randn(1, *shape[1:])
    expected = shifted(x, r)
    with torch.no_grad():
        found = tiles.elementwise(shifted, x, r, out=[x])
    assert found[0].data_ptr() == x.data_ptr()
    assert torch.equal(x, expected[0]) and torch.equal(found[1], expected[1])


def test_strided_tensors_are_not_cut():
    x = torch.randn(40, 60, 60).permute(0, 2, 1)
    with torch.no_grad():
        assert torch.equal(tiles.elementwise(shifted, x, x[:1])[0], x - x[:1])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_samples_are_taken_some_at_a_time(n):
    x, shared, seen = torch.randn(n, 4, 90, 100), torch.randn(1, 3), []

    def rule(x, shared):
        seen.append(len(x))
        return x.flatten(1).sum(1), shared.sum(1) * x.amax((2, 3))

    with torch.no_grad():
        found = tiles.samplewise(rule, x, shared)
    assert sum(seen) == n and (n == 1 or max(seen) < n)
    for a, b in zip(found, rule(x, shared), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("reference", [0.0, torch.rand(1, 3, 40, 40), torch.rand(4, 1, 3, 40, 40)])
def test_deeplift_of_large_activations_is_that_of_small_blocks(monkeypatch, reference, inplace):
    net, x = SmallCNN(10, 3, width=16).double().eval(), torch.rand(6, 3, 40, 40).double()
    for module in net.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = inplace
    maps = []
    for size in (2**10, 2**40):
        monkeypatch.setattr(tiles, "BLOCK", size)
        maps.append(explain(net, x, 0, DeepLift(reference)))
    torch.testing.assert_close(maps[0].heatmap, maps[1].heatmap)
    torch.testing.assert_close(maps[0].heatmap.flatten(1).sum(1), maps[0].delta)
