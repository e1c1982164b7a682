"""What a map must be, worked out without the engine: plain calls of the model, autograd, and twins written by hand."""

import copy
import re
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain import (
    LRP,
    ZB,
    BCos,
    DeepLift,
    Dual,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    UnsupportedOperation,
    ZPlus,
    explain,
)

EPSILON = 0.1  # large, so that a ReLU without LRP's rule shows
METHODS = {
    "gradient": Gradient(),
    "input_x_gradient": InputXGradient(),
    "guided": GuidedBackprop(),
    "bcos": BCos(),
    "integrated_gradients": IntegratedGradients(steps=4),
    "lrp": LRP(EPSILON),
    "lrp_zb": LRP(EPSILON, ZB(-4.0, 4.0)),
    "zplus": ZPlus(EPSILON),
    "dual": Dual(EPSILON),
    "rescale": DeepLift(),
    "reveal_cancel": DeepLift(rule="reveal_cancel"),
    "genomics": DeepLift(rule="genomics"),
}
RELEVANCE = ("lrp", "lrp_zb", "zplus", "dual")  # defined for ReLU networks
DEEPLIFT = ("rescale", "reveal_cancel", "genomics")


class Network(nn.Module):
    """A function between two linear layers; the second reads whatever the function returns, three numbers a sample.

    Args:
        operation: from activations (N, width) (or (N, *shape)) to a tensor, or tensors, of any shape.
        shape: what the first layer's output is brought to.
        width: of the input.
    """

    def __init__(self, operation: Callable, shape: Sequence[int] = (6,), width: int = 5, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = torch.Size(shape).numel()
        weights = {"a": (size, width), "b": (size,), "v": (3, 600)}
        for name, of in weights.items():
            value = torch.randn(of, generator=generator, dtype=torch.float64)
            setattr(self, name, nn.Parameter(value / (of[-1] ** 0.5 if name == "a" else 3)))
        self.operation, self.shape = operation, tuple(shape)

    def hidden(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.a, self.b)
        return h if len(self.shape) == 1 else h.unflatten(1, self.shape)

    def read(self, found, n: int) -> Tensor:
        h = as_rows(found, n)
        return F.linear(h, self.v[:, : h.shape[1]])

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.operation(self.hidden(x)), len(x))


def as_rows(found, n: int) -> Tensor:
    """Any output as (N, numbers); what has no axis of samples is given to each."""
    parts = [rows(t, n) for t in flat(found)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def rows(t: Tensor, n: int) -> Tensor:
    if t.is_complex():
        t = torch.view_as_real(t.resolve_conj())
    if t.dtype != torch.float64:
        t = t.to(torch.float64)
    if t.ndim and t.shape[0] == n:
        return t if t.ndim == 2 else t.reshape(n, -1)
    return t.reshape(1, -1).expand(n, -1)


def flat(found) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, dict):
        found = found.values()
    return [t for f in found if isinstance(f, (Tensor, tuple, list, dict)) for t in flat(f)]


def inputs(n: int = 3, width: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    """x (n, width), and a reference (1, width)."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(n, width), 0.5 * draw(1, width)


def with_reference(method, reference: Tensor):
    """DeepLIFT and integrated gradients with a reference of their own; other methods as they are."""
    if isinstance(method, DeepLift):
        return DeepLift(reference, method.rule)
    return IntegratedGradients(reference, method.steps) if isinstance(method, IntegratedGradients) else method


def target_of(method):
    return None if isinstance(method, Dual) else 0


def map_of(model, x: Tensor, method) -> Tensor:
    return explain(model, x, target_of(method), method).heatmap


# ------------------------------------------------------------------------------------------------ the oracles


def frozen(net: nn.Module, x: Tensor) -> nn.Module:
    """A copy of the network in evaluation mode, whose batch norms have the statistics that x has in training mode."""
    net = copy.deepcopy(net)
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return net.eval()


def _take_statistics(norm: nn.Module, args: tuple) -> None:
    var, mean = torch.var_mean(args[0].transpose(0, 1).flatten(1), 1, correction=0)
    norm.running_mean.copy_(mean), norm.running_var.copy_(var)
    norm.eval()


def gradient_by_autograd(model, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    score = model(leaf.clone())[:, 0].sum()
    if not score.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(score, leaf, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def gradient_by_differences(model, x: Tensor, step: float = 1e-5) -> Tensor:
    """Whatever autograd can see or not."""
    result = torch.zeros_like(x)
    with torch.no_grad():
        for place in range(x.numel()):
            change = torch.zeros_like(x)
            change.view(-1)[place] = step
            result.view(-1)[place] = (model(x + change) - model(x - change))[:, 0].sum() / (2 * step)
    return result


def difference(model, x: Tensor, reference: Tensor) -> Tensor:
    """f(x) − f(reference), (N,), from two plain calls."""
    with torch.no_grad():
        return (model(x.clone()) - model(reference.expand_as(x).clone(memory_format=torch.contiguous_format)))[:, 0]


def epsilon_relu(h: Tensor, epsilon: float = EPSILON) -> Tensor:
    """ReLU whose derivative is y/(y+ε)."""
    y = h.relu().detach()
    return y + (h - h.detach()) * y / (y + epsilon)


def zplus_linear(a: Tensor, weight: Tensor, bias=None, last: bool = False, epsilon: float = EPSILON) -> Tensor:
    """A linear layer whose derivative is z⁺'s: Σ_k (a_j w_jk)⁺/a_j · R_k / (z_k + ε)."""
    out = F.linear(a, weight, bias).detach()
    positive = F.linear(a.relu(), weight.relu()) + F.linear(-(-a).relu(), -(-weight).relu())
    z = positive.detach() + (0 if bias is None else bias.relu().detach())
    return out + (positive - positive.detach()) * (z if last else out.relu()) / (z + epsilon)


def zplus_by_hand(model: Network, x: Tensor) -> Tensor:
    """z⁺ of a `Network` whose operation keeps its derivative."""
    leaf = x.clone().requires_grad_()
    h = zplus_linear(leaf, model.a, model.b)
    found = as_rows(model.operation(h if len(model.shape) == 1 else h.unflatten(1, model.shape)), len(x))
    out = zplus_linear(found, model.v[:, : found.shape[1]], last=True)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), leaf, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient * x


def is_affine(operation: Callable, h: Tensor) -> bool:
    """f(h+u+v) − f(h+u) − f(h+v) + f(h) = 0, for steps that are not small."""
    generator = torch.Generator().manual_seed(7)
    u, v = (3 * torch.randn(h.shape, generator=generator, dtype=h.dtype) for _ in range(2))
    try:
        values = [as_rows(operation(p.clone()), len(h)) for p in (h + u + v, h + u, h + v, h)]
    except (RuntimeError, ValueError):  # not defined there
        return False
    if len({value.shape for value in values}) > 1:
        return False
    size = max(float(value.abs().max()) for value in values) if values[0].numel() else 0.0
    a, b, c, d = values
    return bool((a - b - c + d).abs().max() <= 1e-8 * max(size, 1.0)) if a.numel() else True


# ------------------------------------------------------------------------------------------------ the judgement


# Torch's own words where it cannot differentiate an operation, which name it.
NO_DERIVATIVE = re.compile(r"derivative for .* is not implemented|is not differentiable|not support automatic differ")


class Wrong(AssertionError):
    """A map that is not right, made without an error."""


class Unclear(AssertionError):
    """An error that does not come from the library, or does not name what it is about."""


def refusal(error: Exception, names: Sequence[str] = ()) -> str:
    """The text of a clear refusal; anything else raises `Unclear`.

    Args:
        names: one of these is in the text of a ValueError or TypeError, whatever the case of its letters.
    """
    text = str(error)
    if NO_DERIVATIVE.search(text):
        return text
    if not isinstance(error, UnsupportedOperation) and not (
        isinstance(error, (ValueError, TypeError)) and _module_of(error).startswith("attrain")
    ):
        raise Unclear(f"{type(error).__name__} from {_module_of(error)}: {text[:200]}") from error
    named = isinstance(error, UnsupportedOperation) or not names
    if not named and not any(name.lower() in text.lower() for name in names):
        raise Unclear(f"names none of {', '.join(names)}: {text[:200]}") from error
    return text


def _module_of(error: Exception) -> str:
    """The module whose code raised an error."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "?")


def attempt(make: Callable[[], Tensor], names: Sequence[str] = ()) -> Tensor | str:
    """A map, or a clear refusal's text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except Exception as error:
        return refusal(error, names)


def close(found: Tensor, wanted: Tensor, what: str, tolerance: float = 1e-6, scale: float = 0.0) -> None:
    """Equal to 1e-6 of the largest number, of 1e-3 at least."""
    if found.shape != wanted.shape:
        raise Wrong(f"{what}: shape {tuple(found.shape)} instead of {tuple(wanted.shape)}")
    if not wanted.numel():
        return
    gap = float((found - wanted).abs().max())
    if not gap <= tolerance * max(float(wanted.abs().max()), 1e-3, scale):
        raise Wrong(f"{what}: {found.flatten()[:3].tolist()} instead of {wanted.flatten()[:3].tolist()}, gap {gap:.3g}")


def complete_or_refuses(
    model, x: Tensor, reference: Tensor, rule: str = "rescale", names=(), independent: bool = True
) -> str:
    """ "right" where DeepLIFT's maps sum to f(x) − f(reference) as the plain model has it, or a refusal's text.

    Args:
        independent: whether samples have nothing to do with each other; if not, the maps' total only.
    """
    wanted = difference(model, x, reference)
    found = attempt(lambda: explain(model, x, 0, DeepLift(reference, rule)), names)
    if isinstance(found, str):
        return found
    rounding = 1e-9 * float(found.heatmap.abs().flatten(1).sum(1).max()) / 1e-6
    close(found.delta, wanted, "delta", scale=rounding)
    total = found.heatmap.flatten(1).sum(1)
    if independent:
        close(total, wanted, "the map's sum", scale=rounding)
    close(total.sum(), wanted.sum(), "the sum of all maps", scale=rounding)
    return "right"


def autograd_or_refuses(model, x: Tensor, names=(), unseen: bool = False) -> str:
    """ "right" where gradient × input is autograd's (where autograd cannot see all: that of differences), or a refusal.

    Also the gradient itself, of the same model.
    """
    wanted = gradient_by_differences(model, x) if unseen else gradient_by_autograd(model, x)
    tolerance = 1e-4 if unseen else 1e-9
    found = attempt(lambda: map_of(model, x, InputXGradient()), names)
    plain = attempt(lambda: map_of(model, x, Gradient()), names)
    if isinstance(found, str) != isinstance(plain, str):
        raise Wrong(f"gradient and gradient × input disagree: {found} {plain}")
    if isinstance(found, str):
        return found
    if not wanted.isfinite().all():
        return "right"  # as torch has it
    close(plain, wanted, "gradient", tolerance)
    close(found, wanted * x, "gradient × input", tolerance)
    return "right"


def same_or_refuses(model, twin, x: Tensor, method, names=(), tolerance: float = 1e-9) -> str:
    """ "right" where a model's map is that of a twin which says the same in plain operations, or a refusal's text."""
    wanted = map_of(twin, x, method)
    found = attempt(lambda: map_of(model, x, method), names)
    if isinstance(found, str):
        return found
    close(found, wanted, type(method).__name__, tolerance)
    return "right"
