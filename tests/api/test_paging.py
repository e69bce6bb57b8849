# ruff: noqa: RUF001 (letters that look alike are what this is about)
"""The order and the pages of every list (contract, "Paging and search")."""

from typing import Any
from unicodedata import normalize

import pytest

from security.roles import Role
from tests.support.factories import World
from tests.support.service import Backend

# The order of lists


ORDERED = [
    ["1 Anna"], ["Ágnes", normalize("NFD", "ágnes"), "AGNES"], ["Ángel"], [" anna ", "Anna", "ANNA"], ["bob"],
    ["Bob  B", "bob b"], ["Işık", "ISIK", "ışık"], ["Lukasz", "Łukasz"], ["O'Brien", "o’brien"], ["Oakley"],
    ["Ørsted"], ["Strasse", "Straße"], ["Zed"], ["Žofie"], ["ώρα", "Ωρα"],
]  # fmt: skip


def test_patients_are_ordered_by_name_then_id(world: World) -> None:
    """As people sort names, the same on every server; those that are alike but for case, accents and the like
    go by id."""
    made = [world.chart(name=name, phone="+order") for alike in ORDERED for name in alike * 2]
    made.reverse()
    rank = {name.strip(): place for place, alike in enumerate(ORDERED) for name in alike}

    def key(patient: dict[str, Any]) -> tuple[int, str]:
        return rank[patient["name"].strip()], patient["id"]

    answer = world.staff.get("/api/patients?search=%2Border&limit=100").json()
    assert [patient["id"] for patient in answer["patients"]] == [p["id"] for p in sorted(made, key=key)]
    every = [
        patient["id"]
        for page in (1, 2, 3, 4)
        for patient in world.staff.get(f"/api/patients?limit=100&page={page}").json()["patients"]
    ]
    ids = [patient["id"] for patient in answer["patients"]]
    assert [id for id in every if id in ids] == ids


@pytest.mark.slow
def test_accounts_and_doctors_are_ordered_and_searched_alike(world: World) -> None:
    names = ["Zed Überall", "Ángel Überall", "Łukasz Überall", "Ibrahim Überall", "İbrahim Überall"]
    for name in names:
        world.account(Role.DOCTOR, name=name, phone="(555) 765-4321")
    in_order = ["Ángel Überall", "Ibrahim Überall", "İbrahim Überall", "Łukasz Überall", "Zed Überall"]
    doctors = world.patient.get("/api/doctors?limit=100").json()["doctors"]
    listed = [doctor["name"] for doctor in doctors if doctor["name"] in names]
    assert sorted(listed, key=in_order.index)[0::3] == listed[0::3]
    for term in ("uberall", "(555) 765-4321", "ÜBER 7654321"):
        page = world.admin.get("/api/users", params={"search": term, "role": "doctor"}).json()
        assert [user["name"] for user in page["users"]] == listed
        assert page["total"] == len(names)
    for term, filters, expected in (
        ("lukasz uber", {}, ["Łukasz Überall"]),
        ("ibrahim", {"status": "active"}, listed[1:3]),
        ("ibrahim", {"role": "patient"}, []),
        ("ibrahim", {"linked": "true"}, []),
        ("ibrahim", {"linked": "false"}, listed[1:3]),
    ):
        page = world.admin.get("/api/users", params={"search": term, **filters}).json()
        assert ([user["name"] for user in page["users"]], page["total"]) == (expected, len(expected))
    assert world.staff.get("/api/users?search=uberall").json() == {"users": [], "total": 0}


# Pages


def test_pages_join_up_without_gaps_or_duplicates(world: World) -> None:
    """25 charts of one name, ordered by id alone: 10, 10, 5 and then none; the total is exact."""
    made = {world.chart(name="Twin", phone="+25 twins")["id"] for _ in range(25)}
    pages = [
        world.staff.get("/api/patients", params={"search": "+25 TWINS", "page": page}).json()
        for page in (1, 2, 3, 4, 1_000_000)
    ]
    assert [len(page["patients"]) for page in pages] == [10, 10, 5, 0, 0]
    assert [page["total"] for page in pages] == [25] * 5
    assert [page["page"] for page in pages] == [1, 2, 3, 4, 1_000_000]
    ids = [patient["id"] for page in pages for patient in page["patients"]]
    assert ids == sorted(made)
    for limit in (1, 7, 24, 25, 26, 100):
        params = {"search": "+25 twins", "limit": limit, "page": 25 // limit + 1}
        last = world.staff.get("/api/patients", params=params).json()
        assert [patient["id"] for patient in last["patients"]] == ids[25 // limit * limit :]
        assert (last["total"], last["limit"]) == (25, limit)


def test_deep_pages_begin_at_the_right_row(world: World, backend: Backend) -> None:
    """Thousands of charts: each page stands where counting says, and the total stays exact."""
    backend.sql(
        "INSERT INTO patients "
        "(id, name, email, phone, date_of_birth, gender, address, sort_name, search_text) "
        "SELECT gen_random_uuid(), 'Deep ' || to_char(n, 'FM00000'), 'deep@example.com', '+1', '1980-01-01', "
        "'other', 'Here', 'deep ' || to_char(n, 'FM00000'), 'deep ' || to_char(n, 'FM00000') "
        "FROM generate_series(1, 3000) AS n"
    )
    for page, limit in ((1, 10), (2, 100), (300, 10), (30, 100), (429, 7), (3000, 1)):
        answer = world.admin.get("/api/patients", params={"search": "deep ", "page": page, "limit": limit})
        first = (page - 1) * limit + 1
        assert [patient["name"] for patient in answer.json()["patients"]] == [
            f"Deep {number:05}" for number in range(first, min(first + limit, 3001))
        ]
        assert answer.json()["total"] == 3000
    every = world.admin.get("/api/patients").json()["total"]
    assert every == world.admin.get("/api/dashboard/stats").json()["totalPatients"] > 3000
    past = world.admin.get("/api/patients", params={"page": every // 100 + 2, "limit": 100}).json()
    assert (past["patients"], past["total"]) == ([], every)


LISTS = [
    (Role.STAFF, "/api/patients", "patients"),
    (Role.PATIENT, "/api/patients", "patients"),
    (Role.PATIENT, "/api/doctors", "doctors"),
    (Role.STAFF, "/api/appointments", "appointments"),
    (Role.PATIENT, "/api/appointments", "appointments"),
    (Role.DOCTOR, "/api/records", "records"),
    (Role.PATIENT, "/api/records", "records"),
    (Role.ADMIN, "/api/users", "users"),
]


@pytest.mark.parametrize(("role", "path", "items"), LISTS)
def test_every_list_has_the_same_defaults_and_an_empty_page_past_the_end(
    world: World, role: Role, path: str, items: str
) -> None:
    """Default page 1 and limit 10; past the end an empty list and the true total."""
    browser = world.people[role]
    if path == "/api/records":
        some = world.chart()
        for _ in range(11):
            world.record(some["id"])
    if path == "/api/appointments":
        for _ in range(11):
            world.appointment()
    first = browser.get(path).json()
    assert browser.get(f"{path}?page=1&limit=10").json() == first
    assert len(first[items]) == min(10, first["total"])
    second = browser.get(f"{path}?page=2").json()
    assert second["total"] == first["total"]
    assert len(second[items]) == min(10, max(0, first["total"] - 10))
    past = browser.get(f"{path}?page=2147483647&limit=100").json()
    assert past == {**first, items: [], **({"page": 2147483647, "limit": 100} if "page" in first else {})}


@pytest.mark.slow
@pytest.mark.parametrize(("role", "path", "items"), LISTS)
@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        (
            "page",
            ["0", "-1", "2147483648", "99999999999999999999", "1.5", "one", "", "true", "null", "\u0661"],
        ),
        ("limit", ["0", "-10", "101", "9" * 30, "10.5", "ten", "", "all", "null", "0x10", "1 0"]),
    ],
)
def test_page_and_limit_out_of_bounds_are_400(
    world: World, role: Role, path: str, items: str, parameter: str, values: list[str]
) -> None:
    """`page` from 1, `limit` from 1 to 100, anything else is 400 and says so."""
    most = {"page": 2_147_483_647, "limit": 100}[parameter]
    for value in values:
        answer = world.people[role].get(path, params={parameter: value})
        assert answer.status_code == 400, value
        assert answer.json() == {"detail": f"{parameter}: must be an integer from 1 to {most}"}
    assert world.people[role].get(path, params={parameter: str(most)}).status_code == 200
