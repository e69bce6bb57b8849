"""The history of a synthetic clinic (tests/data/synthea) goes in through the API as a clinic would do it;
then every list, filter, search and figure must be what plain Python reads out of the same CSV files.

Doctors: the 51 providers whom an encounter names register, are approved and sign in. Two more, of the other
115, register and stay pending: they are the ones with names beyond ASCII. The rest would add nothing. E-mail
and phone, which Synthea does not have, are derived from its ids.

Encounters: staff book each patient's in the order of time, then the doctors complete them. So while the
booking goes on nothing is completed, and an encounter is refused if the doctor or the patient is in an
earlier one that began less than half an hour before. Six are refused, all because of one at the very same
instant: all six clash for the patient and three of them for the doctor too, nine clashes together. Once the
other one is completed, the refused one can be booked and is completed too.

Referrals: nothing in the files is of today, so each patient gets one more appointment, with the doctor whom
the next patient saw last, at the first instant of today, of tomorrow or of the day after. Of those who have
died it is cancelled.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from itertools import pairwise
from typing import Any
from unicodedata import normalize

import pytest

from tests.support.client import Browser
from tests.support.replay import replay, steps
from tests.support.service import Backend, Service
from tests.support.synthea import (
    APPLICANTS,
    CONDITIONS,
    DOCTORS,
    ENCOUNTERS,
    FEE,
    LINKED,
    MEDICATIONS,
    PATIENTS,
    PROVIDERS,
    RECORDED,
    UNLINKED,
    WITH_ACCOUNT,
    ZONE,
    Clinic,
    chart_of,
    each,
    email,
    enter_history,
    expect,
    expected_refusals,
    finding_of,
    open_clinic,
    patient_name,
    phone,
    record_of,
    today_here,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clinic(servers: Backend) -> Iterator[Clinic]:
    """Its 120 hashes and checks of passwords would be two thirds of the time. The cost that the requirement
    demands is seen in tests/security/test_passwords.py."""
    backend = servers.copy()
    settings = backend.settings(clinic_timezone=ZONE.key, consultation_fee=FEE)
    with pytest.MonkeyPatch.context() as cheaply, Service(backend, settings) as service:
        cheaply.setattr("security.passwords.BCRYPT_COST", 4)
        clinic = open_clinic(service)
        enter_history(clinic)
        yield clinic


def every(browser: Browser, path: str, noun: str, limit: int = 100, **filters: str) -> list[dict[str, Any]]:
    """A list from its first page to its last, which every page agrees on and one more is not."""
    found: list[dict[str, Any]] = []
    for page in range(1, 1000):
        parameters = {**filters, "page": page, "limit": limit}
        answer = expect(200, browser.get(path, params=parameters))
        found += answer[noun]
        assert len(found) == min(page * limit, answer["total"])
        if not answer[noun]:
            return found
    raise AssertionError("a list without end")


def bare(text: str) -> str:
    """Without case and accents, as far as these files have any."""
    return re.sub("[\u0300-\u036f]", "", normalize("NFD", text)).casefold()


def is_found(term: str, name: str, email: str, phone: str) -> bool:
    """Every word in one of them, or in the phone's digits."""
    places = [bare(name), bare(email), bare(phone), re.sub("[^0-9+]", "", phone)]
    words = [
        re.sub("[-.()]", "", word) if re.search("^[-+.()0-9]+$", word) else word for word in term.split()
    ]
    return all(any(bare(word) in place for place in places) for word in words)


def in_order_of_name(people: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(people, key=lambda person: (bare(person["name"]), person["id"]))


def in_order_of_time(appointments: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(appointments, key=lambda one: (datetime.fromisoformat(one["date"]), one["id"]))


def newest_first(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda one: (datetime.fromisoformat(one["date"]), one["id"]), reverse=True)


def day_of(appointment: dict[str, Any]) -> date:
    return datetime.fromisoformat(appointment["date"]).astimezone(ZONE).date()


def assigned(clinic: Clinic, provider: str) -> int:
    """Patients whom the doctor saw or is to see; no others have records by that doctor."""
    seen = {row["PATIENT"] for row in ENCOUNTERS.values() if row["PROVIDER"] == provider}
    to_see = {
        key
        for key, appointment in clinic.referrals.items()
        if appointment["doctorId"] == clinic.ids[provider] and not PATIENTS[key]["DEATHDATE"]
    }
    return len(seen | to_see)


def test_the_synthea_files_have_the_assumed_properties() -> None:
    assert (len(PATIENTS), len(PROVIDERS), len(ENCOUNTERS)) == (27, 166, 604)
    assert (len(DOCTORS), len(APPLICANTS), len(RECORDED)) == (51, 2, 529)
    assert sum(bool(row["DEATHDATE"]) for row in PATIENTS.values()) in range(1, 27)
    for row in RECORDED:
        for found in CONDITIONS.get(row["Id"], []) + MEDICATIONS.get(row["Id"], []):
            assert found["PATIENT"] == row["PATIENT"]


def test_overlapping_encounters_are_refused_bookings(clinic: Clinic) -> None:
    expected = expected_refusals()
    assert len(expected) == 6
    assert Counter(who for clashes in expected.values() for who in clashes) == {"patient": 6, "doctor": 3}
    taken = "date: the {} has another appointment at that time"
    assert clinic.refused == {
        key: taken.format("doctor" if "doctor" in clashes else "patient") for key, clashes in expected.items()
    }


def test_every_synthea_encounter_becomes_a_completed_appointment(clinic: Clinic) -> None:
    assert clinic.visits.keys() == ENCOUNTERS.keys()
    for key, row in ENCOUNTERS.items():
        assert {name: value for name, value in clinic.visits[key].items() if name != "id"} == {
            "patientId": clinic.ids[row["PATIENT"]],
            "patientName": patient_name(row["PATIENT"]),
            "doctorId": clinic.ids[row["PROVIDER"]],
            "doctorName": PROVIDERS[row["PROVIDER"]]["NAME"],
            "date": row["START"],
            "status": "completed",
            "reason": row["DESCRIPTION"],
            "notes": None,
        }


@pytest.mark.parametrize("limit", [7, 100])
def test_synthea_doctors_are_listed_as_registered(clinic: Clinic, limit: int) -> None:
    expected = in_order_of_name(
        {
            "id": clinic.ids[key],
            "name": PROVIDERS[key]["NAME"],
            "email": email(key),
            "specialization": PROVIDERS[key]["SPECIALITY"],
            "phone": phone(key),
        }
        for key in DOCTORS
    )
    assert every(clinic.staff, "/api/doctors", "doctors", limit) == expected


def test_assigned_patients_of_synthea_doctors_match_the_encounters(clinic: Clinic) -> None:
    for key in DOCTORS:
        doctor = expect(200, clinic.staff.get(f"/api/doctors/{clinic.ids[key]}"))
        assert doctor["assignedPatients"] == assigned(clinic, key)


def test_synthea_applicants_stay_pending(clinic: Clinic) -> None:
    pending = every(clinic.admin, "/api/users", "users", status="pending")
    assert {user["id"] for user in pending} == {clinic.ids[key] for key in APPLICANTS}
    assert {user["name"] for user in pending} == {"Germán350 Casárez469", "Gregorio366 Chacón810"}
    for key in APPLICANTS:
        expect(404, clinic.staff.get(f"/api/doctors/{clinic.ids[key]}"))


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_synthea_charts_are_listed_in_order_of_name(clinic: Clinic, limit: int) -> None:
    listed_fields = ("name", "email", "phone", "dateOfBirth", "gender", "address")
    expected = in_order_of_name(
        {"id": clinic.ids[key], **{name: chart_of(key)[name] for name in listed_fields}} for key in PATIENTS
    )
    for browser in (clinic.staff, clinic.admin, clinic.people[next(iter(DOCTORS))]):
        found = every(browser, "/api/patients", "patients", limit)
        assert [
            {name: value for name, value in chart.items() if name != "created_at"} for chart in found
        ] == expected


def test_synthea_charts_come_back_as_they_were_sent(clinic: Clinic) -> None:
    for key in PATIENTS:
        chart = expect(200, clinic.staff.get(f"/api/patients/{clinic.ids[key]}"))
        del chart["created_at"]
        found = (chart.pop("medicalHistory") or "").splitlines()
        assert sorted(found) == sorted(findings(key))
        assert chart == {"id": clinic.ids[key], **chart_of(key), "bloodType": None}


def findings(key: str) -> list[str]:
    """What doctors have noted in the chart."""
    return [
        finding_of(row) for row in ENCOUNTERS.values() if row["PATIENT"] == key and row["Id"] in CONDITIONS
    ]


def test_the_history_of_synthea_charts_leads_to_what_they_say(clinic: Clinic) -> None:
    """Doctors have written there at the same time; each step adds one line."""
    history = steps(clinic.service.backend, "patients")
    for key, opened in clinic.opened.items():
        states = replay({**opened, "account": None}, history[opened["id"]])
        chart = expect(200, clinic.admin.get(f"/api/patients/{opened['id']}"))
        assert states[-1][1] == {**chart, "account": clinic.accounts[key] if key in LINKED else None}
        texts = [state["medicalHistory"] or "" for _, state in states]
        lengths = sorted({len(text.splitlines()) for text in texts})
        assert lengths == list(range(len(findings(key)) + 1))
        assert all(after.startswith(before) for before, after in pairwise(texts))


def test_the_history_of_synthea_appointments_leads_to_what_they_say(clinic: Clinic) -> None:
    history = steps(clinic.service.backend, "appointments")
    for appointment in clinic.appointments:
        begun = {**appointment, "status": "scheduled", "notes": None}
        states = replay(begun, history[appointment["id"]])
        assert states[-1][1] == appointment


def test_searches_of_synthea_charts_find_what_a_plain_scan_finds(clinic: Clinic) -> None:
    terms = {name for key in PATIENTS for name in patient_name(key).split()}
    terms |= {email(key) for key in PATIENTS} | {phone(key) for key in PATIENTS}
    terms |= {"an", "AN", "1", "555", "8 ", "@SYNTHEA", "no such patient", "%", "_", "e%e"}
    hits = 0
    for term in sorted(terms):
        expected = {
            clinic.ids[key] for key in PATIENTS if is_found(term, patient_name(key), email(key), phone(key))
        }
        found = every(clinic.staff, "/api/patients", "patients", search=term)
        assert found == in_order_of_name(found)
        assert {chart["id"] for chart in found} == expected
        hits += len(found) < len(PATIENTS)
    assert hits > 4 * len(PATIENTS)  # most of the terms tell patients apart


def test_searches_of_synthea_accounts_find_what_a_plain_scan_finds(clinic: Clinic) -> None:
    accounts = {
        **{clinic.ids[key]: (PROVIDERS[key]["NAME"], key) for key in DOCTORS | APPLICANTS},
        **{clinic.accounts[key]: (patient_name(key), key) for key in WITH_ACCOUNT},
    }
    [victor] = (id for id, (name, _) in accounts.items() if name == "Víctor493 Noriega353")
    decomposed = normalize("NFD", "víctor")
    assert decomposed != "víctor"
    for term in ("Víctor", "VÍCTOR493", "ctor493 nor", decomposed):
        assert [user["id"] for user in every(clinic.admin, "/api/users", "users", search=term)] == [victor]
    for term in ("Casárez", "CHACÓN", "á", "É", "victor", "GERM", "an", "555 0"):
        expected = {
            id for id, (name, key) in accounts.items() if is_found(term, name, email(key), phone(key))
        }
        found = every(clinic.admin, "/api/users", "users", search=term)
        ours = [user for user in found if user["id"] in accounts]  # and perhaps Ada Admin or Sam Staff
        assert {user["id"] for user in ours} == expected
        assert found == in_order_of_name(found)


def test_synthea_accounts_are_filtered_by_role_and_link(clinic: Clinic) -> None:
    def found(**filters: str) -> set[str]:
        return {user["id"] for user in every(clinic.admin, "/api/users", "users", limit=9, **filters)}

    assert found(role="doctor") == {clinic.ids[key] for key in DOCTORS | APPLICANTS}
    assert found(role="doctor", status="active") == {clinic.ids[key] for key in DOCTORS}
    assert found(role="patient") == set(clinic.accounts.values())
    assert found(role="patient", linked="true") == {clinic.accounts[key] for key in LINKED}
    assert found(role="patient", linked="false") == {clinic.accounts[key] for key in UNLINKED}
    assert len(found()) == len(DOCTORS | APPLICANTS) + len(WITH_ACCOUNT) + 2


@pytest.mark.parametrize("limit", [13, 100])
def test_synthea_appointments_are_listed_in_order_of_date(clinic: Clinic, limit: int) -> None:
    everything = in_order_of_time(clinic.appointments)
    assert len(everything) == len(ENCOUNTERS) + len(PATIENTS)
    assert every(clinic.staff, "/api/appointments", "appointments", limit) == everything
    assert every(clinic.admin, "/api/appointments", "appointments", limit) == everything


def test_synthea_appointments_are_filtered_by_status(clinic: Clinic) -> None:
    dead = {key for key, row in PATIENTS.items() if row["DEATHDATE"]}
    for status, expected in {
        "completed": clinic.visits.values(),
        "cancelled": [clinic.referrals[key] for key in dead],
        "scheduled": [clinic.referrals[key] for key in PATIENTS.keys() - dead],
    }.items():
        found = every(clinic.staff, "/api/appointments", "appointments", status=status)
        assert found == in_order_of_time(expected)


def test_synthea_appointments_are_filtered_by_clinic_day(clinic: Clinic) -> None:
    """Of every day that has any, at the clinic or in UTC, whose days are others."""
    days: dict[date, list[dict[str, Any]]] = defaultdict(list)
    for appointment in clinic.appointments:
        days[day_of(appointment)].append(appointment)
    in_utc = {date.fromisoformat(appointment["date"][:10]) for appointment in clinic.appointments}
    assert len(in_utc - days.keys()) > 50

    def look(day: date) -> None:
        found = every(clinic.staff, "/api/appointments", "appointments", date=str(day))
        assert found == in_order_of_time(days.get(day, []))

    each(look, days.keys() | in_utc)


def test_synthea_appointments_are_filtered_by_day_and_status(clinic: Clinic) -> None:
    for day in {day_of(one) for one in clinic.referrals.values()}:
        for status in ("scheduled", "completed", "cancelled"):
            found = every(clinic.admin, "/api/appointments", "appointments", date=str(day), status=status)
            assert found == in_order_of_time(
                one for one in clinic.appointments if day_of(one) == day and one["status"] == status
            )


def test_synthea_people_see_their_own_appointments_only(clinic: Clinic) -> None:
    for key in [*DOCTORS, *LINKED]:
        mine = "doctorId" if key in DOCTORS else "patientId"
        found = every(clinic.people[key], "/api/appointments", "appointments")
        assert found == in_order_of_time(one for one in clinic.appointments if one[mine] == clinic.ids[key])


def test_synthea_records_say_what_the_encounters_found(clinic: Clinic) -> None:
    assert clinic.records.keys() == {row["Id"] for row in RECORDED}
    for row in RECORDED:
        record = clinic.records[row["Id"]]
        assert {name: value for name, value in record.items() if name not in {"id", "date"}} == {
            "patientId": clinic.ids[row["PATIENT"]],
            "patientName": patient_name(row["PATIENT"]),
            "doctorId": clinic.ids[row["PROVIDER"]],
            "doctorName": PROVIDERS[row["PROVIDER"]]["NAME"],
            **record_of(row),
            "attachments": [],
        }


@pytest.mark.parametrize("limit", [11, 100])
def test_synthea_records_are_listed_newest_first(clinic: Clinic, limit: int) -> None:
    everything = newest_first(clinic.records.values())
    assert every(clinic.admin, "/api/records", "records", limit) == everything


def test_synthea_records_are_filtered_by_patient(clinic: Clinic) -> None:
    doctor = clinic.people[next(iter(DOCTORS))]
    for key in PATIENTS:
        expected = newest_first(clinic.records[row["Id"]] for row in RECORDED if row["PATIENT"] == key)
        found = every(doctor, "/api/records", "records", patientId=clinic.ids[key])
        assert found == expected
        if key in LINKED:
            assert every(clinic.people[key], "/api/records", "records") == expected


def figures(browser: Browser) -> dict[str, int]:
    return expect(200, browser.get("/api/dashboard/stats"))


def figures_of_a_day(browser: Browser) -> tuple[date, dict[str, int]]:
    """The figures, and the day of which they are; asked for again if it ended meanwhile. Every referral is
    at the first instant of a day, so within one nothing moves into the past."""
    while True:
        today, shown = today_here(), figures(browser)
        if today == today_here():
            return today, shown


def test_the_administrators_dashboard_matches_the_synthea_files(clinic: Clinic) -> None:
    assert figures(clinic.admin) == {
        "totalPatients": len(PATIENTS),
        "totalDoctors": len(DOCTORS),
        "totalAppointments": len(ENCOUNTERS) + len(PATIENTS),
        "revenue": FEE * len(ENCOUNTERS),
    }


def test_the_staff_dashboard_matches_the_synthea_files(clinic: Clinic) -> None:
    assert figures(clinic.staff) == {
        "managedPatients": len(PATIENTS),
        "scheduledAppointments": sum(not row["DEATHDATE"] for row in PATIENTS.values()),
        "pendingRegistrations": len(UNLINKED),
    }


def test_every_doctors_dashboard_matches_the_synthea_files(clinic: Clinic) -> None:
    """A record is written today, so it reports on all that came before it."""
    reported = {(row["PROVIDER"], row["PATIENT"]) for row in RECORDED}
    totals: Counter[str] = Counter()
    for key in DOCTORS:
        today, shown = figures_of_a_day(clinic.people[key])
        expected = {
            "assignedPatients": assigned(clinic, key),
            "todayAppointments": sum(
                one["doctorId"] == clinic.ids[key] and day_of(one) == today and one["status"] != "cancelled"
                for one in clinic.referrals.values()
            ),
            "pendingReports": sum(
                row["PROVIDER"] == key and (key, row["PATIENT"]) not in reported
                for row in ENCOUNTERS.values()
            ),
        }
        assert shown == expected
        totals.update(expected)
    assert all(totals.values())


def test_patients_dashboards_match_the_synthea_files(clinic: Clinic) -> None:
    totals: Counter[str] = Counter()
    for key in LINKED:
        today, shown = figures_of_a_day(clinic.people[key])
        own = [row for row in RECORDED if row["PATIENT"] == key]
        to_come = clinic.referrals[key]
        expected = {
            "upcomingAppointments": int(to_come["status"] == "scheduled" and day_of(to_come) > today),
            "medicalRecords": len(own),
            "prescriptions": sum(row["Id"] in MEDICATIONS for row in own),
        }
        assert shown == expected
        totals.update(expected)
    assert all(totals.values())
