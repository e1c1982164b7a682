"""How a case is measured: in turns, with its memory, its operations and its share of the machine's peak."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from studies.bench.cost import peak_memory, seconds
from studies.statistics import verdict

Run = Callable[[], object]


class Case(NamedTuple):
    """A ratio to measure.

    Attributes:
        name: "what, of which sizes: numerator / denominator".
        sides: makes the numerator's and the denominator's function; called only if the case is measured.
        bound: the least that the ratio can be, by passes that cannot be left out; see `studies.bench.cases`.
        target: what the ratio ought not to exceed.
        memory_target: what the ratio of the two peaks of memory ought not to exceed.
        error: () -> ‖out − ref‖ / ‖ref‖ of the numerator's map, where it is less exact than the denominator's.
    """

    name: str
    sides: Callable[[], tuple[Run, Run]]
    bound: float | None = None
    target: float | None = None
    memory_target: float | None = None
    error: Callable[[], float] | None = None


def measure(case: Case, device: torch.device, peak: dict, budget: float, most: int) -> dict:
    """A row of the record.

    Each side runs once unmeasured (there its operations are counted), then the two take turns: three times at
    least, `most` times at most, and no more once `budget` seconds are over.
    """
    torch.manual_seed(0)
    top, bottom = case.sides()
    work = [count(run, peak) for run in (top, bottom)]
    pairs, start = [], time.perf_counter()
    while len(pairs) < 3 or (len(pairs) < most and time.perf_counter() - start < budget):
        pairs.append((seconds(top, device), seconds(bottom, device)))
    ratios = [a / b for a, b in pairs]
    low, high = median_interval(ratios)
    memory = [peak_memory(run, device) / 2**20 for run in (top, bottom)]
    taken = statistics.median(a for a, _ in pairs)
    row = {
        "case": case.name,
        "ratio": statistics.median(ratios),
        "low": low,
        "high": high,
        "repetitions": len(pairs),
        "bound": case.bound,
        "target": case.target,
        "verdict": case.target and verdict(low, high, below=case.target),
        "milliseconds": 1000 * taken,
        "megabytes": memory,
        "memory_target": case.memory_target,
        "memory_met": case.memory_target and memory[0] <= case.memory_target * memory[1],
        "gigaflops": [w["flops"] / 1e9 for w in work],
        "share_of_peak": work[0]["least_seconds"] / taken,
        "error": case.error and case.error(),
    }
    return {name: rounded(value) for name, value in row.items()}


def rounded(value):
    """Four significant digits of a number, or of each of a list's."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def median_interval(values: list[float]) -> tuple[float, float]:
    """The values between which the median lies with 95 % (sign test), the extremes where there are fewer than six.

    Example:
        >>> median_interval([4.0, 1.0, 2.0, 3.0, 9.0, 5.0, 6.0, 7.0, 8.0])
        (2.0, 8.0)
    """
    values = sorted(values)
    rank = max(int(stats.binom.ppf(0.025, len(values), 0.5)), 1)
    return values[rank - 1], values[-rank]


# ---------------------------------------------------------------- what the machine could do


def peaks(device: torch.device) -> dict[str, float]:
    """Floating-point operations and bytes a second, by a large product of matrices and a large copy.

    On CUDA the product is in TF32, which cuDNN's convolutions use unless told otherwise.
    """
    size, length = (8192, 2**28) if device.type == "cuda" else (2048, 2**26)
    a, b = (torch.rand(size, size, device=device) for _ in range(2))
    source, target = (torch.rand(length, device=device) for _ in range(2))
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    fastest = lambda run: min(seconds(run, device) for _ in range(10))  # noqa: E731
    flops, bytes_ = 2 * size**3 / fastest(lambda: a @ b), 8 * length / fastest(lambda: target.copy_(source))
    torch.set_float32_matmul_precision("highest")
    return {"flops": rounded(flops), "bytes": rounded(bytes_)}


def count(run: Run, peak: dict) -> dict[str, float]:
    """A run's floating-point operations, and the least seconds that they take at the peaks (the roofline).

    Operation by operation the longer of two times: that of its floating-point operations (torch's own formulas:
    products and convolutions) and that of its operands, each read or written once. An operation whose operands
    are still in a cache may be faster than that.
    """
    with _Work(peak) as work:
        run()
    return {"flops": work.flops, "least_seconds": work.seconds}


class _Work(TorchDispatchMode):
    def __init__(self, peak: dict):
        super().__init__()
        self.peak, self.flops, self.seconds = peak, 0, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        flops = formula(*args, **(kwargs or {}), out_val=out) if formula else 0
        operands = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
        moved = 0 if func.is_view else sum(t.numel() * t.element_size() for t in operands)
        self.flops += flops
        self.seconds += max(flops / self.peak["flops"], moved / self.peak["bytes"])
        return out


def operations(run: Run, device: torch.device) -> Counter:
    """Microseconds of each of torch's operations in a run, without the operations inside it."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds) as profile:
        run()
    times = Counter()
    for event in profile.key_averages():
        times[event.key] += event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    return times


def in_units(steps: dict[str, Run], unit: Run, device: torch.device, most: int = 10, rounds: int = 7) -> dict:
    """The time of the largest operations of some steps, and of all others together, where that of the unit is 1.

    All take turns, as in `measure`: each number is a median over rounds.
    """
    ratios = {name: [] for name in steps}
    for turn in range(rounds + 1):
        whole = sum(operations(unit, device).values())
        for name, run in steps.items():
            times = operations(run, device)
            ratios[name] += [{op: taken / whole for op, taken in times.items()}] if turn else []
    found = {}
    for name, turns in ratios.items():
        median = Counter({op: statistics.median(turn.get(op, 0.0) for turn in turns) for op in set().union(*turns)})
        largest = dict(median.most_common(most))
        rest = sum(median.values()) - sum(largest.values())
        found[name] = {op: rounded(taken) for op, taken in {**largest, "all others": rest}.items()}
    return found


# ---------------------------------------------------------------- how it grows


def growth(points: dict[float, Run], device: torch.device, rounds: int) -> dict:
    """Time and memory of runs of increasing size, which take turns, and the exponent of each.

    The exponent is the slope of the best line through the logarithms; its interval (95 %, Student's t) tells how
    well a power describes the points. Memory is that of the tensors held, see `studies.bench.cost.peak_memory`.
    """
    memory = [peak_memory(run, device) / 2**20 for run in points.values()]
    times = [[seconds(run, device) for run in points.values()] for _ in range(rounds)]
    measured = {"seconds": [statistics.median(each) for each in zip(*times)], "megabytes": memory}
    found = {"x": list(points)}
    for unit, values in measured.items():
        line = stats.linregress(torch.tensor([*points]).double().log(), torch.tensor(values).double().log())
        half = stats.t.ppf(0.975, len(points) - 2) * line.stderr
        found[unit] = rounded(values)
        found[f"exponent of {unit}"] = rounded([line.slope, line.slope - half, line.slope + half])
    return found
