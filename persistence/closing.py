"""How a request's transaction ends: with its rows of the audit trail, and only if its caller is still who
they were when they asked (ASVS 5.0, 7.4.1 and 8.3.2)."""

from functools import lru_cache
from typing import Any

from sqlalchemy import CTE, Boolean, Insert, case, func, select, true

from persistence.audit import Event, Stored, as_json, storing
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
        None where nobody's need be."""
        self.sessions = sessions
        self.caller = caller
        self.events: list[Event] = []
        self.has_asked = False

    def settle_caller(self) -> None:
        """Their session has been looked after in this transaction: it is not asked for again."""
        self.caller = None

    def note(self, event: Event) -> None:
        """Have the event stored with what the transaction writes: both or neither."""
        self.events.append(event)

    def beside(self, query: Query[T, R]) -> tuple[Query[T, R], Values] | None:
        if not self.events:
            return None  # it is the rows of the trail that wait for the look at the session
        return joined(query, self.same()), self.parameters()

    def alone(self, *, is_first: bool) -> tuple[Statement[Any], Values] | None:
        same = self.same()
        if self.events:
            return stored(same), self.parameters()
        return None if is_first or same is None else (looked(same), self.parameters())

    def same(self) -> Same | None:
        return None if self.caller is None else self.sessions.same

    def parameters(self) -> Values:
        values: dict[str, object] = {"events": as_json(self.events)} if self.events else {}
        if self.caller is not None:
            self.has_asked = True
            values |= same_as(self.caller)
        return values


def is_same_caller(same: Same) -> AnyColumn:
    """True, or PostgreSQL's error for a caller who is signed out or of another role by now (failures.py)."""
    is_there = same.statement.cte("same").select().exists()
    return case((is_there, true()), else_=func.refuse_ended_session(type_=Boolean))


@lru_cache
def looked(same: Same) -> Statement[SameCaller]:
    return Statement(SameCaller, select(is_same_caller(same)))


@lru_cache
def stored(same: Same | None) -> Statement[HookValues]:
    return Statement(HookValues, storing_for(same))


def storing_for(same: Same | None, only_if: CTE | None = None) -> Insert:
    """The rows of the trail; `only_if`: where that has a row."""
    conditions: list[AnyColumn] = [only_if.select().exists()] if only_if is not None else []
    if same is not None:
        conditions.append(is_same_caller(same))
    return storing(*conditions)


@lru_cache(MAX_JOINED)
def joined(query: Query[T, R], same: Same | None) -> Query[T, R]:
    return query.with_part(storing_for(same, query.only_if).cte("closing"))
