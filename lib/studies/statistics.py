"""Means with 95 % intervals, what an interval says of a claim, and how numbers are written."""

import math
from collections.abc import Sequence

import numpy as np


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student-t interval for the mean of a few values, one a seed; needs at least two.

    Over three to five seeds it keeps its coverage, which the bootstrap does not.
    """
    from scipy import stats  # slow to import, and only some of what imports this module needs an interval

    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError(f"a t interval needs at least 2 values, got {len(values)}")
    error = stats.sem(values)
    if error == 0:
        return float(values[0]), float(values[0])
    low, high = stats.t.interval(level, len(values) - 1, values.mean(), error)
    return float(low), float(high)


def bootstrap_interval(values: Sequence[float], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval for the mean of many values, one a test image."""
    from scipy import stats

    values = np.asarray(values, float)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=level, method="percentile", n_resamples=2000, batch=100, rng=seed
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def estimate(values, draws=None) -> dict:
    """Mean and 95 % interval of a measurement.

    Args:
        values: (S,) one number a seed, or (S, N) one number a seed and test image. With two seeds or
            more the interval is Student's t over the seeds; with one seed it is a bootstrap over the images.
        draws: (B,), what was measured in bootstrap draws of test patients, see
            `attrain.metrics.classification`; with one seed its percentiles are the interval.

    Returns:
        {"mean", "low", "high", "interval"}; low and high are None for a single number.
    """
    values = np.asarray(values, float)
    lost = int((~np.isfinite(values)).sum())
    if values.ndim not in (1, 2) or values.size == 0 or lost:
        but = f", {lost} of them not finite" if lost else ""
        raise ValueError(f"values must be finite, (seeds,) or (seeds, images), got shape {values.shape}{but}")
    seeds = len(values)
    per_seed = values.reshape(seeds, -1).mean(1)
    if seeds > 1:
        (low, high), kind = t_interval(per_seed), f"t over {seeds} seeds"
    elif draws is not None:
        (low, high), kind = (
            np.quantile(np.asarray(draws, float), (0.025, 0.975)).tolist(),
            "bootstrap over patients, 1 seed",
        )
    elif values.size > 1:
        (low, high), kind = bootstrap_interval(values.ravel()), f"bootstrap over {values.size} test images, 1 seed"
    else:
        low, high, kind = None, None, "none: 1 seed"
    return {"mean": float(per_seed.mean()), "low": low, "high": high, "interval": kind}


def verdict(low: float | None, high: float | None, above: float = -math.inf, below: float = math.inf) -> str:
    """Does an interval lie where a claim says, in (above, below)?

    Returns "holds" if all of it does, "fails" if none of it does, "undecided" if it straddles a bound, and
    "no interval" without one.
    """
    if low is None or high is None:
        return "no interval"
    if above < low and high < below:
        return "holds"
    return "fails" if high <= above or low >= below else "undecided"


def expectation(claim: dict) -> str:
    """Where a claim says that the measurement lies, in words."""
    above, below = (f"{float(claim[key]):g}".replace("-", "−") if key in claim else None for key in ("above", "below"))
    return f"between {above} and {below}" if above and below else f"above {above}" if above else f"below {below}"


def number(value: float | None) -> str:
    """Three decimals; whole numbers from a thousand on; general format for the tiny and the huge."""
    if value is None:
        return "none"
    value, size = value + 0.0, abs(value)  # + 0.0: no negative zero
    form = ".3f" if value == 0 or 0.01 <= size < 1000 else ".0f" if 1000 <= size < 1e6 else "#.2g"
    return f"{value:{form}}".replace("-", "−")  # a screen reader says minus, and it is as wide as a digit


def interval(measured: dict) -> str:
    """[low, high], or "none" without an interval."""
    return "none" if measured["low"] is None else f"[{number(measured['low'])}, {number(measured['high'])}]"
