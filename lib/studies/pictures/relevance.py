"""Pictures of relevance in sentences and in series."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from studies.pictures.charts import COLOURS, STYLE

SHARES = {"relevance": ("RdBu_r", -1.6), "change": ("Oranges", 0.0)}  # map of colours, and what is at its lower end


def sentence_rows(rows: Sequence[tuple[str, Sequence[str], Sequence[float], str]]) -> Figure:
    """Sentences, one a row, each word on the colour of its value.

    Args:
        rows: (label, words, a value a word, what the values are): "relevance", in [−1, 1], red for and blue against;
            "change", in [0, 1], the more the more orange.
    """
    letter, height = 0.087, 0.3  # inches
    beside = 0.068 * max(len(label) for label, *_ in rows) + 0.2
    wide = max(sum(len(word) + 2 for word in words) for _, words, *_ in rows)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(beside + wide * letter, height * len(rows) + 0.1))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set(xlim=(-beside / letter, wide), ylim=(len(rows) - 0.4, -0.6))
        axis.axis("off")
        for y, (label, words, values, kind) in enumerate(rows):
            axis.text(-1, y, label, ha="right", va="center", fontsize=8)
            colours, low = SHARES[kind]
            x = 0.5
            for word, value in zip(words, np.clip(values, -1, 1)):
                colour = plt.get_cmap(colours)((value - low) / (1.6 - low))  # 1.6: the darkest would hide the word
                box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.25"}
                axis.text(x, y, word, va="center", family="monospace", fontsize=9, bbox=box)
                x += len(word) + 2
    return figure


def series_columns(columns: Sequence[tuple[str, Mapping[str, np.ndarray], np.ndarray]], width: float = 3.2) -> Figure:
    """Series side by side, each with the relevance of its values below: red for, blue against.

    Args:
        columns: (title, line's name -> values (L,), relevance (L,)); the first line is black and thick.
        width: of a column in inches.
    """
    with plt.rc_context(STYLE | {"font.size": 9}):
        figure, axes = plt.subplots(
            2, len(columns), figsize=(width * len(columns) + 0.5, 3.2), sharex="col", squeeze=False,
            layout="constrained", height_ratios=(2, 1),
        )  # fmt: skip
        for (title, lines, relevance), (above, below) in zip(columns, axes.T):
            for i, (name, values) in enumerate(lines.items()):
                style = dict(color="black", linewidth=1.8) if i == 0 else dict(color=COLOURS[i], linewidth=1)
                above.plot(np.asarray(values), label=name, **style)
            relevance = np.asarray(relevance)
            below.bar(np.arange(len(relevance)), relevance, 1.0, color=np.where(relevance > 0, "#b2182b", "#2166ac"))
            above.set_title(title, fontsize=9)
            below.set(xlabel="time", yticks=[0], yticklabels=["0"])
        axes[0, 0].set_ylabel("value")
        axes[1, 0].set_ylabel("relevance")
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, ncols=len(names), loc="outside upper right")
    return figure
