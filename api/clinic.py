"""How this clinic works: its name, its days, how long a visit takes, what it costs."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from litestar import Controller
from litestar.di import NamedDependency
from msgspec import Meta

from api.http.fields import INT32, Day, Name, Output
from api.http.operation import get
from api.schedule.weekly import Hours, HoursList, shown_hours
from persistence.postgres.calendar import Calendar, calendar_of

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
class Clinic:
    """The settings of the clinic, for every resource. `hours`: None where it is always open."""

    name: str
    timezone: ZoneInfo
    appointment_length: timedelta
    currency: str
    fee: int
    hours: tuple[Hours, ...] | None = None

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
