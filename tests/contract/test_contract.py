"""openapi.yaml and the code cannot drift apart: the nets hold, and each catches its kind of drift."""

import copy
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec
import pytest
import yaml
from litestar import Litestar, get
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api.contract import contract, contract_bytes
from tests.support import conformance, nets
from tests.support.client import Browser
from tests.support.service import Service

Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    return copy.deepcopy(contract())


@pytest.fixture(scope="module")
def app(service: Service) -> Litestar:
    return service.app


def test_the_document_is_valid_openapi() -> None:
    validate(contract(), cls=OpenAPIV31SpecValidator)


def test_no_key_is_there_twice() -> None:
    """YAML would take the last one without a word."""

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{node.start_mark}: {sorted(keys)}"
            return super().construct_mapping(node, deep)

    assert Strict(contract_bytes()).get_single_data() == contract()


def test_routes(app: Litestar, document: Document) -> None:
    assert nets.route_drift(document, app) == []


def test_shapes(document: Document) -> None:
    assert nets.shape_drift(document) == []


def test_query_parameters(app: Litestar, document: Document) -> None:
    assert nets.parameter_drift(document, app) == []


def test_closedness(document: Document) -> None:
    assert nets.closedness_drift(document) == []


def test_audit_actions(app: Litestar, document: Document) -> None:
    assert nets.audit_drift(document, app) == []


def test_limits(app: Litestar, document: Document) -> None:
    assert nets.limit_drift(document, app) == []


def test_roles(app: Litestar, document: Document) -> None:
    assert nets.role_drift(document, app) == []


def schemas(document: Document) -> Any:
    return document["components"]["schemas"]


def renamed(document: Document) -> None:
    properties = schemas(document)["Patient"]["properties"]
    properties["birthDate"] = properties.pop("dateOfBirth")


def loosened(document: Document) -> None:
    schemas(document)["Registration"]["properties"]["password"]["minLength"] = 5


def opened(document: Document) -> None:
    del schemas(document)["Appointment"]["additionalProperties"]


def undocumented(document: Document) -> None:
    del document["paths"]["/api/patients"]["post"]["responses"]["403"]


def impossible(document: Document) -> None:
    responses = document["paths"]["/api/doctors"]["get"]["responses"]
    responses["403"] = responses["401"]


def unfilterable(document: Document) -> None:
    del document["components"]["parameters"]["Search"]["allowEmptyValue"]


def unnegotiated(document: Document) -> None:
    del document["components"]["responses"]["Forbidden"]["content"]["application/problem+json"]


def unguarded(document: Document) -> None:
    del document["paths"]["/api/records"]["post"]["x-roles"]


def widened(document: Document) -> None:
    document["paths"]["/api/patients"]["post"]["x-roles"].append("doctor")


def unnoticed(document: Document) -> None:
    del document["paths"]["/api/patients/{id}"]["get"]["x-audit"]


def uncounted(document: Document) -> None:
    headers = document["paths"]["/api/users/me/sessions"]["get"]["responses"]["200"]["headers"]
    del headers["RateLimit-Limit"]


def counted_together(document: Document) -> None:
    del document["paths"]["/api/users/me/password"]["post"]["x-limit"]


def unserved(document: Document) -> None:
    document["paths"]["/api/invoices"] = {"get": document["paths"]["/api/doctors"]["get"]}


def other_success(document: Document) -> None:
    responses = document["paths"]["/api/patients"]["post"]["responses"]
    responses["200"] = responses.pop("201")


def unread_parameter(document: Document) -> None:
    parameters = document["paths"]["/api/doctors"]["get"]["parameters"]
    parameters.append({"name": "specialization", "in": "query", "schema": {"type": "string"}})


@pytest.mark.parametrize(
    ("sabotage", "complaint"),
    [
        (renamed, "schema Patient.properties.birthDate"),
        (loosened, "schema Registration.properties.password.minLength: 5"),
        (opened, "components.schemas.Appointment: additionalProperties"),
        (undocumented, "POST /api/patients: 403 is possible"),
        (impossible, "GET /api/doctors: 403 is declared and cannot happen"),
        (unfilterable, "GET /api/patients: parameter search: allowEmptyValue must be True"),
        (unnegotiated, "POST /api/patients: 403 declares {'application/json': 'ErrorDetail'}"),
        (unguarded, "POST /api/records: x-roles []"),
        (widened, "POST /api/patients: x-roles ['admin', 'doctor', 'staff']"),
        (unnoticed, "GET /api/patients/{id}: x-audit None"),
        (uncounted, "GET /api/users/me/sessions: 429 is declared and cannot happen"),
        (counted_together, "POST /api/users/me/password: x-limit None"),
        (unserved, "GET /api/invoices: promised"),
        (other_success, "POST /api/patients: (operationId, success)"),
        (unread_parameter, "GET /api/doctors: query parameters"),
    ],
)
def test_the_nets_catch(
    sabotage: Callable[[Document], None], complaint: str, document: Document, app: Litestar
) -> None:
    sabotage(document)
    drift = [
        *nets.route_drift(document, app),
        *nets.shape_drift(document),
        *nets.parameter_drift(document, app),
        *nets.closedness_drift(document),
        *nets.role_drift(document, app),
        *nets.audit_drift(document, app),
        *nets.limit_drift(document, app),
    ]
    assert any(complaint in message for message in drift), drift


def test_the_nets_catch_an_extra_route(document: Document) -> None:
    @get("/api/backdoor", operation_id="openBackdoor")
    async def open_backdoor() -> None: ...

    extra = Litestar([open_backdoor], openapi_config=None)
    assert any(
        "GET /api/backdoor: served by openBackdoor" in message
        for message in nets.route_drift(document, extra)
    )


def test_the_traffic_net_catches(service: Service, anonymous: Browser) -> None:
    """An answer that the contract does not promise fails the test that received it."""
    response = anonymous.get("/health/live")
    response._content = msgspec.json.encode({"status": "ok", "uptime": 5})
    with pytest.raises(AssertionError, match="uptime"):
        conformance.check(response)
    response.status_code = 418
    with pytest.raises(AssertionError):
        conformance.check(response)


def test_the_version_is_the_packages() -> None:
    assert contract()["info"]["version"] == version("medisecure")
