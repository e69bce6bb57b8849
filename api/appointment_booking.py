"""How a visit is booked or moved: by what this process knows of hours, and again where that was not so."""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from api.clinic import Clinic
from api.http.auditing import record_write
from api.http.errors import BadRequest, NotFound
from api.http.fields import MAX_INT32
from api.http.requests import StrictRequest
from api.schedule.fitting import Fit, fit
from api.schedule.judging import Permit, Wish, limit_of, permits_of, refusal_of
from api.schedule.known import KnownHours, OwnHours
from api.schedule.naming import EARLY, name_free_time
from persistence import availability, booking
from persistence.appointments import AppointmentChanges
from persistence.availability import Availability, People, keys_of
from persistence.booking import Booking, LockedAppointment
from persistence.history import Difference, keep_appointment_changes
from persistence.models import AppointmentStatus
from persistence.postgres.database import Source, Transaction

FREE = Availability(0, None, False, False, False, 0)


class Assumption(NamedTuple):
    """What a visit is booked by, as long as it is so. `by`: the caller's name, None where it is not known."""

    own: OwnHours
    available: Availability = FREE
    by: str | None = None


@dataclass
class Booker:
    """Books one visit."""

    request: StrictRequest
    transaction: Transaction
    clinic: Clinic
    wish: Wish
    doctor: UUID
    id: UUID
    reason: str
    notes: str | None

    async def book(self, chart_id: UUID) -> Booking:
        """The visit, or a patient who is not seen. Raises 400 or 404 where something else speaks against it.

        What was assumed may not be so: then nothing is booked, and the answer says how things are. With the
        second statement they stay so, because its locks are held already."""
        people = People(doctor=self.doctor, patient=chart_id)
        known = self.request.service(KnownHours)
        assumed, has_locked = Assumption(known.of(self.doctor)), False
        while True:
            visit = fit(assumed.own.hours, self.wish.begins, self.clinic)
            booked = await self.send(people, visit, assumed)
            if booked.row or not booked.standing.sees_patient:
                return booked
            self.transaction.reopen()
            await self.require_allowed(booked, visit, assumed.own)
            own = known.after(self.doctor, assumed.own, booked.available)
            assumed = Assumption(own, booked.available, booked.by)
            if not has_locked:
                self.transaction.commits_late = True
                await self.transaction.lock(*keys_of(**people))
                has_locked = True

    async def send(self, people: People, visit: Fit, assumed: Assumption) -> Booking:
        """Book it if it may be as things are assumed, and they are so; and learn how they are."""
        available, limits = assumed.available, self.clinic.limits
        permits = [*permits_of(self.wish, visit, available)]
        is_allowed = refusal_of(self.wish, visit, available) is None
        self.note(people["patient"], permits, assumed.by)
        return await booking.book(
            self.transaction,
            self.request.user,
            people,
            is_named=self.wish.permits,
            id=self.id,
            date=visit.begins,
            ends_at=visit.ends,
            reason=self.reason,
            notes=self.notes,
            fee=self.clinic.fee,
            overbooked=available.doctor_is_taken,
            absent=available.is_absent,
            version=assumed.own.version,
            books=is_allowed and (not permits or assumed.by is not None),
            lead=limits.lead,
            counts=limits.max_open is not None,
            max_open=limits.max_open or MAX_INT32,
        )

    def note(self, chart_id: UUID, permits: list[Permit], by: str | None) -> None:
        """What is in the trail and in the history once it is booked."""
        record_write(self.transaction, self.request, patient_id=chart_id, target_id=self.id)
        note_permits(self.transaction, self.request, permits, by, chart_id, self.id)

    async def require_allowed(self, booked: Booking, visit: Fit, own: OwnHours) -> None:
        """Raise 400 or 404 where the visit may not be booked, as far as that can be said: `visit` was made of
        hours that may be others by now."""
        standing, available = booked.standing, booked.available
        limit = limit_of(self.wish, standing.now, self.clinic, available.open_visits)
        await require_unlimited(self.transaction, limit, self.wish, self.doctor, self.clinic)
        if not standing.doctor_is_active:
            raise NotFound("Doctor not found", field="doctorId")
        if available.version == own.version:
            asked = self.wish, visit, available
            await require_free(self.transaction, *asked, self.doctor, self.clinic)


@dataclass
class Mover:
    """Moves one visit that is locked."""

    request: StrictRequest
    transaction: Transaction
    clinic: Clinic
    wish: Wish
    locked: LockedAppointment

    async def place(self, changed: AppointmentChanges) -> tuple[AppointmentChanges, list[Permit]]:
        """The change with the new time, and what it takes to permit it; 400 where the visit may not be then.
        It is as long as the hours say, or, where there are no hours at all, as long as before."""
        appointment, known = self.locked.appointment, self.request.service(KnownHours)
        limit = limit_of(self.wish, self.locked.standing.now, self.clinic)
        visit_with = appointment.doctor_id, self.clinic, appointment.id
        await require_unlimited(self.transaction, limit, self.wish, *visit_with)
        length = self.locked.ends_at - appointment.date
        if changed.get("status") is AppointmentStatus.CANCELLED:  # nobody is seen then
            return self.times(changed, Fit(self.wish.begins, self.wish.begins + length, None)), []
        own = known.of(appointment.doctor_id)
        while True:
            visit = fit(own.hours, self.wish.begins, self.clinic, length)
            available = await self.look(visit, own)
            if available.version == own.version:
                break
            own = known.after(appointment.doctor_id, own, available)
        if "status" in changed:  # only scheduled ones take anybody's time
            available = available._replace(doctor_is_taken=False, patient_is_taken=False)
        asked = self.wish, visit, available
        await require_free(self.transaction, *asked, *visit_with)
        return self.times(changed, visit, available), [*permits_of(*asked)]

    async def look(self, visit: Fit, own: OwnHours) -> Availability:
        appointment = self.locked.appointment
        return await availability.look(
            self.transaction,
            doctor=appointment.doctor_id,
            patient=appointment.patient_id,
            date=visit.begins,
            ends_at=visit.ends,
            itself=appointment.id,
            version=own.version,
            counts=False,
        )

    def times(
        self, changed: AppointmentChanges, visit: Fit, available: Availability = FREE
    ) -> AppointmentChanges:
        """Whoever permitted the time before did not permit this one."""
        overbooked = available.doctor_is_taken
        return {**changed, "date": visit.begins, "ends_at": visit.ends, "overbooked": overbooked}


async def require_unlimited(
    source: Source,
    limit: BadRequest | None,
    wish: Wish,
    doctor: UUID,
    clinic: Clinic,
    itself: UUID | None = None,
) -> None:
    """Raise 400 where a limit for patients is passed, with the first free time where one is too early."""
    if limit and limit.code in EARLY:
        limit = await name_free_time(source, limit, wish, doctor, clinic, itself)
    if limit:
        raise limit


async def require_free(
    source: Source,
    wish: Wish,
    visit: Fit,
    available: Availability,
    doctor: UUID,
    clinic: Clinic,
    itself: UUID | None = None,
) -> None:
    """Raise 400 where the visit may not be then. A patient who asks for another time than those that they are
    offered is told the first one. `itself`: of an appointment that is moved."""
    refusal = refusal_of(wish, visit, available)
    if refusal and wish.is_patients and (visit.intervals is not None or available.is_absent):
        refusal = await name_free_time(source, refusal, wish, doctor, clinic, itself)
    if refusal:
        raise refusal


def note_permits(
    transaction: Transaction,
    request: StrictRequest,
    permits: list[Permit],
    by: str | None,
    chart_id: UUID,
    appointment_id: UUID,
) -> None:
    """Each permission that did something is an event of its own, with its reason in the history."""
    for permit in permits:
        record_write(
            transaction, request, action=permit.action, patient_id=chart_id, target_id=appointment_id
        )
    changes = [Difference(permit.field, None, permit.reason) for permit in permits]
    if changes:
        keep_appointment_changes(transaction, appointment_id, by, changes)
