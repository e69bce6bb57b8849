"""No name of the contract hides one that its users' languages have: a schema called `Error` would, in every
file that imports it."""

import builtins
import keyword
import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.external import frontend
from tests.external.running import CONTRACT, NODE_MODULES

DECLARED = re.compile(
    r"^(?:export )?(?:declare )?(?:abstract )?"
    r"(?:interface|type|class|var|let|const|function|namespace|enum) ([A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
# What the two clients import beside the models, so that a model of that name would hide it.
GENERATED_IMPORTS = {
    "AuthenticatedClient",
    "Client",
    "File",
    "HTTPStatus",
    "Response",
    "UNSET",
    "UUID",
    "Unset",
}
GENERATED_IMPORTS |= {"ClientOptions", "Options", "components", "datetime", "operations", "paths"}


def typescript_globals() -> set[str]:
    """Every global of the language and of a browser, workers included, values and types."""
    files = (NODE_MODULES / "typescript/lib").glob("lib.*.d.ts")
    return {name for file in files for name in DECLARED.findall(file.read_text())}


def python_globals() -> set[str]:
    return {*dir(builtins), *dir(typing), *keyword.kwlist, *keyword.softkwlist}


def hidden_globals(names: set[str]) -> set[str]:
    return names & (typescript_globals() | python_globals() | GENERATED_IMPORTS)


def contract_names() -> set[str]:
    """The schemas, and the operations, which become functions; also in a case that a generator may choose."""
    contract: dict[str, Any] = yaml.safe_load(CONTRACT.read_text())
    methods = [method for path in contract["paths"].values() for method in path.values()]
    operations = {method["operationId"] for method in methods if "operationId" in method}
    return {
        *contract["components"]["schemas"],
        *operations,
        *(name[0].upper() + name[1:] for name in operations),
    }


def test_no_name_of_the_contract_hides_a_global_of_its_users_languages() -> None:
    assert len(contract_names()) > 60
    assert hidden_globals(contract_names()) == set()


def test_no_generated_name_hides_a_global_of_typescript(tmp_path: Path) -> None:
    folder = frontend.generate_client(tmp_path / "frontend") / "client"
    names = {
        name
        for file in ("types.gen.ts", "sdk.gen.ts")
        for name in DECLARED.findall((folder / file).read_text())
    }
    assert {"ErrorDetail", "login", "LoginData"} <= names
    # Both are its own names for what every client of it has.
    assert hidden_globals(names) <= {"ClientOptions", "Options"}


@pytest.mark.parametrize(
    "name",
    [
        "Error",
        "Record",
        "Event",
        "Response",
        "Location",
        "Client",
        "Warning",
        "Any",
        "Exception",
        "None",
        "print",
    ],
)
def test_name_that_hides_a_global_is_noticed(name: str) -> None:
    assert hidden_globals({name}) == {name}
