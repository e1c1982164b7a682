"""Kernels of a batch, forked from one process that has imported what notebooks import.

These imports take as long as a study of smoke scale trains. A kernel specification, which Jupyter finds before its own
by JUPYTER_PATH, lets a small process stand for the kernel: it asks for a fork and waits for its end, and when Jupyter
ends that process, the fork ends too. On Linux only: elsewhere libraries do not survive a fork, and kernels start as
ever.
"""

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from studies.files import scratch_folder

# Of others only: the code of attrain and data_prep may change while a batch runs, and each kernel takes it as it is.
IMPORTS = "torch torchvision torchmetrics pandas matplotlib.pyplot scipy.stats tqdm ipykernel.kernelapp".split()
IMPORTS += "matplotlib_inline.backend_inline sklearn.datasets ipywidgets".split()


@contextmanager
def prepared_kernels(environment: dict, before: Callable | None = None):
    """Within this context kernels start fast for processes with the environment that it gives.

    Args:
        environment: of the process that imports; what is read at an import cannot be changed for a kernel.
        before: called in that process before all else.
    """
    if sys.platform != "linux":
        yield environment
        return
    with scratch_folder() as folder:
        address, specification = Path(folder, "socket"), Path(folder, "kernels", "python3", "kernel.json")
        argv = [sys.executable, "-m", "studies.kernels", str(address), "-f", "{connection_file}"]
        specification.parent.mkdir(parents=True)
        specification.write_text(
            json.dumps({"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python"})
        )
        with socket.socket(socket.AF_UNIX) as listening:  # the server's alone, so that nobody waits for a dead one
            listening.bind(str(address))
            listening.listen(os.cpu_count() or 1)
            server = subprocess.Popen(
                [sys.executable, "-m", "studies.kernels", str(listening.fileno())],
                env={"MPLBACKEND": "module://matplotlib_inline.backend_inline"} | environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[listening.fileno()],
                preexec_fn=before,
            )
        with server:
            try:
                yield environment | {"JUPYTER_PATH": os.pathsep.join([folder, environment.get("JUPYTER_PATH", "")])}
            finally:
                server.kill()


def serve(listening: socket.socket) -> None:
    """Import, then fork for each that asks; a fork becomes the kernel."""
    for name in IMPORTS:
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()  # what is there now is not gone through again, and so its pages stay shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    while True:
        connection, _ = listening.accept()
        if not os.fork():
            break
        connection.close()
    listening.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    become_kernel(connection)


def become_kernel(connection: socket.socket) -> None:
    """Run a kernel as who asks would have run it: with its arguments, folder, environment and streams."""
    from ipykernel.kernelapp import launch_new_instance

    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    request = connection.makefile().readline()
    if not request.endswith("\n"):
        return  # who asked was killed over it
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder, environment = json.loads(request)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ipykernel_launcher", *arguments]
    sys.path.pop(0)  # the folder of the process that forked
    for name in [name for name in sys.modules if name.partition(".")[0] == "attrain"]:
        del sys.modules[name]
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    launch_new_instance(parent_handle=1)  # it does not watch its parent, which is not Jupyter


def _end_with(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.recv(1)
    os._exit(1)


def ask(address: str, *arguments: str) -> None:
    """Have a kernel of these arguments forked, wait for its end or Jupyter's; where nobody answers, become it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the run
    parent = int(os.environ.get("JPY_PARENT_PID") or os.getppid())
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + b"\n")
        while os.getppid() == parent:
            if select.select([connection], [], [], 1.0)[0]:  # looks once a second whether Jupyter is there
                connection.recv(1)
                break
        sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(socket.socket(fileno=int(sys.argv[1])))
    else:
        ask(*sys.argv[1:])
