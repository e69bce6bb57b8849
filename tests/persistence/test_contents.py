"""The trail vouches for the history: a row of it that is changed, removed or added by SQL is damage."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec import structs

from api.commands.maintenance import verify_seals
from api.http.auditing import command_event
from persistence import history
from persistence.audit import Action, Event
from persistence.audit_chain import Key, SealedRow, seal
from persistence.audit_verification import Report
from persistence.closing import Closing
from persistence.content_verification import SEALED_TABLES
from persistence.contents import Kept
from persistence.history import Difference, PatientChangeRow
from persistence.postgres.database import Database, Transaction
from tests.support.factories import World
from tests.support.service import KEY, Backend, Service

pytestmark = pytest.mark.slow

OURS = Key.of(KEY)
OTHER = Key.of("another key of the operator, thirty-two bytes")
CHART = UUID(int=1)


class OlderKey(Key, frozen=True):
    """As the release before had it, which knew of no content."""

    def digest(self, event: SealedRow) -> bytes:
        return super().digest(event._replace(content=None))


def verified(backend: Backend, *keys: Key) -> Report:
    return asyncio.run(verify_seals(backend.database_url, list(keys or [OURS]), None))


def in_transaction(
    backend: Backend, act: Callable[[Transaction], Awaitable[object]], *, key: Key | None = OURS
) -> None:
    """`key`: None where nothing rides with the transaction."""

    async def run() -> None:
        async with Database(backend.database_url) as database:
            closing = Closing(None, None, key) if key else None
            async with database.transaction(closing) as transaction:
                await act(transaction)

    asyncio.run(run())


def seal_now(backend: Backend, key: Key = OURS) -> None:
    in_transaction(backend, lambda transaction: seal(transaction, key), key=None)


def change_by_command(
    backend: Backend, *fields: str, request_id: UUID | None = None, key: Key = OURS
) -> None:
    """Note a change of each field of CHART, without a chart."""

    async def act(transaction: Transaction) -> None:
        event = command_event(Action.PATIENT_UPDATE, CHART)
        transaction.note(structs.replace(event, request_id=request_id or event.request_id))
        changes = [Difference(field, None, "new") for field in fields]
        history.keep_chart_changes(transaction, CHART, None, changes)

    in_transaction(backend, act, key=key)


@pytest.fixture(scope="module")
def written(populated: tuple[Backend, dict[str, dict[str, str]], float]) -> Backend:
    """A database with some history, sealed, on which no service runs any more."""
    backend = populated[0].copy()
    with Service(backend, backend.settings()) as service:
        world = World(service, {name: service.browser(one) for name, one in populated[1].items()})
        chart = world.chart()
        path = f"/api/patients/{chart['id']}"
        assert world.staff.patch(path, {"phone": "1", "address": '\u00c7\u2028 "quoted" \\ path'}).is_success
        assert world.doctor.patch(path, {"medicalHistory": "x" * 20000}).is_success
        world.link(chart["id"], world.patient)
        visit = world.appointment(patientId=chart["id"])
        assert world.doctor.patch(f"/api/appointments/{visit['id']}", {"notes": "Fasting."}).is_success
    seal_now(backend)
    return backend


@pytest.fixture
def sealed(written: Backend) -> Backend:
    """A copy of it, to damage."""
    copied = written.copy()
    assert verified(copied).problems == []
    return copied


def test_the_history_of_every_kind_is_vouched_for(sealed: Backend) -> None:
    assert verified(sealed).vouched_rows == 5
    assert {row["field"] for row in sealed.sql("SELECT field FROM patient_changes")} == {
        "phone", "address", "medicalHistory", "account",
    }  # fmt: skip
    assert sealed.sql("SELECT count(*) FROM appointment_changes")[0][0] == 1


def test_every_table_whose_rows_name_their_request_is_vouched_for(sealed: Backend) -> None:
    """So no table of that kind is forgotten when it is made."""
    tables = sealed.sql(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND column_name = 'request_id' AND table_name <> 'audit_events'"
    )
    assert {row["table_name"] for row in tables} == SEALED_TABLES.keys()
    for name, table in SEALED_TABLES.items():
        columns = sealed.sql(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_name = $1 AND column_name NOT IN ('id', 'stored_patient_id')",
            name,
        )
        assert {row["column_name"] for row in columns} == set(table.names)


OTHERS = {
    "at": "at + interval '1 microsecond'",
    "user_id": "NULL",
    "name": "'x'",
    "role": "NULL",
    "field": "'name'",
    "before": "''",
    "after": "'x'",
    "patient_id": "gen_random_uuid()",
}


@pytest.mark.parametrize("column", OTHERS)
def test_a_row_that_is_changed_in_any_column_is_damage(column: str, sealed: Backend) -> None:
    """Named by event and table, and the row that stands there now is none that the event knows."""
    [event] = sealed.sql("SELECT id FROM audit_events WHERE action = 'patient.link'")
    sealed.sql(f"UPDATE patient_changes SET {column} = {OTHERS[column]} WHERE field = 'account'")
    assert verified(sealed).damage == [
        f"event {event[0]}: rows of patient_changes that are changed or removed: 1",
        f"event {event[0]}: rows of patient_changes that it does not vouch for: 1",
    ]


COPY = (
    "INSERT INTO patient_changes (patient_id, at, user_id, name, role, request_id, field, before, after) "
    "SELECT patient_id, at, user_id, name, role, {request}, field, before, after FROM patient_changes "
    "WHERE field = 'medicalHistory'"
)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        (
            "DELETE FROM patient_changes WHERE field = 'phone'",
            "of patient_changes that are changed or removed: 1",
        ),
        ("DELETE FROM patient_changes", "rows of patient_changes that are changed or removed: 2"),
        ("TRUNCATE appointment_changes", "of appointment_changes that are changed or removed: 1"),
        ("UPDATE appointment_changes SET after = 'Not fasting.'", "of appointment_changes that are changed"),
        (COPY.format(request="request_id"), "rows of patient_changes that it does not vouch for: 1"),
        (
            COPY.format(request="gen_random_uuid()"),
            "rows of patient_changes that no event vouches for: 1, of 1 requests",
        ),
        (
            "UPDATE patient_changes SET request_id = (SELECT request_id FROM appointment_changes)",
            "rows of patient_changes that it does not vouch for: 4",
        ),
        ("UPDATE audit_events SET content = NULL WHERE content IS NOT NULL", "is changed"),
        ("UPDATE audit_events SET content = NULL WHERE content IS NOT NULL", "no event vouches for: 4, of 3"),
        ("DELETE FROM audit_events WHERE action = 'patient.link'", "no event vouches for: 1, of 1"),
        (
            "UPDATE audit_events SET content = replace(content, 'patient_changes', 'appointment_changes')",
            "that are changed or removed",
        ),
    ],
)
def test_damage_of_every_kind_is_found(statement: str, complaint: str, sealed: Backend) -> None:
    sealed.sql(statement)
    damage = verified(sealed).damage
    assert any(complaint in line for line in damage), damage


def test_what_is_not_sealed_yet_is_compared_too(sealed: Backend) -> None:
    change_by_command(sealed, "name", "phone")
    report = verified(sealed)
    assert (report.unsealed, report.vouched_rows, report.problems) == (1, 7, [])
    sealed.sql("UPDATE patient_changes SET after = 'other' WHERE field = 'name'")
    assert len(verified(sealed).damage) == 2


def test_what_a_command_changed_names_no_person(sealed: Backend) -> None:
    change_by_command(sealed, "name")
    [row] = sealed.sql("SELECT * FROM patient_changes WHERE patient_id = $1", CHART)
    assert (row["user_id"], row["name"], row["role"]) == (None, None, None)
    assert (row["field"], row["before"], row["after"]) == ("name", None, "new")


def test_content_under_a_key_that_was_not_given_is_no_damage(sealed: Backend) -> None:
    change_by_command(sealed, "name", key=OTHER)
    report = verified(sealed)
    assert report.damage == []
    assert report.not_given == [f"1 events vouch for rows under a key that was not given ({OTHER.id})"]
    assert verified(sealed, OURS, OTHER).problems == []


def test_requests_of_one_name_are_told_apart(sealed: Backend) -> None:
    """A proxy may let its clients name their requests; none of that is damage, and none of it hides any."""
    same = uuid4()
    for field in ("name", "phone", "name"):
        change_by_command(sealed, field, request_id=same)
    assert verified(sealed).problems == []
    sealed.sql("DELETE FROM patient_changes WHERE request_id = $1 AND field = 'phone'", same)
    [lost] = verified(sealed).damage
    assert "that are changed or removed: 1" in lost


def test_requests_of_one_name_are_told_apart_however_far_apart(
    sealed: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = uuid4()
    monkeypatch.setattr("persistence.content_verification.EVENTS_AT_ONCE", 1)
    for field in ("name", "phone"):
        change_by_command(sealed, field, request_id=same)
    assert verified(sealed).problems == []


def test_what_a_sealer_of_the_release_before_has_sealed_verifies(sealed: Backend) -> None:
    """It seals the event without its content, beside a service of this release."""
    change_by_command(sealed, "name")
    seal_now(sealed, OlderKey(OURS.secret))
    assert verified(sealed).problems == []
    sealed.sql("UPDATE audit_events SET email = 'x' WHERE target_id = $1", CHART)
    assert any("is changed" in line for line in verified(sealed).damage)


def insert_event(backend: Backend, content: str) -> None:
    backend.sql(
        "INSERT INTO audit_events "
        "(at, action, outcome, target_ids, patient_ids, address, request_id, content) "
        "VALUES (now(), 'patient.read', 'success', '{}', '{}', 'x', gen_random_uuid(), $1)",
        content,
    )


def test_what_a_role_that_can_only_append_makes_up_is_reported(sealed: Backend) -> None:
    insert_event(sealed, "{}")
    assert ["what it vouches for cannot be read" in line for line in verified(sealed).damage] == [True]
    with pytest.raises(Exception, match="too long"):
        insert_event(sealed, "x" * 4001)


def test_rows_of_a_table_of_a_later_release_are_not_compared(sealed: Backend) -> None:
    insert_event(sealed, f'{{"key": "{OURS.id}", "rows": {{"dreams": ["00"]}}}}')
    report = verified(sealed)
    assert report.damage == []
    assert report.not_given == ["1 events vouch for rows of dreams, which this release does not know"]


def test_rows_that_something_else_stores_are_vouched_for(sealed: Backend) -> None:
    """As a trigger does: the event vouches for them, and they are not stored twice."""

    def make(event: Event) -> list[PatientChangeRow]:
        return [PatientChangeRow(event.at, None, None, None, event.request_id, "name", None, "new", CHART)]

    async def act(transaction: Transaction) -> None:
        event = command_event(Action.PATIENT_UPDATE, CHART)
        transaction.note(structs.replace(event, at=event.at.replace(microsecond=0) + timedelta(seconds=1)))
        transaction.keep(Kept(history.PATIENT_CHANGES, make, is_stored=True))

    in_transaction(sealed, act)
    assert "that are changed or removed: 1" in verified(sealed).damage[0]
    sealed.sql(
        "INSERT INTO patient_changes (patient_id, at, request_id, field, after) "
        "SELECT target_id, at, request_id, 'name', 'new' FROM audit_events WHERE target_id = $1",
        CHART,
    )
    assert verified(sealed).problems == []


def test_nothing_is_kept_without_an_event(sealed: Backend) -> None:
    async def act(transaction: Transaction) -> Any:
        history.keep_chart_changes(transaction, CHART, None, [])

    with pytest.raises(RuntimeError, match="no event vouches"):
        in_transaction(sealed, act)
    with pytest.raises(RuntimeError, match="nothing can be kept"):
        in_transaction(sealed, act, key=None)
