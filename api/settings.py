"""Everything that the environment decides. There is no default for a secret."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from api.clinic import Clinic, Fee, Minutes, PatientLimits
from api.http.addresses import parse_network, parse_origin
from api.http.currencies import CURRENCIES
from api.http.fields import Name, is_unicode
from api.http.json_schema import describe_first_violation
from api.http.logs import LogFormat
from api.http.server import Timeouts
from api.schedule.weekly import EXAMPLE, parse_hours
from persistence.postgres import database_url
from security import redis_url
from security.roles import Role

CONTACT_URI = re.compile(
    r"mailto:[!-~]+@[A-Za-z0-9.\[\]:-]+(\?[!-~]*)?|https://[A-Za-z0-9.\[\]:-]+([/?#][!-~]*)?|tel:\+?[0-9().-]+(;[!-~]*)?"
)
ALGORITHMS = ("HS256", "HS384", "HS512")
SAMPLE_KEYS = {"your-secret-key-min-32-chars"}
MIN_KEY_BYTES = 32
KEY_RECIPE = "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
REQUIRED_SETTINGS = {
    "DATABASE_URL": f"such as {database_url.EXAMPLE}",
    "REDIS_URL": f"such as {redis_url.EXAMPLE}",
    "SECRET_KEY": f"which {KEY_RECIPE} makes",
}
# An access token lives at most so long, and so does the tombstone of its session.
MAX_ACCESS_TOKEN_MINUTES = 1440
SECRET_SETTINGS = {
    "SECRET_KEY",
    "SECRET_KEY_PREVIOUS",
    "AUDIT_KEY",
    "DATABASE_URL",
    "DATABASE_READ_URL",
    "REDIS_URL",
    "METRICS_TOKEN",
}
LIST_SETTINGS = {"CORS_ORIGINS", "AUTO_APPROVE_ROLES", "TRUSTED_PROXIES"}
ORIGINS = "origins such as https://clinic.example"
PROXIES = "IP addresses or networks"
MAX_MINUTES = 525_600  # a year
Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class SettingsError(Exception):
    """A setting is missing or unusable; the message says which and what to do."""


class Settings(Struct, frozen=True, kw_only=True, rename="upper"):
    database_url: str
    redis_url: str
    secret_key: str
    secret_key_previous: str | None = None
    audit_key: str | None = None
    algorithm: str = "HS256"
    access_token_expire_minutes: Annotated[int, Meta(ge=1, le=MAX_ACCESS_TOKEN_MINUTES)] = 15
    refresh_token_expire_days: Annotated[int, Meta(ge=1, le=365)] = 7
    cors_origins: tuple[str, ...] = ("http://localhost:5173", "http://localhost:3000")
    rate_limit_per_minute: Positive = 100
    login_attempts: Positive = 5
    login_failures_per_address: Positive = 300
    login_window_seconds: Annotated[int, Meta(ge=1, le=86400)] = 900
    auto_approve_roles: tuple[Role, ...] = (Role.PATIENT,)
    trusted_proxies: tuple[str, ...] = ()
    session_idle_minutes: Annotated[int, Meta(ge=0, le=MAX_MINUTES)] = 0
    keep_alive_seconds: Annotated[int, Meta(ge=1, le=3600)] = 75
    body_timeout_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30
    clinic_timezone: str = "UTC"
    clinic_name: Name = "MediSecure"
    public_url: str = "http://localhost:8000"
    calendar_names: bool = False
    clinic_currency: str = "USD"
    clinic_hours: str | None = None
    appointment_minutes: Minutes = 30
    consultation_fee: Fee = 150
    no_show_after_hours: Annotated[int, Meta(ge=0, le=8760)] = 0
    booking_lead_minutes: Annotated[int, Meta(ge=0, le=MAX_MINUTES)] = 0
    booking_horizon_days: Annotated[int, Meta(ge=0, le=3660)] = 0
    booking_max_open: Annotated[int, Meta(ge=0, le=1000)] = 0
    cancel_cutoff_minutes: Annotated[int, Meta(ge=0, le=MAX_MINUTES)] = 0
    refuse_common_passwords: bool = False
    require_if_match: bool = False
    security_contact: str = "mailto:security@medisecure.example"
    downtime_folder: str | None = None
    database_read_url: str | None = None
    drain_seconds: Annotated[int, Meta(ge=0, le=3600)] = 5
    log_format: LogFormat | None = None
    log_requests: bool = True
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    metrics_token: str | None = None

    @property
    def audit_sealing_key(self) -> str:
        """What the seals of the audit trail are made with: AUDIT_KEY, or SECRET_KEY where that is not set."""
        return self.audit_key or self.secret_key

    @property
    def audit_keys(self) -> list[str]:
        """Under which notes for the trail may have been written."""
        return [key for key in (self.audit_key, self.secret_key, self.secret_key_previous) if key]

    @property
    def has_metrics(self) -> bool:
        return self.metrics_port is not None or self.metrics_token is not None

    @property
    def access_lifetime(self) -> timedelta:
        return timedelta(minutes=self.access_token_expire_minutes)

    @property
    def session_lifetime(self) -> timedelta:
        return timedelta(days=self.refresh_token_expire_days)

    @property
    def idle_lifetime(self) -> timedelta | None:
        return timedelta(minutes=self.session_idle_minutes) if self.session_idle_minutes else None

    @property
    def no_show_after(self) -> timedelta | None:
        return timedelta(hours=self.no_show_after_hours) if self.no_show_after_hours else None

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(
            self.keep_alive_seconds,
            body_seconds=self.body_timeout_seconds,
            drain_seconds=self.drain_seconds,
        )

    @property
    def clinic(self) -> Clinic:
        return Clinic(
            name=self.clinic_name,
            timezone=ZoneInfo(self.clinic_timezone),
            appointment_length=timedelta(minutes=self.appointment_minutes),
            currency=self.clinic_currency,
            fee=self.consultation_fee,
            hours=parse_hours(self.clinic_hours) if self.clinic_hours else None,
            limits=PatientLimits(
                lead=timedelta(minutes=self.booking_lead_minutes),
                horizon_days=self.booking_horizon_days or None,
                max_open=self.booking_max_open or None,
                cutoff=timedelta(minutes=self.cancel_cutoff_minutes),
            ),
        )

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings of `environment`. Lists are separated by commas, and an empty one is no roles, origins
        or proxies; elsewhere empty is not set. A secret may come from the file that `NAME_FILE` names.
        Raises SettingsError."""
        values: dict[str, object] = {}
        for field in msgspec.structs.fields(cls):
            value = read_setting(field.encode_name, environment)
            if field.encode_name in LIST_SETTINGS and field.encode_name in environment:
                values[field.encode_name] = [part.strip() for part in value.split(",") if part.strip()]
            elif value:
                values[field.encode_name] = value
        missing = [f"{name}, {advice}" for name, advice in REQUIRED_SETTINGS.items() if name not in values]
        if missing:
            raise SettingsError(f"The environment lacks {'; '.join(missing)}")
        try:
            settings = msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            why = describe_first_violation(cls, error)
            raise SettingsError(f"The environment is not usable: {why}") from error
        settings.require_sound()
        return msgspec.structs.replace(
            settings,
            cors_origins=normalize_each("CORS_ORIGINS", ORIGINS, parse_origin, settings.cors_origins),
            public_url=normalize_public_url(settings.public_url),
            trusted_proxies=normalize_each(
                "TRUSTED_PROXIES", PROXIES, parse_network, settings.trusted_proxies
            ),
        )

    def require_sound(self) -> None:
        """Raise SettingsError for what would be insecure or cannot work."""
        require_usable("DATABASE_URL", database_url.problems(self.database_url))
        if self.database_read_url:
            require_usable("DATABASE_READ_URL", database_url.problems_of_replica(self.database_read_url))
        require_usable("REDIS_URL", redis_url.problems(self.redis_url))
        for problem in (*problems_of_keys(self), *problems_of_policy(self), *problems_of_clinic(self)):
            raise SettingsError(problem)


def problems_of_keys(settings: Settings) -> Iterator[str]:
    if settings.secret_key in SAMPLE_KEYS:
        yield f"SECRET_KEY is the sample of the documentation; {KEY_RECIPE} makes a good one"
    if is_short(settings.secret_key):
        yield f"SECRET_KEY is shorter than {MIN_KEY_BYTES} bytes; {KEY_RECIPE} makes a good one"
    if settings.secret_key_previous is not None and is_short(settings.secret_key_previous):
        yield f"SECRET_KEY_PREVIOUS is shorter than {MIN_KEY_BYTES} bytes"
    if settings.audit_key is not None and is_short(settings.audit_key):
        yield f"AUDIT_KEY is shorter than {MIN_KEY_BYTES} bytes"
    if settings.metrics_token is not None and is_short(settings.metrics_token):
        yield f"METRICS_TOKEN is shorter than {MIN_KEY_BYTES} bytes; {KEY_RECIPE} makes a good one"
    if settings.secret_key_previous == settings.secret_key:
        yield "SECRET_KEY_PREVIOUS is SECRET_KEY itself; give it the key before, or leave it unset"


def problems_of_policy(settings: Settings) -> Iterator[str]:
    if not CONTACT_URI.fullmatch(settings.security_contact):
        yield (
            "SECURITY_CONTACT must be a mailto:, https: or tel: URI (RFC 9116, 2.5.3), "
            "such as mailto:security@clinic.example"
        )
    if settings.algorithm not in ALGORITHMS:
        yield f"ALGORITHM must be one of {', '.join(ALGORITHMS)}"
    if Role.ADMIN in settings.auto_approve_roles:
        yield "AUTO_APPROVE_ROLES must not contain admin: anyone could register as an administrator"


def problems_of_clinic(settings: Settings) -> Iterator[str]:
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", settings.clinic_name):
        yield "CLINIC_NAME must be one line, without control characters"
    if settings.clinic_timezone not in iana_zone_names():
        yield "CLINIC_TIMEZONE must be a name of the IANA time zone database, such as Europe/Berlin"
    if settings.clinic_currency not in CURRENCIES:
        yield "CLINIC_CURRENCY must be a currency's code of ISO 4217 in capitals, such as EUR"
    try:
        parse_hours(settings.clinic_hours or EXAMPLE)
    except ValueError as error:
        yield f"CLINIC_HOURS {error}"


def is_short(key: str) -> bool:
    return len(key.encode()) < MIN_KEY_BYTES


def find_misspelt_names(environment: Mapping[str, str]) -> dict[str, str]:
    """Names in the environment that mean nothing, each with the setting whose name is nearly the same."""
    known = {field.encode_name for field in msgspec.structs.fields(Settings)}
    known |= {f"{name}_FILE" for name in SECRET_SETTINGS}
    close = {
        name: get_close_matches(name.removesuffix("_FILE"), known, 1, cutoff=0.85)
        for name in sorted(environment.keys() - known)
    }
    return {name: found[0] for name, found in close.items() if found}


def read_setting(name: str, environment: Mapping[str, str]) -> str:
    file = environment.get(f"{name}_FILE") if name in SECRET_SETTINGS else None
    if file and environment.get(name):
        raise SettingsError(f"{name} and {name}_FILE are both set; keep one of them")
    value = read_secret_file(name, file) if file else environment.get(name, "").strip()
    if "\0" in value or not is_unicode(value):
        raise SettingsError(f"{name} is not text in UTF-8")
    return value


def read_secret_file(name: str, file: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{name}_FILE cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}_FILE names a file that is not text in UTF-8") from error


def iana_zone_names() -> set[str]:
    """The names in the IANA database, not those of this machine: PostgreSQL knows no zone `localtime`."""
    return set(files("tzdata").joinpath("zones").read_text().split())


def require_usable(name: str, problems: Iterable[str]) -> None:
    for problem in problems:
        raise SettingsError(f"{name} {problem}")


def normalize_public_url(url: str) -> str:
    try:
        return parse_origin(url.removesuffix("/"))
    except ValueError as error:
        origin = "an origin such as https://clinic.example"
        raise SettingsError(f"PUBLIC_URL must be {origin}; {error}") from error


def normalize_each(
    name: str, rule: str, parse: Callable[[str], str], values: Sequence[str]
) -> tuple[str, ...]:
    """The values of a list in the one form in which they are compared, each once."""
    try:
        return tuple(dict.fromkeys(parse(value) for value in values))
    except ValueError as error:
        why = f"; {error}" if error.args else ""
        raise SettingsError(f"{name} must be {rule}, separated by commas{why}") from error
