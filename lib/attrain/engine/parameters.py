"""Parameters that a forward pass writes into (a norm that is bounded, a weight that is clamped) come back too.

No copy of them all is made at each call: a value is copied when an operation is about to write into it.
"""

from functools import cached_property

import torch
from torch import Tensor, nn

from attrain.engine.call import Call
from attrain.tensors import tensors


class Parameters:
    """The parameters of a model before a pass: which they are, and the values of those that the pass writes into."""

    def __init__(self, model: nn.Module):
        modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        self.places = [(m, dict(m._parameters)) for m in modules if m._parameters]
        self.found = [(p, p.data, p._version) for p in model.parameters() if _known(p)]
        self.values: dict[int, Tensor] = {}

    @cached_property
    def _by_memory(self) -> dict[int, list]:
        found: dict[int, list] = {}
        for p, data, _ in self.found:
            if data.layout == torch.strided and type(data) is Tensor and data.numel():
                found.setdefault(data.untyped_storage().data_ptr(), []).append((p, data))
        return found

    def about_to_be_written(self, target: Tensor) -> None:
        """Keep the values of the parameters that share a tensor's memory."""
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(target)  # of vmap, without memory of its own
        if wrapped or target.layout != torch.strided or target.is_nested or not target.numel():
            return
        for p, data in self._by_memory.get(target.untyped_storage().data_ptr(), ()):
            if id(p) not in self.values:
                self.values[id(p)] = data.clone()

    def now(self) -> tuple[list, dict]:
        """For passes beside the one that counts: where parameters are now, and what the written ones are."""
        values = {id(p): p.data.clone() for p, *_ in self.found if id(p) in self.values}
        return [(m, dict(m._parameters)) for m, _ in self.places], values

    def put_back(self, now: tuple[list, dict] | None = None) -> list[Tensor]:
        """Make the parameters what they were before, or at `now`; returns those that changed where nobody saw it."""
        places, values = (self.places, self.values) if now is None else (now[0], self.values | now[1])
        for module, parameters in places:
            if any(p is not parameters.get(name) for name, p in module._parameters.items()):
                module._parameters.clear()
                module._parameters.update(parameters)
        unseen = []
        for p, data, version in self.found:
            if p.data_ptr() != data.data_ptr() and now is None:
                p.data = data
            if id(p) in values:
                p.data.copy_(values[id(p)])
            elif now is None and p._version != version:
                unseen.append(p)
        return unseen


def _known(value: Tensor) -> bool:
    return not isinstance(value, nn.parameter.UninitializedTensorMixin) and not value.is_inference()


def may_write(call: Call) -> bool:
    """Whether an operation may write into a tensor that it is given, or hands its memory to others who may."""
    by_argument = "out" in call.kwargs or "inplace" in call.kwargs
    return call.inplace or by_argument or call.name is None or call.name in _SUSPECTS


def written(call: Call) -> list[Tensor]:
    """The tensors that an operation is about to write into."""
    found = tensors(call.kwargs.get("out"))
    name = getattr(call.func, "__name__", "")
    if name.startswith("_foreach_"):
        return found + tensors(call.args[0])
    if call.name in _BOUNDED:
        return found + ([call.given["weight"]] if call.given.get("max_norm") is not None else [])
    unknown = call.name is None and name.endswith("_") and not name.endswith("__")  # of torch.nn.init, say
    if call.inplace or call.kwargs.get("inplace") is True or unknown or call.name in _HANDED_OUT:
        found += call.tensors[:1]
    return found


_BOUNDED = frozenset("embedding embedding_bag".split())  # by their max_norm
_HANDED_OUT = frozenset("numpy array dlpack storage untyped_storage".split())
_SUSPECTS = _BOUNDED | _HANDED_OUT
