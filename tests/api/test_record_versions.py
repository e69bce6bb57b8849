"""Records are amended, and every text that they had stays readable (contract, "Amending and retracting a
record")."""

from typing import Any
from uuid import UUID

import httpx
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend

pytestmark = pytest.mark.slow

TEXTS = {
    "diagnosis": "Allergy to é\n",
    "prescription": "  Rest\t",
    "notes": "\r\n💊 one\u2028two  ",
    "attachments": ["b.pdf", "a.pdf", "a.pdf"],
}
VERSION_KEYS = [
    "at", "userId", "name", "role", "reason", "diagnosis", "prescription", "notes", "attachments",
]  # fmt: skip
NO_TEXT = "body: at least one of diagnosis, prescription, notes and attachments is required"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
Json = dict[str, Any]


def amend(browser: Browser, record: str, reason: str = "A slip", **texts: Any) -> httpx.Response:
    return browser.post(f"/api/records/{record}/versions", {"reason": reason, **texts})


def versions(browser: Browser, record: str, query: str = "") -> Json:
    found = browser.get(f"/api/records/{record}/versions?{query}")
    assert found.status_code == 200, found.text
    assert list(found.json()) == ["versions", "total", "retraction"]
    return dict(found.json())


def texts_of(version: Json) -> Json:
    return {name: version[name] for name in TEXTS}


@pytest.fixture
def record(world: World) -> Json:
    """Of a chart of its own."""
    return world.record(world.chart()["id"], **TEXTS)


def test_a_record_that_nobody_amended_has_one_version(world: World, record: Json) -> None:
    """contract: "Newest first; the original is the last, and its `reason` is `null`"."""
    found = versions(world.doctor, record["id"])
    me = world.doctor.me()
    [original] = found["versions"]
    assert list(original) == VERSION_KEYS
    assert texts_of(original) == TEXTS
    assert (original["userId"], original["name"], original["role"]) == (me["id"], me["name"], "doctor")
    assert (original["at"], original["reason"]) == (record["date"], None)
    assert (found["total"], found["retraction"]) == (1, None)


def test_an_amendment_is_what_every_operation_shows(world: World, record: Json) -> None:
    """contract: "from then on every operation shows the new text under the same keys"."""
    amended = amend(world.doctor, record["id"], prescription="", notes="Came alone")
    assert amended.status_code == 201
    assert amended.json() == {**record, "prescription": "", "notes": "Came alone"}
    assert world.admin.get(f"/api/records/{record['id']}").json() == amended.json()
    [listed] = world.doctor.get(f"/api/records?patientId={record['patientId']}").json()["records"]
    assert listed == amended.json()


def test_all_texts_of_a_record_stay_byte_for_byte(world: World, record: Json) -> None:
    """contract: "Each is whole, and as it was sent, byte for byte"."""
    changes: list[Json] = [
        {"diagnosis": "\u2028 Another\r\n"},
        {"attachments": []},
        {"prescription": "x" * 5000, "notes": "", "attachments": ["z.pdf"] * 20, "diagnosis": "Fourth"},
        {"notes": None, "diagnosis": "Fourth"},
    ]
    expected: list[Json] = [TEXTS]
    for number, change in enumerate(changes):
        assert amend(world.doctor, record["id"], f"Reason {number}", **change).status_code == 201
        sent = {name: value for name, value in change.items() if value is not None}
        expected.insert(0, {**expected[0], **sent})
    found = versions(world.admin, record["id"])
    assert [texts_of(version) for version in found["versions"]] == expected
    reasons = [version["reason"] for version in found["versions"]]
    assert reasons == ["Reason 3", "Reason 2", "Reason 1", "Reason 0", None]
    assert found["versions"][-1]["at"] == record["date"]
    instants = [version["at"] for version in found["versions"]]
    assert instants == sorted(instants, reverse=True)


def test_versions_are_paged(world: World, record: Json) -> None:
    for number in range(4):
        assert amend(world.doctor, record["id"], notes=str(number)).status_code == 201
    whole = versions(world.doctor, record["id"], "limit=100")
    assert whole["total"] == len(whole["versions"]) == 5
    pages = [versions(world.doctor, record["id"], f"limit=2&page={page}") for page in (1, 2, 3, 4)]
    assert [one for page in pages for one in page["versions"]] == whole["versions"]
    assert {page["total"] for page in pages} == {5}


def test_the_author_of_a_version_is_named_as_then(world: World) -> None:
    """contract: "Their name at that time"."""
    doctor, _ = world.account(Role.DOCTOR, name="Vera Before")
    record = doctor.post("/api/records", {"patientId": world.chart()["id"], **TEXTS}).json()
    assert doctor.patch("/api/users/me", {"name": "Vera Between"}).status_code == 200
    assert versions(world.admin, record["id"])["versions"][0]["name"] == "Vera Before"
    assert amend(doctor, record["id"], notes="x").status_code == 201
    assert doctor.patch("/api/users/me", {"name": "Vera After"}).status_code == 200
    found = versions(world.admin, record["id"])
    assert [version["name"] for version in found["versions"]] == ["Vera Between", "Vera Before"]


def test_records_of_the_release_before_have_versions(world: World, record: Json, backend: Backend) -> None:
    """They name no author, and their notes and attachments may be NULL: the name is that of today."""
    backend.sql(
        "UPDATE medical_records SET author_name = NULL, notes = NULL, attachments = NULL WHERE id = $1",
        UUID(record["id"]),
    )
    original = {**TEXTS, "notes": "", "attachments": []}
    assert texts_of(versions(world.doctor, record["id"])["versions"][0]) == original
    assert amend(world.doctor, record["id"], prescription="y").status_code == 201
    found = versions(world.doctor, record["id"])["versions"]
    assert [texts_of(version) for version in found] == [{**original, "prescription": "y"}, original]
    assert found[1]["name"] == world.doctor.me()["name"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "reason: is required"),
        ({"notes": "x"}, "reason: is required"),
        ({"reason": None, "notes": "x"}, "reason: is required"),
        ({"reason": " \n", "notes": "x"}, "reason: is required"),
        ({"reason": "r" * 501, "notes": "x"}, None),
        ({"reason": "r"}, NO_TEXT),
        ({"reason": "r", "notes": None, "attachments": None}, NO_TEXT),
        ({"reason": "r", "diagnosis": ""}, None),
        ({"reason": "r", "attachments": ["file:///x"]}, None),
        ({"reason": "r", "notes": "x", "patientId": UNKNOWN}, None),
        ({"reason": "r", "notes": "x", "date": "2026-01-01T00:00:00Z"}, None),
    ],
)
def test_an_amendment_that_breaks_a_rule_is_400(
    world: World, record: Json, body: Json, detail: str | None
) -> None:
    for target in (record["id"], UNKNOWN):  # the body is judged before the record is looked for
        refused = world.doctor.post(f"/api/records/{target}/versions", body)
        assert refused.status_code == 400
        assert detail in (None, refused.json()["detail"])
    assert versions(world.doctor, record["id"])["total"] == 1


def test_only_the_author_amends_a_record(world: World, record: Json) -> None:
    """contract: "of the doctors only for the one who wrote the record"."""
    refused = amend(world.other_doctor, record["id"], notes="x")
    assert (refused.status_code, refused.json()) == (
        403,
        {"detail": "Only the doctor who wrote the record may amend it"},
    )
    for browser in (world.admin, world.staff, world.patient):
        assert amend(browser, record["id"], notes="x").status_code == 403
    assert versions(world.doctor, record["id"])["total"] == 1


def test_patients_read_the_versions_of_their_own_records(world: World) -> None:
    patient, chart = world.linked_patient()
    own = world.record(chart["id"], **TEXTS)["id"]
    assert amend(world.doctor, own, notes="x").status_code == 201
    assert versions(patient, own) == versions(world.doctor, own)
    assert world.other_patient.get(f"/api/records/{own}/versions").status_code == 404
    assert world.staff.get(f"/api/records/{own}/versions").status_code == 403


@pytest.mark.parametrize("id", ["not-an-id", UNKNOWN])
def test_an_unknown_record_is_404_wherever_its_id_stands(world: World, id: str) -> None:
    for answer in (
        world.doctor.get(f"/api/records/{id}/versions"),
        world.patient.get(f"/api/records/{id}/versions"),
        amend(world.doctor, id, notes="x"),
        world.admin.post(f"/api/records/{id}/retraction", {"reason": "r"}),
        world.admin.get(f"/api/records/{id}/accesses"),
    ):
        assert (answer.status_code, answer.json()) == (404, {"detail": "Record not found"})
