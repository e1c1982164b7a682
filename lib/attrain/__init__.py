"""attrain: attribution and attribution-guided training.

>>> import torch, attrain
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
>>> attrain.explain(model, torch.rand(5, 1, 2, 2), method=attrain.LRP(epsilon=1e-2)).heatmap.shape
torch.Size([5, 1, 2, 2])
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_NAMES = {
    "explain": "Explanation explain",
    "guidance": "corrected_energy_loss energy_loss l1_loss ppce_loss rrr_loss",
    "localisation": "epg heatmap_iou",
    "localisation_metrics": "EPG HeatmapIoU",
    "losses": "gwrp isnet_background_loss isnet_foreground_loss isnet_loss",
    "masks": "boxes_to_mask dilate_boxes",
    "methods": "LRP ZB BCos DeepLift GradCAM Gradient GuidedBackprop InputXGradient IntegratedGradients Zennit",
    "metrics": "background_share pixels_erased_log_odds",
    "operations": "UnsupportedOperation register_rule",
    "targets": "mean_normalised_target random_positive_target selective_target softmax_target stochastic_target",
    "zplus": "Dual ZPlus",
}
_HOME = {name: f"attrain.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)


class _Attrain(ModuleType):
    """Each public name is imported when it is first asked for: torch and torchmetrics take seconds to import."""

    def __getattr__(self, name):
        if name not in _HOME:
            raise AttributeError(f"module 'attrain' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __setattr__(self, name, value):
        """Python puts a module into its package when it has imported it; here `explain` stays the function."""
        if name not in _HOME or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self):
        return [*super().__dir__(), *_HOME]


sys.modules[__name__].__class__ = _Attrain
