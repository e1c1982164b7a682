"""The last layer alone is trained anew: the cheapest remedy where some images are known in which a cue misleads."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain.numbers import number
from attrain.training.boxes import as_images


def retrain_last_layer(
    model: nn.Module, x: Tensor, y: Tensor, group: Tensor, *, decay: float = 1e-2, batch_size: int = 64
) -> nn.Module:
    """A copy of a classifier with a new last linear layer, trained so that each group of images weighs the same.

    As in deep feature reweighting (Kirichenko, Izmailov, Wilson 2023): what a network has learned to see is often
    good enough, and only how it weighs it is wrong. Here the layer is fitted to its end, by L-BFGS, with a ridge
    penalty on features scaled to a standard deviation of 1, and nothing is tuned:

        mean over groups of the mean cross-entropy + decay / 2 · ‖W‖²

    Args:
        model: images -> logits; its last `nn.Linear` takes features (N, F) and gives one logit for each class or, of
            two classes, the second's alone. It is used in evaluation mode and left as it is.
        x, y: images (N, C, H, W), see `attrain.training.boxes`, and their classes (N,) long. They should be others than
            the training images, whose features are too good.
        group: (N,) long, such as 2 · class + background; of any numbers.
        decay: of the weights, > 0.
        batch_size: images at a time.

    Returns:
        the copy, in evaluation mode.

    Raises:
        ValueError: no linear layer, or one whose input is no (N, F); decay ≤ 0; lengths that differ.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
        >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
        >>> x[y == 1] += 1
        >>> (retrain_last_layer(model, x, y, y)(x)[:, 0] > 0).long()
        tensor([0, 1, 0, 1, 0, 1, 0, 1])
    """
    if not number("decay", decay) > 0:
        raise ValueError(f"decay must be > 0, got {decay}")
    if not len(x) == len(y) == len(group):
        raise ValueError(f"x, y and group must be of one length, got {len(x)}, {len(y)} and {len(group)}")
    model = copy.deepcopy(model).eval()
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("model must have an nn.Linear, whose weights are trained anew; it has none")
    last = layers[-1]
    features = _inputs(model, last, x, batch_size)
    spread = features.std(0).clamp(min=1e-6)
    _, which, counts = group.unique(return_inverse=True, return_counts=True)
    weight, bias = _fitted(features / spread, y, 1 / (counts[which] * len(counts)), last.out_features, decay)
    with torch.no_grad():
        last.weight.copy_(weight / spread)
        last.bias = nn.Parameter(bias.to(last.weight))
    return model


@torch.no_grad()
def _inputs(model: nn.Module, layer: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """What the layer gets of all images, (N, F) float64."""
    kept: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: kept.append(args[0].double()))
    try:
        for batch in x.split(batch_size):
            model(as_images(batch))
    finally:
        handle.remove()
    features = torch.cat(kept)
    if features.ndim != 2 or len(features) != len(x):
        raise ValueError(
            f"the last linear layer must get features (N, F) with N = {len(x)}, got {tuple(features.shape)}"
        )
    return features


def _fitted(features: Tensor, y: Tensor, share: Tensor, outputs: int, decay: float) -> tuple[Tensor, Tensor]:
    """Weight (outputs, F) and bias (outputs,) with the least loss; share (N,) is what each image weighs."""
    weight = features.new_zeros(outputs, features.shape[1], requires_grad=True)
    bias = features.new_zeros(outputs, requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        descent.zero_grad()
        logits = features @ weight.T + bias
        if outputs == 1:
            each = F.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits), reduction="none")
        else:
            each = F.cross_entropy(logits, y, reduction="none")
        value = (share * each).sum() + decay / 2 * weight.square().sum()
        value.backward()
        return value

    descent.step(loss)
    return weight.detach(), bias.detach()
