"""Serving while PostgreSQL or Redis is not there yet: what must be checked is checked once they are."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from api.commands import maintenance
from api.commands.accounts import CommandError
from api.settings import Settings

EVERY = 1.0  # seconds between two tries
log = logging.getLogger("medisecure.start")


class Watch(threading.Thread):
    """Tries until both servers can be reached. Where they must not be served, ends this process as SIGTERM
    does, its workers with it, and leaves the reason in `objection`."""

    objection: str | None = None

    def __init__(self, settings: Settings, workers: int) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.workers = workers

    def run(self) -> None:
        while True:
            time.sleep(EVERY)
            try:
                self.objection = asyncio.run(maintenance.objection(self.settings, self.workers))
            except maintenance.AwayError:
                continue
            break
        if self.objection:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            log.warning("PostgreSQL and Redis are there")

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """uvicorn raises the signal anew once it has stopped."""
        if self.objection:
            raise CommandError(self.objection)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


@contextmanager
def checked(settings: Settings, workers: int) -> Iterator[None]:
    """Let the service loose on its servers, unless there is an objection: CommandError says which. Whoever
    cannot be reached is waited for; /health/ready is 503 until then."""
    try:
        objection = asyncio.run(maintenance.objection(settings, workers))
    except maintenance.AwayError as away:
        log.warning("%s. Waiting for it; /health/ready is 503 meanwhile", away)
        watch = Watch(settings, workers)
        signal.signal(signal.SIGTERM, watch.on_signal)
        watch.start()
        yield
        objection = watch.objection
    else:
        if objection is None:
            yield
    if objection:
        raise CommandError(objection)
