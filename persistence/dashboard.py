"""The figures of each role's dashboard, as the contract's table defines them; one statement each."""

from datetime import date
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Interval, and_, exists, func, literal_column, not_, or_, select

from persistence.models import (
    AccountStatus,
    Appointment,
    AppointmentStatus,
    Base,
    MedicalRecord,
    Patient,
    User,
)
from persistence.postgres import counters
from persistence.postgres.calendar import (
    Calendar,
    ClockTable,
    DayBounds,
    bounds_of,
    day_of,
    table_of,
    within_day,
)
from persistence.postgres.database import Source
from persistence.postgres.declared import AnyColumn
from persistence.postgres.statements import NOTHING, Nothing, Query
from persistence.relations import CALLER, HAS_CHART, OWN_CHART, Seen, assigned_patients
from security.roles import Role


class AdminRow(NamedTuple):
    """`revenue`: of completed appointments."""

    total_patients: int
    total_doctors: int
    total_appointments: int
    revenue: int


class DoctorRow(NamedTuple):
    assigned_patients: int
    today_appointments: int
    pending_reports: int


class StaffRow(NamedTuple):
    """`pending_registrations`: patient accounts that no chart is linked to."""

    managed_patients: int
    scheduled_appointments: int
    pending_registrations: int


class PatientRow(NamedTuple):
    """`prescriptions`: records that prescribe something."""

    upcoming_appointments: int
    medical_records: int
    prescriptions: int


class OfDoctor(DayBounds, ClockTable, Seen):
    pass


def number_of(model: type[Base], *where: AnyColumn) -> AnyColumn:
    return select(func.count()).select_from(model).where(*where).scalar_subquery()


COMPLETED = Appointment.status == AppointmentStatus.COMPLETED
SCHEDULED = Appointment.status == AppointmentStatus.SCHEDULED
# Every other state of an account, each of which an index finds.
NO_ACTIVE_PATIENT = or_(
    *(User.role == role for role in Role if role is not Role.PATIENT),
    *(
        and_(User.role == Role.PATIENT, User.status == status)
        for status in AccountStatus
        if status is not AccountStatus.ACTIVE
    ),
)


THEIRS = Appointment.doctor_id == CALLER
# Written on or after the appointment's clinic day: what was noted before the visit does not report on it.
# No day on earth has lasted 50 hours; the bound is for the index.
REPORTED = exists().where(
    and_(
        MedicalRecord.doctor_id == CALLER,
        MedicalRecord.patient_id == Appointment.patient_id,
        MedicalRecord.date > Appointment.date - literal_column("interval '50 hours'", Interval),
        day_of(MedicalRecord.date) >= day_of(Appointment.date),
    )
)
ADMIN = Query(
    AdminRow,
    Nothing,
    select(
        counters.number_of(Patient).label("total_patients"),
        counters.number_of(User, "doctor active").label("total_doctors"),
        counters.number_of(Appointment).label("total_appointments"),
        counters.sum_of(Appointment, "completed").label("revenue"),
    ),
)
NOT_CANCELLED = Appointment.status != AppointmentStatus.CANCELLED
DOCTOR = Query(
    DoctorRow,
    OfDoctor,
    select(
        assigned_patients(CALLER).label("assigned_patients"),
        number_of(Appointment, THEIRS, *within_day(Appointment.date), NOT_CANCELLED).label(
            "today_appointments"
        ),
        number_of(Appointment, THEIRS, COMPLETED, not_(REPORTED)).label("pending_reports"),
    ),
)
# Nearly all charts that are linked are linked to the account of an active patient; the others are looked for.
UNLINKED = (
    counters.number_of(User, "patient active")
    - counters.number_of(Patient, "linked")
    + number_of(User, NO_ACTIVE_PATIENT, HAS_CHART)
)
STAFF = Query(
    StaffRow,
    Nothing,
    select(
        counters.number_of(Patient).label("managed_patients"),
        counters.number_of(Appointment, "scheduled").label("scheduled_appointments"),
        UNLINKED.label("pending_registrations"),
    ),
)
UPCOMING = (Appointment.patient_id == OWN_CHART, SCHEDULED, Appointment.date > func.now())
OWN_RECORD = MedicalRecord.patient_id == OWN_CHART
PATIENT = Query(
    PatientRow,
    Seen,
    select(
        number_of(Appointment, *UPCOMING).label("upcoming_appointments"),
        number_of(MedicalRecord, OWN_RECORD).label("medical_records"),
        number_of(MedicalRecord, OWN_RECORD, MedicalRecord.prescription != "").label("prescriptions"),
    ),
)


async def admin(source: Source) -> AdminRow:
    [row] = await source.rows(ADMIN, NOTHING)
    return row


async def doctor(source: Source, user_id: UUID, calendar: Calendar, today: date) -> DoctorRow:
    """`today` at the clinic, by its calendar."""
    days = bounds_of(calendar.spans(today))
    parameters = OfDoctor(caller=user_id, **days, **table_of(calendar))
    [row] = await source.rows(DOCTOR, parameters)
    return row


async def staff(source: Source) -> StaffRow:
    [row] = await source.rows(STAFF, NOTHING)
    return row


async def patient(source: Source, user_id: UUID) -> PatientRow:
    [row] = await source.rows(PATIENT, Seen(caller=user_id))
    return row
