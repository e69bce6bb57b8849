"""GET /api/clinic (contract): what a page needs to know of the clinic itself."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from api.http.currencies import CURRENCIES
from api.settings import SettingsError
from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend, Service
from tests.support.settings import read

KEYS = ["name", "timezone", "today", "appointmentMinutes", "currency", "fee", "hours"]


def clinic(browser: Browser) -> dict[str, Any]:
    answer = browser.get("/api/clinic")
    assert answer.status_code == 200
    return dict(answer.json())


@pytest.mark.parametrize("role", Role)
def test_every_signed_in_role_reads_the_clinic(world: World, role: Role) -> None:
    told = clinic(world.people[role])
    assert list(told) == KEYS
    assert date.fromisoformat(told.pop("today")) - datetime.now(UTC).date() <= timedelta(days=1)
    assert told == {
        "name": "MediSecure",
        "timezone": "UTC",
        "appointmentMinutes": 30,
        "currency": "USD",
        "fee": 150,
        "hours": None,
    }
    assert type(told["appointmentMinutes"]) is type(told["fee"]) is int


def test_anonymous_callers_cannot_read_the_clinic(anonymous: Browser) -> None:
    assert anonymous.get("/api/clinic").status_code == 401


@pytest.mark.slow
def test_the_clinic_is_as_the_settings_say(world: World, backend: Backend) -> None:
    changed = read(
        CLINIC_NAME="  Poliklinik Şişli ",
        CLINIC_TIMEZONE="Europe/Istanbul",
        CLINIC_CURRENCY="TRY",
        APPOINTMENT_MINUTES="45",
        CONSULTATION_FEE="0",
        CLINIC_HOURS="Sat 09:00-12:00",
    )
    names = ("clinic_name", "clinic_timezone", "clinic_currency", "appointment_minutes", "consultation_fee",
             "clinic_hours")  # fmt: skip
    with Service(backend, backend.settings(**{name: getattr(changed, name) for name in names})) as other:
        told = clinic(other.browser(world.staff.cookies))
    assert [told[name] for name in KEYS if name != "today"] == [
        "Poliklinik Şişli", "Europe/Istanbul", 45, "TRY", 0,
        [{"weekday": 6, "from": "09:00", "to": "12:00", "validFrom": None, "validUntil": None,
          "minutes": None}],
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_today_is_the_date_in_the_clinics_time_zone(world: World, backend: Backend, zone: str) -> None:
    """The time zones furthest east and west have another date for some hours of every day."""
    with Service(backend, backend.settings(clinic_timezone=zone)) as other:
        before = datetime.now(ZoneInfo(zone)).date()
        told = clinic(other.browser(world.staff.cookies))
        after = datetime.now(ZoneInfo(zone)).date()
    assert date.fromisoformat(told["today"]) in {before, after}


def test_the_clinics_appointment_minutes_are_what_a_booking_takes(world: World) -> None:
    """The next slot begins where an appointment ends, and not a minute earlier."""
    told = clinic(world.staff)
    first = world.appointment()
    begins = datetime.fromisoformat(first["date"]) + timedelta(minutes=told["appointmentMinutes"])
    body = {"patientId": first["patientId"], "doctorId": first["doctorId"], "reason": "Next"}
    early = (begins - timedelta(minutes=1)).isoformat()
    assert world.staff.post("/api/appointments", {**body, "date": early}).status_code == 400
    assert world.staff.post("/api/appointments", {**body, "date": begins.isoformat()}).status_code == 201


@pytest.mark.parametrize(
    "code", ["usd", "Usd", "US", "USDT", "$", "€", "ABC", "XXX", "XTS", "DEM", "840", "USD,EUR"]
)
def test_an_unknown_currency_is_refused_at_the_start(code: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(CLINIC_CURRENCY=code)
    assert str(refused.value) == (
        "CLINIC_CURRENCY must be a currency's code of ISO 4217 in capitals, such as EUR"
    )


def test_iso_4217_currencies_are_accepted() -> None:
    for code in ("USD", "EUR", "TRY", "JPY", "GBP", "INR", "BRL", "NGN", "XOF", "KWD"):
        assert read(CLINIC_CURRENCY=code).clinic.currency == code
    assert read(CLINIC_CURRENCY="").clinic.currency == "USD"
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCIES)


def test_a_clinic_name_out_of_bounds_is_refused_at_the_start() -> None:
    assert read(CLINIC_NAME="x" * 200).clinic.name == "x" * 200
    assert read(CLINIC_NAME=" ").clinic.name == "MediSecure"
    with pytest.raises(SettingsError, match="CLINIC_NAME: must be"):
        read(CLINIC_NAME="x" * 201)


@pytest.mark.parametrize("between", ["\n", "\r", "\t", "\x1b", "\x85", "\u2028"])
def test_a_clinic_name_of_two_lines_is_refused_at_the_start(between: str) -> None:
    assert read(CLINIC_NAME="Praxis\u00a0Nord\u200d").clinic.name == "Praxis\u00a0Nord\u200d"
    with pytest.raises(SettingsError, match="CLINIC_NAME must be one line"):
        read(CLINIC_NAME=f"Praxis{between}Nord")


@pytest.mark.parametrize(
    ("day", "hours"),
    [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24), ("0001-01-01", 24), ("9999-12-31", 24)],
)
def test_a_day_at_the_clinic_lasts_until_the_next_one(day: str, hours: int) -> None:
    begins, ends = read(CLINIC_TIMEZONE="Europe/Berlin").clinic.bounds_of(date.fromisoformat(day))
    assert begins.time() == ends.time() == datetime.min.time()
    assert ends.astimezone(UTC) - begins.astimezone(UTC) == timedelta(hours=hours)
