"""Run many notebooks: `make reproduce`, or `python -m studies.batch --scale laptop`.

Snakemake runs `notebooks/Snakefile` on this machine's cores, each seed as a job of its own, but at smoke scale each
study; finished records are kept and not run again unless something they depend on has changed. A line a job, with an
estimate of the time that is left, a summary table at the end, then the report.

Snakemake runs in this process, and its jobs end with it: Ctrl-C and SIGKILL leave nothing running, and the same command
goes on from what has finished. At SIGTERM the jobs that run are finished first.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_prep import DataError
from studies import pages, records
from studies.files import NOTE, NOTEBOOKS, check_writable, remove_scratch, results_root, sole
from studies.parameters import SCALES, check_data, data_sets, defaults, experiments, settings
from studies.run import Parser, check_device


def snakemake(folder: Path, jobs: str, config: dict) -> int:
    """Run the batch into the results folder; returns Snakemake's exit code."""
    from snakemake.cli import main  # seconds to import

    # Our lock replaces Snakemake's, which outlives a killed batch; a run's mark is made last, so it is never half done.
    # A mark is removed if what it depends on has changed (Snakefile); the times of files say nothing.
    options = ["--nolock", "--ignore-incomplete", "--rerun-triggers", "mtime", "--keep-going"]
    options += ["--snakefile", str(NOTEBOOKS / "Snakefile"), "--directory", str(folder)]
    options += ["--cores", jobs, "--resources", "gpu=1"]
    logging.getLogger("snakemake.logging").addFilter(progress(time.time()))
    try:
        main([*options, "--config", *(f"{name}={value}" for name, value in config.items())])
    except SystemExit as ended:
        return ended.code or 0
    return 0


def progress(started: float) -> Callable[[logging.LogRecord], bool]:
    """A filter of Snakemake's messages: lets errors through, and prints its count of jobs with what tqdm expects."""
    from snakemake_interface_logger_plugins.common import LogEvent
    from tqdm import tqdm

    def shown(record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        if event == LogEvent.PROGRESS and record.done < record.total:  # the last is no run, but the rule "all"
            form = "{n_fmt} of {total_fmt} runs done in {elapsed}, about {remaining} left"
            print(tqdm.format_meter(record.done, record.total - 1, time.time() - started, bar_format=form), flush=True)
        return record.levelno >= logging.ERROR and event != LogEvent.JOB_ERROR  # of which the job has told

    return shown


def check(scales: list[str], chosen: list[str], given: dict) -> None:
    """Raise ValueError or DataError, with one line, before anything runs if the batch cannot be run as asked."""
    if not chosen:
        raise ValueError(f"there are no experiments in {NOTEBOOKS}")
    asked = [defaults(name) | settings(name, scale, given) for name in chosen for scale in scales]
    for device in {values["device"] for values in asked}:
        check_device(device)
    check_data({needed for values in asked for needed in data_sets(values)})


def _cores(text: str) -> str:
    if text != "all" and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be all or a whole number from 1 on, got {text!r}")
    return text


def _interrupted(number, frame):
    """End at once, as if killed: what has finished is on disk, and the jobs see that this process is gone."""
    print("interrupted: what has finished is kept, and the same command goes on from there", file=sys.stderr)
    sys.stderr.flush()
    os._exit(128 + number)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m studies.batch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", default="smoke", help=f"one or more of {', '.join(SCALES)}, separated by spaces")
    parser.add_argument(
        "--experiments", default="", help="<paper>/<name> or <name>, separated by spaces (default: all)"
    )
    parser.add_argument("--jobs", type=_cores, default="all", help="CPU cores to use (default: all)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the scale's)")
    parser.add_argument("--device", help="cpu, cuda, … (default: the scale's)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options, folder = _options(arguments), results_root()
    given = {name: value for name in ("seeds", "device") if (value := getattr(options, name)) is not None}
    scales, chosen = options.scale.split() or ["smoke"], options.experiments.split() or experiments()
    config = {"scale": " ".join(scales), "experiments": " ".join(chosen), **given}
    os.environ["ATTRAIN_RESULTS"] = str(folder)  # absolute: Snakemake changes the working directory
    try:
        check(scales, chosen, given)
        check_writable(folder)
        with sole(folder / "batch", f"waiting: another batch is writing to {folder}"):
            failed = snakemake(folder, options.jobs, config)
            remove_scratch()  # of runs that were killed
            runs = records.runs(records.read_records(folder)[0])
            ours = runs[runs["scale"].isin(scales) & runs["experiment"].isin(chosen)]
            print(f"\n{ours.to_string(index=False)}\n", flush=True)
            for fault in pages.report(folder).values():  # of other runs: this batch's have just been written
                print(f"{NOTE}{fault}", file=sys.stderr)
    except (ValueError, OSError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if failed:
        print("error: not everything has run, see the lines above", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell's background jobs have it
        signal.signal(signal.SIGINT, _interrupted)
    sys.exit(main())
