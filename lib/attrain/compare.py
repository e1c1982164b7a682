"""Several methods on one model and input: their maps, and what can be measured of a map without knowing the truth."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attrain.attribution import explain, progress_bar
from attrain.engine.inputs import check_inputs
from attrain.explanation import Explanation
from attrain.hints import hints
from attrain.methods.method import Method, name_of_given
from attrain.metrics.relevance import (
    class_score,
    completeness_error,
    deletion_curve,
    insertion_curve,
    rank_correlation,
)
from attrain.metrics.sanity import randomised
from attrain.show import show
from attrain.targets import Target
from attrain.tensors import logits_of, mapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # other numbers in training mode
FRACTIONS = (0.01, 0.05, 0.2, 0.5)
COLUMNS = {
    "completeness error": "|Σ R − Δ| / |Δ|, median: 0 for a method that keeps what it promises",
    "deletion": "mean fall of the log-odds as the most relevant positions are erased: more is better",
    "insertion": "mean rise as they are put into the reference: more is better",
    "last layer random": "rank correlation of |R| with that of a network whose last layer is drawn anew: near 1, the "
    "map does not depend on what was learned there",
    "ms a map": "wall time",
}


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` returns; prints as a table, and in a notebook shows one.

    Attributes:
        x: the input; target: the classes (N,) that were explained, or what was given as a callable.
        explanations: name of a method -> its `Explanation`.
        rows: name of a method -> column -> number, NaN where there is none; `pandas.DataFrame(rows).T` has them all.
            The last row is a random order, which a map has to beat.
        maps: name of a method -> its map of x, (N, ...).
    """

    x: Tensor
    target: Any
    explanations: dict[str, Explanation]
    maps: dict[str, Tensor]
    rows: dict[str, dict[str, float]]

    def show(self, **options: Any) -> "Figure":
        """The maps side by side; options as of `attrain.show`."""
        return show(self.x, self.maps, **options)

    def __repr__(self) -> str:
        cells = [["", *COLUMNS], *([name, *map(_cell, row.values())] for name, row in self.rows.items())]
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th title="{escape(about)}">{name}</th>' for name, about in COLUMNS.items())
        rows = "".join(
            f'<tr><th style="text-align: left">{escape(name)}</th>'
            + "".join(f'<td style="text-align: right">{_cell(value)}</td>' for value in row.values())
            + "</tr>"
            for name, row in self.rows.items()
        )
        notes = "".join(f"<li><b>{name}</b>: {escape(about)}</li>" for name, about in COLUMNS.items())
        return f"<table><tr><th></th>{head}</tr>{rows}</table><ul>{notes}</ul>"


def compare(
    model: Callable, x: Tensor, methods: Mapping[str, Method] | Sequence[Method], target: Target = None, *,
    layer: str = "", reference: float | Tensor = 0.0, fractions: Sequence[float] = FRACTIONS,
    kwargs: dict | None = None, seed: int = 0, progress: bool = False,
) -> Comparison:  # fmt: skip
    """Explain by several methods and measure each map.

    None of these numbers says that a map is right. One that is incomplete where its method promises completeness, does
    not beat a random order, or stays the same when the network forgets, is of little use.

    What it costs: of each method two maps, one of them by the network whose last layer is drawn anew, and two forward
    passes for each fraction; as many passes for the random order; and four more. With three methods of one backward
    pass that is about fifty forward passes, and `IntegratedGradients(steps=10)` or `SmoothGrad` add twenty maps.
    Fewer samples and fewer `fractions` make it cheaper.

    Args:
        model: as for `explain`, in eval mode; called as model(x, **kwargs).
        x: one tensor: images (N, C, H, W), series or DNA (N, C, L), features (N, F), or token ids (N, L) with `layer`.
        methods: name -> method; or a sequence of methods, each named by its class.
        target: None (the predicted class), a class or one a sample (N,), or a callable that gives (N,) numbers of what
            the model returns, which then take the place of log-odds.
        layer: the name of the layer that embeds token ids, where their maps are made.
        reference: what positions are erased to, and inserted into: a number or a tensor that broadcasts to x; of token
            ids the id of [MASK] or [PAD]. Of photos that were normalised 0 is the mean colour.
        fractions: of the positions, that are erased or inserted.
        seed: of the random order and of the last layer's new weights.
        progress: show a bar (tqdm) that counts methods.

    Returns:
        a `Comparison`.

    Raises:
        TypeError, ValueError: no method, one name twice, several inputs, several maps a sample, fractions outside of
            [0, 1], batch norm or dropout in training mode, and what `explain` raises.
        ImportError: progress=True without tqdm.

    Example:
        >>> from attrain import DeepLift, Gradient
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> found = compare(model, torch.rand(4, 1, 4, 4), [DeepLift(), Gradient()])
        >>> list(found.rows), found.rows["DeepLift"]["completeness error"] < 1e-3
        (['DeepLift', 'Gradient', 'random order'], True)
    """
    named = _named(methods)
    _check(model, x, fractions, reference)
    ask: dict[str, Any] = {"kwargs": kwargs, "layers": (layer,) if layer else (), "at_input": not layer}
    with hints(model, x):
        target = _target(model, x, target, kwargs or {})
    scored = target if not isinstance(target, Tensor) else target.to(x.device)
    run = partial(_logits, model, kwargs or {}) if isinstance(target, Tensor) else partial(model, **(kwargs or {}))
    read = lambda found: found.layers[layer].sum(-1) if layer else found.heatmap  # noqa: E731
    explain(model, x[:1], _first(target), next(iter(named.values())), **_first_of(ask, len(x)))  # else the first pays
    explanations, maps, rows = {}, {}, {}
    forgetful, curves = _forgetful(model, seed), _curves_of(run, x, scored, fractions, reference)
    for name, method in progress_bar(named.items(), desc="methods") if progress else named.items():
        started = _now(x)
        explanations[name] = found = explain(model, x, target, method, **ask)
        spent = _now(x) - started
        maps[name] = heatmap = read(found)
        rows[name] = {"completeness error": _completeness(found, heatmap)}
        rows[name] |= curves(heatmap)
        other = read(explain(forgetful, x, target, method, **ask)) if forgetful is not None else None
        same = torch.nan if other is None else rank_correlation(heatmap.abs(), other.abs()).nanmean().item()
        rows[name] |= {"last layer random": same, "ms a map": 1000 * spent / len(x)}
    draw = torch.rand(heatmap.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
    rows["random order"] = dict.fromkeys(COLUMNS, torch.nan) | curves(draw)
    return Comparison(x, target, explanations, maps, rows)


def _check(model: Any, x: Any, fractions: Any, reference: Any) -> None:
    if isinstance(x, (tuple, dict)):
        raise TypeError(f"compare takes one tensor as x, got {type(x).__name__}: explain takes several")
    check_inputs(x)
    if not isinstance(fractions, Sequence) or not fractions or not all(0 <= f <= 1 for f in fractions):
        raise ValueError(f"fractions must be numbers in [0, 1], at least one, as {FRACTIONS}, got {fractions!r}")
    if isinstance(reference, bool) or not isinstance(reference, (int, float, Tensor)):
        raise TypeError(f"reference must be a number or a tensor, got {reference!r}")
    if isinstance(model, nn.Module) and any(m.training and isinstance(m, RANDOM) for m in model.modules()):
        raise ValueError("compare takes a model in eval mode, got one in training mode: call model.eval() first")


def _named(methods: Any) -> dict[str, Method]:
    if isinstance(methods, (Mapping, tuple, list)):
        for method in methods.values() if isinstance(methods, Mapping) else methods:
            if not isinstance(method, Method):
                raise TypeError(f"methods must be values such as LRP() or DeepLift(), got {name_of_given(method)}")
    if isinstance(methods, Mapping):
        return {**methods} if methods else _named([])
    if isinstance(methods, Method) or not isinstance(methods, (tuple, list)) or not methods:
        raise TypeError(f"methods must be a dict of methods by name, or a list of them, got {methods!r}")
    names = [type(method).__name__ for method in methods]
    if len(set(names)) < len(names):
        raise ValueError(f"two methods are called {max(names, key=names.count)}: give a dict of methods by name")
    return dict(zip(names, methods))


def _logits(model: Callable, kwargs: dict, x: Tensor) -> Tensor:
    return logits_of(model(x, **kwargs))


def _only_logit(out: Any) -> Tensor:
    return logits_of(out).flatten()


def _forgetful(model: Callable, seed: int) -> nn.Module | None:
    """The model with its last layer drawn anew; None of what is no module, or has a last layer that cannot be drawn."""
    if not isinstance(model, nn.Module):
        return None
    try:
        return next((network for _, network in randomised(model, seed)), None)
    except TypeError:
        return None


def _target(model: Callable, x: Tensor, target: Any, kwargs: dict) -> Any:
    """Classes (N,), or a callable that gives one number a sample."""
    if callable(target):
        return target
    with torch.no_grad():
        logits = _logits(model, kwargs, x)
    if isinstance(logits, Tensor) and (logits.ndim == 1 or logits.shape[1:] == (1,)):
        return _only_logit
    if target is None:
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ValueError("the model returns no logits (N, C): give a callable target that makes (N,) numbers of it")
        return logits.argmax(1)
    classes = None if isinstance(target, str) else torch.as_tensor(target)
    if classes is None or classes.ndim > 1 or (classes.ndim == 1 and len(classes) != len(x)):
        raise ValueError(f"compare takes one map a sample: target must be a class or one a sample, got {target!r}")
    return classes.expand(len(x)).clone()


def _first(target: Any) -> Any:
    return target[:1] if isinstance(target, Tensor) else target


def _first_of(ask: dict, n: int) -> dict:
    """The same for one sample: tensors of the keyword arguments cut as x."""
    return ask | {"kwargs": mapped(lambda t: t[:1] if t.shape[:1] == (n,) else t, ask["kwargs"])}


def _completeness(found: Explanation, heatmap: Tensor) -> float:
    if found.delta is None:
        return torch.nan
    return completeness_error(heatmap, found.delta).median().item()


def _curves_of(run: Callable, x: Tensor, target: Any, fractions: Sequence, reference: Any) -> Callable:
    """From a map to its row's deletion and insertion; what they start from is the same for all maps, and run once."""
    blank = torch.as_tensor(reference, dtype=x.dtype, device=x.device).expand_as(x)
    full, empty = class_score(run, x, target), class_score(run, blank, target)

    def curves(heatmap: Tensor) -> dict[str, float]:
        falls = deletion_curve(run, x, heatmap, target, fractions, reference, full)
        rises = insertion_curve(run, x, heatmap, target, fractions, reference, empty)
        return {"deletion": falls.mean().item(), "insertion": rises.mean().item()}

    return curves


def _now(x: Tensor) -> float:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter()


def _cell(value: float) -> str:
    return "–" if value != value else f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
