"""The contract itself, and the reference page over it; nothing comes from another host."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import yaml
from litestar import Controller, MediaType, Response
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, HeaderParameter

from api.public import get_public

HERE = Path(__file__).parent
PAGE = HERE / "reference"
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SCRIPT = "text/javascript"
STYLE = "text/css"
ASSETS = {
    "init.js": SCRIPT,
    "swagger-ui-bundle.js": SCRIPT,
    "swagger-ui.css": STYLE,
    "narrow.css": STYLE,
}
IfNoneMatch = Annotated[str, HeaderParameter(name="If-None-Match")]


@cache
def contract_bytes() -> bytes:
    """openapi.yaml as it stands: in a wheel beside this file, in a checkout at the root."""
    packaged = HERE / "openapi.yaml"
    return (packaged if packaged.exists() else HERE.parent / "openapi.yaml").read_bytes()


@cache
def contract() -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(contract_bytes(), yaml.CSafeLoader)
    return document


@cache
def contract_json() -> bytes:
    return json.dumps(contract()).encode()


@cache
def page_file(name: str) -> tuple[bytes, str]:
    """(content, ETag) of a file of the reference page."""
    content = (PAGE / name).read_bytes()
    return content, f'"{sha256(content).hexdigest()}"'


class ContractController(Controller):
    @get_public("/.well-known/security.txt", operation_id="getSecurityTxt", media_type=MediaType.TEXT)
    async def get_security_txt(self, state: State) -> str:
        """Where to report a weakness (RFC 9116)."""
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=180)
        return (
            f"Contact: {state.security_contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\n"
            "Preferred-Languages: en\n"
        )

    @get_public("/openapi.yaml", operation_id="getOpenapiYaml", media_type="application/yaml")
    async def get_openapi_yaml(self) -> bytes:
        return contract_bytes()

    @get_public("/openapi.json", operation_id="getOpenapiJson", media_type=MediaType.JSON)
    async def get_openapi_json(self) -> bytes:
        return contract_json()

    @get_public("/docs", operation_id="getDocs", media_type=MediaType.HTML)
    async def get_docs(self) -> Response[bytes]:
        content, _ = page_file("index.html")
        return Response(content, headers={"Content-Security-Policy": PAGE_CSP})

    @get_public("/docs/{file:str}", include_in_schema=False)
    async def get_page_file(self, file: FromPath[str], held: IfNoneMatch = "") -> Response[bytes | None]:
        """What the page loads: two megabytes, which a browser keeps, asking only whether they still stand."""
        if file not in ASSETS:
            raise NotFoundException("Not found")
        content, etag = page_file(file)
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Content-Security-Policy": PAGE_CSP}
        if etag in held:
            return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(content, media_type=ASSETS[file], headers=headers)
