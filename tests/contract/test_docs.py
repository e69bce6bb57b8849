"""The documents are held to the code, and the code to the documents: whatever is cited, linked, named or to
be typed is there."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest

from api.commands.backup_settings import BackupSettings
from api.commands.parser import build_parser
from api.contract import contract
from api.settings import SECRET_SETTINGS, Settings
from tests.support.documents import (
    DECISIONS,
    MARKDOWN,
    MODULES,
    ROOT,
    Citation,
    anchors,
    citations,
    commands,
    flat,
    headings,
    inline,
    links,
    prose_of,
)

REQUIREMENTS = ROOT / "docs/requirements.md"
README, SECURITY = ROOT / "README.md", ROOT / "security/README.md"
RECORDS = sorted(DECISIONS.glob("[0-9]*.md"))
GUIDES = README, ROOT / "CONTRIBUTING.md", ROOT / "docs/deployment.md", ROOT / "docs/backup.md", SECURITY
TEST = re.compile(r"((?:test_)?\w+\.py)::([\w:]+)|(conformance\.py):(\w+)")
CODE = re.compile(r"((?:api|persistence|security|tests|docs)/[\w./-]+\.(?:py|yaml|md|sql))(?::([\w.]+))?")
SETTING = re.compile(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`")
NAMES = {field.encode_name for kind in (Settings, BackupSettings) for field in msgspec.structs.fields(kind)}


@cache
def text_of(source: str) -> str:
    """What may be cited. The contract is openapi.yaml and the decisions."""
    if source == "requirement":
        return flat(REQUIREMENTS.read_text())
    return flat(" ".join(path.read_text() for path in [ROOT / "openapi.yaml", *RECORDS]))


@cache
def places_in(source: str) -> list[str]:
    """What a citation may name before a colon, in lower case."""
    if source == "requirement":
        found = headings(REQUIREMENTS)
        found += [f"section {number[1]}" for title in found if (number := re.match(r"(\d)\. ", title))]
        found += re.findall(r"^[A-Z_]+=\w*", REQUIREMENTS.read_text(), re.MULTILINE)
    else:
        guide = contract()["info"]["description"]
        found = re.findall(r"^## (.+)$", guide, re.MULTILINE) + [headings(path)[0] for path in RECORDS]
        found += [f"`{method} {path}`" for path, item in contract()["paths"].items() for method in item]
    return [place.lower() for place in found]


def what_is_missing(cited: Citation) -> list[str]:
    missing = [passage for passage in cited.passages if passage not in text_of(cited.source)]
    if not any(cited.place.lower() in place for place in places_in(cited.source)):
        missing.append(cited.place)
    return missing


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cited_passages_exist(module: Path) -> None:
    """Word for word, but for line breaks; `…` stands for what is left out."""
    for prose in prose_of(module):
        for cited in citations(prose):
            assert not what_is_missing(cited), prose


@pytest.mark.parametrize(
    "prose",
    [
        'Requirement, Rate Limiting: "per person".',
        "Requirement 9, POST /api/auth/login.",
        'Contract, accounts: "a success … doubles".',
        "Contract, weather: it is fine.",
    ],
)
def test_a_wrong_citation_is_caught(prose: str) -> None:
    assert [what_is_missing(cited) for cited in citations(prose)] not in ([], [[]])


@cache
def definitions(module: Path) -> set[str]:
    """Functions, classes, methods and constants, as `Class.method`."""
    found = set()
    for node in ast.parse(module.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        names = [name for name in (named(node), *(f"{named(node)}.{named(one)}" for one in inner)) if name]
        found |= set(names)
    return found


def named(node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return next((target.id for target in targets if isinstance(target, ast.Name)), "")


@pytest.mark.slow
def test_tests_cited_in_guides_exist() -> None:
    shown = [found for path in GUIDES for found in TEST.findall(path.read_text())]
    assert len(shown) > 100
    for module, name, helper, function in shown:
        files = [path for path in MODULES if path.name == (module or helper)]
        found = {defined for file in files for defined in definitions(file)}
        assert (name or function).replace("::", ".") in found, f"{module or helper}: {name or function}"


@pytest.mark.slow
@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_names_in_guides_exist(document: Path) -> None:
    for code in inline(document, "code_inline"):
        for path, name in CODE.findall(code.content):
            assert (ROOT / path).is_file(), path
            assert not name or name in definitions(ROOT / path), f"{path}:{name}"


@pytest.mark.parametrize("document", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_documents_resolve(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_settings_named_in_guides_exist() -> None:
    told = {name for path in (README, SECURITY) for name in SETTING.findall(path.read_text())}
    libraries = {name for name in told if name.startswith("OTEL_")}
    assert told <= NAMES | libraries | {f"{name}_FILE" for name in SECRET_SETTINGS}


def test_every_setting_is_in_the_readme() -> None:
    text = README.read_text()
    assert [name for name in sorted(NAMES) if f"`{name}`" not in text] == []


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_guides_parse(document: Path) -> None:
    for words in commands(document, "medisecure"):
        build_parser().parse_args([word.replace("SECONDS", "60") for word in words])
    for words in commands(document, "just"):
        ready: list[str | Path] = [Path(sys.executable).with_name("just"), "--dry-run", *words]
        subprocess.run(ready, cwd=ROOT, check=True, capture_output=True)  # as many arguments as it takes


def test_every_decision_is_in_the_index() -> None:
    assert sorted(set(links(DECISIONS / "README.md")) & {path.name for path in RECORDS}) == [
        path.name for path in RECORDS
    ]
    numbers = [int(path.name[:4]) for path in RECORDS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_decisions_have_context_decision_and_consequences(record: Path) -> None:
    title, *parts = headings(record)
    assert title.startswith(f"{record.name[:4]}. ")
    assert parts == ["Context", "Decision", "Consequences"]
