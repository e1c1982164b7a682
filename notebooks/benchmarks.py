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
# # What does attribution cost, and how far is that from what it must cost?
#
# A map is one pass forward and one back; training on it doubles a step. This page shows how close we get to that, beside
# captum, zennit, shap and tangermeme, before and after the last round of work on speed. **It measures nothing itself:** it
# shows the records of `make bench`, which are kept in `notebooks/results/benchmarks`. It is a page for those who work on the library's speed:
# the pictures come first, every number and what was tried in appendices. To measure on your machine:
#
# ```
# make bench                     # all cases, about ten minutes on two quiet cores
# make bench ONLY="ISNet / plain"    # some of them
# make bench DEVICE=cuda         # sizes that fill a large GPU
# ```

# %%
from studies.bench import tables
from studies.pictures.captions import show_figure

before, after = tables.load("cpu", "before"), tables.load("cpu", "after")
runs = {"before": before, "after": after}
for name, run in runs.items():
    machine, versions = run["machine"], run["environment"]
    others = ", ".join(f"{p} {versions[p]}" for p in ("zennit", "captum", "shap", "tangermeme") if p in versions)
    busy = f", load {machine['load before']}" if "load before" in machine else ""
    print(f"{name}: {machine['processor']}, {versions['threads']} of {machine['cores']} cores{busy}")
    print(f"        Python {versions['python']}, torch {versions['torch']}, {others}")
    print(f"        {run.get('note', 'One run.')}")

# %% [markdown]
# ## How it is measured
#
# **Ratios, not times.** A time depends on the machine, its clock, and on what else it does at that moment. Two functions that
# *take turns* meet the same conditions: a, b, a, b, … Each neighbouring pair gives one ratio, so a slow minute slows both
# and leaves the ratio where it was.
#
# **The median**, since one interrupted repetition would spoil a mean. The *interval* is that in which the median lies with 95 %,
# by the sign test: of n ratios about half lie on either side of the true median, as heads and tails do. With 9
# ratios that is from the second to the eighth; with fewer than six all of them. What has a target to meet is repeated three
# times as often in the last run.
#
# **Freed memory stays with the process** in the last run, as it does in runs of studies: `make bench` tells glibc so. Else a ratio also
# depends on where large tensors happen to be handed back to the system, which then gives them out page by page.
#
# **Memory** is the most that torch's tensors hold at once during a run beyond what they held before it, numerator / denominator
# (before: the peak of a process of its own).
#
# **The bound** counts what cannot be left out: products of activations with weights. Forward is one, back to the input another one,
# and the weights' gradient a third.
#
# | | products | for a plain step |
# |---|---|--:|
# | plain step: forward, gradients of activations and of weights | 1 + 2 = 3 | 1 |
# | map: forward, back to the input | 2 | |
# | step on a map: its two products, and the gradients of both by activations and weights | 2 + 4 = 6 | 2 |
# | step on maps of K classes | 3 (1 + K) | 1 + K |
# | Dual ISNet: two maps, of which LRP-z⁺ has a forward pass of its own | 3 · 4 | 4 |
# | ISNet on DeepLIFT's map, one reference for N samples | 6 + 3 / N | 2 + 1 / N |
# | a map at the last layers: the head alone | 3 | 1 |
# | Challenger, FGSM: plain step, map, step on the challenged samples | 3 + 2 + 3 | 2.67 |
#
# So the number of classes, the batch and the size of the images should not matter for a step on one map, and if a ratio is
# above its bound, the reason is what is *not* a product: activations, norms, the rules, the losses, and Python. The bound of an epoch is
# that of its steps; what both sides pay besides, the optimiser, the batches and Python, can take the epochs of small networks below it.
#
# **Share of the peak** (`of peak`) asks the same of the machine. The speed of a large matrix product and of a large copy shows what the machine can do in a second. For
# each operation the longer of its two times at these rates, that of its arithmetic or that of its operands, is the least that it
# can take (the *roofline*); their sum for the numerator, divided by the time it took, is the share. Small operands that are still in
# a cache beat the copy, so the share is no strict limit.

# %%
rate = after["peak"]
print(f"peak: {rate['flops'] / 1e9:.0f} GFLOP/s (product of matrices), {rate['bytes'] / 1e9:.1f} GB/s (copy)")

# %% [markdown]
# ## All ratios at a glance
#
# A dot left of 1 is faster than what it is compared with. The black tick is the bound: how far right of it is the dot? Pale dots are
# those before, diamonds other packages.
#
# First **maps**, each in units of another map.

# %%
caption = "Maps: blue dots close to the black ticks are as cheap as they can be. Diamonds right of the dot above them are slower packages."
show_figure(tables.ratios(runs, "map"), caption, "Ratios of the times of maps, with intervals and bounds")

# %% [markdown]
# **Training steps**, in units of a plain step of the same network. A step on one map of the input cannot take less
# than two; where the map is one of the last layers, one is the bound.

# %%
caption = "Steps: the original and Dual ISNet need many plain steps, as their bounds do; steps on DeepLIFT's map lie furthest above theirs."
show_figure(tables.ratios(runs, "step"), caption, "Ratios of the times of training steps, with intervals and bounds")

# %% [markdown]
# **Losses** beside loops over images and boxes, and **epochs** of the studies, in units of a plain epoch.

# %%
caption = "Losses: a dot left of 1 is faster than a loop over images and boxes."
show_figure(tables.ratios(runs, "loss"), caption, "Ratios of the times of losses")
caption = (
    "Epochs of the studies at smoke scale: what is left of a step's ratio when batches and the optimiser count too."
)
show_figure(tables.ratios(runs, "epoch"), caption, "Ratios of the times of epochs")

# %% [markdown]
# ## How it grows
#
# Straight lines on two logarithmic axes are powers; the slope is the exponent. Work grows with the batch (1) and with the pixels, so
# with the edge squared (2). What does not grow takes the exponent down: reading the weights and, in a step, holding their gradients, 45 MB
# in a ResNet-18. With the number of classes nothing should grow (0), and with references less than their number, as all samples share them.

# %%
caption = "Straight lines are powers, and the number at the end of each is its exponent. A line near 0 does not grow."
show_figure(
    tables.scaling(after),
    caption,
    "Time and memory against batch, image edge, number of classes and number of references",
)

# %% [markdown]
# The exponents with their intervals:

# %%
growth = tables.scaling_table(after)
tables.styled(growth, "Exponents of time and memory, with 95 % intervals (how well a power describes the points)")

# %% tags=["nbval-check-output"]
for found in after["scaling"]:
    if found["grows"] == "classes":
        print(f"{found['run']}: its time grows with the classes:", found["exponent of seconds"][1] > 0)

# %% [markdown]
# ## What explains the rest
#
# The time of torch's operations (without those inside them) in a plain step and in steps on maps, where that of a plain step of the same
# network is 1. *Convolutions and their gradients are what the bound counts*: of them a step on one map needs twice those of a plain step.
# What is above that, and all the rest, is what a better implementation could still win. (The profiler itself takes time, too.)

# %%
operations = tables.profile_table(after)
tables.styled(operations, "Time of operations, plain step = 1").format("{:.3f}", na_rep="")

# %% tags=["nbval-check-output"]
for step, times in operations.items():
    convolutions = times.filter(regex="(?i)conv").sum()
    print(f"{step}: convolutions take more than half of its time:", convolutions > 0.5 * times["sum"])

# %% [markdown]
# *A step on DeepLIFT's map* had a reference's row of its own in each layer when this was measured; since then the row shares the batch's
# convolutions, and the step takes 2.5 plain ones instead of 3.0. On one thread torch runs a convolution of a single small
# row without oneDNN: of a ResNet-18 step with eight images of 64 pixels, this row takes 13 to 18 %, where an eighth of the images' work
# would be 6 %. The rest above its bound are the secants of ReLU, and batch norm's statistics, through which it is trained as well.
#
# *LXT*, the package of AttnLRP's authors, is not among the cases: it exchanges torch's classes for its own, and its version 2.1 does not load
# beside transformers 5. Tried in a process apart, on a small vision transformer of torchvision (32×3×28×28, one thread), its CP-LRP
# map and `AttnLRP("cp")` agree to 1e-7; it takes 28 ms and ours, which sees operations where LXT rewrites modules, 33 ms.

# %% [markdown]
# ## Measure again
#
# `make bench KEEP=after` measures all cases of code that is committed and keeps the record as `cpu-after.json`; then
# `make notebooks EXPERIMENTS=benchmarks` brings this page up to it. For another state of the code keep it under another label, and load that above.

# %% [markdown]
# ## Appendix: all ratios in numbers
#
# *above it*: how far the ratio is above its bound. A target *holds* if the whole interval is within it, *fails* if none is, and is
# *undecided* otherwise. Before, intervals were all of nine ratios, and two bounds, those of Dual and of maps at the last layers,
# were not yet understood.

# %%
tables.styled(tables.table(runs), "Ratios with intervals; the other columns are those of the last run")

# %% tags=["nbval-check-output"]
targets = [row for row in after["cases"] if row["target"]]
for said in ("holds", "undecided", "fails"):
    print(f"{said}: {sum(row['verdict'] == said for row in targets)} of {len(targets)} targets")

# %% [markdown]
# ## Appendix: what was tried
#
# Not everything that ought to help does.

# %%
tables.styled(tables.tried(after), "What was tried").hide(axis="index")
