"""One operation as it was called: its kind, its arguments by name, and which of them depend on the input.

Positional or by keyword, as a function, a method, an operator or in place: it is the same `Call`.
"""

import difflib
import inspect
import math
import types
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import resolve_name

from attrain.engine.kinds import KIND_OF, named
from attrain.tensors import mapped, tensors

ADVICE = "give it a rule with attrain.register_rule(op, rule)"
_SAME = {"self": "input", "axis": "dim", "keepdims": "keepdim", "x": "input", "train": "training"}
# Arguments of which only the shape or the type matters.
_TEMPLATES = {
    "expand_as": "other",
    "view_as": "other",
    "reshape_as": "other",
    "type_as": "other",
    "is_same_size": "other",
}


class UnsupportedOperation(NotImplementedError):
    """The model called an operation that the method has no rule for."""


class Call:
    """An operation as called, to be run as it is or on other values.

    Args:
        func, args, kwargs: the call.
        is_active: tells of a tensor whether it depends on the input.

    Attributes:
        name: the operation's name whatever its spelling, None if it is none of torch's.
        kind: its kind, see `attrain.engine.kinds.KINDS`; None if it has none.
        inplace: whether it changes its first argument.
        active: the arguments that depend on the input, each once.
        times: how often they occur.
    """

    __slots__ = ("_given", "active", "args", "func", "inplace", "kind", "kwargs", "name", "tensors", "times")

    def __init__(self, func, args: tuple, kwargs: dict, is_active):
        self.func, self.args, self.kwargs, self._given = func, args, kwargs, None
        self.name, self.inplace = named(func)
        if self.name is None and getattr(func, "__module__", None) == "attrain.engine.decompositions":
            self.name = func.__name__
        self.kind = KIND_OF.get(self.name)
        self.tensors = tensors((args, kwargs) if kwargs else args)
        found = [t for t in self.tensors if is_active(t)]
        if found and self.name in _TEMPLATES:
            template = self.given.get(_TEMPLATES[self.name])
            if template is not self.given.get("input"):  # h.view_as(h)
                found = [t for t in found if t is not template]
        self.active, self.times = list({id(t): t for t in found}.values()), len(found)
        if found and not self.inplace and kwargs.get("inplace", self.name in _POSITIONAL_INPLACE):
            self.inplace = bool(self.given.get("inplace", False))

    def __str__(self) -> str:
        return resolve_name(self.func) or getattr(self.func, "__name__", str(self.func))

    @property
    def given(self) -> dict:
        """The arguments by name, as torch's own signature has them; the first is "input"."""
        if self._given is None:
            self._given = by_name(self.func, self.name, self.args, self.kwargs)
        return self._given

    def run(self, change=None):
        """The result; with every tensor t replaced by change(t), and then never in place, if that is given."""
        if change is None:
            return self.func(*self.args, **self.kwargs)
        args, kwargs = mapped(change, self.args), mapped(change, self.kwargs)
        if self.inplace:
            if self.name == "relu":
                return (args[0] if args else kwargs["input"]).relu()
            if args:
                args = (args[0].clone(), *args[1:])
            else:
                kwargs = kwargs | {"input": kwargs["input"].clone()}
        return self.func(*args, **kwargs)

    def on(self, *values):
        """The result with other activations."""
        new = {id(t): v for t, v in zip(self.active, values)}
        return self.run(lambda t: new.get(id(t), t))

    def released(self) -> "Call":
        """The same call, to be run with `on`, without a hold on its activations."""
        stand_ins = {id(t): torch.empty(0) for t in self.active}
        swap = lambda t: stand_ins.get(id(t), t)  # noqa: E731
        held = {id(t) for t in stand_ins.values()}
        return Call(self.func, mapped(swap, self.args), mapped(swap, self.kwargs), lambda t: id(t) in held)


_POSITIONAL_INPLACE = frozenset(
    """relu relu6 leaky_relu elu selu celu silu mish hardtanh hardsigmoid hardswish threshold rrelu
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout""".split()
)


# Where they return a value of the shape that they are given, it is that value.
_COPIES = frozenset(
    """clone contiguous alias to type type_as float double half bfloat16 cpu cuda view view_as reshape reshape_as
    flatten unflatten squeeze unsqueeze expand expand_as broadcast_to
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout""".split()
)


def is_copy(call: Call, out) -> bool:
    """Whether a call hands its activation on as it is."""
    if call.name not in _COPIES or not isinstance(out, Tensor) or not out.is_floating_point() or call.inplace:
        return False
    drops = call.kind == "dropouts" and call.given.get("training", call.given.get("train", True))
    return not drops and len(call.active) == 1 and out.shape == call.active[0].shape


def by_batch(training: bool | None, running_mean: Tensor | None) -> bool:
    """Whether batch norm takes the batch's own statistics."""
    return bool(training) or running_mean is None


def is_bicubic(call: Call) -> bool:
    """Whether it interpolates with weights of both signs."""
    return "bicubic" in (call.name or "") or call.given.get("mode") == "bicubic"


def by_name(func, name: str | None, args: tuple, kwargs: dict) -> dict:
    """A call's arguments by name; positional ones that have none are left out, numbers of a list stand together."""
    names = _names(func, name, tuple(map(_kind, args)), frozenset(kwargs))
    given = dict(zip(names, args))
    if len(args) > len(names) > 0 and all(isinstance(a, int) for a in args[len(names) - 1 :]):
        given[names[-1]] = args[len(names) - 1 :]  # x.permute(0, 2, 1)
    given |= kwargs
    return {_SAME.get(k, k): v for k, v in given.items()}


def _kind(value) -> str:
    """What a positional argument is, as far as torch's overloads differ by it."""
    if isinstance(value, Tensor) or tensors(value):
        return "Tensor"
    return "bool" if isinstance(value, bool) else "None" if value is None else "other"


@cache
def _names(func, name: str | None, given: tuple, keywords: frozenset) -> tuple[str, ...]:
    """The names of positional arguments, from the signature of a Python function or the schema of an operator."""
    if isinstance(func, types.FunctionType) and not hasattr(func, "__wrapped__"):
        if list(inspect.signature(func).parameters) != ["args", "kwargs"]:
            return tuple(_SAME.get(p, p) for p in inspect.signature(func).parameters)
        func = getattr(torch.nn.functional, f"{name}_with_indices", None)  # dispatched on return_indices
        return tuple(inspect.signature(func).parameters) if func else ()
    return _schema(_operator(func, name), given, {_SAME.get(k, k) for k in keywords})


def _operator(func, name: str | None):
    """The operator of `torch.ops.aten` behind a function of torch's that is written in C++."""
    if isinstance(func, (OpOverload, OpOverloadPacket)):
        return func
    for core in (getattr(func, "__name__", ""), name or ""):
        operator = getattr(torch.ops.aten, core, None) if core and not core.startswith("__") else None
        if operator is not None:
            return operator
    return None


def _schema(operator, given: tuple, keywords: set) -> tuple[str, ...]:
    """The argument names of the overload that fits best."""
    if operator is None:
        return ("input", "other")[: len(given)]
    overloads = [operator] if isinstance(operator, OpOverload) else [getattr(operator, o) for o in operator.overloads()]
    best, best_score = (), -math.inf
    for overload in overloads:
        arguments = [a for a in overload._schema.arguments if not a.is_out]
        names = tuple(_SAME.get(a.name, a.name) for a in arguments)
        fits = [_fits(str(a.type), kind) for a, kind in zip(arguments, given)]
        surplus = 3 * len(keywords - {*names, "out"}) + max(len(given) - len(names), 0)
        score = fits.count(True) - 2 * fits.count(False) - surplus
        if score > best_score:
            best, best_score = names, score
    return best


def _fits(wanted: str, kind: str) -> bool:
    """Whether an argument of that kind goes with the type in a schema."""
    if kind == "None":
        return "Optional" in wanted
    return ("Tensor" in wanted) == (kind == "Tensor") and ("bool" in wanted) == (kind == "bool")


# ---------------------------------------------------------------- operations of a user's own

REGISTERED: dict = {}


def did_you_mean(given: object, known: Iterable[str], most: int = 3) -> str:
    """The end of a message on a name that is not known: "; did you mean …?", or "" where no known one is near."""
    near = difflib.get_close_matches(str(given), known, most)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def register_rule(op: Callable, rule: str | Callable) -> None:
    """Say what the methods do at an operation of your own.

    Args:
        op: a torch function, a custom operator (`torch.ops.mine.op`), or a Python function made visible by
            `torch.overrides.wrap_torch_function` (an `autograd.Function` is otherwise seen by nobody).
        rule: `"linear"`: linear, and homogeneous, in the activations: every method uses its derivative;
            `"elementwise"`: a function of one activation, value by value: DeepLIFT takes the secant;
            `"product"`: linear in each of several activations: DeepLIFT takes the mean derivative between reference
            and input; or a function with the operation's arguments that computes the same from known operations.

    LRP, which is defined for ReLU networks only, takes `"linear"` rules and functions.

    Raises:
        ValueError: another rule.
        TypeError: an `op` whose calls nobody sees, such as an `autograd.Function` or a module.

    Example:
        >>> import torch
        >>> from attrain import DeepLift, explain, register_rule
        >>> @torch.overrides.wrap_torch_function(lambda x: (x,))
        ... def bump(x):
        ...     return MyCudaKernel.apply(x)
        >>> register_rule(bump, lambda x: torch.exp(-x * x))
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2))
        >>> model.append(torch.nn.Identity()).forward = lambda x: bump(model[0](x))
        >>> result = explain(model, torch.ones(1, 3), 0, DeepLift())
        >>> torch.allclose(result.heatmap.sum(), result.delta.sum(), atol=1e-6)
        True
    """
    if not (callable(rule) or rule in ("linear", "elementwise", "product")):
        hint = did_you_mean(rule, ("linear", "elementwise", "product"), most=1)
        raise ValueError(f'rule must be "linear", "elementwise", "product" or a function, got {rule!r}{hint}')
    if isinstance(op, (type, torch.nn.Module)) or not callable(op):
        raise TypeError(
            f"op must be a torch function, an operator of torch.ops or a function wrapped by "
            f"torch.overrides.wrap_torch_function, got {op!r}; call an autograd.Function's apply in such a function"
        )
    if isinstance(op, types.FunctionType) and not (hasattr(op, "__wrapped__") or named(op)[0]):
        raise TypeError(f"nobody sees calls of {op.__name__}: wrap it with torch.overrides.wrap_torch_function first")
    REGISTERED[getattr(op, "_opoverload", op)] = rule  # of a torch.library.custom_op, what is called


def registered(func):
    """The user's rule for an operation, or None."""
    if not REGISTERED:
        return None
    return REGISTERED.get(func) or REGISTERED.get(getattr(func, "overloadpacket", None))


@torch.no_grad()
def check_registered(call: Call, rule: str) -> None:
    """Raise UnsupportedOperation if an operation is not what it is registered as, for these arguments.

    "linear" and "product": f(a + b) = f(a) + f(b) in all its activations together, or in each; "elementwise": where
    half of the values are others, half of the results are.
    """
    values = [t.detach() for t in call.active]
    if not all(v.is_floating_point() for v in values):
        return
    others = [v.flatten().flip(0).reshape(v.shape) for v in values]
    if rule == "elementwise":
        checked = len(values) > 1 or _is_elementwise(call, values[0], others[0])
    elif rule == "linear":
        checked = _is_additive(call.on(*values), call.on(*others), call.on(*map(torch.add, values, others)))
    else:
        changed = [[*values[:i], o, *values[i + 1 :]] for i, o in enumerate(others)]
        sums = [[*values[:i], v + o, *values[i + 1 :]] for i, (v, o) in enumerate(zip(values, others))]
        checked = all(_is_additive(call.on(*values), call.on(*a), call.on(*b)) for a, b in zip(changed, sums))
    if not checked:
        raise UnsupportedOperation(f'{call} is registered as "{rule}", and is not for these arguments')


def _is_additive(a, b, both) -> bool:
    return all(_close(x + y, z) for x, y, z in zip(tensors([a]), tensors([b]), tensors([both])))


def _is_elementwise(call: Call, x: Tensor, other: Tensor) -> bool:
    half = (torch.arange(x.numel(), device=x.device) % 2 == 0).view(x.shape)
    y, mixed = call.on(x), call.on(torch.where(half, x, other))
    return isinstance(y, Tensor) and y.shape == x.shape and _close(torch.where(half, y, call.on(other)), mixed)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not b.is_floating_point():
        return a.shape == b.shape
    scale = torch.maximum(a.abs(), b.abs()).max() if b.numel() else b.new_zeros(())
    return bool(((a - b).abs() <= torch.finfo(b.dtype).eps ** 0.5 * scale).all())


# ---------------------------------------------------------------- torch's functions that are written in Python


@cache
def opened(func):
    """A Python function of torch's without its own look for overrides, so that what it calls is seen; or None.

    Torch has no way to run such a function below a mode and still see what it calls. Its code is therefore bound to a
    scope in which nothing is overridden (tests/attrain/test_engine_call.py says so where a new torch changes that).
    Not `interpolate`, which is linear whatever it calls: on a GPU, with deterministic algorithms, parts without names.
    """
    if not isinstance(func, types.FunctionType) or not (func.__module__ or "").startswith("torch"):
        return None
    name = named(func)[0]
    if name is None or name == "interpolate":
        return None
    names = [n for n in func.__code__.co_names if n.startswith("has_torch_function")]
    if not names or (func.__module__ == "torch._tensor" and name in KIND_OF):
        return None
    scope = func.__globals__ | dict.fromkeys(names, lambda *_: False)
    body = types.FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


def write(target: Tensor, value: Tensor) -> Tensor:
    """Make an operation's result the value and the graph of the tensor that it changes in place."""
    return (target if target._is_view() else target.detach_()).copy_(value)
