"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest
import torch

from data_prep import DataError, mnist
from tests.batches import notebooks, start  # noqa: F401 fixtures

# A device for what the tests make, also when a file is imported: `make test DEVICE=cuda`, the engine's tests only; with
# DEVICE=pretended one that refuses what CUDA refuses, on any machine.
if device := os.environ.get("ATTRAIN_TEST_DEVICE"):
    if device == "pretended":
        import tests.pretended_device  # noqa: F401
    torch.backends.cudnn.allow_tf32 = False  # as in a study
    torch.set_default_device(device)


def pytest_collectstart():
    torch.manual_seed(0)  # for models made as parameters of tests, when a file is imported


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A results folder of the test's own."""
    monkeypatch.setenv("ATTRAIN_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="session")
def mnist_data():
    """MNIST, where the data folder has it."""
    try:
        return mnist.load()
    except DataError as error:
        pytest.skip(f"needs MNIST: {error}")


def free_environment(**more: str) -> dict[str, str]:
    """The environment for a subprocess, with some variables set."""
    return os.environ | {"PYTHONUNBUFFERED": "1"} | more


def flipped(content: bytes, bit: int) -> bytes:
    """The same but for one bit, counted from the first."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
