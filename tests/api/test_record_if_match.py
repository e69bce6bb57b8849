"""If-Match on amending and retracting a record (RFC 9110, 13.1.1): nobody replaces a text that they have not
read."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.support.client import Browser
from tests.support.factories import World

pytestmark = pytest.mark.slow

STALE = {"detail": "If-Match: this has changed since it was read. Read it again."}
BODIES: dict[str, dict[str, Any]] = {
    "versions": {"reason": "A slip", "notes": "Came alone"},
    "retraction": {"reason": "Wrong chart"},
}


def send(browser: Browser, record: str, what: str, tag: str, **texts: Any) -> httpx.Response:
    path = f"/api/records/{record}/{what}"
    return browser.post(path, {**BODIES[what], **texts}, headers={"if-match": tag})


def read(world: World, record: str) -> tuple[str, dict[str, Any]]:
    """The tag of the record, and what is shown."""
    answer = world.doctor.get(f"/api/records/{record}")
    return answer.headers["etag"], answer.json()


@pytest.fixture
def record(world: World) -> str:
    return str(world.record(world.chart()["id"])["id"])


@pytest.mark.parametrize("what", BODIES)
def test_a_record_of_another_tag_is_neither_amended_nor_retracted(
    what: str, world: World, record: str
) -> None:
    before = read(world, record)
    for stale in ('"other"', f"W/{before[0]}"):
        refused = send(world.doctor, record, what, stale)
        assert (refused.status_code, refused.json()) == (412, STALE)
    malformed = send(world.doctor, record, what, "other")
    assert malformed.json() == {"detail": "If-Match: must be * or a list of ETags"}
    assert read(world, record) == before
    assert world.doctor.get(f"/api/records/{record}/versions").json()["total"] == 1
    assert send(world.doctor, record, what, f'"other", {before[0]}').status_code == 201


def test_an_amendment_answers_the_new_tag_of_the_record(world: World, record: str) -> None:
    before, _ = read(world, record)
    answer = send(world.doctor, record, "versions", before)
    assert (answer.headers["etag"], answer.json()) == read(world, record)
    assert answer.headers["etag"] != before
    assert send(world.doctor, record, "versions", before).status_code == 412
    assert send(world.doctor, record, "retraction", before).status_code == 412
    assert send(world.doctor, record, "retraction", "*").status_code == 201


@pytest.mark.parametrize("what", BODIES)
def test_other_refusals_come_before_the_tag_of_a_record(what: str, world: World, record: str) -> None:
    unknown = "0e4a7c52-93b1-4d6f-8a25-6b1f0c9d3e77"
    assert send(world.doctor, unknown, what, '"other"').status_code == 404
    assert send(world.other_doctor, record, what, '"other"').status_code == 403
    assert send(world.doctor, record, what, '"other"', reason="").status_code == 400
    assert send(world.doctor, record, "retraction", "*").status_code == 201
    assert send(world.doctor, record, what, '"other"').status_code == 400


def test_of_a_hundred_pairs_of_amendments_with_one_tag_one_each_succeeds(world: World, record: str) -> None:
    """At the same moment; no text of those that were refused is kept."""
    gate = Barrier(2)

    def amend(tag: str, text: str) -> tuple[int, str]:
        gate.wait()
        return send(world.doctor, record, "versions", tag, notes=text).status_code, text

    with ThreadPoolExecutor(2) as pool:
        for number in range(100):
            tag, _ = read(world, record)
            (first, won), (second, _) = sorted(pool.map(amend, (tag, tag), (f"{number} a", f"{number} b")))
            assert (first, second) == (201, 412)
            assert read(world, record)[1]["notes"] == won
    assert world.doctor.get(f"/api/records/{record}/versions").json()["total"] == 101
