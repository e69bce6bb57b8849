"""No name of the contract hides one that its users' languages have: a schema called `Error` would, in every
file that imports it."""

import builtins
import keyword
import re
import typing
from pathlib import Path
from typing import Any

import frontend
import pytest
import yaml
from running import CONTRACT, NODE_MODULES

DECLARED = re.compile(
    r"^(?:export )?(?:declare )?(?:abstract )?"
    r"(?:interface|type|class|var|let|const|function|namespace|enum) ([A-Za-z_$][\w$]*)",
    re.MULTILINE,
)
# What the two clients import beside the models, so that a model of that name would hide it.
OF_GENERATORS = {"AuthenticatedClient", "Client", "File", "HTTPStatus", "Response", "UNSET", "UUID", "Unset"}
OF_GENERATORS |= {"ClientOptions", "Options", "components", "datetime", "operations", "paths"}


def of_typescript() -> set[str]:
    """Every global of the language and of a browser, workers included, values and types."""
    files = (NODE_MODULES / "typescript/lib").glob("lib.*.d.ts")
    return {name for file in files for name in DECLARED.findall(file.read_text())}


def of_python() -> set[str]:
    return {*dir(builtins), *dir(typing), *keyword.kwlist, *keyword.softkwlist}


def hidden(names: set[str]) -> set[str]:
    return names & (of_typescript() | of_python() | OF_GENERATORS)


def of_contract() -> set[str]:
    """The schemas, and the operations, which become functions; also in a case that a generator may choose."""
    contract: dict[str, Any] = yaml.safe_load(CONTRACT.read_text())
    methods = [method for path in contract["paths"].values() for method in path.values()]
    operations = {method["operationId"] for method in methods if "operationId" in method}
    return {
        *contract["components"]["schemas"],
        *operations,
        *(name[0].upper() + name[1:] for name in operations),
    }


def test_no_name_of_the_contract_hides_a_global() -> None:
    assert len(of_contract()) > 60
    assert hidden(of_contract()) == set()


def test_no_generated_name_hides_a_global(tmp_path: Path) -> None:
    folder = frontend.generated(tmp_path / "frontend") / "client"
    names = {
        name
        for file in ("types.gen.ts", "sdk.gen.ts")
        for name in DECLARED.findall((folder / file).read_text())
    }
    assert {"ErrorDetail", "login", "LoginData"} <= names
    # Both are its own names for what every client of it has.
    assert hidden(names) <= {"ClientOptions", "Options"}


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
def test_a_newcomer_of_such_a_name_is_noticed(name: str) -> None:
    assert hidden({name}) == {name}
