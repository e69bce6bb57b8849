"""Texts as paper shows them."""

from datetime import date
from unicodedata import category

LINE_BREAKS = "\n\u2028\u2029"


def in_words(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def printable(text: str) -> str:
    """The text without control characters, which no printer shows: a space in place of each, but a line break
    stays one."""
    if text.isprintable():  # nearly all are, and this is told at once
        return text
    return "".join(printed(character) for character in text)


def printed(character: str) -> str:
    if character in LINE_BREAKS:
        return "\n"
    return " " if category(character) in ("Cc", "Cs", "Cn") else character
