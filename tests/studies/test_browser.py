"""As people use it: JupyterLab in a browser, a notebook by "Run All Cells", the explorer's slider, the report's links.

Screenshots are left in the folder that ATTRAIN_SCREENSHOTS names, if it does.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest

from studies.files import NOTEBOOKS
from tests.chromium import BROWSER, browser, process, until

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(find_spec("jupyterlab") is None, reason="needs JupyterLab: pip install 'attrain[lab]'"),
]
SMALLER = {"attribution_methods": {"n_train": 300, "epochs": 3, "images": 12, "steps": 4}}
TRIED = [name for name in ("tour", "attribution_methods") if (NOTEBOOKS / f"{name}.ipynb").is_file()]
QUIET = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
    # All cells are in the page, not those in sight alone; and no question about the kernel.
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    with browser(folder) as page:
        yield page
    left = [p.info for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
    assert not left, "Chromium has left processes behind"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a JupyterLab with copies of the notebooks, without outputs; and its token."""
    folder = tmp_path_factory.mktemp("lab")
    for name in TRIED:
        book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            if "parameters" in cell.metadata.get("tags", []):
                for parameter, value in SMALLER.get(name, {}).items():
                    cell.source, found = re.subn(rf"(?m)^({parameter}: \w+ = )\S+", rf"\g<1>{value}", cell.source)
                    assert found == 1, parameter
        nbformat.write(book, folder / f"{name}.ipynb")
    for place, settings in QUIET.items():
        file = folder / "settings" / "@jupyterlab" / f"{place}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "ATTRAIN_RESULTS": str(folder / "results")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=token"]  # fmt: skip
    with process(command, folder / "lab.log", env=os.environ | own, cwd=folder) as running:

        def started():
            assert running.poll() is None, (folder / "lab.log").read_text()[-2000:]
            return [json.loads(file.read_text())["url"] for file in (folder / "runtime").glob("jpserver-*.json")]

        yield until(started, 120, "JupyterLab has started")[0], "token"


def keep_screenshot(page, name: str) -> None:
    if "ATTRAIN_SCREENSHOTS" in os.environ:
        page.screenshot(Path(os.environ["ATTRAIN_SCREENSHOTS"], f"{name}.png"))


def labelled(selector: str, text: str) -> str:
    return f"[...document.querySelectorAll({selector!r})].find(e => e.textContent.trim() == {text!r})"


def choose(page, menu: str, item: str) -> None:
    """Open a menu of JupyterLab, again if it was not ready for that yet, and click on an item."""
    entry = labelled(".lm-Menu-itemLabel", item)

    def opened():
        if page.evaluate(f"!{entry}"):
            page.click(labelled(".lm-MenuBar-itemLabel", menu))
        return page.evaluate(f"!!{entry}")

    until(opened, 60, f"the menu {menu} has opened")
    page.click(entry)


def run_all(page, lab, name: str) -> None:
    """Open a notebook, choose Run > Run All Cells from the menu, and wait until the last cell has run."""
    address, token = lab
    page.goto(f"{address}lab/workspaces/{name}/tree/{name}.ipynb?token={token}")  # else earlier tabs come back
    idle = "/[|] Idle/.test(document.querySelector('#jp-main-statusbar')?.textContent)"  # its kernel has answered
    agreed = "(d => {d?.click(); return !d})(document.querySelector('.jp-Dialog .jp-mod-accept'))"
    page.click("document.querySelector('.jp-Notebook h1')", 300)
    page.wait(f"{idle} && {agreed}", 300)
    choose(page, "Run", "Run All Cells")
    last = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].at(-1).textContent"
    wrong = "document.querySelector('.jp-Notebook [data-mime-type=\"application/vnd.jupyter.error\"]')?.textContent"
    page.wait(f"{agreed} && (/\\d/.test({last}) || {wrong})", 600)
    assert page.evaluate(wrong) is None


@pytest.mark.parametrize("name", TRIED)
def test_run_all_cells_shows_every_figure_and_no_error(page, lab, name):
    run_all(page, lab, name)
    prompts = page.evaluate("[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent)")
    assert prompts == [f"[{n + 1}]:" for n in range(len(prompts))] and len(prompts) > 3
    kept = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    figures = sum("image/png" in output.get("data", {}) for cell in kept for output in cell.get("outputs", []))
    seen = "[...document.querySelectorAll('.jp-Notebook .jp-OutputArea img')].filter(e => e.naturalWidth > 100).length"
    assert page.wait(f"{seen} >= {figures} && {seen}") >= figures > 0
    page.evaluate("document.querySelector('.jp-Notebook .jp-OutputArea img').scrollIntoView()")
    keep_screenshot(page, name.replace("/", "-"))


def test_the_explorers_map_follows_a_slider_and_a_choice(page, lab):
    if page.evaluate("!document.querySelector('.jp-Notebook .widget-image')"):
        run_all(page, lab, "attribution_methods")
    picture = "document.querySelector('.jp-Notebook img.widget-image')"
    control = "[...document.querySelectorAll('.widget-inline-hbox')].find(e => e.textContent.startsWith('{}'))"
    page.wait(f"{picture}?.naturalWidth > 100")
    moved = f"{control.format('image')}.querySelector('.noUi-handle')"
    chosen = f"{control.format('method')}.querySelector('select')"
    before = page.evaluate(f"{moved}.scrollIntoView({{block: 'center'}}), {moved}.focus(), {picture}.src")
    page.press("ArrowRight")
    page.wait(f"{picture}.src != {json.dumps(before)} && {picture}.naturalWidth > 100", 60)
    before = page.evaluate(f"{picture}.src")
    page.evaluate(f"{chosen}.selectedIndex = 1, {chosen}.dispatchEvent(new Event('change', {{bubbles: true}}))")
    page.wait(f"{picture}.src != {json.dumps(before)} && {picture}.naturalWidth > 100", 60)
    assert "explained" in page.evaluate(f"{picture}.parentElement.textContent")
    keep_screenshot(page, "explorer")


def test_the_reports_pictures_are_there_and_its_links_lead_somewhere(page, tmp_path):
    shutil.copytree(NOTEBOOKS / "results", tmp_path / "results")
    environment = os.environ | {"ATTRAIN_RESULTS": str(tmp_path / "results")}
    subprocess.run([sys.executable, "-m", "studies.pages"], env=environment, check=True, capture_output=True)
    report = (tmp_path / "results" / "report.html").as_uri()
    page.goto(report)
    assert page.evaluate("document.title") and page.evaluate("document.querySelectorAll('table').length") > 0
    assert page.evaluate("[...document.images].every(e => e.naturalWidth > 0)")
    keep_screenshot(page, "report")
    links = page.evaluate("[...document.querySelectorAll('a[href]')].map(e => e.getAttribute('href'))")
    inside = {link for link in links if link.startswith("#")}
    assert inside and all(page.evaluate(f"!!document.getElementById({link[1:]!r})") for link in inside)
    first = next(link for link in links if link.startswith("#") and link != "#results")
    page.click(f"document.querySelector('a[href={json.dumps(first)}]')")
    page.wait(f"location.hash == {json.dumps(first)}")
    for link in {link for link in links if not link.startswith(("#", "http"))}:
        page.goto(report.rpartition("/")[0] + "/" + link)
        assert page.evaluate("document.body.textContent.length") > 0
