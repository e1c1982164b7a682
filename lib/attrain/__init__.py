"""attrain: attribution and attribution-guided training.

>>> import torch, attrain
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
>>> attrain.explain(model, torch.rand(5, 1, 2, 2), method=attrain.LRP(epsilon=1e-2)).heatmap.shape
torch.Size([5, 1, 2, 2])
"""

from attrain.explain import Explanation, explain
from attrain.losses import gwrp, isnet_background_loss, isnet_foreground_loss, isnet_loss
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
from attrain.metrics import background_share
from attrain.operations import UnsupportedOperation, register_rule
from attrain.targets import selective_target, softmax_target, stochastic_target
from attrain.zplus import Dual, ZPlus

__version__ = "0.1.0"

__all__ = [
    "LRP",
    "ZB",
    "BCos",
    "DeepLift",
    "Dual",
    "Explanation",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "UnsupportedOperation",
    "ZPlus",
    "Zennit",
    "background_share",
    "explain",
    "gwrp",
    "isnet_background_loss",
    "isnet_foreground_loss",
    "isnet_loss",
    "register_rule",
    "selective_target",
    "softmax_target",
    "stochastic_target",
]
