"""Grad-CAM (Selvaraju et al. 2017)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.engine.mode import Mode, Tensors
from attrain.engine.passes import Request, one_pass
from attrain.engine.state import undone
from attrain.explanation import Explanation
from attrain.methods.gradient import GradientMode
from attrain.methods.method import Method
from attrain.tensors import tensors


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM (Selvaraju et al. 2017): ReLU(Σ_c mean(∂f/∂a_c) · a_c) at a convolutional layer.

    The map in `Explanation.layers` has the layer's resolution, (N, 1, h, w); `heatmap` is that map enlarged linearly to
    x's shape, the same for each of x's channels. Where x is token ids only, name the layer in `explain`'s `layers` too,
    and give `reshape=from_channels_last`, as nothing else says where the channels are. Of several inputs it lies over
    those that the layer depends on and that have as many dimensions; the others have None, as token ids have.

    Args:
        layer: its name, as in `model.named_modules()`. Its output is (N, C, ...) with as many dimensions as x.
        relu: without, negative evidence stays in the map.
        reshape: brings the layer's output, and its gradient, into the form (N, C, h, w): `from_tokens(h, w)` for a
            transformer's tokens (N, T, C), `from_channels_last` for (N, h, w, C) or (N, T, C).
        channel_dim: x's dimension of channels, 1 or -1; None: 1, unless sizes speak for -1, which is then asked for.

    Raises:
        ValueError: the layer's output has no spatial dimensions, or others than x, or its channels seem to be last;
            shapes are named. `reshape=lambda a: a` says that they are not.

    Example:
        >>> import torch
        >>> from attrain import explain
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        >>> found = explain(net, torch.rand(2, 1, 8, 8), method=GradCAM("1"))
        >>> found.heatmap.shape, found.layers["1"].shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 6, 6]))
    """

    layer: str
    relu: bool = True
    reshape: Callable[[Tensor], Tensor] | None = None
    channel_dim: int | None = None

    def __post_init__(self):
        if not isinstance(self.layer, str):
            raise TypeError(f"layer must be a module's name, as in model.named_modules(), got {self.layer!r}")
        if self.channel_dim not in (None, 1, -1):
            raise ValueError(f"channel_dim must be 1, -1 or None, got {self.channel_dim!r}")

    def explanation(self, request: Request) -> Explanation:
        if set(request.layers) - {self.layer}:
            raise ValueError(f"GradCAM makes a map at its own layer {self.layer!r} only, got layers={request.layers}")
        modes = []
        found = one_pass(
            replace(request, at_input=False, layers=(self.layer,)),
            lambda *args: modes.append(self.mode(*args)) or modes[-1],
        )
        if not request.at_input:
            return found
        reached = _reached(request, self.layer)
        fits = [r and x.ndim == modes[-1].rank + 2 for x, r in zip(request.inputs.tensors, reached)]
        maps = [self._over(x, found.layers[self.layer]) if f else None for x, f in zip(request.inputs.tensors, fits)]
        return found._replace(heatmap=request.inputs.formed(maps))

    def _over(self, x: Tensor, cam: Tensor) -> Tensor:
        """A map (N, [K,] 1, h, w) laid over x."""
        rank, dim = x.ndim - 2, self.channel_dim or 1
        size = x.shape[2:] if dim == 1 else x.shape[1:-1]
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
        large = F.interpolate(cam.reshape(-1, 1, *cam.shape[-rank:]), size, mode=mode)
        large = large.reshape(*cam.shape[:-rank], *size).movedim(-rank - 1, -rank - 1 if dim == 1 else -1)
        return large.expand(*cam.shape[: -rank - 1], *x.shape[1:])

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return GradCAMMode(leaves, entries, create_graph, model, method=self)


class GradCAMMode(GradientMode):
    """Pools the gradient over space, weighs the activation's channels by it."""

    title, through = "Grad-CAM", False

    def __init__(self, *args, method: GradCAM):
        super().__init__(*args)
        self.method, self.rank = method, 0

    def contract_at(self, gradient, activation, reference):
        given, reshape = activation, self.method.reshape
        if reshape is not None:
            gradient, activation = reshape(gradient), reshape(activation)
        images = self.roots()
        fitting = [leaf for leaf in images if leaf.ndim == activation.ndim]
        unknown = not images and activation.ndim == 3 and reshape is None  # of token ids: (N, C, L) or (N, T, C)?
        if not 3 <= activation.ndim <= 5 or (images and not fitting) or unknown:
            raise ValueError(
                "GradCAM needs a layer with an output (N, C, ...) of as many dimensions as x, got "
                f"{tuple(given.shape)} for x of shape {_shapes(images or self.leaves)}; {_RESHAPE}"
            )
        complaints = [self._complaint(activation, leaf) for leaf in fitting]
        if complaints and all(complaints):
            raise ValueError(complaints[0])
        self.rank = activation.ndim - 2
        weights = gradient.mean(tuple(range(2, gradient.ndim)), keepdim=True)
        cam = (weights * activation).sum(1, keepdim=True)
        return cam.relu() if self.method.relu else cam

    def _complaint(self, activation: Tensor, x: Tensor) -> str | None:
        """What to say where channels seem to be elsewhere than declared, in the layer's output or in x."""
        declared, dim = self.method.reshape is not None, self.method.channel_dim
        layers = {"first": activation.shape[2:]} | ({} if declared else {"last": activation.shape[1:-1]})
        places = {d: x.shape[2:] if d == 1 else x.shape[1:-1] for d in ((1, -1) if dim is None else (dim,))}
        stretched = {(a, b): _stretch(layers[a], places[b]) for a in layers for b in places}
        (where, place), least = min(stretched.items(), key=lambda item: item[1])
        odd = stretched["first", dim or 1] > 1.25 and least < 1.1
        if not declared and (self._channels_last(activation, x) or (odd and where == "last")):
            return (
                f"GradCAM needs a layer with an output (N, C, ...), and the channels of {self.method.layer!r} seem to "
                f"be last: {tuple(activation.shape)} for x of shape {tuple(x.shape)}; {_RESHAPE}, or "
                "reshape=lambda a: a if they are not"
            )
        if dim is None and ((odd and place == -1) or (declared and activation.shape[2:] == x.shape[1:-1])):
            return (
                f"GradCAM cannot tell where the channels of x of shape {tuple(x.shape)} are beside a map of shape "
                f"{tuple(activation.shape[2:])}: say channel_dim=-1, or 1"
            )
        return None

    def _channels_last(self, activation: Tensor, x: Tensor) -> bool:
        """Whether the layer is one whose features are last, or keeps the length of x (N, T, F)."""
        module = dict(self.model.named_modules())[self.method.layer]
        if isinstance(module, nn.RNNBase):
            return True
        if type(module) in (nn.LayerNorm, nn.RMSNorm):
            return len(module.normalized_shape) == 1
        if type(module) in (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.TransformerEncoderLayer):
            return True
        return activation.ndim == 3 and activation.shape[1] == x.shape[1] and not isinstance(module, _CHANNELS_FIRST)


_RESHAPE = "for tokens or channels last give reshape=from_tokens(h, w) or from_channels_last"
_CHANNELS_FIRST = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)


def _stretch(size: Sequence[int], of: Sequence[int]) -> float:
    """How much more one dimension is enlarged than another; 1 where all are enlarged alike."""
    ratios = [b / max(a, 1) for a, b in zip(size, of)]
    return max(ratios) / max(min(ratios), 1e-9)


def _shapes(inputs: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in inputs)


def _reached(request: Request, layer: str) -> list[bool]:
    """Which of several inputs the layer's output depends on."""
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in request.inputs.tensors]
    floats, outputs = [t for t in leaves if t.requires_grad], []
    if len(floats) <= 1:
        return [t.requires_grad for t in leaves]
    module = dict(request.model.named_modules())[layer]
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(tensors(output)[0]))
    try:
        with undone(request.model):
            request.inputs.call(request.model, [t.clone() for t in leaves])
    finally:
        handle.remove()
    found = iter(torch.autograd.grad(outputs[-1].sum(), floats, allow_unused=True))
    return [t.requires_grad and next(found) is not None for t in leaves]


def from_tokens(height: int, width: int, skip: int = 1) -> Callable[[Tensor], Tensor]:
    """A `reshape` for `GradCAM`: tokens (N, skip + height · width, C) to (N, C, height, width).

    Args:
        height, width: of the grid of patches.
        skip: tokens before the patches, as a class token.
    """

    def reshape(tokens: Tensor) -> Tensor:
        if tokens.ndim != 3 or tokens.shape[1] != skip + height * width:
            wanted, got = f"(N, {skip + height * width}, C)", tuple(tokens.shape)
            raise ValueError(f"from_tokens({height}, {width}, skip={skip}) needs {wanted}, got {got}")
        return tokens[:, skip:].movedim(1, 2).unflatten(2, (height, width))

    return reshape


def from_channels_last(activation: Tensor) -> Tensor:
    """A `reshape` for `GradCAM`: (N, h, w, C) to (N, C, h, w), (N, T, C) to (N, C, T)."""
    return activation.movedim(-1, 1)
