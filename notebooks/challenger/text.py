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
# # Does it help to challenge the words that a network relies on?
#
# **The question.** A network that has read a hundred questions decides by a few words. Does it classify better, and know
# better how sure to be, if it is also trained on sentences in which just those words have been changed?
#
# **The claim.** *CHALLENGER: Training with Attribution Maps* (Tomani, Cremers 2022,
# [arXiv 2205.15094](https://arxiv.org/abs/2205.15094), abstract): manipulating particularly relevant input patterns during
# training improves classification and calibration, and this in any domain: **vision, natural language, time series**.
#
# **The body of the paper was not read; only the abstract was to be had.** What is manipulated, and how, is our
# reconstruction; what fails here need not fail there.
#
# **What you will see.** Which words a network relies on, what the challenge does to them, and the learning curves of
# all methods. The default data, written for this kit, need no download: requests in which no single word says
# whether something is wanted ("do not cancel the train").
#
# *Words*: **ECE**, the expected calibration error, says how far confidence and accuracy are apart; **NLL** is the negative log-likelihood of the true
# class, in nats (units of the natural logarithm); the **margin** is the lead of the label's logit over a rival's; **FGSM**, the fast gradient sign method,
# trains on inputs pushed along the sign of the gradient; *permuted* is Challenger with its map's values at other, randomly drawn positions;
# *Holm's correction* makes p-values larger, for the number of comparisons.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
dataset: str = "booking_requests"  # booking_requests (generated), trec or sst2 (python -m data_prep NAME)
methods: str = "plain, word dropout, FGSM, Challenger, permuted"  # what to train, rows of the table below
sizes: str = "40, 160"  # numbers of training sentences, class-balanced [sizes ≥ 1]
shown: int = 160  # one of them, for the pictures [shown ≥ 1]
n_validation: int = 300  # other training sentences, which choose each method's settings [n_validation ≥ 1]
length: int = 15  # words of a sentence that are kept [length ≥ 5]
words: int = 2000  # most frequent words of the training part, 0 for all; others are "unknown" [words ≥ 0]
width: int = 32  # numbers of an embedding, and filters of each width of convolution [width ≥ 1]
steps: int = 50  # of Adam, whatever the number of sentences [steps ≥ 1]
batch_size: int = 32  # sentences a step [batch_size ≥ 1]
lr: float = 5.0e-3  # learning rate [lr > 0]
tuning_seeds: int = 1  # seeds 100, 101, … that choose the settings [tuning_seeds ≥ 1]
seed: int = 0  # first seed of the evaluation
seeds: int = 2  # number of seeds; intervals are over seeds, so that one has none
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/challenger/text
# %%
from functools import partial
from itertools import product

import pandas as pd
import torch
import torch.nn.functional as F

from attrain import LRP, DeepLift, InputXGradient, IntegratedGradients, Occlusion, explain
from attrain.challenger import Challenger
from attrain.metrics import reliability
from attrain.training import plain_step, regularisers
from data_prep import dataset as data_module
from data_prep.sentences import UNKNOWN
from studies import search
from studies.findings import from_few_samples
from studies.nets.small import TextCNN
from studies.pictures.charts import sentence_rows
from studies.pictures.learning import learning_curves, reliability_diagrams
from studies.pictures.style import line_styles
from studies.search import balanced_subset, best_settings, judge, predict, searched, train
from studies.statistics import estimate
from studies.study import Study, check_known, listed, progress

study = Study("challenger/text", globals())
names, counts = listed(methods), [int(n) for n in listed(sizes)]
if shown not in counts or "plain" not in names:
    raise ValueError("shown must be one of sizes, and methods hold plain, which is compared with")

# %% [markdown]
# ## Few sentences
#
# For each number n and each seed, n training sentences are drawn, equally many of each class. All methods of a seed train
# on the same sentences, from the same weights, in the same order, for the same number of steps, so that every difference
# below is paired. Which words are frequent is known from the whole training part; no label is needed for that.
#
# The network is Kim's (2014): embeddings, which are learned here, convolutions over three, four and five words, of each filter the
# largest value, a linear layer.

# %%
source = data_module(dataset)
data = {name: tensor.to(study.device) for name, tensor in source.load(length=length).items()}
study.data(dataset, source.checksums())
word = source.words()[: words or None]


def cut(x):
    return x.masked_fill(x >= len(word), UNKNOWN)


x, labels, test_x, test_y = cut(data["train_x"]), data["train_y"], cut(data["test_x"]), data["test_y"]
classes = source.CLASSES
make = partial(TextCNN, len(word), len(classes), size=width, filters=width, dropout=0.0)


def split(n, seed):
    """Which sentences train, and which validate: at most `n_validation` of the others."""
    draws = torch.Generator().manual_seed(seed)
    chosen, others = balanced_subset(labels, n, draws)
    return chosen, others[torch.randperm(len(others), generator=draws)[:n_validation]]


# %% tags=["nbval-check-output"]
print(f"{dataset}: {len(x)} training and {len(test_x)} test sentences, {len(word):,} words")
for i in range(len(classes)):
    text = [word[j] for j in x[labels == i][0].tolist() if j]
    print(f"{classes[i]}: {' '.join(text)}")

# %% [markdown]
# ## Challenger for words
#
# Word numbers cannot be pushed anywhere, so the challenge acts on what comes after them: the embeddings $h$, one vector $h_t$ a word.
# $R$ is their relevance by gradient × input for the **margin** by which the label's logit exceeds its strongest rival's. The
# $R_{te}$ of a word are summed; the words of the largest $|\sum_e R_{te}|$ are chosen ($M_t = 1$), and all numbers of their
# embeddings are pushed towards the rival, while the label stays:
#
# $$R = h \odot \nabla_{\!h}\,(z_y - \max_{c\ne y} z_c), \qquad
# \tilde h = h - \varepsilon\,s\;\mathrm{sign}(h)\,\mathrm{sign}(R)\odot M, \qquad
# L = \tfrac12\,\mathrm{CE}(h, y) + \tfrac12\,\mathrm{CE}(\tilde h, y)$$
#
# with $\varepsilon$ drawn for each sentence, uniform in $[0, \varepsilon_\mathrm{max})$, and $s$ the standard deviation of its embeddings. The embeddings learn
# from both terms. The share `top` counts padded places too: with 15 places, 0.2 are three words. In the search
# Challenger may also take the single numbers of the largest $|R_{te}|$, whatever their words (`per element`). *Challenger
# gate* instead scales down each word by its positive relevance, $\tilde h_t = h_t\,\max(0, 1 - \varepsilon\,r_t)$.
#
# **FGSM needs no code of its own.** With $R = -h\odot\partial\mathrm{CE}/\partial h$, and all words chosen, the push is
# $\tilde h = h + \varepsilon\,s\,\mathrm{sign}(\partial\mathrm{CE}/\partial h)$: the fast gradient sign method on embeddings
# (Goodfellow et al. 2015; Miyato et al. 2017), but that padding, which is zero, stays.


# %%
def against_loss(tail, h, y):
    """−h · ∂CE/∂h, for the network `tail` from the embeddings on."""
    leaf = h.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(tail(leaf), y, reduction="sum"), leaf)
    return -h * gradient


# %% [markdown]
# All rivals act on the embeddings too, unless they are said to drop words.

# %%
at = dict(site="embedding", channel_dim=-1)
some_words = at | dict(per="position", start="contrast", top=0.2)
some_numbers = at | dict(per="element", start="contrast", top=0.3)
METHODS = {
    "plain": (plain_step, [{}]),
    "plain ×3": (plain_step, [{}]),  # three times the steps: what Challenger costs
    "dropout": (regularisers.dropout_step, [dict(p=p, layer="dropout") for p in (0.2, 0.4, 0.6, 0.8)]),
    "word dropout": (regularisers.word_dropout_step, [dict(p=p, unknown=UNKNOWN) for p in (0.1, 0.2, 0.3, 0.5)]),
    "mixup": (regularisers.mixup_step, [dict(alpha=a, layer="embedding") for a in (0.2, 0.4, 1.0, 2.0)]),
    "label smoothing": (regularisers.label_smoothing_step, [dict(smoothing=s) for s in (0.05, 0.1, 0.2, 0.3)]),
}

# %%
METHODS["FGSM"] = (Challenger, [dict(eps_max=e, attribution=against_loss, top=1.0, **at) for e in (0.5, 1.0, 2.0, 4.0)])
challenges = [dict(eps_max=e, **some_words) for e in (1.0, 4.0)] + [dict(eps_max=e, **some_numbers) for e in (1.0, 4.0)]
METHODS["Challenger"] = (Challenger, challenges)
METHODS["Challenger gate"] = (Challenger, [dict(eps_max=e, mode="gate", **some_words) for e in (0.5, 1.0, 2.0, 4.0)])
CONTROLS = {"permuted": ("Challenger", {"control": "permute"})}
METHODS["permuted"] = METHODS["Challenger"]  # with the relevance of each word given to another one at random
check_known("methods", names, METHODS)
tried = searched(METHODS, names, CONTROLS)

# %% [markdown]
# ## Equal search
#
# Each method may choose among four settings, for each n, by the negative log-likelihood (NLL) on validation sentences: training
# sentences that are in no subset of that seed. The choosing has seeds of its own (100, 101, …); test sentences have no say.
# The permuted control takes Challenger's choice.


# %%
def trained(name, n, seed, settings):
    """A method's network; those of a seed share sentences, weights and order."""
    chosen, _ = split(n, seed)
    longer = 3 if name == "plain ×3" else 1
    how = dict(seed=seed, steps=steps * longer, batch_size=batch_size, lr=lr)
    bar.update()
    return train(make, x[chosen], labels[chosen], METHODS[name][0], settings, **how)


def tune(seed):
    """Of each method's settings the negative log-likelihood on validation sentences, for each n."""
    loss = {n: {name: [] for name in tried} for n in counts}
    for n, name in product(counts, tried):
        _, others = split(n, seed)
        for settings in tried[name]:
            logits = predict(trained(name, n, seed, settings), x[others])
            loss[n][name].append(F.cross_entropy(logits, labels[others]).item())
    return {"loss": loss, "metrics": {}}


# %% [markdown]
# The search, and what was chosen:

# %%
with progress(tuning_seeds * len(counts) * sum(map(len, tried.values())), "search") as bar:
    tuned = [study.seed(100 + i, tune) for i in range(tuning_seeds)]
best = {n: best_settings(METHODS, names, [found["loss"][n] for found in tuned], CONTROLS) for n in counts}


def short(s):
    return ", ".join(f"{k} {v}" for k, v in s.items() if k in ("p", "alpha", "smoothing", "eps_max", "per"))


pd.DataFrame({f"n = {n}": {m: short(best[n][m]) for m in names} for n in counts})

# %% tags=["nbval-check-output"]
for name in names:
    print(f"{name}:", "Challenger's settings" if name == "permuted" else f"searched among {len(METHODS[name][1])}")

# %% [markdown]
# Of one network's training samples, maps and challenged samples are kept for a picture.


# %%
def examples(net, n, seed):
    """One training sentence a class: its words' relevance, how far each is pushed, and the label's probability."""
    challenger, rows = Challenger(**best[n]["Challenger"]), []
    for c in range(min(len(classes), 4)):
        i = next(i for i in split(n, seed)[0].tolist() if labels[i] == c)
        h, y = net.embedding(x[i : i + 1]).detach(), labels[i : i + 1]
        R = challenger.relevance(net, x[i : i + 1], h, y)
        torch.manual_seed(c)
        moved = challenger.challenge(h, R, y)
        torch.manual_seed(c)
        loss = challenger.loss(net, x[i : i + 1], y)[1]
        sizes = R.sum(-1)[0], (moved - h).norm(dim=-1)[0] / h.norm(dim=-1)[0].clamp(min=1e-9)
        p = [loss[term].neg().exp().item() for term in ("classification", "challenged")]
        rows.append({"x": x[i].cpu(), "class": c, "R": sizes[0].cpu(), "change": sizes[1].cpu(), "p": p})
    return rows


# %% [markdown]
# Each seed draws its own samples and trains all methods on them.


# %%
def answers(ids):
    """Methods that say which words decided; references are word numbers too: padding, or words that are not known."""
    unknown = ids.masked_fill(ids != 0, UNKNOWN)
    return {
        "gradient × input": InputXGradient(),
        "LRP-ε": LRP(),
        "DeepLIFT, from padding": DeepLift(0),
        "DeepLIFT, from unknown words": DeepLift(unknown),
        "integrated gradients, from the same": IntegratedGradients(unknown, steps=50),
        "one word made unknown": Occlusion(1, reference=UNKNOWN),
    }


# %% [markdown]
# Each of them explains one test sentence of each class.


# %%
def explained(net):
    """Of a test sentence of each class: what is read, and each method's relevance of each word for that."""
    first = [int((test_y == c).nonzero()[0]) for c in range(min(len(classes), 3))]
    ids, net = test_x[first], net.eval()
    result = {"x": ids.cpu(), "logits": net(ids).detach().cpu(), "R": {}, "delta": {}}
    for name, method in answers(ids).items():
        found = explain(net, ids, method=method, layers=() if isinstance(method, Occlusion) else "embedding")
        words = found.heatmap if isinstance(method, Occlusion) else found.layers["embedding"].sum(-1)
        result["R"][name], result["delta"][name] = words.cpu(), None if found.delta is None else found.delta.cpu()
    return result | {"bias": net.head.bias.detach().cpu()}


# %%
def run(seed):
    """Train and measure with this seed: what is returned here is kept, so that a run can resume."""
    result = {"metrics": {}, "logits": {}}
    for n in counts:
        for name in names:
            net = trained(name, n, seed, best[n][name])
            result["metrics"] |= {f"{n}.{name}.{key}": value for key, value in judge(net, test_x, test_y).items()}
            if n == shown:
                result["logits"][name] = predict(net, test_x).cpu()
            if n == shown and name == "plain":
                result["explained"] = explained(net)
            if n == shown and name == "Challenger":
                result["examples"] = examples(net, n, seed)
    return result


with progress(seeds * len(counts) * len(names), "evaluation") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## Which words decided?
#
# Word numbers have no gradient: between word 7 and word 8 there is nothing. But the network looks each number up in a table
# first, and from there on all is differentiable. So numbers go in as they are, and the map is read **at the embedding
# layer**, for any method:
#
# ```
# explain(net, ids, method=DeepLift(0), layers="embedding").layers["embedding"]     # (N, T, width)
# ```
#
# Summed over the embedding's width this is one number a word. References are word numbers too: *padding* (0) asks what the
# words say that silence does not; *unknown words* ask what it is about these words, rather than any. The last row needs
# no gradient: one word at a time is replaced by "unknown", and the fall of the logit is the word's relevance.
#
# Below, for a test sentence of each class (three at most), what speaks for the class that the plainly trained network reads
# (red), and what against it (blue); each row has a scale of its own. What a row has to say depends more on the reference
# than on the method: the upper three ask about padding, the lower three about unknown words.

# %%
found = results[0]["explained"]
read, rows = found["logits"].argmax(1), []
for i, ids in enumerate(found["x"]):
    said = [word[j] for j in ids.tolist() if j]
    for k, (name, R) in enumerate(found["R"].items()):
        label = f"read as {classes[read[i]]}: {name}" if k == 0 else name
        rows.append((label, said, (R[i] / R[i].abs().max().clamp(min=1e-9)).tolist(), "relevance"))
caption = "Red words speak for the class that is read, blue ones against it. The rows of one reference are alike; those of the other are not."
study.figure(
    sentence_rows(rows), "words", caption, "A sentence of each class with a row for each method, each word coloured"
)

# %% [markdown]
# Why do the upper three agree? This network is made of ReLU and maxima, without a bias before the last layer, so doubled
# embeddings double its logits (but for the last bias). Padding's embedding is 0, and on the line from 0 to $h$ the gradient
# never changes: with DeepLIFT's secants nothing else can come out. (LRP-ε comes close, as ε is small.) Other networks have
# biases, other references are not 0, and there the methods part. What can be checked are their totals:

# %% tags=["nbval-check-output"]
logit = found["logits"].gather(1, read[:, None])[:, 0]
totals = {name: R.sum(1) for name, R in found["R"].items()}
for name in [name for name in totals if name.startswith("DeepLIFT")]:
    print(
        f"{name}: adds up to the difference of two logits:",
        torch.allclose(totals[name], found["delta"][name], atol=1e-3),
    )
without_bias = torch.allclose(totals["gradient × input"], logit - found["bias"][read], atol=1e-3)
print("gradient × input: adds up to the logit less the last layer's bias:", without_bias)
same = torch.allclose(found["R"]["DeepLIFT, from padding"], found["R"]["gradient × input"], atol=1e-3)
print("DeepLIFT from padding is gradient × input, word by word:", same)

# %% [markdown]
# ## What a challenged sentence looks like
#
# Four training sentences. First row of each: the relevance of each word for the margin, red for the label, blue for its rival. Second
# row: how far the challenge, drawn at random up to full strength, moves the word's embedding, relative to its length. On the left the
# label's probability before and after. Are those the words that you would have chosen?

# %%
rows = []
for row in results[0]["examples"] if "Challenger" in names else ():
    said = [word[j] for j in row["x"].tolist() if j]
    scale_of = row["R"].abs().max().item() or 1.0
    rows.append((f"{classes[row['class']]}: p = {row['p'][0]:.2f}", said, (row["R"] / scale_of).tolist(), "relevance"))
    rows.append((f"challenged: p = {row['p'][1]:.2f}", said, row["change"].tolist(), "change"))
if rows:
    caption = "Are the reddest words the ones that are moved most (orange)? On the left the label's probability, before and after."
    study.figure(
        sentence_rows(rows),
        "sentences",
        caption,
        "Four sentences, each with its words on the colours of their relevance and of their change",
    )

# %% [markdown]
# ## Learning curves
#
# One panel for each outcome. Accuracy should be high, all others low: **ECE**, by how much confidence differs from accuracy (15 bins); **NLL** and **Brier**, which judge
# the probabilities as such; **filter |cos|**, how much alike a layer's filters are.

# %%
outcomes = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier score", "similarity": "filter |cos|"}


def of(n, name, outcome):
    """One number for each seed."""
    return [result["metrics"][f"{n}.{name}.{outcome}"] for result in results]


lines = {
    title: {name: {n: estimate(of(n, name, outcome)) for n in counts} for name in names}
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
# The same in numbers: the mean, the difference from plain training, and a star where that difference has p < .05 after
# Holm's correction for the number of methods (paired t-test over seeds, for each n).


# %%
def table(outcome, n):
    """One text for each method: its mean, and its difference from plain training."""
    return search.means_and_differences({name: of(n, name, outcome) for name in names}, "plain")


pd.concat({t: pd.DataFrame({f"n = {n}": table(o, n) for n in counts}) for o, t in list(outcomes.items())[:3]})

# %% [markdown]
# ## How far can its confidence be trusted?
#
# Points below the diagonal: more confident than right. Grey bars: how many test sentences have that confidence.

# %%
compared = [name for name in ("plain", "word dropout", "FGSM", "Challenger") if name in names]
pooled = {name: torch.cat([result["logits"][name] for result in results]) for name in compared}
truth = test_y.cpu().repeat(seeds)
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
def difference(n, outcome, other):
    return [a - b for a, b in zip(of(n, "Challenger", outcome), of(n, other, outcome))]


against = {"plain": {"7": "accuracy", "7-NLL": "nll", "5": "similarity", "5-rank": "rank"}}
against |= {"permuted": {"4": "accuracy"}, "FGSM": {"9": "accuracy", "9-NLL": "nll"}}
rivals = [name for name in ("dropout", "word dropout", "mixup", "label smoothing") if name in names]
for n in counts if "Challenger" in names else ():
    for other in [name for name in against if name in names]:
        for claim, outcome in against[other].items():
            study.claim(f"challenger-{claim}", difference(n, outcome, other), of=f"{dataset}, n = {n}, − {other}")
    if rivals:
        loss = {m: min(map(sum, zip(*(found["loss"][n][m] for found in tuned)))) for m in rivals}
        rival = min(rivals, key=loss.get)
        study.claim("challenger-8", difference(n, "accuracy", rival), of=f"{dataset}, n = {n}, − {rival}")
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
# At laptop scale the sentences are the questions of TREC-6. Plain dropout is as accurate as Challenger there, with a better likelihood. On film reviews
# (SST-2, [results](../results/challenger.md)) Challenger beats FGSM, but this says nothing: the search by NLL gave FGSM a strength at which it learns
# nothing, as networks that are far too confident gain by saying nothing. The requests of the default scale are made so that pairs of words decide;
# from 40 of them, too few to learn which pairs, all methods are near guessing (0.25).
#
# ## What to try next
#
# - `methods="plain, Challenger, Challenger gate, permuted"`: the gate weakens words instead of pushing them.
# - `dataset="trec", sizes="120", length=20, steps=1000, lr=1e-3` after `python -m data_prep trec`: real questions, and 2,000 words.
# - `top` in the table of methods: one word, or all of them? With all of them, and the cross-entropy for the margin, it is FGSM.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
print(f"{len(study.claims)} claims of {len(counts)} sizes; {len(results)} seeds; {len(outcomes)} outcomes")

# %% [markdown]
# ## Files

# %%
study.finish(results)
