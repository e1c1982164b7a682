"""A model comes back from a pass as it went into it: its buffers, and the tensors that its modules keep."""

import threading
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attrain.tensors import mapped, tensors

_lock = threading.Lock()
_running: WeakKeyDictionary = WeakKeyDictionary()  # model -> [threads in a pass, what it was before the first]


@contextmanager
def kept(model, keep_updates: bool = False):
    """Undo what a forward pass does to buffers and to tensors that modules keep; the last of several threads does it.

    Args:
        model: a module; of another callable nothing is known.
        keep_updates: buffers keep what they became (batch norm's statistics in training), without a graph.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    with _lock:
        entry = _running.setdefault(model, [0, None])
        if entry[0] == 0:
            entry[1] = _State(model)
        entry[0] += 1
    try:
        yield
    finally:
        with _lock:
            entry[0] -= 1
            if entry[0] == 0:
                entry[1].restore(model, keep_updates)
                del _running[model]


class _State:
    def __init__(self, model: nn.Module):
        self.buffers, self.attributes = [], []
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if not isinstance(
                    buffer, nn.parameter.UninitializedTensorMixin
                ):  # of a lazy module before its first call
                    self.buffers.append((module, name, buffer, None if buffer is None else buffer.detach().clone()))
            self.attributes.append((module, {k: _copied(v) for k, v in vars(module).items() if k[0] != "_"}))

    def restore(self, model: nn.Module, keep_updates: bool) -> None:
        for module, name, buffer, value in self.buffers:
            if keep_updates:
                current = module._buffers.get(name)
                if current is not None and (current.requires_grad or _marked(current)):
                    module._buffers[name] = current.detach().as_subclass(type(current))
                continue
            module._buffers[name] = buffer
            if buffer is None:
                continue
            if buffer.requires_grad and buffer.grad_fn is not None:
                buffer.detach_()
            if not torch.equal(buffer, value):  # batch norm changes its statistics without a new version
                with torch.no_grad():
                    buffer.copy_(value)
            vars(buffer).clear()
        for module, before in self.attributes:
            for name, value in list(vars(module).items()):
                if name[0] != "_" and any(map(_marked, tensors(value))):
                    self._restore_attribute(module, name, before, keep_updates)

    def _restore_attribute(self, module, name: str, before: dict, keep_updates: bool) -> None:
        if keep_updates:
            vars(module)[name] = mapped(Tensor.detach, vars(module)[name])
        elif name in before:
            vars(module)[name] = before[name]
        else:
            del vars(module)[name]


def _copied(value):
    """A list or dict as it is now; the tensors in it are the same."""
    return mapped(lambda t: t, value) if isinstance(value, (list, dict)) else value


def _marked(value: Tensor) -> bool:
    """Whether a pass has seen this tensor."""
    return any(name.startswith("_attrain") for name in vars(value))
