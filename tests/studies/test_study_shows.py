"""What a study shows in its notebook: pictures, tables, progress, and links to what it has written."""

import io
import re
from urllib.parse import unquote

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from studies.files import ROOT
from studies.pictures import captions
from studies.study import Study, progress

TYPES = {"scale": str, "seed": int, "seeds": int, "device": str, "threads": int, "out": str}
VALUES = {"scale": "smoke", "seed": 3, "seeds": 2, "device": "cpu", "threads": 1, "out": ""}


def namespace(**changes):
    return {"__annotations__": TYPES, "In": ["", "defaults", "study"], **VALUES, **changes}


def run(seed):
    return {"metrics": {"x": seed + 0.5}}


def test_the_table_of_claims_shows_long_sentences_whole_and_on_the_left(results):
    current = Study("isnet/x", namespace())
    current.claim("isnet-5", [0.7, 0.8])
    page = current.claims_table().to_html()
    assert current.claims[0]["claim"] in page and len(current.claims[0]["claim"]) > 50 and "text-align: left" in page


def test_a_study_ends_with_links_to_what_it_has_written_and_to_the_results_page(results, monkeypatch):
    for out, folder in (("", ROOT / "notebooks/isnet"), (str(results / "mine"), results / "mine")):
        monkeypatch.chdir(ROOT / "notebooks/isnet")  # where Jupyter runs it; papermill leaves the notebook in `out`
        current = Study("isnet/x", namespace(out=out))
        current.figure(plt.figure(), "two words", "Nothing.", "Nothing")
        links = re.findall(
            r"\[([^]]+)\]\(([^)]+)\)", current.finish([current.seed(s, run) for s in current.seeds]).data
        )
        assert [words for words, _ in links] == ["the record", "two words", "one page", "results"]
        there = {words: (folder / unquote(link)).resolve() for words, link in links}
        assert there["one page"] == (results / "report.html").resolve()
        assert all(file.is_file() for words, file in there.items() if words != "one page")


def test_a_figure_is_shown_once_with_its_caption_and_its_alternative_text(results, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    current = Study("isnet/x", namespace())
    current.figure(plt.figure(), "nothing", "Look: *nothing*.", "An empty figure")
    closed = plt.figure()
    plt.close(closed)
    current.figure(closed, "closed", "Sliders stand in its place.", "An empty figure")
    picture, caption = shown
    assert picture.alt == "An empty figure" and caption.data == "*Look: *nothing*.*"


def test_progress_is_told_on_stdout_as_it_is_no_error(capsys):
    with progress(2, "epochs") as bar:
        bar.update(2)
    out, err = capsys.readouterr()
    assert "epochs: 100%" in out and not err


def test_a_kept_figure_has_its_colours_and_fewer_bytes():
    ramp = np.linspace(-1, 1, 4096).reshape(64, 64)
    figure, axis = plt.subplots(figsize=(4, 4))
    axis.imshow(ramp, cmap="RdBu_r")
    full, small = io.BytesIO(), captions.png(figure)
    figure.savefig(full, dpi=captions.DOTS, bbox_inches="tight")
    plt.close(figure)
    drawn, kept = (np.asarray(Image.open(file).convert("RGB"), int) for file in (full, io.BytesIO(small)))
    assert np.abs(drawn - kept).max() <= 16 and (kept[0, 0] == 255).all()
    assert len(small) < 0.7 * len(full.getvalue())
