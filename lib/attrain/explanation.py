"""What `attrain.explain` returns."""

import os
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrain.tensors import mapped


class Explanation(NamedTuple):
    """What `explain` returns.

    Attributes:
        logits: the model's output, (N, C) or (N,), from the same forward pass as the map; of an object its `.logits`;
            of any other output, which only a callable target can read, the explained numbers.
        heatmap: shape of x for one map a sample; (N, K, ...) where the target asks for K maps. Of a tuple or dict of
            inputs the same form, None in the place of whole numbers (token ids), which have no map.
        layers: name of a layer -> map at its output, (N, ...) or (N, K, ...).
        delta: what each map (of several inputs: all of them together) sums to, (N,) or (N, K), where the method has
            that property; else None.

    Example:
        >>> Explanation(torch.zeros(3, 2), torch.zeros(3, 1, 8, 8), {"conv": torch.zeros(3, 4, 6, 6)}, None)
        Explanation(logits=(3, 2), heatmap=(3, 1, 8, 8), layers={'conv': (3, 4, 6, 6)}, delta=None)

    `explanation.save("maps.pt")` keeps it, `Explanation.load("maps.pt")` reads it.
    """

    logits: Tensor
    heatmap: Any  # a tensor for a tensor x, which is the usual case: a union would be in everybody's way
    layers: dict[str, Tensor]
    delta: Tensor | None

    def __repr__(self) -> str:
        """The shapes; print the parts for their numbers."""
        shapes = (f"{name}={mapped(lambda t: tuple(t.shape), part)}" for name, part in self._asdict().items())
        return f"Explanation({', '.join(shapes)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the shapes, and the first maps by themselves; `attrain.show` lays them over x."""
        from attrain.drawing.summary import as_html

        shapes = {name: str(mapped(lambda t: tuple(t.shape), part)) for name, part in self._asdict().items()}
        several = isinstance(self.heatmap, (tuple, dict))
        inputs = self.heatmap if several else (self.heatmap,)
        found = inputs if isinstance(inputs, dict) else dict(enumerate(inputs))
        maps = {f"heatmap {key}" if several else "heatmap": value for key, value in found.items()} | self.layers
        return as_html({name: m.detach().cpu().float() for name, m in maps.items() if m is not None}, shapes)

    def save(self, path: str | os.PathLike) -> None:
        """Write the numbers, without a graph, to a file; it is there whole or not at all.

        Args:
            path: of the file, in a folder that exists; a file of that name is replaced.
        """
        path = Path(path)
        plain = {name: mapped(lambda t: t.detach().cpu().clone(), part) for name, part in self._asdict().items()}
        scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        try:
            torch.save(plain, scratch)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)

    @staticmethod
    def load(path: str | os.PathLike) -> "Explanation":
        """What `save` wrote, on the CPU. Nothing in the file is executed, so files of others are safe to load.

        Raises:
            ValueError: the file holds no explanation.
        """
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(f"{os.fspath(path)} holds no explanation that is safe to load: {error}") from error
        if not isinstance(found, dict) or set(found) != set(Explanation._fields):
            raise ValueError(f"{os.fspath(path)} holds no explanation: it was not written by Explanation.save")
        return Explanation(**found)
