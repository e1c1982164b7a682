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
# # Does a classifier look at the digit, or at the mark in the corner?
#
# **The question.** A bright mark in the border tells the class of every training image. Will a network still
# read the digit when the mark is gone, or when it lies?
#
# **The claim.** *Faster ISNet* (Bassi, Decherchi, Cavalli, IEEE Access 2024, [arXiv 2401.08409](https://arxiv.org/abs/2401.08409),
# abstract): a network that minimises the **background relevance of its own LRP map while it trains** ignores such marks,
# keeps its accuracy, and needs one map an image however many classes there are. Nothing is added at test time.
#
# **What you will see.** A standard network that is perfect until the mark lies, two ISNets that hardly notice, and
# the maps that show why. Change a parameter below and run all: at the default scale it takes under a minute.
#
# The geometry of the mark is ours: the article's could not be recovered.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
dataset: str = "digits"  # digits (comes with scikit-learn) or mnist (python -m data_prep mnist)
n_train: int = 0  # number of training images, 0 for all
mark_size: int = 2  # edge of the mark in pixels, 1 to 5
model: str = "cnn"  # cnn (three convolutions), resnet18, resnet34 or resnet50
epochs: int = 15  # passes over the training images
batch_size: int = 32  # images a step
optimizer: str = "adam"  # adam, or sgd with momentum 0.9
lr: float = 2.0e-3  # learning rate
P: float = 0.7  # weight of the heatmap loss, 0 (none) to 1
decay: float = 0.9  # GWRP's d: 0 punishes the most relevant background pixel, 1 the mean
epsilon: float = 1.0e-2  # LRP's ε: activations well below it send no relevance back
selective_eps: float = 1.0e-7  # Selective ISNet's ε; at 1e-2 its maps vanish as the network grows confident
range_images: int = 3000  # images that a plain network sees before its maps set C1 and C2
seed: int = 0  # first seed
seeds: int = 1  # number of seeds; intervals are over images with one, over seeds with more
device: str = "cpu"  # cpu, cuda, cuda:1, mps
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/isnet/mnist_background_bias

# %%
from functools import partial

import pandas as pd
import torch
from tqdm import tqdm

from attrain import LRP, ZB, background_share, explain, plots, selective_target, stochastic_target
from attrain.models import classifier
from attrain.study import Study, estimate
from attrain.training import correct, estimate_foreground_range, fit, isnet_step, plain_step
from data_prep import dataset as data_module
from data_prep.marks import add_mark, foreground_mask, other_classes

study = Study("isnet/mnist_background_bias", globals())

# %% [markdown]
# ## The data: three tests of one network
#
# In training **every** image carries the mark of its class. Three tests share the same digits:
# *biased* (marked as in training), *unbiased* (no mark) and *deceiving* (the mark of another class).
# A network that reads digits does equally well on all three. Find the mark in the first and the last row.

# %%
source = data_module(dataset)
data = {name: tensor.to(study.device) for name, tensor in source.load().items()}
study.data(dataset, source.checksums())
n = n_train or len(data["train_x"])
images, labels = data["train_x"][:n], data["train_y"][:n]
masks, marked = foreground_mask(images), add_mark(images, labels, mark_size)
digits, truth = data["test_x"], data["test_y"]
tests = {
    "biased": add_mark(digits, truth, mark_size),
    "unbiased": digits,
    "deceiving": add_mark(digits, other_classes(truth), mark_size),
}
shown = [int((truth == c).nonzero()[0]) for c in range(10)]
figure = plots.image_rows({name: x[shown].cpu() for name, x in tests.items()}, titles=[f"class {c}" for c in range(10)])
study.figure(figure, "tests")

# %% tags=["nbval-check-output"]
print(f"{dataset}: {len(images)} training and {len(digits)} test images of {tuple(images.shape[1:])}")
print(
    f"digit (foreground) covers {masks.float().mean():.0%} of an image, the mark {mark_size**2 / images[0].numel():.1%}"
)

# %% [markdown]
# ## The method: train on the map as well as on the label
#
# LRP-ε of a ReLU network is gradient × input with one change: on its way back, the gradient is multiplied by
# $y/(y+\varepsilon)$ at a ReLU with output $y$. The map $R$ is an ordinary function of the weights, so it can be trained on:
#
# $$L = (1-P)\,\mathrm{CE} + P\,(L_\mathrm{bg} + L_\mathrm{fg}), \qquad
# L_\mathrm{bg} = \ln\Big(1+\tfrac{B}{E}\Big), \qquad
# L_\mathrm{fg} = \big(\min(\tfrac{F}{C_1},1)-1\big)^2 + \big(\max(\tfrac{F}{C_1},\tfrac{C_2}{C_1})-\tfrac{C_2}{C_1}\big)^2$$
#
# $B$ ranks the background's $|R|$ (relative to the foreground's mean) and weighs rank $r$ by $d^r$, so a few bright
# pixels cannot hide in a black border. $F=\sum_\mathrm{foreground}|R|$ is held in its natural range $[C_1, C_2]$, which is
# read off a briefly trained plain network; without it the map could simply fade away. At the input the
# $z^B$ rule is used: a *black* pixel is evidence too, though gradient × input gives it none.
#
# The variants differ in which number is explained: **Selective** takes the log-odds of the least likely class,
# **Stochastic** the top logit or, in more than half of the draws, another one. Either way it is one map an image.

# %%
lrp = LRP(epsilon=epsilon, first_layer=ZB(low=0.0, high=1.0))
first, passes = slice(range_images), max(1, range_images // len(images))


def train(seed, step=plain_step, x=marked, part=slice(None), epochs=epochs):
    """A fresh network and its training curves; all networks of a seed start from the same weights."""
    torch.manual_seed(seed)
    net = classifier(model, channels=images.shape[1]).to(study.device)
    settings = dict(epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer, clip=1.0)
    order = torch.Generator().manual_seed(seed)
    return net, fit(net, (x[part], labels[part], masks[part]), step, **settings, generator=order, on_epoch=bar.update)


def isnet(seed, make_target, plain):
    """An ISNet, with C1 and C2 from the maps of a plain network."""
    C1, C2 = estimate_foreground_range(plain, marked[first].split(256), target=make_target(), method=lrp)
    step = partial(isnet_step, target=make_target(), method=lrp, P=P, decay=decay, C1=C1, C2=C2)
    return train(seed, step)


# %%
def measure(networks):
    """Of each network: which test images it gets right, its share of background relevance, and a few maps."""
    result = {"metrics": {}, "correct": {}, "maps": {}}
    for name, net in networks.items():
        result["correct"][name] = {test: correct(net, x, truth).cpu() for test, x in tests.items()}
        result["metrics"] |= {f"{name}.{t}": c.double().mean().item() for t, c in result["correct"][name].items()}
        heatmaps = torch.cat([explain(net, x, method=lrp).heatmap for x in tests["biased"].split(500)])
        share = background_share(heatmaps, foreground_mask(digits))
        result["metrics"][f"{name}.background_share"] = share.nanmean().item()
        result["maps"][name] = {t: explain(net, x[shown], method=lrp).heatmap.cpu() for t, x in tests.items()}
    return result


# %% [markdown]
# One seed trains four networks with the same settings: *standard*, *Selective* and *Stochastic* on marked images, and
# *unmarked*, a standard network trained without marks, as the yardstick for what is possible.


# %%
def run(seed):
    """Train with this seed and measure: what is returned here is kept, so that a run can resume."""
    plain, _ = train(seed, part=first, epochs=passes)
    draws = partial(stochastic_target, torch.Generator().manual_seed(seed))
    trained = {
        "standard": train(seed),
        "Selective": isnet(seed, partial(selective_target, selective_eps), plain),
        "Stochastic": isnet(seed, draws, plain),
        "unmarked": train(seed, x=images),
    }
    curves = {name: curve for name, (_, curve) in trained.items()}
    return {"curves": curves} | measure({name: net for name, (net, _) in trained.items()})


with tqdm(total=seeds * (passes + 4 * epochs), desc="epochs") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## Who reads the digit?
#
# Look at the third bar of each group. The *standard* network is best of all where the mark is right, and worst where it lies.

# %%
models = list(results[0]["correct"])
values = {m: {t: [r["metrics"][f"{m}.{t}"] for r in results] for t in tests} for m in models}
right = {m: {t: torch.stack([r["correct"][m][t] for r in results]).double().numpy() for t in tests} for m in models}
accuracy = {m: {t: estimate(right[m][t]) for t in tests} for m in models}
figure = plots.interval_bars(accuracy, "accuracy", dots=values if seeds > 1 else None)
study.figure(figure, "accuracy")

# %%
table = pd.DataFrame(
    {m: {t: f"{a['mean']:.3f} [{a['low']:.3f}, {a['high']:.3f}]" for t, a in accuracy[m].items()} for m in models}
).T
share = {m: sum(r["metrics"][f"{m}.background_share"] for r in results) / seeds for m in models}
table["background share of |R|"] = pd.Series(share).map("{:.4f}".format)
table.style.set_caption(f"Accuracy with 95 % interval ({accuracy['standard']['biased']['interval']})")

# %% tags=["nbval-check-output"]
standard, selective = accuracy["standard"], accuracy["Selective"]
print("standard loses more than half of its accuracy to a deceiving mark:", standard["deceiving"]["mean"] < 0.5)
print(
    "Selective ISNet beats it there by more than 50 points:",
    selective["deceiving"]["mean"] > standard["deceiving"]["mean"] + 0.5,
)

# %% [markdown]
# ## What the maps say
#
# The same ten *deceiving* images, explained by each network for the class it predicts. Red speaks for that class, blue
# against it; the grey line is the digit's outline. Where is the standard network looking?
#
# (A low share of background relevance alone proves nothing: ISNet's own gradient × input ablation reaches one
# and still falls for the mark. The deceiving accuracy above is the proof, the map is the explanation.)

# %%
maps = {name: results[0]["maps"][name]["deceiving"] for name in models}
figure = plots.map_rows(tests["deceiving"][shown].cpu(), maps, titles=[f"class {c}" for c in range(10)])
study.figure(figure, "maps")

# %% [markdown]
# ## How they learned
#
# The shortcut is learned at once: the standard network is done after two epochs. The ISNets learn the harder thing,
# and their two heatmap losses say how: relevance leaves the background while its amount stays in range.

# %%
panels = {"accuracy": "training accuracy", "background": "background loss", "foreground": "foreground loss"}
lines = {
    title: {m: [r["curves"][m][key] for r in results] for m in models if key in results[0]["curves"][m]}
    for key, title in panels.items()
}
figure = plots.curves(lines)
study.figure(figure, "curves")

# %% [markdown]
# ## The claims
#
# A claim *holds* if the whole 95 % interval lies where the claim says, *fails* if none of it does, and is *undecided* otherwise.

# %%
isnets = ("Selective", "Stochastic")
shares = {m: [r["metrics"][f"{m}.background_share"] for r in results] for m in models}
study.claim("isnet-1", right["standard"]["biased"] - right["standard"]["deceiving"])
for m in isnets:
    for t in ("unbiased", "deceiving"):
        study.claim("isnet-2", right[m]["biased"] - right[m][t], of=f"{m}, biased − {t}")
for m in isnets:
    study.claim("isnet-3", right[m]["unbiased"] - right["unmarked"]["unbiased"], of=m)
for m in isnets:
    study.claim("isnet-4", [a / b for a, b in zip(shares[m], shares["standard"])], of=m)
study.claims_table()

# %% tags=["nbval-check-output"]
print("the standard classifier uses the shortcut:", study.claims[0]["verdict"])

# %% [markdown]
# ## What to try next
#
# - `mark_size=1`: a smaller mark. `P=0.3` or `decay=1.0`: a gentler penalty. When does the shortcut come back?
# - `epsilon=1e-4`, and longer training. The README has two laptop records: after eight passes over 20,000 MNIST images,
#   ISNets with the article's ε = 1e-2 fall for the deceiving mark again, with spotless maps; with 1e-4 most do not.
#   Where does the mark go in? Explaining those networks with a smaller ε does not show it.
# - `selective_eps=1e-2`: the authors' run script uses it. C1 and C2 read off maps that vanish with confidence are tiny;
#   what happens to accuracy?
# - `dataset="mnist"` with more seeds: `make reproduce SCALE=laptop EXPERIMENTS=isnet/mnist_background_bias`.

# %%
study.finish(results)
