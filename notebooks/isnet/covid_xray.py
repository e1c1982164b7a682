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
# # Does a classifier see the disease in the lungs, or the hospital around them?
#
# **The question.** X-rays of COVID-19 came from other hospitals than those of healthy lungs. A burnt-in letter or the
# brightness of the margin then tells the class. Does a network trained on such images still read the lungs at a
# hospital it has never seen?
#
# **The claim.** *Faster ISNet* (Bassi, Decherchi, Cavalli, IEEE Access 2024, [arXiv 2401.08409](https://arxiv.org/abs/2401.08409),
# abstract): a network that minimises the relevance of everything but the lungs in its own LRP map beats others on images
# of external hospitals, even those for which the lungs are cut out first.
#
# **What you will see.** By default *phantoms*: drawn X-rays in which the disease changes the lungs alone and the hospital
# everything but the lungs, so that we know what a network ought to look at. With `dataset="covid_xray"` real X-rays of
# three sources by the same protocol. The protocol is ours; nothing here is for diagnosis.
#
# *Words*: a **map** gives each pixel its *relevance*, how much it speaks for (red) or against (blue) a class; the **background share** is the
# part of the absolute relevance $|R|$ outside the lungs; **P** is the weight of the map in an ISNet's loss; **LRP-ε** is the rule by which
# the map is made; *Dice* measures how well two masks agree, *AUC* how well scores rank the classes (0.5 is chance).

# %% tags=["parameters"]
scale: str = "smoke"  # name of the settings, for the record: smoke, laptop, paper or your own
dataset: str = "phantom_xray"  # phantom_xray (drawn here) or covid_xray (python -m data_prep covid_xray)
size: int = 32  # edge of the images in pixels [16 ≤ size ≤ 256]
methods: str = "standard, segment first, Stochastic"  # what to train, see the tables below
model: str = "cnn-norm"  # cnn, cnn-norm, resnet18, resnet34, resnet50, densenet121, efficientnet_lite0
pretrained: bool = False  # start from ImageNet's weights [not pretrained or "lite0" in model]
width: int = 16  # channels of the first layer of cnn and cnn-norm [width ≥ 1]
epochs: int = 5  # passes over the training images [epochs ≥ 1]
batch_size: int = 32  # images a step [batch_size ≥ 1]
optimizer: str = "adam"  # adam, or sgd with momentum 0.9
lr: float = 3.0e-3  # learning rate [lr > 0]
P: float = 0.9  # weight of the heatmap loss, 0 (none) to 1 [0 ≤ P ≤ 1]
decay: float = 0.9  # GWRP's d: 0 punishes the most relevant background pixel, 1 the mean [0 ≤ decay ≤ 1]
epsilon: float = 1.0e-2  # LRP's ε: activations well below it send no relevance back [epsilon ≥ 0]
selective_eps: float = 1.0e-7  # Selective ISNet's ε; at 1e-2 its maps vanish in confident networks [selective_eps > 0]
range_epochs: int = 2  # passes of the plain network whose maps set C1 and C2 [range_epochs ≥ 1]
rrr_weight: float = 0.1  # λ of RRR [rrr_weight ≥ 0]
gradcam_layer: str = "14"  # layer of Grad-CAM; layer4 for a ResNet, features.denseblock4 for densenet121
gradcam_weight: float = 10.0  # λ of Grad-CAM guidance [gradcam_weight ≥ 0]
lung_width: int = 8  # channels of the U-Net's first level [lung_width ≥ 1]
lung_epochs: int = 4  # passes of the U-Net over the lung masks [lung_epochs ≥ 1]
draws: int = 1000  # bootstrap draws of patients [draws ≥ 1]
seed: int = 0  # first seed
seeds: int = 1  # number of seeds; intervals are over patients with one, over seeds with more
device: str = "cpu"  # cpu, cuda, cuda:1
threads: int = 1  # CPU threads of this run; results depend on it in the last bits
out: str = ""  # folder of the results; "" for results/<scale>/isnet/covid_xray
# %%
from functools import partial

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attrain import LRP, ZB, background_share, explain, selective_target, stochastic_target
from attrain.metrics.classification import balanced_accuracy, macro_auc, macro_f1, patient_draws
from attrain.training import baselines, fit_fresh, plain_step, ranged_isnet_step, segmentation_step
from data_prep import dataset as data_module
from data_prep import efficientnet_lite0
from data_prep.covid_xray import CLASSES, SPLITS
from studies.nets import efficientnet
from studies.nets.segmenters import UNet
from studies.nets.small import classifier
from studies.pictures import charts
from studies.statistics import estimate, interval, number
from studies.study import Study, check_known, progress

study = Study("isnet/covid_xray", globals())
models = [name.strip() for name in methods.split(",") if name.strip()]

# %% [markdown]
# ## The data: one class, one hospital
#
# In training, normal lungs and pneumonia come from one place and COVID-19 from others. Three tests, always of other patients:
#
# - *internal*: the same hospitals. The hospital still gives the class away.
# - *external*: other hospitals for every class. What was learned about letters is of no use.
# - *swapped*: images that look like the training's COVID-19, of patients who do **not** have it. The hospital names the wrong class.

# %%
source = data_module(dataset)
data = {name: tensor.to(study.device) for name, tensor in source.load(size=size).items()}
study.data(dataset, source.checksums())
if pretrained:
    study.data(model, efficientnet_lite0.checksums())
x, y = data["x"].expand(-1, 3 if model == "efficientnet_lite0" else -1, -1, -1), data["y"]
part = {name: (data["split"] == i).nonzero()[:, 0] for i, name in enumerate(SPLITS)}
tests = ("internal", "external", "swapped")
chosen = torch.cat([(y[part["swapped"]] == c).nonzero()[:4, 0] for c in (0, 1)])
shown = part["swapped"][chosen]
rows = {}
for name, index in part.items():  # one image of each class that there is
    first_of = [int(index[y[index] == c][0]) for c in range(len(CLASSES)) if (y[index] == c).any()]
    rows[name] = x[first_of].cpu()
caption = "One image of each class and split. What besides the lungs differs between the classes in training, and what of that is left in the tests?"
figure = charts.image_rows(rows, titles=CLASSES, size=1.9)
study.figure(
    figure, "images", caption, "Chest X-rays of normal lungs, pneumonia and COVID-19, in training and in three tests"
)

# %% tags=["nbval-check-output"]
for name, index in part.items():
    counts = ", ".join(f"{n} {disease}" for n, disease in zip(y[index].bincount(minlength=3), CLASSES))
    print(f"{name:8}  {counts}; {len(data['patient'][index].unique())} patients")

# %% [markdown]
# ## First the lungs: a small U-Net
#
# ISNet needs a mask of what may be looked at, in training only. A U-Net learns it from those training images that
# have one, with binary cross-entropy and Dice loss, and then gives **every** image its mask, also those that came with one:
# otherwise the quality of the mask would tell the source. Its Dice, $2|A\cap B|/(|A|+|B|)$, is measured on the tests' patients.


# %%
def segment(seed):
    """The lungs of all images, and the mean Dice on those of each test that came with a mask."""
    given = part["train"][data["has_mask"][part["train"]]]
    make, known = partial(UNet, x.shape[1], width=lung_width), (x[given], data["mask"][given])
    settings = dict(epochs=lung_epochs, batch_size=16, lr=3e-3, on_epoch=bar.update)
    net, _ = fit_fresh(make, known, segmentation_step, seed=seed, **settings)
    with torch.no_grad():
        lungs = torch.cat([net(images)[:, 0] > 0 for images in x.split(256)])
    lost = lungs.float().mean((1, 2)) < 0.02  # the losses need some foreground: there, what is lungs in most images
    lungs[lost] = data["mask"][given].float().mean(0) > 0.5
    dice = {}
    for name in tests:
        index = part[name][data["has_mask"][part[name]]]
        found, true = (mask.flatten(1) > 0 for mask in (lungs[index], data["mask"][index]))
        each = 2 * (found & true).sum(1) / (found.sum(1) + true.sum(1))
        dice[f"lungs.{name}.dice"] = each.mean().item()
    return lungs, dice


# %% [markdown]
# A mask hides what is around the lungs, but not a source that shows in them. As a check, two numbers of each image's lungs, the
# mean and the spread of their brightness, go into a logistic regression that tells normal from pneumonia.


# %%
def brightness(lungs):
    """AUC of normal against pneumonia by the brightness of the lungs alone, at the training's and at other hospitals."""
    pixels = [image[inside].double() for image, inside in zip(x.mean(1), lungs)]
    level = torch.stack([torch.stack([values.mean(), values.std()]) for values in pixels]).cpu()
    known = {name: index[y[index] < 2].cpu() for name, index in part.items()}
    told = {name: (level[index], y[index.to(y.device)].cpu()) for name, index in known.items()}
    guess = make_pipeline(StandardScaler(), LogisticRegression()).fit(*told["train"])
    found = {name: guess.predict_proba(told[name][0])[:, 1] for name in ("internal", "external")}
    return {f"lungs.{name}.brightness_auc": roc_auc_score(told[name][1], p) for name, p in found.items()}


# %% [markdown]
# ## The networks
#
# All but *segment first* see the training images as they are. The mask of the lungs is for the loss alone: in the tests a network gets
# nothing but the image.
#
# | name | idea | at test time |
# |---|---|---|
# | standard | cross-entropy alone | – |
# | segment first | the pixels outside the lungs are black | the U-Net |
# | RRR | CE $+ \lambda \sum \big((1-M)\,\partial_x \sum_k \log p_k\big)^2$ (Ross et al. 2017) | – |
# | Grad-CAM | CE $+ \lambda\,\cdot$ share of the true class's Grad-CAM map outside the lungs | – |
# | replacement | the lungs on another image of the batch, whose own lungs are painted over | – |
# | Selective, Stochastic | $(1-P)\,\mathrm{CE} + P\,(L_\mathrm{bg} + L_\mathrm{fg})$ on their own LRP-ε maps: the two ISNets, see `mnist_background_bias` for the formula | – |

# %%
lrp = LRP(epsilon=epsilon, first_layer=ZB(low=0.0, high=1.0))
known = ("standard", "segment first", "RRR", "Grad-CAM", "replacement", "Selective", "Stochastic")
check_known("methods", models, known)


def step(name, seed, plain):
    """A method's training step; the ISNets take C1 and C2 from the maps of a plain network."""
    draws = torch.Generator().manual_seed(seed)
    target = {"Selective": selective_target(selective_eps), "Stochastic": stochastic_target(draws)}
    if name in target:
        settings = dict(target=target[name], method=lrp, P=P, decay=decay)
        return ranged_isnet_step(plain, x[part["train"]].split(256), **settings)
    others = {
        "RRR": partial(baselines.rrr_step, weight=rrr_weight),
        "Grad-CAM": partial(baselines.gradcam_step, layer=gradcam_layer, weight=gradcam_weight),
        "replacement": partial(baselines.background_replacement_step, generator=draws),
    }
    return others.get(name, plain_step)


# %% [markdown]
# All networks of a seed start from the same weights and see the images in the same order.


# %%
def make():
    """A fresh classifier, of grey images as three equal colours where it takes those."""
    if model != "efficientnet_lite0":
        return classifier(model, len(CLASSES), x.shape[1], width)
    return efficientnet.efficientnet_lite0(len(CLASSES), pretrained)


# %%
def train(seed, images, lungs, step=plain_step, epochs=epochs):
    """A fresh network and its training curves; all networks of a seed start from the same weights."""
    index = part["train"]
    settings = dict(epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer, clip=1.0)
    batch = images[index], y[index], lungs[index]
    return fit_fresh(make, batch, step, seed=seed, **settings, on_epoch=bar.update)


# %% [markdown]
# Besides the three tests there are two trials on changed internal images: *lungs blanked*, filled with grey, and *backgrounds exchanged*, the
# lungs on another image whose own lungs are painted over.


# %%
@torch.no_grad()
def said_of(net, images):
    """Logits, some images at a time."""
    return torch.cat([net(few).cpu() for few in images.split(128)])


# %%
def measure(name, net, images, lungs, result):
    """Add to the result what a network says of each test, of changed internal images, and where its relevance lies."""
    train, internal = part["train"], part["internal"]
    draws = torch.Generator().manual_seed(0)  # the same backgrounds for every network
    said = {test: said_of(net, images[index]) for test, index in part.items() if test in tests}
    grey = images[train].mean(1)[lungs[train]].mean()  # of the lungs
    said["blanked"] = said_of(net, torch.where(lungs[:, None], grey, images)[internal])
    said["exchanged"] = said_of(net, baselines.replace_background(images[internal], lungs[internal], generator=draws))
    maps = torch.cat([explain(net, images[index], method=lrp).heatmap for index in internal.split(100)])
    result["said"][name] = said
    result["maps"][name] = explain(net, images[shown], method=lrp).heatmap.cpu()
    result["metrics"][f"{name}.background_share"] = background_share(maps, lungs[internal]).nanmean().item()
    result["metrics"][f"{name}.swapped.called_covid"] = (said["swapped"].argmax(1) == 2).double().mean().item()
    for test, logits in said.items():
        truth = y[part.get(test, internal)].cpu()
        result["metrics"][f"{name}.{test}.balanced_accuracy"] = balanced_accuracy(logits, truth).item()
        if test in ("internal", "external"):
            result["metrics"][f"{name}.{test}.macro_f1"] = macro_f1(logits, truth).item()
            result["metrics"][f"{name}.{test}.auc"] = macro_auc(logits, truth).item()


# %% [markdown]
# Each seed learns the lungs first, and then trains all networks one after the other.


# %%
def run(seed):
    """Train with this seed and measure: what is returned here is kept, so that a run can resume."""
    lungs, metrics = segment(seed)
    plain, _ = train(seed, x, lungs, epochs=range_epochs)
    metrics |= brightness(lungs)
    result = {"metrics": metrics, "said": {}, "maps": {}, "curves": {}, "lungs": lungs[shown].cpu()}
    for name in models:
        images = x * lungs[:, None] if name == "segment first" else x
        net, result["curves"][name] = train(seed, images, lungs, step(name, seed, plain))
        measure(name, net, images, lungs, result)
    return result


with progress(seeds * (lung_epochs + range_epochs + len(models) * epochs), "epochs") as bar:
    results = [study.seed(s, run) for s in study.seeds]

# %% [markdown]
# ## Who reads the lungs?
#
# Balanced accuracy: the mean over the classes of how many of their images are recognised; guessing gives a third (on *swapped*,
# without COVID-19, a half at best). Compare the three tests of each network: on *internal* images the hospital helps, on *swapped* ones
# it misleads.

# %%
truth = {test: y[index].cpu() for test, index in part.items()}
weights = {test: patient_draws(data["patient"][index], draws) for test, index in part.items()}
scores = {"balanced accuracy": balanced_accuracy, "macro F1": macro_f1, "AUC": macro_auc}


def over_seeds(name, test, score):
    """A score of a network on a test: one number a seed, and the seeds' mean in every draw of patients."""
    said = [result["said"][name][test] for result in results]
    values = np.array([score(logits, truth[test]).item() for logits in said])
    return values, np.mean([score(logits, truth[test], weights[test]).numpy() for logits in said], 0)


# %%
accuracy = {m: {t: over_seeds(m, t, balanced_accuracy) for t in tests} for m in models}
groups = {m: {t: estimate(*pair) for t, pair in of.items()} for m, of in accuracy.items()}
dots = {m: {t: values for t, (values, _) in of.items()} for m, of in accuracy.items()} if seeds > 1 else None
caption = "A network that reads lungs alone does as well in one row of points as in another; guessing gives a third. Bars are 95 % intervals."
figure = charts.interval_rows(groups, "balanced accuracy", dots=dots)
study.figure(
    figure,
    "accuracy",
    caption,
    "Balanced accuracy of each network, one row each, in the internal, external and swapped test",
)

# %% [markdown]
# The same on the *external* test in three measures, with 95 % intervals over **patients** (of the mean over seeds): a
# hospital's images come from few people. *Lungs blanked*: balanced accuracy on internal images whose lungs are filled with grey. A
# network that reads lungs must guess there; above a third it has read something else. (For *segment first* that
# something is the outline of the lungs: it is all that is left.) *Backgrounds exchanged*: the lungs of each internal image on
# another image, whose own lungs are painted over. A network that reads nothing but lungs loses nothing there. (*Replacement* has
# trained on such images; to the others they are also new.)
#
# On phantoms *segment first* is hard to beat: the U-Net's masks are all but perfect there, and the lungs hold all there is to know.
# An ISNet that trains for a few passes only reads fewer images. Whether it relies less on the hospital than *standard* is told by the
# columns *swapped* and *lungs blanked*.


# %%
def patients(name, score):
    """Mean over seeds of a score on the external test, with its interval over patients."""
    values, drawn = over_seeds(name, "external", score)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{number(values.mean())} {interval({'low': low, 'high': high})}"


def mean(name, metric):
    return number(np.mean([result["metrics"][f"{name}.{metric}"] for result in results]))


table = pd.DataFrame({title: {m: patients(m, score) for m in models} for title, score in scores.items()})
table["swapped, called COVID-19"] = [mean(m, "swapped.called_covid") for m in models]
table["lungs blanked"] = [mean(m, "blanked.balanced_accuracy") for m in models]
table["backgrounds exchanged"] = [mean(m, "exchanged.balanced_accuracy") for m in models]
table["background share of |R|"] = [mean(m, "background_share") for m in models]
table.style.set_caption(
    f"External test: mean over {seeds} seed(s) and 95 % interval over patients; and four signs of cheating"
)

# %%
for name in ("internal", "external"):
    found = np.mean([result["metrics"][f"lungs.{name}.brightness_auc"] for result in results])
    print(f"{name} test: the lungs' brightness alone tells normal from pneumonia with AUC {found:.2f}")

# %% [markdown]
# An external AUC below a half says that the rule is turned round at the other hospitals. Then a network that reads nothing but
# lungs can still be wrong there, masks or not: so it is with the real images ([results](../results/isnet.md)).

# %% [markdown]
# ## What the maps say
#
# Eight *swapped* images, four of normal lungs and four of pneumonia, explained by each network for the class it predicts. Red
# speaks for that class, blue against it; the grey line is the U-Net's outline of the lungs.

# %%
first = results[0]
said = {m: first["said"][m]["swapped"][chosen.cpu()].argmax(1) for m in models}
print(pd.DataFrame({m: [CLASSES[c] for c in said[m]] for m in models}).T.to_string(header=False))
titles = [CLASSES[c] for c in y[shown]]
figure = charts.map_rows(x[shown].cpu(), first["maps"], titles=titles, size=1.0, masks=first["lungs"])
caption = (
    "Relevance outside of the lungs, such as on the letter in the corner, is on the hospital. Which networks have it?"
)
study.figure(figure, "maps", caption, "Eight swapped X-rays and, below, one row of relevance maps for each network")

# %% [markdown]
# ## How they learned
#
# An ISNet learns slowly because its loss leaves the classes a weight of $1-P$, a tenth with $P=0.9$. On held-out *real* patients of
# the training's hospitals (24 pixels, twelve passes, one seed) Selective ISNet has a balanced accuracy of 0.45 with $P=0.9$ and of
# 0.66 with $P=0.7$, both with $\varepsilon = 10^{-6}$. *Replacement* and *segment first*, which have the lungs alone to go by, reach 0.69 and 0.71, the
# standard network, which reads the hospital too, 0.80.
#
# Accuracy is not all, though. With the lungs on an image of another class, whose own lungs are painted over, Selective
# has 0.40 and 0.42, hardly more than standard (0.37); *replacement*, which was trained on such images, has 0.65.

# %%
isnets = [m for m in models if m in ("Selective", "Stochastic")]
lines = {"training accuracy": {m: [r["curves"][m]["accuracy"] for r in results] for m in models}}
for loss in ("background", "foreground"):
    lines[f"ISNet's {loss} loss"] = {m: [r["curves"][m][loss] for r in results] for m in isnets}
figure = charts.curves({title: curves for title, curves in lines.items() if curves})
caption = (
    "Training accuracy of all networks, and the two losses of the ISNets on their maps. Thin lines, if any, are seeds."
)
study.figure(figure, "curves", caption, "Training accuracy and the ISNets' background and foreground losses, by epoch")

# %% [markdown]
# ## The claims
#
# Differences are paired: the same seeds, the same patients. With one seed the interval is over patients, with more over seeds.

# %%
for m in isnets:
    for rival in [name for name in models if name not in isnets]:
        for title in ("balanced accuracy", "AUC"):
            ours, theirs = (over_seeds(name, "external", scores[title]) for name in (m, rival))
            study.claim("isnet-9", ours[0] - theirs[0], of=f"{m} − {rival}, {title}", draws=ours[1] - theirs[1])
for m in isnets if "standard" in models else ():
    ratio = [r["metrics"][f"{m}.background_share"] / r["metrics"]["standard.background_share"] for r in results]
    study.claim("isnet-4", ratio, of=f"{m}, internal test")
study.claims_table()

# %% [markdown]
# ## What came out
#
# Each sentence is printed where it is true of the numbers: of this run first, then of the run on record at laptop scale.


# %%
def came_out(m):
    for name in ("standard", "Stochastic", "segment first"):
        three = [f"{m[f'{name}.{test}.balanced_accuracy']:.2f}" for test in ("internal", "external", "swapped")]
        yield True, f"Balanced accuracy of {name}, internal, external and swapped: {', '.join(three)}."
    external = [m[f"{name}.external.balanced_accuracy"] for name in ("standard", "segment first", "Stochastic")]
    yield max(external) < 0.4, "None of the three does much better than chance (0.33) at other hospitals."
    place = "is not" if external[2] < max(external) else "is"
    yield max(external) >= 0.4, f"At other hospitals the ISNet {place} the best of the three."
    misled, standard = (100 * m[f"{name}.swapped.called_covid"] for name in ("Stochastic", "standard"))
    yield True, f"Of the swapped patients it takes {misled:.0f} % for COVID-19, standard {standard:.0f} %."


study.tell(came_out, results)

# %% [markdown]
# ## What to try next
#
# - `P=0.7` with `epsilon=1e-6`: on held-out phantoms Selective ISNet then has an accuracy of 0.94 after twelve passes, but 0.35 when
#   their lungs lie on another class's image: the letter is back. With `P=0.9` it is 0.56 and 0.42. Is there a middle?
# - Black borders of one or two pixels, another for each hospital, in `data_prep/phantom_xray.py`. We tried them while drawing
#   the phantoms: Selective ISNet then took all swapped patients for COVID-19, with a background share of 0.03. Where the
#   shortcut is the *absence* of something, no relevance need lie on it. A clean map alone proves nothing.
# - `dataset="covid_xray"`: `make reproduce SCALE=laptop EXPERIMENTS=isnet/covid_xray`. Pneumonia makes
#   the lungs darker than normal in its training images and brighter in its external ones, which are of children. Would
#   equalising each image's histogram help? (We have not tried: the external test has been looked at.)

# %% [markdown]
# ## Checks
#
# These lines are the same on every machine; the tests compare them.

# %% tags=["nbval-check-output"]
worst = min(value for r in results for name, value in r["metrics"].items() if name.endswith("dice"))
print("the U-Net finds the lungs of every test's patients (Dice above 0.75):", worst > 0.75)

# %% tags=["nbval-check-output"]
called = {m: np.mean([result["metrics"][f"{m}.swapped.called_covid"] for result in results]) for m in models}
for m in models:
    print(f"{m}: takes", "most" if called[m] > 0.5 else "few", "swapped patients for COVID-19, by their hospital")

# %% [markdown]
# ## Files

# %%
study.finish(results)
