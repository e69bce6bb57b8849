"""How a request's transaction ends: with its rows of the audit trail, and only if its caller is still who
they were when they asked (ASVS 5.0, 7.4.1 and 8.3.2)."""

from functools import lru_cache
from typing import Any

from sqlalchemy import CTE, Executable, Insert, Select, case, func, select, true

from persistence.audit import Event, as_json, storing
from persistence.postgres.statements import KEPT
from persistence.sessions import Sessions, same_as
from security.roles import Caller


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

    def beside(self, statement: Executable, only_if: CTE | None) -> tuple[Executable, dict[str, Any]] | None:
        if not self.events:
            return None  # it is the rows of the trail that wait for the look at the session
        return joined(statement, only_if, self.same()), self.parameters()

    def alone(self, *, is_first: bool) -> tuple[Executable, dict[str, Any]] | None:
        same = self.same()
        if self.events:
            return stored(same), self.parameters()
        return None if is_first or same is None else (looked(same), self.parameters())

    def same(self) -> Select[Any] | None:
        return None if self.caller is None else self.sessions.same

    def parameters(self) -> dict[str, Any]:
        riding: dict[str, Any] = {"events": as_json(self.events)} if self.events else {}
        if self.caller is not None:
            self.has_asked = True
            riding |= same_as(self.caller)
        return riding


def is_same_caller(same: Select[Any]) -> Any:
    """True, or PostgreSQL's error for a caller who is signed out or of another role by now (failures.py)."""
    return case((same.cte("same").select().exists(), true()), else_=func.refuse_ended_session())


@lru_cache
def looked(same: Select[Any]) -> Select[Any]:
    return select(is_same_caller(same))


@lru_cache
def stored(same: Select[Any] | None, only_if: CTE | None = None) -> Insert:
    """The rows of the trail; `only_if`: where that has a row."""
    conditions = [only_if.select().exists()] if only_if is not None else []
    if same is not None:
        conditions.append(is_same_caller(same))
    return storing(*conditions)


@lru_cache(KEPT)
def joined(statement: Any, only_if: CTE | None, same: Select[Any] | None) -> Any:
    return statement.add_cte(stored(same, only_if).cte("closing"))
