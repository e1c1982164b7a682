"""Metrics of maps and of classifiers: tensors in, numbers out."""

from attrain.metrics.classification import balanced_accuracy as balanced_accuracy
from attrain.metrics.classification import macro_auc as macro_auc
from attrain.metrics.classification import macro_f1 as macro_f1
from attrain.metrics.classification import micro_f1 as micro_f1
from attrain.metrics.classification import patient_draws as patient_draws
from attrain.metrics.confidence import calibration as calibration
from attrain.metrics.confidence import reliability as reliability
from attrain.metrics.filters import effective_rank as effective_rank
from attrain.metrics.filters import filter_similarity as filter_similarity
from attrain.metrics.localisation import choose_threshold as choose_threshold
from attrain.metrics.localisation import epg as epg
from attrain.metrics.localisation import heatmap_iou as heatmap_iou
from attrain.metrics.localisation import on_object_epg as on_object_epg
from attrain.metrics.localisation import pareto_front as pareto_front
from attrain.metrics.relevance import Conversion as Conversion
from attrain.metrics.relevance import background_share as background_share
from attrain.metrics.relevance import completeness_error as completeness_error
from attrain.metrics.relevance import deletion_curve as deletion_curve
from attrain.metrics.relevance import erase as erase
from attrain.metrics.relevance import insertion_curve as insertion_curve
from attrain.metrics.relevance import log_odds as log_odds
from attrain.metrics.relevance import pixels_erased_log_odds as pixels_erased_log_odds
from attrain.metrics.relevance import rank_correlation as rank_correlation
from attrain.metrics.sanity import randomised as randomised
