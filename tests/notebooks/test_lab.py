"""`make lab`: a real JupyterLab on a copy of the repository, asked by its contents API as a browser asks it."""

import difflib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from studies.files import ROOT
from tests.chromium import BROWSER, browser, process, until

pytestmark = pytest.mark.skipif(find_spec("jupyterlab") is None, reason="needs JupyterLab: pip install 'attrain[lab]'")
OPEN = build_opener(ProxyHandler({})).open


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Folder and address of what `make lab` starts, in a copy of the files that matter to it."""
    folder = tmp_path_factory.mktemp("a clone")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("index", "tour", "isnet/mnist_background_bias"):
        for kind in (".py", ".ipynb"):
            (folder / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / f"notebooks/{name}{kind}", folder / f"notebooks/{name}{kind}")
    asked = subprocess.run(["make", "-n", "-s", "lab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    program, kind, *options = shlex.split(asked.splitlines()[-1])
    assert program.endswith("/bin/jupyter") and kind == "lab"
    assert not any(not option.startswith("--") for option in options), "the folder is where make runs"
    own = {f"JUPYTER_{name}_DIR": str(folder / f".{name.lower()}") for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / f".{name.lower()}") for name in ("SETTINGS", "WORKSPACES")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=token"]
    command = [sys.executable, "-m", "jupyterlab", *options, *ours]
    with process(command, folder / "lab.log", env=os.environ | own, cwd=folder) as running:

        def started():
            assert running.poll() is None, (folder / "lab.log").read_text()[-2000:]
            return [json.loads(file.read_text())["url"] for file in (folder / ".runtime").glob("jpserver-*.json")]

        yield folder, until(started, 120, "JupyterLab has started")[0]


def ask(address: str, method: str, path: str, body=None):
    data, headers = body and json.dumps(body).encode(), {"Content-Type": "application/json"}
    return json.load(OPEN(Request(f"{address}{path}?token=token", data, headers, method=method), timeout=120))


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
def test_it_opens_on_the_index_with_the_file_browser_at_the_notebooks(lab, tmp_path):
    _, address = lab
    with browser(tmp_path) as page:
        page.call("Page.navigate", url=f"{address}?token=token")
        page.wait("!!document.querySelector('.jp-Notebook h1')", 120)
        shown = "[...document.querySelectorAll('.jp-DirListing-itemText')].map(e => e.textContent.trim())"
        page.wait(f"{shown}.includes('index.ipynb')", 60)
        assert {"index.ipynb", "tour.ipynb", "isnet"} <= set(page.evaluate(shown))
        assert "Four papers" in page.evaluate("document.querySelector('.jp-Notebook h1').textContent")


@pytest.mark.parametrize("name", ["tour", "index", "isnet/mnist_background_bias"])
def test_an_edit_saved_in_jupyterlab_reaches_the_script_and_nothing_else_there_changes(lab, name):
    folder, address = lab
    book = ask(address, "GET", f"api/contents/notebooks/{name}.ipynb")["content"]
    book["cells"][0]["source"] += "\nEdited in JupyterLab."
    code = next(cell for cell in book["cells"] if cell["cell_type"] == "code")
    code["source"] += "\nedited = 1"
    saved = {"type": "notebook", "format": "json", "content": book}
    ask(address, "PUT", f"api/contents/notebooks/{name}.ipynb", saved)
    before, after = (
        file.read_text().splitlines() for file in (ROOT / f"notebooks/{name}.py", folder / f"notebooks/{name}.py")
    )
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "+-"]
    assert changes == ["+ # Edited in JupyterLab.", "+ edited = 1"]


def test_a_script_edited_elsewhere_is_what_jupyterlab_opens(lab):
    folder, address = lab
    script = folder / "notebooks/tour.py"
    script.write_text(script.read_text().replace("# # Train a network", "# # Edited elsewhere: train a network"))
    book = ask(address, "GET", "api/contents/notebooks/tour.ipynb")["content"]
    assert book["cells"][0]["source"].startswith("# Edited elsewhere: train a network")
    assert any(cell.get("outputs") for cell in book["cells"]), "the outputs are those of the notebook"


def test_no_warning_is_ours(lab):
    folder, address = lab
    kernel = ask(address, "POST", "api/kernels", {"name": "python3"})["id"]
    until(lambda: ask(address, "GET", f"api/kernels/{kernel}")["execution_state"] != "dead", 60, "a kernel runs")
    until(lambda: len(list((folder / ".runtime").glob("kernel-*.json"))), 60, "a kernel has started")
    said = (folder / "lab.log").read_text()
    assert "matches none of the expected formats" not in said and "without encryption" not in said
    found = json.loads(next((folder / ".runtime").glob("kernel-*.json")).read_text())
    assert found["curve_secretkey"], "which is when a kernel warns of plain text"
