"""What a process remembers of doctors' hours."""

from uuid import uuid4

from api.schedule.known import NONE, KnownHours
from api.schedule.weekly import Hours

STORED = [{"weekday": 1, "opens": 480, "closes": 720}]


def test_the_oldest_is_forgotten_first() -> None:
    known, first, second, third = KnownHours(most=2), uuid4(), uuid4(), uuid4()
    for version, doctor in enumerate((first, second, first, third), 1):
        assert known.learn(doctor, version, STORED).hours == (Hours(1, 480, 720),)
    assert [known.of(doctor).version for doctor in (first, second, third)] == [3, 0, 4]
    assert known.learn(third, 0, None) == known.of(third) == NONE
