"""The pieces that most requests are made of, each alone, on the real servers: `just bench-pieces`.

No test of the suite: nothing here can fail but by an error. What is asynchronous is timed with the event
loop's start and stop around it, some 20 µs.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
import uvloop
from prometheus_client import CollectorRegistry
from pytest_benchmark.fixture import BenchmarkFixture

from api.app import create_app
from api.charts import PatientSummary
from api.http.cors import Origins
from api.http.logs import LogFormat, LogHandler
from api.http.observation import Observer, Outlets
from api.http.outermost import OutermostMiddleware
from api.http.proxies import TrustedProxies
from api.http.requests import StrictRequest
from api.patients import PatientPage
from persistence import embedded, patients
from persistence.audit import Action, Event, Journal, Outcome
from persistence.models import Gender
from persistence.postgres import folding
from persistence.postgres.database import Database, Reader
from security.admission import Admission
from security.counters import CounterStore
from security.roles import Caller, Role
from security.tokens import TokenIssuer, TokenKind
from tests.bench import seed
from tests.bench.clinic import Clinic, uid
from tests.support.service import KEY, Backend

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
STAFF = Caller(UUID(uid("staff", 0)), "staff0@example.com", Role.STAFF, UUID(uid("session", 0)))
CHART = UUID(uid("patient", 0))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Durable: what is committed is on the disk."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with embedded.start(folder) as running:
        seed.make(
            running.database_url, Clinic(patients=10_000, doctors=200, appointments=50_000, records=10_000)
        )
        yield Backend(running.database_url, running.redis_url)
    embedded.discard(folder)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def database(backend: Backend, runner: asyncio.Runner) -> Iterator[Database]:
    database = Database(backend.database_url)
    yield database
    runner.run(database.close())


@pytest.fixture
def timed(benchmark: BenchmarkFixture, runner: asyncio.Runner) -> Run:
    """Time a coroutine function."""
    loop = runner.get_loop()
    return lambda function: benchmark(lambda: loop.run_until_complete(function()))


def event(number_of_charts: int = 1) -> Event:
    charts = [uuid4() for _ in range(number_of_charts)]
    return Event(
        at=datetime.now(UTC),
        user_id=STAFF.id,
        email=STAFF.email,
        role=STAFF.role,
        session_id=STAFF.session_id,
        action=Action.PATIENT_READ,
        outcome=Outcome.SUCCESS,
        patient_id=charts[0],
        target_id=charts[0],
        target_ids=charts[1:],
        patient_ids=charts,
        address="192.0.2.7",
        request_id=uuid4(),
    )


def token() -> tuple[TokenIssuer, str]:
    issuer = TokenIssuer(KEY, "HS256", timedelta(minutes=15))
    return issuer, issuer.issue_access(STAFF)


def test_token(benchmark: BenchmarkFixture) -> None:
    issuer, encoded = token()
    assert benchmark(issuer.read, encoded, TokenKind.ACCESS)


def test_admission(timed: Run, backend: Backend, runner: asyncio.Runner) -> None:
    """Session and limit, one round trip to Valkey."""
    issuer, encoded = token()
    read = issuer.read(encoded, TokenKind.ACCESS)
    store = CounterStore.connect(backend.redis_url)

    async def find(session: UUID) -> Caller:
        return STAFF

    admission = Admission(store, find, limit=1_000_000_000, tombstone_seconds=900)
    runner.run(store.__aenter__())
    assert timed(lambda: admission.admit(read, "192.0.2.7")).caller == STAFF
    runner.run(store.__aexit__(None, None, None))


@pytest.mark.parametrize("name", ["Alice Anbadorf", "Ángel Núñez-Ġużè", "王 小明"])
def test_fold_of_a_name(benchmark: BenchmarkFixture, name: str) -> None:
    assert benchmark(folding.fold, name)


def test_keys_of_a_chart(benchmark: BenchmarkFixture) -> None:
    """What is stored of a chart to sort and to search by."""
    chart = ("Alice Anbadorf", "alice.anbadorf@mail.example.com", "+1 555 0100")
    assert benchmark(folding.keys_of, *chart)


def test_statement_of_one_row(timed: Run, database: Database) -> None:
    assert timed(lambda: patients.one(database.reader, STAFF, CHART))


def test_statement_of_100_rows(timed: Run, database: Database) -> None:
    assert timed(lambda: patients.page(database.reader, STAFF, 1, 100)).total == 10_000


@pytest.mark.parametrize("readers", [1, 8, 64])
@pytest.mark.parametrize("charts", [1, 100])
def test_journal(timed: Run, database: Database, readers: int, charts: int) -> None:
    """Until the events of so many readers, who come at once, are on the disk: each names so many charts."""
    journal = Journal(Reader(database.journal))
    events = [event(charts) for _ in range(readers)]

    async def write() -> None:
        await asyncio.gather(*map(journal.write, events))

    timed(write)


def test_body(timed: Run, backend: Backend) -> None:
    """A new chart: decoded, and judged by the contract and our own rules."""
    app = create_app(backend.settings())
    [handler] = [
        handler
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if handler.operation_id == "createPatient"
    ]
    chart = {
        "name": "Test Newpatient", "email": "new@mail.example.com", "phone": "+15551230000",
        "dateOfBirth": "1980-05-17", "gender": "female", "address": "12 Main Street, Springfield",
        "bloodType": "A+", "allergies": "Penicillin",
    }  # fmt: skip
    body = msgspec.json.encode(chart)
    scope: Any = {
        "type": "http",
        "method": "POST",
        "path": "/api/patients",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        "litestar_app": app,
        "route_handler": handler,
    }  # as much of a scope as is read

    async def receive() -> Any:  # one of the messages of ASGI
        return {"type": "http.request", "body": body, "more_body": False}

    assert timed(lambda: StrictRequest(cast("Any", {**scope, "state": {}}), receive).json())


def test_answer_of_100_charts(benchmark: BenchmarkFixture) -> None:
    chart = PatientSummary(
        id=CHART,
        name="Alice Anbadorf",
        email="alice.anbadorf@mail.example.com",
        phone="+15551230000",
        date_of_birth=datetime(1980, 5, 17, tzinfo=UTC).date(),
        gender=Gender.FEMALE,
        address="12 Main Street, Springfield",
        created_at=datetime.now(UTC),
    )
    page = PatientPage(patients=[chart] * 100, total=100_000, page=1, limit=100)
    assert benchmark(msgspec.json.encode, page)


def test_edge(timed: Run) -> None:
    """CORS, the headers of every answer, an id for the request."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json")],
    }

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({**start})
        await send({"type": "http.response.body", "body": b"{}"})

    async def nothing(*_: Any) -> Any:
        pass

    edge = OutermostMiddleware(answer, Origins(["http://localhost:5173"]), TrustedProxies([]))
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/api/users/me",
        "raw_path": b"/api/users/me",
        "query_string": b"",
        "client": ("192.0.2.7", 50000),
        "headers": [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:5173")],
    }
    timed(lambda: edge({**scope, "state": {}}, nothing, nothing))


def test_observation(benchmark: BenchmarkFixture) -> None:
    """A line of the log and the counts of one answered request, as far as the event loop does them."""
    handler = LogHandler(LogFormat.JSON)
    handler.is_started = True  # but for the thread that writes
    observer = Observer.through(Outlets(CollectorRegistry(), handler))
    scope = {"state": {"request_id": uuid4()}, "method": "GET", "user": STAFF}

    def see() -> None:
        observer.see(scope, 200, 0.0123)
        handler.waiting.clear()
        handler.waiting_bytes = 0

    benchmark(see)
