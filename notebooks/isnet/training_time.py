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
# # What does a training step on maps cost, and does it grow with the number of classes?
#
# **The question.** The original ISNet (Bassi, Dertkigil, Cavalli, Nature Communications 15:291, 2024) makes one map
# **a class** for every training image. What do the faster variants cost, with two classes or with a thousand?
#
# **The claim.** *Faster ISNet* (Bassi, Decherchi, Cavalli, IEEE Access 2024, [arXiv 2401.08409](https://arxiv.org/abs/2401.08409),
# abstract): the original's training time grows linearly with the number of classes, the new variants' does not.
#
# **What you will see.** Time and memory of one training step, on logarithmic axes: one line that climbs, the others flat.
# Times depend on your machine and on what else it does; their ratios much less, as all variants take turns.
#
# *Words*: a **map** gives each pixel its relevance for an explained number; *logits* are the network's outputs, one for each class; **LDS** (LRP
# deep supervision) uses the maps of hidden layers too; **z⁺** is the rule of LRP that only looks at positive weights.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
model: str = "resnet18"  # cnn, resnet18, resnet34 or resnet50
image_size: int = 32  # edge of the (random) images in pixels [image_size ≥ 16]
batch_size: int = 8  # images a step [batch_size ≥ 1]
classes: str = "10, 1000"  # numbers of classes, 10 and 1000 among them [classes ≥ 2]
original_classes: str = "2, 10, 20"  # numbers of classes for the original ISNet, 10 among them [original_classes ≥ 2]
lds_layers: str = "layer1, layer2, layer3, layer4"  # layers of LRP deep supervision; 2, 5 for the cnn
repeats: int = 2  # steps timed of each kind; the median counts [repeats ≥ 1]
autocast: bool = False  # run the network in bfloat16 where that is usual (the losses stay float32)
seed: int = 0  # first seed
seeds: int = 1  # number of repetitions of everything; intervals are over these
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run
out: str = ""  # folder of the results; "" for results/<scale>/isnet/training_time
# %%
from functools import partial
from statistics import median

import numpy as np
import pandas as pd
import torch

from attrain import LRP, ZB, Dual, explain, selective_target, stochastic_target
from attrain.training import isnet_step, plain_step
from studies.bench.cost import forward_passes, peak_memory, seconds
from studies.nets.small import classifier
from studies.pictures import charts
from studies.study import Study, listed, progress

study = Study("isnet/training_time", globals())

# %% [markdown]
# ## What is compared
#
# | variant | explains | maps an image |
# |---|---|--:|
# | plain | nothing: cross-entropy | 0 |
# | original | every logit | classes |
# | Selective | the log-odds of the least likely class | 1 |
# | Stochastic | one logit, drawn | 1 |
# | Dual | all logits together, by two rules | 2 |
# | Selective+LDS | as Selective, with maps at hidden layers too | 1 + layers |
#
# One step with a map needs a forward pass, a backward pass to the input that *is* the map, and the backward pass of both.
# So about twice a plain step is the least that it can cost.

# %%
lrp = LRP(first_layer=ZB())
explained = {
    "original": dict(target="all", method=lrp),
    "Selective": dict(target=selective_target(), method=lrp),
    "Stochastic": dict(target=stochastic_target(torch.Generator().manual_seed(seed)), method=lrp),
    "Dual": dict(target="all", method=Dual(first_layer=ZB())),
    "Selective+LDS": dict(target=selective_target(), method=lrp, layers=listed(lds_layers)),
}
variants = {"plain": plain_step} | {name: partial(isnet_step, **options) for name, options in explained.items()}
counts = {name: [int(k) for k in listed(original_classes if name == "original" else classes)] for name in variants}


# %% [markdown]
# Images and masks are random: only time and memory are looked at here. One step computes the loss and its gradients.


# %%
def training_step(name, count):
    """A network with that many classes, and a function that makes one training step of a variant."""
    net = classifier(model, count, channels=3).train().to(study.device)
    x, y = torch.rand(batch_size, 3, image_size, image_size), torch.randint(count, (batch_size,))
    mask = torch.zeros(batch_size, image_size, image_size)
    mask[:, image_size // 4 : -image_size // 4, image_size // 4 : -image_size // 4] = 1
    batch = [tensor.to(study.device) for tensor in (x, y, mask)]

    def step():
        net.zero_grad()
        with torch.autocast(study.device.type, torch.bfloat16, enabled=autocast):
            loss = variants[name](net, *batch)[1]
        loss.backward()

    return net, batch[0], step


# %% tags=["nbval-check-output"]
for name, options in explained.items():
    net, x, step = training_step(name, 10)
    found = explain(net.eval(), x, **options)
    maps = found.heatmap.shape[1] if found.heatmap.ndim == 5 else 1
    print(
        f"{name}, 10 classes: {forward_passes(net.train(), step)} forward pass, {maps + len(found.layers)} maps an image"
    )

# %% [markdown]
# ## Measuring
#
# All variants and class counts take turns, so that a machine that is busy for a while slows them all. The first round
# is not counted.


# %%
def run(seed):
    """Seconds (median) and peak memory of every variant at every number of classes."""
    steps = {(name, k): training_step(name, k)[2] for name in variants for k in counts[name]}
    times = {key: [] for key in steps}
    for turn in range(repeats + 1):
        for key, step in steps.items():
            times[key] += [seconds(step, study.device)] if turn else [step()][1:]
            bar.update()
    metrics = {}
    for (name, k), step in steps.items():
        metrics[f"{name}.{k}.seconds"] = median(times[name, k])
        metrics[f"{name}.{k}.megabytes"] = peak_memory(step, study.device) / 1e6
        bar.update()
    return {"metrics": metrics}


with progress(seeds * sum(map(len, counts.values())) * (repeats + 2), "steps") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## Time and memory against the number of classes
#
# Both axes are logarithmic: a slope of 1 is linear growth, 0 is none. The slope in the table is that of the best
# straight line through all of a variant's points.
#
# Dual's line is flat too, but high: its z⁺ rule runs every layer anew with the positive part of its weights, and all of that is
# kept for the second derivative. Counted in matrix products that is four plain steps, as many as the original ISNet needs for three classes.

# %%
measured = {
    unit: {name: {k: [r["metrics"][f"{name}.{k}.{unit}"] for r in results] for k in counts[name]} for name in variants}
    for unit in ("seconds", "megabytes")
}
titles = {"seconds": "time of a step in seconds", "megabytes": "peak memory of a step in MB"}
figure = charts.log_log({titles[unit]: lines for unit, lines in measured.items()}, "number of classes")
caption = "A rising line grows with the number of classes, a flat one does not. Selective, Stochastic and Selective+LDS nearly coincide: the thin lines lie on the thick ones."
study.figure(
    figure,
    "cost",
    caption,
    "Time and peak memory of a training step against the number of classes, one line for each variant",
)


# %%
def slope(points):
    return np.polyfit(np.log(list(points)), np.log([median(v) for v in points.values()]), 1)[0]


slopes = {unit: {name: slope(points) for name, points in lines.items()} for unit, lines in measured.items()}
plain = [median(v) for v in (measured["seconds"]["plain"][10], measured["megabytes"]["plain"][10])]
table = pd.DataFrame(
    {
        name: {
            "time at 10 classes / plain": f"{median(measured['seconds'][name][10]) / plain[0]:.2f}",
            "memory at 10 classes / plain": f"{median(measured['megabytes'][name][10]) / plain[1]:.2f}",
            "slope of time": f"{slopes['seconds'][name]:.2f}",
            "slope of memory": f"{slopes['megabytes'][name]:.2f}",
        }
        for name in variants
    }
).T
table.style.set_caption("Growth with the number of classes: 1 is linear, 0 is none")

# %% [markdown]
# ## The claims
#
# The step's ratio to a plain one is compared with the 2.74 that the authors' code needs (Selective, ResNet-18,
# 8×3×64×64, one thread, measured by us). With one repetition there is no interval, and so no verdict.

# %%
time = measured["seconds"]
for name in variants:
    if name not in ("plain", "original"):
        study.claim("isnet-6", [a / b for a, b in zip(time[name][1000], time[name][10])], of=name)
for name in explained:
    study.claim("isnet-7", [a / b for a, b in zip(time[name][10], time["plain"][10])], of=name)
for result in results:
    result["metrics"] |= {f"{name}.slope of time": float(slopes["seconds"][name]) for name in variants}
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    def grows(name, most):
        return m[f"{name}.{most}.seconds"] / m[f"{name}.10.seconds"]

    one_map = {name: m["isnet-7", name] for name in ("Selective", "Stochastic", "Selective+LDS")}
    yield (
        True,
        f"With 10 classes a step takes {min(one_map.values()):.1f} to {max(one_map.values()):.1f} plain steps with one map or maps of layers, and {m['isnet-7', 'Dual']:.1f} with Dual.",
    )
    yield (
        grows("original", 20) > 1.5,
        f"The original's time grows {grows('original', 20):.1f}-fold from 10 to 20 classes.",
    )
    most = max(grows(name, 1000) for name in one_map)
    yield most <= 1.1, "That of the others does not grow from 10 to 1,000 classes by more than a tenth."
    yield most > 1.1, f"That of the others grows by {100 * (most - 1):.0f} % at most from 10 to 1,000 classes."


study.tell(came_out, results)

# %% [markdown]
# ## What to try next
#
# - `model="resnet50"`, `image_size=224`, `device="cuda"`: the ratios on a GPU; with `autocast=True` as well.
# - `original_classes="10, 20, 50, 100"`, if there is memory enough: every class adds a map, and all maps' graphs are kept.
# - The scales `laptop` and `paper` repeat everything five times, for intervals.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
print("steps measured:", {name: len(lines) for name, lines in measured["seconds"].items()})

# %% tags=["nbval-check-output"]
for name, points in measured["megabytes"].items():
    grows = median(points[max(points)]) > 1.25 * median(points[10])
    print(
        f"{name}: memory from 10 to {max(points)} classes", "grows by more than a quarter" if grows else "hardly grows"
    )

# %% [markdown]
# ## Files

# %%
study.finish(results)
