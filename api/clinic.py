"""How this clinic works: its days, how long a visit takes, what it costs."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from persistence.calendar import Calendar, calendar_of


@dataclass(frozen=True)
class Clinic:
    timezone: ZoneInfo
    visit: timedelta
    fee: int

    @property
    def calendar(self) -> Calendar:
        return calendar_of(self.timezone)

    def day_of(self, instant: datetime) -> date:
        """The date at the clinic at that instant."""
        return self.calendar.day_of(instant)

    def today(self) -> date:
        return self.day_of(datetime.now(UTC))

    def day(self, day: date) -> tuple[datetime, datetime]:
        """The first instant of `day` at the clinic and the first after its last."""
        spans = self.calendar.spans(day)
        return spans[0][0].astimezone(self.timezone), spans[-1][1].astimezone(self.timezone)
