"""What comes out: outputs and targets of every form, by the map of a network that returns the explained number."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attrain import BCos, DeepLift, GradCAM, Gradient, IntegratedGradients, Occlusion, SmoothGrad, explain
from attrain.targets import (
    Scores,
    check_target,
    mean_normalised_target,
    selective_target,
    softmax_target,
    stochastic_target,
    target_scores,
)
from tests.attrain.oracles import METHODS

EVERY = {n: m for n, m in METHODS.items() if n != "dual"}
EVERY |= {"gradcam": GradCAM("1"), "occlusion": Occlusion(3), "smoothgrad": SmoothGrad(Gradient(), 2)}
EVERY |= {"gauss_legendre": IntegratedGradients(steps=3, quadrature="gauss_legendre")}
Pair = namedtuple("Pair", "out more")


class Net(nn.Sequential):
    """Three logits, in many forms."""

    def __init__(self, form="(N, C)"):
        super().__init__(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
        self.form = form

    def forward(self, x):
        out = super().forward(x)
        return {
            "(N, C)": lambda: out,
            "(N,)": lambda: out[:, 1],
            "(N, 1)": lambda: out[:, 1:2],
            ".logits": lambda: SimpleNamespace(logits=out, loss=None),
            ".logits (N,)": lambda: SimpleNamespace(logits=out[:, 1]),
            "dict": lambda: {"out": out, "aux": None},
            "ordered dict": lambda: OrderedDict(out=out),
            "tuple": lambda: (out, [out]),
            "list": lambda: [out, out],
            "named tuple": lambda: Pair(out, 3),
            "object": lambda: SimpleNamespace(deep={"it": out}),
            "(N, T, C)": lambda: torch.stack([out, 0 * out], 1),
            "(N, C, H, W)": lambda: out[:, :, None, None].expand(-1, -1, 2, 2) / 4,
            "(N, C) beside another": lambda: (out, torch.zeros(7)),
        }[self.form]()


def net_and_x(form="(N, C)"):
    torch.manual_seed(1)
    return Net(form).double().eval(), torch.rand(3, 2, 6, 6, dtype=torch.float64)


# Of each form how logit 1 is asked for.
FORMS = {
    "(N, C)": 1,
    "(N,)": None,
    "(N, 1)": 0,
    ".logits": 1,
    ".logits (N,)": 0,
    "dict": lambda out: out["out"][:, 1],
    "ordered dict": lambda out: out["out"][:, 1],
    "tuple": lambda out: out[1][0][:, 1],
    "list": lambda out: out[0][:, 1],
    "named tuple": lambda out: out.out[:, 1],
    "object": lambda out: out.deep["it"][:, 1],
    "(N, T, C)": lambda out: out[:, 0, 1],
    "(N, C, H, W)": lambda out: out[:, 1].sum((1, 2)),
    "(N, C) beside another": lambda out: out[0][:, 1],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EVERY)
def test_an_output_of_any_form_has_the_map_of_the_logit_in_it(name, form):
    if name == "zplus" and form not in ("(N, C)", ".logits"):
        pytest.skip("its relevance starts otherwise where the linear layer's output is not the output itself")
    net, x = net_and_x(form)
    plain = net_and_x()[0]
    found, want = explain(net, x, FORMS[form], EVERY[name]), explain(plain, x, 1, EVERY[name])
    torch.testing.assert_close(found.heatmap, want.heatmap)
    torch.testing.assert_close(found.delta, want.delta)
    out = net(x)
    logits = getattr(out, "logits", out) if isinstance(getattr(out, "logits", out), torch.Tensor) else plain(x)[:, 1]
    torch.testing.assert_close(found.logits, logits.detach())


@pytest.mark.parametrize("form", [f for f in FORMS if f not in ("(N, C) beside another",)])
@pytest.mark.parametrize("name", ["lrp", "rescale", "integrated_gradients", "gradcam", "occlusion", "smoothgrad"])
def test_outputs_of_any_form_in_chunks_and_with_a_graph(name, form):
    net, x = net_and_x(form)
    whole = explain(net, x, FORMS[form], EVERY[name])
    torch.testing.assert_close(tuple(explain(net, x, FORMS[form], EVERY[name], chunk_size=2)), tuple(whole))
    trained = explain(net, x, FORMS[form], EVERY[name], create_graph=True)
    torch.testing.assert_close(trained.heatmap, whole.heatmap)
    (trained.heatmap.square().sum() + trained.logits.sum()).backward()
    assert net[0].weight.grad.abs().sum() > 0


# ---------------------------------------------------------------- targets


ONE = {
    "int": 1,
    "numpy integer": np.int64(1),
    "numpy small integer": np.uint8(1),
    "0-d array": np.array(1),
    "0-d tensor": torch.tensor(1),
    "0-d int32 tensor": torch.tensor(1, dtype=torch.int32),
    "list": [1, 1, 1],
    "tuple": (1, 1, 1),
    "array": np.array([1, 1, 1]),
    "int32 array": np.array([1, 1, 1], dtype=np.int32),
    "list of numpy integers": [np.int64(1)] * 3,
    "list of 0-d tensors": [torch.tensor(1)] * 3,
    "tensor": torch.tensor([1, 1, 1]),
    "int32 tensor": torch.tensor([1, 1, 1], dtype=torch.int32),
    "uint8 tensor": torch.tensor([1, 1, 1], dtype=torch.uint8),
    "tensor that is not contiguous": torch.tensor([1, 0, 1, 0, 1, 0])[::2],
    "callable": lambda out: out[:, 1],
}


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("name", EVERY)
def test_a_class_is_named_in_any_way(name, kind):
    net, x = net_and_x()
    torch.testing.assert_close(explain(net, x, ONE[kind], EVERY[name]).heatmap, explain(net, x, 1, EVERY[name]).heatmap)


MANY = {
    "a class a sample": ([0, 2, 1], [[0], [2], [1]], False),
    "range": (range(3), [[0], [1], [2]], False),
    "K of them": (torch.tensor([[0, 1], [2, 2], [1, 0]]), [[0, 1], [2, 2], [1, 0]], True),
    "K of them, as lists": ([[0, 2], [2, 2], [1, 0]], [[0, 2], [2, 2], [1, 0]], True),
    "one column": (torch.tensor([[0], [2], [1]]), [[0], [2], [1]], True),
    "an array of K": (np.array([[0, 2], [2, 2], [1, 0]]), [[0, 2], [2, 2], [1, 0]], True),
    "all": ("all", [[0, 1, 2]] * 3, True),
    "a callable of K": (lambda out: out[:, [2, 0]], [[2, 0]] * 3, True),
    "the predicted class": (None, None, False),
}


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("name", EVERY)
def test_a_target_of_many_classes_has_the_maps_of_each(name, kind, chunk_size):
    net, x = net_and_x()
    target, classes, several = MANY[kind]
    classes = net(x).argmax(1)[:, None] if classes is None else torch.tensor(classes)
    single = torch.stack([explain(net, x, c, EVERY[name]).heatmap for c in range(3)], 1)
    want = single[torch.arange(3)[:, None], classes]
    found = explain(net, x, target, EVERY[name], chunk_size=chunk_size).heatmap
    torch.testing.assert_close(found, want if several else want[:, 0])


@pytest.mark.parametrize("target", [None, 0, "all", [0, 0, 0], torch.zeros(3, 1, dtype=torch.long)])
@pytest.mark.parametrize("name", EVERY)
def test_one_logit_a_sample_is_explained_by_none_or_zero(name, target):
    net, x = net_and_x("(N,)")
    if name == "zplus":
        pytest.skip("its relevance starts otherwise where the linear layer's output is not the output itself")
    want = explain(net_and_x()[0], x, 1, EVERY[name]).heatmap
    found = explain(net, x, target, EVERY[name]).heatmap
    several = target == "all" if isinstance(target, str) else isinstance(target, torch.Tensor)
    torch.testing.assert_close(found, want[:, None] if several else want)


@pytest.mark.parametrize("name", EVERY)
def test_targets_of_the_library_are_linear_in_logits_where_they_say_so(name):
    net, x = net_and_x()
    if name in ("guided", "zplus", "gradcam", "reveal_cancel", "genomics"):
        pytest.skip("not linear in the target")
    each = explain(net, x, "all", EVERY[name]).heatmap
    found = explain(net, x, mean_normalised_target(2), EVERY[name]).heatmap
    torch.testing.assert_close(found, each[:, 2] - each.mean(1))


@pytest.mark.parametrize("target", [selective_target(), softmax_target(), lambda out: out.square().sum(1)])
def test_a_callable_is_differentiated_through(target):
    net, x = net_and_x()
    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(target(net(leaf)).sum(), leaf)
    torch.testing.assert_close(explain(net, x, target, Gradient()).heatmap, want)


@pytest.mark.parametrize("name", EVERY)
def test_a_random_target_is_drawn_once_a_call(name):
    net, x = net_and_x()
    x = x[:1].expand(20, -1, -1, -1).clone()
    each = explain(net, x[:1], "all", EVERY[name] if name != "smoothgrad" else Gradient()).heatmap[0]
    if name == "smoothgrad":
        pytest.skip("each sample has noise of its own; see its tests")
    found = explain(net, x, stochastic_target(torch.Generator().manual_seed(0)), EVERY[name]).heatmap
    drawn = [[bool(torch.allclose(m, e)) for e in each] for m in found]
    assert all(any(row) for row in drawn)
    assert len({tuple(row) for row in drawn}) > 1


# ---------------------------------------------------------------- what is refused

ACCEPTED = 'must be None .*an int.*LongTensor.*"all".*callable'
BAD = {
    "a float": (1.0, ValueError, ACCEPTED + ".*got 1.0"),
    "a truth value": (True, ValueError, ACCEPTED + ".*got True"),
    "numpy's truth value": (np.bool_(True), ValueError, ACCEPTED),
    "another string": ("cat", ValueError, ACCEPTED + ".*got 'cat'"),
    "bytes": (b"all", TypeError, ACCEPTED),
    "a set": ({1}, TypeError, ACCEPTED + ".*got set"),
    "a dict": ({"a": 1}, TypeError, ACCEPTED + ".*got dict"),
    "a slice": (slice(1), TypeError, ACCEPTED),
    "a numpy float": (np.float64(1), ValueError, ACCEPTED),
    "classes as floats": ([0.0, 1.0, 2.0], ValueError, "whole numbers, got torch.float64"),
    "a tensor of floats": (torch.zeros(3), ValueError, r"whole numbers, got torch.float32 \(3,\)"),
    "a mask": (torch.tensor([True, False, True]), ValueError, "whole numbers, got torch.bool"),
    "one-hot": (torch.eye(3, dtype=torch.long), ValueError, "looks one-hot.*target.argmax"),
    "lists of unequal length": ([[0, 1], [1], [2]], ValueError, ACCEPTED),
    "none in a list": ([0, None, 1], ValueError, ACCEPTED),
    "names": (["cat", "dog", "cat"], ValueError, ACCEPTED),
    "too few": ([0, 1], ValueError, r"shape \(3,\) or \(3, K\).*got .*\(2,\)"),
    "too many dimensions": (torch.zeros(3, 1, 1, dtype=torch.long), ValueError, r"shape \(3,\) or \(3, K\)"),
    "too large": (3, ValueError, r"target must be in \[0, 2\], got 3..3"),
    "too large for one": ([0, 5, 1], ValueError, r"in \[0, 2\], got 0..5"),
    "negative": (-1, ValueError, r"in \[0, 2\], got -1..-1"),
    "a callable of another shape": (lambda out: out.sum(), ValueError, r"one number a sample, shape \(3,\).*got \(\)"),
    "a callable of no tensor": (lambda out: [1.0], ValueError, "a callable target must return .* got list"),
    "a callable of nothing": (lambda out: None, ValueError, "a callable target must return .* got NoneType"),
    "a callable of classes": (
        lambda out: out.argmax(1),
        ValueError,
        "must return floating point numbers, got torch.int64",
    ),
    "a callable of too many": (lambda out: out[:, :, None], ValueError, r"got \(3, 3, 1\)"),
    "a target's factory": (selective_target, (TypeError, ValueError), "selective_target|callable target"),
}


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("name", ["lrp", "rescale", "integrated_gradients", "gradcam", "occlusion", "smoothgrad"])
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_target_is_refused_with_what_is_accepted(case, name, chunk_size):
    net, x = net_and_x()
    target, error, message = BAD[case]
    with pytest.raises(error, match=message):
        explain(net, x, target, EVERY[name], chunk_size=chunk_size)


OUTPUTS = {
    "dict": "got dict; of any other output a callable target",
    "tuple": "got tuple; of any other output",
    "list": "got list",
    "object": "got SimpleNamespace",
    "(N, T, C)": r"logits of shape \(3, C\) or \(3,\).*got \(3, 2, 3\)",
    "(N, C, H, W)": r"got \(3, 3, 2, 2\)",
}


@pytest.mark.parametrize("target", [None, 1, "all", [0, 1, 2]])
@pytest.mark.parametrize("form", OUTPUTS)
@pytest.mark.parametrize("name", ["lrp", "rescale", "integrated_gradients", "gradcam", "occlusion", "smoothgrad"])
def test_an_output_without_logits_is_refused_with_what_is_accepted(name, form, target):
    net, x = net_and_x(form)
    with pytest.raises(ValueError, match=OUTPUTS[form]):
        explain(net, x, target, EVERY[name])


@pytest.mark.parametrize("target", [1, -1, [0, 1, 0]])
@pytest.mark.parametrize("form", ["(N,)", ".logits (N,)"])
def test_one_logit_has_no_other_class(form, target):
    net, x = net_and_x(form)
    with pytest.raises(ValueError, match=r"one logit a sample.*target must be None or 0"):
        explain(net, x, target)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x.flatten(1).sum(), r"logits of shape \(3, C\).*got \(\)"),
        (lambda x: x.flatten(1).sum(1).repeat(2), r"got \(6,\)"),
        (lambda x: x.flatten(1)[:, :3].round().long(), "floating|differentiably"),
        (lambda x: None, "got NoneType"),
        (lambda x: x.detach().flatten(1), "does not depend differentiably on x"),
    ],
)
def test_what_is_no_output_is_refused(output, message):
    with pytest.raises(ValueError, match=message):
        explain(output, torch.rand(3, 2, 2), 0, Gradient())


# ---------------------------------------------------------------- the pieces


def test_targets_of_other_kinds_are_brought_to_one():
    assert check_target(np.int64(2), 3) == 2 and type(check_target(torch.tensor(2), 3)) is int
    assert check_target((0, 1, 2), 3).dtype == torch.long
    assert check_target(None, 3) is None and check_target("all", 3) == "all"


def test_scores_are_taken_from_logits_without_a_pass():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert target_scores(logits, None).tolist() == [2.0, 3.0]
    assert target_scores(logits, 0).tolist() == [1.0, 3.0]
    assert target_scores(logits, [1, 0]).tolist() == [2.0, 3.0]
    assert target_scores(logits, "all").tolist() == logits.tolist()


def test_a_choice_that_is_fixed_stays_where_logits_change():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    score = Scores(None, 2).fixed(logits)
    assert score(logits.flip(1)).tolist() == [1.0, 0.0]
    random = Scores(lambda out: out[:, 0] + torch.rand(2), 2).fixed(logits)
    assert torch.equal(random(logits), random(logits))


def test_empty_batches_have_empty_maps_for_every_target():
    net, x = net_and_x()
    for target, shape in ((None, (0, 2, 6, 6)), (1, (0, 2, 6, 6)), ("all", (0, 3, 2, 6, 6)), ([], (0, 2, 6, 6))):
        for method in (Gradient(), DeepLift(), BCos()):
            assert explain(net, x[:0], target, method).heatmap.shape == shape, (target, method)
