# ruff: noqa: RUF001 (letters that look alike are what this is about)
"""Paging and search (contract, "Paging and search"; requirement, section 3): exact, literal and stable."""

from typing import Any
from unicodedata import normalize
from uuid import uuid4

import pytest

from security.roles import Role
from tests.support.client import Browser
from tests.support.factories import World
from tests.support.service import Backend

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


# What a search finds


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
        ("'", ['O\'Brien "Quoted"', "Robert'); DROP TABLE patients;--"]),
        ('"', ['O\'Brien "Quoted"']),
        ("; drop table", ["Robert'); DROP TABLE patients;--"]),
        ("NULL", ["null"]),
        ("a+b", ["A+B"]),
        ("[A-Z]*", ["[a-z]*"]),
        (".*", []),
        ("杏", ["双葉 杏"]),
        ("tab\tb", ["Robert'); DROP TABLE patients;--", "Tab\tbed"]),
        ("otton,100", ["100% Cotton"]),
        ("#?&=;/", ["#?&=;/"]),
    ],
)
def test_a_search_term_is_matched_literally(world: World, term: str, names: list[str]) -> None:
    """A literal substring: `%`, `_` and `\\` mean themselves, and so does everything else."""
    assert found(world.staff, term) == names


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("émile", ["Émile Zola"]),
        ("ÉMILE", ["Émile Zola"]),
        (normalize("NFD", "Émile"), ["Émile Zola"]),
        ("Emile", ["Émile Zola"]),
        ("márton", [DECOMPOSED]),
        ("MÁRTÓN", [DECOMPOSED]),
        ("AGOSTON", [DECOMPOSED]),
        (normalize("NFD", "ágoston"), [DECOMPOSED]),
        ("straße", ["Straße 5", "STRASSE 6"]),
        ("strasse", ["Straße 5", "STRASSE 6"]),
        ("σίσυφος", ["ΣΊΣΥΦΟΣ"]),
        ("Σίσυφοσ", ["ΣΊΣΥΦΟΣ"]),
        ("\u03b1\u0345\u0301ΔΩ", ["ᾴδω"]),
        ("İBRA", ["İbrahim"]),
        ("ibrahİM".lower(), ["İbrahim"]),
        ("ıbrahım", ["İbrahim"]),
        ("ＺＯＬＡ", ["Émile Zola"]),
        ("o’brien", ['O\'Brien "Quoted"']),
        ("OʼBRIEN", ['O\'Brien "Quoted"']),
        ("o`brien", ['O\'Brien "Quoted"']),
        ("zola émile", ["Émile Zola"]),
        ("Zola,\u3000Émi\u00a0le", ["Émile Zola"]),
        ("cOTTON", ["100% Cotton"]),
    ],
)
def test_search_ignores_case_accents_width_and_word_order(world: World, term: str, names: list[str]) -> None:
    """`É` finds `e`, however either is encoded, and words are found in any order."""
    assert found(world.staff, term) == names


def test_name_email_and_phone_are_searched_and_nothing_else(world: World) -> None:
    world.chart(
        name="Fiona Field", email="Fionas.MAIL@Example.org", phone="+44 (0) 20-7946",
        address="Unsearched Road", bloodType="O-", allergies="Unsearched pollen",
    )  # fmt: skip
    for term in ("field fiona", "fionas.mail@example.ORG", "L@E", "(0)20-79", "+44"):
        assert found(world.staff, term) == ["Fiona Field"], term
    for term in ("Unsearched", "O-", "1980-05-17", "other"):
        assert found(world.staff, term) == [], term


@pytest.mark.parametrize("between", ["", "|", "-", "\u200b", "\uffff", "\ufffd", "\ufffe"])
def test_a_search_term_does_not_match_across_two_fields(world: World, between: str) -> None:
    """Neither as they stand beside each other nor through any separator that may be stored between them."""
    world.chart(name="Xavier", email="yolanda@example.com", phone="+777")
    assert found(world.staff, f"Xavier{between}yolanda") == []
    assert found(world.staff, f"example.com{between}+777") == []


@pytest.mark.parametrize("term", ["\uffff", "\ufffe", "\ufdd0"])
def test_a_noncharacter_in_a_search_matches_only_itself(world: World, term: str) -> None:
    """The character that separates the stored fields must not match a search."""
    assert found(world.staff, term) == []
    name = f"Non{term}character {uuid4().hex}"
    world.chart(name=name)
    assert found(world.staff, f"n{term}C") == [name]


PHONE = "+44 (0)20.7946-0018"


@pytest.mark.parametrize(
    "term",
    [
        "20.7946",
        "2079460018",
        "+440207946",
        "(0)",
        "0-18",
        "794600",
        "7946 0018",
        "(0)20",
        "+44020",
        "[44]",
        "7946/00",
    ],
)
def test_searching_digits_finds_a_phone_in_any_spelling(world: World, term: str) -> None:
    """Blanks, dots, dashes and brackets between digits do not matter, on either side."""
    name = f"Digits{uuid4().hex[:6].translate(str.maketrans('0123456789', 'ghijklmnop'))}"
    world.chart(name=name, email=f"{name}@example.com", phone=PHONE)
    assert name in found(world.staff, f"{name} {term}")
    world.chart(name=f"Full{name}", phone="＋４４（０）２０．７９４６－００１８")
    assert found(world.staff, f"full{name} {term}") == [f"Full{name}"]
    for other in ("+0", "8100", "44-20", "00180"):
        assert found(world.staff, f"{name} {other}") == []


def test_every_word_of_a_search_must_be_found_in_some_field(world: World) -> None:
    """In any of the fields, in any order, as often as it is said; one missing word and nothing is found."""
    world.chart(name="Wanda Wörd", email="wanda@mail.example", phone="+1 (234) 567")
    for term in (
        "wanda word", "WORD wanda", "wörd,wanda", " ,wanda,, word, ", "anda ord", "wanda wanda", "d w a n",
        "wanda mail 234567", "wanda word +1234567", "wanda\u2003wo\u0308rd", "word wor wo w",
    ):  # fmt: skip
        assert "Wanda Wörd" in found(world.staff, term), term
    for term in ("wanda wordy", "wanda 235", "wandaword", "word wanda zzz"):
        assert found(world.staff, term) == [], term


@pytest.mark.parametrize("term", [",", " ", " , ,\t", "\u3000", "\u00a0\u2003", "\u200b", ",،、"])
def test_a_blank_search_lists_everything(world: World, term: str) -> None:
    every = world.staff.get("/api/patients").json()
    assert world.staff.get("/api/patients", params={"search": term}).json() == every


def test_a_search_of_a_hundred_words_works(world: World) -> None:
    name = "".join(chr(code) for code in range(0x4E00, 0x4E00 + 100))
    world.chart(name=name)
    assert found(world.staff, " ".join(reversed(name))[:199]) == [name]
    assert found(world.staff, "a " * 100) != []


def test_searching_by_index_and_by_rows_finds_the_same(world: World, backend: Backend) -> None:
    """What is common, as ANALYZE says, is looked for in the rows; the answers are the same."""
    rare = [f"q{number}x{uuid4().hex[:4]}" for number in range(3)]
    for term in rare:
        world.chart(name=f"Anna {term}")
    terms = [*rare, "anna", "example.com", "example.com anna", f"example {rare[0]}", "zzzz", "an", "+1555"]
    before = [found(world.staff, term) for term in terms]
    backend.sql("ANALYZE patients")
    assert [found(world.staff, term) for term in terms] == before
    assert before[0] == [f"Anna {rare[0]}"]


def test_a_search_finds_changed_charts_by_their_new_values(world: World) -> None:
    some = world.chart(name="Before Change", email="stays@example.com", phone="+1 before")
    changed = {"name": "Après Changement", "phone": "+1 aprés"}
    assert world.staff.patch(f"/api/patients/{some['id']}", changed).status_code == 200
    assert found(world.staff, "before change") == []
    assert found(world.staff, "+1 before") == []
    assert found(world.staff, "APRÈS") == ["Après Changement"]
    assert found(world.staff, "+1 aprÉs") == ["Après Changement"]
    assert found(world.staff, "stays@") == ["Après Changement"]


def test_a_patients_search_finds_only_their_own_chart(world: World) -> None:
    """Lists and totals do not contain what the caller may not see, whatever they search for."""
    own = world.chart(name="Paula Patient")
    world.link(own["id"], world.patient)
    assert found(world.patient, "") == found(world.patient, "paula") == ["Paula Patient"]
    assert found(world.patient, "%") == found(world.patient, "zola") == []
    assert found(world.other_patient, "paula") == []
    assert world.staff.delete(f"/api/patients/{own['id']}/account").status_code == 200


def test_search_terms_out_of_bounds_are_400(world: World) -> None:
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
