"""Feeds for people's own calendars, made and asked for."""

from urllib.parse import urlsplit

from tests.support.client import Browser

MINE = "/api/users/me/calendar"


def subscribe(person: Browser) -> str:
    """The path of a new feed."""
    made = person.post(MINE)
    assert made.status_code == 201, made.text
    return urlsplit(str(made.json()["url"])).path


def is_gone(anyone: Browser, path: str) -> bool:
    answer = anyone.get(path)
    assert answer.status_code in {200, 404}
    return answer.status_code == 404
