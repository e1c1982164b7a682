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
# **New here? Start with the [tour](tour.ipynb):** train a network that cheats, see that it cheats, fix it, in half a minute. For the library by itself, on
# one photo with a network of your own, there is [a first look](first_look.ipynb), and [a page](../docs/which_method.md) on which method is for what.
#
# Every other notebook asks one question. Open it and run all cells: at the default scale, *smoke*, it takes under a minute on two cores and
# downloads nothing. A smoke run shows that everything works, on small data. What a paper's claims are worth shows at the larger scales, *laptop* and
# *paper*: `make reproduce SCALE=laptop EXPERIMENTS=isnet/mnist_background_bias`.
#
# Below are, for each paper, one picture, the notebooks and what they found in a sentence, read from the repository whenever this page is run. Every
# measurement, and how long each run took, is on the [results pages](results/README.md).

# %%
from IPython.display import Markdown

from studies.files import NOTEBOOKS
from studies.outline import question
from studies.pages import show_paper
from studies.parameters import experiments
from studies.records import RECORDS, load_records

# %% [markdown]
# ## Faster ISNet
#
# *Bassi, Decherchi, Cavalli 2024, [arXiv 2401.08409](https://arxiv.org/abs/2401.08409).* **Does training on its own map stop a
# classifier from reading the background?**
#
# The paper says that a network which minimises the background relevance of its own LRP map while it trains ignores background
# marks and keeps its accuracy, at a cost that does not grow with the number of classes. In our runs the standard network goes by the mark, and a
# wrong mark costs four ISNets 0.5 to 5.2 points of accuracy, and the variant *Dual* 58. But the four are three to four points less accurate
# without marks, and the simplest remedy does better: showing each digit on another image's background. On X-rays no variant is robust, on
# photographs one all but is (wrong stripes cost it 2 to 9 points). [More](results/isnet.md)

# %%
show_paper("isnet", "mnist_background_bias/accuracy")

# %% [markdown]
# ## Using Explanations to Guide Models
#
# *Rao, Böhle, Parchami-Araghi, Schiele 2023, [arXiv 2303.11932](https://arxiv.org/abs/2303.11932).* **Can boxes teach a network
# where to look?**
#
# The paper says that an energy loss on attribution maps makes networks focus on the objects in the boxes, also with few or coarse
# boxes, and that this helps where the background misleads. In our runs the energy loss moves the maps into the boxes best by its own measure and,
# on scenes of digits, by overlap. Coarse boxes keep two thirds of the gain, but boxes on one image in a hundred keep only a sixth, on photographs a fifth. Where stripes mislead, the accuracy of the
# worst group rises from 0.00 to 0.27, with the loss RRR\* to 0.36 and with L1 to 0.16, all three surely. [More](results/energy.md)

# %%
show_paper("energy", "limited_boxes/annotation")

# %% [markdown]
# ## DeepLIFT
#
# *Shrikumar, Greenside, Kundaje 2017, [arXiv 1704.02685](https://arxiv.org/abs/1704.02685).* **What do gradients miss that differences
# from a reference find?**
#
# The paper says that DeepLIFT's RevealCancel rule finds pixels and DNA motifs that gradients, integrated gradients and guided
# backprop miss, and does not make up others. In our runs RevealCancel wins all sixteen comparisons on digits, and the authors' DNA network gives the
# authors' numbers. Of ten DNA networks trained here, three miss 32 to 73 % of TAL1's matches with the flat reference, and none of the ten
# misses any with shuffled sequences (by the hybrid of both rules). [More](results/deeplift.md)

# %%
show_paper("deeplift", "mnist_digit_conversion/log-odds")

# %% [markdown]
# ## Challenger
#
# *Tomani, Cremers 2022, [arXiv 2205.15094](https://arxiv.org/abs/2205.15094).* **Does it help to disturb the very patterns that a
# network relies on, while it trains?**
#
# The paper's abstract says that manipulating particularly relevant input patterns in training makes classification and calibration
# better, from a few samples up to thousands, in any domain. Its body could not be read, so what is tested is our reconstruction. Accuracy rises with 10
# to 100 digits and with 120 questions, by half a point with thousands of digits, and on time series in one case of four; training on dense
# FGSM does as well almost everywhere, and often dropout or label smoothing.
# [More](results/challenger.md)

# %%
show_paper("challenger", "few_samples_vision/learning_curves")

# %% [markdown]
# ## For every paper, and for your own model
#
# How do maps differ, what do they cost, and what does *your* network look at? [Your own model, your own images](own_model.ipynb) takes a model and a
# folder of images, [its sibling](own_inputs.ipynb) a model of sentences, tables or several inputs; [benchmarks](benchmarks.ipynb) shows what attribution maps and training on them cost, beside other packages and beside the least
# that they could cost.

# %%
show_paper("", "attribution_methods/methods")

# %% [markdown]
# ## Words that the notebooks use

# %%
Markdown(filename=NOTEBOOKS / "glossary.md")

# %% [markdown]
# ## Is this page up to date?
#
# These lines are checked whenever the tests run.

# %% tags=["nbval-check-output"]
recorded = {record["experiment"] for record in load_records(RECORDS)}
print("every kept record has its notebook:", recorded <= {*experiments()})
print("every notebook asks a question:", all(question(experiment) != experiment for experiment in experiments()))
scales = {experiment: (NOTEBOOKS / f"params/{experiment}.laptop.yaml").is_file() for experiment in experiments()}
print("every notebook has a laptop scale:", all(scales.values()))
