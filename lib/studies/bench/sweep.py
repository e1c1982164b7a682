"""`make sweep`, or `python -m studies.bench.sweep [NAME ...]`: DeepLIFT's completeness on torchvision's classifiers.

For each network, with a random reference: the largest |Σ map − Δ| over the largest |Δ|, in float64 and float32,
and captum's in float64. Right is below 1e-6 (float64); captum's Δ and maps are taken as its users take them.
"""

import argparse
import time
import warnings

import torch
import torchvision
from torch import nn

from attrain import DeepLift, explain

SIZES = {"inception_v3": 96, "maxvit": 224, "vit_h_14": 56}


def classifier(name: str):
    """A network without weights, and images: one training-mode forward gives its batch norms the data's statistics."""
    torch.manual_seed(0)
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    size = next((s for prefix, s in SIZES.items() if name.startswith(prefix)), 64)
    options |= {"image_size": size} if name.startswith("vit") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how long scipy's truncated normal takes
        model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
    if name.startswith("vit"):  # its head starts as zeros, and a constant has nothing to attribute
        nn.init.normal_(model.heads.head.weight)
    x = torch.randn(2, 3, size, size)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, size, size))
    return model.eval(), x, torch.randn(1, 3, size, size)


def incompleteness(model, x, reference, rule="rescale") -> float:
    """The largest |Σ map − Δ|, relative to the largest |Δ|, where Δ comes from two runs of the model itself."""
    with torch.no_grad():
        delta = (model(x) - model(reference))[:, 0]
    heatmap = explain(model, x, 0, DeepLift(reference, rule)).heatmap
    return float((heatmap.flatten(1).sum(1) - delta).abs().max() / delta.abs().max())


def captums(model, x, reference) -> float:
    from captum.attr import DeepLift as Captum

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heatmap = Captum(model).attribute(x.clone().requires_grad_(), reference.expand_as(x).clone(), target=0).detach()
    with torch.no_grad():
        delta = (model(x) - model(reference))[:, 0]
    return float((heatmap.flatten(1).sum(1) - delta).abs().max() / delta.abs().max())


def attempt(run, *args) -> str:
    try:
        return f"{run(*args):.1e}"
    except Exception as error:  # a row of the table, whatever it is
        return f"raises {type(error).__name__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--without-captum", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.names or torchvision.models.list_models(module=torchvision.models)
    counts = {"attrain": [0, 0, 0], "captum": [0, 0, 0]}
    print(f"{'network':20s} {'float64':>10s} {'float32':>10s} {'captum':>22s} {'seconds':>8s}")
    for name in names:
        start = time.perf_counter()
        model, x, reference = classifier(name)
        single = attempt(incompleteness, model, x, reference)
        model, x, reference = model.double(), x.double(), reference.double()
        double = attempt(incompleteness, model, x, reference)
        took = time.perf_counter() - start
        captum = "" if options.without_captum else attempt(captums, model, x, reference)
        for who, value in (("attrain", double), ("captum", captum)):
            if value:
                counts[who][2 if "raises" in value else int(not float(value) <= 1e-6)] += 1
        print(f"{name:20s} {double:>10s} {single:>10s} {captum:>22s} {took:8.1f}", flush=True)
    for who, (right, wrong, raises) in counts.items():
        print(f"{who}: {right} right, {wrong} wrong, {raises} raise")


if __name__ == "__main__":
    main()
