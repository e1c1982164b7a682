"""The library as its users install it: a wheel of `attrain` alone, beside torch and numpy and nothing else."""

import doctest
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from studies.study import ROOT

pytestmark = pytest.mark.ci


def run(*command, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needed(*names: str) -> set[str]:
    """The distributions that these need, as installed here, themselves included."""
    found, waiting = {}, [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        extras = {"", *wanted.extras} - found.get(wanted.name, set())
        found.setdefault(wanted.name, set()).update(extras)
        for line in distribution(wanted.name).requires or [] if extras else []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(need)
    return set(found)


def lend(site: Path, *names: str):
    """Links to installed distributions and to what they need: at hand, without another copy of gigabytes."""
    for name in needed(*names):
        for file in distribution(name).files:
            if file.parts[0] in ("..", "__pycache__") or (site / file).exists():
                continue
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).symlink_to(file.locate())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the source distribution, so that this is whole as well."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "lib", folder / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "lib")
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A Python that has torch, numpy and the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    lend(site, "torch", "numpy")
    run(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel)
    return folder


def python(environment: Path, *arguments) -> str:
    """That Python, elsewhere than in the repository and without its paths."""
    return run(environment / "bin/python", "-I", *arguments, cwd=environment)


def test_it_holds_attrain_alone_typed_with_its_licence_and_its_readme(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        about = HeaderParser().parsestr(archive.read(metadata).decode())
    assert {name.split("/")[0] for name in names} == {"attrain", metadata.split("/")[0]}
    modules = {str(path.relative_to(ROOT / "lib")) for path in (ROOT / "lib/attrain").rglob("*.py")}
    assert {name for name in names if name.startswith("attrain/")} == modules | {"attrain/py.typed"}
    assert metadata.replace("METADATA", "licenses/LICENSE") in names
    assert about["License-Expression"] == "MIT" and "explain(model, x" in about.get_payload()


def test_it_requires_torch_and_numpy_and_what_else_is_an_extra(wheel, environment):
    said = python(environment, "-c", "import importlib.metadata as m; print(*m.requires('attrain'), sep='\\n')")
    required = [Requirement(line) for line in said.splitlines()]
    assert {r.name for r in required if r.marker is None} == {"torch", "numpy"}
    assert {r.name for r in required if r.marker} <= {
        "attrain", "matplotlib", "scipy", "torchmetrics", "tqdm", "zennit"
    }  # fmt: skip
    run(sys.executable, "-m", "pip", "--python", environment / "bin/python", "check")


def test_its_readmes_example_runs_there(environment):
    shutil.copy(ROOT / "lib/README.md", environment)
    assert python(environment, "-m", "doctest", "README.md") == ""


# What downloads a network's weights gives random ones instead.
OFFLINE = """
import torchvision.models._api as api, torchvision.models as models
api.load_state_dict_from_url = lambda *args, **kwargs: models.resnet18().state_dict()
import matplotlib
matplotlib.use("agg")
"""


def test_the_projects_readmes_examples_run_there_beside_torchvision_and_matplotlib(environment):
    (site,) = environment.glob("lib/python*/site-packages")
    lend(site, "torchvision", "matplotlib", "scipy")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    sessions = "\n".join(block for block in blocks if block.startswith(">>>"))
    assert len(doctest.DocTestParser().get_examples(sessions)) > 5
    (environment / "examples.md").write_text(sessions)
    assert python(environment, "-m", "doctest", "examples.md") == ""
    Image.new("RGB", (300, 280), (90, 120, 30)).save(environment / "photo.jpg")
    for program in (block for block in blocks if not block.startswith(">>>")):
        python(environment, "-c", OFFLINE + program)


def test_what_needs_an_extra_is_there_by_name_and_says_what_is_missing(environment):
    code = "import attrain; assert 'EPG' in dir(attrain); attrain.EPG"
    done = subprocess.run([environment / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "torchmetrics" in done.stderr.splitlines()[-1]
