"""A position as text, which clients keep and send back, and need not understand."""

import re
from typing import NamedTuple
from uuid import UUID

from persistence.snapshots import Position, Snapshot

NUMBER = r"[0-9a-f]{1,15}"  # of a transaction
CURSOR = re.compile(
    rf"(?P<database>[0-9a-f]{{12}})-(?P<xmax>{NUMBER})-(?P<open>(?:{NUMBER}(?:\.{NUMBER})*)?)"
    rf"(?:-(?P<xid>{NUMBER})-(?P<noun>[a-z]{{1,20}})-(?P<id>[0-9a-f]{{32}}))?"
)


class Cursor(NamedTuple):
    """`database`: which one it is of."""

    database: str
    position: Position

    def __str__(self) -> str:
        snapshot, within = self.position
        still_open = ".".join(f"{snapshot.xmax - xid:x}" for xid in snapshot.open)
        text = f"{self.database}-{snapshot.xmax:x}-{still_open}"
        return text if within is None else f"{text}-{within[0]:x}-{within[1]}-{within[2].hex}"


def parse(text: str) -> Cursor | None:
    """None for what this service has not written."""
    found = CURSOR.fullmatch(text)
    if found is None:
        return None
    xmax = int(found["xmax"], 16)
    still_open = tuple(xmax - int(one, 16) for one in filter(None, found["open"].split(".")))
    within = None
    if found["xid"]:
        within = int(found["xid"], 16), found["noun"], UUID(found["id"])
    cursor = Cursor(found["database"], Position(Snapshot(xmax, still_open), within))
    known = (*still_open, xmax)
    is_ordered = list(known) == sorted(set(known)) and known[0] >= 0
    is_sound = is_ordered and (within is None or within[0] in known)
    return cursor if is_sound and str(cursor) == text else None
