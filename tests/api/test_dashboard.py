"""The dashboard (requirement, section 7), figure by figure as the contract's table defines them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World, registration
from tests.support.service import Backend, Service

KEYS = {
    Role.ADMIN: ["totalPatients", "totalDoctors", "totalAppointments", "revenue"],
    Role.DOCTOR: ["assignedPatients", "todayAppointments", "pendingReports"],
    Role.STAFF: ["managedPatients", "scheduledAppointments", "pendingRegistrations"],
    Role.PATIENT: ["upcomingAppointments", "medicalRecords", "prescriptions"],
}
# A time zone where it is about noon now, so that no midnight is near while a test runs.
NOON = ZoneInfo(f"Etc/GMT{datetime.now(UTC).hour - 12:+d}")


def stats(browser: Browser) -> dict[str, int]:
    answer = browser.get("/api/dashboard/stats")
    assert answer.status_code == 200
    return dict(answer.json())


Moved = Callable[..., None]


@pytest.fixture
def moved() -> Callable[[Browser], Moved]:
    """Watches a dashboard: each call says which figures have moved since the last, and that no other has."""

    def watch(browser: Browser) -> Moved:
        before = stats(browser)

        def check(**by: int) -> None:
            nonlocal before
            after = stats(browser)
            assert {name: after[name] - before[name] for name in after} == {**dict.fromkeys(after, 0), **by}
            before = after

        return check

    return watch


@pytest.fixture(scope="module")
def at_noon(backend: Backend, service: Service) -> Iterator[Service]:
    """The same clinic, in a time zone where it is about noon."""
    with Service(backend, backend.settings(clinic_timezone=NOON.key)) as running:
        yield running


def at(day: int, clock: str) -> str:
    """The instant of `clock` in the time zone NOON, `day` days from today there."""
    today = datetime.now(NOON).date() + timedelta(days=day)
    local = datetime.combine(today, time.fromisoformat(clock), NOON)
    return local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def end(world: World, appointment: dict[str, Any], status: str, clinic: Service | None = None) -> None:
    """End the appointment: through `clinic`, where its day is the clinic's day, if it is given."""
    staff = clinic.browser(world.staff.cookies) if clinic else world.staff
    answer = staff.patch(f"/api/appointments/{appointment['id']}", {"status": status})
    assert answer.status_code == 200


# Shapes


@pytest.mark.parametrize("role", Role)
def test_every_role_gets_its_own_dashboard_figures(world: World, role: Role) -> None:
    """Section 7: these keys, in this order, and integers all of them."""
    figures = stats(world.people[role])
    assert list(figures) == KEYS[role]
    assert all(type(figure) is int for figure in figures.values())


def test_anonymous_callers_cannot_read_the_dashboard(anonymous: Browser) -> None:
    assert anonymous.get("/api/dashboard/stats").status_code == 401


def test_the_dashboard_of_a_patient_without_a_chart_is_all_zero(world: World) -> None:
    world.record(world.appointment()["patientId"], prescription="Somebody's")
    assert stats(world.other_patient) == {"upcomingAppointments": 0, "medicalRecords": 0, "prescriptions": 0}


# Administrators


def test_total_patients_counts_charts_and_not_accounts(
    world: World, moved: Callable[[Browser], Moved]
) -> None:
    """An account alone is no chart, and linking makes none."""
    check = moved(world.admin)
    some = world.chart()
    check(totalPatients=1)
    link = f"/api/patients/{some['id']}/account"
    world.link(some["id"], world.other_patient)
    check()
    assert world.staff.delete(link).status_code == 200
    assert world.staff.patch(f"/api/patients/{some['id']}", {"name": "Other"}).status_code == 200
    check()


def test_total_doctors_counts_active_doctors(
    world: World, anonymous: Browser, moved: Callable[[Browser], Moved]
) -> None:
    check = moved(world.admin)
    new = anonymous.post("/api/auth/register", registration(Role.DOCTOR)).json()
    check()  # pending
    for changed, by in [
        ({"status": "active"}, 1),
        ({"status": "disabled"}, -1),
        ({"status": "active"}, 1),
        ({"role": "staff"}, -1),
    ]:
        assert world.admin.patch(f"/api/users/{new['id']}", changed).status_code == 200
        check(totalDoctors=by)
    assert stats(world.admin)["totalDoctors"] == world.staff.get("/api/doctors").json()["total"]


def test_total_appointments_counts_every_status(world: World, moved: Callable[[Browser], Moved]) -> None:
    some = world.chart()["id"]
    check = moved(world.admin)
    made = [world.appointment(patientId=some, date=world.past_slot()) for _ in range(3)]
    check(totalAppointments=3)
    end(world, made[0], "cancelled")
    check()
    end(world, made[1], "completed")
    check(revenue=150)
    assert stats(world.admin)["totalAppointments"] == world.admin.get("/api/appointments").json()["total"]


@pytest.mark.slow
def test_revenue_sums_the_fees_of_completed_appointments_as_booked(
    world: World, backend: Backend, moved: Callable[[Browser], Moved]
) -> None:
    """The sum of the fees of completed appointments; a booking keeps the CONSULTATION_FEE of its day."""
    some = world.chart()["id"]
    old = [world.appointment(patientId=some, date=world.past_slot()) for _ in range(3)]
    with Service(backend, backend.settings(consultation_fee=200)) as dearer:
        staff, admin = (dearer.browser(who.cookies) for who in (world.staff, world.admin))
        body = {"patientId": some, "doctorId": world.doctor.me()["id"], "reason": "Dearer"}
        new = [staff.post("/api/appointments", {**body, "date": world.past_slot()}).json() for _ in range(2)]
        there, check = moved(admin), moved(world.admin)
        end(world, old[0], "completed")
        there(revenue=150)  # not 200, though that is the fee there
        end(world, new[0], "completed")
        there(revenue=200)
        end(world, new[1], "cancelled")
        end(world, old[1], "cancelled")
        there()
        check(revenue=350)
        notes = {"notes": "Paid"}
        assert world.staff.patch(f"/api/appointments/{old[0]['id']}", notes).status_code == 200
        check()
    with Service(backend, backend.settings(consultation_fee=0)) as free:
        staff = free.browser(world.staff.cookies)
        gratis = staff.post("/api/appointments", {**body, "date": world.past_slot()}).json()
        check(totalAppointments=1)
        end(world, gratis, "completed")
        check()


def test_revenue_beyond_32_bits_is_exact(world: World, backend: Backend) -> None:
    """An integer beyond 32 bits, exact."""
    made = [world.appointment(date=world.past_slot()) for _ in range(3)]
    before = stats(world.admin)["revenue"]
    for appointment in made:
        backend.sql("UPDATE appointments SET fee = 2147483647 WHERE id = $1", appointment["id"])
        end(world, appointment, "completed")
    assert stats(world.admin)["revenue"] == before + 3 * 2147483647
    backend.sql("UPDATE appointments SET fee = 150 WHERE fee > 200")


# Doctors


def test_assigned_patients_equals_the_figure_in_the_doctors_resource(
    world: World, moved: Callable[[Browser], Moved]
) -> None:
    """Distinct patients with a not-cancelled appointment or a record with the doctor."""
    check, other = moved(world.doctor), moved(world.other_doctor)
    some = world.appointment()
    world.appointment(patientId=some["patientId"])
    check(assignedPatients=1)
    world.record(some["patientId"])
    check()
    world.record(world.chart()["id"])
    check(assignedPatients=1)
    end(world, world.appointment(), "cancelled")
    check()
    other()
    id = world.doctor.me()["id"]
    listed = world.staff.get(f"/api/doctors/{id}").json()["assignedPatients"]
    assert listed == stats(world.doctor)["assignedPatients"]


def test_today_appointments_counts_the_doctors_clinic_day(
    world: World,
    at_noon: Service,
    doctors_of: Callable[[Service], list[Browser]],
    moved: Callable[..., Moved],
) -> None:
    """The doctor's, on today's clinic day from its first instant to the next day's, not cancelled."""
    doctor, other = doctors_of(at_noon)
    check, others = moved(doctor), moved(other)
    some = world.chart()["id"]
    for day, clock in [(0, "00:00"), (0, "08:00"), (0, "23:30")]:
        today = world.appointment(patientId=some, date=at(day, clock))
        check(todayAppointments=1, assignedPatients=int(clock == "00:00"))
    for day, clock in [(-1, "23:30"), (1, "00:00"), (-1, "08:00"), (1, "08:00")]:
        world.appointment(patientId=some, date=at(day, clock))
        check()
    end(world, today, "completed", at_noon)
    check(todayAppointments=0, pendingReports=1)
    cancelled = world.appointment(patientId=some, date=at(0, "15:00"))
    check(todayAppointments=1)
    end(world, cancelled, "cancelled")
    check(todayAppointments=-1)
    others()
    world.appointment(patientId=some, date=at(0, "15:00"), doctorId=other.me()["id"])
    check()
    others(todayAppointments=1, assignedPatients=1)


def test_pending_reports_counts_completed_appointments_without_a_record(
    world: World,
    backend: Backend,
    at_noon: Service,
    doctors_of: Callable[[Service], list[Browser]],
    moved: Callable[..., Moved],
) -> None:
    """Completed appointments of the doctor without their record for that patient on or after their day."""
    doctor, other = doctors_of(at_noon)
    first, second, third = (world.chart()["id"] for _ in range(3))
    check = moved(doctor)

    visits = [
        world.appointment(patientId=patient, date=at(day, clock))
        for patient, day, clock in [(first, -3, "10:00"), (first, 0, "06:00"), (second, 1, "10:00")]
    ]
    check(assignedPatients=2, todayAppointments=1)  # scheduled appointments need no report
    for visit in visits[:2]:
        end(world, visit, "completed", at_noon)
    # As an earlier release could, which did not check whether the day had come.
    backend.sql("UPDATE appointments SET status = 'completed' WHERE id = $1", visits[2]["id"])
    check(pendingReports=3)

    world.record(third)  # another patient
    check(assignedPatients=1)
    body = {"patientId": first, "diagnosis": "Well", "prescription": "", "notes": ""}
    assert other.post("/api/records", body).status_code == 201  # another doctor
    check()
    world.record(second)  # today, and the visit is tomorrow: what was noted before does not report on it
    check()
    world.record(first)  # now reports on today's visit of this morning and on that of three days ago
    check(pendingReports=-2)

    later = world.appointment(patientId=first, date=at(0, "23:00"))
    check(todayAppointments=1)
    end(world, later, "completed", at_noon)
    check()  # the same clinic day, though the record was written before it began
    end(world, world.appointment(patientId=first, date=at(-2, "10:00")), "cancelled")
    check()


@pytest.mark.slow
def test_a_record_counts_as_report_from_the_first_instant_of_the_clinic_day(
    world: World,
    backend: Backend,
    at_noon: Service,
    doctors_of: Callable[[Service], list[Browser]],
    moved: Callable[..., Moved],
) -> None:
    """To the instant, and by the clinic's calendar: here a day of New York, when the clocks change."""
    some = world.chart()["id"]
    visit = world.appointment(patientId=some, date="2021-11-07T23:00:00Z")
    end(world, visit, "completed")
    record = world.record(some)

    def written(instant: str) -> None:
        date = datetime.fromisoformat(instant)
        backend.sql("UPDATE medical_records SET date = $2 WHERE id = $1", record["id"], date)

    with Service(backend, backend.settings(clinic_timezone="America/New_York")) as new_york:
        doctor, _ = doctors_of(new_york)
        written("2021-11-08T00:00:00Z")
        check, in_utc = moved(doctor), moved(world.doctor)
        for instant, there, here in [
            ("2021-11-07T04:00:00Z", 0, 0),  # midnight in New York, EDT
            ("2021-11-07T03:59:59Z", 1, 0),  # the day before there, the same day in UTC
            ("2021-11-07T00:00:00Z", 0, 0),
            ("2021-11-06T23:59:59Z", 0, 1),
            ("2021-11-08T04:30:00Z", -1, -1),  # half past eleven in the evening there
            ("2022-01-01T00:00:00Z", 0, 0),
        ]:
            written(instant)
            check(pendingReports=there)
            in_utc(pendingReports=here)


@pytest.fixture
def doctors_of(world: World) -> Callable[[Service], list[Browser]]:
    """The two doctors, at another instance."""
    return lambda service: [service.browser(who.cookies) for who in (world.doctor, world.other_doctor)]


# Staff


def test_the_staff_dashboard_counts_all_charts_and_scheduled_appointments(
    world: World, moved: Callable[[Browser], Moved]
) -> None:
    """All charts; all appointments in status scheduled, past ones included, whoever booked them."""
    check = moved(world.staff)
    some = world.chart()
    check(managedPatients=1)
    made = [world.appointment(patientId=some["id"]) for _ in range(2)]
    made.append(world.appointment(patientId=some["id"], date="2001-01-01T00:00:00Z"))
    made.append(world.appointment(patientId=some["id"], doctorId=world.other_doctor.me()["id"]))
    check(scheduledAppointments=4)
    end(world, made[2], "completed")
    check(scheduledAppointments=-1)
    end(world, made[0], "cancelled")
    check(scheduledAppointments=-1)
    counted = world.staff.get("/api/appointments?status=scheduled").json()["total"]
    assert stats(world.staff)["scheduledAppointments"] == counted


@pytest.mark.slow
def test_pending_registrations_counts_active_patient_accounts_without_a_chart(
    world: World, backend: Backend, anonymous: Browser, moved: Callable[[Browser], Moved]
) -> None:
    """Active patient accounts that no chart is linked to yet."""
    some = world.chart()
    check = moved(world.staff)
    new = anonymous.post("/api/auth/register", registration()).json()
    check(pendingRegistrations=1)
    link, account = f"/api/patients/{some['id']}/account", f"/api/users/{new['id']}"
    assert world.staff.put(link, {"userId": new["id"]}).status_code == 200
    check(pendingRegistrations=-1)
    assert world.staff.delete(link).status_code == 200
    check(pendingRegistrations=1)
    for changed, by in [
        ({"status": "disabled"}, -1),
        ({"status": "active"}, 1),
        ({"role": "doctor"}, -1),
        ({"role": "patient"}, 1),
    ]:
        assert world.admin.patch(account, changed).status_code == 200
        check(pendingRegistrations=by)
    anonymous.post("/api/auth/register", registration(Role.STAFF))
    check()  # a pending account is not counted
    with Service(backend, backend.settings(auto_approve_roles=())) as strict:
        strict.browser().post("/api/auth/register", registration())
    check()  # and a pending patient account is not active


# Patients


def test_upcoming_appointments_counts_the_patients_own_future_ones(
    world: World, own_chart_for_a_test: dict[str, Any], moved: Callable[[Browser], Moved]
) -> None:
    """Own, scheduled, not yet begun."""
    check = moved(world.patient)
    soon = datetime.now(UTC) + timedelta(minutes=5)
    made = [
        world.appointment(patientId=own_chart_for_a_test["id"], date=date)
        for date in (soon.isoformat(), world.slot(), world.slot())
    ]
    check(upcomingAppointments=3)
    world.appointment(
        patientId=own_chart_for_a_test["id"], date=(soon - timedelta(minutes=40)).isoformat()
    )  # over
    world.appointment(
        patientId=own_chart_for_a_test["id"],
        date="2001-01-01T00:00:00Z",
        doctorId=world.other_doctor.me()["id"],
    )
    world.appointment()  # somebody else's
    check()
    for appointment in made[1:]:
        end(world, appointment, "cancelled")
        check(upcomingAppointments=-1)
    early = world.staff.patch(
        f"/api/appointments/{made[0]['id']}", {"date": (soon - timedelta(minutes=6)).isoformat()}
    )
    assert early.status_code == 200
    check(upcomingAppointments=-1)  # has begun a minute ago, and is not over


def test_the_patient_dashboard_counts_own_records_and_prescriptions(
    world: World, own_chart_for_a_test: dict[str, Any], moved: Callable[[Browser], Moved]
) -> None:
    """Own records, and those with a non-empty prescription."""
    check, other = moved(world.patient), moved(world.other_patient)
    world.record(own_chart_for_a_test["id"], prescription="Rest")
    check(medicalRecords=1, prescriptions=1)
    world.record(own_chart_for_a_test["id"], prescription="")
    check(medicalRecords=1)
    world.record(world.chart()["id"], prescription="Rest")
    check()
    other()


def test_an_unlinked_patient_loses_the_dashboard_figures(
    world: World, own_chart_for_a_test: dict[str, Any]
) -> None:
    world.appointment(patientId=own_chart_for_a_test["id"])
    world.record(own_chart_for_a_test["id"], prescription="Rest")
    assert stats(world.patient) == {"upcomingAppointments": 1, "medicalRecords": 1, "prescriptions": 1}
    link = f"/api/patients/{own_chart_for_a_test['id']}/account"
    assert world.staff.delete(link).status_code == 200
    assert set(stats(world.patient).values()) == {0}
