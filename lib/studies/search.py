"""Ways of training compared on few samples: balanced subsets, equal search for every method, paired tests."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.methods import InputXGradient
from attrain.metrics import calibration, effective_rank, erase, filter_similarity
from attrain.training import fit_fresh
from studies.statistics import FEWEST_SEEDS, estimate, holm

Methods = Mapping[str, tuple[Callable, Sequence[Mapping]]]  # method -> (kind, its settings to search among)
Controls = Mapping[str, tuple[str, Mapping]]  # control -> (whose best settings it takes, what it changes in them)


def balanced_subset(y: Tensor, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Indices of n samples with equally many of each class (but for a remainder), and those of all others.

    Args:
        y: labels (N,), whole numbers ≥ 0; each class must have n / classes samples, rounded up.
        n: from the number of classes to N.
        generator: draws (on the CPU); None uses torch's default generator.

    Example:
        >>> chosen, others = balanced_subset(torch.tensor([0, 0, 0, 1, 1, 1]), 4)
        >>> torch.tensor([0, 0, 0, 1, 1, 1])[chosen].bincount().tolist(), len(others)
        ([2, 2], 2)
    """
    y = y.cpu()
    classes = y.unique()
    order = torch.randperm(len(y), generator=generator, device="cpu")
    of_class = [order[y[order] == c] for c in classes[torch.randperm(len(classes), generator=generator, device="cpu")]]
    share, extra = divmod(n, len(classes))
    if not len(classes) <= n <= len(y) or min(map(len, of_class)) < share + (extra > 0):
        raise ValueError(f"n must leave each of {len(classes)} classes enough of its samples, got n={n} of {len(y)}")
    chosen = torch.cat([members[: share + (i < extra)] for i, members in enumerate(of_class)])
    is_other = torch.ones_like(y, dtype=torch.bool)
    is_other[chosen] = False
    return chosen[torch.randperm(n, generator=generator, device="cpu")], is_other.nonzero()[:, 0]


def train(
    make: Callable[[], nn.Module], x: Tensor, y: Tensor, kind: Callable, settings: Mapping, *,
    seed: int, steps: int = 300, batch_size: int = 32, lr: float = 1e-3,
) -> nn.Module:  # fmt: skip
    """A new network, trained by one method on few samples: all methods of a seed start alike and see one order.

    Args:
        make: () -> the network, with weights from torch's global generator, (N, ...) -> logits (N, C).
        x, y: the samples and their labels (N,).
        kind: a training step, as those of `attrain.training.regularisers`, or a class whose objects are, `Challenger`.
        settings: of the step or the class; its random numbers come from torch's global generator.
        seed: of weights, order and the method's draws.
        steps: of Adam, at least; whole passes over the samples.
    """
    step = kind(**settings) if isinstance(kind, type) else partial(kind, **settings)
    epochs = math.ceil(steps / math.ceil(len(y) / batch_size))
    return fit_fresh(make, (x, y), step, seed=seed, epochs=epochs, batch_size=batch_size, lr=lr)[0]


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (N, C) of samples (N, ...); the model as it is (call `eval()` first)."""
    return torch.cat([model(part) for part in x.split(batch_size)])


def judge(model: nn.Module, x: Tensor, y: Tensor, removed: float = 0.3) -> dict[str, float]:
    """What a regulariser may improve, on test samples.

    Args:
        model: in evaluation mode.
        x, y: (N, ...) and labels (N,).
        removed: share of an image's (N, C, H, W) positions to set to zero.

    Returns:
        those of `attrain.metrics.calibration`; "similarity" and "rank", of the filters, the mean over the
        convolutions (`filter_similarity`, `effective_rank`); and, for images, "spread": accuracy without the
        positions that gradient × input finds most relevant for the predicted class.
    """
    filters = [m.weight for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d))]
    scores = calibration(predict(model, x), y)
    if filters:
        scores["similarity"] = sum(map(filter_similarity, filters)) / len(filters)
        scores["rank"] = sum(map(effective_rank, filters)) / len(filters)
    if x.ndim == 4:
        erased = [erase(part, explain(model, part, None, InputXGradient()).heatmap, removed) for part in x.split(1000)]
        scores["spread"] = (predict(model, torch.cat(erased)).argmax(1) == y).double().mean().item()
    return scores


def searched(methods: Methods, names: Sequence[str], controls: Controls | None = None) -> dict[str, Sequence[Mapping]]:
    """What is to be tried: method -> settings, of those that have several.

    Args:
        methods: method -> (kind, its settings to search among).
        names: of methods and controls.
        controls: control -> (the method whose best settings it takes, what it changes in them); it has no search of
            its own.

    Example:
        >>> methods = {"plain": (None, [{}]), "Challenger": (None, [{"top": 0.3}, {"top": 1.0}])}
        >>> searched(methods, ["plain", "permuted"], {"permuted": ("Challenger", {"control": "permute"})})
        {'Challenger': [{'top': 0.3}, {'top': 1.0}]}
    """
    controls = controls or {}
    tuned = dict.fromkeys(name for name in names if name not in controls)
    tuned |= dict.fromkeys(controls[name][0] for name in names if name in controls)
    return {name: methods[name][1] for name in tuned if len(methods[name][1]) > 1}


def best_settings(
    methods: Methods, names: Sequence[str], scores: Sequence[Mapping], controls: Controls | None = None
) -> dict[str, Mapping]:
    """The settings of each of the named methods with the least score: method -> settings.

    Args:
        methods, names, controls: as for `searched`.
        scores: for each tuning seed, of each method that is `searched`, one number for each of its settings, such as
            the loss on validation; NaN is worst.
    """

    def best(name: str) -> Mapping:
        settings = methods[name][1]
        if len(settings) == 1:
            return settings[0]
        totals = [sum(score[name][i] for score in scores) for i in range(len(settings))]
        return settings[min(range(len(settings)), key=lambda i: math.inf if math.isnan(totals[i]) else totals[i])]

    controls = controls or {}
    return {name: best(controls[name][0]) | controls[name][1] if name in controls else best(name) for name in names}


def paired_tests(values: Mapping[str, Sequence[float]], against: str) -> pd.DataFrame:
    """Differences of each method from one of them over the same seeds.

    Args:
        values: method -> one number for each seed; the same seeds in the same order.
        against: the method that the others are compared with.

    Returns:
        a row per method: "difference" (its mean), "low" and "high" (95 %, Student's t), the p-values "t" and "wilcoxon"
        (two-sided; 1 where all seeds differ by the same, which is no sign of certainty), and "holm": of "t", corrected
        for the number of methods (Holm 1979). Of fewer than three seeds there is the difference alone, and NaN
        for the rest.
    """
    from scipy import stats  # slow to import, as in `studies.statistics`

    rows = {}
    for name in [name for name in values if name != against]:
        gains = torch.tensor(values[name], dtype=torch.float64) - torch.tensor(values[against], dtype=torch.float64)
        estimated = estimate(gains)
        p = dict.fromkeys(("t", "wilcoxon"), 1.0 if len(gains) >= FEWEST_SEEDS else math.nan)
        if estimated["low"] is not None:
            p = {"t": stats.ttest_1samp(gains, 0).pvalue, "wilcoxon": stats.wilcoxon(gains).pvalue}
        rows[name] = {"difference": estimated["mean"], "low": estimated["low"], "high": estimated["high"], **p}
    table = pd.DataFrame(rows).T.astype(float)
    return table.assign(holm=math.nan if table["t"].isna().any() else holm(table["t"]))


def means_and_differences(values: Mapping[str, Sequence[float]], against: str) -> pd.Series:
    """In words: each method's mean, and its difference from one of them, with a star if Holm's p < 0.05.

    Args:
        values, against: as for `paired_tests`.

    Example:
        >>> means_and_differences({"plain": [0.5, 0.6], "FGSM": [0.6, 0.8]}, "plain").tolist()
        ['0.550', '0.700 (+0.150)']
    """
    tests = paired_tests(values, against)
    stars = tests["holm"].lt(0.05).map({True: "*", False: ""})
    differences = " (" + tests["difference"].map("{:+.3f}".format) + stars + ")"
    means = pd.Series({name: f"{sum(each) / len(each):.3f}" for name, each in values.items()})
    return means + differences.reindex(means.index, fill_value="")
