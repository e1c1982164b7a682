"""Losses on heatmaps: tensors in, a number out."""

from attrain.losses.boxes import energy_loss as energy_loss
from attrain.losses.boxes import l1_loss as l1_loss
from attrain.losses.boxes import ppce_loss as ppce_loss
from attrain.losses.boxes import rrr_loss as rrr_loss
from attrain.losses.isnet import gwrp as gwrp
from attrain.losses.isnet import isnet_background_loss as isnet_background_loss
from attrain.losses.isnet import isnet_foreground_loss as isnet_foreground_loss
from attrain.losses.isnet import isnet_loss as isnet_loss
from attrain.losses.isnet import isnet_losses as isnet_losses
from attrain.masks import annotated as annotated
