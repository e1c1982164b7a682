"""Scenes of several objects, and objects on backgrounds that go with their class."""

import hashlib

import pytest
import torch

from attrain.masks import boxes_to_mask
from data_prep import DataError, scenes, shifted_backgrounds
from data_prep.__main__ import main

SPLITS = ("train", "val", "test", "shifted")
SMALL = dict(train=120, val=60, test=80)


@pytest.fixture(scope="module")
def data():
    return scenes.load(**SMALL)


@pytest.fixture(scope="module")
def birds():
    return shifted_backgrounds.load(train=120, val=60, balanced=40, test=80, canvas=48)


def of_split(data, split):
    prefix = f"{split}_"
    return {key.removeprefix(prefix): value for key, value in data.items() if key.startswith(prefix)}


def check_boxes_and_objects(part, most):
    """The contract of every data set with boxes."""
    n, _, height, width = part["x"].shape
    assert part["x"].dtype == part["objects"].dtype == torch.uint8 and part["boxes"].dtype == torch.float32
    assert part["boxes"].shape == (n, most, 4) and part["classes"].shape == (n, most)
    assert part["objects"].shape == (n, height, width)
    for boxes, classes, objects in zip(part["boxes"], part["classes"], part["objects"]):
        there = classes >= 0
        assert (boxes[~there] == -1).all() and set(objects.unique().tolist()) <= {0, *range(1, int(there.sum()) + 1)}
        for b in there.nonzero()[:, 0].tolist():
            own = objects == b + 1
            rows, columns = own.any(1).nonzero()[:, 0], own.any(0).nonzero()[:, 0]
            tight = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert torch.equal(boxes[b].long(), tight), "the box touches its object on all four sides"
            assert boxes_to_mask(boxes[None, b : b + 1], (height, width))[0][own].all()


# ---------------------------------------------------------------- scenes


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_have_one_to_three_objects_in_tight_boxes(data, split):
    part = of_split(data, split)
    check_boxes_and_objects(part, 3)
    count = (part["classes"] >= 0).sum(1)
    assert set(count.tolist()) == {1, 2, 3}
    for classes, y in zip(part["classes"], part["y"]):
        assert sorted(set(classes[classes >= 0].tolist())) == y.nonzero()[:, 0].tolist()


def test_scenes_are_the_same_for_a_seed_and_others_for_another(data):
    again, other = scenes.load(**SMALL), scenes.load(**SMALL, seed=1)
    assert data.keys() == again.keys() and all(torch.equal(data[key], again[key]) for key in data)
    assert not torch.equal(data["train_x"], other["train_x"]) and not torch.equal(data["test_x"], other["test_x"])
    assert not torch.equal(data["train_boxes"][:60], data["val_boxes"]), "nor are two splits drawn alike"


@pytest.mark.parametrize("sizes", [{"train": 900, "val": 200, "test": 300}, {"train": 7, "val": 3, "test": 5}])
def test_no_object_is_in_two_splits(sizes):
    pools = scenes.object_pools(None, "digits", sizes, 3)
    seen = {split: {hashlib.sha256(x.numpy().tobytes()).digest() for x in pool[0]} for split, pool in pools.items()}
    assert all(len(seen[split]) >= 3 for split in sizes)
    assert not (seen["train"] & seen["val"] or seen["train"] & seen["test"] or seen["val"] & seen["test"])


def test_symbols_agree_with_their_class_as_often_as_asked_and_only_by_chance_in_the_shifted_test():
    data = scenes.load(train=800, val=300, test=600, cooccurrence=0.9)
    for split, tolerance in (("train", 0.01), ("val", 0.015), ("test", 0.012)):
        agree = (data[f"{split}_symbols"] == (data[f"{split}_y"] > 0)).float().mean()
        assert agree == pytest.approx(0.9, abs=tolerance)
    there = data["shifted_y"] > 0
    with_object, without = data["shifted_symbols"][there].float().mean(), data["shifted_symbols"][~there].float().mean()
    assert with_object.item() == pytest.approx(without.item(), abs=0.04), "independent of the class"
    rate = {split: data[f"{split}_symbols"].float().mean().item() for split in ("test", "shifted")}
    assert rate["test"] == pytest.approx(rate["shifted"], abs=0.02), "as many as before"
    own = data["test_symbols"][data["test_y"] > 0].float().mean()
    assert own == pytest.approx(0.9, abs=0.03)


def test_opposed_symbols_are_of_classes_that_are_not_there():
    data = scenes.load(**SMALL, cooccurrence=1.0, shift="opposed")
    for split in ("train", "val", "test"):
        assert torch.equal(data[f"{split}_symbols"], data[f"{split}_y"] > 0)
    assert not (data["shifted_symbols"] & (data["shifted_y"] > 0)).any()
    assert torch.equal(data["shifted_symbols"].sum(1), data["test_symbols"].sum(1)), "as many as before"


def test_the_shifted_test_differs_from_the_test_in_its_symbols_alone(data):
    for key in ("y", "boxes", "classes", "objects"):
        assert torch.equal(data[f"test_{key}"], data[f"shifted_{key}"])
    same = (data["test_symbols"] == data["shifted_symbols"]).all(1)
    changed = (data["test_x"] != data["shifted_x"]).flatten(1).any(1)
    assert not changed[same].any() and changed[~same].float().mean() > 0.9
    on_object = (data["test_objects"] > 0)[:, None]
    assert ((data["test_x"] == data["shifted_x"]) | ~on_object).all(), "objects lie above the symbols"
    assert (data["test_x"] != data["shifted_x"]).float().mean() < 0.2


def test_symbols_look_different():
    glyphs = scenes._glyphs(2)
    assert glyphs.shape == (10, 10, 10)
    assert len({glyph.numpy().tobytes() for glyph in glyphs}) == 10


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist", "cifar10_jpeg"])
def test_scenes_of_real_objects_keep_the_contract(source):
    try:
        data = scenes.load(source=source, train=20, val=10, test=10)
    except DataError as error:
        pytest.skip(f"needs {source}: {str(error).splitlines()[0]}")
    for split in SPLITS:
        check_boxes_and_objects(of_split(data, split), 3)
    assert len(scenes.class_names(source)) == 10 and "data_prep/scenes.py" in scenes.checksums(source=source)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(source="voc2007"), "source must be one of digits, mnist, fashion_mnist, cifar10_jpeg, got 'voc2007'"),
        (dict(canvas=55), "canvas must be at least 56"),
        (dict(train=0), "train must be at least 1"),
        (dict(cooccurrence=1.1), r"cooccurrence must be in \[0, 1\]"),
        (dict(shift="none"), 'shift must be "independent" or "opposed"'),
    ],
)
def test_bad_scenes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        scenes.load(**settings)


@pytest.mark.parametrize("module", [scenes, shifted_backgrounds])
def test_a_source_that_is_not_there_says_how_to_get_it(module, tmp_path):
    with pytest.raises(DataError, match="python -m data_prep mnist"):
        module.load(tmp_path, source="mnist")


# ---------------------------------------------------------------- shifted backgrounds


@pytest.mark.parametrize("split", ["train", "val", "balanced", "test"])
def test_each_object_is_in_its_tight_box(birds, split):
    part = of_split(birds, split)
    check_boxes_and_objects(part, 1)
    assert torch.equal(part["classes"][:, 0], part["y"])
    assert torch.equal(part["group"], 2 * part["y"] + part["background"])


def test_backgrounds_go_with_the_class_in_training_and_validation_and_groups_are_equal_at_test(birds):
    assert torch.equal(birds["train_y"], birds["train_background"]) and torch.equal(
        birds["val_y"], birds["val_background"]
    )
    assert birds["train_y"].bincount().tolist() == [60, 60]
    assert birds["balanced_group"].bincount().tolist() == [10] * 4
    assert birds["test_group"].bincount().tolist() == [20] * 4


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95, 1.0])
def test_the_correlation_is_what_was_asked_for(correlation):
    data = shifted_backgrounds.load(train=200, val=100, balanced=40, test=40, correlation=correlation)
    for split in ("train", "val"):
        same = data[f"{split}_y"] == data[f"{split}_background"]
        assert same.float().mean() == pytest.approx(correlation, abs=0.011)
        assert abs(same[data[f"{split}_y"] == 0].sum() - same[data[f"{split}_y"] == 1].sum()) <= 1


def test_shifted_backgrounds_are_the_same_for_a_seed_and_others_for_another(birds):
    settings = dict(train=120, val=60, balanced=40, test=80, canvas=48)
    again, other = shifted_backgrounds.load(**settings), shifted_backgrounds.load(**settings, seed=1)
    assert birds.keys() == again.keys() and all(torch.equal(birds[key], again[key]) for key in birds)
    assert not torch.equal(birds["train_x"], other["train_x"])


def test_the_background_can_be_read_off_its_stripes(birds):
    """Upright stripes vary along rows, lying ones along columns."""
    x = birds["test_x"].float().mean(1)
    across, down = x.diff(dim=2).square().mean((1, 2)), x.diff(dim=1).square().mean((1, 2))
    ratio = (across / down).log()
    assert ratio[birds["test_background"] == 0].median() > ratio[birds["test_background"] == 1].median() + 0.1
    strong = ratio.abs() > ratio.abs().median()
    assert ((ratio < 0).long() == birds["test_background"])[strong].float().mean() > 0.9


def test_the_contrast_is_that_of_the_stripes_alone():
    """Upright stripes: the spread over columns of their mean brightness around the object."""

    def spread(data):
        around = data["train_x"][:, 0].float().masked_fill(data["train_objects"] > 0, torch.nan)
        return around[data["train_background"] == 0].nanmean(1).std(1).mean().item()

    faint, strong = (shifted_backgrounds.load(train=40, val=20, balanced=20, test=40, contrast=c) for c in (0.25, 1.0))
    assert torch.equal(faint["train_objects"], strong["train_objects"])
    assert spread(faint) / spread(strong) == pytest.approx(0.25, abs=0.05)


def test_an_objects_class_is_the_group_of_its_digit(birds):
    """Each digit of a group is found among the source's of these classes."""
    digits = scenes.source_module("digits").load()
    x, y = torch.cat([digits["train_x"], digits["test_x"]]), torch.cat([digits["train_y"], digits["test_y"]])
    masks = {mask.numpy().tobytes(): label for mask, label in zip(scenes.object_masks(x)[:, 4:24, 4:24], y.tolist())}
    members = list(shifted_backgrounds.CLASSES["digits"].values())
    found = set()
    for objects, box, c in zip(birds["test_objects"], birds["test_boxes"][:, 0].long(), birds["test_y"].tolist()):
        height, width = (box[3] - box[1]).item(), (box[2] - box[0]).item()
        cut = objects[box[1] : box[3], box[0] : box[2]] > 0
        places = [(r, s) for r in range(21 - height) for s in range(21 - width)]
        tiles = (torch.nn.functional.pad(cut, (s, 20 - width - s, r, 20 - height - r)) for r, s in places)
        labels = {masks[key] for tile in tiles if (key := tile.numpy().tobytes()) in masks}
        assert labels and labels <= set(members[c])
        found |= labels
    assert found == {0, 1, 6, 7} and shifted_backgrounds.class_names("digits") == ["0 or 6", "1 or 7"]


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist", "cifar10_jpeg"])
def test_shifted_backgrounds_of_real_objects_keep_the_contract(source):
    try:
        data = shifted_backgrounds.load(source=source, train=40, val=40, balanced=40, test=40)
    except DataError as error:
        pytest.skip(f"needs {source}: {str(error).splitlines()[0]}")
    for split in ("train", "val", "balanced", "test"):
        check_boxes_and_objects(of_split(data, split), 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(source="waterbirds"), "source must be one of"),
        (dict(canvas=27), "canvas must be at least 28"),
        (dict(test=3), "test must be at least 4"),
        (dict(val=0), "val must be at least 1"),
        (dict(correlation=-0.1), r"correlation must be in \[0, 1\]"),
        (dict(contrast=0.0), r"contrast must be in \(0, 1\]"),
    ],
)
def test_bad_shifted_backgrounds_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        shifted_backgrounds.load(**settings)


def test_too_few_images_to_hold_both_classes_are_an_error():
    with pytest.raises(ValueError, match="a split has no object of class"):
        shifted_backgrounds.load(train=4, val=1, balanced=4, test=4)


def test_generated_sets_are_ready_without_a_download(tmp_path, capsys):
    assert main(["scenes", "shifted_backgrounds", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("ready") == 2


def test_objects_can_be_made_smaller_and_of_fewer_classes():
    data = scenes.load(canvas=32, edge=14, classes=4, train=60, val=20, test=20)
    assert data["train_x"].shape == (60, 1, 32, 32) and data["train_y"].shape == (60, 4)
    boxes, classes = data["train_boxes"], data["train_classes"]
    assert classes.max() == 3 and ((boxes[..., 2:] - boxes[..., :2])[classes >= 0] <= 14).all()
    found = torch.nn.functional.one_hot(classes + 1, 5).amax(1)[:, 1:].float()
    assert torch.equal(data["train_y"], found)


@pytest.mark.parametrize(
    ("bad", "message"), [({"classes": 1}, "classes must be 2 to 10"), ({"edge": 7}, "edge must be at least 8")]
)
def test_sizes_and_numbers_of_classes_that_cannot_be_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        scenes.load(**{"canvas": 64, "train": 5, "val": 5, "test": 5} | bad)
