"""How often networks are right: on several tests of the same images, and on the class that they find least often."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler
from torch import Tensor

from studies.statistics import estimate

Right = dict[str, dict[str, np.ndarray]]


def of_tests(results: Sequence[Mapping], methods: Sequence[str], tests: Sequence[str]) -> tuple[Right, dict]:
    """Which images each method gets right, and its accuracy with an interval.

    Args:
        results: one a seed; `result["correct"][method][test]` has a truth value an image.
        methods, tests: their names.

    Returns:
        method -> test -> (seeds, images), 1 where right; and the same with an `estimate` of each.
    """
    right = {m: {t: np.stack([np.asarray(r["correct"][m][t], float) for r in results]) for t in tests} for m in methods}
    return right, {m: {t: estimate(values) for t, values in of.items()} for m, of in right.items()}


def accuracy_table(accuracy: Mapping[str, Mapping[str, dict]], shares: Mapping[str, Sequence[float]]) -> Styler:
    """A row a method: its accuracy on each test with the interval, and its share of background relevance.

    Args:
        accuracy: as `of_tests` gives it.
        shares: method -> a share a seed.

    Example:
        >>> of = estimate([[1, 1, 0, 1]])
        >>> accuracy_table({"plain": {"biased": of}}, {"plain": [0.25]}).data.loc["plain"].tolist()
        ['0.750 [0.194, 0.994]', '0.2500']
    """
    written = lambda a: f"{a['mean']:.3f} [{a['low']:.3f}, {a['high']:.3f}]"  # noqa: E731
    found = pd.DataFrame({m: {t: written(a) for t, a in of.items()} for m, of in accuracy.items()}).T
    found["background share of |R|"] = {m: f"{np.mean(s):.4f}" for m, s in shares.items()}
    kind = next(iter(next(iter(accuracy.values())).values()))["interval"]
    return found.style.set_caption(f"Accuracy with 95 % interval ({kind})")


def lowest_recall(decisions: Tensor, y: Tensor) -> Tensor:
    """Of the class that is found least often, the share of its images in which it is found.

    A network that gives up a rare class may have a better F1 over all decisions.

    Args:
        decisions, y: (N, C), positive where > 0.

    Returns:
        (); classes without an image do not count, NaN if none has any.

    Example:
        >>> import torch
        >>> y = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]])
        >>> lowest_recall(torch.tensor([[1, 0]]).expand(4, 2), y)
        tensor(0.)
    """
    there = y > 0
    recalls = (((decisions > 0) & there).sum(0) / there.sum(0))[there.any(0)]
    return recalls.min() if len(recalls) else recalls.new_tensor(float("nan"))
