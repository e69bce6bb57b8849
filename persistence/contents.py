"""Rows that the trail vouches for: what a request has written beside its event, such as the history of a
chart.

The event holds a MAC of each of these rows, under the trail's key, in its column `content`, which is sealed
with it. So a row that is changed, removed or added by SQL is damage (audit_verification.py). Such a row names
its request, and is never changed.
"""

import hmac
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypedDict
from uuid import UUID

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Insert,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import Uuid

from persistence.audit import Event
from persistence.audit_chain import Key
from persistence.postgres.declared import AnyColumn, columns_of
from persistence.postgres.statements import Query, R

AnyModel = Any  # of a table whose rows name their request
AnyTable = Any  # a SealedTable of whatever rows
MAC_BYTES = 16


class OfRequests(TypedDict):
    requests: list[UUID]


class KeptRows(TypedDict):
    """`kept`: by table, as JSON."""

    kept: str


class Content(Struct):
    """What an event vouches for. `key`: what the key of these MACs is called. `rows`: the MACs, by table."""

    key: str
    rows: dict[str, list[str]]


class SealedTable(Generic[R]):
    """A table whose rows the trail vouches for. The fields of `row` are all that is written of one and that
    is sealed, which is every column but the id that PostgreSQL gives. One that is None is not part of the
    MAC, so that a later release may add a column that may be NULL."""

    def __init__(self, row: type[R], model: AnyModel, **others: AnyColumn) -> None:
        """`others`: columns that are sealed as they were first written, which stands elsewhere by now."""
        self.row = row
        self.table = model.__table__
        self.name: str = model.__tablename__
        self.names: list[str] = list(row._fields)  # type: ignore[attr-defined]  # of a NamedTuple
        among = model.request_id == func.any(bindparam("requests", type_=ARRAY(Uuid)))
        columns = columns_of(row, model, **others)
        self.of_requests = Query(row, OfRequests, select(*columns).where(among))
        kept = cast(bindparam("kept", type_=Text), JSONB)
        self.kept = (
            func.jsonb_to_recordset(func.jsonb_extract_path(kept, literal_column(f"'{self.name}'")))
            .table_valued(*(column(name, self.table.c[name].type) for name in self.names))
            .render_derived(name=f"kept_{self.name}", with_types=True)
        )

    def insert_kept(self, *conditions: ColumnElement[bool]) -> Insert:
        """The statement that stores the rows among KeptRows, if these hold."""
        return insert(self.table).from_select(self.names, select(self.kept).where(*conditions))

    def mac(self, key: Key, row: R) -> str:
        return mac_of(key, self.name, zip(self.names, row, strict=True))


def mac_of(key: Key, table: str, named: Iterable[tuple[str, object]]) -> str:
    """Of a row, by the names of its columns."""
    written = {name: value for name, value in named if value is not None}
    said = msgspec.json.encode(["row", table, written])
    return hmac.digest(key.secret, said, sha256)[:MAC_BYTES].hex()


class Kept(NamedTuple):
    """Rows of one table that a transaction keeps, made of the event that vouches for them. `is_stored`: a
    trigger or a function of the database stores them; here they are only sealed. `event`: which one vouches
    for them, of several that are noted; None: the first."""

    table: AnyTable
    make: Callable[[Event], Sequence[tuple[object, ...]]]
    is_stored: bool = False
    event: Event | None = None


def content_of(key: Key, rows: Iterable[tuple[AnyTable, Sequence[tuple[object, ...]]]]) -> str:
    """What the event of these rows has in its column `content`."""
    macs: dict[str, list[str]] = {}
    for table, some in rows:
        macs.setdefault(table.name, []).extend(table.mac(key, row) for row in some)
    return msgspec.json.encode(Content(key.id, macs)).decode()


def as_json(rows: Iterable[tuple[AnyTable, Sequence[tuple[object, ...]]]]) -> str:
    """As KeptRows takes them."""
    named: dict[str, list[dict[str, object]]] = {}
    for table, some in rows:
        written = (dict(zip(table.names, row, strict=True)) for row in some)
        named.setdefault(table.name, []).extend(written)
    return msgspec.json.encode(named).decode()
