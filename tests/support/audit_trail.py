"""The rows of the audit trail, as they are stored."""

import asyncio
from typing import Any

from api.commands.maintenance import verify_seals
from persistence.audit_chain import Key
from tests.support.running import wait_until
from tests.support.service import KEY, Backend

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


def wait_until_sealed(backend: Backend) -> None:
    def is_sealed() -> bool:
        return asyncio.run(verify_seals(backend.database_url, [Key.of(KEY)], None)).unsealed == 0

    wait_until(is_sealed, "seals over all events")
