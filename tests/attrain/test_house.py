"""The house that the library is: small files, no circles, typed where users call it, and light to import."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import attrain
from tests.attrain.test_wheel import needed

FILES = sorted(Path(attrain.__file__).parent.rglob("*.py"))
MODULES = sorted(module.name for module in pkgutil.walk_packages(attrain.__path__, "attrain."))
EXTRAS = {"EPG", "HeatmapIoU", "Zennit"}  # these need more than torch and numpy, and are tried in their own tests
PLACES = "attrain attrain.losses attrain.masks attrain.metrics attrain.targets attrain.training attrain.challenger"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FILES[0].parents[1])))
def test_a_file_is_read_in_a_sitting(file):
    assert len(file.read_text("utf-8").splitlines()) <= 400


def test_no_module_imports_itself_over_others():
    graph = grimp.build_graph("attrain")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises with the circle


@pytest.mark.parametrize("name", MODULES)
def test_an_example_needs_no_more_than_the_library_and_its_extras(name):
    assert "studies" not in inspect.getsource(importlib.import_module(name))


def test_import_and_public_names_load_torch_numpy_and_what_these_need():
    names = sorted(set(attrain.__all__) - EXTRAS)
    code = f"""
import sys, importlib.metadata as metadata, attrain, attrain.challenger, attrain.losses, attrain.training
for name in {names}:
    getattr(attrain, name)
loaded, owners = {{name.partition(".")[0] for name in sys.modules}}, metadata.packages_distributions()
print(*{{owner for name in loaded for owner in owners.get(name, ())}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.lower().replace("_", "-") for name in done.stdout.split()}
    assert "torch" in loaded
    assert loaded <= needed("torch", "numpy") | {"attrain", "setuptools"}  # setuptools finds what is installed to edit


def callables(place: str) -> dict:
    """What a user may call there: functions, classes, and the classes' own public methods."""
    module, found = importlib.import_module(place), {}
    for name in getattr(module, "__all__", dir(module)):
        thing = getattr(module, name)
        if name.startswith("_") or not getattr(thing, "__module__", "").startswith("attrain"):
            continue
        if inspect.isfunction(thing):
            found[f"{place}.{name}"] = thing
        elif inspect.isclass(thing):
            methods = inspect.getmembers(thing, inspect.isfunction)
            own = {n: m for n, m in methods if m.__module__.startswith("attrain") and not n.startswith("_")}
            found |= {f"{place}.{name}.{n}": m for n, m in own.items()}
            if "__init__" in vars(thing) and not hasattr(thing, "__dataclass_fields__"):
                found[f"{place}.{name}"] = thing.__init__
    return found


PUBLIC = {name: thing for place in PLACES.split() for name, thing in callables(place).items()}


@pytest.mark.parametrize("name", PUBLIC)
def test_what_users_call_is_typed(name):
    """Every argument and every result."""
    signature = inspect.signature(PUBLIC[name])
    empty = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
    assert not empty
    assert signature.return_annotation is not inspect.Signature.empty or name.endswith("__init__")
