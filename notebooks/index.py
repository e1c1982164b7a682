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
# # Four papers on attribution maps, and what our runs found
#
# Each notebook asks one question of one paper. Open it, run all cells: at the default scale, *smoke*, it takes under a minute on two
# cores and downloads nothing. A smoke run shows on small data that everything works. What a paper's claims are worth shows at
# the larger scales, *laptop* and *paper*: `make reproduce SCALE=laptop EXPERIMENTS=isnet/mnist_background_bias`.
#
# **New here? Start with the [tour](tour.ipynb):** train a network that cheats, see that it cheats, fix it, in half a minute.
#
# This page reads the tree: run all its cells again, and new notebooks and records appear. Times are those of the kept runs,
# all seeds together, on the machine that each record names.

# %%
from IPython.display import Markdown

from studies.contents import claims_table, notebooks_table, question, show_paper
from studies.records import RECORDS, load_records
from studies.run import experiments
from studies.study import NOTEBOOKS

# %% [markdown]
# ## Notebooks of no one paper

# %%
Markdown(notebooks_table(experiment for experiment in experiments() if "/" not in experiment))

# %% [markdown]
# And a page that measures nothing itself: [benchmarks](benchmarks.ipynb), what maps and training on them cost, beside other
# packages, and what they would have to cost at least.

# %% [markdown]
# ## Faster ISNet
#
# *Bassi, Decherchi, Cavalli 2024, [arXiv 2401.08409](https://arxiv.org/abs/2401.08409).* **Does training on its own map stop a
# classifier from reading the background?**
#
# The paper says that a network which minimises the background relevance of its own LRP map while it trains ignores background
# marks and keeps its accuracy, at a cost that does not grow with the number of classes. In our runs the standard network
# falls for a mark entirely and the ISNets lose 0.5 to 4.5 points to it (the variant *Dual* fails), but they pay two to three points of accuracy, the
# simplest remedy, other images' backgrounds, does better still, and of X-rays and photographs no variant makes a robust classifier.

# %%
show_paper("isnet", "mnist_background_bias/accuracy")

# %% [markdown]
# ## Using Explanations to Guide Models
#
# *Rao, Böhle, Parchami-Araghi, Schiele 2023, [arXiv 2303.11932](https://arxiv.org/abs/2303.11932).* **Can boxes teach a network
# where to look?**
#
# The paper says that an energy loss on attribution maps makes networks focus on the objects in the boxes, also with few or coarse
# boxes, and that this helps where the background misleads. In our runs the energy loss moves the maps into the boxes best, by its own measure and by IoU, coarse
# boxes keep two thirds of the gain and boxes on one image in a hundred a twentieth, and where stripes mislead the worst group rises from 0.01 to 0.28, too unevenly for a verdict.

# %%
show_paper("energy", "limited_boxes/annotation")

# %% [markdown]
# ## DeepLIFT
#
# *Shrikumar, Greenside, Kundaje 2017, [arXiv 1704.02685](https://arxiv.org/abs/1704.02685).* **What do gradients miss that differences
# from a reference find?**
#
# The paper says that DeepLIFT's RevealCancel rule finds pixels and DNA motifs that gradients, integrated gradients and guided
# backprop miss, and does not make up others. In our runs RevealCancel wins all sixteen comparisons on digits, and the authors' own DNA network
# gives the authors' numbers; of three DNA networks trained by us, one misses 30 % of a motif's matches with the flat reference, and none with shuffled ones.

# %%
show_paper("deeplift", "mnist_digit_conversion/log-odds")

# %% [markdown]
# ## Challenger
#
# *Tomani, Cremers 2022, [arXiv 2205.15094](https://arxiv.org/abs/2205.15094).* **Does it help to disturb the very patterns that a
# network relies on, while it trains?**
#
# The paper's abstract says that manipulating particularly relevant input patterns in training makes classification and calibration
# better, from a few samples up to thousands, in any domain. Its body could not be read, so what is tested is our reconstruction: it helps clearly with 20 digits
# or 120 questions and not surely with more, not on time series, and training on dense FGSM or with dropout does as well.

# %%
show_paper("challenger", "few_samples_vision/learning_curves")

# %% [markdown]
# ## The claims
#
# Each measurement of a claim has a verdict: it *holds* if the whole 95 % interval lies where it is expected, *fails* if none of it
# does, and is *undecided* in between; a single number has *no interval*. The table counts them, for the runs that are kept with the
# code. The README has each with its numbers, and `make reproduce` leaves a page of your own runs, `results/report.html`.

# %%
Markdown(claims_table())

# %% [markdown]
# Is this page in step with the tree? These lines are checked whenever the tests run.

# %% tags=["nbval-check-output"]
recorded = {record["experiment"] for record in load_records(RECORDS)}
print("every kept record has its notebook:", recorded <= {*experiments()})
print("every notebook asks a question:", all(question(experiment) != experiment for experiment in experiments()))
scales = {experiment: (NOTEBOOKS / f"params/{experiment}.laptop.yaml").is_file() for experiment in experiments()}
print("every notebook has a laptop scale:", all(scales.values()))
