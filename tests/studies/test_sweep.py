"""Networks of other libraries: each of torchvision's is explained completely, and the sweep tells right from wrong."""

import json

import pytest
import torch
import torchvision
from torch import nn

from attrain import DeepLift, explain
from studies.bench import sweep
from studies.bench.sweep import classifier, incompleteness

LARGE = (
    "convnext_base convnext_large convnext_small efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l "
    "efficientnet_v2_m maxvit_t regnet_x_16gf regnet_x_32gf regnet_x_8gf regnet_y_128gf regnet_y_16gf regnet_y_32gf "
    "regnet_y_8gf resnext101_32x8d resnext101_64x4d resnet152 swin_b swin_s swin_v2_b swin_v2_s vgg11 vgg11_bn vgg13 "
    "vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 "
    "wide_resnet50_2"
).split()
NAMES = torchvision.models.list_models(module=torchvision.models)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES])
def test_rescale_is_complete(name):
    model, x, reference = classifier(name)
    result = explain(model, x, 0, DeepLift(reference))
    with torch.no_grad():
        delta = (model(x) - model(reference))[:, 0]
    error = float((result.heatmap.flatten(1).sum(1) - delta).abs().max())
    terms = float(
        result.heatmap.abs().flatten(1).sum(1).max()
    )  # Δ is the sum of these, and no more exact than they are
    assert error < 1e-3 * float(delta.abs().max()) or error < 1e-6 * terms
    assert incompleteness(model.double(), x.double(), reference.double()) < 1e-6


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "densenet121", "mobilenet_v3_small", "swin_t"])
def test_reveal_cancel_is_complete(name):
    model, x, reference = classifier(name)
    assert incompleteness(model.double(), x.double(), reference.double(), "reveal_cancel") < 1e-6


@pytest.fixture
def network():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)).double()
    return model, torch.randn(2, 4).double(), torch.randn(1, 4).double()


def test_a_relu_network_is_right_by_every_measure(network):
    assert {verdict for verdict, _ in sweep.judge(*network).values()} == {"right"}


def test_a_map_that_is_off_is_wrong(network, monkeypatch):
    def off(*args, **kwargs):
        found = explain(*args, **kwargs)
        return found._replace(heatmap=found.heatmap * (1 + 1e-4))

    monkeypatch.setattr(sweep, "explain", off)
    found = sweep.judge(*network)
    assert {found[name][0] for name in ("rescale", "reveal_cancel", "gradient", "lrp")} == {"WRONG"}


class Cast(nn.Module):
    """A network that computes a part in a type of its own."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x):
        return self.network(x.to(self.dtype).to(x.dtype)) + 0 * torch.ones(3, dtype=torch.float16)  # no part of it


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_tolerance_is_that_of_what_the_network_itself_computes_in(network, dtype):
    model, x, reference = network
    assert sweep.precision(Cast(model, dtype), x) == dtype
    found = sweep.judge(Cast(model, dtype), x, reference)
    assert found["rescale"][0] == "right"
    assert found.get("computes_in", "float64") == str(dtype).removeprefix("torch.")
    assert sweep.measured(lambda *_: 1e-5, tolerance=sweep.TOLERANCE[dtype])[0] == (
        "WRONG" if dtype == torch.float64 else "right"
    )


class OffAlone(nn.Module):
    """A network whose derivative autograd gets wrong for one sample, as torch's own of some have it."""

    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x):
        y = self.network(x)
        return y if len(x) > 1 else y.detach() + self.factor * (y - y.detach())


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "WRONG"), (1.5, "right")])
def test_a_sample_alone_is_judged_beside_itself_only_where_torchs_own_gradient_is_wrong(
    network, monkeypatch, factor, verdict
):
    model, x, reference = network
    monkeypatch.setitem(sweep.MEASURES, "alone", lambda *_: 1.0)
    found = sweep.judge(OffAlone(model, factor), x, reference)
    assert found["alone"][0] == verdict and ("torch_alone" in found) == (verdict == "right")
    assert ("(twice)" in sweep.shown(found, "alone")) == (verdict == "right")


@pytest.mark.parametrize("relu", [torch.relu, nn.functional.relu, torch.Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True)])
def test_the_patched_relu_sees_every_spelling(relu):
    h = torch.tensor([-1.0, 2.0], requires_grad=True)
    with sweep.EpsilonReLU():
        y = relu(h * 1)
    y.sum().backward()
    torch.testing.assert_close(h.grad, torch.tensor([0.0, 2 / (2 + sweep.EPSILON)]))


def test_errors_of_the_librarys_own_are_told_from_others(network):
    def depths(*network):
        raise RuntimeError("in the depths\nof torch")

    assert sweep.measured(depths, *network) == ("unclear", "RuntimeError: in the depths")
    model, x, reference = network
    verdict, said = sweep.measured(sweep.incompleteness, model, x, reference * torch.nan)
    assert verdict == "refused" and "reference" in said


@pytest.mark.parametrize(
    "model, why",
    [
        (lambda x: x.detach() @ torch.ones(3, 2).double(), "does not require grad"),
        (lambda x: x[:, :2] * 0, "does not depend on its input"),
    ],
)
def test_a_network_that_torch_cannot_differentiate_is_not_run_and_says_why(model, why, monkeypatch):
    class Network(nn.Module):
        def forward(self, x):
            return model(x)

    monkeypatch.setitem(sweep.BUILDERS, "torchvision", lambda name: (Network(), torch.rand(2, 3), torch.rand(1, 3)))
    record = sweep.one("torchvision/none")
    assert record["verdict"] == "not run" and why in record["why"]


def test_a_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(sweep, "in_a_process", lambda name, s: made.append(name) or {"name": name, "verdict": "right"})
    for names in (["a/1"], ["a/1", "a/2"]):
        records = sweep.sweep(names, tmp_path / "zoo.jsonl", 1, jobs=1)
    assert made == ["a/1", "a/2"] and list(records) == made
    assert sweep.kept(tmp_path / "zoo.jsonl") == records


def test_a_network_that_ends_its_process_or_takes_too_long_is_a_record():
    assert sweep.in_a_process("torchvision/no_such", 60)["verdict"] == "not run"
    assert sweep.in_a_process("torchvision/resnet18", 1)["why"] == "more than 1 s"


def test_the_page_counts_what_the_records_say():
    records = {
        f"z/{k}": {"name": f"z/{k}", "verdict": verdict, "lrp": ["refused", "E: | x"]}
        for k, verdict in enumerate(["right", "right", "WRONG", "refused", "not run"])
    }
    page = sweep.page(records)
    assert "| z | 5 | 2 | 1 | 0 | 1 | 1 |" in page and "LRP-ε: 5 refused." in page and "E: \\| x" in page


def test_the_committed_page_is_that_of_the_committed_records():
    kept = sweep.RESULTS / "zoo.jsonl"
    if not kept.exists():
        pytest.skip("no sweep has been kept")
    assert (sweep.RESULTS / "zoo.md").read_text() == sweep.page(sweep.kept(kept))
    assert all(json.loads(line)["name"] for line in kept.read_text().splitlines())


def test_the_sentence_about_the_sweep_has_the_numbers_of_its_records():
    found = [json.loads(line)["verdict"] for line in (sweep.RESULTS / "zoo.jsonl").read_text().splitlines()]
    said = (
        f"{found.count('right')} of {len(found)} of torchvision, timm and transformers are explained right, none wrong"
    )
    assert said in (sweep.RESULTS / "README.md").read_text() and "WRONG" not in found
