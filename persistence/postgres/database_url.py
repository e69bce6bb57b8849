"""What may stand in a PostgreSQL URL."""

import re
from collections.abc import Iterator, Mapping
from os import R_OK, access
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

EXAMPLE = "postgresql://user:pass@localhost/medisecure"
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%[^\]]+)?\]|[^:\[\]]*)(:(?P<port>[0-9]+)?)?")
CHOICES = {
    "sslmode": {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
    "target_session_attrs": {"any", "primary", "read-write", "prefer-standby"},
    "client_encoding": {"UTF8", "utf8", "UTF-8", "utf-8"},  # any other has no place for every name
}
CHOICES_OF_REPLICA = CHOICES | {"target_session_attrs": {"any", "standby", "prefer-standby"}}
IN_ORDER = {"any", "primary", "read-write"}  # of target_session_attrs; the others have all hosts looked at
FILES = {"sslrootcert", "sslcert", "sslkey", "sslcrl"}


def problems(url: str, choices: Mapping[str, set[str]] = CHOICES) -> Iterator[str]:
    """Why no service of ours could work with `url`, without a word of its password; no connection is made."""
    if not is_database_url(url):
        yield (
            f"must be a PostgreSQL URL, such as {EXAMPLE}; "
            "a password's special characters are percent-encoded"
        )
        return
    for name, value in parse_qsl(urlsplit(url).query):
        if value not in choices.get(name, {value}):
            yield f"must have as {name} one of {', '.join(sorted(choices[name]))}"
        if name in FILES and not access(value, R_OK):
            yield f"names {value} as {name}, which cannot be read"
        if name == "port" and not all(map(is_port, value.split(","))):
            yield "must have a number from 1 to 65535 as port"


def problems_of_replica(url: str) -> Iterator[str]:
    """As `problems`, of the URL of a replica. One of several would be another one each time."""
    yield from problems(url, CHOICES_OF_REPLICA)
    if is_database_url(url):
        parts = urlsplit(url)
        if any("," in hosts for hosts in (parts.netloc, *parse_qs(parts.query).get("host", ()))):
            yield "must name one server: which of several answers is not known"


def is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535


def is_database_url(text: str) -> bool:
    """What libpq reads: one or several hosts, and a `/`, `#`, `?` or `@` in a password percent-encoded."""
    try:
        parts = urlsplit(text)
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return (
        parts.scheme in {"postgresql", "postgres", "postgresql+asyncpg"}
        and all(is_place(host) for host in hosts)
        and not parts.fragment
        and "@" not in parts.path
    )


def is_place(text: str) -> bool:
    """A host, and a port where it is not 5432; libpq lets both be absent."""
    place = HOST.fullmatch(text)
    return place is not None and (place["port"] is None or is_port(place["port"]))


def wanted_of(url: str) -> str:
    """Which of several hosts is meant. Where it does not say so, the one that takes writes: a service that
    got to a standby, while the primary was away for a moment, would stay there."""
    return dict(parse_qsl(urlsplit(url).query)).get("target_session_attrs", "read-write")


def each_host(url: str) -> list[str]:
    """A URL for each of its hosts, in its order, whichever is wanted. One URL where their order is not what
    counts, and where the driver has to say that the ports are wrong."""
    parts = urlsplit(url)
    login, at, places = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query))
    hosts = (places or options.get("host", "")).split(",")
    ports = options.get("port", "").split(",")
    if wanted_of(url) not in IN_ORDER or len(ports) not in {1, len(hosts)}:
        return [url]
    if len(ports) == 1:
        ports *= len(hosts)
    found = []
    options["target_session_attrs"] = "any"
    for host, port in zip(hosts, ports, strict=True):
        own = options | ({"port": port} if port else {}) | ({} if places else {"host": host})
        netloc = f"{login}{at}{host}" if places else parts.netloc
        found.append(urlunsplit(parts._replace(netloc=netloc, query=urlencode(own))))
    return found if len(found) > 1 else [url]
