"""Grad-CAM (Selvaraju et al. 2017)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from attrain.engine.mode import Mode, Tensors
from attrain.engine.passes import Request, one_pass
from attrain.explanation import Explanation
from attrain.methods.gradient import GradientMode
from attrain.methods.method import Method


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM (Selvaraju et al. 2017): ReLU(Σ_c mean(∂f/∂a_c) · a_c) at a convolutional layer.

    The map in `Explanation.layers` has the layer's resolution, (N, 1, h, w); `heatmap` is that map
    enlarged linearly to x's shape, the same for each of x's channels.

    Args:
        layer: its name, as in `model.named_modules()`. Its output is (N, C, ...) with as many dimensions as x.
        relu: without, negative evidence stays in the map.
        reshape: brings the layer's output, and its gradient, into the form (N, C, h, w): `from_tokens(h, w)` for a
            transformer's tokens (N, T, C), `from_channels_last` for (N, h, w, C).

    Raises:
        ValueError: the layer's output has no spatial dimensions, or others than x; both shapes are named.

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

    def explanation(self, request: Request) -> Explanation:
        if set(request.layers) - {self.layer}:
            raise ValueError(f"GradCAM makes a map at its own layer {self.layer!r} only, got layers={request.layers}")
        found = one_pass(replace(request, at_input=False, layers=(self.layer,)), self.mode)
        cam = found.layers[self.layer]
        maps = [_enlarged(cam, x) for x in request.inputs.tensors]
        if all(m is None for m in maps):
            shapes = [tuple(x.shape) for x in request.inputs.tensors]
            raise ValueError(
                f"GradCAM cannot lay a map of shape {tuple(cam.shape)} over x of shape {shapes[0]}: the output of "
                f"layer {self.layer!r} must have x's spatial dimensions; choose another layer, or give reshape="
            )
        return found._replace(heatmap=request.inputs.formed(maps), layers={self.layer: cam})

    def mode(self, leaves: Tensors, entries: Tensors, create_graph: bool, model: Callable) -> Mode:
        return GradCAMMode(leaves, entries, create_graph, model, relu=self.relu, reshape=self.reshape)


class GradCAMMode(GradientMode):
    """Pools the gradient over space, weighs the activation's channels by it."""

    title = "Grad-CAM"

    def __init__(self, *args, relu: bool, reshape):
        super().__init__(*args)
        self.relu, self.reshape = relu, reshape

    def contract_at(self, gradient, activation, reference):
        rank = next((leaf.ndim for leaf in self.leaves if leaf.is_floating_point()), activation.ndim)
        shape = tuple(activation.shape)
        if self.reshape is not None:
            gradient, activation = self.reshape(gradient), self.reshape(activation)
        if activation.ndim < 3 or activation.ndim != rank:
            given = next((tuple(leaf.shape) for leaf in self.leaves if leaf.is_floating_point()), None)
            raise ValueError(
                f"GradCAM needs a layer with an output (N, C, ...) of as many dimensions as x, got {shape} for x of "
                f"shape {given}; for tokens or channels last give reshape=from_tokens(h, w) or from_channels_last"
            )
        weights = gradient.mean(tuple(range(2, gradient.ndim)), keepdim=True)
        cam = (weights * activation).sum(1, keepdim=True)
        return cam.relu() if self.relu else cam


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
    """A `reshape` for `GradCAM`: (N, h, w, C) to (N, C, h, w)."""
    return activation.movedim(-1, 1)


def _enlarged(cam: Tensor, x: Tensor) -> Tensor | None:
    """A map (N, [K,] 1, h, w) laid over x (N, C, H, W); None where that does not fit."""
    rank = x.ndim - 2
    if not x.is_floating_point() or not 1 <= rank <= 3:
        return None
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]
    large = F.interpolate(cam.reshape(-1, 1, *cam.shape[-rank:]), x.shape[2:], mode=mode)
    large = large.reshape(*cam.shape[:-rank], *x.shape[2:])
    return large.expand(*large.shape[: -(rank + 1)], x.shape[1], *x.shape[2:])
