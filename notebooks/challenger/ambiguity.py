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
# # Where is a network unsure, and is it right to be?
#
# **The question.** Near the boundary of two classes a network that has seen few samples is *ambiguous*: it draws its own
# boundary somewhere else, and does not know it. Does training on challenged samples move that boundary to where it belongs?
#
# **The claim.** *Challenger* (Tomani, Cremers 2022, [arXiv 2205.15094](https://arxiv.org/abs/2205.15094), abstract):
# manipulating the most relevant input patterns during training exposes, and then resolves, **regions of ambiguity
# between classes on the ground-truth data manifold**.
#
# **A reconstruction.** Only the abstract could be read. What "manipulate" means here is ours (`attrain.challenger.Challenger`), and so
# is this test: nothing below can be compared with a number of the paper's.
#
# **What you will see.** A data manifold that we made, so that its boundary is known exactly: the error and the confidence
# of networks along the distance to it, their decision surfaces, and where a challenged sample really goes. By default there are two seeds,
# which decide nothing.
#
# *Words*: the **manifold** is the surface on which the data lie; **ECE** says how far confidence and accuracy are apart; **NLL** is the negative log-likelihood of the
# true class, in nats; **FGSM**, the fast gradient sign method, trains on inputs pushed along the sign of the gradient; *permuted* is Challenger with its map's
# values at other, randomly drawn positions; *Holm's correction* makes p-values larger, for the number of comparisons.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
boundary: str = "wave"  # true boundary between the classes: wave or spiral
sizes: str = "50"  # numbers of training samples, as "20, 50, 200" [sizes ≥ 2]
methods: str = "plain, mixup, FGSM, Challenger, permuted"  # what to train, see the table below
dim: int = 50  # dimensions that the surface is bent into, even [dim ≥ 4 and not dim % 2]
frequency: float = 1.5  # how strongly it is bent [frequency > 0]
surface: int = 0  # seed of the surface [0 ≤ surface < 2**32]
noise: float = 0.0  # standard deviation of training samples' noise at right angles to the surface [noise ≥ 0]
test_noise: str = "0.5, 1"  # that of further test sets; the first test set lies on the surface [test_noise ≥ 0]
near: float = 0.2  # share of the surface, nearest to the true boundary, that counts as near it [0 < near ≤ 1]
side: int = 100  # the test set is a grid of side × side points [side ≥ 2]
width: int = 64  # units of each of the two hidden layers [width ≥ 1]
steps: int = 300  # optimiser steps [steps ≥ 1]
batch_size: int = 32  # samples a step [batch_size ≥ 1]
lr: float = 1.0e-3  # learning rate of Adam [lr > 0]
tuning_seeds: int = 1  # seeds 100, 101, … on which each method's settings are chosen [tuning_seeds ≥ 1]
seed: int = 0  # first seed
seeds: int = 2  # number of seeds; intervals are over seeds
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/challenger/ambiguity
# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn

from attrain.challenger import Challenger
from attrain.metrics import calibration
from attrain.training import plain_step
from attrain.training.regularisers import fgsm_step, label_smoothing_step, mixup_step, noise_step
from data_prep import curved_plane
from studies.pictures import charts
from studies.pictures.learning import decision_surface
from studies.search import balanced_subset, best_settings, paired_tests, predict, searched, train
from studies.study import Study, check_known, listed, progress

study = Study("challenger/ambiguity", globals())
names, ns, off = listed(methods), [*map(int, listed(sizes))], [*map(float, listed(test_noise))]

# %% [markdown]
# ## The data: a square, bent into fifty dimensions
#
# A sample has two coordinates $u \in [-1, 1]^2$ that nobody sees. What the network sees is
#
# $$x(u) = \sqrt2\,\big(\cos(\omega_1\!\cdot u + \varphi_1), \sin(\omega_1\!\cdot u + \varphi_1), \ldots\big) \in \mathbb{R}^{50},
# \qquad \textstyle\sum_k \omega_k\omega_k^\top \propto I$$
#
# with random frequencies: a surface that is bent in every direction but **stretched nowhere**, so that distances along it are
# those of the square. The class changes across a known curve. On the left the square with the training samples of the
# first seed, on the right the surface, in the three directions of greatest variance.

# %%
plane, sheet = curved_plane.grid(side), curved_plane.Surface(dim, frequency, surface)
known = curved_plane.truth(plane, boundary)
distance, y = known["distance"].abs(), known["y"].to(study.device)
close = distance <= distance.quantile(near)
draws = torch.Generator().manual_seed(surface)
tests = {sd: (sheet.embed(plane) + sheet.noise(plane, sd, draws)).to(study.device) for sd in (0.0, *off)}
study.data("curved_plane", curved_plane.checksums())


def samples(seed, n):
    """Training samples of a seed, equally many of each class, and 1,000 others at most to choose settings on."""
    data = curved_plane.load(None, 2000, seed, boundary, dim, frequency, surface, noise)
    data = {name: tensor.to(study.device) for name, tensor in data.items()}
    chosen, others = balanced_subset(data["y"], n, torch.Generator().manual_seed(seed))
    return tuple({name: tensor[index] for name, tensor in data.items()} for index in (chosen, others[:1000]))


# %% [markdown]
# The picture of the data:


# %%
def square(values):
    return values.cpu().reshape(side, side).numpy()


first = samples(seed, max(ns))[0]
colours = plt.get_cmap("RdBu_r")(square(0.5 + (y.cpu() - 0.5) * torch.where(close, 0.3, 0.7)))
centred = tests[0.0].cpu() - tests[0.0].cpu().mean(0)
space = centred @ torch.linalg.svd(centred, full_matrices=False)[2][:3].T
figure = plt.figure(figsize=(8, 3.6), layout="constrained")
flat, bent = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
flat.imshow(colours, origin="lower", extent=(-1, 1, -1, 1))
for c, marker in enumerate("o^"):
    flat.scatter(*first["u"][first["y"] == c].cpu().T, color=("#053061", "#67001F")[c], marker=marker, s=20)
flat.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), title="the square $u$, pale where it counts as near")
bent.plot_surface(*map(square, space.T), facecolors=colours, rcount=100, ccount=100, linewidth=0)
bent.set(xticklabels=[], yticklabels=[], zticklabels=[], title=f"the surface $x(u)$, three of {dim} directions")
caption = "Left: the pale band along the wave is where classes meet, and where few of the points lie. Right: the same colours on the bent surface."
study.figure(
    figure, "data", caption, "A square with two classes divided by a wave, and the surface that it is bent into"
)

# %% tags=["nbval-check-output"]
print(f"{boundary}: {len(plane):,} test points in {dim} dimensions, {y.double().mean():.1%} of class 1")
print(
    f"near the boundary: the nearest {close.double().mean():.0%}, at most {distance[close].max():.3f} of the square's edge of 2 away"
)
print(f"any two points keep at least {sheet.closeness():.0%} of their distance along the surface")

# %% [markdown]
# ## Challenging: towards the boundary, with the label unchanged
#
# The relevance of input $i$ is $R_i = x_i\,\partial z/\partial x_i$, where $z$ is the logit of the sample's class. Its sign times that
# of $x_i$ is the sign of the gradient, so *pushing* the most relevant inputs against it,
#
# $$\tilde x_i = x_i - \varepsilon\, s\, \mathrm{sign}(x_i)\,\mathrm{sign}(R_i)\quad\text{where } |R_i| \text{ is among the largest},$$
#
# takes evidence for the class away as fast as possible: **the sample moves towards the network's boundary**, or across it.
# The label stays, and the network learns from both, $\frac12\mathrm{CE}(x) + \frac12\mathrm{CE}(\tilde x)$. That pushes its boundary away from the
# samples, which helps exactly where the true boundary is further away than the network's.
#
# | method | idea | settings searched |
# |---|---|---|
# | plain, plain ×3 | cross-entropy; with three times the steps: about the same compute as Challenger | – |
# | label smoothing, mixup, noise | the usual regularisers | 4 each |
# | FGSM | push *every* input along the sign of the gradient of the loss | 4 strengths |
# | Challenger | push the most relevant inputs | 4 pairs of share and strength |
# | Challenger contrast | the same, with $z$ the label's logit less the other class's | 4 pairs |
# | permuted | *control*: Challenger's chosen settings, the map's values in random places | – |
#
# With two classes, Challenger contrast with a share of 1 *is* FGSM. What the map adds can only lie in what it leaves alone.

# %%
forms = [dict(top=top, eps_max=eps) for top, eps in ((0.3, 0.3), (0.3, 1.0), (0.6, 1.0), (0.6, 2.0))]
METHODS = {
    "plain": (plain_step, [{}]),
    "plain ×3": (plain_step, [{}]),
    "label smoothing": (label_smoothing_step, [dict(smoothing=s) for s in (0.02, 0.05, 0.1, 0.2)]),
    "mixup": (mixup_step, [dict(alpha=a) for a in (0.1, 0.4, 1.0, 3.0)]),
    "noise": (noise_step, [dict(sd=sd) for sd in (0.1, 0.3, 1.0, 2.0)]),
    "FGSM": (fgsm_step, [dict(eps=eps) for eps in (0.15, 0.4, 1.0, 2.5)]),
    "Challenger": (Challenger, forms),
    "Challenger contrast": (Challenger, [form | dict(start="contrast") for form in forms]),
    "permuted": (Challenger, forms),
}
CONTROLS = {"permuted": ("Challenger", {"control": "permute"})}  # takes Challenger's choice
check_known("methods", names, METHODS)
if missing := {"plain", "Challenger"} - {*names}:
    raise ValueError(f"parameter methods: {' and '.join(sorted(missing))} must be among them, to compare with")


# %%
def learn(method, settings, part, seed):
    """A network with two hidden layers, trained; all of a seed start alike and see the samples in one order."""

    def make():
        return nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    length = dict(steps=3 * steps if method == "plain ×3" else steps, batch_size=batch_size, lr=lr)
    bar.update()
    return train(make, part["x"], part["y"], METHODS[method][0], settings, seed=seed, **length)


# %% [markdown]
# ## Equal search for every method
#
# Each method has four settings. They are chosen for each number of samples by the loss on validation samples of the same
# manifold, on seeds of their own; the test grid is not looked at.

# %%
tried = searched(METHODS, names, CONTROLS)


def nll(net, part):
    return calibration(predict(net, part["x"]), part["y"])["nll"]


def tune(seed):
    """The loss on validation samples with each of a method's settings, for each number of samples."""
    scores = {}
    for n in ns:
        part, validation = samples(seed, n)
        scores[n] = {m: [nll(learn(m, s, part, seed), validation) for s in each] for m, each in tried.items()}
    return {"scores": scores, "metrics": {}}


with progress(tuning_seeds * len(ns) * sum(map(len, tried.values())), "search") as bar:
    tuned = [study.seed(100 + i, tune) for i in range(tuning_seeds)]

# %%
chosen = {n: best_settings(METHODS, names, [result["scores"][n] for result in tuned], CONTROLS) for n in ns}


def say(settings):
    return ", ".join(f"{k} {v}" for k, v in settings.items() if k not in ("start", "control"))


pd.DataFrame({f"n = {n}": {m: say(chosen[n][m]) for m in tried} for n in ns})

# %% [markdown]
# ## Measure along the distance to the true boundary


# %%
def measure(net):
    """What a network makes of the surface, in numbers and along the distance to the true boundary."""
    logits = predict(net, tests[0.0])
    p, predicted = logits.double().softmax(1).max(1)
    wrong = (predicted != y).double()
    found = calibration(logits, y)
    for place, where in {"near": close, "far": ~close}.items():
        there = calibration(logits[where], y[where])
        found |= {f"{place}_error": 1 - there["accuracy"], f"{place}_confidence": p[where].mean().item()}
        found |= {f"{place}_ece": there["ece"], f"{place}_nll": there["nll"]}
    found["unsure"], found["sure_but_wrong"] = (p < 0.75).double().mean().item(), (wrong * (p > 0.9)).mean().item()
    for sd in off:
        noisy = calibration(predict(net, tests[sd]), y)
        found |= {f"accuracy with noise {sd:g}": noisy["accuracy"], f"nll with noise {sd:g}": noisy["nll"]}
    tenths = distance.argsort().tensor_split(10)
    curves = {"error": [wrong[t].mean().item() for t in tenths], "confidence": [p[t].mean().item() for t in tenths]}
    curves["confidence − accuracy"] = [c - 1 + e for c, e in zip(curves["confidence"], curves["error"])]
    return found, curves, logits.double().softmax(1)[:, 1].cpu()


# %% [markdown]
# A push is a step in fifty dimensions, of which the surface has two. So for the plain network's own training samples we also
# ask where they go: how much of the squared step lies *within* the surface, how often the network then changes its mind,
# and how often the nearest place of the surface belongs to the other class, so that **the label has become wrong**.


# %%
def pushes(net, part, settings, seed):
    """Where the plain network's maps push its training samples, as in training: shares, and the nearest places."""
    dense = dict(start="contrast", top=1.0, eps_max=settings["FGSM"]["eps"]) if "FGSM" in names else {}
    forms = {m: settings[m] for m in names if METHODS[m][0] is Challenger}
    kinds = {m: Challenger(**form) for m, form in ({"FGSM": dense} | forms if dense else forms).items()}
    shares, feet = {}, {}
    tangents = sheet.tangents(part["u"].cpu()).to(study.device)
    for name, kind in kinds.items():
        torch.manual_seed(seed)  # all draw the same strengths
        moved = kind.challenge(part["x"], kind.relevance(net, part["x"], part["x"], part["y"]))
        step = moved - part["x"]
        within = (tangents.mT @ step[..., None]).square().sum((1, 2)) / step.square().sum(1)
        foot = torch.cdist(moved, tests[0.0]).argmin(1)
        crossed = {"the network changes its mind": predict(net, moved).argmax(1), "the label is wrong": y[foot]}
        shares[name] = {"step within the surface": within.mean().item()}
        shares[name] |= {what: (c != part["y"]).double().mean().item() for what, c in crossed.items()}
        feet[name] = plane[foot.cpu()]
    return shares, feet


# %%
def run(seed):
    """Train and measure with this seed: what is returned here is kept, so that a run can resume."""
    result = {"metrics": {}, "curves": {}, "surfaces": {}, "points": {}, "pushes": {}, "feet": {}}
    for n in ns:
        part, _ = samples(seed, n)
        nets = {m: learn(m, chosen[n][m], part, seed) for m in names}
        found = {m: measure(net) for m, net in nets.items()}
        result["metrics"] |= {f"{n}.{m}.{what}": v for m in names for what, v in found[m][0].items()}
        result["curves"][n] = {m: found[m][1] for m in names}
        result["surfaces"][n] = {m: found[m][2] for m in names}
        result["points"][n] = part["u"].cpu(), part["y"].cpu()
        result["pushes"][n], result["feet"][n] = pushes(nets["plain"], part, chosen[n], seed)
        for m, shares in result["pushes"][n].items():
            result["metrics"] |= {f"{n}.{m} push.{what}": v for what, v in shares.items()}
    return result


with progress(seeds * len(ns) * len(names), "networks") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## Before and after
#
# The first column is the error near the true boundary: the nearest fifth of the surface, which was fixed before anything was trained.
# *unsure* is the share of the surface where the confidence is below 75 %, *sure but wrong* that where it is above 90 % and
# the class is wrong. Means over seeds ± their standard deviation.


# %%
def values(n, m, what):
    return [r["metrics"][f"{n}.{m}.{what}"] for r in results]


shown = "near_error far_error near_confidence near_ece near_nll accuracy nll unsure sure_but_wrong".split()


def cell(v):
    return f"{pd.Series(v).mean():.3f} ± {pd.Series(v).std():.3f}"


rows = {(f"n = {n}", m): {w.replace("_", " "): cell(values(n, m, w)) for w in shown} for n in ns for m in names}
pd.DataFrame.from_dict(rows, orient="index")

# %% [markdown]
# The same as differences from plain training, paired by seed. $p$ is corrected for the number of methods (Holm).

# %%
tables = {
    (f"n = {n}", what.replace("_", " ")): paired_tests({m: values(n, m, what) for m in names}, "plain")
    for n in ns
    for what in ("near_error", "near_nll", "nll")
    if seeds > 1
}


def differences(tests):
    """Several tables of paired tests as one; intervals need three seeds."""
    if not tests:
        return "no differences: one seed"
    found = pd.concat(tests)[["difference", "low", "high", "holm"]].rename(columns={"holm": "p (Holm)"})
    return found.style.format("{:+.3f}", na_rep="none").format("{:.3f}", "p (Holm)", na_rep="none")


differences(tables)

# %% [markdown]
# ## What the map is good for
#
# The same against Challenger: how much *larger* the error near the boundary is with each other method. *permuted* has all of
# Challenger but the map; *FGSM* pushes every input.

# %%
rivals = {
    f"n = {n}": paired_tests({m: values(n, m, "near_error") for m in names}, "Challenger") for n in ns if seeds > 1
}
differences(rivals)

# %% [markdown]
# ## Along the distance
#
# Each line runs from the tenth of the surface that is nearest to the true boundary to the tenth that is furthest away; thin
# lines are seeds, the grey one is the control. On the right confidence minus accuracy: above 0 a network is more confident
# than it should be. Does the line of Challenger fall where the boundary is near, or everywhere alike?

# %%
tenths = [distance[t].mean().item() for t in distance.argsort().tensor_split(10)]
drawn = [m for m in ("plain", "FGSM", "Challenger", "permuted") if m in names]
for n in ns:
    quantities = results[0]["curves"][n]["plain"]
    panels = {f"{q}, n = {n}": {m: [r["curves"][n][m][q] for r in results] for m in drawn} for q in quantities}
    place = "distance to the true boundary"
    figure = charts.curves(panels, place, x=tenths, controls=[m for m in drawn if m == "permuted"], size=(3.5, 3.0))
    caption = f"n = {n}: all networks err near the boundary. Which are still confident there?"
    study.figure(
        figure,
        f"distance {n}",
        caption,
        f"Error, confidence and their difference along the distance to the true boundary, n = {n}",
    )

# %% [markdown]
# ## Decision surfaces
#
# The first seed; all networks have seen the same points. White is ambiguous. Follow the black line: where does the dashed
# one leave it, and is the network pale there (it knows that it does not know) or dark (it does not)?

# %%
for n in ns:
    labels = {m: f"{m}\nerror near it {values(n, m, 'near_error')[0]:.2f}" for m in names}
    panels = {labels[m]: square(results[0]["surfaces"][n][m]) for m in names}
    figure = decision_surface(panels, square(known["distance"]), *results[0]["points"][n])
    caption = f"n = {n}: where does the dashed line leave the black one, and is the network pale there?"
    study.figure(
        figure, f"surfaces {n}", caption, f"Decision surfaces of all networks, with the true boundary, n = {n}"
    )

# %% [markdown]
# ## Where a challenged sample goes
#
# The plain network's surface again, with its training points. For some of them an arrow leads to the place of the surface that
# is nearest to the pushed sample. Short arrows do not mean weak pushes: most of a push
# leads off the surface, and a strong one so far that the nearest place may be anywhere.

# %%
pushed = {m: feet for m, feet in results[0]["feet"][ns[0]].items() if m != "Challenger contrast"}
figure = decision_surface(
    dict.fromkeys(pushed, square(results[0]["surfaces"][ns[0]]["plain"])),
    square(known["distance"]), *results[0]["points"][ns[0]], moves=pushed, size=2.8,
)  # fmt: skip
caption = "Do the arrows lead across the black line, to where the label is wrong?"
study.figure(
    figure,
    "pushes",
    caption,
    "Training points on the plain network's surface, with arrows to where three kinds of push lead",
)

# %% [markdown]
# In numbers, for all points:


# %%
def average(n, m, what):
    return sum(r["pushes"][n][m][what] for r in results) / seeds


rows = {
    (f"n = {n}", m): {w: average(n, m, w) for w in results[0]["pushes"][n][m]}
    for n in ns
    for m in results[0]["pushes"][n]
}
print(f"of a step in any direction {2 / dim:.1%} would lie within the surface")
pd.DataFrame.from_dict(rows, orient="index").style.format("{:.1%}")

# %% [markdown]
# ## Off the surface
#
# The same test points with noise at right angles to the surface, so that their class is what it was.

# %%
wanted = ["accuracy", "nll", *(f"{what} with noise {sd:g}" for sd in off for what in ("accuracy", "nll"))]
rows = {(f"n = {n}", m): {w: cell(values(n, m, w)) for w in wanted} for n in ns for m in names}
pd.DataFrame.from_dict(rows, orient="index")

# %% [markdown]
# ## The claims
#
# A claim *holds* if the whole 95 % interval (Student's t over seeds) lies where it says. All differences are paired by seed. Two seeds,
# as at smoke scale, decide nothing.


# %%
def difference(n, what, method, other):
    return [a - b for a, b in zip(values(n, method, what), values(n, other, what))]


forms = [m for m in ("Challenger", "Challenger contrast") if m in names]
against = [("6", "near_error", "plain"), ("1", "accuracy", "plain"), ("2", "ece", "plain"), ("2-NLL", "nll", "plain")]
against += [("4", "accuracy", "permuted"), ("9", "accuracy", "FGSM"), ("9-NLL", "nll", "FGSM")]
for id, what, other in against:
    for m in forms[:1] if other == "permuted" else forms:
        for n in ns if other in names else ():
            study.claim(f"challenger-{id}", difference(n, what, m, other), of=f"manifold ({boundary}), n = {n}, {m}")
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    for n in ("20", "50", "200"):
        base = m[f"{n}.plain.near_error"]
        change, control = (100 * (m[f"{n}.{name}.near_error"] - base) for name in ("Challenger", "permuted"))
        where = f"With {n} samples Challenger changes the error near the boundary"
        yield True, f"{where} by {change:+.1f} points, permuted maps by {control:+.1f}.".replace("-", "−")
    sure, plain = (100 * m[f"50.{name}.sure_but_wrong"] for name in ("Challenger", "plain"))
    where = "With 50 it is wrong with more than 90 % confidence on"
    yield True, f"{where} {sure:.1f} % of the surface, plain training on {plain:.1f} %."
    wrong = 100 * m["50.Challenger push.the label is wrong"]
    yield True, f"For {wrong:.0f} % of its pushed samples the nearest place of the surface has the other class."


study.tell(came_out, results)

# %% [markdown]
# **Why?** The pictures of the pushes say it. The map does find the way: a larger part of a step lies within the surface than of a permuted
# one. But the steps that validation prefers with few samples are so long that for many samples the nearest place of the surface has the
# *other* class: the label is wrong. That is a reason for doubt, and doubt is what the network learns. The gradient knows the *network's*
# boundary, and nothing of the true one. At laptop scale three times the steps lower the error near the boundary with 200 samples by four
# points, and of the regularisers only label smoothing does at all, by 0.4: the network had not finished learning. With two classes
# `start="contrast"` is the same as `start="rival"`, another class drawn at random. The search ended at its edge for FGSM and Challenger: at the strongest setting with 20 samples, at the weakest with 200.

# %% [markdown]
# ## What to try next
#
# - `boundary="spiral"`: two arms, harder with few samples. `frequency=0.75` and `3.0`: a flatter and a more crumpled surface.
# - `sizes="20, 200"`, `steps=900`: does the verdict at 200 samples survive training to the end?
# - `noise=0.5`: training samples off the surface. Do the challenged ones still add anything?
# - `surface=1`: another surface. All intervals above are over samples and weights, not over surfaces.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
for n in ns:
    error = {m: sum(values(n, m, "near_error")) / seeds for m in names}
    far = {m: sum(values(n, m, "far_error")) / seeds for m in names}
    print(
        f"n = {n}: error is larger near the boundary for",
        "every network" if all(error[m] > far[m] for m in names) else "some",
    )

# %% tags=["nbval-check-output"]
for n in ns:
    within = {m: average(n, m, "step within the surface") for m in results[0]["pushes"][n]}
    print(
        f"n = {n}: more of a push lies within the surface than by chance for",
        [m for m in within if within[m] > 1.5 * 2 / dim],
    )

# %% [markdown]
# ## Files

# %%
study.finish(results)
