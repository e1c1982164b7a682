"""Networks that forget what they have learned, part by part."""

import pytest
import torch

from attrain.metrics import randomised
from studies.nets.small import SmallCNN, classifier


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "parts"), [("cnn", "10 6 3 0"), ("resnet18", "fc layer4 layer3 layer2 layer1 bn1 conv1")]
)
def test_weights_are_drawn_anew_from_the_output_on(name, parts):
    net = classifier(name)
    for value in net.state_dict().values():
        value.fill_(7)
    before = state(net)
    cascade = list(randomised(net))
    assert [part for part, _ in cascade] == parts.split()
    for step, (_, copy) in enumerate(cascade):
        for key, value in copy.state_dict().items():
            drawn = key.split(".")[0] in parts.split()[: step + 1]
            assert (value == 7).all() != drawn, (step, key)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items()), "the model is as it was"


def test_randomised_weights_follow_the_seed_and_leave_torchs_random_state():
    net, drawn = SmallCNN(), torch.random.get_rng_state()
    first, again, other = ([state(copy) for _, copy in randomised(net, seed)] for seed in (0, 0, 1))
    assert torch.equal(drawn, torch.random.get_rng_state())
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, again) for key in a)
    assert not torch.equal(first[-1]["0.weight"], other[-1]["0.weight"])


def test_a_layer_that_cannot_be_drawn_anew_is_named():
    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

    with pytest.raises(TypeError, match="Scale in '1' has no reset_parameters"):
        list(randomised(torch.nn.Sequential(torch.nn.Linear(2, 3), Scale())))
