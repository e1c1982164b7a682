"""Challenger: training on inputs whose most relevant patterns have been changed (Tomani, Cremers 2022).

**A reconstruction, ours.** Of the paper only the abstract could be read: a module that uses attribution maps
"to manipulate particularly relevant input patterns" and so regularises training. Everything more exact
than that (site, selection, changes, strength, loss) is defined here and is not the paper's.

The nearest published method is `attrain.training.regularisers.relevance_dropout`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.methods import LRP, InputXGradient, Method
from attrain.numbers import number
from attrain.targets import Target
from attrain.tensors import finite
from attrain.training.loop import Result
from attrain.training.modules import NetworkFrom, evaluating, hooked, statistics_kept

_MODES = ("push", "gate", "erase", "noise", "swap")
_METHODS = {"lrp": LRP(), "gxi": InputXGradient()}


@dataclass(eq=False)
class Challenger:
    """Cross-entropy on samples and on the same samples, challenged: (1 − β)·CE(f(h), y) + β·CE(f(h̃), y).

    h is the activation at the site, R its relevance (a constant), r = R / max|R| a sample, and M marks the
    `top` share of the largest |r|, never those of no relevance. With ε uniform in [0, ε_max) a sample, s the standard
    deviation of the sample's h, and ξ standard normal:

    | mode | h̃ |
    |---|---|
    | push | h − ε·s·sign(h)·sign(R)·M; with gradient × input, a step of FGSM on the explained logit where M is 1 |
    | gate | h·max(0, 1 − ε·max(r, 0)), whatever `top`: for inputs in [0, 1], with ε_max about 8 |
    | erase | h·(1 − M) |
    | noise | h + ε·s·M·max(r, 0)·ξ |
    | swap | h + min(ε, 1)·M·(h of a sample of another class − h) |

    Challenged samples have a forward pass of their own, in which batch norm in training mode uses their
    own statistics and leaves the running ones alone: at test time there are no such samples.

    Args:
        attribution: "lrp" (`LRP()`), "gxi" (`InputXGradient()`), any method of `attrain.attribution`, or a callable
            (model, h, y) -> R, for which `model` is the network from the site on. Dropout and batch norm
            are in evaluation mode for it.
        start: what is explained: "logit", that of the label; "contrast", less that of the strongest other class; or
            "rival", less that of another class, drawn for each sample anew, all alike.
        site: what is changed: "" for the input, which then must be floating point, or a module's output, by
            name, for instance an embedding. Layers below it learn from the challenged samples too.
        top: in (0, 1].
        mode: see above.
        eps_max: ≥ 0; 0 (but for "erase") is cross-entropy alone.
        per: "element", or "position": relevance is summed over `channel_dim` first, so that all channels of
            a pixel, or all numbers of a token's embedding, are selected together.
        channel_dim: 1 for images and series (N, C, ...), −1 for embeddings (N, T, E).
        beta: weight of the challenged samples in [0, 1].
        p_batch: probability that a step challenges at all.
        warmup, ramp: the number of steps without, and that of further steps in which ε_max grows to its value.
        control: "permute": relevance goes to other elements (positions) of the sample at random, but none to
            those without any; "random": standard normal numbers instead of it. What then still helps is not the map.
        generator: draws (on the CPU); None uses torch's default generator.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> logits, loss, parts = Challenger()(model, torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1]))
        >>> sorted(parts)
        ['challenged', 'classification']
    """

    attribution: str | Method | Callable = "gxi"
    start: Literal["logit", "contrast", "rival"] = "logit"
    site: str = ""
    top: float = 0.3
    mode: Literal["push", "gate", "erase", "noise", "swap"] = "push"
    eps_max: float = 1.0
    per: Literal["element", "position"] = "element"
    channel_dim: int = 1
    beta: float = 0.5
    p_batch: float = 1.0
    warmup: int = 0
    ramp: int = 0
    control: Literal["permute", "random"] | None = None
    generator: torch.Generator | None = None
    steps: int = field(default=0, init=False)  # how often `loss` has been called

    def __post_init__(self) -> None:
        if isinstance(self.attribution, str) and self.attribution not in _METHODS:
            raise ValueError(f'attribution must be "lrp", "gxi", a method or a callable, got {self.attribution!r}')
        choices = {"start": ("logit", "contrast", "rival"), "mode": _MODES, "per": ("element", "position")}
        for name, known in {**choices, "control": (None, "permute", "random")}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {getattr(self, name)!r}")
        for name in ("beta", "p_batch"):
            if not 0 <= number(name, getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("eps_max", "warmup", "ramp"):
            if not number(name, getattr(self, name), finite=name == "eps_max") >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not 0 < number("top", self.top) <= 1:
            raise ValueError(f"top must be in (0, 1], got {self.top}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *_: Tensor) -> Result:
        """A training step as `attrain.training.fit` takes it: logits of x, the loss, its parts."""
        loss, info = self.loss(model, x, y)
        return info.pop("logits"), loss, info

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to call `backward` on, and "logits" (N, C), "classification" and "challenged", its two terms.

        Args:
            model: in training mode.
            x: what the model takes, (N, ...).
            y: labels (N,).
        """
        eps_max = self._strength()
        self.steps += 1
        seen = []
        with hooked(model, self.site, lambda module, args, output: seen.append(output)):
            logits = model(x)
        if self.site and (len(seen) != 1 or not isinstance(seen[0], Tensor)):
            raise ValueError(f"site {self.site!r} must be called once in a forward pass and return a tensor")
        plain = challenged = F.cross_entropy(logits, y)
        if (eps_max > 0 or (self.mode == "erase" and self.steps > self.warmup)) and self._challenges():
            h = seen[0].detach() if self.site else x
            moved = self.challenge(h, self.relevance(model, x, h, y), y, eps_max)
            shift = lambda module, args, output: output + (moved - h)  # noqa: E731
            with hooked(model, self.site, shift), statistics_kept(model):
                challenged = F.cross_entropy(model(x if self.site else moved), y)
        loss = (1 - self.beta) * plain + self.beta * challenged
        return loss, {"logits": logits, "classification": plain.detach(), "challenged": challenged.detach()}

    def _strength(self) -> float:
        done = self.steps - self.warmup
        return 0.0 if done < 0 else self.eps_max * min(1.0, (done + 1) / (self.ramp + 1))

    def _challenges(self) -> bool:
        return self.p_batch == 1 or torch.rand((), generator=self.generator, device="cpu").item() < self.p_batch

    def relevance(self, model: nn.Module, x: Tensor, h: Tensor, y: Tensor) -> Tensor:
        """R at the site, shape of h, detached; nothing of the model changes."""
        method = _METHODS[self.attribution] if isinstance(self.attribution, str) else self.attribution
        network = NetworkFrom(model, self.site, x) if self.site else model
        with evaluating(network):
            if not isinstance(method, Method):
                return method(network, h, y).detach()
            return explain(network, h, self._target(y), method).heatmap

    def _target(self, y: Tensor) -> Target:
        match self.start:
            case "logit":
                return y
            case "contrast":
                return contrast_target(y)
            case "rival":
                return rival_target(y, self.generator)

    def challenge(self, h: Tensor, R: Tensor, y: Tensor | None = None, eps_max: float | None = None) -> Tensor:
        """The challenged activation h̃.

        Args:
            h, R: activation and its relevance, (N, ...) and finite.
            y: labels (N,), for "swap".
            eps_max: instead of the object's.
        """
        if R.shape != h.shape:
            raise ValueError(f"R must have h's shape {tuple(h.shape)}, got {tuple(R.shape)}")
        if not (finite(h) and finite(R)):
            raise ValueError("h or R holds NaN or infinite values")
        eps_max = self.eps_max if eps_max is None else eps_max
        one = (len(h), *[1] * (h.ndim - 1))
        R = self._controlled(R)
        r = R.sum(self.channel_dim, keepdim=True) if self.per == "position" else R
        r = r / r.abs().flatten(1).amax(1).reshape(one).clamp(min=torch.finfo(r.dtype).tiny)
        chosen = _largest(r.abs(), self.top)
        eps = eps_max * torch.rand(one, generator=self.generator, device="cpu").to(h)
        scale = h.flatten(1).std(1, correction=0).reshape(one)
        match self.mode:
            case "push":
                return h - eps * scale * h.sign() * R.sign() * chosen
            case "gate":
                return h * (1 - eps * r.clamp(min=0)).clamp(min=0)
            case "erase":
                return h * (1 - chosen)
            case "noise":
                noise = torch.randn(h.shape, generator=self.generator, device="cpu").to(h)
                return h + eps * scale * chosen * r.clamp(min=0) * noise
            case "swap":
                return h + eps.clamp(max=1) * chosen * (h[self._others(y)] - h)

    def _controlled(self, R: Tensor) -> Tensor:
        if self.control is None:
            return R
        rows = R.movedim(self.channel_dim, -1) if self.per == "position" else R[..., None]
        shape, rows = rows.shape, rows.flatten(1, -2)  # (N, places, channels or 1)
        active = (rows != 0).any(-1)
        if self.control == "random":
            rows = torch.randn(rows.shape, generator=self.generator, device="cpu").to(R) * active[..., None]
        else:  # the k-th active place gets what another one, drawn without repetition, has
            keys = torch.rand(active.shape, generator=self.generator, device="cpu").to(R.device)
            places = active.int().argsort(dim=1, descending=True, stable=True)
            drawn = keys.masked_fill(~active, -1.0).argsort(dim=1, descending=True)
            index = torch.empty_like(places).scatter_(1, places, drawn)
            rows = rows.gather(1, index[..., None].expand(rows.shape)) * active[..., None]
        rows = rows.reshape(shape)
        return rows.movedim(-1, self.channel_dim) if self.per == "position" else rows[..., 0]

    def _others(self, y: Tensor | None) -> Tensor:
        """For each sample another one of another class, or itself if there is none."""
        if y is None:
            raise ValueError('mode "swap" needs the labels y')
        different = (y[:, None] != y[None]).float().cpu()
        alone = different.sum(1) == 0
        different[alone, alone.nonzero().flatten()] = 1.0
        return different.multinomial(1, generator=self.generator)[:, 0].to(y.device)


def contrast_target(y: Tensor) -> Callable[[Tensor], Tensor]:
    """The label's logit less the largest other one, as a target for `explain`: what a sample is decided by.

    Args:
        y: labels (N,).

    Example:
        >>> contrast_target(torch.tensor([1]))(torch.tensor([[0.5, 2.0, 1.5]]))
        tensor([0.5000])
    """

    def target(logits: Tensor) -> Tensor:
        label = F.one_hot(y, logits.shape[1]).bool()
        return logits[label] - logits.masked_fill(label, -torch.inf).amax(1)

    return target


def rival_target(y: Tensor, generator: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
    """The label's logit less that of another class, drawn anew at each call, as a target for `explain`.

    Args:
        y: labels (N,).
        generator: draws (on the CPU); None uses torch's default generator.

    Example:
        >>> rival_target(torch.tensor([1]))(torch.tensor([[0.5, 2.0]]))
        tensor([1.5000])
    """

    def target(logits: Tensor) -> Tensor:
        further = torch.randint(1, logits.shape[1], y.shape, generator=generator, device="cpu").to(y.device)
        rival = (y + further) % logits.shape[1]
        return (logits.gather(1, y[:, None]) - logits.gather(1, rival[:, None]))[:, 0]

    return target


def _largest(size: Tensor, share: float) -> Tensor:
    """1 at the share of a sample's largest values (rounded up; of equals, some), but not at zeros; else 0."""
    flat = size.flatten(1)
    index = flat.topk(max(1, -int(-share * flat.shape[1] // 1)), 1).indices
    return (torch.zeros_like(flat).scatter_(1, index, 1.0) * (flat > 0)).reshape(size.shape)
