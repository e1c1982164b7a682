"""The library on a device that is not the CPU: the numbers of the CPU, and no tensor left behind there.

The device is `tests.pretended_device`, so no GPU is needed; see there what it refuses and what it cannot show.
A test for each public name goes through all that the name can be asked for.
"""

import copy
import threading
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves
from zennit.composites import EpsilonPlusFlat

import attrain as at
from attrain import explain, losses, masks, targets
from attrain.metrics import classification, localisation, randomised, relevance, stateful
from attrain.metrics.confidence import calibration, reliability
from attrain.metrics.filters import effective_rank, filter_similarity
from attrain.training import baselines, challenger, isnet, last_layer, loop, regularisers
from attrain.training.boxes import guided_evaluation, guided_step, guided_threshold
from data_prep.dna import MOTIFS, simulate
from studies import dna, search, study
from studies.bench import cost
from studies.nets import segmenters, small
from studies.nets.resnets import guided_resnet
from tests.pretended_device import NAME

pytestmark = pytest.mark.ci


@pytest.fixture(autouse=True)
def _as_in_a_study():
    """Deterministic algorithms as `Study` sets them on a GPU: where there are none, torch only warns."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def draws():
    return torch.Generator().manual_seed(0)


def same(run, cpu=False, rtol=1e-5, atol=1e-7):
    """run(device) makes the same numbers on both devices, in tensors of the device (or, with `cpu`, of the CPU)."""
    found = {}
    for device in ("cpu", NAME):
        torch.manual_seed(0)
        found[device] = [v for v in tree_leaves(run(torch.device(device))) if v is not None]
    assert found["cpu"]
    for a, b in zip(found["cpu"], found[NAME], strict=True):
        if isinstance(a, torch.Tensor):
            assert b.device.type == ("cpu" if cpu else NAME)
            torch.testing.assert_close(b.detach().cpu(), a.detach(), rtol=rtol, atol=atol, equal_nan=True)
        else:
            assert b == pytest.approx(a, rel=1e-5, nan_ok=True)


def every(cases: dict, check):
    """Check each case; an error says in which."""
    for name, case in cases.items():
        torch.manual_seed(0)
        try:
            check(case)
        except Exception as error:
            error.add_note(f"in the case {name!r}")
            raise


def images(device, n=4, channels=1, edge=8):
    return torch.rand(n, channels, edge, edge).to(device)


def labels(device, n=4, classes=3):
    return (torch.arange(n) % classes).to(device)


def foreground(device, n=4, edge=8):
    mask = torch.zeros(n, edge, edge)
    mask[:, 2:6, 1:5] = 1
    return mask.to(device)


def normed(device):
    return small.NormCNN(3, 1, 4).to(device)


def gradients(net):
    return [p.grad for p in net.parameters()]


# ---------------------------------------------------------------- the device itself


class TestPretendedDevice:
    x = torch.ones(2, 3, device=NAME)

    def test_computes_and_has_gradients_of_gradients(self):
        w = torch.full((3, 2), 2.0, device=NAME, requires_grad=True)
        (g,) = torch.autograd.grad(((self.x @ w) ** 2).sum(), w, create_graph=True)
        (h,) = torch.autograd.grad(g.sum(), w)
        assert g.tolist() == [[24.0, 24.0]] * 3 and h.tolist() == [[12.0, 12.0]] * 3 and h.device.type == NAME

    @pytest.mark.parametrize(
        "mix",
        [
            lambda x: x + torch.ones(2, 3),
            lambda x: torch.ones(2, 3) * x,
            lambda x: x @ torch.ones(3, 2),
            lambda x: torch.cat([x, torch.ones(1, 3)]),
            lambda x: x.gather(1, torch.zeros(2, 1, dtype=torch.long)),
            lambda x: torch.where(torch.ones(2, 3, dtype=torch.bool), x, 0.0),
            lambda x: torch.zeros(2, 3).add_(x),
            lambda x: torch.zeros(()).add_(x[0, 0]),
            lambda x: torch.ones(2)[torch.zeros(1, dtype=torch.long, device=NAME)],
            lambda x: F.linear(x, torch.ones(1, 3)),
            lambda x: F.conv1d(x[None], torch.ones(1, 2, 1)),
            lambda x: F.cross_entropy(x, torch.zeros(2, dtype=torch.long)),
            lambda x: nn.BatchNorm1d(3)(x),
        ],
    )
    def test_refuses_tensors_of_both_devices(self, mix):
        with pytest.raises(RuntimeError, match="same device"):
            mix(self.x)

    def test_takes_numbers_and_indices_of_the_cpu_where_cuda_does(self):
        assert (self.x * torch.tensor(2.0)).sum().item() == 12
        assert self.x[torch.tensor([0])].device.type == NAME
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([self.x[0, :1], torch.ones(())[None]])

    def test_refuses_numpy_and_what_calls_it(self):
        for call in (lambda: self.x.numpy(), lambda: __import__("numpy").asarray(self.x)):
            with pytest.raises(TypeError, match="copy the tensor to host"):
                call()
        assert self.x.cpu().numpy().sum() == 6

    @pytest.mark.parametrize(
        "draw",
        [
            lambda g: torch.rand(2, generator=g, device=NAME),
            lambda g: torch.randperm(2, generator=g, device=NAME),
            lambda g: torch.ones(1, 2, device=NAME).multinomial(1, generator=g),
            lambda g: torch.zeros(2, device=NAME).normal_(generator=g),
        ],
    )
    def test_refuses_a_generator_of_the_cpu(self, draw):
        with pytest.raises(RuntimeError, match="generator"):
            draw(draws())

    def test_refuses_what_cuda_cannot_do_the_same_twice(self):
        x = torch.ones(1, 1, 4, 4, device=NAME, requires_grad=True)
        pooled = F.adaptive_avg_pool2d(x, 2).sum()
        pooled.backward(retain_graph=True)
        torch.use_deterministic_algorithms(True)
        with pytest.raises(RuntimeError, match="deterministic"):
            pooled.backward()

    @pytest.mark.skipif(not torch.version.cuda, reason="torch without CUDA does not know CUDA's kernels")
    def test_refuses_operations_that_cuda_lacks(self):
        with pytest.raises(NotImplementedError, match="CUDA"):
            torch.ops.aten.quantized_max_pool1d(self.x[None], [1])

    def test_views_share_memory_and_change_with_their_base(self):
        base = torch.zeros(3, 4, device=NAME)
        view = base[1:, 1:3]
        view += 1
        assert (view.storage_offset(), view.stride(), base.sum().item()) == (5, (4, 1), 4)

    def test_backward_passes_run_in_a_thread_of_the_device(self):
        seen = []
        x = self.x.clone().requires_grad_()
        x.register_hook(lambda g: seen.append(threading.get_ident()))
        x.sum().backward()
        assert seen != [threading.get_ident()]

    def test_batch_norm_of_halves_has_float32_statistics(self):
        x = torch.rand(4, 3, 2, 2, device=NAME).bfloat16()
        weight = torch.ones(3, device=NAME).bfloat16()
        kinds = [t.dtype for t in torch.native_batch_norm(x, weight, weight, None, None, True, 0.1, 1e-5)]
        assert kinds == [torch.bfloat16, torch.float32, torch.float32]


# ---------------------------------------------------------------- explain

IN_TRAINING = {
    "Gradient": {"": at.Gradient()},
    "InputXGradient": {
        "": at.InputXGradient(),
        "statistics' gradient": at.InputXGradient(batch_statistics=True),
        "reference": at.InputXGradient(torch.rand(3, 1, 1, 8, 8)),
    },
    "GuidedBackprop": {"": at.GuidedBackprop(0.5)},
    "LRP": {"": at.LRP()},
    "ZB": {"LRP": at.LRP(first_layer=at.ZB()), "z+": at.ZPlus(first_layer=at.ZB())},
    "GradCAM": {"": at.GradCAM("3")},
    "ZPlus": {"": at.ZPlus()},
    "Dual": {"": at.Dual(first_layer=at.ZB())},
    "Zennit": {"": at.Zennit(EpsilonPlusFlat())},
}
IN_EVALUATION = {
    "IntegratedGradients": {"": at.IntegratedGradients(torch.rand(2, 1, 1, 8, 8), steps=2)},
    "DeepLift": {
        "": at.DeepLift(),
        "several": at.DeepLift(torch.rand(3, 1, 1, 8, 8)),
        "several a sample": at.DeepLift(torch.rand(2, 4, 1, 8, 8)),
        "RevealCancel": at.DeepLift(torch.rand(1, 1, 8, 8), "reveal_cancel"),
        "RevealCancel, several": at.DeepLift(torch.rand(2, 1, 1, 8, 8), "reveal_cancel"),
        "genomics": at.DeepLift(rule="genomics"),
        "hypothetical": at.DeepLift(hypothetical=True),
    },
    "AttnLRP": {"": at.AttnLRP()},
    "SmoothGrad": {"": at.SmoothGrad(at.InputXGradient(), samples=2)},
    "Occlusion": {"": at.Occlusion(4)},
}
METHODS = IN_TRAINING | IN_EVALUATION


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_maps_and_their_gradients(name, create_graph):
    def check(method):
        def run(device):
            net = normed(device).train(name in IN_TRAINING)
            layers = () if isinstance(method, (at.IntegratedGradients, at.GradCAM, at.Occlusion)) else ("2", "3")
            target = None if isinstance(method, at.Dual) else labels(device)
            found = explain(net, images(device), target, method, layers=layers, create_graph=create_graph)
            if not create_graph:
                return found
            (found.logits.square().mean() + found.heatmap.square().mean()).backward()
            return found, gradients(net)

        same(run, rtol=1e-4, atol=1e-6)

    every(METHODS[name], check)


DIFFERENCES = {
    "gradient × input": at.InputXGradient(),
    "DeepLIFT": at.DeepLift(),
    "DeepLIFT, several": at.DeepLift(torch.rand(2, 1, 1, 8, 8)),
}
TARGETS = {
    "predicted": lambda device: None,
    "a class": lambda device: 1,
    "classes": labels,
    "classes on the CPU": lambda device: labels("cpu"),
    "several": lambda device: torch.tensor([[0, 2]] * 4, device=device),
    "all": lambda device: "all",
    "selective": lambda device: targets.selective_target(),
    "stochastic": lambda device: targets.stochastic_target(draws()),
    "mean-normalised": lambda device: targets.mean_normalised_target(labels(device)),
    "softmax": lambda device: targets.softmax_target(),
    "contrast": lambda device: challenger.contrast_target(labels(device)),
    "rival": lambda device: challenger.rival_target(labels(device), draws()),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_targets(target):
    def check(method):
        same(lambda device: explain(small.SmallCNN(3, 1, 4).to(device), images(device), target(device), method))

    every(DIFFERENCES, check)


@pytest.mark.parametrize("reference", [0.5, torch.rand(4, 1, 8, 8), torch.rand(2, 1, 1, 8, 8)], ids=["0.5", "N", "R"])
def test_chunks_go_to_the_models_device_and_come_back(reference):
    def run(device):
        net, x, out = small.SmallCNN(3, 1, 4).to(device), images("cpu"), torch.empty(4, 1, 8, 8)
        found = explain(net, x, labels("cpu"), at.DeepLift(reference), layers=["3"], chunk_size=3, out=out)
        return found, explain(net, x, "all", at.DeepLift(reference), chunk_size=3)

    same(run, cpu=True)


def test_without_chunks_images_must_be_where_the_model_is():
    with pytest.raises(RuntimeError, match="should be the same"):
        explain(small.SmallCNN(3, 1, 4).to(NAME), images("cpu"))


ATTENTION = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
OTHER_NETWORKS = {
    "attention": lambda: nn.Sequential(nn.Flatten(1, 2), copy.deepcopy(ATTENTION), nn.Flatten(), nn.Linear(64, 3)),
    "norms": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.InstanceNorm2d(4, affine=True), nn.AvgPool2d(2),
        nn.Softplus(), nn.Flatten(), nn.LayerNorm(36), nn.Linear(36, 3), nn.Softmax(1),
    ),
    "pools": lambda: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(inplace=True), nn.AdaptiveMaxPool2d(4), nn.ConvTranspose2d(4, 3, 2, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", OTHER_NETWORKS.values(), ids=OTHER_NETWORKS)
def test_other_operations(make):
    def check(method):
        same(lambda device: explain(make().to(device).eval(), images(device), 0, method), rtol=1e-4, atol=1e-6)

    every(DIFFERENCES, check)


def test_lrp_passes_an_enlargement_that_torch_takes_apart_to_be_deterministic():
    same(lambda device: explain(OTHER_NETWORKS["pools"]().to(device), images(device), 0, at.LRP()))


@pytest.mark.parametrize("kind, method", [("bcos", at.BCos()), ("xdnn", at.InputXGradient()), ("vanilla", at.LRP())])
def test_guided_networks(kind, method):
    def run(device):
        net = guided_resnet(kind, "small", 3, width=4).to(device).train()
        found = explain(net, images(device, channels=3), 0, method, layers=["input", "layer2"], create_graph=True)
        found.heatmap.square().sum().backward()
        return found, gradients(net), dict(net.named_buffers())

    same(run, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", [False, True])
def test_series_and_randomised_networks(norm):
    def run(device):
        net = small.SeriesCNN(3, 2, 4, norm).to(device).eval()
        return [explain(n, torch.rand(2, 2, 12).to(device), 0).heatmap for _, n in randomised(net)]

    same(run)


# ---------------------------------------------------------------- losses and steps


def guided_maps(device):
    return torch.randn(4, 2, 1, 8, 8).to(device)


LOSSES = {
    "isnet_background_loss": {
        "": losses.isnet_background_loss, "maximum": partial(losses.isnet_background_loss, decay=0)
    },
    "isnet_foreground_loss": {
        "hybrid": partial(losses.isnet_foreground_loss, C1=[1.0, 2.0], C2=[3.0, 4.0], form="hybrid")
    },
} | {
    name: {"": getattr(losses, name)}
    for name in "isnet_loss energy_loss l1_loss ppce_loss rrr_loss".split()
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    def check(case):
        loss, where = case

        def run(device):
            heatmap = guided_maps(device).requires_grad_()
            value = loss(heatmap, foreground(where or device))
            value.backward()
            return value, heatmap.grad

        same(run)

    every({(case, where): (loss, where) for case, loss in LOSSES[name].items() for where in (None, "cpu")}, check)


def test_maps_with_gaps_have_a_loss():
    def run(device):
        heatmap = guided_maps(device)
        heatmap[0, 0, 0, 0, 0], heatmap[1, 0, 0, 0, 0] = torch.nan, torch.inf
        return losses.isnet_loss(heatmap, foreground(device))

    same(run)


DUAL = partial(isnet.isnet_step, target="all", method=at.Dual(first_layer=at.ZB()), C1=[1, 1], C2=[9, 9])
LDS = partial(isnet.isnet_step, layers=["3", "7"], C1={"input": 1, "3": 1, "7": 1})
GXI = at.InputXGradient()


def drawn(step, **settings):
    """A step that draws, with a generator of its own at each call."""
    return lambda *batch: step(*batch, generator=draws(), **settings)


def challenged(**settings):
    return lambda *batch: challenger.Challenger(generator=draws(), **settings)(*batch)


DRAWN_STEPS = {
    "isnet_step": {"Stochastic": lambda *b: isnet.isnet_step(*b, target=targets.stochastic_target(draws()))},
    "background_replacement_step": {
        "other backgrounds": drawn(baselines.background_replacement_step),
        "noise": drawn(baselines.background_replacement_step, source="noise"),
    },
    "noise_step": {"": drawn(regularisers.noise_step)},
    "input_dropout_step": {"": drawn(regularisers.input_dropout_step)},
    "cutout_step": {"": drawn(regularisers.cutout_step)},
    "mixup_step": {
        "": drawn(regularisers.mixup_step), "manifold": drawn(regularisers.mixup_step, layer="3"),
    },
    "fgsm_step": {"": drawn(regularisers.fgsm_step)},
    "relevance_dropout_step": {
        "": drawn(regularisers.relevance_dropout_step, p=1.0),
        "blocks": drawn(regularisers.relevance_dropout_step, form="block", p=1.0, fill=0.5),
    },
    "Challenger": {
        "push": challenged(), "gate": challenged(mode="gate", attribution="gxi"),
        "erase": challenged(mode="erase", per="position"), "noise": challenged(mode="noise", control="permute"),
        "swap": challenged(mode="swap", control="random"),
        "at a layer": challenged(site="3", per="position", control="permute"),
        "rival": challenged(start="rival", p_batch=0.99), "contrast": challenged(start="contrast"),
    },
}  # fmt: skip
STEPS = DRAWN_STEPS | {
    "plain_step": {"": loop.plain_step},
    "isnet_step": DRAWN_STEPS["isnet_step"] | {
        "Selective": isnet.isnet_step, "original": partial(isnet.isnet_step, target="all"), "Dual": DUAL, "LDS": LDS,
        "gradient × input": partial(isnet.isnet_step, method=GXI, target="all"),
        "softmax": partial(isnet.isnet_step, method=GXI, target=targets.softmax_target()),
    },
    "rrr_step": {"": baselines.rrr_step},
    "gradcam_step": {"": partial(baselines.gradcam_step, layer="3")},
    "multitask_step": {"": baselines.multitask_step},
    "segmentation_step": {"": lambda net, x, y, m: loop.segmentation_step(net, x, m)},
    "label_smoothing_step": {"": regularisers.label_smoothing_step},
    "dropout_step": {"": partial(regularisers.dropout_step, layer="3")},
}  # fmt: skip
NETWORKS = {
    "multitask_step": lambda device: segmenters.MultiTaskUNet(3, 1, 4).to(device),
    "segmentation_step": lambda device: segmenters.UNet(1, 1, 4).to(device),
}


@pytest.mark.parametrize("name", STEPS)
def test_training_steps(name):
    def check(step):
        def run(device):
            net = NETWORKS.get(name, normed)(device).train()
            logits, loss, parts = step(net, images(device), labels(device), foreground(device))
            loss.backward()
            return logits, loss, parts, gradients(net), dict(net.named_buffers())

        same(run, rtol=1e-3, atol=1e-6)

    every(STEPS[name], check)


def test_steps_on_words():
    def run(device):
        torch.manual_seed(0)
        net, x = small.TextCNN(20, 3, 4, 4).to(device).train(), (torch.arange(24) % 19).view(4, 6).to(device)
        _, loss, _ = regularisers.word_dropout_step(net, x, labels(device), p=0.5, generator=draws())
        step = challenger.Challenger(
            site="embedding", channel_dim=-1, per="position", control="permute", generator=draws()
        )
        _, challenged, _ = step(net, x, labels(device))
        (loss + challenged).backward()
        return loss, challenged, gradients(net)

    same(run, rtol=1e-4, atol=1e-6)


BOXES = torch.tensor([[[1.0, 1, 6, 5], [2, 2, 8, 8]], [[0, 0, 3, 8], [-1, -1, -1, -1]]] * 2)
CLASSES = torch.tensor([[0, 1], [2, -1]] * 2)


def boxed(device):
    y = torch.tensor([[1.0, 1, 0], [0, 0, 1]] * 2)
    return [v.to(device) for v in (torch.rand(4, 3, 8, 8), y, BOXES, CLASSES)]


def objects(device):
    segments = torch.zeros(4, 8, 8, dtype=torch.uint8)
    segments[:, 2:5, 2:5], segments[::2, 5:, 5:] = 1, 2
    return segments.to(device)


@pytest.mark.parametrize("kind", ["boxes", "objects", "dilated", "Grad-CAM", "layer", "no weight"])
def test_guided_steps(kind):
    def run(device):
        net = guided_resnet("vanilla", "small", 3, width=4).to(device).train()
        x, y, boxes, classes = boxed(device)
        settings = {
            "dilated": dict(dilation=0.25),
            "Grad-CAM": dict(method=at.GradCAM("layer4"), loss=losses.l1_loss),
        }
        settings |= {"layer": dict(layer="layer2", loss=losses.ppce_loss), "no weight": dict(weight=0)}
        boxes = objects(device) if kind == "objects" else boxes
        step = partial(guided_step, generator=draws(), **settings.get(kind, {}))
        logits, loss, parts = step(net, x, y, boxes, classes)
        loss.backward()
        return logits, loss, parts, gradients(net)

    same(run, rtol=1e-3, atol=1e-5)


def test_guided_evaluation():
    def run(device):
        net = guided_resnet("bcos", "small", 3, width=4).to(device).eval()
        threshold = guided_threshold(net, *boxed(device), method=at.BCos(), batch_size=3)
        settings = dict(method=at.BCos(), threshold=threshold, batch_size=3)
        return threshold, guided_evaluation(net, *boxed(device), objects(device), **settings)

    same(run)


# ---------------------------------------------------------------- training and measuring


def seeded_data(device):
    torch.manual_seed(1)
    return images(device, 12), labels(device, 12), foreground(device, 12)


def test_fit_fresh_and_its_copies():
    def run(device):
        data = seeded_data(device)
        step = {0: loop.plain_step, 1: isnet.isnet_step}
        settings = dict(seed=0, epochs=2, batch_size=5)
        net, curves = loop.fit_fresh(lambda: small.NormCNN(3, 1, 4), data, step, clip=1.0, **settings)
        again = loop.fit_copy(net, data, loop.plain_step, optimizer="sgd", **settings)
        right = loop.correct(net, *data[:2], batch_size=5)
        return curves, again.state_dict(), right

    same(run, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("method, layers", [(at.LRP(first_layer=at.ZB()), ()), (at.Dual(), ()), (at.LRP(), ("3", "7"))])
def test_range_of_the_foreground(method, layers):
    def run(device):
        target = "all" if isinstance(method, at.Dual) else 0
        batches = images(device).split(3)
        return isnet.estimate_foreground_range(
            normed(device).eval(), batches, target=target, method=method, layers=layers
        )

    same(run)


def test_segmented_images_are_classified():
    def run(device):
        return segmenters.SegmentThenClassify(segmenters.UNet(1, 1, 4), small.SmallCNN(3, 1, 4)).to(device)(
            images(device)
        )

    same(run)


MEASURES = {
    "background_share": lambda d: relevance.background_share(guided_maps(d), foreground(d)),
    "completeness_error": lambda d: relevance.completeness_error(guided_maps(d), torch.ones(4, 2, device=d)),
    "log_odds": lambda d: relevance.log_odds(torch.rand(4, 3).to(d), labels(d)),
    "erase": lambda d: relevance.erase(images(d), images(d), 0.3, torch.rand(1, 1, 1, 1)),
    "deletion_curve": lambda d: relevance.deletion_curve(
        small.SmallCNN(3, 1, 4).to(d), images(d), images(d), labels(d), [0.1, 0.5]
    ),
    "pixels_erased_log_odds": lambda d: relevance.pixels_erased_log_odds(
        small.SmallCNN(3, 1, 4).to(d), images(d), guided_maps(d), torch.tensor([[0, 1]] * 4, device=d), 9, 0.5
    ),
    "epg": lambda d: localisation.epg(guided_maps(d), foreground(d), corrected=True),
    "on_object_epg": lambda d: localisation.on_object_epg(guided_maps(d), foreground(d), foreground(d)),
    "heatmap_iou": lambda d: localisation.heatmap_iou(guided_maps(d), foreground(d), threshold=0.1),
    "pareto_front": lambda d: localisation.pareto_front(torch.rand(5, 2).to(d)),
    "choose_threshold": lambda d: localisation.choose_threshold(guided_maps(d), foreground(d)),
    "calibration": lambda d: calibration(torch.rand(4, 3).to(d), labels(d)),
    "reliability": lambda d: reliability(torch.rand(4, 3).to(d), labels(d)),
    "filter_similarity": lambda d: filter_similarity(torch.rand(4, 1, 3, 3).to(d)),
    "effective_rank": lambda d: effective_rank(torch.rand(4, 1, 3, 3).to(d)),
    "balanced_accuracy": lambda d: classification.balanced_accuracy(
        torch.rand(4, 3).to(d), labels(d), classification.patient_draws(labels(d))
    ),
    "macro_f1": lambda d: classification.macro_f1(
        torch.rand(4, 3).to(d), labels(d), classification.patient_draws(labels(d))
    ),
    "macro_auc": lambda d: classification.macro_auc(
        torch.rand(4, 3).to(d), labels(d), classification.patient_draws(labels(d))
    ),
    "micro_f1": lambda d: classification.micro_f1(
        torch.randn(4, 3).to(d), boxed(d)[1], classification.patient_draws(labels(d), draws=5)
    ),
    "boxes_to_mask": lambda d: masks.boxes_to_mask(BOXES.to(d), (8, 8)),
    "dilate_boxes": lambda d: masks.dilate_boxes(BOXES.to(d), 0.1, (8, 8)),
    "gwrp": lambda d: losses.gwrp(torch.rand(4, 64).to(d), 0.9),
    "judge": lambda d: search.judge(normed(d).eval(), images(d), labels(d)),
    "few samples": lambda d: search.train(
        lambda: small.SmallCNN(3, 1, 4), images(d), labels(d), challenger.Challenger, {"mode": "swap"}, seed=0, steps=2
    ).state_dict(),
    "retrain_last_layer": lambda d: last_layer.retrain_last_layer(
        normed(d), images(d), labels(d), labels(d), batch_size=3
    ).state_dict(),
    "random_positive_target": lambda d: targets.random_positive_target(boxed(d)[1], draws()),
    "top_matches": lambda d: dna.top_matches(dna.scan(sequences(d), dna.log_odds_matrix(MOTIFS["TAL1_known1"])), 2),
    "dinucleotide_shuffle": lambda d: dna.dinucleotide_shuffle(sequences(d), 2, draws()),
    "window_sums": lambda d: dna.window_sums(torch.rand(4, 4, 20).to(d), torch.tensor([[0, 3]] * 4, device=d), 3),
    "hypothetical_contributions": lambda d: dna.hypothetical_contributions(
        small.SequenceCNN(2, 4, 5).to(d).eval(),
        sequences(d),
        0,
        at.DeepLift(torch.full((1, 4, 1), 0.25).expand(1, 4, 200), "genomics"),
    ),
}


def sequences(device):
    return simulate(4, 200, generator=draws())["x"].to(device)


@pytest.mark.parametrize("name", MEASURES)
def test_measures(name):
    same(MEASURES[name], rtol=1e-4, atol=1e-5)


CPU_MEASURES = {
    "rank correlation": lambda d: relevance.rank_correlation(images(d), images(d), foreground(d)[:, None] > 0),
    "balanced subset": lambda d: search.balanced_subset(labels(d, 9), 6, draws()),
}


@pytest.mark.parametrize("measure", CPU_MEASURES.values(), ids=CPU_MEASURES)
def test_measures_whose_results_are_on_the_cpu_as_documented(measure):
    same(measure, cpu=True)


def test_metrics_over_batches():
    def run(device):
        found = [stateful.EPG(corrected=True), stateful.HeatmapIoU(0.2)]
        for metric in found:
            metric.to(device).update(guided_maps(device), foreground(device))
        return [metric.compute() for metric in found]

    same(run)


def test_cost_is_measured():
    device = study.check_device(NAME)
    x = torch.ones(1000, device=device)
    assert cost.seconds(lambda: x + 1, device) > 0
    assert cost.peak_memory(lambda: x + 1, device) == 4000


# ---------------------------------------------------------------- torch's default device, recurrent layers, halves


@pytest.mark.parametrize("name", DRAWN_STEPS)
def test_draws_are_the_cpus_also_where_another_device_is_torchs_default(name):
    def check(step):
        def run(device):
            with torch.device(device):
                return step(normed(device), images(device), labels(device), foreground(device))

        same(run, rtol=1e-4, atol=1e-6)

    every(DRAWN_STEPS[name], check)


ON_ANY_DEFAULT = {
    name: MEASURES[name]
    for name in ("dinucleotide_shuffle", "random_positive_target", "balanced_accuracy", "few samples")
} | {
    name: lambda d, loss=loss: loss(guided_maps(d), foreground(d))
    for name in ("isnet_loss", "isnet_foreground_loss")
    for loss in LOSSES[name].values()
}


@pytest.mark.parametrize("name", ON_ANY_DEFAULT)
def test_so_are_those_of_measures_and_losses(name):
    def run(device):
        with torch.device(device):
            return ON_ANY_DEFAULT[name](device)

    same(run, rtol=1e-4, atol=1e-6)


class _Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.last = kind(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.layer(x[:, 0])[0][:, -1])


class _Watch(torch.overrides.TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.lstm, torch.gru, torch.rnn_tanh):
            self.seen.append(torch.backends.cudnn.enabled)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_do_without_cudnn_which_has_no_gradients_of_them_in_evaluation_mode(kind):
    def check(case):
        method, create_graph = case
        net, watch = _Recurrent(kind).eval(), _Watch()
        with watch:
            explain(net, images("cpu"), 0, method, create_graph=create_graph)
        assert watch.seen[-1] is False
        assert torch.backends.cudnn.enabled

    methods = (at.Gradient(), at.InputXGradient(), at.IntegratedGradients(steps=1))
    every({(str(method), graph): (method, graph) for method in methods for graph in (False, True)}, check)


def steady(device):
    """A network in which rounding does not grow: no batch norm over few values."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(32, 3),
    ).to(device)  # fmt: skip


def close_in_halves(found, expected):
    """The direction of maps or gradients within what 8 bits of precision leave of it, and their size."""
    a, b = found.detach().cpu().double().flatten(), expected.detach().cpu().double().flatten()
    assert (a - b).norm() <= 0.12 * b.norm()


WAYS = [(device, way) for device in ("cpu", NAME) for way in ("autocast", "weights")]


MANY_PASSES = ("IntegratedGradients", "SmoothGrad", "Occlusion")


@pytest.mark.parametrize("name", [name for name in METHODS if name not in MANY_PASSES])
def test_maps_in_bfloat16_are_those_in_float32_but_for_rounding(name):
    def check(case):
        method, device, way = case
        net, x = steady("cpu"), images("cpu")
        net.train(name in IN_TRAINING)
        target = None if isinstance(method, at.Dual) else labels("cpu")
        expected = explain(net, x, target, method).heatmap
        net, x = copy.deepcopy(net).to(device), x.to(device)
        if way == "weights":
            net, x = net.bfloat16(), x.bfloat16()
        with torch.autocast(device, torch.bfloat16, enabled=way == "autocast"):
            close_in_halves(explain(net, x, target, method).heatmap, expected)

    every({(case, *how): (method, *how) for case, method in METHODS[name].items() for how in WAYS}, check)


@pytest.mark.parametrize("case", ["Selective", "original", "Dual", "LDS", "gradient × input", "Challenger"])
def test_training_steps_in_bfloat16_are_those_in_float32_but_for_rounding(case):
    step = STEPS["Challenger"]["push"] if case == "Challenger" else STEPS["isnet_step"][case]

    def check(how):
        device, way = how
        net, batch = steady("cpu").train(), [images("cpu", 12), labels("cpu", 12), foreground("cpu", 12)]
        other = copy.deepcopy(net).to(device)
        _, expected, _ = step(net, *batch)
        expected.backward()
        batch = [v.to(device) for v in batch]
        if way == "weights":
            other, batch[0] = other.bfloat16(), batch[0].bfloat16()
        with torch.autocast(device, torch.bfloat16, enabled=way == "autocast"):
            _, loss, _ = step(other, *batch)
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=0.05)
        assert all(p.grad.isfinite().all() for p in other.parameters())
        expected, found = (
            torch.cat([p.grad.cpu().float().flatten() for p in model.parameters()]) for model in (net, other)
        )
        assert F.cosine_similarity(found, expected, dim=0) > 0.5  # kinks and ranks: 0.57 to 0.84

    every({how: how for how in WAYS}, check)


def test_in_silico_mutagenesis():
    def run(device):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv1d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).to(device)
        x = F.one_hot(torch.arange(8) % 4, 4).mT.float().repeat(2, 1, 1).to(device)
        return explain(net, x, 1, at.InSilicoMutagenesis())

    same(run, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("token_ids", [False, True])
def test_methods_are_compared(token_ids):
    """All but the times, which are no one's."""

    def run(device):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3)) if token_ids else steady("cpu")
        x = torch.arange(12).view(2, 6) % 9 if token_ids else images("cpu")
        methods = {"DeepLIFT": at.DeepLift(), "gradient": at.InputXGradient()}
        found = at.compare(net.eval().to(device), x.to(device), methods, layer="0" if token_ids else "")
        return [value for row in found.rows.values() for name, value in row.items() if name != "ms a map"]

    np.testing.assert_allclose(run(NAME), run("cpu"), rtol=1e-3, atol=1e-4)


def test_maps_are_shown():
    def pixels(device):
        torch.manual_seed(0)
        x, maps = images(device), images(device) - 0.5
        axes = at.show(x, {"a": maps}).axes
        return np.concatenate([np.ravel(image.get_array()) for axis in axes for image in axis.images])

    np.testing.assert_allclose(pixels(NAME), pixels("cpu"), rtol=1e-5)


# ---------------------------------------------------------------- all that is public

ELSEWHERE = {
    "explain", "Explanation", "selective_target", "stochastic_target", "mean_normalised_target", "softmax_target",
    "BCos", "EPG", "HeatmapIoU", "InSilicoMutagenesis", "compare", "show",
}  # fmt: skip
NO_TENSORS = {"Method", "UnsupportedOperation", "register_rule", "Comparison"}


def test_every_public_name_is_tried_on_the_device():
    tried = {*METHODS, *LOSSES, *MEASURES, *ELSEWHERE}
    assert set(at.__all__) - tried - NO_TENSORS == set()
