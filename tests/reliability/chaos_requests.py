"""Every kind of request, by each role, as a clinic asks them: mostly reads, and few that hash a password."""

from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from tests.bench.clinic import PASSWORD as CLINIC_PASSWORD
from tests.bench.clinic import uid
from tests.support.calls import CASES, CHART, DOCTOR, Case, Request, somebody
from tests.support.client import Browser
from tests.support.factories import PASSWORD, World, registration

HASHING = {"login", "register", "refresh", "logout", "changeMyPassword", "endMySession", "setUserPassword",
           "updateUser"}  # fmt: skip
WRITING = {"createPatient", "updatePatient", "createAppointment", "updateAppointment", "createRecord",
           "createRecordVersion", "retractRecord", "mergePatient", "unmergePatient", "updateMe",
           "linkPatientAccount", "unlinkPatientAccount", "putDoctorHours", "updateVisit",
           "reassignAppointments", "createAbsence", "deleteAbsence",
           "createMyCalendar", "endMyCalendar"}  # fmt: skip
WEIGHTS = {"hashing": 0.05, "writing": 4.0, "document": 0.2, "reading": 3.0}
# What a request may be refused with: a slot that somebody else has taken, a link that is gone already.
EXPECTED = {("createAppointment", 400), ("unlinkPatientAccount", 404)}
RUSHED_SLOTS = 200  # for which many people ask
lanes = count()
subscribers: dict[int, Browser] = {}  # by their lanes


class Kind(NamedTuple):
    """`must_succeed`: whether it is for nobody else to take."""

    operation: str
    case: Case
    weight: float


def refresh(world: World, n: int) -> Request:
    return Request(somebody(world), "POST", "/api/auth/refresh")


def end_my_session(world: World, n: int) -> Request:
    """Of an account of their own: nobody else's session ends."""
    person, me = world.account()
    other = world.service.browser()
    assert other.login(me["email"], PASSWORD).status_code == 200
    listed = person.get("/api/users/me/sessions").json()["sessions"]
    session = next(one["id"] for one in listed if not one["current"])
    return Request(person, "DELETE", f"/api/users/me/sessions/{session}")


def update_user(world: World, n: int) -> Request:
    made = world.admin.post("/api/auth/register", registration())
    assert made.status_code == 201
    return Request(world.admin, "PATCH", f"/api/users/{made.json()['id']}", {"status": "disabled"})


def lane_of(world: World) -> int:
    """Each thread links a chart and an account of its own."""
    if not hasattr(world, "lane"):
        world.lane = 100 + next(lanes) % 40  # type: ignore[attr-defined]  # of this module only
    return int(world.lane)  # type: ignore[attr-defined]  # as above


def link(world: World, n: int) -> Request:
    lane = lane_of(world)
    path = f"/api/patients/{uid('patient', lane)}/account"
    world.admin.delete(path)
    return Request(world.admin, "PUT", path, {"userId": uid("puser", lane)})


def unlink(world: World, n: int) -> Request:
    linked = link(world, n)
    assert linked.browser.put(linked.path, linked.body).status_code == 200
    return Request(world.staff, "DELETE", linked.path)


def subscribed(world: World) -> tuple[Browser, str]:
    """The account of the thread's own lane, and the path of a new feed of it, which no other thread ends."""
    lane = lane_of(world)
    browser = subscribers.setdefault(lane, world.service.browser())
    if not browser.cookies:
        assert browser.login(f"patient{lane}@example.com", CLINIC_PASSWORD).status_code == 200
    made = browser.post("/api/users/me/calendar")
    assert made.status_code == 201
    return browser, urlsplit(made.json()["url"]).path


def read_feed(world: World, n: int) -> Request:
    return Request(world.service.browser(), "GET", subscribed(world)[1])


def end_feed(world: World, n: int) -> Request:
    return Request(subscribed(world)[0], "DELETE", "/api/users/me/calendar")


def create_record(world: World, n: int) -> Request:
    body = {"patientId": CHART, "diagnosis": f"Well {uuid4()}", "prescription": "", "notes": ""}
    return Request(world.doctor, "POST", "/api/records", body)


def rush(chance: Random) -> Callable[[World, int], Request]:
    """A booking of a slot that others ask for as well."""

    def make(world: World, n: int) -> Request:
        body: dict[str, Any] = {"patientId": CHART, "doctorId": DOCTOR, "reason": "Check-up"}
        minute = chance.randrange(RUSHED_SLOTS) * 10
        body["date"] = f"2099-01-{minute // 1440 + 1:02}T{minute // 60 % 24:02}:{minute % 60:02}:00Z"
        return Request(world.staff, "POST", "/api/appointments", body)

    return make


OWN: dict[str, Callable[[World, int], Request]] = {
    "refresh": refresh,
    "endMySession": end_my_session,
    "updateUser": update_user,
    "linkPatientAccount": link,
    "unlinkPatientAccount": unlink,
    "createRecord": create_record,
    "getCalendar": read_feed,
    "getCalendarHead": lambda world, n: read_feed(world, n)._replace(method="HEAD"),
    "endMyCalendar": end_feed,
}


def kinds(chance: Random) -> list[Kind]:
    """All of them; those of one operation share its weight."""
    cases = {**CASES, **{operation: [Case(make)] for operation, make in OWN.items()}}
    cases["createAppointment"] = [*cases["createAppointment"], Case(rush(chance))]
    return [
        Kind(operation, case, WEIGHTS[class_of(operation)] / len(those))
        for operation, those in sorted(cases.items())
        for case in those
    ]


def class_of(operation: str) -> str:
    if operation in HASHING:
        return "hashing"
    if operation in WRITING:
        return "writing"
    is_document = operation.startswith(("getOpenapi", "getDocs", "getSecurity", "check"))
    return "document" if is_document else "reading"
