"""Appointments of past days that nobody has completed, cancelled or marked: `?overdue=true`."""

from datetime import datetime
from zoneinfo import ZoneInfo

from tests.support.appointments import change, later, listed
from tests.support.factories import World
from tests.support.service import Backend, Service
from tests.support.visits import act, past


def test_only_scheduled_appointments_of_past_days_are_overdue(world: World) -> None:
    """contract: "only those of past days, in the time zone of the clinic, that are still `scheduled`"."""
    some = {name: past(world) for name in ("left", "arrived", "completed", "cancelled", "noShow")}
    world.appointment()  # to come
    for name in ("completed", "cancelled"):
        assert change(world.staff, some[name], status=name).status_code == 200
    for name in ("arrived", "noShow"):
        assert act(world.staff, some[name], name).status_code == 200
    overdue = [some["left"], some["arrived"]]
    assert listed(world.staff, overdue="true") == listed(world.doctor, overdue="true") == overdue
    assert listed(world.other_doctor, overdue="true") == []
    assert listed(world.staff, overdue="true", status="completed") == []
    assert listed(world.staff, overdue="true", doctorId=world.other_doctor.me()["id"]) == []
    assert listed(world.staff, overdue="true", sort="-date") == overdue[::-1]
    assert listed(world.staff, overdue="false") == listed(world.staff, overdue="") == listed(world.staff)
    assert world.staff.get("/api/appointments?overdue=yes").status_code == 400


def test_patients_see_their_own_overdue_appointments(world: World) -> None:
    patient, chart = world.linked_patient()
    some = past(world, patientId=chart["id"])
    assert listed(patient, overdue="true") == [some]
    assert act(world.doctor, some, "noShow").status_code == 200
    assert listed(patient, overdue="true") == []


def test_past_days_are_those_of_the_clinic(world: World, backend: Backend, doctors: list[str]) -> None:
    """Wherever it is late enough for one zone, and not for the other."""
    for doctor, zone in zip(doctors, ("Pacific/Kiritimati", "Pacific/Pago_Pago"), strict=False):
        midnight = datetime.now(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
        with Service(backend, backend.settings(clinic_timezone=zone)) as there:
            staff = there.browser(world.staff.cookies)
            before = world.appointment(doctorId=doctor, date=later(midnight, hours=-1))
            today = world.appointment(doctorId=doctor, date=later(midnight, hours=0))
            found = listed(staff, overdue="true")
            assert before in found
            assert today not in found
