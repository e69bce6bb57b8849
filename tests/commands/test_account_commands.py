"""`medisecure create-admin` and `set-password`: accounts from the console. Passwords are typed or piped, and
never an argument."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.command import COMMAND, Refusal, environment, medisecure, settings_of
from tests.support.factories import PASSWORD, registration
from tests.support.service import Backend, Service

pytestmark = pytest.mark.slow

NOWHERE = {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}


@pytest.fixture(scope="module")
def clinic(servers: Backend) -> Iterator[Service]:
    """An instance on an empty database, and the first administrator, made by command."""
    backend = servers.copy()
    made = medisecure(
        "create-admin",
        " Ada@Clinic.example ",
        "Ada Admin",
        stdin=f"{PASSWORD}\n",
        DATABASE_URL=backend.database_url,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == "ada@clinic.example is an administrator now.\n"
    with Service(backend, backend.settings()) as service:
        yield service


def test_the_first_administrator_is_made_by_command(clinic: Service) -> None:
    browser = clinic.browser()
    assert browser.login("ada@clinic.example", PASSWORD).status_code == 200
    me = browser.me()
    assert (me["name"], me["role"]) == ("Ada Admin", "admin")
    assert browser.stats()["totalPatients"] == 0


TOO_SHORT = "a password has at least 6 characters, at most 72 bytes, and no NUL among them"
UNSUITABLE = {
    "an address that has an account": (
        ["create-admin", "ADA@clinic.example", "Ada"],
        PASSWORD,
        "this e-mail address has an account already; see set-password",
    ),
    "a short password": (["create-admin", "b@clinic.example", "Bo"], "short", TOO_SHORT),
    "a long password": (["create-admin", "b@clinic.example", "Bo"], "é" * 37, TOO_SHORT),
    "a password with a NUL": (["create-admin", "b@clinic.example", "Bo"], "pass\0word", TOO_SHORT),
    "no address": (
        ["create-admin", "clinic.example", "Bo"],
        PASSWORD,
        "email: must be an e-mail address",
    ),
    "a new password of an unknown account": (
        ["set-password", "nobody@clinic.example"],
        PASSWORD,
        "no account has this e-mail address",
    ),
    "an e-mail that looks like another": (
        ["create-admin", "b\u200b@clinic.example", "Bo"],
        "a good password",
        "email: must be an e-mail address without invisible characters",
    ),
    "a short new password": (["set-password", "ada@clinic.example"], "short", TOO_SHORT),
}


@pytest.mark.parametrize("what", UNSUITABLE)
def test_create_admin_and_set_password_refuse_unsuitable_accounts_and_passwords(
    clinic: Service, refusal: Refusal, what: str
) -> None:
    arguments, stdin, message = UNSUITABLE[what]
    assert refusal(*arguments, stdin=f"{stdin}\n", **settings_of(clinic.backend)) == f"medisecure: {message}"
    assert clinic.backend.sql("SELECT 1 FROM users WHERE email LIKE 'b@%'") == []


def test_set_password_ends_the_sessions_of_the_account_at_once(clinic: Service) -> None:
    person, bystander = registration(email="person@clinic.example"), registration()
    for body in (person, bystander):
        assert clinic.browser().post("/api/auth/register", body).status_code == 201
    desk, phone, other = clinic.browser(), clinic.browser(), clinic.browser()
    for browser, body in ((desk, person), (phone, person), (other, bystander)):
        assert browser.login(body["email"], PASSWORD).status_code == 200
        assert browser.me()["email"] == body["email"]  # "alive" is remembered now

    changed = medisecure(
        "set-password", "Person@clinic.example", stdin="another one\n", **settings_of(clinic.backend)
    )
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout == (
        "person@clinic.example has a new password; every session of the account has ended.\n"
    )
    for browser in (desk, phone):
        assert browser.get("/api/users/me").status_code == 401
        assert browser.post("/api/auth/refresh").status_code == 401
    assert other.me()["email"] == bystander["email"]
    assert clinic.browser().login("person@clinic.example", PASSWORD).status_code == 401
    assert clinic.browser().login("person@clinic.example", "another one").status_code == 200


def test_a_command_says_in_one_line_why_the_database_cannot_be_used(
    unmigrated: Backend, refusal: Refusal
) -> None:
    """No stack, and nothing of what was to be stored."""
    without_tables = refusal(
        "create-admin", "a@b.example", "A", stdin=PASSWORD, DATABASE_URL=unmigrated.database_url
    )
    assert without_tables == "medisecure: the database cannot be used: run `medisecure migrate` first"
    nowhere = refusal("migrate", DATABASE_URL="postgresql://user:hush-hush@127.0.0.1:1/x")
    assert nowhere.startswith("medisecure: ")
    assert "hush-hush" not in nowhere
    nothing = refusal("migrate", DATABASE_URL="")
    assert nothing == "medisecure: set DATABASE_URL, such as postgresql://user:pass@localhost/medisecure"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://127.0.0.1:1/x", "cannot be reached: "),
        ("postgresql://no.such.host.invalid/x", "cannot be reached: "),
        (
            f"postgresql://127.0.0.1:1/x?sslmode=verify-ca&sslrootcert={__file__}",
            "cannot be used: TLS: NO_CERTIFICATE_OR_CRL_FOUND",
        ),
    ],
)
def test_a_command_says_in_one_line_why_it_got_no_connection(refusal: Refusal, url: str, reason: str) -> None:
    refused = refusal("create-admin", "a@b.example", "A", stdin=PASSWORD, DATABASE_URL=url)
    assert refused.startswith(f"medisecure: the database {reason}")


@pytest.mark.parametrize("command", [("create-admin", "b@clinic.example", "Bo"), ("set-password", "b@c.d")])
def test_a_password_that_is_not_text_is_refused_after_the_database_was_asked_for(
    refusal: Refusal, command: tuple[str, ...]
) -> None:
    assert refusal(*command).startswith("medisecure: set DATABASE_URL")
    assert refusal(*command, stdin="caf\udce9 12345\n", **NOWHERE) == (
        "medisecure: the password is not text in UTF-8"
    )


@pytest.mark.parametrize(
    ("key", "said", "status"), [(b"\x03", b"", 130), (b"\x04", b"no password was given", 1)]
)
def test_ctrl_c_and_ctrl_d_at_the_password_prompt_show_no_stack(key: bytes, said: bytes, status: int) -> None:
    shown, ended = type_at_the_prompt(key)
    assert said in shown
    assert b"Traceback" not in shown
    assert ended == status


def test_two_new_passwords_that_differ_are_refused() -> None:
    shown, ended = type_at_the_prompt(b"a good one\n", b"another one\n")
    assert b"medisecure: the two are not the same" in shown
    assert ended == 1


def type_at_the_prompt(*keys: bytes) -> tuple[bytes, int]:
    """What a terminal shows, and the exit status, when each prompt of `set-password` gets these keys."""
    # A shell that runs the tests in the background has SIGINT ignored, which a terminal's program has not.
    spawn = (
        "import os, pty, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", spawn, COMMAND, "set-password", "b@c.example"],
        env=environment(**NOWHERE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as terminal:
        assert terminal.stdin
        assert terminal.stdout
        shown = b""
        for prompt, typed in zip((b"New password: ", b"Once more: "), keys, strict=False):
            while not shown.endswith(prompt):
                shown += terminal.stdout.read(4096)
            terminal.stdin.write(typed)
        while chunk := terminal.stdout.read(4096):
            shown += chunk
    return shown, terminal.returncode


def test_without_a_standard_input_there_is_no_password() -> None:
    """As some supervisors start a process."""
    closed = subprocess.run(
        ["/bin/sh", "-c", f"exec {COMMAND} set-password b@c.example <&-"],
        env=environment(**NOWHERE),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (1, "medisecure: no password was given\n")


def test_arguments_and_settings_that_are_not_text_are_refused_in_one_line(refusal: Refusal) -> None:
    """Python hands them over as lone surrogates, which nothing can store."""
    for arguments in (
        ("create-admin", "b@c.example", "\udcff"),
        ("set-password", "\udcff@c.example"),
        ("migrate", "--grant-to", "\udcff"),
    ):
        assert ": invalid text value: " in refusal(*arguments, stdin=PASSWORD, **NOWHERE)
    key = {"SECRET_KEY": "\udcff" * 40}
    assert refusal("verify-audit", **key, **NOWHERE) == "medisecure: SECRET_KEY is not text in UTF-8"


def test_set_password_refuses_an_unusable_redis_url(refusal: Refusal) -> None:
    """Before it changes the password: without Redis, the sessions could not be ended everywhere."""
    refused = refusal(
        "set-password", "b@c.example", stdin=PASSWORD, REDIS_URL="redis://localhost?db=x", **NOWHERE
    )
    assert refused.startswith("medisecure: REDIS_URL must be a Redis URL")


def test_a_password_is_never_an_argument(refusal: Refusal) -> None:
    unrecognized = f"medisecure: error: unrecognized arguments: {PASSWORD}"
    assert refusal("create-admin", "b@clinic.example", "Bo", PASSWORD) == unrecognized
    assert refusal("set-password", "b@clinic.example", PASSWORD) == unrecognized
