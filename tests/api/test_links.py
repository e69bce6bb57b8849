"""The account of a chart: who may link it, to which account, and how often."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from security.roles import Role
from tests.support.charts import patients_of
from tests.support.factories import World, email, registration
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend, Service

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
def test_doctors_and_patients_cannot_link_accounts(
    world: World, own_chart_for_a_test: dict[str, Any], role: Role
) -> None:
    path = f"/api/patients/{own_chart_for_a_test['id']}/account"
    browser = world.people[role]
    assert browser.get(path).status_code == 403
    assert browser.put(path, {"userId": str(uuid4())}).status_code == 403
    assert browser.delete(path).status_code == 403
    assert world.staff.get(path).json()["id"] == world.patient.me()["id"]


def test_linking_the_same_chart_and_account_again_is_200(
    world: World, own_chart_for_a_test: dict[str, Any]
) -> None:
    path = f"/api/patients/{own_chart_for_a_test['id']}/account"
    again = world.admin.put(path, {"userId": world.patient.me()["id"]})
    assert again.status_code == 200
    assert again.json() == own_chart_for_a_test


def test_a_linked_chart_cannot_be_linked_to_another_account(
    world: World, own_chart_for_a_test: dict[str, Any]
) -> None:
    refused = world.admin.put(
        f"/api/patients/{own_chart_for_a_test['id']}/account", {"userId": world.other_patient.me()["id"]}
    )
    assert refused.status_code == 400
    assert refused.json() == {"detail": "This patient is linked to another account"}
    assert patients_of(world.other_patient) == []


def test_a_linked_account_cannot_be_linked_to_another_chart(
    world: World, own_chart_for_a_test: dict[str, Any]
) -> None:
    second = world.chart()
    refused = world.staff.put(f"/api/patients/{second['id']}/account", {"userId": world.patient.me()["id"]})
    assert refused.status_code == 400
    assert refused.json() == {"detail": "userId: this account is linked to another patient"}
    assert world.staff.get(f"/api/patients/{second['id']}/account").status_code == 404
    assert [seen["id"] for seen in patients_of(world.patient)] == [own_chart_for_a_test["id"]]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.DOCTOR, Role.STAFF])
def test_only_patient_accounts_can_be_linked(world: World, role: Role) -> None:
    some = world.chart()
    refused = world.staff.put(
        f"/api/patients/{some['id']}/account", {"userId": world.people[role].me()["id"]}
    )
    assert refused.status_code == 400
    assert refused.json() == {"detail": "userId: must be an active patient account"}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_staff_cannot_link_a_chart_again_that_staff_or_an_admin_linked(
    world: World, backend: Backend
) -> None:
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


@pytest.mark.slow
def test_a_refused_link_leaves_the_chart_unlinked(world: World) -> None:
    some, (patient, me) = world.chart(), world.account()
    path = f"/api/patients/{some['id']}/account"
    assert world.staff.put(path, {"userId": world.doctor.me()["id"]}).status_code == 400
    assert world.staff.put(path, {"userId": str(uuid4())}).status_code == 404
    assert world.staff.put(path, {"userId": me["id"]}).status_code == 200
    assert [seen["id"] for seen in patients_of(patient)] == [some["id"]]


@pytest.mark.slow
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


@pytest.mark.slow
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
    """One account per chart under concurrency: the first request keeps it. Of staff only that one is let
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
