"""What a job of a batch asks a cluster's scheduler for: minutes and memory, as runs like it took by their records."""

import math
from pathlib import Path

from studies.records import RECORDS, load_record
from studies.records import seconds as seconds_of_all

SLOWER = 3.0  # a node may be slower than the machine of the record, and busy
START = 10  # minutes, for imports from a slow file system
LARGER = 1.5  # other data, other versions
BESIDE = 1000  # MB of the processes that start the notebook's
UNKNOWN = {"smoke": (30, 4000), "": (24 * 60, 16000)}  # minutes and MB where no record says: at smoke scale, at others


def needs(experiment: str, scale: str, seeds: int, results: Path) -> dict[str, int]:
    """For the scheduler, what one job may take at most.

    Args:
        experiment, scale: as in a batch.
        seeds: how many the job trains itself; 0 for one that finds all of them finished.
        results: the batch's folder; a record there, of whatever parameters, goes before one that is kept with the code.

    Returns:
        "runtime" in minutes, "mem_mb" in MB: three times what the record says and ten minutes, and half as much memory
        again and 1 GB; a day and 16 GB where there is no record. Ask for more by a profile's `set-resources`.
    """
    minutes, megabytes = UNKNOWN.get(scale, UNKNOWN[""])
    if record := _record(experiment, scale, results):
        times = record["times"]
        rest = seconds_of_all(record) - sum(times["seed_seconds"])
        seconds = rest + seeds * max(times["seed_seconds"], default=0.0)
        minutes = math.ceil(SLOWER * seconds / 60) + START
        megabytes = math.ceil(LARGER * times["megabytes"]) + BESIDE if "megabytes" in times else megabytes
    return {"runtime": minutes, "mem_mb": megabytes}


def _record(experiment: str, scale: str, results: Path) -> dict | None:
    for folder in (results, RECORDS):
        file = folder / scale / experiment / "record.json"
        try:
            if file.is_file():
                return load_record(file)
        except ValueError:  # none that can be read is none
            continue
    return None
