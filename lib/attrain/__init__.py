"""attrain: attribution and attribution-guided training.

>>> import torch, attrain
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
>>> attrain.explain(model, torch.rand(5, 1, 2, 2), method=attrain.LRP(epsilon=1e-2)).heatmap.shape
torch.Size([5, 1, 2, 2])
"""

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from attrain.attribution import explain
from attrain.compare import Comparison, compare
from attrain.engine.call import UnsupportedOperation, register_rule
from attrain.explanation import Explanation
from attrain.losses import (
    energy_loss,
    gwrp,
    isnet_background_loss,
    isnet_foreground_loss,
    isnet_loss,
    l1_loss,
    ppce_loss,
    rrr_loss,
)
from attrain.masks import boxes_to_mask, dilate_boxes
from attrain.methods import (
    LRP,
    ZB,
    AttnLRP,
    BCos,
    DeepLift,
    Dual,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    InSilicoMutagenesis,
    IntegratedGradients,
    Method,
    Occlusion,
    SmoothGrad,
    Zennit,
    ZPlus,
)
from attrain.metrics import background_share, epg, heatmap_iou, pixels_erased_log_odds
from attrain.show import show
from attrain.targets import (
    mean_normalised_target,
    random_positive_target,
    selective_target,
    softmax_target,
    stochastic_target,
)

if TYPE_CHECKING:
    from attrain.metrics.stateful import EPG, HeatmapIoU

__version__ = "0.1.0"
__all__ = [
    "EPG", "LRP", "ZB", "AttnLRP", "BCos", "Comparison", "DeepLift", "Dual", "Explanation", "GradCAM", "Gradient",
    "GuidedBackprop", "HeatmapIoU", "InSilicoMutagenesis", "InputXGradient", "IntegratedGradients", "Method",
    "Occlusion", "SmoothGrad",
    "UnsupportedOperation", "ZPlus", "Zennit",
    "background_share", "boxes_to_mask", "compare", "dilate_boxes", "energy_loss", "epg", "explain",
    "gwrp", "heatmap_iou", "isnet_background_loss", "isnet_foreground_loss", "isnet_loss", "l1_loss",
    "mean_normalised_target", "pixels_erased_log_odds", "ppce_loss", "random_positive_target", "register_rule",
    "rrr_loss", "selective_target", "show", "softmax_target", "stochastic_target",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What needs more than torch and numpy is imported when it is first asked for."""
    if name in ("EPG", "HeatmapIoU"):
        from attrain.metrics import stateful

        return getattr(stateful, name)
    if name in ("challenger", "training"):
        return importlib.import_module(f"attrain.{name}")
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in __all__], 1)
    hint = "".join(f"; did you mean {known}?" for known in __all__ if [known.lower()] == near)
    raise AttributeError(f"module 'attrain' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return __all__
