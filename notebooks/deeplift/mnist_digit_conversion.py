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
# # Which pixels make an 8 an 8, and not a 3?
#
# **The question.** Erase the pixels of an 8 that a method scores highest for *8 rather than 3*. If the scores are right, the network
# now sees a 3. Whose scores turn it best?
#
# **The claim.** *DeepLIFT* (Shrikumar, Greenside, Kundaje, ICML 2017, [arXiv 1704.02685](https://arxiv.org/abs/1704.02685),
# section 4.1 and figure 4): with **RevealCancel** the log-odds fall further than with gradients, guided backprop, integrated
# gradients, or Rescale alone. Figure 4 is a picture of boxplots; there are no numbers to compare with in the paper.
#
# **What you will see.** A small network, trained here; nine methods' scores; the digits they leave; how far the log-odds
# fall and how many digits flip; and what each method costs. At the default scale, with scikit-learn's digits of 8 × 8 pixels, it takes
# under a minute. Such small digits are hard to read with pixels missing: the boxplots say more than the pictures. With
# `dataset="mnist"` (28 × 28) the pictures can be read. The scale `authors` uses the weights that the authors published.
#
# *Words*: a **score** of a pixel is how much it speaks for a class; *log-odds* of two classes is the logarithm of the ratio of their
# probabilities; an image *flips* if the other class becomes the more likely one; *masked* scores are 0 where the image is black.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, authors, paper or your own
dataset: str = "digits"  # digits (8×8, comes with scikit-learn) or mnist (python -m data_prep mnist)
network: str = "trained"  # trained (here), or authors (their weights; python -m data_prep deeplift_authors)
white: float = 1.0  # value of a white pixel; 255 as in the authors' notebook [white > 0]
conversions: str = "8→3, 8→6, 9→1, 4→1"  # from which class to which
pixels: int = 12  # how many are erased at most; 157 of MNIST's 784 in the paper [1 ≤ pixels ≤ 784]
n_train: int = 0  # number of training images, 0 for all [n_train ≥ 0]
epochs: int = 30  # passes over the training images [epochs ≥ 1]
batch_size: int = 32  # images a step [batch_size ≥ 1]
lr: float = 1.0e-3  # Adam's learning rate [lr > 0]
shown: str = "0, 1"  # which test images of each class are shown, from 0 [shown ≥ 0]
repeats: int = 10  # how often each method's time is taken [repeats ≥ 1]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds, each a network of its own; intervals are over images with one, over seeds with more
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/deeplift/mnist_digit_conversion
# %%
from functools import partial
from statistics import median

import pandas as pd
import torch
import yaml

import attrain as at
from attrain import explain, pixels_erased_log_odds
from attrain.training import correct, fit_fresh
from data_prep import dataset as data_module
from data_prep import deeplift_authors
from studies.bench.cost import seconds
from studies.files import NOTEBOOKS
from studies.nets.small import StridedCNN
from studies.pictures import charts
from studies.study import Study, progress

study = Study("deeplift/mnist_digit_conversion", globals())

# %% [markdown]
# ## The data
#
# Images of some classes, each to be turned into another class by erasing pixels.

# %%
source, size = data_module(dataset), {"digits": 8, "mnist": 28}[dataset]
data = source.load(size=size) if dataset == "digits" else source.load()
study.data(dataset, source.checksums())
if network == "authors":
    study.data("deeplift_authors", deeplift_authors.checksums())
data = {name: tensor.to(study.device) for name, tensor in data.items()}
train_x, train_y = white * data["train_x"][: n_train or None], data["train_y"][: n_train or None]
pairs = {pair.strip(): [int(c) for c in pair.split("→")] for pair in conversions.split(",")}
few = [int(i) for i in shown.split(",")]
if network not in ("trained", "authors"):
    raise ValueError(f"network must be trained or authors, got {network!r}")
originals = {pair: white * data["test_x"][data["test_y"] == own] for pair, (own, _) in pairs.items()}

# %% tags=["nbval-check-output"]
print(f"{dataset}: {len(train_x)} training images of {size} × {size} pixels, {len(data['test_y'])} test images")
print("to convert:", ", ".join(f"{pair} {len(x)} images" for pair, x in originals.items()))
print(f"network: {network}, {sum(p.numel() for p in StridedCNN(size).parameters())} parameters")

# %% [markdown]
# ## The scores
#
# Each method scores every pixel for its own class $o$ and for the other one, $t$; what counts is the difference
# $D = S_o - S_t$. All scores explain *logits*: what a softmax adds to all classes alike drops out of the difference.
#
# | method | score $S_c$ of a pixel $x$, reference 0 |
# |---|---|
# | \|gradient\|, masked | $\lvert g \rvert$ where $x > 0$ (Simonyan et al. 2013) |
# | guided backprop, masked | the guided gradient where $x > 0$ |
# | guided backprop × input | the guided gradient times $x$ |
# | gradient × input | $g\,x$ |
# | integrated gradients, 5 or 10 | $\overline{g}\,x$, over 5 or 10 steps from black to the image |
# | Rescale | DeepLIFT, with the secant of every ReLU |
# | RevealCancel | DeepLIFT, with positive and negative parts apart |
# | RevealCancel in dense layers | the same, with Rescale in the convolutions |

# %%
methods = {
    "gradient": at.Gradient(),
    "guided backprop × input": at.GuidedBackprop(),
    "gradient × input": at.InputXGradient(),
    "integrated gradients, 5": at.IntegratedGradients(0.0, 5),
    "integrated gradients, 10": at.IntegratedGradients(0.0, 10),
    "Rescale": at.DeepLift(),
    "RevealCancel": at.DeepLift(rule="reveal_cancel"),
    "RevealCancel in dense layers": at.DeepLift(rule="genomics"),
}


# %%
def scores(net, x, classes):
    """Of every method, the scores (N, 2, 1, H, W) for both classes (N, 2)."""
    parts = list(zip(x.split(256), classes.split(256)))
    maps = {
        name: torch.cat([explain(net, *part, method).heatmap for part in parts]) for name, method in methods.items()
    }
    ink, x = (x > 0)[:, None], x[:, None]
    guided = torch.where(ink, maps["guided backprop × input"] / x, 0)
    return {"|gradient|, masked": maps.pop("gradient").abs() * ink, "guided backprop, masked": guided, **maps}


# %% [markdown]
# ## The protocol
#
# Of the pixels with $D > 0$, at most the 157 highest are erased, a fifth of MNIST's 784 (12 of the 64 of the small digits): set to 0. The measure
# is the fall of the log-odds of $o$ against $t$, $\ln\frac{p_o}{p_t} = \text{logit}_o - \text{logit}_t$, before less after. Every
# test image of the class takes part, also those that the network misreads.


# %%
def convert(net, pair):
    """What erasing by every method's scores does to a class's images; of those that are shown, D and what is left."""
    x = originals[pair]
    classes = torch.tensor(pairs[pair], device=study.device).expand(len(x), 2)
    found = scores(net, x, classes)
    done = {name: pixels_erased_log_odds(net, x, s, classes, pixels) for name, s in found.items()}
    bar.update()
    return {
        "change": {name: result.change for name, result in done.items()},
        "flipped": {name: result.flipped for name, result in done.items()},
        "difference": {name: s[few, 0] - s[few, 1] for name, s in found.items()},
        "erased": {name: result.erased[few] / white for name, result in done.items()},
    }


# %% [markdown]
# Times are taken with the methods taking turns, so that a busy minute slows them all.


# %%
def times(net):
    """Seconds of each method for one class on 256 test images, the median; the methods take turns."""
    x = white * data["test_x"][:256]
    calls = {name: partial(explain, net, x, 0, method) for name, method in methods.items()}
    taken = {name: [] for name in calls}
    for turn in range(repeats + 1):  # the first is not counted
        for name, call in calls.items():
            taken[name] += [seconds(call, study.device)][turn == 0 :]
        bar.update()
    return {name: median(values) for name, values in taken.items()}


def trained(seed):
    if network == "authors":
        if dataset != "mnist" or seeds > 1:
            raise ValueError("network='authors' is one network for mnist: set dataset='mnist' and seeds=1")
        return deeplift_authors.mnist_network().to(study.device)
    settings = dict(epochs=epochs, batch_size=batch_size, lr=lr, on_epoch=bar.update)
    return fit_fresh(partial(StridedCNN, size), (train_x, train_y), seed=seed, **settings)[0]


# %% [markdown]
# A seed is a network of its own, with its own scores.

# %%
FALL = "median fall of log-odds"


def run(seed):
    """Train, convert and take times: what is returned here is kept, so that a run can resume."""
    net = trained(seed)
    metrics = {"accuracy": correct(net, white * data["test_x"], data["test_y"]).double().mean().item()}
    found = {pair: convert(net, pair) for pair in pairs}
    for pair, result in found.items():
        for name, change in result["change"].items():
            metrics[f"{pair}, {name}: {FALL}"] = change.double().quantile(0.5).item()
            metrics[f"{pair}, {name}: flipped"] = result["flipped"][name].double().mean().item()
    return {"found": found, "metrics": metrics | {f"{name}: seconds": t for name, t in times(net).items()}}


with progress(seeds * (epochs * (network == "trained") + len(pairs) + repeats + 1), "epochs and tests") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## A few digits
#
# The difference $D$ by each method. Red pixels speak for the class that the digit has, blue ones for the class that it is to become; the
# line is the digit's outline.

# %%
first = results[0]["found"]
names = list(first[next(iter(first))]["change"])
images = torch.cat([x[few].cpu() / white for x in originals.values()])
columns = [pair for pair in pairs for _ in few]
maps = {name: torch.cat([first[pair]["difference"][name] for pair in pairs]) for name in names}
drawn = ["gradient × input", "guided backprop × input", "integrated gradients, 10", "Rescale", "RevealCancel"]
figure = charts.map_rows(images, {name: maps[name] for name in drawn}, columns, size=0.95)
caption = "The red pixels are erased, the darkest first. Where do the methods differ?"
study.figure(
    figure,
    "scores",
    caption,
    "Digits and, below, the scores of their pixels by five methods, red for the digit's own class",
)

# %% [markdown]
# What is left without the highest scores, drawn smoothly. Does it look like the class on the right of the arrow?

# %%
left = {name: torch.cat([first[pair]["erased"][name] for pair in pairs]) for name in names}
figure = charts.image_rows(
    {"image": images, **{name: left[name] for name in drawn}}, columns, size=0.95, smooth=size < 16
)
caption = "Each column should turn into the class after the arrow. With 8 × 8 pixels that is hard to see, with MNIST it is not."
study.figure(figure, "erased", caption, "The same digits, whole and without the pixels that five methods score highest")

# %% [markdown]
# ## How far the log-odds fall
#
# All test images of each class, with the networks of all seeds. The further to the right, the better the scores tell the two
# classes apart.

# %%
changes = {p: {m: torch.stack([r["found"][p]["change"][m] for r in results]) for m in names} for p in pairs}
boxes = {pair: {name: change.flatten() for name, change in rows.items()} for pair, rows in changes.items()}
figure = charts.box_rows(boxes, "fall of the log-odds (quartiles, median, 5 to 95 %)")
caption = "Further right is better. Compare the medians (orange) of RevealCancel with those of the rows above it."
study.figure(
    figure,
    "log-odds",
    caption,
    "Boxplots of the fall of the log-odds, a panel for each conversion, a row for each method",
)


# %%
def cell(fall, flipped):
    return f"{fall:.{0 if white == 255 else 2}f} ({'–' if flipped is None else f'{flipped:.2f}'})"


def mean(metric):
    return sum(result["metrics"][metric] for result in results) / seeds


measured = {m: [(mean(f"{p}, {m}: {FALL}"), mean(f"{p}, {m}: flipped")) for p in pairs] for m in names}
table = pd.DataFrame({m: map(cell, *zip(*values)) for m, values in measured.items()}, index=[*pairs]).T
over = "the authors' network" if network == "authors" else f"mean over {seeds} seed" + "s" * (seeds > 1)
table.style.set_caption(f"Median fall of the log-odds (share of images that flip), {over}")

# %% [markdown]
# For the authors' network there is something to compare with: the same, measured with code that is written layer by layer
# for this network and shares nothing with this library (`layer_by_layer.yaml`). Other networks have no such table.

# %%
tables = yaml.safe_load((NOTEBOOKS / "deeplift/layer_by_layer.yaml").read_text("utf-8"))
comparable = network == "authors" and [*pairs] == tables["conversions"]
known = tables.get({1: "pixels from 0 to 1", 255: "raw pixels, 0 to 255"}.get(white), {}) if comparable else {}
both = [(*here, *there) for m in known for here, there in zip(measured[m], known[m])]
off = {"medians, relative": [abs(fall / f - 1) for fall, _, f, _ in both]}
off["flipped"] = [abs(flipped - f) for _, flipped, _, f in both if f is not None]
for what, values in off.items():
    if values:
        results[0]["metrics"][f"{what}: off from layer_by_layer.yaml by at most"] = max(values)
        print(f"{what}: off by {max(values):.4f} at most")
rows = {m: map(cell, *zip(*values)) for m, values in known.items()}
pd.DataFrame(rows, index=[*pairs]).T if known else None

# %% [markdown]
# ## What does it cost?
#
# The time of one map, beside that of gradient × input: one forward and one backward pass. *Rescale* needs no more passes,
# only secants in place of slopes and the activations of one black image. *Integrated gradients* need a forward and a backward pass for each step.

# %%
time = {name: [r["metrics"][f"{name}: seconds"] for r in results] for name in methods}
rows = {
    name: {
        "ms an image": f"{1000 / min(256, len(data['test_x'])) * median(values):.3f}",
        "gradient × input = 1": f"{median(a / b for a, b in zip(values, time['gradient × input'])):.2f}",
    }
    for name, values in time.items()
}
pd.DataFrame(rows).T.style.set_caption("Time of a map")

# %% [markdown]
# ## The claims
#
# How much further the log-odds fall with RevealCancel than with another method, on the same image with the same network. A
# claim *holds* if the whole 95 % interval lies where it says, *fails* if none of it does, and is *undecided* otherwise.

# %%
rivals = ["Rescale", "integrated gradients, 10", "gradient × input", "guided backprop × input"]
for pair, change in changes.items():
    for name in rivals:
        gain = (change["RevealCancel"] - change[name]).double()
        study.claim("deeplift-1", gain.numpy(), of=f"{pair}, RevealCancel − {name}")
study.claim("deeplift-4", [a / b for a, b in zip(time["Rescale"], time["gradient × input"])])
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    pairs = ("8→3", "8→6", "9→1", "4→1")
    rivals = ["Rescale", "integrated gradients, 10", "gradient × input", "guided backprop × input"]
    gains = [m["deeplift-1", f"{pair}, RevealCancel − {name}"] for pair in pairs for name in rivals]
    won = sum(gain > 0 for gain in gains)
    yield (
        True,
        f"RevealCancel makes the log-odds fall further than its rivals in {won} of {len(gains)} comparisons, by {min(gains):.1f} to {max(gains):.1f} nats on average.",
    )
    flipped = {name: m[f"8→6, {name}: flipped"] for name in ("RevealCancel", *rivals)}
    second = max(rivals, key=flipped.get)
    yield (
        True,
        f"It turns {flipped['RevealCancel']:.0%} of the 8s into 6s; the next best of these, {second}, {flipped[second]:.0%}.",
    )
    yield True, f"A map by Rescale takes {m['deeplift-4', '']:.1f} times as long as gradient × input."


study.tell(came_out, results)

# %% [markdown]
# ## What to try next
#
# - `conversions="1→7, 7→1, 5→6, 6→5"`: does RevealCancel lead there too? Conversions that must *add* ink cannot be made by erasing.
# - `white=255`: with raw pixels the biases hardly count, a ReLU network is then nearly proportional to its input, and gradient ×
#   input, integrated gradients and Rescale are nearly the same thing. The authors' notebook is run so; their weights have a
#   cross-entropy of 5.7 there, against 0.03 with pixels up to 1.
# - `pixels=4`: does the order of the methods depend on how much is erased?
# - A method of your own: a row in `methods`. Why these methods differ at all: [toy_networks](toy_networks.ipynb).

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
print("more than 95 % of the test images are read correctly:", all(r["metrics"]["accuracy"] > 0.95 for r in results))

# %% tags=["nbval-check-output"]
for name in rivals:
    better = sum(claim["measured"]["mean"] > 0 for claim in study.claims if claim["of"].endswith(f"− {name}"))
    print(f"RevealCancel does better than {name} in {better} of {len(pairs)} conversions")

# %% [markdown]
# ## Files

# %%
study.finish(results)
