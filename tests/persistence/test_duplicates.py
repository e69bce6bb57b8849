"""By what duplicates of a chart are found, and how alike they are: without a database."""

from datetime import UTC, date, datetime
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from persistence.duplicates.likeness import MatchedField, compare_phones, most_alike
from persistence.duplicates.sought import (
    Sought,
    dates_like,
    digits_of,
    orders_of,
    probes_of,
    trigrams_of,
    words_of,
)
from persistence.models import Gender
from persistence.patients import SummaryRow
from persistence.postgres.folding import fold
from persistence.postgres.latin import latin, latin_trigrams
from tests.persistence.test_duplicates_recall import PEOPLE, mistyped, swapped


def row(name: str, **changes: Any) -> SummaryRow:
    chart = SummaryRow(
        uuid4(), name, "a@b.example", "+1 555 010 0200", date(1980, 5, 17), Gender.OTHER, "Here",
        datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    return chart._replace(**changes)


def score(asked: str, stored: str) -> float:
    found = most_alike(Sought(asked, None, "", ""), [row(stored)], 1)
    return found[0].score if found else 0


def test_a_name_with_one_typing_error_has_all_trigrams_of_a_probe() -> None:
    """In whatever order its words are. Of two words of few letters, where that leaves too few trigrams, it
    need not."""
    chance = Random(1)  # noqa: S311  # no secret
    for person in PEOPLE:
        if min(map(len, person.name.split())) < 6:
            continue
        for _ in range(20):
            stored = trigrams_of(words_of(fold(swapped(mistyped(person.name, chance)))))
            assert any(probe.trigrams <= stored for probe in probes_of(Sought(person.name, None, "", "")))


@pytest.mark.parametrize(
    ("born", "like", "unlike"),
    [
        (
            date(1987, 4, 12),
            [
                date(1987, 4, 12), date(1987, 12, 4), date(1987, 4, 21), date(1987, 4, 2), date(1987, 4, 11),
                date(1987, 4, 13), date(1978, 4, 12), date(1997, 4, 12), date(1987, 7, 12),
            ],
            [date(1987, 5, 13), date(1988, 5, 12), date(1986, 4, 13)],
        ),
        (date(2024, 3, 1), [date(2024, 2, 29), date(2024, 1, 3)], [date(2023, 2, 28)]),
        (date.min, [date(1, 1, 2)], [date.max]),
        (date.max, [date(9999, 12, 30)], [date.min]),
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_makes_another_date(born: date, like: list[date], unlike: list[date]) -> None:
    found = dates_like(born)
    assert found.issuperset({born, *like})
    assert found.isdisjoint(unlike)
    assert len(found) < 80


def test_a_name_of_few_words_is_looked_for_in_every_order() -> None:
    assert set(orders_of("Ana María  Silva")) == {
        "ana maria silva", "ana silva maria", "maria ana silva", "maria silva ana", "silva ana maria",
        "silva maria ana",
    }  # fmt: skip
    assert orders_of("Ana Maria da Silva") == ["ana maria da silva"]
    assert orders_of(" ") == []


def test_a_name_of_any_length_has_few_probes() -> None:
    """So the statement takes no longer than that of another."""
    name = " ".join(f"{letter}onquistador{letter}" for letter in "abcdefghijklmnop")
    assert len(name) > 200
    assert len(probes_of(Sought(name[:200], date(2000, 1, 1), "x" * 242 + "@y.example", "1" * 40))) < 30


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("Ángel ÁLVAREZ", "angel alvarez"),
        ("Łukasz Weiß", "lukasz weiss"),
        ("Наталья Щербакова", "natalya shcherbakova"),
        ("王伟", "wang wei"),
        ("김민수", "gim min su"),
        ("Γιώργος", "giorgos"),
    ],
)
def test_names_are_spelled_in_latin_letters(name: str, spelled: str) -> None:
    assert latin(name) == spelled
    assert (latin_trigrams(name) is None) == fold(name).isascii()
    assert trigrams_of(spelled.split()) == set(latin_trigrams(name) or trigrams_of(spelled.split()))


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("Maria Silva", "Silva, Maria"),
        ("Maria Silva", "María SILVA"),
        ("Maria Silva", "Maria Fernanda Silva"),
        ("Maria Fernanda Silva", "Maria Silva"),
        ("M. Silva", "Maria Silva"),
        ("Maria Silva", "Maria Slva"),
        ("Jürgen Müller", "Juergen Mueller"),
        ("Anne-Marie Dubois", "Annemarie Du Bois"),
        ("Sean O'Brien", "Sean Obrien"),
        ("Алексей Иванов", "Alexei Ivanov"),
        ("Юрий Чайковский", "Yuri Tchaikovsky"),
        ("Judy Quigley", "Iudi Kvigley"),
    ],
)
def test_spellings_of_one_name_are_alike(asked: str, stored: str) -> None:
    assert 0.8 <= score(asked, stored) <= 1
    assert score(asked, stored) <= score(asked, asked) == 1


@pytest.mark.parametrize(
    ("asked", "stored"),
    [("Maria Silva", "Peter Silva"), ("Maria Silva", "Maria Okafor"), ("A B", "C D"), ("Li Wu", "Le Wo"),
     ("Ann", "☃"), ("John Smith", "Jane Smith")],
)  # fmt: skip
def test_other_names_are_not(asked: str, stored: str) -> None:
    assert score(asked, stored) == 0


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("+90 212 555 0104", "0212 555 01 04", 1),
        ("(555) 123-4567", "+1 555 123 4567", 1),
        ("+1 212 123 4567", "+1 646 123 4567", 0.7),
        ("+1 212 123 4567", "+1 212 123 4568", 0),
        ("112", "112", 0),
        ("no phone", "no phone", 0),
        ("47110", "+49 30 47110", 1),
    ],
)
def test_phones_are_compared_by_their_digits(one: str, other: str, alike: float) -> None:
    for first, second in ((one, other), (other, one)):
        assert compare_phones(digits_of(first), digits_of(second)) == alike


def test_a_shared_phone_counts_less_than_a_name_and_a_birthday() -> None:
    asked = Sought("Maria Silva", date(1980, 5, 17), "m@silva.example", "555 010 0200")
    moved = row("Maria Silva", phone="+1 646 777 7777")
    child = row("Rui Silva", date_of_birth=date(2015, 1, 1))
    found = most_alike(asked, [child, moved, row("Otto Okafor", phone="1")], 10)
    assert [one.row for one in found] == [moved, child]
    assert found[1].matched == [MatchedField.PHONE]
