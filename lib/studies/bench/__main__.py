"""`make bench [DEVICE=cuda] [ONLY=step] [KEEP=after]`: what attribution costs, as ratios measured side by side.

The two sides of a ratio take turns; a figure is the median of the ratios of neighbouring repetitions, with the
interval (95 %, sign test) in which the median lies. Beside it stand the least that the ratio can be, see
`studies.bench.cases`, its target, and the share of what the processor could do that the numerator reaches (by a
roofline, see `studies.bench.measure.count`).

The table is printed, the picture and the record are `bench.png` and `bench.json` in the results folder. With
`--keep LABEL` the record goes to `notebooks/results/benchmarks/<device>-<LABEL>.json`, which
`notebooks/benchmarks.ipynb` shows.
"""

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from attrain.training import isnet_step, plain_step
from studies.bench import cases, scaling, tables
from studies.bench.cases import SIZES, guided_training_step, training_step
from studies.bench.epochs import epoch_cases
from studies.bench.measure import Case, growth, in_units, measure, peaks
from studies.bench.variations import variation_cases
from studies.study import check_device, commit, environment, results_root, write_json

OTHERS = ("captum", "shap", "tangermeme")  # zennit's version is in the environment


def all_cases(size: str, device: torch.device) -> Iterator[Case]:
    sizes = SIZES[size]
    for group in ("map", "genomics", "isnet", "transformer", "guided", "loss", "challenger"):
        yield from getattr(cases, f"{group}_cases")(sizes, device)
    yield from epoch_cases(device)
    yield from variation_cases(sizes, device)


def machine(device: torch.device) -> dict:
    """The processor by name, its cores, and how busy it is with other things."""
    names = []
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = re.findall(r"^model name\s*: (.+)$", file.read(), re.MULTILINE)
    return {
        "processor": names[0] if names else os.uname().machine,
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
    }


def versions() -> dict[str, str]:
    found = {}
    for package in OTHERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def profiles(size: str, device: torch.device) -> dict[str, dict[str, float]]:
    """The time of torch's operations in a plain step, a step on LRP maps and a guided one; the plain step's is 1."""
    where = dict(n=SIZES[size].batch, edge=SIZES[size].step, device=device)
    plain, isnet = (training_step(step, classes=10, **where) for step in (plain_step, isnet_step))
    ordinary, guided = (guided_training_step("vanilla", "resnet18", depth, **where) for depth in (None, "Input"))
    return in_units({"plain step": plain, "Selective ISNet step": isnet}, plain, device) | in_units(
        {"energy-guided step": guided}, ordinary, device
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studies.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", choices=SIZES, help="small (default on a CPU) or large (default on CUDA)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", metavar="PATTERN", help="only the cases whose names it is found in")
    parser.add_argument("--cases", action="store_true", help="list the cases and measure none")
    parser.add_argument("--seconds", type=float, default=2.0, help="to spend on a case, if three repetitions allow")
    parser.add_argument("--most", type=int, default=11, help="repetitions of a case")
    parser.add_argument("--keep", metavar="LABEL", help="keep the record with the code, for the notebook")
    options = parser.parse_args(arguments)
    try:
        device, started, only = check_device(options.device), time.time(), re.compile(options.only)
    except re.error as error:
        parser.error(f"--only must be a regular expression, got {options.only!r}: {error}")
    except ValueError as error:
        parser.error(str(error))
    size = options.sizes or ("large" if device.type == "cuda" else "small")
    torch.set_num_threads(options.threads)
    chosen = [case for case in all_cases(size, device) if only.search(case.name)]
    if options.cases:
        print("\n".join(case.name for case in chosen))
        return 0
    if options.keep and (options.only or not commit() or commit().endswith("+changes")):
        print("error: a record is kept of all cases, and of code that is committed", file=sys.stderr)
        return 1
    record = {"schema": 1, "device": device.type, "sizes": size, "machine": machine(device), "commit": commit()}
    record |= {"environment": environment(device) | versions(), "peak": peaks(device), "cases": []}
    if not options.only:
        record["profile"] = profiles(size, device)
        record["scaling"] = [
            {"run": run, "grows": what, **growth({x: make() for x, make in points.items()}, device, 3)}
            for run, what, points in scaling.lines(size, device)
        ]
        print(tables.scaling_table(record).to_string())
    print(tables.header(), flush=True)
    for case in chosen:
        longer = 3 if case.target else 1  # what has a target to meet is measured closer
        row = measure(case, device, record["peak"], longer * options.seconds, longer * options.most)
        record["cases"].append(row)
        print(tables.line(row), flush=True)
        record["machine"]["load after"] = round(os.getloadavg()[0], 2)
        record["seconds"] = round(time.time() - started)
        write_json(results_root() / "bench.json", record)  # after each case: what has been measured stays
    file = tables.path(device.type, options.keep) if options.keep else results_root() / "bench.json"
    write_json(file, record)
    picture = results_root() / "bench.png"
    tables.ratios({"this run": record}).savefig(picture, dpi=150)
    print(f"{record['seconds']} s; record: {file}; picture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
