"""Training with the boxes of the objects (Rao et al. 2023, section 3), and what its maps are judged by.

Shapes, throughout: images x (N, C, H, W) in [0, 1], or uint8 in 0..255; labels y (N, classes), floats of 0 and 1, for
several classes an image, or (N,) long for one; boxes (N, B, 4), see `attrain.masks.boxes_to_mask`, and classes (N, B)
long, both −1 where an image has fewer than B boxes. In the place of boxes there may be the objects themselves, a
label map (N, H, W) uint8 with b + 1 on the object of class `classes[:, b]`, 0 elsewhere, and 255 where not known.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from attrain.attribution import explain
from attrain.losses.boxes import energy_loss
from attrain.masks import annotated, boxes_to_mask, dilate_boxes
from attrain.methods import InputXGradient, Method
from attrain.metrics.classification import micro_f1
from attrain.metrics.localisation import choose_threshold, epg, heatmap_iou, on_object_epg
from attrain.metrics.relevance import background_share
from attrain.numbers import number
from attrain.targets import random_positive_target
from attrain.training.loop import Result, classification_loss, result


def guided_step(
    model: nn.Module, x: Tensor, y: Tensor, boxes: Tensor, classes: Tensor, *,
    loss: Callable[..., Tensor] = energy_loss, method: Method = InputXGradient(), layer: str = "", weight: float = 1e-3,
    reduction: str = "sum", dilation: float = 0.0, generator: torch.Generator | None = None,
) -> Result:  # fmt: skip
    """Classification + λ · a loss of the map of one class of each image within that class's boxes.

    The class is one of the image's positive ones, drawn anew at every step; with y (N,) it is that. An image that
    has no boxes of it is left out of the map's loss. Where no image of the batch has any, as is common with few
    annotated images, no map is made, and the step takes as long as a plain one.

    Args:
        model: (N, C, H, W) -> logits (N, classes); in training mode.
        x, y, boxes, classes: see the module's docstring.
        loss: one of `attrain.losses.boxes`: `energy_loss`, `l1_loss`, `ppce_loss`, `rrr_loss`.
        method: how the map is made: `InputXGradient()`, `BCos()`, `GradCAM(layer)`. Batch norm takes the batch's
            statistics, which are constants of the map, so that it is one of its own image.
        layer: name of the module whose map is guided; "" for the map at x, or at GradCAM's own layer.
        weight: λ ≥ 0; with 0 no map is made, and the step is a plain one.
        reduction: over the images with boxes, "sum" as in the authors' code, where λ goes with the batch size,
            or "mean".
        dilation: by how much of their width and height the boxes' sides are pushed out.
        generator: draws the classes.

    Returns:
        logits (N, classes), the loss to call `backward` on, and its detached parts "classification" and "guidance".

    Raises:
        ValueError: shapes that do not fit, λ < 0, and what the losses raise.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.rand(2, 3, 28, 28), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> boxes, classes = torch.tensor([[[2, 2, 9, 9]], [[-1, -1, -1, -1]]]), torch.tensor([[0], [-1]])
        >>> logits, loss, parts = guided_step(model, x, y, boxes, classes)
        >>> loss.backward()
    """
    if not number("weight", weight) >= 0:
        raise ValueError(f"weight must be >= 0, got {weight}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f'reduction must be "sum" or "mean", got {reduction!r}')
    _check(x, boxes, classes)
    x = as_images(x)
    height, width = x.shape[-2:]
    mask = torch.zeros(0, dtype=torch.bool)
    if weight > 0:
        target, is_positive = _draw(y, generator)
        if dilation:
            boxes = dilate_boxes(boxes, dilation, (height, width))
        mask = mask_of(boxes, (classes == target[:, None]) & is_positive[:, None], (height, width))
    if mask.any():
        logits, heatmap = _logits_and_map(model, x, target, method, layer, create_graph=True)
        guidance = loss(heatmap, mask, reduction=reduction)
    else:
        logits, guidance = model(x), torch.zeros((), device=x.device)
    classification = classification_loss(logits, y)
    return result(logits, classification + weight * guidance, classification=classification, guidance=guidance)


def guided_evaluation(
    model: nn.Module, x: Tensor, y: Tensor, boxes: Tensor, classes: Tensor, objects: Tensor | None = None, *,
    method: Method = InputXGradient(), layer: str = "", threshold: float, batch_size: int = 64,
) -> dict[str, float]:  # fmt: skip
    """Classification and maps, over every positive class of every image.

    Args:
        model: used as it is; call `eval()` first.
        x, y, boxes, classes: see the module's docstring; y (N, classes).
        objects: (N, H, W) uint8, b + 1 where the object of box b is, 0 (or 255, unknown) elsewhere; or None.
        method, layer: as for `guided_step`.
        threshold: of the IoU, see `guided_threshold`.
        batch_size: images at a time.

    Returns:
        "F1", micro-averaged over all decisions, a class being found where its logit is ≥ 0, in [0, 1]; and means
        over the pairs of image and positive class that have boxes: "EPG", "corrected EPG" (relative to chance),
        "IoU", "background share" (of |R|) and, with objects, "on-object EPG" (within the boxes). NaN where no pair has.
    """
    pairs = map_values(
        model, x, y, boxes, classes, objects, method=method, layer=layer, threshold=threshold, batch_size=batch_size
    )
    f1 = micro_f1(pairs.pop("decisions"), y)
    return {"F1": f1.item()} | {name: values.nanmean().item() for name, values in pairs.items() if name != "image"}


def map_values(
    model: nn.Module, x: Tensor, y: Tensor, boxes: Tensor, classes: Tensor, objects: Tensor | None = None, *,
    method: Method = InputXGradient(), layer: str = "", threshold: float, batch_size: int = 64,
) -> dict[str, Tensor]:  # fmt: skip
    """What `guided_evaluation` takes the means of; arguments as there.

    Returns:
        "decisions" (N, classes) long of 0 and 1, and for the P pairs of image and positive class, image by image:
        "image" (P,), its index, and (P,) each "EPG", "corrected EPG", "IoU", "background share" and "on-object EPG".
    """
    batches = []
    for logits, image, maps, masks, on_object in _batches(
        model, x, y, boxes, classes, objects, method, layer, batch_size
    ):
        values = {
            "decisions": (logits >= 0).long(),
            "image": image,
            "EPG": epg(maps, masks),
            "corrected EPG": epg(maps, masks, corrected=True),
            "IoU": heatmap_iou(maps, masks, threshold=threshold),
            "background share": background_share(maps, masks).masked_fill(~annotated(masks), torch.nan),
        }
        if on_object is not None:
            values["on-object EPG"] = on_object_epg(maps, masks, on_object)
        batches.append(values)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def guided_threshold(
    model: nn.Module, x: Tensor, y: Tensor, boxes: Tensor, classes: Tensor, *,
    method: Method = InputXGradient(), layer: str = "", batch_size: int = 64,
) -> float:  # fmt: skip
    """The threshold of the IoU that is best on validation images, see `attrain.metrics.localisation.choose_threshold`.

    Arguments as for `guided_evaluation`. All maps are held in memory.
    """
    batches = list(_batches(model, x, y, boxes, classes, None, method, layer, batch_size))
    maps, masks = (torch.cat(parts) for parts in zip(*((maps.sum(1), masks) for _, _, maps, masks, _ in batches)))
    return choose_threshold(maps, masks)


def mask_of(boxes: Tensor, wanted: Tensor, size: tuple[int, int]) -> Tensor:
    """The union of the wanted (N, B) boxes, or objects of a label map, as (N, H, W) bool; see the module's docstring.

    Example:
        >>> mask_of(torch.tensor([[[1, 2, 2, 255, 0]]], dtype=torch.uint8), torch.tensor([[False, True]]), (1, 5)).int()
        tensor([[[0, 1, 1, 0, 0]]], dtype=torch.int32)
    """
    if boxes.dtype != torch.uint8:
        return boxes_to_mask(boxes.masked_fill(~wanted[..., None], -1), size)
    wanted = torch.cat([torch.zeros_like(wanted[:, :1]), wanted], 1)
    places = boxes.long().masked_fill(boxes >= wanted.shape[1], 0)
    return wanted.gather(1, places.flatten(1)).view_as(places)


def annotated_rows(count: int, share: float, seed: int) -> Tensor:
    """Which of `count` images are to have boxes, at least one: rows in the order in which the seed draws them.

    The order in which `fit_copy` shows the images for the same seed is another, else they would all come first.

    Example:
        >>> len(annotated_rows(4795, 0.01, seed=0))
        48
    """
    draws = torch.Generator().manual_seed(2**32 - 1 - seed)
    return torch.randperm(count, generator=draws, device="cpu")[: max(1, round(share * count))]


def as_images(x: Tensor) -> Tensor:
    """Images of 0..255 (uint8) in [0, 1]; others as they are."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def _batches(
    model: nn.Module, x: Tensor, y: Tensor, boxes: Tensor, classes: Tensor, objects: Tensor | None, method: Method,
    layer: str, batch_size: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]]:  # fmt: skip
    """By batches: logits, and for each positive class of each image its image, map, mask of boxes and of objects."""
    _check(x, boxes, classes)
    if y.ndim != 2 or len(y) != len(x) or not (y > 0).any():
        raise ValueError(f"y must be labels (N, classes) with N = {len(x)} and a positive one, got {tuple(y.shape)}")
    if objects is not None and objects.shape != (len(x), *x.shape[-2:]):
        raise ValueError(f"objects must be (N, H, W) = {(len(x), *x.shape[-2:])}, got {tuple(objects.shape)}")
    height, width = x.shape[-2:]
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        positive = y[rows] > 0
        # One forward pass and, of every image, as many maps as the one with the most classes has.
        most = max(1, int(positive.sum(1).max()))
        targets = positive.float().topk(most).indices  # positive classes first
        logits, maps = _logits_and_map(model, as_images(x[rows]), targets, method, layer)
        image, k = positive.gather(1, targets).nonzero(as_tuple=True)
        of_class = classes[rows][image] == targets[image, k, None]  # (P, B)
        masks = mask_of(boxes[rows][image], of_class, (height, width))
        on_object = None if objects is None else mask_of(objects[rows][image], of_class, (height, width))
        yield logits, start + image, maps[image, k], masks, on_object


def _logits_and_map(
    model: nn.Module, x: Tensor, target: Tensor, method: Method, layer: str, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """The map at the layer, at Grad-CAM's own before it is enlarged, or at x."""
    layer = layer or getattr(method, "layer", "")
    layers = [layer] if layer else []
    explanation = explain(model, x, target, method, layers=layers, create_graph=create_graph, at_input=not layers)
    return explanation.logits, explanation.layers[layer] if layer else explanation.heatmap


def _draw(y: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """A positive class of each image, and whether it has one."""
    if y.ndim == 1:
        return y, torch.ones_like(y, dtype=torch.bool)
    has_positive = (y > 0).any(1)
    return random_positive_target(torch.where(has_positive[:, None], y, 1.0), generator), has_positive


def _check(x: Tensor, boxes: Tensor, classes: Tensor) -> None:
    label_map = boxes.dtype == torch.uint8
    fits = boxes.shape == (len(x), *x.shape[-2:]) if label_map else boxes.ndim == 3 and boxes.shape[::2] == (len(x), 4)
    if not fits:
        raise ValueError(
            f"boxes must be (N, B, 4) with N = {len(x)} as in x, or a label map (N, H, W) uint8 of its size, "
            f"got {boxes.dtype} {tuple(boxes.shape)}"
        )
    shape = (len(x), classes.shape[-1] if label_map else boxes.shape[1])
    if classes.shape != shape or classes.is_floating_point():
        raise ValueError(f"classes must be whole numbers (N, B) = {shape}, got {classes.dtype} {tuple(classes.shape)}")
