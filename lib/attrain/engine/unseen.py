"""What of a model can be seen: rules that an operation escapes would give a wrong map, so it is found and refused.

Compiled code, scripted code and an `autograd.Function` call no torch operation that Python sees.
"""

import sys
import threading
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from attrain.engine.operations import UnsupportedOperation

ADVICE = "give it a rule with attrain.register_rule(op, rule)"


def check(values: list[Tensor], leaf: Tensor, where: str) -> None:
    """Raise if one of the values comes from the input through an operation that nobody saw."""
    for value in values:
        node = value.grad_fn
        if node is not None and not hasattr(value, "_attrain_active") and reaches(node, leaf):
            raise UnsupportedOperation(
                f"{where} the result of an operation that cannot be seen ({node.name()}): a part of the model is "
                f"scripted or traced, or an autograd.Function. {_HOW}"
            )


def mark(values: list[Tensor], active: bool) -> None:
    """Say of results that their operation was seen, and whether they depend on the input."""
    for value in values:
        if value.grad_fn is not None:
            value._attrain_active = active


def active(value) -> bool:
    """Whether a value depends on the input."""
    return getattr(value, "_attrain_active", False)


_HOW = f"Use the module as written, or make the function visible with torch.overrides.wrap_torch_function and {ADVICE}"


def check_functions(node, leaf: Tensor, known: set) -> None:
    """Raise if the graph has an `autograd.Function` that is neither ours nor that of an operation with a rule."""
    for found in nodes(node):
        if not isinstance(found, BackwardCFunction) or type(found) in known:
            continue
        if not type(found)._forward_cls.__module__.startswith("attrain.") and reaches(found, leaf):
            name = found.name().removesuffix("Backward")
            raise UnsupportedOperation(f"the autograd.Function {name} has no rule. {_HOW}")


def functions(node, inputs: list[Tensor]) -> set:
    """The kinds of `autograd.Function` between a result and what it was made of."""
    return {type(n) for n in nodes(node, {t.grad_fn for t in inputs}) if isinstance(n, BackwardCFunction)}


def reaches(node, leaf: Tensor) -> bool:
    """Does a graph lead back to that leaf?"""
    return any(getattr(n, "variable", None) is leaf for n in nodes(node))


def nodes(node, ends=()):
    """All nodes of a graph, but for the ends and what lies beyond."""
    seen, queue = {None, *ends}, [node]
    while queue:
        node = queue.pop()
        if node not in seen:
            seen.add(node)
            yield node
            queue.extend(n for n, _ in node.next_functions)


_lock, _depth, _stance = threading.Lock(), 0, None


@contextmanager
def uncompiled():
    """Within this context what torch.compile has compiled runs as it was written, in all threads."""
    global _depth, _stance
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _stance = torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _stance.__exit__(None, None, None)
