"""What models found in the wild broke, each with an oracle of its own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from attrain import (
    LRP,
    ZB,
    AttnLRP,
    BCos,
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    UnsupportedOperation,
    ZPlus,
    explain,
)

pytestmark = pytest.mark.filterwarnings("ignore:Implicit dimension choice")
METHODS = {
    "gradient": Gradient(), "input x gradient": InputXGradient(), "guided": GuidedBackprop(), "b-cos": BCos(),
    "lrp": LRP(), "attnlrp": AttnLRP(), "z+": ZPlus(), "integrated": IntegratedGradients(steps=3),
    "smooth": SmoothGrad(Gradient(), samples=3), "occlusion": Occlusion(window=1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Normed(nn.Module):
    """With a batch norm, and numbers of which only a second look tells that they are constants."""

    def __init__(self, numbers: str):
        super().__init__()
        self.a, self.norm, self.b, self.numbers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3), numbers

    def forward(self, x):
        h = F.relu(self.norm(self.a(x)))
        if self.numbers == "a tensor made in the pass":
            h = h * torch.tensor(0.5)
        if self.numbers == "a value that is read and not used":
            h.detach().mean().item()
        return self.b(h)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("numbers", ["none", "a tensor made in the pass", "a value that is read and not used"])
def test_a_training_step_updates_the_statistics_of_batch_norm_once_and_by_x_alone(numbers, name):
    model, x = Normed(numbers).train(), torch.randn(5, 4)
    plain = copy.deepcopy(model)
    plain(x)
    explain(model, x, 0, METHODS[name], create_graph=True)
    for found, wanted in zip(model.buffers(), plain.buffers()):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("closed", [lambda m: lambda x: m(x), lambda m: m.forward])
def test_a_module_that_a_callable_closes_over_comes_back_as_it_was(closed, name):
    model = Normed("a tensor made in the pass").train()
    before = copy.deepcopy(model.state_dict())
    explain(closed(model), torch.randn(5, 4), 0, METHODS[name])
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


class Counting(nn.Module):
    """What it returns depends on how often it was called, or on what it was called with before."""

    def __init__(self, kept: str):
        super().__init__()
        self.a, self.b, self.kept, self.cache = nn.Linear(4, 6), nn.Linear(6, 3), kept, None
        self.register_buffer("count", torch.zeros(()))
        self.calls, self._hidden, self.log = 0, 0, {"calls": 0, "rows": [[]]}

    def forward(self, x):
        h = F.relu(self.a(x))
        if self.kept == "a buffer, in place":
            self.count += 1
        elif self.kept == "a buffer, anew":
            self.count = self.count + 1
        elif self.kept != "a cache":
            self.calls, self._hidden, self.log["calls"] = self.calls + 1, self._hidden + 1, self.log["calls"] + 1
            self.log["rows"][0].append(len(x))
            numbers = {"a number": self.calls, "a hidden number": self._hidden, "a dict": self.log["calls"]}
            h = h * (1 + numbers.get(self.kept, sum(map(len, self.log["rows"]))))
        else:
            self.cache = h if self.cache is None else torch.cat([self.cache, h], 1)
            h = self.cache[:, -6:] + self.cache[:, :6]
        return self.b(h * (1 + self.count))


KEPT = ["a buffer, in place", "a buffer, anew", "a cache", "a number", "a hidden number", "a dict", "a list in it"]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize(
    "method",
    [
        DeepLift(torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float64).expand(2, 1, 4), rule="reveal_cancel"),
        DeepLift(torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float64).expand(2, 1, 4)),
        IntegratedGradients(steps=400),
    ],
    ids=["reveal cancel", "rescale", "integrated"],
)
def test_each_pass_of_several_finds_the_model_as_the_first_one_found_it(method, kept):
    model, x = Counting(kept).eval(), torch.randn(3, 4)
    fresh = lambda value: copy.deepcopy(model)(value).detach()[:, 0]  # noqa: E731
    rows = method.reference if isinstance(method.reference, torch.Tensor) else torch.zeros(1, 1, 4)
    wanted = fresh(x) - torch.stack([fresh(row.expand(3, 4)) for row in rows]).mean(0)
    result = explain(model, x, 0, method)
    exact = isinstance(method, DeepLift)
    torch.testing.assert_close(result.heatmap.sum(1), wanted, atol=1e-9 if exact else 1e-2, rtol=0)
    torch.testing.assert_close(result.logits, copy.deepcopy(model)(x).detach())
    assert model.count == 0 and model.cache is None and model.calls == model._hidden == 0


@pytest.mark.parametrize("name", METHODS)
def test_numbers_and_lists_that_a_model_keeps_come_back(name):
    model = Counting("a number").eval()
    log, rows = model.log, model.log["rows"][0]
    explain(model, torch.randn(3, 4), 0, METHODS[name])
    assert model.calls == model._hidden == 0
    assert model.log is log and log["rows"][0] is rows and log == {"calls": 0, "rows": [[]]}


def test_a_training_step_counts_once():
    model = Counting("a number").train()
    explain(model, torch.randn(3, 4), 0, Gradient(), create_graph=True)
    assert model.calls == 1 and model.log["rows"] == [[3]]


def test_a_lazy_module_keeps_what_its_first_call_made_of_it():
    model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(3))
    explain(model, torch.randn(3, 4), 0, Gradient())
    assert model[0].in_features == 4 and model[2].in_features == 6


class Cached(nn.Module):
    """Keys and values in buffers, written in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        self.register_buffer("keys", torch.zeros(3, 8, 4))

    def forward(self, x):
        self.keys[: len(x), : x.shape[1]] = self.a(x)
        return self.b(F.relu(self.keys[: len(x), : x.shape[1]]).mean(1))


@pytest.mark.parametrize("name", ["gradient", "input x gradient", "lrp", "attnlrp"])
def test_a_buffer_written_in_place_can_be_explained_after_a_training_step(name):
    model, x = Cached(), torch.randn(3, 5, 4)
    for _ in range(2):
        result = explain(model, x, 0, METHODS[name], create_graph=True)
        torch.autograd.grad(result.heatmap.square().sum() + result.logits.sum(), list(model.parameters()))
        assert not model.keys.requires_grad
        wanted = explain(copy.deepcopy(model), x, 0, METHODS[name]).heatmap
        torch.testing.assert_close(result.heatmap.detach(), wanted)
        explain(model, x, 0, METHODS[name])


def test_a_buffer_that_is_a_view_comes_back():
    model = Cached()
    base = torch.zeros(4, 8, 4)
    model.keys = base[:3]
    explain(model, torch.randn(3, 5, 4), 0, Gradient())
    assert not model.keys.any() and not model.keys.requires_grad


def _routed(x):
    """The two largest of three, by indices."""
    top = x.topk(2, 1)
    return torch.full_like(x, -1.0).scatter(1, top.indices, top.values)


def _quantised(x):
    table = torch.arange(12.0).view(4, 3)
    return x + (F.embedding((x @ table.T).argmax(1), table) - x).detach()


@pytest.mark.parametrize("f", [_routed, _quantised])
def test_several_references_are_refused_only_where_one_of_them_is(f):
    x = torch.tensor([[3.0, 2.0, 1.0], [6.0, 5.0, 1.0]])
    references = torch.stack([0.5 * x[:1], 0.1 * x[:1], 0.2 * x[:1]])
    result = explain(f, x, 0, DeepLift(references))
    wanted = f(x)[:, 0] - torch.stack([f(r)[:, 0] for r in references]).mean(0)
    torch.testing.assert_close(result.heatmap.sum(1), wanted)


def test_several_references_in_another_order_are_refused_by_name():
    with pytest.raises(UnsupportedOperation, match="topk"):
        explain(_routed, torch.tensor([[3.0, 2.0, 1.0], [6.0, 5.0, 1.0]]), 0, DeepLift(torch.randn(3, 1, 3)))


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax, F.softmin])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_deeplift_through_a_softmax_without_a_dimension_is_complete(f, shape):
    model, x = (lambda x: f(x * 1.0).flatten(1)), torch.randn(shape)
    result = explain(model, x, 0, DeepLift())
    wanted = (model(x) - model(torch.zeros(shape)))[:, 0]
    torch.testing.assert_close(result.heatmap.sum().reshape(()), wanted.sum())


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", ["gradient", "input x gradient", "guided", "smooth", "integrated"])
def test_maps_through_the_hard_sigmoid_train(name, inplace):
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Hardsigmoid(inplace), nn.Linear(6, 3)), torch.randn(3, 4)
    result = explain(model, x, 0, METHODS[name], create_graph=True)
    torch.testing.assert_close(result.heatmap.detach(), explain(model, x, 0, METHODS[name]).heatmap)
    (found,) = torch.autograd.grad(result.heatmap.square().sum(), [model[0].weight])
    assert found.isfinite().all() and found.any()


def test_integrated_gradients_at_a_layer_before_attention_train():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(40, 3)

        def forward(self, x):
            h = self.a(x)[:, None]
            return self.b(F.scaled_dot_product_attention(h, h, h).flatten(1))

    model, method = Fused(), IntegratedGradients(steps=2)
    result = explain(model, torch.randn(2, 5, 4), 0, method, layers="a", create_graph=True)
    (found,) = torch.autograd.grad(result.layers["a"].square().sum(), [model.a.weight])
    assert found.isfinite().all() and found.any()


@pytest.mark.parametrize("reference", [0.0, torch.ones(1, 4), torch.randn(3, 4), torch.randn(2, 1, 4)])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel", "genomics"])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("create_graph", [False, True])
def test_deeplift_at_every_layer_sums_to_the_difference_of_two_calls(rule, reference, inplace, create_graph):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    x, rows = torch.randn(3, 4), torch.as_tensor(reference).double()
    rows = [r.expand(3, 4) for r in (rows if rows.ndim == 3 else [rows])]
    wanted = (model(x) - torch.stack([model(r) for r in rows]).mean(0)).detach()[:, 0]
    layers = [name for name, _ in model.named_children()][:-1]
    result = explain(model, x, 0, DeepLift(reference, rule=rule), layers=layers, create_graph=create_graph)
    for name in layers:
        torch.testing.assert_close(result.layers[name].detach().sum(1), wanted, msg=name)


def _assigned(x):
    h = x * 1.0
    h.data = h.data * 2
    return h


def _listed(x):
    return torch.tensor((x * 1.0).tolist()) + x


@pytest.mark.parametrize("reference", [0.0, torch.randn(3, 1, 4)], ids=["one", "several"])
@pytest.mark.parametrize(("f", "why"), [(_assigned, "data"), (_listed, "tolist")])
def test_values_that_go_past_the_operations_are_refused_by_name(f, why, reference):
    with pytest.raises(UnsupportedOperation, match=why):
        explain(f, torch.randn(2, 4), 0, DeepLift(reference))


def test_a_refused_training_step_leaves_the_buffers_as_they_were():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Sigmoid(), nn.Linear(6, 3)).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UnsupportedOperation, match="sigmoid"):
        explain(model, torch.randn(5, 4), 0, LRP(), create_graph=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", ["view_as", "expand_as", "reshape_as", "type_as"])
def test_an_activation_in_the_shape_of_itself_is_an_activation(name):
    a, b, x = nn.Linear(4, 5), nn.Linear(5, 3), torch.randn(2, 4)
    model = lambda x: b(getattr(x, name)(x).relu()) if x.shape[1] == 5 else model(a(getattr(x, name)(x)))  # noqa: E731
    plain = lambda x: b(a(x).relu())  # noqa: E731
    for method in [*METHODS.values(), DeepLift(1.0), DeepLift(1.0, "reveal_cancel"), LRP(first_layer=ZB(-9, 9))]:
        torch.testing.assert_close(explain(model, x, 0, method).heatmap, explain(plain, x, 0, method).heatmap)


class Checkpointed(nn.Module):
    """A block whose activations are made again in the backward pass."""

    def __init__(self, reentrant: bool):
        super().__init__()
        self.a, self.block, self.b = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.Linear(4, 3)
        self.reentrant, self.remembers = reentrant, False

    def forward(self, x):
        h = F.relu(self.a(x))
        again = lambda h: checkpoint(self.block, h, use_reentrant=self.reentrant)  # noqa: E731
        return self.b((self.block if self.remembers else again)(h).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", [*METHODS, "rescale", "reveal cancel", "grad-cam", "z^B"])
def test_recomputed_activations_have_the_same_map_or_are_refused(name, reentrant, create_graph):
    more = {"rescale": DeepLift(), "reveal cancel": DeepLift(rule="reveal_cancel"), "grad-cam": GradCAM("a")}
    method = (METHODS | more | {"z^B": LRP(first_layer=ZB(-9, 9))})[name]
    if isinstance(method, Occlusion) and create_graph:
        pytest.skip("has no gradient")
    model, x = Checkpointed(reentrant).eval(), torch.randn(2, 3, 7, 7)
    try:
        found = explain(model, x, 0, method, create_graph=create_graph).heatmap
    except UnsupportedOperation as error:
        assert "checkpointing" in str(error) or "CheckpointFunction" in str(error)
        return
    assert name not in ("z+", "attnlrp", "b-cos", "rescale", "reveal cancel")
    model.remembers = True
    torch.testing.assert_close(found, explain(model, x, 0, method, create_graph=create_graph).heatmap)


def test_hypothetical_contributions_beside_token_ids_take_the_reference_of_their_own_input():
    table, a, b = nn.Embedding(7, 4), nn.Conv1d(4, 5, 3), nn.Linear(5, 2)
    read = lambda x: b(F.relu(a(x)).mean(2))  # noqa: E731
    ids, x, r = torch.randint(7, (3, 6)), torch.rand(3, 4, 6), torch.rand(1, 4, 6)
    both = lambda ids, x: read(x) + 0 * table(ids).mean(1)[:, :2]  # noqa: E731
    method = DeepLift((torch.zeros(1, 6, dtype=torch.long), r), hypothetical=True)
    found = explain(both, (ids, x), 0, method).heatmap[1]
    torch.testing.assert_close(found, explain(read, x, 0, DeepLift(r, hypothetical=True)).heatmap)


class Reader(nn.Module):
    """A recurrent layer over steps of given lengths: packed, or read sample by sample as far as each goes."""

    def __init__(self, kind, order: str, **options):
        super().__init__()
        self.a, self.rnn, self.order = nn.Linear(4, 6), kind(6, 5, batch_first=True, **options), order
        self.b, self.lengths, self.packs = nn.LazyLinear(3), [5, 3, 1] if order == "sorted" else [3, 5, 1], True

    def read(self, h, lengths):
        return self.rnn(pack_padded_sequence(h, torch.tensor(lengths), True, enforce_sorted=self.order == "sorted"))

    def forward(self, x):
        h, lengths = self.a(x), self.lengths
        if self.packs:
            packed, state = self.read(h, lengths)
            steps = pad_packed_sequence(packed, batch_first=True)[0].sum(1)
        else:
            found = [self.rnn(row[None, :n]) for row, n in zip(h, lengths)]
            steps = torch.cat([f[0].sum(1) for f in found])
            state = [f[1] for f in found]
            state = tuple(torch.cat(s, 1) for s in zip(*state)) if self.rnn.mode == "LSTM" else torch.cat(state, 1)
        last = state[0] if isinstance(state, tuple) else state
        return self.b(torch.cat([steps, last.transpose(0, 1).flatten(1)], 1))


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("order", ["sorted", "not sorted"])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_packed_sequence_has_the_map_of_each_sample_read_by_itself(kind, options, order, rule):
    model, x = Reader(kind, order, **options).eval(), torch.randn(3, 5, 4)
    for reference in (torch.randn(1, 5, 4), torch.randn(3, 5, 4)):
        model.packs = True
        model(x)
        found = explain(model, x, 0, DeepLift(reference, rule))
        model.packs = False
        wanted = explain(model, x, 0, DeepLift(reference, rule))
        torch.testing.assert_close(found.heatmap.flatten(1).sum(1), wanted.delta)
        if rule == "rescale" or kind is not nn.GRU:  # a product with a state that stays is not one with a constant
            torch.testing.assert_close(found.heatmap, wanted.heatmap)
        assert not found.heatmap[2, 1:].any()


PLACES = torch.tensor([[0, 2, 0, 2, 2, 1], [3, 3, 3, 3, 3, 3], [0, 1, 2, 3, 0, 1]])


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "mean", "amax", "amin", "prod"])
@pytest.mark.parametrize("written", [False, True])
def test_scattered_sums_means_and_maxima_are_complete(written, reduce, own, rule):
    a, b, c = nn.Linear(4, 6), nn.Linear(4, 4), nn.Linear(4, 3)

    def model(x):
        start, values = b(x), a(x)
        if written:
            start = torch.full((len(x), 4), 0.1)
            start.scatter_reduce_(1, PLACES[: len(x)], values, reduce, include_self=own)
            return c(start)
        return c(start.scatter_reduce(1, PLACES[: len(x)], values, reduce, include_self=own))

    x, reference = torch.randn(3, 4), torch.randn(3, 4)
    if reduce == "prod":
        with pytest.raises(UnsupportedOperation, match="prod"):
            explain(model, x, 0, DeepLift(reference, rule))
        return
    found = explain(model, x, 0, DeepLift(reference, rule)).heatmap
    torch.testing.assert_close(found.sum(1), (model(x) - model(reference))[:, 0].detach())
    many = [explain(lambda x, k=k: c(_scattered(b(x), a(x), k, reduce, own, written)), x[k : k + 1], 0,
                    DeepLift(reference[k : k + 1], rule)).heatmap for k in range(3)]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(many))


def _scattered(start, values, row: int, reduce: str, own: bool, written: bool):
    """The same of one row, place by place."""
    found, start = [], torch.full_like(start, 0.1) if written else start
    for place in range(4):
        members = [values[:, j] for j in range(6) if PLACES[row, j] == place]
        members += [start[:, place]] if own or not members else []
        group = torch.stack(members, 1)
        found.append({"sum": group.sum(1), "mean": group.mean(1), "amax": group.amax(1), "amin": group.amin(1)}[reduce])
    return torch.stack(found, 1)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("size", [torch.abs, torch.Tensor.abs, abs, lambda z: torch.view_as_real(z).norm(dim=-1)])
def test_deeplift_through_the_magnitude_of_complex_numbers_is_complete(size, rule):
    a, b, x, reference = nn.Linear(4, 6), nn.Linear(6, 3), torch.randn(3, 4), torch.randn(1, 4)
    model = lambda x: b(size(torch.fft.fft(a(x))))  # noqa: E731
    found = explain(model, x, 0, DeepLift(reference, rule)).heatmap
    torch.testing.assert_close(found.sum(1), (model(x) - model(reference))[:, 0].detach())
    same = lambda x: b(torch.view_as_real(torch.fft.fft(a(x))).square().sum(-1).sqrt())  # noqa: E731
    torch.testing.assert_close(found, explain(same, x, 0, DeepLift(reference, rule)).heatmap)


@pytest.mark.parametrize("name", ["gradient", "input x gradient", "lrp", "attnlrp", "b-cos"])
def test_a_grouped_product_is_that_of_its_groups(name):
    a, b, weights = nn.Linear(4, 16).float(), nn.Linear(16, 3).float(), torch.randn(2, 16, 16, dtype=torch.float32)
    ends, x = torch.tensor([2, 6], dtype=torch.int32), torch.randn(6, 4, dtype=torch.float32)
    whole = lambda x: b(F.grouped_mm(a(x).relu(), weights, offs=ends).relu())  # noqa: E731

    def apart(x):
        h = a(x).relu()
        return b(torch.cat([h[:2] @ weights[0], h[2:] @ weights[1]]).relu())

    for method in (METHODS[name], DeepLift(0.5), DeepLift(0.5, "reveal_cancel")):
        wanted = explain(apart, x, 0, method).heatmap
        torch.testing.assert_close(explain(whole, x, 0, method).heatmap, wanted, rtol=1e-3, atol=1e-3)
