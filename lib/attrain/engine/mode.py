"""The interception: a method is a table from kind of operation to rule, and this mode asks it at every call.

A rule is a function (mode, call) -> result. It returns the operation's ordinary result with a backward pass that
follows the method's rule while `mode.backward.explaining`, and the ordinary derivative otherwise, so one forward pass
serves the map and the loss alike. Modules, functional calls, operators and in-place calls are the same thing here, and
nothing is left in the model.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Tensor
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointError

from attrain.engine import unseen
from attrain.engine.call import ADVICE, Call, UnsupportedOperation, check_registered, did_you_mean, opened, registered
from attrain.engine.kinds import names_of_operations
from attrain.engine.parameters import may_write
from attrain.engine.state import before_write
from attrain.engine.watch import SUSPECTS, Findings
from attrain.tensors import tensors

Tensors = Sequence[Tensor]
Rule = Callable[["Mode", Call], object]
_SAVED = "attrain: what a model saves"
_OF_REGISTERED = {"linear": "linear_maps", "elementwise": "functions", "product": "products"}


class Backward:
    """Whether the backward pass follows the rules, and for which reference; autograd nodes keep this and no tensors.

    Attributes:
        ends: whether nothing passes a rule, so that it is seen what comes to the rules from the explained number alone.
    """

    __slots__ = ("ends", "explaining", "last", "reference")

    def __init__(self):
        self.explaining, self.reference, self.last, self.ends = False, 0, False, False


class Mode(TorchFunctionMode):
    """One pass of a model under a method's rules.

    Args:
        leaves: the inputs, as leaves of the graph; integers are as they came.
        entries: the copies of them that the model is given, and may change in place.
        create_graph: whether the maps are to be differentiated.
        model: whose parameters, buffers and plain tensors are constants.

    Attributes:
        table: kind, or name, of operation -> rule; under None the rule of all others.
        opens: whether torch's Python functions without a rule are run with the mode on inside.
        sees_all: whether an operation that nobody sees would make the map wrong, and is refused.
        keeps: whether rules keep other tensors for the backward pass than the operations do, so that recomputing or
            moving what a model saves would mix them up, and is refused.
        through: whether a map's gradient passes through the statistics of a batch norm in training mode.
        title: what error messages call the method.
        references: how many backward passes, each with a reference of its own, are averaged.
    """

    table: Mapping[str | None, Rule] = {}
    opens, sees_all, keeps, through, title, references = True, True, False, True, "this method", 1

    def __init__(self, leaves: Sequence[Tensor], entries: Sequence[Tensor], create_graph: bool = False, model=None):
        super().__init__()
        self.leaves, self.entries = list(leaves), list(entries)
        self.create_graph, self.model = create_graph, model
        self.backward, self.token, self.known = Backward(), object(), set()
        self.unknown: list[str] = []  # where something of unseen origin was met
        self.findings: Findings | None = None  # where what is worth a warning is written down
        for entry in self.entries:
            entry._attrain_active = self.token

    # ---------------------------------------------------------------- what depends on the input

    @cached_property
    def constants(self) -> dict[int, Tensor]:
        """The tensors that the model holds before the pass, by identity; kept, so that no other takes that over."""
        return {id(t): t for t in unseen.held(self.model)}

    def is_active(self, value: Tensor) -> bool:
        """Whether a tensor, or what it is a view of, depends on the input; of any dtype, with a graph or without."""
        if getattr(value, "_attrain_active", None) is self.token:
            return True
        base = value._base
        return base is not None and getattr(base, "_attrain_active", None) is self.token

    def mark(self, value, active: bool) -> None:
        """Say of results that their operation was seen, and whether they depend on the input."""
        for t in tensors(value):
            t._attrain_seen = self.token
            if active:
                t._attrain_active = self.token

    def __torch_function__(self, func, types, args=(), kwargs=None):
        call = Call(func, args, kwargs or {}, self.is_active)
        rule = registered(func)
        if callable(rule):
            with self:
                return rule(*args, **call.kwargs)
        if "nested" in getattr(func, "__name__", ""):  # made where nobody sees it
            raise UnsupportedOperation(f"{self.title} has no rule for {call}: pad instead of nesting")
        if self.findings is not None and call.name in SUSPECTS:
            self.findings.note(call, self.model)
        if may_write(call) and not (call.inplace and call.active and call.tensors[0] is call.active[0]):
            before_write(call, self.model)
        if not call.active:
            out = self.passive(call)
            if getattr(func, "__name__", "") not in unseen.MADE_OF_NUMBERS:
                self.mark(out, active=False)
            if call.kind == "detached":
                out._attrain_alias = self.token
            return out
        if call.kind == "queries" and not call.inplace:
            return call.run()
        unseen.check(self, call)
        try:
            out = self.answer(call, rule)
        except RuntimeError as error:
            if not call.inplace or "view" not in str(error):
                raise
            raise UnsupportedOperation(f"{self.title} cannot follow {call} on a view; write it out of place") from error
        self._note(call, out, rule)
        return out

    def passive(self, call: Call):
        """The result of what nothing says to depend on the input."""
        return call.run()

    def answer(self, call: Call, registered: str | None):
        """The result by the table's rule."""
        kind = _OF_REGISTERED.get(registered, call.kind)
        if registered is not None:
            check_registered(call, registered)
        rule = (call.name and self.table.get(call.name)) or (kind and self.table.get(kind))
        body = opened(call.func) if not rule and self.opens else None
        if body is not None:
            with self:
                return body(*call.args, **call.kwargs)
        rule = rule or self.table[None]
        if (getattr(rule, "__module__", None) or "").startswith("attrain."):
            return rule(self, call)
        before = {t.grad_fn for t in call.tensors}
        out = rule(self, call)  # of a method of the user's own, whose autograd.Functions are the rule
        if not tensors([out]) and call.kind not in ("reads", "queries", "hooks") and call.name != "setitem":
            raise TypeError(
                f"the rule {getattr(rule, '__name__', rule)} of {self.title} must return the result of {call}, a "
                f"tensor or several, got {type(out).__name__}"
            )
        self._know(out, before)
        return out

    def _know(self, out, before: set) -> None:
        """The `autograd.Function`s between results and the nodes of what they were made of are those of a rule."""
        self.known |= {kind for t in tensors(out) for kind in unseen.functions(t.grad_fn, before)}

    def _note(self, call: Call, out, rule: str | None) -> None:
        if call.kind == "reads":  # a deep copy brings along what its original carries
            for t in tensors(out):
                vars(t).clear()
            return
        self.mark(out, active=call.kind != "templates")
        if call.kind == "detached":
            out._attrain_alias = self.token
        if call.kind == "counts":
            self.unknown.append(str(call))
        if call.inplace and call.tensors:
            target = call.tensors[0]
            self.mark(target if target._base is None else [target, target._base], active=True)
        if rule:
            self._know(out, {t.grad_fn for t in call.tensors})
        starts = call.kind != "templates" and not call.inplace  # else a leaf might be written to in place
        if starts and len(self.mapped) < len(self.leaves):
            for t in tensors(out):  # what is made of whole numbers is where the graph starts
                if t.is_floating_point() and t.grad_fn is None and not t.requires_grad and torch.is_grad_enabled():
                    t.requires_grad_()

    # ---------------------------------------------------------------- one pass

    @contextmanager
    def saving(self):
        """Within this context torch's errors about what a model saves for the backward pass say what to do."""
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, CheckpointError) or _SAVED in str(error) or "use_reentrant" in str(error)):
                raise
            raise UnsupportedOperation(
                f"{self.title} cannot follow a model that saves its activations otherwise (gradient checkpointing, "
                "offloading): switch it off while explaining, for instance by set_grad_checkpointing(False), "
                "gradient_checkpointing_disable() or use_checkpoint=False"
            ) from error

    @contextmanager
    def explaining(self, reference: int = 0, last: bool = False):
        """Within this context the backward pass follows the rules, those of one reference; the last may use them up."""
        backward = self.backward
        backward.explaining, backward.reference, backward.last = True, reference, last
        try:
            yield
        finally:
            backward.explaining = False

    def around(self, model):
        """A context for the whole of a pass."""
        return nullcontext()

    def forward(self, run: Callable[[], object]):
        """The model's output, with the rules on."""
        check_table(self)
        _ = self.constants  # what the pass itself puts into the model is none
        with disable_saved_tensors_hooks(_SAVED) if self.keeps else nullcontext(), self:
            output = run()
        if self.sees_all:
            unseen.check_output(self, tensors(output))
        return output

    def scores(self, output, score) -> tuple[Tensor, Tensor | None]:
        """The explained numbers, (N,) or (N, K), and what their maps must sum to where that is known."""
        return score(output), None

    def start(self, output, score: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the backward pass starts, and with what."""
        return score.sum(), None

    @cached_property
    def mapped(self) -> list[int]:
        """The places of the inputs that have a map: that are no whole numbers."""
        return [place for place, leaf in enumerate(self.leaves) if leaf.is_floating_point()]

    def roots(self) -> list[Tensor]:
        """The tensors at which the gradient is read, one for each input that has a map."""
        return [self.leaves[place] for place in self.mapped]

    def contract(self, number: int, gradient: Tensor) -> Tensor:
        """The map at an input, of the gradient there; number counts the roots, whose places are `mapped`."""
        return gradient

    def contract_at(self, gradient: Tensor, activation: Tensor, reference: Tensor | None) -> Tensor:
        """The map at a layer's output."""
        return gradient

    def reference_of(self, value: Tensor) -> Tensor | None:
        """What a layer's output is on the reference input, where the method knows that."""
        return None

    def second_of(self, value: Tensor) -> Tensor | None:
        """What else of a layer's output has a part in its map: its product with its gradient is added."""
        return None

    def check_layer(self, name: str, node) -> None:
        """Raise where a layer's output, which came of this node of the graph, has no map of its own."""


def check_table(mode: Mode) -> None:
    """Raise unless a method's table has rules, under names that operations have, and one for all others; once a class.

    Raises:
        TypeError: no mapping, or what is no rule.
        ValueError: a kind or name that no operation has, or no rule under None.
    """
    kind, table = type(mode), mode.table
    if table is vars(kind).get("_checked"):
        return
    where = f"{kind.__name__}.table"
    if not isinstance(table, Mapping):
        raise TypeError(f"{where} must be a dict from kinds of operations to rules, got {type(table).__name__}")
    for key, rule in table.items():
        if key is not None and key not in names_of_operations():
            hint = did_you_mean(key, names_of_operations())
            raise ValueError(f"{where} has a rule for {key!r}, which no kind of operation and none of torch's is{hint}")
        if not callable(rule):
            raise TypeError(f"{where}[{key!r}] must be a rule (mode, call) -> result, got {rule!r}")
    if None not in table:
        raise ValueError(f"{where} needs a rule under None, for all other operations: derivative, or refuse(reason)")
    kind._checked = table


def derivative(mode: Mode, call: Call):
    """The operation as it is, with its ordinary derivative."""
    return call.run()


def refuse(reason: str) -> Rule:
    """A rule that raises, with the reason why there is none."""

    def rule(mode: Mode, call: Call):
        raise UnsupportedOperation(f"{mode.title} has no rule for {call}: {reason}; {ADVICE}")

    return rule
