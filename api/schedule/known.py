"""What a process remembers of doctors' own hours, so that a booking need not ask for them."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from api.schedule.weekly import Hours, hours_of
from persistence.availability import Availability

MOST = 10_000  # doctors


class OwnHours(NamedTuple):
    """A doctor's, or None where they have none of their own, which is version 0. Whoever stores others gives
    them another version."""

    version: int
    hours: Sequence[Hours] | None


NONE = OwnHours(0, None)


class KnownHours:
    """They may be out of date by now. So whoever decides by them says by which version."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.by_doctor: dict[UUID, OwnHours] = {}

    def of(self, doctor: UUID) -> OwnHours:
        return self.by_doctor.get(doctor, NONE)

    def after(self, doctor: UUID, assumed: OwnHours, found: Availability) -> OwnHours:
        """Those that were assumed, or the ones that were found instead, which are remembered from now on."""
        if found.version == assumed.version:
            return assumed
        return self.learn(doctor, found.version, found.hours)

    def learn(self, doctor: UUID, version: int, stored: object) -> OwnHours:
        """`stored`: as the database has them."""
        self.by_doctor.pop(doctor, None)
        if not version:
            return NONE
        learnt = self.by_doctor[doctor] = OwnHours(version, hours_of(stored))
        while len(self.by_doctor) > self.most:
            del self.by_doctor[next(iter(self.by_doctor))]
        return learnt
