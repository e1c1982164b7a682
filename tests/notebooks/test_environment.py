"""Both projects, the locks and environment.yml say the same."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
KIT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARY = tomllib.loads((ROOT / "lib/pyproject.toml").read_text())["project"]
LOCK, ZOO = ((ROOT / name).read_text() for name in ("requirements.lock", "requirements-zoo.lock"))
PYTHONS = ("3.11.7", "3.11.11", "3.12.1", "3.13.0")


def declared() -> list[Requirement]:
    """What both projects need from elsewhere, with all extras but the zoo."""
    groups = [project["dependencies"] for project in (KIT, LIBRARY)]
    groups += [group for p in (KIT, LIBRARY) for name, group in p["optional-dependencies"].items() if name != "zoo"]
    found = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in found if requirement.name != "attrain"]


def pins(lock: str = LOCK) -> list[Requirement]:
    return [Requirement(line.rstrip("\\ ")) for line in lock.splitlines() if re.match(r"[a-z0-9]", line)]


def pinned_for(python: str) -> dict[str, str]:
    """name -> version of the lock on Linux with that Python."""
    environment = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
    }
    chosen = [pin for pin in pins() if pin.marker is None or pin.marker.evaluate(environment)]
    names = [pin.name for pin in chosen]
    assert len(names) == len(set(names)), f"two pins of one package for {python}"
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in chosen}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_one_pin_that_satisfies_every_declared_requirement(python):
    locked = pinned_for(python)
    for requirement in declared():
        assert requirement.name in locked, f"{requirement} is not in requirements.lock: make lock"
        assert requirement.specifier.contains(locked[requirement.name]), f"{requirement}: make lock"


def test_the_locks_share_no_package_and_the_zoos_has_the_models():
    zoo = {pin.name for pin in pins(ZOO)}
    assert not zoo & {pin.name for pin in pins()}
    assert {Requirement(line).name for line in KIT["optional-dependencies"]["zoo"]} <= zoo


@pytest.mark.parametrize("lock", [LOCK, ZOO], ids=["main", "zoo"])
def test_every_pin_is_exact_and_has_hashes(lock):
    for block in re.split(r"\n(?=[a-z0-9])", lock)[1:]:
        assert re.match(r"[a-z0-9.-]+==[^ ]+", block) and "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("lock", [LOCK, ZOO], ids=["main", "zoo"])
def test_the_lock_says_how_to_renew_it_and_names_no_index(lock):
    assert "make lock" in lock.splitlines()[1] and "://" not in lock


def test_what_is_installed_is_what_is_pinned():
    import platform

    locked = pinned_for(platform.python_version())
    for requirement in declared():
        assert version(requirement.name).split("+")[0] == locked[requirement.name], requirement.name


def test_conda_takes_python_from_the_declared_range_and_all_else_from_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == LIBRARY["name"]
    plain = [line for line in environment["dependencies"] if isinstance(line, str)]
    (python,) = [line.split(" ", 1)[1] for line in plain if line.startswith("python ")]
    assert SpecifierSet(python) == SpecifierSet(KIT["requires-python"]) == SpecifierSet(LIBRARY["requires-python"])
    assert {line.split()[0] for line in plain} == {"python", "pip", "git", "make"}
    (by_pip,) = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert by_pip == ["-r requirements.lock"]


def test_versions_of_the_package_and_of_both_projects_agree():
    import attrain

    assert attrain.__version__ == LIBRARY["version"] == KIT["version"] == version("attrain") == version(KIT["name"])


def test_workflow_tests_every_python_that_is_declared():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    allowed = SpecifierSet(KIT["requires-python"])
    assert tested == [f"3.{minor}" for minor in range(30) if allowed.contains(f"3.{minor}.5")]
