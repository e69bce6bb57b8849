"""One account for each e-mail, and none that looks like another for what nobody sees in it."""

import re
from unicodedata import category
from uuid import uuid4

import pytest

from api.http.fields import INVISIBLE, is_visible
from tests.support.factories import PASSWORD, World, chart, registration
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

COMPOSED, DECOMPOSED = "jos\u00e9", "jose\u0301"
UNSEEN = [
    "\u200b", "\u200d", "\u2060", "\u00ad", "\u202e", "\u2066", "\u180e", "\u034f", "\ufe0f",
    "\u115f", "\u3164", "\uffa0", "\u2800", "\u00a0", "\u3000", "\u2028", "\u2029", "\u0085",
    "\u007f", "\u0007", "\ue000", "\ufdd0", "\uffff", "\U000e0061", "\U000e0101", "\U0001d173", "\U000f0000",
    "\U0010ffff", "\U000e0fff", "\u0378",
]  # fmt: skip


class TestEmails:
    """Contract, accounts: "Account e-mails are stored and answered trimmed, NFC and lower-cased: one account,
    one counter", and invisible characters are 400."""

    def test_spellings_of_one_email_are_one_account(self, backend: Backend, world: World) -> None:
        one = registration(email=f" {DECOMPOSED.upper()}@{uuid4()}.example")
        made = world.admin.post("/api/auth/register", one)
        assert made.status_code == 201
        stored = made.json()["email"]
        assert stored.startswith(f"{COMPOSED}@")
        for spelling in (stored, stored.replace(COMPOSED, DECOMPOSED), stored.upper()):
            again = world.service.browser().post("/api/auth/register", registration(email=spelling))
            assert again.status_code == 400
            assert world.service.browser().login(spelling, PASSWORD).json()["user"]["email"] == stored
            assert world.admin.get("/api/users", params={"search": spelling}).json()["total"] == 1
        with Service(backend, backend.settings(login_attempts=2)) as strict:
            tries = [stored, stored.replace(COMPOSED, DECOMPOSED), stored]
            assert [strict.browser().login(one, "not it").status_code for one in tries] == [401, 401, 429]

    @pytest.mark.parametrize("unseen", UNSEEN, ids=ascii)
    def test_invisible_characters_in_any_email_are_400(self, world: World, unseen: str) -> None:
        detail = "email: must be an e-mail address without invisible characters"
        for address in (f"a{unseen}b@example.com", f"ab@exam{unseen}ple.com", f"{unseen}ab@example.com"):
            patient = world.staff.get("/api/patients").json()["patients"] or [world.chart()]
            for answer in (
                world.service.browser().post("/api/auth/register", registration(email=address)),
                world.service.browser().login(address, PASSWORD),
                world.staff.post("/api/patients", chart(email=address)),
                world.staff.patch(f"/api/patients/{patient[0]['id']}", {"email": address}),
            ):
                assert (answer.status_code, answer.json()) == (400, {"detail": detail})

    def test_the_contract_and_the_code_agree_on_invisible_characters(self) -> None:
        for number in range(0x110000):
            one = chr(number)
            if one in " \t\r\n":
                assert is_visible(one)
            elif number > 0xFFFF or 0xD800 <= number < 0xE000 or category(one) == "Cn":
                assert is_visible(one) or not one.isprintable() or category(one) == "Mn"
            else:
                assert is_visible(one) == (re.search(INVISIBLE, one) is None), hex(number)
        for seen in ("jos\u00e9", "\u0628\u062d", "\U00020000", "\u1112\u1161", "a\u0301", "\U0001f600"):
            assert is_visible(seen)
