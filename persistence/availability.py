"""Whether a doctor and a patient have time for a visit, asked under the locks that every booking takes: the
doctor's hours, absences, the visits of both."""

from datetime import datetime
from typing import NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Integer, Uuid, bindparam, column, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from persistence.models import Appointment
from persistence.postgres.database import Transaction
from persistence.postgres.declared import AnyColumn
from persistence.postgres.locks import Shared
from persistence.postgres.statements import Query
from persistence.survivors import lock_key

TABLE = Appointment.__table__
# Of the clinic as a whole: who closes it waits for those who book, move and reassign, and they for them. No
# account has this id.
CLINIC_KEY = Shared(lock_key(UUID(int=0)))


class Availability(NamedTuple):
    """`version`: of the doctor's own hours, 0 where there are none. `hours`: as they are stored, where they
    are not of the version that the caller knew; else None. `is_absent`: the doctor, or the clinic is closed.
    `doctor_is_taken`, `patient_is_taken`: by another scheduled visit. `open_visits`: those of the patient
    that are scheduled and yet to begin, where they were to be counted; else 0."""

    version: int
    hours: object  # JSON
    is_absent: bool
    doctor_is_taken: bool
    patient_is_taken: bool
    open_visits: int


class People(TypedDict):
    doctor: UUID
    patient: UUID


class Time(People):
    """`itself`: the appointment that is moved, which cannot clash with itself."""

    date: datetime
    ends_at: datetime
    itself: UUID | None


class Slot(Time):
    """`version`: of the doctor's own hours, as the caller knows them. `counts`: whether the patient's visits
    to come are counted."""

    version: int
    counts: bool


def availability(waited: AnyColumn) -> AnyColumn:
    """The columns of Availability, in a FROM clause. A function of the database, because it must see what was
    stored while its own statement waited, which it does once `waited` is known."""
    return func.look_before_booking(
        bindparam("doctor", type_=TABLE.c.doctor_id.type),
        bindparam("patient", type_=TABLE.c.patient_id.type),
        bindparam("date", type_=TABLE.c.date.type),
        bindparam("ends_at", type_=TABLE.c.ends_at.type),
        bindparam("itself", type_=Uuid),
        bindparam("version", type_=BigInteger),
        bindparam("counts", type_=Boolean),
        waited,
    ).table_valued(
        column("version", BigInteger),
        column("hours", JSONB),
        column("is_absent", Boolean),
        column("doctor_is_taken", Boolean),
        column("patient_is_taken", Boolean),
        column("open_visits", Integer),
        name="available",
    )


LOOK = Query(Availability, Slot, select(availability(literal(0, BigInteger))))


def keys_of(doctor: UUID, patient: UUID) -> list[int]:
    """What bookings of these two wait for.

    The exclusion constraints alone would do against double bookings, but deadlock under a rush on one slot;
    in sorted order these cannot. The rows come after them, the chart's before the account's, as in a link
    of the two.
    """
    return [CLINIC_KEY, *sorted(map(lock_key, (doctor, patient)))]


async def look(transaction: Transaction, **slot: Unpack[Slot]) -> Availability:
    """How things stand for a visit of people whose locks the transaction holds."""
    [found] = await transaction.rows(LOOK, slot)
    return found
