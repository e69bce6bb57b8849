"""An instance whose clock is wrong: a process of its own in which only time is replaced."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from typing import Any

from tests.support.client import Browser
from tests.support.service import Backend

SETTINGS = ("database_url", "redis_url", "secret_key", "rate_limit_per_minute", "login_attempts")


@contextmanager
def instance(backend: Backend, seconds: int) -> Iterator[str]:
    """The URL of an instance whose clock is so many seconds ahead (or behind)."""
    settings = backend.settings()
    known = json.dumps({name: getattr(settings, name) for name in SETTINGS})
    command = [sys.executable, "-m", "tests.support.shifted", str(seconds)]
    environment = {**os.environ, "SETTINGS": known}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def elsewhere(url: str, browser: Browser) -> Browser:
    """The same cookies at another instance."""
    return Browser(url, dict(browser.cookies))


def shift(by: timedelta) -> None:
    real = time.time
    time.time = lambda: real() + by.total_seconds()

    import jwt.api_jwt
    import litestar.security.jwt.token

    import security.tokens

    class Clock(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, datetime)

    class Shifted(datetime, metaclass=Clock):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + by

    for module in (jwt.api_jwt, litestar.security.jwt.token, security.tokens):
        vars(module)["datetime"] = Shifted


def main() -> None:
    shift(timedelta(seconds=int(sys.argv[1])))
    from api.app import create_app
    from api.http.server import listen_on_loopback, server_for
    from api.settings import Settings

    settings = Settings(**json.loads(os.environ["SETTINGS"]))
    sockets = listen_on_loopback(0)
    server = server_for(create_app(settings), settings.timeouts)
    print(f"http://localhost:{sockets[0].getsockname()[1]}", flush=True)
    server.run(list(sockets))


if __name__ == "__main__":
    main()
