"""What the counters say is what `count(*)` would say, in every snapshot, while others write, fold, fail or
are killed; and a deep page is that of the order, wherever the marks stand."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from persistence import appointment_lists, audit, dashboard, patients, records, users
from persistence.appointment_lists import Filters
from persistence.models import AccountStatus, AppointmentStatus
from persistence.postgres import counters
from persistence.postgres.database import Database, Reader
from persistence.postgres.sorting import AppointmentSort, PatientSort, RecordSort
from security.roles import Caller, Role
from tests.support.service import Backend

pytestmark = pytest.mark.slow

ADMIN = Caller(uuid4(), "admin@test.example", Role.ADMIN, uuid4())
DIFFERENT = """
    SELECT list, kind, counted.n, recounted.n AS rows, counted.amount, recounted.amount AS sum
    FROM counted FULL JOIN recounted USING (list, kind)
    WHERE (coalesce(counted.n, 0), coalesce(counted.amount, 0))
       <> (coalesce(recounted.n, 0), coalesce(recounted.amount, 0))
"""
# In one statement each, so of one snapshot: the figures that are read, and some page by the marks.
WRONG_TOTALS = """
    SELECT (SELECT n FROM counted_rows('patients', NULL)) <> (SELECT count(*) FROM patients)
        OR (SELECT n FROM counted_rows('appointments', '{scheduled}'))
           <> (SELECT count(*) FROM appointments WHERE status = 'scheduled')
        OR (SELECT amount FROM counted_rows('appointments', '{completed}'))
           <> (SELECT coalesce(sum(fee), 0) FROM appointments WHERE status = 'completed')
        OR (SELECT n FROM counted_rows('audit_events', NULL)) <> (SELECT count(*) FROM audit_events)
"""
WRONG_PAGES = """
    WITH mark AS MATERIALIZED (SELECT * FROM mark_before('patients', $1, false)),
         krams AS MATERIALIZED (SELECT * FROM mark_before('medical_records', $1, true))
    SELECT ARRAY(SELECT id FROM patients
                 WHERE (sort_name, id) >= ((SELECT name FROM mark), (SELECT id FROM mark))
                 ORDER BY sort_name, id LIMIT 5 OFFSET $1 - (SELECT n FROM mark))
           <> ARRAY(SELECT id FROM patients ORDER BY sort_name, id LIMIT 5 OFFSET $1)
        OR ARRAY(SELECT id FROM medical_records
                 WHERE (date, id) < ((SELECT at FROM krams), (SELECT id FROM krams))
                 ORDER BY date DESC, id DESC LIMIT 5 OFFSET $1 - (SELECT n FROM krams))
           <> ARRAY(SELECT id FROM medical_records ORDER BY date DESC, id DESC LIMIT 5 OFFSET $1)
"""
ACCOUNT = """
    INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text)
    VALUES ($1::uuid, $1::uuid::text, '', '', $2::text::user_role, $3::text::account_status, $4, '')
"""
CHART = """
    INSERT INTO patients (id, user_id, name, email, phone, date_of_birth, gender, address, sort_name,
                          search_text)
    SELECT gen_random_uuid(), $1::uuid, '', '', '', '2000-01-01', 'other', '', md5(random()::text), ''
    FROM generate_series(1, $2::int)
"""
VISIT = """
    INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, status, reason, fee)
    SELECT gen_random_uuid(), (SELECT id FROM patients LIMIT 1), $1::uuid, at, at + interval '1 minute',
           $2::text::appointment_status, '', $3::int
    FROM (SELECT timestamptz '2000-01-01' + random() * 1e9 * interval '1 second' AS at
          FROM generate_series(1, $4::int)) AS dates
"""
RECORD = """
    INSERT INTO medical_records (id, patient_id, doctor_id, date, diagnosis, prescription)
    SELECT gen_random_uuid(), (SELECT id FROM patients LIMIT 1), $1::uuid,
           timestamptz '2000-01-01' + random() * 1e9 * interval '1 second', '', ''
    FROM generate_series(1, $2::int)
"""
EVENTS = """
    INSERT INTO audit_events (at, action, outcome, target_ids, patient_ids, address, request_id)
    SELECT now(), 'patient.read', 'success', '{}', '{}', '', gen_random_uuid()
    FROM generate_series(1, $1::int)
"""


@pytest.fixture
def backend(servers: Backend) -> Backend:
    """A clinic with a doctor and a few charts, appointments, records and events, that nobody has counted."""
    backend = servers.copy()
    doctor = uuid4()
    backend.sql("DELETE FROM counted_lists")
    backend.sql(ACCOUNT, doctor, "doctor", "active", "doctor")
    backend.sql(CHART, None, 40)
    backend.sql(VISIT, doctor, "completed", 150, 20)
    backend.sql(RECORD, doctor, 40)
    backend.sql(EVENTS, 20)
    return backend


async def different(connection: asyncpg.Connection) -> list[dict[str, object]]:
    return [dict(row) for row in await connection.fetch(DIFFERENT)]


async def change_something(connection: asyncpg.Connection, doctor: object, chance: random.Random) -> None:
    """One statement of those that a service, an older release or somebody with psql may run."""
    act = chance.randrange(14)
    some = "(SELECT id FROM {} ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED)"
    if act == 0:
        await connection.execute(CHART, None, chance.choice([1, 1, 30]))
    elif act == 1:
        account = uuid4()
        await connection.execute(ACCOUNT, account, "patient", "active", "x")
        await connection.execute(CHART, account, 1)
    elif act == 2:
        await connection.execute(f"UPDATE patients SET user_id = NULL WHERE id = {some.format('patients')}")
    elif act == 3:
        await connection.execute(
            f"UPDATE patients SET sort_name = md5(random()::text) WHERE id = {some.format('patients')}"
        )
    elif act == 4:
        await connection.execute("UPDATE patients SET phone = '1'")  # counts nothing
    elif act == 5:
        await connection.execute(f"DELETE FROM medical_records WHERE id = {some.format('medical_records')}")
    elif act in (6, 7):
        await connection.execute(VISIT, doctor, chance.choice(["cancelled", "completed"]), act * 10, 3)
    elif act == 8:
        await connection.execute(
            "UPDATE appointments SET fee = fee + 1, status = CASE status WHEN 'completed' THEN 'cancelled' "
            f"ELSE 'completed' END::appointment_status WHERE id = {some.format('appointments')}"
        )
    elif act == 9:
        await connection.execute(RECORD, doctor, chance.choice([1, 20]))
    elif act == 10:
        await connection.execute(
            "UPDATE users SET status = CASE status WHEN 'active' THEN 'disabled' ELSE 'active' END"
            f"::account_status WHERE role = 'patient' AND id = {some.format('users')}"
        )
    elif act == 11:
        row = await connection.fetchrow("SELECT id, clock_timestamp() FROM patients LIMIT 1")
        await connection.copy_records_to_table(
            "medical_records",
            columns=["id", "doctor_id", "patient_id", "date", "diagnosis", "prescription"],
            records=[(uuid4(), doctor, *row, "", "") for _ in range(20)],
        )
    else:
        await connection.execute(EVENTS, chance.choice([1, 7]))


async def write(url: str, doctor: object, seed: int, until: asyncio.Event) -> None:
    """Transactions of some statements, of which some are undone, in whole or to a savepoint."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    connection = await asyncpg.connect(url)
    while not until.is_set():
        transaction = connection.transaction()
        await transaction.start()
        for _ in range(chance.randrange(1, 4)):
            inner = connection.transaction()
            await inner.start()
            try:
                await change_something(connection, doctor, chance)
            except (asyncpg.DeadlockDetectedError, asyncpg.ForeignKeyViolationError):
                await inner.rollback()
                break
            await (inner.rollback() if chance.random() < 0.2 else inner.commit())
        await (transaction.rollback() if chance.random() < 0.2 else transaction.commit())
    await connection.close()


async def fold(url: str, seed: int, until: asyncio.Event) -> None:
    """As the service does, but with more marks, and now and then it fails or its connection is killed."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    while not until.is_set():
        connection = await asyncpg.connect(url)
        for _ in range(20):
            transaction = connection.transaction()
            await transaction.start()
            if await connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('fold_counts'))"):
                await connection.fetchval("SELECT fold_counts(1)")
                await connection.fetchval("SELECT split_count_mark(8)")
            await asyncio.sleep(0)
            await (transaction.rollback() if chance.random() < 0.2 else transaction.commit())
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetchval("SELECT fold_counts(1)")
        connection.terminate()


async def read(url: str, seed: int, until: asyncio.Event) -> int:
    chance = random.Random(seed)  # noqa: S311  # no secret
    connection = await asyncpg.connect(url)
    looks = 0
    while not until.is_set():
        assert await different(connection) == []
        assert not await connection.fetchval(WRONG_TOTALS)
        assert not await connection.fetchval(WRONG_PAGES, chance.randrange(300))
        looks += 1
    await connection.close()
    return looks


async def race(url: str) -> None:
    connection = await asyncpg.connect(url)
    doctor = await connection.fetchval("SELECT id FROM users WHERE role = 'doctor'")
    assert await connection.fetchval("SELECT fold_counts(1)") is False
    enough = asyncio.Event()
    others = [write(url, doctor, seed, enough) for seed in range(4)] + [
        fold(url, 5, enough),
        fold(url, 6, enough),
    ]
    tasks = [asyncio.create_task(work) for work in others]
    readers = [asyncio.create_task(read(url, seed, enough)) for seed in range(2)]
    await asyncio.wait([*tasks, *readers], timeout=8, return_when=asyncio.FIRST_EXCEPTION)
    enough.set()
    await asyncio.gather(*tasks)
    assert sum(await asyncio.gather(*readers)) > 0
    assert await connection.fetchval("SELECT count(*) FROM count_marks") > 8
    assert await different(connection) == []
    await connection.close()


def test_every_reader_counts_what_there_is_while_others_write_and_fold(backend: Backend) -> None:
    asyncio.run(race(backend.database_url))


def held(backend: Backend, *statements: str) -> list[dict[str, object]]:
    """Run them, and tell in what the counters differ then."""

    async def run() -> list[dict[str, object]]:
        connection = await asyncpg.connect(backend.database_url)
        for statement in statements:
            await connection.execute(statement)
        found = await different(connection)
        assert not await connection.fetchval(WRONG_TOTALS)
        await connection.close()
        return found

    return asyncio.run(run())


def figures(backend: Backend, ask: Callable[[Reader], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        database = Database(backend.database_url)
        try:
            return await ask(database.reader)
        finally:
            await database.close()

    return asyncio.run(run())


def test_readers_count_the_rows_that_were_never_counted(backend: Backend) -> None:
    assert figures(backend, dashboard.admin) == (40, 1, 20, 3000)
    assert figures(backend, dashboard.staff) == (40, 0, 0)
    backend.sql("SELECT fold_counts(1)")
    assert figures(backend, dashboard.admin) == (40, 1, 20, 3000)
    assert figures(backend, dashboard.staff) == (40, 0, 0)


def test_a_truncated_list_is_empty(backend: Backend) -> None:
    """Also with rows behind it in the same transaction, and with changes that nobody has folded."""
    backend.sql("SELECT fold_counts(1)")
    backend.sql("DELETE FROM medical_records WHERE id = (SELECT id FROM medical_records LIMIT 1)")
    held(backend, "BEGIN", "TRUNCATE medical_records", "ROLLBACK")
    assert figures(backend, lambda r: records.page(r, ADMIN, 1, 5))[1] == 39
    one = "(SELECT id FROM users WHERE role = 'doctor')"
    record = RECORD.replace("$1::uuid", one).replace("$2::int", "3")
    held(backend, "BEGIN", "TRUNCATE medical_records", record, "COMMIT")
    assert figures(backend, lambda r: records.page(r, ADMIN, 1, 5))[1] == 3
    assert held(backend, "SELECT fold_counts(1)") == []
    assert held(backend, record, "TRUNCATE audit_events", EVENTS.replace("$1::int", "2")) == []
    assert held(backend, "SELECT fold_counts(1)") == []


def test_restored_audit_events_are_counted(backend: Backend) -> None:
    """Their transactions may be of any number there; those of the server begin lower."""
    backend.sql("SELECT fold_counts(1)")
    for restored in (
        "id * 1000000000",
        "id % 7",
        "pg_snapshot_xmax(pg_current_snapshot())::text::bigint + id",
    ):
        # As the other server has left it: the count of that server, for a table that is not ours.
        assert held(backend, f"UPDATE audit_events SET xid = {restored}") == []
        backend.sql("UPDATE audit_count SET n = 1, until_xid = 1000000000000, of_table = 1")
        assert held(backend, EVENTS.replace("$1::int", "3")) == []
        for _ in range(3):
            assert held(backend, "SELECT fold_counts(1)", EVENTS.replace("$1::int", "5")) == []
    assert held(backend, "DELETE FROM audit_events WHERE id % 2 = 0", "SELECT fold_counts(1)") == []


def test_pending_registrations_count_active_patients_without_a_chart(backend: Backend) -> None:
    """However an account became what it is, and whether its chart was linked before or since."""
    backend.sql("SELECT fold_counts(1)")
    states = [("patient", "active"), ("patient", "disabled"), ("patient", "pending"), ("staff", "active")]
    for role, status in states:
        for linked in (False, True):
            account = uuid4()
            backend.sql(ACCOUNT, account, role, status, "x")
            if linked:
                backend.sql(CHART, account, 1)
    assert figures(backend, dashboard.staff) == (44, 0, 1)
    backend.sql("UPDATE users SET status = 'disabled' WHERE status = 'active'")
    assert figures(backend, dashboard.staff) == (44, 0, 0)
    backend.sql("UPDATE users SET status = 'active', role = 'patient' WHERE role <> 'doctor'")
    assert figures(backend, dashboard.staff) == (44, 0, 4)
    backend.sql("UPDATE patients SET user_id = NULL")
    assert figures(backend, dashboard.staff) == (44, 0, 8)


visits = partial(appointment_lists.page, filters=Filters())


async def listed(backend: Backend) -> None:
    """Every list page by page, at places near marks and far from them, against the whole order."""
    database = Database(backend.database_url)
    connection = await asyncpg.connect(backend.database_url)
    reader = database.reader

    async def check(order: str, page: Callable[[int, int], Awaitable[Any]]) -> None:
        ids = [row["id"] for row in await connection.fetch(f"SELECT id FROM {order}")]
        limit = 100
        last = (len(ids) + limit - 1) // limit
        near_marks = {1, 2, 10, 11, 12, 39, 40, 41, 42, 60, 80, 81}
        for number in near_marks | {max(last, 2) - 1, max(last, 1), last + 1, last + 50}:
            rows, total, *_ = await page(number, limit)
            assert [row[0] for row in rows] == ids[(number - 1) * limit : number * limit]
            assert total == len(ids)

    await check("patients ORDER BY sort_name, id", lambda p, n: patients.page(reader, ADMIN, p, n))
    await check(
        "medical_records ORDER BY date DESC, id DESC",
        lambda p, n: records.page(reader, ADMIN, p, n),
    )
    for status in (None, *AppointmentStatus):
        where = f"WHERE status = '{status}'" if status else ""
        await check(
            f"appointments {where} ORDER BY date, id",
            partial(
                appointment_lists.page, reader, ADMIN, filters=Filters(statuses={status} if status else None)
            ),
        )
    orders: list[tuple[str, Any]] = [
        ("patients ORDER BY sort_name DESC, id DESC", partial(patients.page, sort=PatientSort("-name"))),
        ("patients ORDER BY created_at, id", partial(patients.page, sort=PatientSort("created_at"))),
        ("medical_records ORDER BY date, id", partial(records.page, sort=RecordSort("date"))),
        ("appointments ORDER BY date DESC, id DESC", partial(visits, sort=AppointmentSort("-date"))),
        (
            "appointments ORDER BY created_at DESC, id DESC",
            partial(visits, sort=AppointmentSort("-created_at")),
        ),
        (
            "appointments WHERE status <> 'scheduled' ORDER BY date, id",
            partial(visits, filters=Filters(statuses=set(AppointmentStatus) - {AppointmentStatus.SCHEDULED})),
        ),
    ]
    for order, listing in orders:
        await check(order, partial(listing, reader, ADMIN))
    all_accounts: dict[str, Any] = {"role": None, "status": None, "linked": None, "search": ""}
    await check(
        "users ORDER BY sort_name, id",
        partial(users.page, reader, ADMIN, **all_accounts),
    )
    for role, status in (
        (Role.PATIENT, None),
        (None, AccountStatus.DISABLED),
        (Role.PATIENT, AccountStatus.ACTIVE),
    ):
        conditions = [f"{name} = '{value}'" for name, value in (("role", role), ("status", status)) if value]
        asked = {**all_accounts, "role": role, "status": status}
        await check(
            f"users WHERE {' AND '.join(conditions)} ORDER BY sort_name, id",
            partial(users.page, reader, ADMIN, **asked),
        )
    staff = Caller(uuid4(), "staff@test.example", Role.STAFF, uuid4())
    await check(
        "users WHERE role = 'patient' ORDER BY sort_name, id",
        lambda p, n: users.page(reader, staff, p, n, **all_accounts),
    )
    nothing: dict[str, Any] = dict.fromkeys(("user_id", "patient_id", "action", "since", "until"))
    await check(
        "audit_events ORDER BY at DESC, id DESC",
        lambda p, n: audit.page(reader, p, n, **nothing),
    )
    await connection.close()
    await database.close()


def test_deep_pages_hold_the_rows_of_their_place(backend: Backend) -> None:
    [[doctor]] = backend.sql("SELECT id FROM users WHERE role = 'doctor'")
    backend.sql(CHART.replace("md5(random()::text)", "'the same'"), None, 3000)
    backend.sql(CHART, None, 9000)
    backend.sql(VISIT, doctor, "completed", 1, 9500)
    backend.sql(RECORD, doctor, 12100)
    backend.sql(EVENTS, 9000)
    for status, many in (("active", 4200), ("disabled", 4200), ("pending", 100)):
        backend.sql(
            "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) "
            "SELECT id, id::text, '', '', 'patient', $1::text::account_status, id::text, '' "
            "FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, $2::int)) AS made",
            status,
            many,
        )
    asyncio.run(listed(backend))  # not counted yet
    while backend.sql("SELECT fold_counts(1)")[0][0]:
        pass
    assert backend.sql("SELECT count(*) FROM count_marks")[0][0] > 6
    asyncio.run(listed(backend))
    backend.sql(CHART, None, 150)  # changes that are not folded
    backend.sql(
        "DELETE FROM patients WHERE sort_name < '1' AND id NOT IN (SELECT patient_id FROM appointments)"
    )
    backend.sql("DELETE FROM medical_records WHERE date > '2025-01-01'")
    asyncio.run(listed(backend))


def test_a_deep_page_of_a_filtered_list_names_what_it_tells_of(backend: Backend) -> None:
    """The rows shown and further matches, from whichever end the page is read."""
    [[doctor]] = backend.sql("SELECT id FROM users WHERE role = 'doctor'")
    backend.sql(VISIT, doctor, "completed", 1, 3000)
    ids = [row["id"] for row in backend.sql("SELECT id FROM appointments ORDER BY date, id")]
    completed = AppointmentStatus.COMPLETED
    for page in (2, 110, 200, 301, 302):
        asked = partial(
            appointment_lists.page, caller=ADMIN, page=page, limit=10, filters=Filters(statuses={completed})
        )
        found = figures(backend, asked)
        shown = ids[(page - 1) * 10 : page * 10]
        assert [row[0] for row in found.rows] == shown
        others = [one for one in ids[:100] if one not in shown]
        assert list(found.named[0]) == [*shown, *others][:100]


def test_repairing_counts_rows_that_were_written_without_triggers(backend: Backend) -> None:
    backend.sql("SELECT fold_counts(1)")

    async def run() -> None:
        connection = await asyncpg.connect(backend.database_url)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("DELETE FROM medical_records")
        await connection.execute("UPDATE audit_count SET n = n + 1")
        wrong = {row["list"]: (row["n"], row["rows"]) for row in await different(connection)}
        assert wrong == {"medical_records": (40, None), "audit_events": (21, 20)}
        database = Database(backend.database_url)
        await counters.repair(database)
        await database.close()
        assert await different(connection) == []
        await connection.close()

    asyncio.run(run())
