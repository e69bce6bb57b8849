"""The appointments that a doctor still has before them, given to a colleague or cancelled: all or none."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypedDict
from uuid import UUID

from sqlalchemy import (
    Integer,
    bindparam,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased
from sqlalchemy.types import Uuid

from persistence.appointments import SOURCE, AppointmentRow, columns_from
from persistence.audit import Event
from persistence.availability import CLINIC_KEY
from persistence.history import differences, keep_appointment_changes
from persistence.models import Appointment, AppointmentStatus, Instant, User
from persistence.postgres.database import Source, Transaction
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import IdRow, Query, Statement
from persistence.relations import ACTIVE_DOCTOR, CALLERS_NAME, Seen, taking_time
from persistence.schedule_tables import Absence, DoctorHours, StoredHours
from persistence.survivors import lock_key
from security.roles import Caller, Role

MAX_APPOINTMENTS = 5000  # 1.5 s; 10,000 may take longer than a request may
MAX_IN_EVENT = 50  # so many appointments' changes an event of the trail can vouch for
ONE_AT_A_TIME = lock_key(UUID(int=1))  # as each may need most of the locks that PostgreSQL has room for


class Coming(NamedTuple):
    """A scheduled appointment that has not begun. `by`: the name of who asks. `most`: with how many others it
    may change at once."""

    appointment: AppointmentRow
    ends_at: datetime
    by: str
    most: int


class Parties(NamedTuple):
    """`has_doctor`: the account is a doctor's, or has appointments as one. `heir`: the name of the active
    doctor who is to take the appointments, and stays one until the transaction ends; None where they are
    none. `hours`: their own ones, if any."""

    has_doctor: bool
    heir: str | None
    hours: StoredHours | None


class Clash(NamedTuple):
    """When an appointment begins that the heir has no time for. `is_absent`: because they are away, or the
    clinic is closed; else they have another one."""

    date: datetime
    is_absent: bool


class Fate(TypedDict, total=False):
    """What changes in each appointment."""

    doctor_id: UUID
    doctor_name: str
    status: AppointmentStatus


class Between(Seen):
    """`since` is included, `until` is not."""

    doctor: UUID
    since: datetime
    until: datetime
    most: int


class Both(TypedDict):
    doctor: UUID
    heir: UUID | None


class Waited(TypedDict):
    people: list[int]
    clinic: int


class Given(TypedDict):
    ids: list[UUID]
    heir: UUID


class Ended(TypedDict):
    ids: list[UUID]


AMONG = Appointment.id == func.any(bindparam("ids", type_=ARRAY(Uuid)))
HEIR = bindparam("heir", type_=Uuid)
SCHEDULED = Appointment.status == AppointmentStatus.SCHEDULED
AT_MOST: AnyColumn = bindparam("most", type_=Integer)
# They take a lock for each patient, of those that the server has room for, of all transactions together.
MOST = func.least(
    AT_MOST,
    literal_column(
        "(SELECT current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int"
        " + current_setting('max_prepared_transactions')::int) * 4 / 5)",
    ),
    type_=Integer,
)
COMING = Query(
    Coming,
    Between,
    select(*columns_from(Appointment), Appointment.ends_at, CALLERS_NAME.label("by"), MOST.label("most"))
    .select_from(SOURCE)
    .where(
        Appointment.doctor_id == bindparam("doctor"),
        SCHEDULED,
        # Not the transaction's begin, which was before it waited for anybody.
        Appointment.date > func.statement_timestamp(type_=Instant),
        Appointment.date >= bindparam("since"),
        Appointment.date < bindparam("until"),
    )
    .order_by(Appointment.date, Appointment.id)
    .limit(AT_MOST + 1),
)
# As bookings do (persistence/booking.py): the clinic first, then people in the order of their keys. Before
# that one waits for other handovers, as nobody else does.
WAIT = Statement(
    Waited,
    text(
        """
        SELECT CASE WHEN person = CAST(:clinic AS bigint) THEN pg_advisory_xact_lock_shared(person)
                    ELSE pg_advisory_xact_lock(person) END
        FROM unnest(CAST(:people AS bigint[])) AS person
        """
    ),
)
HEIR_ROW = select(User.name).where(User.id == HEIR, *ACTIVE_DOCTOR).with_for_update(read=True).cte("heir")
PARTIES = Query(
    Parties,
    Both,
    select(
        exists()
        .where(
            User.id == bindparam("doctor"),
            or_(User.role == Role.DOCTOR, exists().where(Appointment.doctor_id == User.id)),
        )
        .label("has_doctor"),
        select(HEIR_ROW.c.name).scalar_subquery().label("heir"),
        select(DoctorHours.hours).where(DoctorHours.doctor_id == HEIR).scalar_subquery().label("hours"),
    ),
)
OTHER = aliased(Appointment)
BUSY = (
    select(Appointment.date, false().label("is_absent"))
    .join(OTHER, OTHER.doctor_id == HEIR)
    .where(AMONG, *taking_time(OTHER, Appointment.date, Appointment.ends_at))
)
AWAY = (
    select(Appointment.date, true().label("is_absent"))
    .join(Absence, or_(Absence.doctor_id == HEIR, Absence.doctor_id.is_(None)))
    .where(AMONG, Absence.begins < Appointment.ends_at, Absence.ends > Appointment.date)
)
CLASHES = union_all(BUSY, AWAY).subquery()
CLASH = Query(Clash, Given, select(*CLASHES.c).order_by(CLASHES.c.date, CLASHES.c.is_absent).limit(1))
CHANGED = update(Appointment).where(AMONG)
# Whoever had it overbooked had permitted it in another calendar.
GIVEN = CHANGED.values(doctor_id=HEIR, overbooked=False).returning(Appointment.id).cte("given")
GIVE = Query(IdRow, Given, select(GIVEN.c.id))
ENDED = CHANGED.values(status=AppointmentStatus.CANCELLED).returning(Appointment.id).cte("ended")
CANCEL = Query(IdRow, Ended, select(ENDED.c.id))


async def lock(
    transaction: Transaction,
    caller: Caller,
    doctor: UUID,
    heir: UUID | None,
    since: datetime,
    until: datetime,
) -> list[Coming]:
    """Those of this time, by date, which nobody else changes until the transaction ends, nor books with the
    doctor or the heir; or too many of them, and then nothing is locked. Nothing was locked before."""
    most = MAX_APPOINTMENTS
    parameters = Between(caller=caller.id, doctor=doctor, since=since, until=until, most=most)
    found = await transaction.rows(COMING, parameters)
    while not are_too_many(found):
        people = {doctor, *([heir] if heir else []), *patients_of(found)}
        keys = [ONE_AT_A_TIME, CLINIC_KEY, *sorted(map(lock_key, people))]
        await transaction.run(WAIT, Waited(people=keys, clinic=CLINIC_KEY))
        found = await transaction.rows(COMING, parameters)
        if people.issuperset(patients_of(found)):
            return found
        await transaction.close()  # booked meanwhile: with more locks, in any order, others could deadlock
    return found


def are_too_many(found: Sequence[Coming]) -> bool:
    return bool(found) and len(found) > found[0].most


def patients_of(found: Sequence[Coming]) -> Iterator[UUID]:
    return (one.appointment.patient_id for one in found)


async def parties(source: Source, doctor: UUID, heir: UUID | None) -> Parties:
    [found] = await source.rows(PARTIES, Both(doctor=doctor, heir=heir))
    return found


async def find_clash(source: Source, ids: list[UUID], heir: UUID) -> Clash | None:
    """Of the first of these appointments that the heir has no time for."""
    return await source.first(CLASH, Given(ids=ids, heir=heir))


def keep_changes(transaction: Transaction, found: Collection[Coming], fate: Fate, event: Event) -> None:
    """Have it stored what the appointments said before. `event`: which names them."""
    for one in found:
        row = one.appointment
        keep_appointment_changes(transaction, row.id, one.by, differences(row, fate), event)


async def store(transaction: Transaction, ids: list[UUID], heir: UUID | None) -> None:
    """Give these locked appointments to the heir, or cancel them, and conclude the transaction."""
    if heir is None:
        await transaction.conclude(CANCEL, Ended(ids=ids))
    else:
        await transaction.conclude(GIVE, Given(ids=ids, heir=heir))
