"""What may stand in a Redis URL."""

from collections.abc import Iterator
from os import R_OK, access
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

EXAMPLE = "redis://localhost:6379"
# Options that change what an answer means, that repeat a script which may have run, or that change how long
# the service waits. The last line has objects, which a URL cannot name.
SET_BY_SERVICE = {
    "decode_responses", "encoding", "encoding_errors", "legacy_responses",
    "retry", "retry_on_timeout", "retry_on_error",
    "socket_timeout", "socket_connect_timeout", "socket_read_size", "max_connections", "timeout",
    "credential_provider", "redis_connect_func", "event_dispatcher", "parser_class", "encoder_class",
}  # fmt: skip
FILE_OPTIONS = {"ssl_ca_path", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


def problems(url: str) -> Iterator[str]:
    """Why the service could not work with `url`; the password is never in it. No connection is made."""
    for name, value in options(url):
        if name in SET_BY_SERVICE:
            yield f"must not set {name}, which the service sets itself"
        if name in FILE_OPTIONS and not access(value, R_OK):
            yield f"names {value} as {name}, which cannot be read"
        if name == "health_check_interval" and value.startswith("-"):
            yield f"must have as {name} 0 or more seconds"
    if not is_redis_url(url):
        yield f"must be a Redis URL, such as {EXAMPLE}"
        return
    tls = getattr(make_connection(url), "ssl_context", None)
    try:
        _ = tls and tls.get()  # reads the certificates
    except (OSError, ValueError) as error:
        yield f"asks for TLS that cannot be set up: {getattr(error, 'reason', None) or error.args[-1]}"


def options(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query)
    except ValueError:
        return []


def is_redis_url(text: str) -> bool:
    """Whether redis-py can make a connection of it; it is not opened. Passwords are percent-encoded."""
    try:
        parts = urlsplit(text)
        make_connection(text)
    except (ValueError, TypeError, RedisError):  # TypeError: an option that no connection has
        return False
    number = parts.path.removeprefix("/")
    return (
        not parts.fragment
        and parts.port != 0  # redis-py takes that for the default port
        and "@" not in parts.query
        and (bool(number) if parts.scheme == "unix" else number == "" or number.isdecimal())
    )


def make_connection(url: str) -> object:
    """A connection that is not opened yet. Raises what redis-py raises for a wrong URL."""
    return ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]  # the library's
