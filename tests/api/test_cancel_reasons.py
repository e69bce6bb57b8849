"""Why an appointment was cancelled: said with the change itself, shown in its visit and in its history."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.appointments import FINAL, change, read
from tests.support.factories import World
from tests.support.visits import done, past, visit

CANCELLED = "cancelled"


def test_the_visit_says_who_cancelled_when_and_why(world: World) -> None:
    patient, chart = world.linked_patient()
    some = world.appointment(patientId=chart["id"])
    answer = change(patient, some, status=CANCELLED, cancelReason="Found another date.")
    assert (answer.status_code, answer.json()) == (200, {**some, "status": CANCELLED})
    found = visit(world.staff, some)
    me = patient.me()
    assert found == {
        "state": "cancelled", "arrivedAt": None, "startedAt": None, "endedAt": found["endedAt"],
        "userId": me["id"], "name": me["name"], "role": "patient", "reason": "Found another date.",
    }  # fmt: skip
    assert visit(patient, some) == found
    changes = world.admin.get(f"/api/appointments/{some['id']}/history").json()["changes"]
    assert {(one["field"], one["from"], one["to"], one["at"]) for one in changes} == {
        ("status", "scheduled", "cancelled", found["endedAt"]),
        ("cancelReason", None, "Found another date.", found["endedAt"]),
    }


def test_a_patient_who_had_come_stays_so(world: World) -> None:
    some = past(world)
    arrived = done(world.staff, some, "arrived", reason="Early.")
    assert change(world.doctor, some, status=CANCELLED).status_code == 200
    found = visit(world.staff, some)
    assert (found["state"], found["arrivedAt"], found["reason"]) == ("cancelled", arrived["arrivedAt"], None)
    assert found["role"] == "doctor"


@pytest.mark.parametrize(
    "body",
    [
        {"cancelReason": "x"},
        {"cancelReason": "x", "status": "completed"},
        {"cancelReason": "x", "status": "scheduled"},
        {"cancelReason": "x", "notes": "y"},
        {"cancelReason": "", "status": CANCELLED},
        {"cancelReason": " ", "status": CANCELLED},
        {"cancelReason": None, "status": CANCELLED},
        {"cancelReason": "x" * 501, "status": CANCELLED},
    ],
)
def test_a_reason_goes_with_a_cancellation_only(world: World, body: dict[str, Any]) -> None:
    """contract: "only together with `status: cancelled`"."""
    some = past(world)
    refused = change(world.staff, some, **body)
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("cancelReason: ")
    assert read(world, some) == some


def test_the_reason_of_a_cancelled_appointment_stays(world: World) -> None:
    """contract: "a field equal to its stored value counts as absent"."""
    some = world.appointment()
    for reason, wanted in (("First.", 200), ("First.", 200), ("Second.", 400)):
        answer = change(world.staff, some, status=CANCELLED, cancelReason=reason)
        assert answer.status_code == wanted
    assert answer.json() == FINAL
    assert change(world.staff, some, status=CANCELLED).status_code == 200
    assert visit(world.staff, some)["reason"] == "First."
    total = world.staff.get(f"/api/appointments/{some['id']}/history").json()["total"]
    assert total == 2


def test_of_cancellations_at_once_one_says_why(world: World) -> None:
    some = world.appointment()

    def cancel(reason: str) -> int:
        return change(world.staff, some, status=CANCELLED, cancelReason=reason).status_code

    reasons = [f"Reason {number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(cancel, reasons))
    assert sorted(answers) == [200] + [400] * 7
    assert visit(world.staff, some)["reason"] == reasons[answers.index(200)]


def test_an_appointment_may_be_moved_and_cancelled_with_a_reason(world: World) -> None:
    some = past(world)
    done(world.staff, some, "arrived")
    moved = {"date": world.past_slot(), "status": CANCELLED, "cancelReason": "Entered for the wrong day."}
    assert change(world.staff, some, **moved).status_code == 200
    found = visit(world.staff, some)
    assert (found["arrivedAt"], found["reason"]) == (None, "Entered for the wrong day.")
