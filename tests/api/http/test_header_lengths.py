"""Fields of a request that have a bound of their own (contract: `maxLength` of a parameter in the header)."""

import pytest

from persistence import cursors
from tests.support.client import Browser
from tests.support.factories import World, chart
from tests.support.openapi import document, operations, parameters

OPEN = ".".join(f"{number:x}" for number in range(0xFFF, 0xC04, -1))  # transactions, as a cursor has them
# Of each such field: a good value of the greatest length, and one that is a character longer.
LONGEST = {
    "If-Match": ('"' + "a" * 2046 + '"', '"' + "a" * 2047 + '"'),
    "Idempotency-Key": ("a" * 255, "a" * 256),
    "Last-Event-ID": (f"0123456789ab-1000000-{OPEN}", f"0123456789ab-10000000-{OPEN}"),
}


def send(browser: Browser, name: str, value: str) -> tuple[int, str]:
    """To an operation that has this field; its status, and the detail of an error."""
    headers = {name: value}
    if name == "Idempotency-Key":
        answer = browser.post("/api/patients", chart(), headers=headers)
    elif name == "If-Match":
        answer = browser.patch("/api/users/me", {"phone": "1"}, headers=headers)
    else:
        answer = browser.get("/api/changes", headers=headers)
    return answer.status_code, answer.json().get("detail", "")


def test_each_field_with_a_bound_is_known_here() -> None:
    contract = document()
    bounds = {
        one["name"]: one["schema"]["maxLength"]
        for _, path, operation in operations(contract)
        for one in parameters(contract, path, operation)
        if one["in"] == "header" and "maxLength" in one["schema"]
    }
    assert bounds == {name: len(longest) for name, (longest, _) in LONGEST.items()}
    assert all(cursors.parse(cursor) for cursor in LONGEST["Last-Event-ID"])


@pytest.mark.parametrize(("name", "values"), LONGEST.items())
def test_a_field_that_is_longer_than_its_bound_is_400(
    world: World, name: str, values: tuple[str, str]
) -> None:
    longest, longer = values
    assert send(world.staff, name, longest)[0] in (200, 201, 412)
    status, detail = send(world.staff, name, longer)
    assert status == 400
    assert detail.startswith(f"{name}: must be ")
