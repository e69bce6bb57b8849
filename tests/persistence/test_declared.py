"""The types of rows, of parameters and of structs: a difference from the tables is an error when the module
is imported, and code that does not fit the types is one in mypy. Each case here breaks one of them."""

import itertools
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import NoneType
from typing import Any, NamedTuple, Required, TypedDict
from uuid import UUID, uuid4

import mypy.api
import pytest
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import TextClause, bindparam, column, func, insert, select, text, update

import persistence
from api.http.structs import sent_fields_of, struct_of
from persistence import appointments, audit, booking, patients, records, sessions, users
from persistence.migrations import revisions
from persistence.models import Patient
from persistence.postgres import counters
from persistence.postgres.declared import columns_of, fields_of, members
from persistence.postgres.statements import IdRow, Nothing, Query, Statement
from security.roles import Role
from tests.support.documents import ROOT
from tests.support.service import Backend

ROLES = list(Role)
NOUNS = [import_module(f"persistence.{module.name}") for module in iter_modules(persistence.__path__)]
MODULES = [*NOUNS, revisions, counters]


class Contact(NamedTuple):
    id: UUID
    phone: str
    address: str


class Renamed(NamedTuple):
    id: UUID
    telephone: str


class NullableName(NamedTuple):
    name: str | None


class NeverNullBloodType(NamedTuple):
    blood_type: str


class BirthAsText(NamedTuple):
    date_of_birth: str


class GenderAsText(NamedTuple):
    gender: str


class Moment(NamedTuple):
    now: datetime
    contact: Contact | None


class Named(TypedDict):
    name: str


class Telephone(TypedDict, total=False):
    chart: Required[UUID]
    telephone: str


class PhoneAsNumber(TypedDict, total=False):
    chart: Required[UUID]
    phone: int


class NoPhone(TypedDict, total=False):
    chart: Required[UUID]
    phone: str | None


BY_ID = select(Patient.id).where(Patient.id == bindparam("id"))
CHANGE = update(Patient).where(Patient.id == bindparam("chart"))
SWAPPED = select(Patient.id, Patient.address, Patient.phone)
BROKEN: dict[str, tuple[Callable[[], object], str]] = {
    "two columns are swapped": (
        lambda: Query(Contact, Nothing, SWAPPED),
        "Contact has the fields ['id', 'phone', 'address'], its statement the columns "
        "['id', 'address', 'phone']",
    ),
    "a column is missing": (
        lambda: Query(Contact, Nothing, select(Patient.id, Patient.phone)),
        "its statement the columns ['id', 'phone']",
    ),
    "a column is renamed": (lambda: columns_of(Renamed, Patient), "telephone"),
    "a column is named that the row does not have": (
        lambda: columns_of(IdRow, Patient, name=Patient.name),
        "IdRow has no name",
    ),
    "a row may be NULL where its column is not": (
        lambda: columns_of(NullableName, Patient),
        "NullableName.name is str | None, its column is NOT NULL",
    ),
    "a row is not NULL where its column may be": (
        lambda: columns_of(NeverNullBloodType, Patient),
        "NeverNullBloodType.blood_type is <class 'str'>, its column may be NULL",
    ),
    "a row has another type": (lambda: columns_of(BirthAsText, Patient), "its column Date()"),
    "a row has text for an enumeration": (lambda: columns_of(GenderAsText, Patient), "its column Enum("),
    "an expression has no type": (
        lambda: Query(Contact, Nothing, select(Patient.id, column("phone"), Patient.address)),
        "its column NullType()",
    ),
    "a parameter is missing": (lambda: Query(IdRow, Nothing, BY_ID), "lacks ['id']"),
    "a parameter has another type": (
        lambda: Query(IdRow, Named, select(Patient.id).where(Patient.date_of_birth == bindparam("name"))),
        "has name as <class 'str'>, its statement takes Date()",
    ),
    "what is written is no column": (lambda: Statement(Telephone, CHANGE), "telephone, which is no column"),
    "what is written has another type": (
        lambda: Statement(PhoneAsNumber, CHANGE),
        "its statement takes Text()",
    ),
    "what is written may be NULL": (lambda: Statement(NoPhone, CHANGE), "but its column is NOT NULL"),
    "a parameter has no type": (
        lambda: Statement(PhoneAsNumber, insert(Patient).from_select(["phone"], select(bindparam("chart")))),
        "takes NullType()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_declaration_that_differs_from_the_table_is_refused(case: str) -> None:
    declare, said = BROKEN[case]
    with pytest.raises((TypeError, AttributeError), match=re.escape(said)):
        declare()


def test_a_nested_row_stands_in_the_place_of_its_columns() -> None:
    moment = select(func.now().label("now"), *columns_of(Contact, Patient))
    query = Query(Moment, Nothing, moment)
    now, id = datetime(2026, 1, 1), uuid4()  # noqa: DTZ001  # any value
    assert query.rows([(now, id, "1", "Here"), (now, None, None, None)]) == [
        Moment(now, Contact(id, "1", "Here")),
        Moment(now, None),
    ]


def test_sql_written_by_hand_is_compared_with_its_first_answer() -> None:
    class Record(dict[str, object]):
        """As asyncpg's."""

    query = Query(IdRow, Nothing, text("SELECT name FROM patients"))
    with pytest.raises(TypeError, match="IdRow has the fields"):
        query.rows([Record(name="Ada")])


class Shown(Struct):
    id: UUID
    phone: str
    address: str


class ShownSwapped(Struct):
    id: UUID
    address: str
    phone: str


class ShownNumber(Struct):
    phone: int


class ShownMore(Struct):
    id: UUID
    phone: str
    address: str
    email: str


class ShownLess(Struct, kw_only=True):
    id: UUID
    address: str | UnsetType | None = UNSET


def test_a_struct_is_made_of_its_row() -> None:
    row = Contact(uuid4(), "1", "Here")
    assert struct_of(Shown, Contact)(row) == Shown(row.id, "1", "Here")
    assert struct_of(ShownLess, Contact)(row) == ShownLess(id=row.id, address="Here")


@pytest.mark.parametrize("struct", [ShownSwapped, ShownNumber, ShownMore])
def test_a_struct_that_differs_from_its_row_is_refused(struct: type[Struct]) -> None:
    with pytest.raises(TypeError, match=rf"{struct.__name__}.* Contact"):
        struct_of(struct, Contact)


class Sent(Struct):
    phone: str | UnsetType | None = UNSET


class SentUnknown(Struct):
    telephone: str | UnsetType = UNSET


class Changes(TypedDict, total=False):
    phone: str


@pytest.mark.parametrize(
    ("struct", "nullable"), [(Sent, frozenset()), (SentUnknown, frozenset()), (Shown, frozenset({"phone"}))]
)
def test_a_body_that_differs_from_what_is_stored_is_refused(
    struct: type[Struct], nullable: frozenset[str]
) -> None:
    with pytest.raises(TypeError, match="Changes"):
        sent_fields_of(struct, Changes, nullable)


def statements_by_call() -> Iterator[object]:
    """Every query that is made when it is first asked for."""
    both, idle = (False, True), (None, timedelta(hours=1))
    filters = [
        frozenset(names)
        for n in range(6)
        for names in itertools.combinations(audit.Listed.__annotations__, n)
    ]
    for role in ROLES:
        yield from (module.single(role) for module in (patients, records, appointments))
        yield from (booking.booking(role, False), booking.booking(role, True), booking.locking(role))
        for given in map(frozenset, ((), ("role",), ("status",), ("role", "status"))):
            yield from (users.listing(role, given, linked) for linked in (None, *both))
            yield from (users.searching(role, given, linked) for linked in (None, *both))
    yield from map(audit.listing, filters)
    for limit in idle:
        yield from (sessions.own_sessions(limit), sessions.ending_own(limit), sessions.same_caller(limit))


@pytest.mark.slow
def test_every_query_that_is_made_later_fits_its_types() -> None:
    assert len(list(statements_by_call())) > 80


# What PostgreSQL calls the types of what it answers.
PYTHON = {
    "bool": {bool}, "bytea": {bytes}, "float8": {float}, "int4": {int}, "int8": {int}, "int8[]": {list[int]},
    "interval": {timedelta}, "name": {str}, "text": {str}, "timestamptz": {datetime}, "uuid": {UUID},
    "uuid[]": {list[UUID]}, "varchar": {str},
}  # fmt: skip


def written_by_hand() -> dict[str, Query[Any, Any]]:
    found = {
        f"{module.__name__}.{name}": value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, Query) and isinstance(value.statement, TextClause)
    }
    assert len(found) > 8
    return found


@pytest.mark.parametrize("name", written_by_hand())
def test_sql_written_by_hand_yields_what_is_declared(name: str, backend: Backend) -> None:
    query = written_by_hand()[name]
    answered = backend.attributes(query.compiled(()).sql)
    fields = list(fields_of(query.row))
    assert [field.name for field in fields] == [attribute for attribute, _ in answered]
    for field, (_, kind) in zip(fields, answered, strict=True):
        assert members(field.annotation) - {NoneType} == PYTHON[kind], field.name


WRONG = {
    "a renamed column is read": ("row.telephone", "attr-defined"),
    "a column is taken for a number": ("row.phone + 1", "operator"),
    "a column that may be NULL is taken for text": ("row.blood_type.upper()", "union-attr"),
    "a renamed column is written": ("await patients.change(tx, chart, telephone='1')", "call-arg"),
    "a wrong value is written": ("await patients.change(tx, chart, phone=1)", "arg-type"),
    "NULL is written where it must not be": ("await patients.change(tx, chart, name=None)", "arg-type"),
    "an enumeration is written as text": ("await patients.change(tx, chart, gender='male')", "arg-type"),
    "a row lacks a column": ("await patients.add(tx, id=row.id, name='Ada')", "call-arg"),
    "a parameter has another type": ("await tx.first(patients.LINK, ById(id='1'))", "typeddict-item"),
    "parameters are another statement's": ("await tx.first(patients.LINK, NOTHING)", "misc"),
    "a struct is made of another row": ("patient_of(await doctors.one(tx, row.id))", "arg-type"),
}  # fmt: skip
HEAD = """
from api.charts import patient_of
from persistence import doctors, patients
from persistence.postgres.database import Transaction
from persistence.postgres.statements import NOTHING, ById

async def wrong(tx: Transaction, row: patients.PatientRow, chart: patients.LockedChart) -> None:
"""


@pytest.mark.slow
def test_mypy_finds_code_that_does_not_fit_the_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy runs once for all cases: each is a line."""
    module = tmp_path / "wrong.py"
    module.write_text(HEAD + "".join(f"    {code}\n" for code, _ in WRONG.values()))
    monkeypatch.chdir(ROOT)
    said, _, _ = mypy.api.run([str(module), "--config-file", "pyproject.toml"])
    first = HEAD.count("\n") + 1
    found = {int(line): code for line, code in re.findall(r"wrong\.py:(\d+): error: .*\[([a-z-]+)\]", said)}
    assert found == {first + n: code for n, (_, code) in enumerate(WRONG.values())}, said
