"""Work away from the event loop: bounded, and refused at once where it would wait too long."""

import asyncio
from threading import Event

import pytest

from api.paper.workbench import Workbench
from security.passwords import TooBusyError


def test_beyond_its_places_the_workbench_is_busy_until_one_is_done() -> None:
    bench, go_on = Workbench(places=2), Event()

    async def work() -> None:
        first, second = (asyncio.create_task(bench.do(go_on.wait)) for _ in range(2))
        await asyncio.sleep(0)
        with pytest.raises(TooBusyError):
            await bench.do(go_on.wait)
        go_on.set()
        assert await first
        assert await second
        assert await bench.do(lambda: "done") == "done"

    asyncio.run(work())
    bench.close()


def test_what_fails_gives_its_place_back() -> None:
    bench = Workbench(places=1)

    def fail() -> None:
        raise LookupError

    async def work() -> None:
        for _ in range(2):
            with pytest.raises(LookupError):
                await bench.do(fail)

    asyncio.run(work())
    bench.close()
