"""Several methods on one model: each number of the table against an independent one, and what is refused."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from attrain import DeepLift, GradCAM, Gradient, GuidedBackprop, InputXGradient, IntegratedGradients, compare, explain
from attrain.metrics import deletion_curve, insertion_curve, randomised, rank_correlation


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 3)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def x():
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_each_column_is_the_metric_of_that_name(net, x):
    methods = {"DeepLIFT": DeepLift(), "IG, 2 steps": IntegratedGradients(steps=2), "gradient": Gradient()}
    found = compare(net, x, methods, 1, reference=0.5, fractions=(0.1, 0.4), seed=3)
    assert list(found.rows) == [*methods, "random order"] and found.target.tolist() == [1] * 5
    forgetful = next(iter(randomised(net, 3)))[1]
    for name, method in methods.items():
        expected, row = explain(net, x, 1, method), found.rows[name]
        assert torch.equal(found.maps[name], expected.heatmap)
        for column, curve in {"deletion": deletion_curve, "insertion": insertion_curve}.items():
            fall = curve(net, x, expected.heatmap, found.target, (0.1, 0.4), 0.5).mean().item()
            assert row[column] == pytest.approx(fall)
        other = explain(forgetful, x, 1, method).heatmap
        same = rank_correlation(expected.heatmap.abs(), other.abs()).mean().item()
        assert row["last layer random"] == pytest.approx(same) and row["ms a map"] > 0
    assert found.rows["DeepLIFT"]["completeness error"] < 1e-4
    assert found.rows["gradient"]["completeness error"] != found.rows["gradient"]["completeness error"], "no promise"


def test_what_follows_the_network_beats_a_random_order_and_guided_backprop_ignores_the_last_layer(net, x):
    found = compare(net, x, [DeepLift(), GuidedBackprop()])
    assert found.rows["DeepLift"]["deletion"] > found.rows["random order"]["deletion"]
    assert found.rows["DeepLift"]["insertion"] > found.rows["random order"]["insertion"]
    assert torch.equal(found.target, net(x).argmax(1))


def test_it_prints_and_shows_a_table_and_draws_the_maps(net, x):
    found = compare(net, x[:2], [DeepLift(), GradCAM("1")])
    header, *lines = repr(found).splitlines()
    assert header.split("  ")[-1] == "ms a map" and [line.split("  ")[0] for line in lines] == [*found.rows]
    assert "–" in repr(found) and "nan" not in repr(found)
    html = found._repr_html_()
    assert html.count("<tr>") == 4 and "near 1, the map does not depend" in html
    assert [axis.get_title() for axis in found.show().axes[:3]] == ["input", "DeepLift", "GradCAM"]


def test_token_ids_are_erased_to_an_id_and_mapped_where_they_are_embedded():
    reader = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(24, 2)).eval()
    ids = torch.randint(1, 20, (3, 6))
    found = compare(reader, ids, [InputXGradient()], 0, layer="0", reference=0, fractions=(1.0,))
    fall = reader(ids)[:, 0] - reader(ids)[:, 1] - (reader(0 * ids)[:, 0] - reader(0 * ids)[:, 1])
    assert found.maps["InputXGradient"].shape == (3, 6)
    assert found.rows["InputXGradient"]["deletion"] == pytest.approx(fall.mean().item(), rel=1e-4)
    assert found.rows["InputXGradient"]["insertion"] == pytest.approx(fall.mean().item(), rel=1e-4)


def test_one_logit_a_callable_and_further_arguments():
    x = torch.rand(4, 6)
    model = lambda x, scale: {"score": (x * scale).sum(1)}  # noqa: E731
    found = compare(model, x, [InputXGradient()], lambda o: o["score"], kwargs={"scale": 2.0}, fractions=(1.0,))
    assert found.rows["InputXGradient"]["deletion"] == pytest.approx(2 * x.sum(1).mean().item())
    assert "–" in repr(found), "what is no module has no last layer to draw"
    single = nn.Linear(6, 1).eval()
    assert compare(single, x, [InputXGradient()], fractions=(1.0,)).rows["InputXGradient"]["deletion"] == pytest.approx(
        (single(x) - single(0 * x)).mean().item(), abs=1e-6
    )


@pytest.mark.parametrize(
    ("methods", "target", "error", "message"),
    [
        (DeepLift(), None, TypeError, "methods must be a dict of methods by name, or a list"),
        ([], None, TypeError, "methods must be a dict"),
        ({}, None, TypeError, "methods must be a dict"),
        ([DeepLift(0.0), DeepLift(1.0)], None, ValueError, "two methods are called DeepLift"),
        ([DeepLift()], "all", ValueError, "one map a sample"),
        ([DeepLift()], torch.zeros(5, 2, dtype=torch.long), ValueError, "one map a sample"),
        ([DeepLift()], [1, 2], ValueError, "one map a sample"),
        ([DeepLift()], 7, ValueError, "7"),
    ],
)
def test_what_cannot_be_compared_is_refused(net, x, methods, target, error, message):
    with pytest.raises(error, match=message):
        compare(net, x, methods, target)


def test_several_inputs_are_refused(net, x):
    with pytest.raises(TypeError, match="one tensor as x, got tuple"):
        compare(net, (x, x), [DeepLift()])


def test_it_costs_the_forward_passes_that_its_docstring_says(net, x):
    passes = []
    net.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    compare(net, x, [Gradient(), InputXGradient()], fractions=(0.1, 0.4))
    maps, curves = 2, (2 + 1) * 2 * 2  # the last layer drawn anew is another network's, which has the hook too
    assert len(passes) == 2 * maps + curves + 4, "a predicted class, what the first map costs, two starts of the curves"


def test_progress_counts_methods_and_says_what_it_needs(net, x, capsys, monkeypatch):
    compare(net, x, [Gradient(), DeepLift()], fractions=(0.5,))
    assert capsys.readouterr() == ("", "")
    compare(net, x, [Gradient(), DeepLift()], fractions=(0.5,), progress=True)
    assert "methods: 100%" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="progress=True needs tqdm: pip install tqdm"):
        compare(net, x, [Gradient()], progress=True)


def test_without_scipy_it_ranks_all_the_same():
    code = (
        "import sys; sys.modules['scipy'] = None; import torch; from attrain import Gradient, compare\n"
        "torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))\n"
        "print(compare(net.eval(), torch.rand(3, 6), [Gradient()]).rows['Gradient']['last layer random'] <= 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
