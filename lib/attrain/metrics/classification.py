"""Scores of a classifier on few patients, with intervals over patients.

Images of one patient are no independent evidence, so the bootstrap draws patients: a draw is a weight for each image,
how often its patient was drawn. Every score takes such weights, all draws at once. (torchmetrics' scores take none;
scikit-learn's do, one draw at a time, and are what the tests compare with.)
"""

import torch
from torch import Tensor


def patient_draws(patients: Tensor, draws: int = 1000, seed: int = 0) -> Tensor:
    """Weights of the images in bootstrap draws of patients.

    Args:
        patients: (N,) whole numbers, one a patient.
        draws: how many.

    Returns:
        (draws, N), how often each image's patient was drawn; in each draw as many patients as there are.

    Example:
        >>> patient_draws(torch.tensor([7, 7, 9]), draws=3)
        tensor([[1., 1., 1.],
                [1., 1., 1.],
                [0., 0., 2.]])
    """
    ids, image_patient = patients.cpu().unique(return_inverse=True)
    drawn = torch.randint(len(ids), (draws, len(ids)), generator=torch.Generator().manual_seed(seed), device="cpu")
    counts = torch.zeros(drawn.shape, device="cpu").scatter_add_(1, drawn, torch.ones(drawn.shape, device="cpu"))
    return counts[:, image_patient]


def balanced_accuracy(logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the classes that occur of the share of their images that are classified correctly.

    Args:
        logits: (N, C), or anything whose largest value is the prediction.
        y: (N,) in 0..C−1.
        weights: (B, N) ≥ 0, see `patient_draws`; None for one draw of ones.

    Returns:
        (B,), or () without weights.
    """
    confusion = _confusion(logits, y, weights)
    right, images = confusion.diagonal(dim1=-2, dim2=-1), confusion.sum(-1)
    return (right / images).nan_to_num().sum(-1) / (images > 0).sum(-1)


def macro_f1(logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of F1 over the classes that occur or are predicted. Arguments and shape as `balanced_accuracy`."""
    confusion = _confusion(logits, y, weights)
    both = confusion.sum(-1) + confusion.sum(-2)
    f1 = 2 * confusion.diagonal(dim1=-2, dim2=-1) / both
    return f1.nan_to_num().sum(-1) / (both > 0).sum(-1)


def micro_f1(decisions: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """F1 over all decisions of all classes, for several labels an image.

    Args:
        decisions, y: (N, C), positive where > 0.
        weights: (B, N) ≥ 0, see `patient_draws` (with an image as its own patient); None for one draw of ones.

    Returns:
        (B,), or () without weights; 0 where nothing is predicted and nothing is positive.
    """
    predicted, positive = decisions > 0, y > 0
    counts = torch.stack([(predicted & positive).sum(1), predicted.sum(1) + positive.sum(1)], 1)
    counts = counts.to(torch.get_default_dtype())
    both, total = (counts.sum(0) if weights is None else weights.to(counts) @ counts).unbind(-1)
    return 2 * both / total.clamp(min=1e-12)


def macro_auc(logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over classes of the area under the ROC curve of that class's softmax against the rest.

    A class that is nowhere or everywhere in a draw has no area and is left out; NaN if that leaves none. Arguments
    and shape as `balanced_accuracy`.
    """
    drawn = _weights(y, weights)
    areas = []
    for c, score in enumerate(logits.double().softmax(1).T):
        ill = y == c
        apart = score[ill][:, None] - score[~ill]
        right = (apart > 0).double() + (apart == 0).double() / 2
        a, b = drawn[:, ill], drawn[:, ~ill]
        areas.append(((a @ right) * b).sum(1) / (a.sum(1) * b.sum(1)))
    result = torch.stack(areas).nanmean(0)
    return result if weights is not None else result[0]


def _weights(y: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return torch.ones(1, len(y), dtype=torch.float64, device=y.device)
    if weights.ndim != 2 or weights.shape[1] != len(y):
        raise ValueError(f"weights must be (B, {len(y)}), one for each image, got {tuple(weights.shape)}")
    return weights.to(y.device, torch.float64)


def _confusion(logits: Tensor, y: Tensor, weights: Tensor | None) -> Tensor:
    """(B, C, C) sums of weights, true class first; (C, C) without weights."""
    classes = logits.shape[1]
    cell = torch.nn.functional.one_hot(y * classes + logits.argmax(1), classes**2).double()
    confusion = (_weights(y, weights) @ cell).unflatten(1, (classes, classes))
    return confusion if weights is not None else confusion[0]
