"""Free times (contract, "Free times"), of the rules alone: over random days, hours, leave and bookings, in
zones whose clocks change in every way, they are those that a search through all times finds."""

import os
from datetime import timedelta
from random import Random

import pytest

from api.schedule.fitting import fit
from api.schedule.free_times import free_starts
from api.schedule.hours import intervals_of
from tests.support.free_times import model_of, random_case

SECOND = timedelta(seconds=1)
CASES = int(os.environ.get("MEDISECURE_FREE_TIMES", "10000"))


@pytest.mark.slow
def test_free_times_of_random_days_are_those_that_a_search_finds() -> None:
    """contract: "From
    the begin of each interval of the working hours a step is the length of a visit"."""
    found = 0
    for number in range(CASES):
        case = random_case(Random(number))  # noqa: S311 - the same cases each time
        intervals = intervals_of(case.hours, case.days, case.clinic)
        visits = list(free_starts(intervals, case.closed, case.busy, case.after))
        assert visits == model_of(case), (number, case)
        found += len(visits)
        for begins, ends in visits[number % 7 :][:1]:  # what a booking asks of a time
            wish = fit(case.hours, begins, case.clinic)
            assert (wish.ends, wish.is_offered, wish.is_inside) == (ends, True, True), (number, case, begins)
            between = fit(case.hours, begins + SECOND, case.clinic)
            assert between.intervals is None or not between.is_offered, (number, case, begins)
    assert found > CASES
