"""What CONTRIBUTING.md asks of commits, functions and modules."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.documents import FILES, MARKDOWN, ROOT

MODULES = sorted(
    path for floor in ("api", "persistence", "security") for path in (ROOT / floor).rglob("*.py")
)
MAX_MODULE = 300  # lines
MAX_FUNCTION = 40  # lines
MAX_HANDLER = 15  # lines below the signature and the docstring
Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_short(module: Path) -> None:
    lines = module.read_text().splitlines()
    assert len(lines) <= MAX_MODULE
    for function in functions(module):
        assert length(function) <= MAX_FUNCTION, f"{function.name} has {length(function)} lines"
        begins, ends = body(function)
        above = lines[function.lineno - 1 : ends]
        has_reason = any(line.lstrip().startswith("#") for line in above)
        is_short = ends - begins < MAX_HANDLER
        assert not is_handler(function) or is_short or has_reason, f"{function.name}: why so long?"


def functions(module: Path) -> Iterator[Function]:
    tree = ast.parse(module.read_text())
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def body(function: Function) -> tuple[int, int]:
    """The numbers of its first and last line, less the docstring."""
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
    return first.lineno, function.end_lineno or 0


def is_handler(function: Function) -> bool:
    return any("operation_id" in ast.unparse(decorator) for decorator in function.decorator_list)


PROSE = [
    *MARKDOWN,
    *(path for path in FILES if path.suffix in {".py", ".sql", ".js", ".ts", ".html"}),
    ROOT / "openapi.yaml",
]
AS_THE_USER_WROTE_IT = ROOT / "docs/requirements.md"


@pytest.mark.parametrize("document", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_call_a_person_they(document: Path) -> None:
    if document != AS_THE_USER_WROTE_IT and "reference" not in document.parts:
        assert not re.findall(r"(?i)(?<![\w'])(?:s?[h]e|[h]i[ms]|[h]er)(?![\w'])", document.read_text())


def title_rule() -> re.Pattern[str]:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    return re.compile(next(hook["entry"] for hook in hooks if hook["id"] == "title"))


@pytest.mark.parametrize(
    "message",
    [
        "house: Give each kind of module a room.",
        "house: Give each kind of module a room.\n\nls api lists the resources.\n",
        "house: Give each kind of module a room.\n# Please enter the commit message for your changes.\n",
        "house: " + "Give " * 12 + "room.",
        "fixup! house: Give each kind of module a room.",
        "Merge branch 'main' into rooms",
    ],
)
def test_the_commit_hook_takes_the_titles_that_we_want(message: str) -> None:
    assert title_rule().match(message)


@pytest.mark.parametrize(
    "message",
    [
        "Give each kind of module a room.",
        "house: give each kind of module a room.",
        "house: Give each kind of module a room",
        "House: Give each kind of module a room.",
        "house: Give each kind of module a room.\nls api lists the resources.\n",
        "house: " + "Give " * 13 + "room.",
        "wip",
        "",
    ],
)
def test_the_commit_hook_refuses_other_titles(message: str) -> None:
    assert not title_rule().match(message)
