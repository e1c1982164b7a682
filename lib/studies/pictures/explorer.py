"""Explore a network's maps: sliders where somebody can move them, with ipywidgets, and one picture elsewhere."""

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from html import escape
from importlib.util import find_spec

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor, nn

from attrain.attribution import explain
from studies.pictures.images import map_rows

SETTINGS = {"epsilon": 1e-2, "reference": 0.0}  # of methods, each with a slider, and where it starts


def explore(
    model: nn.Module,
    images: Tensor,
    methods: Mapping[str, object],
    layers: Sequence[str] = (),
    classes: Sequence[str] = (),
    widgets: bool | None = None,
) -> Figure:
    """Choose image, class, method, layer, and LRP's ε or the reference, and see the map.

    Args:
        model: images -> logits (N, C), used as it is (call `eval()` first).
        images: (N, C, H, W) in [0, 1].
        methods: name -> method of `attrain`; the first is shown first. ε and the reference start as methods have them.
        layers: names of modules whose maps can be chosen too.
        classes: names of the logits; by default their numbers.
        widgets: show sliders; None: if ipywidgets is installed and somebody is at the notebook, in JupyterLab, Jupyter
            Notebook, VS Code or Colab. Batch runs, GitHub and printed pages have no kernel to move a slider for.

    Returns:
        the picture at the start, to keep with a record; closed if there are sliders, so that it is not shown twice.
    """
    figure, _ = draw(model, images, methods, classes, **_start(methods))
    if widgets if widgets is not None else somebody_is_there() and find_spec("ipywidgets"):
        from IPython.display import display

        plt.close(figure)
        display(panel(model, images, methods, layers, classes))
    return figure


def somebody_is_there() -> bool:
    """Whoever can be asked for input can move a slider: papermill, nbconvert and nbval say that nobody can."""
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython else None
    return "google.colab" in sys.modules or bool(getattr(kernel, "_allow_stdin", False))


def draw(model, images, methods, classes=(), *, image, target, method, layer, epsilon, reference) -> tuple[Figure, str]:
    """The image over its map, and in words what is explained and what the map sums to; target −1 is the class read."""
    chosen = methods[method]
    if layer and "layer" in _settings(chosen):  # Grad-CAM's own
        chosen, layer = replace(chosen, layer=layer), ""
    sliders = {"epsilon": epsilon, "reference": reference}
    chosen = replace(chosen, **{name: sliders[name] for name in _settings(chosen) if name in sliders})
    one = images[image : image + 1]
    explanation = explain(model, one, None if target < 0 else target, chosen, layers=[layer] if layer else [])
    heatmap = explanation.layers[layer] if layer else explanation.heatmap
    predicted = int(explanation.logits.argmax())
    explained = predicted if target < 0 else target
    title = f"read as {_name(predicted, classes)}, explained: {_name(explained, classes)}"
    figure = map_rows(one.cpu(), {"map": heatmap.cpu()}, [f"{method}\n{title}"], size=1.9)
    logit = explanation.logits[0, explained]
    return figure, f"{title}; logit {logit:.3g}, the map sums to {heatmap.sum():.3g}"


def panel(model, images, methods, layers=(), classes=()):
    """The sliders, and the picture that follows them, as one widget; arguments as for `explore`."""
    import ipywidgets

    count, start = explain(model, images[:1]).logits.shape[1], _start(methods)
    targets = [("the class read", -1), *((_name(c, classes), c) for c in range(count))]
    epsilon = ipywidgets.FloatLogSlider(start["epsilon"], min=-6, max=2, step=0.25, description="ε")
    reference = ipywidgets.FloatSlider(start["reference"], min=0, max=1, step=0.05)
    picture, words = ipywidgets.Image(format="png"), ipywidgets.HTML()

    def follow(method, **chosen):
        epsilon.disabled, reference.disabled = (name not in _settings(methods[method]) for name in SETTINGS)
        try:
            figure, text = draw(model, images, methods, classes, method=method, **chosen)
        except (ValueError, TypeError, RuntimeError) as error:  # a method without maps at layers, say
            words.value = f"<b>no map:</b> {escape(str(error).splitlines()[0])}"
            return
        file = io.BytesIO()
        figure.savefig(file, dpi=90, bbox_inches="tight")
        plt.close(figure)
        picture.value, words.value = file.getvalue(), escape(text)

    controls = ipywidgets.interactive(
        follow,
        image=ipywidgets.IntSlider(0, 0, len(images) - 1),
        target=ipywidgets.Dropdown(options=targets, description="class"),
        method=list(methods),
        layer=[("input", ""), *((layer, layer) for layer in layers)],
        epsilon=epsilon,
        reference=reference,
    )
    beside = ipywidgets.VBox([picture, words], layout={"align_items": "flex-start"})  # else words stretch the picture
    return ipywidgets.HBox([controls, beside])


def _name(c: int, classes: Sequence[str]) -> str:
    return str(classes[c]) if classes else str(c)


def _settings(method) -> set[str]:
    return {field.name for field in fields(method)}


def _start(methods) -> dict:
    """What is chosen at the start: the first method, and of ε and the reference the first number that a method has."""
    start = dict(image=0, target=-1, layer="", method=next(iter(methods))) | SETTINGS
    for method in reversed(methods.values()):
        start |= {name: getattr(method, name) for name in SETTINGS if isinstance(getattr(method, name, None), float)}
    return start
