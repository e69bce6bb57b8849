"""Which characters are alike for persistence/postgres/folding.py."""

import re
from unicodedata import decomposition, lookup, name

APOSTROPHES = (
    "`\u00b4\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\u02ca\u02cb\u2018\u2019\u201b\u2032\u2035\u275b\u275c"
    "\uff07\uff40\ua78b\ua78c\u055a\u05f3\u07f4\u07f5\u0384\u1fbd\u1fbf\u1ffe"
)
DASHES = "\u058a\u05be\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2e3a\u2e3b\u30a0\ufe58\ufe63\uff0d"
# Marks of the alphabets and those that stand on anything: Latin, Greek and Cyrillic, Hebrew points, Arabic
# and Syriac vowels; variation selectors.
RANGES = (
    (0x0300, 0x036F), (0x0483, 0x0489), (0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2),
    (0x05C4, 0x05C5), (0x05C7, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670),
    (0x06D6, 0x06DC), (0x06DF, 0x06E4), (0x06E7, 0x06E8), (0x06EA, 0x06ED), (0x0711, 0x0711),
    (0x0730, 0x074A), (0x08D3, 0x08E1), (0x08E3, 0x08FF), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF), (0x2CEF, 0x2CF1), (0x2DE0, 0x2DFF), (0xA66F, 0xA672), (0xA674, 0xA67D),
    (0xA69E, 0xA69F), (0xFB1E, 0xFB1E), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F), (0xE0100, 0xE01EF),
)  # fmt: skip
ACCENTS = frozenset(chr(code) for first, last in RANGES for code in range(first, last + 1))
# Letters of their own for Unicode, which people without them on the keyboard spell so.
SPELLED = {
    "\u00e6": "ae", "\u0153": "oe", "\u00f0": "d", "\u00fe": "th", "\u014b": "n", "\u0131": "i",
    "\u0237": "j", "\u0138": "k", "\u0259": "e", "\u01dd": "e", "\u025b": "e", "\u0254": "o",
    "\ua733": "aa",
}  # fmt: skip
ALPHABETS = ((0x00C0, 0x024F), (0x0250, 0x02AF), (0x0400, 0x052F), (0x1D00, 0x1DBF), (0x1E00, 0x1EFF),
             (0x2C60, 0x2C7F), (0xA640, 0xA69F), (0xA720, 0xA7FF), (0xAB30, 0xAB6F))  # fmt: skip
SMALL = re.compile(r"(?:LATIN|CYRILLIC) SMALL LETTER \w+( \w+)?")


def stroked(code: int) -> str | None:
    """What a letter with a stroke, hook or tail, which Unicode does not decompose, is without it: its name
    says so."""
    base, found, _ = name(chr(code), "").partition(" WITH ")
    if not found or not SMALL.fullmatch(base) or decomposition(chr(code)):
        return None
    try:
        return lookup(base)
    except KeyError:
        return None


STROKED = {
    chr(code): letter
    for first, last in ALPHABETS
    for code in range(first, last + 1)
    if (letter := stroked(code)) is not None
}
ALIKE = str.maketrans(
    {
        **STROKED,
        **SPELLED,
        **dict.fromkeys(APOSTROPHES, "'"),
        **dict.fromkeys(DASHES, "-"),
        "\uffff": "\ufffd",
    }
)
