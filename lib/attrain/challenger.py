"""Challenger (Tomani, Cremers 2022), at the place that its name promises; see `attrain.training.challenger`."""

from attrain.training.challenger import Challenger as Challenger
from attrain.training.challenger import contrast_target as contrast_target
from attrain.training.challenger import rival_target as rival_target
