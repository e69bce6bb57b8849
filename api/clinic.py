"""How this clinic works: its time zone, how long a visit takes, what it costs."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
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
        return self.midnight(day), self.midnight(day + timedelta(days=1))

    def midnight(self, day: date) -> datetime:
        """When `day` begins. Where clocks went back across midnight, as in St. John's until 2011, it comes
        twice, and the second time begins the day."""
        first, second = (datetime.combine(day, time(fold=fold), self.timezone) for fold in (0, 1))
        just_before = second.astimezone(UTC) - timedelta(microseconds=1)
        comes_back = just_before >= first.astimezone(UTC)  # not so where the clock skips it
        return second if comes_back and just_before.astimezone(self.timezone).date() < day else first

    def today(self) -> tuple[datetime, datetime]:
        return self.day(datetime.now(self.timezone).date())
