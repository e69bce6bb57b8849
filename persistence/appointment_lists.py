"""Lists of appointments, narrowed by any filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import ColumnElement, Text, bindparam, cast
from sqlalchemy.dialects.postgresql import array

from persistence.appointments import COLUMNS, SOURCE, AppointmentRow, readable_by
from persistence.models import Appointment, AppointmentStatus
from persistence.postgres.calendar import DayBounds, Span, bounds_of, within_day
from persistence.postgres.counters import number_of
from persistence.postgres.database import Source
from persistence.postgres.paging import Found, PagedQuery
from persistence.relations import Seen
from security.roles import Caller, Role


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is asked for of the appointments that the caller may see. None: whatever it is. `spans`: those of
    one day."""

    spans: Sequence[Span] | None = None
    status: AppointmentStatus | None = None

    def names(self) -> frozenset[str]:
        """Of the filters that are given: which CONDITIONS hold."""
        return frozenset(name for name in CONDITIONS if getattr(self, name) is not None)


class Listed(DayBounds, Seen):
    status: AppointmentStatus | None


# What each filter demands of a row.
CONDITIONS: dict[str, Sequence[ColumnElement[bool]]] = {
    "spans": within_day(Appointment.date),
    "status": (Appointment.status == bindparam("status", type_=Appointment.status.type),),
}
ORDER = (Appointment.date, Appointment.id)
STATUS = array([cast(bindparam("status", type_=Appointment.status.type), Text)])


@lru_cache
def listing(role: Role, given: frozenset[str]) -> PagedQuery[Listed, AppointmentRow]:
    """`given`: the names of the filters."""
    seen = readable_by(role)
    where = [*seen, *(one for name in sorted(given) for one in CONDITIONS[name])]
    is_counted = not seen and given <= {"status"}
    return PagedQuery(
        AppointmentRow,
        Listed,
        Appointment.id,
        COLUMNS,
        SOURCE,
        ORDER,
        where,
        names=(Appointment.id, Appointment.patient_id),
        by_filter=bool(given),
        total=number_of(Appointment, STATUS if given else None) if is_counted else None,
        marked=not where,
        few="spans" in given,
    )


async def page(
    source: Source, caller: Caller, page: int, limit: int, filters: Filters
) -> Found[AppointmentRow]:
    """Appointments by date, then id."""
    parameters = Listed(caller=caller.id, status=filters.status, **bounds_of(filters.spans or []))
    return await listing(caller.role, filters.names()).find(source, page, limit, parameters)
