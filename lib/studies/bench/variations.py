"""Ways to run the same step that might be faster, beside the usual one: memory formats, half precision, optimisers.

A row of `notebooks/results/benchmarks/tried.yaml` says of each what was expected and whether it was kept.
"""

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch
import torchvision

from attrain import LRP, DeepLift, InputXGradient, explain
from attrain.training import isnet_step
from attrain.training.boxes import guided_step
from studies.bench.cases import Sizes
from studies.bench.measure import Case, Run


def variation_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    n, edge = sizes.batch, sizes.step
    name = f"{{}}, resnet18 {n}×3×{edge}×{edge}{{}}"
    for kind, what in (("isnet", ", Selective ISNet"), ("guided", ", energy at Input")):
        make = partial(step, kind, n, edge, device)
        base = name.format("step", what)
        yield Case(f"{base}: channels last / contiguous", lambda make=make: (make(channels_last=True), make()))
        yield Case(f"{base}: bfloat16 / float32", lambda make=make: (make(bfloat16=True), make()))
        if device.type == "cuda":
            yield Case(f"{base}: without TF32 / with it", lambda make=make: (make(tf32=False), make()))
    base = name.format("step with Adam", ", Selective ISNet")
    for form in ("fused", "foreach"):
        make = partial(step, "isnet", n, edge, device)
        yield Case(f"{base}: {form} / default", lambda make=make, f=form: (make(adam={f: True}), make(adam={})))
    for title, method in (("LRP-ε", LRP()), ("DeepLIFT Rescale", DeepLift()), ("input × gradient", InputXGradient())):
        make = partial(halved, method, n, edge, device)
        yield Case(
            name.format("map", f", {title}: bfloat16 / float32"),
            lambda make=make: [partial(make().map, bfloat16=b) for b in (True, False)],
            error=lambda make=make: make().error(),
        )


def step(
    kind: str, n: int, edge: int, device: torch.device, channels_last: bool = False, bfloat16: bool = False,
    tf32: bool = True, adam: dict | None = None,
) -> Run:  # fmt: skip
    """A Selective ISNet's or an energy-guided step of a resnet18, with the optimiser's if `adam` is given.

    On CUDA torch has convolutions, though not products of matrices, in TF32 unless `tf32` is off.
    """
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).train().to(device)
    x, y = torch.rand(n, 3, edge, edge, device=device), torch.arange(n, device=device) % 10
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    box = torch.tensor([[[edge // 4, edge // 4, edge - edge // 4, edge - edge // 4]]] * n, device=device)
    mask = torch.zeros(n, edge, edge, dtype=torch.bool, device=device)
    mask[:, edge // 4 : -edge // 4, edge // 4 : -edge // 4] = True
    labels = torch.nn.functional.one_hot(y, 10).float()
    descent = None if adam is None else torch.optim.Adam(model.parameters(), 1e-5, **adam)

    def run():
        model.zero_grad()
        with nullcontext() if tf32 else torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                if kind == "isnet":
                    loss = isnet_step(model, x, y, mask)[1]
                else:
                    loss = guided_step(model, x, labels, box, y[:, None], weight=1e-3)[1]
            loss.backward()
        if descent:
            descent.step()

    return run


class halved:
    """Maps of a resnet18 in bfloat16 and in float32, and how far those in bfloat16 are from those in float64."""

    def __init__(self, method, n: int, edge: int, device: torch.device):
        torch.manual_seed(0)
        self.method, self.device = method, device
        self.model = torchvision.models.resnet18(num_classes=10).to(device)
        with torch.no_grad():  # batch norm's statistics are those of data
            for module in self.model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 1.0
            self.model.train()(torch.rand(32, 3, edge, edge, device=device))
        self.model.eval()
        self.x = torch.rand(n, 3, edge, edge, device=device)

    def map(self, bfloat16: bool) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            return explain(self.model, self.x, 0, self.method).heatmap

    def error(self) -> float:
        exact = explain(copy.deepcopy(self.model).double(), self.x.double(), 0, self.method).heatmap
        return float((self.map(True).double() - exact).norm() / exact.norm())
