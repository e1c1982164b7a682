"""The parts of a picture: one input with the maps of several methods, by what it is."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from attrain.drawing import images, sequences
from attrain.drawing.style import limit, side_label

# The mean and standard deviation of each channel by which photos are commonly normalised.
NORMALISED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5,), (0.5,)),  # [−1, 1]
}
WIDE = 88  # characters in a line of tokens


class Panel(NamedTuple):
    """A part of the picture: its size in inches, what draws it on a figure or a part of one, and as HTML or ""."""

    size: tuple[float, float]
    draw: Callable[[Any], None]
    html: str = ""


class Maps(NamedTuple):
    """Of one input: its values (N, …), method -> maps (N, …), a label a sample, and whether methods share a scale."""

    x: np.ndarray
    of: dict[str, np.ndarray]
    labels: Sequence[str]
    shared: bool

    def limits(self, sample: int) -> dict[str, float]:
        """method -> what is drawn darkest of this sample."""
        own = {name: limit(maps[sample]) for name, maps in self.of.items()}
        return dict.fromkeys(own, max(own.values())) if self.shared else own


def array(value: Any, name: str) -> np.ndarray:
    """A tensor (of any device, with a graph or without) or an array as an array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, np.ndarray):
        return value
    photo = " of a photo make one with torchvision.transforms.functional.to_tensor(photo)[None]"
    hint = photo if hasattr(value, "convert") and hasattr(value, "size") else ""
    raise TypeError(f"{name} must be a tensor (or an array), got {type(value).__name__}{';' + hint if hint else ''}")


# ---------------------------------------------------------------- images


def _photos(x: np.ndarray, normalised: Any) -> np.ndarray:
    """(N, C, H, W) in [0, 1]; of other than 1 or 3 channels their mean."""
    if x.dtype == np.uint8:
        return x / 255
    if normalised is None:
        low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
        fits = (low >= -1e-3) & (high <= 1 + 1e-3)
        x = np.where(fits, x, (x - low) / np.where(high > low, high - low, 1))
    else:
        mean, std = (np.reshape(part, (-1, 1, 1)) for part in _mean_std(normalised))
        if not {len(mean), len(std)} <= {1, x.shape[1]}:
            raise ValueError(f"normalised has {len(mean)} means and {len(std)} deviations for {x.shape[1]} channels")
        x = x * std + mean
    return np.clip(x if x.shape[1] in (1, 3) else x.mean(1, keepdims=True), 0, 1)


def _mean_std(normalised: Any) -> tuple:
    if isinstance(normalised, str):
        if normalised not in NORMALISED:
            raise ValueError(f"normalised must be one of {', '.join(NORMALISED)} or (mean, std), got {normalised!r}")
        return NORMALISED[normalised]
    if hasattr(normalised, "mean") and hasattr(normalised, "std") and not isinstance(normalised, (Tensor, np.ndarray)):
        return normalised.mean, normalised.std
    if not isinstance(normalised, (tuple, list)) or len(normalised) != 2:
        raise ValueError(f"normalised must be one of {', '.join(NORMALISED)} or (mean, std), got {normalised!r}")
    return tuple(normalised)


def _image_panel(maps: Maps, size: float | None, normalised: Any, boxes: Any, mask: Any, **_: Any) -> Panel:
    photos, (n, _, height, width) = _photos(maps.x, normalised), maps.x.shape
    size = size or (2.2 if n == 1 else 1.3)
    edges = (size * width / max(width, height), size * height / max(width, height))
    names = list(maps.of)
    grid = images.Grid(maps.labels, 1 + len(names), edges, ["input", *names] if any(names) else (), 0.8, 0.17)
    inside = None if mask is None else array(mask, "mask").reshape(-1, *np.shape(mask)[-2:])
    places = None if boxes is None else array(boxes, "boxes").reshape(n, -1, 4)
    if inside is not None and inside.shape != (n, height, width):
        raise ValueError(f"mask must be (N, H, W) = {(n, height, width)}, got {np.shape(mask)}")

    def draw(figure: Any) -> None:
        axes = grid.axes(figure)
        for i, row in enumerate(axes):
            images.draw_image(row[0], photos[i])
            limits = maps.limits(i)
            for axis, name in zip(row[1:], names):
                images.draw_over(axis, photos[i], maps.of[name][i] / limits[name])
                axis.set_xlabel(f"±{limits[name]:.2g}", fontsize=7, labelpad=2, color="0.4")
            for axis in row:
                _mark(axis, None if inside is None else inside[i], () if places is None else places[i])
        wide, high = (edge / figure.dpi for edge in figure.bbox.size)
        left = grid.left + grid.columns * grid.column + 0.1
        images.draw_bar(
            figure, (left / wide, 1 - (grid.top + edges[1]) / high, 0.08 / wide, edges[1] * 0.96 / high), over=True
        )

    return Panel(grid.size, draw)


def _mark(axis: Any, inside: np.ndarray | None, boxes: Sequence[np.ndarray]) -> None:
    """The outline of a mask, and boxes, in black on white, to be seen on any photo."""
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 2.2), ("black", 1.0)):
        if inside is not None and inside.any() and not inside.all():
            axis.contour(inside.astype(float), levels=[0.5], colors=colour, linewidths=width)
        for left, top, right, bottom in (box for box in boxes if (box >= 0).all()):
            corner = (left - 0.5, top - 0.5)
            axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, color=colour, linewidth=width))


# ---------------------------------------------------------------- sequences


def _token_panel(maps: Maps, size: float | None, tokens: Any, **_: Any) -> Panel:
    width, rows, html = int((size or WIDE * sequences.LETTER) / sequences.LETTER), [], []
    for i, ids in enumerate(maps.x):
        words = _words(tokens, ids, i, len(maps.x))
        limits = maps.limits(i)
        for name, values in maps.of.items():
            label = ": ".join(part for part in (maps.labels[i], name) if part)
            scaled = values[i] / limits[name]
            for line in sequences.lines_of(words, width):
                rows.append((label if line.start == 0 else "", words[line], scaled[line]))
            html.append(sequences.words_as_html(label, words, values[i], limits[name]))
    beside = 0.068 * max(len(label) for label, *_ in rows) + 0.2
    wide = max(sum(len(word) + 2 for word in words) for _, words, _ in rows)

    def draw(figure: Any) -> None:
        axis = figure.add_axes((0, 0, 1, 1))
        inches = figure.bbox.width / figure.dpi
        axis.set(xlim=(-beside / sequences.LETTER, (inches - beside) / sequences.LETTER))
        axis.set(ylim=(len(rows) - 0.4, -0.6))
        axis.axis("off")
        for y, (label, words, values) in enumerate(rows):
            axis.text(-1, y, label, ha="right", va="center", fontsize=8)
            sequences.draw_words(axis, y, words, values)

    return Panel((beside + wide * sequences.LETTER, 0.3 * len(rows) + 0.1), draw, "".join(html))


def _words(tokens: Any, ids: np.ndarray, sample: int, samples: int) -> list[str]:
    """The words of a sample, one for each id."""
    if tokens is None:
        return [str(i) for i in ids.tolist()]
    if callable(tokens):
        words = list(tokens(ids.tolist()))
    elif samples == 1 and all(isinstance(word, str) for word in tokens):
        words = list(tokens)
    else:
        words = list(tokens[sample]) if len(tokens) == samples else []
    if len(words) != len(ids) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"tokens must be {len(ids)} words for each of the {samples} samples, got {len(words)}")
    return words


def _lines_panel(maps: Maps, size: float | None, high: float, draw_one: Callable, labels: tuple[str, str]) -> Panel:
    """A line for each sample and method, one below the other, all over one axis."""
    rows = [(i, name) for i in range(len(maps.x)) for name in maps.of]

    def draw(figure: Any) -> None:
        axes = np.ravel(figure.subplots(len(rows), 1, sharex=True, squeeze=False))
        for axis, (i, name) in zip(axes, rows):
            draw_one(axis, maps.x[i], maps.of[name][i], maps.limits(i)[name])
            side_label(axis, "\n".join(part for part in (maps.labels[i], name) if part) or labels[1])
            axis.tick_params(labelsize=7)
        axes[-1].set_xlabel(labels[0])

    return Panel((size or 9.5, high * len(rows) + 0.6), draw)


def _dna_panel(maps: Maps, size: float | None, **_: Any) -> Panel:
    def one(axis: Any, x: np.ndarray, values: np.ndarray, most: float) -> None:
        sequences.draw_letters(axis, x * values[np.arange(x.shape[1]) * len(values) // x.shape[1]])
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.set_xlim(-0.6, x.shape[1] - 0.4)

    return _lines_panel(maps, size, 0.9, one, ("position", "relevance"))


def _series_panel(maps: Maps, size: float | None, **_: Any) -> Panel:
    def one(axis: Any, x: np.ndarray, values: np.ndarray, most: float) -> None:
        for channel, of_channel in zip(x, np.broadcast_to(values, (len(x), values.shape[-1]))):
            sequences.draw_series(axis, channel, of_channel / most)

    return _lines_panel(maps, size, 1.3, one, ("time", "value"))


def _feature_panel(maps: Maps, size: float | None, tokens: Any, **_: Any) -> Panel:
    """Bars: a row of panels for each sample, a column for each method."""
    samples, count = maps.x.shape
    names = list(tokens) if tokens is not None and not callable(tokens) else [f"{i}" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"tokens must be the names of the {count} features, got {len(names)}")

    def draw(figure: Any) -> None:
        axes = figure.subplots(samples, len(maps.of), sharey=True, squeeze=False)
        for axis, (i, name) in zip(axes.flat, product(range(samples), maps.of)):
            sequences.draw_bars(axis, names, maps.of[name][i])
            axis.set_title("\n".join(part for part in (maps.labels[i], "" if i else name) if part), fontsize=9)
        for axis in axes[-1]:
            axis.set_xlabel("relevance")

    return Panel((size or 2.6 * len(maps.of) + 1, samples * (0.22 * count + 0.6) + 0.4), draw)


PANELS: dict[str, Callable[..., Panel]] = {
    "image": _image_panel, "tokens": _token_panel, "dna": _dna_panel, "series": _series_panel,
    "features": _feature_panel,
}  # fmt: skip
LAID_OUT = ("dna", "series", "features")  # whose axes have labels, for which matplotlib makes room
