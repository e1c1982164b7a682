# ---
# jupyter:
#   jupytext:
#     formats: notebooks///ipynb,notebooks///py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model, your own images
#
# **The question.** You have a network, and images on which somebody has marked what matters: boxes, or the objects' pixels. Does your
# network look there? And if not, can it be taught to, and what does that cost?
#
# **What you will see.** Your network's maps; five ways of training on them, each from the same start; and a report of before and
# after: does it still classify, how much of its relevance lies on the objects, and the maps side by side.
#
# **How.** With parameters alone, nothing here need be edited:
#
# ```
# papermill notebooks/own_model.ipynb out.ipynb -p data photos -p annotations coco \
#     -p model my_package.my_module:make -p weights trained.pt -p epochs 0 \
#     -p image_size 224 -p layer layer4 -p losses "energy 0.1, isnet 0.5"
# ```
#
# `model` is a function that returns your `nn.Module`, (N, 3, H, W) in [0, 1] → logits; it is given `classes` and `channels` if it has parameters
# of these names. (Put your normalisation inside the model.) It may be any network of images: a CNN, or a vision transformer, with `attribution=AttnLRP`; one of sentences, tables or several inputs goes to [own_inputs](own_inputs.ipynb). Without a colon it is a name such as `cnn-norm` or `resnet18`, new and untrained.
# A `layer` whose name is a number is given by `-r layer 14`, as papermill's `-p` makes it a number.
#
# | `annotations` | what lies in the folder `data` |
# |---|---|
# | `coco` | `images/` and `annotations.json` with COCO's images, annotations and categories; or COCO's own layout, `annotations/instances_train2017.json` with `train2017/` (and `val2017`); or Roboflow's, `train/` and `valid/` with `_annotations.coco.json` beside the images |
# | `voc` | `images/` and `annotations/` with an XML file for each image, of its name; or `JPEGImages/` and `Annotations/`; or XML files beside the images in `train/` and `valid/` |
# | `masks` | `images/CLASS/` and `masks/CLASS/` with a PNG for each image, of its name: 0 is background |
#
# An image's labels are its objects' categories, or with `labels="folders"` the sub-folder of `images/` that it lies in. If there are folders
# `train`, `val` (or `valid`) and `test`, each of that form, the division is theirs; of train and one more, that one is the test, and some of train sets the thresholds. With `data=""` a small folder is written first, of digits on
# cluttered scenes, so that you can see the whole way.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
data: str = ""  # folder of the images, see above; "" for generated ones
annotations: str = "coco"  # coco, voc or masks
labels: str = ""  # annotations (objects' categories) or folders (an image's sub-folder); "" is folders for masks only
classes: str = ""  # names in the order of the model's outputs, with commas; "" for all there are
image_size: int = 32  # edge to which images are squashed [image_size ≥ 8]
val: float = 0.2  # share of the images that sets thresholds, unless there are folders [0 < val < 1]
test: float = 0.3  # share of the images that is for the report, unless there are folders [0 < test < 1 - val]
model: str = "cnn-norm"  # package.module:function, path.py:function, or cnn, cnn-norm, resnet18 … (untrained)
weights: str = ""  # file with the model's state dict; "" for those that it comes with
epochs: int = 15  # passes over the training images before all else; 0 for a model that is trained [epochs ≥ 0]
guided_epochs: int = 3  # further passes, with each loss and (the control) without [guided_epochs ≥ 1]
losses: str = "energy 3, l1 10, ppce 0.3, rrr 0.3, isnet 0.7"  # each with its λ; isnet with its P, 0 to 1
guide_by: str = "boxes"  # where relevance may lie: boxes, or pixels (the objects' outlines)
attribution: str = "IxG"  # the map: IxG (input × gradient), LRP, AttnLRP (transformers), DeepLIFT, GradCAM or BCos
layer: str = ""  # the module where the map is read, as layer4; "" for the input
epsilon: float = 1.0e-2  # LRP's ε, also that of isnet [epsilon ≥ 0]
batch_size: int = 16  # images a step [batch_size ≥ 1]
lr: float = 5.0e-3  # Adam's learning rate in the first passes [lr > 0]
guided_lr: float = 2.0e-3  # and in the further ones [guided_lr > 0]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds; intervals are over images with one, over seeds with more
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/own_model
# %%
from studies.early import check_early

check_early(data, annotations, model, weights, guide_by, attribution, layer, losses)  # before what is slow to import

# %%
from studies.own_model import check_layer, check_logits, check_map, load_model, model_checksums

if layer:
    check_layer(load_model(model, max(2, len(classes.split(",")))), layer)  # before any image is read

# %% [markdown]
# What you named is there and fits together. The rest takes a few seconds to import.

# %%
import tempfile
from functools import partial

import pandas as pd
import torch

import attrain as at
from attrain import explain
from attrain.metrics.classification import micro_f1, patient_draws
from attrain.training import fit_copy, plain_step, ranged_isnet_step
from attrain.training.boxes import as_images, guided_step, guided_threshold, map_values, mask_of
from data_prep import example_folder, folder
from studies.accuracy import lowest_recall
from studies.pictures import charts
from studies.statistics import estimate, number
from studies.study import Study, check_known, listed, progress

study = Study("own_model", globals())

# %% [markdown]
# ## The images, and what is marked on them
#
# The second row lights up what is marked: relevance belongs there. Is it where *you* would look?

# %%
options = dict(size=image_size, labels=labels, classes=listed(classes), val=val, test=test)
with tempfile.TemporaryDirectory() as scratch:
    place = data or example_folder.write_example(scratch, annotations, n=400, size=image_size)
    images, names, left_out = folder.load(place, annotations, **options)
    study.data(f"folder ({annotations})", folder.checksums(place, annotations))
study.data("model", model_checksums(model, weights))
area = "boxes" if guide_by == "boxes" else "objects"
parts = {
    split: [images[f"{split}_{key}"].to(study.device) for key in ("x", "y", area, "classes")] for split in folder.SPLITS
}
single = all(bool((y.sum(1) == 1).all()) for _, y, _, _ in parts.values())  # one class an image: softmax, accuracy
marked = {split: mask_of(a, c >= 0, x.shape[-2:]) for split, (x, _, a, c) in parts.items()}
if not marked["train"].any():
    raise ValueError(
        f"with annotations={annotations!r} and guide_by={guide_by!r} no training image has anything marked"
    )

# %%
x, y, areas, kinds = parts["test"]
shown = marked["test"].flatten(1).any(1).nonzero()[:8, 0]
targets = kinds[shown, 0]  # the class of the first object
own = mask_of(areas[shown], kinds[shown] == targets[:, None], x.shape[-2:]).cpu()
pictures = as_images(x[shown]).cpu()
titles = [names[t] for t in targets.tolist()]
rows = {"image": pictures, guide_by: pictures * (0.25 + 0.75 * own[:, None].float())}
caption = "What is marked is bright in the lower row. Are these the objects that the network should look at?"
study.figure(
    charts.image_rows(rows, titles), "images", caption, "Test images, and the same with what is not marked darkened"
)

# %% tags=["nbval-check-output"]
print(
    "images:",
    ", ".join(f"{len(own_x)} {split}" for split, (own_x, *_) in parts.items()),
    f"({left_out} left out, as nothing names their class)",
)
print(f"{len(names)} classes ({', '.join(names[:10])}),", "one" if single else f"{y.sum(1).mean():.2f}", "an image")
print(
    f"{marked['train'].flatten(1).any(1).float().mean():.0%} of the training images are marked, on {marked['train'].float().mean():.0%} of all pixels"
)

# %% [markdown]
# ## The model, and a map of it
#
# Nothing in the model is wrapped, hooked or rewritten. What it computes without a rule for it is an error that names the operation.

# %% tags=["nbval-check-output"]
METHODS = {
    "IxG": at.InputXGradient,
    "LRP": partial(at.LRP, epsilon),
    "AttnLRP": at.AttnLRP,
    "DeepLIFT": at.DeepLift,
    "GradCAM": partial(at.GradCAM, layer),
    "BCos": at.BCos,
}
how = dict(method=METHODS[attribution](), layer=layer)
RELEVANCE = at.AttnLRP() if attribution == "AttnLRP" else at.LRP(epsilon)  # that isnet trains on
brought = load_model(model, len(names), x.shape[1], weights).to(study.device).eval()
check_logits(brought, as_images(x[:2]), len(names))
found = explain(brought, as_images(x[:2]), method=how["method"], layers=[layer] if layer else [])
print(f"{model}: {sum(p.numel() for p in brought.parameters()):,} parameters, logits {tuple(found.logits.shape)}")
if any(loss.split()[0] == "isnet" for loss in listed(losses)):
    explain(brought, as_images(x[:2]), method=RELEVANCE)  # what it refuses it says now, and not after the first passes
heatmap = found.layers[layer] if layer else found.heatmap
print(f"{attribution}: map {tuple(heatmap.shape)}", check_map(heatmap, layer, image_size))

# %% [markdown]
# ## Five ways to train on a map
#
# $A$ is the map of a class of the image, $A^+=\max(A,0)$ its positive part, $M$ what is marked of that class.
#
# | loss | what is added to the classification loss | asks that |
# |---|---|---|
# | energy | $\lambda\,(1-\sum A^+M \,/\, \sum A^+)$ | positive relevance lies in the marks, anywhere in them |
# | l1 | $\lambda\cdot$ mean $\lvert A^+/\max A^+ - M\rvert$ | it fills them, and nothing else |
# | ppce | $-\lambda\cdot$ mean over the marks of $\ln (A^+/\max A^+)$ | it fills them |
# | rrr | $\lambda\sum (1-M)\,(A/\max\lvert A\rvert)^2$ | nothing lies outside |
# | isnet | $(1-P)\cdot$ classification $+\,P\,(L_\mathrm{bg}+L_\mathrm{fg})$ of the LRP-ε map (with `attribution=AttnLRP` of that), $M$ of all classes | the background's relevance is small beside the foreground's, whose amount stays in its range |
#
# The energy loss is a good start; a λ too large shows in the report as lost accuracy. *No guidance* is the control: as many further
# passes without any. What all of them, this one too, do better than *before* comes from longer training, not from a loss.

# %%
LOSSES = {"energy": at.energy_loss, "l1": at.l1_loss, "ppce": at.ppce_loss, "rrr": at.rrr_loss, "isnet": None}
weight_of = {name: float(weight) for name, weight in map(str.split, listed(losses))}
check_known("losses", weight_of, LOSSES)
train_x, train_y, train_area, train_kinds = parts["train"]
truth = train_y.argmax(1) if single else train_y
known = marked["train"].flatten(1).any(1)[:, None, None]


def guidance(loss, plain, seed):
    """The training step of a loss, and the tensors that it takes."""
    draws = torch.Generator().manual_seed(seed)
    if loss == "isnet":  # an image without marks has no background: all of it may be relevant
        target = at.selective_target(1e-7) if single else at.stochastic_target(draws)
        some = map(as_images, train_x[:500].split(50))
        step = ranged_isnet_step(plain, some, target=target, method=RELEVANCE, P=weight_of[loss])
        return step, (train_x, truth, marked["train"] | ~known)
    settings = dict(loss=LOSSES[loss], weight=weight_of[loss], reduction="mean", generator=draws)
    return partial(guided_step, **settings, **how), (train_x, truth, train_area, train_kinds)


# %%
def trained(net, step, tensors, seed, epochs, lr):
    """A copy of a network after more training; all copies of a seed see the images in one order."""

    def on_images(net, x, *rest):
        return step(net, as_images(x), *rest)

    settings = dict(epochs=epochs, batch_size=batch_size, lr=lr, clip=1.0, on_epoch=bar.update)
    return fit_copy(net, tensors, on_images, seed=seed, **settings)


# %% [markdown]
# Each loss starts from a copy of the network as brought (or trained first). Measured are test images; the threshold of IoU comes from
# validation images.


# %%
def measure(net):
    """Every test image's values, and the maps of those shown."""
    threshold = guided_threshold(net, *parts["val"], **how)
    values = map_values(net, *parts["test"], threshold=threshold, **how)
    if single:
        logits = torch.cat([net(as_images(part)).detach() for part in x.split(64)])
        values["accuracy"] = (logits.argmax(1) == y.argmax(1)).double()
        values["decisions"] = torch.nn.functional.one_hot(logits.argmax(1), len(names))
    found = explain(net, as_images(x[shown]), targets, how["method"], layers=[layer] if layer else [])
    return values | {"map": (found.layers[layer] if layer else found.heatmap).sum(1)}


# %%
score = "accuracy" if single else "F1"
OVER_DECISIONS = {"F1": micro_f1, "lowest recall": lowest_recall}  # of all images at once
KEYS = (score, "EPG", "IoU", "background share", "lowest recall")


def per_image(values, key):
    """One number for each image; that of a map is the mean over the image's classes that are marked."""
    if key == "accuracy":
        return values[key].numpy()
    return pd.Series(values[key].numpy()).groupby(values["image"].numpy()).mean().dropna().to_numpy()


def mean(values, key):
    if key in OVER_DECISIONS:
        return OVER_DECISIONS[key](values["decisions"], y.cpu()).item()
    return per_image(values, key).mean().item()


# %% [markdown]
# Each seed trains all networks, in the same order of images.


# %%
def run(seed):
    """Train and measure with this seed: what is returned here is kept, so that a run can resume."""
    torch.manual_seed(seed)
    net = load_model(model, len(names), x.shape[1], weights).to(study.device).eval()
    if epochs:
        net = trained(net, plain_step, (train_x, truth), seed, epochs, lr)
    nets = {"before": net, "no guidance": trained(net, plain_step, (train_x, truth), seed, guided_epochs, guided_lr)}
    for loss in weight_of:
        nets[loss] = trained(net, *guidance(loss, net, seed), seed, guided_epochs, guided_lr)
    values = {name: {key: v.cpu() for key, v in measure(net).items()} for name, net in nets.items()}
    return {"values": values, "metrics": {f"{n}.{key}": mean(v, key) for n, v in values.items() for key in KEYS}}


# %%
with progress(seeds * (epochs + guided_epochs * (1 + len(weight_of))), "passes") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## The report
#
# - **accuracy** (one class an image) or **F1** (several; over all decisions): does it still know its classes?
# - For each class of an image that is marked there, its map is made, whether or not the network finds the class.
# - **EPG**: the share of positive relevance inside the marks of the class. A map that is negative everywhere, all blue below, has none and counts as 0. **IoU**: how well the large values cover them, at a threshold chosen
#   on the validation images.
# - **background share**: the share of all relevance, for or against, outside the marks; so an all-blue map on the object has an EPG of 0, and a low
#   background share.
# - **lowest recall**: of the class that is found least often, the share of its images in which it is found. Over all classes a network may
#   do better by giving up a rare one. It has no interval with one seed.


# %%
def measured(name, key):
    """Mean and interval: over seeds, or with one over test images."""
    if seeds > 1:
        return estimate([r["metrics"][f"{name}.{key}"] for r in results])
    values = results[0]["values"][name]
    if key == "F1":
        draws = micro_f1(values["decisions"], y.cpu(), patient_draws(torch.arange(len(y))))
        return estimate([mean(values, key)], draws)
    if key in OVER_DECISIONS:
        return estimate([mean(values, key)])
    return estimate([per_image(values, key)])


# %%
models = ["before", "no guidance", *weight_of]
report = {name: {key: measured(name, key) for key in KEYS} for name in models}


def cell(e):
    return number(e["mean"]) + (f" [{number(e['low'])}, {number(e['high'])}]" if e["low"] is not None else "")


table = pd.DataFrame({name: {key: cell(e) for key, e in row.items()} for name, row in report.items()}).T
table.style.set_caption(f"Test images, 95 % intervals: {report['before']['EPG']['interval']}")

# %% [markdown]
# The two that matter most, as a picture:

# %%
figure = charts.interval_panels({m: {k: report[m][k] for k in KEYS[:2]} for m in models})
caption = "Left: does the network still know its classes? Right: is more of its relevance in the marks than with *no guidance*?"
study.figure(
    figure, "report", caption, f"{score} and EPG on test images, a panel each, before and after training on maps"
)

# %% [markdown]
# The same images before and after, for the class above each column. Red speaks for it, blue against; the grey line is what is marked.

# %%
maps = {name: results[0]["values"][name]["map"] for name in models}
figure = charts.map_rows(pictures, maps, titles, masks=own)
caption = "Red within the outline is where guidance wants it. Compare each row with *no guidance*."
study.figure(figure, "maps", caption, "Test images and, below, one row of maps for each network")

# %% tags=["nbval-check-output"]
base = report["no guidance"]
most = max(weight_of, key=lambda loss: report[loss]["EPG"]["mean"])
inside = report[most]["EPG"]["mean"]
more, much = inside > base["EPG"]["mean"] + 0.01, inside > 0.5
print(f"of the losses, {most} brings the largest share of positive relevance into the marks:")
print("more" if more else "no more", "than without guidance,", "and most of it" if much else "and less than half of it")
for loss in weight_of:
    falls = report[loss][score]["mean"] < base[score]["mean"] - 0.1
    print(f"{loss}: {score} {'falls by more than 0.1' if falls else 'falls by 0.1 at most'}")

# %% [markdown]
# ## What to try next
#
# - A map that stays inside the marks is no proof that the background does not matter. Test it: show the network its objects on other backgrounds, see
#   [isnet/mnist_background_bias](isnet/mnist_background_bias.ipynb).
# - `layer`: maps at a late layer are coarse, easy to guide and cheap; those at the input say which pixels. `attribution="GradCAM"` needs one.
# - `losses="energy 0.1, energy 1"` is one name twice: run the notebook twice for two λ, with two folders `out`.
# - The record, the figures and this table lie in the folder `out`; `make report` puts them on a page with all other runs.

# %%
study.finish(results)
