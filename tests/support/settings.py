"""Settings from an environment, as tests write it."""

from typing import Any

import pytest

from api.settings import Settings, SettingsError
from tests.support.service import KEY

REQUIRED = {
    "DATABASE_URL": "postgresql://user:hush-hush@localhost/medisecure",
    "REDIS_URL": "redis://localhost:6379",
    "SECRET_KEY": KEY,
}


def unset_in(service: dict[str, Any]) -> dict[str, str]:
    """What an instance of a Compose file is given for each setting that its user may set, and has not."""
    asked = {name: str(value).partition(":-") for name, value in service["environment"].items()}
    return {
        name: default.removesuffix("}")
        for name, (before, _, default) in asked.items()
        if before == f"${{{name}"
    }


def read(**environment: str) -> Settings:
    """The settings of an environment that has the required names besides."""
    return Settings.read({**REQUIRED, **environment})


def refusal(**environment: str) -> str:
    """What the refusal of such an environment says, which is never a secret."""
    with pytest.raises(SettingsError) as raised:
        read(**environment)
    message = str(raised.value)
    assert KEY not in message
    assert "hush-hush" not in message
    return message
