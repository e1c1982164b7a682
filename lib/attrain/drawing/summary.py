"""What a notebook shows of an explanation: its shapes and, where matplotlib is installed, its maps by themselves."""

import io
from base64 import b64encode
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from attrain.drawing.images import Grid, draw_map, plane
from attrain.drawing.style import limit, styled

MOST = 8  # maps in a row


def as_html(parts: Mapping[str, Any], shapes: Mapping[str, str]) -> str:
    """HTML of the shapes by name, and of named maps, arrays (N, …): a row each, of the first samples."""
    rows = "".join(f"<tr><td><b>{escape(k)}</b></td><td>{escape(text)}</td></tr>" for k, text in shapes.items())
    drawn = {name: tiles for name, value in parts.items() if (tiles := _tiles(np.asarray(value)))}
    picture = ""
    if drawn:
        try:
            picture = f'<img alt="the maps: red for, blue against" src="data:image/png;base64,{_png(drawn)}">'
        except ImportError:  # matplotlib is an extra
            picture = ""
    return f"<table>{rows}</table>{picture}"


def _tiles(maps: np.ndarray) -> list[np.ndarray]:
    """Maps (h, w) of the first samples, all K of each; of sequences and features one with a line for each sample."""
    if maps.size == 0 or maps.ndim < 2:
        return []
    if maps.ndim < 4:
        return [maps.reshape(-1, maps.shape[-1])[: 4 * MOST]]
    return [plane(one) for one in maps.reshape(-1, *maps.shape[-3:])[:MOST]]


def _png(rows: Mapping[str, list[np.ndarray]]) -> str:
    with styled() as plt:
        grid = Grid(list(rows), max(map(len, rows.values())), (1.2, 1.2))
        figure = plt.figure(figsize=grid.size)
        for axes, tiles in zip(grid.axes(figure), rows.values()):
            for axis, tile in zip(axes, tiles):
                draw_map(axis, tile / limit(tile), tile.shape)
                axis.set_aspect("auto" if tile.shape[0] * 4 < tile.shape[1] else "equal")
        figure.savefig(file := io.BytesIO(), format="png", dpi=90)
        plt.close(figure)
    return b64encode(file.getvalue()).decode()
