"""Marks who did not come, where the clinic wants that: bookings that were made before they began, and of
which nobody has said hours later that the patient came."""

import logging
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypedDict
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, Interval, and_, bindparam, exists, or_, select, update
from sqlalchemy.orm import aliased

from persistence.audit import Action, Event, Outcome
from persistence.audit_chain import Key
from persistence.availability import keys_of
from persistence.closing import Closing
from persistence.history import Difference, keep_appointment_changes
from persistence.history_tables import AppointmentChange
from persistence.models import Appointment, AppointmentStatus
from persistence.postgres.background import repeat
from persistence.postgres.calendar import EARLIEST
from persistence.postgres.database import Database
from persistence.postgres.statements import IdRow, Query
from persistence.visits import VISIT, VisitState, differences_of
from security import clock

INTERVAL_SECONDS = 60.0
AT_ONCE = 100
SYSTEM = "system"  # who does it, in the history and as the address in the trail
log = logging.getLogger("medisecure.no_shows")


class Missed(NamedTuple):
    id: UUID
    patient_id: UUID
    doctor_id: UUID
    date: datetime


class Between(TypedDict):
    """`since` is included, `until` is not. `after`: how long after its beginning an appointment is missed."""

    since: datetime
    until: datetime
    most: int
    after: timedelta


class ToMark(TypedDict):
    """An appointment as it was found."""

    appointment: UUID
    patient: UUID
    doctor: UUID
    begins: datetime
    after: timedelta


OTHER, MOVE, ACT = (aliased(AppointmentChange) for _ in range(3))
MOVED_SINCE = exists().where(
    MOVE.appointment_id == OTHER.appointment_id, MOVE.field == "date", MOVE.id > OTHER.id
)
IS_LAST = ~exists().where(ACT.appointment_id == OTHER.appointment_id, ACT.field == VISIT, ACT.id > OTHER.id)
# Moved there when it had begun; or somebody has said that they came, that they are no no-show, or anything at
# all when the time was over. An arrival that was taken back before is as if nobody had said it.
IS_TOLD = exists().where(
    OTHER.appointment_id == Appointment.id,
    or_(
        and_(OTHER.field == "date", OTHER.at >= Appointment.date),
        and_(
            OTHER.field == VISIT,
            ~MOVED_SINCE,
            or_(
                and_(OTHER.after != VisitState.EXPECTED, IS_LAST),
                OTHER.before == VisitState.NO_SHOW,
                OTHER.at >= Appointment.date + bindparam("after", type_=Interval),
            ),
        ),
    ),
)
IS_MISSED = (
    Appointment.status == AppointmentStatus.SCHEDULED,
    Appointment.created_at < Appointment.date,
    ~IS_TOLD,
)
MISSED = Query(
    Missed,
    Between,
    select(Appointment.id, Appointment.patient_id, Appointment.doctor_id, Appointment.date)
    .where(Appointment.date >= bindparam("since"), Appointment.date < bindparam("until"), *IS_MISSED)
    .order_by(Appointment.date, Appointment.id)
    .limit(bindparam("most", type_=BigInteger)),
)
MARKED = (
    update(Appointment)
    .where(
        Appointment.id == bindparam("appointment"),
        Appointment.patient_id == bindparam("patient"),
        Appointment.doctor_id == bindparam("doctor"),
        Appointment.date == bindparam("begins"),
        *IS_MISSED,
    )
    .values(status=AppointmentStatus.CANCELLED)
    .returning(Appointment.id)
    .cte("marked")
)
MARK = Query(IdRow, ToMark, select(MARKED.c.id), only_if=MARKED)


class NoShows:
    """Any number of instances may do this at once."""

    def __init__(self, database: Database, key: Key, after: timedelta) -> None:
        """`after`: how long after its beginning an appointment is missed. `key`: of the trail."""
        self.database = database
        self.key = key
        self.after = after
        # What is left before it stays as it is: whatever is entered, moved or said there later is told.
        self.since = EARLIEST

    async def mark(self) -> tuple[bool, str]:
        """Mark some. Returns as background.repeat wants it."""
        until = datetime.fromtimestamp(clock.now(), UTC) - self.after
        between = Between(since=self.since, until=until, most=AT_ONCE, after=self.after)
        found = await self.database.reader.rows(MISSED, between)
        for missed in found:
            if await self.mark_one(missed):
                log.info("An appointment was marked as missed: %s", missed.id)
        self.since = found[0].date if found else until
        return len(found) == AT_ONCE, ""

    async def mark_one(self, missed: Missed) -> bool:
        """False if it is not missed any more, now that nobody else changes it: there is no trace then."""
        async with self.database.transaction(Closing(None, None, self.key)) as transaction:
            await transaction.lock(*keys_of(missed.doctor_id, missed.patient_id))
            transaction.note(event_of(missed))
            status = Difference("status", AppointmentStatus.SCHEDULED, AppointmentStatus.CANCELLED)
            said = [*differences_of(VisitState.EXPECTED, VisitState.NO_SHOW, None), status]
            keep_appointment_changes(transaction, missed.id, SYSTEM, said)
            values = ToMark(
                appointment=missed.id,
                patient=missed.patient_id,
                doctor=missed.doctor_id,
                begins=missed.date,
                after=self.after,
            )
            return bool(await transaction.conclude(MARK, values))


def event_of(missed: Missed) -> Event:
    return Event(
        at=datetime.now(UTC),
        user_id=None,
        email=None,
        role=None,
        session_id=None,
        action=Action.VISIT_UPDATE,
        outcome=Outcome.SUCCESS,
        patient_id=missed.patient_id,
        target_id=missed.id,
        target_ids=(),
        patient_ids=[missed.patient_id],
        address=SYSTEM,
        request_id=uuid4(),
    )


async def mark_periodically(no_shows: NoShows) -> None:
    """For as long as the service runs."""
    await repeat(no_shows.mark, INTERVAL_SECONDS, log, "Missed appointments could not be marked: %s")
