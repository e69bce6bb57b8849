"""PDF by Typst: it shapes every script, breaks tables across pages, and needs nothing but fonts."""

import importlib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct

# In this order, of those that are there; the last one comes with Typst. For what they lack any other font of
# the machine is taken.
FAMILIES = ("DejaVu Sans", "Noto Sans", "Libertinus Serif")
# PDF/A, which an archive wants, has no place for a character that no font can show: Typst then refuses.
STANDARD = "a-2u"


def typeset(template: bytes, sheet: Struct, **inputs: str) -> tuple[bytes, bool]:
    """The PDF, and whether each character could be shown. `sheet`: what the template shows; it goes in as
    data, never as markup. Takes a tenth of a second and more, and seconds where fonts are read for the first
    time, without holding up other threads."""
    typst, fonts = load()
    sources = {"main": template, "text.typ": files(__package__).joinpath("text.typ").read_bytes()}
    known = set(fonts.families())
    given = {
        "sheet": msgspec.json.encode(sheet).decode(),
        "families": msgspec.json.encode([name for name in FAMILIES if name in known]).decode(),
        **inputs,
    }
    try:
        pdf = typst.compile(sources, font_paths=fonts, sys_inputs=given, pdf_standards=STANDARD)
    except typst.TypstError:
        return typst.compile(sources, font_paths=fonts, sys_inputs=given), False
    return pdf, True


@cache
def load() -> tuple[Any, Any]:  # a module, and an object of it
    """Typst, and the fonts of this machine. At first use: serving takes none of it until somebody prints."""
    typst = importlib.import_module("typst")
    return typst, typst.Fonts()
