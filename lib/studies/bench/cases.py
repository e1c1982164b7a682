"""What is measured: maps, training steps and losses beside what they are compared with.

**The bound** of a ratio counts products with the weights, each as much work as a forward pass. A computation of k
products has a gradient for all weights and activations that costs 2k more, so that a step which trains on it costs
3k.

- A plain step has one product (the forward pass), so 3; a map has 2, forward and back to the input.
- A step on one map trains on both of its products: 6 / 3 = 2. So the class count, which the map does not see, does
  not matter, and neither do the sizes of batch and image.
- Of K maps each has a way back of its own: 1 + K products, so 1 + K. Maps of K classes that nobody trains on cost 1
  + K for 2, (1 + K) / 2.
- Dual has two maps, and the one by LRP-z⁺ has a forward pass of its own, with the positive weights: 4 products, so
  4.
- A map that is guided at the last layers needs the head alone, which is next to nothing: 1.
- Challenged steps have a plain step (3), a map in evaluation mode that is not trained on (2), and a step on the
  challenged samples (3): 8 / 3. FGSM has the same.
- DeepLIFT runs the reference too; one that is shared by N samples is one sample more on the way forward: 1 + 1 /
  2N, and a step on its map 2 + 1 / N. Convolutions of one row of few pixels cost more than an Nth of those of N.
- Integrated gradients with 10 steps are 20 products, and one for the logits and one for the reference, whom captum
  does not run. A reference that N samples share costs 1 / N.
- The rest of a ratio above its bound is what is not a product: activations, norms, rules, losses, and Python.

**Targets**: a DeepLIFT map with a shared reference in 1.15 times that of input × gradient, from 32 samples on; a
step on maps within 2.2 plain ones, of a transformer within 2.5, on DeepLIFT's maps, from eight samples on, within 2.8;
no more than 5 % from 2 classes to 1000; with 20 references an eighth of captum's time and a tenth of its memory.
"""

import copy
import warnings
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from typing import NamedTuple

import captum.attr as captum_attr
import torch
import torchvision
from torch import nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon, Pass

from attrain import (
    LRP,
    ZB,
    AttnLRP,
    BCos,
    DeepLift,
    Dual,
    InputXGradient,
    IntegratedGradients,
    boxes_to_mask,
    energy_loss,
    explain,
    l1_loss,
    ppce_loss,
    rrr_loss,
    stochastic_target,
)
from attrain.challenger import Challenger
from attrain.training import isnet_step, plain_step
from attrain.training.boxes import guided_step
from attrain.training.regularisers import fgsm_step
from data_prep.dna import simulate
from studies.bench.measure import Case, Run
from studies.nets.resnets import DEPTHS, guided_resnet
from studies.nets.small import SequenceCNN, SmallCNN, small_vit


class Sizes(NamedTuple):
    """Batches and edges of images, one set for two CPU cores and one that fills a large GPU."""

    batch: int = 8
    edge: int = 96  # of maps
    many: int = 32  # a large batch of maps
    step: int = 64  # edge in steps
    edges: tuple = (32, 96)  # other edges
    batches: tuple = (2, 16)  # other batches
    sequences: int = 64
    loss: tuple = (64, 224)
    small: int = 32  # batch of the small network


SIZES = {
    "small": Sizes(),
    "large": Sizes(64, 224, 256, 224, (64, 288), (8, 96), 1024, (512, 448), 4096),  # at most some 80 GB
}
# A plain step and a map (two passes), and a step on the challenged samples, for a plain step.
CHALLENGED = (3 + 2 + 3) / 3
VARIANTS = {
    "Selective ISNet": {},
    "Stochastic ISNet": {"target": stochastic_target()},
    "Selective ISNet with LDS": {"layers": ["layer1", "layer2", "layer3", "layer4"]},
    "Dual ISNet": {"target": "all", "method": Dual(first_layer=ZB()), "C1": (1.0, 1.0), "C2": (25.0, 25.0)},
    "original ISNet": {"target": "all"},
    "ISNet on DeepLIFT's map": {"target": stochastic_target(), "method": DeepLift(reference=0.0)},
}


def bound_of(variant: str, classes: int, n: int) -> float:
    more = {"Dual ISNet": 4.0, "original ISNet": 1.0 + classes, "ISNet on DeepLIFT's map": 2.0 + 1 / n}
    return more.get(variant, 2.0)


# ---------------------------------------------------------------- maps


def map_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    n, edge = sizes.batch, sizes.edge
    name = f"map, vgg11_bn {n}×3×{edge}×{edge}: {{}}"
    base = name.format("{} / input × gradient")

    def beside_gradient(method, target=0, n=n):
        def sides():
            model, x = vgg(n, edge, device)
            return [lambda m=m: explain(model, x, target, m) for m in (method, InputXGradient())]

        return sides

    def with_others(ours, others, n=n):
        """Sides of which one or both come from another package, given the model and the images."""

        def sides():
            model, x = vgg(n, edge, device)
            made = [side(model, x) if callable(side) else partial(explain, model, x, *side) for side in (ours, others)]
            return made

        return sides

    gradient, captum = (0, InputXGradient()), partial(captums_map, captum_attr.DeepLift)
    yield Case(base.format("LRP-ε"), beside_gradient(LRP(), None), 1.0)
    yield Case(base.format("LRP-ε with z^B"), beside_gradient(LRP(first_layer=ZB()), None), 1.0)
    yield Case(base.format("zennit's LRP-ε"), with_others(zennit_map, (None, InputXGradient())))
    yield Case(name.format("LRP-ε / zennit's LRP-ε"), with_others((None, LRP()), zennit_map))
    yield Case(base.format("DeepLIFT Rescale"), beside_gradient(DeepLift()), 1 + 1 / (2 * n))
    reveal = DeepLift(rule="reveal_cancel")
    yield Case(base.format("DeepLIFT RevealCancel"), beside_gradient(reveal))
    yield Case(base.format("captum's Rescale"), with_others(captum, gradient))
    yield Case(name.format("RevealCancel / captum's Rescale"), with_others((0, reveal), captum))
    path = 0, IntegratedGradients(steps=10)
    few, m = max(n // 4, 1), sizes.many  # ten steps of eight images are half a minute for one repetition
    yield Case(
        f"map, vgg11_bn {few}×3×{edge}×{edge}: integrated gradients, 10 steps / captum's",
        with_others(path, captums_path, few), 1 + (1 + 1 / few) / 20,
    )  # fmt: skip
    yield Case(
        f"map, vgg11_bn {m}×3×{edge}×{edge}: DeepLIFT Rescale / input × gradient",
        beside_gradient(DeepLift(), n=m), 1 + 1 / (2 * m), 1.15,
    )  # fmt: skip

    def classes():
        ten = torchvision.models.resnet18(num_classes=10).eval().to(device)
        x = torch.rand(n, 3, sizes.step, sizes.step, device=device)
        return [lambda t=t: explain(ten, x, t, LRP()) for t in ("all", 0)]

    yield Case(f"map, resnet18 {n}×3×{sizes.step}×{sizes.step}: LRP-ε of all 10 classes / of one", classes, 11 / 2)


def vgg(n: int, edge: int, device: torch.device):
    return vgg11_bn(device), torch.rand(n, 3, edge, edge, device=device)


@cache
def vgg11_bn(device: torch.device) -> nn.Module:
    return torchvision.models.vgg11_bn(weights=None).eval().to(device)  # its 133 million weights take seconds to draw


def zennit_map(model: nn.Module, x: torch.Tensor) -> Run:
    """LRP-ε by zennit: ε on convolutions and hidden linear layers, batch norm merged."""
    composite = LayerMapComposite(
        [(nn.ReLU, Pass()), (nn.Conv2d, Epsilon(1e-2)), (nn.Linear, Epsilon(1e-2))], [SequentialMergeBatchNorm()]
    )

    def run():
        leaf = x.clone().requires_grad_()
        with composite.context(model) as modified:
            logits = modified(leaf)
            start = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), logits.amax(1, keepdim=True))
            return torch.autograd.grad(logits, leaf, start)[0]

    return run


def captums_map(method, model: nn.Module, x: torch.Tensor, *references) -> Run:
    """A map by captum's DeepLift or DeepLiftShap, for class 0."""
    model = copy.deepcopy(model)

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method(model).attribute(x.clone().requires_grad_(), *references, target=0)

    return run


def captums_path(model: nn.Module, x: torch.Tensor) -> Run:
    path = captum_attr.IntegratedGradients(model)
    return lambda: path.attribute(x, target=0, n_steps=10, internal_batch_size=len(x))


def genomics_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """The network of DeepLIFT's simulated genomics: sequences with 20 references shared by all, class 0."""
    name = f"map, genomics network {sizes.sequences}×4×200, 20 references: {{}} / {{}}"

    def beside(rule, others):
        def sides():
            net = SequenceCNN().eval().to(device)
            x, references = (simulate(n)["x"].to(device) for n in (sizes.sequences, 20))
            return lambda: explain(net, x, 0, DeepLift(references[:, None], rule)), others(net, x, references)

        return sides

    captum = partial(captums_map, captum_attr.DeepLiftShap)
    yield Case(
        name.format("Rescale", "captum's"), beside("rescale", captum), target=1 / 8, memory_target=1 / 10
    )  # fmt: skip
    if find_spec("shap"):
        yield Case(name.format("Rescale", "shap's"), beside("rescale", shaps_map))
    if find_spec("tangermeme"):
        yield Case(name.format("Rescale", "tangermeme's"), beside("rescale", tangermemes_map))
    yield Case(name.format("hybrid", "captum's Rescale"), beside("genomics", captum))


def shaps_map(net: nn.Module, x: torch.Tensor, references: torch.Tensor) -> Run:
    """A map by shap, of a network with the one output that is explained, as shap explains all."""
    import shap

    one, last = copy.deepcopy(net), net[-1]
    one[-1] = nn.Linear(last.in_features, 1).to(x.device)
    with torch.no_grad():
        one[-1].weight.copy_(last.weight[:1])
        one[-1].bias.copy_(last.bias[:1])
    explainer = shap.DeepExplainer(one, references)
    return lambda: explainer.shap_values(x.clone(), check_additivity=False)


def tangermemes_map(net: nn.Module, x: torch.Tensor, references: torch.Tensor) -> Run:
    from tangermeme.deep_lift_shap import deep_lift_shap

    own = references.expand(len(x), *references.shape)
    options = {"references": own, "n_shuffles": len(references), "device": str(x.device)}
    return lambda: deep_lift_shap(net, x, target=0, **options)


# ---------------------------------------------------------------- steps


def training_step(
    step, n: int, edge: int, classes: int, device: torch.device, network=torchvision.models.resnet18, **options
) -> Run:
    """A step of a network, forward and backward, without the optimiser's."""
    torch.manual_seed(0)
    model = network(num_classes=classes).train().to(device)
    x, y = torch.rand(n, 3, edge, edge, device=device), torch.randint(classes, (n,), device=device)
    mask = torch.zeros(n, edge, edge, dtype=torch.bool, device=device)
    mask[:, edge // 4 : -edge // 4, edge // 4 : -edge // 4] = True

    def run():
        model.zero_grad()
        step(model, x, y, mask, **options)[1].backward()

    return run


def isnet_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """Every variant over class counts, edges and batches; the original, with a map a class, for ten classes."""
    n, edge = sizes.batch, sizes.step
    name = "step, resnet18 {0}×3×{1}×{1}, {2} classes: {3} / plain"
    settings = [(n, edge, 10), (n, edge, 1000)]
    settings += [(n, e, 10) for e in sizes.edges] + [(b, edge, 10) for b in sizes.batches]
    for n, edge, classes in settings:
        for variant, options in VARIANTS.items():
            if variant == "original ISNet" and classes > 10:
                continue
            make = partial(training_step, n=n, edge=edge, classes=classes, device=device)
            sides = lambda make=make, o=options: (make(isnet_step, **o), make(plain_step))  # noqa: E731
            bound, title = bound_of(variant, classes, n), name.format(n, edge, classes, variant)
            yield Case(title, sides, bound, 2.2 if bound == 2 else 2.8 if "DeepLIFT" in variant and n >= 8 else None)
    for variant in ("Selective ISNet", "Stochastic ISNet", "Dual ISNet"):
        make = partial(training_step, isnet_step, sizes.batch, sizes.step, device=device, **VARIANTS[variant])
        yield Case(
            f"step, resnet18 {sizes.batch}×3×{sizes.step}×{sizes.step}, {variant}: 1000 classes / 2",
            lambda make=make: (make(classes=1000), make(classes=2)), 1.0, 1.05,
        )  # fmt: skip


def transformer_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """Selective ISNet of a small vision transformer; the bound leaves attention out, which has 18 products for 6."""
    vit = lambda num_classes: small_vit(28, num_classes, channels=3)  # noqa: E731
    make = partial(training_step, n=sizes.small, edge=28, device=device, network=vit)
    where = f"{sizes.small}×3×28×28"
    for title, method in {"AttnLRP": AttnLRP(), "CP-LRP": AttnLRP("cp")}.items():
        sides = lambda m=method: (make(isnet_step, classes=10, method=m), make(plain_step, classes=10))  # noqa: E731
        yield Case(f"step, small ViT {where}, 10 classes: Selective ISNet by {title} / plain", sides, 2.0, 2.5)
    step = partial(make, isnet_step, method=AttnLRP())
    for classes in (100, 1000):
        sides = lambda c=classes: (step(classes=c), step(classes=10))  # noqa: E731
        yield Case(f"step, small ViT {where}, Selective ISNet by AttnLRP: {classes} classes / 10", sides, 1.0, 1.05)


def guided_training_step(
    kind: str, size: str, depth: str | None, n: int, edge: int, device: torch.device, batch_statistics: bool = False
) -> Run:
    """A step of the energy loss; without a depth a plain one."""
    torch.manual_seed(0)
    model, x = guided_resnet(kind, size, 10).train().to(device), torch.rand(n, 3, edge, edge, device=device)
    y = torch.nn.functional.one_hot(torch.arange(n) % 10, 10).float().to(device)
    boxes = torch.tensor([[[edge // 4, edge // 4, edge - edge // 4, edge - edge // 4]]] * n, device=device)
    method = BCos() if kind == "bcos" else InputXGradient(batch_statistics=batch_statistics)
    settings = dict(method=method, layer=DEPTHS[depth] if depth else "")
    classes = y.argmax(1, keepdim=True)

    def run():
        model.zero_grad()
        guided_step(model, x, y, boxes, classes, weight=1e-3 if depth else 0.0, **settings)[1].backward()

    return run


def guided_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    where = dict(n=sizes.batch, edge=sizes.step, device=device)
    for kind, size in (("vanilla", "small"), ("bcos", "small"), ("vanilla", "resnet18")):
        for depth, bound in (("Input", 2.0), ("Final", 1.0)):
            make = partial(guided_training_step, kind, size, **where)
            yield Case(
                f"step, {kind} {size} ResNet {sizes.batch}×3×{sizes.step}×{sizes.step}: energy at {depth} / plain",
                lambda make=make, depth=depth: (make(depth), make(None)), bound, 2.2,
            )  # fmt: skip
    fixed = partial(guided_training_step, "vanilla", "resnet18", "Input", **where)
    yield Case(
        f"step, resnet18 {sizes.batch}×3×{sizes.step}×{sizes.step}, energy at Input: statistics fixed / not",
        lambda: (fixed(), fixed(batch_statistics=True)),
    )


def challenger_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """Challenged training of a small network, whose FGSM is the natural yardstick."""

    def of(step):
        torch.manual_seed(0)
        model, n = SmallCNN().train().to(device), sizes.small
        x, y = torch.rand(n, 1, 28, 28, device=device), torch.arange(n, device=device) % 10

        def run():
            model.zero_grad()
            step(model, x, y)[1].backward()

        return run

    steps = {"Challenger, gradient × input": Challenger(), "Challenger, LRP-ε": Challenger(attribution="lrp")}
    for name, step in {**steps, "FGSM": fgsm_step}.items():
        case = f"step, small network {sizes.small}×1×28×28: {name} / plain"
        yield Case(case, lambda step=step: (of(step), of(plain_step)), CHALLENGED)


# ---------------------------------------------------------------- losses


def box_loop(name: str, maps: torch.Tensor, boxes: list) -> torch.Tensor:
    """A guidance loss of maps (N, H, W) as it reads on paper: image by image and box by box."""
    total = 0.0
    for heatmap, own in zip(maps, boxes):
        inside = torch.zeros(heatmap.shape, dtype=torch.bool, device=heatmap.device)
        for left, top, right, bottom in own:
            inside[top:bottom, left:right] = True
        if name == "energy":
            positive = heatmap.clamp(min=0)
            total = total + 1 - positive[inside].sum() / positive.sum()
            continue
        scaled = heatmap if name == "RRR" else heatmap.clamp(min=0)
        scaled = scaled / scaled.abs().max()
        if name == "L1":
            total = total + (scaled - inside.float()).abs().mean()
        elif name == "PPCE":
            total = total - scaled[inside].log().clamp(min=-100).mean()
        else:
            total = total + scaled[~inside].square().sum()
    return total


def loss_cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """The four losses of boxes, forward and backward, beside the loops."""
    n, edge = sizes.loss

    def sides(name, loss):
        torch.manual_seed(0)
        maps = (torch.rand(n, edge, edge, device=device) + 0.1).requires_grad_()
        boxes = [[[10 * k, 10 * k, 60 + 10 * k, 90 + 10 * k] for k in range(1 + i % 5)] for i in range(n)]
        ours = lambda: loss(maps, boxes_to_mask(boxes, (edge, edge)).to(device), reduction="sum")  # noqa: E731
        loops = lambda: box_loop(name, maps, boxes)  # noqa: E731
        torch.testing.assert_close(ours(), loops(), rtol=1e-4, atol=0)
        return [lambda value=value: torch.autograd.grad(value(), maps) for value in (ours, loops)]

    for name, loss in {"energy": energy_loss, "L1": l1_loss, "PPCE": ppce_loss, "RRR": rrr_loss}.items():
        case = f"loss, {n}×{edge}×{edge}, 1-5 boxes: {name} / loops over images and boxes"
        yield Case(case, partial(sides, name, loss))
