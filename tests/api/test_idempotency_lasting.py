"""What is stored of an Idempotency-Key, for how long, and what of it survives a crash."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx
import msgspec
import pytest

from persistence import idempotency
from persistence.postgres.database import Database, Reader
from tests.support.client import Browser
from tests.support.command import settings_of
from tests.support.factories import World, chart, email, registration
from tests.support.idempotency import (
    claims,
    is_repeat,
    key,
    new_account,
    new_appointment,
    new_chart,
    with_key,
)
from tests.support.locks import transaction, until_they_wait
from tests.support.postgres_wire import COMMITTED, Wire
from tests.support.running import serving, wait_until
from tests.support.service import KEY, Backend, Service

NEXT_KEY = "the-next-key-for-tests-only-0123456789-0123"


def test_a_key_counts_for_24_hours(world: World, backend: Backend) -> None:
    made, sent = new_chart(world), key()
    first = made.send(sent)
    backend.sql("UPDATE idempotency_keys SET claimed_at = now() - interval '23:59'")
    assert made.send(sent).json() == first.json()
    backend.sql("UPDATE idempotency_keys SET claimed_at = now() - interval '24:00'")
    anew = made.send(sent)
    assert (anew.status_code, is_repeat(anew)) == (201, False)
    assert anew.json()["id"] != first.json()["id"]
    assert made.send(sent).json() == anew.json()


def test_what_has_lapsed_is_deleted_in_the_background(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, old, young = new_chart(world), key(), key()
    made.send(old)
    backend.sql("UPDATE idempotency_keys SET claimed_at = now() - interval '25:00'")
    made.send(young)
    monkeypatch.setattr(idempotency, "PURGE_INTERVAL_SECONDS", 0.05)

    async def purge() -> None:
        async with Database(backend.database_url) as database:
            await asyncio.wait_for(idempotency.purge_periodically(Reader(database.writes)), 0.5)

    with pytest.raises(TimeoutError):
        asyncio.run(purge())
    assert len(backend.sql("SELECT FROM idempotency_keys")) == 1
    assert is_repeat(made.send(young))


def test_nothing_that_was_sent_can_be_told_from_what_is_stored(world: World, backend: Backend) -> None:
    """contract: "a plain hash of a registration would be an oracle for the password in it"."""
    made, sent = new_account(world), key()
    assert made.send(sent).status_code == 201
    [row] = backend.sql("SELECT * FROM idempotency_keys ORDER BY claimed_at DESC LIMIT 1")
    body = msgspec.json.encode(made.body)
    ordered = msgspec.json.encode(made.body, order="sorted")
    guesses = [sent.encode(), body, ordered, b"POST/api/auth/register" + ordered]
    plain = {*guesses, *(sha256(guess).digest() for guess in guesses)}
    assert not plain & {row["key"], row["fingerprint"]}
    assert {len(row["key"]), len(row["fingerprint"])} == {32}
    assert row["row_id"]


def test_a_refused_record_and_account_leave_no_key(
    world: World, backend: Backend, registered_email: str
) -> None:
    sent, before = with_key(key()), claims(backend)
    record = {
        "patientId": "00000000-0000-4000-8000-000000000000",
        "diagnosis": "Well",
        "prescription": "",
        "notes": "",
    }
    assert world.doctor.post("/api/records", record, headers=sent).status_code == 404
    body = registration(email=registered_email)
    assert world.admin.post("/api/auth/register", body, headers=sent).status_code == 400
    assert claims(backend) == before
    made = world.admin.post("/api/auth/register", {**body, "email": email()}, headers=sent)
    assert (made.status_code, is_repeat(made)) == (201, False)


def test_a_key_holds_while_the_secret_key_is_replaced(world: World, backend: Backend) -> None:
    """The instance with the next key tells what the one before has stored, and what it stores itself."""
    made, sent, new = new_chart(world), key(), key()
    first = made.send(sent)
    rotated = backend.settings(secret_key=NEXT_KEY, secret_key_previous=KEY)
    with Service(backend, rotated) as service:
        browser = Browser(service.url, dict(made.browser.cookies))
        again = made.send(sent, browser)
        assert (again.json(), is_repeat(again)) == (first.json(), True)
        refused = browser.post(made.path, chart(), headers=with_key(sent))
        assert refused.status_code == 400
        assert [is_repeat(made.send(new, browser)) for _ in range(2)] == [False, True]


def test_who_waits_for_a_request_that_is_refused_makes_the_row(
    world: World, service: Service, second_instance: Service, backend: Backend
) -> None:
    """On two instances: PostgreSQL keeps the second waiting. The first is refused after its claim."""
    made, sent = new_appointment(world), key()
    both = [Browser(each.url, dict(made.browser.cookies)) for each in (service, second_instance)]
    with ThreadPoolExecutor(2) as pool:
        with transaction(backend) as run:
            run("UPDATE users SET status = 'disabled' WHERE id = $1", made.body["doctorId"])
            first, second = (pool.submit(made.send, sent, browser) for browser in both)
            until_they_wait(backend, first, second)
        refused = [first.result(), second.result()]
    assert {answer.status_code for answer in refused} == {404}
    backend.sql("UPDATE users SET status = 'active' WHERE id = $1", made.body["doctorId"])
    assert [is_repeat(made.send(sent)) for _ in range(2)] == [False, True]


def test_nobody_waits_for_another_longer_than_for_postgresql(
    world: World, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is 503, and may be sent again."""
    monkeypatch.setattr("api.http.idempotency.REQUEST_SECONDS", 0.1)
    made, sent = new_appointment(world), key()
    with ThreadPoolExecutor(2) as pool:
        with transaction(backend) as run:
            run("SELECT FROM patients WHERE id = $1 FOR UPDATE", made.body["patientId"])
            first = pool.submit(made.send, sent)
            until_they_wait(backend, first)
            second = made.send(sent)
        assert (second.status_code, "retry-after" in second.headers) == (503, True)
        assert first.result().status_code == 201
    again = made.send(sent)
    assert (again.json(), is_repeat(again)) == (first.result().json(), True)


def test_a_row_whose_answer_was_lost_by_kill_9_is_made_once(
    world: World, backend: Backend, tmp_path: Path
) -> None:
    """The transaction is stored, PostgreSQL's word of that is on its way, and the service is killed."""
    made, sent, wire = new_chart(world), key(), Wire(backend)
    stored = f"SELECT count(*) FROM patients WHERE email = '{made.body['email']}'"
    with wire.laid() as far, serving(tmp_path, **settings_of(far)) as running, ThreadPoolExecutor(1) as pool:
        running.wait_until_ready()
        browser = Browser(running.url, dict(made.browser.cookies))
        assert browser.me()["role"] == "staff"
        wire.silent_at = COMMITTED
        asked = pool.submit(made.send, sent, browser)
        wait_until(lambda: backend.sql(stored)[0][0], "the chart")
        assert not asked.done()
        running.process.kill()
        with pytest.raises(httpx.TransportError):
            asked.result()
    again = made.send(sent)
    assert (again.status_code, is_repeat(again)) == (201, True)
    assert again.json()["email"] == made.body["email"]
    assert backend.sql(stored)[0][0] == 1
