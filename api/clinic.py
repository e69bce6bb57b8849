"""How this clinic works: its time zone, how long a visit takes, what it costs."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

# Days beyond these have neighbours, or instants in UTC, that no calendar holds; no appointment is there.
FIRST, LAST = date(2, 1, 1), date(9998, 12, 30)


@dataclass(frozen=True)
class Clinic:
    timezone: ZoneInfo
    visit: timedelta
    fee: int

    def day(self, day: date) -> tuple[datetime, datetime]:
        """The first instant of `day` at the clinic and the first of the next; 23 to 25 hours apart."""
        day = min(max(day, FIRST), LAST)
        begins = datetime.combine(day, time(), self.timezone)
        return begins, datetime.combine(day + timedelta(days=1), time(), self.timezone)

    def today(self) -> tuple[datetime, datetime]:
        return self.day(datetime.now(self.timezone).date())
