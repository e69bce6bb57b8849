"""Requests that waited for a lock, a turn, a password hash or a connection: the caller is checked again
before a write is stored and before an answer leaves (ASVS 5.0, 7.4.1 and 8.3.2)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from security.roles import Role
from tests.support import locks
from tests.support.factories import PASSWORD, World, email, registration
from tests.support.service import Backend
from tests.support.sessions import disable, sign_out

pytestmark = pytest.mark.slow


def test_a_write_is_not_stored_if_the_caller_signed_out_while_it_waited_for_a_lock(
    world: World, backend: Backend
) -> None:
    browser, me = world.account(Role.STAFF)
    patient = world.chart()["id"]
    with ThreadPoolExecutor(1) as pool:
        with locks.transaction(backend) as run:
            run("SELECT 1 FROM patients WHERE id = $1 FOR UPDATE", patient)
            late = pool.submit(browser.patch, f"/api/patients/{patient}", {"address": "Evil"})
            locks.until_they_wait(backend, late)
            sign_out(world, browser)
        assert late.result().status_code == 401
    assert backend.sql("SELECT address FROM patients WHERE id = $1::uuid", patient)[0][0] != "Evil"
    [row] = backend.sql(
        "SELECT count(*) FROM audit_events WHERE user_id = $1::uuid AND action = 'patient.update'", me["id"]
    )
    assert row[0] == 0


def test_a_booking_is_not_stored_if_the_patient_signed_out_while_it_waited(
    world: World, backend: Backend
) -> None:
    browser, linked = world.linked_patient()
    doctor, date = world.doctor.me()["id"], world.slot()
    body = {"patientId": linked["id"], "doctorId": doctor, "date": date, "reason": "Check-up"}
    with ThreadPoolExecutor(1) as pool:
        with locks.transaction(backend) as run:
            run(
                "SELECT pg_advisory_xact_lock($1)",
                int.from_bytes(bytes.fromhex(doctor.replace("-", ""))[8:], signed=True),
            )
            late = pool.submit(browser.post, "/api/appointments", body)
            locks.until_they_wait(backend, late)
            sign_out(world, browser)
        assert late.result().status_code == 401
    booked = "SELECT count(*) FROM appointments WHERE patient_id = $1::uuid"
    assert backend.sql(booked, linked["id"])[0][0] == 0


def test_a_password_is_not_set_if_the_administrator_was_disabled_during_the_hash(
    world: World, backend: Backend
) -> None:
    browser, _ = world.account(Role.ADMIN)
    _, victim = world.account()
    hashed = backend.sql("SELECT password_hash FROM users WHERE id = $1::uuid", victim["id"])
    with ThreadPoolExecutor(5) as pool:
        queue = [
            pool.submit(world.service.browser().post, "/api/auth/register", registration()) for _ in range(4)
        ]
        late = pool.submit(
            browser.post, f"/api/users/{victim['id']}/password", {"newPassword": "stolen horse"}
        )
        disable(world, browser)
        assert late.result().status_code == 401
        assert {request.result().status_code for request in queue} == {201}
    assert backend.sql("SELECT password_hash FROM users WHERE id = $1::uuid", victim["id"]) == hashed


def test_two_administrators_who_set_each_others_password_do_not_block_each_other(world: World) -> None:
    (one, me), (other, them) = world.account(Role.ADMIN), world.account(Role.ADMIN)
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(one.post, f"/api/users/{them['id']}/password", {"newPassword": "first horse"}),
            pool.submit(other.post, f"/api/users/{me['id']}/password", {"newPassword": "second horse"}),
        ]
    assert sorted(call.result().status_code for call in calls) == [200, 401]


def test_two_sessions_that_end_each_other_do_not_block_each_other(world: World) -> None:
    browser, me = world.account()
    other = world.service.browser()
    assert other.login(me["email"], PASSWORD).status_code == 200
    sessions = {s["current"]: s["id"] for s in browser.get("/api/users/me/sessions").json()["sessions"]}
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(browser.delete, f"/api/users/me/sessions/{sessions[False]}"),
            pool.submit(other.delete, f"/api/users/me/sessions/{sessions[True]}"),
        ]
    assert sorted(call.result().status_code for call in calls) == [200, 401]


def test_a_slow_read_is_401_if_the_caller_signed_out_meanwhile(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.reauthorization.ALIVE_CACHE_SECONDS", 0.0)
    browser, _ = world.account(Role.STAFF)
    still = world.account(Role.STAFF)[0]
    with ThreadPoolExecutor(3) as pool:
        with locks.transaction(backend) as run:
            run("LOCK TABLE patients IN ACCESS EXCLUSIVE MODE")
            answers = [
                pool.submit(browser.get, "/api/patients"),
                pool.submit(browser.get, f"/api/patients/{email()}"),
                pool.submit(still.get, "/api/patients"),
            ]
            locks.until_they_wait(backend, answers[0], answers[2])
            sign_out(world, browser)
        assert answers[0].result().status_code == 401
        assert answers[1].result().status_code in {401, 404}
        assert answers[2].result().status_code == 200


def test_a_change_of_the_own_account_is_judged_by_the_role_after_the_wait(
    world: World, backend: Backend
) -> None:
    """Only doctors have a specialization."""
    browser, me = world.account(Role.DOCTOR)
    with ThreadPoolExecutor(1) as pool:
        with locks.transaction(backend) as run:
            run("SELECT 1 FROM users WHERE id = $1::uuid FOR UPDATE", me["id"])
            late = pool.submit(browser.patch, "/api/users/me", {"specialization": "Surgery"})
            locks.until_they_wait(backend, late)
            run("UPDATE users SET role = 'staff', specialization = NULL WHERE id = $1::uuid", me["id"])
        assert late.result().status_code == 400
    assert backend.sql("SELECT specialization FROM users WHERE id = $1::uuid", me["id"]) == [(None,)]


def test_a_password_change_is_400_if_the_password_changed_while_it_waited(
    world: World, backend: Backend
) -> None:
    """Beside the service: what changes it otherwise ends the session as well."""
    browser, me = world.account()
    body = {"currentPassword": PASSWORD, "newPassword": "another horse"}
    with ThreadPoolExecutor(1) as pool:
        with locks.transaction(backend) as run:
            run("SELECT 1 FROM users WHERE id = $1::uuid FOR UPDATE", me["id"])
            late = pool.submit(browser.post, "/api/users/me/password", body)
            locks.until_they_wait(backend, late)
            run("UPDATE users SET password_hash = 'restored' WHERE id = $1::uuid", me["id"])
        assert late.result().status_code == 400
        assert late.result().json() == {"detail": "currentPassword: is not the current password"}
    assert backend.sql("SELECT password_hash FROM users WHERE id = $1::uuid", me["id"]) == [("restored",)]


def test_a_refresh_is_401_if_its_session_ended_while_it_waited(world: World, backend: Backend) -> None:
    browser, me = world.account()
    with ThreadPoolExecutor(1) as pool:
        with locks.transaction(backend) as run:
            run("UPDATE sessions SET ended_at = now() WHERE user_id = $1::uuid", me["id"])
            late = pool.submit(browser.post, "/api/auth/refresh")
            locks.until_they_wait(backend, late)
        assert late.result().status_code == 401


def test_a_slow_read_is_401_if_the_callers_role_changed_meanwhile(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer shows what the old role may see."""
    monkeypatch.setattr("api.http.reauthorization.ALIVE_CACHE_SECONDS", 0.0)
    browser, me = world.account(Role.DOCTOR)
    with ThreadPoolExecutor(1) as pool:
        with locks.transaction(backend) as run:
            run("LOCK TABLE appointments IN ACCESS EXCLUSIVE MODE")
            answer = pool.submit(browser.get, "/api/appointments")
            locks.until_they_wait(backend, answer)
            run("UPDATE users SET role = 'patient' WHERE id = $1::uuid", me["id"])
        assert answer.result().status_code == 401
