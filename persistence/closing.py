"""How a request's transaction ends: with its rows of the audit trail, and only if its caller is still who
they were when they asked (ASVS 5.0, 7.4.1 and 8.3.2)."""

from functools import lru_cache
from typing import Any

from sqlalchemy import CTE, Executable, Insert, Select, bindparam, case, func, insert, select, true

from persistence.audit import EVENTS, Event, as_json
from persistence.models import AccountStatus, AuditEvent, Session, User
from persistence.sessions import Sessions, living
from persistence.statements import KEPT
from security.roles import Caller


class Closing:
    """Rides with the last statement of a transaction (persistence/database.py)."""

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
        idle = self.sessions.idle
        return joined(statement, only_if, self.caller is not None, idle), self.parameters()

    def alone(self, *, is_first: bool) -> tuple[Executable, dict[str, Any]] | None:
        idle = self.sessions.idle
        if self.events:
            return stored(self.caller is not None, idle), self.parameters()
        return None if is_first or self.caller is None else (looked(idle), self.parameters())

    def parameters(self) -> dict[str, Any]:
        riding: dict[str, Any] = {"events": as_json(self.events)} if self.events else {}
        if self.caller is not None:
            self.has_asked = True
            riding |= {
                "closing_user": self.caller.id,
                "closing_email": self.caller.email,
                "closing_role": self.caller.role,
                "closing_session": self.caller.session_id,
            }
        return riding


def is_same_caller(idle: Any) -> Any:
    """True, or PostgreSQL's error for a caller who is signed out or of another role by now (failures.py). If
    it is, nobody ends the session before the transaction ends."""
    alive = (
        select(Session.id)
        .join(User, User.id == Session.user_id)
        .where(
            Session.id == bindparam("closing_session"),
            User.id == bindparam("closing_user"),
            User.email == bindparam("closing_email"),
            User.role == bindparam("closing_role", type_=User.role.type),
            User.status == AccountStatus.ACTIVE,
            *living(idle),
        )
        .with_for_update(read=True, of=Session)
        .cte("alive")
    )
    return case((alive.select().exists(), true()), else_=func.refuse_ended_session())


@lru_cache
def looked(idle: Any) -> Select[Any]:
    return select(is_same_caller(idle))


@lru_cache
def stored(is_guarded: bool, idle: Any, only_if: CTE | None = None) -> Insert:
    """The rows of the trail; those of `only_if`: where that has a row."""
    events = select(EVENTS)
    if only_if is not None:
        events = events.where(only_if.select().exists())
    if is_guarded:
        events = events.where(is_same_caller(idle))
    return insert(AuditEvent).from_select(Event.__struct_fields__, events)


@lru_cache(KEPT)
def joined(statement: Any, only_if: CTE | None, is_guarded: bool, idle: Any) -> Any:
    return statement.add_cte(stored(is_guarded, idle, only_if).cte("closing"))
