"""Explaining more samples than fit into memory at once, chunk by chunk."""

import dataclasses

import torch
from torch import Tensor, nn


def in_chunks(explain, model: nn.Module, x: Tensor, target, method, chunk_size: int, out: Tensor | None):
    """`attrain.explain` of x in chunks, put together again; see its argument `chunk_size`."""
    if not (isinstance(chunk_size, int) and chunk_size >= 1):
        raise ValueError(f"chunk_size must be a whole number >= 1, got {chunk_size!r}")
    if any(m.training and isinstance(m, nn.modules.batchnorm._NormBase) for m in model.modules()):
        raise ValueError("with chunk_size, batch norm in training mode sees other batches: call model.eval() first")
    device = next((p.device for p in model.parameters()), x.device)
    found = []
    for start in range(0, max(len(x), 1), chunk_size):
        rows = slice(start, start + chunk_size)
        part = x[rows].to(device)
        classes = target[rows].to(device) if isinstance(target, Tensor) else target
        result = explain(model, part, classes, _rows(method, rows, x))
        if out is not None:
            _check(out, x, result.heatmap)
            out[rows] = result.heatmap.to(out)
            result = result._replace(heatmap=result.heatmap.new_empty(0))  # a slice would keep its memory
        found.append(_moved(result, x.device))
    logits, heatmaps, layers, deltas = zip(*found)
    return found[0]._replace(
        logits=torch.cat(logits),
        heatmap=torch.cat(heatmaps) if out is None else out,
        layers={name: torch.cat([part[name] for part in layers]) for name in layers[0]},
        delta=None if deltas[0] is None else torch.cat(deltas),
    )


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


def _moved(explanation, device: torch.device):
    move = lambda value: None if value is None else value.to(device)  # noqa: E731
    layers = {name: move(value) for name, value in explanation.layers.items()}
    return explanation._replace(
        logits=move(explanation.logits), heatmap=move(explanation.heatmap), layers=layers, delta=move(explanation.delta)
    )


def _check(out: Tensor, x: Tensor, heatmap: Tensor) -> None:
    if out.shape != (len(x), *heatmap.shape[1:]) or not out.is_floating_point():
        wanted = (len(x), *heatmap.shape[1:])
        raise ValueError(f"out must be floating point, of shape {wanted}, got {tuple(out.shape)}, {out.dtype}")
