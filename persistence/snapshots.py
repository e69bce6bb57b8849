"""Where somebody stands who is told of changes: which transactions they have heard of.

PostgreSQL's snapshots say which transactions a statement sees. What a later statement sees and an earlier one
did not is new, in whatever order it was committed; so one long transaction holds up nobody, and nothing is
told twice. What is new is told in the order of the transactions, so that one may stop anywhere.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self
from uuid import UUID

Place = tuple[int, str, UUID]  # of a change: transaction, noun, object


class Snapshot(NamedTuple):
    """Sees all transactions below `xmax` but the `open` ones, in ascending order."""

    xmax: int
    open: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """What PostgreSQL writes: `xmin:xmax:open,open`."""
        _, xmax, still_open = text.split(":")
        return cls(int(xmax), tuple(sorted(map(int, filter(None, still_open.split(","))))))

    def below(self, xid: int) -> "Snapshot":
        """The same of those below `xid`, of which others than these do not matter."""
        return Snapshot(xid, tuple(one for one in self.open if one < xid))

    @property
    def xmin(self) -> int:
        """The oldest transaction that it does not see."""
        return self.open[0] if self.open else self.xmax

    def sees(self, xid: int) -> bool:
        return xid < self.xmax and xid not in self.open

    def sees_all_of(self, other: "Snapshot") -> bool:
        """Whether it is not older than `other`, of the same database."""
        return self.xmax >= other.xmax and all(xid in other.open for xid in self.open if xid < other.xmax)


class Position(NamedTuple):
    """All that `snapshot` sees was told; and of one transaction that it does not see, all up to `within`."""

    snapshot: Snapshot
    within: Place | None = None

    def has_told(self, place: Place) -> bool:
        if self.within is not None and place[0] == self.within[0]:
            return place <= self.within
        return self.snapshot.sees(place[0])

    def covers(self, snapshot: Snapshot) -> bool:
        """Whether all that `snapshot` sees was told."""
        return self.snapshot.sees_all_of(snapshot)

    def whole(self) -> Snapshot:
        """Where all of the transaction was told of which it has told a part."""
        xmax, still_open = self.snapshot
        if self.within is None:
            return self.snapshot
        xid = self.within[0]
        return Snapshot(max(xmax, xid + 1), tuple(one for one in still_open if one != xid))

    def after(self, place: Place, seen: Snapshot) -> "Position":
        """Where all up to `place` was told that `seen` sees, beside what was told here; after the rest of the
        transaction of which a part was told."""
        xid = place[0]
        if self.within is not None and xid == self.within[0]:
            return Position(self.snapshot, place)
        before = self.whole()
        if xid >= before.xmax:
            return Position(Snapshot(xid, tuple(one for one in seen.open if one < xid)), place)
        still_open = tuple(one for one in before.open if one >= xid or not seen.sees(one))
        return Position(Snapshot(before.xmax, still_open), place)


def in_order(places: Iterable[Place], position: Position) -> list[Place]:
    """As they are told from `position` on: the rest of a transaction first of which a part was told."""
    begun = position.within[0] if position.within else 0
    return sorted(places, key=lambda place: (place[0] != begun, place))
