"""A release breaks no client by accident: openapi.yaml accepts what that of the last release accepted, and
answers what it answered, unless the major version has changed. docs/baseline/openapi.yaml is that of the
last release; the README says when to renew it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.contract import contract
from tests.support.breaking import breaking_changes, is_major
from tests.support.openapi import Json

BASELINE = Path(__file__).parents[2] / "docs/baseline/openapi.yaml"


def baseline() -> Json:
    document: Json = yaml.load(BASELINE.read_text(), yaml.CSafeLoader)
    return document


def test_the_contract_breaks_no_client() -> None:
    if not is_major(baseline(), contract()):
        assert breaking_changes(baseline(), contract()) == []


def test_the_baseline_is_not_newer_than_the_contract() -> None:
    def number(document: Json) -> tuple[int, ...]:
        return tuple(int(part) for part in document["info"]["version"].split("."))

    assert number(baseline()) <= number(contract())


GONE = object()


def changed(document: Json, path: str, value: Any) -> Json:
    """The document with `value` at `path`, whose keys are separated by blanks; in a list it is appended."""
    document = json.loads(json.dumps(document))
    *ways, last = path.split(" ")
    place: Any = document
    for way in ways:
        place = place[int(way) if isinstance(place, list) else way]
    if value is GONE:
        del place[last if isinstance(place, dict) else int(last) if last.isdigit() else place.index(last)]
    elif isinstance(place, list):
        place.append(value)
    else:
        place[last] = value
    return document


PATIENT = "components schemas Patient"
CREATE = "components schemas PatientCreate"
LIST = "paths /api/patients get"
POST = "paths /api/patients post"
TEXT = {"type": "string", "maxLength": 10}
OPTIONAL = {"name": "insurer", "in": "query", "schema": TEXT}
REQUIRED = {**OPTIONAL, "required": True}
INVOICES = {"get": {"operationId": "listInvoices", "responses": {}}}
BLOOD = {"$ref": "#/components/schemas/BloodType"}
FIFTH = {"type": "object", "properties": {"beds": {"type": "integer"}}, "required": ["beds"]}
STATS = "paths /api/dashboard/stats get responses 200 content application/json schema oneOf"

BREAKING = [
    ("paths /api/patients", GONE, "GET /api/patients: is gone"),
    (f"{POST}", GONE, "POST /api/patients: is gone"),
    (f"{POST} operationId", "addPatient", "POST /api/patients: operationId is another"),
    (f"{POST} responses 201", GONE, "POST /api/patients: 201 is gone"),
    (f"{POST} x-roles admin", GONE, "POST /api/patients: x-roles shuts out admin"),
    (f"{LIST} x-roles", ["admin"], "GET /api/patients: x-roles shuts out doctor, patient, staff"),
    (f"{LIST} security", [{"refreshCookie": []}], "GET /api/patients: accessCookie no longer suffices"),
    (
        "paths /api/auth/login post security",
        [{"accessCookie": []}],
        "POST /api/auth/login: no cookie no longer suffices",
    ),
    (
        "paths /api/auth/register post security",
        [{"accessCookie": []}],
        "POST /api/auth/register: no cookie no longer suffices",
    ),
    (f"{LIST} parameters +", REQUIRED, "GET /api/patients: parameter insurer is required now"),
    (f"{LIST} parameters", [], "GET /api/patients: parameter search is gone"),
    ("components parameters Limit required", True, "GET /api/patients: parameter limit is required now"),
    ("components parameters Limit schema maximum", 50, "parameter limit: maximum was 100, is 50"),
    ("components parameters Limit schema default", 20, "parameter limit: default was 10, is 20"),
    ("components parameters Search schema type", "integer", "search: type was string, is integer"),
    (f"{POST} requestBody content application/json", GONE, "a body of application/json is no longer taken"),
    (f"{POST} requestBody", GONE, "POST /api/patients: the body is gone"),
    ("paths /api/auth/logout post requestBody", {"required": True, "content": {}}, "a body is required now"),
    (f"{CREATE} required +", "bloodType", "body.bloodType: is required now"),
    (f"{CREATE} properties allergies", GONE, "body.allergies: is refused now"),
    (f"{CREATE} properties name maxLength", 100, "body.name: maxLength was 200, is 100"),
    (f"{CREATE} properties name minLength", 2, "body.name: minLength was 1, is 2"),
    (f"{CREATE} properties phone pattern", "^[0-9]+$", "body.phone: pattern was"),
    (f"{CREATE} properties address format", "uri", "body.address: format was none, is uri"),
    (f"{CREATE} properties bloodType", BLOOD, "body.bloodType: type was null, string, is string"),
    (
        "components schemas RecordCreate properties attachments items maxLength",
        80,
        "body.attachments[]: maxLength was 2048, is 80",
    ),
    (
        "components schemas Gender enum other",
        GONE,
        "body.gender: enum was female, male, other, is female, male",
    ),
    ("components schemas Gender enum +", "unknown", "answer.gender: enum was female, male, other, is female"),
    ("components schemas Outcome enum +", "unknown", "answer.events[].outcome: enum was"),
    ("components schemas Action type", "integer", "answer.events[].action: type was string"),
    (f"{PATIENT} properties allergies", GONE, "201: answer.allergies: is gone"),
    (f"{PATIENT} required allergies", GONE, "answer.allergies: may be left out now"),
    (
        f"{PATIENT} properties phone type",
        ["string", "null"],
        "answer.phone: type was string, is null, string",
    ),
    (f"{PATIENT} properties created_at", TEXT, "answer.created_at: format was date-time, is none"),
    (f"{PATIENT} properties name maxLength", 300, "answer.name: maxLength was 200, is 300"),
    ("components schemas PatientPage properties total type", "number", "answer.total: type was integer"),
    (
        "components schemas AppointmentPage properties appointments items",
        {"type": "string"},
        "answer.appointments[]: type was object, is string",
    ),
    (f"{STATS} +", FIFTH, "GET /api/dashboard/stats 200: answer"),
    ("components schemas AdminStats properties revenue", GONE, "answer.revenue: is gone"),
    (
        "components schemas ErrorDetail properties detail",
        {"type": "object"},
        "answer.detail: type was string",
    ),
    ("components responses TooManyRequests headers Retry-After", GONE, "429: header Retry-After is gone"),
]
COMPATIBLE = [
    ("components schemas Action enum +", "record.print"),
    ("components schemas ErrorCode enum +", "too_funny"),
    ("paths /api/invoices", INVOICES),
    (f"{LIST} parameters +", OPTIONAL),
    (f"{LIST} summary", "All of them"),
    (f"{LIST} responses 200 headers RateLimit-Reset", GONE),
    (f"{POST} x-roles +", "doctor"),
    (f"{POST} x-roles", GONE),
    (f"{LIST} security", []),
    (f"{POST} responses 409", {"description": "Another error.", "content": {}}),
    (f"{POST} responses 413", GONE),
    (f"{POST} requestBody content text/csv", {"schema": TEXT}),
    (f"{CREATE} required phone", GONE),
    (f"{CREATE} properties notes", TEXT),
    (f"{CREATE} properties name maxLength", 300),
    (f"{CREATE} properties phone", {"type": "string", "maxLength": 40}),
    (f"{CREATE} properties phone type", ["string", "null"]),
    (f"{CREATE} properties gender", {"anyOf": [{"$ref": "#/components/schemas/Gender"}, {"type": "null"}]}),
    (f"{PATIENT} properties insurance", TEXT),
    (f"{PATIENT} properties allergies type", "string"),
    (f"{PATIENT} properties name maxLength", 100),
    (f"{STATS} 3", GONE),
    ("components parameters Limit schema maximum", 200),
    ("components schemas Credentials properties email maxLength", 300),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value", "complaint"), BREAKING)
def test_breaking_changes_of_the_contract_are_caught(path: str, value: Any, complaint: str) -> None:
    found = breaking_changes(contract(), changed(contract(), path, value))
    assert any(complaint in change for change in found), found


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value"), COMPATIBLE)
def test_compatible_changes_of_the_contract_pass(path: str, value: Any) -> None:
    assert breaking_changes(contract(), changed(contract(), path, value)) == []


@pytest.mark.parametrize(("version", "free"), [("0.1.1", False), ("0.2.0", False), ("1.0.0", True)])
def test_only_a_new_major_version_may_break_clients(version: str, free: bool) -> None:
    old, new = (changed(contract(), "info version", number) for number in ("0.1.0", version))
    assert is_major(old, new) is free
