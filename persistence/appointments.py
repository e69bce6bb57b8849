from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from persistence.models import Appointment, AppointmentStatus, Patient, User
from persistence.postgres.calendar import Span, spans_of, within_day
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source, Transaction
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.statements import AnyRow
from persistence.relations import ACTIVE_DOCTOR, CALLER, OWN_CHART, charts_readable_by
from security.roles import Caller, Role


def columns_of(appointment: Any, patient_name: Any = Patient.name, doctor_name: Any = User.name) -> Any:
    return (
        appointment.id,
        appointment.patient_id,
        patient_name.label("patient_name"),
        appointment.doctor_id,
        doctor_name.label("doctor_name"),
        appointment.date,
        appointment.status,
        appointment.reason,
        appointment.notes,
    )


COLUMNS = columns_of(Appointment)
SOURCE = Appointment.__table__.join(Patient.__table__).join(User.__table__, User.id == Appointment.doctor_id)
ORDER = (Appointment.date, Appointment.id)
STATUS = array([cast(bindparam("status", type_=Appointment.status.type), Text)])
SEEN_BY: dict[Role, tuple[ColumnElement[bool], ...]] = {
    Role.ADMIN: (),
    Role.STAFF: (),
    Role.DOCTOR: (Appointment.doctor_id == CALLER,),
    Role.PATIENT: (Appointment.patient_id == OWN_CHART,),
}
TABLE = Appointment.__table__
# `"doctor"` or `"patient"`, whoever has another scheduled appointment in that time. A function of the
# database (migration 0009), because it must see what was booked while its own statement waited.
TAKEN = func.booked_meanwhile(
    bindparam("doctor", type_=TABLE.c.doctor_id.type),
    bindparam("patient", type_=TABLE.c.patient_id.type),
    bindparam("date", type_=TABLE.c.date.type),
    bindparam("ends_at", type_=TABLE.c.ends_at.type),
    bindparam("itself", type_=TABLE.c.id.type),
).label("taken")
CLASH = select(TAKEN)
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


class Standing(NamedTuple):
    """How things stand for a booking or a change of one, once they stay so until the transaction ends."""

    sees_patient: bool
    doctor_is_active: bool
    now: datetime


class Booking(NamedTuple):
    """`taken`: `"doctor"` or `"patient"`, whoever has another scheduled appointment in that time. `row`: the
    appointment in COLUMNS; None where anything speaks against it."""

    standing: Standing
    taken: str | None
    row: Sequence[Any] | None


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Administrators and staff see every appointment, doctors and patients their own."""
    return SEEN_BY[role]


def of(caller: Caller) -> dict[str, Any]:
    return {"caller": caller.id} if readable_by(caller.role) else {}


@lru_cache
def single(role: Role) -> Any:
    columns = (*COLUMNS, Appointment.ends_at)
    return select(*columns).select_from(SOURCE).where(Appointment.id == bindparam("id"), *readable_by(role))


def held(role: Role, *after: Any) -> tuple[CTE, CTE]:
    """The chart and the doctor's account, which stay as they are until the transaction ends; neither where
    the booking may not be with it. `after`: what is waited for before that."""
    chart = select(Patient.id, Patient.name).where(Patient.id == bindparam("patient"), *after)
    doctor = select(User.id, User.name).where(User.id == bindparam("doctor"), *ACTIVE_DOCTOR, *after)
    return (
        chart.where(*charts_readable_by(role)).with_for_update(read=True).cte("chart"),
        doctor.with_for_update(read=True).cte("doctor"),
    )


def standing_of(chart: CTE, doctor: CTE) -> tuple[Any, ...]:
    """The columns of Standing. The rows are locked in this order, and the clock is read when that is done:
    an ordinary `now()` would be the transaction's begin, before it waited for anybody."""
    return (
        chart.select().exists().label("sees_patient"),
        doctor.select().exists().label("doctor_is_active"),
        func.clock_timestamp().label("now"),
    )


@lru_cache
def changing(role: Role) -> Any:
    """Standing, and the appointment itself with `ends_at` behind its columns."""
    columns = (*standing_of(*held(role)), *COLUMNS, Appointment.ends_at)
    return select(*columns).select_from(SOURCE).where(Appointment.id == bindparam("id"), *readable_by(role))


@lru_cache
def booking(role: Role) -> tuple[Any, CTE]:
    """The statement of `book`, and the part of it that writes."""
    has_waited = select(WAITED).scalar_subquery() > 0
    chart, doctor = held(role, has_waited)
    columns = (*standing_of(chart, doctor), case((has_waited, TAKEN)).label("taken"))
    standing = select(*columns).cte("standing").prefix_with("MATERIALIZED")
    conditions = [standing.c.sees_patient, standing.c.doctor_is_active, standing.c.taken.is_(None)]
    if role is Role.PATIENT:
        conditions.append(BOOKED["date"] >= standing.c.now)
    values = select(*BOOKED.values()).select_from(standing).where(*conditions)
    booked = insert(Appointment).from_select([*BOOKED], values).returning(*TABLE.c).cte("booked")
    shown = columns_of(booked.c, chart.c.name, doctor.c.name)
    joined = standing.outerjoin(booked.join(chart, true()).join(doctor, true()), true())
    return select(*standing.c, *shown).select_from(joined), booked


@lru_cache
def listing(role: Role, on_a_day: bool, with_status: bool) -> PagedQuery:
    where = list(readable_by(role))
    total = None
    if not where and not on_a_day:
        total = number_of(Appointment, STATUS if with_status else None)
    if on_a_day:
        where += within_day(Appointment.date)
    if with_status:
        where.append(Appointment.status == bindparam("status", type_=Appointment.status.type))
    names = (Appointment.id, Appointment.patient_id)
    return PagedQuery(
        Appointment.id,
        COLUMNS,
        SOURCE,
        ORDER,
        where,
        names=names,
        by_filter=on_a_day or with_status,
        total=total,
        marked=not where,
        few=on_a_day,
    )


async def one(source: Source, caller: Caller, appointment_id: UUID) -> AnyRow | None:
    """The appointment, and `ends_at` behind its columns, if the caller may see it."""
    rows = await source.rows(single(caller.role), id=appointment_id, **of(caller))
    return next(iter(rows), None)


async def page(
    source: Source,
    caller: Caller,
    page: int,
    limit: int,
    *,
    spans: list[Span] | None,
    status: AppointmentStatus | None,
) -> Found:
    """Appointments by date, then id. `spans`: those of the one day that is asked for."""
    parameters = of(caller)
    if spans:
        parameters |= spans_of(spans)
    if status:
        parameters["status"] = status
    query = listing(caller.role, spans is not None, status is not None)
    return await query.find(source, page, limit, **parameters)


def keys_of(doctor: UUID, patient: UUID) -> list[int]:
    """What bookings of these two wait for.

    The exclusion constraints alone would do against double bookings, but deadlock under a rush on one slot;
    in sorted order these cannot. The rows come after them, the chart's before the account's, as in a link
    of the two.
    """
    return sorted(int.from_bytes(person.bytes[8:], signed=True) for person in (doctor, patient))


async def book(
    transaction: Transaction, caller: Caller, doctor: UUID, patient: UUID, **values: Any
) -> Booking:
    """Book if nothing speaks against it, by the clock that every instance shares, and conclude the
    transaction."""
    people = {"doctor": doctor, "patient": patient, "people": keys_of(doctor, patient)}
    statement, booked = booking(caller.role)
    [row] = await transaction.conclude(statement, booked, **people, itself=None, **values, **of(caller))
    return Booking(Standing(*row[:3]), row[3], row[4:] if row[4] is not None else None)


async def settle(
    transaction: Transaction, caller: Caller, appointment: AnyRow
) -> tuple[Standing, AnyRow] | None:
    """How things stand for a change of the appointment, and the appointment as in `one`, now that nobody else
    changes it; None where the caller may not see it any more."""
    await transaction.lock(*keys_of(appointment.doctor_id, appointment.patient_id))
    people = {"doctor": appointment.doctor_id, "patient": appointment.patient_id}
    rows = await transaction.rows(changing(caller.role), id=appointment.id, **people, **of(caller))
    return next(((Standing(*row[:3]), row) for row in rows if row.sees_patient), None)


async def clash(
    transaction: Transaction,
    *,
    doctor: UUID,
    patient: UUID,
    date: datetime,
    ends_at: datetime,
    itself: UUID,
) -> str | None:
    """As Booking.taken, for an appointment that is moved."""
    taken: str | None
    [(taken,)] = await transaction.rows(
        CLASH, doctor=doctor, patient=patient, date=date, ends_at=ends_at, itself=itself
    )
    return taken


async def change(transaction: Transaction, appointment_id: UUID, **values: Any) -> AnyRow:
    """The appointment in COLUMNS, with these values; concludes the transaction."""
    [row] = await transaction.conclude(changed(frozenset(values)), appointment=appointment_id, **values)
    return row


@lru_cache
def changed(names: frozenset[str]) -> Any:
    values = {name: bindparam(name, type_=TABLE.c[name].type) for name in names}
    statement = update(Appointment).where(Appointment.id == bindparam("appointment")).values(values)
    row = statement.returning(*TABLE.c).cte("changed")
    people = row.join(Patient, Patient.id == row.c.patient_id).join(User, User.id == row.c.doctor_id)
    return select(*columns_of(row.c)).select_from(people)
