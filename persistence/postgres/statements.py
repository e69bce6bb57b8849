"""SQLAlchemy writes a statement, once; what runs is its SQL, on asyncpg alone.

`rows` is the whole of it: a statement, compiled the first time that it is seen, its values in PostgreSQL's
order, and its rows as named tuples. Between the two nothing of SQLAlchemy runs, which would take longer than
the query (docs/performance.md).
"""

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Enum, Executable
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.selectable import ReturnsRows
from sqlalchemy.types import JSON, TypeEngine

AnyRow = Any  # a named tuple of the statement's columns
Convert = Callable[[Any], Any]

DIALECT: Any = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
KEPT = 1000  # compiled statements; those of the service are a few hundred


class Compiled:
    """The SQL of a statement, and how its values and rows pass between Python and asyncpg."""

    def __init__(self, statement: Any, column_keys: Sequence[str] | None) -> None:
        """`column_keys`: of an INSERT or UPDATE without values, which columns it writes."""
        compiled: Any = statement.compile(dialect=DIALECT, column_keys=column_keys)
        self.sql = str(compiled)
        self.constants = {name: value for name, value in compiled.params.items() if value is not None}
        self.defaults = {
            column.key: column.default.arg
            for column in (*(compiled.insert_prefetch or ()), *(compiled.update_prefetch or ()))
        }
        types = {name: bind.type for bind, name in compiled.bind_names.items()}
        self.binds = [(name, encoder(types[name])) for name in compiled.positiontup or ()]
        self.make: Callable[[Iterable[Any]], Any] | None = None
        self.converters: list[tuple[int, Convert]] = []
        if isinstance(statement, ReturnsRows):
            columns = list(statement.exported_columns)
            self.name_columns(statement.exported_columns.keys())
            self.converters = [(at, to) for at, one in enumerate(columns) if (to := decoder(one.type))]

    def name_columns(self, names: Iterable[str]) -> None:
        kind: Any = namedtuple("Row", [*names], rename=True)  # type: ignore[misc]  # the statement's own
        self.make = kind._make

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The values in PostgreSQL's order: those given, else the statement's own. KeyError: one is
        missing."""
        return [
            encode(self.value(name, parameters)) if encode else self.value(name, parameters)
            for name, encode in self.binds
        ]

    def value(self, name: str, parameters: Mapping[str, Any]) -> Any:
        if name in parameters:
            return parameters[name]
        return self.defaults[name](None) if name in self.defaults else self.constants[name]

    def rows(self, records: Sequence[Any]) -> list[AnyRow]:
        if not records:
            return []
        if self.make is None:
            self.name_columns(records[0].keys())
        make: Any = self.make
        return [make(record) for record in (map(self.converted, records) if self.converters else records)]

    def converted(self, record: Sequence[Any]) -> list[Any]:
        values = list(record)
        for at, convert in self.converters:
            if values[at] is not None:
                values[at] = convert(values[at])
        return values


def encoder(kind: TypeEngine[Any]) -> Convert | None:
    """What SQLAlchemy does with a value of this type before asyncpg has it; a StrEnum is text already."""
    return None if isinstance(kind, Enum) else kind.dialect_impl(DIALECT).bind_processor(DIALECT)


def decoder(kind: TypeEngine[Any]) -> Convert | None:
    """What asyncpg leaves to others: it hands on enumerations and JSON as text."""
    if isinstance(kind, Enum) and kind.enum_class is not None:
        members: Any = kind.enum_class
        return {member.value: member for member in members}.__getitem__
    return msgspec.json.decode if isinstance(kind, JSON) else None


@lru_cache(KEPT)
def compiled(statement: Executable, column_keys: Sequence[str] | None) -> Compiled:
    return Compiled(statement, column_keys)


async def rows(
    connection: Any,
    statement: Executable,
    parameters: dict[str, Any],
    column_keys: tuple[str, ...] | None = None,
) -> list[AnyRow]:
    """Run `statement`, which is best one of a module's own: one that is made for the call is compiled for
    it. `column_keys`: which of the parameters may be columns that it writes; all where it is not said.
    Raises what asyncpg does."""
    written = (column_keys or tuple(parameters)) if isinstance(statement, UpdateBase) else None
    ready = compiled(statement, written)
    return ready.rows(await connection.fetch(ready.sql, *ready.arguments(parameters)))
