"""What Schemathesis cannot know by itself: who is signed in, and which of the values that the contract allows
also work, because a slot is free or a password is the right one.

The run's own account does everything but what would end its sessions. That is done by throw-away accounts of
the same role, which sign in again whenever they have to.
"""

import asyncio
import atexit
import base64
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import bcrypt
import httpx
import schemathesis

from persistence.demo import CHART, DOCTOR, PASSWORD

ROLE = os.environ["FUZZ_ROLE"]  # empty: nobody is signed in
DATABASE = os.environ["FUZZ_DATABASE"]
REPORT = Path(os.environ["FUZZ_REPORT"])
HTTP = httpx.Client(base_url=os.environ["FUZZ_URL"], timeout=60)
AGE = 600  # seconds after which a session is replaced; an access token lives 900
# The service hashes at cost 12, and takes a third of a second for it. Throw-away accounts are made with a
# hash that it checks at once.
QUICK = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()

# By operation: how often it answered how, how many of the requests were sent with somebody's cookie, and how
# many of these were 401 all the same.
statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
signed_in: Counter[str] = Counter()
turned_away: Counter[str] = Counter()


def sql(statement: str, *args: Any) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(DATABASE)
        try:
            return await connection.fetch(statement, *args)
        finally:
            await connection.close()

    return asyncio.run(run())


class Person:
    """An account and a living session of it."""

    def __init__(self, email: str) -> None:
        self.email = email
        self.cookies: dict[str, str] = {}
        self.since = 0.0  # when the session began; 0: there is none

    def cookie(self, name: str) -> str:
        if time.monotonic() - self.since > AGE or not self.since:
            self.sign_in()
        return self.cookies[name]

    def sign_in(self) -> None:
        self.take(accepted(HTTP.post("/api/auth/login", json={"email": self.email, "password": PASSWORD})))
        self.since = time.monotonic()

    def take(self, answer: httpx.Response) -> None:
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.split(";")[0].partition("=")
            self.cookies[name] = value
        HTTP.cookies.clear()

    def forget(self) -> None:
        self.since = 0.0

    @property
    def session_id(self) -> str:
        payload = self.cookie("access_token").split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"])

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"cookie": f"access_token={self.cookie('access_token')}"}
        return dict(accepted(HTTP.post(path, json=body, headers=headers)).json())


def accepted(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise RuntimeError(
            f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        )
    return answer


def newcomer(role: str) -> tuple[str, Person]:
    """A new active account: its id, and the person."""
    email = f"{uuid4().hex}@fuzz.example"
    [row] = sql(
        "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) "
        "VALUES (gen_random_uuid(), $1, $2, 'Throw Away', $3, 'active', 'throw away', $1) RETURNING id",
        email, QUICK, role,
    )  # fmt: skip
    return str(row["id"]), Person(email)


OWN = Person(f"{ROLE}@example.com")
CLERK = newcomer("staff")[1]  # makes what the mended cases need
# Who does what would end the sessions of OWN. Sessions are listed by the one who ends them.
THROW_AWAY = {
    name: newcomer(ROLE)[1] if ROLE else CLERK
    for name in ("logout", "endMySession", "changeMyPassword", "refresh")
}
THROW_AWAY["listMySessions"] = THROW_AWAY["endMySession"]
# Accounts that no case may disable, demote or lock out.
KEPT = {str(row["id"]) for row in sql("SELECT id FROM users")}
issued: dict[str, Person] = {}  # token -> whose it is


def name_of(case: schemathesis.Case) -> str:
    return str(case.operation.definition.raw["operationId"])


def credential(case: schemathesis.Case) -> tuple[str, str] | None:
    """(name, value) of the cookie that the operation takes; None where it takes none."""
    schemes = {scheme for option in security(case) for scheme in option}
    if not schemes:
        return None
    name = "refresh_token" if "refreshCookie" in schemes else "access_token"
    person = THROW_AWAY.get(name_of(case), OWN)
    value = person.cookie(name)
    issued[value] = person
    return name, value


def security(case: schemathesis.Case) -> list[dict[str, Any]]:
    default = case.operation.schema.raw_schema["security"]
    return list(case.operation.definition.raw.get("security", default))


if ROLE:

    @schemathesis.auth(refresh_interval=None)
    class SignedIn:
        def get(self, case: schemathesis.Case, context: Any) -> tuple[str, str] | None:
            return credential(case)

        def set(self, case: schemathesis.Case, data: tuple[str, str], context: Any) -> None:
            name, value = data
            case.cookies = {**(case.cookies or {}), name: value}


numbers = count()


def free_slot() -> str:
    begins = datetime(2100, 1, 1, tzinfo=UTC) + timedelta(hours=next(numbers))
    return begins.strftime("%Y-%m-%dT%H:%M:%SZ")


def chart() -> str:
    """The id of a new chart."""
    body = {
        "name": "Charlie Chart",
        "email": "chart@fuzz.example",
        "phone": "+1 555 0100",
        "dateOfBirth": "1980-05-17",
        "gender": "other",
        "address": "1 Main Street",
    }
    return str(CLERK.post("/api/patients", body)["id"])


def appointment() -> str:
    """The id of a new appointment that every role may see, still scheduled."""
    body = {"patientId": str(CHART), "doctorId": str(DOCTOR), "date": free_slot(), "reason": "Check-up"}
    return str(CLERK.post("/api/appointments", body)["id"])


def session() -> str:
    """The id of a living session of whoever ends sessions."""
    person = THROW_AWAY["endMySession"]
    other = Person(person.email)
    return other.session_id


# A schema can say what a value looks like, not that it works. Three of four valid cases of these operations
# are given what works; the fourth is left as it is, and its 400 or 404 is looked at too. `linked` cases are
# steps of a sequence: what a link has filled in stays.
def book(case: schemathesis.Case, linked: bool) -> None:
    case.body["date"] = free_slot()
    if not linked:
        case.body.update(patientId=str(CHART), doctorId=str(DOCTOR))


def move(case: schemathesis.Case, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = appointment()
    if "date" in case.body:
        case.body["date"] = free_slot()


def be_born(case: schemathesis.Case, linked: bool) -> None:
    if str(case.body.get("dateOfBirth", "")) > datetime.now(UTC).date().isoformat():
        case.body["dateOfBirth"] = "1991-07-02"


def link(case: schemathesis.Case, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = chart()
    case.body["userId"] = newcomer("patient")[0]


def end_session(case: schemathesis.Case, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = session()


def register(case: schemathesis.Case, linked: bool) -> None:
    for name, role in (("specialization", "doctor"), ("department", "staff")):
        if case.body["role"] != role:
            case.body.pop(name, None)
    if case.body["email"].strip().lower() in registered:
        case.body["email"] = f"{uuid4().hex}@fuzz.example"
    registered.add(case.body["email"].strip().lower())


def change_password(case: schemathesis.Case, linked: bool) -> None:
    case.body["currentPassword"] = PASSWORD


def first_page(case: schemathesis.Case, linked: bool) -> None:
    """A list that later steps find something on."""
    if linked and case.query:
        for name in FILTERS:
            case.query.pop(name, None)


FILTERS = ("page", "search", "date", "status", "role", "linked", "action", "from", "to")
LISTS = (
    "listPatients",
    "listDoctors",
    "listUsers",
    "listMySessions",
    "listAppointments",
    "listRecords",
    "listAuditEvents",
)
MENDED: dict[str, Callable[[schemathesis.Case, bool], None]] = {
    "createAppointment": book,
    "updateAppointment": move,
    "createPatient": be_born,
    "updatePatient": be_born,
    "linkPatientAccount": link,
    "endMySession": end_session,
    "changeMyPassword": change_password,
    "register": register,
    **dict.fromkeys(LISTS, first_page),
}
registered: set[str] = set()
turns: Counter[tuple[str, str]] = Counter()


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    name, meta = name_of(case), case.meta
    ids = case.path_parameters or {}
    if name in {"updateUser", "setUserPassword"} and str(ids.get("id")) in KEPT:
        case.path_parameters["id"] = newcomer("doctor")[0]
    if meta and meta.generation.mode.is_positive and name in MENDED and (ROLE or name == "register"):
        phase = meta.phase.name.value
        turns[name, phase] += 1
        if phase == "stateful" or turns[name, phase] % 4:
            MENDED[name](case, phase == "stateful")
    # Cases are made ahead of their call, and what happened since may have ended the session.
    if any(isinstance(value, str) and value in issued for value in (case.cookies or {}).values()):
        cookie, value = credential(case) or ("", "")
        case.cookies[cookie] = value


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response
) -> None:
    name, status = name_of(case), response.status_code
    if case.method.upper() != case.operation.method.upper():
        return  # the path was asked for a method that it does not know
    statuses[name][status] += 1
    carried = [
        issued[value] for value in (case.cookies or {}).values() if isinstance(value, str) and value in issued
    ]
    signed_in[name] += bool(carried)
    turned_away[name] += bool(carried) and status == 401
    for person in carried:
        if (
            status == 401
            or name == "logout"
            or (
                status == 200
                and name == "endMySession"
                and (case.path_parameters or {})["id"] == person.session_id
            )
        ):
            person.forget()
        elif status == 200 and name == "changeMyPassword":
            THROW_AWAY[name] = newcomer(ROLE)[1]
        elif name == "refresh":
            for header in response.headers.get("set-cookie", []):
                cookie, _, value = header.split(";")[0].partition("=")
                person.cookies[cookie] = value


@atexit.register
def report() -> None:
    REPORT.write_text(json.dumps({"statuses": statuses, "signed_in": signed_in, "turned_away": turned_away}))
