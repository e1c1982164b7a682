"""One call to a picture: what is drawn, from every form of input, and how a notebook shows it."""

import io
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.collections import LineCollection
from PIL import Image
from torch import nn

from attrain import AttnLRP, Explanation, Gradient, InputXGradient, explain, show
from attrain.drawing.panels import NORMALISED
from attrain.drawing.style import limit


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def shown(figure) -> list[np.ndarray]:
    """What images show, in order: photos, and of each map first the photo below it and then its colours."""
    return [np.asarray(image.get_array()) for axis in figure.axes for image in axis.images]


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_matplotlib_is_loaded_by_show_and_not_before():
    code = """
import sys, torch, attrain
assert not any(name.startswith("matplotlib") for name in sys.modules), "by the import"
attrain.show(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
assert "matplotlib.pyplot" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("normalised", "mean", "std"),
    [
        ("imagenet", *NORMALISED["imagenet"]),
        (((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
        (0.5, None, None),
        ((0.5, 0.25), (0.5,), (0.25,)),
        (type("transforms", (), {"mean": [0.5], "std": [0.2]})(), (0.5,), (0.2,)),
    ],
)
def test_a_photo_is_shown_as_it_was_before_it_was_normalised(normalised, mean, std):
    photo = torch.rand(2, 3, 6, 5)
    if mean is None:
        with pytest.raises(ValueError, match="normalised must be one of imagenet, clip, half or"):
            show(photo, photo, normalised=normalised)
        return
    x = (photo - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    pictures = shown(show(x, random(2, 3, 6, 5), normalised=normalised))
    assert np.allclose(pictures[0], photo[0].permute(1, 2, 0), atol=1e-6)
    assert np.allclose(pictures[3], photo[1].permute(1, 2, 0), atol=1e-6)


def test_what_is_not_in_0_to_1_is_stretched_and_bytes_are_divided():
    x = random(1, 1, 4, 4)
    assert np.allclose(shown(show(x, x))[0], ((x - x.min()) / (x.max() - x.min()))[0, 0], atol=1e-6)
    assert shown(show(torch.full((1, 3, 4, 4), 51, dtype=torch.uint8), x))[0] == pytest.approx(0.2)


@pytest.mark.parametrize("shape", [(2, 3, 20, 18), (2, 1, 20, 18), (3, 20, 18), (1, 20, 18)])
def test_one_image_and_a_batch_grey_and_in_colour(shape):
    figure = show(torch.rand(shape), random(*shape))
    samples = 2 if len(shape) == 4 else 1
    assert len(shown(figure)) == 3 * samples
    assert shown(figure)[0].shape == ((20, 18, 3) if shape[-3] == 3 else (20, 18))


@pytest.mark.parametrize(("shape", "kind"), [((20, 18), "image"), ((5, 20, 18), "image"), ((5, 20, 18), "series")])
def test_a_kind_says_what_the_shape_does_not(shape, kind):
    figure = show(torch.rand(shape), random(*shape), kind=kind)
    assert len(shown(figure)) == (3 * (5 if len(shape) == 3 else 1) if kind == "image" else 0)


def test_red_is_for_blue_against_and_no_colour_where_a_map_is_0():
    heatmap = torch.zeros(1, 1, 2, 3)
    heatmap[0, 0, 0] = torch.tensor([4.0, 0.0, -4.0])
    colours = shown(show(torch.rand(1, 1, 2, 3), heatmap))[2]
    (red, none, blue), alpha = colours[0, :, :3], colours[..., 3]
    assert red[0] > red[2] + 0.4 and blue[2] > blue[0] + 0.4
    assert alpha.tolist() == [[1, 0, 1], [0, 0, 0]] and len(none) == 3


def test_several_methods_stand_side_by_side_on_one_scale_of_colours():
    x, weak = torch.rand(1, 3, 8, 8), random(1, 3, 8, 8)
    figure = show(x, {"weak": weak, "strong": 10 * weak})
    _, _, first, _, second = shown(figure)
    assert np.allclose(first, second), "each by its own size, which stands below it"
    own = limit(weak.sum(1).numpy())
    assert [axis.get_xlabel() for axis in figure.axes[1:3]] == [f"±{own:.2g}", f"±{10 * own:.2g}"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["input", "weak", "strong"]
    _, _, first, _, second = shown(show(x, {"weak": weak, "strong": 10 * weak}, shared=True))
    strong = second[..., 3] < 0.999
    assert np.allclose(10 * first[..., 3][strong], second[..., 3][strong]), "in numbers"


def test_a_coarse_map_covers_the_image_and_k_maps_are_columns():
    figure = show(torch.rand(1, 3, 8, 6), {"layer": random(1, 5, 2, 2), "classes": random(1, 4, 3, 8, 6)})
    extents = {tuple(image.get_extent()) for axis in figure.axes for image in axis.images}
    assert extents == {(-0.5, 5.5, 7.5, -0.5)}
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles == ["input", "layer", *(f"classes, {k}" for k in range(4))]


def test_boxes_and_masks_are_drawn_on_the_image_and_its_maps():
    boxes, mask = torch.tensor([[[1, 2, 4, 6], [-1, -1, -1, -1]]]), torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = 1
    figure = show(torch.rand(1, 3, 8, 8), random(1, 3, 8, 8), boxes=boxes, mask=mask)
    for axis in figure.axes[:2]:
        assert {patch.get_bbox().extents.tolist().__repr__() for patch in axis.patches} == {"[0.5, 1.5, 3.5, 5.5]"}
        outline = axis.collections[0].get_paths()[0].vertices
        assert outline.min() == pytest.approx(1.5) and outline.max() == pytest.approx(5.5)


# ---------------------------------------------------------------- sequences, features, several inputs

WORDS = "do not book <b>this</b> flight".split()


def test_tokens_are_coloured_text_in_a_figure_and_html_in_a_notebook():
    reader = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2))
    ids = torch.tensor([[0, 1, 2, 3, 4]])
    found = {"AttnLRP": explain(reader, ids, 1, AttnLRP(), layers="0"), "gradient": random(1, 5)}
    figure = show(ids, found, tokens=WORDS, labels=["flight"])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["flight: AttnLRP", *WORDS, "flight: gradient", *WORDS]
    values = found["AttnLRP"].layers["0"].sum(-1)[0]
    for text, value in zip(figure.axes[0].texts[1:6], values):
        red, _, blue, _ = text.get_bbox_patch().get_facecolor()
        assert (red > blue) == (value > 0)
    html = displayed(figure)["text/html"]
    assert html.count('<span style="background') == 10 and "&lt;b&gt;this&lt;/b&gt;" in html and "color:#000" in html


def test_tokens_come_from_a_tokenizer_or_a_list_a_sample_and_by_default_are_ids():
    ids = torch.tensor([[5, 6], [7, 8]])
    words = lambda figure: [text.get_text() for text in figure.axes[0].texts if text.get_text()]  # noqa: E731
    assert words(show(ids, random(2, 2))) == ["5", "6", "7", "8"]
    assert words(show(ids, random(2, 2, 3), tokens=[["a", "b"], ["c", "d"]])) == ["a", "b", "c", "d"]
    assert words(show(ids, random(2, 2, 3), tokens=lambda row: [f"w{i}" for i in row])) == ["w5", "w6", "w7", "w8"]
    with pytest.raises(ValueError, match=r"tokens must be 2 words for each of the 2 samples"):
        show(ids, random(2, 2), tokens=["a", "b", "c"])


def test_long_texts_are_broken_into_lines():
    figure = show(torch.arange(60)[None], random(1, 60), tokens=["word"] * 60)
    assert len({text.get_position()[1] for text in figure.axes[0].texts}) > 3
    right = max(text.get_bbox_patch().get_window_extent().x1 for text in figure.axes[0].texts if text.get_text())
    assert right <= figure.bbox.x1


def test_dna_is_letters_as_tall_as_the_relevance_of_their_position():
    x = F.one_hot(torch.tensor([[0, 3, 1, 2]]), 4).movedim(-1, 1).float()
    heights = torch.tensor([1.0, -2.0, 3.0, 0.5])
    (axis,) = show(x, x * heights).axes
    boxes = [patch.get_path().get_extents() for patch in axis.patches]  # A, C, G, T
    assert [(round(b.y0, 3), round(b.y1, 3)) for b in boxes] == [(0, 1), (0, 3), (0, 0.5), (-2, 0)]


def test_a_series_is_a_line_with_the_colour_of_its_relevance():
    x, heatmap = random(1, 2, 30), random(1, 2, 30)
    (axis,) = show(x, heatmap, labels=["ECG"]).axes
    assert [np.allclose(line.get_ydata(), channel) for line, channel in zip(axis.lines, x[0])] == [True, True]
    bands = [c for c in axis.collections if isinstance(c, LineCollection)]
    for band, values in zip(bands, heatmap[0]):
        red = band.get_colors()[:, 0] > band.get_colors()[:, 2]
        assert (red == (values > 0).numpy()).all()
    assert axis.get_ylabel() == "ECG"


def test_features_are_bars_with_their_names():
    heatmap = torch.tensor([[1.0, -2.0, 0.5]])
    (axis,) = show(torch.rand(1, 3), heatmap, tokens=["age", "pulse", "weight"]).axes
    assert [bar.get_width() for bar in axis.patches] == [1.0, -2.0, 0.5]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "age",
        "pulse",
        "weight",
    ] and axis.yaxis_inverted()


@pytest.mark.parametrize("form", [tuple, dict])
def test_several_inputs_stand_one_below_the_other_and_ids_without_a_map_are_left_out(form):
    x = {"photo": torch.rand(1, 3, 8, 8), "age": torch.rand(1, 2), "ids": torch.tensor([[1, 2]])}
    maps = {"photo": random(1, 3, 8, 8), "age": random(1, 2), "ids": None}
    x, maps = (x, maps) if form is dict else (tuple(x.values()), tuple(maps.values()))
    figure = show(x, Explanation(torch.zeros(1, 2), maps, {}, None))
    assert (
        len(figure.subfigs) == 2 and len(shown(figure.subfigs[0])) == 3 and len(figure.subfigs[1].axes[0].patches) == 2
    )
    both = show(x, {"one": maps, "two": maps})
    assert len(shown(both.subfigs[0])) == 5


# ---------------------------------------------------------------- refusals, notebooks


@pytest.mark.parametrize(
    ("x", "heatmap", "options", "message"),
    [
        (torch.rand(2, 3, 8, 8), random(3, 3, 8, 8), {}, r"must be of 2 samples as x, got \(3, 3, 8, 8\)"),
        (torch.rand(40, 3, 8, 8), random(40, 3, 8, 8), {}, r"1 to 32 samples, got 40: give some of them, x\[:8\]"),
        (torch.rand(2, 3, 8, 8), random(2), {}, "goes with no image"),
        (torch.rand(2, 3, 8, 8), random(2, 3, 8, 8), {"kind": "photo"}, "kind must be one of image, tokens"),
        (torch.rand(2, 3, 8, 8), random(2, 3, 8, 8), {"normalised": "mnist"}, "normalised must be one of imagenet"),
        (torch.rand(2, 3, 8, 8), random(2, 3, 8, 8), {"labels": ["a"]}, "labels must be one for each of the 2 samples"),
        (torch.rand(2, 3, 8, 8), random(2, 3, 8, 8), {"mask": torch.zeros(2, 4, 4)}, "mask must be"),
        (torch.rand(2, 3, 8, 8), {}, {}, "empty dict"),
        (torch.ones(2, 4, dtype=torch.long), random(2, 5), {}, "goes with no tokens"),
        (torch.rand(1, 1, 1, 8, 8), random(1, 1, 1, 8, 8), {}, "is no image"),
        ((torch.ones(1, 4, dtype=torch.long),), (None,), {}, "that of token ids is at the layer that embeds them"),
        (
            torch.rand(2, 3, 8, 8),
            Explanation(torch.zeros(2), random(2, 3, 8, 8), {}, None),
            {"layer": "a"},
            "no map at",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(x, heatmap, options, message):
    with pytest.raises(ValueError, match=message):
        show(x, heatmap, **options)


def test_what_is_no_tensor_is_refused_by_its_type():
    with pytest.raises(TypeError, match=r"x must be a tensor .*, got list"):
        show([[1.0]], torch.rand(1, 1))
    with pytest.raises(TypeError, match=r"heatmap must be a tensor .*, got NoneType"):
        show(torch.rand(1, 3, 8, 8), None)


def displayed(figure) -> dict:
    """What a notebook gets of it."""
    shell = InteractiveShell.instance()
    try:
        shell.display_pub = CapturingDisplayPublisher()
        figure._ipython_display_()
        (output,) = shell.display_pub.outputs
    finally:
        InteractiveShell.clear_instance()
    return output["data"]


def test_a_notebook_shows_a_picture_once():
    figure = show(torch.rand(1, 3, 8, 8), random(1, 3, 8, 8))
    assert displayed(figure)["image/png"][:4] == b"\x89PNG"
    assert figure.number not in plt.get_fignums(), "else it is shown again at the end of the cell"


def test_a_small_patch_of_another_colour_keeps_it_in_a_notebook():
    photo = torch.rand(1, 3, 1, 1).expand(1, 3, 60, 60) + 0.02 * random(1, 3, 60, 60)
    photo[0, :, 28:32, 28:32] = torch.tensor([0.1, 0.9, 0.2]).view(3, 1, 1)
    figure = show(photo.clamp(0, 1), random(1, 3, 60, 60))
    box = figure.axes[0].get_window_extent()
    with Image.open(io.BytesIO(displayed(figure)["image/png"])) as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)
    row, column = shown.shape[0] - int((box.y0 + box.y1) / 2), int((box.x0 + box.x1) / 2)
    assert np.abs(shown[row - 2 : row + 2, column - 2 : column + 2].mean((0, 1)) - [26, 230, 51]).max() < 25


def test_figures_are_white_with_black_letters_on_a_dark_theme():
    with plt.style.context("dark_background"):
        figure = show(torch.rand(1, 2), random(1, 2))
    assert figure.get_facecolor() == (1, 1, 1, 1) and figure.axes[0].xaxis.label.get_color() == "black"


def test_no_setting_of_matplotlib_turns_or_breaks_a_picture():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0] = 1
    with plt.rc_context({"image.origin": "lower", "axes.facecolor": "black", "figure.dpi": 300}):
        axis = show(x, x, labels=["costs $5$ and $"]).axes[0]
    assert axis.yaxis_inverted(), "the first row on top"
    axis.figure.draw_without_rendering()
    assert axis.get_ylabel() == "costs $5$ and $"


# ---------------------------------------------------------------- an explanation by itself


@pytest.mark.parametrize("x", [torch.rand(2, 3, 8, 8), torch.rand(2, 4, 30), torch.rand(2, 5)])
def test_an_explanation_shows_its_shapes_and_maps(x):
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))
    html = explain(model, x, "all", InputXGradient(), layers="0")._repr_html_()
    assert "data:image/png;base64," in html and f"<td>{(2, 3, *x.shape[1:])}</td>" in html and 'alt="' in html


def test_an_explanation_of_several_inputs_shows_those_that_have_a_map():
    both = lambda a, ids: a.sum((1, 2, 3))[:, None] + ids.float().mean(1, keepdim=True)  # noqa: E731
    found = explain(both, {"a": torch.rand(2, 1, 4, 4), "ids": torch.ones(2, 3, dtype=torch.long)}, 0, Gradient())
    assert "data:image/png" in found._repr_html_() and "'ids': None" in found._repr_html_().replace("&#x27;", "'")


def test_without_matplotlib_an_explanation_still_shows_its_shapes(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib.textpath", None)
    html = Explanation(torch.zeros(1, 2), random(1, 3, 8, 8), {}, None)._repr_html_()
    assert "(1, 3, 8, 8)" in html and "<img" not in html
