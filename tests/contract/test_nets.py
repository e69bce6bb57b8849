"""Each net catches its kind of drift, whichever side has moved: the contract alone, or the code alone."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from litestar import Litestar, Response
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import Meta

from api.doctors import Doctor, DoctorPage
from api.http.fields import INT32, Count, Day, IdList, Limit, Message, Page, PathId, Search
from api.http.operation import get, get_public, post
from api.patients import PatientPage
from persistence.postgres.sorting import PatientSort
from security.policy import Authentication
from security.roles import Role
from tests.support import headers, nets, openapi, parameters
from tests.support.client import Browser
from tests.support.conformance import Conformance
from tests.support.factories import World
from tests.support.openapi import Json
from tests.support.service import Service


@pytest.fixture
def document() -> Json:
    return openapi.document()


@pytest.fixture(scope="module")
def app(service: Service) -> Litestar:
    return service.app


def put(document: Json, path: str, value: Any) -> None:
    """Put the value at `path`, whose keys are separated by blanks; None removes what is there."""
    *ways, last = path.split(" ")
    place: Any = document
    for way in ways:
        place = place[int(way) if isinstance(place, list) else way]
    if value is None:
        del place[last]
    elif isinstance(place, list):
        place.append(value)
    else:
        place[last] = value


SCHEMAS = "components schemas"
RESPONSES = "components responses"
PARAMETERS = "components parameters"
PATIENTS = "paths /api/patients"
USERS = "paths /api/users get"
LIVENESS = "paths /health/live get responses 200"
LOGIN = "paths /api/auth/login post responses 200"
ID = "GET /api/patients/{id}: path parameter.id"
EXTRA = {"name": "specialization", "in": "query", "allowEmptyValue": True, "schema": {"type": "string"}}
TEXT = {"type": "string"}
COUNT = {"$ref": "#/components/headers/RateLimit-Limit"}
TAG = {"$ref": "#/components/headers/ETag"}
UNAUTHORIZED = {"$ref": "#/components/responses/Unauthorized"}
DOCTORS = {"operationId": "listInvoices", "responses": {"200": {}}}
LIMIT = "GET /api/patients: query parameter.limit"
SEARCH = "GET /api/patients: query parameter.search"
IDS = "paths /api/patients get parameters 4"

CONTRACT_ALONE = [
    # schemas
    (f"{SCHEMAS} Patient properties birthDate", TEXT, "schema Patient.properties.birthDate"),
    (f"{SCHEMAS} NewPassword minLength", 5, "schema NewPassword.minLength: 5"),
    (f"{SCHEMAS} Registration properties password", TEXT, "schema Registration.properties.password"),
    (f"{SCHEMAS} Invoice", {"type": "object", "properties": {}}, "schema Invoice: no struct"),
    (f"{SCHEMAS} Iban", TEXT, "schema Iban: no type of a field"),
    (f"{SCHEMAS} Appointment additionalProperties", None, "components.schemas.Appointment: additional"),
    # parameters
    (f"{PARAMETERS} Limit schema maximum", 50, f"{LIMIT}.schema.maximum: 50 in openapi.yaml, 100 in"),
    (f"{PARAMETERS} Limit schema minimum", 0, f"{LIMIT}.schema.minimum: 0"),
    (f"{PARAMETERS} Limit schema type", "string", f'{LIMIT}.schema.type: "string"'),
    (f"{PARAMETERS} Limit schema default", 20, f"{LIMIT}.default: 20 in openapi.yaml, 10 in the code"),
    (f"{PARAMETERS} Limit schema default", None, f"{LIMIT}.default: null in openapi.yaml, 10 in the code"),
    (f"{PARAMETERS} Limit required", True, f"{LIMIT}.required: true"),
    (f"{PARAMETERS} Limit name", "size", f'{LIMIT}: "(absent)" in openapi.yaml'),
    (f"{PARAMETERS} Search schema pattern", "^[a-z]*$", f"{SEARCH}.schema.pattern"),
    (f"{IDS} explode", True, "parameter ids: a list wants style: form and explode: false"),
    (f"{IDS} schema maxItems", 10, "query parameter.ids.schema.maxItems: 10 in openapi.yaml, 100 in"),
    (f"{IDS} schema items", {"type": "string"}, "query parameter.ids.schema.items.format"),
    (f"{PARAMETERS} Search schema maxLength", 100, f"{SEARCH}.schema.maxLength: 100"),
    (f"{PARAMETERS} Search allowEmptyValue", None, "parameter search: allowEmptyValue must be True"),
    (f"{PARAMETERS} PatientId schema format", "date", f"{ID}.schema.format"),
    (f"{PARAMETERS} PatientId schema maxLength", 40, f"{ID}.schema.maxLength"),
    (f"{PARAMETERS} PatientId required", False, f"{ID}.required: false"),
    (f"{USERS} parameters 0 schema enum", ["admin"], "GET /api/users: query parameter.role.schema.enum"),
    ("paths /api/doctors get parameters +", EXTRA, "GET /api/doctors: query parameter.specialization"),
    # headers
    (f"{PATIENTS} get responses 200 headers ETag", TAG, "200: header ETag is declared, though"),
    (f"{LIVENESS} headers", {"RateLimit-Limit": COUNT}, "200: header RateLimit-Limit is declared, and never"),
    (f"{RESPONSES} Forbidden headers Retry-After", {"schema": TEXT}, "403: header Retry-After is declared"),
    (f"{RESPONSES} Unauthorized headers WWW-Authenticate", None, "401: header WWW-Authenticate can be sent"),
    (f"{RESPONSES} TooManyRequests headers Retry-After", None, "429: header Retry-After can be sent"),
    (f"{RESPONSES} BadRequest headers RateLimit-Reset", None, "400: header RateLimit-Reset can be sent"),
    (f"{RESPONSES} PatientChart headers ETag", None, "200: header ETag can be sent, and is not declared"),
    (f"{RESPONSES} ObjectUnchanged headers ETag", None, "304: header ETag can be sent, and is not declared"),
    (f"{LOGIN} headers Set-Cookie", None, "POST /api/auth/login: 200: none of ['Content-Disposition',"),
    (f"{RESPONSES} FiguresUnchanged headers ETag", None, "GET /api/dashboard/stats: 304: none of"),
    ("components headers Retry-After required", None, "429: header Retry-After: required must be True"),
    ("components headers RateLimit-Limit required", True, "header RateLimit-Limit: required must be"),
    ("components headers RateLimit-Limit schema type", "string", 'header RateLimit-Limit.type: "string" in'),
    ("components headers Retry-After schema maximum", 60, "header Retry-After.maximum: 60 in"),
    ("components headers RateLimit-Policy schema pattern", "^[0-9]+$", "header RateLimit-Policy.pattern: "),
    ("components headers Cache-Control schema const", "no-cache", "header Cache-Control.const: "),
    (f"{PATIENTS} get responses 200 headers X-Trace", {"schema": TEXT}, "header X-Trace: HEADER_TYPES"),
    # statuses, media types, roles, audit, limits, routes
    (f"{PATIENTS} post responses 403", None, "POST /api/patients: 403 is possible"),
    ("paths /api/doctors get responses 403", UNAUTHORIZED, "GET /api/doctors: 403 is declared and cannot"),
    (f"{RESPONSES} Forbidden content application/problem+json", None, "POST /api/patients: 403 declares"),
    ("paths /api/records post x-roles", None, "POST /api/records: x-roles []"),
    (f"{PATIENTS} post x-roles +", "doctor", "POST /api/patients: x-roles ['admin', 'doctor', 'staff']"),
    ("paths /api/patients/{id} get x-audit", None, "GET /api/patients/{id}: x-audit None"),
    (f"{PATIENTS} post x-audit", None, "POST /api/patients: writes, and leaves nothing"),
    ("paths /api/users/me/password post x-limit", None, "POST /api/users/me/password: x-limit None"),
    ("paths /api/users/me get responses 200", {"description": ""}, "GET /api/users/me: counted is False"),
    ("paths /api/invoices", {"get": DOCTORS}, "GET /api/invoices: promised"),
    (f"{PATIENTS} get operationId", "readPatients", "GET /api/patients: (operationId, success)"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("path", "value", "complaint"), CONTRACT_ALONE)
def test_nets_catch_a_change_of_the_contract_alone(
    path: str, value: Any, complaint: str, document: Json, app: Litestar
) -> None:
    put(document, path, value)
    require_drift(complaint, nets.drift(document, app))


def require_drift(complaint: str, found: list[str]) -> None:
    assert any(complaint in message for message in found), "\n".join(found)


def test_nets_catch_another_success_status_in_the_contract_alone(document: Json, app: Litestar) -> None:
    responses = document["paths"]["/api/patients"]["post"]["responses"]
    responses["200"] = responses.pop("201")
    require_drift("POST /api/patients: (operationId, success)", nets.drift(document, app))


def listing(limit: Any = Limit, search: Any = Search, default: Any = 10) -> Litestar:
    """An application that lists patients, with other parameters than the contract has."""

    @get("/api/patients", operation_id="listPatients")
    async def list_patients(
        page: Page = 1,
        limit: limit = default,
        search: search = "",
        date_of_birth: Annotated[Day | None, QueryParameter(name="dateOfBirth")] = None,
        ids: FromQuery[IdList | None] = None,
        sort: FromQuery[PatientSort | None] = None,
    ) -> PatientPage:
        raise NotImplementedError

    return Litestar([list_patients], openapi_config=None)


def size(least: int, most: int, name: str | None = None) -> Any:
    bounds = Meta(ge=least, le=most, extra_json_schema=INT32)
    return Annotated[int, bounds, QueryParameter(ge=least, le=most, name=name)]


def words(length: int, pattern: str) -> Any:
    return Annotated[str, Meta(max_length=length, pattern=pattern), QueryParameter()]


NO_NUL = r"^[^\u0000]*$"
FLAG = Annotated[bool, QueryParameter()]
CODE_ALONE = [
    (listing(), None),
    (listing(size(1, 50)), f"{LIMIT}.schema.maximum: 100 in openapi.yaml, 50 in the code"),
    (listing(size(0, 100)), f"{LIMIT}.schema.minimum: 1 in openapi.yaml, 0 in the code"),
    (listing(FLAG), f'{LIMIT}.schema.type: "integer" in openapi.yaml, "boolean" in the code'),
    (listing(default=20), f"{LIMIT}.default: 10 in openapi.yaml, 20 in the code"),
    (
        listing(Annotated[Literal["10", "20"], QueryParameter()]),
        f'{LIMIT}.schema.enum: "(absent)" in openapi.yaml',
    ),
    (listing(size(1, 100, "size")), f"{LIMIT}: {{"),
    (listing(search=words(100, NO_NUL)), f"{SEARCH}.schema.maxLength: 200 in openapi.yaml, 100 in the code"),
    (listing(search=words(200, "^[a-z]*$")), f"{SEARCH}.schema.pattern"),
    (listing(search=FromQuery[Day]), f'{SEARCH}.schema.format: "(absent)" in openapi.yaml, "date" in'),
    # What Litestar reads of a parameter, where the type says otherwise.
    (
        listing(Annotated[int, Meta(ge=1, le=100, extra_json_schema=INT32), QueryParameter(ge=1, le=50)]),
        "GET /api/patients: query parameter limit.maximum: 100 in openapi.yaml, 50 in what Litestar reads",
    ),
]


@pytest.mark.parametrize(("app", "complaint"), CODE_ALONE)
def test_nets_catch_a_change_of_a_parameter_in_the_code_alone(
    app: Litestar, complaint: str | None, document: Json
) -> None:
    found = parameters.parameter_drift(document, app)
    if complaint is None:
        assert found == []
    else:
        require_drift(complaint, found)


def test_nets_catch_a_change_of_a_header_in_the_code_alone(
    document: Json, app: Litestar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(headers.HEADER_TYPES, "RateLimit-Limit", Count)
    complaint = "header RateLimit-Limit.minimum: 1 in openapi.yaml, 0 in the code"
    require_drift(complaint, nets.drift(document, app))


def reading_doctors(authentication: Authentication) -> Litestar:
    @get("/api/doctors", operation_id="listDoctors", authentication=authentication)
    async def list_doctors(page: Page = 1, limit: Limit = 10) -> DoctorPage:
        raise NotImplementedError

    return Litestar([list_doctors], openapi_config=None)


def reading_a_doctor() -> Litestar:
    """A handler that returns a Response, and so may set any header."""

    @get("/api/doctors/{id:str}", operation_id="getDoctor")
    async def get_doctor(id: PathId) -> Response[Doctor]:
        raise NotImplementedError

    return Litestar([get_doctor], openapi_config=None)


def reading_by_number() -> Litestar:
    @get("/api/doctors/{id:int}", operation_id="getDoctor")
    async def get_doctor(id: FromPath[int]) -> Doctor:
        raise NotImplementedError

    return Litestar([get_doctor], openapi_config=None)


def refreshing() -> Litestar:
    """A handler that returns a struct, and so sets no cookies."""

    @post("/api/auth/refresh", operation_id="refresh", authentication=Authentication.REFRESH_TOKEN)
    async def refresh() -> Message:
        raise NotImplementedError

    return Litestar([refresh], openapi_config=None)


def probing() -> Litestar:
    @get("/health/live", operation_id="checkLiveness")
    async def check_liveness() -> Message:
        raise NotImplementedError

    return Litestar([check_liveness], openapi_config=None)


def a_back_door() -> Litestar:
    @get_public("/api/backdoor", operation_id="openBackdoor")
    async def open_backdoor() -> Message:
        raise NotImplementedError

    return Litestar([open_backdoor], openapi_config=None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("app", "complaint"),
    [
        (reading_doctors(Authentication.NONE), "200: header RateLimit-Limit is declared, and never sent"),
        (reading_doctors(Authentication.OPTIONAL), "401: header RateLimit-Limit can be sent, and is not"),
        (reading_a_doctor(), "200: none of ['Content-Disposition', 'ETag', 'Set-Cookie'] is declared"),
        (
            reading_by_number(),
            'path parameter.id.schema.type: "string" in openapi.yaml, "integer" in',
        ),
        (refreshing(), "200: header Set-Cookie is declared, though the handler returns no Response"),
        (probing(), "200: header RateLimit-Limit can be sent, and is not declared"),
        (a_back_door(), "GET /api/backdoor: served by openBackdoor"),
    ],
)
def test_nets_catch_a_change_of_a_handler_alone(app: Litestar, complaint: str, document: Json) -> None:
    require_drift(complaint, nets.drift(document, app))


# Traffic: an answer that the contract does not promise fails the test that received it.

STATS = "/api/dashboard/stats"
STATS_200 = f"paths {STATS} get responses 200"


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (f"{STATS_200} headers ETag", None, "etag is not declared"),
        (f"{STATS_200} headers Cache-Control", None, "cache-control is not declared"),
        (f"{STATS_200} headers RateLimit-Reset", None, "ratelimit-reset is not declared"),
        (f"{STATS_200} headers Retry-After", {"required": True, "schema": TEXT}, "retry-after is missing"),
        (f"{STATS_200} headers ETag", {"schema": {**TEXT, "maxLength": 3}}, "etag: .* is too long"),
        (f"{STATS_200} headers RateLimit-Limit", {"schema": {"const": 7}}, "ratelimit-limit: 7 was expected"),
        (f"{STATS_200}", None, r"declares \['304'"),
        ("components schemas AdminStats properties revenue type", "string", "is not valid under any"),
    ],
)
def test_traffic_catches_a_change_of_the_contract_alone(
    path: str, value: Any, complaint: str, document: Json, world: World
) -> None:
    put(document, path, value)
    with pytest.raises(AssertionError, match=complaint):
        Conformance(document).check(world.people[Role.ADMIN].get(STATS))


def test_traffic_catches_a_change_of_the_code_alone(anonymous: Browser) -> None:
    def answer() -> Any:
        return anonymous.get("/health/live")

    contract = Conformance(openapi.document())
    contract.check(answer())
    longer = answer()
    longer._content = msgspec.json.encode({"status": "ok", "uptime": 5})
    with pytest.raises(AssertionError, match="uptime"):
        contract.check(longer)
    for changed, complaint in [
        ({"Retry-After": "5"}, "retry-after is not declared"),
        ({"X-Powered-By": "Litestar"}, "x-powered-by is not declared"),
        ({"X-Request-Id": "1"}, "x-request-id: '1' is not a 'uuid'"),
        ({"Cache-Control": "private"}, "cache-control: 'no-store' was expected"),
    ]:
        other = answer()
        other.headers.update(changed)
        with pytest.raises(AssertionError, match=complaint):
            contract.check(other)
    bare = answer()
    del bare.headers["cache-control"]
    with pytest.raises(AssertionError, match="cache-control is missing"):
        contract.check(bare)
    other_status = answer()
    other_status.status_code = 418
    with pytest.raises(AssertionError, match="418"):
        contract.check(other_status)
