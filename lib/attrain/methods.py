"""Attribution methods as values: frozen dataclasses that name a set of rules and its settings."""

from dataclasses import dataclass

from torch import Tensor

from attrain.rules import InputXGradientRules, LRPRules, Rules


@dataclass(frozen=True)
class Gradient:
    """The gradient of the explained number with respect to the input."""

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return Rules(x, entry)


@dataclass(frozen=True)
class InputXGradient:
    """Gradient times input: LRP-0 on ReLU networks, biases included."""

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return InputXGradientRules(x, entry)


@dataclass(frozen=True)
class ZB:
    """First-layer rule z^B for inputs in [low, high], see `attrain.rules.FirstLayer`."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"ZB needs low < high, got low={self.low}, high={self.high}")


@dataclass(frozen=True)
class LRP:
    """LRP-ε of a ReLU network in one backward pass (LRP-Flex; Bassi, Decherchi, Cavalli 2024).

    Args:
        epsilon: ≥ 0; the ReLU's multiplier is y/(y+ε). 0 is gradient × input.
        first_layer: `ZB(low, high)` for the z^B rule at the input, or None.
    """

    epsilon: float = 1e-2
    first_layer: ZB | None = None

    def __post_init__(self):
        if not self.epsilon >= 0:
            raise ValueError(f"LRP needs epsilon >= 0, got {self.epsilon}")

    def rules(self, x: Tensor, entry: Tensor) -> Rules:
        return LRPRules(x, entry, self.epsilon, self.first_layer)
