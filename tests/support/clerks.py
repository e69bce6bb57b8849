"""Clerks who write what comes into their heads: every kind of write, at random, to a few objects that all of
them share. They remember what they were told."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.support.client import Browser
from tests.support.factories import World, chart, email

Answer = dict[str, Any]
NAMES = ["Zoë Ångström", "O'Brien, Pat", "李 雷", "ÍÑIGO", "Ada  Lovelace", "e\u0301va", "x" * 200, " "]
TEXTS = [None, "", "PENICILLIN: anaphylaxis", "line\nfeed\ttab", "\u202ertl", '"quoted", \\n', "0", "null"]
MINUTES = range(0, 600, 15)
KEYED = {"open", "book", "write", "amend"}  # which may be sent twice with a key
FEW = 3  # objects of a kind that a sequence begins with
CHART_VALUES: dict[str, Callable[[random.Random], str | None]] = {
    "name": lambda chance: chance.choice(NAMES),
    "email": lambda chance: chance.choice([email(), " spaced@example.com "]),
    "phone": lambda chance: f"+1 555 {chance.randrange(10)}",
    "dateOfBirth": lambda chance: f"19{chance.randrange(10, 99)}-05-17",
    "gender": lambda chance: chance.choice(["male", "female", "other"]),
    "address": lambda chance: f"{chance.randrange(9)} Main Street",
    "bloodType": lambda chance: chance.choice([None, "", "0+", "AB-"]),
    "allergies": lambda chance: chance.choice(TEXTS),
    "medicalHistory": lambda chance: chance.choice(TEXTS),
}
SETTABLE = {"admin": list(CHART_VALUES), "doctor": [*CHART_VALUES][6:], "staff": [*CHART_VALUES][:8]}


@dataclass
class Told:
    """What was acknowledged: how each object was created, and how it was after each request."""

    created: dict[str, Answer] = field(default_factory=dict)
    after: dict[str, dict[str, Answer]] = field(default_factory=lambda: defaultdict(dict))  # id, request

    def keep(self, answer: httpx.Response) -> None:
        said = answer.json()
        if answer.status_code == 201 and said["id"] not in self.created:
            self.created[said["id"]] = said
        self.after[said["id"]][answer.headers["x-request-id"]] = said


@dataclass
class Versions:
    """What was acknowledged of records: the texts of each, and which were retracted."""

    written: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    retracted: dict[str, str] = field(default_factory=dict)


@dataclass
class Office:
    """What the clerks share."""

    world: World
    charts: Told = field(default_factory=Told)
    appointments: Told = field(default_factory=Told)
    links: dict[str, dict[str, str | None]] = field(default_factory=lambda: defaultdict(dict))
    records: Versions = field(default_factory=Versions)
    merges: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # requests, by chart
    merged: dict[str, str] = field(default_factory=dict)  # the survivor, by the chart that is in it
    accounts: list[str] = field(default_factory=list)
    before: dict[str, set[str]] = field(default_factory=dict)  # ids, by table
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)


class Clerk:
    def __init__(self, office: Office, seed: int) -> None:
        self.office = office
        self.people = office.world.people
        self.random = random.Random(seed)  # noqa: S311 - of tests

    def work(self, times: int) -> None:
        kinds = [
            (self.open_chart, 1), (self.change_chart, 8), (self.link, 3), (self.book, 3),
            (self.change_appointment, 8), (self.write_record, 2), (self.amend, 4), (self.retract, 1),
            (self.rename_account, 2), (self.merge, 2), (self.part, 1),
        ]  # fmt: skip
        acts, weights = zip(*kinds, strict=True)
        for _ in range(times):
            [act] = self.random.choices(acts, weights)
            act()

    def some(self, *names: str) -> Browser:
        return self.people[self.random.choice(names)]

    def text(self) -> str | None:
        return self.random.choice(TEXTS)

    def send(self, kind: str, browser: Browser, method: str, path: str, body: Any) -> httpx.Response | None:
        """None where it was refused. Now and then under a condition, or twice with a key."""
        headers = {}
        if method == "PATCH" and self.random.random() < 0.3:
            headers["If-Match"] = self.random.choice([browser.get(path).headers.get("etag", "*"), '"stale"'])
        is_twice = kind in KEYED and self.random.random() < 0.3
        if is_twice:
            headers["Idempotency-Key"] = uuid4().hex
        answer = browser.request(method, path, json=body, headers=headers)
        if is_twice and answer.is_success:
            again = browser.request(method, path, json=body, headers=headers)
            assert again.status_code in {201, 404}, again.text
        self.office.statuses[kind, answer.status_code] += 1
        assert answer.status_code in {200, 201, 400, 403, 404, 412}, answer.text
        return answer if answer.is_success else None

    def open_chart(self) -> None:
        body = chart(name=self.random.choice(NAMES), allergies=self.text())
        made = self.send("open", self.some("admin", "staff"), "POST", "/api/patients", body)
        if made:
            self.office.charts.keep(made)

    def change_chart(self) -> None:
        chart_id = self.random.choice(list(self.office.charts.created))
        name = self.random.choice(list(SETTABLE))
        fields = self.random.sample(SETTABLE[name], self.random.randrange(4))
        body = {field: CHART_VALUES[field](self.random) for field in fields}
        changed = self.send("change", self.people[name], "PATCH", f"/api/patients/{chart_id}", body)
        if changed:
            self.office.charts.keep(changed)

    def link(self) -> None:
        path = f"/api/patients/{self.random.choice(list(self.office.charts.created))}/account"
        user_id = self.random.choice([*self.office.accounts, None])
        if user_id is None:
            done = self.send("unlink", self.some("admin", "staff"), "DELETE", path, None)
        else:
            done = self.send("link", self.some("admin", "staff"), "PUT", path, {"userId": user_id})
        if done:
            self.office.links[done.json()["id"]][done.headers["x-request-id"]] = user_id

    def merge(self) -> None:
        survivor, merged = self.random.sample(list(self.office.charts.created), 2)
        body = {"from": merged, "reason": "The same person"}
        done = self.send("merge", self.people["admin"], "POST", f"/api/patients/{survivor}/merge", body)
        if done:
            survivor = done.json()["id"]  # the one that was named may be merged itself
            self.office.merged[merged] = survivor
            self.keep_merge(done, survivor, merged)

    def part(self) -> None:
        for merged, survivor in self.random.sample(
            list(self.office.merged.items()), 1 if self.office.merged else 0
        ):
            # Before it is done, as it may be merged again at once.
            if self.office.merged.pop(merged, None) is None:
                continue
            body = {"from": merged, "reason": "Two people after all"}
            done = self.send("part", self.people["admin"], "POST", f"/api/patients/{survivor}/unmerge", body)
            if done:
                self.keep_merge(done, survivor, merged)
            else:
                self.office.merged[merged] = survivor

    def keep_merge(self, done: httpx.Response, *charts: str) -> None:
        for chart_id in charts:
            self.office.merges[chart_id].add(done.headers["x-request-id"])

    def book(self) -> None:
        body = {
            "patientId": self.random.choice(list(self.office.charts.created)), "doctorId": self.doctor_id(),
            "date": self.date(), "reason": "Check-up", "notes": self.text(),
        }  # fmt: skip
        made = self.send("book", self.some("staff", "doctor"), "POST", "/api/appointments", body)
        if made:
            self.office.appointments.keep(made)

    def doctor_id(self) -> str:
        return str(self.some("doctor", "other_doctor").me()["id"])

    def date(self) -> str:
        """Of few, so that bookings clash; some are over."""
        hours, minutes = divmod(self.random.choice(MINUTES), 60)
        return f"{self.random.choice([1990, 2110])}-03-01T{hours:02}:{minutes:02}:00Z"

    def change_appointment(self) -> None:
        appointment_id = self.random.choice(list(self.office.appointments.created))
        values = {"notes": self.text(), "date": self.date()}
        if self.random.random() < 0.15:
            values["status"] = self.random.choice(["completed", "cancelled", "scheduled"])
        body = {
            key: values[key]
            for key in self.random.sample(list(values), self.random.randrange(len(values) + 1))
        }
        browser = self.some("admin", "staff", "doctor", "other_doctor")
        changed = self.send("rebook", browser, "PATCH", f"/api/appointments/{appointment_id}", body)
        if changed:
            self.office.appointments.keep(changed)

    def texts(self) -> Answer:
        return {
            "diagnosis": self.random.choice(["A sprain", "Well", "\u00e9\n\n ", "x" * 5000]),
            "prescription": self.random.choice(["", "Ibuprofen 400 mg", " two\tspaces  "]),
            "notes": self.random.choice(["", "Seen twice", "🦴"]),
            "attachments": self.random.choice([[], ["scan.pdf"], ["a.png", "a.png"]]),
        }  # fmt: skip

    def write_record(self) -> None:
        body = {"patientId": self.random.choice(list(self.office.charts.created)), **self.texts()}
        made = self.send("write", self.some("doctor", "other_doctor"), "POST", "/api/records", body)
        if made:
            self.office.records.written[made.json()["id"]].append({"reason": None, **body})

    def amend(self) -> None:
        record_id = self.random.choice(list(self.office.records.written))
        texts = self.texts()
        kept = self.random.sample(list(texts), self.random.randrange(1, 5))
        body = {"reason": f"slip {uuid4().hex}", **{key: texts[key] for key in kept}}
        path = f"/api/records/{record_id}/versions"
        made = self.send("amend", self.some("doctor", "other_doctor"), "POST", path, body)
        if made:
            self.office.records.written[record_id].append({**made.json(), "reason": body["reason"]})

    def retract(self) -> None:
        record_id = self.random.choice(list(self.office.records.written))
        body, path = {"reason": f"wrong chart {uuid4().hex}"}, f"/api/records/{record_id}/retraction"
        if self.send("retract", self.some("doctor", "admin"), "POST", path, body):
            self.office.records.retracted[record_id] = body["reason"]

    def rename_account(self) -> None:
        """A name or an e-mail, which answers show beside what was asked for."""
        user_id = self.random.choice(self.office.accounts)
        body = {self.random.choice(["name", "email"]): f"{uuid4().hex}@example.com"}
        self.send("rename", self.people["admin"], "PATCH", f"/api/users/{user_id}", body)
