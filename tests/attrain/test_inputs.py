"""What goes in: several tensors, token ids, arguments, in chunks. By packing, splitting, autograd and plain calls."""

from collections import OrderedDict, UserDict, namedtuple
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attrain import (
    AttnLRP,
    BCos,
    DeepLift,
    GradCAM,
    Gradient,
    InputXGradient,
    InSilicoMutagenesis,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
    UnsupportedOperation,
    explain,
)
from tests.attrain.oracles import DEEPLIFT, METHODS

LEGENDRE = {"gauss_legendre": IntegratedGradients(steps=4, quadrature="gauss_legendre")}
EVERY = {name: method for name, method in METHODS.items() if name != "lrp_zb"} | LEGENDRE  # z^B: see what is refused
WITH_REFERENCE = ("input_x_gradient", "guided", "integrated_gradients", "gauss_legendre", "rescale", "reveal_cancel")


def with_reference(name, reference):
    method = EVERY[name]
    if isinstance(method, DeepLift):
        return DeepLift(reference, method.rule)
    if isinstance(method, IntegratedGradients):
        return IntegratedGradients(reference, method.steps, method.quadrature)
    return type(method)(reference)


def target_of(name):
    return None if name == "dual" else 1


def maps_of(found):
    """All maps at the inputs, those of whole numbers left out."""
    heatmap = found.heatmap
    values = heatmap.values() if isinstance(heatmap, dict) else heatmap if isinstance(heatmap, tuple) else [heatmap]
    return [m for m in values if m is not None]


# ---------------------------------------------------------------- several inputs


class Branches(nn.Module):
    """Two inputs of unlike shapes, summed and put side by side, so that every method has rules for all of it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.joint, self.head = nn.Linear(6, 5), nn.Linear(3, 5), nn.Linear(10, 6), nn.Linear(6, 3)

    def forward(self, image, table):
        a, b = self.a(image.flatten(1)).relu(), self.b(table)
        return self.head(self.joint(torch.cat([a + b, b.relu()], 1)).relu())


class Packed(nn.Module):
    """The same with one input."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x[:, :6].unflatten(1, (2, 3)), x[:, 6:])


def pack(image, table):
    return torch.cat([image.flatten(-2), table], -1)


def branches():
    image = torch.randn(4, 2, 3, dtype=torch.float64)
    return Branches().double(), (image, torch.randn(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("form", ["tuple", "dict", "dict in another order", "ordered dict", "another mapping"])
@pytest.mark.parametrize("name", EVERY)
def test_several_inputs_have_the_maps_of_the_same_packed_into_one(name, form):
    net, (image, table) = branches()
    x = {
        "tuple": (image, table),
        "dict": {"image": image, "table": table},
        "dict in another order": {"table": table, "image": image},
        "ordered dict": OrderedDict(image=image, table=table),
        "another mapping": UserDict(image=image, table=table),  # as a tokenizer of transformers returns
    }[form]
    found = explain(net, x, target_of(name), EVERY[name], layers="joint")
    want = explain(Packed(net), pack(image, table), target_of(name), EVERY[name], layers="net.joint")
    assert type(found.heatmap) is tuple if isinstance(x, tuple) else list(found.heatmap) == list(x)
    first, second = found.heatmap if isinstance(x, tuple) else (found.heatmap["image"], found.heatmap["table"])
    torch.testing.assert_close(pack(first, second), want.heatmap)
    torch.testing.assert_close(found.layers["joint"], want.layers["net.joint"])
    torch.testing.assert_close((found.logits, found.delta), (want.logits, want.delta))


def references(kind):
    draw = partial(torch.randn, dtype=torch.float64)
    shape = {"shared": (1,), "one a sample": (4,), "R shared": (3, 1), "R a sample": (3, 4)}[kind]
    return draw(*shape, 2, 3), draw(*shape, 3)


@pytest.mark.parametrize("kind", ["shared", "one a sample", "R shared", "R a sample"])
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_references_have_the_form_of_the_inputs(name, kind):
    net, x = branches()
    r = references(kind)
    want = explain(Packed(net), pack(*x), 1, with_reference(name, pack(*r)))
    for inputs, reference in ((x, r), (x, list(r)), ({"image": x[0], "table": x[1]}, {"table": r[1], "image": r[0]})):
        found = explain(net, inputs, 1, with_reference(name, reference))
        torch.testing.assert_close(pack(*maps_of(found)), want.heatmap)
        torch.testing.assert_close(found.delta, want.delta)


@pytest.mark.parametrize("name", [n for n in WITH_REFERENCE if n not in ("input_x_gradient", "guided")])
def test_the_maps_of_all_inputs_together_sum_to_the_difference_of_two_plain_calls(name):
    net, x = branches()
    r = references("shared")
    method = with_reference(name, (r[0], 0.25))
    if isinstance(method, IntegratedGradients):
        method = IntegratedGradients(method.reference, 2000, method.quadrature)
    found = explain(net, x, 1, method)
    with torch.no_grad():
        want = (net(*x) - net(r[0].expand_as(x[0]), torch.full_like(x[1], 0.25)))[:, 1]
    torch.testing.assert_close(found.delta, want)
    tolerance = 1e-3 if isinstance(method, IntegratedGradients) else 1e-9
    torch.testing.assert_close(sum(m.flatten(1).sum(1) for m in found.heatmap), want, rtol=tolerance, atol=tolerance)


def test_an_input_that_a_reference_equals_has_no_part():
    net, x = branches()
    found = explain(net, x, 1, DeepLift((x[0], 0.0)))
    assert not found.heatmap[0].any() and found.heatmap[1].any()


def test_an_unused_input_has_a_map_of_zeros():
    class Ignores(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, a, b):
            return self.linear(a).relu()

    a, b = torch.rand(3, 2), torch.rand(3, 5)
    net = Ignores()
    nn.init.constant_(net.linear.weight, 0.5)
    for name, method in EVERY.items():
        found = explain(net, (a, b), target_of(name), method)
        assert found.heatmap[0].any() and not found.heatmap[1].any(), name
        assert found.heatmap[1].shape[-1] == 5


@pytest.mark.parametrize("target", [None, "all", [0, 2, 1, 1], torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0]])])
@pytest.mark.parametrize("name", [n for n in EVERY if n != "dual"])
def test_several_inputs_and_several_maps_a_sample(name, target):
    net, x = branches()
    found = explain(net, x, target, EVERY[name])
    want = explain(Packed(net), pack(*x), target, EVERY[name])
    torch.testing.assert_close(pack(*found.heatmap), want.heatmap)


# ---------------------------------------------------------------- arguments


class Conditioned(nn.Module):
    """Masked and scaled by arguments."""

    def __init__(self):
        super().__init__()
        self.a, self.head = nn.Linear(3, 6), nn.Linear(6, 3)

    def forward(self, x, mask, *, scale, flag=False, more=None):
        h = (self.a(x).relu() * mask[..., None]).sum(1) * scale
        return self.head(h if more is None else h + more["bias"][0]) * (2 if flag else 1)


def conditioned():
    net, x = Conditioned().double(), torch.randn(5, 4, 3, dtype=torch.float64)
    args = (torch.rand(5, 4, dtype=torch.float64) > 0.3,)
    bias = torch.randn(5, 6, dtype=torch.float64)
    return net, x, args, {"scale": torch.tensor(1.5), "flag": True, "more": {"bias": [bias, "text"]}}


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("zplus", "dual")])
def test_arguments_are_constants_and_cut_along_with_x(name, chunk_size):
    net, x, args, kwargs = conditioned()
    found = explain(net, x, target_of(name), EVERY[name], args=args, kwargs=kwargs, chunk_size=chunk_size)
    want = explain(lambda t: net(t, *args, **kwargs), x, target_of(name), EVERY[name])
    torch.testing.assert_close(tuple(found), tuple(want))


@pytest.mark.parametrize("chunk_size", [1, 3, 4])
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_several_inputs_in_chunks_with_references_of_every_shape(name, chunk_size):
    net, x = branches()
    for kind in ("shared", "one a sample", "R shared", "R a sample"):
        first, second = references(kind)
        for inputs, reference in (
            (x, (first, second)),
            ({"image": x[0], "table": x[1]}, {"image": first, "table": 0.5}),
        ):
            whole = explain(net, inputs, [0, 1, 2, 0], with_reference(name, reference), layers="joint")
            parts = explain(
                net, inputs, [0, 1, 2, 0], with_reference(name, reference), layers="joint", chunk_size=chunk_size
            )
            torch.testing.assert_close(tuple(parts), tuple(whole))


Pair = namedtuple("Pair", "gain bias")


class Encoded(OrderedDict):
    """As transformers' outputs: a dict whose values are attributes too."""

    def __getattr__(self, name):
        return self[name]


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3])
def test_arguments_of_any_nesting_keep_their_types_and_are_cut(chunk_size):
    linear = nn.Linear(3, 2).double()

    def model(x, pair, *, encoded, more):
        assert type(pair) is Pair and type(encoded) is Encoded and type(more["list"]) is list
        assert more["text"] == ["a", "b", "c"] and more["list"][1] is None and type(more) is dict
        return linear((x * pair.gain + pair.bias).relu() + encoded.state[0] * more["list"][0]["deep"][0])

    x, gain, state, deep = (torch.randn(3, 3, dtype=torch.float64) for _ in range(4))
    given = {"encoded": Encoded(state=(state, 1)), "more": {"text": ["a", "b", "c"], "list": [{"deep": (deep,)}, None]}}
    options = {"args": [Pair(gain, torch.ones(1, 3).double())], "kwargs": UserDict(given)}
    found = explain(model, x, 1, InputXGradient(), chunk_size=chunk_size, **options)
    want = ((x * gain + 1 > 0) * linear.weight[1] * gain * x).detach()
    torch.testing.assert_close(found.heatmap, want)
    assert len(given["encoded"].state[0]) == 3


def test_arguments_are_not_modified_and_have_no_gradient():
    class InPlace(nn.Module):
        def forward(self, x, y):
            return x * y

    x, y = torch.rand(3, 2), torch.rand(3, 2, requires_grad=True)
    before = y.detach().clone()
    for name, method in EVERY.items():
        if name not in ("zplus", "dual"):
            explain(InPlace(), x, target_of(name), method, args=[y])
    assert torch.equal(y, before) and y.grad is None


# ---------------------------------------------------------------- token ids


class Text(nn.Module):
    """Of ReLUs, so that every method has rules for it."""

    def __init__(self):
        super().__init__()
        self.table, self.conv, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Conv1d(8, 6, 3), nn.Linear(6, 3)

    def rest(self, vectors):
        return self.head(self.conv(vectors.mT).relu().mean(-1))

    def forward(self, ids):
        return self.rest(self.table(ids))


class FromVectors(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, vectors):
        return self.net.rest(vectors)


def text():
    net = Text().double()
    return net, torch.randint(1, 30, (4, 9)), net.table


@pytest.mark.parametrize("target", [1, "all"])
@pytest.mark.parametrize("name", EVERY)
def test_ids_have_the_map_of_the_network_from_its_embeddings_on(name, target):
    net, ids, table = text()
    target = None if name == "dual" else target
    if name.startswith(("integrated", "gauss")) or name in DEEPLIFT:
        method = with_reference(name, torch.zeros(1, 9, dtype=torch.long))
        twin = with_reference(name, table(torch.zeros(1, 9, dtype=torch.long)).detach())
    else:
        method = twin = EVERY[name]
    vectors = table(ids).detach()
    want = explain(FromVectors(net), vectors, target, twin)
    found = explain(net, ids, target, method, layers="table")
    assert found.heatmap is None
    torch.testing.assert_close(found.layers["table"], want.heatmap)
    torch.testing.assert_close((found.logits, found.delta), (want.logits, want.delta))
    again = explain(net, ids, target, method, layers="table", at_input=False)
    assert again.heatmap is None
    torch.testing.assert_close(again.layers, found.layers)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(1, 9), (4, 9), (3, 1, 9), (3, 4, 9)])
@pytest.mark.parametrize("name", ["integrated_gradients", "gauss_legendre", *DEEPLIFT])
def test_reference_ids_of_every_shape(name, shape, dtype):
    net, ids, table = text()
    r = torch.randint(0, 30, shape)
    method, twin = with_reference(name, r.to(dtype)), with_reference(name, table(r).detach())
    want = explain(FromVectors(net), table(ids).detach(), 1, twin)
    found = explain(net, ids.to(dtype), 1, method, layers="table")
    torch.testing.assert_close((found.layers["table"], found.delta), (want.heatmap, want.delta))
    parts = explain(net, ids.to(dtype), 1, method, layers="table", chunk_size=3)
    torch.testing.assert_close((parts.layers["table"], parts.delta), (want.heatmap, want.delta))
    assert parts.heatmap is None


@pytest.mark.parametrize("shape", [(1, 9), (4, 9), (3, 1, 9), (3, 4, 9)])
def test_the_last_token_is_read_where_ids_say_it_is(shape):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

        def forward(self, ids):
            return self.head(self.table(ids)).relu()[torch.arange(len(ids)), (ids > 0).sum(1) - 1]

    net, ids, r = Last().double(), torch.randint(1, 30, (4, 9)), torch.randint(1, 30, shape)
    found = explain(net, ids, 1, DeepLift(r), layers="table")
    each = [net(one.expand(4, 9))[:, 1] for one in (r if r.ndim == 3 else [r])]
    want = (net(ids)[:, 1] - torch.stack(each).mean(0)).detach()
    torch.testing.assert_close(found.layers["table"].flatten(1).sum(1), want)


def moved(ids):
    """To the right, after a token that begins, as decoders do."""
    out = ids.new_zeros(ids.shape)
    out[:, 1:] = ids[:, :-1].clone()
    out[:, 0] = 1
    return out.masked_fill_(out == -100, 0)


@pytest.mark.parametrize("name", EVERY)
def test_ids_that_the_model_moves_in_place_have_the_map_of_those_that_were_moved(name):
    net, ids, _ = text()

    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, ids):
            return self.net(moved(ids))

    r = torch.randint(1, 30, (1, 9))
    method, twin = EVERY[name], EVERY[name]
    if name.startswith(("integrated", "gauss")) or name in DEEPLIFT:
        method, twin = with_reference(name, r), with_reference(name, moved(r))
    found = explain(Moves(), ids, target_of(name), method, layers="net.table")
    want = explain(net, moved(ids), target_of(name), twin, layers="table")
    torch.testing.assert_close(found.layers["net.table"], want.layers["table"])
    torch.testing.assert_close((found.logits, found.delta), (want.logits, want.delta))


def test_a_cache_with_nothing_in_it_is_no_reason_to_run_the_model_again():
    linear, passes = nn.Linear(3, 2), []

    def model(x):
        passes.append(len(x))
        return torch.cat([torch.tensor([]), linear(x)], -1)

    x = torch.randn(2, 3)
    for method in (InputXGradient(), AttnLRP(), DeepLift()):
        passes.clear()
        found = explain(model, x, 1, method)
        assert passes == [2]
        torch.testing.assert_close(found.heatmap, linear.weight[1].detach() * x)


def test_one_id_is_a_reference_for_every_place():
    net, ids, _ = text()
    for make in (lambda r: DeepLift(r), lambda r: IntegratedGradients(r, 3)):
        found = explain(net, ids, 1, make(5), layers="table")
        want = explain(net, ids, 1, make(torch.full((1, 9), 5)), layers="table")
        torch.testing.assert_close(tuple(found), tuple(want))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.a, self.joint, self.head = (
            nn.Embedding(9, 4),
            nn.Linear(3, 4),
            nn.Linear(4, 5),
            nn.Linear(5, 3),
        )

    def rest(self, numbers, vectors):
        return self.head(self.joint(self.a(numbers) + vectors.mean(1)).relu())

    def forward(self, numbers, ids):
        return self.rest(numbers, self.table(ids))


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("name", EVERY)
def test_numbers_and_ids_side_by_side(name, chunk_size):
    net, numbers, ids = Mixed().double(), torch.randn(5, 3, dtype=torch.float64), torch.randint(9, (5, 4))
    found = explain(net, (numbers, ids), target_of(name), EVERY[name], layers="table", chunk_size=chunk_size)
    assert found.heatmap[1] is None
    if name in ("integrated_gradients", "gauss_legendre"):
        return  # another path at the layer than at the input: see the next test
    vectors = net.table(ids).detach()

    class Twin(nn.Module):
        def forward(self, numbers, vectors):
            return net.rest(numbers, vectors)

    method = EVERY[name]
    if name in DEEPLIFT:
        method = DeepLift((0.0, net.table(torch.zeros(1, 4, dtype=torch.long)).detach()), method.rule)
    want = explain(Twin(), (numbers, vectors), target_of(name), method)
    torch.testing.assert_close(found.heatmap[0], want.heatmap[0])
    torch.testing.assert_close(found.layers["table"], want.heatmap[1])
    if found.delta is not None:
        total = found.heatmap[0].sum(1) + found.layers["table"].flatten(1).sum(1)
        torch.testing.assert_close(total, found.delta)


@pytest.mark.parametrize("quadrature", ["midpoint", "gauss_legendre"])
def test_integrated_gradients_of_numbers_beside_ids_keep_the_ids(quadrature):
    net, numbers, ids = Mixed().double(), torch.randn(5, 3, dtype=torch.float64), torch.randint(9, (5, 4))
    method = IntegratedGradients((0.0, 0), 7, quadrature)
    found = explain(net, (numbers, ids), 1, method)
    want = explain(lambda x: net(x, ids), numbers, 1, IntegratedGradients(0.0, 7, quadrature))
    torch.testing.assert_close(found.heatmap[0], want.heatmap)


@pytest.mark.parametrize("name", EVERY)
def test_maps_of_ids_train(name):
    net, ids, _ = text()
    step = 1e-6
    run = lambda **options: explain(net, ids, target_of(name), EVERY[name], layers="table", **options)  # noqa: E731
    loss = lambda found: found.layers["table"].square().sum() + found.logits.sum()  # noqa: E731
    for weight in (net.conv.weight, net.table.weight):
        (gradient,) = torch.autograd.grad(loss(run(create_graph=True)), weight)
        direction, losses = torch.randn_like(weight), []
        if weight is net.table.weight:
            direction[0] = 0  # the row of the padding, which torch never trains
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * step * direction
            losses.append(loss(run()))
            with torch.no_grad():
                weight -= sign * step * direction
        numeric = (losses[0] - losses[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------- language models as they are


def tiny(name):
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=40)
    if name == "bert":
        config = transformers.BertConfig(**sizes, num_labels=3, max_position_embeddings=20)
        return transformers.BertForSequenceClassification(config), "bert.embeddings.word_embeddings"
    if name == "gpt2":
        config = transformers.GPT2Config(
            n_embd=16, n_layer=2, n_head=2, n_positions=20, vocab_size=40, num_labels=3, pad_token_id=0
        )
        return transformers.GPT2ForSequenceClassification(config), "transformer.wte"
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=1, num_labels=3, pad_token_id=0, rms_norm_eps=1e-2)
    return transformers.LlamaForSequenceClassification(config), "model.embed_tokens"


def plain():
    """A token classifier in torch alone, with a mask of what is attended to."""

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 3)
            self.block = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)

        def forward(self, input_ids, attention_mask):
            h = self.block(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)
            return self.head((h * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True))

    return Classifier(), "embed"


def language_model(name):
    net, layer = plain() if name == "plain" else tiny(name)
    net, ids = net.double().eval(), torch.randint(3, 40, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 5:], mask[2, 3:] = 0, 0
    ids = ids.masked_fill(mask == 0, 0)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net, layer, ids, mask


def logits_of(out):
    return out if isinstance(out, Tensor) else out.logits


MODELS = ["plain", "bert", "gpt2", "llama"]


def gradient_at(net, layer, ids, mask, column=1):
    kept = []
    handle = net.get_submodule(layer).register_forward_hook(lambda m, i, out: kept.append(out))
    score = logits_of(net(ids, attention_mask=mask))[:, column].sum()
    handle.remove()
    return torch.autograd.grad(score, kept[0])[0], kept[0].detach()


FORMS = {
    "kwargs": lambda ids, mask: (ids, {"kwargs": {"attention_mask": mask}}),
    "args": lambda ids, mask: (ids, {"args": (mask,)}),
    "dict": lambda ids, mask: ({"input_ids": ids}, {"kwargs": {"attention_mask": mask}}),
}


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_language_model_are_autograds(name, form, chunk_size):
    net, layer, ids, mask = language_model(name)
    if form == "args" and name == "gpt2":
        pytest.skip("GPT-2's second argument is another")
    x, options = FORMS[form](ids, mask)
    want, vectors = gradient_at(net, layer, ids, mask)
    for method, wanted in ((Gradient(), want), (InputXGradient(), want * vectors)):
        found = explain(net, x, 1, method, layers=layer, chunk_size=chunk_size, **options)
        torch.testing.assert_close(found.layers[layer], wanted)
        torch.testing.assert_close(found.logits, logits_of(net(ids, attention_mask=mask)).detach())
        heatmap = found.heatmap
        assert heatmap is None if isinstance(x, Tensor) else heatmap == {"input_ids": None}


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("reference", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_deeplift_and_integrated_gradients_of_a_language_model_are_complete(name, reference, chunk_size):
    net, layer, ids, mask = language_model(name)
    if reference == 0 and name in ("gpt2", "llama"):
        pytest.skip("the last token is found by the padding's id, so another one would be read")
    options = {"kwargs": {"attention_mask": mask}, "layers": layer, "chunk_size": chunk_size}
    with torch.no_grad():
        run = lambda t: logits_of(net(t, attention_mask=mask))[:, 1]  # noqa: E731
        there = torch.where(mask == 1, reference, 0) if name in ("gpt2", "llama") else torch.full_like(ids, reference)
        want = run(ids) - run(there)
    for method, tolerance in (
        (DeepLift(there), 1e-7),
        (IntegratedGradients(there, 200), 1e-2),
        (IntegratedGradients(there, 40, "gauss_legendre"), 1e-2),
    ):
        found = explain(net, ids, 1, method, **options)
        torch.testing.assert_close(found.delta, want)
        total = found.layers[layer].flatten(1).sum(1)
        torch.testing.assert_close(total, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_a_language_model_given_all_as_one_dict(name):
    net, layer, ids, mask = language_model(name)
    x = {"input_ids": ids, "attention_mask": mask}
    want, vectors = gradient_at(net, layer, ids, mask)
    found = explain(net, x, 1, InputXGradient(), layers=layer)
    torch.testing.assert_close(found.layers[layer], want * vectors)
    assert found.heatmap == {"input_ids": None, "attention_mask": None}
    reference = {"input_ids": torch.where(mask == 1, 1, ids), "attention_mask": mask}
    for method in (DeepLift(reference), IntegratedGradients(reference, 100)):
        found = explain(net, x, 1, method, layers=layer)
        torch.testing.assert_close(found.layers[layer].flatten(1).sum(1), found.delta, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_occlusion_of_tokens_by_a_mask_token(name):
    net, _, ids, mask = language_model(name)
    found = explain(net, ids, 1, Occlusion(1, reference=2), kwargs={"attention_mask": mask})
    for t in range(ids.shape[1]):
        changed = ids.clone()
        changed[:, t] = 2
        with torch.no_grad():
            want = logits_of(net(ids, attention_mask=mask)) - logits_of(net(changed, attention_mask=mask))
        torch.testing.assert_close(found.heatmap[:, t], want[:, 1])


# ---------------------------------------------------------------- what is refused


class Last(nn.Module):
    """Reads the last token that is no padding."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.table(ids))[torch.arange(len(ids)), (ids > 0).sum(1) - 1]


class Tied(nn.Module):
    """An embedding that is only a weight, as T5's is, and a tanh at the end."""

    def __init__(self):
        super().__init__()
        self.shared, self.encoder, self.decoder = (nn.Embedding(30, 8) for _ in range(3))
        self.encoder.weight = self.decoder.weight = self.shared.weight

    def forward(self, ids):
        return (self.encoder(ids) + self.decoder(ids)).sum(1).tanh()


Z_B = METHODS["lrp_zb"]
REFUSALS = {
    "z^B of several inputs": (
        lambda: explain(*branches(), 1, Z_B),
        r"z\^B rule needs one input, got 2; use first_layer=None",
    ),
    "z^B of ids": (
        lambda: explain(*text()[:2], 1, Z_B, layers="table"),
        "needs the input to go into one .*first_layer=None",
    ),
    "z⁺ of a product with numbers a sample": (
        lambda: explain(lambda x, y: x * y, torch.rand(2, 3), 1, METHODS["zplus"], args=[torch.rand(2, 3)]),
        "LRP-z⁺ has no rule for torch.Tensor.mul",
    ),
    "LRP of ids that are taken for numbers": (
        lambda: explain(lambda x, ids: x.relu() * ids, (torch.rand(2, 3), torch.ones(2, 3, dtype=torch.long)), 1),
        "LRP has no rule for torch.Tensor.mul .*made of the input",
    ),
    "DeepLIFT of ids that select otherwise on the reference": (
        lambda: explain(
            lambda x, ids: x.relu().gather(1, ids),
            (torch.rand(2, 3), torch.ones(2, 3, dtype=torch.long)),
            1,
            DeepLift(),
        ),
        "gather selects by token ids, and on the reference otherwise",
    ),
    "DeepLIFT of the last token that is no padding, beside a reference of padding": (
        lambda: explain(Last(), torch.randint(1, 30, (2, 5)), 1, DeepLift(0), layers="table"),
        "selects by token ids, and on the reference otherwise than on x: .* as padding where x has padding",
    ),
    "noise on ids": (
        lambda: explain(*text()[:2], 1, SmoothGrad(), layers="table"),
        "x holds whole numbers only: explain the model from its embeddings on",
    ),
    "letters that are ids": (
        lambda: explain(*text()[:2], 1, InSilicoMutagenesis()),
        r"needs one-hot x \(N, A, L\).*got shape \(4, 9\).*of token ids take Occlusion",
    ),
    "Grad-CAM of a layer of tokens": (
        lambda: explain(*text()[:2], 1, GradCAM("table"), layers="table"),
        r"got \(4, 9, 8\) for x of shape \(4, 9\); .*from_tokens\(h, w\) or from_channels_last",
    ),
    "an embedding whose weight another layer uses": (
        lambda: explain(Tied(), torch.ones(2, 3, dtype=torch.long), 1, InputXGradient(), layers="shared"),
        "layer 'shared' has no output .*; other layers have its weight: 'encoder', 'decoder'",
    ),
    "a path at that embedding": (
        lambda: explain(Tied(), torch.ones(2, 3, dtype=torch.long), 1, IntegratedGradients(), layers="shared"),
        "'shared' is called 0 times .*; other layers have its weight: 'encoder', 'decoder'",
    ),
    "a layer that is a constant to the method": (
        lambda: explain(Tied(), torch.ones(2, 3, dtype=torch.long), 1, BCos(), layers="encoder"),
        "does not depend differentiably on layers 'encoder': .* or a constant to B-cos",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_a_method_has_no_rule_for_is_refused_by_name(case):
    make, message = REFUSALS[case]
    with pytest.raises((UnsupportedOperation, ValueError), match=message):
        make()


def test_ids_that_are_the_same_on_the_reference_are_constants_of_deeplift():
    x, ids = torch.rand(2, 3), torch.tensor([[0, 2, 1], [1, 1, 0]])
    model = lambda x, ids: x.square().gather(1, ids) * (ids > 0)  # noqa: E731
    found = explain(model, (x, ids), 1, DeepLift((0.1, ids)))
    want = explain(lambda x: model(x, ids), x, 1, DeepLift(0.1))
    torch.testing.assert_close((found.heatmap[0], found.delta), (want.heatmap, want.delta))


def with_methods(*methods):
    return [*(EVERY[m] for m in methods), SmoothGrad()]


LINEAR = nn.Linear(3, 2)
BAD = {
    "an array": (np.zeros((2, 3), np.float32), TypeError, "x must be a tensor .*got numpy.ndarray.*torch.as_tensor"),
    "a list of tensors": ([torch.rand(2, 3)], TypeError, "tuple or dict of such tensors, got list"),
    "a list of numbers": ([[0.0, 1.0, 2.0]], TypeError, "x must be a tensor .*got list"),
    "nothing": (None, TypeError, "x must be a tensor .*got NoneType"),
    "a string": ("x", TypeError, "got str"),
    "an empty tuple": ((), ValueError, "at least one tensor, got an empty tuple"),
    "an empty dict": ({}, ValueError, "at least one tensor, got an empty dict"),
    "an array within": ((torch.rand(2, 3), np.zeros(2)), TypeError, r"x\[1\] must be a tensor, got numpy.ndarray"),
    "none within": ({"a": torch.rand(2, 3), "mask": None}, TypeError, r"x\['mask'\] must be a tensor, got NoneType"),
    "other numbers of samples": ((torch.rand(2, 3), torch.rand(3, 3)), ValueError, "as many samples each, got .*2.*3"),
    "a single number": (torch.tensor(1.0), ValueError, "a dimension of samples"),
    "not finite": (torch.tensor([[1.0, float("nan"), 0]]), ValueError, "x holds NaN or infinite"),
    "not finite within": ((torch.rand(1, 3), torch.tensor([[float("inf")]])), ValueError, r"x\[1\] holds NaN or inf"),
    "complex": (torch.zeros(2, 3, dtype=torch.complex64), TypeError, "got torch.complex64; see torch.view_as_real"),
    "whole numbers": (torch.zeros(2, 3, dtype=torch.long), TypeError, "x must be floating point, got torch.int64"),
    "booleans": (torch.zeros(2, 3, dtype=torch.bool), TypeError, "x must be floating point, got torch.bool"),
}


@pytest.mark.parametrize("options", [{}, {"chunk_size": 1}])
@pytest.mark.parametrize("method", with_methods("lrp", "rescale", "integrated_gradients"), ids=str)
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_input_is_refused_with_what_is_accepted(case, method, options):
    x, error, message = BAD[case]
    with pytest.raises(error, match=message):
        explain(LINEAR, x, 0, method, **options)


def test_an_image_of_pil_is_refused_with_what_is_accepted():
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(TypeError, match=r"got PIL\.Image\.Image; .*to_tensor"):
        explain(LINEAR, image.new("RGB", (3, 3)))


@pytest.mark.parametrize("name", EVERY)
def test_ids_without_a_layer_are_refused_with_the_name_of_the_embedding(name):
    with pytest.raises(TypeError, match=r"ids.*have no map.*embedding layer, as layers='table'"):
        explain(text()[0], torch.ones(2, 9, dtype=torch.long), target_of(name), EVERY[name])


SETTINGS = {
    "a method's name": ({"method": "lrp"}, TypeError, r"value of attrain.methods such as LRP\(\).*got 'lrp'"),
    "a method's class": ({"method": DeepLift}, TypeError, r"got DeepLift: call it, DeepLift\(\)"),
    "no method": ({"method": None}, TypeError, "method must be .* got None"),
    "another class": ({"method": int}, TypeError, "method must be .* got int"),
    "no layers": ({"layers": None}, TypeError, r"layers must be names of modules.*got None"),
    "a module as layer": ({"layers": [LINEAR]}, TypeError, "layers must be names of modules"),
    "a number as layer": ({"layers": 1}, TypeError, "layers must be names of modules.*got 1"),
    "a misspelt layer": ({"layers": "wieght"}, ValueError, "no layer 'wieght'"),
    "no maps at all": ({"at_input": False}, ValueError, "without at_input there must be layers"),
    "arguments as a tensor": ({"args": torch.rand(2)}, TypeError, "args must be a tuple or list"),
    "arguments as text": ({"args": "ab"}, TypeError, "args must be a tuple or list"),
    "keyword arguments as a list": ({"kwargs": [1]}, TypeError, "kwargs must be a dict"),
    "keywords that are no text": ({"kwargs": {1: 2}}, TypeError, "kwargs must be a dict"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_of_other_kinds_are_refused_with_what_is_accepted(case):
    options, error, message = SETTINGS[case]
    with pytest.raises(error, match=message):
        explain(LINEAR, torch.rand(2, 3), 0, **options)


@pytest.mark.parametrize("model", [None, "resnet18", 3])
def test_a_model_that_cannot_be_called_is_refused(model):
    with pytest.raises(TypeError, match="model must be a module or another callable"):
        explain(model, torch.rand(2, 3))


REFERENCES = {
    "of another form": ({"image": 0.0, "table": 0.0}, "one reference an input"),
    "too few": ((0.0,), "one reference an input"),
    "of another shape": ((torch.zeros(1, 5), 0.0), "reference must be a number or have shape"),
    "of unequal numbers": (
        (torch.zeros(2, 1, 2, 3, dtype=torch.float64), torch.zeros(3, 1, 3)),
        "as many references each",
    ),
    "not finite": ((float("nan"), 0.0), "reference must be finite"),
}


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("name", WITH_REFERENCE)
@pytest.mark.parametrize("case", REFERENCES)
def test_references_that_do_not_fit_are_refused(case, name, chunk_size):
    net, x = branches()
    reference, message = REFERENCES[case]
    with pytest.raises(ValueError, match=message):
        explain(net, x, 1, with_reference(name, reference), chunk_size=chunk_size)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(
    ("reference", "message"), [(0.5, "must be a whole number, got 0.5"), (torch.zeros(1, 9), "must be whole numbers")]
)
@pytest.mark.parametrize("make", [DeepLift, IntegratedGradients])
def test_a_reference_of_ids_is_ids(make, reference, message, chunk_size):
    net, ids, _ = text()
    with pytest.raises(ValueError, match=message):
        explain(net, ids, 1, make(reference), layers="table", chunk_size=chunk_size)


def test_a_dict_for_a_single_tensors_reference_is_refused():
    with pytest.raises((TypeError, ValueError), match="reference must be a number or a tensor"):
        explain(LINEAR, torch.rand(2, 3), 0, DeepLift({"x": 0.0}))
