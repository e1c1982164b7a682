import pytest
import torch

from attrain import DeepLift, explain
from studies import example_inputs
from studies.own_inputs import called, check_embeddings, check_examples, exchanged, maps_of, parts_of

FORMS = {
    "tensor": torch.arange(6.0).view(3, 2),
    "tuple": (torch.arange(6).view(3, 2), torch.arange(3.0)),
    "dict": {"ids": torch.arange(6).view(3, 2), "facts": torch.arange(3.0)},
}


@pytest.mark.parametrize("x", FORMS.values(), ids=FORMS)
def test_one_part_is_exchanged_and_the_form_stays(x):
    order = torch.tensor([2, 0, 1])
    for part in parts_of(x):
        other = exchanged(x, part, order)
        assert type(other) is type(x)
        for name, value in parts_of(other).items():
            assert torch.equal(value, parts_of(x)[name][order] if name == part else parts_of(x)[name])


@pytest.mark.parametrize(
    "given, said",
    [
        (torch.zeros(3), "must return a dict with x, and perhaps target, .*got Tensor"),
        ({"ids": torch.zeros(3)}, r"must return a dict with x.*got \['ids'\]"),
        ({"x": torch.zeros(3), "labels": 1}, r"got \['labels', 'x'\]"),
        ({"x": [torch.zeros(3)]}, "x must be a tensor, or a tuple or dict of tensors, got {'x': 'list'}"),
        ({"x": torch.zeros(3).numpy()}, "got {'x': 'ndarray'}; torch.as_tensor makes one"),
        ({"x": torch.zeros(3), "names": {"y": ["a"]}}, r"names must be a dict, .* parts are \['x'\], got \['y'\]"),
        ({"x": (torch.zeros(3),), "names": ["a"]}, r"parts are \['input 0'\], got list"),
        ({"x": {"a": torch.zeros(3), "b": torch.zeros(2)}}, "all parts of x must have N rows, got {'a': 3, 'b': 2}"),
    ],
)
def test_examples_of_another_form_are_refused_in_one_line(given, said):
    with pytest.raises(ValueError, match=said):
        check_examples(given)


def test_names_of_one_tensor_are_those_of_its_only_part():
    assert check_examples({"x": torch.zeros(3, 2), "names": ["a", "b"]})["names"] == {"x": ["a", "b"]}
    assert check_examples({"x": torch.zeros(3, 2), "names": {"x": ["a", "b"]}})["names"] == {"x": ["a", "b"]}
    assert check_examples({"x": torch.zeros(3, 2)})["names"] == {}


def test_what_is_of_another_precision_than_the_model_is_refused_by_name():
    with pytest.raises(ValueError, match=r"examples: input 1 is torch\.float64, and the model"):
        called(torch.nn.Bilinear(2, 2, 1), (torch.zeros(3, 2), torch.zeros(3, 2).double()))


def test_a_model_is_called_as_explain_calls_it():
    assert called(lambda a, b: a + b, (torch.tensor(1), torch.tensor(2))) == 3
    assert called(lambda a, b: a - b, {"b": torch.tensor(1), "a": torch.tensor(2)}) == 1
    assert called(lambda x, scale: x * scale, torch.tensor(2), {"scale": 5}) == 10


def test_the_example_learns_what_decides_and_its_maps_add_up():
    given, model = check_examples(example_inputs.examples()), example_inputs.model().eval()
    found = explain(model, given["x"], 1, DeepLift(), layers=("embedding",))
    maps = maps_of(found, given["x"], {"words": "embedding"})
    assert {name: tuple(heatmap.shape) for name, heatmap in maps.items()} == {"words": (8, 15), "facts": (8, 3)}
    total = sum(heatmap.flatten(1).sum(1) for heatmap in maps.values())
    assert torch.allclose(total, found.delta, atol=1e-4)
    right = called(model, given["x"]).argmax(1) == torch.tensor([1] * 4 + [0] * 4)
    assert right.sum() >= 7


@pytest.mark.parametrize(
    "embeddings, said",
    [
        ({}, "words holds whole numbers.*give embeddings='words LAYER', with a LAYER such as embedding"),
        ({"words": "embedding", "text": "embedding"}, "embeddings names text, and the parts of x are words, facts"),
        ({"words": "embeding"}, "layer 'embeding' is no module of the model; it has embedding"),
    ],
)
def test_whole_numbers_without_a_layer_that_embeds_them_are_refused_with_what_to_give(embeddings, said):
    model = example_inputs.RequestNetwork(10)
    with pytest.raises(ValueError, match=said):
        check_embeddings(model, {"words": torch.zeros(2, 3, dtype=torch.long), "facts": torch.zeros(2, 3)}, embeddings)
