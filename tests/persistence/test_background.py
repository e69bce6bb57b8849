"""What the service does by itself, again and again (persistence/postgres/background.py)."""

import asyncio
import logging

import pytest

from persistence.postgres.background import repeat, retry


def test_what_fails_is_tried_again_until_it_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    async def act() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            raise OSError

    asyncio.run(asyncio.wait_for(retry(act, 0, logging.getLogger("test"), "not yet: %s"), 10))
    assert caplog.messages == ["not yet: OSError"] * 2


def test_a_background_task_with_more_to_do_is_called_at_once() -> None:
    acts: list[bool] = []

    async def act() -> tuple[bool, str]:
        acts.append(True)
        return len(acts) < 3, ""

    async def run() -> None:
        keeping = asyncio.create_task(repeat(act, 3600.0, logging.getLogger("test"), "%s"))
        while len(acts) < 3:  # noqa: ASYNC110  # an event would be one more await
            await asyncio.sleep(0)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))
