"""How this clinic works: its name, its days, how long a visit takes, what it costs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from litestar import Controller
from litestar.di import NamedDependency
from msgspec import Meta

from api.http.fields import INT32, Day, Name, Output
from api.http.operation import get
from api.http.problems import ErrorCode, Fault
from api.http.requests import Given
from api.http.violations import field_fault
from api.schedule.weekly import Hours, HoursList, shown_hours
from persistence.postgres.calendar import EARLIEST, LATEST, Calendar, Span, calendar_of

Minutes = Annotated[int, Meta(ge=1, le=1440, extra_json_schema=INT32)]
Fee = Annotated[int, Meta(ge=0, le=1_000_000, extra_json_schema=INT32)]


class ClinicInfo(Output):
    name: Name
    timezone: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$")]
    today: Day
    appointment_minutes: Minutes
    currency: Annotated[str, Meta(max_length=3, pattern="^[A-Z]{3}$")]
    fee: Fee
    hours: HoursList | None


@dataclass(frozen=True)
class PatientLimits:
    """How patients book by themselves; nothing is limited by default. `lead`: how long before the visit at
    the latest; `horizon_days`: for how many days ahead; `max_open`: how many scheduled visits to come their
    chart may have; `cutoff`: how long before it begins they may still move or cancel one."""

    lead: timedelta = timedelta()
    horizon_days: int | None = None
    max_open: int | None = None
    cutoff: timedelta = timedelta()


@dataclass(frozen=True)
class Clinic:
    """The settings of the clinic, for every resource. `hours`: None where it is always open."""

    name: str
    timezone: ZoneInfo
    appointment_length: timedelta
    currency: str
    fee: int
    hours: tuple[Hours, ...] | None = None
    limits: PatientLimits = PatientLimits()

    @property
    def calendar(self) -> Calendar:
        return calendar_of(self.timezone)

    def day_of(self, instant: datetime) -> date:
        """The date at the clinic at that instant."""
        return self.calendar.day_of(instant)

    def today(self) -> date:
        return self.day_of(datetime.now(UTC))

    def bounds_of(self, day: date) -> tuple[datetime, datetime]:
        """The first instant of `day` at the clinic and the first after its last."""
        spans = self.calendar.spans(day)
        return spans[0][0].astimezone(self.timezone), spans[-1][1].astimezone(self.timezone)

    def span_for_patients(self, now: datetime) -> Span:
        """From when on patients may book by themselves, and when that ends: with the last day of the horizon,
        which is as many days after today."""
        begins, days = now + self.limits.lead, self.limits.horizon_days
        if days is None:
            return begins, LATEST
        return begins, self.calendar.spans(self.day_of(now) + timedelta(days=days))[-1][1]


def find_faults_of_calendar(given: Given, name: str) -> Iterator[Fault]:
    """The instant in the field `name`, if it was sent, is one that the clinic's calendar covers."""
    if not EARLIEST <= given.get(name, EARLIEST) < LATEST:
        last = LATEST - timedelta(days=1)
        detail = f"must be from {EARLIEST:%Y-%m-%d} to {last:%Y-%m-%d}"
        yield field_fault(name, ErrorCode.OUT_OF_RANGE, detail)


class ClinicController(Controller):
    @get("/api/clinic", operation_id="getClinic")
    async def get_clinic(self, clinic: NamedDependency[Clinic]) -> ClinicInfo:
        return ClinicInfo(
            name=clinic.name,
            timezone=clinic.timezone.key,
            today=clinic.today(),
            appointment_minutes=clinic.appointment_length // timedelta(minutes=1),
            currency=clinic.currency,
            fee=clinic.fee,
            hours=None if clinic.hours is None else shown_hours(clinic.hours),
        )
