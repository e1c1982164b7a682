"""A guided step against a slow one written as the paper says; the evaluation against loops over images and classes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attrain import BCos, GradCAM, InputXGradient, energy_loss, explain, l1_loss, ppce_loss, rrr_loss
from attrain.masks import boxes_to_mask, dilate_boxes
from attrain.metrics.localisation import choose_threshold, epg, heatmap_iou, on_object_epg
from attrain.targets import random_positive_target
from attrain.training import fit, plain_step
from attrain.training.boxes import guided_evaluation, guided_step, guided_threshold, map_values
from studies.nets.resnets import guided_resnet

NONE = [-1, -1, -1, -1]


def scenes():
    """Four images of 16 pixels: two boxes of one class; two classes; no boxes; a class without and one with a box."""
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 0, 1]])
    boxes = torch.tensor(
        [[[1, 2, 5, 7], [8, 8, 14, 12]], [[0, 0, 4, 4], [6, 3, 16, 16]], [NONE, NONE], [[2, 2, 9, 6], NONE]]
    )
    classes = torch.tensor([[0, 0], [2, 1], [-1, -1], [2, -1]])
    return x, y, boxes, classes


def net(kind="vanilla", **settings):
    return guided_resnet(kind, "small", 3, width=4, **settings)


def one_image(name, attribution, own):
    """A loss of one image's map (H, W), written out over its boxes and pixels."""
    height, width = attribution.shape
    inside = torch.zeros(height, width, dtype=torch.bool)
    for x0, y0, x1, y1 in own:
        inside[int(y0) : int(y1), int(x0) : int(x1)] = True
    if name == "energy":
        positive = attribution.clamp(min=0)
        return 1 - positive[inside].sum() / positive.sum()
    if name == "l1":
        return (attribution - inside.double()).abs().mean()
    if name == "ppce":
        return F.binary_cross_entropy(attribution[inside], torch.ones_like(attribution[inside]))
    return attribution[~inside].square().sum()


def first_pass(model, x):
    """Logits, and hooks by which batch norms take this pass's statistics in a second one, as constants by its input."""
    norms, found = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], {}
    note = lambda m, args: found.update({m: torch.var_mean(args[0], (0, 2, 3), correction=0, keepdim=True)})  # noqa: E731
    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    logits = model(x)
    for hook in hooks:
        hook.remove()

    def normalise(m, args, out):
        var, mean = found[m]
        return (args[0] - mean) * (var + m.eps).rsqrt() * m.weight[:, None, None] + m.bias[:, None, None]

    return logits, [norm.register_forward_hook(normalise) for norm in norms]


def slow_step(model, x, y, boxes, classes, name, where, cam, weight, generator):
    """The step as section 3 describes it: a map an image, a loop over images and boxes."""
    kept = {}
    logits, hooks = first_pass(model, x)
    x = x.clone().requires_grad_()
    hooks += [model.get_submodule(where).register_forward_hook(lambda m, i, out: kept.update(a=out))] if where else []
    explained = model(x)
    features = kept["a"] if where else x
    targets = random_positive_target(y, generator)
    (gradient,) = torch.autograd.grad([explained[n, t] for n, t in enumerate(targets)], features, create_graph=True)
    for hook in hooks:
        hook.remove()
    maps = (gradient.mean((2, 3), keepdim=True) * features if cam else gradient * features).sum(1)
    maps = maps.relu() if cam else maps
    total = 0
    for n, target in enumerate(targets):
        own = [box for box, c in zip(boxes[n].tolist(), classes[n].tolist()) if c == target]
        if not own:
            continue
        heatmap = maps[n] if name in ("energy", "rrr") else maps[n].clamp(min=0)
        if name != "energy" and heatmap.abs().max() > 0:
            heatmap = heatmap / heatmap.abs().max()
        if where:
            heatmap = F.interpolate(heatmap[None, None], x.shape[-2:], mode="bilinear")[0, 0]
        total = total + one_image(name, heatmap, own)
    return logits, F.binary_cross_entropy_with_logits(logits, y) + weight * total


@pytest.mark.parametrize(
    ("name", "loss"), [("energy", energy_loss), ("l1", l1_loss), ("ppce", ppce_loss), ("rrr", rrr_loss)]
)
@pytest.mark.parametrize(
    ("where", "method"), [("", InputXGradient()), ("layer2", InputXGradient()), ("layer3", GradCAM("layer3"))]
)
def test_step_is_that_of_a_loop_over_images_and_boxes(name, loss, where, method):
    model, (x, y, boxes, classes) = net().double(), scenes()
    x, y = x.double(), y.double()
    draws = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    layer = "" if isinstance(method, GradCAM) else where
    logits, found, parts = guided_step(
        model, x, y, boxes, classes, loss=loss, method=method, layer=layer, weight=0.3, generator=draws()
    )
    slow_logits, expected = slow_step(
        model, x, y, boxes, classes, name, where, isinstance(method, GradCAM), 0.3, draws()
    )
    torch.testing.assert_close(logits, slow_logits)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(parts["classification"] + 0.3 * parts["guidance"], expected.detach())
    parameters = list(model.parameters())
    pairs = zip(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)


def test_images_without_boxes_of_the_class_are_left_out():
    model, (x, _, boxes, classes) = net().eval(), scenes()
    first = torch.tensor([[1.0, 0, 0]] * 4)
    _, _, parts = guided_step(model, x, first, boxes, classes, reduction="mean")
    heatmap = explain(model, x[:1], 0, InputXGradient()).heatmap
    torch.testing.assert_close(parts["guidance"], energy_loss(heatmap, boxes_to_mask(boxes[:1], (16, 16))))
    assert guided_step(model, x[2:3], first[2:3], boxes[2:3], classes[2:3])[2]["guidance"] == 0


def test_a_batch_without_boxes_is_a_plain_step_and_makes_no_map(monkeypatch):
    model, (x, y, boxes, classes) = net().train(), scenes()
    monkeypatch.setattr("attrain.training.boxes.explain", None)  # to call it would raise
    logits, loss, parts = guided_step(model, x, y, boxes, torch.full_like(classes, -1), weight=1.0)
    plain_logits, plain_loss, _ = plain_step(model, x, y)
    assert torch.equal(logits, plain_logits) and torch.equal(loss, plain_loss) and parts["guidance"] == 0
    with pytest.raises(TypeError):
        guided_step(model, x, y, boxes, classes, weight=1.0)


def test_an_image_without_a_positive_class_counts_for_classification_only():
    model, (x, y, boxes, classes) = net().eval(), scenes()
    y[0] = 0
    only = partial(guided_step, model, weight=1.0, generator=torch.Generator().manual_seed(0))
    assert only(x[:1], y[:1], boxes[:1], classes[:1])[2]["guidance"] == 0


def test_sum_is_the_mean_times_the_number_of_images_with_boxes():
    model, (x, y, boxes, classes) = net().eval(), scenes()
    y[3, 0] = 0
    found = {
        how: guided_step(model, x, y, boxes, classes, reduction=how, generator=torch.Generator().manual_seed(0))[2]
        for how in ("sum", "mean")
    }
    torch.testing.assert_close(found["sum"]["guidance"], 3 * found["mean"]["guidance"])


def test_dilated_boxes_and_labels_and_bytes_and_no_weight():
    model, (x, y, boxes, classes) = net().eval(), scenes()
    one = torch.tensor([0, 2, 0, 2])
    step = partial(guided_step, model, boxes=boxes, classes=classes)
    logits, loss, _ = step(x, one, dilation=0.5, weight=2.0)
    larger = dilate_boxes(boxes.masked_fill((classes != one[:, None])[..., None], -1), 0.5, (16, 16))
    heatmap = explain(model, x, one, InputXGradient()).heatmap
    expected = energy_loss(heatmap, boxes_to_mask(larger, (16, 16)), reduction="sum")
    torch.testing.assert_close(loss, F.cross_entropy(logits, one) + 2 * expected)
    as_bytes = (x * 255).round().to(torch.uint8)
    torch.testing.assert_close(step(as_bytes, one)[1], step(as_bytes.float() / 255, one)[1])
    assert torch.equal(step(x, y, weight=0)[1], plain_step(model, x, y)[1])


def test_guidance_teaches_the_map_to_stay_in_the_boxes():
    x, y, boxes, classes = scenes()
    data = tuple(torch.cat([part] * 4) for part in (x, y, boxes, classes))
    after = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = net("bcos")
        step = partial(guided_step, method=BCos(), layer="input", weight=weight)
        curves = fit(model, data, step, epochs=60, batch_size=16, lr=5e-3, generator=torch.Generator().manual_seed(0))
        after[weight] = guided_evaluation(model, x, y, boxes, classes, method=BCos(), layer="input", threshold=0.1)
    assert after[1.0]["EPG"] > after[0.0]["EPG"] + 0.5
    assert 0 <= curves["accuracy"][0] <= curves["accuracy"][-1] <= 1


def test_accuracy_of_several_labels_is_the_share_of_right_decisions():
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x + self.a

    x, y = torch.tensor([[3.0, -2.0, 1.0], [-1.0, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    assert fit(Fixed(), (x, y), epochs=1, lr=1e-9)["accuracy"] == [pytest.approx(4 / 6)]


OBJECTS = torch.zeros(4, 16, 16, dtype=torch.uint8)
OBJECTS[0, 3:6, 2:4], OBJECTS[0, 9:11, 9:12], OBJECTS[1, 1:3, 1:3], OBJECTS[1, 5:15, 8:15] = 1, 2, 1, 2
OBJECTS[3, 3:5, 3:8], OBJECTS[3, 9:, 9:], OBJECTS[2] = 1, 255, 255


@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "method", "layer"),
    [("vanilla", InputXGradient(), ""), ("bcos", BCos(), "input"), ("vanilla", GradCAM("layer2"), "")],
)
def test_evaluation_is_a_loop_over_images_and_their_positive_classes(batch_size, kind, method, layer):
    model, (x, y, boxes, classes) = net(kind).eval(), scenes()
    settings = dict(method=method, layer=layer, batch_size=batch_size)
    found = guided_evaluation(model, x, y, boxes, classes, OBJECTS, threshold=0.2, **settings)
    values = {"EPG": [], "corrected EPG": [], "IoU": [], "on-object EPG": []}
    maps, masks = [], []
    for n in range(4):
        for c in y[n].nonzero().flatten().tolist():
            own = [b for b in range(2) if classes[n, b] == c]
            if not own:
                continue
            got = explain(model, x[n : n + 1], c, method, layers=[layer] if layer else [])
            heatmap = (got.layers[layer] if layer else next(iter(got.layers.values()), got.heatmap)).sum(1)
            mask = boxes_to_mask(boxes[n : n + 1, own], (16, 16))
            on = torch.stack([OBJECTS[n] == b + 1 for b in own]).any(0)[None]
            values["EPG"].append(epg(heatmap, mask))
            values["corrected EPG"].append(epg(heatmap, mask, corrected=True))
            values["IoU"].append(heatmap_iou(heatmap, mask, threshold=0.2))
            values["on-object EPG"].append(on_object_epg(heatmap, mask, on))
            maps.append(heatmap), masks.append(mask)
    for name, each in values.items():
        assert found[name] == pytest.approx(torch.cat(each).nanmean().item(), rel=1e-4), name
    right = (model(x) >= 0) & (y > 0)
    f1 = 2 * right.sum() / ((model(x) >= 0).sum() + y.sum())
    assert found["F1"] == pytest.approx(f1.item())
    chosen = guided_threshold(model, x, y, boxes, classes, **settings)
    assert chosen == choose_threshold(torch.cat(maps), torch.cat(masks))


def test_values_name_their_image_and_are_missing_where_a_class_has_no_box():
    x, y, boxes, classes = scenes()
    found = map_values(net().eval(), x, y, boxes, classes, threshold=0.1, batch_size=3)
    assert found["image"].tolist() == [0, 1, 1, 2, 3, 3]
    assert found["EPG"].isnan().sum() == 2 and found["decisions"].shape == (4, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1.0}, "weight must be >= 0"),
        ({"weight": float("nan")}, "weight must be >= 0"),
        ({"reduction": "none"}, "reduction must be"),
        ({"dilation": -0.1}, "fraction must be >= 0"),
        ({"layer": "layer5"}, "no layer 'layer5'"),
        ({"boxes": torch.zeros(3, 2, 4)}, r"boxes must be \(N, B, 4\) with N = 4"),
        ({"classes": torch.zeros(4, 3, dtype=torch.long)}, "classes must be whole numbers"),
        ({"classes": torch.zeros(4, 2)}, "classes must be whole numbers"),
        ({"boxes": torch.tensor([[[5, 5, 5, 9], NONE]] * 4), "classes": torch.tensor([[0, -1]] * 4)}, "must be .xmin"),
    ],
)
def test_bad_input_is_refused(change, message):
    x, _, boxes, classes = scenes()
    y = torch.tensor([[1.0, 0, 0]] * 4)
    with pytest.raises(ValueError, match=message):
        guided_step(net(), x, y, **{"boxes": boxes, "classes": classes} | change)


def test_evaluation_refuses_labels_and_objects_that_do_not_fit():
    x, y, boxes, classes = scenes()
    evaluate = partial(guided_evaluation, net().eval(), x, threshold=0.1)
    with pytest.raises(ValueError, match="y must be labels"):
        evaluate(torch.tensor([0, 1, 0, 2]), boxes, classes)
    with pytest.raises(ValueError, match="positive one"):
        evaluate(torch.zeros(4, 3), boxes, classes)
    with pytest.raises(ValueError, match="objects must be"):
        evaluate(y, boxes, classes, OBJECTS[:, :8])


def label_map(boxes):
    """The boxes of `scenes` as objects that fill them; they do not overlap."""
    objects = torch.zeros(len(boxes), 16, 16, dtype=torch.uint8)
    for n, own in enumerate(boxes.tolist()):
        for b, (left, top, right, bottom) in enumerate(own):
            objects[n, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = b + 1
    return objects


@pytest.mark.parametrize("loss", [energy_loss, l1_loss, ppce_loss, rrr_loss])
def test_objects_that_fill_their_boxes_guide_as_the_boxes_do(loss):
    x, y, boxes, classes = scenes()
    model, found = net(), []
    for area in (boxes, label_map(boxes)):
        generator = torch.Generator().manual_seed(0)
        found.append(guided_step(model, x, y, area, classes, loss=loss, weight=1.0, generator=generator)[1])
    assert torch.equal(*found)


def test_objects_that_fill_their_boxes_are_measured_as_the_boxes_are():
    x, y, boxes, classes = scenes()
    model = net().eval()
    of_boxes, of_objects = (map_values(model, x, y, a, classes, threshold=0.1) for a in (boxes, label_map(boxes)))
    for name, values in of_boxes.items():
        assert torch.equal(values.nan_to_num(-1), of_objects[name].nan_to_num(-1)), name


def test_what_is_not_known_of_objects_is_not_marked_and_an_image_without_any_is_left_out():
    x, y, boxes, classes = scenes()
    objects = label_map(boxes)
    objects[0] = 255
    values = map_values(net().eval(), x, y, objects, classes, threshold=0.1)
    assert values["EPG"][values["image"] == 0].isnan().all() and values["EPG"][values["image"] == 1].isfinite().all()


def test_the_background_share_is_that_outside_the_boxes_of_the_class():
    x, y, boxes, classes = scenes()
    model = net().eval()
    share = map_values(model, x, y, boxes, classes, threshold=0.1)["background share"]
    size = explain(model, x[:1], 0, InputXGradient()).heatmap.abs().sum(1)
    inside = boxes_to_mask(boxes[:1], (16, 16))
    assert share[0] == pytest.approx((size[~inside].sum() / size.sum()).item(), abs=1e-6)
    assert share[0] != share[1] and ((share >= 0) & (share <= 1) | share.isnan()).all()


@pytest.mark.parametrize("shape", [(4, 8, 16), (3, 16, 16), (4, 2, 4)])
def test_a_label_map_of_another_size_is_refused(shape):
    x, y, _, classes = scenes()
    with pytest.raises(ValueError, match=r"or a label map \(N, H, W\) uint8 of its size"):
        guided_step(net(), x, y, torch.zeros(shape, dtype=torch.uint8), classes)
