"""How transactions end: the write, its row of the trail and the caller's session stand or fall together."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from msgspec import structs

from api.http.auditing import command_event
from persistence import patients, records
from persistence.audit import Action
from persistence.audit_chain import Key
from persistence.closing import Closing
from persistence.models import Gender
from persistence.patients import NewPatient
from persistence.postgres.database import Database, Transaction
from persistence.sessions import Sessions
from security.roles import Caller, Role
from tests.support.factories import World
from tests.support.service import KEY, Backend
from tests.support.statements import run_sql

NOTHING_WRITTEN = (0, 0)


def chart(chart_id: UUID) -> NewPatient:
    return NewPatient(
        id=chart_id,
        name="Ada",
        email="ada@example.com",
        phone="1",
        date_of_birth=date(1980, 1, 1),
        gender=Gender.FEMALE,
        address="Here",
        blood_type=None,
        allergies=None,
    )


def with_keys(chart: NewPatient) -> patients.Added:
    return patients.Added(**chart, **patients.chart_keys(chart["name"], chart["email"], chart["phone"]))


@pytest.fixture
def chart_id() -> UUID:
    return uuid4()


@pytest.fixture
def stored(backend: Backend, chart_id: UUID) -> Callable[[], tuple[int, int]]:
    """How many charts, and how many rows of the trail, there are of `chart_id`."""

    def count() -> tuple[int, int]:
        [(charts,)] = backend.sql("SELECT count(*) FROM patients WHERE id = $1", chart_id)
        [(events,)] = backend.sql("SELECT count(*) FROM audit_events WHERE target_id = $1", chart_id)
        return charts, events

    return count


@pytest.fixture
def staff(world: World, backend: Backend) -> Caller:
    [row] = backend.sql(
        "SELECT users.id, email, role::text, sessions.id FROM users JOIN sessions ON user_id = users.id "
        "WHERE role = 'staff' AND ended_at IS NULL"
    )
    return Caller(row[0], row[1], Role(row[2]), row[3])


def run(backend: Backend, caller: Caller | None, act: Callable[[Transaction], Awaitable[None]]) -> None:
    """Do `act` in a transaction as of a request of `caller`."""

    async def main() -> None:
        async with Database(backend.database_url) as database:
            closing = Closing(Sessions(database.reader, None), caller, Key.of(KEY))
            async with database.transaction(closing) as transaction:
                await act(transaction)

    asyncio.run(main())


WAYS = {
    "alone": "SELECT 1",  # the chart comes behind another statement
    "first": None,  # and here it is the only one
}


@pytest.mark.parametrize("before", WAYS.values(), ids=WAYS)
def test_a_write_and_its_row_are_stored_together(
    backend: Backend, staff: Caller, chart_id: UUID, stored: Any, before: Any
) -> None:
    async def act(transaction: Transaction) -> None:
        if before is not None:
            await run_sql(transaction, before)
        transaction.note(command_event(Action.PATIENT_CREATE, chart_id))
        assert (await patients.add(transaction, **chart(chart_id))).name == "Ada"

    run(backend, staff, act)
    assert stored() == (1, 1)


@pytest.mark.parametrize("before", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    "change",
    [("session_id", uuid4()), ("role", Role.ADMIN), ("email", "old@test.example"), ("id", uuid4())],
    ids=lambda change: change[0] if isinstance(change, tuple) else None,
)
def test_nothing_is_stored_for_a_caller_who_has_changed(
    backend: Backend, staff: Caller, chart_id: UUID, stored: Any, before: Any, change: tuple[str, Any]
) -> None:
    other = structs.replace(staff, **dict([change]))

    async def act(transaction: Transaction) -> None:
        if before is not None:
            await run_sql(transaction, before)
        transaction.note(command_event(Action.PATIENT_CREATE, chart_id))
        await patients.add(transaction, **chart(chart_id))

    with pytest.raises(asyncpg.PostgresError) as refused:
        run(backend, other, act)
    assert refused.value.sqlstate == "MS401"
    assert stored() == NOTHING_WRITTEN


def test_the_session_is_checked_for_a_write_without_an_audit_row(
    backend: Backend, staff: Caller, chart_id: UUID, stored: Any
) -> None:
    async def act(transaction: Transaction) -> None:
        await patients.add(transaction, **chart(chart_id))

    with pytest.raises(asyncpg.PostgresError) as refused:
        run(backend, structs.replace(staff, role=Role.ADMIN), act)
    assert refused.value.sqlstate == "MS401"
    assert stored() == NOTHING_WRITTEN
    run(backend, staff, act)
    assert stored() == (1, 0)


def test_the_session_is_checked_if_the_write_is_not_the_last_statement(
    backend: Backend, staff: Caller, chart_id: UUID, stored: Any
) -> None:
    gone = Caller(staff.id, staff.email, staff.role, uuid4())

    async def act(transaction: Transaction) -> None:
        await transaction.run(patients.ADD, with_keys(chart(chart_id)))

    with pytest.raises(asyncpg.PostgresError):
        run(backend, gone, act)
    assert stored() == NOTHING_WRITTEN


def test_a_write_that_stores_nothing_leaves_no_audit_row(
    backend: Backend, staff: Caller, chart_id: UUID, stored: Any
) -> None:
    async def act(transaction: Transaction) -> None:
        transaction.note(command_event(Action.PATIENT_CREATE, chart_id))
        record = records.NewRecord(
            id=chart_id,
            patient_id=chart_id,
            doctor_id=staff.id,
            diagnosis="Flu",
            prescription="",
            notes="",
            attachments=[],
        )
        assert await records.add(transaction, **record) is None  # there is no such chart

    run(backend, staff, act)
    assert stored() == NOTHING_WRITTEN


def test_a_refusal_behind_the_note_leaves_no_row(
    backend: Backend, staff: Caller, chart_id: UUID, stored: Any
) -> None:
    async def act(transaction: Transaction) -> None:
        transaction.note(command_event(Action.PATIENT_CREATE, chart_id))
        await transaction.run(patients.ADD, with_keys(chart(chart_id)))
        raise LookupError

    with pytest.raises(LookupError):
        run(backend, staff, act)
    assert stored() == NOTHING_WRITTEN


def test_a_statement_that_failed_is_never_taken_for_stored(
    backend: Backend, chart_id: UUID, stored: Any
) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK then, and no error."""

    async def act(transaction: Transaction) -> None:
        await transaction.run(patients.ADD, with_keys(chart(chart_id)))
        with pytest.raises(asyncpg.PostgresError):
            await run_sql(transaction, "SELECT 1 / 0")

    with pytest.raises(RuntimeError, match="has failed"):
        run(backend, None, act)
    assert stored() == NOTHING_WRITTEN


def test_a_concluded_transaction_takes_no_more_statements(
    backend: Backend, chart_id: UUID, stored: Any
) -> None:
    async def act(transaction: Transaction) -> None:
        transaction.note(command_event(Action.PATIENT_CREATE, chart_id))
        await patients.add(transaction, **chart(chart_id))
        with pytest.raises(RuntimeError, match="is over"):
            await run_sql(transaction, "SELECT 1")
        with pytest.raises(RuntimeError, match="nothing can be noted"):
            transaction.note(command_event(Action.PATIENT_CREATE, chart_id))

    run(backend, None, act)
    assert stored() == (1, 1)
