"""Nothing is defined that nothing uses, as far as vulture sees: by names."""

import sys
from pathlib import Path
from typing import is_typeddict

import pytest
from vulture import Vulture  # type: ignore[import-untyped]  # it has no types

from persistence.models import Base
from tests.support.documents import FOLDERS, ROOT
from tests.support.shapes import structs

pytestmark = pytest.mark.slow

# Handlers, which Litestar calls, and what pytest and Schemathesis call.
CALLED_BY_DECORATOR = ["@get*", "@post", "@patch", "@put", "@delete", "@pytest.*", "@schemathesis.*"]
# What a library calls by its name, or reads from an object of ours.
CALLED_BY_NAME = [
    "__instancecheck__", "authenticate_request", "data_received", "decode_payload", "do_*", "eof_received",
    "log_message", "on_*", "protocol_version", "pytest_*", "to_encoded_header", "to_kwargs", "audience",
    "_unset_keepalive_if_required", "pytestmark", "resolve_dependencies", "showwarning", "unraisablehook",
]  # fmt: skip
READ_BY_NAME = [
    "branch_labels", "chunked_encoding", "depends_on", "exitstatus", "expected_content_length", "has_kwargs",
    "total_requests", "trace", "timeout_graceful_shutdown", "trips", "waiting_for_100_continue", "_content",
    "_prepared_statement_*", "_signature_model",
]  # fmt: skip
EXCLUDED = ["node_modules", "tests/persistence/typing"]


def fields() -> set[str]:
    """What goes over the wire, into the database or into a statement by its name."""
    sent = {name for struct in structs().values() for name in struct.__struct_fields__}
    stored = {column.key for table in Base.metadata.tables.values() for column in table.columns}
    taken = {
        name
        for module in [module for name, module in sys.modules.items() if name.startswith("persistence.")]
        for kind in vars(module).values()
        if is_typeddict(kind)
        for name in kind.__annotations__
    }
    return sent | stored | taken | set(Base.metadata.tables)


def unused(*paths: Path) -> list[str]:
    names = [*CALLED_BY_NAME, *READ_BY_NAME, *sorted(fields())]
    vulture = Vulture(ignore_names=names, ignore_decorators=CALLED_BY_DECORATOR)
    vulture.scavenge([str(path) for path in paths], exclude=[f"*{path}*" for path in EXCLUDED])
    return [
        f"{item.filename.relative_to(ROOT) if item.filename.is_relative_to(ROOT) else item.filename.name}:"
        f"{item.first_lineno} {item.message}"
        for item in vulture.get_unused_code(min_confidence=60)
    ]


def test_everything_is_used() -> None:
    found = unused(*(ROOT / name for name in FOLDERS))
    assert not found, "\n".join(found)


def test_a_function_that_nothing_calls_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def is_ever_called() -> bool:\n    return False\n")
    assert unused(module) == ["module.py:1 unused function 'is_ever_called'"]
