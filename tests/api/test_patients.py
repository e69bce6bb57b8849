"""Charts (requirement, section 3): who sees and changes what, and the accounts that people link to them."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from security.roles import Role
from tests.support.charts import patients_of
from tests.support.factories import World, chart
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend

UNKNOWN_ID = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"

KEYS = [
    "id", "name", "email", "phone", "dateOfBirth", "gender", "address",
    "bloodType", "allergies", "medicalHistory", "created_at",
]  # fmt: skip
SUMMARY_KEYS = [key for key in KEYS if key not in {"bloodType", "allergies", "medicalHistory"}]
CHANGES = {
    "name": "Renamed Roe", "email": "renamed@example.com", "phone": "+1 555 0199",
    "dateOfBirth": "1979-01-02", "gender": "female", "address": "2 Side Street",
    "bloodType": "AB-", "allergies": "Latex", "medicalHistory": "Asthma since childhood.",
}  # fmt: skip
MAY_CHANGE = {
    Role.ADMIN: set(CHANGES),
    Role.STAFF: set(CHANGES) - {"medicalHistory"},
    Role.DOCTOR: {"bloodType", "allergies", "medicalHistory"},
}


@pytest.fixture(scope="module")
def existing(world: World) -> dict[str, Any]:
    return world.chart()


# Section 3: shapes


def test_a_new_chart_has_every_key_in_the_order_of_the_requirement(world: World) -> None:
    """Section 3, POST and GET /api/patients/:id; contract, "Values": null where there is no value."""
    body = chart(name="Nora Novak")
    made = world.staff.post("/api/patients", body)
    assert made.status_code == 201
    new = made.json()
    assert list(new) == KEYS
    assert {key: new[key] for key in body} == body
    assert [new[key] for key in ("bloodType", "allergies", "medicalHistory")] == [None, None, None]
    assert new["created_at"].endswith("Z")
    assert world.staff.get(f"/api/patients/{new['id']}").json() == new


def test_the_list_of_charts_has_summaries_page_and_limit(world: World) -> None:
    """Section 3, GET /api/patients: eight keys to a patient, and the page and limit that were asked for."""
    world.chart(bloodType="A+")
    page = world.staff.get("/api/patients?page=1&limit=3").json()
    assert list(page) == ["patients", "total", "page", "limit"]
    assert (page["page"], page["limit"]) == (1, 3)
    assert page["patients"]
    assert all(list(patient) == SUMMARY_KEYS for patient in page["patients"])
    defaults = world.staff.get("/api/patients").json()
    assert (defaults["page"], defaults["limit"]) == (1, 10)


@pytest.mark.parametrize(
    ("role", "status"), [(Role.ADMIN, 201), (Role.STAFF, 201), (Role.DOCTOR, 403), (Role.PATIENT, 403)]
)
def test_only_administrators_and_staff_create_charts(world: World, role: Role, status: int) -> None:
    """Section 3, POST /api/patients: admin and staff."""
    before = world.admin.get("/api/patients").json()["total"]
    assert world.people[role].post("/api/patients", chart()).status_code == status
    assert world.admin.get("/api/patients").json()["total"] == before + (status == 201)


# Contract, "Values": what a chart may hold


@pytest.mark.parametrize("missing", ["name", "email", "phone", "dateOfBirth", "gender", "address"])
def test_missing_or_null_required_chart_fields_are_400(world: World, missing: str) -> None:
    without = {name: value for name, value in chart().items() if name != missing}
    refused = world.staff.post("/api/patients", without)
    assert refused.status_code == 400
    assert refused.json() == {"detail": f"{missing}: is required"}
    assert world.staff.post("/api/patients", {**without, missing: None}).status_code == 400
    assert world.staff.patch(f"/api/patients/{world.chart()['id']}", {missing: None}).status_code == 400


INVALID: list[tuple[str, list[Any]]] = [
    ("name", ["", " ", "\t\n", "\u2003", "N" * 201, 5, True, ["x"], {"x": 1}, "Nul\u0000l"]),
    ("email", ["", "  ", "nobody", "a@", "@b.c", "a b@c.d", "a@b@c", "x" * 251 + "@b.c", "a\u0000@b.c", 7]),
    ("phone", ["", "   ", "1" * 41, 5550100, "1\u0000"]),
    ("address", ["", "\n", "A" * 501, 12, "\u0000"]),
    (
        "dateOfBirth",
        ["", "1980-5-17", "17.05.1980", "19800517", "1980-02-30", "0000-01-01", "1980-05-17T00:00:00Z", 0],
    ),
    ("gender", ["", "Female", "unknown", "male ", 1]),
    ("bloodType", ["A" * 21, 0, "A\u0000"]),
    ("allergies", ["A" * 5001, ["Latex"], "\u0000"]),
]


@pytest.mark.parametrize(
    ("field", "value"),
    [pytest.param(field, value, id=f"{field}-{n}") for field, bad in INVALID for n, value in enumerate(bad)],
)
def test_invalid_chart_values_are_400_and_name_the_field(
    world: World, existing: dict[str, Any], field: str, value: Any
) -> None:
    """Contract, "Values" and "Errors": 400, with the field and its rule, for POST and PATCH alike."""
    for refused in (
        world.staff.post("/api/patients", chart(**{field: value})),
        world.staff.patch(f"/api/patients/{existing['id']}", {field: value}),
    ):
        assert refused.status_code == 400
        assert refused.json()["detail"].startswith((f"{field}: must ", f"{field}: is required"))


@pytest.mark.parametrize("unknown", ["medicalHistory", "id", "user_id", "created_at", "Name", "blood_type"])
def test_unknown_chart_fields_are_400(world: World, unknown: str) -> None:
    """Contract, "Values": unknown body fields are 400. Who opens a chart does not write its history."""
    assert world.staff.post("/api/patients", chart(**{unknown: "x"})).status_code == 400


def test_a_date_of_birth_in_the_future_is_400(world: World) -> None:
    """Contract, "Values": birth dates in the future are 400. The clinic of these tests keeps UTC."""
    today = datetime.now(UTC).date()
    made = world.chart(dateOfBirth=str(today))
    assert made["dateOfBirth"] == str(today)
    for day in (today + timedelta(days=2), "9999-12-31"):
        refused = world.staff.post("/api/patients", chart(dateOfBirth=str(day)))
        assert refused.status_code == 400
        assert refused.json() == {"detail": "dateOfBirth: must not be in the future"}
        assert world.staff.patch(f"/api/patients/{made['id']}", {"dateOfBirth": str(day)}).status_code == 400
    assert world.staff.get(f"/api/patients/{made['id']}").json() == made


@pytest.mark.parametrize("value", [None, ""])
def test_empty_absent_and_null_chart_fields_are_answered_as_null(world: World, value: str | None) -> None:
    """Contract, "Values": null on POST equals absent, `""` becomes null in nullable fields."""
    made = world.chart(bloodType=value, allergies=value)
    assert (made["bloodType"], made["allergies"]) == (None, None)


def test_chart_values_at_their_bounds_come_back_as_they_were_sent(world: World) -> None:
    sent = chart(
        name="Ñ" * 200, email="MiXed@Example.COM", phone="1" * 40, dateOfBirth="0001-01-01", gender="male",
        address="🏠" * 500, bloodType="B" * 20, allergies="a\nb" + "c" * 4997,
    )  # fmt: skip
    made = world.chart(**sent)
    assert {key: made[key] for key in sent} == sent


# Contract, "Who may do what": reading


@pytest.mark.parametrize("role", [Role.ADMIN, Role.DOCTOR, Role.STAFF])
def test_administrators_doctors_and_staff_read_every_chart(world: World, role: Role) -> None:
    some = world.chart()
    assert world.people[role].get(f"/api/patients/{some['id']}").json() == some
    total = world.people[role].get("/api/patients").json()["total"]
    assert total == world.admin.get("/api/patients").json()["total"]


def test_patients_read_their_own_chart_and_no_other(
    world: World, own_chart_for_a_test: dict[str, Any]
) -> None:
    """Contract: an object outside the caller's world is the same 404 as one that does not exist."""
    other = world.chart()
    assert [patient["id"] for patient in patients_of(world.patient)] == [own_chart_for_a_test["id"]]
    assert world.patient.get(f"/api/patients/{own_chart_for_a_test['id']}").json() == own_chart_for_a_test
    foreign = world.patient.get(f"/api/patients/{other['id']}")
    unknown = world.patient.get(f"/api/patients/{uuid4()}")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json() == unknown.json() == {"detail": "Patient not found"}
    assert patients_of(world.other_patient) == []


def test_an_equal_email_address_links_no_chart(world: World) -> None:
    """Contract: a chart is linked by a person's act, never by matching an unverified e-mail address."""
    lookalike = world.chart(email=world.other_patient.me()["email"], name="Otto Okafor")
    assert patients_of(world.other_patient) == []
    assert world.other_patient.get(f"/api/patients/{lookalike['id']}").status_code == 404


@pytest.mark.parametrize("path", ["", "/account"])
@pytest.mark.parametrize(
    "id", [UNKNOWN_ID, "1", "null", "not-a-uuid", "%00", "💉", UNKNOWN_ID.replace("-", "")]
)
def test_an_unknown_or_malformed_chart_id_is_404(world: World, path: str, id: str) -> None:
    """Contract: an unknown id and a malformed one in a path are 404."""
    assert world.staff.get(f"/api/patients/{id}{path}").status_code == 404


def test_chart_ids_are_read_with_hyphens_only(world: World, existing: dict[str, Any]) -> None:
    """The contract's `format: uuid` (RFC 9562, 4): with hyphens, in either case, and nothing around it."""
    id = existing["id"]
    for other in (id.replace("-", ""), f"{{{id}}}", f"urn:uuid:{id}", f"{id}%20"):
        assert world.staff.get(f"/api/patients/{other}").status_code == 404
    assert world.staff.get(f"/api/patients/{id.upper()}").json() == existing


# Contract, "Who may do what": changing


@pytest.mark.parametrize("role", MAY_CHANGE)
def test_each_role_changes_only_its_own_fields_of_a_chart(world: World, role: Role) -> None:
    """Field by field: 200 and stored, or 403 and nothing changes."""
    before = world.chart()
    for field, value in CHANGES.items():
        answer = world.people[role].patch(f"/api/patients/{before['id']}", {field: value})
        if field in MAY_CHANGE[role]:
            assert answer.status_code == 200, field
            before = {**before, field: value}
            assert answer.json() == before
            assert list(answer.json()) == KEYS
        else:
            assert answer.status_code == 403, field
            may = " and ".join(other for other in Role if field in MAY_CHANGE.get(other, ()))
            assert answer.json() == {"detail": f"Your role may not change {field}; {may} may"}
        assert world.admin.get(f"/api/patients/{before['id']}").json() == before


def test_patients_cannot_change_charts(world: World, own_chart_for_a_test: dict[str, Any]) -> None:
    for body in ({}, {"phone": "+1 555 0111"}, {"phone": own_chart_for_a_test["phone"]}):
        assert world.patient.patch(f"/api/patients/{own_chart_for_a_test['id']}", body).status_code == 403
    assert world.patient.get(f"/api/patients/{own_chart_for_a_test['id']}").json() == own_chart_for_a_test


def test_one_forbidden_field_refuses_the_whole_change_of_a_chart(world: World) -> None:
    """Contract: a field that the role may not set is 403 and nothing changes."""
    before = world.chart()
    refused = world.doctor.patch(
        f"/api/patients/{before['id']}", {"allergies": "Latex", "phone": "0", "name": "X"}
    )
    assert refused.status_code == 403
    assert refused.json() == {"detail": "Your role may not change name, phone; admin and staff may"}
    assert world.doctor.get(f"/api/patients/{before['id']}").json() == before


def test_equal_values_in_a_chart_change_count_as_absent(world: World) -> None:
    """So a client may send back the whole chart that it has read."""
    stored = world.chart()
    whole = {key: value for key, value in stored.items() if key in CHANGES}
    answer = world.doctor.patch(f"/api/patients/{stored['id']}", {**whole, "medicalHistory": "Gout."})
    assert answer.status_code == 200
    assert answer.json() == {**stored, "medicalHistory": "Gout."}
    by_staff = world.staff.patch(f"/api/patients/{stored['id']}", {**whole, "medicalHistory": "Gout."})
    assert by_staff.status_code == 200
    assert world.staff.patch(f"/api/patients/{stored['id']}", {"medicalHistory": None}).status_code == 403


def test_absent_chart_fields_stay_and_null_or_empty_ones_clear(world: World) -> None:
    """Contract, "Values", for PATCH."""
    stored = world.chart(bloodType="0+", allergies="Pollen")
    path = f"/api/patients/{stored['id']}"
    assert world.staff.patch(path, {}).json() == stored
    assert world.admin.patch(path, {"medicalHistory": "Gout."}).json()["medicalHistory"] == "Gout."
    cleared = world.admin.patch(path, {"bloodType": None, "allergies": "", "medicalHistory": None})
    assert cleared.status_code == 200
    assert cleared.json() == {**stored, "bloodType": None, "allergies": None}
    assert world.admin.get(path).json() == cleared.json()


@pytest.mark.parametrize("body", [{}, {"phone": "+1 555 0111"}])
def test_a_chart_that_does_not_exist_cannot_change(world: World, body: dict[str, Any]) -> None:
    for id in (uuid4(), "not-a-uuid"):
        assert world.staff.patch(f"/api/patients/{id}", body).status_code == 404


def test_an_invalid_body_is_400_before_an_unknown_chart_is_404(world: World) -> None:
    """Contract, order: "query and body 400; object 404"."""
    answer = world.staff.patch(f"/api/patients/{uuid4()}", {"dateOfBirth": "2999-01-01"})
    assert (answer.status_code, answer.json()) == (400, {"detail": "dateOfBirth: must not be in the future"})


def test_concurrent_changes_of_one_chart_are_all_kept(world: World, backend: Backend) -> None:
    """Concurrent changes of different fields of one chart: none is lost, and the search finds each."""
    some = world.chart()
    changes = [
        (world.staff, {"phone": "+1 555 0177"}),
        (world.admin, {"name": "Concurrent Roe"}),
        (world.doctor, {"allergies": "Nuts"}),
        (world.admin, {"email": "concurrent.roe@example.com"}),
    ]
    with ThreadPoolExecutor(len(changes)) as pool, transaction(backend) as hold:
        hold("SELECT FROM patients WHERE id = $1 FOR UPDATE", some["id"])
        asked = [pool.submit(who.patch, f"/api/patients/{some['id']}", change) for who, change in changes]
        until_they_wait(backend, *asked)
    assert [answer.result().status_code for answer in asked] == [200] * len(changes)
    stored = world.staff.get(f"/api/patients/{some['id']}").json()
    assert stored == some | {name: value for _, change in changes for name, value in change.items()}
    for term in ("555 0177", "concurrent roe", "concurrent.roe@"):
        assert world.staff.get("/api/patients", params={"search": term}).json()["total"] == 1


def test_the_email_of_a_chart_is_trimmed(world: World) -> None:
    """Contract, accounts: "A chart's e-mail is trimmed too (ASCII white space; other blanks are 400)"; and a
    field equal to its stored value counts as absent."""
    made = world.chart(email=" \tMixed.Case@Example.com\r\n")
    assert made["email"] == "Mixed.Case@Example.com"
    path = f"/api/patients/{made['id']}"
    assert world.doctor.patch(path, {"email": " Mixed.Case@Example.com "}).status_code == 200
    assert world.staff.patch(path, {"email": "  other@example.com\n"}).json()["email"] == "other@example.com"
    assert world.staff.patch(path, {"email": "\u2003other@example.com"}).status_code == 400
