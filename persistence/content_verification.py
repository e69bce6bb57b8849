"""Compares the rows that events of the trail vouch for (contents.py) with what the events say of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, exists, func, select

from persistence import history, merges, record_versions, records
from persistence.audit_chain import Key
from persistence.contents import AnyTable, Content, OfRequests
from persistence.models import AuditEvent
from persistence.postgres.database import Source
from persistence.postgres.statements import NOTHING, Nothing, Query

SEALED_TABLES: dict[str, AnyTable] = {
    table.name: table
    for table in (
        history.PATIENT_CHANGES,
        history.APPOINTMENT_CHANGES,
        record_versions.VERSIONS,
        record_versions.RETRACTIONS,
        merges.MERGES,
    )
}
EVENTS_AT_ONCE = 1000


class Vouching(NamedTuple):
    """`content`: there is one."""

    id: int
    request_id: UUID
    content: str | None


class Strays(NamedTuple):
    """Rows of requests without an event that vouches for anything."""

    rows: int
    requests: int


class After(TypedDict):
    after: int


class Named(NamedTuple):
    """A row, as a key: its table, and what stands in it."""

    table: str
    written: bytes


class Suspect(NamedTuple):
    """A request with more rows than its event vouches for. Perhaps another event does: a proxy may let a
    client name its requests. Of each row how often it is there, and how often it is vouched for."""

    event: int
    rows: Counter[Named]
    vouched: Counter[Named]


EVENTS = Query(
    Vouching,
    After,
    select(AuditEvent.id, AuditEvent.request_id, AuditEvent.content)
    .where(AuditEvent.content.is_not(None), AuditEvent.id > bindparam("after"))
    .order_by(AuditEvent.id)
    .limit(EVENTS_AT_ONCE),
)


def strays_of(table: AnyTable) -> Query[Nothing, Strays]:
    request = table.table.c.request_id
    is_vouched = exists().where(AuditEvent.request_id == request, AuditEvent.content.is_not(None))
    numbers = func.count().label("rows"), func.count(request.distinct()).label("requests")
    return Query(Strays, Nothing, select(*numbers).select_from(table.table).where(~is_vouched))


STRAYS = {name: strays_of(table) for name, table in SEALED_TABLES.items()}


class RowsOfRequest:
    """What stands in the sealed tables under one request's id."""

    def __init__(self) -> None:
        self.rows: list[tuple[Named, AnyTable, tuple[object, ...]]] = []
        self.macs: dict[str, dict[tuple[str, str], Named]] = {}  # by what the key is called

    def add(self, table: AnyTable, row: tuple[object, ...]) -> None:
        self.rows.append((Named(table.name, msgspec.json.encode(row)), table, row))

    def count(self) -> Counter[Named]:
        return Counter(named for named, _, _ in self.rows)

    def under(self, key: Key) -> dict[tuple[str, str], Named]:
        """By table and MAC."""
        if key.id not in self.macs:
            self.macs[key.id] = {(table.name, table.mac(key, row)): named for named, table, row in self.rows}
        return self.macs[key.id]


class Comparison:
    """`rows`: how many are as their events say. `unread`: how many events vouch for something that nobody can
    compare, by the reason."""

    def __init__(self, source: Source, keys: dict[str, Key]) -> None:
        """`keys`: by what they are called."""
        self.source = source
        self.keys = keys
        self.rows = 0
        self.damage: list[str] = []
        self.unread: Counter[str] = Counter()
        self.suspects: dict[UUID, Suspect] = {}

    async def run(self) -> None:
        after = 0
        while events := await self.source.rows(EVENTS, After(after=after)):
            after = events[-1].id
            stored = await self.rows_of({event.request_id for event in events})
            of_requests: dict[UUID, list[Vouching]] = {}
            for event in events:
                of_requests.setdefault(event.request_id, []).append(event)
            for request, some in of_requests.items():
                self.compare(request, some, stored[request])
        for suspect in self.suspects.values():
            for table, number in count_tables(suspect.rows - suspect.vouched).items():
                self.damage.append(
                    f"event {suspect.event}: rows of {table} that it does not vouch for: {number}"
                )
        for name, query in STRAYS.items():
            [strays] = await self.source.rows(query, NOTHING)
            if strays.rows:
                what = f"{strays.rows}, of {strays.requests} requests"
                self.damage.append(f"rows of {name} that no event vouches for: {what}")

    async def rows_of(self, requests: Iterable[UUID]) -> dict[UUID, RowsOfRequest]:
        found = {request: RowsOfRequest() for request in requests}
        for table in SEALED_TABLES.values():
            for row in await self.source.rows(table.of_requests, OfRequests(requests=list(found))):
                found[row.request_id].add(table, row)
        return found

    def compare(self, request: UUID, events: Sequence[Vouching], rows: RowsOfRequest) -> None:
        before = self.suspects.pop(request, None)
        vouched = before.vouched if before else Counter()
        for event in events:
            vouched.update(self.vouched_by(event, rows))
        if rows.count() - vouched:
            self.suspects[request] = Suspect(events[0].id, rows.count(), vouched)

    def vouched_by(self, event: Vouching, rows: RowsOfRequest) -> Counter[Named]:
        """The rows that the event vouches for and that are as it says."""
        try:
            content = msgspec.json.decode(event.content or "", type=Content)
        except msgspec.DecodeError:
            self.damage.append(f"event {event.id}: what it vouches for cannot be read")
            return Counter()
        key = self.keys.get(content.key)
        if key is None:
            self.unread[f"under a key that was not given ({content.key})"] += 1
            return rows.count()  # nobody knows better
        macs, vouched = rows.under(key), Counter[Named]()
        for table, some in content.rows.items():
            if table == records.WRITTEN.name:
                continue  # compared by record_verification.py
            if table not in SEALED_TABLES:
                self.unread[f"of {table}, which this release does not know"] += 1
                continue
            found = [macs[table, mac] for mac in some if (table, mac) in macs]
            if len(found) < len(some):
                lost = len(some) - len(found)
                self.damage.append(f"event {event.id}: rows of {table} that are changed or removed: {lost}")
            vouched.update(found)
        self.rows += vouched.total()
        return vouched


def count_tables(rows: Counter[Named]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for named, number in rows.items():
        counted[named.table] += number
    return counted
