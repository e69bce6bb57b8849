"""Reading charts, for the tests of each side of them."""

from typing import Any

from tests.support.client import Browser


def patients_of(browser: Browser) -> list[dict[str, Any]]:
    page = browser.get("/api/patients", params={"limit": 100}).json()
    assert page["total"] == len(page["patients"])
    return list(page["patients"])
