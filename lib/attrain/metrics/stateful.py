"""The functions of `attrain.metrics.localisation` as torchmetrics: the mean over the images of many batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from attrain.metrics.localisation import epg, heatmap_iou


class _MeanOverImages(Metric):
    functional: Callable[..., Tensor]
    total: Tensor
    count: Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, heatmap: Tensor, mask: Tensor) -> None:
        values = type(self).functional(heatmap, mask, **self.settings)
        self.total += values.nansum()
        self.count += values.isfinite().sum()

    def compute(self) -> Tensor:
        """The mean, NaN before any image with boxes."""
        return self.total / self.count


class EPG(_MeanOverImages):
    """Mean `epg` over the images that have boxes.

    Example:
        >>> metric = EPG(corrected=True)
        >>> metric.update(torch.ones(2, 4, 4), torch.eye(4).expand(2, 4, 4))
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    functional = staticmethod(epg)

    def __init__(self, corrected: bool = False) -> None:
        super().__init__(corrected=corrected)


class HeatmapIoU(_MeanOverImages):
    """Mean `heatmap_iou` over the images that have boxes."""

    functional = staticmethod(heatmap_iou)

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold=threshold)
