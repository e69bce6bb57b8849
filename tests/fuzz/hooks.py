"""What Schemathesis cannot know by itself: who is signed in, and which of the values that the contract allows
also work, because a slot is free or a password is the right one.

The account of the run does everything but what would end its sessions or change its password. Throw-away
accounts of the same role do that, and whoever's session has ended signs in again.
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
from schemathesis import Case, HookContext, Response

from persistence.demo import CHART, DOCTOR, PASSWORD

ROLE = os.environ["FUZZ_ROLE"]  # empty: nobody is signed in
DATABASE = os.environ["FUZZ_DATABASE"]
REPORT = Path(os.environ["FUZZ_REPORT"])
HTTP = httpx.Client(base_url=os.environ["FUZZ_URL"], timeout=60)
AGE = 600  # seconds after which a session is not used any more; an access token lives 900
# The service hashes at cost 12, a third of a second. What it finds in the database it checks at its own cost.
QUICK = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


class Person:
    """An account, and a living session of it."""

    def __init__(self, email: str) -> None:
        self.email = email
        self.cookies: dict[str, str] = {}
        self.since = float("-inf")

    def cookie(self, name: str) -> str:
        if time.monotonic() - self.since > AGE:
            login = {"email": self.email, "password": PASSWORD}
            self.take(accepted(HTTP.post("/api/auth/login", json=login)).headers.get_list("set-cookie"))
            HTTP.cookies.clear()
            self.since = time.monotonic()
        return self.cookies[name]

    def take(self, headers: list[str]) -> None:
        self.cookies |= (header.split(";")[0].split("=", 1) for header in headers)

    def forget(self) -> None:
        self.since = float("-inf")

    @property
    def session_id(self) -> str:
        payload = self.cookie("access_token").split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"])

    def post(self, path: str, body: dict[str, Any]) -> str:
        """The id of what was made."""
        headers = {"cookie": f"access_token={self.cookie('access_token')}"}
        return str(accepted(HTTP.post(path, json=body, headers=headers)).json()["id"])


def accepted(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        raise RuntimeError(
            f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        )
    return answer


def sql(statement: str, *args: Any) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(DATABASE)
        try:
            return await connection.fetch(statement, *args)
        finally:
            await connection.close()

    return asyncio.run(run())


def newcomer(role: str) -> tuple[str, Person]:
    """The id of a new active account, and the person."""
    email = f"{uuid4().hex}@fuzz.example"
    [row] = sql(
        "INSERT INTO users (id, email, password_hash, name, role, status, sort_name, search_text) "
        "VALUES (gen_random_uuid(), $1, $2, 'Nadia New', $3, 'active', 'nadia new', $1) RETURNING id",
        email,
        QUICK,
        role,
    )
    return str(row["id"]), Person(email)


def kept(role: str) -> Person:
    """A new account that no case may disable, demote or lock out."""
    account_id, person = newcomer(role)
    KEPT.add(account_id)
    return person


KEPT = {str(row["id"]) for row in sql("SELECT id FROM users")}
OWN = Person(f"{ROLE}@example.com")
CLERK = kept("staff")  # makes what a case needs to work
THROW_AWAY = {
    name: kept(ROLE or "patient") for name in ("logout", "refresh", "endMySession", "changeMyPassword")
}
THROW_AWAY["listMySessions"] = THROW_AWAY["endMySession"]  # so that what was listed can be ended

issued: dict[str, Person] = {}  # token -> whose it is
statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
signed_in: Counter[str] = Counter()
turned_away: Counter[str] = Counter()
registered: set[str] = set()
turns: Counter[tuple[str, str]] = Counter()
numbers = count()


def name_of(case: Case) -> str:
    return str(case.operation.definition.raw["operationId"])


def credential(case: Case) -> tuple[str, str] | None:
    """(name, value) of the cookie that the operation takes; None where it takes none."""
    options = case.operation.definition.raw.get("security", case.operation.schema.raw_schema["security"])
    if not any(options):
        return None
    name = "refresh_token" if {"refreshCookie": []} in options else "access_token"
    person = THROW_AWAY.get(name_of(case), OWN)
    value = person.cookie(name)
    issued[value] = person
    return name, value


def carried(case: Case) -> list[Person]:
    """Whose cookie the case carries, if any; some are made to carry none, or a damaged one."""
    values = (case.cookies or {}).values()
    return [issued[value] for value in values if isinstance(value, str) and value in issued]


if ROLE:

    @schemathesis.auth(refresh_interval=None)
    class SignedIn:
        def get(self, case: Case, context: Any) -> tuple[str, str] | None:
            return credential(case)

        def set(self, case: Case, data: tuple[str, str], context: Any) -> None:
            case.cookies[data[0]] = data[1]


def slot() -> str:
    """An hour that nobody has booked: chance seldom comes so far."""
    begins = datetime(2150, 6, 1, 0, 7, tzinfo=UTC) + timedelta(hours=next(numbers))
    return begins.strftime("%Y-%m-%dT%H:%M:%SZ")


def chart() -> str:
    body = {"name": "Charlie Chart", "email": "chart@fuzz.example", "phone": "+1 555 0100", "gender": "other"}
    return CLERK.post("/api/patients", {**body, "dateOfBirth": "1980-05-17", "address": "1 Main Street"})


def appointment() -> str:
    """A new one that every role may see."""
    body = {"patientId": str(CHART), "doctorId": str(DOCTOR), "date": slot(), "reason": "Check-up"}
    return CLERK.post("/api/appointments", body)


# What makes a valid case work. `linked`: it is a step of a sequence, and its ids are those of earlier steps.


def register(case: Case, linked: bool) -> None:
    of_role(case, case.body["role"])
    short(case, "password")
    if case.body["email"].strip().lower() in registered:
        case.body["email"] = f"{uuid4().hex}@fuzz.example"
    registered.add(case.body["email"].strip().lower())


def update_me(case: Case, linked: bool) -> None:
    of_role(case, ROLE)


def of_role(case: Case, role: str) -> None:
    for name, whose in (("specialization", "doctor"), ("department", "staff")):
        if role != whose:
            case.body.pop(name, None)


def short(case: Case, name: str) -> None:
    case.body[name] = case.body[name].encode()[:72].decode(errors="ignore").ljust(6, "x")


def change_password(case: Case, linked: bool) -> None:
    case.body["currentPassword"] = PASSWORD
    short(case, "newPassword")


def set_password(case: Case, linked: bool) -> None:
    short(case, "newPassword")


def end_session(case: Case, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = Person(THROW_AWAY["endMySession"].email).session_id


def update_user(case: Case, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"], _ = newcomer("doctor")
    if case.body.get("status") == "pending":
        case.body["status"] = "disabled"


def create_patient(case: Case, linked: bool) -> None:
    if case.body.get("dateOfBirth", "") > datetime.now(UTC).date().isoformat():
        case.body["dateOfBirth"] = "1991-07-02"


def update_patient(case: Case, linked: bool) -> None:
    create_patient(case, linked)
    if not linked:
        case.path_parameters["id"] = str(CHART)


def link_account(case: Case, linked: bool) -> None:
    case.body["userId"], _ = newcomer("patient")
    if not linked:
        case.path_parameters["id"] = chart()


def book(case: Case, linked: bool) -> None:
    case.body["date"] = slot()
    if not linked:
        case.body.update(patientId=str(CHART), doctorId=str(DOCTOR))


def move(case: Case, linked: bool) -> None:
    if "date" in case.body:
        case.body["date"] = slot()
    if not linked:
        case.path_parameters["id"] = appointment()


def first_page(case: Case, linked: bool) -> None:
    """Of a list that is to lead to the next step: the whole of it, or what the link asks for."""
    if linked:
        for name in case.query.keys() - {"patientId", "userId"}:
            del case.query[name]


LISTS = ("listMySessions", "listUsers", "listPatients", "listDoctors", "listAppointments", "listRecords")
MENDED: dict[str, Callable[[Case, bool], None]] = {
    "register": register,
    "updateMe": update_me,
    "changeMyPassword": change_password,
    "setUserPassword": set_password,
    "endMySession": end_session,
    "updateUser": update_user,
    "createPatient": create_patient,
    "updatePatient": update_patient,
    "linkPatientAccount": link_account,
    "createAppointment": book,
    "updateAppointment": move,
    **dict.fromkeys(LISTS, first_page),
}


def is_to_be_mended(case: Case, phase: str) -> bool:
    """Of four valid cases the fourth stays as it is, and its 400 or 404 is looked at too; but all steps of a
    sequence are mended, because Hypothesis wants the same step to end the same."""
    name = name_of(case)
    if name not in MENDED or not (ROLE or name == "register"):
        return False
    turns[name, phase] += 1
    return phase == "stateful" or turns[name, phase] % 4 != 0


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    name = name_of(case)
    if case.meta is not None and case.meta.generation.mode.is_positive:
        phase = case.meta.phase.name.value
        if is_to_be_mended(case, phase):
            MENDED[name](case, phase == "stateful")
    if name in {"updateUser", "setUserPassword"} and case.path_parameters.get("id") in KEPT:
        case.path_parameters["id"], _ = newcomer("doctor")
    if carried(case):  # a case may be older than the end of its session
        cookie, value = credential(case) or ("", "")
        case.cookies[cookie] = value


@schemathesis.hook
def after_call(context: HookContext, case: Case, response: Response) -> None:
    if case.method.upper() != case.operation.method.upper():
        return  # the path was asked for a method that it does not have
    name, status = name_of(case), response.status_code
    statuses[name][status] += 1
    for person in carried(case):
        signed_in[name] += 1
        turned_away[name] += status == 401
        if name == "refresh" and status == 200:
            person.take(response.headers.get("set-cookie", []))
        if name == "changeMyPassword" and status == 200:
            THROW_AWAY[name] = kept(ROLE)
        if status == 401 or (status == 200 and ends(case, person)):
            person.forget()


def ends(case: Case, person: Person) -> bool:
    """Whether the case, answered 200, has ended the session that it came with."""
    name = name_of(case)
    return name == "logout" or (name == "endMySession" and case.path_parameters["id"] == person.session_id)


@atexit.register
def report() -> None:
    found = {"statuses": statuses, "signed_in": signed_in, "turned_away": turned_away}
    REPORT.write_text(json.dumps(found))
