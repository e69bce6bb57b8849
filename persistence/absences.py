"""When doctors are away, and when the clinic is closed."""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, case, delete, insert, select

from persistence.appointments import COLUMNS as APPOINTMENT
from persistence.appointments import SOURCE, AppointmentRow
from persistence.availability import CLINIC_KEY
from persistence.models import Appointment, Instant, User
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import AnyColumn, columns_of
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.statements import ById, IdRow, Query
from persistence.relations import ACTIVE_DOCTOR, CALLER, Seen, SeenById, taking_time
from persistence.schedule_tables import Absence
from persistence.survivors import lock_key
from security.roles import Caller, Role


class AbsenceRow(NamedTuple):
    """Of nobody: the clinic is closed. `reason`: None, too, where the caller may not see it."""

    id: UUID
    doctor_id: UUID | None
    begins: datetime
    ends: datetime
    reason: str | None


class NewAbsence(TypedDict):
    id: UUID
    doctor_id: UUID | None
    begins: datetime
    ends: datetime
    reason: str | None


class Listed(Seen, total=False):
    """Each None where it is not asked for."""

    doctor: UUID | None
    since: datetime | None
    until: datetime | None


class Time(TypedDict):
    """When, and with whom: with anybody where there is no doctor."""

    doctor: UUID | None
    begins: datetime
    ends: datetime


ADD = Query(AbsenceRow, NewAbsence, insert(Absence).returning(*columns_of(AbsenceRow, Absence)))
ENDED = delete(Absence).where(Absence.id == bindparam("id")).returning(Absence.id).cte("ended")
END = Query(IdRow, ById, select(ENDED.c.id))
DOCTOR = Query(IdRow, ById, select(User.id).where(User.id == bindparam("id"), *ACTIVE_DOCTOR))


def columns_for(role: Role) -> tuple[ColumnElement[object], ...]:
    """The reason of a leave is health data, which colleagues do not see."""
    reason: AnyColumn = Absence.reason
    if role is Role.DOCTOR:
        is_shown = Absence.doctor_id.is_(None) | (Absence.doctor_id == CALLER)
        reason = case((is_shown, Absence.reason))
    return columns_of(AbsenceRow, Absence, reason=reason)


@lru_cache
def listing(role: Role, filters: frozenset[str]) -> PagedQuery[Listed, AbsenceRow]:
    conditions: dict[str, ColumnElement[bool]] = {
        "doctor": Absence.doctor_id == bindparam("doctor"),
        "since": Absence.ends > bindparam("since"),
        "until": Absence.begins < bindparam("until"),
    }
    return PagedQuery(
        AbsenceRow,
        Listed,
        Absence.id,
        columns_for(role),
        Absence.__table__,
        (Absence.begins, Absence.id),
        [conditions[name] for name in sorted(filters)],
        names=(Absence.id,),
        by_filter=bool(filters),
    )


@lru_cache
def single(role: Role) -> Query[SeenById, AbsenceRow]:
    return Query(AbsenceRow, SeenById, select(*columns_for(role)).where(Absence.id == bindparam("id")))


@lru_cache
def locking(role: Role) -> Query[SeenById, AbsenceRow]:
    found = select(*columns_for(role)).where(Absence.id == bindparam("id")).with_for_update()
    return Query(AbsenceRow, SeenById, found)


@lru_cache
def concerned(is_of_doctor: bool) -> PagedQuery[Time, AppointmentRow]:
    """Scheduled appointments that have a moment in a time."""
    begins, ends = (bindparam(name, type_=Instant) for name in ("begins", "ends"))
    where = [*taking_time(Appointment, begins, ends)]
    if is_of_doctor:
        where.append(Appointment.doctor_id == bindparam("doctor", type_=Appointment.doctor_id.type))
    order = (Appointment.date, Appointment.id)
    return PagedQuery(AppointmentRow, Time, Appointment.id, APPOINTMENT, SOURCE, order, where)


async def page(
    source: Source,
    caller: Caller,
    page: int,
    limit: int,
    *,
    doctor: UUID | None,
    since: datetime | None,
    until: datetime | None,
) -> Found[AbsenceRow]:
    """Absences by their begin, then id: of one doctor, and those that have a moment from `since` to
    `until`."""
    filters = {"doctor": doctor, "since": since, "until": until}
    given = frozenset(name for name, value in filters.items() if value is not None)
    parameters = Listed(caller=caller.id, doctor=doctor, since=since, until=until)
    return await listing(caller.role, given).find(source, page, limit, parameters)


async def one(source: Source, caller: Caller, absence_id: UUID) -> AbsenceRow | None:
    return await source.first(single(caller.role), SeenById(id=absence_id, caller=caller.id))


async def locked(transaction: Transaction, caller: Caller, absence_id: UUID) -> AbsenceRow | None:
    """As `one`, and nobody else deletes it."""
    return await transaction.first(locking(caller.role), SeenById(id=absence_id, caller=caller.id))


async def lock(transaction: Transaction, doctor: UUID | None) -> bool:
    """Wait for whoever books with the doctor, or with anybody at the clinic. False where there is no such
    doctor, or their account is not active."""
    await transaction.lock(lock_key(doctor) if doctor else int(CLINIC_KEY))  # alone, not shared
    return doctor is None or await transaction.first(DOCTOR, ById(id=doctor)) is not None


async def bookings(source: Source, absence: AbsenceRow, most: int) -> tuple[list[AppointmentRow], int]:
    """The first, `most` of them, of the scheduled appointments in the time of the absence, and how many there
    are."""
    time = Time(doctor=absence.doctor_id, begins=absence.begins, ends=absence.ends)
    return await concerned(absence.doctor_id is not None).fetch(source, 1, most, time)


async def add(transaction: Transaction, **values: Unpack[NewAbsence]) -> AbsenceRow:
    """Concludes the transaction."""
    [row] = await transaction.conclude(ADD, values)
    return row


async def end(transaction: Transaction, absence_id: UUID) -> None:
    """Concludes the transaction."""
    await transaction.conclude(END, ById(id=absence_id))
