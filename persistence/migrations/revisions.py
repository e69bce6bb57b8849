"""The revisions of the schema, as the migrations' files name them. The service compares
them with the database when it starts, and does without Alembic, which takes long to load."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import text

from persistence.postgres.database import Reader
from persistence.postgres.statements import NOTHING, Nothing, Query

HERE = Path(__file__).parent
NAMED = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)


class Stamp(NamedTuple):
    version_num: str


STAMPS = Query(Stamp, Nothing, text("SELECT version_num FROM alembic_version"))


class UnknownRevisionError(Exception):
    """The database is at a revision that this release does not have."""


async def is_behind(reader: Reader) -> bool:
    """Whether a migration of ours is missing. One of a later release is no harm: instances of two releases
    share a database while an operator replaces the older ones."""
    stamped = {stamp.version_num for stamp in await reader.rows(STAMPS, NOTHING)}
    ours, heads = revisions()
    return not stamped or (stamped <= ours and stamped != heads)


@cache
def revisions() -> tuple[set[str], set[str]]:
    """Of this release: all, and the latest."""
    files = (HERE / "versions").glob("*.py")
    named = [dict(NAMED.findall(file.read_text())) for file in files]
    ours = {names["revision"] for names in named if names}
    return ours, ours - {names.get("down_revision") for names in named}
