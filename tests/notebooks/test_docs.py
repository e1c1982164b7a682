"""What is public says what it does, and what describes the project agrees with it."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest
import torch
import torch.nn.functional as F
import yaml

import attrain
from studies.study import ROOT

MODULES = sorted(module.name for module in pkgutil.iter_modules(attrain.__path__))


def public(module) -> dict:
    """The functions and classes that a module defines and does not hide, and the classes' own methods."""
    found = {}
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) or inspect.isclass(thing):
            found[name] = thing
    return found


def described(thing) -> bool:
    """Has it words of its own? Not those that a dataclass or a NamedTuple makes up from its fields."""
    text = thing.__doc__ or ""
    return bool(text.strip()) and not text.startswith((f"{thing.__name__}(", "Alias for"))


@pytest.mark.parametrize("name", attrain.__all__)
def test_every_public_name_says_what_it_is(name):
    assert described(getattr(attrain, name))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_and_every_public_function_and_class_in_it_has_a_docstring(name):
    module = importlib.import_module(f"attrain.{name}")
    assert module.__doc__
    missing = {name for name, thing in public(module).items() if not described(thing)}
    of_torch = {name for name in missing if any(hasattr(place, name) for place in (torch, F, torch.linalg))}
    assert missing <= of_torch, "those that stand in for torch's functions are named as these and need no words"


def test_the_names_that_are_exported_are_sorted_and_there():
    assert len(set(attrain.__all__)) == len(attrain.__all__)
    assert all(hasattr(attrain, name) for name in attrain.__all__) and not hasattr(attrain, "none")


def test_what_is_slow_to_import_waits_for_its_use():
    """A batch starts two processes a job, which begin with these imports."""
    slow = "torch torchmetrics torchvision scipy.stats sklearn pandas matplotlib"
    code = f"import sys, studies.batch; print([name for name in {slow.split()} if name in sys.modules])"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert started.stdout == "[]\n"


def test_a_module_of_the_same_name_does_not_hide_the_function_explain():
    code = "import attrain.methods, attrain; print(type(attrain.explain).__name__, 'explain' in dir(attrain))"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert started.stdout == "function True\n"


@pytest.mark.parametrize("name", attrain.__all__)
def test_the_shapes_of_what_a_public_function_takes_are_given(name):
    """Tensors have shapes: the docstring of each function that takes one gives them, as (N, ...)."""
    thing = getattr(attrain, name)
    if inspect.isfunction(thing) and "Tensor" in str(inspect.signature(thing)):
        assert re.search(r"\((N,|\.\.\.)", inspect.getdoc(thing))


def test_the_citation_names_this_version_and_the_four_papers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    papers = {identifier["value"] for paper in citation["references"] for identifier in paper["identifiers"]}
    index = (ROOT / "notebooks/index.py").read_text("utf-8")
    assert len(papers) == 4 and all(paper.removeprefix("arXiv:") in index for paper in papers)
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_link_of_the_documents_to_a_file_leads_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text("utf-8")
        links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)}
        gone = [link for link in links if link and "://" not in link and not (ROOT / link).exists()]
        assert not gone, name
