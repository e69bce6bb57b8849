"""deploy/compose.yaml, as the tools that read it see it."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.external.composed import SETTINGS
from tests.external.running import ROOT, TOOL_SECONDS

PODMAN_COMPOSE = Path(sys.executable).with_name("podman-compose")


@cache
def resolved() -> str:
    """With the fragments merged and the settings of its user filled in."""
    own = SETTINGS | {"MEDISECURE_IMAGE": "localhost/medisecure"}
    done = subprocess.run(
        [PODMAN_COMPOSE, "--file", ROOT / "deploy/compose.yaml", "config"],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=True,
    )
    return done.stdout


def require_valid(composed: str) -> None:
    """ValueError: it is no file of the Compose Specification, or names what it does not have."""
    PyCompose.from_yaml(composed).validate()


def test_compose_file_follows_the_specification() -> None:
    require_valid(resolved())


@pytest.mark.parametrize(
    "mistake",
    [{"read_onyl": True}, {"networks": ["nowhere"]}, {"secrets": ["nothing"]}, {"stop_grace_period": "soon"}],
    ids=str,
)
def test_a_mistake_in_the_compose_file_would_be_found(mistake: dict[str, Any]) -> None:
    composed = yaml.safe_load(resolved())
    composed["services"]["one"] |= mistake
    with pytest.raises(ValueError, match=next(iter(mistake))):
        require_valid(yaml.safe_dump(composed))
