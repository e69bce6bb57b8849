"""The visit of an appointment: who came, who was seen, who did not come, and who says so."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from tests.support import audit_trail
from tests.support.appointments import FINAL, book, change, read
from tests.support.client import HTTP_CLIENT, Browser
from tests.support.factories import World
from tests.support.service import Backend
from tests.support.visits import Appointment, act, done, past, visit

NOBODY: dict[str, Any] = {"userId": None, "name": None, "role": None, "reason": None}
EXPECTED = {"state": "expected", "arrivedAt": None, "startedAt": None, "endedAt": None, **NOBODY}


def by(browser: Browser, reason: str | None = None) -> dict[str, Any]:
    me = browser.me()
    return {"userId": me["id"], "name": me["name"], "role": me["role"], "reason": reason}


def refusal(browser: Browser, some: Appointment, what: str) -> str:
    refused = act(browser, some, what)
    assert refused.status_code == 400, refused.text
    return str(refused.json()["detail"])


def test_a_visit_goes_from_expected_to_completed(world: World) -> None:
    some = past(world)
    assert visit(world.staff, some) == EXPECTED
    arrived = done(world.staff, some, "arrived")
    assert arrived == {**EXPECTED, **by(world.staff), "state": "arrived", "arrivedAt": arrived["arrivedAt"]}
    started = done(world.doctor, some, "started", reason="Before their turn: pain.")
    assert started == {
        **arrived,
        **by(world.doctor, "Before their turn: pain."),
        "state": "started",
        "startedAt": started["startedAt"],
    }
    assert read(world, some) == some  # the required answers know nothing of it
    assert change(world.admin, some, status="completed").status_code == 200
    completed = visit(world.doctor, some)
    assert completed == {
        **started, **by(world.admin), "state": "completed", "endedAt": completed["endedAt"],
    }  # fmt: skip
    instants = [datetime.fromisoformat(completed[name]) for name in ("arrivedAt", "startedAt", "endedAt")]
    assert instants == sorted(instants)


@pytest.mark.parametrize("before", [[], ["arrived"]])
def test_an_undo_leads_back_to_the_state_before(world: World, before: list[str]) -> None:
    """contract: "a visit that has started is as it was before that"."""
    some = past(world)
    former = done(world.staff, some, *before)
    undone = done(world.admin, some, "started", "undo", reason="The next patient.")
    assert undone == {**former, **by(world.admin, "The next patient.")}
    if before:
        assert done(world.staff, some, "undo") == {**EXPECTED, **by(world.staff)}
        later = done(world.staff, some, "started")  # with no arrival of its own
        assert (later["arrivedAt"], later["state"]) == (None, "started")
    assert refusal(world.staff, past(world), "undo") == "act: nothing of this visit can be undone"


STATES = {
    "expected": ([], {"arrived", "started", "noShow"}),
    "arrived": (["arrived"], {"started", "undo"}),
    "started": (["arrived", "started"], {"undo"}),
    "noShow": (["noShow"], {"undo"}),
}


@pytest.mark.parametrize("state", STATES)
def test_an_act_that_does_not_follow_is_400_and_changes_nothing(world: World, state: str) -> None:
    """contract: "Whatever does not follow from the state is 400"."""
    acts, possible = STATES[state]
    for what in {"arrived", "started", "noShow", "undo"}:
        some = past(world)
        before = done(world.staff, some, *acts)
        assert before["state"] == state
        answer = act(world.doctor, some, what)
        assert answer.status_code == (200 if what in possible else 400), (state, what)
        if what not in possible:
            assert answer.json()["detail"].startswith("act: ")
            assert visit(world.staff, some) == before


@pytest.mark.parametrize("end", ["completed", "cancelled"])
def test_no_act_changes_a_completed_or_cancelled_appointment(world: World, end: str) -> None:
    some = past(world)
    assert change(world.staff, some, status=end).status_code == 200
    for what in ("arrived", "started", "noShow", "undo"):
        assert act(world.admin, some, what).json() == FINAL


def test_nobody_is_missed_before_the_time_for_which_people_may_come_early(world: World) -> None:
    some = world.appointment()
    assert refusal(world.staff, some, "noShow") == "act: nobody is missed before the appointment begins"
    assert done(world.staff, some, "arrived")["state"] == "arrived"
    assert done(world.doctor, some, "started")["state"] == "started"


def test_a_no_show_is_cancelled_and_its_undo_scheduled_again(world: World) -> None:
    """contract: "it is `cancelled` from then on in every other answer"."""
    some = past(world)
    missed = done(world.staff, some, "noShow", reason="Not reached.")
    assert missed == {
        **EXPECTED, **by(world.staff, "Not reached."), "state": "noShow", "endedAt": missed["endedAt"],
    }  # fmt: skip
    assert read(world, some) == {**some, "status": "cancelled"}
    assert change(world.admin, some, status="completed").json() == FINAL
    assert done(world.doctor, some, "undo") == {**EXPECTED, **by(world.doctor)}
    assert read(world, some) == some
    changes = world.admin.get(f"/api/appointments/{some['id']}/history").json()["changes"]
    assert [(one["field"], one["from"], one["to"]) for one in changes] == [
        ("status", "cancelled", "scheduled"),
        ("visit", "noShow", "expected"),
        ("status", "scheduled", "cancelled"),
        ("visitReason", None, "Not reached."),
        ("visit", "expected", "noShow"),
    ]
    assert change(world.staff, some, status="cancelled").status_code == 200
    assert visit(world.staff, some)["state"] == "cancelled"


def test_a_no_show_costs_nothing_and_counts_as_cancelled(world: World) -> None:
    def figures() -> tuple[int, ...]:
        lists = (f"/api/appointments?limit=1&status={status}" for status in ("scheduled", "cancelled"))
        totals = [world.staff.get(each).json()["total"] for each in lists]
        return (*totals, world.admin.get("/api/dashboard/stats").json()["revenue"])

    some = past(world)
    scheduled, cancelled, revenue = figures()
    done(world.staff, some, "noShow")
    assert figures() == (scheduled - 1, cancelled + 1, revenue)
    done(world.staff, some, "undo")
    assert figures() == (scheduled, cancelled, revenue)


def test_the_undo_of_a_no_show_is_400_where_the_time_is_taken(world: World, doctors: list[str]) -> None:
    for same in ("doctor", "patient"):
        some = past(world)
        done(world.staff, some, "noShow")
        patient = world.chart()["id"] if same == "doctor" else some["patientId"]
        doctor = some["doctorId"] if same == "doctor" else doctors[2]
        other = book(world.staff, patient, doctor, some["date"]).json()
        taken = f"date: the {same} has another appointment at that time"
        assert refusal(world.staff, some, "undo") == taken
        assert visit(world.staff, some)["state"] == "noShow"
        assert change(world.staff, other, status="cancelled").status_code == 200
        assert done(world.staff, some, "undo")["state"] == "expected"


def test_a_move_leaves_the_patient_expected_at_the_new_time(world: World) -> None:
    """contract: "A move leaves the patient expected at the new time"."""
    some = past(world)
    done(world.staff, some, "arrived")
    for date in (world.past_slot(), some["date"]):  # and back to where it was
        assert change(world.staff, some, date=date).status_code == 200
        assert visit(world.staff, some) == EXPECTED
    assert done(world.staff, some, "started")["arrivedAt"] is None


def test_everybody_reads_their_own_visits_and_only_the_clinic_acts(world: World) -> None:
    patient, chart = world.linked_patient()
    some = past(world, patientId=chart["id"])
    assert act(patient, some, "arrived").status_code == 403
    assert act(world.other_doctor, some, "arrived").status_code == 404
    seen = done(world.doctor, some, "arrived", reason="Came early.")
    assert visit(patient, some) == visit(world.admin, some) == seen
    for stranger in (world.other_doctor, world.other_patient):
        assert stranger.get(f"/api/appointments/{some['id']}/visit").status_code == 404


def test_a_reason_may_be_absent_or_null_but_not_blank(world: World) -> None:
    some = past(world)
    for blank in ("", "  ", "x" * 501):
        assert act(world.staff, some, "arrived", reason=blank).status_code == 400
    assert done(world.staff, some, "arrived", reason=None)["reason"] is None


def test_a_visit_is_acted_on_as_it_was_read(world: World) -> None:
    """contract: "is 412 if somebody has changed the object meanwhile"."""
    some = past(world)
    path = f"/api/appointments/{some['id']}/visit"
    tag = world.staff.get(path).headers["etag"]
    arrived = world.staff.post(path, {"act": "arrived"}, headers={"if-match": tag})
    assert arrived.status_code == 200
    stale = world.staff.post(path, {"act": "started"}, headers={"if-match": tag})
    assert stale.status_code == 412
    new = arrived.headers["etag"]
    assert world.staff.get(path, headers={"if-none-match": new}).status_code == 304
    assert world.staff.post(path, {"act": "started"}, headers={"if-match": new}).status_code == 200


@pytest.mark.parametrize("acts", [["arrived"], ["noShow"], ["noShow", "undo"]])
def test_of_acts_at_once_one_succeeds(world: World, acts: list[str]) -> None:
    """contract: "Of two acts at once one is 200"."""
    some = past(world)
    done(world.staff, some, *acts[:-1])
    people = [world.admin, world.staff, world.doctor] * 4
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda browser: act(browser, some, acts[-1]).status_code, people))
    assert sorted(answers) == [200] + [400] * 11


def test_an_undo_and_a_booking_of_its_time_at_once(world: World, backend: Backend) -> None:
    """One of the two: never both, never neither, and no deadlock."""
    for _ in range(3):
        some = past(world)
        done(world.staff, some, "noShow")
        chart = world.chart()["id"]
        with ThreadPoolExecutor(8) as pool:
            undone = [pool.submit(act, world.staff, some, "undo") for _ in range(4)]
            booked = [pool.submit(book, world.staff, chart, some["doctorId"], some["date"]) for _ in range(4)]
        won = [one.result().status_code for one in undone].count(200)
        assert won + [one.result().status_code for one in booked].count(201) == 1
        assert (visit(world.staff, some)["state"] == "expected") == bool(won)


def test_acts_are_in_the_trail_which_vouches_for_them(world: World, backend: Backend, since: int) -> None:
    some = past(world)
    done(world.staff, some, "arrived", reason="Early")
    [row] = audit_trail.new(backend, since, "visit.update")
    assert (str(row["patient_id"]), str(row["target_id"])) == (some["patientId"], some["id"])
    assert len(audit_trail.new(backend, since, "visit.read")) == 2
    kept = backend.sql(
        "SELECT field, request_id FROM appointment_changes WHERE request_id = $1", row["request_id"]
    )
    assert [one["field"] for one in kept] == ["visit", "visitReason"]
    assert '"appointment_changes":[' in row["content"]


@pytest.mark.parametrize(("before", "back"), [("arrived", "arrived"), ("dreaming", "expected")])
def test_a_state_of_a_later_release_is_shown_and_can_be_undone(
    world: World, backend: Backend, before: str, back: str
) -> None:
    some = past(world)
    backend.sql(
        "INSERT INTO appointment_changes (appointment_id, at, role, request_id, field, before, after) "
        "VALUES ($1::text::uuid, now(), 'nurse', gen_random_uuid(), 'visit', $2, 'waiting')",
        some["id"],
        before,
    )
    cookie = f"access_token={world.staff.cookies['access_token']}"
    path = f"{world.staff.base_url}/api/appointments/{some['id']}/visit"
    shown = HTTP_CLIENT.get(path, headers={"cookie": cookie}).json()  # not compared with our contract
    assert (shown["state"], shown["role"]) == ("waiting", "nurse")
    for what in ("arrived", "started", "noShow"):
        assert refusal(world.staff, some, what) == "act: this release does not know the state; undo it first"
    assert done(world.staff, some, "undo")["state"] == back
