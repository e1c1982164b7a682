"""`make bench [DEVICE=cuda]`: what attribution costs, as ratios measured side by side in one run.

The two sides of a ratio take turns; a figure is the median of the ratios of neighbouring repetitions.

The bound counts passes through the layers with weights, each as much work as a forward pass: a plain step has three
(forward, gradient of the activations, gradient of the weights), a map two (forward, gradient of the activations).
"""

import argparse
import copy
import ctypes
import os
import platform
import resource
import statistics
import time
import warnings
from importlib.util import find_spec

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
    sequences,
    stochastic_target,
)
from attrain.challenger import Challenger
from attrain.guided import guided_step
from attrain.models import SequenceCNN, SmallCNN
from attrain.regularisers import fgsm_step
from attrain.resnets import DEPTHS, guided_resnet
from attrain.study import environment, results_root, write_json
from attrain.training import isnet_step, plain_step

# A plain step; the gradient that is the map; and both derivatives of that gradient.
GUIDED = (3 + 1 + 2) / 3
# A plain step, a map (two passes), and a step on the challenged samples.
CHALLENGED = (3 + 2 + 3) / 3
VARIANTS = {
    "Selective ISNet": {},
    "Stochastic ISNet": {"target": stochastic_target()},
    "Selective ISNet with LDS": {"layers": ["layer1", "layer2", "layer3", "layer4"]},
    "Dual ISNet": {"target": "all", "method": Dual(first_layer=ZB()), "C1": (1.0, 1.0), "C2": (25.0, 25.0)},
}


def vgg(device):
    return torchvision.models.vgg11_bn(weights=None).eval().to(device), torch.rand(8, 3, 96, 96, device=device)


def zennit_map(model, x):
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


def captums_map(method, model, x, *references):
    """A map by captum's DeepLift or DeepLiftShap, for class 0."""
    model = copy.deepcopy(model)

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method(model).attribute(x.clone().requires_grad_(), *references, target=0)

    return run


def genomics_cases(device):
    """The network of DeepLIFT's simulated genomics: 64 sequences, 20 references shared by all, class 0."""
    net = SequenceCNN().eval().to(device)
    x, references = (sequences.simulate(n)["x"].to(device) for n in (64, 20))
    rescale = lambda: explain(net, x, 0, DeepLift(references[:, None]))  # noqa: E731
    others = {"captum's": captums_map(captum_attr.DeepLiftShap, net, x, references)}
    if find_spec("shap"):
        others["shap's"] = shaps_map(net, x, references)
    if find_spec("tangermeme"):
        others["tangermeme's"] = tangermemes_map(net, x, references)
    for name, run in others.items():
        yield f"map, genomics network 64×4×200, 20 references: Rescale / {name}", rescale, run
    hybrid = lambda: explain(net, x, 0, DeepLift(references[:, None], "genomics"))  # noqa: E731
    yield "map, genomics network 64×4×200, 20 references: hybrid / captum's Rescale", hybrid, others["captum's"]


def shaps_map(net, x, references):
    """A map by shap, of a network with the one output that is explained, as shap explains all."""
    import shap

    one, last = copy.deepcopy(net), net[-1]
    one[-1] = nn.Linear(last.in_features, 1).to(x.device)
    with torch.no_grad():
        one[-1].weight.copy_(last.weight[:1])
        one[-1].bias.copy_(last.bias[:1])
    explainer = shap.DeepExplainer(one, references)
    return lambda: explainer.shap_values(x.clone(), check_additivity=False)


def tangermemes_map(net, x, references):
    from tangermeme.deep_lift_shap import deep_lift_shap

    own = references.expand(len(x), *references.shape)
    options = {"references": own, "n_shuffles": len(references), "device": str(x.device)}
    return lambda: deep_lift_shap(net, x, target=0, **options)


def training_step(step, classes, device, **options):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=classes).train().to(device)
    x, y = torch.rand(8, 3, 64, 64, device=device), torch.randint(classes, (8,), device=device)
    mask = torch.zeros(8, 64, 64, dtype=torch.bool, device=device)
    mask[:, 16:48, 16:48] = True

    def run():
        model.zero_grad()
        step(model, x, y, mask, **options)[1].backward()

    return run


def guided_training_step(kind, size, depth, device):
    """A step of the energy loss; without a depth a plain one."""
    torch.manual_seed(0)
    model, x = guided_resnet(kind, size, 10).train().to(device), torch.rand(8, 3, 64, 64, device=device)
    y = torch.nn.functional.one_hot(torch.arange(8) % 10, 10).float().to(device)
    boxes = torch.tensor([[[16, 16, 48, 48]]] * 8, device=device)
    settings = dict(method=BCos() if kind == "bcos" else InputXGradient(), layer=DEPTHS[depth] if depth else "")

    def run():
        model.zero_grad()
        classes = torch.arange(8, device=device)[:, None]
        guided_step(model, x, y, boxes, classes, weight=1e-3 if depth else 0.0, **settings)[1].backward()

    return run


def box_loop(name, maps, boxes):
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


def loss_cases(device):
    """The four losses of boxes, forward and backward, beside the loops."""
    torch.manual_seed(0)
    maps = (torch.rand(64, 224, 224, device=device) + 0.1).requires_grad_()
    boxes = [[[10 * k, 10 * k, 60 + 10 * k, 90 + 10 * k] for k in range(1 + i % 5)] for i in range(64)]

    def gradient(loss):
        return lambda: torch.autograd.grad(loss(), maps)

    losses = {"energy": energy_loss, "L1": l1_loss, "PPCE": ppce_loss, "RRR": rrr_loss}
    for name, loss in losses.items():
        ours = lambda loss=loss: loss(maps, boxes_to_mask(boxes, (224, 224)), reduction="sum")  # noqa: E731
        loops = lambda name=name: box_loop(name, maps, boxes)  # noqa: E731
        torch.testing.assert_close(ours(), loops(), rtol=1e-4, atol=0)
        yield f"loss, 64×224×224, 1-5 boxes: {name} / loops over images and boxes", gradient(ours), gradient(loops)


def challenger_cases(device):
    """Challenged training of a small network on 32 images, whose FGSM is the natural yardstick."""
    torch.manual_seed(0)
    model, x, y = (
        SmallCNN().train().to(device),
        torch.rand(32, 1, 28, 28, device=device),
        torch.arange(32, device=device),
    )
    batch = x, y % 10

    def of(step):
        def run():
            model.zero_grad()
            step(model, *batch)[1].backward()

        return run

    name = "step, small network 32×1×28×28: {} / plain"
    yield name.format("Challenger, gradient × input"), of(Challenger()), of(plain_step), CHALLENGED
    yield name.format("Challenger, LRP-ε"), of(Challenger(attribution="lrp")), of(plain_step), CHALLENGED
    yield name.format("FGSM"), of(fgsm_step), of(plain_step), CHALLENGED


def cases(device):
    """(name, numerator, denominator) and, where it is known, the bound of the ratio."""
    model, x = vgg(device)
    gradient = lambda: explain(model, x, None, InputXGradient())  # noqa: E731
    maps = "map, vgg11_bn 8×3×96×96: {} / input × gradient"
    yield maps.format("LRP-ε"), lambda: explain(model, x, None, LRP()), gradient, 1.0
    yield maps.format("LRP-ε with z^B"), lambda: explain(model, x, None, LRP(first_layer=ZB())), gradient, 1.0
    yield maps.format("zennit's LRP-ε"), zennit_map(model, x), gradient
    rescale = lambda: explain(model, x, 0, DeepLift())  # noqa: E731
    reveal = lambda: explain(model, x, 0, DeepLift(rule="reveal_cancel"))  # noqa: E731
    yield maps.format("DeepLIFT Rescale"), rescale, gradient, 1 + 1 / (2 * len(x))
    yield maps.format("DeepLIFT RevealCancel"), reveal, gradient
    captum = captums_map(captum_attr.DeepLift, model, x)
    yield maps.format("captum's Rescale"), captum, gradient
    yield "map, vgg11_bn 8×3×96×96: RevealCancel / captum's Rescale", reveal, captum
    path = lambda: explain(model, x, 0, IntegratedGradients(steps=10))  # noqa: E731
    captums = captum_attr.IntegratedGradients(model)
    captums_path = lambda: captums.attribute(x, target=0, n_steps=10, internal_batch_size=len(x))  # noqa: E731
    yield "map, vgg11_bn 8×3×96×96: integrated gradients, 10 steps / captum's", path, captums_path
    many = torch.rand(32, 3, 96, 96, device=device)
    of_many = [lambda m=m: explain(model, many, 0, m) for m in (DeepLift(), InputXGradient())]
    yield "map, vgg11_bn 32×3×96×96: DeepLIFT Rescale / input × gradient", *of_many, 1 + 1 / (2 * len(many))
    ten = torchvision.models.resnet18(num_classes=10).eval().to(device)
    small = torch.rand(8, 3, 64, 64, device=device)
    one, every = (lambda t=t: explain(ten, small, t, LRP()) for t in (0, "all"))
    yield "map, resnet18 8×3×64×64: LRP-ε of all 10 classes / of one", every, one, 11 / 2
    yield from genomics_cases(device)
    steps = "step, resnet18 8×3×64×64, {} classes: {} / plain"
    for classes in (10, 1000):
        plain = training_step(plain_step, classes, device)
        for name, settings in VARIANTS.items():
            yield steps.format(classes, name), training_step(isnet_step, classes, device, **settings), plain, GUIDED
    few, many = (training_step(isnet_step, classes, device) for classes in (10, 1000))
    yield "step, resnet18 8×3×64×64, Selective ISNet: 1000 classes / 10", many, few, 1.0
    plain = training_step(plain_step, 10, device)
    yield steps.format(10, "original ISNet"), training_step(isnet_step, 10, device, target="all"), plain, 11.0
    for kind, size in (("vanilla", "small"), ("bcos", "small"), ("vanilla", "resnet18")):
        plain = guided_training_step(kind, size, None, device)
        for depth in ("Input", "Final"):
            guided = guided_training_step(kind, size, depth, device)
            yield f"step, {kind} {size} ResNet 8×3×64×64: energy at {depth} / plain", guided, plain, GUIDED
    yield from loss_cases(device)
    yield from challenger_cases(device)


def seconds(run, device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def megabytes(run, device) -> float:
    """The most memory that a run holds at once, beyond what was held before it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # so that the child does not reuse what earlier runs have freed
    pipe = os.pipe()
    if os.fork() == 0:  # a process of its own has a peak of its own
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        os.write(pipe[1], f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}".encode())
        os._exit(0)
    os.wait()
    os.close(pipe[1])
    with os.fdopen(pipe[0]) as answer:
        return int(answer.read()) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    rows = []
    for name, top, bottom, *bound in cases(device):
        for warm in (top, bottom):
            warm()
        pairs = [(seconds(top, device), seconds(bottom, device)) for _ in range(options.repetitions)]
        ratios = sorted(a / b for a, b in pairs)
        row = {
            "case": name,
            "ratio": round(statistics.median(ratios), 3),
            "bound": round(bound[0], 3) if bound else None,
            "lowest": round(ratios[0], 3),
            "highest": round(ratios[-1], 3),
            "milliseconds": round(1000 * statistics.median(a for a, _ in pairs), 2),
            "megabytes": [round(megabytes(run, device), 1) for run in (top, bottom)],
        }
        rows.append(row)
        least = f"≥ {bound[0]:.2f}" if bound else ""
        print(
            "{ratio:6.2f}  [{lowest:.2f}, {highest:.2f}]  {0:6}  {milliseconds:8.1f} ms  ".format(least, **row), end=""
        )
        print("{:6.0f} / {:.0f} MB  ".format(*row["megabytes"]), name)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    write_json(results_root() / "bench.json", {"cases": rows, "environment": environment(device) | machine})
    print(f"record: {results_root() / 'bench.json'}")


if __name__ == "__main__":
    main()
