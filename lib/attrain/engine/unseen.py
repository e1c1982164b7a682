"""What of a model nobody sees: rules that an operation escapes would give a wrong map, so it is found and refused.

Compiled code, scripted code, an `autograd.Function`, numpy and other threads call no torch operation that the mode
sees. Their results have a graph that leads to the input though nobody saw them made, or no graph at all. Of the latter
it is found out whether they are constants: by looking at them again while the model runs on another input.
"""

import sys
import threading
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from attrain.engine.call import ADVICE, Call, UnsupportedOperation
from attrain.tensors import tensors

_HOW = f"Use the module as written, or make the function visible with torch.overrides.wrap_torch_function and {ADVICE}"


def check(mode, call: Call) -> None:
    """Raise if an argument comes from the input through an operation that nobody saw; note what might."""
    if call.kwargs.get("out") is not None:
        raise UnsupportedOperation(f"{mode.title} cannot follow {call} with out=; use what it returns")
    if torch.is_inference_mode_enabled():
        raise UnsupportedOperation(f"the model calls {call} in torch.inference_mode, where nothing has a derivative")
    if call.name in ("storage", "untyped_storage", "_typed_storage"):
        raise UnsupportedOperation(f"{mode.title} cannot follow {call}: nobody sees what becomes of that memory")
    if mode.sees_all:
        _check_backward(mode, call)
    if call.kind == "reads":
        mode.unknown.append(str(call))
    for value in call.tensors:
        value, *wrapped = _unwrapped(value)
        if any(getattr(t, "_attrain_seen", None) is mode.token or mode.is_active(t) for t in (value, *wrapped)):
            continue
        if value.grad_fn is not None:
            if mode.sees_all and reaches(value.grad_fn, mode.leaves):
                raise UnsupportedOperation(_unseen(f"{call} is given", value.grad_fn))
        elif id(value) not in mode.constants and not _empty(value):
            mode.unknown.append(str(call))


def _unwrapped(value: Tensor) -> list[Tensor]:
    """A tensor, within those that a transform of torch.func, as vmap, wraps around it; and these."""
    found = [value]
    while torch._C._functorch.is_functorch_wrapped_tensor(found[0]):
        found.insert(0, torch._C._functorch.get_unwrapped(found[0]))
    return found


def _empty(value: Tensor) -> bool:
    """Whether a tensor holds no numbers that could come from the input, as a cache that nothing is in yet."""
    return not value.is_nested and value.numel() == 0


def _check_backward(mode, call: Call) -> None:
    """Raise if the model changes what a backward pass would find."""
    inside = None if torch.is_grad_enabled() else _running_function()
    if inside:
        raise UnsupportedOperation(f"the autograd.Function {inside} has no rule. {_HOW}")
    if call.kind == "hooks" or call.func in (torch.autograd.grad, torch.autograd.backward):
        raise UnsupportedOperation(
            f"{mode.title} cannot follow {call}: the model has derivatives, or hooks, of its own"
        )
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise UnsupportedOperation(
            f"{mode.title} cannot follow {call} inside a transform of torch.func (vmap, grad, jvp)"
        )
    if call.func == Tensor.data.__set__:
        raise UnsupportedOperation(
            f"{mode.title} cannot follow an activation whose .data is assigned; use what it would hold"
        )
    if any(t.is_nested for t in call.active):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call} of nested tensors; pad them")
    target = call.tensors[0] if call.inplace else None
    if target is not None and mode.token in (_alias(target), _alias(target._base)):
        raise UnsupportedOperation(f"{mode.title} cannot follow {call} in place on a detached tensor; copy it first")


def _running_function() -> str | None:
    """The name of the autograd.Function whose forward is being run, if one is: its operations make no graph."""
    frame, running = sys._getframe(), []
    while frame is not None:
        if frame.f_code.co_name == "forward" and not _is_of_module(frame):
            running.append(frame.f_code)
        frame = frame.f_back
    kinds, queue = {}, [torch.autograd.Function] if running else []
    while queue:
        kind = queue.pop()
        queue += kind.__subclasses__()
        kinds[getattr(kind.forward, "__code__", None)] = kind.__name__
    return next((kinds[code] for code in running if code in kinds), None)


def _is_of_module(frame) -> bool:
    names = frame.f_code.co_varnames
    return bool(names) and isinstance(frame.f_locals.get(names[0]), torch.nn.Module)


def _alias(value):
    return getattr(value, "_attrain_alias", None)


def check_output(mode, output: list[Tensor]) -> None:
    """Raise if the model's output, or its graph, comes through an operation without a rule."""
    for value in output:
        if value.grad_fn is None:
            continue
        if not mode.is_active(value) and reaches(value.grad_fn, mode.leaves):
            raise UnsupportedOperation(_unseen("the model returns", value.grad_fn))
        for node in nodes(value.grad_fn):
            if not isinstance(node, BackwardCFunction) or type(node) in mode.known:
                continue
            if not type(node)._forward_cls.__module__.startswith("attrain.") and reaches(node, mode.leaves):
                raise UnsupportedOperation(f"the autograd.Function {_function(node)} has no rule. {_HOW}")


def _unseen(where: str, node) -> str:
    if "BackwardHookFunction" in node.name():
        return f"{where} the output of a module with a full backward hook, which nobody sees; remove the hook first"
    return (
        f"{where} the result of an operation that cannot be seen ({node.name()}): a part of the model is scripted or "
        f"traced, or an autograd.Function. {_HOW}"
    )


def _function(node) -> str:
    return node.name().removesuffix("Backward")


def functions(node, before: set) -> set:
    """The kinds of `autograd.Function` between a result and the nodes of what it was made of."""
    return {type(n) for n in nodes(node, before) if isinstance(n, BackwardCFunction)}


def reaches(node, leaves: list[Tensor]) -> bool:
    """Does a graph lead back to one of these leaves?"""
    wanted = {id(leaf) for leaf in leaves}
    return any(id(getattr(n, "variable", None)) in wanted for n in nodes(node))


def nodes(node, ends=()):
    """All nodes of a graph, but for the ends and what lies beyond."""
    seen, queue = {None, *ends}, [node]
    while queue:
        node = queue.pop()
        if node not in seen:
            seen.add(node)
            yield node
            queue.extend(n for n, _ in node.next_functions)


# ---------------------------------------------------------------- are they constants?


# Their results may be made of what was read from a tensor, in numpy, or by a copy of its memory.
MADE_OF_NUMBERS = frozenset(
    """tensor as_tensor asarray from_numpy scalar_tensor full from_dlpack frombuffer set_ deepcopy __deepcopy__
    __reduce_ex__ new_tensor""".split()
)


class _Witness(TorchFunctionMode):
    """Writes down every number and every tensor that enters an operation and that no operation was seen to make."""

    def __init__(self, constants: dict[int, Tensor], whole: bool):
        super().__init__()
        self.constants, self.token, self.record = constants, object(), []
        self.numbers = (int, float, complex) if whole else (float, complex)  # a derivative is not changed by whole ones

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = map(_unwrapped, tensors((args, kwargs)))
        strange = [levels[0] for levels in given if not self._constant(levels[0]) and not any(map(self._seen, levels))]
        numbers = [a for a in (*args, *kwargs.values()) if isinstance(a, self.numbers)]
        self.record.append((getattr(func, "__name__", ""), numbers, [t.detach().clone() for t in strange]))
        out = func(*args, **kwargs)
        for t in tensors(out):
            vars(t)["_attrain_seen"] = None if getattr(func, "__name__", "") in MADE_OF_NUMBERS else self.token
        return out

    def _seen(self, value: Tensor) -> bool:
        return getattr(value, "_attrain_seen", None) is self.token

    def _constant(self, value: Tensor) -> bool:
        return id(value) in self.constants


def check_constants(mode, run) -> None:
    """Raise if something that nobody saw made is no constant: if it differs where the model runs on another input.

    Args:
        mode: the pass that met it, see `Mode.unknown`.
        run: run(number, witness) runs the model within the witness: 0 on its input, 1 and 2 on others.
    """
    if not mode.unknown:
        return
    records, state = [], torch.get_rng_state()
    for number in range(3):
        torch.set_rng_state(state)
        witness = _Witness(mode.constants, whole=mode.sees_all)
        with torch.no_grad():
            run(number, witness)
        records.append(witness.record)
    torch.set_rng_state(state)
    for record in records[1:]:
        _compare(mode, records[0], record)


def _compare(mode, first: list, second: list) -> None:
    if [name for name, *_ in first] != [name for name, *_ in second]:
        return  # another branch was taken: nothing to compare, and a branch is no value
    for (name, numbers, values), (_, other_numbers, other_values) in zip(first, second):
        same = len(values) == len(other_values) and all(map(_equal, values, other_values))
        if numbers != other_numbers or not same:
            raise UnsupportedOperation(
                f"{name} is given what is made of the input where nobody sees it (numpy, another thread, a number read "
                f"from a tensor, an autograd.Function under no_grad): {mode.title} would take it for a constant. {_HOW}"
            )


def _equal(a: Tensor, b: Tensor) -> bool:
    a, b = (t.to_dense() if t.layout != torch.strided else t for t in (a, b))
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def held(model) -> list[Tensor]:
    """The tensors that a model holds: parameters, buffers, and plain attributes of its modules."""
    found = []
    for module in modules_of(model):
        found += [t for m in module.modules() for t in tensors({k: v for k, v in vars(m).items() if k[0] != "_"})]
        found += [*module.parameters(), *module.buffers()]
    return [t for t in found if not isinstance(t, nn.parameter.UninitializedTensorMixin)]


def modules_of(model) -> list[nn.Module]:
    """The module itself, or those that a function closes over, is a method of or is given."""
    if isinstance(model, nn.Module):
        return [model]
    values = [getattr(model, "__self__", None), getattr(model, "func", None), *getattr(model, "args", ())]
    for cell in getattr(model, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell
            values.append(cell.cell_contents)
    code = getattr(model, "__code__", None)
    values += [model.__globals__.get(name) for name in (code.co_names if code else ())]
    return [v for v in values if isinstance(v, nn.Module)]


# ---------------------------------------------------------------- compiled code

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
