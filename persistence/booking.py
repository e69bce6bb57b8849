"""How appointments are booked and moved, so that nobody has two at the same time."""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.appointments import SOURCE, TABLE, AppointmentRow, columns_from, readable_by
from persistence.models import Appointment, Instant, Patient, User
from persistence.postgres.database import Transaction
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import Query
from persistence.relations import ACTIVE_DOCTOR, CALLERS_NAME, Seen, SeenById, charts_readable_by
from persistence.survivors import lock_key
from security.roles import Caller, Role


class Standing(NamedTuple):
    """How things stand for a booking or a change of one, once they stay so until the transaction ends."""

    sees_patient: bool
    doctor_is_active: bool
    now: datetime


class Booking(NamedTuple):
    """`taken`: `"doctor"` or `"patient"`, the one who has another scheduled appointment in that time. `row`:
    None if it was not booked."""

    standing: Standing
    taken: str | None
    row: AppointmentRow | None


class LockedAppointment(NamedTuple):
    """An appointment that nobody else changes until the transaction ends. `by`: the name of who locked it."""

    standing: Standing
    appointment: AppointmentRow
    ends_at: datetime
    by: str


class Clash(NamedTuple):
    """As `Booking.taken`."""

    taken: str | None


class People(TypedDict):
    doctor: UUID
    patient: UUID


class NewAppointment(TypedDict):
    id: UUID
    date: datetime
    ends_at: datetime
    reason: str
    notes: str | None
    fee: int


class Slot(People):
    """`itself`: the appointment that is moved, which cannot clash with itself."""

    date: datetime
    ends_at: datetime
    itself: UUID | None


class Booked(Slot, NewAppointment, Seen):
    """`people`: what bookings of these two wait for."""

    people: list[int]


class Locked(People, SeenById):
    pass


# `"doctor"` or `"patient"`, the one who has another scheduled appointment in that time. A function of the
# database (migration 0009), because it must see what was booked while its own statement waited.
TAKEN = func.booked_meanwhile(
    bindparam("doctor", type_=TABLE.c.doctor_id.type),
    bindparam("patient", type_=TABLE.c.patient_id.type),
    bindparam("date", type_=TABLE.c.date.type),
    bindparam("ends_at", type_=TABLE.c.ends_at.type),
    bindparam("itself", type_=TABLE.c.id.type),
    type_=Text,
).label("taken")
CLASH = Query(Clash, Slot, select(TAKEN))
# Bookings of the same people wait for each other here, in the order of the keys.
WAITED = (
    select(
        func.count(
            cast(
                func.pg_advisory_xact_lock(
                    func.unnest(bindparam("people", type_=ARRAY(BigInteger))).column_valued("person")
                ),
                Text,
            )
        )
    )
    .cte("waited")
    .prefix_with("MATERIALIZED")
)
BOOKED = {
    name: bindparam(parameter, type_=TABLE.c[name].type)
    for name, parameter in {
        "id": "id",
        "patient_id": "patient",
        "doctor_id": "doctor",
        "date": "date",
        "ends_at": "ends_at",
        "reason": "reason",
        "notes": "notes",
        "fee": "fee",
    }.items()
}


def lock_people(role: Role, *after: AnyColumn) -> tuple[CTE, CTE]:
    """The chart and the doctor's account, which stay as they are until the transaction ends; neither where
    the booking may not be with it. `after`: what is waited for before that."""
    chart = select(Patient.id, Patient.name).where(Patient.id == bindparam("patient"), *after)
    doctor = select(User.id, User.name).where(User.id == bindparam("doctor"), *ACTIVE_DOCTOR, *after)
    return (
        chart.where(*charts_readable_by(role)).with_for_update(read=True).cte("chart"),
        doctor.with_for_update(read=True).cte("doctor"),
    )


def standing_of(chart: CTE, doctor: CTE) -> tuple[AnyColumn, ...]:
    """The columns of Standing. The rows are locked in this order, and the clock is read when that is done:
    an ordinary `now()` would be the transaction's begin, before it waited for anybody."""
    return (
        chart.select().exists().label("sees_patient"),
        doctor.select().exists().label("doctor_is_active"),
        func.clock_timestamp(type_=Instant).label("now"),
    )


@lru_cache
def locking(role: Role) -> Query[Locked, LockedAppointment]:
    chart, doctor = lock_people(role)
    # Their names as they are once the rows are locked, where they are: the statement began before.
    patient_name = func.coalesce(select(chart.c.name).scalar_subquery(), Patient.name)
    doctor_name = func.coalesce(select(doctor.c.name).scalar_subquery(), User.name)
    columns = columns_from(Appointment, patient_name, doctor_name)
    columns = (*standing_of(chart, doctor), *columns, Appointment.ends_at, CALLERS_NAME.label("by"))
    where = (Appointment.id == bindparam("id"), *readable_by(role))
    return Query(LockedAppointment, Locked, select(*columns).select_from(SOURCE).where(*where))


@lru_cache
def booking(role: Role) -> Query[Booked, Booking]:
    has_waited = select(WAITED).scalar_subquery() > 0
    chart, doctor = lock_people(role, has_waited)
    columns = (*standing_of(chart, doctor), case((has_waited, TAKEN)).label("taken"))
    standing = select(*columns).cte("standing").prefix_with("MATERIALIZED")
    conditions = [standing.c.sees_patient, standing.c.doctor_is_active, standing.c.taken.is_(None)]
    if role is Role.PATIENT:
        conditions.append(BOOKED["date"] >= standing.c.now)
    # Made now, not when it began to wait: what is written since a merge stays with the survivor.
    values = select(*BOOKED.values(), standing.c.now).select_from(standing).where(*conditions)
    booked = (
        insert(Appointment).from_select([*BOOKED, "created_at"], values).returning(*TABLE.c).cte("booked")
    )
    shown = columns_from(booked.c, chart.c.name, doctor.c.name)
    joined = standing.outerjoin(booked.join(chart, true()).join(doctor, true()), true())
    statement = select(*standing.c, *shown).select_from(joined)
    return Query(Booking, Booked, statement, only_if=booked)


def keys_of(doctor: UUID, patient: UUID) -> list[int]:
    """What bookings of these two wait for.

    The exclusion constraints alone would do against double bookings, but deadlock under a rush on one slot;
    in sorted order these cannot. The rows come after them, the chart's before the account's, as in a link
    of the two.
    """
    return sorted(map(lock_key, (doctor, patient)))


async def book(
    transaction: Transaction, caller: Caller, doctor: UUID, patient: UUID, **values: Unpack[NewAppointment]
) -> Booking:
    """Book if nothing speaks against it, by the clock that every instance shares, and conclude the
    transaction."""
    people = keys_of(doctor, patient)
    parameters = Booked(
        caller=caller.id, doctor=doctor, patient=patient, people=people, itself=None, **values
    )
    [booked] = await transaction.conclude(booking(caller.role), parameters)
    return booked


async def lock(
    transaction: Transaction, caller: Caller, appointment: AppointmentRow
) -> LockedAppointment | None:
    """How things stand for a change of the appointment, now that nobody else changes it; None where the
    caller may not see it any more."""
    doctor, patient = appointment.doctor_id, appointment.patient_id
    await transaction.lock(*keys_of(doctor, patient))
    parameters = Locked(id=appointment.id, caller=caller.id, doctor=doctor, patient=patient)
    locked = await transaction.first(locking(caller.role), parameters)
    if locked and locked.appointment.patient_id != patient:  # its chart was merged or parted meanwhile
        await transaction.close()  # with two charts' locks, in any order, others could deadlock
        return await lock(transaction, caller, locked.appointment)
    return locked if locked and locked.standing.sees_patient else None


async def find_clash(transaction: Transaction, **slot: Unpack[Slot]) -> str | None:
    """As Booking.taken, for an appointment that is moved."""
    [clash] = await transaction.rows(CLASH, slot)
    return clash.taken
