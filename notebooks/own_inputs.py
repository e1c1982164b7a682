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
# # Your own model, whatever goes into it
#
# **The question.** You have a network of sentences, tables, series, DNA, of several of these at once, or a transformer of Hugging Face. Which of its inputs does
# it use, and where in them does it look? Do several methods agree?
#
# **What you will see.** For each method a map of every input; how much of the relevance lies in each; and, as a check that needs no map, what
# happens to the output when one input is exchanged for that of another sample. (For images with marked objects, and training on maps, there is
# [own_model](own_model.ipynb).)
#
# **How.** With parameters alone, nothing here need be edited:
#
# ```
# papermill notebooks/own_inputs.ipynb out.ipynb -p model my_module.py:make -p examples my_module.py:examples \
#     -p embeddings "input_ids bert.embeddings.word_embeddings" -p methods "AttnLRP, IntegratedGradients"
# ```
#
# `model` is a function that returns your `nn.Module`, trained. `examples` is one that returns a dict:
#
# | key | what it is |
# |---|---|
# | `x` | a tensor, a tuple of tensors (the model is called with them in turn) or a dict of them (called by name, as `model(**x)`); each with N rows, at most 32. Whole numbers are token ids |
# | `target` | what is explained: a class, one a sample, or a function of the output that gives (N,) numbers. Without: the predicted class |
# | `reference` | of DeepLIFT and integrated gradients, in the form of `x`. Without: zeros |
# | `kwargs` | further arguments of the model that are not explained, as `attention_mask` |
# | `names` | of each part of `x` a function from a list of ids to words, or a list of features' names, as `{"facts": ["age", "balance"]}`; of an `x` of one tensor that alone |
# | `classes` | names of the classes |
#
# Without parameters you see the whole way: a small network that reads a customer's request, as words, and three facts about the customer. It was trained to say
# *yes* if something is wanted and the balance is positive. What each word does only other words tell; two of the facts tell nothing.
#
# *Words*: a **map** gives each number that goes in its *relevance*, how much it speaks for (red) or against (blue) the explained output. Token ids have no map
# of their own, as nothing lies between two words: theirs is made at the layer that **embeds** them, one number a word.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
model: str = "studies.example_inputs:model"  # package.module:function or path.py:function, the network, trained
examples: str = "studies.example_inputs:examples"  # the same, for what goes in, see above
embeddings: str = "words embedding"  # of token ids: a part of x and the layer that embeds it, with commas
methods: str = "InputXGradient, DeepLift, IntegratedGradients, AttnLRP"  # of attrain, each as it comes
exchanges: int = 20  # times each input is exchanged for another sample's [exchanges ≥ 1]
seed: int = 0  # first seed, of the exchanges
seeds: int = 1  # number of seeds
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/own_inputs
# %%
from studies.early import check_early_inputs

check_early_inputs(model, examples, embeddings, methods)  # before what is slow to import

# %% [markdown]
# What you named is there. The rest takes a few seconds to import.

# %%
import pandas as pd
import torch

import attrain as at
from attrain import explain, show
from attrain.metrics import rank_correlation
from attrain.tensors import logits_of, mapped
from studies.own_inputs import called, check_embeddings, check_examples, exchanged, maps_of, parts_of
from studies.own_model import function_of, model_checksums
from studies.pictures import charts
from studies.statistics import estimate
from studies.study import Study, check_known, listed

study = Study("own_inputs", globals())
embedded = dict(map(str.split, listed(embeddings)))
chosen = listed(methods)
check_known("methods", chosen, [name for name in at.__all__ if isinstance(getattr(at, name), type)])

# %% [markdown]
# ## What goes in, and what comes out

# %%
net = function_of(model)().to(study.device).eval()
given = check_examples(function_of(examples)())
x, kwargs, reference = (
    mapped(lambda tensor: tensor.to(study.device), given.get(key)) for key in ("x", "kwargs", "reference")
)
target, names, classes = given.get("target"), given.get("names", {}), given.get("classes", ())
study.data("model and examples", model_checksums(model) | model_checksums(examples))
parts = parts_of(x)
check_embeddings(net, x, embedded)

# %% tags=["nbval-check-output"]
print(
    f"{type(net).__name__}: {sum(p.numel() for p in net.parameters()):,} parameters, {len(next(iter(parts.values())))} samples"
)

# %%
pd.DataFrame(
    {
        "shape": {name: str(tuple(part.shape)) for name, part in parts.items()},
        "holds": {name: str(part.dtype).removeprefix("torch.") for name, part in parts.items()},
        "its map is made at": {name: embedded.get(name, "itself") for name in parts},
    }
)

# %% [markdown]
# What comes out, and the one number of each sample that is explained:

# %%
output = called(net, x, kwargs)
logits = logits_of(output)
said = logits.argmax(1) if logits.ndim == 2 and logits.shape[1] > 1 else None  # the class that is predicted
if target is None:
    target = 0 if said is None else said


def explained(output):
    """The number that is explained, (N,)."""
    if callable(target):
        return target(output)
    logits = logits_of(output)
    columns = torch.as_tensor(target, device=logits.device).expand(len(logits))
    return logits.reshape(len(logits), -1).gather(1, columns[:, None])[:, 0]


value = explained(output)
print(
    f"comes out: {type(output).__name__}, explained are {len(value)} numbers from {value.min():.2f} to {value.max():.2f}"
)

# %% [markdown]
# ## The maps
#
# Of each sample one map a method; red speaks for what is explained, blue against it. Each map is scaled by its own largest values, so compare where the
# colours lie and not how strong they are. Samples are numbered; beside the number stands the class that the network predicts.

# %%
how = {"layers": tuple(embedded.values()), "kwargs": kwargs, "at_input": set(embedded) != set(parts)}


def method_of(name):
    """A method as it comes, with the reference where it takes one."""
    made = getattr(at, name)
    return (
        made(reference=reference) if reference is not None and name in ("DeepLift", "IntegratedGradients") else made()
    )


# %% [markdown]
# Each method as it comes, with the reference where it takes one:

# %%
found = {name: explain(net, x, target, method_of(name), **how) for name in chosen}
maps = {name: maps_of(explanation, x, embedded) for name, explanation in found.items()}
beside = [classes[c] for c in said] if classes and said is not None else [""] * len(value)
labels = [f"{i + 1} {name}".strip() for i, name in enumerate(beside)]
for part in next(iter(maps.values())):
    shown = {name: values[part].detach().cpu() for name, values in maps.items()}
    figure = show(parts[part].cpu(), shown, tokens=names.get(part), labels=labels)
    caption = f"Maps of {part}. Do the methods point to the same places?"
    study.figure(figure, f"maps of {part}", caption, f"Relevance in {part} of each sample by {len(chosen)} methods")

# %% [markdown]
# ## How much lies in each input?
#
# Of each sample the share of the absolute relevance $|R|$ that lies in an input, mean over the samples. It counts relevance for and against, so a
# noisy map of a long input has a large share; hence the check below.


# %%
def shares(values):
    """Part -> each sample's share of |R| that lies in it, (N,)."""
    sizes = {part: heatmap.detach().abs().flatten(1).sum(1).cpu() for part, heatmap in values.items()}
    total = sum(sizes.values())
    return {part: size / total for part, size in sizes.items()}


share = {name: shares(values) for name, values in maps.items()}
rows = {name: {part: estimate([s.numpy()]) for part, s in by_part.items()} for name, by_part in share.items()}
figure = charts.interval_rows(rows, "share of |R|, mean over samples")
caption = "One row a method. With one input only, its share is 1."
study.figure(
    figure, "shares", caption, "Share of absolute relevance in each input by method, with intervals over samples"
)

# %% [markdown]
# ## A check without a map: exchange one input
#
# Each input is exchanged for that of other samples, drawn at random, with all others left as they are. How much does the explained number change? An input whose
# exchange changes nothing is not used, whatever a map says. (Exchanged inputs go together as they may never have in training.)


# %%
def run(seed):
    """Mean absolute change of the explained number as each part is exchanged, and the shares."""
    draws = torch.Generator().manual_seed(seed)
    metrics = {
        f"{name}.{part}.share": s.mean().item() for name, by_part in share.items() for part, s in by_part.items()
    }
    changes = {part: [] for part in parts}
    for _ in range(exchanges):
        order = torch.randperm(len(value), generator=draws).to(study.device)
        for part in parts:
            other = explained(called(net, exchanged(x, part, order), kwargs))
            changes[part].append((other - value).abs().cpu())
    each = {part: torch.stack(found).mean(0) for part, found in changes.items()}
    return {
        "each": each,
        "metrics": metrics | {f"{part}.change": change.mean().item() for part, change in each.items()},
    }


# %% [markdown]
# The further to the right, the more the network needs an input:

# %%
results = [study.seed(s, run) for s in study.seeds]
change = {part: estimate([r["each"][part].numpy() for r in results]) for part in parts}
figure = charts.interval_rows(
    {part: {"change": e} for part, e in change.items()}, "mean |change| of the explained number"
)
caption = f"Each input exchanged {exchanges} times for another sample's; bars are 95 % intervals over samples. The further to the right, the more the network needs it."
study.figure(figure, "exchanges", caption, "Mean absolute change of the explained number as each input is exchanged")

# %% [markdown]
# ## Do the maps add up, and do the methods agree?
#
# A *complete* method's map sums to what it explains: all inputs' maps together to the output's difference from that of the reference, `delta`. The error is
# relative to the mean $|\Delta|$. Agreement is the rank correlation of $|R|$ over the places of all inputs, mean over the samples; places where no method finds
# anything, as the padding of a short sentence, count as agreement. Integrated gradients add up the better the more steps they take; in a ReLU network without
# attention and norms AttnLRP is input × gradient.

# %%
flat = {name: torch.cat([m.detach().flatten(1).cpu() for m in values.values()], 1) for name, values in maps.items()}
errors = {
    name: ((flat[name].sum(1) - e.delta.cpu()).abs().mean() / e.delta.abs().mean().cpu()).item()
    for name, e in found.items()
    if e.delta is not None
}
table = pd.DataFrame(
    {
        other: {name: rank_correlation(flat[name].abs(), flat[other].abs()).nanmean().item() for name in chosen}
        for other in chosen
    }
)
table["error of the sum"] = pd.Series(errors)
table.style.format("{:.2g}", na_rep="promises none")

# %% [markdown]
# ## What to try next
#
# - `methods="SmoothGrad, GuidedBackprop, LRP"`: what a method refuses is an error that names the operation and a way out.
# - Another `reference`: that of a word is the id of `[MASK]` or `[PAD]`. What is called relevant depends on it.
# - A callable `target`: what sets two classes apart is `lambda out: out.logits[:, 1] - out.logits[:, 0]`.
# - Hugging Face: `model` returns `BertForSequenceClassification.from_pretrained(...)`; `x` is `{"input_ids": ids}`, `kwargs` is `{"attention_mask": mask}`,
#   `embeddings` is `"input_ids bert.embeddings.word_embeddings"`.
# - From Python the same is `attrain.explain(model, x, layers=(...))`, and of one input alone `attrain.compare`.

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
print(
    "every number that goes in has a map, or a layer that embeds it:", all(set(v) == set(parts) for v in maps.values())
)
for name, error in errors.items():
    print(f"{name} adds up to 5 %: {error < 0.05}")
used = sorted(parts, key=lambda part: -change[part]["mean"])
print("by exchange, from most to least used:", ", ".join(used))

# %% tags=["nbval-check-output"]
most = {max(parts, key=lambda part: by_part[part].mean().item()) for by_part in share.values()}
print("most relevance lies in:", " or ".join(sorted(most)))

# %% [markdown]
# ## Files

# %%
study.finish(results)
