"""attrain: attribution and attribution-guided training.

>>> import torch, attrain
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
>>> attrain.explain(model, torch.rand(5, 1, 2, 2), method=attrain.LRP(epsilon=1e-2)).heatmap.shape
torch.Size([5, 1, 2, 2])
"""

from attrain.explain import Explanation, explain
from attrain.guidance import corrected_energy_loss, energy_loss, l1_loss, ppce_loss, rrr_loss
from attrain.localisation import epg, heatmap_iou
from attrain.losses import gwrp, isnet_background_loss, isnet_foreground_loss, isnet_loss
from attrain.masks import boxes_to_mask, dilate_boxes
from attrain.methods import (
    LRP,
    ZB,
    BCos,
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Zennit,
)
from attrain.metrics import background_share, pixels_erased_log_odds
from attrain.operations import UnsupportedOperation, register_rule
from attrain.targets import (
    mean_normalised_target,
    random_positive_target,
    selective_target,
    softmax_target,
    stochastic_target,
)
from attrain.zplus import Dual, ZPlus

__version__ = "0.1.0"

__all__ = [
    "EPG",
    "LRP",
    "ZB",
    "BCos",
    "DeepLift",
    "Dual",
    "Explanation",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "HeatmapIoU",
    "InputXGradient",
    "IntegratedGradients",
    "UnsupportedOperation",
    "ZPlus",
    "Zennit",
    "background_share",
    "boxes_to_mask",
    "corrected_energy_loss",
    "dilate_boxes",
    "energy_loss",
    "epg",
    "explain",
    "gwrp",
    "heatmap_iou",
    "isnet_background_loss",
    "isnet_foreground_loss",
    "isnet_loss",
    "l1_loss",
    "mean_normalised_target",
    "pixels_erased_log_odds",
    "ppce_loss",
    "random_positive_target",
    "register_rule",
    "rrr_loss",
    "selective_target",
    "softmax_target",
    "stochastic_target",
]


def __getattr__(name: str):
    """The two metrics, imported when they are asked for: torchmetrics takes longer to import than all the rest."""
    if name in ("EPG", "HeatmapIoU"):
        from attrain import localisation_metrics

        return getattr(localisation_metrics, name)
    raise AttributeError(f"module 'attrain' has no attribute {name!r}")
