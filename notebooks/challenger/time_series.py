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
# # Does it help to challenge the stretches of a series that a network relies on?
#
# **The question.** A network that has seen twenty heartbeats decides by a few stretches of them. Does it classify better, and
# know better how sure to be, if it is also trained on series in which just those stretches have been changed?
#
# **The claim.** *CHALLENGER: Training with Attribution Maps* (Tomani, Cremers 2022,
# [arXiv 2205.15094](https://arxiv.org/abs/2205.15094), abstract): manipulating particularly relevant input patterns during
# training improves classification and calibration, and this in any domain: **vision, natural language, time series**.
#
# **The body of the paper was not read; only the abstract was to be had.** What is manipulated, and how, is our
# reconstruction; what fails here need not fail there.
#
# **What you will see.** Which stretches a network relies on, what the challenge does to them, learning curves, and the
# gain of each method on several data sets. The default data are simulated waves; fifteen sets of the UCR archive
# are a parameter away.
#
# *Words*: **ECE**, the expected calibration error, says how far confidence and accuracy are apart; **NLL** is the negative log-likelihood of the true
# class, in nats (units of the natural logarithm); the **margin** is the lead of the label's logit over a rival's; **FGSM**, the fast gradient sign method,
# trains on inputs pushed along the sign of the gradient; *permuted* is Challenger with its map's values at other, randomly drawn positions;
# *Holm's correction* makes p-values larger, for the number of comparisons.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
datasets: str = "waves"  # waves (generated), or sets of the UCR archive, as "SyntheticControl, GunPoint"
methods: str = "plain, cutout, FGSM, Challenger, permuted"  # what to train, rows of the table below
sizes: str = "12, 48"  # numbers of training series, class-balanced; a set too small for one does without [sizes ≥ 1]
shown: int = 12  # one of them, for the pictures, which are of the first data set [shown ≥ 1]
width: int = 16  # filters of the first convolution [width ≥ 1]
norm: bool = False  # with batch norm
dropout_layer: str = "7"  # where dropout acts: 7, before the last layer; 10 with batch norm
steps: int = 60  # of Adam, whatever the number of series [steps ≥ 1]
batch_size: int = 32  # series a step [batch_size ≥ 1]
lr: float = 4.0e-3  # learning rate [lr > 0]
tuning_seeds: int = 1  # seeds 100, 101, … that choose the settings [tuning_seeds ≥ 1]
seed: int = 0  # first seed of the evaluation
seeds: int = 2  # number of seeds; intervals are over seeds, so that one has none
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/challenger/time_series
# %%
from functools import partial
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F

from attrain.challenger import Challenger
from attrain.metrics import reliability
from attrain.training import plain_step, regularisers
from data_prep import ucr, waves
from studies import search
from studies.findings import from_few_samples
from studies.nets.small import SeriesCNN
from studies.pictures import charts
from studies.pictures.charts import series_columns
from studies.pictures.learning import learning_curves, reliability_diagrams
from studies.pictures.style import line_styles
from studies.search import balanced_subset, best_settings, judge, predict, searched, train
from studies.statistics import estimate
from studies.study import Study, check_known, listed, progress

study = Study("challenger/time_series", globals())
names, sets = listed(methods), listed(datasets)
if "plain" not in names:
    raise ValueError("methods must hold plain, which the others are compared with")

# %% [markdown]
# ## Few series
#
# For each number n and each seed, n training series are drawn, equally many of each class. All methods of a seed train
# on the same series, from the same weights, in the same order, for the same number of steps, so that every difference
# below is paired. UCR's training parts are small: a fixed third of each (drawn once, the same for all seeds) is kept out of training and
# chooses the settings. Each series has mean 0 and standard deviation 1.
#
# The network is the fully convolutional one of Wang et al. (2017), narrower: three convolutions, the mean over time, a linear layer.

# %%
parts = {}
for name in sets:
    data = waves.load() if name == "waves" else ucr.load(name=name)
    study.data(name, waves.checksums() if name == "waves" else ucr.checksums(names=[name]))
    data = {part: tensor.to(study.device) for part, tensor in data.items()}
    order = torch.randperm(len(data["train_x"]), generator=torch.Generator().manual_seed(0)).to(study.device)
    held, pool = order[: len(order) // 3], order[len(order) // 3 :]
    parts[name] = {"test": (data["test_x"], data["test_y"])}
    parts[name] |= {part: (data["train_x"][i], data["train_y"][i]) for part, i in (("pool", pool), ("held", held))}
most = {name: len(y.unique()) * int(y.bincount().min()) for name in sets for _, y in [parts[name]["pool"]]}
cells = [(name, n) for name in sets for n in map(int, listed(sizes)) if n <= most[name]]
if (sets[0], shown) not in cells:
    raise ValueError(f"shown must be one of sizes, for which {sets[0]} has series enough, got {shown}")

# %% tags=["nbval-check-output"]
for name in sets:
    sizes_of = {part: len(y) for part, (_, y) in parts[name].items()}
    print(
        f"{name}: length {parts[name]['test'][0].shape[-1]}, {int(parts[name]['test'][1].max()) + 1} classes,", sizes_of
    )
    print("  n =", [n for cell, n in cells if cell == name])

# %% [markdown]
# ## Challenger for series
#
# $R$ is the relevance of the values $x_t$ by gradient × input for the **margin** by which the label's logit exceeds that of a
# rival, another class $c$ that is drawn for each series anew. Challenger pushes the `top` share of the most relevant values
# ($M$) towards the rival, and keeps the label:
#
# $$R = x \odot \nabla_{\!x}\,(z_y - z_c), \qquad
# \tilde x = x - \varepsilon\,s\;\mathrm{sign}(x)\,\mathrm{sign}(R)\odot M, \qquad
# L = \tfrac12\,\mathrm{CE}(x, y) + \tfrac12\,\mathrm{CE}(\tilde x, y)$$
#
# with $\varepsilon$ drawn for each series, uniform in $[0, \varepsilon_\mathrm{max})$, and $s = 1$ its standard deviation. Beside it stand **FGSM**, which pushes *all*
# values along the gradient of the cross-entropy, so uses no map, and **permuted**: Challenger with the map's values
# at other places, drawn at random. *Challenger gate* scales relevant values down: $\tilde x = x\,\max(0, 1 - \varepsilon\,r)$.


# %%
METHODS = {
    "plain": (plain_step, [{}]),
    "plain ×3": (plain_step, [{}]),  # three times the steps: what Challenger costs
    "dropout": (regularisers.dropout_step, [dict(p=p, layer=dropout_layer) for p in (0.2, 0.4, 0.6, 0.8)]),
    "cutout": (regularisers.cutout_step, [dict(size=size) for size in (4, 8, 16, 32)]),
    "noise": (regularisers.noise_step, [dict(sd=s) for s in (0.1, 0.2, 0.4, 0.8)]),
    "mixup": (regularisers.mixup_step, [dict(alpha=a) for a in (0.2, 0.4, 1.0, 2.0)]),
    "label smoothing": (regularisers.label_smoothing_step, [dict(smoothing=s) for s in (0.05, 0.1, 0.2, 0.3)]),
    "FGSM": (regularisers.fgsm_step, [dict(eps=e) for e in (0.1, 0.3, 0.6, 1.0)]),
    "Challenger": (Challenger, [dict(eps_max=e, start="rival") for e in (0.3, 0.6, 1.0, 2.0)]),
    "Challenger gate": (Challenger, [dict(eps_max=e, start="rival", mode="gate") for e in (0.5, 1.0, 2.0, 4.0)]),
}

# %%
CONTROLS = {"permuted": ("Challenger", {"control": "permute"})}
METHODS["permuted"] = METHODS["Challenger"]
check_known("methods", names, METHODS)
tried = searched(METHODS, names, CONTROLS)

# %% [markdown]
# ## Equal search
#
# Each method may choose among four settings, for each data set and n, by the negative log-likelihood (NLL) on the series that were
# kept out. The choosing has seeds of its own (100, 101, …); test series have no say. The permuted control takes
# Challenger's choice.


# %%
def trained(method, name, n, seed, settings):
    """A method's network; those of a seed share series, weights and order."""
    x, y = parts[name]["pool"]
    chosen, _ = balanced_subset(y, n, torch.Generator().manual_seed(seed))
    make = partial(SeriesCNN, int(y.max()) + 1, 1, width, norm)
    longer = 3 if method == "plain ×3" else 1
    how = dict(seed=seed, steps=steps * longer, batch_size=batch_size, lr=lr)
    bar.update()
    return train(make, x[chosen], y[chosen], METHODS[method][0], settings, **how)


def tune(seed):
    """Of each method's settings the negative log-likelihood on series kept out, for each data set and n."""
    loss = {cell: {method: [] for method in tried} for cell in cells}
    for (name, n), method in product(cells, tried):
        x, y = parts[name]["held"]
        for settings in tried[method]:
            logits = predict(trained(method, name, n, seed, settings), x)
            loss[name, n][method].append(F.cross_entropy(logits, y).item())
    return {"loss": loss, "metrics": {}}


# %% [markdown]
# The search, and what was chosen:

# %%
with progress(tuning_seeds * len(cells) * sum(map(len, tried.values())), "search") as bar:
    tuned = [study.seed(100 + i, tune) for i in range(tuning_seeds)]
best = {cell: best_settings(METHODS, names, [found["loss"][cell] for found in tuned], CONTROLS) for cell in cells}


def short(s):
    return ", ".join(f"{k} {v}" for k, v in s.items() if k not in ("start", "layer", "control"))


pd.DataFrame({f"{name}, {n}": {m: short(best[name, n][m]) for m in names} for name, n in cells})

# %% tags=["nbval-check-output"]
for name in names:
    print(f"{name}:", "Challenger's settings" if name == "permuted" else f"searched among {len(METHODS[name][1])}")

# %% [markdown]
# Of one network's training samples, maps and challenged samples are kept for a picture.


# %%
def examples(net, name, n, seed):
    """The first training series of up to three classes, their relevance, and the challenged series."""
    x, y = parts[name]["pool"]
    chosen, _ = balanced_subset(y, n, torch.Generator().manual_seed(seed))
    index = torch.stack([chosen[y[chosen].cpu() == c][0] for c in range(min(3, int(y.max()) + 1))])
    challenger = Challenger(**best[name, n]["Challenger"])
    R = challenger.relevance(net, x[index], x[index], y[index])
    moved = challenger.challenge(x[index], R, y[index])
    return {"x": x[index, 0].cpu(), "R": R[:, 0].cpu(), "moved": moved[:, 0].cpu()}


# %% [markdown]
# Each seed draws its own samples and trains all methods on them.


# %%
def run(seed):
    """Train and measure with this seed: what is returned here is kept, so that a run can resume."""
    result = {"metrics": {}, "logits": {}}
    for (name, n), method in product(cells, names):
        net, test = trained(method, name, n, seed, best[name, n][method]), parts[name]["test"]
        result["metrics"] |= {f"{name}.{n}.{method}.{key}": value for key, value in judge(net, *test).items()}
        if (name, n) == (sets[0], shown):
            result["logits"][method] = predict(net, test[0]).cpu()
            if method == "Challenger":
                result["examples"] = examples(net, name, n, seed)
    return result


with progress(seeds * len(cells) * len(names), "evaluation") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## What a challenged series looks like
#
# Training series in black, challenged ones in colour, and below them the relevance of each value for the margin: red for the label,
# blue for its rival. Only the most relevant values move, each by the same amount, so that the challenged series is ragged: no
# sensor would record it. Is that a fair challenge?

# %%
if "Challenger" in names:
    found = results[0]["examples"]
    columns = [
        (f"{sets[0]}, class {c}", {"series": found["x"][c], "challenged": found["moved"][c]}, found["R"][c])
        for c in range(len(found["x"]))
    ]
    caption = (
        "Where the bars are tallest the orange series leaves the black one. It is ragged: no sensor would record it."
    )
    study.figure(
        series_columns(columns),
        "series",
        caption,
        "Training series of up to three classes, challenged series, and the relevance of each value",
    )

# %% [markdown]
# ## Learning curves
#
# One panel for each outcome, for the first data set. Accuracy should be high, all others low: **ECE**, by how much confidence differs from accuracy (15 bins); **NLL** and **Brier**, which
# judge the probabilities as such; **filter |cos|**, how much alike a layer's filters are.

# %%
outcomes = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score", "similarity": "filter |cos|"}


def of(cell, method, outcome):
    """One number for each seed."""
    return [result["metrics"][f"{cell[0]}.{cell[1]}.{method}.{outcome}"] for result in results]


first = [cell for cell in cells if cell[0] == sets[0]]
lines = {
    title: {m: {cell[1]: estimate(of(cell, m, outcome)) for cell in first} for m in names}
    for outcome, title in outcomes.items()
}
emphasised = ["plain", "FGSM", "Challenger", "permuted"]
styles = line_styles([*emphasised, *METHODS])  # a method looks the same below

# %%
caption = "Compare Challenger with plain training, FGSM and its control (permuted). Accuracy should be high, the others low. Whiskers, from three seeds on, are 95 % intervals."
figure = learning_curves(lines, styles, emphasised, intervals=seeds > 2)
study.figure(
    figure,
    "learning_curves",
    caption,
    "Accuracy, calibration and filters against the number of training samples, one line for each method",
)

# %% [markdown]
# ## All data sets
#
# The difference from plain training, with 95 % intervals over seeds. Accuracy: right of 0 is better. NLL: left of 0.


# %%
def difference(cell, method, outcome, other="plain"):
    return [a - b for a, b in zip(of(cell, method, outcome), of(cell, other, outcome))]


drawn = [m for m in ("label smoothing", "FGSM", "permuted", "Challenger") if m in names]
for outcome in ("accuracy", "nll") if drawn else ():
    groups = {f"{c[0]}, {c[1]}": {m: estimate(difference(c, m, outcome)) for m in drawn} for c in cells}
    figure = charts.interval_rows(groups, f"{outcomes[outcome]}, difference from plain")
    side = "right" if outcome == "accuracy" else "left"
    caption = f"Points {side} of 0 are better than plain training; an interval that spans 0 decides nothing."
    study.figure(
        figure,
        f"difference_{outcome}",
        caption,
        f"Difference in {outcomes[outcome]} from plain training, a row for each data set and size",
    )

# %% [markdown]
# The same in numbers: the mean, the difference from plain training, and a star where that difference has p < .05 after
# Holm's correction for the number of methods (paired t-test over seeds, for each data set and n).


# %%
def table(outcome, cell):
    """One text for each method: its mean, and its difference from plain training."""
    return search.means_and_differences({name: of(cell, name, outcome) for name in names}, "plain")


titles = {cell: f"{cell[0]}, {cell[1]}" for cell in cells}
pd.concat({t: pd.DataFrame({titles[c]: table(o, c) for c in cells}) for o, t in list(outcomes.items())[:3]})

# %% [markdown]
# ## How far can its confidence be trusted?
#
# Points below the diagonal: more confident than right. Grey bars: how many test series have that confidence.

# %%
compared = [name for name in ("plain", "label smoothing", "FGSM", "Challenger") if name in names]
pooled = {name: torch.cat([result["logits"][name] for result in results]) for name in compared}
truth = parts[sets[0]]["test"][1].cpu().repeat(seeds)
diagrams = {name: reliability(pooled[name], truth) for name in compared}
caption = "Points below the diagonal: the network is more confident than it is right. Where do the grey bars stand, and where the points?"
study.figure(
    reliability_diagrams(diagrams, styles),
    "reliability",
    caption,
    "Accuracy against confidence, one panel for each of several methods",
)

# %% [markdown]
# ## The claims
#
# A claim *holds* if the whole 95 % interval lies where the claim says, *fails* if none of it does, and is *undecided*
# otherwise. Differences are paired by seed; the intervals are those of one claim at a time, not corrected for their number.

# %%
against = {"plain": {"7": "accuracy", "7-NLL": "nll", "5": "similarity", "5-rank": "rank"}}
against |= {"permuted": {"4": "accuracy"}, "FGSM": {"9": "accuracy", "9-NLL": "nll"}}
rivals = [name for name in ("dropout", "cutout", "mixup", "label smoothing") if name in names]
for cell in cells if "Challenger" in names else ():
    where = f"{cell[0]}, n = {cell[1]}"
    for other in [name for name in against if name in names]:
        for claim, outcome in against[other].items():
            study.claim(f"challenger-{claim}", difference(cell, "Challenger", outcome, other), of=f"{where}, − {other}")
    if rivals:
        loss = {m: min(map(sum, zip(*(found["loss"][cell][m] for found in tuned)))) for m in rivals}
        rival = min(rivals, key=loss.get)
        study.claim("challenger-8", difference(cell, "Challenger", "accuracy", rival), of=f"{where}, − {rival}")
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    yield from from_few_samples(m)


study.tell(came_out, results)

# %% [markdown]
# At laptop scale the series are three sets of the UCR archive. After Holm's correction FGSM, label
# smoothing and Challenger's pushes at permuted places surely gain with 18 series of SyntheticControl, and nothing gains elsewhere but longer
# training on GunPoint. Filters do become more diverse, which does not help. On GunPoint most regularisers lower the accuracy, and three times
# the steps of plain training raise it: 120 steps may be too few for it. That the method works in any domain is not borne out here ([results](../results/challenger.md)).
#
# ## What to try next
#
# - `datasets="SyntheticControl, GunPoint, ECG200", sizes="18, 60", shown=18` after `python -m data_prep ucr`.
# - `methods="plain, Challenger, Challenger gate, permuted"`: the gate brings relevant values nearer to zero, the mean of a series.
# - `norm=True, dropout_layer="10"`: does batch norm change who wins? `width=128` is the paper's network.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
print(f"{len(study.claims)} claims of {len(cells)} cases; {len(results)} seeds; {len(outcomes)} outcomes")

# %% [markdown]
# ## Files

# %%
study.finish(results)
