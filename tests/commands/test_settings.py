"""What the environment decides (requirement, "Environment Variables (.env)"; contract, "Environment"): names,
defaults, bounds, and what a refusal says."""

import os
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import jwt
import msgspec
import pytest

from api.clinic import PatientLimits
from api.http.json_schema import describe_first_violation
from api.settings import Settings, SettingsError, find_misspelt_names
from security.roles import Role
from tests.support.command import medisecure, settings_of
from tests.support.factories import PASSWORD, email, registration
from tests.support.service import KEY, Backend, Service
from tests.support.settings import REQUIRED, read, refusal

ENV = """
DATABASE_URL=postgresql://user:pass@localhost/medisecure
REDIS_URL=redis://localhost:6379
SECRET_KEY=your-secret-key-min-32-chars
ALGORITHM=HS256
ACCESS_TOKEN_EXPIRE_MINUTES=15
REFRESH_TOKEN_EXPIRE_DAYS=7
"""


def test_the_environment_file_of_the_requirement_is_read_as_it_stands() -> None:
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


@pytest.mark.slow
def test_each_setting_of_the_requirement_has_its_effect(servers: Backend) -> None:
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


def test_three_settings_are_enough_and_the_others_have_defaults() -> None:
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
    assert settings.require_if_match is False
    assert settings.idle_lifetime is None
    assert settings.no_show_after is None
    assert (settings.public_url, settings.calendar_names) == ("http://localhost:8000", False)
    assert (settings.keep_alive_seconds, settings.body_timeout_seconds, settings.drain_seconds) == (75, 30, 5)
    assert settings.clinic.timezone == ZoneInfo("UTC")
    assert settings.clinic.appointment_length == timedelta(minutes=30)
    assert settings.clinic.fee == 150
    assert settings.clinic.limits == PatientLimits(timedelta(), None, None, timedelta())


def test_every_setting_is_read() -> None:
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
        REQUIRE_IF_MATCH="true",
        KEEP_ALIVE_SECONDS="65",
        BODY_TIMEOUT_SECONDS="10",
        CLINIC_TIMEZONE="Europe/Berlin",
        APPOINTMENT_MINUTES="45",
        CONSULTATION_FEE="0",
        NO_SHOW_AFTER_HOURS="48",
        BOOKING_LEAD_MINUTES="60",
        BOOKING_HORIZON_DAYS="90",
        BOOKING_MAX_OPEN="3",
        CANCEL_CUTOFF_MINUTES="1440",
        PUBLIC_URL="HTTPS://Clinic.Example:443/",
        CALENDAR_NAMES="true",
    )
    assert settings.algorithm == "HS512"
    assert settings.access_lifetime == timedelta(minutes=5)
    assert settings.session_lifetime == timedelta(days=1)
    assert settings.cors_origins == ("https://clinic.example", "http://localhost:8080")
    assert settings.rate_limit_per_minute == 60
    assert settings.require_if_match is True
    assert settings.login_attempts == 3
    assert settings.login_window_seconds == 60
    assert settings.auto_approve_roles == (Role.PATIENT, Role.STAFF)
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32")
    assert settings.idle_lifetime == timedelta(minutes=20)
    assert (settings.keep_alive_seconds, settings.body_timeout_seconds) == (65, 10)
    assert settings.clinic.timezone == ZoneInfo("Europe/Berlin")
    assert settings.clinic.appointment_length == timedelta(minutes=45)
    assert settings.clinic.fee == 0
    assert settings.no_show_after == timedelta(hours=48)
    assert settings.clinic.limits == PatientLimits(timedelta(hours=1), 90, 3, timedelta(days=1))
    assert (settings.public_url, settings.calendar_names) == ("https://clinic.example", True)


def test_settings_come_from_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONSULTATION_FEE", "75")
    assert Settings.read().consultation_fee == 75


def test_other_variables_and_blanks_around_a_setting_are_ignored() -> None:
    assert read(ALGORITHM="  HS384\n", PATH="/bin", algorithm="none").algorithm == "HS384"


def test_an_empty_setting_is_not_set() -> None:
    assert read(ALGORITHM="", CONSULTATION_FEE=" ", CLINIC_TIMEZONE="") == read()


def test_an_empty_list_setting_is_an_empty_list() -> None:
    settings = read(CORS_ORIGINS="", AUTO_APPROVE_ROLES=" ", TRUSTED_PROXIES=",")
    assert settings.cors_origins == ()
    assert settings.auto_approve_roles == ()
    assert settings.trusted_proxies == ()
    assert read(AUTO_APPROVE_ROLES="patient,").auto_approve_roles == (Role.PATIENT,)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_setting_is_named_with_an_example(name: str, value: str | None) -> None:
    environment = {**REQUIRED, name: value}
    with pytest.raises(SettingsError) as raised:
        Settings.read({name: value for name, value in environment.items() if value is not None})
    example = {
        "DATABASE_URL": "such as postgresql://",
        "REDIS_URL": "such as redis://",
        "SECRET_KEY": "which `python3 -c 'import secrets; print(secrets.token_urlsafe(48))'` makes",
    }
    assert str(raised.value).startswith(f"The environment lacks {name}, {example[name]}")


def test_all_missing_settings_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"lacks DATABASE_URL, .*; REDIS_URL, .*; SECRET_KEY, "):
        Settings.read({})


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("bytes_", [b"\xff" * 40, b"a\0" * 40], ids=["random", "NUL"])
def test_a_setting_that_is_not_text_is_refused(tmp_path: Path, name: str, bytes_: bytes) -> None:
    """As the environment carries it, and from a file, where `head -c 48 /dev/urandom` may have put it."""
    file = tmp_path / "secret"
    file.write_bytes(bytes_)
    from_file = {key: value for key, value in REQUIRED.items() if key != name} | {f"{name}_FILE": str(file)}
    for environment in ({**REQUIRED, name: os.fsdecode(bytes_)}, from_file):
        with pytest.raises(SettingsError, match=f"^{name}.* not text in UTF-8"):
            Settings.read(environment)


def test_a_secret_key_has_32_bytes_at_least() -> None:
    assert read(SECRET_KEY="k" * 32).secret_key == "k" * 32
    assert read(SECRET_KEY="é" * 16).secret_key == "é" * 16
    with pytest.raises(SettingsError) as raised:
        read(SECRET_KEY="sesame" * 5 + "!")
    assert str(raised.value) == (
        "SECRET_KEY is shorter than 32 bytes; "
        "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'` makes a good one"
    )


def test_the_sample_key_of_the_requirement_is_refused() -> None:
    message = refusal(SECRET_KEY="your-secret-key-min-32-chars")
    assert message.startswith("SECRET_KEY is the sample of the documentation; `python3 -c")
    assert "your-secret-key" not in message


@pytest.mark.parametrize("algorithm", ["none", "hs256", "RS256", "HS1", "HS256,HS512"])
def test_only_hs256_hs384_and_hs512_sign_tokens(algorithm: str) -> None:
    assert refusal(ALGORITHM=algorithm) == "ALGORITHM must be one of HS256, HS384, HS512"


def test_nobody_can_register_as_an_administrator() -> None:
    for roles in ("admin", "patient, admin"):
        assert refusal(AUTO_APPROVE_ROLES=roles).startswith("AUTO_APPROVE_ROLES must not contain admin:")


@pytest.mark.parametrize("roles", ["nurse", "Patient", "patient staff"])
def test_auto_approve_roles_are_roles(roles: str) -> None:
    expected = "AUTO_APPROVE_ROLES[0]: must be one of admin, doctor, staff, patient"
    assert refusal(AUTO_APPROVE_ROLES=roles).endswith(expected)


@pytest.mark.parametrize("name", ["SECRET_KEY_PREVIOUS", "AUDIT_KEY", "METRICS_TOKEN"])
def test_the_other_keys_have_32_bytes_at_least(name: str) -> None:
    assert refusal(**{name: "k" * 31}).startswith(f"{name} is shorter than 32 bytes")
    read(**{name: "k" * 32})


def test_the_previous_secret_key_is_not_the_current_one() -> None:
    assert refusal(SECRET_KEY_PREVIOUS=KEY) == (
        "SECRET_KEY_PREVIOUS is SECRET_KEY itself; give it the key before, or leave it unset"
    )
    assert read(AUDIT_KEY=KEY).audit_sealing_key == KEY


def test_a_misspelt_setting_is_found() -> None:
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
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    assert refusal(CLINIC_TIMEZONE=zone).startswith("CLINIC_TIMEZONE must be a name of the IANA")


BOUNDS = {
    "ACCESS_TOKEN_EXPIRE_MINUTES": (1, 1440),
    "REFRESH_TOKEN_EXPIRE_DAYS": (1, 365),
    "RATE_LIMIT_PER_MINUTE": (1, 1_000_000_000),
    "LOGIN_ATTEMPTS": (1, 1_000_000_000),
    "LOGIN_WINDOW_SECONDS": (1, 86400),
    "SESSION_IDLE_MINUTES": (0, 525600),
    "NO_SHOW_AFTER_HOURS": (0, 8760),
    "KEEP_ALIVE_SECONDS": (1, 3600),
    "DRAIN_SECONDS": (0, 3600),
    "BODY_TIMEOUT_SECONDS": (1, 3600),
    "APPOINTMENT_MINUTES": (1, 1440),
    "CONSULTATION_FEE": (0, 1_000_000),
    "BOOKING_LEAD_MINUTES": (0, 525600),
    "BOOKING_HORIZON_DAYS": (0, 3660),
    "BOOKING_MAX_OPEN": (0, 1000),
    "CANCEL_CUTOFF_MINUTES": (0, 525600),
}


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_a_number_out_of_its_bounds_is_refused(name: str, bounds: tuple[int, int]) -> None:
    least, most = bounds
    for bound in bounds:
        assert getattr(read(**{name: str(bound)}), name.lower()) == bound
    for value in (least - 1, most + 1, "many", "1.5", "true", "0x10", "9" * 40):
        assert refusal(**{name: str(value)}) == (
            f"The environment is not usable: {name}: must be an integer from {least} to {most}"
        )


@pytest.mark.slow
def test_secrets_come_from_files_that_name_file_settings_point_to(migrated: Backend, tmp_path: Path) -> None:
    """SECRET_KEY_FILE and the others, as orchestrators mount them."""
    file = tmp_path / "url"
    file.write_text(f"{migrated.database_url}\n")
    made = medisecure(
        "create-admin", "a@clinic.example", "Ada", stdin="a good one\n", DATABASE_URL_FILE=str(file)
    )
    assert made.returncode == 0, made.stderr
    key = tmp_path / "key"
    key.write_text("short\n")
    both = {**settings_of(migrated), "SECRET_KEY_FILE": str(key)}
    assert "both set" in medisecure("serve", **both).stderr
    del both["SECRET_KEY"]
    assert "SECRET_KEY is shorter than 32 bytes" in medisecure("serve", **both).stderr
    both["SECRET_KEY_FILE"] = str(tmp_path / "missing")
    assert "SECRET_KEY_FILE cannot be read" in medisecure("serve", **both).stderr


def test_what_is_wrong_with_no_setting_in_particular_is_still_wrong() -> None:
    """Only a defect of ours leads here: what is missing was asked for before."""
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert({}, Settings)
    assert describe_first_violation(Settings, refused.value) == "is not valid"
