"""What the environment decides (requirement, "Environment Variables (.env)"; contract, "Environment"): names,
defaults, bounds, and what a refusal says."""

import os
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import jwt
import pytest

from api.settings import Settings, SettingsError, find_misspelt_names
from security.roles import Role
from tests.support.factories import PASSWORD, email, registration
from tests.support.service import Service

KEY = "of-no-use-to-anyone-0123456789-0123456789"
REQUIRED = {
    "DATABASE_URL": "postgresql://user:hush-hush@localhost/medisecure",
    "REDIS_URL": "redis://localhost:6379",
    "SECRET_KEY": KEY,
}


def read(**environment: str) -> Settings:
    return Settings.read({**REQUIRED, **environment})


def refusal(**environment: str) -> str:
    """What the refusal says, which is never a secret."""
    with pytest.raises(SettingsError) as raised:
        read(**environment)
    message = str(raised.value)
    assert KEY not in message
    assert "hush-hush" not in message
    return message


ENV = """
DATABASE_URL=postgresql://user:pass@localhost/medisecure
REDIS_URL=redis://localhost:6379
SECRET_KEY=your-secret-key-min-32-chars
ALGORITHM=HS256
ACCESS_TOKEN_EXPIRE_MINUTES=15
REFRESH_TOKEN_EXPIRE_DAYS=7
"""


def test_the_sample_of_the_requirement_is_read_as_it_stands():
    """Requirement, Environment Variables (.env), to the letter; only the key has to be one of one's own."""
    sample = dict(line.split("=", 1) for line in ENV.split())
    settings = Settings.read({**sample, "SECRET_KEY": KEY})
    assert settings == Settings(
        database_url="postgresql://user:pass@localhost/medisecure",
        redis_url="redis://localhost:6379",
        secret_key=KEY,
        algorithm="HS256",
        access_token_expire_minutes=15,
        refresh_token_expire_days=7,
    )


def test_each_of_the_six_names_does_what_it_says(servers):
    """Requirement, Environment Variables (.env), seen from outside: where the account and the failed sign-in
    are kept, what signs the tokens, and how long the cookies live."""
    backend, key = servers.copy(), KEY * 2  # RFC 7518, 3.2: as long as the hash
    settings = Settings.read(
        {
            "DATABASE_URL": backend.database_url,
            "REDIS_URL": backend.redis_url,
            "SECRET_KEY": key,
            "ALGORITHM": "HS512",
            "ACCESS_TOKEN_EXPIRE_MINUTES": "7",
            "REFRESH_TOKEN_EXPIRE_DAYS": "3",
        }
    )
    person, nobody = registration(), email("nobody")
    with Service(backend, settings) as service:
        browser = service.browser()
        assert browser.post("/api/auth/register", person).status_code == 201
        assert browser.login(nobody, PASSWORD).status_code == 401
        cookies = browser.login(person["email"], PASSWORD).headers.get_list("set-cookie")
    assert [row["email"] for row in backend.sql("SELECT email FROM users")] == [person["email"]]
    with backend.redis as connection:
        assert connection.hget(f"login:attempts:{nobody}", "count") == "1"
    lives = {"access_token": 7 * 60, "refresh_token": 3 * 24 * 60 * 60}
    assert [cookie.rpartition("Max-Age=")[2] for cookie in cookies] == [str(life) for life in lives.values()]
    for name, life in lives.items():
        token = jwt.decode(browser.cookies[name], key, algorithms=["HS512"])
        assert token["exp"] - token["iat"] == pytest.approx(life, abs=2)


def test_three_names_are_enough():
    settings = read()
    assert settings.database_url == REQUIRED["DATABASE_URL"]
    assert settings.redis_url == REQUIRED["REDIS_URL"]
    assert settings.secret_key == KEY
    assert settings.algorithm == "HS256"
    assert settings.access_lifetime == timedelta(minutes=15)
    assert settings.session_lifetime == timedelta(days=7)
    assert settings.cors_origins == ("http://localhost:5173", "http://localhost:3000")
    assert settings.rate_limit_per_minute == 100
    assert settings.login_attempts == 5
    assert settings.login_window_seconds == 900
    assert settings.auto_approve_roles == (Role.PATIENT,)
    assert settings.trusted_proxies == ()
    assert settings.idle_lifetime is None
    assert (settings.keep_alive_seconds, settings.body_timeout_seconds) == (75, 30)
    assert settings.clinic.timezone == ZoneInfo("UTC")
    assert settings.clinic.appointment_length == timedelta(minutes=30)
    assert settings.clinic.fee == 150


def test_every_name_is_read():
    settings = read(
        ALGORITHM="HS512",
        ACCESS_TOKEN_EXPIRE_MINUTES="5",
        REFRESH_TOKEN_EXPIRE_DAYS="1",
        CORS_ORIGINS="https://clinic.example, http://localhost:8080",
        RATE_LIMIT_PER_MINUTE="60",
        LOGIN_ATTEMPTS="3",
        LOGIN_WINDOW_SECONDS="60",
        AUTO_APPROVE_ROLES="patient,staff",
        TRUSTED_PROXIES="10.0.0.0/8, 192.0.2.1, 2001:db8::/32",
        SESSION_IDLE_MINUTES="20",
        KEEP_ALIVE_SECONDS="65",
        BODY_TIMEOUT_SECONDS="10",
        CLINIC_TIMEZONE="Europe/Berlin",
        APPOINTMENT_MINUTES="45",
        CONSULTATION_FEE="0",
    )
    assert settings.algorithm == "HS512"
    assert settings.access_lifetime == timedelta(minutes=5)
    assert settings.session_lifetime == timedelta(days=1)
    assert settings.cors_origins == ("https://clinic.example", "http://localhost:8080")
    assert settings.rate_limit_per_minute == 60
    assert settings.login_attempts == 3
    assert settings.login_window_seconds == 60
    assert settings.auto_approve_roles == (Role.PATIENT, Role.STAFF)
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")
    assert settings.idle_lifetime == timedelta(minutes=20)
    assert (settings.keep_alive_seconds, settings.body_timeout_seconds) == (65, 10)
    assert settings.clinic.timezone == ZoneInfo("Europe/Berlin")
    assert settings.clinic.appointment_length == timedelta(minutes=45)
    assert settings.clinic.fee == 0


def test_the_environment_of_the_process_is_what_counts(monkeypatch):
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONSULTATION_FEE", "75")
    assert Settings.read().consultation_fee == 75


def test_other_names_and_blanks_around_a_value_do_not_matter():
    assert read(ALGORITHM="  HS384\n", PATH="/bin", algorithm="none").algorithm == "HS384"


def test_an_empty_value_is_not_set():
    assert read(ALGORITHM="", CONSULTATION_FEE=" ", CLINIC_TIMEZONE="") == read()


def test_an_empty_list_is_an_empty_list():
    settings = read(CORS_ORIGINS="", AUTO_APPROVE_ROLES=" ", TRUSTED_PROXIES=",")
    assert settings.cors_origins == ()
    assert settings.auto_approve_roles == ()
    assert settings.trusted_proxies == ()
    assert read(AUTO_APPROVE_ROLES="patient,").auto_approve_roles == (Role.PATIENT,)


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
def test_any_url_of_postgresql_will_do(url):
    assert read(DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    "url",
    [
        "rediss://u:p%23@h:6380/1?ssl_cert_reqs=none",
        "redis://h/",
        "unix:///run/valkey.sock?db=1",
    ],
)
def test_any_url_of_redis_will_do(url):
    assert read(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_what_is_missing_is_named_with_an_example(name, value):
    environment = {**REQUIRED, name: value}
    with pytest.raises(SettingsError) as raised:
        Settings.read({name: value for name, value in environment.items() if value is not None})
    example = {
        "DATABASE_URL": "such as postgresql://",
        "REDIS_URL": "such as redis://",
        "SECRET_KEY": "which `python3 -c 'import secrets; print(secrets.token_urlsafe(48))'` makes",
    }
    assert str(raised.value).startswith(f"The environment lacks {name}, {example[name]}")


def test_all_that_is_missing_is_said_at_once():
    with pytest.raises(SettingsError, match=r"lacks DATABASE_URL, .*; REDIS_URL, .*; SECRET_KEY, "):
        Settings.read({})


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("bytes_", [b"\xff" * 40, b"a\0" * 40], ids=["random", "NUL"])
def test_what_is_not_text_is_refused(tmp_path, name, bytes_):
    """As the environment carries it, and from a file, where `head -c 48 /dev/urandom` may have put it."""
    file = tmp_path / "secret"
    file.write_bytes(bytes_)
    from_file = {key: value for key, value in REQUIRED.items() if key != name} | {f"{name}_FILE": str(file)}
    for environment in ({**REQUIRED, name: os.fsdecode(bytes_)}, from_file):
        with pytest.raises(SettingsError, match=f"^{name}.* not text in UTF-8"):
            Settings.read(environment)


def test_a_key_has_32_bytes_at_least():
    assert read(SECRET_KEY="k" * 32).secret_key == "k" * 32
    assert read(SECRET_KEY="é" * 16).secret_key == "é" * 16
    with pytest.raises(SettingsError) as raised:
        read(SECRET_KEY="sesame" * 5 + "!")
    assert str(raised.value) == (
        "SECRET_KEY is shorter than 32 bytes; "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'` makes a good one"
    )


def test_the_sample_key_of_the_requirement_is_refused():
    message = refusal(SECRET_KEY="your-secret-key-min-32-chars")
    assert message.startswith("SECRET_KEY is the sample of the documentation; `python3 -c")
    assert "your-secret-key" not in message


@pytest.mark.parametrize("algorithm", ["none", "hs256", "RS256", "HS1", "HS256,HS512"])
def test_only_three_algorithms_sign(algorithm):
    assert refusal(ALGORITHM=algorithm) == "ALGORITHM must be one of HS256, HS384, HS512"


def test_nobody_can_register_as_an_administrator():
    for roles in ("admin", "patient, admin"):
        assert refusal(AUTO_APPROVE_ROLES=roles).startswith("AUTO_APPROVE_ROLES must not contain admin:")


@pytest.mark.parametrize("roles", ["nurse", "Patient", "patient staff"])
def test_roles_are_the_four(roles):
    expected = "AUTO_APPROVE_ROLES[0]: must be one of admin, doctor, staff, patient"
    assert refusal(AUTO_APPROVE_ROLES=roles).endswith(expected)


@pytest.mark.parametrize(
    "origins",
    [
        "*",
        "https://*.clinic.example",
        "https://clinic.example/",
        "https://clinic.example/app",
        "clinic.example",
        "https://",
        "null",
        "file://clinic",
        "https://user@clinic.example",
        "https://a.example https://b.example",
        "https://a.example,*",
    ],
)
def test_origins_are_origins_and_never_a_wildcard(origins):
    message = refusal(CORS_ORIGINS=origins)
    assert message.startswith("CORS_ORIGINS must be origins such as https://clinic.example")


SPELLINGS = {
    "https://Clinic.Example": "https://clinic.example",
    "HTTPS://clinic.example:443": "https://clinic.example",
    "http://localhost:80": "http://localhost",
    "http://localhost:": "http://localhost",
    "http://localhost:0443": "http://localhost:443",
    "http://clinic.example:443": "http://clinic.example:443",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://BU\u0308CHER.example": "https://xn--bcher-kva.example",
    "https://straße.example": "https://xn--strae-oqa.example",
    "https://\uff43\uff4c\uff49\uff4e\uff49\uff43\u3002example": "https://clinic.example",
    "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
    "https://clinic.example.": "https://clinic.example.",
    "http://my_host:3000": "http://my_host:3000",
    "http://127.1:5173": "http://127.0.0.1:5173",
    "http://0x7f000001": "http://127.0.0.1",
    "http://[0:0::1]:5173": "http://[::1]:5173",
    "http://[2001:DB8:0:0:1:0:0:1]": "http://[2001:db8::1:0:0:1]",
    "http://[10:0:0:2:0:0:0:3]": "http://[10:0:0:2::3]",
    "http://[10:0:1:2:3:4:5:6]": "http://[10:0:1:2:3:4:5:6]",
    "http://[::FFFF:127.0.0.1]:80": "http://[::ffff:7f00:1]",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_an_origin_is_kept_as_a_browser_writes_it(text):
    """tests/external/test_guide.py asks the browser."""
    assert read(CORS_ORIGINS=f"{text}, {SPELLINGS[text]}").cors_origins == (SPELLINGS[text],)


NO_HOST = "after :// comes a host, and a port where it is not the scheme's own"
NO_NAME = "a host is a name of letters, digits, dots and hyphens, or an IP address"
NO_SCHEME = "each begins with http:// or https://"
NO_IDNA = "a name beyond ASCII is written as the address bar copies it, xn--…"
WITHOUT_A_PATH = "a browser sends https://clinic.example, without a path"
NO_ORIGINS = {
    "https://Clinic.example/": WITHOUT_A_PATH,
    "https://clinic.example/app": WITHOUT_A_PATH,
    "https://clinic.example?app": WITHOUT_A_PATH,
    "https://clinic.example#app": WITHOUT_A_PATH,
    "https://clinic.example\\app": WITHOUT_A_PATH,
    "null": NO_SCHEME,
    "clinic.example": NO_SCHEME,
    "file://clinic": NO_SCHEME,
    "https:/clinic.example": NO_SCHEME,
    "https://user:hush-hush@clinic.example": "an origin has neither user name nor password",
    "https://a.example https://b.example": "an origin has no blanks in it",
    "https://*.clinic.example": "a wildcard cannot go with cookies",
    "http://localhost:*": "a wildcard cannot go with cookies",
    "http://clinic.example:0": "no browser opens a page at port 0",
    "http://clinic.example:6000": "no browser opens a page at port 6000",
    "http://clinic.example:99999": "no browser opens a page at port 99999",
    "http://clinic.example:\uff18\uff10": NO_HOST,
    "http://:80": NO_HOST,
    "http://[::1": NO_HOST,
    "http://[fe80::1%eth0]": "write fe80::1, without the zone behind %",
    "http://1.2.3.256": "1.2.3.256 is no IPv4 address",
    "https://clinic..example": NO_NAME,
    "https://cl%69nic.example": NO_NAME,
    f"https://{'a' * 64}.example": NO_NAME,
    "https://\u2603.example": NO_IDNA,
    "https://xn--abc-.example": NO_IDNA,
    "https://xn--a.example": NO_IDNA,  # punycode, of a control character
}


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_what_no_browser_sends_is_refused_with_what_to_write(text):
    rule = "origins such as https://clinic.example, separated by commas"
    refused = refusal(CORS_ORIGINS=f"https://a.example,{text}")
    assert refused == f"CORS_ORIGINS must be {rule}; {NO_ORIGINS[text]}"


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.1/33", "10.0.0.1;10.0.0.2", "010.0.0.1"])
def test_proxies_are_addresses_or_networks(proxies):
    assert refusal(TRUSTED_PROXIES=proxies) == (
        "TRUSTED_PROXIES must be IP addresses or networks, separated by commas"
    )


@pytest.mark.parametrize(
    ("proxies", "meant"),
    [
        ("172.18.0.1/16", "write 172.18.0.0/16 for the network, or 172.18.0.1 for the one address"),
        ("2001:db8::1/32", "write 2001:db8::/32 for the network, or 2001:db8::1 for the one address"),
        ("::ffff:10.0.0.1/104", "write 10.0.0.0/8 for the network, or 10.0.0.1 for the one address"),
        ("fe80::1%eth0", "write fe80::1, without the zone behind %"),
        ("0.0.0.0/32", "nothing is sent from 0.0.0.0/32; write the address of the proxy or its network"),
        ("::/128", "nothing is sent from ::/128; write the address of the proxy or its network"),
        ("224.0.0.1", "nothing is sent from 224.0.0.1; write the address of the proxy or its network"),
    ],
)
def test_a_proxy_that_would_never_match_is_refused_with_what_was_meant(proxies, meant):
    """uvicorn takes such a text for a name, which no address equals."""
    message = refusal(TRUSTED_PROXIES=f"192.0.2.1,{proxies}")
    assert message.startswith("TRUSTED_PROXIES must be IP addresses or networks")
    assert message.endswith(meant)


def test_a_proxy_is_kept_as_its_packets_show_it():
    settings = read(
        TRUSTED_PROXIES="::ffff:10.0.0.1,::ffff:10.0.0.0/104,10.0.0.0/255.0.0.0,2001:DB8:0::/32,192.0.2.1/32"
    )
    assert settings.trusted_proxies == ("10.0.0.1", "10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32")


def test_a_previous_key_is_another_one():
    assert refusal(SECRET_KEY_PREVIOUS=KEY) == (
        "SECRET_KEY_PREVIOUS is SECRET_KEY itself; give it the key before, or leave it unset"
    )
    assert read(AUDIT_KEY=KEY).audit_sealing_key == KEY


@pytest.mark.parametrize(
    "contact",
    [
        "mailto:",
        "mailto:security",
        "mailto:a b@clinic.example",
        "mailto:a@clinic.example\nExpires: never",
        "mailto:sécurité@clinic.example",
        "https://",
        "https:///security",
        "tel:",
        "tel:call me",
        "a@clinic.example",
        "http://clinic.example",
    ],
)
def test_a_contact_is_one_that_can_be_reached(contact):
    assert refusal(SECURITY_CONTACT=contact) == (
        "SECURITY_CONTACT must be a mailto:, https: or tel: URI (RFC 9116, 2.5.3), "
        "such as mailto:security@clinic.example"
    )


@pytest.mark.parametrize(
    "contact",
    [
        "mailto:security%2Bmedisecure@clinic.example?subject=found",
        "https://clinic.example/security#contact",
        "https://[2001:db8::1]:8443",
        "tel:+1-201-555-0123",
    ],
)
def test_a_contact_of_each_kind(contact):
    assert read(SECURITY_CONTACT=contact).security_contact == contact


def test_names_that_are_almost_a_setting_are_told():
    environment = {
        "CORS_ORIGIN": "x",
        "TRUSTED_PROXY": "x",
        "DATABASE_URI": "x",
        "CORS_ORIGINS_FILE": "x",
        "SECRET_KEY_FILE": "x",
        "PATH": "x",
        "HOME": "x",
    }
    assert find_misspelt_names({**environment, **REQUIRED}) == {
        "CORS_ORIGIN": "CORS_ORIGINS",
        "TRUSTED_PROXY": "TRUSTED_PROXIES",
        "DATABASE_URI": "DATABASE_URL",
        "CORS_ORIGINS_FILE": "CORS_ORIGINS",
    }


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "europe/berlin", "UTC+1", "../etc/passwd", "/etc/localtime"]
)
def test_the_time_zone_is_one_that_exists(zone):
    assert refusal(CLINIC_TIMEZONE=zone).startswith("CLINIC_TIMEZONE must be a name of the IANA")


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
def test_another_database_is_refused(url):
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
def test_an_option_of_the_database_that_cannot_work_is_named(query, problem):
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
        ("rediss://h?ssl_ciphers=none", "asks for TLS that cannot be had: No cipher can be selected."),
        (
            f"rediss://h?ssl_ca_certs={__file__}",
            "asks for TLS that cannot be had: NO_CERTIFICATE_OR_CRL_FOUND",
        ),
        ("rediss://h?ssl_ca_certs=/no/such", "names /no/such as ssl_ca_certs, which cannot be read"),
        ("rediss://h?ssl_cert_reqs=maybe", "must be a Redis URL, such as redis://localhost:6379"),
    ],
)
def test_an_option_of_redis_that_cannot_work_is_named(url, problem):
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
def test_something_else_than_redis_is_refused(url):
    assert refusal(REDIS_URL=url).startswith("REDIS_URL must be a Redis URL, such as")


BOUNDS = {
    "ACCESS_TOKEN_EXPIRE_MINUTES": (1, 1440),
    "REFRESH_TOKEN_EXPIRE_DAYS": (1, 365),
    "RATE_LIMIT_PER_MINUTE": (1, 1_000_000_000),
    "LOGIN_ATTEMPTS": (1, 1_000_000_000),
    "LOGIN_WINDOW_SECONDS": (1, 86400),
    "SESSION_IDLE_MINUTES": (0, 525600),
    "KEEP_ALIVE_SECONDS": (1, 3600),
    "BODY_TIMEOUT_SECONDS": (1, 3600),
    "APPOINTMENT_MINUTES": (1, 1440),
    "CONSULTATION_FEE": (0, 1_000_000),
}


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_numbers_have_bounds(name, bounds):
    least, most = bounds
    for value in bounds:
        assert getattr(read(**{name: str(value)}), name.lower()) == value
    for value in (least - 1, most + 1, "many", "1.5", "true", "0x10", "9" * 40):
        assert refusal(**{name: str(value)}) == (
            f"The environment is not usable: {name}: must be an integer from {least} to {most}"
        )


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24), ("0001-01-01", 24), ("9999-12-31", 24)],
)
def test_a_day_at_the_clinic_lasts_until_the_next_one(day, hours):
    begins, ends = read(CLINIC_TIMEZONE="Europe/Berlin").clinic.bounds_of(date.fromisoformat(day))
    assert begins.time() == ends.time() == datetime.min.time()
    assert ends.astimezone(UTC) - begins.astimezone(UTC) == timedelta(hours=hours)
