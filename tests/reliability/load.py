"""A steady load of writes and reads, which remembers every answer; and what must hold of them afterwards."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import httpx

from tests.reliability.servers import PostgresServer
from tests.support.client import Browser
from tests.support.factories import chart
from tests.support.running import wait_until

MAX_ANSWER_SECONDS = 10  # that any client waits, whatever has failed
HEALING_SECONDS = 10  # until every kind of request is served again, once what had failed is back
PAUSE_SECONDS = 0.04  # between an answer and the next request of the same client
SLACK = 3  # times a bound, on a machine that does something else as well
CLOSED = (httpx.NetworkError, httpx.RemoteProtocolError)  # no answer, and the client knows that at once
TABLES = {"add_chart": "patients", "book": "appointments", "add_record": "medical_records"}
UNAUDITED = {"list_doctors"}


class Attempt(NamedTuple):
    """A request and what came of it. `status`: None where the connection was closed, or nothing was heard.
    `problem`: why it is not an answer that a client may be given. `made`: the id of what was written."""

    kind: str
    began: float
    ended: float
    status: int | None
    problem: str
    request_id: str
    made: str

    @property
    def is_served(self) -> bool:
        return self.status is not None and self.status < 300

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Load:
    """Clients who send one request after the other, by turns to each of the instances at `urls`, from `with`
    until its end. Each is one of the kinds below."""

    urls: Sequence[str]
    cookies: Mapping[str, Mapping[str, str]]
    patient_id: str
    doctor_id: str
    attempts: list[Attempt] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    hours: "count[int]" = field(default_factory=count)

    def __enter__(self) -> "Load":
        kinds = (self.add_chart, self.book, self.add_record, self.change_chart, self.read_chart)
        work = [threading.Thread(target=self.repeat, args=(each,)) for each in (*kinds, self.list_doctors)]
        self.threads = work
        for each in work:
            each.start()
        self.until_served()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for each in self.threads:
            each.join()

    def repeat(self, ask: Callable[[Callable[[str], Browser]], httpx.Response]) -> None:
        turns = count()
        kind = ask.__name__

        def browser(person: str) -> Browser:
            return Browser(self.urls[next(turns) % len(self.urls)], dict(self.cookies[person]))

        while not self.over.wait(PAUSE_SECONDS):
            began = time.monotonic()
            try:
                answer = ask(browser)
            except CLOSED:
                self.attempts.append(Attempt(kind, began, time.monotonic(), None, "", "", ""))
            except Exception as error:  # the test looks at it: this is a thread
                problem = f"{type(error).__name__}: {error}"
                self.attempts.append(Attempt(kind, began, time.monotonic(), None, problem, "", ""))
            else:
                self.attempts.append(attempt_of(kind, began, answer))

    def add_chart(self, as_: Callable[[str], Browser]) -> httpx.Response:
        return as_("staff").post("/api/patients", chart())

    def book(self, as_: Callable[[str], Browser]) -> httpx.Response:
        hour = next(self.hours)
        date = (
            f"{2100 + hour // 8064}-{hour // 672 % 12 + 1:02}-{hour // 24 % 28 + 1:02}T{hour % 24:02}:00:00Z"
        )
        body = {"patientId": self.patient_id, "doctorId": self.doctor_id, "date": date, "reason": "Check-up"}
        return as_("staff").post("/api/appointments", body)

    def add_record(self, as_: Callable[[str], Browser]) -> httpx.Response:
        body = {"patientId": self.patient_id, "diagnosis": "Well", "prescription": "", "notes": ""}
        return as_("doctor").post("/api/records", body)

    def change_chart(self, as_: Callable[[str], Browser]) -> httpx.Response:
        body = {"address": f"{time.monotonic_ns()} Main Street"}
        return as_("admin").patch(f"/api/patients/{self.patient_id}", body)

    def read_chart(self, as_: Callable[[str], Browser]) -> httpx.Response:
        return as_("doctor").get(f"/api/patients/{self.patient_id}")

    def list_doctors(self, as_: Callable[[str], Browser]) -> httpx.Response:
        return as_("patient").get("/api/doctors")

    def since(self, moment: float) -> list[Attempt]:
        return [each for each in list(self.attempts) if each.began >= moment]

    def until_served(self) -> float:
        """Wait until each kind of request has succeeded that began from now on; the seconds that it took."""
        now = time.monotonic()
        kinds = {*TABLES, *UNAUDITED, "change_chart", "read_chart"}
        wait_until(lambda: {each.kind for each in self.since(now) if each.is_served} == kinds, "service")
        seconds = time.monotonic() - now
        print(f"All served after {seconds:.1f} s")
        return seconds

    def summary(self) -> dict[tuple[str, str], int]:
        """How often each kind of request came to what."""
        return Counter((each.kind, str(each.status or each.problem or "closed")) for each in self.attempts)


def attempt_of(kind: str, began: float, answer: httpx.Response) -> Attempt:
    ended = time.monotonic()
    request_id = answer.headers.get("x-request-id", "")
    body: dict[str, Any] = answer.json() if answer.status_code < 300 else {}
    problem = ""
    if answer.status_code >= 300:
        is_clean = answer.status_code == 503 and "retry-after" in answer.headers
        problem = "" if is_clean else f"{answer.status_code} {answer.text}"
    made = str(body.get("id", "")) if kind in TABLES else ""
    return Attempt(kind, began, ended, answer.status_code, problem, request_id, made)


def require_kept(load: Load, server: PostgresServer) -> None:
    """Whatever was acknowledged is in the database, once, with its event of the trail; whatever was not was
    a 503 with Retry-After or a closed connection; and nobody waited long."""
    unclean = [each for each in load.attempts if each.problem]
    assert not unclean, unclean[:5]
    late = [each for each in load.attempts if each.seconds > SLACK * MAX_ANSWER_SECONDS]
    assert not late, late[:5]
    served = [each for each in load.attempts if each.is_served]
    for kind, table in TABLES.items():
        made = [each.made for each in served if each.kind == kind]
        assert len(set(made)) == len(made)
        [row] = server.sql(f"SELECT count(*) FROM {table} WHERE id = ANY($1::uuid[])", made)
        assert row["count"] == len(made), f"{len(made) - row['count']} acknowledged of {kind} are lost"
    audited = [each.request_id for each in served if each.kind not in UNAUDITED]
    [row] = server.sql("SELECT count(*) FROM audit_events WHERE request_id = ANY($1::uuid[])", audited)
    assert row["count"] == len(audited)
    [row] = server.sql("SELECT count(*) - count(DISTINCT email) AS doubled FROM patients")
    assert row["doubled"] == 0
