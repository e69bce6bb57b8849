"""The clock that all instances share is PostgreSQL's. tests/reliability has instances that differ."""

import asyncio
from datetime import timedelta
from time import time
from uuid import uuid4

import pytest

from persistence import clock as database_clock
from persistence.clock import find_difference, follow_clock
from persistence.postgres.database import Database
from security import clock
from security.roles import Caller, Role
from security.tokens import TokenIssuer, TokenKind
from tests.support.service import KEY, Backend


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0.0), (3, 0.0), (150, -150.0), (-150, 150.0)])
def test_what_this_machine_is_off_is_found_where_it_matters(
    servers: Backend, monkeypatch: pytest.MonkeyPatch, seconds: int, expected: float
) -> None:
    async def find() -> float | None:
        async with Database(servers.database_url) as database:
            return await find_difference(database.reader)

    monkeypatch.setattr("persistence.clock.time", lambda: time() + seconds)
    assert asyncio.run(find()) == pytest.approx(expected, abs=2)


def test_an_answer_that_took_long_changes_nothing(
    servers: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_clock, "MAX_ANSWER_SECONDS", -1)
    heard: list[float] = []

    async def follow() -> None:
        async with Database(servers.database_url) as database:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(follow_clock(database.reader, heard.append), 2)

    asyncio.run(follow())
    assert heard == []
    assert "it took too long to tell" in caplog.text


def test_tokens_go_by_the_clock_that_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine issues that is five minutes behind is good at another, and no longer than it says."""
    issuer = TokenIssuer(KEY, "HS256", timedelta(minutes=15))
    other = TokenIssuer(KEY, "HS256", timedelta(minutes=15))
    caller = Caller(uuid4(), "a@b.example", Role.STAFF, uuid4())
    with monkeypatch.context() as behind:
        behind.setattr("security.clock.time", lambda: time() - 300)
        behind.setattr(clock, "ahead", 300.0)
        token = issuer.issue_access(caller)
    assert other.read(token, TokenKind.ACCESS)
    with monkeypatch.context() as later:
        later.setattr(clock, "ahead", 901.0)
        assert TokenIssuer(KEY, "HS256", timedelta(minutes=15)).read(token, TokenKind.ACCESS) is None
        assert other.read(token, TokenKind.ACCESS) is None
