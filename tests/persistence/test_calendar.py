"""The clinic's days (contract, "Appointments" and "Dashboard"): one definition, in Python and in PostgreSQL,
for every time zone and every clock change from 1970 to 2040."""

import asyncio
import struct
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from api.settings import iana_zone_names
from persistence.models import Instant
from persistence.postgres.calendar import ClockTable, calendar_of, day_of, table_of
from persistence.postgres.database import Database
from persistence.postgres.statements import Query
from security.roles import Role
from tests.support.factories import PASSWORD, World
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

SINCE, UNTIL = datetime(1970, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)
# Seconds from a change: right beside it, within the hour that comes twice or not at all, a day away.
NEAR = (-86400, -5400, -3600, -60, -1, 0, 30, 60, 1800, 3600, 5400, 86400)


def data_of(name: str) -> bytes:
    """The file that Python reads the zone from."""
    for folder in zoneinfo.TZPATH:
        file = Path(folder, name)
        if file.is_file():
            return file.read_bytes()
    return files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


def changes_in(data: bytes) -> set[int]:
    """Seconds since 1970 of every change that the file lists (RFC 9636, 3), which are those until 2037."""
    sizes = ">4sc15x6l"
    _, _, *counts = struct.unpack_from(sizes, data)
    utc, standard, leap, times, kinds, letters = counts
    second = 44 + times * 5 + kinds * 6 + letters + leap * 8 + standard + utc
    _, _, _, _, _, times, _, _ = struct.unpack_from(sizes, data, second)
    return set(struct.unpack_from(f">{times}q", data, second + 44))


def zones() -> list[str]:
    """One name for all zones with the same rules."""
    return sorted({data_of(name): name for name in sorted(iana_zone_names())}.values())


def changes_of(name: str) -> list[datetime]:
    """Every clock change of the zone, as its file has them and, after 2037, as Python finds them."""
    known = changes_in(data_of(name)) | set(map(int, calendar_of(ZoneInfo(name)).changes))
    return [
        datetime.fromtimestamp(change, UTC)
        for change in sorted(known)
        if SINCE.timestamp() <= change < UNTIL.timestamp()
    ]


def near(changes: list[datetime]) -> list[datetime]:
    return [change + timedelta(seconds=seconds) for change in changes for seconds in NEAR]


def by_the_clocks(instant: datetime, zone: ZoneInfo) -> date:
    return instant.astimezone(zone).date()


class Given(ClockTable):
    instants: list[datetime]


class Day(NamedTuple):
    instant: datetime
    day: date


GIVEN = func.unnest(bindparam("instants", type_=ARRAY(Instant)), type_=Instant).column_valued("instant")
DAYS = Query(Day, Given, select(GIVEN, day_of(GIVEN).label("day")))


def test_python_and_postgresql_agree_on_the_day_of_an_instant(backend: Backend) -> None:
    async def compare() -> None:
        database = Database(backend.database_url)
        try:
            for name in zones():
                zone, instants = ZoneInfo(name), near(changes_of(name))
                calendar = calendar_of(zone)
                expected = [by_the_clocks(instant, zone) for instant in instants]
                assert [calendar.day_of(instant) for instant in instants] == expected, name
                given = Given(instants=instants, **table_of(calendar))
                rows = await database.reader.rows(DAYS, given)
                found = {row.instant: row.day for row in rows}
                assert found == dict(zip(instants, expected, strict=True)), name
        finally:
            await database.close()

    asyncio.run(compare())


def test_days_have_no_gaps_and_hold_their_instants() -> None:
    """No gap and no overlap, and an instant is in the spans of the date that the clocks showed, no other."""
    for name in zones():
        zone = ZoneInfo(name)
        calendar = calendar_of(zone)
        for change in changes_of(name):
            middle = by_the_clocks(change, zone)
            days = {day: calendar.spans(day) for day in (middle + timedelta(days=by) for by in range(-3, 4))}
            pieces = sorted(span for spans in days.values() for span in spans if span[0] < span[1])
            assert all(one[1] == other[0] for one, other in pairwise(pieces)), (name, middle)
            assert max(map(len, days.values())) <= 2, (name, middle)  # what `within_day` has room for
            for instant in near([change]):
                holding = [
                    day for day, spans in days.items() if any(start <= instant < end for start, end in spans)
                ]
                assert holding == [by_the_clocks(instant, zone)], (name, instant)


@pytest.mark.parametrize("name", ["UTC", "America/New_York", "Asia/Gaza", "Pacific/Apia"])
def test_days_of_the_calendar_follow_each_other(name: str) -> None:
    """From 1900 to 2200, one after the other; what lies beyond is an empty day's and no error."""
    calendar = calendar_of(ZoneInfo(name))
    days = [calendar.spans(date(1900, 1, 1) + timedelta(days=number)) for number in range(109572)]
    pieces = [span for spans in days for span in spans if span[0] < span[1]]
    assert all(one[1] == other[0] for one, other in pairwise(pieces))
    for beyond in (date.min, date.max):
        [(begins, ends)] = calendar.spans(beyond)
        assert not datetime(1900, 1, 1, tzinfo=UTC) < ends < begins < datetime(2200, 1, 1, tzinfo=UTC)


ODD = [
    ("America/St_Johns", "2010-11-07T02:31:00"),  # 00:01 was 23:01 again: a day in two pieces
    ("America/Havana", "2024-11-03T05:00:00"),  # 01:00 was 00:00 again: midnight twice
    ("America/Sao_Paulo", "2018-11-04T03:00:00"),  # 00:00 was 01:00: no midnight
    ("America/Santiago", "2024-04-07T03:00:00"),  # 24:00 was 23:00 again
    ("Pacific/Apia", "2011-12-30T10:00:00"),  # the 30th was left out
]


@pytest.mark.parametrize(("name", "change"), ODD)
def test_the_date_filter_and_the_dashboard_agree_on_a_day(
    name: str, change: str, world: World, backend: Backend
) -> None:
    """Over HTTP: which day an appointment is listed on, and whether a record is of that day or later."""
    zone, moment = ZoneInfo(name), datetime.fromisoformat(change).replace(tzinfo=UTC)
    assert moment in changes_of(name)
    instants = near([moment])
    _, doctor = world.account(Role.DOCTOR)
    visits = {at: finished(world, backend, doctor["id"], at) for at in instants}
    with Service(backend, backend.settings(clinic_timezone=name)) as clinic:
        browser = clinic.browser()
        assert browser.login(doctor["email"], PASSWORD).status_code == 200
        for by in range(-3, 4):
            day = by_the_clocks(moment, zone) + timedelta(days=by)
            page = browser.get("/api/appointments", params={"date": day.isoformat(), "limit": 100}).json()
            expected = [visits[at]["id"] for at in instants if by_the_clocks(at, zone) == day]
            assert [seen["id"] for seen in page["appointments"]] == expected, day
            assert page["total"] == len(expected)
        for visit in visits.values():
            body = {"patientId": visit["patientId"], "diagnosis": "Well", "prescription": "", "notes": ""}
            assert browser.post("/api/records", body).status_code == 201
        for written in instants:
            backend.sql("UPDATE medical_records SET date = $2 WHERE doctor_id = $1", doctor["id"], written)
            pending = browser.get("/api/dashboard/stats").json()["pendingReports"]
            day = by_the_clocks(written, zone)
            assert pending == sum(by_the_clocks(at, zone) > day for at in instants), written


def finished(world: World, backend: Backend, doctor: str, at: datetime) -> dict[str, Any]:
    """A completed visit of a patient who has no other."""
    visit = world.appointment(doctorId=doctor)
    backend.sql(
        "UPDATE appointments SET status = 'completed', date = $2, ends_at = $3 WHERE id = $1",
        visit["id"],
        at,
        at + timedelta(minutes=30),
    )
    return visit
