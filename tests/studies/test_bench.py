"""`make bench`: every case runs, and what it says of a run is right."""

import json
import math

import pandas as pd
import pytest
import torch

from attrain.training import plain_step
from studies.bench import __main__ as bench
from studies.bench import cases, measure, scaling, tables
from studies.bench.cases import CHALLENGED, Sizes
from studies.bench.epochs import STUDIES, epoch_cases
from studies.bench.variations import variation_cases
from studies.nets.small import SmallCNN

CPU = torch.device("cpu")
TINY = Sizes(2, 32, 3, 32, (), (), 2, (2, 112), 2)
PEAK = {"flops": 1e9, "bytes": 1e9}
GROUPS = ("map", "genomics", "isnet", "transformer", "guided", "loss", "challenger")
ALL = [case for group in GROUPS for case in getattr(cases, f"{group}_cases")(TINY, CPU)]
ALL += variation_cases(TINY, CPU)


def one(name: str) -> measure.Case:
    return next(case for case in ALL if name in case.name)


@pytest.mark.filterwarnings("ignore")  # other packages' own
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_both_sides_of_a_case_run(case):
    for run in case.sides():
        run()
    assert case.error is None or 1e-6 < case.error() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("case", list(epoch_cases(CPU)), ids=lambda case: case.name)
def test_an_epoch_of_each_study_runs(case):
    guided, plain = case.sides()
    guided()
    plain()


def test_names_are_unique_and_every_study_that_trains_on_maps_has_an_epoch():
    names = [case.name for case in bench.all_cases("small", CPU)]
    assert len(set(names)) == len(names)
    assert {kind.partition(",")[0].split()[0] for kind in names} == {"map", "step", "loss", "epoch"}
    assert {study.split("/")[0] for study in STUDIES} == {"isnet", "energy", "challenger"}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("Rescale / input × gradient", 1 + 1 / 4),  # two samples
        ("of all 10 classes", 5.5),
        ("Selective ISNet / plain", 2.0),
        ("by AttnLRP / plain", 2.0),
        ("by AttnLRP: 1000 classes / 10", 1.0),
        ("Dual ISNet / plain", 4.0),
        ("original ISNet / plain", 11.0),
        ("1000 classes / 2", 1.0),
        ("energy at Final", 1.0),
        ("FGSM", CHALLENGED),
    ],
)
def test_the_bound_is_the_number_of_products(case, expected):
    assert one(case).bound == pytest.approx(expected)


@pytest.mark.parametrize(
    ("case", "share"),
    [("Selective ISNet / plain", 0.1), ("Stochastic ISNet / plain", 0.1), ("original ISNet / plain", 0.2)],
)
def test_the_products_that_torch_counts_are_those_of_the_bound(case, share):
    """Also for the original, but for z^B, which has three products for each map's one at the first layer."""
    guided, plain = (measure.count(run, PEAK)["flops"] for run in one(case).sides())
    assert guided / plain == pytest.approx(one(case).bound, rel=share)


def test_a_run_is_counted_by_its_products_and_its_operands():
    a, b = torch.rand(10, 20), torch.rand(20, 30)
    found = measure.count(lambda: (a @ b).t(), {"flops": 1e6, "bytes": 1e30})
    assert found == {"flops": 2 * 10 * 20 * 30, "least_seconds": pytest.approx(0.012)}
    found = measure.count(lambda: a + a, {"flops": 1e30, "bytes": 1e6})
    assert found == {"flops": 0, "least_seconds": pytest.approx(4 * 3 * 200 / 1e6)}


def test_peaks_are_those_of_a_processor():
    found = measure.peaks(CPU)
    assert 1e8 < found["bytes"] < 1e12 and 1e8 < found["flops"] < 1e13


def test_a_row_has_the_ratio_of_the_sides_and_says_whether_the_target_is_met():
    def sides():
        a, b = torch.rand(400, 400), torch.rand(40, 400)
        return lambda: [a @ a for _ in range(20)], lambda: b @ a

    row = measure.measure(measure.Case("map: x / y", sides, 1.0, 1.5, 1e9), CPU, PEAK, 0.1, 9)
    assert row["ratio"] > 5 and row["low"] <= row["ratio"] <= row["high"] and row["verdict"] == "fails"
    assert row["memory_met"] and row["gigaflops"] == pytest.approx([20 * 2 * 0.064, 2 * 0.0064])
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert tables.cells(row)["target"] == "≤ 1.5: fails; memory ≤ 1e+09: holds"


def test_the_interval_of_a_median_of_few_is_all_of_them():
    assert measure.median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_the_exponent_of_a_quadratic_run_is_two_in_memory():
    sizes = (50, 100, 200, 400)
    found = measure.growth({n: lambda n=n: torch.zeros(n, n) for n in sizes}, CPU, 1)
    assert found["x"] == [*sizes] and found["exponent of megabytes"] == pytest.approx([2, 2, 2], abs=1e-3)
    low, high = found["exponent of seconds"][1:]
    assert low < high and all(map(math.isfinite, (low, high)))


def test_what_grows_is_run_at_every_size():
    found = {(run, what): points for run, what, points in scaling.lines("small", CPU)}
    assert {what for _, what in found} == {"batch", "edge", "classes", "references"}
    for points in found.values():
        assert len(points) >= 4
        points[min(points)]()()


def test_the_times_of_operations_are_in_units_of_a_step_and_add_up():
    net, x, y = SmallCNN(width=2), torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
    step = lambda: plain_step(net, x, y)[1].backward()  # noqa: E731
    many = lambda: [step() for _ in range(10)]  # noqa: E731
    found = measure.in_units({"one": step, "ten": many}, step, CPU, most=4)
    assert len(found["one"]) == 5 and "all others" in found["one"]
    assert any("convolution" in name for name in found["one"])
    assert sum(found["ten"].values()) > 2 * sum(found["one"].values()) > 0


def test_the_command_lists_cases_and_measures_those_that_are_asked_for(results, capsys, monkeypatch):
    monkeypatch.setattr(bench, "peaks", lambda device: {"flops": 1e12, "bytes": 1e12})  # a product of matrices is slow
    assert bench.main(["--cases", "--only", "FGSM"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 1 and listed[0].endswith("FGSM / plain")
    assert bench.main(["--only", "FGSM", "--most", "3", "--seconds", "0"]) == 0
    record = json.loads((results / "bench.json").read_text("utf-8"))
    assert [row["case"] for row in record["cases"]] == listed and record["cases"][0]["repetitions"] == 3
    assert {"captum", "zennit", "torch"} <= record["environment"].keys() and record["machine"]["processor"]
    assert 0 < record["cases"][0]["share_of_peak"] < 1 and (results / "bench.png").stat().st_size > 10_000


def test_a_record_of_some_cases_is_not_kept(results, capsys):
    assert bench.main(["--only", "FGSM", "--keep", "new"]) == 1
    assert "all cases" in capsys.readouterr().err and not tables.path("cpu", "new").exists()


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--device", "nowhere", "device 'nowhere' cannot be used here"),
        ("--only", "*ISNet", "--only must be a regular expression, got '*ISNet'"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_line(option, given, said, capsys):
    with pytest.raises(SystemExit):
        bench.main([option, given])
    assert said in capsys.readouterr().err


# ---------------------------------------------------------------- what is made of a record


def record(**change) -> dict:
    row = {
        "case": "map, net 1×1: captum's / plain",
        "ratio": 3.0,
        "low": 2.5,
        "high": 3.25,
        "bound": 2.0,
        "target": 2.2,
    }
    row |= {"verdict": "fails", "milliseconds": 3.25, "megabytes": [10.0, 5.0], "share_of_peak": 0.25, "error": None}
    grown = {"run": "map", "grows": "batch", "x": [1, 2], "seconds": [1.0, 2.0], "megabytes": [4.0, 4.0]}
    grown |= {"exponent of seconds": [1.0, 0.9, 1.1], "exponent of megabytes": [0.0, -0.1, 0.1]}
    return {
        "cases": [row | change],
        "scaling": [grown],
        "profile": {"a": {"all others": 0.2, "x": 0.1, "y": 0.3}, "b": {"x": 0.5}},
    }


def test_the_table_has_a_column_a_record_and_the_words_of_a_row():
    found = tables.table({"before": record(ratio=4.0), "after": record()})
    assert found.index.tolist() == ["map, net 1×1: captum's / plain"]
    row = found.iloc[0]
    assert row["before"] == "4.00 [2.50, 3.25]" and row["after"] == "3.00 [2.50, 3.25]"
    assert row["bound"] == "2.00" and row["above it"] == "+50%" and row["MB"] == "10 / 5"
    assert row["target"] == "≤ 2.2: fails" and row["of peak"] == "25%"
    assert tables.table({"before": record(), "after": {"cases": []}})["after"].tolist() == [""]


def test_a_line_has_its_columns_under_the_header():
    text, header = tables.line(record()["cases"][0]), tables.header()
    assert text.index("map, net") == header.index("case")


def test_tables_of_growth_and_of_operations():
    assert tables.scaling_table(record()).loc[("map", "batch"), "seconds"] == "1.00 [0.90, 1.10]"
    assert tables.profile_table(record()).index.tolist() == ["x", "y", "all others", "sum"]
    assert tables.profile_table(record()).loc["sum"].tolist() == pytest.approx([0.6, 0.5])


def test_a_trial_is_told_with_its_measurement(tmp_path):
    file = tmp_path / "tried.yaml"
    trials = [
        {"what": "a", "expected": "b", "case": "map, net 1×1: captum's / plain", "decision": "rejected"},
        {"what": "c", "expected": "d", "measured": "e", "decision": "kept"},
        {"what": "f", "expected": "g", "case": "no such case", "decision": "open"},
    ]
    file.write_text(json.dumps(trials))
    found = tables.tried(record(error=0.012), file)
    assert found["measured"].tolist() == [
        "ratio 3.00 [2.50, 3.25], MB 10 / 5, error of the map 1%", "e", "not measured yet"
    ]  # fmt: skip
    assert isinstance(found, pd.DataFrame) and len(tables.tried(record())) >= 6


def test_the_picture_has_a_row_a_case_and_marks_others():
    figure = tables.ratios({"before": record(), "after": record()})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["map, net 1×1: captum's / plain"]
    assert tables.others("map: captum's / ours") and not tables.others("map: ours / captum's")


def test_the_picture_of_growth_has_a_panel_a_quantity():
    assert len(tables.scaling(record()).axes) == 2


def test_a_record_that_is_not_kept_is_asked_for_by_its_command():
    with pytest.raises(FileNotFoundError, match=r"cpu-never\.json .*make bench DEVICE=cpu KEEP=never"):
        tables.load("cpu", "never")
