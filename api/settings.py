"""Everything that the environment decides. There is no default for a secret."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from api.clinic import Clinic
from api.rules import broken_rule
from api.schemas import is_unicode
from security.counters import is_redis_url
from security.roles import Role

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%[^\]]+)?\]|[^:\[\]]*)(:[0-9]{0,5})?")
ALGORITHMS = ("HS256", "HS384", "HS512")
SAMPLE_KEYS = {"your-secret-key-min-32-chars"}
MIN_KEY_BYTES = 32
GOOD_KEY = "`python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
REQUIRED = {
    "DATABASE_URL": "such as postgresql://user:pass@localhost/medisecure",
    "REDIS_URL": "such as redis://localhost:6379",
    "SECRET_KEY": f"which {GOOD_KEY} makes",
}
NOT_A_REDIS_URL = f"REDIS_URL must be a Redis URL, {REQUIRED['REDIS_URL']}"
NOT_A_DATABASE_URL = (
    f"DATABASE_URL must be a PostgreSQL URL, {REQUIRED['DATABASE_URL']}; "
    "a password's special characters are percent-encoded"
)
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
    access_token_expire_minutes: Annotated[int, Meta(ge=1, le=1440)] = 15
    refresh_token_expire_days: Annotated[int, Meta(ge=1, le=365)] = 7
    cors_origins: tuple[str, ...] = ("http://localhost:5173", "http://localhost:3000")
    rate_limit_per_minute: Positive = 100
    login_attempts: Positive = 5
    login_failures_per_address: Positive = 300
    login_window_seconds: Annotated[int, Meta(ge=1, le=86400)] = 900
    auto_approve_roles: tuple[Role, ...] = (Role.PATIENT,)
    trusted_proxies: tuple[str, ...] = ()
    session_idle_minutes: Annotated[int, Meta(ge=0, le=525600)] = 0
    clinic_timezone: str = "UTC"
    appointment_minutes: Annotated[int, Meta(ge=1, le=1440)] = 30
    consultation_fee: Annotated[int, Meta(ge=0, le=1_000_000)] = 150
    refuse_common_passwords: bool = False
    security_contact: str = "mailto:security@medisecure.example"

    @property
    def key_of_audit(self) -> str:
        """What seals the audit trail: a key of its own, or else one made from the tokens' key."""
        return self.audit_key or self.secret_key

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
    def clinic(self) -> Clinic:
        return Clinic(
            ZoneInfo(self.clinic_timezone), timedelta(minutes=self.appointment_minutes), self.consultation_fee
        )

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings of `environment`. Lists are separated by commas, and an empty one is no roles, origins
        or proxies; elsewhere empty is not set. A secret may come from the file that `NAME_FILE` names.
        Raises SettingsError."""
        values: dict[str, object] = {}
        for field in msgspec.structs.fields(cls):
            value = value_of(field.encode_name, environment)
            if field.encode_name in LISTS and field.encode_name in environment:
                values[field.encode_name] = [part.strip() for part in value.split(",") if part.strip()]
            elif value:
                values[field.encode_name] = value
        missing = [f"{name}, {advice}" for name, advice in REQUIRED.items() if name not in values]
        if missing:
            raise SettingsError(f"The environment lacks {'; '.join(missing)}")
        try:
            settings = msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"The environment is not usable: {broken_rule(cls, error)}") from error
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse what would be insecure or cannot work."""
        problems = [
            (
                not is_database_url(self.database_url),
                NOT_A_DATABASE_URL,
            ),
            (
                not is_redis_url(self.redis_url),
                NOT_A_REDIS_URL,
            ),
            (
                self.secret_key in SAMPLE_KEYS,
                f"SECRET_KEY is the sample of the documentation; {GOOD_KEY} makes a good one",
            ),
            (
                len(self.secret_key.encode()) < MIN_KEY_BYTES,
                f"SECRET_KEY is shorter than {MIN_KEY_BYTES} bytes; {GOOD_KEY} makes a good one",
            ),
            (
                self.secret_key_previous is not None
                and len(self.secret_key_previous.encode()) < MIN_KEY_BYTES,
                f"SECRET_KEY_PREVIOUS is shorter than {MIN_KEY_BYTES} bytes",
            ),
            (
                self.audit_key is not None and len(self.audit_key.encode()) < MIN_KEY_BYTES,
                f"AUDIT_KEY is shorter than {MIN_KEY_BYTES} bytes",
            ),
            (
                not self.security_contact.startswith(("mailto:", "https://", "tel:")),
                "SECURITY_CONTACT must be a mailto:, https: or tel: URI (RFC 9116, 2.5.3)",
            ),
            (self.algorithm not in ALGORITHMS, f"ALGORITHM must be one of {', '.join(ALGORITHMS)}"),
            (
                Role.ADMIN in self.auto_approve_roles,
                "AUTO_APPROVE_ROLES must not contain admin: anyone could make himself an administrator",
            ),
            (
                self.clinic_timezone not in zone_names(),
                "CLINIC_TIMEZONE must be a name of the IANA time zone database, such as Europe/Berlin",
            ),
            (
                not all(is_origin(origin) for origin in self.cors_origins),
                "CORS_ORIGINS must be origins such as https://clinic.example, separated by commas; "
                "a wildcard cannot go with cookies",
            ),
            (
                not all(is_network(proxy) for proxy in self.trusted_proxies),
                "TRUSTED_PROXIES must be IP addresses or networks, separated by commas",
            ),
        ]
        for wrong, message in problems:
            if wrong:
                raise SettingsError(message)


SECRETS = {"SECRET_KEY", "SECRET_KEY_PREVIOUS", "AUDIT_KEY", "DATABASE_URL", "REDIS_URL"}


def value_of(name: str, environment: Mapping[str, str]) -> str:
    file = environment.get(f"{name}_FILE") if name in SECRETS else None
    if file and environment.get(name):
        raise SettingsError(f"{name} and {name}_FILE are both set; keep one of them")
    value = text_of(name, file) if file else environment.get(name, "").strip()
    if "\0" in value or not is_unicode(value):
        raise SettingsError(f"{name} is not text in UTF-8")
    return value


def text_of(name: str, file: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{name}_FILE cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{name}_FILE names a file that is not text in UTF-8") from error


def zone_names() -> set[str]:
    """Of the IANA database, not of this machine: `localtime` is no zone to PostgreSQL."""
    return set(files("tzdata").joinpath("zones").read_text().split())


LISTS = {"CORS_ORIGINS", "AUTO_APPROVE_ROLES", "TRUSTED_PROXIES"}


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
        and all(HOST.fullmatch(host) for host in hosts)
        and not parts.fragment
        and "@" not in parts.path
    )


def is_origin(text: str) -> bool:
    scheme, _, host = text.partition("://")
    return scheme in {"http", "https"} and bool(host) and not set(host) & set("/*?# @")


def is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
