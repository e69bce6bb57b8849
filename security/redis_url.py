"""What may stand in a Redis URL."""

from collections.abc import Iterator
from os import R_OK, access
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

EXAMPLE = "redis://localhost:6379"
# These change what an answer means, or ask for a script again that may have run.
OURS = {"decode_responses", "encoding", "encoding_errors", "retry_on_timeout", "retry_on_error"}
FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


def problems(url: str) -> Iterator[str]:
    """Why no service of ours could work with `url`, without a word of its password; no connection is made."""
    if not is_redis_url(url):
        yield f"must be a Redis URL, such as {EXAMPLE}"
        return
    for name, value in parse_qsl(urlsplit(url).query):
        if name in OURS:
            yield f"must not set {name}, which the service sets itself"
        if name in FILES and not access(value, R_OK):
            yield f"names {value} as {name}, which cannot be read"


def is_redis_url(text: str) -> bool:
    """Whether a connection could be made of it; none is. Passwords are percent-encoded."""
    try:
        parts = urlsplit(text)
        ConnectionPool.from_url(text).make_connection()  # type: ignore[no-untyped-call]  # the library's
    except (ValueError, TypeError, RedisError):  # TypeError: an option that no connection has
        return False
    number = parts.path.removeprefix("/")
    return (
        not parts.fragment
        and "@" not in parts.query
        and (bool(number) if parts.scheme == "unix" else number == "" or number.isdecimal())
    )
