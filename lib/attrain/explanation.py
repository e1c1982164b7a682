"""What `attrain.explain` returns."""

from typing import NamedTuple

from torch import Tensor


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
    """

    logits: Tensor
    heatmap: Tensor | tuple | dict | None
    layers: dict[str, Tensor]
    delta: Tensor | None
