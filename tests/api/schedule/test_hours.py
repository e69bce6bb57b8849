"""Working hours in the clinic's calendar (contract: "a time that the clocks leave out")."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from api.clinic import Clinic
from api.schedule.hours import hours_for, intervals_around, intervals_of, is_inside, length_at
from api.schedule.weekly import Hours, find_overlap, parse_hours
from api.settings import SettingsError
from tests.support.settings import read

HALF_AN_HOUR = timedelta(minutes=30)
BERLIN = "Europe/Berlin"
SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)  # Sundays on which the clocks of Berlin change


def clinic_in(zone: str, hours: tuple[Hours, ...] | None = None) -> Clinic:
    return Clinic("Clinic", ZoneInfo(zone), HALF_AN_HOUR, "EUR", 0, hours)


def times(zone: str, *written: tuple[date, str]) -> list[str]:
    """The intervals of some hours, such as `08:00-09:00`, on some days: in UTC."""
    found = []
    for day, hours in written:
        [one, *_] = parse_hours(f"Mon-Sun {hours}")
        week = [Hours(day.isoweekday(), one.opens, one.closes)]
        found += [f"{i.begins:%d %H:%M}-{i.ends:%H:%M}" for i in intervals_of(week, [day], clinic_in(zone))]
    return found


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_hours_are_instants_by_the_clocks_of_the_clinic() -> None:
    winter, summer = date(2026, 1, 4), date(2026, 7, 5)
    assert times(BERLIN, (winter, "08:00-12:30"), (summer, "08:00-24:00")) == [
        "04 07:00-11:30",
        "05 06:00-22:00",
    ]
    assert times("Asia/Kathmandu", (winter, "08:00-09:00")) == ["04 02:15-03:15"]


def test_a_time_that_the_clocks_leave_out_is_read_by_the_offset_before() -> None:
    assert times(BERLIN, (SPRING, "01:30-02:30")) == ["29 00:30-01:30"]
    assert times(BERLIN, (SPRING, "02:00-02:30")) == ["29 01:00-01:30"]
    assert times(BERLIN, (SPRING, "02:30-03:00")) == []  # it would end before it begins


def test_of_a_time_that_comes_twice_the_first_is_meant() -> None:
    assert times(BERLIN, (AUTUMN, "02:30-03:30")) == ["25 00:30-02:30"]
    assert times("Atlantic/Azores", (AUTUMN, "00:00-01:00")) == ["25 00:00-02:00"]
    # At 00:01 the clocks went back across midnight; the first midnight ends the 6th and begins the 7th.
    days = date(2010, 11, 6), date(2010, 11, 7)
    assert times("America/St_Johns", (days[0], "23:00-24:00"), (days[1], "00:00-01:00")) == [
        "07 01:30-02:30",
        "07 02:30-04:30",
    ]


def test_a_day_that_the_zone_skips_has_no_hours() -> None:
    days = [date(2011, 12, day) for day in (29, 30, 31)]
    for hours in (None, parse_hours("Mon-Sun 00:00-24:00")):
        begins = [i.begins for i in intervals_of(hours, days, clinic_in("Pacific/Apia"))]
        assert begins == [utc("2011-12-29T10:00"), utc("2011-12-30T10:00")]


def test_a_day_outside_of_the_calendar_has_no_hours() -> None:
    assert intervals_of(None, [date.min, date(1850, 1, 1), date.max], clinic_in("UTC")) == []


def test_without_hours_the_clinic_is_always_open() -> None:
    [one, other] = intervals_of(None, [SPRING, SPRING + timedelta(days=1)], clinic_in(BERLIN))
    assert (one.begins, one.ends, one.length) == (
        utc("2026-03-28T23:00"),
        utc("2026-03-29T22:00"),
        HALF_AN_HOUR,
    )
    assert other.begins == one.ends


def test_hours_hold_from_their_first_day_to_their_last() -> None:
    monday = date(2026, 12, 7)
    hours = [Hours(1, 480, 540, monday, monday + timedelta(days=7))]
    days = [monday + timedelta(days=n) for n in range(-7, 22)]
    assert [i.begins.date() for i in intervals_of(hours, days, clinic_in("UTC"))] == [
        monday,
        monday + timedelta(days=7),
    ]


def test_a_doctor_without_hours_has_those_of_the_clinic() -> None:
    week = parse_hours("Mon 08:00-09:00")
    assert hours_for(None, clinic_in("UTC", week)) == week
    assert hours_for(None, clinic_in("UTC")) is None
    assert hours_for((), clinic_in("UTC", week)) == ()


def test_a_visit_is_as_long_as_the_interval_says_in_which_it_begins() -> None:
    clinic = clinic_in("UTC")
    day = datetime(2026, 12, 7, tzinfo=UTC)
    week = [Hours(1, 480, 600, minutes=45), Hours(1, 600, 720)]
    intervals = intervals_of(week, [day.date()], clinic)
    lengths = [length_at(intervals, day + timedelta(minutes=at), clinic) for at in (479, 480, 599, 600, 720)]
    assert [length.seconds // 60 for length in lengths] == [30, 45, 45, 30, 30]


def test_a_time_is_inside_where_one_interval_follows_another() -> None:
    clinic = clinic_in("UTC")
    day = datetime(2026, 12, 7, tzinfo=UTC)
    week = [Hours(1, 480, 600), Hours(1, 600, 720), Hours(1, 780, 1440), Hours(2, 0, 60)]

    def is_inside_from(begins: int, ends: int) -> bool:
        span = day + timedelta(minutes=begins), day + timedelta(minutes=ends)
        return is_inside(intervals_around(week, *span, clinic), *span)

    assert is_inside_from(480, 720)
    assert is_inside_from(590, 610)
    assert is_inside_from(1430, 1500)
    assert not is_inside_from(479, 500)
    assert not is_inside_from(700, 721)
    assert not is_inside_from(700, 790)
    assert not is_inside_from(730, 760)
    assert not is_inside_from(1430, 1501)


def test_two_hours_overlap_on_a_common_day_only() -> None:
    first, last = date(2026, 12, 1), date(2026, 12, 6)  # from Tuesday to Sunday: no Monday
    one = Hours(1, 480, 600, valid_until=last)
    assert find_overlap([one, Hours(2, 480, 600), Hours(1, 599, 700)]) == (0, 2)
    assert find_overlap([one, Hours(1, 600, 700)]) is None
    assert find_overlap([one, Hours(1, 480, 600, valid_from=first)]) is None
    assert find_overlap([one, Hours(1, 480, 600, valid_from=first - timedelta(days=1))]) == (0, 1)
    assert find_overlap([Hours(1, 0, 9, first), Hours(1, 0, 9, last)]) == (0, 1)


def test_the_settings_have_the_hours_of_the_clinic() -> None:
    told = "Mon-Fri 08:00 - 12:00, 13:00-17:00;Sat,Sun 09:00-24:00;"
    hours = read(CLINIC_HOURS=told).clinic.hours
    assert hours is not None
    assert len(hours) == 12
    assert (hours[1], hours[-1]) == (Hours(1, 780, 1020), Hours(7, 540, 1440))
    around = read(CLINIC_HOURS="Sat-Mon 08:00-09:00").clinic.hours
    assert around is not None
    assert [one.weekday for one in around] == [6, 7, 1]
    assert read(CLINIC_HOURS=" ").clinic.hours is None


@pytest.mark.parametrize(
    ("hours", "wrong"),
    [
        (";", "must be days and times, such as Mon-Fri 08:00-17:00; Sat 09:00-12:00"),
        ("Mon", "must be days and times, such as Mon-Fri 08:00-17:00; Sat 09:00-12:00; 'Mon' is neither"),
        ("Mon 8-12", "'Mon 8-12' is neither"),
        ("Montag 08:00-12:00", "must name days as Mon, Tue, Wed, Thu, Fri, Sat, Sun, which 'Montag' is not"),
        ("Mon-Fry 08:00-12:00", "which 'Mon-Fry' is not"),
        ("Mon 08:00-24:01", "24:01 is no time from 00:00 to 24:00"),
        ("Mon 12:00-12:00", "must open before it closes, which 12:00-12:00 does not"),
        ("Mon-Wed 08:00-12:00; Tue 11:59-13:00", "has two times on Tue that overlap"),
        (
            "; ".join(f"Mon-Sun {number // 60:02}:{number % 60:02}-24:00" for number in range(29)),
            "must be at most 200 times of all days together",
        ),
    ],
)
def test_hours_that_are_none_are_refused_at_the_start(hours: str, wrong: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(CLINIC_HOURS=hours)
    assert str(refused.value).startswith("CLINIC_HOURS ")
    assert str(refused.value).endswith(wrong)
