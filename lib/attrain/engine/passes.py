"""One forward pass, one backward pass under a method's rules, one contraction."""

import difflib
import threading
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from attrain.engine import unseen
from attrain.engine.inputs import Inputs, others
from attrain.engine.mode import Mode
from attrain.engine.state import undone
from attrain.engine.watch import Findings, Watch
from attrain.explanation import Explanation
from attrain.tensors import logits_of, tensors


@dataclass(frozen=True)
class Request:
    """What a method is asked for.

    Attributes:
        model: called with the inputs.
        inputs: what is explained.
        score: from the model's output to the explained numbers, (N,) or (N, K), see `attrain.targets.Scores`.
        layers: names of modules whose output gets a map too.
        create_graph: whether the maps are to be differentiated.
        at_input: whether maps at the inputs are wanted.
        findings: what the passes do that is worth a warning.
    """

    model: Callable
    inputs: Inputs
    score: Callable
    layers: tuple[str, ...] = ()
    create_graph: bool = False
    at_input: bool = True
    findings: Findings = field(default_factory=Findings, compare=False)

    def output(self, tensors: list[Tensor] | None = None):
        """The model's output, without a map and without a graph."""
        output = self._plain(self.inputs.tensors if tensors is None else tensors)
        self.score.check(output)
        return output

    def _plain(self, tensors: list[Tensor]):
        watch = nullcontext() if self.findings.watched else Watch(self.findings, self.model)
        with torch.no_grad(), undone(self.model), watch:
            output = self.inputs.call(self.model, [t.clone() for t in tensors])
        self.findings.watched = True
        return output

    def settle(self) -> None:
        """Find out whether numbers that the model draws have a part in its output."""
        inputs = self.inputs.tensors
        outputs = lambda: tensors([logits_of(self._plain(inputs))])  # noqa: E731
        self.findings.settle(outputs, [t.device for t in inputs])


def without_samples(request: Request) -> str | None:
    """What to say of an input that has no axis of samples: the model fails with it, and not with x[None]."""

    def samples(values: list[Tensor]) -> int | None:
        try:
            with torch.no_grad(), undone(request.model):
                output = logits_of(request.inputs.call(request.model, values))
        except Exception:
            return None
        return len(output) if isinstance(output, Tensor) and output.ndim in (1, 2) else None

    values = [t.clone() for t in request.inputs.tensors]
    if request.score.callable or samples(values) == len(request.inputs):
        return None
    longer = [t[None] for t in values]
    several = min(max(len(request.inputs), 2), 8)  # a model that returns what it likes does not return as many
    if samples(longer) != 1 or samples([t.repeat(several, *[1] * (t.ndim - 1)) for t in longer]) != several:
        return None
    shapes = [", ".join(str(tuple(t.shape)) for t in given) for given in (values, longer)]
    each = "x" if request.inputs.single else "each tensor of x"
    return (
        f"x must have an axis of samples first, and shape {shapes[0]} has none: the model takes {each} as x[None], of "
        f"shape {shapes[1]}"
    )


def plain_output(request: Request):
    """The model's output for methods of several passes: with create_graph the pass that has a graph and updates."""
    if not request.create_graph:
        return request.output()
    output = request.inputs.call(request.model, [t.clone() for t in request.inputs.tensors])
    request.score.check(output)
    return output


def one_pass(request: Request, make_mode: Callable[..., Mode], tensors: list[Tensor] | None = None) -> Explanation:
    """The maps of one pass.

    Args:
        request: what is asked for.
        make_mode: makes the mode of leaves, entries, create_graph and the model.
        tensors: other inputs of the same form.
    """
    inputs = request.inputs if tensors is None else request.inputs.replaced(tensors)
    leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in inputs.tensors]
    entries = [leaf.clone() for leaf in leaves]  # an operation of the model in place on its input changes this copy
    mode = make_mode(leaves, entries, request.create_graph, request.model)
    if not isinstance(mode, Mode):
        raise TypeError(f"a method's mode(...) must return an attrain.engine.mode.Mode, got {type(mode).__name__}")
    mode.findings = None if request.create_graph else request.findings  # steps tell of nothing
    run = lambda: inputs.call(request.model, entries)  # noqa: E731
    with mode.saving(), mode.around(request.model), _outputs(request.model, request.layers, mode) as outputs:
        output = mode.forward(run)
        _check_constants(request, mode, inputs)
        request.score.check(output)
        scores, delta = mode.scores(output, request.score)
        if not scores.requires_grad:
            raise ValueError(_no_derivative(request, mode))
        at_layers = _complete(outputs, request)
        for name, (edge, *_) in zip(request.layers, at_layers):
            mode.check_layer(name, edge.node)
        columns = scores.unbind(1) if scores.ndim == 2 else (scores,)
        maps = [
            _maps(request, mode, output, column, at_layers, last=k + 1 == len(columns))
            for k, column in enumerate(columns)
        ]
    maps = [torch.stack(m, 1) if scores.ndim == 2 else m[0] for m in zip(*maps)]
    heatmap, at_layers = _formed(request, inputs, maps)
    return Explanation(request.score.logits(output, scores), heatmap, at_layers, delta)


def _maps(request: Request, mode: Mode, output, score: Tensor, outputs: list, last: bool) -> list[Tensor]:
    """The maps at the inputs and those at the layers, averaged over the references."""
    total = None
    for number in range(mode.references):
        retain = request.create_graph or not last or number + 1 < mode.references
        with mode.explaining(number, last=not retain):
            start, weight = mode.start(output, score)
            roots = mode.roots() if request.at_input else []
            edges = [edge for edge, *_ in outputs] + [second[0] for *_, second in outputs if second]
            gradients = torch.autograd.grad(
                start,
                [*roots, *edges],
                weight,
                create_graph=request.create_graph,
                retain_graph=retain,
                allow_unused=True,
            )
            of_roots, of_layers = gradients[: len(roots)], gradients[len(roots) :]
            of_seconds = iter(of_layers[len(outputs) :])
            if all(g is None for g in of_roots or of_layers):
                raise ValueError(_no_derivative(request, mode))
            maps = [
                mode.contract(i, torch.zeros_like(root) if g is None else g)
                for i, (root, g) in enumerate(zip(roots, of_roots))
            ]
            _check_contracted(mode, maps)
            for g, (_, value, reference, second) in zip(of_layers, outputs):
                found = mode.contract_at(torch.zeros_like(value) if g is None else g, value, reference)
                g = next(of_seconds) if second else None
                maps.append(found if second is None or g is None else found + g * second[1])
        total = maps if total is None else [a + b for a, b in zip(total, maps)]
    return [m / mode.references for m in total] if mode.references > 1 else total


def _check_contracted(mode: Mode, maps: list) -> None:
    for found in maps:
        if not isinstance(found, Tensor):
            raise TypeError(f"{type(mode).__name__}.contract must return the map, a tensor, got {type(found).__name__}")


def _formed(request: Request, inputs: Inputs, maps: list[Tensor]):
    """The maps in the form of the inputs, None for whole numbers; and those of the layers by name."""
    maps = iter(maps)
    if request.at_input:
        heatmap = inputs.formed([next(maps) if t.is_floating_point() else None for t in inputs.tensors])
    else:
        heatmap = inputs.without_maps(asked=False)
    return heatmap, dict(zip(request.layers, maps))


def _no_derivative(request: Request, mode: Mode) -> str:
    if any(t.is_floating_point() for t in request.inputs.tensors) or request.layers:
        where = "x" if request.at_input and mode.roots() else f"layers {', '.join(map(repr, request.layers))}"
        return (
            f"the model's output does not depend differentiably on {where}: is it detached inside, or computed under "
            f"no_grad, or not used, or a constant to {mode.title}?"
        )
    return no_map_of_integers(request.model)


def no_map_of_integers(model, layer: str | None = None) -> str:
    """What to say of whole numbers as the only input, without layers; `layer` is that of a method which has its own."""
    found = [n for n, m in model.named_modules() if isinstance(m, nn.Embedding)] if isinstance(model, nn.Module) else []
    embedding, *others = found or ["…"]
    where = f"the method's layer, as layers={layer!r}, or at " if layer not in (None, embedding) else ""
    further = f" (it also has {', '.join(map(repr, others[:4]))})" if others else ""
    return (
        f"x holds whole numbers (token ids), which have no map: ask for one at {where}the embedding layer, as "
        f"layers={embedding!r}{further}" + (" of a method for that layer" if where else "")
    )


def _check_constants(request: Request, mode: Mode, inputs: Inputs) -> None:
    def run(number: int, witness):
        tensors = [others(t)[number - 1] if number else t.detach().clone() for t in inputs.tensors]
        for t in tensors:
            t._attrain_seen = witness.token
        with undone(request.model), witness:
            inputs.call(request.model, tensors)

    unseen.check_constants(mode, run)


@contextmanager
def _outputs(model, names: tuple, mode: Mode):
    """Collect, by layer, where its output stands in the graph, its value and its reference; this thread's only.

    And where a second tensor stands, with its value, through which the explained number depends on the output.
    """
    found, thread = {}, threading.get_ident()

    def keep(name, module, args, output):
        if threading.get_ident() != thread:
            return
        values = tensors(output)
        if not values:
            raise TypeError(f"layer {name!r} returns {type(output).__name__}, not a tensor: it has no map")
        if values[0].requires_grad:
            with torch._C.DisableTorchFunction():
                copy = lambda t: t.clone() if mode.create_graph else t.detach().clone()  # noqa: E731
                second = mode.second_of(values[0])
                if second is not None:
                    second = get_gradient_edge(second), copy(second)
                found[name] = get_gradient_edge(values[0]), copy(values[0]), mode.reference_of(values[0]), second

    with ExitStack() as hooks:
        for name in names:
            handle = module_of(model, name).register_forward_hook(lambda *a, name=name: keep(name, *a))
            hooks.callback(handle.remove)
        yield found


def module_of(model, name: str) -> nn.Module:
    """A module by its name, as in `model.named_modules()`.

    Raises:
        ValueError: there is none; near names are named, or its first ones.
    """
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    if name not in modules:
        near = difflib.get_close_matches(name, modules, 3, 0.4)
        near = near or [known for known in modules if known and "." not in known][:8]
        raise ValueError(f"the model has no layer {name!r}; near names: {', '.join(near) or 'none'}")
    return modules[name]


def _complete(found: dict, request: Request) -> list:
    for name in request.layers:
        if name not in found:
            raise ValueError(
                f"layer {name!r} has no output in the model's forward pass that depends on x{namesakes(request, name)}"
            )
    return [found[name] for name in request.layers]


def namesakes(request: Request, name: str) -> str:
    """What to say of other layers with the same weight, as encoders have it of an embedding that is shared."""
    weight = getattr(module_of(request.model, name), "weight", None)
    same = [n for n, m in request.model.named_modules() if n != name and getattr(m, "weight", None) is weight]
    return f"; other layers have its weight: {', '.join(map(repr, same))}" if weight is not None and same else ""
