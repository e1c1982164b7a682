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
# # Which letters of the DNA did the network read?
#
# **The question.** A network has learned which short *motifs* stand in a stretch of DNA. We know where they are, because we
# put them there. Does its attribution map find them, all of them, and nothing else?
#
# **The claim.** *Learning important features through propagating activation differences* (Shrikumar, Greenside, Kundaje,
# ICML 2017, [arXiv 1704.02685](https://arxiv.org/abs/1704.02685), section 4.2, figures 5 and 6): gradient × input,
# integrated gradients and DeepLIFT's Rescale rule give **no importance to motifs that matter**; guided backprop gives
# importance to motifs that **do not matter**; DeepLIFT's **RevealCancel** rule does neither.
#
# **What you will see.** Clouds of motif matches, each at the strength of the match and the importance under it; a table of
# the matches that each method misses; and, letter by letter, a motif that some methods do not see. At the default
# scale a network is trained here, on sequences that are simulated here, in well under a minute.
#
# *Words*: a **motif** is a short pattern of letters; the **log-odds** of a match say how much more likely its letters are under the motif than
# under the background; a **reference** is the sequence that DeepLIFT and integrated gradients (**IG**) compare with; a *strong match* has log-odds of
# at least `threshold`; it is **missed** if a method gives it no importance for the task *both motifs*; **auROC** measures how well the
# network ranks sequences (0.5 is chance).

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper, authors or your own
network: str = "trained"  # trained (here, on simulated sequences) or authors (python -m data_prep deeplift_authors)
n_train: int = 2000  # training sequences [n_train ≥ 1]
n_test: int = 200  # test sequences; of the authors' there are 800 [n_test ≥ 1]
sequences: str = "released"  # for the authors' network: released (their test set) or simulated (new ones)
background: str = "0.3, 0.2, 0.2, 0.3"  # frequencies of A, C, G, T, simulated and as reference [0 < background < 1]
epochs: int = 10  # passes over the training sequences [epochs ≥ 1]
batch_size: int = 20  # sequences a step [batch_size ≥ 1]
lr: float = 3.0e-3  # learning rate [lr > 0]
references: int = 5  # shuffled references of each sequence [references ≥ 1]
threshold: float = 7.0  # log-odds from which a motif match is strong [threshold ≥ 0]
reference_edges: bool = False  # scan as the authors do: some matches at the left edge are found many times
seed: int = 0  # first seed
seeds: int = 1  # number of seeds; intervals are over matches with one, over seeds with more
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/deeplift/genomics
# %%
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F

from attrain import DeepLift, GuidedBackprop, InputXGradient, IntegratedGradients, explain
from attrain.metrics.classification import macro_auc
from attrain.training import fit_fresh
from data_prep import deeplift_authors
from data_prep.dna import MOTIFS, simulate
from studies import dna
from studies.nets.small import SequenceCNN
from studies.pictures import charts
from studies.statistics import estimate, number
from studies.study import Study, progress

study = Study("deeplift/genomics", globals())
if network not in ("trained", "authors"):
    raise ValueError(f"parameter network must be trained or authors, got {network!r}")
if sequences not in ("released", "simulated"):
    raise ValueError(f"parameter sequences must be released or simulated, got {sequences!r}")
frequencies = [float(part) for part in background.split(",")]
flat = torch.tensor(frequencies, device=study.device).view(1, 4, 1).expand(1, 4, 200)
tasks = ["both motifs", "GATA", "TAL1"]
log_odds = {name: dna.log_odds_matrix(matrix, frequencies) for name, matrix in MOTIFS.items()}

# %% [markdown]
# ## The data: two motifs in random letters
#
# 200 letters are drawn at random, A and T with probability 0.3, C and G with 0.2. Then, in a quarter of the sequences each,
# one to three instances of **GATA**, of **TAL1**, or of both are put in, or nothing. The network answers three questions
# at once: *are both motifs there? is GATA? is TAL1?* The first is the interesting one: one motif alone is not enough.
#
# A motif is a table of probabilities. Below, a letter's height is its frequency at that place times the information of
# the place (relative to the background, in nats, units of the natural logarithm).

# %%
information = {}
for name, matrix in MOTIFS.items():
    information[name] = matrix * (matrix * log_odds[name]).sum(0)
caption = "GATA's core is the letters GATAA, TAL1's is CAGATG: both contain GAT, so a network has to look at the neighbours too."
study.figure(
    charts.sequence_logos(information, size=7),
    "motifs",
    caption,
    "The motifs GATA_disc1 and TAL1_known1 as stacks of letters",
)

# %% [markdown]
# The network may be the authors': then the test sequences are theirs, or new ones, drawn as theirs were.


# %%
def of_the_authors(generator):
    """The authors' network, and their test sequences or new ones with letters as frequent as in theirs; labels."""
    net = deeplift_authors.genomics_network().to(study.device)
    if sequences == "simulated":
        data = simulate(n_test, background=deeplift_authors.BACKGROUND, generator=generator)
        return net, data["x"].to(study.device), data["y"]
    data = deeplift_authors.load()
    rows = data["test"][:n_test]
    return net, data["x"][rows].float().to(study.device), data["y"][rows]


# %% [markdown]
# Else a network is trained on simulated sequences, and tested on others.


# %%
def material(seed):
    """A network, trained here on simulated sequences or the authors', and test sequences with their labels."""
    draws = torch.Generator().manual_seed(seed)
    if network == "authors":
        return of_the_authors(draws)
    data = simulate(n_train + n_test, background=frequencies, generator=draws)
    x, y = data["x"].to(study.device), data["y"].to(study.device)
    settings = dict(epochs=epochs, batch_size=batch_size, lr=lr, on_epoch=bar.update)
    net, _ = fit_fresh(SequenceCNN, (x[:n_train], y[:n_train]), seed=seed, **settings)
    return net, x[n_train:], data["y"][n_train:]


if network == "authors":
    study.data("deeplift_authors", deeplift_authors.checksums())

# %% tags=["nbval-check-output"]
for name, matrix in log_odds.items():
    print(f"{name}: {matrix.shape[1]} letters, log-odds of the best match {matrix.amax(0).sum():.2f}")

# %% [markdown]
# ## Seven ways to ask
#
# All maps are differences from a **reference**, sequence minus background: $C = m\,(x-r)$. They differ in the multiplier $m$.
#
# | method | $m$ |
# |---|---|
# | gradient × input | the gradient |
# | guided × input | the gradient, negative parts dropped at every ReLU |
# | IG-10 (IG-5) | the mean gradient at 10 (5) points between reference and sequence |
# | Rescale | at a ReLU, $\Delta y/\Delta x$ |
# | RevealCancel | at a ReLU, the positive and the negative part of $\Delta x$ have a multiplier each: $\Delta y^{\pm}/\Delta x^{\pm}$, the mean over both orders of adding them |
# | hybrid | RevealCancel at the linear layers, Rescale at the convolutions, as the paper advises for motif detectors |
# | hybrid, shuffled | the same, averaged over references that are shuffles of the sequence with the same pairs of letters |
#
# *Why would Rescale miss a motif?* Say a network computes $\min(a, b) = a - \mathrm{relu}(a - b)$, as for "both": where both are there,
# $\Delta x^+$ and $\Delta x^-$ cancel at the ReLU, and the difference that Rescale looks at is gone. RevealCancel looks at the two parts.


# %%
def methods(x, generator):
    """name -> the method for some rows of x."""
    shuffled = dna.dinucleotide_shuffle(x, references, generator)
    shared = {
        "gradient × input": InputXGradient(flat),
        "guided × input": GuidedBackprop(flat),
        "IG-5": IntegratedGradients(flat, steps=5),
        "IG-10": IntegratedGradients(flat, steps=10),
        "Rescale": DeepLift(flat),
        "RevealCancel": DeepLift(flat, "reveal_cancel"),
        "hybrid": DeepLift(flat, "genomics"),
    }
    own = {"hybrid, shuffled": lambda rows: DeepLift(shuffled[:, rows], "genomics")}
    return {name: lambda rows, method=method: method for name, method in shared.items()} | own


# %% [markdown]
# A map is judged where the motifs are: at the five best matches of each motif in each sequence.


# %%
def matches(x):
    """The five best matches of each motif in each sequence: log-odds and first positions, (N, 5)."""
    found = {}
    for name, matrix in log_odds.items():
        scores, width = dna.scan(x, matrix), matrix.shape[1]
        found[name] = dna.top_matches(scores, 5, width // 2, reference_edges)
    return found


def maps(net, x, choose):
    """Contributions of each position to the three logits, (N, 3, 200), and how far their sums are off, (N, 3)."""
    found, gaps = [], []
    for rows in torch.arange(len(x)).split(200):
        result = explain(net, x[rows], "all", choose(rows))
        change = net(x[rows]) - net(flat) if result.delta is None else result.delta
        found.append(result.heatmap.sum(2))
        gaps.append((found[-1].sum(2) - change.detach()).abs())
    return torch.cat(found), torch.cat(gaps).cpu()


# %% [markdown]
# Two ways to be wrong: a motif that matters is **missed**, or one that does not matter for a task has importance for it (**cross-task**).


# %%
def missed(result, name, motif, twice=True):
    """1 for each strong match in a sequence with both motifs that has no importance, else 0; found twice, twice or once."""
    strength, places = (part.cpu() for part in result["matches"][motif])
    strong = (strength >= threshold) & (result["y"][:, :1] == 1)
    if not twice:
        strong &= ~(places[:, :, None] == places[:, None]).tril(-1).any(2)
    return (result["importance"][name, motif][0][strong] <= 0).double()


def crossed(result, name, motif):
    """Importance of each strong match for the other motif's task, relative to the mean for its own."""
    own = 1 + list(log_odds).index(motif)
    strong = result["matches"][motif][0].cpu() >= threshold
    there = strong & (result["y"][:, own] == 1)[:, None]
    importance = result["importance"][name, motif]
    return importance[3 - own][strong].double() / importance[own][there].mean()


measures = {"missed": missed, "cross-task share": crossed}


# %% [markdown]
# Each seed trains a network, makes its maps by all methods and measures both shares.


# %%
def run(seed):
    """What is returned here is kept, so that a run can resume."""
    net, x, y = material(seed)
    with torch.no_grad():
        scores = F.pad(net(x).cpu().T[..., None], (1, 0))  # (3, N, 2): of no and of yes, for each task
    result = {"y": y, "x": x.cpu(), "matches": matches(x), "importance": {}, "gaps": {}, "maps": {}}
    result["metrics"] = {f"auROC, {task}": macro_auc(scores[i], y[:, i].long()).item() for i, task in enumerate(tasks)}
    for name, choose in methods(x, torch.Generator().manual_seed(seed)).items():
        found, result["gaps"][name] = maps(net, x, choose)
        for motif, (_, places) in result["matches"].items():
            below = [dna.window_sums(task, places, log_odds[motif].shape[1]) for task in found.unbind(1)]
            result["importance"][name, motif] = torch.stack(below).cpu()
            for what, measure in measures.items():
                result["metrics"][f"{what}, {motif}, {name}"] = measure(result, name, motif).mean().item()
        result["maps"][name] = found.cpu()
        bar.update()
    result["hypothetical"] = dna.hypothetical_contributions(net, x, 0, DeepLift(flat, "genomics")).cpu()
    return result


# %%
bar = progress(seeds * (8 + (epochs if network == "trained" else 0)), "epochs and methods")
results = [study.seed(s, run) for s in study.seeds]
bar.close()
names = list(results[0]["maps"])

# %% [markdown]
# ## Figure 5: strength of a match against its importance
#
# Each point is one of the five best matches of the motif in one test sequence. Right of the dotted threshold the
# motif is really there. The task here is the interesting one, *both motifs*: a good method shows importance where both are there
# (pink), little where this motif is alone, and **no pink point at or below zero** on the right. Each method has a scale of its own.


# %%
def clouds(motif, result):
    """method -> class of sequence -> (log-odds, importance for the task both motifs)."""
    classes = {"neither": (0, 0), "GATA only": (1, 0), "TAL1 only": (0, 1), "both": (1, 1)}
    strength, y = result["matches"][motif][0].cpu(), result["y"][:, 1:]
    rows = {c: (y == torch.tensor(pair)).all(1)[:, None] & (strength > 0) for c, pair in classes.items()}
    return {
        name: {c: (strength[kind], result["importance"][name, motif][0][kind]) for c, kind in rows.items()}
        for name in names
        if name != "IG-5"
    }


for motif in log_odds:
    x = f"log-odds of the match with {motif}"
    figure = charts.scatter_panels(clouds(motif, results[0]), x, "importance for both motifs", threshold=threshold)
    caption = f"Pink points right of the dotted line and at or below 0 are matches of {motif} that the method misses."
    study.figure(
        figure, motif, caption, f"Importance of matches with {motif} against their log-odds, a panel for each method"
    )

# %% [markdown]
# ## What is missed, and what is made up
#
# **False negatives**: of the strong matches (log-odds at least `threshold`) in sequences that have both motifs, how many have an importance
# for *both motifs* of zero or less? **Cross-task importance**: the importance of strong matches for the *other* motif's
# task, as a share of that for their own. A negative share says that the other motif speaks against.


# %%
def per_seed(values):
    """One seed's values as they are, several seeds' means."""
    return [values[0].tolist()] if seeds == 1 else [v.mean().item() for v in values]


# %% [markdown]
# The table has both shares for each motif, and how far a method's maps miss the sum that they should have.

# %%
each = list(product(log_odds, measures))
found = {(n, m, w): per_seed([measures[w](r, n, m) for r in results]) for n in names for m, w in each}
gaps = {name: torch.stack([r["gaps"][name] for r in results]) for name in names}
columns = {(motif, what): [estimate(found[n, motif, what])["mean"] for n in names] for motif, what in each}
columns["any sequence", "largest error of the sum"] = [number(gaps[name].max().item()) for name in names]
table = pd.DataFrame(columns, index=names)
counts = ", ".join(f"{sum(len(missed(r, 'Rescale', m)) for r in results)} of {m}" for m in log_odds)
form = {column: "{:.1%}" for column in each}
table.style.format(form).set_caption(f"Strong matches where both motifs are: {counts}")

# %%
rates = {n: {m: estimate(found[n, m, "missed"]) for m in log_odds} for n in names}
dots = {n: {m: found[n, m, "missed"] for m in log_odds} for n in names} if seeds > 1 else None
figure = charts.interval_rows(rates, "share of strong matches missed for the task both motifs", dots)
caption = (
    "Further left is better: the share of real motifs to which a method gives no importance. Bars are 95 % intervals."
)
study.figure(figure, "missed", caption, "Share of strong matches missed by each method, for two motifs")

# %% [markdown]
# ## Figure 6: letter by letter
#
# First the strong match to which Rescale gives the least importance for the task *both motifs*, in a sequence that has both; then the
# strong match to which guided backprop gives the most for the task of the *other* motif, in a sequence without that motif, and to which
# RevealCancel gives none. Blue and orange stretches are matches with log-odds of at least the threshold.


# %%
def strong_matches(result, row):
    """motif -> the stretches of the strong matches in one sequence."""
    spans = {}
    for motif, (strength, places) in result["matches"].items():
        found = sorted({p for s, p in zip(strength[row].tolist(), places[row].tolist()) if s >= threshold})
        spans[motif] = [(p, p + log_odds[motif].shape[1]) for p in found]
    return spans


def most(result, name, task, among, sign):
    """The strong match with the most (sign 1) or least (−1) importance for a task: (motif, sequence, place)."""
    candidates = []
    for motif, (strength, places) in result["matches"].items():
        score = sign * result["importance"][name, motif][task[motif]]
        score = score.masked_fill(~((strength.cpu() >= threshold) & among[motif]), -torch.inf)
        row, column = divmod(int(score.argmax()), score.shape[1])
        candidates.append((score.max().item(), motif, row, int(places[row, column])))
    return max(candidates)[1:]


# %% [markdown]
# Around such a match, all methods' contributions of all letters.


# %%
def logos(result, row, place, task):
    """The stretch around a place by every method, each with a scale of its own."""
    start = min(max(0, place - 32), 200 - 80)
    part = slice(start, start + 80)
    letters = result["x"][row, :, part]
    heights = {name: (letters * result["maps"][name][row, task, part]).numpy() for name in names if name != "IG-5"}
    return charts.sequence_logos(heights, start, strong_matches(result, row))


first, y = results[0], results[0]["y"]
motif, row, place = most(first, "Rescale", dict.fromkeys(log_odds, 0), dict.fromkeys(log_odds, y[:, :1] == 1), -1)
print(f"{motif} at {place}, contributions to the task: both motifs")
caption = f"Rescale's worst strong match ({motif} at {place}), task both motifs. Which methods give the shaded letters no or negative importance?"
study.figure(
    logos(first, row, place, 0),
    "missed_motif",
    caption,
    "The letters of one stretch of DNA, as tall as their contributions, by seven methods",
)

# %% [markdown]
# The second: a motif that does not matter for the task.

# %%
other = {motif: 2 - i for i, motif in enumerate(log_odds)}
silent = {m: first["importance"]["RevealCancel", m][task] <= 0 for m, task in other.items()}
absent = {m: silent[m] & (y[:, task] == 0)[:, None] for m, task in other.items()}
motif, wrong, there = most(first, "guided × input", other, absent, 1)
print(f"{motif} at {there}, contributions to the task: {tasks[other[motif]]}, which is not there")
caption = f"{motif} at {there}, task {tasks[other[motif]]}, whose motif is absent. Letters above zero in the shaded stretch speak for a motif that is not there."
study.figure(
    logos(first, wrong, there, other[motif]),
    "made_up_motif",
    caption,
    "The letters of one stretch of DNA, as tall as their contributions, by seven methods",
)

# %% [markdown]
# ## Which letters would it like to see?
#
# A contribution says what the letter that is there does. With the same multipliers one can also ask what each *other* letter
# would have done there: $H_i = \sum_c m_c\,(1[c=i]-r_c)$, the **hypothetical contributions**. They look like the motif that the
# network has learned: compare with the first picture. Here for the hybrid rule and the sequence of figure 6's first part.

# %%
start = min(max(0, place - 10), 200 - 36)
part = slice(start, start + 36)
hypothetical = first["hypothetical"][row, :, part]
rows = {"contribution": hypothetical * first["x"][row, :, part], "hypothetical": hypothetical}
heights = {name: values.numpy() for name, values in rows.items()}
figure = charts.sequence_logos(heights, start, strong_matches(first, row), height=1.6)
caption = "Below: for each place all four letters, those that the network would like to see upwards. Do the tall ones spell the motif?"
study.figure(
    figure,
    "hypothetical",
    caption,
    "Contributions of the letters that are there, and hypothetical contributions of all four letters",
)

# %% [markdown]
# ## The claims
#
# A claim *holds* if the whole 95 % interval lies where the claim says, *fails* if none of it does, and is *undecided* otherwise.
# Differences are paired: by seed and, with one seed, by match. A share that is missed has an exact interval; for it each match counts
# once, also where the authors' scan finds it many times.


# %%
def minus(a, b):
    return (torch.tensor(a) - torch.tensor(b)).numpy()


for motif in log_odds:
    ours = found["RevealCancel", motif, "missed"]
    for name in ("RevealCancel", "hybrid", "hybrid, shuffled"):
        share = per_seed([missed(r, name, motif, twice=False) for r in results])
        study.claim("deeplift-2", share, of=f"{name}, {motif}")
    for name in ("gradient × input", "IG-10", "Rescale"):
        study.claim("deeplift-6", minus(found[name, motif, "missed"], ours), of=f"{name}, {motif}")
    guided, ours = (found[name, motif, "cross-task share"] for name in ("guided × input", "RevealCancel"))
    study.claim("deeplift-3", minus(guided, ours), of=motif)
for steps in ("IG-5", "IG-10"):
    more = per_seed([r["gaps"][steps].mean(1) - r["gaps"]["RevealCancel"].mean(1) for r in results])
    study.claim("deeplift-5", more, of=f"{steps} − RevealCancel")
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    def missed(name):
        return [m[f"missed, {motif}, {name}"] for motif in ("GATA_disc1", "TAL1_known1")]

    for name in ("gradient × input", "IG-10", "RevealCancel", "hybrid, shuffled"):
        gata, tal = missed(name)
        yield True, f"{name[0].upper()}{name[1:]} misses {gata:.1%} of the strong GATA matches and {tal:.1%} of TAL1's."
    rivals = [sum(missed(name)) for name in ("gradient × input", "IG-10", "Rescale")]
    ours, shuffled = sum(missed("RevealCancel")), sum(missed("hybrid, shuffled"))
    fewer = "fewer than" if ours < min(rivals) else "no fewer than one of"
    yield True, f"Added up, RevealCancel misses {fewer} the three that the paper compares it with."
    yield shuffled < ours, "The hybrid with shuffled references misses fewer still."
    guided, ours = (m[f"cross-task share, TAL1_known1, {name}"] for name in ("guided × input", "RevealCancel"))
    told = f"{guided:.0%} by guided backprop, {ours:.0%} by RevealCancel"
    yield True, f"For the GATA task TAL1 motifs have this share of the importance that they have for their own: {told}."


study.tell(came_out, results)

# %% [markdown]
# At laptop scale three of ten networks make RevealCancel miss three to eight TAL1 motifs in ten **with the flat reference**: no sequence
# is like that, and these networks take it for one that *has* TAL1 (its logit is 10 to 66 above that of sequences without motifs; 1 to 5
# in the others). A motif that the reference has too makes no difference to explain. By the hybrid, against shuffled references, not one is missed.
# With the authors' network their numbers come out (scale `authors`), and on 4,000 new sequences (`authors-simulated`) all claims hold
# ([results](../results/deeplift.md)).

# %% [markdown]
# ## What to try next
#
# - `network="authors"`: the network and the sequences that the authors released, once `python -m data_prep deeplift_authors` has
#   got them; with `reference_edges=True` the numbers of their notebook come out to the last match. With `sequences="simulated"` and
#   `n_test=4000` it sees new ones, enough to tell a share below 1 % from 1 %.
# - `epochs=2`: does a network that has not learned the task yet hide motifs too? `n_train=1000`?
# - `references=1` and `50`: how much do the maps depend on which shuffles were drawn? `background="0.25, 0.25, 0.25, 0.25"`?
# - `threshold=3.0`: chance matches are not what the network looks for. Which method tells them apart?
# - RevealCancel everywhere, or the hybrid? Look at the letters outside the motifs in the logos.
# - What does the network say about the reference itself? Look at `net(flat)` in `run`, for several seeds, before you trust a map.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
for task in tasks:
    area = estimate([r["metrics"][f"auROC, {task}"] for r in results])["mean"]
    print(f"{task}: auROC", "above 0.9, learned" if area > 0.9 else "below 0.9, not learned well")

# %% tags=["nbval-check-output"]
rate = {name: sum(rates[name][motif]["mean"] for motif in log_odds) for name in names}
share = {name: sum(estimate(found[name, m, "cross-task share"])["mean"] for m in log_odds) for name in names}
print("the hybrid rule misses fewer motifs than gradient × input:", rate["hybrid"] < rate["gradient × input"])
print("guided backprop's cross-task share is above RevealCancel's:", share["guided × input"] > share["RevealCancel"])
print(
    "DeepLIFT's maps add up to 0.001:", all(bool(gaps[n].max() < 1e-3) for n in ("Rescale", "RevealCancel", "hybrid"))
)

# %% [markdown]
# ## Files

# %%
study.finish(results)
