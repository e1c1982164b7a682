"""The library in other people's settings of torch and Python: the same numbers, and the settings as they were."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import attrain as at
from attrain.training import isnet_step

METHODS = {
    "Gradient": at.Gradient(),
    "InputXGradient": at.InputXGradient(),
    "GuidedBackprop": at.GuidedBackprop(),
    "IntegratedGradients": at.IntegratedGradients(steps=3),
    "IntegratedGradients, Gauss-Legendre": at.IntegratedGradients(steps=3, quadrature="gauss_legendre"),
    "DeepLift": at.DeepLift(),
    "DeepLift of several references": at.DeepLift(torch.linspace(0, 1, 2 * 3 * 64).reshape(2, 1, 3, 8, 8)),
    "DeepLift, RevealCancel": at.DeepLift(rule="reveal_cancel"),
    "LRP": at.LRP(),
    "LRP, zᴮ": at.LRP(first_layer=at.ZB((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
    "AttnLRP": at.AttnLRP(),
    "ZPlus": at.ZPlus(),
    "Dual": at.Dual(),
    "GradCAM": at.GradCAM("0"),
    "SmoothGrad": at.SmoothGrad(at.Gradient(), samples=2, noise=0.1),
    "Occlusion": at.Occlusion(window=4, stride=4),
}


def network():
    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
    ]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def other_default_device():
    """A tensor that is made without saying where is on no device that has numbers."""
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None if before.type == "cpu" else before)


@contextmanager
def no_gradients():
    torch.set_grad_enabled(False)
    try:
        yield
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "default dtype float64": default_dtype,
    "another default device": other_default_device,
    "gradients switched off": no_gradients,
    "inference mode": torch.inference_mode,
    "deterministic algorithms": deterministic,
    "anomaly detection": torch.autograd.detect_anomaly,
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", METHODS)
def test_maps_are_those_of_torchs_own_settings(name, setting):
    model, x = network(), torch.rand(2, 3, 8, 8)

    def found(target):
        torch.manual_seed(1)
        return at.explain(model, x, target, METHODS[name], layers=["4"] if name not in ("GradCAM", "Occlusion") else [])

    for target in ("all",) if name == "Dual" else ([1, 2], "all"):
        expected = found(target)
        with SETTINGS[setting]():
            result = found(target)
        for got, wanted in zip((result.logits, result.heatmap, *result.layers.values()), _tensors(expected)):
            assert got.dtype == wanted.dtype and got.device == wanted.device and torch.equal(got, wanted)
        assert (result.delta is None) == (expected.delta is None)
        assert expected.delta is None or torch.equal(result.delta, expected.delta)


def _tensors(explanation):
    return explanation.logits, explanation.heatmap, *explanation.layers.values()


@pytest.mark.parametrize("setting", ["default dtype float64", "another default device", "deterministic algorithms"])
def test_losses_metrics_and_steps_are_those_of_torchs_own_settings(setting):
    model, x, y = network(), torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    mask = torch.zeros(2, 8, 8)
    mask[:, 2:6, 2:6] = 1
    heatmap = torch.randn(2, 3, 8, 8)

    def found():
        torch.manual_seed(1)
        maps = torch.rand(2, 3, 8, 8, device="cpu", dtype=torch.float32)
        losses = (at.energy_loss, at.l1_loss, at.ppce_loss, at.rrr_loss)
        values = [loss(heatmap, mask) for loss in losses]
        values += [at.isnet_background_loss(heatmap, mask, decay=0.9, E=1.0)]
        values += [at.isnet_foreground_loss(heatmap, mask, C1=0.1, C2=1.0), at.epg(heatmap, mask)]
        values += [at.heatmap_iou(heatmap, mask, threshold=0.1), at.background_share(heatmap, mask)]
        logits, loss, parts = isnet_step(model, x, y, mask, target=at.selective_target())
        values += [logits, loss, *parts.values()]
        pairs = torch.tensor([[0, 1], [1, 2]], device="cpu")
        values += [at.pixels_erased_log_odds(model, x, maps[:, :2], pairs, pixels=9).change]
        return [value.detach() for value in values]

    expected = found()
    with SETTINGS[setting]():
        result = found()
    for n, (got, wanted) in enumerate(zip(result, expected)):
        assert got.dtype == wanted.dtype and got.device == wanted.device and torch.equal(got, wanted), n


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONOPTIMIZE": "2"},
        {"PYTHONWARNINGS": "error"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
        {"PYTHONHASHSEED": "3", "TZ": "Pacific/Kiritimati"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_an_explanation_is_the_same_whatever_python_is_told(settings, tmp_path):
    program = (
        "import torch, attrain; from torch import nn\n"
        "model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).eval()\n"
        "for p in model.parameters(): p.data = torch.linspace(-1, 1, p.numel()).reshape(p.shape)\n"
        "found = attrain.explain(model, torch.ones(3, 2), 0, attrain.DeepLift())\n"
        "found.save('explanation.pt'); print(attrain.Explanation.load('explanation.pt').heatmap.tolist())\n"
        "try: attrain.explain(model, torch.ones(3, 2), 5)\n"
        "except ValueError as error: print(str(error).encode('utf-8'))\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], env=os.environ | each, cwd=tmp_path, capture_output=True)
        for each in ({}, settings)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[1].stderr.decode()[-1500:]
    assert runs[0].stdout == runs[1].stdout and runs[0].stdout.startswith(b"[[")
