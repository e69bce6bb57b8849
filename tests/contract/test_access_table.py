"""The tables of who may do what, in the contract's guide and in decision 0024, are the same, leave no
operation out, and say what `x-roles` says."""

from pathlib import Path

from api.contract import contract
from security.roles import Role
from tests.support.openapi import document, is_secured, operations

HEADING = "Who may do what"
RECORD = Path(__file__).parents[2] / "docs/decisions/0024-who-may-do-what.md"
REFUSED = "403"
# The operations of each row.
ROWS = {
    "patients: list, read": "listPatients getPatient",
    "patients: create, look for duplicates": "createPatient listPatientDuplicates",
    "patients: the account that is linked, read": "getPatientAccount",
    "patients: link an account": "linkPatientAccount",
    "patients: merge two charts, undo it": "mergePatient unmergePatient",
    "patients: the charts that are merged into one": "listPatientMerges",
    "patients: unlink an account": "unlinkPatientAccount",
    "patients: change": "updatePatient",
    "patients: history": "getPatientHistory",
    "doctors: list, read, free times; the clinic": (
        "listDoctors getDoctor listDoctorSlots listSlots getClinic"
    ),
    "doctors: working hours": "getDoctorHours putDoctorHours",
    "absences: list": "listAbsences",
    "absences: create, delete": "createAbsence deleteAbsence",
    "appointments: list, read": "listAppointments getAppointment",
    "appointments: create": "createAppointment",
    "appointments: change": "updateAppointment",
    "appointments: reassign or cancel those of a doctor, list those of nobody (`orphaned`)": (
        "reassignAppointments"
    ),
    "appointments: visit, read": "getVisit",
    "appointments: visit, say who came": "updateVisit",
    "appointments: day sheet": "getDaySheet",
    "appointments: history": "getAppointmentHistory",
    "records: list, read": "listRecords getRecord",
    "records: create": "createRecord",
    "records: amend": "createRecordVersion",
    "records: retract": "retractRecord",
    "records: earlier versions": "listRecordVersions",
    "accounts: approve, disable, change role, name or e-mail, set a password": "updateUser setUserPassword",
    "accounts: list, read": "listUsers getUser",
    "one's own account, password and sessions": (
        "getMe updateMe changeMyPassword listMySessions endMySession refresh"
    ),
    "a feed of one's own appointments": "createMyCalendar endMyCalendar",
    "the figures of the dashboard": "getDashboardStats",
    "what changed, of what one may see": "listChanges",
    "audit trail": "listAuditEvents",
    "who has seen a chart": "listPatientAccesses",
    "who has seen a record": "listRecordAccesses",
}


def table_in(text: str) -> list[str]:
    """The lines of the table under the heading."""
    lines = text[text.index(HEADING) :].splitlines()
    return [line for line in lines if line.startswith("|")]


def rows_of(table: list[str]) -> dict[str, dict[Role, str]]:
    """By the row's name, what each role may."""
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    roles = [Role(name) for name in head[1:]]
    return {name: dict(zip(roles, cells, strict=True)) for name, *cells in rows}


def guide() -> list[str]:
    return table_in(contract()["info"]["description"])


def test_the_decision_has_the_table_of_the_guide() -> None:
    assert table_in(RECORD.read_text()) == guide()


def test_each_operation_that_needs_a_cookie_has_a_row() -> None:
    contract = document()
    known = [
        operation["operationId"]
        for _, _, operation in operations(contract)
        if is_secured(contract, operation)
    ]
    assert sorted(" ".join(ROWS.values()).split()) == sorted(known)
    assert list(rows_of(guide())) == list(ROWS)


def test_a_row_refuses_the_roles_that_its_operations_refuse() -> None:
    allowed = {one["operationId"]: set(one.get("x-roles", Role)) for _, _, one in operations(document())}
    for name, cells in rows_of(guide()).items():
        let_in = {role for role, cell in cells.items() if cell != REFUSED}
        for operation in ROWS[name].split():
            assert allowed[operation] == let_in, (name, operation)
