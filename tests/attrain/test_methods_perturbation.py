"""Occlusion and in-silico mutagenesis: equal to the naive loop, to captum and to tangermeme, whatever the batch."""

from functools import partial
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attrain import InSilicoMutagenesis, Occlusion, explain
from attrain.targets import stochastic_target


def net_of(shape, outputs=3):
    """Any smooth network of samples of a shape."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 7), nn.Tanh(), nn.Linear(7, outputs)
    ).double()


def x_of(n, shape):
    return torch.randn(n, *shape, dtype=torch.float64)


def naive_occlusion(score, x, window, stride, reference):
    """One window, one sample after another; windows are cut off at the end."""
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    starts = [
        [a for a in range(0, size, s) if a == 0 or a - s + w < size] for size, w, s in zip(x.shape[1:], window, stride)
    ]
    for i in range(len(x)):
        before = score(x[i : i + 1])
        for corner in product(*starts):
            at = (i, *(slice(a, a + w) for a, w in zip(corner, window)))
            changed = x.clone()
            changed[at] = reference.expand_as(x)[at]
            total[at] += (before - score(changed[i : i + 1])).detach()
            count[at] += 1
    return total / count


WINDOWS = {
    "an int is every dimension but channels": ((2, 5, 4), 2, None, (2, 2, 2), (2, 2, 2)),
    "of features": ((7,), 3, None, (3,), (3,)),
    "overlapping": ((2, 5, 4), 3, 1, (2, 3, 3), (2, 1, 1)),
    "cut off at the end": ((2, 5, 4), 3, 2, (2, 3, 3), (2, 2, 2)),
    "a size a dimension": ((2, 5, 4), (3, 1), (2, 1), (2, 3, 1), (2, 2, 1)),
    "channel by channel": ((2, 5, 4), (1, 2, 2), None, (1, 2, 2), (1, 2, 2)),
    "the last dimension alone": ((2, 5, 4), (3,), (2,), (2, 5, 3), (2, 5, 2)),
    "a sequence": ((4, 9), 2, 1, (4, 2), (4, 1)),
    "a volume": ((1, 3, 4, 3), 2, None, (1, 2, 2, 2), (1, 2, 2, 2)),
    "all of it": ((2, 3), (2, 3), None, (2, 3), (2, 3)),
}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("name", WINDOWS)
def test_occlusion_is_the_naive_loop(name, batch_size):
    shape, window, stride, full, step = WINDOWS[name]
    net, x, reference = net_of(shape), x_of(3, shape), x_of(1, shape)
    found = explain(net, x, 1, Occlusion(window, stride, reference, batch_size))
    want = naive_occlusion(lambda t: net(t)[:, 1].sum(), x, full, step, reference)
    torch.testing.assert_close(found.heatmap, want)
    torch.testing.assert_close(found.logits, net(x).detach())
    assert found.delta is None and found.layers == {}


@pytest.mark.parametrize(
    ("shape", "window", "strides"),
    [
        ((2, 7, 6), (2, 3, 2), (2, 2, 2)),
        ((2, 7, 6), (1, 2, 2), (1, 1, 2)),
        ((4, 9), (4, 3), (4, 2)),
        ((8,), (3,), (1,)),
    ],
)
def test_occlusion_is_captums(shape, window, strides):
    captum = pytest.importorskip("captum.attr")
    net, x, reference = net_of(shape), x_of(2, shape), x_of(1, shape)
    want = captum.Occlusion(net).attribute(x, window, strides, reference, target=2, perturbations_per_eval=4)
    found = explain(net, x, 2, Occlusion(window, strides, reference))
    torch.testing.assert_close(found.heatmap, want, check_dtype=False)


def test_of_a_linear_model_occlusion_of_single_elements_is_weight_times_difference():
    net, x, r = nn.Linear(5, 2).double(), x_of(3, (5,)), x_of(3, (5,))
    found = explain(net, x, 0, Occlusion(1, reference=r)).heatmap
    torch.testing.assert_close(found, (net.weight[0] * (x - r)).detach())


def picked(single, net, x, target):
    """Of maps of each class (N, C, ...) those of a target."""
    rows = torch.arange(len(x))
    if target is None:
        return single[rows, net(x).argmax(1)]
    if isinstance(target, str):
        return single
    target = torch.as_tensor(target)
    return single[:, target] if target.ndim == 0 else single[rows.view(-1, *[1] * (target.ndim - 1)), target]


TARGETS = [None, 1, [0, 2, 1], torch.tensor([[0, 1], [2, 2], [1, 0]]), "all"]


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("method", [Occlusion, InSilicoMutagenesis])
@pytest.mark.parametrize("target", TARGETS)
def test_any_target_has_the_maps_of_its_classes(method, target, batch_size):
    net, x = net_of((4, 5)), one_hot(3, 4, 5)
    method = Occlusion(2, batch_size=batch_size) if method is Occlusion else method("centred", batch_size)
    single = torch.stack([explain(net, x, c, method).heatmap for c in range(3)], 1)
    torch.testing.assert_close(explain(net, x, target, method).heatmap, picked(single, net, x, target))


def test_a_chosen_class_stays_that_of_the_input_as_it_is():
    net, x = net_of((6,)), x_of(20, (6,))
    found = explain(net, x, None, Occlusion(3))
    torch.testing.assert_close(found.heatmap, explain(net, x, net(x).argmax(1), Occlusion(3)).heatmap)
    drawn = explain(net, x, stochastic_target(generator=torch.Generator().manual_seed(0)), Occlusion(3)).heatmap
    each = torch.stack([explain(net, x, c, Occlusion(3)).heatmap for c in range(3)])
    assert all(any(torch.allclose(m, e) for e in each[:, i]) for i, m in enumerate(drawn))


class Several(nn.Module):
    """Two inputs, one of them ids, arguments with and without a row a sample, and an object as output."""

    def __init__(self, form="tensor"):
        super().__init__()
        self.table, self.head, self.form = nn.Embedding(9, 4), nn.Linear(9, 3), form

    def forward(self, image, ids, mask, scale, *, shift):
        e = (self.table(ids) * mask[..., None]).sum(1).tanh()
        out = self.head(torch.cat([image.flatten(1), e, shift[:, None]], 1)) * scale
        return {
            "tensor": out,
            "logits": SimpleNamespace(logits=out),
            "dict": {"out": out, "more": [out.relu()]},
            "object": SimpleNamespace(it=out),
            "(N,)": out[:, 1],
        }[self.form]


def several(n=3):
    image, ids = x_of(n, (2, 2)), torch.randint(1, 9, (n, 5))
    args = (torch.rand(n, 5, dtype=torch.float64), torch.tensor([2.0, 3.0, 0.5], dtype=torch.float64))
    return (image, ids), args, {"shift": torch.randn(n, dtype=torch.float64)}


READ = {
    "tensor": (1, lambda o: o[:, 1]),
    "logits": (1, lambda o: o.logits[:, 1]),
    "dict": (lambda o: o["out"][:, 1] + o["more"][0][:, 0], lambda o: o["out"][:, 1] + o["more"][0][:, 0]),
    "object": (lambda o: o.it[:, 1], lambda o: o.it[:, 1]),
    "(N,)": (None, lambda o: o),
}


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.parametrize("form", READ)
def test_several_inputs_ids_arguments_and_outputs_of_every_form(form, n):
    net, (x, args, kwargs) = Several(form).double(), several(n)
    target, read = READ[form]
    found = explain(net, x, target, Occlusion((1, 2), reference=(0.5, 7)), args=args, kwargs=kwargs)
    before = read(net(*x, *args, **kwargs))
    for t in range(5):  # two tokens at once, the last alone
        ids = x[1].clone()
        ids[:, t // 2 * 2 : t // 2 * 2 + 2] = 7
        want = before - read(net(x[0], ids, *args, **kwargs))
        torch.testing.assert_close(found.heatmap[1][:, t], want.detach())
    for row, column in product(range(2), range(2)):
        image = x[0].clone()
        image[:, :, column] = 0.5  # all of the first dimension after the samples
        want = before - read(net(image, x[1], *args, **kwargs))
        torch.testing.assert_close(found.heatmap[0][:, row, column], want.detach())


def test_token_ids_alone_have_a_map_as_no_gradient_is_needed():
    net, ids = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)).double(), torch.randint(1, 9, (2, 5))
    found = explain(net, ids, 1, Occlusion(1, reference=3)).heatmap
    for t in range(5):
        changed = ids.clone()
        changed[:, t] = 3
        torch.testing.assert_close(found[:, t], (net(ids) - net(changed))[:, 1].detach())


@pytest.mark.parametrize("shape", [(4, 1, 6), (4, 3, 6)])
def test_over_several_references_maps_are_averaged(shape):
    net, x, r = net_of((6,)), x_of(3, (6,)), x_of(4, shape[1:])
    found = explain(net, x, 0, Occlusion(2, reference=r)).heatmap
    want = torch.stack([explain(net, x, 0, Occlusion(2, reference=each)).heatmap for each in r]).mean(0)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("method", [Occlusion(2, reference=x_of(7, (2, 5))), Occlusion(2, 1)])
def test_chunks_give_what_the_whole_gives(method):
    net, x = net_of((2, 5)), x_of(7, (2, 5))
    torch.testing.assert_close(explain(net, x, 1, method, chunk_size=3).heatmap, explain(net, x, 1, method).heatmap)


class Mixes(nn.Module):
    """A sample's output depends on its neighbour's."""

    def forward(self, x):
        return x + x.roll(1, 0).square()


class Keeps(nn.Module):
    """Holds something of each sample, where nobody can cut or repeat it."""

    def __init__(self, n):
        super().__init__()
        self.mask = torch.rand(n, 4, dtype=torch.float64)

    def forward(self, x):
        return (x * self.mask).square()


@pytest.mark.parametrize("model", [Mixes(), Keeps(3), nn.BatchNorm1d(4).double().train()])
def test_samples_that_depend_on_the_batch_are_not_put_beside_others(model):
    x = x_of(3, (4,))
    found = explain(model, x, 1, Occlusion(1)).heatmap
    for f in range(4):
        changed = x.clone()
        changed[:, f] = 0
        torch.testing.assert_close(found[:, f], (model(x) - model(changed))[:, 1].detach())


def test_the_model_comes_back_as_it_was_and_x_is_not_modified():
    model, x = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)).train(), torch.randn(3, 4)
    state, before = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    explain(model, x, 0, Occlusion(1))
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items()) and torch.equal(x, before)
    assert model.training and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("method", [Occlusion(2, 1), InSilicoMutagenesis("centred")])
def test_no_gradient_is_needed_and_memory_is_that_of_a_batch(method):
    sizes = []

    def model(x):
        assert not torch.is_grad_enabled()
        sizes.append(len(x))
        return torch.round(x.sum((1, 2)))[:, None] + 0.0

    explain(model, one_hot(3, 4, 50), 0, method)
    assert max(sizes) <= 64


@pytest.mark.parametrize(
    "make", [lambda: (Occlusion(2, 1), x_of(3, (4, 6))), lambda: (InSilicoMutagenesis(), one_hot(3, 4, 6))]
)
def test_maps_train_the_parameters(make):
    method, x = make()
    net, step = net_of((4, 6)), 1e-6
    weight = net[1].weight
    found = explain(net, x, 1, method, create_graph=True)
    (gradient,) = torch.autograd.grad(found.heatmap.square().sum() + found.logits.sum(), weight)
    direction, losses = torch.randn_like(weight), []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        again = explain(net, x, 1, method)
        losses.append(again.heatmap.square().sum() + again.logits.sum())
        with torch.no_grad():
            weight -= sign * step * direction
    torch.testing.assert_close((gradient * direction).sum(), (losses[0] - losses[1]) / (2 * step), rtol=1e-5, atol=1e-7)


REFUSED = {
    "a window that is too large": (Occlusion((3, 9)), "window .* larger than x of shape"),
    "gaps": (Occlusion(2, 3), "stride 3 leaves gaps"),
    "no number": (Occlusion(2.0), "window must be a whole number"),
    "zero": (Occlusion(0), "window must be a whole number >= 1"),
    "too many dimensions": (Occlusion((1, 1, 1)), r"window must have 1 to 2 numbers for samples of shape \(4, 6\)"),
    "a dict for one tensor": (Occlusion({"a": 1}), "window must be a whole number"),
    "a reference of another shape": (
        Occlusion(1, reference=torch.zeros(1, 5)),
        "reference must be a number or have shape",
    ),
    "not one-hot": (InSilicoMutagenesis(), r"one-hot x \(N, A, L\).*got shape \(2, 4, 6\) with values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    method, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        explain(net_of((4, 6)), x_of(2, (4, 6)), 0, method)
    with pytest.raises(ValueError, match=message):
        explain(net_of((4, 6)), x_of(2, (4, 6)), 0, method, chunk_size=1)


@pytest.mark.parametrize("method", [Occlusion(1), InSilicoMutagenesis()])
def test_maps_at_layers_are_refused(method):
    with pytest.raises(ValueError, match=r"no maps at layers, got layers=.*method with a backward pass"):
        explain(net_of((4, 6)), one_hot(2, 4, 6), 0, method, layers="1")


@pytest.mark.parametrize("make", [partial(Occlusion, 1), InSilicoMutagenesis])
@pytest.mark.parametrize(
    ("batch_size", "error", "message"),
    [
        *((few, ValueError, f"^batch_size must be >= 1, got {few}$") for few in (0, -1)),
        *((other, TypeError, f"^batch_size must be a whole number, got {other}$") for other in (2.0, True, None)),
    ],
)
def test_a_batch_size_is_a_whole_number_of_one_or_more(make, batch_size, error, message):
    with pytest.raises(error, match=message):
        make(batch_size=batch_size)


# ---------------------------------------------------------------- letters


def one_hot(n, letters, length):
    return nn.functional.one_hot(torch.randint(letters, (n, length)), letters).mT.double()


@pytest.mark.parametrize("batch_size", [1, 9, 64])
@pytest.mark.parametrize("letters", [4, 5])
def test_mutagenesis_is_the_naive_loop(letters, batch_size):
    net, x = net_of((letters, 7)), one_hot(3, letters, 7)
    x[1, :, 2] = 0  # unknown
    found = explain(net, x, 1, InSilicoMutagenesis(batch_size=batch_size)).heatmap
    want = torch.zeros_like(x)
    for i, letter, place in product(range(3), range(letters), range(7)):
        changed = x[i : i + 1].clone()
        changed[0, :, place] = 0
        changed[0, letter, place] = 1
        want[i, letter, place] = (net(changed) - net(x[i : i + 1]))[0, 1].detach()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(found[x == 1], torch.zeros_like(found[x == 1]))
    centred = explain(net, x, 1, InSilicoMutagenesis("centred", batch_size)).heatmap
    torch.testing.assert_close(centred, want - want.mean(1, keepdim=True))


def test_mutagenesis_is_tangermemes():
    tangermeme = pytest.importorskip("tangermeme.saturation_mutagenesis")
    net, x = net_of((4, 6), outputs=1).float(), one_hot(3, 4, 6).float()
    want = tangermeme.saturation_mutagenesis(net, x, device="cpu", hypothetical=True, verbose=False)
    torch.testing.assert_close(explain(net, x, 0, InSilicoMutagenesis("centred")).heatmap, want, rtol=1e-4, atol=1e-5)


def test_mutagenesis_of_one_sequence_beside_other_arguments():
    class Net(nn.Module):
        def forward(self, dna, signal):
            return (dna * signal[:, None]).sum((1, 2))

    x, signal = one_hot(2, 4, 6), torch.rand(2, 6, dtype=torch.float64)
    found = explain(Net(), x, None, InSilicoMutagenesis(), args=(signal,)).heatmap
    torch.testing.assert_close(found, torch.zeros_like(x))
    with pytest.raises(ValueError, match="hand the others to the model by args or kwargs"):
        explain(Net(), (x, signal), None, InSilicoMutagenesis())


def test_a_normalisation_is_one_of_two():
    with pytest.raises(ValueError, match='must be "change" or "centred", got \'mean\''):
        InSilicoMutagenesis("mean")


@pytest.mark.parametrize("method", [Occlusion(1), InSilicoMutagenesis()])
def test_no_samples_have_no_maps(method):
    net, x = net_of((4, 6)), one_hot(2, 4, 6)[:0]
    assert explain(net, x, 0, method).heatmap.shape == (0, 4, 6)
