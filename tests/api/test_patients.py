"""Charts (requirement, section 3): who sees and changes what, and the accounts that people link to them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, chart, email, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

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


@pytest.fixture
def own(world: World) -> Iterator[dict[str, Any]]:
    """A chart that is linked to the patient's account for the time of a test."""
    linked = world.chart(name="Paula Patient")
    world.link(linked["id"], world.patient)
    yield linked
    assert world.staff.delete(f"/api/patients/{linked['id']}/account").status_code == 200


def patients_of(browser: Browser) -> list[dict[str, Any]]:
    page = browser.get("/api/patients", params={"limit": 100}).json()
    assert page["total"] == len(page["patients"])
    return list(page["patients"])


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


def test_patients_read_their_own_chart_and_no_other(world: World, own: dict[str, Any]) -> None:
    """Contract: an object outside the caller's world is the same 404 as one that does not exist."""
    other = world.chart()
    assert [patient["id"] for patient in patients_of(world.patient)] == [own["id"]]
    assert world.patient.get(f"/api/patients/{own['id']}").json() == own
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


def test_patients_cannot_change_charts(world: World, own: dict[str, Any]) -> None:
    for body in ({}, {"phone": "+1 555 0111"}, {"phone": own["phone"]}):
        assert world.patient.patch(f"/api/patients/{own['id']}", body).status_code == 403
    assert world.patient.get(f"/api/patients/{own['id']}").json() == own


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


# Contract: the account of a chart


def test_an_account_is_linked_read_and_unlinked(world: World) -> None:
    """PUT and DELETE answer 200 with the chart, GET the account or 404."""
    some = world.chart()
    path = f"/api/patients/{some['id']}/account"
    patient = world.patient.me()
    assert world.staff.get(path).json() == {"detail": "User not found"}

    linked = world.staff.put(path, {"userId": patient["id"]})
    assert linked.status_code == 200
    assert linked.json() == some
    account = world.admin.get(path)
    assert account.status_code == 200
    assert account.json() == {**patient, "status": "active"}
    assert [seen["id"] for seen in patients_of(world.patient)] == [some["id"]]

    unlinked = world.admin.delete(path)
    assert unlinked.status_code == 200
    assert unlinked.json() == some
    assert world.staff.get(path).status_code == 404
    assert patients_of(world.patient) == []
    assert world.patient.get(f"/api/patients/{some['id']}").status_code == 404
    assert world.staff.delete(path).status_code == 200


@pytest.mark.parametrize("role", [Role.DOCTOR, Role.PATIENT])
def test_doctors_and_patients_cannot_link_accounts(world: World, own: dict[str, Any], role: Role) -> None:
    path = f"/api/patients/{own['id']}/account"
    browser = world.people[role]
    assert browser.get(path).status_code == 403
    assert browser.put(path, {"userId": str(uuid4())}).status_code == 403
    assert browser.delete(path).status_code == 403
    assert world.staff.get(path).json()["id"] == world.patient.me()["id"]


def test_linking_the_same_chart_and_account_again_is_200(world: World, own: dict[str, Any]) -> None:
    path = f"/api/patients/{own['id']}/account"
    again = world.admin.put(path, {"userId": world.patient.me()["id"]})
    assert again.status_code == 200
    assert again.json() == own


def test_a_linked_chart_cannot_be_linked_to_another_account(world: World, own: dict[str, Any]) -> None:
    refused = world.admin.put(
        f"/api/patients/{own['id']}/account", {"userId": world.other_patient.me()["id"]}
    )
    assert refused.status_code == 400
    assert refused.json() == {"detail": "This patient is linked to another account"}
    assert patients_of(world.other_patient) == []


def test_a_linked_account_cannot_be_linked_to_another_chart(world: World, own: dict[str, Any]) -> None:
    second = world.chart()
    refused = world.staff.put(f"/api/patients/{second['id']}/account", {"userId": world.patient.me()["id"]})
    assert refused.status_code == 400
    assert refused.json() == {"detail": "userId: this account is linked to another patient"}
    assert world.staff.get(f"/api/patients/{second['id']}/account").status_code == 404
    assert [seen["id"] for seen in patients_of(world.patient)] == [own["id"]]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.DOCTOR, Role.STAFF])
def test_only_patient_accounts_can_be_linked(world: World, role: Role) -> None:
    some = world.chart()
    refused = world.staff.put(
        f"/api/patients/{some['id']}/account", {"userId": world.people[role].me()["id"]}
    )
    assert refused.status_code == 400
    assert refused.json() == {"detail": "userId: must be an active patient account"}


def test_only_active_accounts_can_be_linked(world: World, backend: Backend) -> None:
    """A pending one, from a clinic that approves patients by hand, and a disabled one. A link that stands
    when its account is disabled stays, and the same pair again is 200."""
    strict = backend.settings(auto_approve_roles=())
    with Service(backend, strict) as service:
        pending = service.browser().post("/api/auth/register", registration(email=email("pending"))).json()
    first, second = world.chart(), world.chart()
    path, other = (f"/api/patients/{some['id']}/account" for some in (first, second))
    assert world.staff.put(path, {"userId": pending["id"]}).status_code == 400

    assert world.admin.patch(f"/api/users/{pending['id']}", {"status": "active"}).status_code == 200
    assert world.staff.put(path, {"userId": pending["id"]}).status_code == 200
    assert world.admin.patch(f"/api/users/{pending['id']}", {"status": "disabled"}).status_code == 200
    assert world.admin.put(path, {"userId": pending["id"]}).status_code == 200
    assert world.staff.get(path).json()["status"] == "disabled"
    assert world.staff.delete(path).status_code == 200
    refused = world.staff.put(other, {"userId": pending["id"]})
    assert refused.status_code == 400
    assert refused.json() == {"detail": "userId: must be an active patient account"}


def test_linking_an_unknown_chart_or_account_is_404(world: World) -> None:
    """Contract: the target is 404 where it does not exist, and a malformed id in a body is 400."""
    some, patient = world.chart(), world.other_patient.me()["id"]
    unknown_account = world.staff.put(f"/api/patients/{some['id']}/account", {"userId": str(uuid4())})
    assert (unknown_account.status_code, unknown_account.json()["detail"]) == (404, "User not found")
    for id in (uuid4(), "not-a-uuid"):
        path = f"/api/patients/{id}/account"
        for unknown_chart in (world.staff.put(path, {"userId": patient}), world.staff.delete(path)):
            assert (unknown_chart.status_code, unknown_chart.json()["detail"]) == (404, "Patient not found")
    for malformed in ("", "1", "not-a-uuid", None, 1):
        body = {"userId": malformed}
        assert world.staff.put(f"/api/patients/{some['id']}/account", body).status_code == 400
    assert world.staff.put(f"/api/patients/{some['id']}/account", {}).status_code == 400


def test_staff_cannot_read_a_linked_account_that_is_no_longer_a_patients(world: World) -> None:
    """Contract, "Who may do what": staff see "patient accounts only", when a linked one has changed too."""
    browser, chart_ = world.linked_patient()
    path = f"/api/patients/{chart_['id']}/account"
    changed = world.admin.patch(f"/api/users/{browser.me()['id']}", {"role": "admin"})
    assert changed.status_code == 200
    assert world.admin.get(path).json() == changed.json()
    assert (world.staff.get(path).status_code, world.staff.get(path).json()) == (
        404,
        {"detail": "User not found"},
    )
    assert world.staff.delete(path).status_code == 200
    assert world.admin.get(path).status_code == 404


# Only an administrator links a chart again that was ever linked

AGAIN = {"detail": "This chart was linked before: only admin may link it again"}


def test_staff_cannot_link_a_chart_that_was_linked_before(world: World) -> None:
    """Neither to the same account nor to another, also if it was unlinked; refused before either is looked
    up."""
    patient, me = world.account()
    thief, _ = world.account()
    some = world.chart()
    path = f"/api/patients/{some['id']}/account"
    world.link(some["id"], patient)
    for unlink in (None, world.staff, world.admin):
        if unlink:
            assert unlink.delete(path).status_code == 200
        for user_id in (me["id"], thief.me()["id"], world.doctor.me()["id"], str(uuid4())):
            refused = world.staff.put(path, {"userId": user_id})
            assert (refused.status_code, refused.json()) == (403, AGAIN)
    assert patients_of(thief) == []
    assert world.admin.put(path, {"userId": me["id"]}).status_code == 200
    assert [seen["id"] for seen in patients_of(patient)] == [some["id"]]
    # An invalid body and an unknown chart are refused before that.
    assert world.staff.put(path, {"userId": "x"}).status_code == 400
    assert world.staff.put(f"/api/patients/{uuid4()}/account", {"userId": me["id"]}).status_code == 404


def test_staff_cannot_relink_a_chart_whoever_linked_it_first(world: World, backend: Backend) -> None:
    """An administrator, or somebody beside the service: staff do not link it after them."""
    by_admin, by_hand = world.chart(), world.chart()
    for some in (by_admin, by_hand):
        _, me = world.account()
        path = f"/api/patients/{some['id']}/account"
        if some is by_admin:
            assert world.admin.put(path, {"userId": me["id"]}).status_code == 200
            assert world.admin.delete(path).status_code == 200
        else:
            update = "UPDATE patients SET user_id = $1 WHERE id = $2"
            backend.sql(update, UUID(me["id"]), UUID(some["id"]))
            backend.sql("UPDATE patients SET user_id = NULL WHERE id = $1", UUID(some["id"]))
        refused = world.staff.put(path, {"userId": me["id"]})
        assert (refused.status_code, refused.json()) == (403, AGAIN)


def test_a_refused_link_leaves_the_chart_unlinked(world: World) -> None:
    some, (patient, me) = world.chart(), world.account()
    path = f"/api/patients/{some['id']}/account"
    assert world.staff.put(path, {"userId": world.doctor.me()["id"]}).status_code == 400
    assert world.staff.put(path, {"userId": str(uuid4())}).status_code == 404
    assert world.staff.put(path, {"userId": me["id"]}).status_code == 200
    assert [seen["id"] for seen in patients_of(patient)] == [some["id"]]


def test_changing_an_accounts_role_and_back_does_not_let_staff_link_its_chart_again(world: World) -> None:
    """Neither the account's role nor a new account with the chart's e-mail address makes way for a link."""
    browser, some = world.linked_patient()
    path, user = f"/api/patients/{some['id']}/account", f"/api/users/{browser.me()['id']}"
    for role in ("doctor", "patient"):
        assert world.admin.patch(user, {"role": role}).status_code == 200
        _, namesake = world.account()
        refused = world.staff.put(path, {"userId": namesake["id"]})
        assert (refused.status_code, refused.json()) == (403, AGAIN)
    twin, _ = world.account(email=some["email"])
    assert patients_of(twin) == []


def test_the_first_link_by_staff_is_shown_with_who_made_it(world: World) -> None:
    """To the patient and to an administrator; the refused second one is in the trail."""
    browser, some = world.linked_patient()
    staff = world.staff.me()
    path = f"/api/patients/{some['id']}"
    assert world.staff.put(f"{path}/account", {"userId": browser.me()["id"]}).status_code == 403
    for reader in (browser, world.admin):
        shown = reader.get(f"{path}/accesses").json()["accesses"]
        [link] = [access for access in shown if access["action"] == "patient.link"]
        assert (link["userId"], link["name"], link["role"]) == (staff["id"], staff["name"], "staff")
    events = world.admin.get(f"/api/audit?patientId={some['id']}&action=patient.link").json()["events"]
    assert [(event["outcome"], event["userId"]) for event in events] == [
        ("refused", staff["id"]),
        ("success", staff["id"]),
    ]


def test_concurrent_links_give_an_account_one_chart(
    world: World, backend: Backend, second_instance: Service
) -> None:
    """One chart per account under concurrency, over two instances: one 200, the rest 400."""
    user_id = world.other_patient.me()["id"]
    paths = [f"/api/patients/{world.chart()['id']}/account" for _ in range(8)]
    with ThreadPoolExecutor(len(paths)) as pool:
        browsers = [world.staff, second_instance.browser(world.staff.cookies)] * 4
        with transaction(backend) as hold:
            hold("SELECT FROM users WHERE id = $1 FOR UPDATE", user_id)
            asked = [
                pool.submit(browser.put, path, {"userId": user_id})
                for browser, path in zip(browsers, paths, strict=True)
            ]
            until_they_wait(backend, *asked)
        answers = [answer.result().status_code for answer in asked]
    assert sorted(answers) == [200] + [400] * 7
    [seen] = patients_of(world.other_patient)
    winner = paths[answers.index(200)]
    assert winner == f"/api/patients/{seen['id']}/account"
    assert world.staff.delete(winner).status_code == 200


@pytest.mark.parametrize("role", [Role.ADMIN, Role.STAFF])
def test_concurrent_links_give_a_chart_one_account(role: Role, world: World, backend: Backend) -> None:
    """One account per chart under concurrency: whoever comes first keeps it. Of staff only that one is let
    in, an administrator may ask again."""
    some = world.chart()
    path = f"/api/patients/{some['id']}/account"
    accounts = [world.patient.me()["id"], world.other_patient.me()["id"]] * 3
    with ThreadPoolExecutor(len(accounts)) as pool, transaction(backend) as hold:
        hold("SELECT FROM patients WHERE id = $1 FOR UPDATE", some["id"])
        asked = [pool.submit(world.people[role].put, path, {"userId": id}) for id in accounts]
        until_they_wait(backend, *asked)
    winner = world.staff.get(path).json()["id"]
    answers = [answer.result().status_code for answer in asked]
    if role is Role.ADMIN:
        assert answers == [200 if id == winner else 400 for id in accounts]
    else:
        assert sorted(answers) == [200] + [403] * 5
        assert accounts[answers.index(200)] == winner
    assert world.staff.delete(path).status_code == 200


def test_the_email_of_a_chart_is_trimmed(world: World) -> None:
    """Contract, accounts: "A chart's e-mail is trimmed too (ASCII white space; other blanks are 400)"; and a
    field equal to its stored value counts as absent."""
    made = world.chart(email=" \tMixed.Case@Example.com\r\n")
    assert made["email"] == "Mixed.Case@Example.com"
    path = f"/api/patients/{made['id']}"
    assert world.doctor.patch(path, {"email": " Mixed.Case@Example.com "}).status_code == 200
    assert world.staff.patch(path, {"email": "  other@example.com\n"}).json()["email"] == "other@example.com"
    assert world.staff.patch(path, {"email": "\u2003other@example.com"}).status_code == 400
