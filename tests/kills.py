"""Batches that are killed again and again: python -m tests.kills [30] [seed]

Each round starts a batch of a toy study of two seeds, which is three jobs, and at a random moment kills (SIGKILL) its
launcher, a process below it, or all of them. Whatever had finished must be as it was, whatever is there must be whole,
and what the next batch makes of it must be, but for times, what an undisturbed one makes. Prints what it counted.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from studies import run
from studies.digests import read_sealed
from studies.files import SCRATCH, remove_scratch
from studies.records import load_record
from tests.batches import STUDY, Command, records, write_notebooks

BATCH = ("studies.batch", "--experiments", STUDY, "--scale", "tiny", "--jobs", 2)


def kill(command: Command, draws: random.Random) -> str:
    """Kill some of a batch's processes; says which."""
    below = psutil.Process(command.process.pid).children(recursive=True)
    who = draws.choice(["launcher", "all", *(["one below"] if below else [])])
    if who == "one below":
        draws.choice(below).kill()
    elif who == "all":
        for process in [*below, command.process]:
            process.send_signal(signal.SIGKILL)
    else:
        command.process.kill()
    return who


def finished(results: Path) -> dict[Path, bytes | None]:
    """The records of the runs that have finished."""
    return {mark.parent: record_of(mark.parent) for mark in results.rglob(run.FINISHED)}


def record_of(folder: Path) -> bytes | None:
    file = folder / "record.json"
    return file.read_bytes() if file.exists() else None


def check_whole(results: Path) -> Counter:
    """Raise ValueError if a record or a seed is not as it was written; counts them."""
    found = {"record": [*results.rglob("record.json")], "seed": [*results.rglob("*.seed")]}
    for file in found["record"]:
        load_record(file)
    for file in found["seed"]:
        read_sealed(file)
    assert not [*results.rglob("*.damaged")]
    return Counter({f"{what}s looked at after a kill": len(files) for what, files in found.items()})


def kill_again_and_again(times: int, seed: int, place: Path) -> Counter:
    """The counts; an exception if anything was lost, changed or left."""
    draws, counts = random.Random(seed), Counter()
    notebooks = place / "books"
    notebooks.mkdir()
    write_notebooks(notebooks)
    undisturbed, started = Command(notebooks, place / "undisturbed", *BATCH), time.time()
    assert undisturbed.finish(600) == 0, undisturbed.err
    expected, longest, round_ = records(undisturbed.results), time.time() - started, 0
    while counts["kills"] < times or counts["batches that came to their end"] == 0:
        command = Command(notebooks, place / f"killed {round_}", *BATCH)
        try:
            before = finished(command.results)
            time.sleep(draws.uniform(0, longest) if counts["kills"] < times else 0)
            if command.process.poll() is None and counts["kills"] < times:
                before |= finished(command.results)
                counts["kills"] += 1
                counts[f"of {kill(command, draws)}"] += 1
            code = command.finish(600)
            assert command.gone(), command.left()
            # The mark alone may go: Snakemake takes it from a run that is killed between its mark and its end.
            lost = {str(folder) for folder, content in before.items() if record_of(folder) != content}
            assert not lost, f"lost or changed: {lost}"
            counts["finished records that had to stay"] += len(before)
            counts += check_whole(command.results)
            if code == 0:
                assert records(command.results) == expected, "the record is another one"
                counts["batches that came to their end"] += 1
                round_ += 1
        finally:
            command.close()
    remove_scratch()  # as the next run does: after the last kill there was none
    scratch = [path.name for path in Path(tempfile.gettempdir()).glob(SCRATCH + "*")]
    assert not scratch, f"left in the temporary folder: {scratch}"
    return counts


def main(times: int = 30, seed: int = 0) -> None:
    """In a temporary folder of its own: of ours nothing may stay in it; what Snakemake and Jupyter leave is printed."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("TMPDIR"), tempfile.tempdir
        (aside := Path(folder, "t")).mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(aside)
        try:
            counts = kill_again_and_again(times, seed, Path(folder))
            left = [path.name for path in aside.iterdir()]
        finally:
            tempfile.tempdir = before[1]
            os.environ.pop("TMPDIR") if before[0] is None else os.environ.update(TMPDIR=before[0])
    print("; ".join(f"{count} {what}" for what, count in counts.items()), "; lost or changed: 0; left behind:", left)
    assert not [name for name in left if name.startswith(SCRATCH)]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
