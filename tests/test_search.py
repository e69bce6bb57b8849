"""Paging and search (contract, "Paging and search"; requirement, section 3): exact, literal and stable."""

from typing import Any
from unicodedata import normalize
from uuid import uuid4

import pytest

from security.roles import Role
from tests.client import Browser
from tests.factories import World
from tests.service import Backend

DECOMPOSED = normalize("NFD", "Mártón Ágoston")
NAMES = [
    "100% Cotton", "Under_Score", "Back\\slash", "Com,ma", "Émile Zola", DECOMPOSED, "Straße 5", "STRASSE 6",
    "ΣΊΣΥΦΟΣ", "İbrahim", "O'Brien \"Quoted\"", "Robert'); DROP TABLE patients;--", "null", "A+B", "[a-z]*",
    "双葉 杏", "ᾴδω", "Tab\tbed", "#?&=;/",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def named(world: World) -> None:
    for name in NAMES:
        world.chart(name=name)


def found(browser: Browser, term: str) -> list[str]:
    """The names on the charts that a search finds, in their order."""
    answer = browser.get("/api/patients", params={"search": term, "limit": 100})
    assert answer.status_code == 200
    page = answer.json()
    assert page["total"] == len(page["patients"])
    return [patient["name"] for patient in page["patients"]]


# What is found


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("%", ["100% Cotton"]),
        ("0% C", ["100% Cotton"]),
        ("%%", []),
        ("100%n", []),
        ("_", ["Under_Score"]),
        ("r_s", ["Under_Score"]),
        ("Und_r", []),
        ("\\", ["Back\\slash"]),
        ("\\\\", []),
        ("k\\s", ["Back\\slash"]),
        ("\\%", []),
        ("\\_", []),
        (",", ["Com,ma"]),
        ("'", ['O\'Brien "Quoted"', "Robert'); DROP TABLE patients;--"]),
        ('"', ['O\'Brien "Quoted"']),
        ("; drop table", ["Robert'); DROP TABLE patients;--"]),
        ("NULL", ["null"]),
        ("a+b", ["A+B"]),
        ("[A-Z]*", ["[a-z]*"]),
        (".*", []),
        ("杏", ["双葉 杏"]),
        ("tab\tb", ["Tab\tbed"]),
        ("#?&=;/", ["#?&=;/"]),
    ],
)
def test_a_search_term_means_itself(world: World, term: str, names: list[str]) -> None:
    """A literal substring: `%`, `_` and `\\` mean themselves, and so does everything else."""
    assert found(world.staff, term) == names


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("émile", ["Émile Zola"]),
        ("ÉMILE", ["Émile Zola"]),
        (normalize("NFD", "Émile"), ["Émile Zola"]),
        (normalize("NFD", "é"), ["Émile Zola"]),
        ("Emile", []),
        ("márton", []),
        ("MÁRTÓN", [DECOMPOSED]),
        (normalize("NFD", "ágoston"), [DECOMPOSED]),
        ("straße", ["Straße 5", "STRASSE 6"]),
        ("strasse", ["Straße 5", "STRASSE 6"]),
        ("σίσυφος", ["ΣΊΣΥΦΟΣ"]),
        ("Σίσυφοσ", ["ΣΊΣΥΦΟΣ"]),
        ("\u03b1\u0345\u0301ΔΩ", ["ᾴδω"]),
        ("İBRA", ["İbrahim"]),
        ("ibrahİM".lower(), []),
        ("cOTTON", ["100% Cotton"]),
    ],
)
def test_case_and_composition_do_not_matter_but_accents_do(world: World, term: str, names: list[str]) -> None:
    """`É` finds `é`, however either is encoded; `E` is another letter."""
    assert found(world.staff, term) == names


def test_name_email_and_phone_are_searched_and_nothing_else(world: World) -> None:
    world.chart(
        name="Fiona Field", email="Fionas.MAIL@Example.org", phone="+44 (0) 20-7946",
        address="Unsearched Road", bloodType="O-", allergies="Unsearched pollen",
    )  # fmt: skip
    for term in ("fiona field", "fionas.mail@example.ORG", "L@E", "(0) 20-", "+44", "a f"):
        assert found(world.staff, term) == ["Fiona Field"], term
    for term in ("Unsearched", "O-", "1980-05-17", "other"):
        assert found(world.staff, term) == [], term


@pytest.mark.parametrize("between", ["", " ", "\n", "\t", ",", "|", "\u001f", "\uffff", "\ufffd", "\ufffe"])
def test_no_search_matches_across_two_fields(world: World, between: str) -> None:
    """Neither as they stand beside each other nor through any separator that may be stored between them."""
    world.chart(name="Xavier", email="yolanda@example.com", phone="+777")
    assert found(world.staff, f"Xavier{between}yolanda") == []
    assert found(world.staff, f"example.com{between}+777") == []


@pytest.mark.parametrize("term", ["\uffff", "\ufffe", "\ufdd0"])
def test_a_noncharacter_is_found_where_it_stands_only(world: World, term: str) -> None:
    """Whatever separates the fields inside must not be found by asking for it."""
    assert found(world.staff, term) == []
    name = f"Non{term}character {uuid4().hex}"
    world.chart(name=name)
    assert found(world.staff, f"n{term}C") == [name]


def test_the_search_follows_a_change(world: World) -> None:
    some = world.chart(name="Before Change", email="before.change@example.com", phone="+1 before")
    changed = {"name": "Après Changement", "phone": "+1 aprés"}
    assert world.staff.patch(f"/api/patients/{some['id']}", changed).status_code == 200
    assert found(world.staff, "before change") == []
    assert found(world.staff, "+1 before") == []
    assert found(world.staff, "APRÈS") == ["Après Changement"]
    assert found(world.staff, "+1 aprÉs") == ["Après Changement"]
    assert found(world.staff, "before.change@") == ["Après Changement"]


def test_a_patient_searches_his_own_world(world: World) -> None:
    """Lists and totals do not contain what the caller may not see, whatever he searches for."""
    own = world.chart(name="Paula Patient")
    world.link(own["id"], world.patient)
    assert found(world.patient, "") == found(world.patient, "paula") == ["Paula Patient"]
    assert found(world.patient, "%") == found(world.patient, "zola") == []
    assert found(world.other_patient, "paula") == []
    assert world.staff.delete(f"/api/patients/{own['id']}/account").status_code == 200


def test_the_bounds_of_a_search(world: World) -> None:
    """Empty searches for nothing in particular; 200 characters are enough, NUL is none, nor is what is not
    UTF-8; bad escapes are some text or other."""
    every = world.staff.get("/api/patients").json()["total"]
    assert world.staff.get("/api/patients?search=").json()["total"] == every
    assert found(world.staff, "x" * 200) == []
    for refused, why in (
        ("x" * 201, "must be text of at most 200 characters"),
        ("\u0000", "must not contain NUL characters"),
        ("a\u0000b", "must not contain NUL characters"),
    ):
        answer = world.staff.get("/api/patients", params={"search": refused})
        assert (answer.status_code, answer.json()) == (400, {"detail": f"search: {why}"})
    for broken in ("%FF", "%C3", "%ED%A0%80", "%F8%88%80%80%80", "a%FFb"):
        answer = world.staff.get(f"/api/patients?search={broken}")
        assert (answer.status_code, answer.json()) == (
            400,
            {"detail": "search: must be UTF-8, percent-encoded"},
        )
    for broken in ("%ZZ", "%"):
        assert world.staff.get(f"/api/patients?search={broken}").json()["total"] < every
    assert found(world.staff, "%41") == []


# In what order


def test_patients_are_ordered_by_name_then_id(world: World) -> None:
    """Names compare folded (case aside) by code point, the same on every server; equal ones go by id."""
    names = ["Zoe", "anna", "Anna", "ANNA", " anna ", "Éva", "eva", "Eva", "Bob", "bob b"]
    names.append(normalize("NFD", "éva"))
    made = [world.chart(name=name, phone="+order") for name in names * 2]

    def key(patient: dict[str, Any]) -> tuple[str, str]:
        return normalize("NFC", patient["name"].strip()).casefold(), patient["id"]

    answer = world.staff.get("/api/patients?search=%2Border&limit=100").json()
    assert [patient["id"] for patient in answer["patients"]] == [p["id"] for p in sorted(made, key=key)]
    folded = [normalize("NFC", patient["name"].strip()).casefold() for patient in answer["patients"]]
    assert folded == ["anna"] * 8 + ["bob"] * 2 + ["bob b"] * 2 + ["eva"] * 4 + ["zoe"] * 2 + ["éva"] * 4


# Page by page


def test_pages_join_up_without_gap_or_double(world: World) -> None:
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


def test_deep_pages(world: World, backend: Backend) -> None:
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
def test_every_list_pages_alike(world: World, role: Role, path: str, items: str) -> None:
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
def test_page_and_limit_have_bounds(
    world: World, role: Role, path: str, items: str, parameter: str, values: list[str]
) -> None:
    """`page` from 1, `limit` from 1 to 100, anything else is 400 and says so."""
    most = {"page": 2_147_483_647, "limit": 100}[parameter]
    for value in values:
        answer = world.people[role].get(path, params={parameter: value})
        assert answer.status_code == 400, value
        assert answer.json() == {"detail": f"{parameter}: must be an integer from 1 to {most}"}
    assert world.people[role].get(path, params={parameter: str(most)}).status_code == 200
