"""How a request's transaction ends: with its rows of the audit trail, with the rows that they vouch for, and
only if its caller is still who they were when they asked (ASVS 5.0, 7.4.1 and 8.3.2)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from msgspec import structs
from sqlalchemy import CTE, Boolean, Insert, case, func, select, true

from persistence import contents
from persistence.audit import Event, Stored, as_json, insert_events
from persistence.audit_chain import Key
from persistence.contents import Kept, KeptRows
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import IdRow, Query, R, Statement, T, Values
from persistence.sessions import SameCaller, Sessions, same_as
from security.roles import Caller

MAX_JOINED = 1000  # queries whose SQL with the hook's is cached; the service has some dozens
Same = Query[SameCaller, IdRow]
Tables = tuple[contents.AnyTable, ...]
Rows = tuple[contents.AnyTable, Sequence[tuple[object, ...]]]


class HookValues(Stored, KeptRows, SameCaller):
    """What a hook's statements take."""


class Closing:
    """Rides with the last statement of a transaction (persistence/postgres/database.py)."""

    def __init__(self, sessions: Sessions | None, caller: Caller | None, key: Key) -> None:
        """`caller`: whose session must be alive, and whose role and e-mail the same, when that is stored;
        None if no session is checked. `key`: of the trail."""
        self.sessions = sessions
        self.caller = caller
        self.key = key
        self.events: list[Event] = []
        self.kept: list[Kept] = []
        self.has_checked_session = False

    def skip_session_check(self) -> None:
        """The session was checked in this transaction already."""
        self.caller = None

    def note(self, event: Event) -> None:
        """Have the event stored with what the transaction writes: both or neither."""
        self.events.append(event)

    def keep(self, kept: Kept) -> None:
        """Have these rows stored with an event that is noted before or after; the first one, of several,
        unless they name another."""
        self.kept.append(kept)

    def forget(self) -> None:
        self.events.clear()
        self.kept.clear()

    def join(self, query: Query[T, R]) -> tuple[Query[T, R], Values] | None:
        if not self.events:
            return None  # the session is checked by a condition on storing the events
        return add_closing(query, self.same(), self.tables()), self.parameters()

    def own_statement(self, *, is_first: bool) -> tuple[Statement[Any], Values] | None:  # Any: of either kind
        same = self.same()
        if self.events:
            return store_events(same, self.tables()), self.parameters()
        if self.kept:
            raise RuntimeError("no event vouches for what is kept")
        return None if is_first or same is None else (check_session(same), self.parameters())

    def same(self) -> Same | None:
        return None if self.caller is None or self.sessions is None else self.sessions.same

    def tables(self) -> Tables:
        """Where rows are to be stored."""
        return tuple(dict.fromkeys(kept.table for kept in self.kept if not kept.is_stored))

    def parameters(self) -> Values:
        values: dict[str, object] = self.vouched() if self.kept else {}
        if self.events:
            values["events"] = as_json(self.events)
        if self.caller is not None:
            self.has_checked_session = True
            values |= same_as(self.caller)
        return values

    def vouched(self) -> dict[str, object]:
        """The rows to be stored; their events get their content."""
        stored: list[Rows] = []
        first, by_event = self.events[0], dict[int, list[Rows]]()
        for kept in self.kept:
            event = kept.event or first
            rows = kept.table, kept.make(event)
            by_event.setdefault(id(event), []).append(rows)
            if not kept.is_stored:
                stored.append(rows)
        self.events = [
            structs.replace(event, content=contents.content_of(self.key, by_event[id(event)]))
            if id(event) in by_event
            else event
            for event in self.events
        ]
        return {"kept": contents.as_json(stored)}


def is_same_caller(same: Same) -> AnyColumn:
    """True, or PostgreSQL's error for a caller who is signed out or of another role by now (failures.py)."""
    is_there = same.statement.cte("same").select().exists()
    return case((is_there, true()), else_=func.refuse_ended_session(type_=Boolean))


@lru_cache
def check_session(same: Same) -> Statement[SameCaller]:
    return Statement(SameCaller, select(is_same_caller(same)))


@lru_cache
def store_events(same: Same | None, tables: Tables) -> Statement[HookValues]:
    kept = (insert_kept(table) for table in tables)
    return Statement(HookValues, insert_events_if(same).add_cte(*kept))


def insert_events_if(same: Same | None, only_if: CTE | None = None) -> Insert:
    """The rows of the trail; `only_if`: where that has a row."""
    conditions = conditions_of(only_if)
    if same is not None:
        conditions.append(is_same_caller(same))
    return insert_events(*conditions)


def insert_kept(table: contents.AnyTable, only_if: CTE | None = None) -> CTE:
    part: CTE = table.insert_kept(*conditions_of(only_if)).cte(f"keeping_{table.name}")
    return part


def conditions_of(only_if: CTE | None) -> list[AnyColumn]:
    return [] if only_if is None else [only_if.select().exists()]


@lru_cache(MAX_JOINED)
def add_closing(query: Query[T, R], same: Same | None, tables: Tables) -> Query[T, R]:
    whole = query.with_part(insert_events_if(same, query.only_if).cte("closing"))
    for table in tables:
        whole = whole.with_part(insert_kept(table, query.only_if))
    return whole
