"""The sheet as PDF."""

from importlib.resources import files

from api.downtime.sheet import BLANK_LINES, Sheet
from api.paper.typesetting import typeset


def render_pdf(sheet: Sheet, paper: str) -> tuple[bytes, bool]:
    """The PDF, and whether each character could be shown."""
    template = files(__package__).joinpath("sheet.typ").read_bytes()
    return typeset(template, sheet, paper=paper, blank=str(BLANK_LINES))
