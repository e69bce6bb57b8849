"""Texts as paper shows them."""

import re
from datetime import date
from unicodedata import category

LINE_BREAKS = "\n\u2028\u2029"
# What has no form of its own: marks of where a line may break and of direction, and how an emoji is drawn.
# Joiners form the letters of many scripts, but none of Latin, Greek or Cyrillic.
WITHOUT_FORM = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufe0e\ufe0f\ufeff\U000e0000-\U000e007f]"
    "|(?<=[\\x00-\u052f\u1e00-\u1fff])[\u200c\u200d]+"
)


def in_words(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def printable(text: str) -> str:
    """The text without control characters, which no printer shows: a space in place of each, but a line break
    stays one. Nor with what has no form: a PDF takes it for a part of the letter before, everywhere."""
    if text.isascii() and text.isprintable():  # this is told at once
        return text
    text = WITHOUT_FORM.sub("", text)
    return text if text.isprintable() else "".join(map(printed, text))


def printed(character: str) -> str:
    if character in LINE_BREAKS:
        return "\n"
    return " " if category(character) in ("Cc", "Cs", "Cn") else character
