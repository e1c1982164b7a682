"""Pictures in other people's settings: their matplotlibrc, their MPLBACKEND, and names with a "$"."""

import io
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
from matplotlib.text import Text

from studies.pictures import charts, learning

NAMES = ["a$b^{$", "Ba$$in", "$5 or $10", "US$", r"\alpha_1", "a_b^c", "50% #1 & {x}", r"\$x\$"]
MEASURED = {"mean": 0.5, "low": 0.4, "high": 0.6}
IMAGES = np.linspace(0, 1, len(NAMES) * 64).reshape(len(NAMES), 1, 8, 8)
GROUPS = {name: {other: MEASURED for other in NAMES} for name in NAMES}
PICTURES = {
    "image_rows": lambda: charts.image_rows(dict.fromkeys(NAMES, IMAGES), NAMES),
    "map_rows": lambda: charts.map_rows(IMAGES, dict.fromkeys(NAMES, IMAGES), titles=NAMES),
    "interval_rows": lambda: charts.interval_rows(GROUPS, NAMES[2]),
    "box_rows": lambda: charts.box_rows({"one": {name: np.arange(5) for name in NAMES}}, NAMES[2]),
    "labelled_paths": lambda: charts.labelled_paths({"one": {name: (1, 2) for name in NAMES}}, NAMES[2], NAMES[0]),
    "log_log": lambda: charts.log_log({"one": {name: {1: [1e-3], 100: [1.0]} for name in NAMES}}, xlabel="x"),
    "curves": lambda: charts.curves({"one": {NAMES[0]: [range(len(NAMES))]}}, x=NAMES),
    "sentence_rows": lambda: charts.sentence_rows([(NAMES[2], NAMES, np.zeros(len(NAMES)), "relevance")]),
    "learning_curves": lambda: learning.learning_curves({"one": {n: {5: MEASURED, 50: MEASURED} for n in NAMES}}),
}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", PICTURES)
def test_names_are_shown_as_they_are_and_powers_of_ten_as_powers(name):
    figure = PICTURES[name]()
    figure.savefig(io.BytesIO())
    found = [text for text in figure.findobj(Text) if text.get_text()]
    shown = [text._preprocess_math(text.get_text()) for text in found]
    assert {text for text, is_formula in shown if not is_formula} >= set(NAMES)
    assert all("mathdefault" in text for text, is_formula in shown if is_formula), "a name is set as a formula"
    assert not any("mathdefault" in text for text, is_formula in shown if not is_formula)


DRAW = (
    "import hashlib, io, sys, numpy as np; from studies.pictures import charts; import matplotlib.pyplot as plt\n"
    "figure = charts.map_rows(np.eye(8)[None], {'one': np.eye(8)[None]}, ['title'])\n"
    "figure.savefig(file := io.BytesIO(), dpi=150); print(hashlib.sha256(file.getvalue()).hexdigest())\n"
    "print(*plt.rcParams['font.sans-serif'][:1])"
)


def test_a_users_matplotlibrc_changes_no_picture_but_its_fonts_are_there(tmp_path):
    settings = "text.usetex: True\nfigure.dpi: 300\nimage.origin: lower\naxes.titlecolor: red\nfont.sans-serif: {}\n"
    found = []
    for content in ("", settings.format("DejaVu Sans"), settings.format("No Such Font, DejaVu Sans")):
        (tmp_path / "matplotlibrc").write_text(content)
        environment = os.environ | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLBACKEND": "agg"}
        run = subprocess.run([sys.executable, "-c", DRAW], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        found.append(run.stdout.split("\n"))
    assert found[0][0] == found[1][0] == found[2][0]
    assert [lines[1] for lines in found] == ["DejaVu Sans", "DejaVu Sans", "No Such Font"]


@pytest.mark.parametrize("backend", ["Agg", "TkAgg", ""])
def test_a_notebook_shows_its_figures_whatever_backend_the_environment_names(backend):
    manager, client = start_new_kernel(env=os.environ | {"MPLBACKEND": backend})
    try:
        shown = []
        code = "from studies.pictures import charts; figure = charts.curves({'a': {'b': [[1, 2]]}})"
        answer = client.execute_interactive(code, output_hook=shown.append, timeout=240)
        assert answer["content"]["status"] == "ok", answer["content"]
        pictures = [message for message in shown if message["msg_type"] == "display_data"]
        assert len(pictures) == 1 and "image/png" in pictures[0]["content"]["data"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
