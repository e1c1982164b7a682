"""Means with 95 % intervals, what an interval says of a claim, and how numbers are written."""

import math
from collections.abc import Sequence

import numpy as np

FEWEST_SEEDS = 3  # that count as a sample of seeds


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student-t interval for the mean of a few values, one a seed; needs at least two.

    Over three to five seeds it keeps its coverage, which the bootstrap does not.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError(f"a t interval needs at least 2 values, got {len(values)}")
    half = t_quantile(level, len(values) - 1) * math.sqrt(_variance_of_mean(values))
    return float(values.mean() - half), float(values.mean() + half)


def t_quantile(level: float, freedom: float | None) -> float:
    """How many standard errors an interval reaches to each side; `freedom` None: the normal distribution's."""
    from scipy import special  # of which `scipy.stats` is made, seconds to import

    quantile = (1 + level) / 2
    return float(special.ndtri(quantile) if freedom is None else special.stdtrit(freedom, quantile))


def clopper_pearson(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of `count` independent things (Clopper and Pearson 1934).

    Args:
        share: in [0, 1]; also a mean of shares of the same things, so that share · count may be no integer.
        count: how many things, at least 1.
        level: the share of such intervals, at least, that hold the true share.

    Example:
        >>> [round(bound, 4) for bound in clopper_pearson(0, 51)]  # not one of 51: it may still be 7 %
        [0.0, 0.0698]
    """
    from scipy.special import betaincinv

    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"a share must lie in [0, 1], of 1 or more, got {share} of {count}")
    tail, hits = (1 - level) / 2, share * count
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


def estimate(values, draws=None, share: bool | None = None) -> dict:
    """Mean and 95 % interval of a measurement, and what a verdict needs to know of it.

    Seeds vary, and so do test images; all seeds see the same images. The squared standard error is the sum of what
    each contributes: the variance of the seeds' means over the number of seeds, and that of the images' means
    (over seeds) over the number of images, or the variance of `draws`. Degrees of freedom are by Welch (1947) and
    Satterthwaite (1946), and no interval is narrower than Student's t over the seeds alone. Three seeds or more count
    as a sample of seeds; with fewer the interval is over images alone, of these seeds' networks.

    (Over three seeds this holds the mean in 94 to 95 % of cases. A two-level bootstrap adds up the same variances,
    but takes three seeds for all that there are: where seeds differ it holds the mean in 72 %. Student's t over the
    seeds alone leaves out the images: 67 % where these matter ten times as much.)

    A share, the mean of what can only be 0 or 1, has the exact interval over the images with fewer than three
    seeds, and none narrower with more. Where nothing varies there is no interval.

    Args:
        values: (S,) one number for each seed, or (S, N) one number for each seed and test image.
        draws: (B,), the seeds' mean as measured in bootstrap draws of test images or patients, see
            `attrain.metrics.classification`; for what is no mean over images, with values (S,).
        share: are the values, (S, N), those of a share? By default if they are all 0 or 1. A difference of two shares
            is none, even if it happens to be 0 on all images: that is a tie.

    Returns:
        "mean"; "seeds", how many; "low" and "high", None without an interval; "interval": what it covers, in words,
        or why there is none; "error": the standard error and "freedom" its degrees of freedom (None: infinitely
        many); "share_of": N of a share, else None; "per_seed": each seed's mean; "image_error": the part of the
        error that more seeds leave.

    Raises:
        ValueError: values that are not finite, none, or of another shape.

    Example:
        >>> estimate([[0, 1, 1, 1]])["interval"]
        'exact over 4 test cases, 1 seed'
    """
    values = np.asarray(values, float)
    lost = int((~np.isfinite(values)).sum())
    if values.ndim not in (1, 2) or values.size == 0 or lost:
        but = f", {lost} of them not finite" if lost else ""
        raise ValueError(f"values must be finite, (seeds,) or (seeds, images), got shape {values.shape}{but}")
    table = values.reshape(len(values), -1)
    (seeds, images), per_seed, per_image = table.shape, table.mean(1), table.mean(0)
    of_seeds = f"{seeds} seed" + "s" * (seeds != 1)
    parts = {}  # what varies, in words -> its part of the squared standard error, and degrees of freedom
    if images > 1:
        parts[f"{images} test cases"] = _variance_of_mean(per_image), images - 1
    elif draws is not None:
        parts["bootstrap draws of test cases"] = float(np.var(np.asarray(draws, float), ddof=1)), math.inf
    image_error = math.sqrt(sum(part for part, _ in parts.values()))
    if seeds >= FEWEST_SEEDS:
        parts = {of_seeds: (_variance_of_mean(per_seed), seeds - 1)} | parts
    error, freedom = _combined([*parts.values()])
    share = images > 1 and (bool(np.isin(table, (0, 1)).all()) if share is None else share)
    measured = {"mean": float(per_seed.mean()), "seeds": seeds, "per_seed": per_seed.tolist()}
    measured |= {"error": error, "freedom": freedom, "image_error": image_error}
    measured |= {"share_of": images if share else None}
    if error == 0 and not share:
        why = "all values agree" if parts else of_seeds
        return measured | {"low": None, "high": None, "interval": f"none: {why}"}
    kind = "normal" if freedom is None else "t"
    words = f"{kind} over {' and '.join(parts)}" if error and (not share or seeds >= FEWEST_SEEDS) else ""
    if share:
        exact = f"exact over {images} test cases"
        words = f"{words}, no narrower than {exact}" if words else exact
    words += f", {of_seeds}" if seeds < FEWEST_SEEDS or not error else ""
    return measured | dict(zip(("low", "high"), bounds_of(measured))) | {"interval": words}


def bounds_of(measured: dict, level: float = 0.95) -> tuple[float, float]:
    """The interval of what `estimate` returned, at any level."""
    mean, count, half = measured["mean"], measured["share_of"], half_width(measured, level)
    if count is None:
        return mean - half, mean + half
    low, high = clopper_pearson(mean, count, level)
    if measured["seeds"] < FEWEST_SEEDS:
        return low, high
    return max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half))


def half_width(measured: dict, level: float = 0.95) -> float:
    """How far the interval of a mean reaches to each side, by its standard errors."""
    return max((t_quantile(level, freedom) * error for error, freedom in standard_errors(measured)), default=0.0)


def standard_errors(measured: dict) -> list[tuple[float, float | None]]:
    """Standard errors, each with its degrees of freedom: of all that varies, and of the seeds alone; those above 0."""
    error, seeds = measured["error"], measured["seeds"]
    alone = math.sqrt(max(0.0, error**2 - measured["image_error"] ** 2))
    errors = [(error, measured["freedom"]), *([(alone, seeds - 1)] if seeds >= FEWEST_SEEDS else [])]
    return [(size, freedom) for size, freedom in errors if size > 0]


def _variance_of_mean(values: np.ndarray) -> float:
    """Squared standard error; 0 for values that agree but for rounding."""
    spread = np.ptp(values)
    return 0.0 if spread <= 1e-12 * np.abs(values).max() else float(values.var(ddof=1) / len(values))


def _combined(parts: list[tuple[float, float]]) -> tuple[float, float | None]:
    """Standard error of a sum of independent parts, and its degrees of freedom (Welch, Satterthwaite)."""
    total = sum(part for part, _ in parts)
    inverse = sum(part**2 / freedom for part, freedom in parts)
    return math.sqrt(total), total**2 / inverse if inverse > 0 else None


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method (1979), in [0, 1].

    Example:
        >>> [round(x, 2) for x in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    p = [float(x) for x in p]
    corrected, least = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = least
    return corrected


def verdict(low: float | None, high: float | None, above: float = -math.inf, below: float = math.inf) -> str:
    """Does an interval lie where a claim says, in (above, below)?

    Returns "holds" if all of it does, "fails" if none of it does, "undecided" if it straddles a bound, and
    "not judged" without one.
    """
    if low is None or high is None:
        return "not judged"
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
    """[low, high], or "none" without an interval; so is one without width, which old records have."""
    low, high = measured["low"], measured["high"]
    return "none" if low is None or low == high else f"[{number(low)}, {number(high)}]"
