"""What changed of what an answer shows, as triggers note it (migration 0019), and who may know."""

import logging
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import text

from persistence.cursors import Cursor
from persistence.postgres.background import repeat
from persistence.postgres.database import Reader, Source
from persistence.postgres.statements import NOTHING, Nothing, Query, Statement
from persistence.snapshots import Place, Position, Snapshot
from security.roles import Caller, Role

PURGE_INTERVAL_SECONDS = 600.0
MAX_XID = 2**63 - 1
log = logging.getLogger("medisecure.changes")


class ChangeNoun(StrEnum):
    PATIENT = "patient"
    APPOINTMENT = "appointment"
    RECORD = "record"
    USER = "user"
    ABSENCE = "absence"


class ChangeAct(StrEnum):
    CREATE = "create"
    UPDATE = "update"


class Change(NamedTuple):
    """`roles`, `accounts`, `charts`, `doctors`: who may know of it, as in `changes`."""

    xid: int
    noun: str
    id: UUID
    act: str
    roles: int
    accounts: list[UUID]
    charts: list[UUID]
    doctors: list[UUID]

    @property
    def place(self) -> Place:
        return self.xid, self.noun, self.id


class Moment(NamedTuple):
    """What a statement sees, of which database, and from which transaction on everything is kept there.
    `last_xid`: the last one of which something is kept."""

    seen: str
    database: str
    from_xid: int
    last_xid: int | None

    @property
    def snapshot(self) -> Snapshot:
        """What is seen, of all up to the last transaction that is known to have changed anything. A later
        one has left nothing, and PostgreSQL may give its number again once it was killed: what that one does
        is new."""
        after_last = 0 if self.last_xid is None else self.last_xid + 1
        return self.whole.below(max(self.from_xid, after_last))

    @property
    def whole(self) -> Snapshot:
        return Snapshot.parse(self.seen)


class FoundRow(NamedTuple):
    """`change`: None in the one row of a statement that has found nothing."""

    moment: Moment
    change: Change | None


class Transactions(TypedDict):
    """From `least`, below `until`, those that are among `open` or not below `xmax`."""

    least: int
    until: int
    xmax: int
    open: list[int]


class Rest(TypedDict):
    """Of the transaction `xid` only what comes after this."""

    xid: int
    noun: str
    object: UUID


class Asked(Transactions, Rest):
    """`bit`: of the caller's role; 0 for what anybody may know of."""

    limit: int
    caller: UUID
    bit: int


class Found(NamedTuple):
    """What is new to somebody. `seen`: in which state of the database; `position`: where they stand who were
    told all of it; `is_all`: nothing else was there."""

    changes: list[Change]
    seen: Snapshot
    position: Position
    is_all: bool


class StaleCursorError(Exception):
    """Not all is known here that has changed since. `is_foreign`: because it is of another database."""

    def __init__(self, *, is_foreign: bool) -> None:
        super().__init__()
        self.is_foreign = is_foreign


KNOWN = frozenset(ChangeNoun)
# As in the functions of migration 0019.
BITS = {Role.ADMIN: 1, Role.DOCTOR: 2, Role.STAFF: 4, Role.PATIENT: 8}
EVERYBODY = 0
NOBODY = UUID(int=0)
AT_END = Position(Snapshot(MAX_XID, ()))  # to whom nothing is new
# A restored table is another one, and a restored or promoted server has another timeline: transactions that
# were seen may be gone there, and their numbers be given to others. What a dump has brought along lies ahead
# until it is purged.
WINDOW = """
          xid >= CAST(:least AS bigint) AND xid < CAST(:until AS bigint)
      AND xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint -- a restored table may have others
      AND (xid >= CAST(:xmax AS bigint) OR xid = ANY (CAST(:open AS bigint[])))
      AND (xid <> CAST(:xid AS bigint)
           OR (noun, object_id) > (CAST(:noun AS text) COLLATE "C", CAST(:object AS uuid)))"""
# A link of the caller to a chart, or its end: any other change of the chart names its account twice, before
# it and after it.
IS_LINK = """
          noun = 'patient' AND cardinality(array_positions(accounts, CAST(:caller AS uuid))) % 2 = 1"""
# Whose a chart is, is looked up now. What changed before a link, or before its end, is told to who was linked
# at that time; the link itself names all that came or went by it. What it did not find in the chart was begun
# before it and committed after it.
IN_OWN_CHART = f"""
    SELECT FROM unnest(told.charts) AS of (chart)
    CROSS JOIN LATERAL (SELECT count(*) AS links FROM links
                        WHERE links.chart = of.chart AND links.xid > told.xid) AS later
    WHERE CASE
        WHEN later.links = 0 THEN of.chart = moment.chart
        WHEN EXISTS (SELECT FROM changes WHERE {WINDOW}
                     AND xid > told.xid AND noun = told.noun AND object_id = told.object_id
                     AND CAST(:caller AS uuid) = ANY (accounts))
        THEN (of.chart IS NOT DISTINCT FROM moment.chart) <> (later.links % 2 = 1)
        ELSE of.chart = moment.chart AND (
            EXISTS (SELECT FROM appointments WHERE id = told.object_id AND patient_id = of.chart)
            OR EXISTS (SELECT FROM medical_records WHERE id = told.object_id AND patient_id = of.chart))
    END"""  # noqa: S608 - made of constants
SQL = f"""
WITH links AS MATERIALIZED (
    SELECT xid, object_id AS chart FROM changes
    WHERE {WINDOW} AND {IS_LINK} AND CAST(:bit AS integer) = {BITS[Role.PATIENT]})
SELECT moment.seen, moment.database, moment.from_xid, moment.last_xid, change.*
FROM (SELECT pg_current_snapshot()::text AS seen,
             concat_ws(' ', (SELECT system_identifier FROM pg_control_system()),
                       (SELECT oid FROM pg_database WHERE datname = current_database()),
                       'changes'::regclass::oid,
                       substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)) AS database,
             CASE WHEN from_xid <= now.next THEN from_xid ELSE 0 END AS from_xid,
             (SELECT max(xid) FROM changes WHERE xid < now.next) AS last_xid,
             (SELECT id FROM patients WHERE user_id = CAST(:caller AS uuid)) AS chart
      FROM change_horizon, (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next) AS now
      OFFSET 0) AS moment
LEFT JOIN LATERAL (
    SELECT xid, noun, object_id AS id, act, roles, accounts, charts, doctors
    FROM changes AS told
    WHERE {WINDOW}
      AND (roles & CAST(:bit AS integer) <> 0 OR CAST(:bit AS integer) = {EVERYBODY}
           OR CAST(:caller AS uuid) = ANY (accounts)
              AND (noun = 'user' OR CAST(:bit AS integer) = {BITS[Role.PATIENT]})
           OR CAST(:caller AS uuid) = ANY (doctors) AND CAST(:bit AS integer) = {BITS[Role.DOCTOR]}
           OR CAST(:bit AS integer) = {BITS[Role.PATIENT]}
              AND (moment.chart = ANY (charts) OR EXISTS (SELECT FROM links WHERE chart = ANY (told.charts)))
              AND EXISTS ({IN_OWN_CHART}))
    ORDER BY xid, noun, object_id LIMIT CAST(:limit AS integer)) AS change ON true
ORDER BY change.xid, change.noun, change.id
"""  # noqa: S608 - made of constants
FOUND = Query(FoundRow, Asked, text(SQL))
PURGE = Statement(Nothing, text("SELECT purge_changes()"))


def is_own(change: Change, caller: Caller, chart: UUID | None) -> bool:
    """Whether they see it, whatever others of their role do; the statement says the same. Only a patient sees
    what is in a chart by its link: who was one, and is something else by now, may be linked to it still. And
    only a doctor sees an appointment because it is with them: who was one may have some still."""
    if caller.role is Role.PATIENT:
        return caller.id in change.accounts or chart in change.charts
    if caller.role is Role.DOCTOR and caller.id in change.doctors:
        return True
    return change.noun == ChangeNoun.USER and caller.id in change.accounts


def is_link(change: Change, caller: Caller) -> bool:
    """Whether they have got their chart by it, or lost it; as the statement has it."""
    return change.noun == ChangeNoun.PATIENT and change.accounts.count(caller.id) % 2 == 1


@lru_cache(8)
def name_of(database: str) -> str:
    """As it stands in a cursor."""
    return sha256(database.encode()).hexdigest()[:12]


def asked(position: Position, caller: UUID, bit: int, limit: int) -> Asked:
    """What is new to somebody at this position: the rest of the transaction of which they were told a part,
    or else all."""
    snapshot, within = position
    least, until, xmax, still_open = snapshot.xmin, MAX_XID, snapshot.xmax, list(snapshot.open)
    xid, noun, object_id = within or (0, "", NOBODY)
    if within is not None:
        least, until, xmax, still_open = xid, xid + 1, xid, []
    of_transactions = Transactions(least=least, until=until, xmax=xmax, open=still_open)
    rest = Rest(xid=xid, noun=noun, object=object_id)
    return Asked(**of_transactions, **rest, limit=limit, caller=caller, bit=bit)


async def ask(source: Source, what: Asked) -> tuple[Moment, Snapshot, list[Change]]:
    rows = await source.rows(FOUND, what)
    moment = rows[0].moment
    return moment, moment.snapshot, [row.change for row in rows if row.change is not None]


async def cursor_of_now(source: Source) -> Cursor:
    moment, seen, _ = await ask(source, asked(AT_END, NOBODY, EVERYBODY, 0))
    return Cursor(name_of(moment.database), Position(seen))


async def of_everybody(
    source: Source, snapshot: Snapshot | None, limit: int
) -> tuple[str, Snapshot, list[Change]]:
    """The database's name, what it shows by now, and what is new since `snapshot`."""
    position = AT_END if snapshot is None else Position(snapshot)
    moment, seen, found = await ask(source, asked(position, NOBODY, EVERYBODY, limit))
    return name_of(moment.database), seen, found


async def read(source: Source, caller: Caller, cursor: Cursor, limit: int) -> Found:
    """What the caller may know of that is new since the cursor. Raises StaleCursorError."""
    database, position = cursor
    while True:
        moment, seen, found = await ask(source, asked(position, caller.id, BITS[caller.role], limit))
        require_known(Cursor(database, position), moment)
        changes = [change for change in found if change.noun in KNOWN]  # not those of a later release
        is_cut = len(found) == limit
        is_all = position.within is None and not is_cut
        if is_cut:
            position = position.after(found[-1].place, seen)
        else:
            position = Position(seen if is_all else position.whole())
        if changes or is_all:
            return Found(changes, seen, position, is_all)


def require_known(cursor: Cursor, moment: Moment) -> None:
    snapshot = cursor.position.snapshot
    if cursor.database != name_of(moment.database) or snapshot.xmax > moment.whole.xmax:
        raise StaleCursorError(is_foreign=True)
    if snapshot.xmin < moment.from_xid:
        raise StaleCursorError(is_foreign=False)


async def purge_periodically(reader: Reader) -> None:
    """For as long as the service runs. `reader`: of the primary."""

    async def act() -> tuple[bool, str]:
        await reader.run(PURGE, NOTHING)
        return False, ""

    await repeat(act, PURGE_INTERVAL_SECONDS, log, "Old changes could not be deleted: %s")
