"""Work on large activations in blocks, so that intermediate results stay in a core's cache.

A CPU would take each of them to memory and back; on other devices nothing is cut.
"""

import torch
from torch import Tensor

BLOCK = 2**16  # numbers; a few such blocks fit into a core's own cache


def elementwise(function, *values: Tensor, out=()) -> list[Tensor]:
    """function(*values) of tensors that are alike in shape, but for a first dimension of 1; without a graph.

    Args:
        function: elementwise, tensors -> a tuple of tensors.
        values: (N, ...) or (1, ...), the first of them (N, ...).
        out: what the first results are written to; may be one of the values.

    Returns:
        the results, (N, ...) each.
    """
    n, shape = len(values[0]), values[0].shape
    alike = all(v.shape[1:] == shape[1:] and v.is_contiguous() for v in (*values, *out))
    if not alike or not _large(values[0]):
        return _written(function(*values), out)
    width = values[0].numel() // n
    flat, out = ([v.view(len(v), width) for v in some] for some in (values, out))
    dim, size = (1, max(BLOCK // n, 1024)) if width > BLOCK else (0, BLOCK // width)
    return [result.view(shape) for result in _blocks(function, dim, size, flat, out)]


def samplewise(function, *values: Tensor) -> list[Tensor]:
    """function(*values) of tensors (N, ...), or (1, ...) for what all samples share, some samples at a time."""
    if not _large(values[0]):
        return list(function(*values))
    return _blocks(function, 0, max(BLOCK * len(values[0]) // values[0].numel(), 1), values, [])


def _large(value: Tensor) -> bool:
    return value.device.type == "cpu" and value.numel() > BLOCK and not torch.is_grad_enabled()


def _written(found: tuple, out) -> list[Tensor]:
    return [*(o.copy_(f) for o, f in zip(out, found)), *found[len(out) :]]


def _blocks(function, dim: int, size: int, values, out) -> list[Tensor]:
    total, results = values[0].shape[dim], [*out]
    for start in range(0, total, size):
        block = lambda v: v.narrow(dim, start, min(size, total - start)) if v.shape[dim] == total else v  # noqa: B023, E731
        found = function(*map(block, values))
        for f in found[len(results) :]:
            results.append(f.new_empty([*f.shape[:dim], total, *f.shape[dim + 1 :]]))
        _written(found, list(map(block, results)))
    return results
