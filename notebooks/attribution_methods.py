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
# # Ten ways to ask a network why, and how they differ
#
# **The question.** A network says *3*. Which pixels spoke for it, and which against? Ten well-known methods answer,
# and their pictures disagree. What does each of them compute, and which answer can be checked?
#
# **The one idea.** Nearly all of them are *one forward pass, one backward pass under modified local rules, one
# contraction* with the input. With $g$ the gradient that arrives from above, a nonlinearity $y = \varphi(x)$ hands down:
#
# | method | at a nonlinearity | map $R$ at the input | from |
# |---|---|---|---|
# | gradient | $g\,\varphi'(x)$ | $g$ | Simonyan et al. 2013 |
# | input × gradient | $g\,\varphi'(x)$ | $g \cdot x$ | Shrikumar et al. 2016 |
# | guided backprop | $\max(g, 0)\,\varphi'(x)$ | $g \cdot x$ | Springenberg et al. 2015 |
# | Grad-CAM | $g\,\varphi'(x)$, down to a layer $a$ | $\max\big(\sum_c \overline{g}_c\, a_c,\, 0\big)$, enlarged | Selvaraju et al. 2017 |
# | integrated gradients | $g\,\varphi'$, averaged on the line from a reference $r$ to $x$ | $\overline{g} \cdot (x - r)$ | Sundararajan et al. 2017 |
# | DeepLIFT Rescale | $g\,\dfrac{y - y_r}{x - x_r}$, the secant | $g \cdot (x - r)$ | Shrikumar et al. 2017 |
# | DeepLIFT RevealCancel | two secants, for what raises $x$ and for what lowers it | $g \cdot (x - r)$ | Shrikumar et al. 2017 |
# | LRP-ε | $g\,\dfrac{y}{y + \varepsilon}$ at a ReLU | $g \cdot x$ | Bach et al. 2015; Bassi et al. 2024 |
# | LRP-ε, zᴮ | the same | zᴮ rule at the first layer, so that black pixels can speak too | Montavon et al. 2017 |
# | LRP-z⁺ | positive contributions only in convolutions, ε in linear layers (zennit's `EpsilonPlus`) | relevance itself | Montavon et al. 2017 |
# | B-cos | the layer's dynamic weights, held constant | $g \cdot x$ | Böhle et al. 2022 |
#
# So a method is a *value*, and `explain(model, x, target, method)` is the only function. (B-cos needs a network made of
# B-cos layers; on the ReLU network below it *is* input × gradient, so it has no row of its own.)
#
# **What you will see.** Ten maps of the same images; which maps *add up*; why that must not depend on how a model is
# written; a transformer, and a network of two inputs; what reference, ε and layer do; what a map says of the classes that
# lost; and two tests by which maps are judged: weights drawn at random, and pixels erased. At the default scale it takes
# under a minute.

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
dataset: str = "digits"  # digits (comes with scikit-learn), mnist or fashion_mnist (python -m data_prep NAME)
n_train: int = 0  # number of training images, 0 for all [n_train ≥ 0]
model: str = "cnn"  # cnn (three convolutions), resnet18, resnet34 or resnet50
layers: str = "1 4 7"  # layers with maps of their own, from input to output; the last is Grad-CAM's
epochs: int = 8  # passes over the training images [epochs ≥ 1]
vit_epochs: int = 4  # the same for the transformer [vit_epochs ≥ 1]
pair_steps: int = 150  # steps for the network of two inputs [pair_steps ≥ 1]
batch_size: int = 32  # images a step [batch_size ≥ 1]
lr: float = 2.0e-3  # Adam's learning rate [lr > 0]
classes: str = "3 5 8 2 0"  # classes of the images shown; of the first image all are explained [0 ≤ classes ≤ 9]
image: int = 0  # which test image of each of these classes is shown, from 0 [image ≥ 0]
reference: float = 0.0  # of DeepLIFT and integrated gradients, and for erased pixels; 0 is black [0 ≤ reference ≤ 1]
epsilon: float = 1.0e-2  # LRP's ε [epsilon ≥ 0]
steps: int = 20  # integrated gradients' steps [steps ≥ 1]
images: int = 60  # test images of the measurements [images ≥ 1]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds, each a network of its own; pictures show the first
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/attribution_methods
# %%
import time
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18
from zennit.composites import EpsilonPlus
from zennit.torchvision import ResNetCanonizer

import attrain as at
from attrain import explain
from attrain.metrics import completeness_error, deletion_curve, randomised, rank_correlation
from attrain.training import correct, fit
from data_prep import dataset as data_module
from studies.nets.small import classifier, small_vit
from studies.pictures import charts, explorer
from studies.statistics import estimate, interval, number
from studies.study import Study, progress

# %% [markdown]
# ## Small networks, trained here
#
# Three convolutions and a linear layer, all ReLU. The pictures below explain the network of the first seed. Beside it, for
# two sections further down, a small vision transformer, and a network that sees *two* digits and says which is the larger.

# %%
study = Study("attribution_methods", globals())
source = data_module(dataset)
data = {name: tensor.to(study.device) for name, tensor in source.load().items()}
study.data(dataset, source.checksums())
train_x, train_y = (data[name][: n_train or None] for name in ("train_x", "train_y"))


# %%
class Larger(nn.Module):
    """Of two images of digits, whether the left or the right one is larger: logits (N, 2)."""

    def __init__(self):
        super().__init__()
        self.read, self.compare = classifier("cnn", classes=32), nn.Linear(64, 2)

    def forward(self, left, right):
        return self.compare(torch.cat([self.read(left), self.read(right)], 1).relu())


def pairs(x, y, n, draws):
    """n pairs of unequal digits, and which of the two is larger."""
    i, j = torch.randint(len(x), (2, 2 * n), generator=draws).to(x.device)
    i, j = (k[y[i] != y[j]][:n] for k in (i, j))
    return (x[i], x[j]), (y[j] > y[i]).long()


make_vit = partial(small_vit, data["train_x"].shape[-1], width=32, layers=2)


# %% [markdown]
# All three are trained with each seed.


# %%
def train(seed):
    """Networks trained with this seed: what is returned here is kept, so that a run can resume."""
    torch.manual_seed(seed)
    nets, order = [n.to(study.device) for n in (classifier(model), make_vit(), Larger())], torch.Generator()
    for net, passes in zip(nets, (epochs, vit_epochs)):
        order.manual_seed(seed)
        fit(net, (train_x, train_y), epochs=passes, batch_size=batch_size, lr=lr, generator=order, on_epoch=bar.update)
    optimizer = torch.optim.Adam(nets[2].parameters(), lr)
    for _ in range(pair_steps):
        x, y = pairs(train_x, train_y, batch_size, order)
        optimizer.zero_grad()
        F.cross_entropy(nets[2](*x), y).backward()
        optimizer.step()
    right = [correct(net, data["test_x"], data["test_y"]).double().mean().item() for net in nets[:2]]
    x, y = pairs(data["test_x"], data["test_y"], 1000, order.manual_seed(seed))
    right.append((nets[2](*x).argmax(1) == y).double().mean().item())
    metrics = dict(zip(("accuracy", "transformer's accuracy", "accuracy on pairs"), right))
    return {"states": [net.state_dict() for net in nets], "metrics": metrics}


# %% [markdown]
# The run, and the networks that it leaves:

# %%
with progress(seeds * (epochs + vit_epochs), "epochs") as bar:
    results = [study.seed(s, train) for s in study.seeds]
networks, (vit, larger) = [classifier(model).to(study.device).eval() for _ in results], (make_vit(), Larger())
for net, result in zip(networks, results):
    net.load_state_dict(result["states"][0])
for net, state in zip((vit, larger), results[0]["states"][1:]):
    net.to(study.device).eval().load_state_dict(state)

# %% [markdown]
# ## The methods, as values

# %%
composite = EpsilonPlus(canonizers=[ResNetCanonizer()])  # which folds the batch norms of a ResNet; there are none here
methods = {
    "gradient": at.Gradient(),
    "input × gradient": at.InputXGradient(),
    "guided backprop": at.GuidedBackprop(),
    "Grad-CAM": at.GradCAM(layers.split()[-1]),
    "integrated gradients": at.IntegratedGradients(reference, steps),
    "DeepLIFT Rescale": at.DeepLift(reference),
    "DeepLIFT RevealCancel": at.DeepLift(reference, rule="reveal_cancel"),
    "LRP-ε": at.LRP(epsilon),
    "LRP-ε, zᴮ": at.LRP(epsilon, first_layer=at.ZB(0, 1)),
    "LRP-z⁺": at.Zennit(composite),
}
net = networks[0]
shown = torch.stack([data["test_x"][data["test_y"] == int(c)][image] for c in classes.split()])
titles = [f"{c} → {p}" for c, p in zip(classes.split(), net(shown).argmax(1))]
maps = {name: explain(net, shown, method=method).heatmap.cpu() for name, method in methods.items()}
figure = charts.map_rows(shown.cpu(), maps, titles, size=0.8)
caption = "Red speaks for the class that is read, blue against it. Which rows show the digit's edges, and which spread over it?"
study.figure(figure, "methods", caption, "Digits and, below, one row of maps for each of ten methods")

# %% [markdown]
# In JupyterLab: choose an image, a class, a method, a layer, and move ε or the reference. (Elsewhere there is one picture.)
# Which image makes the network doubt? Explain the class that came second.

# %%
chosen = {name: methods[name] for name in ("LRP-ε", *(m for m in methods if m != "LRP-ε"))}
figure = explorer.explore(net, data["test_x"][:images], chosen, layers.split())
caption = "One image by one method. In JupyterLab there are sliders in its place."
study.figure(figure, "explorer", caption, "A digit and its map")

# %% [markdown]
# **What to look at in the rows above.** "3 → 9" is a 3 that the network reads as a 9. Red speaks for the class that it reads, blue against it; the
# thin line is the image's outline.
#
# - The *gradient* lights up pixels that are not there: it says what would change, not what contributed. Multiplied by
#   the input, all black pixels fall silent, whatever they mean.
# - *Guided backprop* has hardly any blue, and looks crisp. Remember it for the test with random weights.
# - *Grad-CAM* is coarse, as it lives at a layer of a few pixels, and its ReLU can leave a map empty. It averages each
#   channel's gradient over space, which suits networks that pool globally; this one does not.
# - *Integrated gradients*, *Rescale* and *LRP-ε* look alike here. They part where a network saturates; and where
#   positive and negative parts cancel, *RevealCancel* shows both.
# - *zᴮ* gives black pixels a voice, though a quiet one. *LRP-z⁺* follows what raises an activation, and hides what lowers it.
#
# Each map is scaled by its own largest values, since the size of relevance means nothing across methods, with one exception:
#
# ## Which maps add up?
#
# A map is **complete** if it sums to what it explains, here the logit less that of the reference,
#
# $$\sum_i R_i = \Delta = f_c(x) - f_c(r).$$
#
# Only then does "12 % of the evidence lies here" mean something. It does not make a map *right*, but a map that fails where its method
# promises it is *wrong*. *DeepLIFT* is complete by construction; what is left is float32's rounding, relative to a $\Delta$ that
# may be small. *Integrated gradients* are so in the limit of many steps. *LRP* starts from the logit $f_c(x)$ itself, and its
# sum is off by what biases and ε take. The others promise nothing.

# %%
x = data["test_x"][:images]
predicted = net(x).argmax(1)
delta = explain(net, x, predicted, at.DeepLift(reference)).delta.cpu()
logit = net(x).detach().gather(1, predicted[:, None])[:, 0].cpu()
promises = {name: ("f(x) − f(r)", delta) for name in methods if name.startswith(("integrated", "DeepLIFT"))}
promises |= {name: ("f(x)", logit) for name in methods if name.startswith("LRP")}
rows, errors = {}, {}
for name, method in methods.items():
    started = time.perf_counter()
    heatmap = explain(net, x, predicted, method).heatmap.cpu()  # which waits for a GPU
    rows[name] = {"ms a map": f"{1000 * (time.perf_counter() - started) / len(x):.2f}"}
    if name in promises:
        words, promised = promises[name]
        share, errors[name] = heatmap.sum((1, 2, 3)) / promised, completeness_error(heatmap, promised)
        rows[name] |= {"Σ R should be": words, "Σ R ÷ that, median": f"{share.median():.3f}"}
        rows[name] |= {f"error, {of}": number(getattr(errors[name], of)().item()) for of in ("median", "max")}
caption = f"{len(x)} images, the class that was read, on {study.device.type}; error is |Σ R − that| / |that|"
pd.DataFrame(rows).T.iloc[:, [1, 2, 3, 4, 0]].fillna("–").style.set_caption(caption)

# %% tags=["nbval-check-output"]
print(f"{dataset}: more than nine of ten test images are read correctly:", results[0]["metrics"]["accuracy"] > 0.9)
for rule in ("DeepLIFT Rescale", "DeepLIFT RevealCancel"):
    print(f"{rule} is complete to 1e-3 on every image, in float32:", bool((errors[rule] < 1e-3).all()))
print("integrated gradients, on most images to 10 %:", bool(errors["integrated gradients"].median() < 0.1))
print("LRP-ε is not complete:", bool(errors["LRP-ε"].median() > 0.02))
bcos, gradient = (explain(net, x, predicted, method).heatmap for method in (at.BCos(), at.InputXGradient()))
print("on a ReLU network B-cos is input × gradient:", torch.equal(bcos, gradient))

# %% [markdown]
# ## However the model is written
#
# Real networks use one ReLU module several times (every ResNet of torchvision does), call functions that are no modules,
# pool, multiply activations, normalise. A tool that hangs hooks on modules sees little of that. captum 0.9's DeepLIFT
# refuses the first network below; on the other four it returns, without a word, gradient × difference in place of DeepLIFT.
# (`make sweep` compares with it on all of torchvision's classifiers.)
#
# Here operations are intercepted as they are called, and one without a rule is an error that names it. Completeness is the
# proof, as anyone can check it with two runs of the model.


# %% tags=["nbval-check-output"]
class Net(nn.Sequential):
    def forward(self, x):
        return self.body(*self, x).mean((2, 3))


bodies = {
    "residual, one ReLU used twice": lambda conv1, conv2, relu, x: relu(conv2(h := relu(conv1(x))) + h),
    "functions instead of modules": lambda conv1, conv2, relu, x: F.relu(conv2(F.relu(conv1(x)))),
    "max pooling with overlap": lambda conv1, conv2, relu, x: F.max_pool2d(F.relu(conv1(x)), 3, stride=2),
    "a product of two activations": lambda conv1, conv2, relu, x: F.gelu(conv1(x)) * torch.sigmoid(conv1(x)),
    "layer normalisation": lambda conv1, conv2, relu, x: F.relu(F.layer_norm(conv1(x), (10, 26, 26))),
}
both = (at.DeepLift(), at.InputXGradient())
for name, body in bodies.items():
    torch.manual_seed(0)
    odd = Net(nn.Conv2d(1, 10, 3), nn.Conv2d(10, 10, 3, padding=1), nn.ReLU(inplace=True)).double()
    odd.body, photos = body, torch.rand(4, 1, 28, 28).double()
    delta = (odd(photos) - odd(0 * photos)).detach().sum(1)  # the sum of all outputs is explained
    off = [completeness_error(explain(odd, photos, lambda z: z.sum(1), m).heatmap, delta).max() for m in both]
    print(f"{name:30} DeepLIFT is off by {off[0]:.1%}, gradient × difference by {off[1]:.0%}")

# %% [markdown]
# ## On your own model, in five lines
#
# Any `nn.Module` from inputs (N, …) to logits (N, C), as it is: nothing is wrapped, hooked or rewritten, and nothing is left behind.
# `target` may be a class, one a sample, several a sample, `"all"`, or a function of the logits.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
your_model, your_images = resnet18(num_classes=10).eval(), torch.rand(2, 3, 64, 64)
result = explain(your_model, your_images, target=None, method=at.DeepLift(reference=0.5), layers=["layer3"])
print("map", tuple(result.heatmap.shape), "and at layer3", tuple(result.layers["layer3"].shape))
print("complete:", bool((completeness_error(result.heatmap, result.delta) < 1e-3).all()))

# %% [markdown]
# ## A transformer
#
# LRP-ε is a rule for ReLU networks, and refuses another by the name of what it has no rule for. `AttnLRP` (Achtibat et
# al. 2024, [arXiv 2402.05602](https://arxiv.org/abs/2402.05602)) has rules for what transformers are made of:
#
# | operation | backward pass |
# |---|---|
# | gate $y = \mathrm{GELU}(x)$ | $g\,y/x$, the ratio as a constant |
# | layer norm | the gradient, with the standard deviation as a constant |
# | product of two activations, as query and key | half of the gradient to each |
#
# Its older relative CP-LRP (Ali et al. 2022) takes attention weights for constants: all relevance goes through the values.
# DeepLIFT and integrated gradients need nothing new. For this small vision transformer every patch, a seventh of the
# image's edge, is a token: in the maps below relevance comes and goes by such squares.

# %%
of_vit = {
    "input × gradient": at.InputXGradient(),
    "integrated gradients": at.IntegratedGradients(reference, steps),
    "DeepLIFT Rescale": at.DeepLift(reference),
    "AttnLRP": at.AttnLRP(),
    "CP-LRP": at.AttnLRP("cp"),
}
maps = {name: explain(vit, shown, method=method).heatmap.cpu() for name, method in of_vit.items()}
above = [f"{c} → {p}" for c, p in zip(classes.split(), vit(shown).argmax(1))]
caption = "Red speaks for the class that the transformer reads, blue against it. Does AttnLRP look more like the gradient or like DeepLIFT?"
figure = charts.map_rows(shown.cpu(), maps, above, size=0.8)
study.figure(figure, "transformer", caption, "Digits and, below, maps of a transformer by five methods")

# %% tags=["nbval-check-output"]
print("more than four of five test images are read correctly:", results[0]["metrics"]["transformer's accuracy"] > 0.8)
try:
    explain(vit, shown, method=at.LRP())
except at.UnsupportedOperation as refusal:
    print("LRP-ε:", str(refusal).split(":")[0])
found = explain(vit, x, method=at.DeepLift(reference))
print("DeepLIFT is complete:", bool(completeness_error(found.heatmap, found.delta).median() < 1e-3))
print("the two LRPs differ:", not torch.allclose(maps["AttnLRP"], maps["CP-LRP"], rtol=0.1))

# %% [markdown]
# ## Two inputs
#
# `x` may also be a tuple or a dict of tensors, and then the map has the same form, with **one** sum over all of it:
# what each input has to say is measured in the same unit. This network sees two digits and says which is the larger.
# Does a small digit on the left speak for the right one? (What a model needs and
# nobody wants explained goes into `args` and `kwargs`. Token ids go in as they are, see [challenger/text](challenger/text.ipynb).)

# %%
(left, right), _ = pairs(data["test_x"], data["test_y"], 4, torch.Generator().manual_seed(1))
of_pair = {
    "input × gradient": at.InputXGradient(),
    "DeepLIFT Rescale": at.DeepLift(reference),
    "LRP-ε": at.LRP(epsilon),
}
found = {name: explain(larger, (left, right), method=method) for name, method in of_pair.items()}
answer = found["LRP-ε"].logits.argmax(1).tolist()
above = [f"{side}, larger" if i == k else side for k in answer for i, side in enumerate(("left", "right"))]


def in_turns(both):
    return torch.stack(both, 1).flatten(0, 1).cpu()


figure = charts.map_rows(
    in_turns((left, right)), {m: in_turns(f.heatmap) for m, f in found.items()}, above, size=0.8, shared=True
)
caption = "Four pairs, left and right in turns, the one that is said to be larger marked so. Red speaks for that answer, blue against it; a row has one unit. Whose ink speaks for the answer, the larger digit's or the smaller one's?"
study.figure(figure, "two_inputs", caption, "Pairs of digits and, below, maps of both by three methods")

# %%
deep = found["DeepLIFT Rescale"]
parts = torch.stack([R.flatten(1).sum(1) for R in deep.heatmap]).cpu()
said = [("left", "right")[i] for i in answer]
table = pd.DataFrame(
    {"larger": said, "left": parts[0], "right": parts[1], "together": parts.sum(0), "Δ": deep.delta.cpu()}
)
table.style.format(precision=3).set_caption("DeepLIFT: how much each input speaks for the answer")

# %% [markdown]
# In each row left and right add up to Δ, the logit less that of two black images. How often is this network right at all?

# %%
print(f"of 1,000 pairs of test images {results[0]['metrics']['accuracy on pairs']:.1%} are compared correctly")

# %% tags=["nbval-check-output"]
print("both inputs' maps together are complete:", torch.allclose(parts.sum(0), deep.delta.cpu(), atol=1e-3))

# %% [markdown]
# ## One setting at a time: reference, ε, layer
#
# - **Reference**: the question is "why this class, *rather than what?*" From black, only ink can speak. From grey, ink and
#   paper both do. Against the *mean image*, or *20 training images* (averaged, from one forward pass for them all),
#   a map shows what sets this image apart from others. There is no neutral choice; say which one you made.
# - **ε**: at 0 LRP is input × gradient, above. An activation well below ε passes little on: weak evidence fades, and the sum falls short.
# - **Layer**: the same map read at hidden layers, summed over channels. For DeepLIFT every layer holds the same total. The
#   checks at the first are max pooling at work: of four pixels one gets through.

# %%
few, mean = train_x[:20, None], train_x.mean(0, keepdim=True)
settings = {
    "Rescale from black": at.DeepLift(0.0),
    "from grey": at.DeepLift(0.5),
    "from the mean image": at.DeepLift(mean),
    "from 20 images": at.DeepLift(few),
    "LRP, ε = 1": at.LRP(1.0),
    "ε = 100": at.LRP(100.0),
}
rows = {name: explain(net, shown, method=method).heatmap.cpu() for name, method in settings.items()}
hidden = explain(net, shown, method=at.DeepLift(reference), layers=layers.split())
rows |= {f"Rescale at layer {name}": heatmap.cpu() for name, heatmap in hidden.layers.items()}
figure = charts.map_rows(shown.cpu(), rows, titles, size=0.8)
caption = "The same digits, with other references, layers and rules. What changes, and what does not?"
study.figure(figure, "settings", caption, "Digits and, below, maps of the same methods with other settings")

# %% [markdown]
# ## The classes that lost
#
# `target="all"` gives a map for each class from one forward pass. Here is one image ten times, once for each class, with the
# class and its logit above. The maps of a row share one scale now: pale maps are weak evidence. Pixels that are
# red in one column and blue in another decide between the two classes.
#
# Most logits are *negative*, and there LRP composites need care. zennit by itself starts its backward pass with a one, whatever
# the logit, which divides the map by the logit: where that is negative, the map's **sign turns**, and evidence against the class
# shows as evidence for it. `Zennit(composite)` starts from the logit. The last two rows differ in nothing else (the last is
# multiplied by the logit's size, to have the same scale).

# %% tags=["nbval-check-output"]
one = shown[:1]
scores = net(one).detach()[0]
size = scores.view(-1, 1, 1, 1).abs()
ten = one.repeat(len(scores), 1, 1, 1).requires_grad_()
with composite.context(net) as hooked:
    (from_one,) = torch.autograd.grad(hooked(ten), ten, torch.eye(len(scores), device=study.device))
rows = {name: explain(net, one, "all", methods[name]).heatmap[0] for name in ("DeepLIFT Rescale", "LRP-ε", "LRP-z⁺")}
rows = {name: heatmap.cpu() for name, heatmap in (rows | {"LRP-z⁺ from a one": from_one * size}).items()}
above = [f"{c}: {score:.1f}".replace("-", "−") for c, score in enumerate(scores)]
figure = charts.map_rows(ten.detach().cpu(), rows, above, size=0.8, shared=True)
caption = "The numbers are the logits. On a common scale: which classes' maps are strong, and where do they disagree?"
study.figure(figure, "classes", caption, "One digit ten times, with its maps for the ten classes")
sign = (scores / size.flatten()).view(-1, 1, 1, 1).cpu()
turned = torch.allclose(rows["LRP-z⁺ from a one"] * sign, rows["LRP-z⁺"], rtol=1e-3, atol=1e-4)
print("some logits are negative:", bool((scores < 0).any()))
print("there, and only there, the map that starts from a one has the sign turned:", turned)

# %% [markdown]
# ## Does a map notice when the network forgets?
#
# The sanity check of Adebayo et al. 2018: draw the weights anew, layer by layer from the output down, and compare each map
# with that of the trained network, by Spearman's rank correlation. It is taken over pixels that differ from the
# reference: with the zeros of the background counted in, every map that is multiplied by the input seems unchanged.


# %%
def maps_of(net, target):
    return {name: explain(net, x, target, method).heatmap for name, method in methods.items()}


def forgetting(net, seed):
    """Of each method: rank correlations with its map of the trained network, as more and more is drawn anew."""
    target, ink = net(x).argmax(1), x != reference
    trained = maps_of(net, target)
    found = {view: {m: [1.0] for m in methods} for view in ("map R", "its size |R|")}
    for _, forgetful in randomised(net, seed):
        for m, now in maps_of(forgetful, target).items():
            found["map R"][m].append(rank_correlation(trained[m], now, ink).nanmean().item())
            found["its size |R|"][m].append(rank_correlation(trained[m].abs(), now.abs(), ink).nanmean().item())
    return found


# %%
with progress(seeds, "networks") as bar:
    forgot = [(forgetting(*pair), bar.update())[0] for pair in zip(networks, study.seeds)]
panels = {view: {m: [f[view][m] for f in forgot] for m in methods} for view in forgot[0]}
drawn = ["none", *(name for name, _ in randomised(net))]
figure = charts.curves(panels, "drawn anew, from the output down to", drawn, "rank correlation")
caption = "A map should change when the network forgets: which line stays up on the left?"
study.figure(
    figure,
    "forgetting",
    caption,
    "Rank correlation with the trained network's maps as layers are drawn anew, for ten methods",
)

# %% [markdown]
# **What to look at.** On the left one line stays up: *guided backprop* draws the image's edges, whatever the network has
# learned. All others fall at once. On the right, maps that are multiplied by the input, or by its difference from the
# reference, keep much of their order: bright pixels have large relevance in any network. Of those that fall on the left,
# *LRP-z⁺* keeps most: rules that follow positive contributions alone lose sight of the layers above (Sixt et al. 2020).
# The plain *gradient* and *Grad-CAM* keep least.
# So do not judge a map by how well it outlines the object.
#
# ## Does the network miss what a map calls relevant?
#
# Erase the most relevant pixels first, by setting them to the reference, and watch the log-odds $\ln\frac{p}{1-p}$ of the class
# that the network reads fall. Two orders that ask no network are drawn in grey: pixels with ink at *random*, and the *brightest first*. A map that does not
# beat the latter has told us nothing that the image does not.
#
# Steeper is better. Methods whose maps looked alike fall alike. *Guided backprop*, so crisp, is behind the plain input ×
# gradient; the blobs of *Grad-CAM* take much that does not matter with them. Black pixels cannot be
# erased to black, which is unfair to the *gradient* and to *zᴮ*. And mind that erased images are like nothing the network has seen.

# %%
fractions = [0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2]


def deletion(net, seed):
    """Of each order of pixels: the fall of the log-odds, (images, fractions)."""
    target, ink = net(x).argmax(1), (x - reference).abs()
    chance = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).to(x) * (ink > 0)
    orders = maps_of(net, target) | {"random order": chance, "brightest first": ink}
    return {name: deletion_curve(net, x, h, target, fractions, reference).cpu() for name, h in orders.items()}


# %%
fall = [deletion(*pair) for pair in zip(networks, study.seeds)]
controls, names = ("random order", "brightest first"), list(methods)
families = {"gradients": names[:4], "differences and relevance": names[4:]}
curves = {title: {m: [-f[m].mean(0) for f in fall] for m in (*group, *controls)} for title, group in families.items()}
percent = [100 * fraction for fraction in fractions]
figure = charts.curves(curves, "pixels erased, %", percent, "change of the log-odds", controls)
caption = "Steeper is better; a line above the dash-dotted grey one does worse than the image alone. On digits of 8×8 pixels five lines on the right coincide: see below."
study.figure(
    figure,
    "deletion",
    caption,
    "Change of the log-odds as pixels are erased, two panels of methods and two controls in grey",
)

# %% [markdown]
# Lines that lie on each other are told apart by their means:

# %%
falls = {m: estimate([f[m].mean(1).numpy() for f in fall]) for m in (*methods, *controls)}
figure = charts.interval_rows(
    {m: {"mean": f} for m, f in falls.items()}, "mean fall of the log-odds, over the shares erased"
)
caption = "Further right is better. Methods whose intervals overlap are not told apart by this test."
study.figure(figure, "falls", caption, "Mean fall of the log-odds of ten methods and two controls, with intervals")

# %% [markdown]
# Both tests in numbers:

# %%
table = pd.DataFrame({"mean fall of the log-odds": {m: number(f["mean"]) for m, f in falls.items()}})
table["95 % interval"] = pd.Series({m: interval(f) for m, f in falls.items()})
table["rank correlation of |R|, last layer random"] = pd.Series(
    {m: number(estimate([f["its size |R|"][m][1] for f in forgot])["mean"]) for m in methods}
)
table.fillna("–").style.set_caption(f"Both tests; the interval is {falls['gradient']['interval']}")

# %% tags=["nbval-check-output"]
after = {m: sum(f["map R"][m][1] for f in forgot) / seeds for m in methods}
print("nearly the same with a random last layer:", ", ".join(m for m in methods if after[m] > 0.8))
gain = {m: estimate([(f[m] - f["random order"]).mean(1).numpy() for f in fall]) for m in methods}  # of the same images
no_better = [m for m in methods if gain[m]["low"] <= 0]
print("not clearly better than a random order:", ", ".join(no_better) or "none")

# %% [markdown]
# ## What to try next
#
# - `reference=0.5`: which maps change, and which erase best now that "erased" means grey?
# - `epsilon=1.0`, `steps=2`: how far from complete are they, and does the deletion curve care?
# - `model="resnet18"`, `layers="layer1 layer2 layer3"`; `dataset="fashion_mnist"`; `classes="1 4 7"`, `image=3`.
# - A method of your own is a row in `methods`: any composite of zennit's, or a frozen dataclass as those in `attrain.methods`.
#   `attrain.ZPlus()` is LRP-z⁺ with a map that can be trained on, `attrain.Dual()` both of LRP-ε and LRP-z⁺ in one pass.
# - An operation of your own that a method refuses: `attrain.register_rule(op, "linear")` says what it is ("elementwise", "product").
# - `explain(net, x, attrain.mean_normalised_target(c))` explains what sets class c apart from the mean of all classes: a softmax does not see
#   what raises all logits alike (DeepLIFT, section 3.6).
# - Maps can be trained on, too: `explain(…, create_graph=True)`, see [isnet/mnist_background_bias](isnet/mnist_background_bias.ipynb).

# %%
record = [{"metrics": dict(result["metrics"])} for result in results]
for entry, forget, deleted in zip(record, forgot, fall):
    for m in methods:
        entry["metrics"][f"{m}: rank correlation, last layer random"] = forget["map R"][m][1]
        entry["metrics"][f"{m}: rank correlation of |R|, last layer random"] = forget["its size |R|"][m][1]
    for m in (*methods, *controls):
        entry["metrics"][f"{m}: fall of log-odds"] = deleted[m].mean().item()
study.finish(record)
