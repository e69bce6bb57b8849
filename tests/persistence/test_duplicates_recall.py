# ruff: noqa: RUF001 (letters that look alike are what this is about)
"""How many of the charts of tests/data/synthea are found again by a damaged copy of what they have, among the
first three; in a clinic with thousands of others. Each case prints its recall:
`just test -n 0 tests/persistence/test_duplicates_recall.py`.

Half of the providers get a chart beside the patients. All names lose Synthea's numbers, which no real name
has and by which any would be found.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from random import Random
from typing import NamedTuple
from uuid import UUID, uuid5

import pytest

from persistence import patients
from persistence.duplicates import candidates
from persistence.duplicates.sought import Sought
from persistence.models import Gender
from persistence.patients import NewPatient
from persistence.postgres.database import Database
from tests.bench.clinic import Clinic
from tests.bench.seed import fill
from tests.support.service import Backend
from tests.support.synthea import PATIENTS, PROVIDERS, email, phone

pytestmark = pytest.mark.slow

OTHERS = 5_000
FIRST = 3
# Where half of the letters of both words are others, only a date, an e-mail or a phone finds the chart.
WANTED = {"Cyrillic for Latin, no date": 0.8, "Latin for Cyrillic, no date": 0.8}
NAMESPACE = UUID("2b1c7c1e-9f3e-5a33-9a3d-3f6f0f6d2b11")
ACCENTED = str.maketrans("aeioucnslzyd", "áëîöüçñšłžýđ")
CYRILLIC = [
    ("shch", "щ"), ("sch", "ш"), ("kh", "х"), ("zh", "ж"), ("ch", "ч"), ("sh", "ш"), ("ts", "ц"), ("ck", "к"),
    ("ya", "я"), ("yu", "ю"), ("ph", "ф"), ("th", "т"), ("qu", "кв"), ("x", "кс"),
    *zip("abvgdeziklmnoprstufhcyjwq", "абвгдезиклмнопрстуфхкийвк", strict=True),
]  # fmt: skip
GERMAN = {"ö": "oe", "ü": "ue", "ä": "ae", "ß": "ss"}


class Person(NamedTuple):
    id: UUID
    name: str
    born: date
    email: str
    phone: str


def people() -> Iterator[Person]:
    chance = Random(1)  # noqa: S311  # no secret
    rows = {key: (f"{row['FIRST']} {row['LAST']}", row["BIRTHDATE"]) for key, row in PATIENTS.items()}
    rows |= {key: (row["NAME"], "") for key, row in list(PROVIDERS.items())[::2]}
    for key, (name, born) in rows.items():
        day = date.fromisoformat(born) if born else date(1940, 1, 1) + timedelta(chance.randrange(25_000))
        yield Person(uuid5(NAMESPACE, key), re.sub("[0-9]", "", name), day, email(key), phone(key))


PEOPLE = list(people())


def cyrillic(name: str) -> str:
    spelled = name.lower()
    for letters, letter in CYRILLIC:
        spelled = spelled.replace(letters, letter)
    return spelled.title()


def accented(name: str) -> str:
    return name.translate(ACCENTED)


def german(name: str) -> str:
    return name.translate(str.maketrans("oua", "öüä"))


def as_typed(name: str) -> str:
    return "".join(GERMAN.get(letter, letter) for letter in name)


def swapped(name: str) -> str:
    first, *others = name.split()
    return " ".join([*others, first])


def mistyped(name: str, chance: Random) -> str:
    """A letter too many, too few, another, or two in each other's place; not the blank."""
    place = chance.choice([at for at, letter in enumerate(name) if letter.isalpha()])
    before, letter, after = name[:place], name[place], name[place + 1 :]
    other = chance.choice("abcdefghijklmnopqrstuvwxyz")
    return chance.choice(
        [before + after, before + other + after, before + letter + other + after]
        + ([before + after[0] + letter + after[1:]] if after[:1].isalpha() else [])
    )


def slipped(born: date, chance: Random) -> date:
    """Another digit of the day, or the day taken for the month."""
    days = [day for day in range(1, 29) if (day % 10 == born.day % 10) != (day // 10 == born.day // 10)]
    others = [born.replace(day=day) for day in days]
    if born.day <= 12 and born.day != born.month:
        others.append(date(born.year, born.day, born.month))
    return chance.choice(others)


Stored = Callable[[str], str]
Asked = Callable[[Person, Random], Sought]


def by_name(change: Callable[[str], str], *, with_date: bool) -> Asked:
    return lambda person, _: Sought(change(person.name), person.born if with_date else None, "", "")


def same(name: str) -> str:
    return name


def by_typo(person: Person, chance: Random) -> Sought:
    return Sought(mistyped(person.name, chance), person.born, "", "")


def by_typo_alone(person: Person, chance: Random) -> Sought:
    return Sought(mistyped(person.name, chance), None, "", "")


def by_mistyped_day(person: Person, chance: Random) -> Sought:
    return Sought(person.name, slipped(person.born, chance), "", "")


def by_shared_phone(person: Person, chance: Random) -> Sought:
    """A new family name, and the phone written another way."""
    digits = person.phone.removeprefix("+1 ")
    written = f"({digits[:3]}) {digits[4:7]}-{digits[7:]}"
    return Sought(f"{person.name.split()[0]} Novak", None, "", written)


# How the charts are stored, and what is asked for.
CASES: dict[str, tuple[Stored, Asked]] = {
    "swapped names": (same, by_name(swapped, with_date=True)),
    "accents dropped": (accented, by_name(same, with_date=True)),
    "accents added": (same, by_name(accented, with_date=True)),
    "Cyrillic for Latin": (same, by_name(cyrillic, with_date=True)),
    "Latin for Cyrillic": (cyrillic, by_name(same, with_date=True)),
    "ue for ü": (german, lambda person, _: Sought(as_typed(german(person.name)), person.born, "", "")),
    "a typing error": (same, by_typo),
    "a mistyped day": (same, by_mistyped_day),
    "a shared phone": (same, by_shared_phone),
    "swapped names, no date": (same, by_name(swapped, with_date=False)),
    "accents dropped, no date": (accented, by_name(same, with_date=False)),
    "Cyrillic for Latin, no date": (same, by_name(cyrillic, with_date=False)),
    "Latin for Cyrillic, no date": (cyrillic, by_name(same, with_date=False)),
    "a typing error, no date": (same, by_typo_alone),
}


@pytest.fixture(scope="module")
def clinic(servers: Backend) -> Backend:
    backend = servers.copy()
    asyncio.run(fill(backend.database_url, Clinic(patients=OTHERS, doctors=1, appointments=0, records=0)))
    return backend


async def store(database: Database, stored: Stored) -> None:
    async with database.transaction() as transaction:
        for person in PEOPLE:
            name, email, phone = stored(person.name), person.email, person.phone
            chart = NewPatient(
                id=person.id, name=name, email=email, phone=phone, date_of_birth=person.born,
                gender=Gender.OTHER, address="Here", blood_type=None, allergies=None,
            )  # fmt: skip
            added = patients.Added(**chart, **patients.chart_keys(name, email, phone))
            await transaction.run(patients.ADD, added)


async def recall(backend: Backend, stored: Stored, asked: Asked) -> float:
    chance = Random(1)  # noqa: S311  # no secret
    async with Database(backend.database_url) as database:
        await store(database, stored)
        found = 0
        for person in PEOPLE:
            best = await candidates.find(database.reader, asked(person, chance))
            found += person.id in [one.row.id for one in best[:FIRST]]
    return found / len(PEOPLE)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_copy_finds_its_chart_among_the_first_three(
    case: str, clinic: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    clinic.sql("DELETE FROM patients WHERE address = 'Here'")
    share = asyncio.run(recall(clinic, *CASES[case]))
    with capsys.disabled():
        print(f"\n{case}: recall {share:.3f} in the first {FIRST}, {len(PEOPLE)} charts among {OTHERS:,}")
    assert share >= WANTED.get(case, 0.95)
