"""The sheet as PDF, by Typst (the extra `pdf`): it shapes every script, and needs nothing but fonts."""

import importlib
from importlib.resources import files
from typing import Any

import msgspec

from api.downtime.sheet import BLANK_LINES, Sheet

# In this order, of those that are there; the last one comes with Typst. For what they lack any other font of
# the machine is taken.
FAMILIES = ("DejaVu Sans", "Noto Sans", "Libertinus Serif")
# PDF/A, which an archive wants, has no place for a character that no font can show: Typst then refuses.
STANDARD = "a-2u"


class NoPdfError(Exception):
    """There is no PDF. The message says why, and what to do."""


def render_pdf(sheet: Sheet, paper: str) -> tuple[bytes, bool]:
    """The PDF, and whether each character could be shown."""
    typst = load_typst()
    template = files(__package__).joinpath("sheet.typ").read_bytes()
    fonts = typst.Fonts()
    families = [name for name in FAMILIES if name in set(fonts.families())]
    inputs = {
        "sheet": msgspec.json.encode(sheet).decode(),
        "families": msgspec.json.encode(families).decode(),
        "paper": paper,
        "blank": str(BLANK_LINES),
    }
    try:
        return typst.compile(template, font_paths=fonts, sys_inputs=inputs, pdf_standards=STANDARD), True
    except typst.TypstError:
        return typst.compile(template, font_paths=fonts, sys_inputs=inputs), False


def load_typst() -> Any:  # a module
    try:
        return importlib.import_module("typst")
    except ModuleNotFoundError as error:
        raise NoPdfError("PDF needs the extra: pip install 'medisecure[pdf]'; HTML needs nothing") from error
