"""openapi.yaml is valid, and agrees with the code: no net finds a drift."""

from importlib.metadata import version
from typing import Any

import msgspec
import pytest
import yaml
from litestar import Litestar
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api.contract import contract, contract_bytes
from tests.support import headers, nets, parameters, shapes
from tests.support.nets import require_no_drift
from tests.support.service import Service

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def app(service: Service) -> Litestar:
    return service.app


def test_the_document_is_valid_openapi() -> None:
    validate(contract(), cls=OpenAPIV31SpecValidator)


@pytest.mark.slow
def test_no_key_is_in_the_document_twice() -> None:
    """YAML readers would silently take the last one."""

    class Strict(yaml.SafeLoader):
        # Any: PyYAML's own types say no more of a mapping.
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{node.start_mark}: {sorted(keys)}"
            return super().construct_mapping(node, deep)

    assert Strict(contract_bytes()).get_single_data() == contract()


def test_the_version_is_that_of_the_package() -> None:
    assert contract()["info"]["version"] == version("medisecure")


def test_routes_do_not_drift(app: Litestar) -> None:
    require_no_drift(nets.route_drift(contract(), app))


def test_schemas_do_not_drift() -> None:
    require_no_drift(shapes.shape_drift(contract()))


def test_parameters_do_not_drift(app: Litestar) -> None:
    require_no_drift(parameters.parameter_drift(contract(), app))


def test_headers_of_answers_do_not_drift(app: Litestar) -> None:
    require_no_drift(headers.header_drift(contract(), app))


@pytest.mark.parametrize(("name", "value"), headers.SAMPLES)
def test_headers_that_the_code_writes_are_of_their_types(name: str, value: str) -> None:
    msgspec.convert(value, headers.HEADER_TYPES[name], strict=False)


def test_schemas_are_closed_and_all_statuses_declared() -> None:
    require_no_drift(nets.closedness_drift(contract()))


def test_audit_actions_do_not_drift(app: Litestar) -> None:
    require_no_drift(nets.audit_drift(contract(), app))


def test_limits_do_not_drift(app: Litestar) -> None:
    require_no_drift(nets.limit_drift(contract(), app))


def test_roles_do_not_drift(app: Litestar) -> None:
    require_no_drift(nets.role_drift(contract(), app))


def test_pytest_prints_a_drift_whole(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from tests.support.nets import require_no_drift

        def test_drift() -> None:
            require_no_drift([f"schema Number{number}: {'x' * 500}" for number in range(100)])
        """
    )
    printed = pytester.runpytest_inprocess("-p", "no:xdist", "-p", "no:schemathesis").stdout.str()
    for number in range(100):
        assert f"schema Number{number}: {'x' * 500}\n" in printed
