"""Medical records (requirement, section 6; contract, "Records"): written by a doctor, read, never changed."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend

KEYS = [
    "id", "patientId", "patientName", "doctorId", "doctorName",
    "date", "diagnosis", "prescription", "notes", "attachments",
]  # fmt: skip
READERS = [Role.ADMIN, Role.DOCTOR]


def write(browser: Browser, patient: str, **more: Any) -> httpx.Response:
    body = {"patientId": patient, "diagnosis": "Well", "prescription": "Rest", "notes": "Came alone", **more}
    return browser.post("/api/records", body)


def listed(browser: Browser, **params: Any) -> list[dict[str, Any]]:
    page = browser.get("/api/records", params={"limit": 100, **params}).json()
    assert list(page) == ["records", "total"]
    assert page["total"] == len(page["records"])
    return list(page["records"])


# Section 6: shape


def test_a_record_has_every_key_in_the_order_of_the_requirement(world: World) -> None:
    """Section 6, POST, GET and the list. The doctor is the caller and the date is the clock's."""
    some, doctor = world.chart(name="Nora Novak"), world.doctor.me()
    before = datetime.now(UTC)
    written = write(world.doctor, some["id"])
    after = datetime.now(UTC)
    assert written.status_code == 201
    record = written.json()
    assert list(record) == KEYS
    assert (record["patientId"], record["patientName"]) == (some["id"], "Nora Novak")
    assert (record["doctorId"], record["doctorName"]) == (doctor["id"], doctor["name"])
    assert record["date"].endswith("Z")
    assert before <= datetime.fromisoformat(record["date"]) <= after
    assert (record["diagnosis"], record["prescription"], record["notes"]) == ("Well", "Rest", "Came alone")
    assert record["attachments"] == []
    assert world.doctor.get(f"/api/records/{record['id']}").json() == record
    assert listed(world.doctor, patientId=some["id"]) == [record]


def test_empty_prescription_and_notes_stay_empty_strings(world: World) -> None:
    """Contract, "Records": prescription and notes may be empty and stay `""`, which is not null."""
    record = write(world.doctor, world.chart()["id"], prescription="", notes="").json()
    assert (record["prescription"], record["notes"]) == ("", "")
    assert world.admin.get(f"/api/records/{record['id']}").json() == record


def test_long_record_texts_come_back_whole(world: World) -> None:
    texts = {"diagnosis": "é" * 5000, "prescription": "💊" * 5000, "notes": "line\n" * 2000}
    record = write(world.doctor, world.chart()["id"], **texts).json()
    assert {name: record[name] for name in texts} == texts


INVALID: dict[str, list[Any]] = {
    "patientId": ["", "1", "not-a-uuid", None, 5],
    "diagnosis": ["", " ", "\n\t", None, "d" * 5001, 5, "nul\u0000"],
    "prescription": [None, "p" * 5001, 5, ["Rest"], "\u0000"],
    "notes": [None, "n" * 10001, False, "\u0000"],
    "attachments": ["file.pdf", {}, 5, [None], [5], [["file.pdf"]], [""], ["a" * 2049], ["a\u0000b"]],
}


@pytest.mark.parametrize("field", INVALID)
def test_invalid_record_fields_are_400(world: World, field: str) -> None:
    """Contract, "Values": required strings, with their bounds; 400 and nothing is written."""
    some = world.chart()["id"]
    for value in INVALID[field]:
        refused = write(world.doctor, **{"patient": some, field: value})
        assert refused.status_code == 400, value
        assert refused.json()["detail"].startswith(field)
    assert listed(world.doctor, patientId=some) == []


@pytest.mark.parametrize("missing", ["patientId", "diagnosis", "prescription", "notes"])
def test_missing_or_null_record_fields_are_400(world: World, missing: str) -> None:
    body = {"patientId": str(uuid4()), "diagnosis": "x", "prescription": "x", "notes": "x"}
    del body[missing]
    refused = world.doctor.post("/api/records", body)
    assert (refused.status_code, refused.json()) == (400, {"detail": f"{missing}: is required"})


@pytest.mark.parametrize("field", ["doctorId", "date", "id", "patientName"])
def test_a_record_body_with_doctor_or_date_is_400(world: World, field: str) -> None:
    """Contract, "Records": these come from the caller and the clock; a body that names them is 400."""
    refused = write(world.doctor, world.chart()["id"], **{field: str(uuid4())})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith(f"{field}: is not a known field; known are patientId, ")


def test_a_record_for_an_unknown_patient_is_404(world: World) -> None:
    refused = write(world.doctor, str(uuid4()))
    assert (refused.status_code, refused.json()) == (404, {"detail": "Patient not found"})


# Contract, "Records": attachments


@pytest.mark.parametrize(
    "reference",
    [
        "file.pdf", "labs/2026/ige panel.pdf", "/scans/1.png", "../up.txt", "?query", "#fragment", "..",
        "é.pdf", "https://files.example.com/x?y=z#w", "HTTPS://FILES.EXAMPLE.COM/X", "hTTps:x",
        " notes.pdf", "notes\t.pdf", " https://example.com", "https://example.com/\r\nx", "java script:x",
        "//files.example.com/x", "1:2", "-a:b", "a b:c", "1http://x", "a/b:c",
        "a" * 2048, "https:" + "a" * 2042,
    ],
)  # fmt: skip
def test_attachments_without_a_scheme_or_with_https_are_stored(world: World, reference: str) -> None:
    """Any text without a URI scheme (RFC 3986, 3.1) other than https, stored as it stands, never fetched."""
    record = write(world.doctor, world.chart()["id"], attachments=["first.pdf", reference]).json()
    assert record["attachments"] == ["first.pdf", reference]
    assert world.doctor.get(f"/api/records/{record['id']}").json() == record


@pytest.mark.parametrize(
    "reference",
    [
        "javascript:alert(1)", "JavaScript:alert(1)", " javascript:alert(1)", "\tjavascript:alert(1)",
        "\u00a0javascript:alert(1)", "\u2028javascript:alert(1)", "java\nscript:alert(1)", "java\tscript:x",
        "javascript:alert(1)\n", "\u0001javascript:x", "data:text/html,x", "DATA:,", "http://example.com/x",
        "HTTP:x", "ftp://example.com", "file:///etc/passwd", "mailto:a@b.c", "blob:x", "vbscript:x", "x:y",
        "https2:x", "https+x:y", "view-source:https://x", "h\nttps:x", "\ufeffjavascript:x",
    ],
)  # fmt: skip
def test_attachments_with_another_scheme_are_400(world: World, reference: str) -> None:
    """Also where only a browser reads one: it skips blanks before the scheme and line breaks within."""
    refused = write(world.doctor, world.chart()["id"], attachments=["first.pdf", reference])
    assert refused.status_code == 400
    assert refused.json() == {
        "detail": "attachments[1]: must be text of 1 to 2048 characters, "
        "without a URI scheme other than https"
    }


def test_more_than_twenty_attachments_are_400(world: World) -> None:
    some, references = world.chart()["id"], [f"page-{number}.pdf" for number in range(21)]
    written = write(world.doctor, some, attachments=references[:20])
    assert (written.status_code, written.json()["attachments"]) == (201, references[:20])
    refused = write(world.doctor, some, attachments=references)
    assert refused.json() == {"detail": "attachments: must be null or a list of at most 20 items"}


@pytest.mark.parametrize("none", [None, []])
def test_absent_and_null_attachments_are_an_empty_list(world: World, none: Any) -> None:
    """Contract: empty list when absent, and null on POST equals absent."""
    record = write(world.doctor, world.chart()["id"], attachments=none).json()
    assert record["attachments"] == []
    assert world.admin.get(f"/api/records/{record['id']}").json()["attachments"] == []


def test_null_notes_and_attachments_in_the_database_are_answered_as_empty(
    world: World, backend: Backend
) -> None:
    """The requirement's schema lets both be null in the database; the answer has `""` and `[]`."""
    record = world.record(world.chart()["id"], notes="x", attachments=["x.pdf"])
    backend.sql("UPDATE medical_records SET notes = NULL, attachments = NULL WHERE id = $1", record["id"])
    assert world.doctor.get(f"/api/records/{record['id']}").json() == {
        **record,
        "notes": "",
        "attachments": [],
    }


# Contract, "Who may do what"


@pytest.mark.parametrize("role", [Role.ADMIN, Role.STAFF, Role.PATIENT])
def test_only_doctors_write_records(world: World, own_chart: dict[str, Any], role: Role) -> None:
    before = len(listed(world.admin, patientId=own_chart["id"]))
    assert write(world.people[role], own_chart["id"]).status_code == 403
    assert len(listed(world.admin, patientId=own_chart["id"])) == before


def test_doctors_write_records_for_any_patient(world: World) -> None:
    some = world.chart()["id"]
    records = [write(doctor, some).json() for doctor in (world.doctor, world.other_doctor)]
    assert [record["doctorId"] for record in records] == [
        world.doctor.me()["id"],
        world.other_doctor.me()["id"],
    ]


@pytest.mark.parametrize("role", READERS)
def test_administrators_and_doctors_read_all_records(world: World, role: Role) -> None:
    record = write(world.other_doctor, world.chart()["id"]).json()
    assert world.people[role].get(f"/api/records/{record['id']}").json() == record
    assert listed(world.people[role], patientId=record["patientId"]) == [record]
    total = world.people[role].get("/api/records").json()["total"]
    assert total == world.admin.get("/api/records").json()["total"]


def test_staff_and_anonymous_callers_cannot_read_records(world: World) -> None:
    record = world.record(world.chart()["id"])
    assert world.staff.get("/api/records").status_code == 403
    assert world.staff.get(f"/api/records?patientId={record['patientId']}").status_code == 403
    for id in (record["id"], uuid4(), "not-a-uuid"):
        assert world.staff.get(f"/api/records/{id}").status_code == 403


def test_patients_read_their_own_records_only(world: World, own_chart: dict[str, Any]) -> None:
    """Those of others do not exist for them: 404, an empty list, and a total that does not count them."""
    mine, foreign = world.record(own_chart["id"]), world.record(world.chart()["id"])
    seen = listed(world.patient)
    assert mine in seen
    assert {record["patientId"] for record in seen} == {own_chart["id"]}
    assert listed(world.patient, patientId=own_chart["id"]) == seen
    assert world.patient.get(f"/api/records/{mine['id']}").json() == mine
    assert listed(world.patient, patientId=foreign["patientId"]) == []
    for id in (foreign["id"], uuid4(), "not-a-uuid", "null"):
        missing = world.patient.get(f"/api/records/{id}")
        assert (missing.status_code, missing.json()) == (404, {"detail": "Record not found"})
    assert listed(world.other_patient) == listed(world.other_patient, patientId=own_chart["id"]) == []
    assert world.other_patient.get(f"/api/records/{mine['id']}").status_code == 404


def test_records_become_visible_and_invisible_with_the_link_of_their_chart(world: World) -> None:
    record = world.record(world.chart()["id"])
    link = f"/api/patients/{record['patientId']}/account"
    assert world.staff.put(link, {"userId": world.other_patient.me()["id"]}).status_code == 200
    assert listed(world.other_patient) == [record]
    assert world.staff.delete(link).status_code == 200
    assert listed(world.other_patient) == []


def test_records_are_filtered_by_patient(world: World) -> None:
    """Section 6, `?patientId=`: of an unknown patient there are none; a malformed id in a query is 400."""
    some, other = world.chart()["id"], world.chart()["id"]
    mine = [world.record(some), world.record(some)]
    world.record(other)
    assert {record["id"] for record in listed(world.admin, patientId=some)} == {r["id"] for r in mine}
    assert {record["id"] for record in listed(world.admin, patientId=some.upper())} == {r["id"] for r in mine}
    assert listed(world.admin, patientId=str(uuid4())) == []
    for malformed in (" ", "1", "null", "NULL", "not-a-uuid", f"{{{some}}}", f"urn:uuid:{some}", "%00"):
        refused = world.admin.get(f"/api/records?patientId={malformed}")
        assert (refused.status_code, refused.json()) == (400, {"detail": "patientId: must be a UUID"})


# Contract, "Paging and search": newest first


def test_records_are_ordered_newest_first(world: World, backend: Backend) -> None:
    """Stable where many have the same instant, from page to page."""
    some = world.chart()["id"]
    made = [world.record(some, diagnosis=f"Day {number}") for number in range(7)]
    assert [record["id"] for record in listed(world.doctor, patientId=some)] == [r["id"] for r in made[::-1]]
    noon = datetime(2020, 2, 2, 12, tzinfo=UTC)
    for number, record in enumerate(made):
        date = noon + timedelta(days=number % 3)
        backend.sql("UPDATE medical_records SET date = $2 WHERE id = $1", record["id"], date)
    expected = sorted(listed(world.doctor, patientId=some), key=lambda r: (r["date"], r["id"]), reverse=True)
    assert [record["date"][:10] for record in expected] == ["2020-02-04"] * 2 + ["2020-02-03"] * 2 + [
        "2020-02-02"
    ] * 3
    pages = [
        world.doctor.get("/api/records", params={"patientId": some, "limit": 3, "page": page}).json()
        for page in (1, 2, 3, 4)
    ]
    assert [record for page in pages for record in page["records"]] == expected
    assert [page["total"] for page in pages] == [7] * 4


# Contract, "Records": never changed or deleted


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
@pytest.mark.parametrize("role", Role)
def test_changing_or_deleting_a_record_is_405(world: World, role: Role, method: str) -> None:
    """There is no such method: 405 with Allow, for everyone."""
    record = world.record(world.chart()["id"])
    refused = world.people[role].request(method, f"/api/records/{record['id']}", json={"notes": "other"})
    assert refused.status_code == 405
    assert {allowed.strip() for allowed in refused.headers["allow"].split(",")} == {"GET", "OPTIONS"}
    assert world.admin.get(f"/api/records/{record['id']}").json() == record


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_changing_or_deleting_the_list_of_records_is_405(world: World, method: str) -> None:
    refused = world.admin.request(method, "/api/records")
    assert refused.status_code == 405
    assert {allowed.strip() for allowed in refused.headers["allow"].split(",")} == {"GET", "POST", "OPTIONS"}


def test_records_stay_when_their_doctor_leaves(world: World) -> None:
    """Names are those of today; the record itself does not move."""
    some = world.chart(name="Maiden Name")
    record = world.record(some["id"])
    assert world.staff.patch(f"/api/patients/{some['id']}", {"name": "Married Name"}).status_code == 200
    assert world.doctor.get(f"/api/records/{record['id']}").json() == {
        **record,
        "patientName": "Married Name",
    }
