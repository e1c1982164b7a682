"""The public names and where they are defined, which `__init__.py` imports when they are first asked for."""

from attrain.explain import Explanation as Explanation
from attrain.explain import explain as explain
from attrain.guidance import corrected_energy_loss as corrected_energy_loss
from attrain.guidance import energy_loss as energy_loss
from attrain.guidance import l1_loss as l1_loss
from attrain.guidance import ppce_loss as ppce_loss
from attrain.guidance import rrr_loss as rrr_loss
from attrain.localisation import epg as epg
from attrain.localisation import heatmap_iou as heatmap_iou
from attrain.localisation_metrics import EPG as EPG
from attrain.localisation_metrics import HeatmapIoU as HeatmapIoU
from attrain.losses import gwrp as gwrp
from attrain.losses import isnet_background_loss as isnet_background_loss
from attrain.losses import isnet_foreground_loss as isnet_foreground_loss
from attrain.losses import isnet_loss as isnet_loss
from attrain.masks import boxes_to_mask as boxes_to_mask
from attrain.masks import dilate_boxes as dilate_boxes
from attrain.methods import LRP as LRP
from attrain.methods import ZB as ZB
from attrain.methods import BCos as BCos
from attrain.methods import DeepLift as DeepLift
from attrain.methods import GradCAM as GradCAM
from attrain.methods import Gradient as Gradient
from attrain.methods import GuidedBackprop as GuidedBackprop
from attrain.methods import InputXGradient as InputXGradient
from attrain.methods import IntegratedGradients as IntegratedGradients
from attrain.methods import Zennit as Zennit
from attrain.metrics import background_share as background_share
from attrain.metrics import pixels_erased_log_odds as pixels_erased_log_odds
from attrain.operations import UnsupportedOperation as UnsupportedOperation
from attrain.operations import register_rule as register_rule
from attrain.targets import mean_normalised_target as mean_normalised_target
from attrain.targets import random_positive_target as random_positive_target
from attrain.targets import selective_target as selective_target
from attrain.targets import softmax_target as softmax_target
from attrain.targets import stochastic_target as stochastic_target
from attrain.zplus import Dual as Dual
from attrain.zplus import ZPlus as ZPlus

__version__: str
