"""How time and memory grow with the batch, the edge of the images, the number of classes and that of references.

Work is proportional to batch and to pixels, so exponents of 1 and 2 are expected, less where what does not grow with
them counts: weights to read and, in a step, their gradients, 45 MB in a resnet18. 0 for classes; less than 1 for
references that all samples share.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torchvision

from attrain import LRP, DeepLift, explain
from attrain.training import isnet_step, plain_step
from data_prep.dna import simulate
from studies.bench.cases import training_step
from studies.bench.measure import Run
from studies.nets.small import SequenceCNN

# What grows -> its values; the other sizes stay at (batch, edge, classes).
POINTS = {
    "small": ({"batch": (4, 8, 16, 32), "edge": (64, 96, 128, 192), "classes": (2, 10, 100, 1000)}, (4, 64, 10)),
    "large": ({"batch": (8, 16, 32, 64, 128), "edge": (64, 96, 128, 192, 256), "classes": (2, 10, 100, 1000)},
              (32, 128, 10)),
}  # fmt: skip
REFERENCES = (1, 2, 5, 10, 20, 40)


def lines(sizes: str, device: torch.device) -> Iterator[tuple[str, str, dict[int, Callable[[], Run]]]]:
    """(what is run, what grows, size -> () -> the function to run)."""
    grows, fixed = POINTS[sizes]
    runs = {
        "LRP-ε map": partial(lrp_map, device=device),
        "plain step": partial(training_step, plain_step, device=device),
        "Selective ISNet step": partial(training_step, isnet_step, device=device),
    }
    for name, make in runs.items():
        for what, values in grows.items():
            of = dict(zip(("n", "edge", "classes"), fixed))
            key = "n" if what == "batch" else what
            yield name, what, {value: partial(make, **of | {key: value}) for value in values}
    batches, samples = grows["batch"], grows["batch"][-1]
    yield "DeepLIFT map", "references", {k: partial(genomics_map, samples, k, device) for k in REFERENCES}
    yield "DeepLIFT map, 20 references", "batch", {n: partial(genomics_map, n, 20, device) for n in batches}


def lrp_map(n: int, edge: int, classes: int, device: torch.device) -> Run:
    """Of a resnet18."""
    model = torchvision.models.resnet18(num_classes=classes).eval().to(device)
    x = torch.rand(n, 3, edge, edge, device=device)
    return lambda: explain(model, x, 0, LRP())


def genomics_map(n: int, references: int, device: torch.device) -> Run:
    """Of the genomics network, with references shared by all sequences."""
    net = SequenceCNN().eval().to(device)
    x, shared = (simulate(k)["x"].to(device) for k in (n, references))
    return lambda: explain(net, x, 0, DeepLift(shared[:, None]))
