"""What a computation costs: time, memory, forward passes."""

import time
import weakref
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, the device's queue included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that torch holds at most during one call, beyond those it held before.

    On CUDA by torch's own counter, elsewhere by following the tensors that operations return.

    Example:
        >>> peak_memory(lambda: torch.zeros(1000, dtype=torch.float64), torch.device("cpu"))
        8000
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with _Allocations() as allocations:
        run()
    return allocations.peak


class _Allocations(TorchDispatchMode):
    """Follows the storages that operations make, until they are freed; an operation's own scratch space is not seen."""

    def __init__(self):
        super().__init__()
        self.known, self.held, self.peak = WeakIdKeyDictionary(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for storage in _storages((args, kwargs)):  # those from before
            self.known.setdefault(storage, True)
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage not in self.known:
                self.known[storage] = True
                self.held += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.peak = max(self.peak, self.held)
        return out

    def free(self, size: int) -> None:
        self.held -= size


def _storages(tree) -> list:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def forward_passes(model: nn.Module, run: Callable[[], object]) -> int:
    """How often the model is called during one call of `run`."""
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        run()
    finally:
        handle.remove()
    return len(calls)
