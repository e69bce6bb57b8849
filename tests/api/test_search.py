# ruff: noqa: RUF001 (letters that look alike are what this is about)
"""Paging and search (contract, "Paging and search"; requirement, section 3): exact, literal and stable."""

from unicodedata import normalize
from uuid import uuid4

import pytest

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
    full_width = "＋４４（０）２０．７９４６－００１８"
    world.chart(name=f"Full{name}", email=f"full{name}@example.com", phone=full_width)
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
