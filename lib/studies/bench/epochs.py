"""One epoch of each study that trains on maps, for one plain epoch: steps, optimiser, batches, all of it.

Networks, data and settings are those of the study's notebook at smoke scale; each epoch starts from the same weights.
The bounds are those of the steps, see `studies.bench.cases`: the optimiser, the batches and Python, which both sides
pay, can take the epochs of small networks below them, and rules and losses take them above.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attrain import LRP, ZB, BCos, InputXGradient, energy_loss, selective_target, stochastic_target
from attrain.challenger import Challenger
from attrain.training import fit, plain_step, ranged_isnet_step
from attrain.training.boxes import as_images, guided_step
from data_prep import curved_plane, dataset, waves
from data_prep.marks import add_mark, foreground_mask
from data_prep.textures import paste
from studies.bench.cases import CHALLENGED
from studies.bench.measure import Case, Run
from studies.nets.resnets import guided_resnet
from studies.nets.small import Mirrored, SeriesCNN, TextCNN, classifier
from studies.parameters import declared
from studies.search import balanced_subset
from studies.study import listed

# A network, its data, the step on maps, the plain one, and how `fit` is to run it.
Parts = tuple[nn.Module, tuple[Tensor, ...], Callable, Callable, dict]


def epoch_cases(device: torch.device) -> Iterator[Case]:
    for study, (parts, bound) in STUDIES.items():
        yield Case(f"epoch, {study} at smoke scale: {parts.__doc__} / plain", partial(epochs, study, device), bound)


def epochs(study: str, device: torch.device) -> list[Run]:
    """An epoch on maps and a plain one, each of a copy of one network."""
    p = SimpleNamespace(**{name: about["default"] for name, about in declared(study).items()})
    torch.manual_seed(p.seed)
    net, data, guided, plain, settings = STUDIES[study][0](p)
    net, data = net.to(device), [tensor.to(device) for tensor in data]
    settings = dict(epochs=1, batch_size=p.batch_size, lr=p.lr) | settings
    if callable(guided) and getattr(guided, "__name__", "") == "with_range":
        guided = guided(net, data)

    def run(step):
        fit(copy.deepcopy(net), data, step, generator=torch.Generator().manual_seed(p.seed), **settings)

    return [partial(run, step) for step in (guided, plain)]


# ---------------------------------------------------------------- Faster ISNet


def isnet(p, target) -> Callable:
    """An ISNet's step, whose C1 and C2 come from the maps of the network before the epoch."""

    def with_range(net, data):
        lrp = LRP(epsilon=p.epsilon, first_layer=ZB())
        images = data[0][: getattr(p, "range_images", None)].split(250)
        return ranged_isnet_step(net, images, target=target, method=lrp, P=p.P, decay=p.decay)

    return with_range


def mnist_background_bias(p) -> Parts:
    """Selective ISNet"""
    source = dataset(p.dataset).load()
    images, labels = source["train_x"], source["train_y"]
    data = add_mark(images, labels, p.mark_size, p.mark_strength), labels, foreground_mask(images)
    net = classifier(p.model, channels=images.shape[1])
    return net, data, isnet(p, selective_target(p.selective_eps)), plain_step, dict(clip=1.0)


def covid_xray(p) -> Parts:
    """Stochastic ISNet"""
    source = dataset(p.dataset).load(size=p.size)
    data = [source[key][source["split"] == 0] for key in ("x", "y", "mask")]
    net = classifier(p.model, 3, data[0].shape[1], p.width)
    return net, data, isnet(p, stochastic_target()), plain_step, dict(clip=1.0)


def natural_images(p) -> Parts:
    """Selective ISNet"""
    source = dataset(p.dataset).load()
    labels = source["train_y"][: p.n_train]
    striped, masks = paste(source["train_x"][: p.n_train], labels, p.canvas, seed=0)
    net = classifier(p.model, 10, striped.shape[1], p.width)
    return net, (striped, labels, masks), isnet(p, selective_target(p.selective_eps)), plain_step, dict(clip=1.0)


# ---------------------------------------------------------------- Using Explanations to Guide Models


def guidance(p) -> Parts:
    """energy loss of B-cos maps at the input"""
    sizes = dict(classes=p.n_classes, train=p.n_train, val=p.n_val, test=p.n_test)
    scene = dict(source=p.objects, canvas=p.image_size, edge=p.object_size, cooccurrence=p.cooccurrence)
    source = dataset(p.dataset).load(**scene, **sizes)
    data = [source[f"train_{key}"] for key in ("x", "y", "boxes", "classes")]
    net = guided_resnet("bcos", p.size, classes=p.n_classes, channels=data[0].shape[1], width=p.width)
    weight = float(listed(p.losses)[0].split()[1])
    step = partial(guided_step, weight=weight, method=BCos(), layer="")
    return net, data, step, partial(guided_step, weight=0.0), dict(lr=p.guided_lr)


def limited_boxes(p) -> Parts:
    """energy loss of B-cos maps, boxes on a tenth of the images"""
    net, (x, y, boxes, classes), *rest = guidance(p)
    few = torch.randperm(len(x), generator=torch.Generator().manual_seed(p.seed))
    few = few[: max(1, round(float(listed(p.fractions)[0]) * len(x)))]
    kept = torch.zeros(len(x), dtype=torch.bool).index_fill(0, few, True)
    return net, (x, y, boxes.masked_fill(~kept[:, None, None], -1), classes.masked_fill(~kept[:, None], -1)), *rest


def distribution_shift(p) -> Parts:
    """energy loss at the last convolution"""
    sizes = dict(train=p.n_train, val=p.n_val, test=p.n_test, canvas=p.canvas, contrast=p.contrast)
    source = dataset(p.dataset).load(**sizes, source=p.source)
    labels, boxes = source["train_y"], source["train_boxes"]
    classes = torch.where((boxes == -1).all(-1), -1, labels[:, None])
    data = as_images(source["train_x"]), F.one_hot(labels, 2).float(), boxes, classes
    net = nn.Sequential(classifier(p.network, 1, data[0].shape[1], p.width), Mirrored())
    weight = float(listed(p.guidance)[0].split()[1])
    how = dict(loss=energy_loss, weight=weight, reduction="mean", method=InputXGradient(), layer=f"0.{p.layer}")
    return net, data, partial(guided_step, **how), plain_step, dict(clip=1.0)


# ---------------------------------------------------------------- Challenger


def few(p, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The samples that the study trains on, the largest of its sizes."""
    chosen, _ = balanced_subset(y, n, torch.Generator().manual_seed(p.seed))
    return x[chosen], y[chosen]


def few_samples_vision(p) -> Parts:
    """Challenger"""
    source = dataset(p.dataset).load(size=8)
    x, y = source["train_x"], source["train_y"]
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    net = classifier(p.model, int(y.max()) + 1, x.shape[1], p.width)
    return net, few(p, x, y, int(listed(p.sizes)[-1])), Challenger(start="rival"), plain_step, {}


def text(p) -> Parts:
    """Challenger, on embeddings"""
    module = dataset(p.dataset)
    source = module.load(length=p.length)
    net = TextCNN(len(module.words()), len(module.CLASSES), size=p.width, filters=p.width, dropout=0.0)
    step = Challenger(site="embedding", channel_dim=-1, per="position", start="contrast", top=0.2)
    data = few(p, source["train_x"], source["train_y"], int(listed(p.sizes)[-1]))
    return net, data, step, plain_step, {}


def time_series(p) -> Parts:
    """Challenger"""
    source = waves.load()
    net = SeriesCNN(int(source["train_y"].max()) + 1, 1, p.width, p.norm)
    data = few(p, source["train_x"], source["train_y"], int(listed(p.sizes)[-1]))
    return net, data, Challenger(start="rival"), plain_step, {}


def ambiguity(p) -> Parts:
    """Challenger"""
    source = curved_plane.load(None, 2000, p.seed, p.boundary, p.dim, p.frequency, p.surface, p.noise)
    layers = nn.Linear(p.dim, p.width), nn.ReLU(), nn.Linear(p.width, p.width), nn.ReLU(), nn.Linear(p.width, 2)
    data = few(p, source["x"], source["y"], int(listed(p.sizes)[-1]))
    return nn.Sequential(*layers), data, Challenger(), plain_step, {}


STUDIES = {
    "isnet/mnist_background_bias": (mnist_background_bias, 2.0),
    "isnet/covid_xray": (covid_xray, 2.0),
    "isnet/natural_images": (natural_images, 2.0),
    "energy/guidance": (guidance, 2.0),
    "energy/limited_boxes": (limited_boxes, 2.0),
    "energy/distribution_shift": (distribution_shift, 1.0),
    "challenger/few_samples_vision": (few_samples_vision, CHALLENGED),
    "challenger/text": (text, CHALLENGED),
    "challenger/time_series": (time_series, CHALLENGED),
    "challenger/ambiguity": (ambiguity, CHALLENGED),
}
