"""The day sheet: `GET /api/appointments/day-sheet`, on paper for the desk and the doctor's door."""

import logging
from datetime import UTC, datetime, timedelta
from io import BytesIO
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest
from pypdf import PdfReader

from tests.support import audit_trail
from tests.support.client import PROBLEM, Browser
from tests.support.factories import World
from tests.support.service import Backend, Service
from tests.support.small_clinic import add_appointment, add_chart, add_doctor

PATH = "/api/appointments/day-sheet"
BOXES = "A day sheet has boxes for characters that are in no font of this machine; install fonts"


def pages_of(answer: httpx.Response) -> list[str]:
    """What is on each page of the sheet."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/pdf"
    return [page.extract_text() for page in PdfReader(BytesIO(answer.content)).pages]


def faults_of(refused: httpx.Response) -> list[tuple[str, str]]:
    return [(fault["parameter"], fault["detail"]) for fault in refused.json()["errors"]]


def at(day: str, time: str = "09:00") -> datetime:
    return datetime.fromisoformat(f"{day}T{time}:00+00:00")


def id_of(browser: Browser) -> UUID:
    return UUID(browser.me()["id"])


def test_each_doctors_day_is_on_pages_of_its_own_by_time(world: World, backend: Backend) -> None:
    """contract: "by time, each doctor's on pages of their own: when, the patient's name, date of birth and
    phone, and the reason. Cancelled ones are not on it." """
    zoe, adam = add_doctor(backend, "Zoe Zimmer"), add_doctor(backend, "Adam Ahrens")
    ann, ben = add_chart(backend, "Ann Abel", "+1 555 1"), add_chart(backend, "Ben Berg", "+1 555 2")
    add_appointment(backend, zoe, ben, at("2031-03-03", "11:00"))
    add_appointment(backend, zoe, ann, at("2031-03-03", "08:00"), "completed")
    add_appointment(backend, adam, ann, at("2031-03-03", "23:30"))
    for day, status in (
        ("2031-03-02", "scheduled"),
        ("2031-03-04", "scheduled"),
        ("2031-03-03", "cancelled"),
    ):
        add_appointment(backend, zoe, add_chart(backend, "Nobody"), at(day, "14:00"), status)
    answer = world.staff.get(f"{PATH}?date=2031-03-03")
    assert answer.headers["content-disposition"] == 'attachment; filename="day-sheet-2031-03-03.pdf"'
    first, second = pages_of(answer)
    assert "Monday, 3 March 2031" in first
    assert answer.headers["x-request-id"] in first
    assert "Adam Ahrens" in first
    assert "23:30–00:00 Ann Abel" in first  # noqa: RUF001  # a range
    assert "Zoe Zimmer" in second
    morning, noon = second.index("08:00–08:30"), second.index("11:00–11:30")  # noqa: RUF001  # ranges
    assert morning < second.index("Ann Abel") < noon < second.index("Ben Berg")
    for shown in ("1980-05-17", "+1 555 2", "Secret reason", "completed"):
        assert shown in second
    assert "Nobody" not in first + second
    assert "Secret Road" not in first + second
    assert pages_of(world.admin.get(f"{PATH}?date=2031-03-03&doctorId={zoe}"))[0].count("Zoe Zimmer") == 1


def test_the_trail_names_every_chart_that_is_on_a_sheet(world: World, backend: Backend) -> None:
    """contract: "Every sheet is in the audit trail, with the charts that it shows" """
    doctor = add_doctor(backend, "Dana Dent")
    charts = [add_chart(backend, f"Patient {number}") for number in range(3)]
    visits = [
        add_appointment(
            backend, doctor, charts[number % 3], at("2031-04-01", "00:00") + timedelta(hours=number)
        )
        for number in range(24)
    ]
    for number in range(100):
        other = add_doctor(backend, f"Doctor {number}")
        visits.append(add_appointment(backend, other, charts[number % 3], at("2031-04-01"), "completed"))
    answer = world.staff.get(f"{PATH}?date=2031-04-01")
    assert answer.status_code == 200
    events = audit_trail.rows(backend, "request_id = $1", answer.headers["x-request-id"])
    assert [len(row["target_ids"]) for row in events] == [100, 24]
    assert {visit for row in events for visit in row["target_ids"]} == set(visits)
    for row in events:
        assert (row["action"], row["outcome"]) == ("appointment.print", "success")
        assert set(row["patient_ids"]) == set(charts)
        assert row["user_id"] == id_of(world.staff)


def test_a_day_without_appointments_is_a_sheet_and_an_event(world: World, backend: Backend) -> None:
    answer = world.doctor.get(f"{PATH}?date=2031-05-01")
    [page] = pages_of(answer)
    assert "Nobody has an appointment." in page
    [row] = audit_trail.rows(backend, "request_id = $1", answer.headers["x-request-id"])
    assert (row["action"], row["target_ids"], row["patient_ids"]) == ("appointment.print", [], [])


def test_a_doctor_prints_their_own_day_and_patients_none(world: World, backend: Backend) -> None:
    """contract: "A doctor prints their own day; another's is 403." """
    mine, other = id_of(world.doctor), id_of(world.other_doctor)
    add_appointment(backend, mine, add_chart(backend, "Mine Own"), at("2031-06-02"))
    add_appointment(backend, other, add_chart(backend, "Not Mine"), at("2031-06-02"))
    for query in ("", f"&doctorId={mine}"):
        text = "".join(pages_of(world.doctor.get(f"{PATH}?date=2031-06-02{query}")))
        assert "Mine Own" in text
        assert "Not Mine" not in text
    for doctor in (other, uuid4()):
        refused = world.doctor.get(f"{PATH}?doctorId={doctor}", headers=PROBLEM)
        detail = "A doctor prints their own day only; admin and staff may print any"
        assert (refused.status_code, faults_of(refused)) == (403, [("doctorId", detail)])
    assert world.patient.get(PATH).status_code == 403
    assert [row["outcome"] for row in audit_trail.rows(backend)[-3:]] == ["refused"] * 3


def test_pages_may_read_under_which_name_a_sheet_is_kept(world: World) -> None:
    """contract: "Under which name a browser keeps it. Pages may read it." """
    answer = world.staff.get(f"{PATH}?date=2031-05-01", headers={"origin": "http://localhost:5173"})
    assert answer.headers["content-disposition"] == 'attachment; filename="day-sheet-2031-05-01.pdf"'
    assert "Content-Disposition" in answer.headers["access-control-expose-headers"].split(", ")


def test_the_sheet_of_nobody_who_is_a_doctor_is_404(world: World, backend: Backend) -> None:
    """contract: "An active doctor, or somebody who has appointments as one." """
    for user in (uuid4(), id_of(world.staff)):
        refused = world.admin.get(f"{PATH}?date=2031-06-02&doctorId={user}", headers=PROBLEM)
        assert (refused.status_code, faults_of(refused)) == (404, [("doctorId", "Doctor not found")])
    left = add_doctor(backend, "Lea Left")
    add_appointment(backend, left, add_chart(backend, "Still Booked"), at("2031-06-03"))
    backend.sql("UPDATE users SET status = 'disabled' WHERE id = $1", left)
    assert "Still Booked" in pages_of(world.staff.get(f"{PATH}?date=2031-06-03&doctorId={left}"))[0]
    assert world.staff.get(f"{PATH}?date=2031-06-04&doctorId={left}").status_code == 200


def test_names_in_every_script_are_on_the_sheet(
    world: World, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    doctor = add_doctor(backend, "Ева 医生")
    names = "Łukasz Ångström", "Иван Щукин", "<b>&amp; #strong[x]", "X" * 255
    for hour, name in enumerate(names):
        chart = add_chart(backend, name)
        add_appointment(backend, doctor, chart, at("2031-07-01", f"{hour:02}:00"))
    text = "".join(pages_of(world.staff.get(f"{PATH}?date=2031-07-01&doctorId={doctor}")))
    for name in names[:3]:
        assert name in text
    assert "X" * 255 in text.replace("\n", "")


def test_the_words_of_a_sheet_are_found_by_who_searches_or_copies_them(
    world: World, backend: Backend
) -> None:
    """However long: the text of the PDF has nothing that is not in the names, and no letter less."""
    doctor = add_doctor(backend, "Dr. Wolfeschlegelsteinhausenbergerdorff " + 80 * "M")
    name, phone = "Zoë\u200d X\u200b. Schwarz\u00adenegger ", "\u202a+4915155555555\u202c 015155555555#\ufe0f"
    chart = add_chart(backend, name + 40 * "W", phone)
    visit = add_appointment(backend, doctor, chart, at("2031-07-03"))
    reason = "https://portal.example/referrals/5551234567890abcdefghijklmnopqrstuvwxyz"
    said = f"Schwindelanfälle Wei\u034ft 100 %\ufe0f {reason}"  # marks that `isprintable` lets pass
    backend.sql("UPDATE appointments SET reason = $1 WHERE id = $2", said, visit)
    answer = world.staff.get(f"{PATH}?date=2031-07-03&doctorId={doctor}")
    [text] = pages_of(answer)
    for word in ("Wolfeschlegelsteinhausenbergerdorff", "Schwarzenegger", "015155555555", "Schwindelanfälle"):
        assert word in text
    assert "Weit 100 %" in " ".join(text.split())
    assert "\ufe0f" not in text
    for word in ("M" * 80, "W" * 40, "+4915155555555", reason):
        assert word in text.replace("\n", "")
    assert answer.headers["x-request-id"] in text
    assert all(letter.isprintable() for letter in text if letter != "\n")


def test_a_character_that_no_font_has_is_a_box_and_told_to_the_operator(
    world: World, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    doctor = add_doctor(backend, "Dr. Box")
    add_appointment(backend, doctor, add_chart(backend, "A\U0010ff00 Name"), at("2031-08-01"))
    with caplog.at_level(logging.WARNING, "medisecure.paper"):
        [page] = pages_of(world.staff.get(f"{PATH}?date=2031-08-01&doctorId={doctor}"))
    assert "Name" in page
    assert BOXES in caplog.text
    assert "Name" not in caplog.text


def test_the_day_is_the_clinics_also_where_clocks_change(backend: Backend, world: World) -> None:
    """contract: "The appointments of one day in the time zone of the clinic" """
    doctor = add_doctor(backend, "Berta Berlin")
    berlin = ZoneInfo("Europe/Berlin")
    begins = datetime(2031, 10, 26, tzinfo=berlin).astimezone(UTC)
    for minutes in (-30, 0, 24 * 60 + 30, 25 * 60):
        name = f"Chart {minutes}"
        add_appointment(backend, doctor, add_chart(backend, name), begins + timedelta(minutes=minutes))
    with Service(backend, backend.settings(clinic_timezone="Europe/Berlin")) as clinic:
        staff = clinic.browser(dict(world.staff.cookies))
        text = "".join(pages_of(staff.get(f"{PATH}?date=2031-10-26&doctorId={doctor}")))
        assert pages_of(staff.get(PATH))  # of today
    assert "00:00–00:30 Chart 0" in text  # noqa: RUF001  # a range
    assert "23:30–00:00 Chart 1470" in text  # noqa: RUF001  # a range
    assert "Chart -30" not in text
    assert "Chart 1500" not in text


@pytest.mark.parametrize("query", ["date=2031-02-30", "date=today", "doctorId=x", "doctor=1"])
def test_a_malformed_query_is_400(world: World, query: str) -> None:
    assert world.staff.get(f"{PATH}?{query}").status_code == 400
