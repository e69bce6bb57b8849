"""What rides along with the last statement of a transaction."""

from typing import Any, Protocol

from persistence.postgres.statements import Query, R, Statement, T, Values

AnyEvent = Any  # of the audit trail, which no module of this folder may know
AnyKept = Any  # rows that such an event vouches for
AnyQuery = Statement[Any]  # whose values come with it


class CommitHook(Protocol):
    """What is stored with the last statement of a transaction, or keeps it from being stored
    (persistence/closing.py)."""

    def note(self, event: AnyEvent) -> None: ...

    def keep(self, kept: AnyKept) -> None: ...

    def forget(self) -> None:
        """What was noted and kept."""

    def skip_session_check(self) -> None: ...

    def own_statement(self, *, is_first: bool) -> tuple[AnyQuery, Values] | None:
        """A statement of its own and its values, None where there is nothing. `is_first`: nothing was run
        before it."""

    def join(self, query: Query[T, R]) -> tuple[Query[T, R], Values] | None:
        """`query` and this in one, the same object each time, and this one's values."""
