"""Lists of appointments, narrowed by any filters and in any order that openapi.yaml offers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Interval,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, array

from persistence.appointments import COLUMNS, SOURCE, AppointmentRow, readable_by
from persistence.models import Appointment, AppointmentStatus, User
from persistence.postgres.calendar import DayBounds, Span, bounds_of, within_day
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source
from persistence.postgres.declared import AnyColumn
from persistence.postgres.paging import Found, PagedQuery
from persistence.postgres.sorting import AppointmentSort, order_by
from persistence.relations import ACTIVE_DOCTOR, Seen
from persistence.survivors import chart_now
from security.roles import Caller, Role


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is asked for of the appointments that the caller may see. None: whatever it is. `spans`: those of
    one day. `patient`: a chart, or one that was merged into it. `since` is included, `until` is not.
    `orphaned`: whether they are to come, and of nobody who is an active doctor. `overdue`: when today began,
    for those of past days that are scheduled still."""

    spans: Sequence[Span] | None = None
    statuses: Collection[AppointmentStatus] | None = None
    patient: UUID | None = None
    doctor: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[UUID] | None = None
    orphaned: bool | None = None
    overdue: datetime | None = None

    def given(self) -> frozenset[str]:
        """The keys of CONDITIONS that hold."""
        names = {name for name in CONDITIONS if getattr(self, name, None) is not None}
        if self.statuses and len(self.statuses) == 1:
            names = names - {"statuses"} | {"status"}
        if self.orphaned is False:
            names = names - {"orphaned"} | {"not_orphaned"}
        return frozenset(names)

    def parameters(self, caller: UUID) -> "Listed":
        statuses = [*(self.statuses or ())]
        return Listed(
            caller=caller,
            status=statuses[0] if statuses else None,
            statuses=statuses,
            patient=self.patient,
            doctor=self.doctor,
            since=self.since,
            until=self.until,
            ids=[*(self.ids or ())],
            overdue=self.overdue,
            **bounds_of(self.spans or []),
        )


class Listed(DayBounds, Seen):
    status: AppointmentStatus | None
    statuses: Sequence[str]
    patient: UUID | None
    doctor: UUID | None
    since: datetime | None
    until: datetime | None
    ids: list[UUID]
    overdue: datetime | None


def departed() -> AnyColumn:
    """An array: who has appointments as a doctor, and is none who is active. PostgreSQL steps from one doctor
    of an index to the next, as most accounts never were one."""
    following = Appointment.doctor_id
    booked = select(following.label("id")).order_by(following).limit(1).cte("booked", recursive=True)
    further = select(following).where(following > booked.c.id).order_by(following).limit(1)
    booked = booked.union_all(
        select(further.correlate(booked).scalar_subquery()).where(booked.c.id.is_not(None))
    )
    gone = booked.c.id.not_in(select(User.id).where(*ACTIVE_DOCTOR))
    all_of_them = select(booked.c.id).where(gone).cte("departed")
    return func.array(select(all_of_them.c.id).scalar_subquery())


ORPHANED = (
    Appointment.status == literal_column("'scheduled'"),  # as BY_STATUS: any plan sees which
    Appointment.date > func.now(),
    Appointment.doctor_id == func.any(departed()),
)
STATUS = bindparam("status", type_=Appointment.status.type)
STATUSES = bindparam("statuses", type_=ARRAY(Text))
# What each filter demands of a row.
CONDITIONS: dict[str, Sequence[ColumnElement[bool]]] = {
    "spans": within_day(Appointment.date),
    "status": (Appointment.status == STATUS,),
    "statuses": (Appointment.status == func.any(cast(STATUSES, ARRAY(Appointment.status.type))),),
    "patient": (Appointment.patient_id == chart_now(bindparam("patient", type_=Uuid())),),
    "doctor": (Appointment.doctor_id == bindparam("doctor"),),
    "since": (Appointment.date >= bindparam("since"),),
    "until": (Appointment.date < bindparam("until"),),
    "overdue": (
        Appointment.status == literal_column("'scheduled'"),
        Appointment.date < bindparam("overdue"),
    ),
    "ids": (Appointment.id == func.any(bindparam("ids", type_=ARRAY(Uuid))),),
    "orphaned": ORPHANED,
    # By their ids, so that an index has all that a deep page skips.
    "not_orphaned": (Appointment.id.not_in(select(Appointment.id).where(*ORPHANED).correlate(None)),),
}
# Each part of the list that `statuses` may ask for; one index has each of them by date.
BY_STATUS = [
    (Appointment.status == literal_column(f"'{one}'"))
    & (literal_column(f"'{one}'", Text) == func.any(STATUSES))
    for one in AppointmentStatus
]
ORDERS = {"date": Appointment.date, "created_at": Appointment.created_at}
# As no index has it: PostgreSQL is to sort what matches, which is a small part of all. Where it expects
# more, it would read all that there is by `created_at`, until its page is full.
SORTED = {name: column + literal_column("interval '0'", Interval) for name, column in ORDERS.items()}
ORDERS_OF_FEW = ORDERS | {"created_at": SORTED["created_at"]}
COUNTED = {"status", "statuses"}
FEW = {"doctor", "patient", "spans", "ids", "orphaned", "overdue"}
TIMES = {"since", "until"}


def orders_of(role: Role, given: frozenset[str]) -> dict[str, AnyColumn]:
    if "orphaned" in given:
        return SORTED  # by `date` there would be all that is to come
    # Of a status there may be none at a time, such as what is completed and to come: PostgreSQL takes the two
    # for independent of each other.
    is_of_few = given >= TIMES or not (given.isdisjoint(TIMES) or given.isdisjoint(COUNTED))
    return ORDERS_OF_FEW if readable_by(role) or given & FEW or is_of_few else ORDERS


def counted(given: frozenset[str]) -> AnyColumn:
    """How many there are by the counters, which do not know of the few that are orphaned."""
    kinds = STATUSES if "statuses" in given else array([cast(STATUS, Text)]) if "status" in given else None
    known = number_of(Appointment, kinds)
    if "not_orphaned" not in given:
        return known
    where = [*ORPHANED, *(one for name in sorted(given & COUNTED) for one in CONDITIONS[name])]
    return known - select(func.count()).select_from(Appointment).where(*where).scalar_subquery()


@lru_cache
def listing(role: Role, given: frozenset[str], sort: AppointmentSort) -> PagedQuery[Listed, AppointmentRow]:
    """`given`: the keys of CONDITIONS that hold."""
    seen = readable_by(role)
    # Whose appointments they are, or which, has an index of its own; only where neither is said, the status.
    is_by_status = not seen and given - {"since", "until"} == {"statuses"} and "created_at" not in sort
    names = given - {"statuses"} if is_by_status else given
    where = [*seen, *(one for name in sorted(names) for one in CONDITIONS[name])]
    is_counted = not seen and given <= COUNTED | {"not_orphaned"}
    return PagedQuery(
        AppointmentRow,
        Listed,
        Appointment.id,
        COLUMNS,
        SOURCE,
        order_by(sort, Appointment.id, orders_of(role, given)),
        where,
        names=(Appointment.id, Appointment.patient_id),
        by_filter=bool(given),
        total=counted(given) if is_counted else None,
        marked=not where and not is_by_status and "created_at" not in sort,
        few=not given.isdisjoint({"spans", "ids"}),
        parts=BY_STATUS if is_by_status else (),
    )


async def page(
    source: Source,
    caller: Caller,
    page: int,
    limit: int,
    filters: Filters,
    sort: AppointmentSort = AppointmentSort.DATE,
) -> Found[AppointmentRow]:
    query = listing(caller.role, filters.given(), sort)
    return await query.find(source, page, limit, filters.parameters(caller.id))
