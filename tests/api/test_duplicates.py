"""Charts that may be the same person's, before another is opened (contract, "One person, one chart")."""

from typing import Any
from uuid import uuid4

import pytest

from tests.support import audit_trail
from tests.support.client import PROBLEM, Browser
from tests.support.factories import World
from tests.support.service import Backend

PATH = "/api/patients/duplicates"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def jana(world: World) -> Row:
    return world.chart(
        name="Jana Krátká-Dvořáková", email="jana.kratka@example.org", phone="+420 601 223 344",
        dateOfBirth="1987-04-12",
    )  # fmt: skip


def duplicates(browser: Browser, **asked: str) -> list[Row]:
    answer = browser.get(PATH, params=asked)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["duplicates"])


def names(browser: Browser, **asked: str) -> list[str]:
    return [one["patient"]["name"] for one in duplicates(browser, **asked)]


@pytest.mark.parametrize(
    ("asked", "matched"),
    [
        ({"name": "Jana Krátká-Dvořáková"}, ["name"]),
        ({"name": "Dvořáková Krátká, Jana"}, ["name"]),
        ({"name": "jana kratka dvorakova"}, ["name"]),
        ({"name": "Яна Кратка-Дворжакова", "dateOfBirth": "1987-04-12"}, ["name", "dateOfBirth"]),
        ({"name": "Jana Krtáká-Dvořáková"}, ["name"]),
        ({"name": "J. Krátká-Dvořáková", "dateOfBirth": "1987-12-04"}, ["name", "dateOfBirth"]),
        ({"name": "Jana Dvořáková", "dateOfBirth": "1987-04-21"}, ["name", "dateOfBirth"]),
        ({"name": "Jana Nová", "phone": "601223344"}, ["phone"]),
        ({"phone": "00420-601-223-344"}, ["phone"]),
        ({"email": " Jana.Kratka@Example.org "}, ["email"]),
        ({"email": "jana.kratka@example.net"}, ["email"]),
        ({"dateOfBirth": "1987-04-12"}, ["dateOfBirth"]),
        (
            {
                "name": "Jana Krátká-Dvořáková", "dateOfBirth": "1987-04-12", "phone": "+420601223344",
                "email": "jana.kratka@example.org",
            },
            ["name", "dateOfBirth", "email", "phone"],
        ),
    ],
)  # fmt: skip
def test_what_is_like_a_chart_finds_it(
    asked: dict[str, str], matched: list[str], jana: Row, world: World
) -> None:
    """contract: "any order, without accents and in Latin letters" """
    [found] = [one for one in duplicates(world.staff, **asked) if one["patient"]["id"] == jana["id"]]
    assert found["matched"] == matched
    assert found["patient"] == {name: jana[name] for name in found["patient"]}
    assert 0.2 <= found["score"] <= 1


def test_what_is_equal_has_a_score_of_1_and_what_is_alike_less(jana: Row, world: World) -> None:
    whole = {name: jana[name] for name in ("name", "dateOfBirth", "email", "phone")}
    [same] = [one for one in duplicates(world.admin, **whole) if one["patient"]["id"] == jana["id"]]
    assert same["score"] == 1
    for name, other in [("name", "Jana Kratki"), ("dateOfBirth", "1987-04-11"), ("phone", "1" * 9)]:
        [alike] = [
            one
            for one in duplicates(world.admin, **{**whole, name: other})
            if one["patient"]["id"] == jana["id"]
        ]
        assert 0.5 < alike["score"] < 1


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "Wolfgang Quist"},
        {"name": "Wolfgang Quist", "dateOfBirth": "1987-04-12"},
        {"name": "Jana Krátká-Dvořáková-Quist", "email": "", "dateOfBirth": "", "phone": "12"},
        {"phone": "+420 777 000 111"},
        {"email": "wolfgang@example.org"},
        {"name": "-"},
        {"name": "☃"},
    ],
)
def test_nothing_alike_is_an_empty_list(asked: dict[str, str], jana: Row, world: World) -> None:
    """A birthday alone is chance, and the rest of the name may be anybody's."""
    found = names(world.staff, **asked)
    assert found == ([jana["name"]] if "Jana" in asked.get("name", "") else [])


def test_a_name_in_another_script_is_found_by_latin_letters(world: World) -> None:
    """Also after it was changed: what it is found by is written with it."""
    chart = world.chart(name="Наталья Щербакова")
    assert names(world.admin, name="Shcherbakova Natalya") == ["Наталья Щербакова"]
    assert names(world.admin, name="щербакова наталья") == ["Наталья Щербакова"]
    changed = world.admin.patch(f"/api/patients/{chart['id']}", {"name": "王伟"})
    assert changed.status_code == 200
    assert names(world.admin, name="Wei Wang") == ["王伟"]
    assert names(world.admin, name="Shcherbakova Natalya") == []


def test_of_many_with_one_name_that_with_the_birthday_comes_first(backend: Backend, world: World) -> None:
    """contract: "ten at most" """
    backend.sql(
        "INSERT INTO patients "
        "(id, name, email, phone, date_of_birth, gender, address, sort_name, search_text) "
        "SELECT gen_random_uuid(), 'Maria Silva', n || '@silva.example', n::text, "
        "date '1950-01-01' + 7 * n, 'female', 'x', 'maria silva', 'maria silva ' || n || '@silva.example' "
        "FROM generate_series(1, 600) AS n"
    )
    found = duplicates(world.staff, name="Silva Maria", dateOfBirth="1960-10-02")
    assert len(found) == 10
    assert found[0]["patient"]["dateOfBirth"] == "1960-10-02"
    assert found[0]["score"] == 1
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert duplicates(world.staff, name="Maria Silva")[9]["score"] == 1


@pytest.mark.parametrize("query", ["", "?name=&phone=&email=&dateOfBirth=", "?name=%20%20"])
def test_one_parameter_at_least_is_required(query: str, world: World) -> None:
    """contract: "At least one of the parameters is required." """
    refused = world.staff.get(PATH + query)
    assert refused.status_code == 400
    assert refused.json() == {"detail": "name: is required, unless dateOfBirth, email or phone is given"}
    problem = world.staff.get(PATH + query, headers=PROBLEM).json()
    assert [(one["parameter"], one["code"]) for one in problem["errors"]] == [("name", "required")]


@pytest.mark.parametrize(
    "query", ["?dateOfBirth=12.4.1987", "?name=a&name=b", "?search=a", "?name=%00", f"?phone={'1' * 41}"]
)
def test_a_query_is_read_strictly(query: str, world: World) -> None:
    assert world.staff.get(PATH + query).status_code == 400


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "2024-02-29"])
def test_any_day_of_the_calendar_may_be_asked_for(day: str, world: World) -> None:
    assert duplicates(world.staff, dateOfBirth=day) == []


def test_the_path_is_no_id(world: World, anonymous: Browser) -> None:
    """What is refused there is told as of every operation, not as of a chart that does not exist."""
    assert anonymous.get(PATH).status_code == 401
    assert world.doctor.get(f"{PATH}?name=x").status_code == 403
    assert world.patient.get(PATH).status_code == 403
    assert world.staff.patch(PATH, {}).status_code == 405
    assert world.staff.get(f"{PATH}/account").status_code == 404


def test_the_trail_names_the_charts_that_were_shown_and_not_what_was_typed(
    backend: Backend, world: World
) -> None:
    chart = world.chart(name="Ottokar Unverwechselbar")
    since = audit_trail.newest(backend)
    duplicates(world.staff, name="Unverwechselbar Ottokar")
    [event] = audit_trail.new(backend, since, "patient.duplicates")
    assert "Ottokar" not in str(event)
    assert (
        {str(id) for id in event["target_ids"]} == {str(id) for id in event["patient_ids"]} == {chart["id"]}
    )
    seen = world.admin.get(f"/api/patients/{chart['id']}/accesses").json()["accesses"]
    assert seen[0]["action"] == "patient.duplicates"


def test_a_chart_like_another_is_opened_all_the_same(world: World) -> None:
    """contract: "It decides nothing" """
    body = {"name": "Twin Zwilling", "dateOfBirth": "2001-02-03", "email": f"{uuid4()}@example.org"}
    ids = {world.chart(**body)["id"] for _ in range(2)}
    assert {one["patient"]["id"] for one in duplicates(world.staff, name="Twin Zwilling")} == ids
