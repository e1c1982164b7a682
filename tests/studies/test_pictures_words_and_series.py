from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest

from studies.pictures.charts import sentence_rows, series_columns


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_words_stand_in_order_on_the_colour_of_their_value():
    rows = [("a: p = 0.9", ["do", "not", "book"], [0.0, 1.0, -1.0], "relevance"), ("b", ["x"], [0.5], "change")]
    figure = sentence_rows(rows)
    texts = figure.axes[0].texts
    assert [t.get_text() for t in texts] == ["a: p = 0.9", "do", "not", "book", "b", "x"]
    none, red, blue = (t.get_bbox_patch().get_facecolor() for t in texts[1:4])
    assert min(none[:3]) > 0.95 and red[0] > red[2] + 0.3 and blue[2] > blue[0] + 0.3
    orange = texts[5].get_bbox_patch().get_facecolor()
    assert orange[0] > orange[1] > orange[2]


def test_words_of_a_row_do_not_overlap():
    words = ["immeasurably", "a", "WWWW", ",", "long"]
    figure = sentence_rows([("label", words, [0.1] * 5, "relevance")])
    figure.canvas.draw()
    boxes = [t.get_bbox_patch().get_window_extent() for t in figure.axes[0].texts[1:]]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert figure.axes[0].texts[0].get_window_extent().x0 >= 0 and boxes[-1].x1 <= figure.bbox.x1


def test_series_stand_above_their_relevance_in_two_colours():
    x, R = np.sin(np.arange(20)), np.linspace(-1, 1, 20)
    figure = series_columns([("one", {"series": x, "challenged": x + 1}, R), ("two", {"series": x}, -R)])
    above, other, below, _ = figure.axes
    assert [line.get_label() for line in above.lines] == ["series", "challenged"] and len(other.lines) == 1
    assert np.allclose([bar.get_height() for bar in below.patches], R)
    assert below.patches[0].get_facecolor()[2] > 0.5 > below.patches[0].get_facecolor()[0]
    assert below.patches[-1].get_facecolor()[0] > 0.5
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["series", "challenged"]
