"""A Slurm of one machine over loopback, for the tests: its daemons run as whoever starts them, from one folder."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chromium import process, until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "srun")
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=300
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={name} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes={name} Default=YES MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _know_the_configuration(folder: Path) -> None:
    """Commands of ours go first: Snakemake's jobs drop all of Slurm's variables, and then look below /etc."""
    for command in ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun"):
        file = folder / "bin" / command
        file.write_text(f'#!/bin/sh\nSLURM_CONF="{folder}/slurm.conf" exec {shutil.which(command, path=PLACES)} "$@"\n')
        file.chmod(0o755)


@contextmanager
def cluster(cpus: int = 2):
    """The environment in which sbatch, squeue and scancel speak to a Slurm of this machine; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as scratch:  # a short path, as sockets need
        yield from _cluster(Path(scratch), cpus)


def _cluster(folder: Path, cpus: int):
    folder.chmod(0o755)
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    _know_the_configuration(folder)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{PLACES}"}
    user, name = pwd.getpwuid(os.getuid()).pw_name, socket.gethostname().partition(".")[0]
    ports = {"controller": _free_port(), "node": _free_port()}
    text = CONFIGURATION.format(folder=folder, name=name, user=user, cpus=cpus, **ports)
    (folder / "slurm.conf").write_text(text)
    own = {kind: f"{folder}/munge.{kind}" for kind in ("key-file", "socket", "pid-file", "log-file", "seed-file")}
    own |= {"key-file": f"{folder}/munge.key"}
    daemons = {
        "munged": ["munged", "--foreground", "--force", *(f"--{kind}={place}" for kind, place in own.items())],
        "slurmctld": ["slurmctld", "-D", "-c", "-i"],
        "slurmd": ["slurmd", "-D", "-N", name],
    }
    with ExitStack() as running:
        for daemon, command in daemons.items():
            command[0] = shutil.which(command[0], path=PLACES)
            running.enter_context(process(command, folder / f"{daemon}.log", env=environment))
            if daemon == "munged":
                until((folder / "munge.socket").exists, 30, "munged listens")

        def is_idle():
            asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
            return asked.stdout.strip() == "idle"

        try:
            until(is_idle, 60, "the node of Slurm is idle")
        except TimeoutError:
            logs = {daemon: (folder / f"{daemon}.log").read_text()[-1500:] for daemon in daemons}
            raise TimeoutError(f"Slurm does not start: {logs}") from None
        yield environment
