"""Charts that are merged and parted again."""

from typing import Any

import httpx

from tests.support.client import Browser
from tests.support.factories import World

Json = dict[str, Any]
ASKED = {"Accept": "application/problem+json"}
REASON = "The same person, registered twice"


def merge(browser: Browser, survivor: str, merged: str, query: str = "", **options: Any) -> httpx.Response:
    body = {"from": merged, "reason": REASON}
    return browser.post(f"/api/patients/{survivor}/merge{query}", body, **options)


def unmerge(browser: Browser, survivor: str, merged: str, **options: Any) -> httpx.Response:
    body = {"from": merged, "reason": "Two people after all"}
    return browser.post(f"/api/patients/{survivor}/unmerge", body, **options)


def merge_charts(world: World, survivor: Json, merged: Json) -> None:
    answer = merge(world.admin, survivor["id"], merged["id"])
    assert answer.status_code == 200, answer.text


def pair(world: World) -> tuple[Json, Json]:
    return world.chart(name="Mia Main"), world.chart(name="Mia Maine")


def history(browser: Browser, chart: str) -> list[tuple[str, str | None, str | None]]:
    found = browser.get(f"/api/patients/{chart}/history?limit=100")
    assert found.status_code == 200, found.text
    return [(one["field"], one["from"], one["to"]) for one in found.json()["changes"]]


def records_of(browser: Browser, chart: str) -> list[str]:
    found = browser.get("/api/records", params={"patientId": chart, "limit": 100}).json()
    assert found["total"] == len(found["records"])
    return [one["id"] for one in found["records"]]
