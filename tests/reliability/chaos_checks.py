"""What must hold after a run, asked of the database itself."""

import asyncio
from collections.abc import Iterator

import asyncpg

from api.commands.maintenance import compare_counters, verify_seals
from persistence.audit_chain import Key
from tests.reliability.chaos_clients import Failed, Memory
from tests.reliability.chaos_faults import ROLLING_RESTART, Misfortune
from tests.reliability.chaos_requests import EXPECTED
from tests.support.conformance import CONTRACT
from tests.support.running import wait_until
from tests.support.service import KEY, Backend

SHOWN = 5  # of the things that are wrong in one way
OVERLAPS = """
    SELECT count(*) AS n FROM (
        SELECT ends_at > lead(date) OVER (PARTITION BY {person} ORDER BY date) AS is_early
        FROM appointments WHERE status = 'scheduled') AS scheduled WHERE is_early
"""
# Where what leaves these tables is: merged charts and retracted records.
KEPT = {
    "patients": "SELECT id FROM patients UNION ALL SELECT id FROM merged_patients",
    "medical_records": "SELECT id FROM medical_records UNION ALL SELECT record_id FROM record_retractions",
}
# What the clients made has a mark of its own: an e-mail, a moment with a doctor, a diagnosis.
DOUBLED = {
    "patients": "SELECT count(*) - count(DISTINCT email) AS n FROM patients WHERE email LIKE 'chart-%'",
    "appointments": "SELECT count(*) - count(DISTINCT (doctor_id, date)) AS n FROM appointments "
    "WHERE date >= '2100-01-01' AND status = 'scheduled'",
    "medical_records": "SELECT count(*) - count(DISTINCT diagnosis) AS n FROM medical_records "
    "WHERE diagnosis LIKE 'Well %-%'",
}


def problems(backend: Backend, memory: Memory, misfortune: Misfortune) -> Iterator[str]:
    yield from problems_of_answers(memory, misfortune)
    yield from problems_of_rows(backend)
    lost = count_lost(backend, memory)
    yield from (f"{n} acknowledged writes to {table} are lost" for table, n in lost.items() if n)
    yield from problems_of_the_trail(backend, memory)
    for count in asyncio.run(compare_counters(backend.database_url, repair=False)):
        if count.is_counted and (count.n, count.amount) != (count.rows, count.sum):
            yield f"the counter of {count.list} ({count.kind}) says {count.n}, there are {count.rows} rows"


def problems_of_answers(memory: Memory, misfortune: Misfortune) -> Iterator[str]:
    outside = [each for each in memory.failed if not misfortune.cover(each.began, each.ended)]
    if outside:
        yield f"{len(outside)} requests failed outside the windows of faults: {outside[:SHOWN]}"
    others = [each for each in memory.failed if not each.operation.startswith("checkReadiness")]  # its answer
    restarted = [each for each in others if ROLLING_RESTART in faults_at(misfortune, each)]
    if restarted:
        yield f"{len(restarted)} requests failed in a {ROLLING_RESTART}: {restarted[:SHOWN]}"
    unclean = [each for each in memory.failed if each.detail]
    if unclean:
        yield f"{len(unclean)} answers were no clean 503: {unclean[:SHOWN]}"
    if unserved := CONTRACT.operation_ids() - memory.served.keys():
        yield f"operations were never served: {sorted(unserved)}"
    refused = {key: n for key, n in memory.refused.items() if key not in EXPECTED}
    if refused:
        yield f"requests were refused: {refused}"


def faults_at(misfortune: Misfortune, failed: Failed) -> set[str]:
    return {window.fault for window in misfortune.touched(failed.began, failed.ended)}


def problems_of_rows(backend: Backend) -> Iterator[str]:
    for person in ("doctor_id", "patient_id"):
        if n := backend.sql(OVERLAPS.format(person=person))[0]["n"]:
            yield f"{n} scheduled appointments of one {person} overlap"
    for table, sql in DOUBLED.items():
        if n := backend.sql(sql)[0]["n"]:
            yield f"{n} rows of {table} are there twice"


def count_lost(backend: Backend, memory: Memory) -> dict[str, int]:
    return {
        table: len(ids) - count_present(backend, KEPT.get(table, f"SELECT id FROM {table}"), ids)
        for table, ids in memory.acknowledged.items()
    }


def count_present(backend: Backend, known: str, ids: list[str]) -> int:
    """How many of the ids, which are all different, are among the `known`."""

    async def count() -> int:
        connection = await asyncpg.connect(backend.database_url)
        try:
            await connection.execute("CREATE TEMP TABLE asked (id uuid)")
            await connection.copy_records_to_table("asked", records=[(each,) for each in ids])
            sql = f"SELECT count(DISTINCT asked.id) FROM asked JOIN ({known}) AS known ON known.id = asked.id"
            return int(await connection.fetchval(sql))
        finally:
            await connection.close()

    return asyncio.run(count())


def problems_of_the_trail(backend: Backend, memory: Memory) -> Iterator[str]:
    events = "SELECT request_id AS id FROM audit_events"
    for operation, ids in memory.audited.items():
        if missing := len(ids) - count_present(backend, events, ids):
            yield f"{missing} of {len(ids)} answers to {operation} are not in the audit trail"
    keys = [Key.of(KEY)]

    def is_sealed() -> bool:
        return asyncio.run(verify_seals(backend.database_url, keys, None)).unsealed == 0

    wait_until(is_sealed, "the seal of the last event")
    report = asyncio.run(verify_seals(backend.database_url, keys, None))
    yield from (f"the audit trail: {problem}" for problem in report.problems[:SHOWN])
