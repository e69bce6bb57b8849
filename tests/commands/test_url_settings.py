"""DATABASE_URL and REDIS_URL: what is accepted, and what a refusal says, which is never the password."""

import pytest

from persistence.postgres import database_url
from security import redis_url
from tests.support.settings import read, refusal


@pytest.mark.parametrize(
    "url",
    [
        "postgres://h/d",
        "postgresql+asyncpg://h/d",
        "postgresql:///d?host=/run",
        "postgresql://u:p%2F%40@[::1]:5432,h2:5433/d?sslmode=require",
        "postgresql://u@[fe80::1%25eth0]:/d",
    ],
)
def test_every_form_of_postgresql_url_is_accepted(url: str) -> None:
    assert read(DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "rediss://u:p%23@h:6380/1?ssl_cert_reqs=none",
        "redis://h/",
        "unix:///run/valkey.sock?db=1",
    ],
)
def test_every_form_of_redis_url_is_accepted(url: str) -> None:
    assert read(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hush-hush@h/d",
        "localhost/medisecure",
        "sqlite://",
        "postgresql://user:hush/hush-hush@h/d",
        "postgresql://user:hush#hush-hush@h/d",
        "postgresql://user:hush?hush-hush@h/d",
        "postgresql://user:12/hush-hush@h/d",
        "postgresql://h:port/d",
        "postgresql://h:0/d",
        "postgresql://h:5432,i:65536/d",
        "postgresql://[::1/d",
        "postgresql://h/d?hush-hush",
    ],
)
def test_a_database_url_that_is_not_postgresqls_is_refused(url: str) -> None:
    assert refusal(DATABASE_URL=url).startswith("DATABASE_URL must be a PostgreSQL URL, such as")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (
            "sslmode=always",
            "must have as sslmode one of allow, disable, prefer, require, verify-ca, verify-full",
        ),
        (
            "target_session_attrs=standby",
            "must have as target_session_attrs one of any, prefer-standby, primary, read-write",
        ),
        ("sslrootcert=/no/such/file", "names /no/such/file as sslrootcert, which cannot be read"),
        ("sslcert=/no/such/file", "names /no/such/file as sslcert, which cannot be read"),
        ("port=http", "must have a number from 1 to 65535 as port"),
        ("port=5432,0", "must have a number from 1 to 65535 as port"),
        ("port=65536", "must have a number from 1 to 65535 as port"),
        ("client_encoding=latin1", "must have as client_encoding one of UTF-8, UTF8, utf-8, utf8"),
    ],
)
def test_an_option_of_the_database_url_that_cannot_work_is_named(query: str, problem: str) -> None:
    assert refusal(DATABASE_URL=f"postgresql://u:hush-hush@h/d?{query}") == f"DATABASE_URL {problem}"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://h?decode_responses=true", "must not set decode_responses, which the service sets itself"),
        ("redis://h?retry_on_timeout=true", "must not set retry_on_timeout, which the service sets itself"),
        ("redis://h?encoding=utf-16", "must not set encoding, which the service sets itself"),
        ("redis://h?retry=3", "must not set retry, which the service sets itself"),
        ("redis://h?socket_timeout=0", "must not set socket_timeout, which the service sets itself"),
        ("redis://h?max_connections=1", "must not set max_connections, which the service sets itself"),
        (
            "redis://h?credential_provider=x",
            "must not set credential_provider, which the service sets itself",
        ),
        ("redis://h?health_check_interval=-1", "must have as health_check_interval 0 or more seconds"),
        ("rediss://h?ssl_ciphers=none", "asks for TLS that cannot be set up: No cipher can be selected."),
        (
            f"rediss://h?ssl_ca_certs={__file__}",
            "asks for TLS that cannot be set up: NO_CERTIFICATE_OR_CRL_FOUND",
        ),
        ("rediss://h?ssl_ca_certs=/no/such", "names /no/such as ssl_ca_certs, which cannot be read"),
        ("rediss://h?ssl_cert_reqs=maybe", "must be a Redis URL, such as redis://localhost:6379"),
    ],
)
def test_an_option_of_the_redis_url_that_cannot_work_is_named(url: str, problem: str) -> None:
    assert refusal(REDIS_URL=url) == f"REDIS_URL {problem}"


@pytest.mark.parametrize(
    "url",
    [
        "http://:hush-hush@localhost",
        "localhost:6379",
        "redis://localhost:port",
        "redis://localhost:65536",
        "redis://localhost:0",
        "redis://[::1",
        "redis://localhost/name",
        "redis://localhost?db=name",
        "redis://localhost/0?no_such_option=1",
        "redis://:1#hush-hush@localhost",
        "redis://:1?hush-hush@localhost",
        "unix://",
    ],
)
def test_a_redis_url_that_is_not_redis_is_refused(url: str) -> None:
    assert refusal(REDIS_URL=url).startswith("REDIS_URL must be a Redis URL, such as")


def test_a_malformed_url_has_one_problem_only() -> None:
    """What would be wrong with its options does not matter."""
    assert len(list(database_url.problems("localhost?sslmode=always"))) == 1
    assert len(list(database_url.problems_of_replica("localhost,other"))) == 1
    assert len(list(redis_url.problems("localhost:6379"))) == 1


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "postgresql:///d?host=/run&target_session_attrs=standby"]
)
def test_a_replica_is_one_server(url: str) -> None:
    assert read(DATABASE_READ_URL=url).database_read_url == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://h/d", "must be a PostgreSQL URL, such as"),
        ("postgresql://h,i/d", "must name one server: which of several answers is not known"),
        ("postgresql:///d?host=h,i", "must name one server: which of several answers is not known"),
        ("postgresql://h/d?target_session_attrs=primary",
         "must have as target_session_attrs one of any, prefer-standby, standby"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_replica_is_refused(url: str, problem: str) -> None:
    assert refusal(DATABASE_READ_URL=url).startswith(f"DATABASE_READ_URL {problem}")
