"""`make sweep`, or `python -m studies.bench.sweep [PATTERN ...]`: is each of other libraries' networks explained right?

Torchvision's classifiers (beside captum's DeepLIFT), a small member of each family of timm's, and tiny
configurations of transformers' architectures (these two need the extra `zoo`), with random weights, in float64, each
in a process and a minute of computing of its own. A line of JSON a network is kept in `notebooks/results/zoo.jsonl`,
so a sweep that was stopped goes on where it was; the table is `notebooks/results/zoo.md`.
"""

import argparse
import fnmatch
import json
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrain import LRP, DeepLift, InputXGradient, UnsupportedOperation, explain
from attrain.tensors import tensors
from studies.bench.zoo import BUILDERS, all_names, classifier

__all__ = ["classifier", "incompleteness", "judge"]

RESULTS = Path(__file__).parents[3] / "notebooks" / "results"
EPSILON = 1e-2
# Of the largest number, by what the network itself computes in; and of finite differences.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.1}
OF_DIFFERENCES = 1e-3
VERDICTS = {
    "right": "right",
    "refused": "raises an error that says what about",
    "unclear": "raises an error that does not",
    "WRONG": "a wrong map without a word",
    "not run": "not run",
}


# ------------------------------------------------------------------------------------------------ one network


def incompleteness(model, x: Tensor, reference: Tensor, rule: str = "rescale") -> float:
    """The largest |Σ map − Δ|, relative to the largest |Δ|, where Δ comes from two runs of the model itself."""
    with torch.no_grad():
        delta = (model(x.clone()) - model(reference.expand_as(x).contiguous()))[:, 0]  # some write into their input
    heatmap = explain(model, x, 0, DeepLift(reference, rule)).heatmap
    return float((heatmap.flatten(1).sum(1) - delta).abs().max() / delta.abs().max())


def dependence(model, x: Tensor, reference: Tensor) -> float:
    """How far a sample's map is from the map of the sample alone, relative to its largest number."""
    together = explain(model, x, 0, DeepLift(reference)).heatmap[1:2]
    return _gap(explain(model, x[1:2], 0, DeepLift(reference)).heatmap, together)


def dependence_of_two(model, x: Tensor, reference: Tensor) -> float:
    """How far a sample's map is from the map of the sample beside itself, relative to its largest number."""
    together = explain(model, x, 0, DeepLift(reference)).heatmap[1:2]
    return _gap(explain(model, x[[1, 1]], 0, DeepLift(reference)).heatmap[:1], together)


def torchs_own_error(model, x: Tensor, step: float = 1e-5) -> float:
    """How far autograd's derivative along a random direction is from a central difference, relative to that."""
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).expand_as(x)
    direction = direction / direction[0].norm()
    with torch.no_grad():
        ends = [model(x + sign * step * direction)[:, 0].sum() for sign in (1, -1)]
    wanted = (ends[0] - ends[1]) / (2 * step)
    return _gap((_gradient(model, x) * direction).sum(), wanted)


def from_autograd(model, x: Tensor, reference: Tensor) -> float:
    """How far gradient × input is from autograd's."""
    return _gap(explain(model, x, 0, InputXGradient()).heatmap, _gradient(model, x) * x)


def from_patched_relu(model, x: Tensor, reference: Tensor) -> float:
    """How far LRP-ε is from gradient × input of the model with y/(y+ε) as its ReLUs' derivative."""
    heatmap = explain(model, x, 0, LRP(EPSILON)).heatmap
    with EpsilonReLU():
        return _gap(heatmap, _gradient(model, x) * x)


def captums(model, x: Tensor, reference: Tensor) -> float:
    """`incompleteness` of captum's DeepLIFT, as its users call it."""
    from captum.attr import DeepLift as Captum

    leaf, references = x.clone().requires_grad_(), reference.expand_as(x).clone()
    with torch.no_grad():
        delta = (model(x) - model(references))[:, 0]
    heatmap = Captum(model).attribute(leaf, references, target=0).detach()
    return float((heatmap.flatten(1).sum(1) - delta).abs().max() / delta.abs().max())


class EpsilonReLU(TorchFunctionMode):
    """ReLUs with y/(y+ε) as derivative, however they are called."""

    RELUS = (torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.functional.relu, nn.functional.relu_)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in self.RELUS:
            return func(*args, **kwargs)
        h = args[0] if args else kwargs["input"]
        y = h.detach().clamp(min=0)
        out = y + (h - h.detach()) * y / (y + EPSILON)
        in_place = func.__name__ == "relu_" or kwargs.get("inplace", False)
        return h.copy_(out) if in_place else out


def _gradient(model, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf.clone())[:, 0].sum(), leaf)[0]


def _gap(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest number; what torch itself has as NaN, NaN is right for."""
    both = found.isnan() & wanted.isnan()
    found, wanted = found.masked_fill(both, 0.0), wanted.masked_fill(both, 0.0)
    gap = (found - wanted).abs().max()
    return float(gap / wanted.abs().max()) if gap != 0 else 0.0


MEASURES = {
    "rescale": incompleteness,
    "reveal_cancel": lambda *network: incompleteness(*network, "reveal_cancel"),
    "alone": dependence,
    "gradient": from_autograd,
    "lrp": from_patched_relu,
}


class Precisions(TorchFunctionMode):
    """Writes down which floating point types the results have that depend on the input."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.found = {x.dtype}
        x._seen_by = self

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(getattr(t, "_seen_by", None) is self for t in tensors((args, kwargs))):
            for t in tensors([out]):
                t._seen_by = self
            self.found |= {t.dtype for t in tensors([out]) if t.is_floating_point()}
        return out


def precision(model, x: Tensor) -> torch.dtype:
    """The least precise type of what a network makes of x, whichever x has: some cast by themselves."""
    x = x.clone()
    with torch.no_grad(), Precisions(x) as seen:
        model(x)
    return max(seen.found, key=lambda dtype: torch.finfo(dtype).eps)


def judge(model, x: Tensor, reference: Tensor) -> dict:
    """A verdict, and a number or an error, a measure; besides, what had to be allowed for.

    Where a sample alone has another map, though torch's own gradient of it is not that of finite differences and that
    of the sample twice is, the map of the sample twice is compared: "torch_alone" is how far torch is off.

    Example:
        >>> judge(nn.Linear(2, 2).double(), torch.ones(2, 2).double(), torch.zeros(1, 2).double())["lrp"][0]
        'right'
    """
    dtype, network = precision(model, x), (model, x, reference)
    found: dict = {name: measured(measure, *network, tolerance=TOLERANCE[dtype]) for name, measure in MEASURES.items()}
    if dtype != x.dtype:
        found["computes_in"] = str(dtype).removeprefix("torch.")
    if found["alone"][0] == "WRONG" and torchs_own_error(model, x[[1, 1]]) < OF_DIFFERENCES:
        error = torchs_own_error(model, x[1:2])
        if error > OF_DIFFERENCES:
            found["torch_alone"] = error
            found["alone"] = measured(dependence_of_two, *network, tolerance=TOLERANCE[dtype])
    return found


def measured(measure: Callable, *network, tolerance: float = TOLERANCE[torch.float64]) -> tuple[str, float | str]:
    """("right" or "WRONG", how far off), or ("refused" or "unclear", the error)."""
    try:
        gap = measure(*network)
    except Exception as error:  # a row of the table, whatever it is
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        return ("refused" if is_clear(error) else "unclear"), said
    return ("right" if gap <= tolerance else "WRONG"), gap


def is_clear(error: Exception) -> bool:
    """Whether an error is the library's own word, not another's from its depths."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    ours = trace.tb_frame.f_globals.get("__name__", "").startswith("attrain")
    return isinstance(error, UnsupportedOperation) or (ours and isinstance(error, (ValueError, TypeError)))


def one(name: str) -> dict:
    """A network's record."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    zoo, _, rest = name.partition("/")
    record = {"name": name, "torch": torch.__version__}
    try:
        built = BUILDERS[zoo](rest)
        model, x, reference = (part.double() for part in built[:3])
        with torch.no_grad():
            outputs = [model.eval()(v.clone()) for v in (x, reference)]
        if torch.equal(outputs[0][:1], outputs[1]):
            raise ValueError("its output does not depend on its input")
        _gradient(model, x)  # what torch itself cannot differentiate, no method is asked to explain
    except Exception as error:  # not ours
        return record | {"verdict": "not run", "why": f"{type(error).__name__}: {str(error)[:150]}"}
    record["built"] = built[3] if len(built) > 3 else rest
    found = judge(model, x, reference)
    if zoo == "torchvision" and find_spec("captum"):
        found["captum"] = measured(captums, model, x, reference)
    verdict = found["rescale"][0]
    if any(found[measure][0] == "WRONG" for measure in MEASURES):
        verdict = "WRONG"
    return record | found | {"verdict": verdict, "seconds": round(time.perf_counter() - start, 1)}


# ------------------------------------------------------------------------------------------------ all of them


def in_a_process(name: str, seconds: float) -> dict:
    """`one`, with a limit of processor time, and safe from crashes."""
    command = [sys.executable, "-W", "ignore", "-m", "studies.bench.sweep", "--one", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -signal.SIGXCPU:
        return {"name": name, "verdict": "not run", "why": f"more than {seconds:g} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"name": name, "verdict": "not run", "why": f"the process ended: {done.stderr.strip()[-150:]}"}


def kept(path: Path) -> dict[str, dict]:
    """The records so far, the last of each name."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["name"]: record for record in map(json.loads, lines)}


def sweep(names: list[str], path: Path, seconds: float, jobs: int) -> dict[str, dict]:
    """The records of all names; those not yet kept are made now, and kept one by one."""
    records = kept(path)
    missing = [name for name in names if name not in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool, path.open("a") as file:
        for record in pool.map(lambda name: in_a_process(name, seconds), missing):
            records[record["name"]] = record
            file.write(json.dumps(record) + "\n")
            file.flush()
            print(f"{record['name']:45s} {record['verdict']:8s} {shown(record, 'rescale')}", flush=True)
    return records


# ------------------------------------------------------------------------------------------------ the table


def shown(record: dict, measure: str) -> str:
    """A measure in a cell of the table."""
    if measure not in record:
        return record.get("why", "") if measure == "rescale" else ""
    verdict, value = record[measure]
    if verdict == "right":
        return f"{value:.0e}" + (" (twice)" if measure == "alone" and "torch_alone" in record else "")
    return f"{verdict}: {value if isinstance(value, str) else f'{value:.0e}'}"


def page(records: dict[str, dict]) -> str:
    """The results page, from the records alone.

    Example:
        >>> print(page({"torchvision/a": {"name": "torchvision/a", "verdict": "right"}}).splitlines()[0])
        # Networks of other libraries
    """
    rows = sorted(records.values(), key=lambda r: (r["name"].partition("/")[0], r["name"]))
    versions = sorted({r["torch"] for r in rows if "torch" in r})
    lines = [
        "# Networks of other libraries",
        "",
        "Made by `make sweep` (float64, random weights, two inputs, a random reference that they share; right: below "
        f"{TOLERANCE[torch.float64]:g} of the largest number, {TOLERANCE[torch.float32]:g} where the network itself "
        "casts to float32). DeepLIFT: |Σ map − (f(x) − f(reference))|, the latter from the model itself; alone: the "
        "map of a sample without the others (twice: beside itself, where torch's own gradient of one sample "
        "is not that of finite differences); gradient × input: from autograd's; LRP-ε: from autograd through ReLUs by "
        f"y/(y+ε). torch {', '.join(versions) or '–'}.",
        "",
        *counts(rows),
        "",
        "| network | verdict | Rescale | RevealCancel | alone | gradient × input | LRP-ε | captum's Rescale |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for record in rows:
        name = record["name"] + (f" ({record['built']})" if record.get("built", "") not in record["name"] else "")
        name += f", casts to {record['computes_in']}" if "computes_in" in record else ""
        cells = [name, record["verdict"], *(shown(record, measure) for measure in (*MEASURES, "captum"))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def counts(rows: list[dict]) -> list[str]:
    """Verdicts by library, and of LRP."""
    by_zoo: dict[str, Counter] = {}
    for row in rows:
        by_zoo.setdefault(row["name"].partition("/")[0], Counter())[row["verdict"]] += 1
    table = ["| library | networks | " + " | ".join(VERDICTS.values()) + " |", "|---" * (len(VERDICTS) + 2) + "|"]
    table += [
        f"| {zoo} | {sum(found.values())} | " + " | ".join(str(found[verdict]) for verdict in VERDICTS) + " |"
        for zoo, found in by_zoo.items()
    ]
    lrp = Counter(row["lrp"][0] for row in rows if "lrp" in row)
    return [
        *table,
        "",
        "LRP-ε: " + ", ".join(f"{lrp[verdict]} {verdict}" for verdict in VERDICTS if lrp[verdict]) + ".",
    ]


def write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("patterns", nargs="*", help="names such as torchvision/resnet*; all without")
    parser.add_argument("--one", metavar="NAME", help="print one network's record")
    parser.add_argument("--seconds", type=float, default=60, help="of processor time, a network")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.one:
        resource.setrlimit(resource.RLIMIT_CPU, (int(options.seconds), int(options.seconds) + 5))
        print(json.dumps(one(options.one)))
        return
    absent = [zoo for zoo in BUILDERS if find_spec(zoo) is None]
    if absent:
        print(f"without {', '.join(absent)}: pip install attrain[zoo]", file=sys.stderr)
    patterns = options.patterns or ["*"]
    names = [n for n in all_names(absent) if any(fnmatch.fnmatch(n, p) for p in patterns)]
    records = sweep(names, options.results / "zoo.jsonl", options.seconds, options.jobs)
    write(options.results / "zoo.md", page(records))
    print("\n".join(counts(list(records.values()))))


if __name__ == "__main__":
    main()
