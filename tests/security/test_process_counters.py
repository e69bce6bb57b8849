"""How a process counts requests for itself while Redis is away (decision 0037)."""

import pytest

from security import process_counters
from security.process_counters import ProcessCounters


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock says, to be set."""
    time = [1000.0]
    monkeypatch.setattr(process_counters, "monotonic", lambda: time[0])
    return time


def test_windows_of_a_process_are_fixed_and_begin_with_the_first_request(clock: list[float]) -> None:
    counters = ProcessCounters(60_000)
    assert counters.count_request("a") == (1, 60_000)
    clock[0] += 59
    assert counters.count_request("a") == (2, 1_000)
    assert counters.count_request("b") == (1, 60_000)
    clock[0] += 1
    assert counters.count_request("a") == (1, 60_000)
    assert counters.count_request("b") == (2, 59_000)
    assert counters.counted == 5


def test_windows_of_a_process_that_have_ended_take_no_room(clock: list[float]) -> None:
    counters = ProcessCounters(60_000)
    for number in range(100):
        counters.count_request(str(number))
    clock[0] += 60
    counters.count_request("one")
    assert list(counters.windows) == ["one"]


def test_beyond_its_room_a_process_forgets_the_oldest_window(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_counters, "MAX_COUNTERS", 3)
    counters = ProcessCounters(60_000)
    for key in ("a", "b", "c", "d"):
        counters.count_request(key)
    assert list(counters.windows) == ["b", "c", "d"]
    assert counters.count_request("d")[0] == 2
