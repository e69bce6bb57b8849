"""Compares what a statement takes and yields with the types that a module declares for it.

What it takes is a TypedDict, what it yields a NamedTuple. mypy holds the code to these types; what is here
holds the types to the tables, while the module that has the statement is imported: names, order, Python
types, and whether a value may be NULL. A difference is a TypeError that says which column.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    CompoundSelect,
    Insert,
    Label,
    Select,
    TextClause,
    Update,
    select,
)
from sqlalchemy.sql import visitors
from sqlalchemy.types import JSON, TypeEngine

# Any, where it is an annotation: a type, or whatever else may stand there.
# SQLAlchemy's columns and statements have no common class that mypy could check; theirs is what we compare.
AnyColumn = Any
AnyStatement = Any
AnySelect = Select[Any] | CompoundSelect[Any]
AnyType = TypeEngine[Any]
RowType = type[tuple[object, ...]]


class Field(NamedTuple):
    """A field of a row type. `is_of_optional`: it is part of another row, which may be absent altogether."""

    name: str
    annotation: Any
    is_of_optional: bool


def members(annotation: Any) -> set[Any]:
    """The types of a union; of another type itself."""
    return set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}


def nested_row(annotation: Any) -> RowType | None:
    """The row type that a field's type is, or is beside None."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, tuple) and hasattr(member, "_fields"):
            return member
    return None


def fields_of(row: RowType, is_of_optional: bool = False) -> Iterator[Field]:
    """One for each column, those of a nested row in its place."""
    for name, annotation in get_type_hints(row).items():
        nested = nested_row(annotation)
        if nested is None:
            yield Field(name, annotation, is_of_optional)
        else:
            yield from fields_of(nested, is_of_optional or NoneType in members(annotation))


def columns_of(row: RowType, source: AnyColumn, **others: AnyColumn) -> tuple[AnyColumn, ...]:
    """The columns for a row type: those of `source` (a model, or the `c` of a CTE) with the names of its
    fields, but for `others`. TypeError where they do not have the declared types, AttributeError where there
    is none of that name."""
    for name in others.keys() - get_type_hints(row).keys():
        raise TypeError(f"{row.__name__} has no {name}")
    columns = tuple(
        others[name].label(name) if name in others else getattr(source, name) for name in get_type_hints(row)
    )
    require_row(row, select(*columns))
    return columns


def require_row(row: RowType, statement: AnyStatement, *, and_more: bool = False) -> None:
    """`and_more`: the statement may have other columns behind those of the row."""
    fields, columns = list(fields_of(row)), list(statement.exported_columns)
    require_names(row, statement.exported_columns.keys(), and_more=and_more)
    for field, column in zip(fields, columns, strict=False):
        require_type(f"{row.__name__}.{field.name}", field.annotation, column, field.is_of_optional)


def require_names(row: RowType, names: Sequence[str], *, and_more: bool = False) -> None:
    declared = [field.name for field in fields_of(row)]
    found = list(names)[: len(declared)] if and_more else list(names)
    if declared != found:
        raise TypeError(f"{row.__name__} has the fields {declared}, its statement the columns {found}")


def require_type(name: str, annotation: Any, column: AnyColumn, is_of_optional: bool) -> None:
    declared = members(annotation)
    if all(isinstance(column.type, JSON) or is_of_type(one, column.type) for one in declared - {NoneType}):
        nullable = is_nullable(column)
        if nullable is None or is_of_optional or nullable == (NoneType in declared):
            return
        raise TypeError(f"{name} is {annotation}, its column {'may be NULL' if nullable else 'is NOT NULL'}")
    raise TypeError(f"{name} is {annotation}, its column {column.type!r}")


def is_nullable(column: AnyColumn) -> bool | None:
    """None: nobody can say, as of a function's value."""
    while isinstance(column, Label):
        column = column.element
    return column.nullable if isinstance(column, Column) else None


def is_of_type(annotation: Any, kind: AnyType, *, is_parameter: bool = False) -> bool:
    """Whether values of the SQL type are of the Python type; `is_parameter`: the other way about, where an
    enumeration's member is text as well."""
    if isinstance(kind, JSON):
        return True  # SQL does not say what is inside
    if isinstance(kind, ARRAY):
        is_list = get_origin(annotation) in ((list, Sequence) if is_parameter else (list,))
        return is_list and all(is_of_type(one, kind.item_type) for one in get_args(annotation))
    python = kind.python_type  # `object` where SQLAlchemy does not know: give the expression a `type_`
    is_text = is_parameter and python is str and isinstance(annotation, type)
    return annotation is python or (is_text and issubclass(annotation, StrEnum))


def require_parameters(declared: Sequence[type], statement: AnyStatement) -> None:
    """`declared`: TypedDicts, which together have all that the statement takes: its parameters and, in an
    INSERT or UPDATE without values, columns. They may have more, which other forms of the statement take;
    but what is written must be a column."""
    takes = ", ".join(one.__name__ for one in declared)
    hints = {name: annotation for one in declared for name, annotation in get_type_hints(one).items()}
    parameters = {
        bind.key: bind.type
        for bind in visitors.iterate(statement)
        if isinstance(bind, BindParameter) and bind.required
    }
    written = columns_written(statement)
    if lacking := parameters.keys() - hints.keys():
        raise TypeError(f"{takes} lacks {sorted(lacking)}, which its statement takes")
    for name, annotation in hints.items():
        kind = parameters.get(name, written[name].type if name in written else None)
        if kind is None:
            if written:
                raise TypeError(f"{takes} has {name}, which is no column of {statement.table.name}")
            continue
        types = members(annotation)
        if not isinstance(statement, TextClause) and not all(
            is_of_type(one, kind, is_parameter=True) for one in types - {NoneType}
        ):
            raise TypeError(f"{takes} has {name} as {annotation}, its statement takes {kind!r}")
        if NoneType in types and name not in parameters and not written[name].nullable:
            raise TypeError(f"{takes} has {name} as {annotation}, but its column is NOT NULL")


def columns_written(statement: AnyStatement) -> dict[str, AnyColumn]:
    """Those that an INSERT or UPDATE takes values for, by name."""
    if isinstance(statement, Update) or (isinstance(statement, Insert) and statement.select is None):
        return {column.key: column for column in statement.table.columns}
    return {}
