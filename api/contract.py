"""The contract itself, and the reference page over it; nothing comes from another host."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from litestar import Controller, MediaType, Response, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from security.authentication import EXEMPT

HERE = Path(__file__).parent
PAGE = HERE / "reference"
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


@cache
def contract_bytes() -> bytes:
    """openapi.yaml as it stands: in a wheel beside this file, in a checkout at the root."""
    packaged = HERE / "openapi.yaml"
    return (packaged if packaged.exists() else HERE.parent / "openapi.yaml").read_bytes()


@cache
def contract() -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(contract_bytes(), yaml.CSafeLoader)
    return document


class ContractController(Controller):
    opt = {**EXEMPT}  # noqa: RUF012  # Litestar's way to give a controller options

    @get("/openapi.yaml", operation_id="getOpenapiYaml", media_type="application/yaml")
    async def get_openapi_yaml(self) -> bytes:
        return contract_bytes()

    @get("/openapi.json", operation_id="getOpenapiJson", media_type=MediaType.JSON)
    async def get_openapi_json(self) -> bytes:
        return json.dumps(contract()).encode()
