"""On a Slurm of this machine: a grid of several seeds by the README's command, a job cancelled, the batch killed."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from studies.files import ROOT
from studies.needs import UNKNOWN
from tests.batches import TOY, Command, records, write_notebook
from tests.chromium import process, until
from tests.slurm import MISSING, cluster

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: apt-get install slurm-wlm munge"),
    pytest.mark.slurm,
]
STUDY = "toy/slow"  # whose seed 1 waits as long as there is a file
RUN = """
import time
from pathlib import Path
from studies.study import Study
study = Study("toy/slow", globals())
def run(seed):
    while seed == 1 and Path("../hold").exists():
        time.sleep(0.2)
    return {"metrics": {"value": rate * seed}}
"""


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    folder = tmp_path_factory.mktemp("note books")
    shutil.copy(ROOT / "notebooks/claims.yaml", folder)
    shutil.copy(ROOT / "notebooks/Snakefile", folder)
    (folder / "params/toy").mkdir(parents=True)
    (folder / f"params/{STUDY}.laptop.yaml").write_text("scale: laptop\nseeds: 3\n")
    write_notebook(folder, STUDY, [TOY, RUN, "study.finish([study.seed(s, run) for s in study.seeds])"])
    return folder


def documented() -> list[str]:
    """The words of the command that README and the page on clusters show."""
    found = []
    for page in ("README.md", "notebooks/cluster/README.md"):
        blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        (block,) = [block for block in blocks if "cluster/slurm" in block]
        found.append(block.replace("\\\n", " ").partition("\n.venv/bin/")[2])
    assert found[0] == found[1]
    return shlex.split(found[0])


def measured(results) -> dict:
    """All records but for what they say of times, and the digest of these."""
    return {name: {k: v for k, v in each.items() if k != "digest"} for name, each in records(results).items()}


def test_a_grid_on_slurm_ends_with_the_records_of_a_local_one_though_a_job_is_cancelled_and_the_batch_killed(
    books, tmp_path
):
    local = Command(books, tmp_path / "local", "studies.batch", "--experiments", STUDY, "--scale", "laptop")
    results = tmp_path / "results"
    command = documented()
    command[command.index("--directory") + 1] = str(results)
    command[command.index("--config") + 1 :] = ["scale=laptop", f"experiments={STUDY}"]
    command = [sys.executable, "-m", *command, "--slurm-init-seconds-before-status-checks", "5"]
    hold = books / "hold"
    with cluster() as environment:
        environment |= {"ATTRAIN_NOTEBOOKS": str(books), "ATTRAIN_RESULTS": str(results)}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT / "lib", ROOT)))

        def squeue(form: str) -> list[str]:
            asked = subprocess.run(["squeue", "-h", "-o", form], env=environment, capture_output=True, text=True)
            return [line.strip() for line in asked.stdout.splitlines()]

        def batch(log):
            return process(command, tmp_path / log, env=environment, cwd=ROOT)

        def held_job(running, log) -> str:
            """The number of the job that waits, once the others have ended."""

            def others_have_ended():
                assert running.poll() is None, (tmp_path / log).read_text()[-3000:]
                return kept() == {0, 2}

            until(others_have_ended, 600, "the other seeds have finished")
            return until(lambda: len(jobs := squeue("%i")) == 1 and jobs[0], 300, "the job that waits is alone")

        def kept() -> set[int]:
            found = (results / "laptop" / STUDY / "seeds").glob("*/record.json")
            return {int(file.parent.name) for file in found}

        hold.touch()
        try:
            with batch("cancelled.log") as running:
                until(lambda: squeue("%i"), 400, "a job is submitted")
                minutes, megabytes = UNKNOWN[""]  # no record says
                assert set(squeue("%l %m")) == {f"{minutes // 1440}-00:00:00 {megabytes}M"}
                job = held_job(running, "cancelled.log")
                subprocess.run(["scancel", job], env=environment, check=True)
                assert running.wait(400) == 1
            said = (tmp_path / "cancelled.log").read_text()
            assert "CANCELLED" in said and "seed=1" in said
            assert kept() == {0, 2} and not squeue("%i")
            finished = {file: file.read_bytes() for file in results.rglob("record.json")}

            with batch("killed.log") as running:
                job = held_job(running, "killed.log")
                os.killpg(running.pid, signal.SIGKILL)
            assert squeue("%i") == [job], "what a cluster runs, it runs on"

            with batch("resumed.log") as running:
                until(lambda: len(squeue("%i")) == 2, 400, "the seed that was not finished is submitted again")
                hold.unlink()
                assert running.wait(600) == 0, (tmp_path / "resumed.log").read_text()[-3000:]
            until(lambda: not squeue("%i"), 60, "no job is left")
        finally:
            hold.unlink(missing_ok=True)
    assert {file: file.read_bytes() for file in finished} == finished, "what was finished is not run again"
    try:
        assert local.finish() == 0
    finally:
        local.close()
    found, expected = measured(results), measured(tmp_path / "local")
    assert len(found) == 4 and found == expected


def test_the_profile_can_say_account_and_partition_by_its_commented_lines():
    text = (ROOT / "notebooks/cluster/slurm/config.yaml").read_text()
    assert yaml.safe_load(text)["slurm-status-command"] == "squeue"
    shown = re.sub(r"^# (default-resources:|  slurm_\w+:)", r"\1", text, flags=re.MULTILINE)
    assert yaml.safe_load(shown)["default-resources"] == {"slurm_account": "my_group", "slurm_partition": "main"}
