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
# # Three tiny networks that fool a gradient
#
# **The question.** A network of one ReLU has an output that anyone can follow by hand. Do attribution methods say
# of it what we would say?
#
# **The claim.** *DeepLIFT* (Shrikumar, Greenside, Kundaje, ICML 2017, [arXiv 1704.02685](https://arxiv.org/abs/1704.02685),
# figures 1 to 3): gradients fall silent where a unit *saturates*, jump where it passes a *threshold*, and of two inputs of
# which the *smaller* counts, most methods see one only. Contributions of *differences from a reference* fail neither
# at saturation nor at a threshold, and DeepLIFT's RevealCancel sees both inputs.
#
# **What you will see.** Each network along a path of inputs, by six methods: the two inputs' contributions in colour, and
# in grey what they should add up to. In JupyterLab there are sliders. Then: is any of this rare?
#
# *Words*: a **contribution** is what an input adds to the output; a **reference** is the input that one compares with; *Shapley values* divide an
# output by what each input adds on average, in the absence and in the presence of the other.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
steps: int = 10  # integrated gradients' steps [steps ≥ 1]
networks: int = 100  # random networks of the last section [networks ≥ 1]
hidden: int = 8  # their units in each hidden layer [hidden ≥ 1]
depth: int = 2  # their hidden layers [depth ≥ 1]
inputs: int = 50  # inputs of each [inputs ≥ 1]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds, each with random networks of its own
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/deeplift/toy_networks
# %%
from itertools import pairwise

import pandas as pd
import torch
from torch import nn, relu

import attrain as at
from attrain import explain
from attrain.metrics import completeness_error
from studies.pictures import charts
from studies.pictures.explorer import somebody_is_there
from studies.statistics import estimate, interval, number
from studies.study import Study, progress

try:
    from ipywidgets import FloatSlider, interact
except ImportError:  # it comes with JupyterLab; without it there are pictures, but no sliders
    interact = None
study = Study("deeplift/toy_networks", globals())

# %% [markdown]
# ## The networks, and the methods
#
# | network | output | reference | figure |
# |---|---|---|---|
# | saturation | $y = 1 - \max(0,\ 1 - i_1 - i_2)$ | $i_1 = i_2 = 0$ | 1 |
# | threshold | $y = \max(0,\ x - 10)$ | $x = 0$ | 2 |
# | minimum | $y = i_1 - \max(0,\ i_1 - i_2) = \min(i_1, i_2)$ | $i_1 = i_2 = 0$ | 3 |
#
# Written as plain functions: `explain` intercepts operations, so there need be no modules.


# %%
class Toy(nn.Module):
    """A function of single inputs as a network: (N, inputs) -> (N, 1)."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(*x.split(1, dim=1))


toys = {
    "saturation": Toy(lambda i1, i2: 1 - relu(1 - i1 - i2)),
    "threshold": Toy(lambda x: relu(x - 10)),
    "minimum": Toy(lambda i1, i2: i1 - relu(i1 - i2)),
}
paths = {"saturation": (0, 2), "threshold": (0, 20), "minimum": (0, 4)}  # of the first input

# %% [markdown]
# Six methods, each asked for the contributions of the inputs at some points.

# %%
methods = {
    "gradient": at.Gradient(),
    "gradient × input": at.InputXGradient(),
    "guided backprop": at.GuidedBackprop(),
    "integrated gradients": at.IntegratedGradients(0.0, steps),
    "Rescale": at.DeepLift(),
    "RevealCancel": at.DeepLift(rule="reveal_cancel"),
}


def contributions(toy, points):
    """Of each method, the contributions (N, inputs) at these points, from the reference 0."""
    x = torch.tensor(points, dtype=torch.float64, device=study.device)
    return {name: explain(toy, x, 0, method).heatmap.cpu() for name, method in methods.items()}


def listed(values):
    return "(" + ", ".join(f"{round(float(value), 3) + 0.0:g}" for value in values) + ")"


# %% [markdown]
# A picture moves the first input along a path, for each method; in JupyterLab sliders choose the point at which the numbers in the
# titles are taken.


# %%
def picture(name, first, second=None):
    """Every method's contributions as the first input moves along its path, and in the titles those at one point."""
    low, high = paths[name]
    places = torch.linspace(low, high, 81, dtype=torch.float64).tolist()
    rest = [] if second is None else [second]
    points = [[place, *rest] for place in [*places, first]]
    x = torch.tensor(points, dtype=torch.float64)
    rise = (toys[name](x) - toys[name](0 * x))[:-1, 0]
    names = ["input 1", "input 2"] if rest else ["input"]
    panels = {}
    for method, found in contributions(toys[name], points).items():
        lines = {label: [line] for label, line in zip(names, found[:-1].T.tolist())}
        panels[f"{method}\n{listed(found[-1])}"] = {"y − y(reference)": [rise.tolist()], **lines}
    options = dict(ylabel="contribution", controls=["y − y(reference)"], size=(2.1, 2.9))
    figure = charts.curves(panels, names[0], places, **options)
    for axis in figure.axes:
        axis.axvline(first, color="0.7", linewidth=0.8)
    return figure


# %%
def play(name, **start):
    """Sliders where there are any, else the picture at the start; the record keeps the latter."""

    def move(**point):
        picture(name, **point)

    figure = picture(name, **start)
    caption = "Coloured lines should add up to the grey dotted one. In the titles: contributions at the vertical line."
    study.figure(
        figure,
        name,
        caption,
        f"Contributions of the inputs of the network *{name}* along a path, a panel for each of six methods",
    )
    if interact and somebody_is_there():
        low, high = paths[name]
        sliders = {label: FloatSlider(value, min=low, max=high) for label, value in start.items()}
        interact(move, **sliders)


# %% [markdown]
# ## Figure 1: saturation
#
# The output rises with $i_1 + i_2$ up to 1, and stays there. At (1.5, 0.5) it is 1 instead of 0, *because of the inputs*; yet
# nothing changes if one of them moves a little, so the **gradient is 0**, and with it gradient × input. Guided backprop
# drops the negative gradient at the ReLU everywhere. *Integrated gradients* look at the way from the reference, here at a few points of it.
# **Rescale** takes the secant, $\Delta h/\Delta(1 - i_1 - i_2)$ in place of the slope, and shares the rise of 1 as 0.75 and 0.25.
#
# The grey line is what a complete method adds up to. (Titles: contributions at the vertical line.)

# %%
play("saturation", first=1.5, second=0.5)

# %% [markdown]
# ## Figure 2: threshold
#
# Below 10 nothing happens. Just above it the output is just above 0, but **gradient × input jumps to 10**: its sum
# holds only with the bias, to which it gives −10. A difference from the reference has no bias to blame: *Rescale* is continuous.

# %%
play("threshold", first=12.0)

# %% [markdown]
# ## Figure 3: the smaller one counts
#
# For $y = \min(i_1, i_2)$ all methods but one give everything to a single input, the **smaller** one; and guided backprop, which
# drops the negative gradient of $i_1 - i_2$, gives $i_1$ to the first input *even where that is the larger*. But were either
# input 0, the output would be 0. **RevealCancel** splits the difference that reaches the ReLU into its positive
# and its negative part, and asks for the effect of each in the absence and in the presence of the other:
#
# $$\Delta y^{\pm} = \tfrac12\big[f(r + \Delta x^{\pm}) - f(r)\big] + \tfrac12\big[f(r + \Delta x^{+} + \Delta x^{-}) - f(r + \Delta x^{\mp})\big]$$
#
# These are the Shapley values of the two parts (section 3.5.3). At (3, 2) either input gets half of the output of 2.

# %%
play("minimum", first=3.0, second=2.0)

# %% [markdown]
# ## Number by number
#
# All six methods at a few points, and the values that DeepLIFT's two rules give by hand.

# %%
by_hand = {  # network, point: Rescale, RevealCancel
    ("saturation", (1, 1)): ((0.5, 0.5), (0.5, 0.5)),
    ("saturation", (1, 0)): ((1, 0), (1, 0)),
    ("saturation", (2, 1)): ((2 / 3, 1 / 3), (2 / 3, 1 / 3)),
    ("threshold", (9,)): ((0,), (0,)),
    ("threshold", (10.001,)): ((0.001,), (0.001,)),
    ("threshold", (20,)): ((10,), (10,)),
    ("minimum", (3, 2)): ((0, 2), (1, 1)),
    ("minimum", (2, 3)): ((2, 0), (1, 1)),
    ("minimum", (5, 1)): ((0, 1), (0.5, 0.5)),
    ("minimum", (1, 1)): ((1, 0), (0.5, 0.5)),
}
found = {(name, point): contributions(toys[name], [point]) for name, point in by_hand}
rows = {f"{name} {listed(p)}": {m: listed(c[0]) for m, c in given.items()} for (name, p), given in found.items()}
pd.DataFrame(rows).T.style.set_caption("Contributions of the inputs, from the reference 0")

# %% [markdown]
# ## Is this rare?
#
# Networks of two inputs drawn at random, and random inputs. Two measures, both exact:
#
# - Does a method **add up**? The share of the inputs at which its sum misses $y - y(\text{reference})$ by more than a tenth.
# - Does it divide **as Shapley values do**? With two inputs they are easy: the effect of each in the absence and in the
#   presence of the other, averaged. $\sum_i |C_i - \phi_i| \,/\, \sum_i |\phi_i|$, the median over a network's inputs.
#
# Where both Shapley values are 0 there is nothing to divide: the second measure leaves such an input out if the method gives it
# nothing either. A network whose output is the same at all its inputs is drawn anew.


# %%
def random_network():
    """Linear layers and ReLUs from two inputs to one output, with weights and biases from torch's global generator."""
    sizes = [2, *[hidden] * depth]
    layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(hidden, 1)).double().to(study.device)


@torch.no_grad()
def shapley(net, x):
    """The Shapley values of two inputs against 0, (N, 2)."""
    none, both = net(0 * x), net(x)
    first, second = net(x * x.new_tensor([1, 0])), net(x * x.new_tensor([0, 1]))
    return torch.cat([first - none + both - second, second - none + both - first], 1).cpu() / 2


# %%
def drawn():
    """A random network, inputs (N, 2), and their Shapley values."""
    while True:
        net, x = random_network(), 2 * torch.randn(inputs, 2, dtype=torch.float64)
        values = shapley(net, x.to(study.device))
        if values.any():
            return net, x, values


# %% [markdown]
# Each seed draws its own networks.


# %%
def run(seed):
    """Both measures of each method, one number for each network, and their means."""
    measured = {f"{name}: {what}": [] for name in list(methods)[1:] for what in ("off by a tenth", "from Shapley")}
    for _ in range(networks):
        net, x, values = drawn()
        for name, found in list(contributions(net, x.tolist()).items())[1:]:
            off = completeness_error(found, values.sum(1)) > 0.1
            apart = (found - values).abs().sum(1) / values.abs().sum(1)
            measured[f"{name}: off by a tenth"].append(off.double().mean())
            measured[f"{name}: from Shapley"].append(apart.nanmedian())  # 0 / 0 is left out
        bar.update()
    measured = {name: torch.stack(values) for name, values in measured.items()}
    return {"measured": measured, "metrics": {name: values.mean().item() for name, values in measured.items()}}


with progress(seeds * networks, "networks") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %%
titles = {"off by a tenth": "share of inputs with a sum off by a tenth", "from Shapley": "distance from Shapley values"}
rows = {
    name: {
        title: estimate([r["measured"][f"{name}: {what}"].tolist() for r in results]) for what, title in titles.items()
    }
    for name in list(methods)[1:]
}
caption = "In both panels 0 is best. Left: how often the contributions do not add up. Right: how far they are from Shapley values."
figure = charts.interval_panels(rows)
study.figure(
    figure, "random networks", caption, "Two measures of five methods on random networks, a panel each, with intervals"
)
words = {name: {title: f"{number(e['mean'])} {interval(e)}" for title, e in row.items()} for name, row in rows.items()}
over = f"{seeds} seeds" if seeds > 1 else f"{networks} networks"
pd.DataFrame(words).T.style.set_caption(f"Means, with 95 % intervals over {over}")

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers; the networks of the figures are the same at every scale.


# %%
def came_out(m):
    compared = ("gradient × input", "guided backprop", "integrated gradients", "Rescale", "RevealCancel")
    off = {name: m[f"{name}: off by a tenth"] for name in compared}
    apart = {name: m[f"{name}: from Shapley"] for name in compared}
    exact = [name for name in off if off[name] == 0]
    missed = f"gradient × input {off['gradient × input']:.0%}, integrated gradients {off['integrated gradients']:.0%}"
    yield True, f"Share of random networks' outputs that the sum misses by more than a tenth: {missed}."
    yield bool(exact), f"The sums of {' and '.join(exact)} are always right."
    closest = min(apart, key=apart.get)
    yield (
        True,
        f"Closest to the Shapley values is {closest}, {apart[closest]:.2f} away; gradient × input is {apart['gradient × input']:.2f} away.",
    )


study.tell(came_out, results)

# %% [markdown]
# ## What to try next
#
# - `depth=1`: RevealCancel and Shapley values differ even there. Why? (It pairs all positive parts against all negative ones.)
# - A toy of your own: a row in `toys` and one in `paths`; `Toy(lambda i1, i2: relu(i1) * torch.sigmoid(i2))`, say.
# - Another reference: `at.DeepLift(reference=1.0)`. What is the fair one for a minimum?
# - The same at scale: [mnist_digit_conversion](mnist_digit_conversion.ipynb).

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
for (name, point), values in by_hand.items():
    for rule, value in zip(("Rescale", "RevealCancel"), values):
        given = found[name, point][rule][0]
        right = torch.allclose(given, torch.tensor(value, dtype=torch.float64), rtol=0, atol=1e-12)
        print(f"{name} {listed(point)}: {rule} {listed(given)},", "as" if right else f"but {value}", "by hand")

# %% [markdown]
# The same for RevealCancel at any point, straight from its formula: of $i_1 - \max(0, i_1 - i_2)$ the ReLU receives
# $\Delta x^+ = i_1$ and $\Delta x^- = -i_2$.

# %% tags=["nbval-check-output"]
points = 10 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
up, down = points[:, 0], -points[:, 1]
effect_up = (relu(up) - relu(0 * up)) / 2 + (relu(up + down) - relu(down)) / 2
effect_down = (relu(down) - relu(0 * up)) / 2 + (relu(up + down) - relu(up)) / 2
formula = torch.stack([points[:, 0] - effect_up, -effect_down], 1)
given = contributions(toys["minimum"], points.tolist())
print("RevealCancel is its formula at 1000 points:", torch.allclose(given["RevealCancel"], formula, atol=1e-12))
print("and half of the minimum each:", torch.allclose(formula, points.min(1, keepdim=True).values / 2, atol=1e-12))
larger = points[:, 0] > points[:, 1]
print(
    "guided backprop gives all to the first input where it is the larger:",
    not given["guided backprop"][larger, 1].any(),
)

# %% tags=["nbval-check-output"]
for name, row in rows.items():
    print(f"{name}:", "always adds up" if row[titles["off by a tenth"]]["mean"] == 0 else "does not always add up")
closest = min(rows, key=lambda name: rows[name][titles["from Shapley"]]["mean"])
print("closest to Shapley values:", closest)

# %% [markdown]
# ## Files

# %%
study.finish(results)
