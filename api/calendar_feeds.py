"""A feed of one's appointments for one's own calendar (iCalendar, RFC 5545). Its address has a secret in it:
the one credential in a path, because calendars send no cookies. Only a digest of it is stored, and nothing of
this service writes it down."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Stream
from msgspec import Meta, Struct

from api.http.auditing import record_read, record_read_of_all, record_write
from api.http.conditional import conditional_head, conditional_response, entity_tag, is_cached
from api.http.fields import Message, Output
from api.http.operation import delete, get_with_secret, post
from api.http.requests import StrictRequest
from api.paper.texts import printable
from api.paper.workbench import Workbench
from persistence import calendar_feeds
from persistence.audit import Action
from persistence.calendar_feeds import Feed, VisitRow
from persistence.models import AppointmentStatus
from persistence.postgres.database import Reader, Transaction
from security.guards import requires
from security.policy import Counter
from security.roles import Role

SECRET_BYTES = 32
SUFFIX = ".ics"
FORM = b"3"  # of what `write_calendar` makes: another number with each change of it, for entity tags
PRODUCER = "-//MediSecure//MediSecure//EN"
REFRESHED_EVERY = timedelta(hours=1)  # that calendars are asked to
ICALENDAR = "text/calendar"
# As the contract has it; what the router hands on has the suffix as well.
PathSecret = FromPath[Annotated[str, Meta(min_length=43, max_length=43, pattern="^[A-Za-z0-9_-]+$")]]
HasFeed = requires(Role.DOCTOR, Role.PATIENT)


class CalendarAddress(Output):
    url: Annotated[
        str, Meta(max_length=400, pattern=r"^https?://[^/]+/api/calendars/[A-Za-z0-9_-]{43}\.ics$")
    ]


@dataclass(frozen=True)
class FeedPolicy:
    """`public_url`: where the service is reached. `shows_names`: whether a feed says who comes to whom, and
    why; whoever keeps the calendar reads it."""

    public_url: str
    clinic_name: str
    shows_names: bool


class Entry(Struct, frozen=True):
    """What a feed shows of an appointment; the texts as they are stored."""

    id: UUID
    begins: datetime
    ends: datetime
    is_cancelled: bool
    sequence: int
    changed_at: datetime
    whom: str | None
    reason: str | None


def digest_of(file: str) -> bytes:
    """Of the last part of the address. It has 256 bits that nobody can guess, so a plain hash will do."""
    return sha256(file.encode()).digest()


def entry_of(visit: VisitRow, role: Role, policy: FeedPolicy) -> Entry:
    """Takes a microsecond, of any texts: what takes longer is in `write_calendar`."""
    whom = visit.patient if role is Role.DOCTOR else visit.doctor
    return Entry(
        id=visit.id,
        begins=visit.begins,
        ends=visit.ends,
        is_cancelled=visit.status == AppointmentStatus.CANCELLED,
        sequence=visit.sequence,
        changed_at=visit.changed_at,
        whom=whom if policy.shows_names else None,
        reason=visit.reason if policy.shows_names else None,
    )


def escaped(text: str) -> str:
    r"""As a TEXT of RFC 5545, 3.3.11, without the control characters that it forbids. Not by `vText`, which
    takes the two characters `\N` for a line break."""
    return re.sub(r"[\\;,]", r"\\\g<0>", printable(text)).replace("\n", r"\n")


def write_calendar(entries: Sequence[Entry], clinic_name: str) -> bytes:
    """As RFC 5545. Takes a fifth of a millisecond for each."""
    from icalendar import Calendar, Event  # not above: it takes long to load
    from icalendar.prop import vInline

    clinic = vInline(escaped(clinic_name))
    calendar = Calendar()
    for name, value in (("prodid", PRODUCER), ("version", "2.0"), ("calscale", "GREGORIAN")):
        calendar.add(name, value)
    calendar.add("x-wr-calname", clinic)
    calendar.add("refresh-interval", REFRESHED_EVERY, parameters={"VALUE": "DURATION"})  # RFC 7986, 5.7
    for entry in entries:
        event = Event()
        event.add("uid", str(entry.id))
        event.add("dtstamp", entry.changed_at)
        event.add("last-modified", entry.changed_at)
        event.add("sequence", entry.sequence)
        event.add("dtstart", entry.begins)
        event.add("dtend", entry.ends)
        event.add("status", "CANCELLED" if entry.is_cancelled else "CONFIRMED")
        event.add("transp", "TRANSPARENT" if entry.is_cancelled else "OPAQUE")
        event.add("class", "PRIVATE")
        event.add("summary", vInline(f"Appointment: {escaped(entry.whom)}" if entry.whom else "Appointment"))
        event.add("location", clinic)
        if entry.reason is not None:
            event.add("description", vInline(escaped(entry.reason)))
        calendar.add_component(event)
    if not entries:
        add_time_zone(calendar)
    written: bytes = calendar.to_ical()
    return written


def add_time_zone(calendar: Any) -> None:  # Any: of icalendar, which is loaded at first use
    """UTC, to which nothing refers. A calendar has one component at least (RFC 5545, 3.6), and who reads it
    strictly refuses one without."""
    from icalendar import Timezone, TimezoneStandard

    zone, always = Timezone(), TimezoneStandard()
    zone.add("tzid", "UTC")
    always.add("dtstart", datetime(1970, 1, 1))  # noqa: DTZ001  # in local time, as 3.6.5 wants it
    always.add("tzoffsetfrom", timedelta(0))
    always.add("tzoffsetto", timedelta(0))
    zone.add_component(always)
    calendar.add_component(zone)


async def record_look(request: StrictRequest, feed: Feed, policy: FeedPolicy) -> None:
    """In the trail, as what the account's own person has read; with the charts, where names are shown."""
    if policy.shows_names:
        shown = [(visit.id, visit.patient_id) for visit in feed.visits]
        await record_read_of_all(request, shown, user=feed, target_id=feed.id)
    else:
        await record_read(request, user=feed, target_id=feed.id)


class CalendarFeedController(Controller):
    @post(
        "/api/users/me/calendar",
        operation_id="createMyCalendar",
        action=Action.CALENDAR_CREATE,
        guards=[HasFeed],
    )
    async def create_my_calendar(
        self,
        request: StrictRequest,
        feed_policy: NamedDependency[FeedPolicy],
        transaction: NamedDependency[Transaction],
    ) -> CalendarAddress:
        file = f"{secrets.token_urlsafe(SECRET_BYTES)}{SUFFIX}"
        record_write(transaction, request, target_id=request.user.id)
        await calendar_feeds.add(transaction, request.user, digest_of(file))
        return CalendarAddress(f"{feed_policy.public_url}/api/calendars/{file}")

    @delete(
        "/api/users/me/calendar",
        operation_id="endMyCalendar",
        status_code=200,
        counter=Counter.SAFEGUARD,
        action=Action.CALENDAR_END,
        guards=[HasFeed],
    )
    async def end_my_calendar(
        self, request: StrictRequest, transaction: NamedDependency[Transaction]
    ) -> Message:
        if not await calendar_feeds.end(transaction, request.user.id):
            raise NotFoundException("Calendar not found")
        record_write(transaction, request, target_id=request.user.id)
        return Message("Calendar ended")

    @get_with_secret(
        "/api/calendars/{secret:str}",
        operation_id="getCalendar",
        suffix=SUFFIX,
        media_type=ICALENDAR,
        action=Action.CALENDAR_READ,
    )
    async def get_calendar(
        self,
        secret: PathSecret,
        request: StrictRequest,
        feed_policy: NamedDependency[FeedPolicy],
        calendar_writer: NamedDependency[Workbench],
        reader: NamedDependency[Reader],  # the primary, which has a feed that was made or ended just now
    ) -> Response[bytes] | Stream:
        feed = await calendar_feeds.find(reader, digest_of(secret))
        if feed is None:
            raise NotFoundException("Calendar not found")
        entries = [entry_of(visit, feed.role, feed_policy) for visit in feed.visits]
        name = feed_policy.clinic_name
        tag, calendar = entity_tag(FORM, name.encode(), msgspec.json.encode(entries)), b""
        is_head = request.method == HttpMethod.HEAD
        if not is_head and not is_cached(request, tag):
            calendar = await calendar_writer.do(partial(write_calendar, entries, name))
        await record_look(request, feed, feed_policy)
        if is_head:
            return conditional_head(request, tag, media_type=ICALENDAR)
        return conditional_response(request, calendar, tag, media_type=ICALENDAR)
