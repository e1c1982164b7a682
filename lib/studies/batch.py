"""Run experiments in batch: `make reproduce`, or `python -m studies.batch --scale laptop`.

Snakemake runs `notebooks/Snakefile` on this machine's cores, each seed as a job of its own, but at smoke scale each
study; finished records are kept and not run again unless something they depend on has changed. One line a job, with an
estimate of the time that is left, a summary table at the end, then the report.
"""

import ctypes
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from studies import pages, records
from studies.files import NOTEBOOKS, check_writable, results_root
from studies.kernels import prepared_kernels
from studies.run import MEMORY, SCALES, Parser, check_device, experiments, settings

# What a job says of itself, wherever it is in a line: Snakemake ends its messages by a second write, and a job's
# line may come between the two.
SAID = re.compile(r"(plan|done|error): (?=\[|\S+ \S+?(?: seed \d+)?[,:] )")


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


def snakemake(folder: Path, lock: int, jobs: str, config: dict, on_gpu: bool = False) -> str:
    """Run the batch in the results folder. Of Snakemake's messages only the jobs' errors show.

    Returns what is to be said at the end if not everything has run, else "".
    """
    environment = MEMORY | os.environ
    # CUDA does not survive a fork if an import has so much as counted the GPUs.
    kernels = nullcontext(environment) if on_gpu else prepared_kernels(environment, _end_with_parent)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
    command += ["--directory", str(folder), "--cores", jobs, "--resources", "gpu=1", "--keep-going"]
    # Our lock replaces Snakemake's, which outlives a killed batch; a run's mark is made last, so it is never half done.
    command += ["--nolock", "--ignore-incomplete", "--quiet", "host", "progress", "reason", "rules"]
    command += ["--config", "plan=1", *[f"{name}={value}" for name, value in config.items()]]
    # A session of its own keeps Ctrl-C from Snakemake and the jobs: they are ended below, without a word of theirs.
    options = {"start_new_session": True, "preexec_fn": _end_with_parent, "pass_fds": [lock]}
    options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    messages, progress = [], Progress(folder, os.cpu_count() or 1 if jobs == "all" else int(jobs))
    with kernels as environment, subprocess.Popen(command, env=environment, **options) as process:
        try:
            for line in process.stdout:
                said = SAID.search(line)
                kind, line = (said[1], line[said.start() :]) if said else ("", line)
                if kind == "plan":
                    progress.plan(json.loads(line.removeprefix("plan: ")))
                elif kind == "done":
                    print(progress.done(line.rstrip()), flush=True)
                else:
                    messages.append(line)
                    if kind == "error":
                        progress.failed(line)
                        print(line, end="", file=sys.stderr, flush=True)
            code = process.wait()
        finally:
            _end(process)
    if not code:
        return ""
    if any(line.startswith("error: ") for line in messages):
        return "some runs failed, see the lines that begin with 'error' above"
    return f"Snakemake failed (exit code {code}):\n{''.join(messages[-20:])}".rstrip()


class Progress:
    """What is left of a batch. A job is (experiment, scale, seed), the seed "" for the study of all seeds.

    Args:
        folder: the results, with the records of earlier runs.
        cores: what the jobs share.
    """

    def __init__(self, folder: Path, cores: int):
        self.folder, self.cores = folder, cores
        self.expected: dict[tuple, float | None] = {}  # seconds by earlier runs
        self.share: dict[tuple, float] = {}  # of the machine
        self.took: dict[tuple, float] = {}

    def plan(self, jobs: list) -> None:
        """Take up what is going to run, [experiment, scale, seed, does it train?, threads, GPUs] each, and say so."""
        for *job, trains, threads, gpus in jobs:
            self.expected[tuple(job)] = earlier_seconds(self.folder, *job, trains)
            self.share[tuple(job)] = 1.0 if gpus else min(1.0, threads / self.cores)
        print(f"{len(jobs)} run{'s' * (len(jobs) != 1)} to do, {self.left()}", flush=True)

    def done(self, line: str) -> str:
        """The line of a job that has finished, with what is left then."""
        experiment, scale, seed, seconds = re.match(r"done: (\S+) (\S+)(?: seed (\d+))?, (\d+) s", line).groups()
        self.took[experiment, scale, seed or ""] = float(seconds)
        return f"{line} ({len(self.took)} of {len(self.expected)} done, {self.left()})"

    def failed(self, line: str) -> None:
        """Leave out the job of an error line, and the study that needs it."""
        experiment, scale, seed = re.match(r"error: (\S+) ([^\s:]+)(?: seed (\d+))?", line).groups()
        for job in {(experiment, scale, seed or ""), (experiment, scale, "")}:
            self.expected.pop(job, None)

    def left(self) -> str:
        """How long the rest takes, and what makes us think so."""
        rest = [job for job in self.expected if job not in self.took]
        if not rest:
            return "nothing left"
        timed = [job for job in self.took if self.expected.get(job)]
        # How fast this machine is today, beside the one that the records are of.
        pace = sum(self.took[job] for job in timed) / sum(self.expected[job] for job in timed) if timed else 1.0
        mean = sum(self.took.values()) / len(self.took) if self.took else None
        guesses = {job: mean if self.expected[job] is None else pace * self.expected[job] for job in rest}
        if None in guesses.values():
            return "time left unknown, as not all of it has run before"
        seconds = max(*guesses.values(), sum(guesses[job] * self.share[job] for job in rest))
        words = "under a minute" if seconds < 50 else f"about {seconds / 60:.0f} min"
        words = words if seconds < 5400 else f"about {seconds / 3600:.1f} h"
        source = "the runs so far" if None in (self.expected[job] for job in rest) else "earlier runs"
        return f"{words} left by {source}"


def earlier_seconds(folder: Path, experiment: str, scale: str, seed: str, trains: bool) -> float | None:
    """What such a job took before: by its own record, that of its study, or the kept one; None if there is none.

    Args:
        folder: the results.
        seed: "" for the study of all seeds.
        trains: False for a study that finds its seeds finished.
    """
    study = folder / scale / experiment
    for place in (study / "seeds" / seed, study, records.RECORDS / scale / experiment):
        with suppress(OSError, ValueError):
            record = records.load_record(place / "record.json")
            seeds, training = len(record["seeds"]), sum(record["times"]["seed_seconds"])
            pictures = records.seconds(record) - training
            return trains * training / seeds + (pictures / seeds if seed else pictures)
    return None


def _end(process: subprocess.Popen) -> None:
    """End Snakemake and its jobs, if it has not ended; what they have finished is kept."""
    process.kill()  # at once: its own way to end removes what its last jobs have just finished
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        for _ in range(20):  # two seconds, in which jobs end their kernels
            time.sleep(0.1)
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)


def _end_with_parent() -> None:
    """On Linux, let a child end when this process is killed; elsewhere Snakemake's jobs finish what they began."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def check(scales: list[str], chosen: list[str], given: dict) -> set[str]:
    """The devices that the batch runs on; ValueError before anything runs if it cannot be run as asked."""
    if not chosen:
        raise ValueError(f"there are no experiments in {NOTEBOOKS}")
    devices = {settings(e, scale, given).get("device", "cpu") for e in chosen for scale in scales}
    for device in devices:
        check_device(device)
    return devices


def _cores(text: str) -> str:
    if text != "all" and int(text) < 1:
        raise ValueError
    return text


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m studies.batch", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", default="smoke", help=f"one or more of {', '.join(SCALES)}, separated by spaces")
    parser.add_argument(
        "--experiments", default="", help="<paper>/<name> or <name>, separated by spaces (default: all)"
    )
    parser.add_argument("--jobs", type=_cores, default="all", help="CPU cores to use (default: all)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the scale's)")
    parser.add_argument("--device", help="cpu, cuda, … (default: the scale's)")
    options = parser.parse_args(arguments)
    given = {name: value for name in ("seeds", "device") if (value := getattr(options, name)) is not None}
    scales, chosen = options.scale.split() or ["smoke"], options.experiments.split() or experiments()
    folder = results_root()
    try:
        on_gpu = check(scales, chosen, given) != {"cpu"}
        check_writable(folder)
        with sole_batch(folder) as lock:
            config = {"scale": " ".join(scales), "experiments": " ".join(chosen), **given}
            problem = snakemake(folder, lock, options.jobs, config, on_gpu)
            wanted = {(scale, experiment) for scale in scales for experiment in chosen}
            found = records.load_records(folder)
            ours = [r for r in found if (r["parameters"]["scale"], r["experiment"]) in wanted]
            print(f"\n{records.summary_table(ours)}\n", flush=True)
            unwritten = pages.main([])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what has finished is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    if problem:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(problem) or unwritten)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)  # as Ctrl-C: Snakemake and its jobs end first
    sys.exit(main())
