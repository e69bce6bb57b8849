"""The accounts of a run of Schemathesis, and their sessions. The environment names the service, its database
and the role."""

import asyncio
import base64
import json
import os
import time
from typing import Any
from uuid import uuid4

import asyncpg
import bcrypt
import httpx

from persistence.demo import PASSWORD

ROLE = os.environ["FUZZ_ROLE"]  # empty: nobody is signed in
DATABASE = os.environ["FUZZ_DATABASE"]
CLIENT = httpx.Client(base_url=os.environ["FUZZ_URL"], timeout=60)
MAX_SESSION_AGE_SECONDS = 600  # then a new one begins; an access token lives 900
# The service hashes at cost 12, a third of a second. What it finds in the database it checks at its own cost.
FAST_HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


class Person:
    """An account, and a living session of it."""

    def __init__(self, email: str) -> None:
        self.email = email
        self.cookies: dict[str, str] = {}
        self.since = float("-inf")

    def cookie(self, name: str) -> str:
        if time.monotonic() - self.since > MAX_SESSION_AGE_SECONDS:
            login = {"email": self.email, "password": PASSWORD}
            answer = require_success(CLIENT.post("/api/auth/login", json=login))
            self.keep_cookies(answer.headers.get_list("set-cookie"))
            CLIENT.cookies.clear()
            self.since = time.monotonic()
        return self.cookies[name]

    def keep_cookies(self, headers: list[str]) -> None:
        for header in headers:
            name, _, value = header.split(";")[0].partition("=")
            self.cookies[name] = value

    def sign_in_again(self) -> None:
        """Before the next request; the session has ended."""
        self.since = float("-inf")

    @property
    def session_id(self) -> str:
        payload = self.cookie("access_token").split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"])

    def create(self, path: str, body: dict[str, Any]) -> str:
        """Returns the id of the new object."""
        headers = {"cookie": f"access_token={self.cookie('access_token')}"}
        return str(require_success(CLIENT.post(path, json=body, headers=headers)).json()["id"])

    def cursor(self) -> str:
        """From which on they may ask for changes."""
        headers = {"cookie": f"access_token={self.cookie('access_token')}"}
        return str(require_success(CLIENT.get("/api/changes", headers=headers)).json()["cursor"])

    def subscribe(self) -> str:
        """The secret of a new feed of theirs."""
        headers = {"cookie": f"access_token={self.cookie('access_token')}"}
        made = require_success(CLIENT.post("/api/users/me/calendar", headers=headers)).json()
        return str(made["url"]).rpartition("/")[2].removesuffix(".ics")


def require_success(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise RuntimeError(
            f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        )
    return answer


def sql(statement: str, *args: Any) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(DATABASE)
        try:
            return list(await connection.fetch(statement, *args))
        finally:
            await connection.close()

    return asyncio.run(run())


def create_account(role: str) -> tuple[str, Person]:
    """(id, person) of a new active account."""
    email = f"{uuid4().hex}@fuzz.example"
    [row] = sql(
        "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) "
        "VALUES (gen_random_uuid(), $1, $2, 'Nadia New', $3, 'active', 'nadia new', $1) RETURNING id",
        email,
        FAST_HASH,
        role,
    )
    return str(row["id"]), Person(email)


def create_protected_account(role: str) -> Person:
    """A new account that no case may disable, demote or lock out."""
    account_id, person = create_account(role)
    PROTECTED_ACCOUNTS.add(account_id)
    return person


PROTECTED_ACCOUNTS = {str(row["id"]) for row in sql("SELECT id FROM users")}
OWN_ACCOUNT = Person(f"{ROLE}@example.com")
STAFF_MEMBER = create_protected_account("staff")  # creates what a case needs
ADMINISTRATOR = create_protected_account("admin")  # likewise
OTHER_DOCTOR = create_protected_account("doctor")  # writes the records that they need
# Whose sessions end, or whose passwords change, by operation.
DISPOSABLE_ACCOUNTS = {
    name: create_protected_account(ROLE or "patient")
    for name in ("logout", "refresh", "endMySession", "changeMyPassword")
}
# So that a session that was listed can be ended.
DISPOSABLE_ACCOUNTS["listMySessions"] = DISPOSABLE_ACCOUNTS["endMySession"]
