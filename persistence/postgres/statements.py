"""SQLAlchemy writes a statement, once; what runs is its SQL, on asyncpg alone.

A `Statement` knows the type of what it takes, a `Query` also that of its rows; both are compared with the
tables when the module that has it is imported (declared.py). The SQL is compiled when it is first run. From
then on nothing of SQLAlchemy runs, which would take longer than the query (docs/performance.md).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from functools import partial
from operator import itemgetter
from types import NoneType
from typing import Any, Generic, NamedTuple, Self, TypedDict, TypeVar, get_type_hints
from uuid import UUID

import msgspec
from sqlalchemy import CTE, Boolean, Enum
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import ReturnsRows
from sqlalchemy.types import JSON

from persistence.postgres.deadline import seconds_left
from persistence.postgres.declared import (
    AnyColumn,
    AnyStatement,
    AnyType,
    fields_of,
    members,
    nested_row,
    require_names,
    require_parameters,
    require_row,
)

# One of asyncpg's, which declares no types; it can be read by position and by name.
Record = Any
Values = Mapping[str, object]
Convert = Callable[[Any], Any]  # of any type, as the column has it, to any other
T = TypeVar("T", bound=Values)  # a TypedDict: what a statement takes
R = TypeVar("R", bound=tuple[object, ...])  # a NamedTuple: a row of its answer

DIALECT: Any = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's


class Nothing(TypedDict):
    """What a statement takes that takes nothing."""


class ById(TypedDict):
    id: UUID


class IdRow(NamedTuple):
    id: UUID


NOTHING = Nothing()


class Compiled:
    """The SQL of a statement, and how values pass from Python to asyncpg."""

    def __init__(self, statement: AnyStatement, column_keys: Sequence[str] | None) -> None:
        """`column_keys`: of an INSERT or UPDATE without values, which columns it writes."""
        compiled: Any = statement.compile(dialect=DIALECT, column_keys=column_keys)  # differs by statement
        self.sql = str(compiled)
        self.constants = {name: value for name, value in compiled.params.items() if value is not None}
        self.defaults = {
            column.key: column.default.arg
            for column in (*(compiled.insert_prefetch or ()), *(compiled.update_prefetch or ()))
        }
        types = {name: bind.type for bind, name in compiled.bind_names.items()}
        self.binds = [(name, encoder(types[name])) for name in compiled.positiontup or ()]

    def arguments(self, parameters: Values) -> list[object]:
        """The values in PostgreSQL's order: those given, else the statement's own. KeyError: one is
        missing."""
        return [
            encode(self.value(name, parameters)) if encode else self.value(name, parameters)
            for name, encode in self.binds
        ]

    def value(self, name: str, parameters: Values) -> object:
        if name in parameters:
            return parameters[name]
        return self.defaults[name](None) if name in self.defaults else self.constants[name]


class Statement(Generic[T]):
    """A statement and the type of what it takes. `only_if`: the part of it that writes, where it may write
    nothing by its own conditions."""

    def __init__(
        self,
        takes: type[T],
        statement: AnyStatement,
        *,
        only_if: CTE | None = None,
        besides: type[Values] = Nothing,
    ) -> None:
        """`besides`: what it takes of others than its callers."""
        require_parameters([takes, besides], statement)
        self.statement = statement
        self.only_if = only_if
        self.writes = isinstance(statement, UpdateBase)
        self.by_keys: dict[tuple[str, ...], Compiled] = {}

    def compiled(self, column_keys: tuple[str, ...]) -> Compiled:
        """`column_keys`: which of its values may be columns that it writes."""
        keys = column_keys if self.writes else ()
        found = self.by_keys.get(keys)
        if found is None:
            found = self.by_keys[keys] = Compiled(self.statement, keys if self.writes else None)
        return found

    def with_part(self, part: CTE) -> Self:
        """This statement, and `part` beside it, which may take further values."""
        whole = copy(self)
        whole.statement = self.statement.add_cte(part)
        whole.by_keys = {}
        return whole


class Rows(Generic[R]):
    """Makes rows of one type of records whose first columns are its fields."""

    def __init__(self, row: type[R], columns: Sequence[AnyColumn] = ()) -> None:
        """`columns`: of those that are known, which is all but those of SQL written by hand."""
        self.width = len(list(fields_of(row)))
        self.make = row_maker(row)
        self.decoders = [
            (at, decode) for at, one in enumerate(columns[: self.width]) if (decode := decoder(one.type))
        ]

    def __call__(self, records: Sequence[Record]) -> list[R]:
        if not records:
            return []
        some: Iterable[Sequence[object]] = records
        if len(records[0]) > self.width:
            some = [record[: self.width] for record in records]
        return [*map(self.make, map(self.decoded, some) if self.decoders else some)]

    def decoded(self, record: Sequence[object]) -> list[object]:
        values = list(record)
        for at, decode in self.decoders:
            if values[at] is not None:
                values[at] = decode(values[at])
        return values


class Query(Statement[T], Generic[T, R]):
    """A statement and the type of its rows."""

    def __init__(
        self, row: type[R], takes: type[T], statement: AnyStatement, *, only_if: CTE | None = None
    ) -> None:
        super().__init__(takes, statement, only_if=only_if)
        self.row = row
        self.is_checked = isinstance(statement, ReturnsRows)
        if self.is_checked:
            require_row(row, statement)
        self.rows_of = Rows(row, list(statement.exported_columns) if self.is_checked else ())

    def rows(self, records: Sequence[Record]) -> list[R]:
        if records and not self.is_checked:  # SQL written by hand tells the names of its columns only now
            require_names(self.row, list(records[0].keys()))
            self.is_checked = True
        return self.rows_of(records)


def row_maker(row: type[R]) -> Callable[[Sequence[object]], R]:
    """Makes a row of the values of its columns, in which those of a nested row stand in its place. Such a
    row is None, where it may be, if its first column is."""
    make = partial(tuple.__new__, row)  # what `row._make` does, at half the time
    hints = get_type_hints(row)
    if not any(map(nested_row, hints.values())):
        return make
    parts: list[Callable[[Sequence[object]], object]] = []
    at = 0
    for annotation in hints.values():
        nested = nested_row(annotation)
        if nested is None:
            parts.append(itemgetter(at))
            at += 1
        else:
            width = len(list(fields_of(nested)))
            parts.append(part(nested, slice(at, at + width), NoneType in members(annotation)))
            at += width
    return lambda values: make([part(values) for part in parts])


def part(row: type[R], place: slice, is_optional: bool) -> Callable[[Sequence[object]], R | None]:
    make = row_maker(row)
    return lambda values: None if is_optional and values[place.start] is None else make(values[place])


def encoder(kind: AnyType) -> Convert | None:
    """What SQLAlchemy does with a value of this type before asyncpg has it. A StrEnum is text already; what
    is no bool asyncpg refuses itself."""
    return None if isinstance(kind, Enum | Boolean) else kind.dialect_impl(DIALECT).bind_processor(DIALECT)


def decoder(kind: AnyType) -> Convert | None:
    """What asyncpg leaves to others: it hands on enumerations and JSON as text."""
    if isinstance(kind, Enum) and kind.enum_class is not None:
        members: Any = kind.enum_class  # which may be of strings, too, for SQLAlchemy
        return {member.value: member for member in members}.__getitem__
    return msgspec.json.decode if isinstance(kind, JSON) else None


async def fetch(
    connection: Any,  # one of asyncpg's
    statement: Statement[Any],  # of any that `parameters` belong to
    parameters: Values,
    column_keys: tuple[str, ...] | None = None,
) -> Sequence[Record]:
    """Run `statement`, which should be one of a module's own: one that is made for the call is compiled for
    it. `column_keys`: which of the parameters may be columns that it writes; all where it is not said.
    Raises what asyncpg does."""
    ready = statement.compiled(column_keys or tuple(parameters))
    records: Sequence[Record] = await connection.fetch(
        ready.sql, *ready.arguments(parameters), timeout=seconds_left()
    )
    return records
