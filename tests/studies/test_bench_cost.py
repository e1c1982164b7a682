import time

import pytest
import torch

from attrain.training import isnet_step
from studies.bench.cost import forward_passes, peak_memory, seconds
from studies.nets.small import SmallCNN

CPU = torch.device("cpu")


def test_seconds_are_those_of_the_call():
    assert 0.05 <= seconds(lambda: time.sleep(0.05), CPU) < 0.5


@pytest.mark.parametrize(
    ("run", "kilobytes"),
    [
        (lambda: [torch.zeros(250_000) for _ in range(3)], 3000),  # held together
        (lambda: [torch.zeros(250_000).numel() for _ in range(3)], 1000),  # one after the other
        (lambda: None, 0),
    ],
)
def test_peak_memory_is_what_is_held_at_once(run, kilobytes):
    assert peak_memory(run, CPU) == pytest.approx(1000 * kilobytes, abs=2000)


def test_a_step_on_its_map_needs_one_forward_pass_and_the_count_leaves_nothing_behind():
    net, x, y, mask = SmallCNN(width=2), torch.rand(2, 1, 12, 12), torch.tensor([0, 1]), torch.ones(2, 12, 12)
    assert forward_passes(net, lambda: isnet_step(net, x, y, mask)) == 1
    assert forward_passes(net, lambda: [net(x), net(x)]) == 2
    assert not net._forward_pre_hooks
