"""How sure a classifier is and how often it is right.

The calibration error is torchmetrics', without its import, which takes seconds; a confidence of 1 is in the last bin.
"""

import torch
from torch import Tensor, nn


def calibration(logits: Tensor, y: Tensor, bins: int = 15) -> dict[str, float]:
    """Accuracy, expected calibration error, negative log-likelihood and Brier score.

    Args:
        logits: (N, C), finite.
        y: labels (N,).
        bins: of equal width, of the largest probability, for the calibration error.

    Returns:
        "accuracy" in [0, 1]; "ece" in [0, 1], the mean |accuracy − confidence| over bins; "nll" ≥ 0 in nats; "brier" in
        [0, 2], the squared distance of the probabilities from the label's.

    Example:
        >>> round(calibration(torch.tensor([[9.0, -9.0], [9.0, -9.0]]), torch.tensor([0, 1]))["ece"], 6)
        0.5
    """
    _check(logits, y)
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    confidence, accuracy, count = reliability(logits, y, bins)
    return {
        "accuracy": (logits.argmax(1) == y).double().mean().item(),
        "ece": ((accuracy - confidence).abs().nan_to_num() * count).sum().item() / len(y),
        "nll": -log_p.gather(1, y[:, None]).mean().item(),
        "brier": (p - nn.functional.one_hot(y, logits.shape[1])).square().sum(1).mean().item(),
    }


def reliability(logits: Tensor, y: Tensor, bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """A reliability diagram: confidence, accuracy and number of samples in each bin, NaN where a bin is empty.

    Args:
        logits, y, bins: as for `calibration`.

    Returns:
        three tensors (bins,).
    """
    _check(logits, y)
    confidence, predicted = logits.double().softmax(1).max(1)
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1  # a bin holds its upper edge
    count = torch.bincount(index, minlength=bins)
    confidences, right = (torch.bincount(index, v, minlength=bins) for v in (confidence, (predicted == y).double()))
    return confidences / count, right / count, count


def _check(logits: Tensor, y: Tensor) -> None:
    if logits.ndim != 2 or y.shape != logits.shape[:1] or not len(y) or not logits.isfinite().all():
        raise ValueError(
            f"logits must be finite, (N, C), and y (N,), with N >= 1, got {tuple(logits.shape)} and {tuple(y.shape)}"
        )
