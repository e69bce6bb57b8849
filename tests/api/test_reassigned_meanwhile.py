"""Whoever waits to change an appointment that is given to another doctor meanwhile."""

from concurrent.futures import ThreadPoolExecutor

from tests.support.appointments import book, change, read
from tests.support.factories import World
from tests.support.locks import transaction, until_they_wait
from tests.support.service import Backend
from tests.support.visits import act, past

LOCK = "SELECT pg_advisory_xact_lock(('x' || right(replace($1, '-', ''), 16))::bit(64)::bigint)"
GIVE = "UPDATE appointments SET doctor_id = $2::text::uuid WHERE id = $1::text::uuid"


def test_a_move_is_judged_by_the_doctor_whose_it_is_by_then(
    world: World, backend: Backend, doctors: list[str]
) -> None:
    some, slot = past(world), world.past_slot()
    assert book(world.staff, world.chart()["id"], doctors[1], slot).status_code == 201
    with ThreadPoolExecutor(3) as pool:
        with transaction(backend) as run:
            run(LOCK, some["patientId"])
            move = pool.submit(change, world.staff, some, date=slot)
            arrival = pool.submit(act, world.doctor, some, "arrived")
            reading = pool.submit(change, world.admin, some)  # which changes nothing
            until_they_wait(backend, move, arrival, reading)
            run(GIVE, some["id"], doctors[1])
        assert move.result().json() == {"detail": "date: the doctor has another appointment at that time"}
        assert arrival.result().status_code == 404  # it is not theirs any more
        shown = reading.result().json()
    assert shown == read(world, some)
    assert (shown["doctorId"], shown["doctorName"]) == (doctors[1], world.other_doctor.me()["name"])
