"""Operations that are a matrix, or one value of several, in other words: their map is that of those words."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import LRP, AttnLRP, DeepLift, InputXGradient, UnsupportedOperation, ZPlus, explain
from tests.attrain.oracles import difference

torch.manual_seed(0)
rules = pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])


def double(*size):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(size)))


def mapped(f, x, method, target=None):
    return explain(f, x, target if target is not None else (lambda out: out.flatten(1).sum(1)), method)


# ------------------------------------------------------------------------------------------------ the larger of two

LARGER = {
    "torch.maximum": torch.maximum,
    "torch.max": torch.max,
    "method": lambda a, b: a.maximum(b),
    "keyword": lambda a, b: torch.maximum(input=a, other=b),
    "torch.minimum": torch.minimum,
    "torch.min": lambda a, b: a.min(b),
}


@rules
@pytest.mark.parametrize("name", LARGER)
@pytest.mark.parametrize("shared", [False, True])
def test_the_larger_of_two_is_the_same_in_both_orders_and_complete(name, rule, shared):
    f, a, b = LARGER[name], double(6, 5), double(6, 5)[:, :4]
    head = double(5, 4)
    x, r = double(40, 6), double(1, 6) if shared else double(40, 6) / 2
    one = lambda x: f(x @ a @ head, (x @ a).relu() @ a.T @ b).tanh()  # noqa: E731
    other = lambda x: f((x @ a).relu() @ a.T @ b, x @ a @ head).tanh()  # noqa: E731
    found = [mapped(g, x, DeepLift(r, rule), 0) for g in (one, other)]
    torch.testing.assert_close(found[0].heatmap, found[1].heatmap)
    torch.testing.assert_close(found[0].heatmap.sum(1), difference(one, x, r), atol=1e-9, rtol=1e-6)


@rules
def test_a_tie_is_shared(rule):
    f = lambda x: torch.maximum(x[:, :1], x[:, 1:])  # noqa: E731
    found = explain(f, torch.tensor([[2.0, 2.0]]), 0, DeepLift(0.0, rule)).heatmap
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0]]))


# ------------------------------------------------------------------------------------------------ bilinear

WEIGHT, BIAS = double(4, 3, 5), double(4)
LAYER = nn.Bilinear(3, 5, 4).double()
LAYER.weight.data, LAYER.bias.data = WEIGHT, BIAS
BILINEAR = {
    "F.bilinear": lambda a, b: F.bilinear(a, b, WEIGHT, BIAS),
    "keywords": lambda a, b: F.bilinear(input1=a, input2=b, weight=WEIGHT, bias=BIAS),
    "torch.bilinear": lambda a, b: torch.bilinear(a, b, WEIGHT, BIAS),
    "nn.Bilinear": LAYER,
}


def in_words(a, b):
    return torch.einsum("ni,oij,nj->no", a, WEIGHT, b) + BIAS


METHODS = {
    "rescale": DeepLift(0.3),
    "reveal cancel": DeepLift(0.3, "reveal_cancel"),
    "input x gradient": InputXGradient(),
    "lrp": LRP(),
    "attnlrp": AttnLRP(),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spelling", BILINEAR)
@pytest.mark.parametrize("case", ["both", "first", "second"])
def test_a_bilinear_layer_is_its_sum_of_products_or_refused(spelling, case, name):
    f, x = BILINEAR[spelling], double(6, 8)
    left = (lambda x: x[:, :3]) if case != "second" else (lambda x: torch.ones(6, 3).double())
    right = (lambda x: x[:, 3:]) if case != "first" else (lambda x: torch.ones(6, 5).double())
    models = [lambda x, g=g: g(left(x), right(x)).relu() for g in (f, in_words)]
    if name == "lrp" and case == "both":
        with pytest.raises(UnsupportedOperation, match="bilinear"):
            explain(models[0], x, 0, METHODS[name])
        return
    found, want = (explain(m, x, 0, METHODS[name]) for m in models)
    torch.testing.assert_close(found.heatmap, want.heatmap)
    if name in ("rescale", "reveal cancel"):
        wanted = difference(models[1], x, torch.full((1, 8), 0.3).double())
        torch.testing.assert_close(found.heatmap.sum(1), wanted)


@rules
def test_a_bilinear_form_of_one_activation_twice_is_complete(rule):
    layer, x = nn.Bilinear(4, 4, 3).double(), double(5, 4)
    model = lambda x: layer(x, x).relu()  # noqa: E731
    found = explain(model, x, 0, DeepLift(0.5, rule))
    torch.testing.assert_close(found.heatmap.sum(1), difference(model, x, torch.full((1, 4), 0.5).double()))


# ------------------------------------------------------------------------------------------------ bicubic

BICUBIC = {
    "size": lambda h: F.interpolate(h, (5, 7), mode="bicubic"),
    "positional": lambda h: F.interpolate(h, (5, 7), None, "bicubic"),
    "scale": lambda h: F.interpolate(h, scale_factor=(1.5, 2.0), mode="bicubic"),
    "align_corners": lambda h: F.interpolate(h, size=(5, 7), mode="bicubic", align_corners=True),
    "antialias": lambda h: F.interpolate(h, size=(2, 3), mode="bicubic", antialias=True),
    "nn.Upsample": nn.Upsample(scale_factor=2, mode="bicubic"),
    "aten": lambda h: torch.ops.aten.upsample_bicubic2d(h, [5, 7], False),
}


@rules
@pytest.mark.parametrize("name", BICUBIC)
@pytest.mark.parametrize("shared", [False, True])
def test_bicubic_interpolation_is_its_matrix(name, rule, shared):
    f, x = BICUBIC[name], double(3, 2, 4, 4)
    r = double(1, 2, 4, 4) if shared else double(3, 2, 4, 4) / 2
    units = torch.eye(16).double().view(16, 1, 4, 4)
    matrix = f(units).flatten(1)  # (16, out)
    first = lambda x: (x.square() - x) if rule == "none" else x.roll(1, 2) - 0.5 * x  # noqa: E731
    by_name = lambda x: f(first(x)).flatten(1).relu().tanh()  # noqa: E731
    by_matrix = lambda x: F.linear(first(x).flatten(2), matrix.T).flatten(1).relu().tanh()  # noqa: E731
    found, want = (mapped(g, x, DeepLift(r, rule)) for g in (by_name, by_matrix))
    torch.testing.assert_close(found.heatmap, want.heatmap)
    plain = mapped(by_name, x, InputXGradient()).heatmap
    torch.testing.assert_close(plain, mapped(by_matrix, x, InputXGradient()).heatmap)


@pytest.mark.parametrize("name", BICUBIC)
def test_bicubic_interpolation_of_relevance(name):
    f, x = BICUBIC[name], double(3, 2, 4, 4)
    matrix = f(torch.eye(16).double().view(16, 1, 4, 4)).flatten(1)
    found, want = (
        mapped(lambda x, g=g: g(x.relu()).relu().flatten(1), x, LRP(0.1)).heatmap
        for g in (f, lambda h: F.linear(h.flatten(2), matrix.T))
    )
    torch.testing.assert_close(found, want)
    with pytest.raises(UnsupportedOperation, match="bicubic weights, of which some are negative"):
        mapped(lambda x: f(x).flatten(1), x, ZPlus())


# ------------------------------------------------------------------------------------------------ scattered

INDEX = torch.tensor([[0, 1, 1, 2, 0], [2, 2, 2, 0, 1], [1, 1, 0, 0, 0]])
ROW = INDEX[:1].expand(3, 5)
SCATTERED = {  # name: (operation, where each number goes)
    "method": (lambda zeros, h, how, own: zeros.scatter_reduce(1, INDEX, h, how, include_self=own), INDEX),
    "in place": (lambda zeros, h, how, own: zeros.scatter_reduce_(1, INDEX, h, how, include_self=own), INDEX),
    "keywords": (
        lambda zeros, h, how, own: torch.scatter_reduce(
            input=zeros, dim=1, index=INDEX, src=h, reduce=how, include_self=own
        ),
        INDEX,
    ),
    "index_reduce": (lambda zeros, h, how, own: zeros.index_reduce(1, ROW[0], h, how, include_self=own), ROW),
    "index_reduce_": (lambda zeros, h, how, own: zeros.index_reduce_(1, ROW[0], h, how, include_self=own), ROW),
}
RELEVANCE = {"lrp": LRP(0.1), "attnlrp": AttnLRP(), "z+": ZPlus(0.1)}


def gathered(h, index, how, own):
    """What is scattered, place by place."""
    rows = []
    for values, places in zip(h, index):
        parts = [values[places == place] for place in range(3)]
        parts = [torch.cat([met, h.new_zeros(1)]) if own or not len(met) else met for met in parts]
        rows.append(torch.stack([{"sum": torch.sum, "mean": torch.mean, "amax": torch.amax}[how](m) for m in parts]))
    return torch.stack(rows)


@pytest.mark.filterwarnings("ignore:index_reduce.* is in beta")
@pytest.mark.parametrize("spelling", SCATTERED)
@pytest.mark.parametrize("how", ["sum", "mean", "amax", "amin", "prod"])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", RELEVANCE)
def test_what_is_scattered_has_the_map_of_each_place(spelling, how, own, name):
    (f, index), x, w = SCATTERED[spelling], double(3, 4), double(4, 5)
    if "index" in spelling and how == "sum":
        return  # which it has not
    score = lambda out: out[:, 1] + 2 * out[:, 0]  # noqa: E731
    model = lambda x: f(torch.zeros(3, 3).double(), F.linear(x, w.T).relu(), how, own).relu()  # noqa: E731
    if how in ("amin", "prod") or (name == "z+" and how == "sum"):
        with pytest.raises(UnsupportedOperation, match=r"scatter_reduce|index_reduce"):
            explain(model, x, score, RELEVANCE[name])
        return
    twin = lambda x: gathered(F.linear(x, w.T).relu(), index, how, own).relu()  # noqa: E731
    found, want = (explain(m, x, score, RELEVANCE[name]).heatmap for m in (model, twin))
    torch.testing.assert_close(found, want)
