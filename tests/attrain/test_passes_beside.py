"""What a forward pass does beside its result: chance is told of, and what it writes into the model is put back."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import (
    LRP,
    AttnLRP,
    DeepLift,
    Dual,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    ZPlus,
    explain,
)
from attrain.training import isnet_step

METHODS = {
    "gradient": Gradient(),
    "input x gradient": InputXGradient(),
    "integrated gradients": IntegratedGradients(steps=2),
    "lrp": LRP(),
    "z+": ZPlus(),
    "dual": Dual(),
    "attnlrp": AttnLRP(),
    "rescale": DeepLift(),
    "several references": DeepLift(torch.tensor([[[0.0] * 4], [[0.5] * 4]])),
    "occlusion": Occlusion(window=1, stride=1),
    "smooth": SmoothGrad(samples=2),
}
all_methods = pytest.mark.parametrize("name", METHODS)


def explained(model, name, x=None):
    """An explanation, and the warnings that came with it."""
    x = torch.linspace(0, 1, 20).view(5, 4) if x is None else x
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        explanation = explain(model, x, None if name == "dual" else 0, METHODS[name])
    return explanation, found


# ------------------------------------------------------------------------------------------------ chance


class Layer(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def seeded(x):
    return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0))


RANDOM = {
    "nn.Dropout": nn.Dropout(0.5),
    "F.dropout": Layer(lambda x: F.dropout(x, 0.5)),
    "torch.dropout": Layer(lambda x: torch.dropout(x, 0.5, True)),
    "in place": nn.Dropout(0.5, inplace=True),
    "noise": Layer(lambda x: x + torch.randn_like(x)),
    "bernoulli": Layer(lambda x: x + torch.bernoulli(torch.full((8,), 0.5))),
    "bernoulli_": Layer(lambda x: x + torch.empty(8).bernoulli_(0.5)),
}
STEADY = {
    "no dropout": nn.Dropout(0.0),
    "evaluation": nn.Dropout(0.5).eval(),
    "drawn and not used": Layer(lambda x: (torch.rand(()), x)[1]),
    "a generator of its own seed": Layer(seeded),
}


def net(middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), middle, nn.ReLU(), nn.Linear(8, 3))


@all_methods
@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_pass_is_told_of_once_with_the_module_and_who_asked(kind, name):
    _, found = explained(net(RANDOM[kind]), name)
    assert len(found) == 1 and found[0].category is UserWarning and found[0].filename == __file__
    text = str(found[0].message)
    assert f"random at '1' ({type(RANDOM[kind]).__name__})" in text and "call model.eval() first" in text


@all_methods
@pytest.mark.parametrize("kind", STEADY)
def test_a_pass_that_is_always_the_same_is_not(kind, name):
    assert not explained(net(STEADY[kind]), name)[1]


def test_chance_that_eval_does_not_switch_off_says_so():
    _, found = explained(net(RANDOM["F.dropout"]).eval(), "lrp")
    assert "model.eval() does not change that at '1' (Layer)" in str(found[0].message)


def test_a_bound_method_of_chunks_is_told_of_once():
    model = net(nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="random at '1'") as found:
        explain(model, torch.rand(6, 4), 0, LRP(), chunk_size=2)
    assert len(found) == 1


@all_methods
def test_statistics_of_the_batch_are_told_of(name):
    _, found = explained(net(nn.BatchNorm1d(8)), name)
    assert len(found) == 1 and "statistics of the batch at '1' (BatchNorm1d)" in str(found[0].message)
    assert not explained(net(nn.BatchNorm1d(8)).eval(), name)[1]


def test_attention_and_recurrent_layers():
    block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)
    x = torch.rand(3, 5, 4)
    model = nn.Sequential(block, nn.Flatten(), nn.Linear(20, 2))
    for name in ("gradient", "input x gradient", "attnlrp", "smooth"):
        assert "random at" in str(explained(model, name, x)[1][0].message)
        assert not explained(model.eval(), name, x)[1]
        model.train()


def test_a_training_step_says_nothing():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(144, 2))
    x, y, mask = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0]), torch.ones(3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        isnet_step(model, x, y, mask)[1].backward()
        isnet_step(model, x, y, mask, method=DeepLift())[1].backward()


# ------------------------------------------------------------------------------------------------ written parameters


def _no_grad(write):
    def written(w, layer):
        with torch.no_grad():
            write(w)

    return written


def _set_data(w, _):
    w.data = w.data.clamp(min=0)


def _replaced(w, layer):
    layer.weight = nn.Parameter(w.detach().clamp(min=0))


def _by_numpy(w, _):
    w.detach().numpy()[0] = 0


WRITES = {
    ".data.clamp_()": lambda w, _: w.data.clamp_(min=0),
    ".data =": _set_data,
    ".data[0] =": lambda w, _: w.data.__setitem__(0, 0),
    "no_grad": _no_grad(lambda w: w.clamp_(min=0)),
    "a view": _no_grad(lambda w: w.view(-1)[:3].zero_()),
    "out=": _no_grad(lambda w: torch.renorm(w, 2, 0, 0.1, out=w)),
    "copy_": _no_grad(lambda w: w.copy_(F.normalize(w))),
    "relu_": _no_grad(lambda w: F.relu(w, inplace=True)),
    "nn.init": lambda w, _: nn.init.constant_(w, 0.1),
    "another parameter": _replaced,
    "numpy": _by_numpy,
    "divided": _no_grad(lambda w: w.div_(w.norm())),
}


class Writes(nn.Module):
    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.how = nn.Linear(4, 8), nn.Linear(8, 3), how

    def forward(self, x):
        if self.how:
            WRITES[self.how](self.first.weight, self.first)
        return self.second(self.first(x).relu())


@all_methods
@pytest.mark.parametrize("how", WRITES)
def test_parameters_that_a_pass_writes_into_come_back(how, name):
    model = Writes(how)
    objects, before = list(model.parameters()), [p.detach().clone() for p in model.parameters()]
    places = [p.data_ptr() for p in objects]
    found, _ = explained(model, name)
    after = list(model.parameters())
    assert all(a is b for a, b in zip(objects, after)) and places == [p.data_ptr() for p in after]
    assert all(map(torch.equal, before, after))
    twin = Writes(how)  # written once by hand, and then left alone: for those that write the same at each pass
    twin(torch.zeros(1, 4))
    twin.how = ""
    torch.testing.assert_close(found.heatmap, explained(twin, name)[0].heatmap, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gradient", "integrated gradients", "rescale", "attnlrp"])
@pytest.mark.parametrize("bag", [False, True])
def test_an_embedding_with_a_largest_norm_comes_back(bag, name):
    table = nn.EmbeddingBag(20, 4, max_norm=0.5) if bag else nn.Embedding(20, 4, max_norm=0.5)
    model = nn.Sequential(table, *([] if bag else [nn.Flatten()]), nn.Linear(4 if bag else 20, 3))
    before, ids = table.weight.detach().clone(), torch.arange(10).view(2, 5)
    explain(model, ids, 0, METHODS[name] if name != "rescale" else DeepLift(0), layers="0")
    assert torch.equal(table.weight, before)
    model(ids)
    assert not torch.equal(table.weight, before)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@all_methods
def test_spectral_norm_in_training_mode_comes_back(norm, name):
    model = nn.Sequential(norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    explained(model, name)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_training_step_keeps_what_its_pass_writes():
    model, twin = Writes("no_grad"), Writes("no_grad")
    explain(model, torch.rand(5, 4), 0, LRP(), create_graph=True)
    twin(torch.rand(5, 4))
    assert torch.equal(model.first.weight, twin.first.weight)


def test_what_nobody_sees_written_is_refused_by_name():
    model = Writes("")

    def unseen(x):
        with torch._C.DisableTorchFunction(), torch.no_grad():
            model.first.weight.mul_(0.5)
        return model(x)

    with pytest.raises(ValueError, match=r"parameter 'first\.weight' was changed while the model was explained"):
        explain(unseen, torch.rand(5, 4), 0, InputXGradient())


# ------------------------------------------------------------------------------------------------ no axis of samples


class ByImage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((-2, -1)).flatten(1))


WITHOUT = {
    "features": (nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3)), torch.rand(10), ()),
    "an image": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval(), nn.Flatten()), torch.rand(3, 8, 8), ()),
    "an image that fits halfway": (ByImage(), torch.rand(3, 8, 8), ()),
    "token ids": (nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)), torch.arange(5), ("0",)),
}


@pytest.mark.parametrize("name", ["gradient", "lrp", "rescale", "integrated gradients", "attnlrp"])
@pytest.mark.parametrize("case", WITHOUT)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_an_input_without_samples_says_what_to_add(case, name, chunk_size):
    model, x, layers = WITHOUT[case]
    method = DeepLift(0) if name == "rescale" else METHODS[name]
    with pytest.raises(ValueError, match=r"x must have an axis of samples first") as found:
        explain(model, x, 0, method, layers=layers, chunk_size=chunk_size)
    assert str(tuple(x.shape)) in str(found.value) and "x[None]" in str(found.value)
    assert found.value.__cause__ is not None


def test_other_errors_stay_what_they_are():
    model = WITHOUT["features"][0]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        explain(model, torch.rand(2, 9), 0, LRP())
    with pytest.raises(ValueError, match=r"must return logits of shape \(6, C\)"):  # it forgets samples
        explain(lambda x: model(x)[:4], torch.rand(6, 10), 0, LRP())
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\]"):
        explain(model, torch.rand(2, 10), 7, LRP())
