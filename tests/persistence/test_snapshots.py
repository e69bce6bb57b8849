"""Whoever was told of changes up to some place is told each of the others once, however transactions overlap
and wherever they stop."""

from itertools import count
from random import Random
from uuid import UUID

import pytest

from persistence import cursors
from persistence.cursors import Cursor
from persistence.snapshots import Place, Position, Snapshot, in_order


class History:
    """Transactions that begin and end in any order, and have up to three changes each."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - no secret
        self.numbers = count(100)
        self.open: set[int] = set()
        self.committed: dict[int, list[Place]] = {}
        self.next = 100

    def go_on(self) -> None:
        for _ in range(self.random.randrange(6)):
            if self.open and self.random.random() < 0.5:
                xid = self.random.choice(sorted(self.open))
                self.open.remove(xid)
                if self.random.random() < 0.8:
                    some = range(self.random.randrange(4))
                    self.committed[xid] = [(xid, "user", UUID(int=number)) for number in some]
            else:
                self.open.add(next(self.numbers))
                self.next = max(self.open) + 1

    def now(self) -> Snapshot:
        ended = [xid for xid in range(100, self.next) if xid not in self.open]
        xmax = max(ended, default=99) + 1  # as PostgreSQL has it: above all that have ended
        return Snapshot(xmax, tuple(sorted(xid for xid in self.open if xid < xmax)))

    def seen(self, snapshot: Snapshot) -> list[Place]:
        return [place for xid in self.committed if snapshot.sees(xid) for place in self.committed[xid]]


@pytest.mark.parametrize("seed", range(100))
def test_each_change_is_told_once_however_far_somebody_reads_at_a_time(seed: int) -> None:
    """contract: "each exactly once"."""
    history = History(seed)
    history.go_on()
    position, told = Position(history.now()), history.seen(history.now())
    for _ in range(30):
        history.go_on()
        now = history.now()
        new = in_order((one for one in history.seen(now) if not position.has_told(one)), position)
        limit = history.random.randrange(1, 5)
        told += new[:limit]
        position = Position(now) if len(new) <= limit else position.after(new[limit - 1], now)
        assert cursors.parse(str(Cursor("0" * 12, position))) == Cursor("0" * 12, position)
    now = history.now()
    told += [one for one in history.seen(now) if not position.has_told(one)]
    assert sorted(told) == sorted(history.seen(now))


def test_a_later_snapshot_sees_all_of_an_earlier_one() -> None:
    for seed in range(50):
        history = History(seed)
        history.go_on()
        before = history.now()
        history.go_on()
        after = history.now()
        assert after.sees_all_of(before)
        assert before == after or not before.sees_all_of(after)


def test_a_snapshot_is_read_as_postgresql_writes_it() -> None:
    assert Snapshot.parse("10:20:10,14,15") == Snapshot(20, (10, 14, 15))
    assert Snapshot.parse("20:20:") == Snapshot(20, ())
    assert Snapshot.parse("10:20:10,14,15").xmin == 10
    assert Snapshot.parse("20:20:").xmin == 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0123456789ab-14",  # half of one
        "0123456789ab-14-z",
        "0123456789ab-014-",  # in another spelling
        "0123456789ab-14-1.2",  # in another order
        "0123456789ab-14-2.2",
        "0123456789ab-14-0",  # not below
        "0123456789ab-2-5",  # below nothing
        "0123456789ab-14--1-user-0000000000000000000000000000000a",  # of a transaction that is told whole
        "0123456789AB-14-",
        "0123456789ab-14-\n",
        "0123456789ab-14--14-user-0000000000000000000000000000000A",
    ],
)
def test_what_the_service_has_not_written_is_no_cursor(text: str) -> None:
    """contract: "One that this service has not written is 400"."""
    assert cursors.parse(text) is None
