"""deploy/kubernetes/, held to the schemas of the last five versions of Kubernetes. Strict: a field that does
not exist is an error."""

from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it brings no types
import pytest
import yaml

from tests.external.running import ROOT

VERSIONS = "1.33", "1.34", "1.35", "1.36", "1.37"
FILES = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
KUSTOMIZATION = "kustomization.yaml"  # kubectl's own, which the server never sees


def manifests(path: Path) -> list[dict[str, Any]]:  # Any: as YAML says
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", [path for path in FILES if path.name != KUSTOMIZATION], ids=lambda p: p.name)
def test_manifests_follow_the_schemas(path: Path, version: str) -> None:
    for manifest in manifests(path):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    [deployment] = manifests(ROOT / "deploy/kubernetes/deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = (
        True
    )
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)
