"""attrain: attribution and attribution-guided training.

>>> import torch, attrain
>>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
>>> attrain.explain(model, torch.rand(5, 1, 2, 2), method=attrain.LRP(epsilon=1e-2)).heatmap.shape
torch.Size([5, 1, 2, 2])
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

__version__ = "0.1.0"

# Where each public name is defined: `__init__.pyi` says so, which editors read too.
_STUB = Path(__file__).with_suffix(".pyi").read_text("utf-8")
_HOME = {name: module for module, name in re.findall(r"^from (\S+) import (\w+)", _STUB, re.MULTILINE)}
__all__ = sorted(_HOME)


class _Attrain(ModuleType):
    """Each public name is imported when it is first asked for: torch and torchmetrics take seconds to import."""

    def __getattr__(self, name):
        if name not in _HOME:
            raise AttributeError(f"module 'attrain' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)

    def __setattr__(self, name, value):
        """Python puts a module into its package when it has imported it; here `explain` stays the function."""
        if name not in _HOME or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self):
        return [*super().__dir__(), *_HOME]


sys.modules[__name__].__class__ = _Attrain
