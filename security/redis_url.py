"""What may stand in a Redis URL."""

from collections.abc import Iterator
from os import R_OK, access
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

EXAMPLE = "redis://localhost:6379"
# These change what an answer means, ask for a script again that may have run, or wait for another time than
# the service is built for; the last are objects, which no URL can name.
OURS = {
    "decode_responses", "encoding", "encoding_errors", "legacy_responses",
    "retry", "retry_on_timeout", "retry_on_error",
    "socket_timeout", "socket_connect_timeout", "socket_read_size", "max_connections", "timeout",
    "credential_provider", "redis_connect_func", "event_dispatcher", "parser_class", "encoder_class",
}  # fmt: skip
FILES = {"ssl_ca_path", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


def problems(url: str) -> Iterator[str]:
    """Why no service of ours could work with `url`, without a word of its password; no connection is made."""
    for name, value in options(url):
        if name in OURS:
            yield f"must not set {name}, which the service sets itself"
        if name in FILES and not access(value, R_OK):
            yield f"names {value} as {name}, which cannot be read"
        if name == "health_check_interval" and value.startswith("-"):
            yield f"must have as {name} 0 or more seconds"
    if not is_redis_url(url):
        yield f"must be a Redis URL, such as {EXAMPLE}"
        return
    tls = getattr(connection_of(url), "ssl_context", None)
    try:
        _ = tls and tls.get()  # reads the certificates
    except (OSError, ValueError) as error:
        yield f"asks for TLS that cannot be had: {getattr(error, 'reason', None) or error.args[-1]}"


def options(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query)
    except ValueError:
        return []


def is_redis_url(text: str) -> bool:
    """Whether a connection could be made of it; none is. Passwords are percent-encoded."""
    try:
        parts = urlsplit(text)
        connection_of(text)
    except (ValueError, TypeError, RedisError):  # TypeError: an option that no connection has
        return False
    number = parts.path.removeprefix("/")
    return (
        not parts.fragment
        and parts.port != 0  # which the library takes for the usual one
        and "@" not in parts.query
        and (bool(number) if parts.scheme == "unix" else number == "" or number.isdecimal())
    )


def connection_of(url: str) -> object:
    """One that is not made yet."""
    return ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]  # the library's
