"""Records that were taken back (contract, "Amending and retracting a record")."""

from typing import Any

import httpx
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World

pytestmark = pytest.mark.slow

TEXTS = {"diagnosis": "Of somebody else", "prescription": "Rest", "notes": "", "attachments": ["a.pdf"]}
Json = dict[str, Any]


def amend(browser: Browser, record: str) -> httpx.Response:
    return browser.post(f"/api/records/{record}/versions", {"reason": "A slip", "notes": "x"})


def retract(browser: Browser, record: str, reason: str = "Wrong chart") -> httpx.Response:
    return browser.post(f"/api/records/{record}/retraction", {"reason": reason})


def versions(browser: Browser, record: str) -> Json:
    found = browser.get(f"/api/records/{record}/versions")
    assert found.status_code == 200, found.text
    return dict(found.json())


@pytest.fixture
def record(world: World) -> Json:
    """Of a chart of its own."""
    return world.record(world.chart()["id"], **TEXTS)


def test_only_the_author_or_an_administrator_retracts_a_record(world: World, record: Json) -> None:
    """contract: "Of the doctors only for the one who wrote the record"."""
    for browser in (world.other_doctor, world.staff, world.patient):
        assert retract(browser, record["id"]).status_code == 403
    assert world.doctor.get(f"/api/records/{record['id']}").status_code == 200
    taken = retract(world.admin, record["id"], "Of somebody else")
    me = world.admin.me()
    assert taken.status_code == 201
    assert list(taken.json()) == ["at", "userId", "name", "role", "reason"]
    assert {**taken.json(), "at": ""} == {
        "at": "", "userId": me["id"], "name": me["name"], "role": "admin", "reason": "Of somebody else",
    }  # fmt: skip
    found = versions(world.other_doctor, record["id"])
    assert found["retraction"] == taken.json()
    [original] = found["versions"]
    assert {name: original[name] for name in TEXTS} == TEXTS


def test_a_retraction_without_a_reason_is_400(world: World, record: Json) -> None:
    for body in ({}, {"reason": None}, {"reason": " "}):
        refused = world.doctor.post(f"/api/records/{record['id']}/retraction", body)
        assert (refused.status_code, refused.json()) == (400, {"detail": "reason: is required"})
    assert world.doctor.get(f"/api/records/{record['id']}").json() == record


def test_a_retracted_record_is_gone_for_everybody(world: World) -> None:
    """contract: "It is then 404 to everybody, the patient included, and no list, total or dashboard counts
    it"."""
    patient, chart = world.linked_patient()
    doctor, _ = world.account(Role.DOCTOR)

    def figures() -> list[Json]:
        return [
            {"total": world.admin.get("/api/records?limit=1").json()["total"]},
            patient.get("/api/records").json(),
            patient.get("/api/dashboard/stats").json(),
            doctor.get("/api/dashboard/stats").json(),
        ]

    before = figures()
    record = doctor.post("/api/records", {"patientId": chart["id"], **TEXTS}).json()["id"]
    assert amend(doctor, record).status_code == 201
    assert all(now != then for now, then in zip(figures(), before, strict=True))
    assert retract(doctor, record).status_code == 201
    for browser in (world.admin, doctor, world.other_doctor, patient):
        assert browser.get(f"/api/records/{record}").status_code == 404
        assert browser.get(f"/api/records?patientId={chart['id']}").json() == {"records": [], "total": 0}
    assert figures() == before


def test_a_report_that_was_retracted_is_pending_again(world: World) -> None:
    """contract: "lists, totals and dashboards are as if it had never been"."""
    doctor, me = world.account(Role.DOCTOR)
    visit = world.appointment(doctorId=me["id"], date=world.past_slot())
    assert doctor.patch(f"/api/appointments/{visit['id']}", {"status": "completed"}).status_code == 200

    def pending() -> int:
        return int(doctor.get("/api/dashboard/stats").json()["pendingReports"])

    assert pending() == 1
    record = doctor.post("/api/records", {"patientId": visit["patientId"], **TEXTS}).json()["id"]
    assert pending() == 0
    assert retract(doctor, record).status_code == 201
    assert pending() == 1


def test_a_retracted_record_is_neither_amended_nor_retracted_again(world: World, record: Json) -> None:
    """contract: "Nothing brings it back, so a second retraction is 400"."""
    assert retract(world.doctor, record["id"]).status_code == 201
    before = versions(world.doctor, record["id"])
    for refused in (
        amend(world.doctor, record["id"]),
        retract(world.doctor, record["id"]),
        retract(world.admin, record["id"]),
    ):
        assert (refused.status_code, refused.json()) == (400, {"detail": "The record was retracted"})
    assert amend(world.other_doctor, record["id"]).status_code == 403
    assert retract(world.other_doctor, record["id"]).status_code == 403
    assert versions(world.doctor, record["id"]) == before


def test_patients_do_not_read_versions_of_what_was_retracted(world: World) -> None:
    """contract: "to a patient it is 404 here too"."""
    patient, chart = world.linked_patient()
    own = world.record(chart["id"], **TEXTS)["id"]
    assert amend(world.doctor, own).status_code == 201
    assert versions(patient, own)["total"] == 2
    assert retract(world.doctor, own).status_code == 201
    assert patient.get(f"/api/records/{own}/versions").status_code == 404
    assert versions(world.doctor, own)["total"] == 2
