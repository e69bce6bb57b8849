"""What Schemathesis cannot know by itself: who is signed in, and which of the values that the contract allows
also work, because a slot is free or a password is the right one.

The account of the run does everything but what would end its sessions or change its password. Disposable
accounts of the same role do that, and sign in again when their session has ended.
"""

import atexit
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import schemathesis
from schemathesis import Case, HookContext, Response

from persistence.demo import CHART, DOCTOR, PASSWORD
from tests.fuzz.accounts import (
    ADMINISTRATOR,
    DISPOSABLE_ACCOUNTS,
    OTHER_DOCTOR,
    OWN_ACCOUNT,
    PROTECTED_ACCOUNTS,
    ROLE,
    STAFF_MEMBER,
    Person,
    create_account,
    create_protected_account,
)

REPORT = Path(os.environ["FUZZ_REPORT"])
AnyCase = Case[Any]  # of an operation of any kind of schema; Schemathesis types no more of it

issued: dict[str, Person] = {}  # token -> whose it is
statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)
signed_in: Counter[str] = Counter()
turned_away: Counter[str] = Counter()
registered: set[str] = set()
keys_used: set[str] = set()
valid_cases: Counter[tuple[str, str]] = Counter()
conditions = count(1)
hours = count()


def operation_id_of(case: AnyCase) -> str:
    return str(case.operation.definition.raw["operationId"])


def body_of(case: AnyCase) -> dict[str, Any]:
    """The fields of a valid case of an operation that takes an object."""
    return cast("dict[str, Any]", case.body)


def credential_for(case: AnyCase) -> tuple[str, str] | None:
    """(name, value) of the cookie that the operation takes; None where it takes none."""
    options = case.operation.definition.raw.get("security", case.operation.schema.raw_schema["security"])
    if not any(options):
        return None
    name = "refresh_token" if {"refreshCookie": []} in options else "access_token"
    person = DISPOSABLE_ACCOUNTS.get(operation_id_of(case), OWN_ACCOUNT)
    value = person.cookie(name)
    issued[value] = person
    return name, value


def cookie_owners(case: AnyCase) -> list[Person]:
    """Whose cookie the case carries, if any; some are made to carry none, or a damaged one."""
    values = (case.cookies or {}).values()
    return [issued[value] for value in values if isinstance(value, str) and value in issued]


if ROLE:

    @schemathesis.auth(refresh_interval=None)
    class SignedIn:
        def get(self, case: AnyCase, context: Any) -> tuple[str, str] | None:
            return credential_for(case)

        def set(self, case: AnyCase, data: tuple[str, str], context: Any) -> None:
            case.cookies[data[0]] = data[1]


def next_free_slot() -> str:
    """An hour that nobody has booked; random dates are seldom so late."""
    begins = datetime(2150, 6, 1, 0, 7, tzinfo=UTC) + timedelta(hours=next(hours))
    return begins.strftime("%Y-%m-%dT%H:%M:%SZ")


def create_chart() -> str:
    body = {"name": "Charlie Chart", "email": "chart@fuzz.example", "phone": "+1 555 0100", "gender": "other"}
    return STAFF_MEMBER.create(
        "/api/patients", {**body, "dateOfBirth": "1980-05-17", "address": "1 Main Street"}
    )


def create_appointment() -> str:
    """A new one that every role may see."""
    body = {"patientId": str(CHART), "doctorId": str(DOCTOR), "date": next_free_slot(), "reason": "Check-up"}
    return STAFF_MEMBER.create("/api/appointments", body)


def create_past_appointment() -> str:
    """One whose visit may begin."""
    begins = datetime(1950, 6, 1, 0, 7, tzinfo=UTC) + timedelta(hours=next(hours))
    body = {"patientId": str(CHART), "doctorId": str(DOCTOR), "reason": "Check-up"}
    return STAFF_MEMBER.create("/api/appointments", {**body, "date": begins.strftime("%Y-%m-%dT%H:%M:%SZ")})


def create_absence() -> str:
    """A new one, which a doctor of the run may delete."""
    times = {"from": "2198-01-01T00:00:00Z", "to": "2198-01-02T00:00:00Z"}
    return STAFF_MEMBER.create("/api/absences", {"doctorId": str(DOCTOR), **times})


def create_record() -> str:
    """A new one, which a doctor of the run has written themselves."""
    body = {"patientId": str(CHART), "diagnosis": "Well", "prescription": "", "notes": ""}
    return (OWN_ACCOUNT if ROLE == "doctor" else OTHER_DOCTOR).create("/api/records", body)


# Each changes a valid case so that it also works. `linked`: it is a step of a sequence, and its ids are those
# of earlier steps.


def make_key_new(case: AnyCase) -> None:
    """A key that was used already would be refused, or repeat what it was used for."""
    headers: Any = case.headers or {}  # of its own kind of dict
    key = headers.get("Idempotency-Key")
    if isinstance(key, str):
        headers["Idempotency-Key"] = uuid4().hex if key in keys_used else key
        keys_used.add(key)


def join_lists(case: AnyCase) -> None:
    """By commas, as the contract says; Schemathesis repeats a parameter that may be one value or several."""
    for name, value in (case.query or {}).items():
        if isinstance(value, list):
            case.query[name] = ",".join(map(str, value))


def meet_condition(case: AnyCase, linked: bool) -> None:
    """Hardly any tag that the contract allows is that of what is there. One in four stays, for 412."""
    headers: Any = case.headers or {}  # of its own kind of dict
    if isinstance(headers.get("If-Match"), str) and (linked or next(conditions) % 4):
        headers["If-Match"] = "*"


def prepare_registration(case: AnyCase, linked: bool) -> None:
    remove_fields_of_other_roles(case, body_of(case)["role"])
    fit_password(case, "password")
    if body_of(case)["email"].strip().lower() in registered:
        body_of(case)["email"] = f"{uuid4().hex}@fuzz.example"
    registered.add(body_of(case)["email"].strip().lower())


def prepare_own_update(case: AnyCase, linked: bool) -> None:
    remove_fields_of_other_roles(case, ROLE)


def remove_fields_of_other_roles(case: AnyCase, role: str) -> None:
    for name, whose in (("specialization", "doctor"), ("department", "staff")):
        if role != whose:
            body_of(case).pop(name, None)


def fit_password(case: AnyCase, name: str) -> None:
    body_of(case)[name] = body_of(case)[name].encode()[:72].decode(errors="ignore").ljust(6, "x")


def prepare_password_change(case: AnyCase, linked: bool) -> None:
    body_of(case)["currentPassword"] = PASSWORD
    fit_password(case, "newPassword")


def prepare_password_reset(case: AnyCase, linked: bool) -> None:
    fit_password(case, "newPassword")


def prepare_session_end(case: AnyCase, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = Person(DISPOSABLE_ACCOUNTS["endMySession"].email).session_id


def prepare_account_update(case: AnyCase, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"], _ = create_account("doctor")
    if body_of(case).get("status") == "pending" or "appointments" in body_of(case):
        body_of(case)["status"] = "disabled"
    if linked:  # whoever it is may be no doctor
        body_of(case).pop("appointments", None)
    if isinstance(body_of(case).get("appointments"), dict):
        body_of(case)["appointments"]["reassignTo"] = str(DOCTOR)


def prepare_chart(case: AnyCase, linked: bool) -> None:
    if body_of(case).get("dateOfBirth", "") > datetime.now(UTC).date().isoformat():
        body_of(case)["dateOfBirth"] = "1991-07-02"


def prepare_chart_update(case: AnyCase, linked: bool) -> None:
    prepare_chart(case, linked)
    if not linked:
        case.path_parameters["id"] = str(CHART)


def prepare_link(case: AnyCase, linked: bool) -> None:
    body_of(case)["userId"], _ = create_account("patient")
    if not linked:
        case.path_parameters["id"] = create_chart()


def prepare_merge(case: AnyCase, linked: bool) -> None:
    body_of(case)["from"] = create_chart()
    if not linked:
        case.path_parameters["id"] = create_chart()


def prepare_unmerge(case: AnyCase, linked: bool) -> None:
    """Charts of its own also in a sequence, whose charts nobody has merged."""
    merged = {"from": create_chart(), "reason": "Registered twice"}
    survivor = ADMINISTRATOR.create(f"/api/patients/{create_chart()}/merge", merged)
    body_of(case)["from"], case.path_parameters["id"] = merged["from"], survivor


def prepare_booking(case: AnyCase, linked: bool) -> None:
    body_of(case)["date"] = next_free_slot()
    if not linked:
        body_of(case).update(patientId=str(CHART), doctorId=str(DOCTOR))


def prepare_appointment_update(case: AnyCase, linked: bool) -> None:
    if "date" in body_of(case):
        body_of(case)["date"] = next_free_slot()
    if not linked:
        case.path_parameters["id"] = create_appointment()


def prepare_visit(case: AnyCase, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = create_past_appointment()
        body_of(case)["act"] = body_of(case)["act"].replace("undo", "arrived")


def prepare_reassignment(case: AnyCase, linked: bool) -> None:
    """The appointment of a new doctor, which is in the answer."""
    doctor, _ = create_account("doctor")
    body = {"patientId": str(CHART), "doctorId": doctor, "date": next_free_slot(), "reason": "Check-up"}
    STAFF_MEMBER.create("/api/appointments", body)
    body_of(case).update({"doctorId": doctor, "from": "2026-01-01T00:00:00Z", "to": "2199-01-01T00:00:00Z"})
    if isinstance(body_of(case)["appointments"], dict):
        body_of(case)["appointments"]["reassignTo"] = str(DOCTOR)


def prepare_list(case: AnyCase, linked: bool) -> None:
    """A step of a sequence lists everything, or what the link asks for, so that the next step finds some."""
    if linked:
        for name in case.query.keys() - {"patientId", "userId"}:
            del case.query[name]
    if ROLE in {"doctor", "patient"}:
        case.query.pop("orphaned", None)


def prepare_duplicates(case: AnyCase, linked: bool) -> None:
    """One parameter at least is required. This one links have something to follow from."""
    case.query["name"] = "Paula Patient"


def prepare_absence(case: AnyCase, linked: bool) -> None:
    """At a time for which nobody else asks."""
    body_of(case).update({"from": "2198-01-01T00:00:00Z", "to": "2198-01-02T00:00:00Z"})
    if ROLE == "doctor" or "doctorId" in body_of(case):
        body_of(case)["doctorId"] = str(DOCTOR)


def prepare_absence_end(case: AnyCase, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = create_absence()


def prepare_hours(case: AnyCase, linked: bool) -> None:
    """Of somebody whom nobody books, or none: another case's booking would be outside of them."""
    week = {one["weekday"]: one for one in body_of(case)["hours"] or ()}
    for one in week.values():
        one.update({"from": "08:00", "to": "24:00", "validFrom": None})
    body_of(case)["hours"] = None if ROLE == "doctor" else list(week.values())
    case.path_parameters["id"] = str(DOCTOR) if ROLE == "doctor" else create_account("doctor")[0]


def prepare_record_version(case: AnyCase, linked: bool) -> None:
    if not any(body_of(case).get(name) is not None for name in ("diagnosis", "prescription", "notes")):
        body_of(case)["notes"] = "Seen again."
    if not linked:
        case.path_parameters["id"] = create_record()


def prepare_retraction(case: AnyCase, linked: bool) -> None:
    if not linked:
        case.path_parameters["id"] = create_record()


def prepare_end_of_feed(case: AnyCase, linked: bool) -> None:
    """There may be none, or none any more."""
    if ROLE in {"doctor", "patient"}:  # others have none
        OWN_ACCOUNT.subscribe()


def prepare_feed(case: AnyCase, linked: bool) -> None:
    case.path_parameters["secret"] = OTHER_DOCTOR.subscribe()


def prepare_changes(case: AnyCase, linked: bool) -> None:
    """Nobody makes any meanwhile, so that whoever waits for them waits in vain; and nobody makes up a cursor
    that is one."""
    case.query.pop("wait", None)
    for parameters, name in ((case.query, "since"), (case.headers, "Last-Event-ID")):
        if parameters and name in parameters:
            parameters[name] = OWN_ACCOUNT.cursor()


LISTS = ("listMySessions", "listUsers", "listPatients", "listDoctors", "listAppointments", "listRecords",
         "listAbsences")  # fmt: skip
PREPARATIONS: dict[str, Callable[[AnyCase, bool], None]] = {
    "register": prepare_registration,
    "updateMe": prepare_own_update,
    "changeMyPassword": prepare_password_change,
    "setUserPassword": prepare_password_reset,
    "endMySession": prepare_session_end,
    "updateUser": prepare_account_update,
    "createPatient": prepare_chart,
    "updatePatient": prepare_chart_update,
    "linkPatientAccount": prepare_link,
    "mergePatient": prepare_merge,
    "unmergePatient": prepare_unmerge,
    "listPatientDuplicates": prepare_duplicates,
    "listChanges": prepare_changes,
    "endMyCalendar": prepare_end_of_feed,
    "getCalendar": prepare_feed,
    "getCalendarHead": prepare_feed,
    "createAppointment": prepare_booking,
    "updateAppointment": prepare_appointment_update,
    "updateVisit": prepare_visit,
    "reassignAppointments": prepare_reassignment,
    "createRecordVersion": prepare_record_version,
    "createAbsence": prepare_absence,
    "deleteAbsence": prepare_absence_end,
    "putDoctorHours": prepare_hours,
    "retractRecord": prepare_retraction,
    **dict.fromkeys(LISTS, prepare_list),
}


def is_to_be_prepared(case: AnyCase, phase: str) -> bool:
    """Of four valid cases the fourth stays as it is, and its 400 or 404 is looked at too; but all steps of a
    sequence are prepared, because Hypothesis wants the same step to end the same."""
    name = operation_id_of(case)
    if name not in PREPARATIONS or not (ROLE or name in {"register", "getCalendar", "getCalendarHead"}):
        return False
    valid_cases[name, phase] += 1
    return phase == "stateful" or valid_cases[name, phase] % 4 != 0


@schemathesis.hook
def before_call(context: HookContext, case: AnyCase, kwargs: dict[str, Any]) -> None:
    name = operation_id_of(case)
    if case.meta is not None and case.meta.generation.mode.is_positive:
        make_key_new(case)
        join_lists(case)
        phase = case.meta.phase.name.value
        meet_condition(case, phase == "stateful")
        if is_to_be_prepared(case, phase):
            PREPARATIONS[name](case, phase == "stateful")
    if name in {"updateUser", "setUserPassword"} and case.path_parameters.get("id") in PROTECTED_ACCOUNTS:
        case.path_parameters["id"], _ = create_account("doctor")
    if cookie_owners(case):  # a case may be older than the end of its session
        cookie, value = credential_for(case) or ("", "")
        case.cookies[cookie] = value


@schemathesis.hook
def after_call(context: HookContext, case: AnyCase, response: Response) -> None:
    if case.method.upper() != case.operation.method.upper():
        return  # the path was asked for a method that it does not have
    name, status = operation_id_of(case), response.status_code
    statuses[name][status] += 1
    for person in cookie_owners(case):
        signed_in[name] += 1
        turned_away[name] += status == 401
        if name == "refresh" and status == 200:
            person.keep_cookies(response.headers.get("set-cookie", []))
        if name == "changeMyPassword" and status == 200:
            DISPOSABLE_ACCOUNTS[name] = create_protected_account(ROLE)
        if status == 401 or (status == 200 and ends_session(case, person)):
            person.sign_in_again()


def ends_session(case: AnyCase, person: Person) -> bool:
    """Whether the case, answered 200, has ended the session that it came with."""
    name = operation_id_of(case)
    return name == "logout" or (name == "endMySession" and case.path_parameters["id"] == person.session_id)


@atexit.register
def report() -> None:
    found = {"statuses": statuses, "signed_in": signed_in, "turned_away": turned_away}
    REPORT.write_text(json.dumps(found))
