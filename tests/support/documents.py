"""What the project's documents and docstrings say, for tests/contract/test_docs.py: passages that
are cited, links, headings and commands."""

import ast
import io
import re
import shlex
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs/decisions"
FOLDERS = ("api", "persistence", "security", "tests", "docs")
FILES = [path for name in FOLDERS for path in (ROOT / name).rglob("*") if "node_modules" not in path.parts]
MODULES = sorted(path for path in FILES if path.suffix == ".py")
MARKDOWN = sorted([*ROOT.glob("*.md"), *(path for path in FILES if path.suffix == ".md")])
OTHER_CITATION = r"\b(?:[Rr]equirement|[Cc]ontract)\b"
# `Requirement 1, POST /api/auth/login: "…"`, `contract, accounts: "…"`, as far as the sentence goes. One that
# speaks of "the contract" cites nothing.
REST_OF_SENTENCE = rf'(?:"[^"]*"|(?!{OTHER_CITATION})(?:[^".]|\.(?=\S)))*'
CITATION = re.compile(rf"(?<!\bthe )\b([Rr]equirement|[Cc]ontract)( \d)?([,:]) ({REST_OF_SENTENCE})")


class Citation(NamedTuple):
    """`source`: requirement or contract. `place`: the section or heading that it names, or nothing.
    `passages`: what it quotes, word for word."""

    source: str
    place: str
    passages: list[str]


def citations(text: str) -> Iterator[Citation]:
    for source, section, mark, rest in CITATION.findall(text):
        quotes = re.findall(r'"([^"]*)"', rest)
        passages = [part.strip() for quote in quotes for part in quote.split("…") if part.strip()]
        place = re.match(r"[^:,;\"()]*", rest)
        named = f"section{section}" if section else place[0].strip() if place and mark == "," else ""
        yield Citation(source.lower(), named, passages)


def prose_of(module: Path) -> Iterator[str]:
    """Its docstrings, and its comments, each on one line."""
    source = module.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield flat(ast.get_docstring(node) or "")
    block: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            block.append(token.string.lstrip("# "))
        # A comment of several lines stands alone; what stands behind code ends with its line.
        elif token.type != tokenize.NL or not token.line.lstrip().startswith("#"):
            yield flat(" ".join(block))
            block = []


def flat(text: str) -> str:
    return " ".join(text.split())


@cache
def tokens(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text())


def inline(document: Path, kind: str) -> Iterator[Token]:
    for token in tokens(document):
        yield from (child for child in token.children or () if child.type == kind)


def headings(document: Path) -> list[str]:
    found = tokens(document)
    return [found[at + 1].content for at, token in enumerate(found) if token.type == "heading_open"]


def anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(document))
    return {heading.replace(" ", "-") for heading in plain}


def links(document: Path) -> list[str]:
    targets = [str(token.attrGet("href")) for token in inline(document, "link_open")]
    targets += [str(token.attrGet("src")) for token in inline(document, "image")]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def code_of(document: Path) -> Iterator[str]:
    """Lines of its shell blocks, and what stands between backticks."""
    for token in tokens(document):
        if token.type == "fence" and token.info == "sh":
            yield from token.content.replace("\\\n", " ").splitlines()
    yield from (token.content for token in inline(document, "code_inline"))


def commands(document: Path, program: str) -> Iterator[list[str]]:
    """The arguments that `program` is called with, in a virtual environment or in a container."""
    for line in code_of(document):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # no line of a shell's: a quotation, or one that goes on
            continue
        for at, word in enumerate(words[:-1]):
            after = words[at + 1]
            if Path(word).name == program and not after.startswith("-") and after != program:
                ends = [end for end in range(at, len(words)) if words[end] in {"&&", "|", ";"}]
                yield words[at + 1 : ends[0] if ends else len(words)]
