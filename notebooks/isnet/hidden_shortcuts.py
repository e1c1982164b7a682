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
# # Can a network hide a shortcut from the map it is trained on?
#
# **The question.** A network that is trained on its own LRP map shows, in the end, a map without the mark. Does it no longer read the mark, or has
# it learned to read it where LRP does not look? Which other map would show that? And is that one a better one to train on?
#
# **Whose question.** Ours, on two of the papers: *Faster ISNet* ([arXiv 2401.08409](https://arxiv.org/abs/2401.08409)) trains on LRP maps, and *DeepLIFT*
# ([arXiv 1704.02685](https://arxiv.org/abs/1704.02685)) says in its figure 1 what a derivative cannot see: what a unit owes to an input that has **saturated** it.
#
# **What you will see.** A network of one unit that reads a mark and shows LRP nothing; then digits with a mark that names the class, as in
# [mnist_background_bias](mnist_background_bias.ipynb): accuracies, the mark's share of several maps, and what the mark really adds, while networks
# train on LRP's maps and on DeepLIFT's; where in the network the mark is read; and which map tells networks that cheat from those that do not.
#
# *Words*: a **map** gives each pixel its *relevance*, how much it speaks for (red) or against (blue) an explained number. **LRP-ε**, layer-wise relevance
# propagation, makes it from derivatives, **DeepLIFT** from differences to a *reference* image; its multiplier is a *secant*, the
# difference of a unit's output divided by that of its input. A network **cheats** if the mark changes its answers. **P** is the weight of the map
# in the loss. An **ISNet** is a network that is trained on its map.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
dataset: str = "digits"  # digits (comes with scikit-learn) or mnist (python -m data_prep mnist)
n_train: int = 500  # number of training images [n_train ≥ 1]
n_held: int = 100  # training images that are held out, on which networks are looked at [n_held ≥ 10]
methods: str = "standard, LRP Selective, DeepLIFT Stochastic, unmarked"  # what to train, see the table below
vary: str = ""  # more networks, each with one setting changed, a list as in What to try next
varied: str = "LRP Selective"  # how these are trained, see the table below
mark_size: int = 2  # edge of the mark in pixels, 1 to 5 [1 ≤ mark_size ≤ 5]
mark_strength: float = 1.0  # brightness of the mark, above 0 (black) up to 1 (white) [0 < mark_strength ≤ 1]
model: str = "cnn"  # cnn (three convolutions), cnn-norm (with batch norm), resnet18, resnet34 or resnet50
layers: str = "1, 4, 7"  # hidden layers to look for the mark in; for a ResNet layer1, layer2, layer3, layer4
epochs: int = 6  # passes over the training images [epochs ≥ 1]
looks: int = 2  # how often networks are looked at, at even distances, the last time at the end [looks ≥ 1]
batch_size: int = 32  # images a step [batch_size ≥ 1]
optimizer: str = "adam"  # adam, or sgd with momentum 0.9
lr: float = 2.0e-3  # learning rate [lr > 0]
P: float = 0.7  # weight of the heatmap loss, 0 (none) to 1 [0 ≤ P ≤ 1]
decay: float = 0.9  # GWRP's d: 0 punishes the most relevant background pixel, 1 the mean [0 ≤ decay ≤ 1]
epsilon: float = 1.0e-2  # LRP's ε [epsilon ≥ 0]
selective_eps: float = 1.0e-7  # Selective ISNet's ε [selective_eps > 0]
range_images: int = 2000  # images that a plain network sees before its maps set C1 and C2 [range_images ≥ 1]
rrr_weight: float = 0.01  # λ of RRR [rrr_weight ≥ 0]
cheats_from: float = 0.05  # a network cheats whose accuracy a wrong mark lowers by more [cheats_from > 0]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds; intervals are over seeds, and need two
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/isnet/hidden_shortcuts
# %%
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import nn

from attrain import LRP, ZB, DeepLift, Gradient, InputXGradient, IntegratedGradients, background_share, explain
from attrain.targets import selective_target, stochastic_target
from attrain.training import baselines, correct, estimate_foreground_range, evaluating, fit, isnet_step, plain_step
from attrain.training.modules import hooked
from data_prep import dataset as data_module
from data_prep.marks import add_mark, foreground_mask, other_classes
from studies.nets.small import classifier
from studies.pictures import charts
from studies.study import Study, check_known, listed, progress

study = Study("isnet/hidden_shortcuts", globals())
names = listed(methods)

# %% [markdown]
# ## By hand: a unit that reads a mark and shows LRP nothing
#
# One unit $h=\mathrm{ReLU}(1-2m)$ and the output $1-h$, where $m$ is the brightness of a mark. Without the mark $h=1$ and the output is 0; with
# a white one, $m=1$, the unit is off and the output 1. All of the output comes from the mark. But the unit is off, so its derivative is 0, and with it every map that is
# made of derivatives *there*: gradient × input and LRP. DeepLIFT compares with $m=0$: its secant is $(0-1)/(1-0)=-1$.

# %%
hidden, last = nn.Linear(1, 1), nn.Linear(1, 1)
for layer, weight, bias in ((hidden, -2.0, 1.0), (last, -1.0, 1.0)):
    nn.init.constant_(layer.weight, weight)
    nn.init.constant_(layer.bias, bias)
by_hand, mark_alone = nn.Sequential(hidden, nn.ReLU(), last).eval(), torch.ones(1, 1)
tried = {
    "gradient × input": InputXGradient(),
    "LRP-ε": LRP(epsilon),
    "integrated gradients": IntegratedGradients(steps=100),
    "DeepLIFT": DeepLift(),
}
relevance = {name: explain(by_hand, mark_alone, 0, method).heatmap.item() for name, method in tried.items()}
relevance["what the mark really adds"] = (by_hand(mark_alone) - by_hand(0 * mark_alone)).item()
pd.DataFrame({"relevance of the mark": relevance}).round(2) + 0.0

# %% [markdown]
# ## The data: three tests of one network
#
# Each training image carries the mark of its class. Three tests share the same held-out digits: *biased* (marked as in training), *unbiased* (no mark)
# and *deceiving* (the mark of another class). A network that does not read the mark does equally well on all three.

# %%
source = data_module(dataset)
data = {name: tensor.to(study.device) for name, tensor in source.load().items()}
study.data(dataset, source.checksums())
if n_train + n_held > len(data["train_x"]):
    raise ValueError(f"n_train + n_held must be ≤ {len(data['train_x'])}, got {n_train} + {n_held}")
images, labels = data["train_x"][:n_train], data["train_y"][:n_train]
held, truth = data["train_x"][-n_held:], data["train_y"][-n_held:]
masks, wrong = foreground_mask(images), other_classes(truth)


@cache
def marked_with(size, strength):
    """The training images and the three tests with such a mark; 1 where the wrong mark is."""
    mark = partial(add_mark, size=size, brightness=strength)
    tests = {"biased": mark(held, truth), "unbiased": held, "deceiving": mark(held, wrong)}
    on_mark = add_mark(torch.zeros_like(held), wrong, size, 1.0)[:, 0]
    return SimpleNamespace(images=mark(images, labels), tests=tests, on_mark=on_mark)


# %%
tests = marked_with(mark_size, mark_strength).tests
shown = [int((truth == c).nonzero()[0]) for c in truth.unique()]
caption = "Held-out digits, one of each class, in the three tests. The place of the mark names a class: the right one in the first row, a wrong one in the last."
study.figure(
    charts.image_rows({name: x[shown].cpu() for name, x in tests.items()}),
    "tests",
    caption,
    "Three rows of the same digits: with a bright square in the border, without, with it elsewhere",
)

# %% tags=["nbval-check-output"]
print(f"{dataset}: {len(images)} training images, {len(held)} others to look at, of {tuple(images.shape[1:])}")

# %% [markdown]
# ## What is trained
#
# An ISNet minimises $(1-P)\,\mathrm{CE}+P\,(L_\mathrm{bg}+L_\mathrm{fg})$, where $L_\mathrm{bg}$ punishes relevance on the background and
# $L_\mathrm{fg}$ keeps that of the digit in its natural range; see [mnist_background_bias](mnist_background_bias.ipynb) for the formulas. Here the
# map is LRP's or DeepLIFT's, and so much is the same for both.
#
# | name | idea |
# |---|---|
# | standard | cross-entropy alone |
# | LRP Selective, LRP Stochastic | ISNets of the article: of each image one LRP-ε map, of the log-odds of the least likely class, or of a logit drawn at random |
# | LRP predicted, LRP original | the map of the predicted class; the maps of all classes, as the first ISNet has it |
# | DeepLIFT Selective, … | the same with the Rescale rule's map against black, **ours** |
# | DeepLIFT mean Selective, … | against the mean training image |
# | DeepLIFT other Selective, … | against another image of the batch, drawn anew at each step |
# | DeepLIFT moved Selective, … | against the same digit on another image's background, drawn anew: the map is of the change of background alone |
# | RevealCancel Selective, RevealCancel other Selective, … | the same with DeepLIFT's other rule |
# | gradient Selective, … | the same with gradient × input |
# | RRR | CE $+ \lambda \sum \big((1-M)\,\partial_x \sum_k \log p_k\big)^2$ (Ross et al. 2017) |
# | replacement | each image on the background of another one of the batch |
# | unmarked | cross-entropy on images *without marks*: what is possible |
#
# `vary` names further networks: trained as `varied` says, with one setting changed.

# %%
REFERENCES = {
    "": lambda x, mask, draws: torch.zeros_like(x[:1]),
    " mean": lambda x, mask, draws: marked_with(mark_size, mark_strength).images.mean(0, keepdim=True),
    " other": lambda x, mask, draws: x.roll(int(torch.randint(1, max(2, len(x)), (), generator=draws)), 0),
    " moved": lambda x, mask, draws: baselines.replace_background(x, mask, generator=draws),
}
TARGETS = {
    "Selective": lambda draws: selective_target(selective_eps),
    "Stochastic": stochastic_target,
    "predicted": lambda draws: None,
    "original": lambda draws: "all",
}
MAPS = ["LRP", "gradient", *(f"{rule}{of}" for rule in ("DeepLIFT", "RevealCancel") for of in REFERENCES)]
ISNETS = [f"{by} {variant}" for by in MAPS for variant in TARGETS]
check_known("methods", names, ["standard", *ISNETS, "RRR", "replacement", "unmarked"])

# %%
main = dict(model=model, epsilon=epsilon, P=P, mark_size=mark_size, mark_strength=mark_strength)
kinds = dict(model=str, epsilon=float, P=float, mark_size=int, mark_strength=float)


def changed(text):
    """The settings with one of them changed, as "P=0.9"."""
    key, _, value = (part.strip() for part in text.partition("="))
    check_known("vary", [key], list(main))
    return main | {key: kinds[key](value)}


further = {f"{varied}, {text}": changed(text) for text in listed(vary)}
settings = {name: main for name in names} | further
check_known("varied", [varied], ISNETS)


# %% [markdown]
# The map of a step depends on its batch, as the reference does.


# %%
def map_of(by, epsilon, x, mask, draws):
    """The map of one step's batch."""
    if by == "LRP":
        return LRP(epsilon=epsilon, first_layer=ZB(low=0.0, high=1.0))
    if by == "gradient":
        return InputXGradient()
    rule, _, reference = by.partition(" ")
    against = REFERENCES[f" {reference}".rstrip()](x, mask, draws)
    return DeepLift(against, "reveal_cancel" if rule == "RevealCancel" else "rescale")


# %% [markdown]
# The natural range of the foreground's relevance is read off the maps of a network that was trained plainly, for a short time.


# %%
def step_of(name, plain, seed):
    """A method's training step."""
    draws = torch.Generator().manual_seed(seed)
    if name == "RRR":
        return partial(baselines.rrr_step, weight=rrr_weight)
    if name == "replacement":
        return partial(baselines.background_replacement_step, generator=draws)
    way, s = name.partition(",")[0], settings[name]
    if way not in ISNETS:
        return plain_step
    by, _, variant = way.rpartition(" ")
    target, method = TARGETS[variant](draws), partial(map_of, by, s["epsilon"], draws=draws)
    some = marked_with(s["mark_size"], s["mark_strength"]).images[:range_images]
    of_range = method(some[:1], masks[:1])
    C1, C2 = estimate_foreground_range(plain, some.split(250), target=target, method=of_range)
    ranges = dict(target=target, P=s["P"], decay=decay, C1=C1, C2=C2)
    return lambda net, x, y, mask: isnet_step(net, x, y, mask, method=method(x, mask), **ranges)


# %% [markdown]
# ## What is looked at
#
# At even distances in training, and of images that carry a *wrong* mark, the logit of the class that the mark names:
#
# - what the mark **really adds** to it: the logit with the mark less that without. No map is asked; this is the truth that maps are held against;
# - the mark's **share** of the absolute relevance $|R|$ by each of several maps, the *detectors*.
#
# (With the unmarked image as its reference DeepLIFT's map of the mark *is* the truth, as it sums to the difference. But who knows the unmarked image knows where
# the mark is.)

# %%
black = torch.zeros_like(held[:1])


def detectors_for(images):
    """The maps that are asked, by name."""
    found = {f"LRP, ε = {e:g}": LRP(epsilon=e, first_layer=ZB(low=0.0, high=1.0)) for e in (1e-2, 1e-4, 1e-6)}
    found |= {"gradient × input": InputXGradient(), "integrated gradients": IntegratedGradients(steps=10)}
    found |= {"DeepLIFT, black": DeepLift(black), "DeepLIFT, mean image": DeepLift(images.mean(0, keepdim=True))}
    return found | {"RevealCancel, black": DeepLift(black, "reveal_cancel")}


DETECTORS, TEST = list(detectors_for(held)), "deceiving"

# %% [markdown]
# What a look writes down:


# %%
def share_on_mark(net, data, method):
    """The mark's share of |R|, mean over images; maps of nothing have none."""
    maps = [explain(net, x, y, method).heatmap for x, y in zip(data.tests[TEST].split(100), wrong.split(100))]
    return background_share(torch.cat(maps), 1 - data.on_mark).nanmean().item()


@torch.no_grad()
def added(net, tests):
    """What the wrong mark adds to its own class's logit, mean over images."""
    with_mark, without = (net(tests[t]).gather(1, wrong[:, None]) for t in (TEST, "unbiased"))
    return (with_mark - without).mean().item()


# %%
def look(net, data):
    """All that is measured of a network, with marks as it has seen them."""
    with evaluating(net):
        found = {t: correct(net, x, truth).double().mean().item() for t, x in data.tests.items()}
        found["added"] = added(net, data.tests)
        asked = detectors_for(data.images)
        return found | {name: share_on_mark(net, data, method) for name, method in asked.items()}


# %% [markdown]
# ## Where the mark is read
#
# The difference that the mark makes to a layer's units, $\Delta h$, times what the output owes to each: once by the **derivative** at the marked image, as LRP and
# gradient × input have it, and once by DeepLIFT's **secant** between the marked and the unmarked image. The secants' products sum to what the mark really adds, at each layer.


# %%
@torch.no_grad()
def activations(net, x):
    """Layer -> what it puts out, (N, ...)."""
    found = {}
    for name in listed(layers):
        keep = partial(lambda name, module, given, out: found.update({name: out.clone()}), name)
        with hooked(net, name, keep):
            net(x)
    return found


# %%
def by_unit(net):
    """Layer -> (derivative · Δh, secant · Δh), each (channels,), of the mark's class, mean over images."""
    x, without, of = tests[TEST][:100], held[:100], wrong[:100]
    ask = dict(layers=listed(layers), at_input=False)
    slopes, secants = (explain(net, x, of, method, **ask).layers for method in (Gradient(), DeepLift(without)))
    change = {name: h - activations(net, without)[name] for name, h in activations(net, x).items()}
    each = {name: (slopes[name] * change[name], secants[name]) for name in change}
    return {name: tuple(v.flatten(2).sum(2).mean(0).cpu() for v in values) for name, values in each.items()}


# %% [markdown]
# ## Training
#
# All networks of a seed start from the same weights and see the images in the same order.


# %%
def fresh(seed, model=model):
    torch.manual_seed(seed)
    return classifier(model, channels=images.shape[1]).to(study.device)


# %%
at_epochs = sorted({round(epochs * (i + 1) / looks) for i in range(looks)} - {0})


def train(net, step, x, seed, epochs=epochs, look_at=None):
    """Train; the losses, and what is seen at the epochs to look at."""
    count, looked = 0, []

    def on_epoch():
        nonlocal count
        count += 1
        bar.update()
        if look_at is not None and count in at_epochs:
            looked.append(look(net, look_at))

    how = dict(epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer, clip=1.0)
    order = torch.Generator().manual_seed(seed)
    return fit(net, (x, labels, masks), step, **how, generator=order, on_epoch=on_epoch), looked


# %% [markdown]
# Each seed trains a plain network for a short time, for the range of natural maps (one more for each other network or mark), and then all methods one after the other.


# %%
passes, pictured = max(1, range_images // len(images)), (tests[TEST][shown], wrong[shown])
plain_ones = {(s["model"], s["mark_size"], s["mark_strength"]) for s in settings.values()}


def drawn_maps(net):
    """Maps of the pictures by the two methods that are compared."""
    asked = {"LRP": LRP(epsilon=epsilon, first_layer=ZB(low=0.0, high=1.0)), "DeepLIFT": DeepLift(black)}
    return {by: explain(net, *pictured, method).heatmap.cpu() for by, method in asked.items()}


# %%
def run(seed):
    """Train and measure with this seed: what is returned here is kept, so that a run can resume."""
    plain, result = {}, {"looks": {}, "units": {}, "curves": {}, "maps": {}, "metrics": {}}
    for name, s in settings.items():
        net, data = fresh(seed, s["model"]), marked_with(s["mark_size"], s["mark_strength"])
        key = s["model"], s["mark_size"], s["mark_strength"]
        if key not in plain:
            plain[key] = fresh(seed, s["model"])
            train(plain[key], plain_step, data.images, seed, passes)
        x = images if name == "unmarked" else data.images
        result["curves"][name], looked = train(net, step_of(name, plain[key], seed), x, seed, look_at=data)
        result["looks"][name] = looked
        result["metrics"] |= {f"{name}.{key}": value for key, value in looked[-1].items()}
        if name in names:
            result["units"][name], result["maps"][name] = by_unit(net), drawn_maps(net)
    return result


# %% [markdown]
# With this, all seeds:

# %%
with progress(seeds * (passes * len(plain_ones) + epochs * len(settings)), "epochs") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## The phenomenon: three accuracies, two maps and the truth, as training goes on
#
# Look at the networks trained on LRP's maps: does what the mark *really adds* rise again while its share under LRP stays near zero? And does DeepLIFT's share
# rise with it? (At smoke scale nothing is hidden yet: the mark comes back slowly, over thousands of steps. The run on record, below, has them.)

# %%
steps = [epoch * -(-len(images) // batch_size) for epoch in at_epochs]
panels = {
    "accuracy, unbiased": "unbiased",
    "accuracy, deceiving": TEST,
    "what the mark really adds": "added",
    "mark's share, LRP": "LRP, ε = 0.01",
    "mark's share, DeepLIFT": "DeepLIFT, black",
}
lines = {
    title: {m: [[found[key] for found in r["looks"][m]] for r in results] for m in names}
    for title, key in panels.items()
}
caption = (
    "Each network as it trains. The third panel is the truth (in logits); the last two are what two maps say of it."
)
alt = "Accuracies, what the mark adds to its logit, and its share of two maps, by training step"
study.figure(charts.curves(lines, "training step", steps, size=(2.9, 2.8)), "phenomenon", caption, alt)

# %% [markdown]
# At the end of training, by all maps:

# %%
columns = ["biased", "unbiased", TEST, "added", *DETECTORS]
end = {m: {c: np.mean([r["metrics"][f"{m}.{c}"] for r in results]) for c in columns} for m in settings}
titles = {"added": "the mark really adds"} | {d: f"share, {d}" for d in DETECTORS}
table = pd.DataFrame(end).T.rename(columns=titles)
table.style.format("{:.3f}").set_caption(f"Held-out images, mean over {seeds} seed(s)")

# %% [markdown]
# By seed, as what a network finds varies:

# %%
by_seed = {m: [f"{r['metrics'][f'{m}.{TEST}']:.2f}" for r in results] for m in settings}
pd.DataFrame(
    {"accuracy, deceiving, by seed": {m: ", ".join(values) for m, values in by_seed.items()}}
).style.set_caption("Accuracy with wrong marks at the end of training")

# %% [markdown]
# ## What the two maps show
#
# The same ten *deceiving* images, for the class that the mark names: red speaks for it. Where the mark adds to its logit, a true map is red there.

# %%
pictures = tests[TEST][shown].cpu()
rows = {f"{m}: {by}": maps for m in names for by, maps in results[0]["maps"][m].items()}
caption = "Two rows for each network, by LRP and by DeepLIFT, each map on a scale of its own. Which rows have a dark square where the mark is?"
alt = "Ten digits with a wrong mark and, below, two rows of maps for each network"
study.figure(charts.map_rows(pictures, rows), "maps", caption, alt)

# %% [markdown]
# ## The mechanism: derivative against secant
#
# A point is a channel of a hidden layer; across, what its derivative says that the mark adds through it; up, what it adds by DeepLIFT's secant. Where
# both agree, across is as far as up. A channel that hides the mark stands above (or below) the line at 0, but at 0 across: it adds, and its derivative says
# nothing. (Behind the last of these layers come only means and a linear layer: there both agree whatever the network has learned.)

# %%
units = {
    f"layer {layer}": {m: results[0]["units"][m][layer] for m in names if m != "unmarked"} for layer in listed(layers)
}
caption = "Points at 0 across, but far from the horizontal line, are channels whose part a derivative does not see."
alt = "Contribution of the mark through each channel by derivative and by secant, one panel a layer"
study.figure(charts.scatter_panels(units, "by the derivative", "by the secant", columns=3), "mechanism", caption, alt)

# %% [markdown]
# How much of the mark's path do derivatives miss? For each network and layer $1-\sum|a|/\sum|b|$ with $a$ by the derivative and $b$ by the secant: near 1,
# the mark's path is hidden from derivatives; at 0 or below it is not.

# %%
missed = {
    m: {
        layer: np.mean(
            [1 - (r["units"][m][layer][0].abs().sum() / r["units"][m][layer][1].abs().sum()).item() for r in results]
        )
        for layer in listed(layers)
    }
    for m in names
}
pd.DataFrame(missed).T.rename(columns=lambda layer: f"layer {layer}").style.format("{:.2f}")

# %% [markdown]
# ## Which map detects that a network cheats?
#
# Every look at every network is a case. One *cheats* if the wrong mark adds to its class's logit and costs more than `cheats_from` of accuracy. How well does a map's share on
# the mark tell the cheats from the others (area under the ROC curve, 0.5 is guessing), and does it rank the networks as the truth does (Spearman's rank correlation with what
# the mark really adds)? A detector is asked only whether the mark's share is large; it does not know the truth.

# %%
cases = [found for r in results for m in names for found in r["looks"][m]]
cheats = np.array([found["added"] > 0 and found["unbiased"] - found[TEST] > cheats_from for found in cases])
truths = [found["added"] for found in cases]
both_kinds = 0 < cheats.sum() < len(cheats)
detected = {
    name: {
        "area under the ROC": roc_auc_score(cheats, [found[name] for found in cases]) if both_kinds else np.nan,
        "rank correlation with the truth": spearmanr([found[name] for found in cases], truths).statistic,
    }
    for name in DETECTORS
}
detectors = pd.DataFrame(detected).T
detectors.style.format("{:.2f}", na_rep="–").set_caption(
    f"{len(cases)} looks at {len(names) * seeds} networks; in {cheats.sum()} of these looks the network cheats"
)

# %% [markdown]
# ## The claims
#
# All are **ours**, declared before they were measured. Each seed gives one number. A network that names fewer than half of the digits without a mark
# has learned too little to be asked.

# %%
for m in names:
    by = m.partition(" ")[0]
    if np.mean([r["metrics"][f"{m}.unbiased"] for r in results]) < 0.5:
        continue
    if by == "LRP" and m in ("LRP Selective", "LRP Stochastic"):
        study.claim("isnet-hidden-1", [r["metrics"][f"{m}.LRP, ε = 0.01"] for r in results], of=m)
        study.claim("isnet-hidden-2", [r["metrics"][f"{m}.DeepLIFT, black"] for r in results], of=m)
    if by in ("LRP", "DeepLIFT", "RevealCancel"):
        lost = [r["metrics"][f"{m}.unbiased"] - r["metrics"][f"{m}.{TEST}"] for r in results]
        study.claim("isnet-hidden-3", lost, of=m)
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    maps = "LRP", "DeepLIFT", "DeepLIFT other", "RevealCancel", "RevealCancel other"
    for name in [f"{by} {variant}" for by in maps for variant in ("Selective", "Stochastic")]:
        seen, says, adds = m[f"{name}.LRP, ε = 0.01"], m[f"{name}.DeepLIFT, black"], m[f"{name}.added"]
        cost = 100 * (m[f"{name}.unbiased"] - m[f"{name}.deceiving"])
        told = f"{name}: LRP gives the mark {seen:.1%} of the relevance, DeepLIFT {says:.1%}, and it adds {adds:+.1f} to its class's logit"
        yield cost > 1, f"{told}; a wrong one costs {cost:.0f} points of accuracy."
        yield cost <= 1, f"{told}; a wrong one costs no more than one point of accuracy."


study.tell(came_out, results)

# %% [markdown]
# ## What to try next
#
# - Longer training: the mark comes back slowly. On MNIST `n_train=20000`, `epochs=8` is 5,000 steps.
# - `methods="DeepLIFT other Stochastic, DeepLIFT moved Stochastic, RevealCancel other Stochastic"`: a network does not know which image it is compared with.
# - `vary="epsilon=1e-6, P=0.9, mark_strength=0.3, model=cnn-norm"`: LRP that is all but gradient × input; maps that count more; a mark that saturates nothing; batch norm.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
print(
    "by hand, LRP and gradient × input show nothing:",
    abs(relevance["LRP-ε"]) + abs(relevance["gradient × input"]) < 1e-6,
)
print("by hand, DeepLIFT shows all of it:", abs(relevance["DeepLIFT"] - relevance["what the mark really adds"]) < 1e-6)

# %% tags=["nbval-check-output"]
checked = names[0]
adds = results[0]["metrics"][f"{checked}.added"]
whole = [results[0]["units"][checked][layer][1].sum().item() for layer in listed(layers)]
print(
    "secants add up to what the mark adds, at each layer, to a fifth:",
    all(abs(w - adds) < 0.2 * abs(adds) for w in whole),
)

# %% [markdown]
# ## Files

# %%
study.finish(results)
