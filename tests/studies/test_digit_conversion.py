"""Digit conversion with the network of DeepLIFT's authors, against numbers that share no code with attrain."""

import pytest
import torch
import yaml

from attrain import (
    DeepLift,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    explain,
    pixels_erased_log_odds,
)
from data_prep import DataError, deeplift_authors
from studies.files import NOTEBOOKS

KNOWN = yaml.safe_load((NOTEBOOKS / "deeplift/layer_by_layer.yaml").read_text("utf-8"))
METHODS = {
    "|gradient|, masked": Gradient(),
    "guided backprop, masked": GuidedBackprop(),
    "guided backprop × input": GuidedBackprop(),
    "gradient × input": InputXGradient(),
    "integrated gradients, 5": IntegratedGradients(steps=5),
    "integrated gradients, 10": IntegratedGradients(steps=10),
    "Rescale": DeepLift(),
    "RevealCancel": DeepLift(rule="reveal_cancel"),
    "RevealCancel in dense layers": DeepLift(rule="genomics"),
}
WHITE = {"raw pixels, 0 to 255": 255, "pixels from 0 to 1": 1}
SLOW = {("raw pixels, 0 to 255", "integrated gradients, 10"), ("pixels from 0 to 1", "integrated gradients, 5")}
CASES = [
    (pixels, method, pair)
    for pixels in WHITE
    for method in KNOWN[pixels]
    for pair in (KNOWN["conversions"] if method in ("Rescale", "RevealCancel") else ["8→3"])
    if (pixels, method) not in SLOW  # either number of steps once
]


@pytest.fixture(scope="module")
def network():
    try:
        return deeplift_authors.mnist_network()
    except DataError as error:
        pytest.skip(f"needs the authors' weights: {error}")


@pytest.mark.parametrize(("pixels", "method", "pair"), CASES)
def test_medians_and_flips_are_those_of_the_oracle(network, mnist_data, pixels, method, pair):
    own, other = map(int, pair.split("→"))
    x = WHITE[pixels] * mnist_data["test_x"][mnist_data["test_y"] == own]
    classes = torch.tensor([own, other]).expand(len(x), 2)
    scores, ink = explain(network, x, classes, METHODS[method]).heatmap, (x > 0)[:, None]
    if method == "|gradient|, masked":
        scores = scores.abs() * ink
    if method == "guided backprop, masked":
        scores = torch.where(ink, scores / x[:, None], 0)
    found = pixels_erased_log_odds(network, x, scores, classes)
    median, flipped = KNOWN[pixels][method][KNOWN["conversions"].index(pair)]
    assert found.change.quantile(0.5).item() == pytest.approx(median, rel=0.01)
    if flipped is not None:
        assert found.flipped.double().mean().item() == pytest.approx(flipped, abs=0.01)
