"""What is written in two places is compared here: settings with the README's table, and the code with the
figures in the prose of openapi.yaml, which no schema compares."""

import re
from pathlib import Path

import msgspec
import pytest

from api import accounts
from api.commands.accounts import PASSWORD_RULE
from api.commands.backup_settings import BackupSettings
from api.contract import contract
from api.http import fields
from api.http.cors import EXPOSED_HEADERS, LISTED_ORIGIN_HEADERS
from api.http.outermost import COMMON_HEADERS
from api.http.security_headers import HSTS
from api.settings import REQUIRED_SETTINGS, Settings
from persistence.postgres import calendar, paging
from security import passwords
from security.admission import Count
from security.rate_limit import rate_limit_headers
from tests.support.headers import BROWSER_HEADERS

README = Path(__file__).parents[2] / "README.md"
DEPENDS = ("made from ", "text` on a terminal")  # a default that depends on what else is there
DEFAULTS = Settings(database_url="", redis_url="", secret_key="")


def test_the_readme_has_the_default_of_every_setting() -> None:
    """Each setting has its row, with the default that the code has."""
    rows = re.findall(r"^\| (`[A-Z_`, ]+`) \| ([^|]+) \|", README.read_text(), re.MULTILINE)
    told = {
        name: default.strip("` ")
        for names, defaults in rows
        for name, default in zip(names.replace("`", "").split(", "), as_many(names, defaults), strict=True)
    }
    fields = {field.encode_name: getattr(DEFAULTS, field.name) for field in msgspec.structs.fields(Settings)}
    of_backups = {field.encode_name for field in msgspec.structs.fields(BackupSettings)}
    assert told.keys() == fields.keys() | of_backups
    for name, value in fields.items():
        match value:
            case _ if name in REQUIRED_SETTINGS:
                assert told[name] == "required"
            case None:
                assert told[name] == "none" or told[name].startswith(DEPENDS)
            case bool():
                assert told[name] == str(value).lower()
            case tuple():
                assert told[name] == (",".join(value) or "none")
            case _:
                assert told[name].split(" (")[0] == str(value)


def as_many(names: str, defaults: str) -> list[str]:
    return defaults.split(", ") if ", " in names else [defaults]


GUIDE = contract()["info"]["description"]
FIGURES = [
    f"larger than {fields.MAX_BODY_BYTES // 1024} KiB",
    f"`limit` is 1 to {fields.MAX_PAGE_SIZE}",
    f"{DEFAULTS.rate_limit_per_minute} requests a minute",
    f"| `access_token` | {DEFAULTS.access_token_expire_minutes} minutes |",
    f"| `refresh_token` | {DEFAULTS.refresh_token_expire_days} days",
    f"{DEFAULTS.login_failures_per_address} failed",
    f"of {DEFAULTS.login_window_seconds // 60} minutes",
    f"An appointment takes {DEFAULTS.appointment_minutes} minutes",
    f"from {calendar.EARLIEST:%Y} to {calendar.LATEST.year - 1}",
    f"{accounts.REFRESH_REUSE_SECONDS} seconds",
]


def test_the_guide_has_the_headers_that_no_operation_declares() -> None:
    rows = re.findall(r"^\| `([A-Z][A-Za-z-]+)` \| (.+) \|$", GUIDE, re.MULTILINE)
    told = {name.lower(): value for name, value in rows}
    sent = {name.decode(): value.decode() for name, value in [*COMMON_HEADERS, HSTS, *LISTED_ORIGIN_HEADERS]}
    assert told.keys() | {"access-control-expose-headers"} == BROWSER_HEADERS
    assert "`Access-Control-Expose-Headers`" in GUIDE
    for name in told:
        assert f"`{sent[name]}`" in told[name]


@pytest.mark.parametrize("figure", FIGURES)
def test_the_guides_have_the_figures_of_the_code(figure: str) -> None:
    assert figure in " ".join(GUIDE.split())


def test_cookies_live_as_long_as_their_tokens() -> None:
    """The requirement's Max-Age, which openapi.yaml quotes, and the settings' defaults."""
    shown = contract()["components"]["headers"]["SessionCookies"]["description"]
    quoted = re.findall(r"(\w+)=<jwt>.*Max-Age=([0-9]+)", shown)
    assert {name: int(seconds) for name, seconds in quoted} == {
        "access_token": DEFAULTS.access_lifetime.total_seconds(),
        "refresh_token": DEFAULTS.session_lifetime.total_seconds(),
    }


def test_pages_can_read_all_rate_limit_headers() -> None:
    names = rate_limit_headers(Count(1, 2, 3, 4))
    assert set(names) <= set(EXPOSED_HEADERS.split(", "))
    assert {"Retry-After", "X-Request-Id", "ETag"} <= set(EXPOSED_HEADERS.split(", "))


def test_rules_of_a_new_password_are_the_same_everywhere() -> None:
    """Over HTTP, at the console, and as the words for it say."""
    (schema,), _ = msgspec.json.schema_components([fields.NewPassword])
    assert (schema["minLength"], schema["maxLength"]) == (passwords.MIN_CHARACTERS, passwords.MAX_BYTES)
    assert f"{passwords.MIN_CHARACTERS} characters" in PASSWORD_RULE
    assert f"{passwords.MAX_BYTES} bytes" in PASSWORD_RULE


def test_an_audit_event_can_name_all_items_of_a_page() -> None:
    """A page may show as much as one event of the trail can name, no more."""
    assert fields.MAX_PAGE_SIZE <= paging.MAX_NAMED_IDS


def test_appointments_lie_within_the_calendar() -> None:
    assert calendar.EARLIEST.date() > calendar.FIRST
    assert calendar.LATEST.date() < calendar.LAST
