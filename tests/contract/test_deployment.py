"""What deploy/ has for operators: hardened as the guide says, with settings that exist, and in step with the
service. Schemas are checked in tests/external."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml

from api.http.server import SHUTDOWN_TIMEOUT_SECONDS
from api.settings import SECRET_SETTINGS, Settings
from tests.support.lock import ROOT
from tests.support.settings import read, unset_in

KUBERNETES = ROOT / "deploy/kubernetes"
COMPOSED = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSED["services"]  # Any: as YAML says
SLACK_SECONDS = 10  # for a machine that is busy
DEFAULT_DRAIN_SECONDS = {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}[
    "DRAIN_SECONDS"
]
OURS = ("migration", "one", "two")
NAMES = {field.encode_name for field in msgspec.structs.fields(Settings)} | {
    f"{name}_FILE" for name in SECRET_SETTINGS
}
# Of the profile "restricted" of Kubernetes' Pod Security Standards, 1.37.
VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
HOST_NAMESPACES = {"hostNetwork", "hostPID", "hostIPC"}


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


MANIFESTS = {(item["kind"], item.get("metadata", {}).get("name", "")): item for item in manifests()}
PODS = {
    kind: MANIFESTS[kind, name]["spec"]["template"]["spec"]
    for kind, name in MANIFESTS
    if kind in {"Deployment", "Job"}
}


def restricted_problems(pod: dict[str, Any]) -> list[str]:
    """What the profile refuses, by the names of its controls."""
    problems = [name for name in HOST_NAMESPACES if pod.get(name)]
    problems += [f"volume {kind}" for volume in pod["volumes"] for kind in volume.keys() - {"name"} - VOLUMES]
    whole = pod.get("securityContext", {})
    problems += ["sysctls"] * bool(whole.get("sysctls"))
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        own = whole | container.get("securityContext", {})
        checks = {
            "privileged": own.get("privileged", False) is False,
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": own.get("runAsNonRoot") is True,
            "runAsUser": own.get("runAsUser") != 0,
            "seccompProfile": own.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        problems += [name for name, holds in checks.items() if not holds]
    return problems


@pytest.mark.parametrize("kind", PODS)
def test_pods_are_within_the_restricted_profile(kind: str) -> None:
    assert restricted_problems(PODS[kind]) == []
    assert PODS[kind]["automountServiceAccountToken"] is False
    for container in PODS[kind]["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "volume hostPath"),
        ({"securityContext": {"runAsNonRoot": True}}, "seccompProfile"),
        ({"containers": [{"securityContext": {"allowPrivilegeEscalation": False}}]}, "capabilities"),
    ],
)
def test_a_looser_pod_would_be_found(change: dict[str, Any], problem: str) -> None:
    assert problem in restricted_problems(PODS["Deployment"] | change)


@pytest.mark.parametrize("service", SERVICES)
def test_composed_services_can_write_nothing_and_gain_nothing(service: str) -> None:
    options = SERVICES[service]
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert "cap_add" not in options
    assert options["security_opt"] == ["no-new-privileges:true"]
    assert options["user"].partition(":")[0] not in {"", "0", "root"}
    assert set(options["secrets"]) <= COMPOSED["secrets"].keys()


def test_settings_in_deploy_exist_and_secrets_are_never_in_the_environment() -> None:
    named = set[str]().union(*(SERVICES[service]["environment"] for service in OURS))
    named |= set(MANIFESTS["ConfigMap", "medisecure"]["data"])
    named |= {item["name"] for pod in PODS.values() for item in pod["containers"][0].get("env", [])}
    assert named <= NAMES - SECRET_SETTINGS


def test_what_the_user_of_compose_leaves_out_is_as_if_not_set() -> None:
    unset = unset_in(SERVICES["one"])
    optional = {"CLINIC_HOURS", "CALENDAR_NAMES", "NO_SHOW_AFTER_HOURS", "BOOKING_MAX_OPEN", "PUBLIC_URL"}
    assert optional < unset.keys()
    assert read(**unset) == read()


def test_no_image_is_named_without_a_version() -> None:
    for service, options in SERVICES.items():
        image = options["image"]
        assert image.startswith("${MEDISECURE_IMAGE:?") if service in OURS else ":" in image
        assert "latest" not in image
        assert "@" not in image, "only a registry can say a digest"


def test_service_may_drain_before_it_is_killed() -> None:
    """contract: "Whoever stops the service must wait for so long before they kill it"."""
    slack = SHUTDOWN_TIMEOUT_SECONDS + SLACK_SECONDS
    drain = int(MANIFESTS["ConfigMap", "medisecure"]["data"]["DRAIN_SECONDS"])
    assert PODS["Deployment"]["terminationGracePeriodSeconds"] >= drain + slack
    for service in ("one", "two"):
        assert "DRAIN_SECONDS" not in SERVICES[service]["environment"]
        grace = float(SERVICES[service]["stop_grace_period"].removesuffix("s"))
        assert grace >= DEFAULT_DRAIN_SECONDS + slack


def test_metrics_are_read_where_they_are_and_only_from_inside() -> None:
    port = MANIFESTS["ConfigMap", "medisecure"]["data"]["METRICS_PORT"]
    pod = MANIFESTS["Deployment", "medisecure"]["spec"]["template"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == port
    assert {"name": "metrics", "containerPort": int(port)} in pod["spec"]["containers"][0]["ports"]
    assert [item["name"] for item in MANIFESTS["Service", "medisecure"]["spec"]["ports"]] == ["http"]
    assert [name for name, options in SERVICES.items() if "ports" in options] == ["proxy"]


def test_selectors_find_the_pods() -> None:
    deployment = MANIFESTS["Deployment", "medisecure"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service", "medisecure"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget", "medisecure"]["spec"]["selector"]["matchLabels"] == labels
    job = MANIFESTS["Job", "medisecure-migration"]["spec"]["template"]["metadata"]["labels"]
    assert job != labels


def test_every_manifest_is_applied() -> None:
    kustomization = MANIFESTS["Kustomization", ""]
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
