"""Typed clients, generated from openapi.yaml by the tools that people use, compile, and work."""

import importlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext
from typing import Any

import httpx
import pytest

from tests.external import frontend
from tests.external.running import ADMIN, CONTRACT, run, start_dev
from tests.external.tls import terminate_tls

DOCTOR = "5e2d9a44-3c1b-4b7e-8f5d-2a6b1c0d4a02"
PAULA = "1a2b3c4d-5e6f-4a1b-8c2d-5d9e4f304a05"
PACKAGE = "medisecure_client"
# The generator does not know YAML or PDF as an answer; its code is not formatted.
BYTES = "application/octet-stream"
SETTINGS = (
    f"content_type_overrides: {{ application/yaml: {BYTES}, application/pdf: {BYTES} }}\npost_hooks: []\n"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_dev(tmp_path_factory.mktemp("service"), TRUSTED_PROXIES="127.0.0.1") as url:
        yield url


@pytest.fixture(scope="module")
def secure(url: str) -> Iterator[tuple[str, SSLContext]]:
    """The same service by https."""
    with terminate_tls(url) as secure:
        yield secure


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The generated Python client, importable; a warning of the generator is an error."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "settings.yaml").write_text(SETTINGS)
    generator = Path(sys.executable).with_name("openapi-python-client")
    options = ["--meta", "none", "--config", "settings.yaml", "--fail-on-warning"]
    run(generator, "generate", "--path", CONTRACT, "--output-path", PACKAGE, *options, cwd=folder)
    sys.path.insert(0, str(folder))
    yield folder / PACKAGE
    sys.path.remove(str(folder))


def import_module(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_generated_typescript_compiles_strictly(tmp_path: Path) -> None:
    """`tsc --strict` takes what both generate, and frontend/*.ts, which shows what the types are good for."""
    frontend.compile_types(frontend.generate_client(tmp_path / "frontend"))


def test_every_generated_python_module_imports(package: Path) -> None:
    files = [file.relative_to(package.parent).with_suffix("") for file in package.rglob("*.py")]
    assert len(files) > 60
    for file in files:
        importlib.import_module(".".join(file.parts))


class GeneratedClient:
    """The operations of the generated client, by name."""

    def __init__(self, base_url: str, **options: Any) -> None:
        self.client = import_module("client").Client(
            base_url=base_url, raise_on_unexpected_status=True, **options
        )

    def __enter__(self) -> "GeneratedClient":
        self.client.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.client.__exit__(*error)

    def __call__(self, tag: str, name: str, **options: Any) -> Any:
        return importlib.import_module(f"{PACKAGE}.api.{tag}.{name}").sync(client=self.client, **options)


def test_generated_python_client_works_by_https(package: Path, secure: tuple[str, SSLContext]) -> None:
    """Sign in, read, book, be refused, sign out; every answer is an object of its own type."""
    models, url, context = import_module("models"), *secure
    with GeneratedClient(url, verify_ssl=context) as call:
        staff = models.Credentials(email="staff@example.com", password=ADMIN["password"])
        signed_in = call("authentication", "login", body=staff)
        assert isinstance(signed_in, models.LoginResult)
        assert signed_in.user.role is models.Role.STAFF

        me = call("users", "get_me")
        assert (me.email, me.department) == ("staff@example.com", "Front desk")
        assert me.created_at.tzinfo is not None
        assert isinstance(call("dashboard", "get_dashboard_stats"), models.StaffStats)
        [paula] = call("patients", "list_patients", search="paula").patients
        assert str(paula.id) == PAULA

        when = datetime(2042, 5, 20, 7, tzinfo=UTC)
        booking = models.AppointmentCreate(patient_id=PAULA, doctor_id=DOCTOR, date=when, reason="Check-up")
        booked = call("appointments", "create_appointment", body=booking)
        assert (booked.date, booked.status) == (when, models.AppointmentStatus.SCHEDULED)
        assert booked.notes is None
        taken = call("appointments", "create_appointment", body=booking)
        assert isinstance(taken, models.ErrorDetail)
        assert taken.detail == "date: the doctor has another appointment at that time"

        assert call("authentication", "refresh").message == "Token refreshed"
        assert call("authentication", "logout").message == "Logged out successfully"
        assert call("users", "get_me").detail == "Not authenticated"


def test_generated_python_client_keeps_secure_cookies_from_http(package: Path, url: str) -> None:
    """It keeps Secure cookies to itself, also on localhost, where browsers send them."""
    models = import_module("models")
    with GeneratedClient(url) as call:
        signed_in = call("authentication", "login", body=models.Credentials(**ADMIN))
        assert isinstance(signed_in, models.LoginResult)
        assert call("users", "get_me").detail == "Not authenticated"


def test_hsts_is_sent_by_https_only(url: str, secure: tuple[str, SSLContext]) -> None:
    """HSTS on every answer by https, errors too; by http browsers must ignore it (RFC 6797, 7.2)."""
    address, context = secure
    for path in ("/health/live", "/docs", "/api/users/me", "/nowhere"):
        answer = httpx.get(address + path, verify=context, trust_env=False)
        assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        assert "strict-transport-security" not in httpx.get(url + path, trust_env=False).headers
