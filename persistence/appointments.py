from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, case, cast, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.types import BigInteger, Text

from persistence.calendar import Span, spans_of, within_day
from persistence.counters import number_of
from persistence.database import Source, Transaction
from persistence.models import Appointment, AppointmentStatus, Patient, User
from persistence.paging import Found, PagedQuery
from persistence.relations import ACTIVE_DOCTOR, CALLER, OWN_CHART, charts_readable_by
from persistence.statements import AnyRow
from security.roles import Caller, Role

COLUMNS = (
    Appointment.id,
    Appointment.patient_id,
    Patient.name.label("patient_name"),
    Appointment.doctor_id,
    User.name.label("doctor_name"),
    Appointment.date,
    Appointment.status,
    Appointment.reason,
    Appointment.notes,
)
SOURCE = Appointment.__table__.join(Patient.__table__).join(User.__table__, User.id == Appointment.doctor_id)
ORDER = (Appointment.date, Appointment.id)
STATUS = array([cast(bindparam("status", type_=Appointment.status.type), Text)])
SEEN_BY: dict[Role, tuple[ColumnElement[bool], ...]] = {
    Role.ADMIN: (),
    Role.STAFF: (),
    Role.DOCTOR: (Appointment.doctor_id == CALLER,),
    Role.PATIENT: (Appointment.patient_id == OWN_CHART,),
}
LOCK = select(
    func.pg_advisory_xact_lock(
        func.unnest(bindparam("people", type_=ARRAY(BigInteger))).column_valued("person")
    )
)
CLASH = (
    select(case((Appointment.doctor_id == bindparam("doctor"), "doctor"), else_="patient"))
    .where(
        or_(Appointment.doctor_id == bindparam("doctor"), Appointment.patient_id == bindparam("patient")),
        Appointment.status == AppointmentStatus.SCHEDULED,
        Appointment.date < bindparam("ends_at"),
        Appointment.ends_at > bindparam("date"),
        Appointment.id.is_distinct_from(bindparam("itself")),
    )
    .limit(1)
)
ADD = insert(Appointment).returning(Appointment.id)
CHANGE = update(Appointment).where(Appointment.id == bindparam("appointment"))


class Standing(NamedTuple):
    """How things stand for a booking or a change of one, once they stay so until the transaction ends."""

    sees_patient: bool
    doctor_is_active: bool
    now: datetime


def readable_by(role: Role) -> tuple[ColumnElement[bool], ...]:
    """Administrators and staff see every appointment, doctors and patients their own."""
    return SEEN_BY[role]


def of(caller: Caller) -> dict[str, Any]:
    return {"caller": caller.id} if readable_by(caller.role) else {}


@lru_cache
def single(role: Role) -> Any:
    columns = (*COLUMNS, Appointment.ends_at)
    return select(*columns).select_from(SOURCE).where(Appointment.id == bindparam("id"), *readable_by(role))


@lru_cache
def standing(role: Role) -> Any:
    """The rows are locked in the order of the columns, and the clock is read when that is done. An ordinary
    `now()` would be the transaction's begin, before it waited for anybody."""
    chart = select(Patient.id).where(Patient.id == bindparam("patient"), *charts_readable_by(role))
    doctor = select(User.id).where(User.id == bindparam("doctor"), *ACTIVE_DOCTOR)
    held = [rows.with_for_update(read=True).cte().select().exists() for rows in (chart, doctor)]
    return select(*held, func.clock_timestamp())


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


async def settle(transaction: Transaction, caller: Caller, doctor: UUID, patient: UUID) -> Standing:
    """Make bookings of these two wait for each other, hold the chart's link and the doctor's account as they
    are, and only then tell what holds and what time it is, by the clock that every instance shares.

    The exclusion constraints alone would do against double bookings, but deadlock under a rush on one slot;
    in sorted order the locks cannot. The rows come after them, the chart's before the account's, as in a link
    of the two.
    """
    keys = sorted(int.from_bytes(person.bytes[8:], signed=True) for person in (doctor, patient))
    await transaction.rows(LOCK, people=keys)
    [row] = await transaction.rows(standing(caller.role), doctor=doctor, patient=patient, **of(caller))
    return Standing(*row)


async def clash(
    transaction: Transaction,
    *,
    doctor: UUID,
    patient: UUID,
    date: datetime,
    ends_at: datetime,
    itself: UUID | None = None,
) -> str | None:
    """`"doctor"` or `"patient"`, whoever has another scheduled appointment in that time."""
    rows = await transaction.rows(
        CLASH, doctor=doctor, patient=patient, date=date, ends_at=ends_at, itself=itself
    )
    return next((row[0] for row in rows), None)


async def add(transaction: Transaction, **values: Any) -> UUID:
    appointment_id: UUID
    [(appointment_id,)] = await transaction.rows(ADD, **values)
    return appointment_id


async def change(transaction: Transaction, appointment_id: UUID, **values: Any) -> None:
    await transaction.run(CHANGE, appointment=appointment_id, **values)
