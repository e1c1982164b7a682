"""The quick form of tests/kills.py, whose thirty take minutes."""

import pytest

from tests import kills


@pytest.mark.ci
def test_batches_that_are_killed_lose_and_leave_nothing():
    kills.main(times=3)
