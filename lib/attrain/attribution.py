"""One forward pass, one backward pass under modified local rules, one contraction.

`explain` knows nothing of any method: it checks what it is given, and asks the method (see `attrain.methods`) for the
maps. A method runs the model in a mode (`attrain.engine.mode`) that intercepts operations as they are called and asks
the method's table of rules, so a module, its functional form, an in-place call and a module used twice are the same
thing, and nothing is left in the model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attrain.engine import state
from attrain.engine.inputs import Form, Inputs, check_inputs
from attrain.engine.passes import Request, no_map_of_integers, without_samples
from attrain.engine.unseen import held, uncompiled
from attrain.engine.watch import Findings
from attrain.explanation import Explanation
from attrain.hints import hints
from attrain.methods.lrp import LRP
from attrain.methods.method import Method, name_of_given
from attrain.numbers import count
from attrain.targets import Scores, Target, check_target
from attrain.tensors import mapped, tensors


def explain(
    model: Callable, x: Form, target: Target = None, method: Method = LRP(), *, args: Sequence = (),
    kwargs: Mapping | None = None, layers: str | Sequence[str] = (), create_graph: bool = False, at_input: bool = True,
    chunk_size: int | None = None, out: Tensor | None = None, progress: bool = False,
) -> Explanation:  # fmt: skip
    """Attribute a model's output to its input.

    Args:
        model: a module, or a callable that closes over one. It comes back as it went in: mode, hooks, parameters,
            `.grad` and, unless `create_graph`, buffers and the attributes of its modules: numbers, tensors, lists and
            dicts. (What an object of another class among them holds, as a cache of transformers', stays as it became.)
        x: input (N, ...), floating point, finite. Never modified. Or a tuple or dict of tensors, of which the model is
            called as model(*x) or model(**x): then `heatmap` has the same form. Whole numbers (token ids) go through
            as they are and have no map (but by `Occlusion`): ask for maps at `layers=("…embeddings",)`.
        target: what is explained. `None`: the predicted class; an int, or a sequence or LongTensor (N,): a class, or
            one a sample; LongTensor (N, K): K maps a sample; `"all"`: one map a class; or a callable from what the
            model returns to one number a sample (N,), or K of them (N, K), as `selective_target()`. Without a callable
            the model returns logits (N, C), one logit a sample (N,), or an object with such `.logits`.
            The explained numbers are summed over the batch, so every sample has its own map.
        method: a value of `attrain.methods`, for instance `LRP(epsilon=1e-2)`.
        args, kwargs: handed to the model and not explained.
        layers: names of modules (as in `model.named_modules()`) whose output also gets a map, where the
            output is a tensor, or the first tensor of several; of a module called twice, the last call's.
        create_graph: make the map (and the logits) differentiable with respect to the parameters, so
            that both can be trained on. This is then the forward pass of a training step: batch norm
            in training mode updates its running statistics, as it would without `explain`.
        at_input: without, only the maps at the layers are made, by a backward pass no longer than they need, and
            `heatmap` is an empty (N, 0), of whole numbers None as ever.
        chunk_size: explain at most so many samples at once, so that memory does not grow with N; for maps that
            are only looked at, not with `create_graph`. x, and what belongs to its samples (classes, references,
            tensors of args and kwargs whose first size is N), may lie elsewhere than the model, on the CPU or in a
            memory-mapped file: chunks are brought to the device of the model's parameters, maps back to that of x.
            A callable target sees a chunk's output.
        out: with `chunk_size`, a tensor that the maps are written to as they are made, such as a memory-mapped file.
        progress: with `chunk_size`, show a bar (tqdm).

    Returns:
        an `Explanation`: `logits`, `heatmap` (in the form of x), `layers` by name, and `delta`, what a map sums to.

    Raises:
        TypeError, ValueError: input that is not finite, a target out of range, an output that the target cannot be
            taken from, a reference or the name of a layer that does not fit.
        attrain.UnsupportedOperation: the model calls an operation that the method has no rule for.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> result = explain(model, torch.ones(3, 2), target=0, layers=["1"])
        >>> result.logits.shape, result.heatmap.shape, result.layers["1"].shape
        (torch.Size([3, 1]), torch.Size([3, 2]), torch.Size([3, 2]))

        Two inputs, and of the second no map (it is handed on); token ids, whose map is at their embeddings:

        >>> both = lambda a, b: model(a + b)
        >>> explain(both, (torch.ones(3, 2), torch.ones(3, 2)), 0)
        Explanation(logits=(3, 1), heatmap=((3, 2), (3, 2)), layers={}, delta=None)
        >>> explain(both, torch.ones(3, 2), 0, args=(torch.ones(3, 2),)).heatmap.shape
        torch.Size([3, 2])
        >>> reader = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(40, 2))
        >>> explain(reader, torch.randint(50, (3, 5)), 0, layers="0")
        Explanation(logits=(3, 2), heatmap=None, layers={'0': (3, 5, 8)}, delta=None)
    """
    layers = _check(model, method, layers, at_input)
    x, kwargs = _plain(x), _plain(kwargs)
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"args must be a tuple or list of the model's further arguments, got {type(args).__name__}")
    if kwargs is not None and not (isinstance(kwargs, dict) and all(isinstance(k, str) for k in kwargs)):
        raise TypeError(f"kwargs must be a dict of the model's further arguments by name, got {kwargs!r}")
    if any(t.is_inference() for t in held(model)):
        raise ValueError(
            "the model was made in torch.inference_mode, so nothing of it has a derivative: make it outside"
        )
    check_inputs(x)
    inputs = Inputs(x, args, kwargs)
    whole = not any(t.is_floating_point() for t in inputs.tensors)
    if whole and not layers and not method.maps_whole_numbers:
        why = _PHOTO if _is_photo(inputs.tensors[0]) else no_map_of_integers(model, getattr(method, "layer", None))
        raise TypeError(f"x must be floating point, got {inputs.tensors[0].dtype}: {why}")
    target, findings = check_target(target, len(inputs)), Findings()
    run = partial(_explained, layers=layers, at_input=at_input, findings=findings)
    if chunk_size is not None and create_graph:
        raise ValueError("chunk_size is for maps that are not trained on, got create_graph=True")
    if chunk_size is None and (out is not None or progress):
        raise ValueError("out is written to, and progress shown, chunk by chunk: give a chunk_size too")
    try:
        with hints(model, x):
            if chunk_size is not None:
                explanation = _in_chunks(run, model, inputs, target, method, chunk_size, out, progress)
            else:
                explanation = run(model, inputs, target, method, create_graph=create_graph)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        advice = _without_samples(model, inputs, target)
        if advice is not None:
            raise ValueError(advice) from error
        raise
    if not create_graph:
        findings.warn()
    return explanation


_PHOTO = (
    "x holds bytes, as a photo is read; give it as the model was trained, x.float() / 255 and then its normalisation"
)


def _is_photo(x: Tensor) -> bool:
    return x.dtype == torch.uint8 and x.ndim >= 3


def _explained(
    model: Callable, inputs: Inputs, target: Any, method: Method, *, layers: tuple[str, ...], at_input: bool,
    findings: Findings, create_graph: bool = False,
) -> Explanation:  # fmt: skip
    """`explain` of what has been checked."""
    with torch.inference_mode(False), torch.enable_grad(), uncompiled(), state.kept(model, keep_updates=create_graph):
        inputs = inputs.replaced([t.clone() if t.is_inference() else t for t in inputs.tensors])
        request = Request(model, inputs, Scores(target, len(inputs)), layers, create_graph, at_input, findings)
        explanation = method.explanation(request)
        if not isinstance(explanation, Explanation):
            kinds = type(method).__name__, type(explanation).__name__
            raise TypeError(f"{kinds[0]}.explanation must return an Explanation, got {kinds[1]}")
        if not create_graph:
            request.settle()
    return explanation if create_graph else Explanation(*(mapped(Tensor.detach, part) for part in explanation))


def _without_samples(model: Callable, inputs: Inputs, target: Any) -> str | None:
    with torch.inference_mode(False), uncompiled(), state.kept(model):
        return without_samples(Request(model, inputs, Scores(target, len(inputs))))


def _check(model: Any, method: Any, layers: Any, at_input: bool) -> tuple[str, ...]:
    """The names of layers as a tuple; raise if the model, the method or a layer is none."""
    if not callable(model):
        raise TypeError(f"model must be a module or another callable, got {type(model).__name__}")
    if isinstance(model, type):
        raise TypeError(f"model must be a network, got the class {model.__name__}: make one, {model.__name__}(…)")
    if not isinstance(method, Method):
        raise TypeError(
            f"method must be a value of attrain.methods such as LRP() or DeepLift(), got {name_of_given(method)}"
        )
    if layers is None or not isinstance(layers, (str, tuple, list)) or not all(isinstance(n, str) for n in layers):
        raise TypeError(f"layers must be names of modules, as in model.named_modules(), got {layers!r}")
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    if layers and not isinstance(model, nn.Module):
        raise ValueError(f"layers={layers} are named in a module, and model is a {type(model).__name__}")
    if not (at_input or layers):
        raise ValueError("without at_input there must be layers to make maps at, got none")
    return layers


def _plain(given: Any) -> Any:
    """Another mapping, as a tokenizer returns, as a dict."""
    return dict(given) if isinstance(given, Mapping) else given


def _in_chunks(
    run: Callable, model: Callable, inputs: Inputs, target: Any, method: Method, chunk_size: int, out: Tensor | None,
    progress: bool,
) -> Explanation:  # fmt: skip
    """Explanations of chunks of the samples, put together again."""
    chunk_size = count("chunk_size", chunk_size)
    modules = model.modules() if isinstance(model, nn.Module) else []
    for norm in (m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        if norm.running_mean is None:
            raise ValueError("with chunk_size, batch norm without running statistics sees other batches")
        if norm.training:
            raise ValueError("with chunk_size, batch norm in training mode sees other batches: call model.eval() first")
    n, home = len(inputs), inputs.tensors[0].device
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    device = next((p.device for p in parameters), home)
    method.check(inputs)  # a reference that fits a chunk and not x is refused
    whole: Any = None
    starts: Any = range(0, max(n, 1), chunk_size)
    if progress:
        starts = progress_bar(starts, unit="chunk", desc="explain")
    for start in starts:
        inputs.check_arguments()
        rows = slice(start, start + chunk_size)
        cut = lambda value: mapped(lambda t: (t[rows] if t.ndim and len(t) == n else t).to(device), value)  # noqa: B023, E731
        chunk = Inputs(
            inputs.formed([t[rows].to(device) for t in inputs.tensors]), cut(inputs.args), cut(inputs.kwargs)
        )
        classes = target[rows].to(device) if isinstance(target, Tensor) else target
        some = method.rows(rows, inputs.formed(inputs.tensors))
        found = run(model, chunk, classes, some)
        if whole is None:  # made at once: small results kept one by one would hold the memory between them
            if out is not None:
                _check_out(out, n, found.heatmap)
            first = found if out is None else found._replace(heatmap=found.heatmap[..., :0])
            whole = [mapped(lambda t: t.new_empty((n, *t.shape[1:]), device=home), part) for part in first]
            whole = whole if out is None else [whole[0], out, *whole[2:]]
        for total, part in zip(tensors(whole), tensors(tuple(found))):
            total[rows].copy_(part)
    return Explanation(*whole)


def progress_bar(items: Iterable, **settings: str) -> Iterable:
    """The items, with a bar (tqdm) that counts them.

    Raises:
        ImportError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from None
    return tqdm(items, **settings)


def _check_out(out: Tensor, n: int, heatmap: Any) -> None:
    if not isinstance(heatmap, Tensor):
        raise ValueError("out is for the map of one floating point input, and x holds several or whole numbers")
    wanted = (n, *heatmap.shape[1:])
    if out.shape != wanted or not out.is_floating_point():
        raise ValueError(f"out must be floating point, of shape {wanted}, got {tuple(out.shape)}, {out.dtype}")
