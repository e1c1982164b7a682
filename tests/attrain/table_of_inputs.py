"""What goes in × what comes out × method, as a table in Markdown: `python -m tests.attrain.table_of_inputs`.

A tick: a finite map, and of DeepLIFT one that sums to what it must. Otherwise a number, and below the table what the
refusal says. The tests of inputs and targets say more: there the maps are those of an oracle.
"""

import warnings
from types import SimpleNamespace

import torch
from torch import nn

from attrain import AttnLRP, GradCAM, Gradient, InSilicoMutagenesis, Occlusion, SmoothGrad, explain
from attrain.tensors import tensors
from tests.attrain.oracles import METHODS


class Net(nn.Module):
    """A ReLU network of a tensor, of two, of ids, or of numbers beside ids; its output in any form."""

    def __init__(self, out: str):
        super().__init__()
        self.out, self.table = out, nn.Embedding(9, 4)
        self.conv, self.joint, self.head = nn.Conv1d(4, 5, 3), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x, more=None, mask=None):
        x = x if x.is_floating_point() else self.table(x).mT
        if more is not None:
            x = x + (more if more.is_floating_point() else self.table(more).mT)
        out = self.head(self.joint(self.conv(x).relu().mean(2)).relu())
        forms = {"(N, C)": out, "(N,)": out[:, 1], ".logits": SimpleNamespace(logits=out), "dict": {"out": out}}
        return forms[self.out]


def inputs() -> dict:
    one_hot = nn.functional.one_hot(torch.arange(14).view(2, 7) % 4, 4).mT.float()
    ids = torch.arange(14).view(2, 7) % 9
    return {
        "tensor": one_hot,
        "tuple": (one_hot, one_hot.flip(2)),
        "dict": {"x": one_hot, "more": one_hot.flip(2)},
        "ids, at the embedding": ids,
        "numbers and ids": (one_hot, ids),
    }


METHODS_OF_TABLE = METHODS | {
    "attnlrp": AttnLRP(),
    "gradcam": GradCAM("conv", relu=False),
    "smoothgrad": SmoothGrad(Gradient(), 2),
    "occlusion": Occlusion(3),
    "mutagenesis": InSilicoMutagenesis(),
}
OUTPUTS = {"(N, C)": 1, "(N,)": None, ".logits": "all", "dict": lambda out: out["out"][:, 1]}


def verdict(x, out: str, name: str) -> str:
    """ "✓", or what the refusal says."""
    torch.manual_seed(0)
    net, method, target = Net(out).eval(), METHODS_OF_TABLE[name], OUTPUTS[out]
    ids = isinstance(x, torch.Tensor) and not x.is_floating_point()
    layers = "table" if ids and name not in ("gradcam", "occlusion", "mutagenesis") else ()
    layers = "conv" if name == "gradcam" else layers
    target = None if name == "dual" and not callable(target) else target
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = explain(net, x, target, method, layers=layers)
    except (TypeError, ValueError, NotImplementedError) as error:
        return str(error)
    maps = tensors([found.heatmap]) or tensors([found.layers])
    assert maps and all(m.isfinite().all() for m in maps)
    exact = name in ("rescale", "reveal_cancel", "genomics") and not (
        isinstance(x, tuple) and not x[1].is_floating_point()
    )
    if exact:
        total = sum(m.flatten(found.delta.ndim).sum(-1) for m in maps)
        torch.testing.assert_close(total, found.delta, rtol=1e-3, atol=1e-4)
    return "✓"


def table() -> str:
    """The table, and what each refusal says."""
    sayings, rows = [], []
    for form, x in inputs().items():
        for out in OUTPUTS:
            cells = []
            for name in METHODS_OF_TABLE:
                said = verdict(x, out, name)
                if said != "✓" and said not in sayings:
                    sayings.append(said)
                cells.append(said if said == "✓" else str(sayings.index(said) + 1))
            rows.append(f"| {form} | {out} | {' | '.join(cells)} |")
    head = f"| in | out | {' | '.join(METHODS_OF_TABLE)} |\n|---|---|{'---|' * len(METHODS_OF_TABLE)}"
    return "\n".join([head, *rows, "", *(f"{i + 1}. {said}" for i, said in enumerate(sayings))])


if __name__ == "__main__":
    print(table())
