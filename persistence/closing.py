"""How a request's transaction ends: with its rows of the audit trail, and only if its caller is still who
they were when they asked (ASVS 5.0, 7.4.1 and 8.3.2)."""

from functools import lru_cache
from typing import Any

from sqlalchemy import CTE, Boolean, Insert, case, func, select, true

from persistence.audit import Event, Stored, as_json, insert_events
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import IdRow, Query, R, Statement, T, Values
from persistence.sessions import SameCaller, Sessions, same_as
from security.roles import Caller

MAX_JOINED = 1000  # queries whose SQL with the hook's is cached; the service has some dozens
Same = Query[SameCaller, IdRow]


class HookValues(Stored, SameCaller):
    """What a hook's statements take."""


class Closing:
    """Rides with the last statement of a transaction (persistence/postgres/database.py)."""

    def __init__(self, sessions: Sessions, caller: Caller | None) -> None:
        """`caller`: whose session must be alive, and whose role and e-mail the same, when that is stored;
        None if no session is checked."""
        self.sessions = sessions
        self.caller = caller
        self.events: list[Event] = []
        self.has_checked_session = False

    def skip_session_check(self) -> None:
        """The session was checked in this transaction already."""
        self.caller = None

    def note(self, event: Event) -> None:
        """Have the event stored with what the transaction writes: both or neither."""
        self.events.append(event)

    def join(self, query: Query[T, R]) -> tuple[Query[T, R], Values] | None:
        if not self.events:
            return None  # the session is checked by a condition on storing the events
        return add_closing(query, self.same()), self.parameters()

    def own_statement(self, *, is_first: bool) -> tuple[Statement[Any], Values] | None:  # Any: of either kind
        same = self.same()
        if self.events:
            return store_events(same), self.parameters()
        return None if is_first or same is None else (check_session(same), self.parameters())

    def same(self) -> Same | None:
        return None if self.caller is None else self.sessions.same

    def parameters(self) -> Values:
        values: dict[str, object] = {"events": as_json(self.events)} if self.events else {}
        if self.caller is not None:
            self.has_checked_session = True
            values |= same_as(self.caller)
        return values


def is_same_caller(same: Same) -> AnyColumn:
    """True, or PostgreSQL's error for a caller who is signed out or of another role by now (failures.py)."""
    is_there = same.statement.cte("same").select().exists()
    return case((is_there, true()), else_=func.refuse_ended_session(type_=Boolean))


@lru_cache
def check_session(same: Same) -> Statement[SameCaller]:
    return Statement(SameCaller, select(is_same_caller(same)))


@lru_cache
def store_events(same: Same | None) -> Statement[HookValues]:
    return Statement(HookValues, insert_events_if(same))


def insert_events_if(same: Same | None, only_if: CTE | None = None) -> Insert:
    """The rows of the trail; `only_if`: where that has a row."""
    conditions: list[AnyColumn] = [only_if.select().exists()] if only_if is not None else []
    if same is not None:
        conditions.append(is_same_caller(same))
    return insert_events(*conditions)


@lru_cache(MAX_JOINED)
def add_closing(query: Query[T, R], same: Same | None) -> Query[T, R]:
    return query.with_part(insert_events_if(same, query.only_if).cte("closing"))
