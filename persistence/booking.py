"""How appointments are booked and moved, so that nobody has two at the same time."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    Boolean,
    Integer,
    Interval,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    not_,
    null,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from persistence.appointments import SOURCE, TABLE, AppointmentRow, columns_from, readable_by
from persistence.availability import CLINIC_KEY, Availability, People, Slot, availability, keys_of
from persistence.models import Appointment, Instant, Patient, User
from persistence.postgres.database import Transaction
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import Query
from persistence.relations import ACTIVE_DOCTOR, CALLERS_NAME, Seen, SeenById, charts_readable_by
from security.roles import Caller, Role


class Standing(NamedTuple):
    """How things stand for a booking or a change of one, once they stay so until the transaction ends."""

    sees_patient: bool
    doctor_is_active: bool
    now: datetime


class Booking(NamedTuple):
    """`by`: the caller's name, where it was asked for. `row`: None if it was not booked."""

    standing: Standing
    by: str | None
    available: Availability
    row: AppointmentRow | None


class LockedAppointment(NamedTuple):
    """An appointment that nobody else changes until the transaction ends. `by`: the name of who locked it."""

    standing: Standing
    appointment: AppointmentRow
    ends_at: datetime
    by: str


class NewAppointment(TypedDict):
    id: UUID
    date: datetime
    ends_at: datetime
    reason: str
    notes: str | None
    fee: int
    overbooked: bool


class Assumed(TypedDict):
    """What has been decided, and by what: if it is not so, nothing is booked. `version`, `counts`: as in
    Slot. `absent`: as `Availability.is_absent`. `books`: whether it is booked at all. `lead`: how long before
    it begins a patient must book it; `max_open`: with how many open visits they may not."""

    version: int
    counts: bool
    absent: bool
    books: bool
    lead: timedelta
    max_open: int


class NewBooking(NewAppointment, Assumed):
    pass


class Booked(Slot, NewBooking, Seen):
    """`people`: what bookings of these two wait for."""

    people: list[int]


class Locked(People, SeenById):
    pass


# Bookings of the same people wait for each other here, in the order of the keys.
PERSON = func.unnest(bindparam("people", type_=ARRAY(BigInteger))).column_valued("person")
WAITED = (
    select(
        func.count(
            case(
                (literal(CLINIC_KEY) == PERSON, cast(func.pg_advisory_xact_lock_shared(PERSON), Text)),
                else_=cast(func.pg_advisory_xact_lock(PERSON), Text),
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
        "overbooked": "overbooked",
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
def booking(role: Role, is_named: bool) -> Query[Booked, Booking]:
    """`is_named`: whether the caller's name is asked for."""
    waited = select(WAITED).scalar_subquery()
    chart, doctor = lock_people(role, waited > 0)
    by = CALLERS_NAME if is_named else null()
    available = availability(waited)
    columns = (*standing_of(chart, doctor), cast(by, Text).label("by"), *available.c)
    standing = select(*columns).select_from(available).cte("standing").prefix_with("MATERIALIZED")
    values = select(*BOOKED.values(), standing.c.now).select_from(standing)
    # Made now, not when it began to wait: what is written since a merge stays with the survivor.
    values = values.where(*conditions_of(role, standing))
    booked = (
        insert(Appointment).from_select([*BOOKED, "created_at"], values).returning(*TABLE.c).cte("booked")
    )
    shown = columns_from(booked.c, chart.c.name, doctor.c.name)
    joined = standing.outerjoin(booked.join(chart, true()).join(doctor, true()), true())
    statement = select(*standing.c, *shown).select_from(joined)
    return Query(Booking, Booked, statement, only_if=booked)


def conditions_of(role: Role, standing: CTE) -> list[AnyColumn]:
    """Of a booking: it may be, and all is as it was assumed."""
    conditions = [
        standing.c.sees_patient,
        standing.c.doctor_is_active,
        standing.c.version == bindparam("version", type_=BigInteger),
        standing.c.is_absent == bindparam("absent", type_=Boolean),
        standing.c.doctor_is_taken == BOOKED["overbooked"],
        not_(standing.c.patient_is_taken),
        bindparam("books", type_=Boolean),
    ]
    if role is Role.PATIENT:
        conditions += [
            BOOKED["date"] >= standing.c.now + bindparam("lead", type_=Interval),
            standing.c.open_visits < bindparam("max_open", type_=Integer),
        ]
    return conditions


async def book(
    transaction: Transaction,
    caller: Caller,
    people: People,
    *,
    is_named: bool = False,
    **values: Unpack[NewBooking],
) -> Booking:
    """Book if nothing speaks against it, by the clock that every instance shares, and conclude the
    transaction."""
    parameters = Booked(caller=caller.id, people=keys_of(**people), itself=None, **people, **values)
    [booked] = await transaction.conclude(booking(caller.role, is_named), parameters)
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
    found = locked and (locked.appointment.doctor_id, locked.appointment.patient_id)
    if locked and found != (doctor, patient):  # reassigned, or its chart merged or parted, meanwhile
        await transaction.close()  # with the locks of three, in any order, others could deadlock
        return await lock(transaction, caller, locked.appointment)
    return locked if locked and locked.standing.sees_patient else None
