"""The undo of a no-show where the doctor has another visit then: both are scheduled again if one was booked
over the other, and nothing else is."""

from itertools import product
from typing import Any

import pytest

from security.roles import Role
from tests.support.accounts import make_account
from tests.support.appointments import book, change, now, read
from tests.support.factories import World
from tests.support.visits import Appointment, act, done, past

TAKEN = {"detail": "date: the doctor has another appointment at that time"}
PERMIT = {"overbook": {"reason": "An emergency"}}
ALWAYS = {"from": "2000-01-01T00:00:00Z", "to": "9999-01-01T00:00:00Z"}


def other(world: World, some: Appointment, **more: Any) -> Appointment:
    """Another patient's at the same time, with the same doctor."""
    answer = book(world.staff, world.chart()["id"], some["doctorId"], some["date"], **more)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def is_restored(world: World, some: Appointment) -> bool:
    answer = act(world.staff, some, "undo")
    if answer.status_code == 200:
        assert read(world, some)["status"] == "scheduled"
        return True
    assert (answer.status_code, answer.json()) == (400, TAKEN)
    assert read(world, some)["status"] == "cancelled"
    return False


@pytest.mark.parametrize("is_moved", [False, True], ids=["booked", "moved"])
def test_an_undo_restores_what_was_allowed_to_overlap(world: World, is_moved: bool) -> None:
    some = past(world)
    if is_moved:
        over = past(world)
        assert change(world.staff, over, date=some["date"], **PERMIT).status_code == 200
    else:
        over = other(world, some, **PERMIT)
    for one in (some, over):
        done(world.staff, one, "noShow")
        assert is_restored(world, one)
    pairs = (some, over), (over, some)
    for missed, undone in product(pairs, pairs):
        for one in missed:
            done(world.staff, one, "noShow")
        assert [is_restored(world, one) for one in undone] == [True, True]


def test_an_undo_does_not_restore_over_what_has_come_there_since(world: World) -> None:
    some = past(world)
    over = other(world, some, **PERMIT)
    done(world.staff, some, "noShow")
    for date in (world.past_slot(), some["date"]):
        assert change(world.staff, over, date=date).status_code == 200
    assert not is_restored(world, some)


def test_what_was_booked_over_a_third_is_not_restored_over_one_that_was_not_there(world: World) -> None:
    some = past(world)
    done(world.staff, some, "noShow")
    third = other(world, some)
    over = other(world, third, **PERMIT)
    done(world.staff, over, "noShow")
    assert change(world.staff, third, status="cancelled").status_code == 200
    assert is_restored(world, some)
    assert not is_restored(world, over)
    done(world.staff, some, "noShow")  # in the other order
    assert is_restored(world, over)
    assert not is_restored(world, some)


def test_an_undo_does_not_restore_over_what_the_doctor_took_over_since(world: World) -> None:
    doctor, colleague = (str(make_account(world, Role.DOCTOR)["id"]) for _ in range(2))
    third = world.appointment(doctorId=doctor, date=now(minutes=-5))
    over = other(world, third, **PERMIT)
    taken = world.appointment(doctorId=colleague, date=now(minutes=5))
    done(world.staff, over, "noShow")
    assert change(world.staff, third, status="cancelled").status_code == 200
    asked = {"doctorId": colleague, **ALWAYS, "appointments": {"reassignTo": doctor}}
    assert world.staff.post("/api/appointments/reassign", asked).json()["total"] == 1
    assert read(world, taken)["doctorId"] == doctor
    assert not is_restored(world, over)
