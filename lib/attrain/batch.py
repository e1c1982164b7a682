"""Run experiments in batch: `make reproduce`, or `python -m attrain.batch --scale laptop`.

Snakemake runs `notebooks/Snakefile` on this machine's cores; finished records are kept and not run again
unless something they depend on has changed. One line a job, a summary table at the end, then the report.
"""

import argparse
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from attrain import report
from attrain.run import SCALES, experiments, settings
from attrain.study import NOTEBOOKS, check_device, check_writable, results_root


@contextmanager
def sole_batch(folder: Path):
    """Wait until no other batch writes to the folder. The lock ends with its holders, even if they are killed."""
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another batch is writing to {folder}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def snakemake(folder: Path, lock: int, jobs: str, config: dict, more: list[str]) -> int:
    """Snakemake's exit code for the batch, run in the results folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
    command += ["--directory", str(folder), "--cores", jobs, "--resources", "gpu=1"]
    # Our lock replaces Snakemake's, which outlives a killed batch.
    command += ["--nolock", "--rerun-incomplete", "--keep-going", "--quiet", "all"]
    command += ["--config", *[f"{name}={value}" for name, value in config.items()], *more]
    environment = os.environ | {"ATTRAIN_RESULTS": str(folder)}
    # The lock is handed down, so that jobs which outlive a killed batch still hold it.
    return subprocess.run(command, env=environment, pass_fds=[lock], preexec_fn=_end_with_parent).returncode


def _end_with_parent() -> None:
    """On Linux, let Snakemake end when this process is killed; elsewhere its jobs finish what they began."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def check(scales: list[str], chosen: list[str], given: dict) -> None:
    """Raise ValueError before anything runs if the batch cannot be run as asked."""
    for experiment in chosen:
        for scale in scales:
            values = settings(experiment, scale, given)
            check_device(values.get("device", "cpu"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m attrain.batch", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="smoke", help=f"one or more of {', '.join(SCALES)}, separated by spaces")
    parser.add_argument("--experiments", default="", help="<paper>/<name> …, separated by spaces (default: all)")
    parser.add_argument("--jobs", default="all", help="CPU cores to use (default: all)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the scale's)")
    parser.add_argument("--device", help="cpu, cuda, … (default: the scale's)")
    options, more = parser.parse_known_args(arguments)
    given = {name: value for name in ("seeds", "device") if (value := getattr(options, name)) is not None}
    scales, chosen = options.scale.split(), options.experiments.split() or experiments()
    folder = results_root()
    try:
        check(scales, chosen, given)
        check_writable(folder)
        with sole_batch(folder) as lock:
            config = {"scale": " ".join(scales), "experiments": " ".join(chosen), **given}
            code = snakemake(folder, lock, options.jobs, config, more)
            wanted = {(scale, experiment) for scale in scales for experiment in chosen}
            records = report.load_records(folder)
            ours = [r for r in records if (r["parameters"]["scale"], r["experiment"]) in wanted]
            print(f"\n{report.summary_table(ours)}\n", flush=True)
            report.main([])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if code:
        print("error: some runs failed, see the lines that begin with 'error' above", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
