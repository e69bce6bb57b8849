"""Structs of the contract on one side, rows and changes of the database on the other.

Which struct is made of which row is said once, when a module is imported, and compared there: names, their
order, and types. A difference is a TypeError that says which field."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from operator import attrgetter
from typing import TypeVar, cast, get_type_hints

from msgspec import UNSET, Struct, UnsetType

from persistence.postgres.declared import members

S = TypeVar("S", bound=Struct)
R = TypeVar("R", bound=tuple[object, ...])  # a NamedTuple
C = TypeVar("C", bound=Mapping[str, object])  # a TypedDict without required keys


def struct_of(struct: type[S], row: type[R], *, as_text: frozenset[str] = frozenset()) -> Callable[[R], S]:
    """What makes a struct of a row, which may have further fields. `as_text`: fields of a closed set that the
    row has as any text, because a later release may have stored one that this release does not know."""
    fields, columns = get_type_hints(struct), get_type_hints(row)
    names = struct.__struct_fields__
    if [name for name in columns if name in fields] != list(names):
        raise TypeError(f"{struct.__name__} has the fields {list(names)}, {row.__name__} {list(columns)}")
    for name in names:
        given = members(columns[name])
        if name in as_text:
            given.discard(str)
        if not given <= members(fields[name]):
            raise TypeError(
                f"{struct.__name__}.{name} is {fields[name]}, {row.__name__}.{name} {columns[name]}"
            )
    if list(columns)[: len(names)] == list(names) and not is_by_keyword(struct):
        width = len(names)
        return (lambda row: struct(*row)) if width == len(columns) else (lambda row: struct(*row[:width]))
    values_of = attrgetter(*names)
    return lambda row: struct(**dict(zip(names, values_of(row), strict=True)))


def is_by_keyword(struct: type[Struct]) -> bool:
    return any(field.kind is Parameter.KEYWORD_ONLY for field in signature(struct).parameters.values())


def sent_fields_of(
    struct: type[S],
    changes: type[C],
    nullable: frozenset[str] = frozenset(),
    others: frozenset[str] = frozenset(),
) -> Callable[[S], C]:
    """What gives the fields of a PATCH body that were sent, without `others`, which change no column. `""`
    becomes None in the `nullable` ones."""
    fields, columns = get_type_hints(struct), get_type_hints(changes)
    names = [name for name in struct.__struct_fields__ if name not in others]
    for name in names:
        if name not in columns:
            raise TypeError(f"{changes.__name__} lacks {name} of {struct.__name__}")
        sent = members(fields[name]) - {UnsetType} | ({type(None)} if name in nullable else set())
        if not sent <= members(columns[name]):
            raise TypeError(
                f"{struct.__name__}.{name} is {fields[name]}, {changes.__name__} has {columns[name]}"
            )

    def sent_fields(body: S) -> C:
        sent = {name: value for name in names if (value := getattr(body, name)) is not UNSET}
        given = {name: None if value == "" and name in nullable else value for name, value in sent.items()}
        return cast(C, given)  # as compared above

    return sent_fields


def changed_fields(sent: C, stored: tuple[object, ...]) -> C:
    """The fields of `sent` whose value differs from the stored one."""
    changed = {name: value for name, value in sent.items() if value != getattr(stored, name)}
    return cast(C, changed)  # some of its keys, none of which is required
