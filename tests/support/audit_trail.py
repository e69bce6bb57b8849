"""The rows of the audit trail, as they are stored."""

from typing import Any

from tests.support.service import Backend

Row = dict[str, Any]


def rows(backend: Backend, where: str = "true", *args: Any) -> list[Row]:
    found = backend.sql(f"SELECT * FROM audit_events WHERE {where} ORDER BY id", *args)
    return [dict(row) for row in found]


def newest(backend: Backend) -> int:
    return int(backend.sql("SELECT coalesce(max(id), 0) FROM audit_events")[0][0])


def new(backend: Backend, since: int, action: str) -> list[Row]:
    return rows(backend, "id > $1 AND action = $2", since, action)


def named(backend: Backend, since: int, action: str) -> tuple[list[str], set[str]]:
    """(targetIds, charts) of the one event of this action since then."""
    [row] = new(backend, since, action)
    return [str(id) for id in row["target_ids"]], {str(id) for id in row["patient_ids"]}
