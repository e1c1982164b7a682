"""Kernels forked from a process that has made the imports are kernels like others."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from jupyter_client.manager import start_new_kernel

from studies.kernels import prepared_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


@pytest.fixture(scope="module")
def environment():
    with prepared_kernels(dict(os.environ)) as found:
        yield found


@pytest.fixture
def kernel(environment, tmp_path, monkeypatch):
    """Start a kernel of the environment that is given; returns its manager and what runs code in it."""
    started = []

    def start(environment=environment):
        monkeypatch.setenv("JUPYTER_PATH", environment["JUPYTER_PATH"])
        manager, client = start_new_kernel(120, "python3", cwd=tmp_path, env=environment | {"ATTRAIN_SAID": "so"})
        started.append((manager, client))

        def run(code):
            printed = []
            collect = lambda m: m["msg_type"] == "stream" and printed.append(m["content"]["text"])  # noqa: E731
            reply = client.execute_interactive(code, timeout=60, output_hook=collect)
            assert reply["content"]["status"] == "ok", reply["content"]
            return "".join(printed)

        return manager, run

    yield start
    for manager, client in started:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def gone(process: psutil.Process) -> bool:
    """Whether the process ends within ten seconds."""
    for _ in range(100):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def working_in(folder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += [process] if process.cwd() == str(folder) else []
    return found


def pid_of(run) -> psutil.Process:
    return psutil.Process(int(run("import os; print(os.getpid())")))


SEEN = """
import os, sys, signal, subprocess, matplotlib, numpy, torch
own = {"JUPYTER_PATH", "JPY_PARENT_PID", "JPY_SESSION_NAME"}
print(os.getcwd(), sys.path, sys.argv[1:2], sys.stdin, __name__, matplotlib.get_backend())
print(sorted((k, v) for k, v in os.environ.items() if k not in own))
print(subprocess.run(["false"]).returncode, signal.getsignal(signal.SIGTERM), os.getpgid(0) == 0)
print(torch.get_num_threads(), torch.get_default_dtype(), numpy.geterr())
"""


def test_it_sees_what_an_ordinary_kernel_sees(kernel, environment):
    (_, forked), (_, ordinary) = kernel(), kernel(environment | {"JUPYTER_PATH": ""})
    assert forked(SEEN) == ordinary(SEEN)


def test_the_imports_are_made_but_those_of_our_own_code(kernel, environment):
    before = "import sys; print(*[name in sys.modules for name in ('torch', 'attrain', 'studies.files')])"
    (_, forked), (_, ordinary) = kernel(), kernel(environment | {"JUPYTER_PATH": ""})
    assert forked(before) == "True False False\n" and ordinary(before) == "False False False\n"


def test_two_kernels_do_not_see_each_other(kernel):
    (_, first), (_, second) = kernel(), kernel()
    first("import torch, numpy, random; torch.manual_seed(1); mine = 1")
    assert second("print('mine' in globals())") == "False\n"
    assert pid_of(first) != pid_of(second)
    numbers = "import random; print(random.random())"
    assert first(numbers) != second(numbers)


def test_it_ends_with_the_process_that_stands_for_it(kernel):
    manager, run = kernel()
    process = pid_of(run)
    manager.shutdown_kernel(now=True)
    assert gone(process)


@pytest.mark.parametrize("forked", [True, False], ids=["running", "not forked yet"])
def test_it_ends_with_jupyter_if_that_is_killed(environment, forked, tmp_path):
    """At any moment: also while it waits for a fork, as while the imports are made."""
    code = "import sys, time; from jupyter_client.manager import KernelManager as K; m = K(kernel_name='python3');"
    code += "m.start_kernel(); print(m.provisioner.pid, flush=True); time.sleep(600)"
    with prepared_kernels(dict(os.environ)) as fresh:
        known = environment if forked else fresh
        with subprocess.Popen([sys.executable, "-c", code], env=known, stdout=subprocess.PIPE, cwd=tmp_path) as jupyter:
            standing = psutil.Process(int(jupyter.stdout.readline()))
            while len(found := working_in(tmp_path)) < 2 + forked:
                time.sleep(0.1)
            jupyter.kill()
        assert standing in found and len(found) == 2 + forked and all(map(gone, found))


def test_who_is_gone_gets_none_and_nothing_is_said(capfd):
    with prepared_kernels(dict(os.environ)) as environment:
        address = os.path.join(environment["JUPYTER_PATH"].split(os.pathsep)[0], "socket")
        for said in (b"", b"\0", b'\0[["-f"'):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(60)
                assert connection.recv(1) == b""
    assert capfd.readouterr().err == ""


def test_when_it_dies_jupyter_sees_that(kernel):
    manager, run = kernel()
    pid_of(run).kill()
    assert gone(psutil.Process(manager.provisioner.pid))


def test_it_outlives_the_process_that_forked_it_and_later_ones_start_as_ever(kernel):
    with prepared_kernels(dict(os.environ)) as environment:
        _, run = kernel(environment)
        (server,) = [p for p in psutil.Process().children() if p.pid == pid_of(run).ppid()]
        server.kill()
        server.wait()
        assert run("print(1)") == "1\n"
        _, late = kernel(environment)
        assert late("import sys; print('torch' in sys.modules)") == "False\n"


def test_nothing_is_left_behind():
    with prepared_kernels(dict(os.environ)) as environment:
        folder = environment["JUPYTER_PATH"].split(os.pathsep)[0]
        assert os.path.isdir(folder)
        (server,) = [p for p in psutil.Process().children() if "studies.kernels" in p.cmdline()][-1:]
    assert gone(server) and not os.path.exists(folder)


def test_elsewhere_kernels_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with prepared_kernels({"A": "b"}) as environment:
        assert environment == {"A": "b"}
