"""`medisecure downtime-sheet`: who comes when to whom, in any script, to a file or stdout."""

import io
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader

from api.clinic import Clinic
from api.commands.downtime import describe_source
from api.commands.main import main
from api.downtime.sheet import bounds_of, days_from, draw_up
from persistence.downtime import Age, Visit
from security import age
from tests.support import audit_trail
from tests.support.command import Refusal, medisecure, settings_of
from tests.support.service import Backend
from tests.support.small_clinic import add_appointment, add_chart, add_doctor

Run = Callable[..., bytes]
BERLIN = ZoneInfo("Europe/Berlin")
NAMES = {
    "Łukasz Ångström": "+49 30 1",
    "مريم العلي": "+966 1",
    "שרה כהן": "03-1",
    "بی\u200cبی": "+98 1",
    "王小明 ひらがな 한국어": "+86 1",
    "e\u0323\u0301 q\u0308 Nguyễn": "+84 1",
    "<script>alert(1)</script> & \"quotes\"": "2",
    "X" * 255: "3",
}  # fmt: skip


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Run:
    """Run the command in this process, which is faster; gives what it printed."""

    def command(backend: Backend, *arguments: str, **settings: str) -> bytes:
        monkeypatch.setattr("sys.argv", ["medisecure", "downtime-sheet", *arguments])
        for name in ("AUDIT_KEY", "CLINIC_NAME", "CLINIC_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings_of(backend, **settings).items():
            monkeypatch.setenv(name, value)
        main()
        printed: bytes = capfdbinary.readouterr().out
        return printed

    return command


def morning(days: int, hour: int = 9) -> datetime:
    """At the clinic in Berlin, so many days from today."""
    day = datetime.now(BERLIN).date() + timedelta(days=days)
    return datetime(day.year, day.month, day.day, hour, tzinfo=BERLIN)


def rows_of(sheet: bytes) -> list[list[str]]:
    """Of each line of the sheet, the text of its cells."""
    lines = re.findall(r"<tr><td.*?</tr>", sheet.decode(), re.DOTALL)
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL)]
        for line in lines
    ]


def test_a_sheet_shows_by_day_and_doctor_who_comes_when(migrated: Backend, run: Run) -> None:
    """Only what is scheduled, on the days that are asked for, and of a chart no more than is needed."""
    zoe, adam = add_doctor(migrated, "Zoe"), add_doctor(migrated, "Adam")
    ann, ben = add_chart(migrated, "Ann", "+1 555 1", "Penicillin"), add_chart(migrated, "Ben", "+1 555 2")
    add_appointment(migrated, zoe, ben, morning(0, 11))
    add_appointment(migrated, zoe, ann, morning(0, 8))
    add_appointment(migrated, adam, ann, morning(1))
    add_appointment(migrated, adam, ben, morning(0, 23))
    for days, status in ((-1, "scheduled"), (2, "scheduled"), (0, "cancelled"), (1, "completed")):
        add_appointment(migrated, zoe, add_chart(migrated, "Nobody"), morning(days, 14), status)
    sheet = run(migrated, CLINIC_TIMEZONE="Europe/Berlin", CLINIC_NAME="Nordklinik")
    assert rows_of(sheet) == [
        ["23:00–23:30", "Ben1980-05-17", "+1 555 2", "not recorded", ""],  # noqa: RUF001  # a range
        ["08:00–08:30", "Ann1980-05-17", "+1 555 1", "Penicillin", ""],  # noqa: RUF001  # a range
        ["11:00–11:30", "Ben1980-05-17", "+1 555 2", "not recorded", ""],  # noqa: RUF001  # a range
        ["09:00–09:30", "Ann1980-05-17", "+1 555 1", "Penicillin", ""],  # noqa: RUF001  # a range
    ]
    text = sheet.decode()
    assert re.findall(r"<h2>(\w+), .*?<bdi dir=\"auto\">(\w+)</bdi></h2>", text) == [
        (f"{morning(0):%A}", "Adam"), (f"{morning(0):%A}", "Zoe"), (f"{morning(1):%A}", "Adam")
    ]  # fmt: skip
    assert "Nordklinik" in text
    assert "all times Europe/Berlin" in text
    assert "the live database" in text
    assert "Secret" not in text


def test_the_audit_trail_names_each_appointment_and_chart_on_a_sheet(migrated: Backend, run: Run) -> None:
    """As many events as it takes, under the number that stands on the sheet."""
    doctor, ann, ben = add_doctor(migrated, "Zoe"), add_chart(migrated, "Ann"), add_chart(migrated, "Ben")
    booked = [row["id"] for row in migrated.sql(
        "INSERT INTO appointments (id, patient_id, doctor_id, date, ends_at, reason, fee) "
        "SELECT gen_random_uuid(), $1, $2, start, start + interval '5 min', 'x', 1 "
        "FROM generate_series($3::timestamptz, $3 + interval '495 min', interval '5 min') AS start "
        "RETURNING id", ann, doctor, morning(0, 1)
    )]  # fmt: skip
    booked.append(add_appointment(migrated, doctor, ben, morning(0, 22)))
    sheet = run(migrated, "--days", "1", CLINIC_TIMEZONE="Europe/Berlin").decode()
    events = audit_trail.rows(migrated)
    assert {(row["action"], row["outcome"], row["address"], row["user_id"]) for row in events} == {
        ("appointment.list", "success", "command line", None)
    }
    assert [len(row["target_ids"]) for row in events] == [100, 1]
    assert {id for row in events for id in row["target_ids"]} == set(booked)
    assert [row["patient_ids"] for row in events] == [[ann], [ben]]
    assert {row["request_id"] for row in events} == {events[0]["request_id"]}
    assert f"Sheet {events[0]['request_id']}" in sheet


def test_a_sheet_without_appointments_says_so_and_is_audited(migrated: Backend, run: Run) -> None:
    assert b"Nobody has an appointment." in run(migrated)
    assert run(migrated, "--format", "pdf").startswith(b"%PDF-")
    assert [row["target_ids"] for row in audit_trail.rows(migrated)] == [[], []]


def test_names_in_any_script_and_length_stand_whole_on_a_sheet(migrated: Backend, run: Run) -> None:
    """Each isolated, so that one from the right to the left moves nothing beside it."""
    doctor = add_doctor(migrated, "د. أحمد")
    for hour, (name, phone) in enumerate(NAMES.items()):
        add_appointment(migrated, doctor, add_chart(migrated, name, phone, "word " * 2000), morning(1, hour))
    add_appointment(migrated, doctor, add_chart(migrated, "a\tb\x07c", "4", "one\ntwo"), morning(1, 20))
    sheet = run(migrated, CLINIC_TIMEZONE="Europe/Berlin").decode()
    assert "<script>" not in sheet
    for name in (
        "مريم العلي",
        "שרה כהן",
        "بی\u200cبی",
        "X" * 255,
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quotes&quot;",
    ):
        assert f'<bdi dir="auto">{name}</bdi>' in sheet
    for name in (
        "e\u0323\u0301 q\u0308 Nguyễn",
        "王小明 ひらがな 한국어",
        "word " * 2000,
        "a b c",
        "one\ntwo",
    ):
        assert name in sheet
    assert run(migrated, "--format", "pdf", CLINIC_TIMEZONE="Europe/Berlin").startswith(b"%PDF-")


def test_the_words_of_a_pdf_are_found_by_who_searches_or_copies_them(migrated: Backend, run: Run) -> None:
    """However long they are, and also where a text goes on on the next page."""
    doctor, allergies = add_doctor(migrated, "Zoe"), "Isopropylalkohol " + 60 * "W" + 2000 * " word"
    chart = add_chart(migrated, "Schwarzenegger " + 250 * "X", "+4915155555555", allergies)
    add_appointment(migrated, doctor, chart, morning(1))
    name = "Praxis für Allgemeinmedizin " + 160 * "M"
    pdf = run(migrated, "--format", "pdf", CLINIC_TIMEZONE="Europe/Berlin", CLINIC_NAME=name)
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert all(letter.isprintable() for letter in text if letter != "\n")
    for word in ("Allgemeinmedizin", "Schwarzenegger", "Isopropylalkohol"):
        assert word in text
    for word in ("M" * 160, "X" * 250, "+4915155555555", "W" * 60):
        assert word in text.replace("\n", "")
    assert text.count("word") == 2000


def test_a_pdf_of_characters_without_a_font_comes_with_a_warning(migrated: Backend, tmp_path: Path) -> None:
    add_appointment(migrated, add_doctor(migrated, "Zoe"), add_chart(migrated, "A\U0010ff00"), morning(0, 0))
    file, settings = tmp_path / "sheet.pdf", settings_of(migrated, CLINIC_TIMEZONE="Europe/Berlin")
    made = medisecure("downtime-sheet", "--paper", "us-letter", "--output", str(file), **settings)
    assert made.returncode == 0
    assert "some characters are in no font of this machine" in made.stderr
    assert file.read_bytes().startswith(b"%PDF-")


def test_a_sheet_replaces_its_file_which_the_owner_alone_can_read(
    migrated: Backend, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "sheet.html"
    file.write_text("of yesterday")
    file.chmod(0o644)
    assert run(migrated, "--output", str(file)) == b""
    assert file.read_bytes().startswith(b"<!DOCTYPE html>")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_sheet_for_a_recipient_is_read_with_their_key_alone(
    migrated: Backend, run: Run, tmp_path: Path
) -> None:
    identity, recipient = age.make_identity()
    file = tmp_path / "sheet.pdf.age"
    run(migrated, "--output", str(file), "--recipient", recipient)
    plain = io.BytesIO()
    age.decrypt(io.BytesIO(file.read_bytes()), plain, [identity])
    assert plain.getvalue().startswith(b"%PDF-")


def test_a_sheet_that_cannot_be_made_is_refused_before_anything_is_read(
    migrated: Backend, refusal: Refusal
) -> None:
    settings = settings_of(migrated)
    assert "is no recipient of age" in refusal("downtime-sheet", "--recipient", "age1x", **settings)
    assert "CLINIC_TIMEZONE" in refusal("downtime-sheet", **{**settings, "CLINIC_TIMEZONE": "Mars/Olympus"})
    assert "set DATABASE_URL" in refusal("downtime-sheet")
    assert audit_trail.rows(migrated) == []


def test_a_file_that_cannot_be_written_leaves_nothing(
    migrated: Backend, refusal: Refusal, tmp_path: Path
) -> None:
    settings = settings_of(migrated)
    (tmp_path / "sheet.html").mkdir()
    assert "Is a directory" in refusal("downtime-sheet", "--output", str(tmp_path / "sheet.html"), **settings)
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.html"]


def test_a_sheet_from_a_replica_says_as_of_when_it_is() -> None:
    clinic = a_clinic("Europe/Berlin")
    assert describe_source(clinic, Age(is_replica=True, as_of=None)) == "a replica"
    at = datetime(2026, 7, 1, 10, 0, tzinfo=UTC)
    assert describe_source(clinic, Age(is_replica=True, as_of=at)) == "a replica, as of 2026-07-01 12:00"


def a_clinic(zone: str) -> Clinic:
    return Clinic("Clinic", ZoneInfo(zone), timedelta(minutes=30), "EUR", 1)


def test_a_sheet_of_the_day_that_clocks_change_has_all_its_appointments() -> None:
    """The 25 hours of 25 October 2026 in Berlin, and nothing of the days beside it."""
    clinic = a_clinic("Europe/Berlin")
    begins, ends = bounds_of(clinic, days := days_from(datetime(2026, 10, 25, tzinfo=BERLIN).date(), 1))
    assert (ends - begins).total_seconds() == 25 * 3600
    visits = [
        Visit(uuid4(), at, at + timedelta(minutes=30), doctor, "Zoe", uuid4(), "Ann", begins.date(), "1", "")
        for doctor in [uuid4()]
        for at in (begins, ends - timedelta(minutes=30))
    ]
    sheet = draw_up(uuid4(), clinic, days, visits, begins, "a test")
    assert [line.time for line in sheet.pages[0].lines] == [
        "00:00–00:30",  # noqa: RUF001  # a range
        "23:30–00:00",  # noqa: RUF001  # a range
    ]
    assert sheet.days == "Sunday, 25 October 2026"
