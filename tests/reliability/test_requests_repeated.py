"""Clients that repeat each request, with its key, until they are answered."""

import threading
import time
from contextlib import suppress
from itertools import cycle
from uuid import uuid4

from tests.reliability.conftest import Clinic
from tests.reliability.load import CLOSED
from tests.support.client import Browser
from tests.support.factories import chart

CLIENTS = 4


class Persistent:
    """Opens one chart after the other. `opened`: by e-mail, the id that it was told in the end."""

    def __init__(self, urls: list[str], cookies: dict[str, str], over: threading.Event) -> None:
        self.browsers = cycle([Browser(url, dict(cookies)) for url in urls])
        self.over = over
        self.opened: dict[str, str] = {}
        self.repeats = 0

    def work(self) -> None:
        while not self.over.is_set():
            body, headers = chart(), {"Idempotency-Key": uuid4().hex}
            while body["email"] not in self.opened:
                with suppress(*CLOSED):
                    answer = next(self.browsers).post("/api/patients", body, headers=headers)
                    assert answer.status_code in {201, 503}, answer.text
                    if answer.status_code == 201:
                        self.opened[body["email"]] = answer.json()["id"]
                        self.repeats += "idempotency-replayed" in answer.headers


def test_whoever_repeats_a_request_until_it_is_answered_has_its_row_once(clinic: Clinic) -> None:
    """Whatever is killed meanwhile: an instance amid its commits, then PostgreSQL."""
    over = threading.Event()
    with clinic.serving() as service, clinic.serving() as other:
        cookies = dict(clinic.filled.cookies["staff"])
        clients = [Persistent([service.url, other.url], cookies, over) for _ in range(CLIENTS)]
        threads = [threading.Thread(target=client.work) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(1)
        service.process.kill()
        service.process.wait()
        time.sleep(1)
        clinic.postgres.kill()
        clinic.postgres.start()
        time.sleep(1)
        over.set()
        for thread in threads:
            thread.join()
    opened = {email: chart_id for client in clients for email, chart_id in client.opened.items()}
    found = clinic.postgres.sql("SELECT email, id::text FROM patients WHERE email = ANY($1)", list(opened))
    assert len(found) == len(opened) > CLIENTS
    assert {row["email"]: row["id"] for row in found} == opened
    print(f"{len(opened)} charts, {sum(client.repeats for client in clients)} by a repeat")
