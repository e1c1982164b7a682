"""What a forward pass does beside its result: it draws numbers, takes the batch's statistics, writes into parameters.

A map of a random pass is another one at each call; `explain` says so once, and names the modules. A training step says
nothing: its map and its logits are of one pass.
"""

import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrain.engine.call import Call, by_batch
from attrain.engine.kinds import KINDS
from attrain.engine.parameters import may_write
from attrain.engine.state import before_write
from attrain.engine.unseen import modules_of

# Whether they are random, their arguments say.
_SETTINGS = {
    **dict.fromkeys(KINDS["dropouts"].split(), ("p", 0.5)),
    **dict.fromkeys(KINDS["recurrent_layers"].split(), ("dropout", 0.0)),
    "rrelu": (None, 1),
    "multi_head_attention_forward": ("dropout_p", 0.0),
    "scaled_dot_product_attention": ("dropout_p", 0.0),
}
# They are, but perhaps for nothing: a number that is drawn and not used, a generator that is always started anew.
_DRAWS = frozenset(
    """rand randn randint randperm rand_like randn_like randint_like bernoulli multinomial normal uniform exponential
    geometric cauchy log_normal random poisson binomial _standard_gamma _sample_dirichlet gumbel_softmax
    fractional_max_pool2d fractional_max_pool3d""".split()
)
SUSPECTS = _DRAWS | _SETTINGS.keys() | {"batch_norm"}


class Findings:
    """Where a model's passes were random, or took the statistics of the batch; modules by name, each once."""

    def __init__(self):
        self.random: dict[str, bool] = {}  # name -> whether its module is in training mode
        self.drawn: dict[str, bool] = {}  # where that is still to be seen
        self.by_batch: dict[str, bool] = {}
        self.watched = False

    def note(self, call: Call, model: Callable) -> None:
        """Write down a call of one of the `SUSPECTS`, if it is what it is suspected of."""
        if call.name in _DRAWS:
            found = self.drawn
        elif call.name == "batch_norm":
            if not by_batch(call.given.get("training"), call.given.get("running_mean")):
                return
            found = self.by_batch
        else:
            setting, default = _SETTINGS[call.name]
            drawn = default if setting is None else call.given.get(setting, default)
            training = True if call.name == "scaled_dot_product_attention" else call.given.get("training")
            if not drawn or training is False or (training is None and call.name == "rrelu"):
                return
            found = self.random
        name, training = _caller(call, model)
        found[name] = training

    def settle(self, outputs: Callable[[], list[Tensor]], devices: list[torch.device]) -> None:
        """Find out by two passes whether the numbers that were drawn have a part in the model's output."""
        if not self.drawn or self.drawn.keys() <= self.random.keys():
            return
        with torch.random.fork_rng([d for d in devices if d.type == "cuda"]):
            first, second = outputs(), outputs()
        if len(first) != len(second) or not all(a.shape == b.shape and _equal(a, b) for a, b in zip(first, second)):
            self.random |= self.drawn
        self.drawn = {}

    def warn(self) -> None:
        """One warning for all that was found; it points at who called `explain`."""
        parts = []
        if self.random:
            parts.append(f"the forward pass is random at {_listed(self.random)}, so that each call gives another map")
        if self.by_batch:
            parts.append(
                f"batch norm takes the statistics of the batch at {_listed(self.by_batch)}, so that a sample's map "
                "depends on the samples beside it"
            )
        if not parts:
            return
        found = self.random | self.by_batch
        rest = [name for name, training in found.items() if not training]
        advice = f"; model.eval() does not change that at {_listed(rest)}" if rest else ""
        advice = "; call model.eval() first" + advice if any(found.values()) else advice
        warnings.warn(" and ".join(parts) + advice, UserWarning, stacklevel=3)


def _equal(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _listed(names) -> str:
    names = list(names)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _caller(call: Call, model: Callable) -> tuple[str, bool]:
    """The module whose forward calls an operation, as named in the model, and whether it is in training mode."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module):
            found = (
                n for root in modules_of(model) for n, m in root.named_modules(remove_duplicate=False) if m is module
            )
            name, kind = next(found, ""), type(module).__name__
            return (f"{name!r} ({kind})" if name else kind), module.training
        frame = frame.f_back
    return str(call), False


class Watch(TorchFunctionMode):
    """For passes without rules: writes down what a `Mode` writes down in its own."""

    def __init__(self, findings: Findings | None, model: Callable):
        super().__init__()
        self.findings, self.model = findings, model

    def __torch_function__(self, func, types, args=(), kwargs=None):
        call = Call(func, args, kwargs or {}, lambda t: False)
        if may_write(call):
            before_write(call, self.model)
        if self.findings is not None and call.name in SUSPECTS:
            self.findings.note(call, self.model)
        return call.run()
