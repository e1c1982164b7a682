"""Where a map's relevance lies."""

from torch import Tensor

from attrain.masks import fit_mask


def background_share(heatmap: Tensor, mask: Tensor) -> Tensor:
    """Share of the absolute relevance that lies on the background, Σ|R|(1−M) / Σ|R|, for each sample.

    A low share alone does not prove that the background is unused: a network trained on its maps can hide its use.

    Args:
        heatmap: (N, H, W), (N, C, H, W) or (N, K, C, H, W).
        mask: (N, H, W) or (N, 1, H, W), 1 = foreground; pooled to the map's size as in the losses.

    Returns:
        (N,) in [0, 1]; NaN where a map is zero everywhere, as it then has no share.

    Example:
        >>> import torch
        >>> background_share(torch.tensor([[[1.0, -3.0]]]), torch.tensor([[[1, 0]]]))
        tensor([0.7500])
    """
    foreground = fit_mask(mask, heatmap)
    position = heatmap.abs().flatten(1, -3).sum(1) if heatmap.ndim > 3 else heatmap.abs()
    return (position * (1 - foreground)).sum((1, 2)) / position.sum((1, 2))
