"""A model comes back from a pass as it went into it: parameters, buffers, and the tensors that its modules keep."""

import threading
from collections import deque
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from attrain.engine.call import Call
from attrain.engine.parameters import Parameters, written
from attrain.engine.unseen import modules_of
from attrain.tensors import mapped, tensors

_lock, _undoing = threading.Lock(), threading.RLock()
_running: WeakKeyDictionary = WeakKeyDictionary()  # model -> [threads in a pass, what it was before the first]


@contextmanager
def kept(model, keep_updates: bool = False):
    """Undo what a forward pass does to a model's tensors and attributes; the last of several threads does it.

    Args:
        model: a module, or a callable that closes over one, is a method of one or is given one.
        keep_updates: buffers keep what they became (batch norm's statistics in training), without a graph, and so do
            parameters.

    Raises:
        ValueError: a parameter was changed where nobody saw it, so that its value cannot be put back.
    """
    with ExitStack() as each:
        for module in modules_of(model):
            each.enter_context(_kept(module, keep_updates))
        yield


@contextmanager
def _kept(model: nn.Module, keep_updates: bool):
    with _lock:
        entry = _running.setdefault(model, [0, None])
        if entry[0] == 0:
            entry[1] = _State(model)
        entry[0] += 1
    unseen = []
    try:
        yield
    except BaseException:
        keep_updates = False  # a step that was refused is none
        raise
    finally:
        with _lock:
            entry[0] -= 1
            if entry[0] == 0:
                unseen = entry[1].restore(model, keep_updates)
                del _running[model]
    if unseen:
        names = [repr(name) for name, p in model.named_parameters() if any(p is u for u in unseen)]
        raise ValueError(
            f"parameter {', '.join(names[:4])} was changed while the model was explained, by its forward pass where "
            "nobody sees it or by another thread, and cannot be put back: change it outside of forward"
        )


def before_write(call: Call, model) -> None:
    """Within `kept`: keep the parameters that an operation of the model is about to write into."""
    targets = written(call)
    if not targets:
        return
    with _lock:
        for module in modules_of(model):
            for target in targets if module in _running else ():
                _running[module][1].parameters.about_to_be_written(target)


def restart(model) -> None:
    """Within `kept`: make the model again what it was before, to run it anew."""
    with _lock:
        for module in modules_of(model):
            if module in _running:
                _running[module][1].restore(module, keep_updates=False)


@contextmanager
def undone(model):
    """Within this context a pass leaves no trace: buffers are copies, and what modules keep is put back.

    For passes beside the one that counts: a training step updates batch norm's statistics once, and each pass of
    several finds the model as the first one found it.
    """
    with _undoing:
        modules = {m for root in modules_of(model) for m in root.modules() if not isinstance(m, torch.jit.ScriptModule)}
        before = [(m, dict(m._buffers), _attributes(m)) for m in modules]
        copies: dict = {}  # a buffer that two modules share stays shared
        for module, buffers, _ in before:
            for name, buffer in buffers.items():
                if buffer is not None and not _uninitialised(buffer):
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        with _lock:
            parameters = [_running[root][1].parameters for root in modules_of(model) if root in _running]
            parameters = [(p, p.now()) for p in parameters]
        try:
            yield
        finally:
            with _lock:
                for kept_parameters, now in parameters:
                    kept_parameters.put_back(now)
            for module, buffers, attributes in before:
                module._buffers.clear()
                module._buffers.update(buffers)
                _put_back_attributes(module, attributes)


class _State:
    def __init__(self, model: nn.Module):
        self.buffers, self.attributes, self.parameters = [], [], Parameters(model)
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if not _uninitialised(buffer):
                    self.buffers.append((module, name, buffer, None if buffer is None else buffer.detach().clone()))
            self.attributes.append((module, _attributes(module)))

    def restore(self, model: nn.Module, keep_updates: bool) -> list[Tensor]:
        """Put all back; returns the parameters that cannot be."""
        unseen = [] if keep_updates else self.parameters.put_back()
        for module, name, buffer, value in self.buffers:
            if keep_updates:
                current = module._buffers.get(name)
                if current is buffer and current is not None and not current.requires_grad:
                    vars(current).clear()  # changed in place or not, it stays the model's, perhaps shared by modules
                elif current is not None and (current.requires_grad or _marked(current)):
                    # A copy: what is written into a mere view of it would have its graph again.
                    module._buffers[name] = current.detach().clone().as_subclass(type(current))
                continue
            module._buffers[name] = buffer
            if buffer is None:
                continue
            if buffer.requires_grad and buffer.grad_fn is not None:
                if buffer._is_view():  # which cannot be detached in place
                    module._buffers[name] = buffer = buffer.detach()
                else:
                    buffer.detach_()
            if not torch.equal(buffer, value):  # batch norm changes its statistics without a new version
                with torch.no_grad():
                    buffer.copy_(value)
            vars(buffer).clear()
        for module, before in self.attributes:
            if not keep_updates:
                _put_back_attributes(module, before)
                continue
            for name in _names(module):
                value = vars(module)[name]
                if any(map(_marked, tensors(value))):
                    vars(module)[name] = mapped(Tensor.detach, value)
        return unseen


# ---------------------------------------------------------------- what modules keep besides: counters, caches, lists


_TORCHS = frozenset(name for name in vars(nn.Module()) if name[0] == "_")


def _names(module: nn.Module) -> list[str]:
    own = type(module).__module__.startswith("torch.")  # whose hidden attributes are torch's business
    return [name for name in vars(module) if name not in _TORCHS and not (own and name[0] == "_")]


def _attributes(module: nn.Module) -> dict:
    """A module's attributes, and what those that are lists, dicts or sets hold."""
    if any(map(_uninitialised, module._parameters.values())):  # its first call makes it another module
        return {}
    return {name: _snapshot(vars(module)[name]) for name in _names(module)}


def _put_back_attributes(module: nn.Module, before: dict) -> None:
    if not before:
        return
    for name in _names(module):
        if name not in before:
            del vars(module)[name]
    for name, snapshot in before.items():
        vars(module)[name] = _put_back(snapshot)


def _snapshot(value) -> tuple:
    """A value, and snapshots of what it holds if that can change."""
    if isinstance(value, dict):
        return value, {key: _snapshot(member) for key, member in value.items()}
    if isinstance(value, (list, deque)):
        return value, [_snapshot(member) for member in value]
    return value, set(value) if isinstance(value, set) else None


def _put_back(snapshot: tuple):
    """The value of a snapshot, which holds again what it held."""
    value, held = snapshot
    if isinstance(held, dict):
        held = {key: _put_back(member) for key, member in held.items()}
    elif isinstance(held, list):
        held = [_put_back(member) for member in held]
    if held is not None and not _alike(held, value):
        value.clear()
        (value.extend if isinstance(held, list) else value.update)(held)
    return value


def _alike(a, b) -> bool:
    """Whether two containers hold the same objects."""
    a, b = ([*v, *v.values()] if isinstance(v, dict) else list(v) for v in (a, b))
    return len(a) == len(b) and all(x is y for x, y in zip(a, b))


def _uninitialised(value) -> bool:
    """Whether it is of a lazy module before its first call."""
    return isinstance(value, nn.parameter.UninitializedTensorMixin)


def _marked(value: Tensor) -> bool:
    """Whether a pass has seen this tensor."""
    return any(name.startswith("_attrain") for name in vars(value))
