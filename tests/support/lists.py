"""Every list, as `Planner` reads it: who asks, and for what."""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from persistence import (
    absences,
    appointment_lists,
    audit,
    doctors,
    patients,
    record_versions,
    records,
    users,
)
from persistence.absences import AbsenceRow
from persistence.appointment_lists import Filters
from persistence.duplicates import candidates
from persistence.duplicates.sought import Sought
from persistence.models import AppointmentStatus
from persistence.postgres.calendar import calendar_of
from persistence.postgres.sorting import AppointmentSort, DoctorSort, PatientSort, RecordSort
from security.roles import Caller, Role
from tests.bench.clinic import NOW, uid
from tests.support.plans import Planner

Read = Callable[[Planner], Awaitable[Any]]
# What is read: by which indexes at least, and with how many pages of the server's at most.
Lists = dict[str, tuple[Read, set[str], int]]


def caller(role: Role, kind: str) -> Caller:
    name = UUID(uid(kind, 0))
    return Caller(id=name, email=f"{kind}0@example.com", role=role, session_id=name)


ADMIN, STAFF = caller(Role.ADMIN, "admin"), caller(Role.STAFF, "staff")
DOCTOR, PATIENT = caller(Role.DOCTOR, "doctor"), caller(Role.PATIENT, "puser")
CHART, RECORD = UUID(uid("patient", 0)), UUID(uid("rec", 0))
DAY = calendar_of(ZoneInfo("UTC")).spans(date(2024, 6, 3))
SCHEDULED, COMPLETED, CANCELLED = AppointmentStatus
OPEN = {SCHEDULED, CANCELLED}
MAY, JUNE = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
BEFORE_TOMORROW = NOW + timedelta(days=1)  # so that some are overdue
LATEST, NEWEST = AppointmentSort.DATE_DESCENDING, AppointmentSort.CREATED_DESCENDING
SOME_CHARTS, SOME_VISITS = (
    [UUID(uid(kind, 10 * number)) for number in range(100)] for kind in ("patient", "appt")
)


def charts(
    who: Caller, page: int = 1, *, limit: int = 10, sort: PatientSort = PatientSort.NAME, **filters: Any
) -> Read:
    return lambda source: patients.page(source, who, page, limit, patients.Filters(**filters), sort)


def duplicates(name: str, born: date | None = None, email: str = "", phone: str = "") -> Read:
    return lambda source: candidates.find(source, Sought(name, born, email, phone))


def visits(
    who: Caller, page: int = 1, *, sort: AppointmentSort = AppointmentSort.DATE, **filters: Any
) -> Read:
    return lambda source: appointment_lists.page(source, who, page, 10, Filters(**filters), sort)


def notes(
    who: Caller, page: int = 1, *, sort: RecordSort = RecordSort.DATE_DESCENDING, **filters: Any
) -> Read:
    return lambda source: records.page(source, who, page, 10, records.Filters(**filters), sort)


def colleagues(sort: DoctorSort = DoctorSort.NAME, **filters: Any) -> Read:
    return lambda source: doctors.page(source, 1, 10, doctors.Filters(**filters), sort)


def texts_of(who: Caller) -> Read:
    return lambda source: record_versions.page(source, who, 1, 10, RECORD)


def in_absence(doctor: UUID | None) -> Read:
    """Of a day."""
    day = AbsenceRow(RECORD, doctor, NOW, NOW + timedelta(days=1), None)
    return lambda source: absences.bookings(source, day, 100)


def away(who: Caller, **filters: Any) -> Read:
    asked = {"doctor": None, "since": None, "until": None, **filters}
    return lambda source: absences.page(source, who, 1, 10, **asked)


def accounts(who: Caller, page: int = 1, **filters: Any) -> Read:
    asked = {"role": None, "status": None, "linked": None, "search": "", **filters}
    return lambda source: users.page(source, who, page, 10, **asked)


def trail(page: int = 1, **filters: Any) -> Read:
    asked = {"user_id": None, "patient_id": None, "action": None, "since": None, "until": None, **filters}
    return lambda source: audit.page(source, page, 10, **asked)
