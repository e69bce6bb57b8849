"""The functions of migration 0019, which later ones replace."""

from pathlib import Path

STATEMENTS = (Path(__file__).parent / "changes.sql").read_text("utf-8").split(";\n\n")


def first_form(name: str) -> str:
    """The statement that brings a function back to how 0019 made it."""
    [made] = [one for one in STATEMENTS if f"CREATE FUNCTION {name}(" in one]
    return made.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
