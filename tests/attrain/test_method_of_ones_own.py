"""A method written outside of attrain, with public names only: CONTRIBUTING's example and all that `explain` adds."""

import doctest
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import Explanation, Gradient, Method, SmoothGrad, UnsupportedOperation, Zennit, explain, register_rule
from attrain.engine.kinds import KINDS
from attrain.engine.mode import Mode, derivative, refuse

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_example_of_contributing_runs():
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed, tried = doctest.testfile(str(CONTRIBUTING), module_relative=False, optionflags=options)
    assert tried > 10 and not failed


@pytest.fixture(scope="module")
def deconvolution():
    """The method of CONTRIBUTING's example, from its text."""
    found = {"__name__": "example"}
    text = CONTRIBUTING.read_text(encoding="utf-8")
    for example in doctest.DocTestParser().get_examples(text):
        if not example.source.startswith("explain"):
            exec(example.source, found)
    return found["Deconvolution"]()


class Net(nn.Module):
    """ReLU as a module, a function, a method and in place."""

    def __init__(self, twin=None):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 6)
        self.relu, self.head, self.twin = nn.ReLU(), nn.Linear(6, 3), twin

    def forward(self, x):
        relus = [self.relu, F.relu, torch.relu_, lambda h: h.relu()] if self.twin is None else [self.twin] * 4
        h = relus[0](self.norm(self.conv(x)))
        h = F.max_pool2d(relus[1](h), 2).flatten(1)
        return self.head(relus[3](relus[2](self.linear(h) + 0.0)))


class Hand(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, g):
        return g.clamp(min=0)


def net_and_x():
    torch.manual_seed(0)
    net, twin = Net().double().eval(), Net(Hand.apply).double().eval()
    twin.load_state_dict(net.state_dict())
    return net, twin, torch.randn(5, 2, 6, 6, dtype=torch.float64)


def by_hand(twin, x, classes):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(twin(leaf).gather(1, classes[:, None]).sum(), leaf)[0]


def test_it_is_the_network_with_the_rule_written_into_it(deconvolution):
    net, twin, x = net_and_x()
    want = by_hand(twin, x, torch.ones(5, dtype=torch.long))
    torch.testing.assert_close(explain(net, x, 1, deconvolution).heatmap, want)
    assert not torch.allclose(want, explain(net, x, 1, Gradient()).heatmap)


def test_it_is_captums(deconvolution):
    captum = pytest.importorskip("captum.attr")
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    with pytest.warns(UserWarning):
        want = captum.Deconvolution(net).attribute(x, target=2)
    torch.testing.assert_close(explain(net, x, 2, deconvolution).heatmap, want)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("target", [None, "all", [0, 1, 2, 0, 1], torch.tensor([[0, 2]] * 5)])
def test_targets_layers_and_chunks_come_for_nothing(deconvolution, target, chunk_size):
    net, twin, x = net_and_x()
    found = explain(net, x, target, deconvolution, layers="conv", chunk_size=chunk_size)
    if target is None:
        classes = net(x).argmax(1)[:, None]
    else:
        classes = torch.arange(3).expand(5, 3) if isinstance(target, str) else torch.as_tensor(target).reshape(5, -1)
    want = torch.stack([by_hand(twin, x, column) for column in classes.unbind(1)], 1)
    several = isinstance(target, (str, torch.Tensor))
    torch.testing.assert_close(found.heatmap, want if several else want[:, 0])
    assert found.layers["conv"].shape == (5, *((classes.shape[1],) if several else ()), 4, 4, 4)
    torch.testing.assert_close(found.logits, net(x).detach())


def test_map_and_logits_train_together(deconvolution):
    net, twin, x = net_and_x()
    found = explain(net, x, 1, deconvolution, create_graph=True)
    (found.heatmap.square().sum() + found.logits.square().sum()).backward()
    weight, step = net.head.weight, 1e-6
    direction, losses = torch.randn_like(weight), []
    for sign in (1, -1):
        with torch.no_grad():
            changed = weight + sign * step * direction
            twin.head.weight.copy_(changed)
        heatmap = by_hand(twin, x, torch.ones(5, dtype=torch.long))
        losses.append((heatmap.square().sum() + twin(x).square().sum()).detach())
    numeric = (losses[0] - losses[1]) / (2 * step)
    torch.testing.assert_close((net.head.weight.grad * direction).sum(), numeric, rtol=1e-5, atol=1e-7)


def test_several_inputs_and_other_methods_around_it(deconvolution):
    net, _, x = net_and_x()
    found = explain(lambda a, b: net(a + b), (x, torch.zeros_like(x)), 1, deconvolution)
    torch.testing.assert_close(found.heatmap[0], explain(net, x, 1, deconvolution).heatmap)
    torch.testing.assert_close(found.heatmap[0], found.heatmap[1])
    smooth = explain(net, x, 1, SmoothGrad(deconvolution, samples=3, noise=0.0)).heatmap
    torch.testing.assert_close(smooth, found.heatmap[0])


def test_the_model_comes_back_as_it_was_from_several_threads(deconvolution):
    net, _, x = net_and_x()
    state, want = {k: v.clone() for k, v in net.state_dict().items()}, explain(net, x, 1, deconvolution).heatmap
    maps = []
    threads = [
        threading.Thread(target=lambda: maps.append(explain(net, x, 1, deconvolution).heatmap)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(m, want) for m in maps) and len(maps) == 4
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("operation", [torch.tanh, F.gelu, lambda h: h * h, lambda h: h.softmax(1), torch.Tensor.exp])
def test_what_it_has_no_rule_for_is_refused_by_name_and_reason(deconvolution, operation):
    net, _, x = net_and_x()
    with pytest.raises(
        UnsupportedOperation, match=r"deconvolution has no rule for .*it is defined for networks of linear"
    ):
        explain(lambda t: operation(net(t)), x, 1, deconvolution)


def test_a_function_of_the_models_is_none_of_the_methods_rules(deconvolution):
    _, twin, x = net_and_x()
    with pytest.raises(UnsupportedOperation, match=r"autograd.Function Hand has no rule|Hand"):
        explain(twin, x, 1, deconvolution)


# ---------------------------------------------------------------- a method of several passes


@dataclass(frozen=True)
class Differences(Method):
    """The gradient by differences: no backward pass at all."""

    step: float = 1e-6

    def explanation(self, request):
        (x,) = request.inputs.tensors
        output = request.output()
        request = replace(request, score=request.score.fixed(output))
        heatmap = torch.zeros_like(x)
        for place in range(x[0].numel()):
            change = torch.zeros_like(x).flatten(1)
            change[:, place] = self.step
            high, low = (request.score(request.output([x + sign * change.view_as(x)])) for sign in (1, -1))
            heatmap.view(len(x), -1)[:, place] = (high - low) / (2 * self.step)
        return Explanation(output, heatmap, {}, None)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_method_may_make_its_passes_itself(chunk_size):
    net, _, x = net_and_x()
    found = explain(net, x, None, Differences(), chunk_size=chunk_size)
    torch.testing.assert_close(found.heatmap, explain(net, x, None, Gradient()).heatmap, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- what the protocol says


def test_methods_are_values(deconvolution):
    assert deconvolution == type(deconvolution)() and hash(deconvolution) == hash(type(deconvolution)())
    assert deconvolution != Gradient() and Differences(1e-3) != Differences(1e-4)
    assert repr(Differences(0.1)) == "Differences(step=0.1)"


def test_a_method_without_mode_and_explanation_says_so():
    @dataclass(frozen=True)
    class Nothing(Method):
        pass

    with pytest.raises(NotImplementedError, match="Nothing says neither what its mode nor what its explanation is"):
        explain(nn.Linear(2, 2), torch.rand(1, 2), 0, Nothing())


def test_a_table_of_one_rule_sees_every_operation():
    seen = []

    def watch(mode, call):
        seen.append((call.kind, call.name))
        return derivative(mode, call)

    class Watching(Mode):
        table = {None: watch, "activations": refuse("none of these")}  # noqa: RUF012

    @dataclass(frozen=True)
    class Watch(Method):
        def mode(self, leaves, entries, create_graph, model):
            return Watching(leaves, entries, create_graph, model)

    net, _, x = net_and_x()
    explain(net, x, 1, Watch())
    assert {"convolutions", "relus", "maxima", "linear_layers", "sums"} <= {kind for kind, _ in seen}
    assert all(name in KINDS[kind].split() for kind, name in seen if kind)
    with pytest.raises(UnsupportedOperation, match="none of these"):
        explain(lambda t: net(t).sigmoid(), x, 1, Watch())


# ---------------------------------------------------------------- what of it cannot be used is said by name


def of_mode(mode):
    @dataclass(frozen=True)
    class Mine(Method):
        def mode(self, leaves, entries, create_graph, model):
            return mode(leaves, entries, create_graph, model)

    return Mine()


def of_table(**members):
    return of_mode(type("Own", (Mode,), members))


def number(mode, call):
    return 1.0


def nothing(mode, call):
    call.run()


MISTAKEN = {
    "a kind": (of_table(table={"relu_s": derivative, None: derivative}), ValueError, "'relu_s'.* did you mean 'relus'"),
    "an operation": (of_table(table={"sigmiod": derivative, None: derivative}), ValueError, "did you mean 'sigmoid'"),
    "no rule for others": (of_table(table={"relus": derivative}), ValueError, "Own.table needs a rule under None"),
    "no table": (of_table(), ValueError, "Own.table needs a rule under None"),
    "a table that is none": (of_table(table=[derivative]), TypeError, "Own.table must be a dict .* got list"),
    "a rule that is none": (of_table(table={None: "derivative"}), TypeError, r"Own.table\[None\] must be a rule"),
    "a rule that returns a number": (of_table(table={None: derivative, "relus": number}), TypeError, "number .* float"),
    "a rule that returns nothing": (of_table(table={None: derivative, "relus": nothing}), TypeError, "nothing .* None"),
    "no map": (of_table(table={None: derivative}, contract=lambda *_: None), TypeError, "Own.contract must return the"),
    "no mode": (of_mode(lambda *_: None), TypeError, r"mode\(...\) must return an attrain.engine.mode.Mode, got None"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKEN)
def test_what_cannot_be_used_is_said_by_name(case):
    net, _, x = net_and_x()
    method, kind, text = MISTAKEN[case]
    for _ in range(2):  # not only the first time
        with pytest.raises(kind, match=text):
            explain(net, x, 1, method)


def test_an_explanation_that_is_none_is_said_by_name():
    @dataclass(frozen=True)
    class Plain(Method):
        def explanation(self, request):
            return request.inputs.tensors[0]

    with pytest.raises(TypeError, match=r"Plain.explanation must return an Explanation, got Tensor"):
        explain(nn.Linear(2, 2), torch.rand(1, 2), 0, Plain())


def test_a_mistyped_rule_of_an_operation_is_said_by_name():
    with pytest.raises(ValueError, match="did you mean 'elementwise'"):
        register_rule(torch.erf, "elementwse")


@pytest.mark.parametrize("composite", [None, "EpsilonPlus", dict])
def test_a_composite_that_is_none_is_refused(composite):
    with pytest.raises(TypeError, match="composite must be one of zennit's, such as EpsilonPlusFlat"):
        Zennit(composite)
