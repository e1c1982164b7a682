"""One call from an input and its map to a picture; matplotlib is imported when it is called."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from attrain.drawing.panels import LAID_OUT, PANELS, Maps, array
from attrain.drawing.style import small_png, styled
from attrain.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("image", "tokens", "dna", "series", "features")
MOST = 32  # samples in one picture


def show(
    x: Any, heatmap: Any, *, normalised: Any = None, tokens: Any = None, kind: str | None = None,
    boxes: Any = None, mask: Any = None, labels: Sequence[str] = (), layer: str = "", shared: bool = False,
    size: float | None = None,
) -> "Figure":  # fmt: skip
    """Draw maps over photos, as coloured tokens, DNA letters, coloured lines or bars: red is for, blue against.

    A row is a sample, a column a method. All maps have one scale of colours, from −1 to 1: each is divided by the
    99.5th percentile of its own |R|, which stands below it as ±…, for the size of relevance means nothing across
    methods; or with `shared` by the largest of its row.

    Args:
        x: what was explained: a tensor, or a tuple or dict of tensors. Read as
            - image: (N, C, H, W), (N, H, W) with kind="image", or alone (H, W) with kind="image", (1, H, W), (3, H, W);
            - tokens: whole numbers (N, L), or (L,);
            - dna: one-hot (N, 4, L) in the order A, C, G, T;
            - series: any other (N, C, L);
            - features: (N, F).
        heatmap: `explain`'s map of x, an `Explanation`, or a dict of them by the name of their method. (N, …) or, of K
            maps a sample, (N, K, …): each is a column. Channels are summed; a map of a layer may be coarser than x;
            tokens take (N, L) or, at their embeddings, (N, L, D).
        normalised: what was done to a photo, to be undone: "imagenet", "clip", "half" ([−1, 1]), (mean, std), or
            what has them, as `weights.transforms()` of torchvision. None: x is in [0, 1], or uint8 in 0..255; what is
            neither is stretched between its own smallest and largest value.
        tokens: words in the place of ids: a list (of one sample), a list of lists, or a function of a list of ids, as
            a tokenizer's `convert_ids_to_tokens`; of features their names.
        kind: "image", "tokens", "dna", "series" or "features", where the shape says something else.
        boxes: (N, B, 4) xmin, ymin, xmax, ymax in pixels, −1 for none, drawn on images.
        mask: (N, H, W), 1 = foreground, whose outline is drawn on images.
        labels: one a sample, as the class that was explained.
        layer: of Explanations, the layer whose map is drawn; that of token ids is found if there is one only.
        shared: one scale in numbers for all maps of a sample.
        size: inches of an image's longer edge, or of the width of letters and lines.

    Returns:
        the figure, as matplotlib's pyplot makes it. A notebook shows it once, tokens there as HTML.

    Raises:
        TypeError, ValueError: shapes that do not fit, more than 32 samples, an unknown kind or preset.

    Example:
        >>> import torch
        >>> x, heatmap, coarse = torch.rand(2, 3, 32, 32), torch.randn(2, 3, 32, 32), torch.rand(2, 9, 4, 4)
        >>> figure = show(x, {"gradient": heatmap, "at a layer": coarse}, labels=["cat", "dog"])
        >>> figure.savefig("maps.png")  # doctest: +SKIP
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, or None, got {kind!r}")
    if isinstance(x, Explanation):
        raise TypeError("x must be what was explained, got an Explanation: show(x, explanation)")
    if isinstance(labels, str):
        raise TypeError(f"labels must be a list of one text a sample, got {labels!r}")
    several = isinstance(x, (tuple, dict))
    methods = _methods(x, heatmap, layer)
    keys = list(x) if isinstance(x, dict) else list(range(len(x))) if isinstance(x, tuple) else [None]
    with styled() as plt:
        panels, kinds = [], []
        for key in keys:
            part = x if key is None else x[key]
            found = {name: m if key is None else _part(m, key) for name, m in methods.items()}
            if several and all(value is None for value in found.values()):
                continue  # whole numbers beside what has a map
            what = kind or _kind(part)
            kinds.append(what)
            maps = _maps(part, found, what, labels, shared)
            panels.append(PANELS[what](maps, size, normalised=normalised, tokens=tokens, boxes=boxes, mask=mask))
        if not panels:
            raise ValueError("there is no map to show: that of token ids is at the layer that embeds them, layers=(…,)")
        width, height = max(p.size[0] for p in panels), sum(p.size[1] for p in panels)
        laid_out = panels[1:] or any(what in LAID_OUT for what in kinds)
        figure = plt.figure(figsize=(width, height), layout="constrained" if laid_out else None)
        places = figure.subfigures(len(panels), 1, height_ratios=[p.size[1] for p in panels]) if panels[1:] else figure
        for place, panel in zip(np.ravel(places), panels):
            panel.draw(place)
    html = "".join(panel.html for panel in panels) if all(panel.html for panel in panels) else ""
    figure._ipython_display_ = partial(_display, figure, html)
    return figure


def _display(figure: Any, html: str) -> None:
    """In a notebook, once: pyplot's own display at the end of a cell comes here too."""
    import io

    import matplotlib.pyplot as plt
    from IPython.display import display

    plt.close(figure)
    bundle: dict[str, Any] = {"text/plain": repr(figure)}
    if html:
        bundle["text/html"] = html
    else:
        figure.savefig(drawn := io.BytesIO(), format="png", dpi=100)
        bundle["image/png"] = small_png(drawn, dithered=True)
    display(bundle, raw=True)


# ---------------------------------------------------------------- what is given


def _methods(x: Any, heatmap: Any, layer: str) -> dict[str, Any]:
    """Maps of x's form by the name of their method, "" if it has none."""
    if isinstance(heatmap, list):
        raise TypeError(
            "heatmap must be a map, an Explanation, or a dict of them by the name of their method, got a list"
        )
    named = isinstance(heatmap, Mapping) and not (isinstance(x, dict) and set(heatmap) <= set(x))
    if named and not heatmap:
        raise ValueError("heatmap is an empty dict: there is no map to show")
    return {str(name): _read(m, layer) for name, m in (heatmap.items() if named else [("", heatmap)])}


def _read(found: Any, layer: str) -> Any:
    if not isinstance(found, Explanation):
        if layer:
            raise TypeError(f"layer={layer!r} is looked up in an Explanation, got a map of type {type(found).__name__}")
        return found
    if layer and layer not in found.layers:
        raise ValueError(
            f"the explanation has no map at {layer!r}; it has {', '.join(found.layers) or 'none at layers'}"
        )
    if layer or (found.heatmap is None and len(found.layers) == 1):
        return found.layers[layer or next(iter(found.layers))]
    return found.heatmap


def _called(name: str) -> str:
    return f"the map {name!r}" if name else "heatmap"


def _part(maps: Any, key: Any) -> Any:
    if not isinstance(maps, (tuple, list, dict)):
        raise TypeError(f"x has several inputs, and so must have its map; got a map of type {type(maps).__name__}")
    return maps[key]


def _kind(x: Any) -> str:
    x = array(x, "x")
    floating = np.issubdtype(x.dtype, np.floating)
    if not floating and x.dtype != np.uint8 and x.ndim <= 2:
        return "tokens"
    if x.ndim == 4 or (x.ndim == 3 and len(x) in (1, 3) and min(x.shape[1:]) >= 16):
        return "image"
    if x.ndim == 3:
        return "dna" if x.shape[1] == 4 and ((x == 0) | (x == 1)).all() and (x.sum(1) == 1).all() else "series"
    if x.ndim <= 2:
        return "features"
    raise ValueError(f"x of shape {x.shape} is no image (N, C, H, W), series (N, C, L), tokens or features (N, F)")


BATCHED = {"image": 4, "tokens": 2, "dna": 3, "series": 3, "features": 2}  # dimensions of (N, …)


def _maps(x: Any, methods: dict[str, Any], kind: str, labels: Sequence[str], shared: bool) -> Maps:
    """Everything as arrays with N, and maps summed over channels, one column for each of K maps a sample."""
    x, dims = array(x, "x"), BATCHED[kind]
    if kind == "image" and x.ndim == 3 and len(x) not in (1, 3):
        x = x[:, None]  # (N, H, W)
    alone = x.ndim < dims
    while x.ndim < dims:
        x = x[None]
    if x.ndim != dims:
        raise ValueError(f"x of kind {kind!r} must have {dims} dimensions, (N, …), got {x.shape}")
    if len(x) > MOST or not len(x):
        raise ValueError(f"a picture has 1 to {MOST} samples, got {len(x)}: give some of them, x[:8] and heatmap[:8]")
    if kind == "image" and x.shape[-1] in (1, 3) and x.shape[1] > 4:
        raise ValueError(f"x must be images (N, C, H, W), channels second, got {x.shape}: x.transpose(0, 3, 1, 2)")
    if labels and len(labels) != len(x):
        raise ValueError(f"labels must be one for each of the {len(x)} samples, got {len(labels)}")
    columns: dict[str, np.ndarray] = {}
    for name, given in methods.items():
        values = array(given, _called(name)).astype(float)
        if alone and len(values) != 1:
            values = values[None]
        if len(values) != len(x):
            raise ValueError(f"{_called(name)} must be of {len(x)} samples as x, got {values.shape}")
        columns |= _summed(name, values, kind, x)
    return Maps(x, columns, labels or [""] * len(x), shared)


def _summed(name: str, values: np.ndarray, kind: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """One map, or each of K, by name; without channels (series keep their own), without a token's dimensions."""
    places = 2 if kind == "image" else 1  # (h, w), or (l,)
    length, given = x.shape[1], values.shape
    if kind == "series" and values.shape[-2:-1] == x.shape[1:2] and values.ndim > 2:
        places = 2  # channel by channel
    elif kind == "tokens" and values.ndim > 2 and values.shape[-2] == length:
        values = values.sum(-1)
    elif kind in ("image", "dna", "series") and values.ndim > 1 + places:
        values = values.sum(-1 - places)
    several = values.ndim - 1 - places
    if several not in (0, 1) or (kind in ("tokens", "features") and values.shape[-1] != length):
        raise ValueError(f"{_called(name)} has the shape {given}, which goes with no {kind} of shape {x.shape}")
    if not several:
        return {name: values}
    return {f"{name}, {k}".removeprefix(", "): values[:, k] for k in range(values.shape[1])}
