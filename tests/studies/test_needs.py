"""What a job asks a scheduler for, worked out by hand from records."""

import json

import pytest

from studies import needs as module
from studies.needs import UNKNOWN, needs


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Writes a record's times where those kept with the code, or those of a batch, lie; reading checks no more here."""
    monkeypatch.setattr(module, "RECORDS", tmp_path / "kept")
    monkeypatch.setattr(module, "load_record", lambda file: json.loads(file.read_text()))

    def write(folder, **times):
        file = tmp_path / folder / "laptop/isnet/x/record.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"times": times}))

    return write


def asked(tmp_path, seeds):
    found = needs("isnet/x", "laptop", seeds, tmp_path / "results")
    return found["runtime"], found["mem_mb"]


def test_without_a_record_a_job_asks_for_a_day_or_at_smoke_scale_half_an_hour(kept, tmp_path):
    assert asked(tmp_path, 1) == UNKNOWN[""] == (1440, 16000)
    assert needs("isnet/x", "smoke", 1, tmp_path) == {"runtime": 30, "mem_mb": 4000}


def test_of_a_notebook_that_trained_its_seeds_the_rest_is_what_is_left_of_its_time(kept, tmp_path):
    kept("kept", notebook_seconds=700.0, seed_seconds=[200.0, 300.0], megabytes=2000)
    assert asked(tmp_path, 1) == (35, 4000)  # (200 of rest + 300) · 3 / 60 + 10; 2000 · 1.5 + 1000
    assert asked(tmp_path, 2) == (50, 4000)
    assert asked(tmp_path, 0) == (20, 4000)


def test_of_a_notebook_that_found_its_seeds_finished_all_its_time_is_rest(kept, tmp_path):
    kept("kept", notebook_seconds=60.0, seed_seconds=[200.0, 300.0], megabytes=2000)
    assert asked(tmp_path, 1) == (28, 4000)
    assert asked(tmp_path, 0) == (13, 4000)


def test_a_record_of_this_batch_goes_first_and_one_without_memory_asks_for_the_usual(kept, tmp_path):
    kept("kept", notebook_seconds=6000.0, seed_seconds=[6000.0], megabytes=9000)
    kept("results", notebook_seconds=60.0, seed_seconds=[60.0])
    assert asked(tmp_path, 1) == (13, 16000)


def test_a_file_that_is_no_record_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECORDS", tmp_path / "kept")
    file = tmp_path / "results/laptop/isnet/x/record.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    assert asked(tmp_path, 1) == UNKNOWN[""]


def test_kept_records_are_understood(tmp_path):
    found = needs("isnet/mnist_background_bias", "laptop", 1, tmp_path)
    assert 10 < found["runtime"] < 600
