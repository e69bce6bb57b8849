"""The contract itself, and the reference page over it; nothing comes from another host."""

import asyncio
import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Controller, MediaType, Response
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from api.http.conditional import conditional_response, entity_tag
from api.http.errors import AnyRequest
from api.http.negotiation import accepts_gzip
from api.http.operation import get_public

HERE = Path(__file__).parent
PAGE = HERE / "reference"
# Scalar writes its styles into the page, hence 'unsafe-inline' for styles. Scripts have no such exception.
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {"Content-Security-Policy": PAGE_CSP}
INDEX = "index.html"
ASSETS = {"reference.js": "text/javascript", "scalar.js": "text/javascript", "reference.css": "text/css"}


@cache
def contract_bytes() -> bytes:
    """openapi.yaml as it stands: in a wheel beside this file, in a checkout at the root."""
    packaged = HERE / "openapi.yaml"
    return (packaged if packaged.exists() else HERE.parent / "openapi.yaml").read_bytes()


@cache
def contract() -> dict[str, Any]:  # Any: JSON of the shape that OpenAPI says
    import yaml  # not above: serving takes none of it until somebody asks for the JSON

    document: dict[str, Any] = yaml.load(contract_bytes(), yaml.CSafeLoader)
    return document


@cache
def contract_json() -> bytes:
    return json.dumps(contract()).encode()


@cache
def page_file(name: str, *, compressed: bool = False) -> tuple[bytes, str]:
    """A file of the reference page, as it is or by gzip, and its entity tag."""
    content = (PAGE / name).read_bytes()
    if compressed:
        content = gzip.compress(content, mtime=0)
    return content, entity_tag(content)


@cache
def tag_of(read: Callable[[], bytes]) -> str:
    return entity_tag(read())


class ContractController(Controller):
    @get_public("/.well-known/security.txt", operation_id="getSecurityTxt", media_type=MediaType.TEXT)
    async def get_security_txt(self, security_contact: NamedDependency[str]) -> str:
        """Where to report a weakness (RFC 9116)."""
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=180)
        return (
            f"Contact: {security_contact}\nExpires: {expires:%Y-%m-%dT%H:%M:%SZ}\nPreferred-Languages: en\n"
        )

    @get_public("/openapi.yaml", operation_id="getOpenapiYaml", media_type="application/yaml")
    async def get_openapi_yaml(self, request: AnyRequest) -> Response[bytes]:
        return conditional_response(
            request, contract_bytes(), tag_of(contract_bytes), media_type="application/yaml"
        )

    @get_public("/openapi.json", operation_id="getOpenapiJson", media_type=MediaType.JSON)
    async def get_openapi_json(self, request: AnyRequest) -> Response[bytes]:
        return conditional_response(request, contract_json(), tag_of(contract_json))

    @get_public("/docs", operation_id="getDocs", media_type=MediaType.HTML)
    async def get_docs(self, request: AnyRequest) -> Response[bytes]:
        page, tag = page_file(INDEX)
        return conditional_response(request, page, tag, media_type=MediaType.HTML, headers=PAGE_HEADERS)

    @get_public("/docs/{file:str}", include_in_schema=False)
    async def get_page_file(self, file: FromPath[str], request: AnyRequest) -> Response[bytes]:
        """What the page loads: a megabyte, which a browser keeps, asking only whether it has changed."""
        if file not in ASSETS:
            raise NotFoundException("Not found")
        compressed = accepts_gzip(request.scope)
        headers = {**PAGE_HEADERS, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if compressed:
            headers["Content-Encoding"] = "gzip"
        content, tag = await asyncio.to_thread(page_file, file, compressed=compressed)  # 0.2 s at first
        return conditional_response(request, content, tag, media_type=ASSETS[file], headers=headers)
