"""If-Match on what changes a chart, an appointment or an account (RFC 9110, 13.1.1): nobody overwrites what
they have not seen."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from litestar import Litestar

from api.contract import contract
from api.http.conditional import parse_entity_tags
from api.http.requests import OperationPolicy
from tests.support.client import PROBLEM, Browser
from tests.support.factories import World
from tests.support.handlers import handlers
from tests.support.locks import transaction, until_they_wait
from tests.support.openapi import operations, parameters
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

PAGE = {"origin": "http://localhost:5173"}
NO_HEADERS: dict[str, str] = {}
HERE = {"detail": "If-None-Match: this is what is here"}
STALE = {"detail": "If-Match: this has changed since it was read. Read it again."}
Body = dict[str, Any] | None


@dataclass
class Write:
    """A write that somebody may do to one object: with `body`, and then with `other`, which changes it
    again. `shown`: where the object is read."""

    browser: Browser
    method: str
    path: str
    body: Body
    other: Body
    shown: str

    def send(
        self, tag: str | None, body: Body = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> httpx.Response:
        content = {} if self.body is None else {"json": self.body if body is None else body}
        condition = {} if tag is None else {"if-match": tag}
        return self.browser.request(self.method, self.path, headers={**condition, **headers}, **content)

    def object(self) -> tuple[str, Any]:
        """Its tag, and what it shows."""
        answer = self.browser.get(self.shown)
        return answer.headers["etag"], answer.json()


def of_a_chart(world: World) -> Write:
    path = f"/api/patients/{world.chart()['id']}"
    return Write(world.doctor, "PATCH", path, {"allergies": "penicillin"}, {"allergies": "none"}, path)


def of_an_appointment(world: World) -> Write:
    path = f"/api/appointments/{world.appointment()['id']}"
    return Write(world.staff, "PATCH", path, {"notes": "a letter"}, {"notes": "two letters"}, path)


def of_ones_own_account(world: World) -> Write:
    person, _ = world.account()
    return Write(person, "PATCH", "/api/users/me", {"phone": "1"}, {"phone": "2"}, "/api/users/me")


def of_an_account(world: World) -> Write:
    path = f"/api/users/{world.account()[1]['id']}"
    return Write(world.admin, "PATCH", path, {"status": "disabled"}, {"status": "active"}, path)


def of_a_link(world: World) -> Write:
    path = f"/api/patients/{world.chart()['id']}"
    link, other = ({"userId": world.account()[1]["id"]} for _ in range(2))
    return Write(world.admin, "PUT", f"{path}/account", link, other, path)


def of_a_linked_chart(world: World) -> Write:
    _, chart = world.linked_patient()
    path = f"/api/patients/{chart['id']}"
    return Write(world.staff, "DELETE", f"{path}/account", None, None, path)


PATCHES = [of_a_chart, of_an_appointment, of_ones_own_account, of_an_account]
WRITES = [*PATCHES, of_a_link, of_a_linked_chart]
Make = Callable[[World], Write]


@pytest.mark.parametrize("make", WRITES)
def test_a_stale_tag_is_412_and_nothing_changes(make: Make, world: World) -> None:
    """13.1.1: it compares strongly."""
    write = make(world)
    before = write.object()
    for stale in ('"other"', '"other", "another"', f"W/{before[0]}", f'"x{before[0][1:]}'):
        refused = write.send(stale)
        assert (refused.status_code, refused.json()) == (412, STALE)
    problem = write.send('"other"', headers=PROBLEM)
    assert (problem.json()["code"], problem.json()["errors"]) == ("precondition_failed", [])
    assert write.object() == before


@pytest.mark.parametrize("make", WRITES)
@pytest.mark.parametrize("form", ["{}", "*", '"other", {}', "{},W/{}"])
def test_the_tag_of_what_is_there_lets_a_write_pass(make: Make, form: str, world: World) -> None:
    write = make(world)
    before, _ = write.object()
    answer = write.send(form.replace("{}", before))
    assert answer.status_code == 200
    after, _ = write.object()
    assert answer.headers["etag"] == after != before


@pytest.mark.parametrize("make", PATCHES)
def test_a_tag_is_good_for_one_change(make: Make, world: World) -> None:
    write = make(world)
    tag, _ = write.object()
    first = write.send(tag)
    assert write.send(tag, write.other).status_code == 412
    assert write.send(tag).status_code == 412, "though it would change nothing"
    assert write.send(tag, {}).status_code == 412
    assert write.send(first.headers["etag"], write.other).status_code == 200
    assert write.send(None).status_code == 200


@pytest.mark.parametrize("make", WRITES)
def test_a_write_that_wants_something_else_than_is_there_is_412(make: Make, world: World) -> None:
    """13.1.2: If-None-Match, on what is no read."""
    write = make(world)
    tag, shown = write.object()
    for held in (tag, f"W/{tag}", "*"):
        refused = write.send(None, headers={"if-none-match": held})
        assert (refused.status_code, refused.json()) == (412, HERE)
    assert write.object() == (tag, shown)
    assert write.send(tag, headers={"if-none-match": '"other"'}).status_code == 200


MALFORMED = ["", "other", '"other', "W/*", "*, *", '"a" "b"', "'a'", ","]


def test_what_the_contract_allows_is_what_is_not_malformed() -> None:
    schema = contract()["components"]["parameters"]["IfMatch"]["schema"]
    allowed = Draft202012Validator(schema).is_valid
    for form in ("*", '"a"', 'W/"a"', '""', '"a", "b"', '"a",W/"b" , "c"', '"with,a,comma", "b"'):
        assert allowed(form)
        assert parse_entity_tags(form) is not None
    for form in MALFORMED:
        assert not allowed(form)
        assert parse_entity_tags(form) is None


def test_a_condition_of_endless_length_is_400(world: World) -> None:
    path, headers = f"/api/patients/{world.chart()['id']}", {"If-Match": f'"{"x" * 2100}"'}
    refused = world.staff.patch(path, {}, headers=headers)
    detail = "If-Match: must be at most 2048 characters"
    assert (refused.status_code, refused.json()) == (400, {"detail": detail})


@pytest.mark.parametrize("make", WRITES)
def test_a_malformed_condition_is_400_and_judged_with_the_body(make: Make, world: World) -> None:
    write = make(world)
    before = write.object()
    fault = {"parameter": "If-Match", "code": "bad_format", "detail": "must be * or a list of ETags"}
    for malformed in MALFORMED:
        refused = write.send(malformed, headers=PROBLEM)
        assert (refused.status_code, refused.json()["errors"]) == (400, [fault])
        assert refused.json()["detail"] == "If-Match: must be * or a list of ETags"
    if write.body is not None:
        errors = write.send("other", {"unknown": 1}, headers=PROBLEM).json()["errors"]
        places = [error.get("pointer", error.get("parameter")) for error in errors]
        assert (places[0], places[-1]) == ("If-Match", "/unknown")
    write.path += "?page=1"
    errors = write.send("other", {"unknown": 1}, headers=PROBLEM).json()["errors"]
    assert [error["parameter"] for error in errors[:2]] == ["page", "If-Match"]
    assert write.object() == before


def test_a_chart_that_is_not_there_is_404_whatever_the_condition(world: World) -> None:
    for write in (make(world) for make in WRITES if make is not of_ones_own_account):
        write.path = write.path.replace(write.path.split("/")[3], "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77")
        assert write.send('"other"').status_code == 404
        assert write.send("malformed").status_code == 400


def test_a_field_of_another_role_is_403_before_it_is_412(world: World) -> None:
    chart, appointment = of_a_chart(world), of_an_appointment(world)
    chart.browser = world.staff
    assert chart.send('"other"', {"medicalHistory": "asthma"}).status_code == 403
    patient, own = world.linked_patient()
    appointment.path = f"/api/appointments/{world.appointment(patientId=own['id'])['id']}"
    appointment.browser = patient
    assert appointment.send('"other"', {"notes": "mine"}).status_code == 403


def test_a_rule_is_400_before_it_is_412(world: World) -> None:
    """Those of the database among them."""
    appointment, taken = of_an_appointment(world), world.appointment()
    assert appointment.send('"other"', {"date": taken["date"]}).status_code == 400
    assert appointment.send('"other"', {"status": "completed"}).status_code == 400
    link, (linked, _) = of_a_link(world), world.linked_patient()
    assert link.send('"other"', {"userId": linked.me()["id"]}).status_code == 400
    account = of_an_account(world)
    assert account.send('"other"', {"status": "pending"}).status_code == 400
    assert account.send('"other"', {"email": linked.me()["email"]}).status_code == 400
    own = of_ones_own_account(world)
    assert own.send('"other"', {"department": "Surgery"}).status_code == 400


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (of_a_chart, "allergies"),
        (of_an_appointment, "notes"),
        (of_ones_own_account, "phone"),
        (of_an_account, "name"),
    ],
)
def test_of_a_hundred_pairs_with_one_tag_one_write_each_succeeds(
    make: Make, field: str, world: World
) -> None:
    """At the same moment; what is shown then is what the one that succeeded wrote."""
    write, gate = make(world), Barrier(2)

    def send(tag: str, text: str) -> tuple[int, str]:
        gate.wait()
        return write.send(tag, {field: text}).status_code, text

    with ThreadPoolExecutor(2) as pool:
        for number in range(100):
            tag, _ = write.object()
            (first, won), (second, _) = sorted(pool.map(send, (tag, tag), (f"{number} a", f"{number} b")))
            assert (first, second) == (200, 412)
            assert write.object()[1][field] == won


@pytest.mark.parametrize("table", ["patients", "users"])
def test_a_rename_under_way_makes_the_tag_of_an_appointment_stale(
    table: str, world: World, backend: Backend
) -> None:
    write = of_an_appointment(world)
    tag, shown = write.object()
    renamed = shown["patientId" if table == "patients" else "doctorId"]
    with ThreadPoolExecutor(1) as pool:
        with transaction(backend) as beside:
            beside(f"UPDATE {table} SET name = name || ' Jr.' WHERE id = $1", renamed)  # a test's own
            waiting = pool.submit(write.send, tag)
            until_they_wait(backend, waiting)
            assert not waiting.done()
        assert waiting.result().status_code == 412
    assert write.send(write.object()[0]).status_code == 200


def test_pages_may_send_the_condition(world: World) -> None:
    write = of_a_chart(world)
    asked = {
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "if-match,content-type",
    }
    preflight = write.browser.request("OPTIONS", write.path, headers={**PAGE, **asked})
    assert preflight.status_code == 204
    assert "if-match" in preflight.headers["access-control-allow-headers"].split(", ")
    refused = write.send('"other"', headers=PAGE)
    assert refused.status_code == 412
    assert refused.headers["access-control-allow-origin"] == PAGE["origin"]
    assert "ETag" in write.send("*", headers=PAGE).headers["access-control-expose-headers"].split(", ")


def test_a_clinic_may_require_the_condition_for_charts(world: World, backend: Backend) -> None:
    """Contract: "A clinic may have set that this takes no request without `If-Match`, which is 400 then"."""
    detail = "is required: the ETag with which this was read"
    fault = {"parameter": "If-Match", "code": "required", "detail": detail}
    with Service(backend, backend.settings(require_if_match=True)) as strict:
        for make in WRITES:
            write = make(world)
            write.browser = strict.browser(write.browser.cookies)
            before = write.object()
            answer = write.send(None, headers=PROBLEM)
            if make is of_a_chart:
                assert (answer.status_code, answer.json()["errors"]) == (400, [fault])
                assert write.send(None, {}).status_code == 400
                assert write.object() == before
                assert write.send("other").status_code == 400
                assert write.send(before[0]).status_code == 200
            else:
                assert answer.status_code == 200


def test_the_contract_declares_if_match_and_412_where_the_code_judges_it(service: Service) -> None:
    app: Litestar = service.app
    judged = {key for key, one in handlers(app).items() if "If-Match" in OperationPolicy.of(one).headers}
    document, declared, refused = contract(), set(), set()
    for method, path, operation in operations(document):
        if any(parameter["name"] == "If-Match" for parameter in parameters(document, path, operation)):
            declared.add((method, path))
        if "412" in operation["responses"] and method not in {"GET", "HEAD"}:
            refused.add((method, path))
    assert judged == declared == refused
    assert len(judged) >= len(WRITES)
