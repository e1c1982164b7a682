"""How different the filters of a layer are."""

import torch
from torch import Tensor, nn


def filter_similarity(weight: Tensor) -> float:
    """Mean |cosine| of all pairs of a layer's filters, in [0, 1]: 0 if they are orthogonal, 1 if they are parallel.

    Args:
        weight: (filters, ...), two filters or more, none of them zero.
    """
    rows = nn.functional.normalize(_filters(weight), dim=1)
    n = len(rows)
    return ((rows @ rows.T).abs().sum() - n).item() / (n * (n - 1))


def effective_rank(weight: Tensor) -> float:
    """exp(H(σ / Σσ)) / min(filters, inputs), σ a layer's singular values (Roy, Vetterli 2007); in (0, 1].

    Args:
        weight: (filters, ...), two filters or more.
    """
    rows = _filters(weight)
    p = torch.linalg.svdvals(rows)
    p = p / p.sum()
    return torch.special.entr(p).sum().exp().item() / min(rows.shape)


def _filters(weight: Tensor) -> Tensor:
    if weight.ndim < 2 or len(weight) < 2 or not weight.isfinite().all() or not weight.flatten(1).any(1).all():
        raise ValueError(
            f"weight must be (filters, ...) with two or more finite, nonzero filters, got {tuple(weight.shape)}"
        )
    return weight.detach().double().flatten(1)
