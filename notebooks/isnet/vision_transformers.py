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
# # Can a transformer be kept off the mark by training on its own map?
#
# **The question.** A bright mark in the border tells the class of every training image. Faster ISNet keeps a
# *convolutional* network off it by training on the network's LRP map, which is defined for ReLU networks. Does the same
# step keep a vision transformer off it, whose LRP map (AttnLRP) comes from other rules?
#
# **An extension of ours.** *Faster ISNet* (Bassi, Decherchi, Cavalli, IEEE Access 2024,
# [arXiv 2401.08409](https://arxiv.org/abs/2401.08409)) has neither this network nor this map, and *AttnLRP* (Achtibat et al.,
# ICML 2024, [arXiv 2402.05602](https://arxiv.org/abs/2402.05602)) explains networks and does not train them. What is
# claimed below is what one would hope for, in our words, and no claim of theirs.
#
# **What you will see.** A standard transformer, ISNets that explain themselves by AttnLRP, and a simpler remedy, on
# images with the mark of their class, without a mark, and with the mark of another class; their maps; and what a step
# costs. At the default scale it takes half a minute, on scikit-learn's digits.
#
# *Words*: **AttnLRP** is LRP (layer-wise relevance propagation: how much each pixel speaks for the explained number) with rules for
# attention, norms and gates; **P** is the weight of the map in the loss; the **background share** is the part of the absolute
# relevance $|R|$ that lies on the background.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
dataset: str = "digits"  # digits (comes with scikit-learn) or mnist (python -m data_prep mnist)
n_train: int = 640  # number of training images, 0 for all [n_train ≥ 0]
methods: str = "standard, Selective, replacement, unmarked"  # what to train, see the table below
variant: str = "attn"  # the map's rules: attn (AttnLRP) or cp (CP-LRP)
mark_size: int = 2  # edge of the mark in pixels, 1 to 5 [1 ≤ mark_size ≤ 5]
mark_strength: float = 1.0  # brightness of the mark, above 0 (black) up to 1 (white) [0 < mark_strength ≤ 1]
width: int = 32  # numbers a token, a multiple of 4 [width ≥ 4 and not width % 4]
layers: int = 2  # of the transformer [layers ≥ 1]
epochs: int = 5  # passes over the training images [epochs ≥ 1]
batch_size: int = 32  # images a step [batch_size ≥ 1]
lr: float = 3.0e-3  # learning rate of Adam [lr > 0]
P: float = 0.7  # weight of the heatmap loss, 0 (none) to 1 [0 ≤ P ≤ 1]
decay: float = 0.9  # GWRP's d: 0 punishes the most relevant background pixel, 1 the mean [0 ≤ decay ≤ 1]
selective_eps: float = 1.0e-7  # Selective ISNet's ε; at 1e-2 its maps vanish in confident networks [selective_eps > 0]
range_images: int = 3000  # images that a plain network sees before its maps set C1 and C2 [range_images ≥ 1]
rrr_weight: float = 10.0  # λ of RRR [rrr_weight ≥ 0]
repeats: int = 5  # training steps timed of each kind; the fastest counts [repeats ≥ 1]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds; intervals are over images with one, over seeds with more
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/isnet/vision_transformers
# %%
from functools import partial

import torch

from attrain import AttnLRP, InputXGradient, background_share, explain
from attrain.targets import selective_target, stochastic_target
from attrain.training import baselines, correct, fit, isnet_step, plain_step, ranged_isnet_step
from data_prep import dataset as data_module
from data_prep.marks import add_mark, foreground_mask, other_classes
from studies.accuracy import accuracy_table, of_tests
from studies.bench.cost import seconds
from studies.findings import shortcut_cost
from studies.nets.small import small_vit
from studies.pictures import charts
from studies.study import Study, check_known, listed, progress

study = Study("isnet/vision_transformers", globals())
names = listed(methods)

# %% [markdown]
# ## The data: three tests of one network
#
# In training **every** image carries the mark of its class. Three tests share the same digits:
# *biased* (marked as in training), *unbiased* (no mark) and *deceiving* (the mark of another class).

# %%
source = data_module(dataset)
data = {name: tensor.to(study.device) for name, tensor in source.load().items()}
study.data(dataset, source.checksums())
n = n_train or len(data["train_x"])
images, labels = data["train_x"][:n], data["train_y"][:n]
mark = partial(add_mark, size=mark_size, brightness=mark_strength)
masks, marked = foreground_mask(images), mark(images, labels)
digits, truth = data["test_x"], data["test_y"]
tests = {"biased": mark(digits, truth), "unbiased": digits, "deceiving": mark(digits, other_classes(truth))}
shown = [int((truth == c).nonzero()[0]) for c in range(10)]
figure = charts.image_rows(
    {name: x[shown].cpu() for name, x in tests.items()}, titles=[f"class {c}" for c in range(10)]
)
caption = "Ten digits in the three tests. The place of the mark names a class: the right one in the first row, a wrong one in the last."
study.figure(
    figure,
    "tests",
    caption,
    "Three rows of the same ten digits: with a bright square in the border, without, with it elsewhere",
)

# %% tags=["nbval-check-output"]
print(f"{dataset}: {len(images)} training and {len(digits)} test images of {tuple(images.shape[1:])}")

# %% [markdown]
# ## The network, and the map that it is trained on
#
# A vision transformer cuts the image into patches, one token each, and looks from every token at every other. A mark
# in one patch can therefore reach the answer at once, through attention weights as well as through values.
#
# AttnLRP is gradient × input with another backward pass: a gate such as GELU multiplies by $y/x$, a layer norm's standard
# deviation $\sigma$ is a constant, and where two activations are multiplied each gets half,
#
# $$\mathrm{GELU}:\; G\,\tfrac{y}{x}, \qquad
# \mathrm{norm}:\; \tfrac{1}{\sigma}\,(G w-\overline{G w}), \qquad
# q k^\top,\; A v:\; \tfrac12\,\tfrac{\partial}{\partial(\cdot)} .$$
#
# The factors are functions of the activations, so the map $R$ can be trained on, as Faster ISNet trains on LRP's:
# $L = (1-P)\,\mathrm{CE} + P\,(L_\mathrm{bg} + L_\mathrm{fg})$, see
# [mnist_background_bias](mnist_background_bias.ipynb). One difference: there is no $z^B$ rule here, so a black pixel has
# no relevance.
#
# | name | idea |
# |---|---|
# | standard | cross-entropy alone |
# | Selective, Stochastic | ISNets: train on the AttnLRP map of the log-odds of the least likely class, or of one logit, drawn |
# | gradient\*input | *ablation*: Selective, on gradient × input |
# | RRR | CE $+ \lambda \sum \big((1-M)\,\partial_x \sum_k \log p_k\big)^2$ (Ross et al. 2017) |
# | replacement | each image on the background of another one of the batch |
# | unmarked | cross-entropy on images *without marks*: the yardstick for what is possible |

# %%
lrp = AttnLRP(variant)


def isnets(seed):
    """What each ISNet explains, by which map."""
    selective, draws = selective_target(selective_eps), torch.Generator().manual_seed(seed)
    return {
        "Selective": dict(target=selective, method=lrp),
        "Stochastic": dict(target=stochastic_target(draws), method=lrp),
        "gradient*input": dict(target=selective, method=InputXGradient()),
    }


# %% [markdown]
# The others take an ordinary step, or one that keeps relevance or backgrounds out without a map of this kind.


# %%
def others(seed):
    """The training step of each of the others; unmarked images come in below."""
    draws = torch.Generator().manual_seed(seed)
    return {
        **dict.fromkeys(("standard", "unmarked"), plain_step),
        "RRR": partial(baselines.rrr_step, weight=rrr_weight),
        "replacement": partial(baselines.background_replacement_step, generator=draws),
    }


check_known("methods", names, [*isnets(0), *others(0)])


# %% [markdown]
# ## Training and measuring
#
# All networks of a seed start from the same weights and see the images in the same order.


# %%
def fresh(seed):
    torch.manual_seed(seed)
    return small_vit(images.shape[-1], channels=images.shape[1], width=width, layers=layers).to(study.device)


def train(seed, net, step, x=marked, part=slice(None), epochs=epochs):
    """Train on some images; the networks of a seed start from the same weights and see the same order."""
    settings = dict(epochs=epochs, batch_size=batch_size, lr=lr, optimizer="adam", clip=1.0)
    order = torch.Generator().manual_seed(seed)
    return fit(net, (x[part], labels[part], masks[part]), step, **settings, generator=order, on_epoch=bar.update)


def method(name, seed, plain):
    """A method's network and its training curves; ISNets take C1 and C2 from the maps of the plain network."""
    net, isnet = fresh(seed), isnets(seed)
    if name in isnet:
        step = ranged_isnet_step(plain, marked[first].split(256), **isnet[name], P=P, decay=decay)
    else:
        step = others(seed)[name]
    return net, train(seed, net, step, images if name == "unmarked" else marked)


# %% [markdown]
# Measured are the accuracy in each test, where the relevance lies, and what a step costs.


# %%
def measure(name, net):
    """Which test images a network gets right, its share of background relevance, and a few maps."""
    right = {test: correct(net, x, truth).cpu() for test, x in tests.items()}
    heatmaps = torch.cat([explain(net, part, method=lrp).heatmap for part in tests["biased"].split(500)])
    share = background_share(heatmaps, foreground_mask(digits)).nanmean().item()
    maps = explain(net, tests["deceiving"][shown], method=lrp).heatmap.cpu()
    metrics = {f"{name}.{test}": c.double().mean().item() for test, c in right.items()}
    return {"correct": right, "maps": maps, "metrics": metrics | {f"{name}.background_share": share}}


# %%
def cost(seed):
    """The time of an ISNet's step on one batch in plain ones, each the fastest of several that take turns."""
    net, batch = fresh(seed), (marked[:batch_size], labels[:batch_size], masks[:batch_size])

    def one(step):
        net.zero_grad()
        step(net, *batch)[1].backward()

    steps = {m: partial(isnet_step, **explained) for m, explained in isnets(seed).items() if m in names}
    times = {"plain": [], **{name: [] for name in steps}}
    for _ in range(repeats + 1):
        for name, step in {"plain": plain_step, **steps}.items():
            times[name].append(seconds(partial(one, step), study.device))
    return {f"{name}.steps": min(t[1:]) / min(times["plain"][1:]) for name, t in times.items() if name != "plain"}


# %% [markdown]
# Each seed trains a plain network for a short time, for the range of natural maps, and then all methods one after the other.

# %%
first, passes = slice(range_images), max(1, range_images // len(images))


def run(seed):
    """Train and measure with this seed: what is returned here is kept, so that a run can resume."""
    plain = fresh(seed)
    train(seed, plain, plain_step, part=first, epochs=passes)
    result = {"curves": {}, "correct": {}, "maps": {}, "metrics": cost(seed)}
    for name in names:
        net, result["curves"][name] = method(name, seed, plain)
        measured = measure(name, net)
        result["metrics"] |= measured.pop("metrics")
        for key, value in measured.items():
            result[key][name] = value
    return result


with progress(seeds * (passes + epochs * len(names)), "epochs") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## Who reads the digit?
#
# The *deceiving* test tells: a network that reads digits does as well there as on the other two.

# %%
values = {m: {t: [r["metrics"][f"{m}.{t}"] for r in results] for t in tests} for m in names}
right, accuracy = of_tests(results, names, tests)
figure = charts.interval_rows(accuracy, "accuracy", dots=values if seeds > 1 else None)
caption = "The closer the three points of a row, the less the mark matters; the further right, the more digits are read. Bars are 95 % intervals."
study.figure(
    figure, "accuracy", caption, "Accuracy of each network, one row each, in the biased, unbiased and deceiving test"
)

# %%
shares = {m: [r["metrics"][f"{m}.background_share"] for r in results] for m in names}
accuracy_table(accuracy, shares)

# %% [markdown]
# ## What the maps say
#
# The same ten *deceiving* images, explained by each network for the class it predicts. Red speaks for that class, blue
# against it; the grey line is the digit's outline.

# %%
maps = {name: results[0]["maps"][name] for name in names}
figure = charts.map_rows(tests["deceiving"][shown].cpu(), maps, titles=[f"class {c}" for c in range(10)])
caption = "Is there relevance on the mark? A clean map does not prove that the mark is not read: compare with the accuracy above."
study.figure(
    figure, "maps", caption, "Ten digits with a wrong mark and, below, one row of relevance maps for each network"
)

# %% [markdown]
# ## How they learned
#
# Training images all carry the mark, so training accuracy does not tell who reads digits. It tells who is still learning.

# %%
guided = [m for m in names if m in isnets(0)]
variants = [m for m in guided if m != "gradient*input"]
lines = {"training accuracy": {m: [r["curves"][m]["accuracy"] for r in results] for m in names}}
for part in ("background", "foreground"):
    lines[f"ISNet's {part} loss"] = {m: [r["curves"][m][part] for r in results] for m in guided}
figure = charts.curves({title: curves for title, curves in lines.items() if curves})
caption = (
    "Training accuracy of all networks, and the two losses of the ISNets on their maps. Thin lines, if any, are seeds."
)
study.figure(figure, "curves", caption, "Training accuracy and the ISNets' background and foreground losses, by epoch")

# %% [markdown]
# ## The claims
#
# All of these are ours. A claim *holds* if the whole 95 % interval lies where the claim says, *fails* if none of it does,
# and is *undecided* otherwise. Differences are paired: by seed and, within a seed, by image. Small networks on small
# images are mostly calls; the step's cost is that of this machine, network and batch.

# %%
if "standard" in names:
    study.claim("isnet-vit-1", right["standard"]["biased"] - right["standard"]["deceiving"])
for m in variants:
    for t in ("unbiased", "deceiving"):
        study.claim("isnet-vit-2", right[m]["biased"] - right[m][t], of=f"{m}, biased − {t}")
    if "unmarked" in names:
        study.claim("isnet-vit-3", right[m]["unbiased"] - right["unmarked"]["unbiased"], of=m)
    if "standard" in names:
        study.claim("isnet-vit-4", right[m]["deceiving"] - right["standard"]["deceiving"], of=m)
    for rival in ("gradient*input", "RRR", "replacement"):
        if rival in names:
            study.claim("isnet-vit-5", right[m]["deceiving"] - right[rival]["deceiving"], of=f"{m} − {rival}")
    study.claim("isnet-vit-6", [r["metrics"][f"{m}.steps"] for r in results], of=m)
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    for name in ("standard", "Selective", "Stochastic"):
        yield from shortcut_cost(m, name, "a wrong mark")
    share, lost = m["Selective.background_share"], m["Selective.biased"] - m["Selective.deceiving"]
    yield (
        share < 0.05 and lost > 0.1,
        f"Selective's map is clean all the same: {share:.1%} of its relevance lies on the background.",
    )
    best = m["replacement.deceiving"]
    yield best > m["Selective.deceiving"], f"Exchanging backgrounds does better under a wrong mark ({best:.2f})."
    yield best <= m["Selective.deceiving"], f"Exchanging backgrounds does no better under a wrong mark ({best:.2f})."


study.tell(came_out, results)

# %% [markdown]
# ## What to try next
#
# - `variant="cp"`: attention weights are constants to the map. Can a network then hide the mark in them?
# - Longer training. Factors such as $y/x$ and $\sigma$ are constants to the map: what a mark does through them is not in it.
#   Does a network learn to use that? `methods="standard, Selective, gradient*input"` has a map without such constants.
# - `P=0.9`, `P=0.3`, and `decay=0.5`: how hard must the background be punished?
# - `methods="standard, RRR"` with `rrr_weight=0.1` and `100.0`: how much does the simplest rival depend on its λ?
# - The same marks and a network with convolutions: [mnist_background_bias](mnist_background_bias.ipynb).
# - MNIST and more seeds: `make reproduce SCALE=laptop EXPERIMENTS=isnet/vision_transformers`.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
for m in names:
    kept = accuracy[m]["deceiving"]["mean"] > 0.5 * accuracy[m]["biased"]["mean"]
    print(f"{m}: a deceiving mark takes", "less" if kept else "more", "than half of its accuracy")

# %% tags=["nbval-check-output"]
for claim in study.claims[:1]:
    print("the standard transformer uses the shortcut:", claim["measured"]["mean"] > 0.5)

# %% [markdown]
# ## Files

# %%
study.finish(results)
