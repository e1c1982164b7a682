"""Run experiments in batch: `make reproduce`, or `python -m attrain.batch --scale laptop`.

Snakemake runs `notebooks/Snakefile` on this machine's cores; finished records are kept and not run again
unless something they depend on has changed. One line a job, a summary table at the end, then the report.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from attrain import records, report
from attrain.run import SCALES, Parser, experiments, settings
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


def snakemake(folder: Path, lock: int, jobs: str, config: dict) -> str:
    """Run the batch in the results folder. Of Snakemake's messages only the jobs' errors show.

    Returns what is to be said at the end if not everything has run, else "".
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
    command += ["--directory", str(folder), "--cores", jobs, "--resources", "gpu=1", "--keep-going"]
    # Our lock replaces Snakemake's, which outlives a killed batch; a run's mark is made last, so it is never half done.
    command += ["--nolock", "--ignore-incomplete", "--quiet", "host", "progress", "reason", "rules"]
    command += ["--config", *[f"{name}={value}" for name, value in config.items()]]
    # A session of its own keeps Ctrl-C from Snakemake and the jobs: they are ended below, without a word of theirs.
    options = {"start_new_session": True, "preexec_fn": _end_with_parent, "pass_fds": [lock]}
    messages = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", **options) as process:
        try:
            for line in process.stderr:
                messages.append(line)
                if line.startswith("error: "):
                    print(line, end="", file=sys.stderr, flush=True)
            code = process.wait()
        finally:
            _end(process)
    if not code:
        return ""
    if any(line.startswith("error: ") for line in messages):
        return "some runs failed, see the lines that begin with 'error' above"
    return f"Snakemake failed (exit code {code}):\n{''.join(messages[-20:])}".rstrip()


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
    """On Linux, let Snakemake end when this process is killed; elsewhere its jobs finish what they began."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def check(scales: list[str], chosen: list[str], given: dict) -> None:
    """Raise ValueError before anything runs if the batch cannot be run as asked."""
    if not chosen:
        raise ValueError(f"there are no experiments in {NOTEBOOKS}")
    for experiment in chosen:
        for scale in scales:
            values = settings(experiment, scale, given)
            check_device(values.get("device", "cpu"))


def _cores(text: str) -> str:
    if text != "all" and int(text) < 1:
        raise ValueError
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m attrain.batch", description=__doc__.splitlines()[0])
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
        check(scales, chosen, given)
        check_writable(folder)
        with sole_batch(folder) as lock:
            config = {"scale": " ".join(scales), "experiments": " ".join(chosen), **given}
            problem = snakemake(folder, lock, options.jobs, config)
            wanted = {(scale, experiment) for scale in scales for experiment in chosen}
            found = records.load_records(folder)
            ours = [r for r in found if (r["parameters"]["scale"], r["experiment"]) in wanted]
            print(f"\n{records.summary_table(ours)}\n", flush=True)
            unwritten = report.main([])
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
