"""Explaining more samples than fit into memory at once, chunk by chunk."""

import dataclasses

from torch import Tensor, nn


def in_chunks(explain, model: nn.Module, x: Tensor, target, method, chunk_size: int, out: Tensor | None):
    """`attrain.attribution` of x in chunks, put together again; see its argument `chunk_size`."""
    if not (isinstance(chunk_size, int) and chunk_size >= 1):
        raise ValueError(f"chunk_size must be a whole number >= 1, got {chunk_size!r}")
    if any(m.training and isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules()):
        raise ValueError("with chunk_size, batch norm in training mode sees other batches: call model.eval() first")
    device = next((p.device for p in model.parameters()), x.device)
    whole = None
    for start in range(0, max(len(x), 1), chunk_size):
        rows = slice(start, start + chunk_size)
        classes = target[rows].to(device) if isinstance(target, Tensor) else target
        found = explain(model, x[rows].to(device), classes, _rows(method, rows, x))
        if whole is None:  # made at once: small results kept one by one would hold the memory between them
            if out is not None:
                _check(out, x, found.heatmap)
            first = found if out is None else found._replace(heatmap=found.heatmap[..., :0])
            whole = _map(lambda part: part.new_empty((len(x), *part.shape[1:]), device=x.device), first)
            whole = whole if out is None else whole._replace(heatmap=out)
        _map(lambda total, part: total[rows].copy_(part), whole, found)  # noqa: B023
    return whole


def _rows(method, rows: slice, x: Tensor):
    """The method for some of the samples: a reference that has a row a sample is cut too."""
    reference = getattr(method, "reference", None)
    if not isinstance(reference, Tensor) or len(x) == 1:
        return method
    if reference.ndim == x.ndim and len(reference) == len(x):
        return dataclasses.replace(method, reference=reference[rows])
    if reference.ndim == x.ndim + 1 and reference.shape[1] == len(x):
        return dataclasses.replace(method, reference=reference[:, rows])
    return method


def _map(function, *found):
    """An Explanation, of what the function makes of the tensors of one or more."""
    logits, heatmap, layers, delta = zip(*found)
    return found[0]._replace(
        logits=function(*logits),
        heatmap=function(*heatmap),
        layers={name: function(*(part[name] for part in layers)) for name in layers[0]},
        delta=None if delta[0] is None else function(*delta),
    )


def _check(out: Tensor, x: Tensor, heatmap: Tensor) -> None:
    if out.shape != (len(x), *heatmap.shape[1:]) or not out.is_floating_point():
        wanted = (len(x), *heatmap.shape[1:])
        raise ValueError(f"out must be floating point, of shape {wanted}, got {tuple(out.shape)}, {out.dtype}")
