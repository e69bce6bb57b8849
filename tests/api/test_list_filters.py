"""Filters, ids and orders of lists (contract: "A filter narrows what the caller may see and never widens
it"): each alone and together, by every role, against a model in Python."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from security.roles import Role
from tests.support.audit_trail import newest
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend
from tests.support.small_clinic import add_appointment, add_chart, add_doctor

pytestmark = pytest.mark.slow

Row = dict[str, Any]
Query = dict[str, str]
NOBODY = str(uuid4())
FIRST = datetime(2031, 3, 3, 9, tzinfo=UTC)
STATUSES = ("scheduled", "completed", "cancelled")
RECORD = """
    INSERT INTO medical_records (id, patient_id, doctor_id, date, diagnosis, prescription, notes)
    VALUES (gen_random_uuid(), $1, $2, $3, 'Well', '', '')
"""


@pytest.fixture(scope="module")
def charts(world: World, backend: Backend) -> list[str]:
    """The first is the patient's own."""
    made = [str(add_chart(backend, f"Chart {number}")) for number in range(4)]
    world.link(made[0], world.patient)
    return made


@pytest.fixture(scope="module")
def clinic(world: World, backend: Backend, charts: list[str]) -> World:
    """Appointments and records of two doctors and four charts, some at the same instant."""
    chance = random.Random(6)  # noqa: S311  # no secret
    both = [UUID(browser.me()["id"]) for browser in (world.doctor, world.other_doctor)]
    for number in range(48):
        begins = FIRST + timedelta(days=number % 12, hours=number % 3)
        patient, doctor = UUID(chance.choice(charts)), chance.choice(both)
        add_appointment(
            backend, doctor, patient, begins + timedelta(hours=number), chance.choice(STATUSES[1:])
        )
        backend.sql(RECORD, patient, doctor, begins)
    for number in range(12):
        begins = FIRST + timedelta(days=40 + number)
        add_appointment(backend, chance.choice(both), UUID(chance.choice(charts)), begins)
    return world


def everything(browser: Browser, noun: str, query: Query) -> list[Row]:
    """The whole list, page by page, whose totals agree."""
    rows: list[Row] = []
    for page in range(1, 12):
        answer = browser.get(f"/api/{noun}", params={**query, "limit": "25", "page": str(page)})
        assert answer.status_code == 200, answer.text
        rows += answer.json()[noun]
        if len(rows) == answer.json()["total"]:
            return rows
    raise AssertionError("the pages do not end at the total")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


Keep = Callable[[Row, str], bool]
KEEPS: dict[str, Keep] = {
    "patientId": lambda row, value: bool(row["patientId"] == value),
    "doctorId": lambda row, value: bool(row["doctorId"] == value),
    "status": lambda row, value: row["status"] in value.split(","),
    "from": lambda row, value: instant(row["date"]) >= instant(value),
    "to": lambda row, value: instant(row["date"]) < instant(value),
    "date": lambda row, value: bool(row["date"][:10] == value),
    "ids": lambda row, value: row["id"] in value.split(","),
}


def choices(noun: str, all_rows: list[Row], chance: random.Random) -> Query:
    """A value for each filter; a list has as many values as chance wants, some of which are nobody's."""
    row = chance.choice(all_rows)
    ids = [one["id"] for one in chance.sample(all_rows, 20)]
    values = {
        "patientId": chance.choice([row["patientId"], NOBODY]),
        "doctorId": row["doctorId"],
        "from": row["date"],
        "to": chance.choice(all_rows)["date"],
    }
    if noun == "records":
        return values
    status = ",".join(chance.sample(STATUSES, chance.randint(1, 3)))
    return {**values, "status": status, "date": row["date"][:10], "ids": ",".join([*ids, NOBODY, ids[0]])}


def queries(noun: str, all_rows: list[Row]) -> Iterator[Query]:
    """Each filter alone, and any together."""
    chance = random.Random(noun)  # noqa: S311  # no secret
    for _ in range(2):
        yield from ({name: value} for name, value in choices(noun, all_rows, chance).items())
    for _ in range(14):
        values = choices(noun, all_rows, chance)
        yield {name: values[name] for name in chance.sample(sorted(values), chance.randint(2, 4))}


@pytest.mark.parametrize("noun", ["appointments", "records"])
@pytest.mark.parametrize("role", [Role.ADMIN, Role.DOCTOR, Role.PATIENT])
def test_filters_narrow_what_the_caller_sees(
    noun: str, role: Role, clinic: World, client_as: Callable[[Role], Browser]
) -> None:
    """Contract: "all filters of a request hold together". The order stays, and the total is exact."""
    browser = client_as(role)
    of_all, seen = everything(clinic.admin, noun, {}), everything(browser, noun, {})
    for query in queries(noun, of_all):
        expected = [row for row in seen if all(KEEPS[name](row, value) for name, value in query.items())]
        assert everything(browser, noun, query) == expected, query


@pytest.mark.parametrize("noun", ["appointments", "records"])
def test_lists_are_sorted_by_date_either_way(noun: str, clinic: World) -> None:
    """Contract: "equal values follow by id, the same way"."""
    ascending = sorted(everything(clinic.admin, noun, {}), key=lambda row: (row["date"], row["id"]))
    several = {"status": "cancelled,completed"} if noun == "appointments" else {}
    queries = [several, {"from": ascending[20]["date"]}, {"patientId": ascending[0]["patientId"]}]
    for query in ({}, *queries, {**several, "to": ascending[30]["date"]}):
        kept = [row for row in ascending if all(KEEPS[name](row, value) for name, value in query.items())]
        assert everything(clinic.admin, noun, {**query, "sort": "date"}) == kept
        assert everything(clinic.admin, noun, {**query, "sort": "-date"}) == kept[::-1]


@pytest.mark.parametrize("query", [{}, {"status": "completed,cancelled"}, {"status": "completed"}])
def test_appointments_are_sorted_by_when_they_were_booked(
    query: Query, clinic: World, backend: Backend
) -> None:
    ids = [str(row["id"]) for row in backend.sql("SELECT id FROM appointments ORDER BY created_at, id")]
    kept = {row["id"] for row in everything(clinic.admin, "appointments", query)}
    for sort, expected in (("created_at", ids), ("-created_at", ids[::-1])):
        found = everything(clinic.admin, "appointments", {**query, "sort": sort})
        assert [row["id"] for row in found] == [one for one in expected if one in kept]


def test_charts_are_filtered_and_sorted(world: World, backend: Backend) -> None:
    """By name or by when they were opened, also those that a search finds; by a day of birth; by ids."""
    made = [
        world.chart(name=name, dateOfBirth=born)
        for name, born in [("Zoe Sortable", "1971-01-01"), ("Ángel Sortable", "1971-01-01"),
                           ("Bob Sortable", "1972-02-02"), ("Ann Elsewhere", "1971-01-01")]
    ]  # fmt: skip
    zoe, angel, bob, ann = (chart["id"] for chart in made)
    asked: list[tuple[Query, list[str]]] = [
        ({"dateOfBirth": "1971-01-01"}, [angel, ann, zoe]),
        ({"dateOfBirth": "1971-01-01", "sort": "-name"}, [zoe, ann, angel]),
        ({"dateOfBirth": "1971-01-01", "search": "sortable"}, [angel, zoe]),
        ({"dateOfBirth": "2099-01-01"}, []),
        ({"search": "sortable", "sort": "-name"}, [zoe, bob, angel]),
        ({"search": "sortable", "sort": "created_at"}, [zoe, angel, bob]),
        ({"search": "sortable", "sort": "-created_at"}, [bob, angel, zoe]),
        ({"ids": f"{bob},{NOBODY},{zoe}"}, [bob, zoe]),
        ({"ids": f"{bob},{zoe.upper()},{bob}", "sort": "created_at"}, [zoe, bob]),
        ({"ids": f"{bob},{zoe}", "search": "zoe"}, [zoe]),
        ({"ids": f"{bob},{zoe}", "dateOfBirth": "1972-02-02"}, [bob]),
    ]
    for query, expected in asked:
        assert [row["id"] for row in everything(world.staff, "patients", query)] == expected, query
    opened = [str(row["id"]) for row in backend.sql("SELECT id FROM patients ORDER BY created_at, id")]
    named = [str(row["id"]) for row in backend.sql("SELECT id FROM patients ORDER BY sort_name, id")]
    for sort, expected in (("created_at", opened), ("-created_at", opened[::-1]), ("-name", named[::-1])):
        assert [row["id"] for row in everything(world.staff, "patients", {"sort": sort})] == expected


def test_a_patient_finds_their_own_chart_only(clinic: World, charts: list[str]) -> None:
    for query in ({"ids": ",".join(charts)}, {"dateOfBirth": "1980-05-17"}, {"sort": "-created_at"}):
        assert [row["id"] for row in everything(clinic.patient, "patients", query)] == charts[:1], query
    assert everything(clinic.patient, "patients", {"ids": charts[1]}) == []


def test_a_merged_chart_is_found_by_its_old_id(world: World) -> None:
    """Contract: "of a chart that was merged into another, the other". Its appointments and records, too."""
    first, second, third = (world.chart() for _ in range(3))
    visit, record = world.appointment(patientId=first["id"]), world.record(first["id"])
    for survivor, merged in ((second, first), (third, second)):
        body = {"from": merged["id"], "reason": "The same person"}
        assert world.admin.post(f"/api/patients/{survivor['id']}/merge", body).status_code == 200
    for old in (first["id"], second["id"], f"{first['id']},{third['id']}"):
        assert [row["id"] for row in everything(world.staff, "patients", {"ids": old})] == [third["id"]]
    for old in (first["id"], third["id"]):
        found = everything(world.staff, "appointments", {"patientId": old, "status": "scheduled"})
        assert [row["id"] for row in found] == [visit["id"]]
        found = everything(world.doctor, "records", {"patientId": old, "sort": "date"})
        assert [row["id"] for row in found] == [record["id"]]


def add_specialist(backend: Backend, name: str, field: str) -> str:
    doctor = add_doctor(backend, name)
    backend.sql("UPDATE users SET specialization = $2 WHERE id = $1", doctor, field)
    return str(doctor)


def test_doctors_are_found_and_sorted(world: World, backend: Backend) -> None:
    """Active ones alone; a specialization whatever its case."""
    zed, amy, eve, gone = (
        add_specialist(backend, f"{name} Sought", field)
        for name, field in (("Zed", "Podology"), ("Amy", "podology"), ("Eve", "Urology"), ("Gus", "Podology"))
    )
    assert world.admin.patch(f"/api/users/{gone}", {"status": "disabled"}).status_code == 200
    asked: list[tuple[Query, list[str]]] = [
        ({"search": "sought"}, [amy, eve, zed]),
        ({"search": "sought", "sort": "-name"}, [zed, eve, amy]),
        ({"search": "sought", "specialization": "Podology"}, [amy, zed]),
        ({"specialization": "PODOLOGY"}, [amy, zed]),
        ({"specialization": "podology", "sort": "-name"}, [zed, amy]),
        ({"specialization": "Podo"}, []),
        ({"ids": f"{gone},{zed},{world.admin.me()['id']},{eve}"}, [eve, zed]),
        ({"ids": f"{zed},{eve}", "search": "eve", "specialization": "urology"}, [eve]),
    ]
    for query, expected in asked:
        assert [row["id"] for row in everything(world.patient, "doctors", query)] == expected, query
    by_name = everything(world.patient, "doctors", {})
    assert everything(world.patient, "doctors", {"sort": "-name"}) == by_name[::-1]


@pytest.mark.parametrize(
    ("noun", "rule"),
    [
        ("patients", "name, -name, created_at, -created_at"),
        ("doctors", "name, -name"),
        ("appointments", "date, -date, created_at, -created_at"),
        ("records", "date, -date"),
    ],
)
def test_any_other_order_is_400(noun: str, rule: str, world: World) -> None:
    for sort in (
        "id",
        "+name",
        "--name",
        "Name",
        "name,created_at",
        "date,id",
        "email",
        "createdAt",
        "-",
        "%20",
    ):
        refused = world.doctor.get(f"/api/{noun}?sort={sort}")
        assert (refused.status_code, refused.json()["detail"]) == (400, f"sort: must be one of {rule}"), sort


@pytest.mark.parametrize("noun", ["patients", "doctors", "appointments"])
def test_a_hundred_ids_are_a_list_and_one_more_is_400(noun: str, world: World) -> None:
    ids = [str(uuid4()) for _ in range(100)]
    assert world.admin.get(f"/api/{noun}?ids={','.join(ids)}").json()["total"] == 0
    assert world.admin.get(f"/api/{noun}?ids={'%2C'.join(ids)}").json()["total"] == 0
    problem = {"accept": "application/problem+json"}
    refused = world.admin.get(f"/api/{noun}?ids={','.join([*ids, NOBODY])}", headers=problem)
    assert (refused.status_code, refused.json()["code"]) == (400, "too_many_items")
    assert refused.json()["detail"] == "ids: must be at most 100 values, separated by commas"
    assert world.admin.get(f"/api/{noun}?ids={ids[0]},1").json() == {"detail": "ids: must be a UUID"}


def test_a_filtered_list_of_appointments_names_what_it_tells_of(
    clinic: World, backend: Backend, charts: list[str]
) -> None:
    """As records do: the chart that is asked for, also where it has none; a patient's question about somebody
    else tells them nothing, and is nobody's event."""

    def event_of(browser: Browser, query: str) -> Any:
        before = newest(backend)
        assert browser.get(f"/api/appointments?{query}").status_code == 200
        [event] = backend.sql("SELECT patient_id, patient_ids FROM audit_events WHERE id > $1", before)
        return event

    empty = clinic.chart()["id"]
    for browser, chart, named in (
        (clinic.staff, charts[1], charts[1]),
        (clinic.staff, empty, empty),
        (clinic.patient, charts[0], charts[0]),
        (clinic.patient, charts[1], None),
    ):
        event = event_of(browser, f"patientId={chart}")
        assert (event["patient_id"] and str(event["patient_id"])) == named
        assert [str(one) for one in event["patient_ids"]] == ([named] if named else [])
    several = event_of(clinic.staff, f"doctorId={clinic.doctor.me()['id']}&limit=1")
    assert several["patient_id"] is None
    assert set(charts) <= {str(one) for one in several["patient_ids"]}
