"""What stands on the sheet: of each day and doctor one page, and on it who comes when."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import groupby
from uuid import UUID

from msgspec import Struct

from api.clinic import Clinic
from api.paper.texts import in_words, printable
from persistence.downtime import Visit

NOT_RECORDED = "not recorded"  # nobody has asked: this is not "none"
BLANK_LINES = 3  # below each doctor's, for who comes without an appointment


class Line(Struct, frozen=True, rename="camel"):
    time: str
    patient: str
    born: str
    phone: str
    allergies: str | None


class Page(Struct, frozen=True, rename="camel"):
    """One doctor's day."""

    day: str
    doctor: str
    lines: list[Line]


class Sheet(Struct, frozen=True, rename="camel"):
    """`number` is also that of its event in the audit trail. `source`: where the data is from."""

    number: UUID
    clinic: str
    timezone: str
    days: str
    printed_at: str
    source: str
    pages: list[Page]


def days_from(today: date, number: int) -> list[date]:
    return [today + timedelta(days=n) for n in range(number)]


def bounds_of(clinic: Clinic, days: Sequence[date]) -> tuple[datetime, datetime]:
    """The first instant of the first day and the first after the last one."""
    return clinic.calendar.spans(days[0])[0][0], clinic.calendar.spans(days[-1])[-1][1]


def draw_up(
    number: UUID, clinic: Clinic, days: Sequence[date], visits: Sequence[Visit], at: datetime, source: str
) -> Sheet:
    """`visits`: by doctor, then time."""
    pages = []
    for day in days:
        of_day = [visit for visit in visits if clinic.day_of(visit.begins) == day]
        for _, group in groupby(of_day, key=lambda visit: visit.doctor_id):
            theirs = list(group)
            lines = [line_of(clinic, visit) for visit in theirs]
            pages.append(Page(day=in_words(day), doctor=printable(theirs[0].doctor), lines=lines))
    return Sheet(
        number=number,
        clinic=printable(clinic.name),
        timezone=clinic.timezone.key,
        days=in_words(days[0]) if len(days) == 1 else f"{in_words(days[0])} to {in_words(days[-1])}",
        printed_at=clock(clinic, at, "%Y-%m-%d %H:%M"),
        source=source,
        pages=pages,
    )


def line_of(clinic: Clinic, visit: Visit) -> Line:
    return Line(
        time=f"{clock(clinic, visit.begins, '%H:%M')}–{clock(clinic, visit.ends, '%H:%M')}",  # noqa: RUF001  # a range
        patient=printable(visit.patient),
        born=visit.date_of_birth.isoformat(),
        phone=printable(visit.phone),
        allergies=printable(visit.allergies) if visit.allergies else None,
    )


def clock(clinic: Clinic, instant: datetime, form: str) -> str:
    return instant.astimezone(clinic.timezone).strftime(form)
