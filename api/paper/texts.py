"""Texts as paper shows them."""

from datetime import date
from unicodedata import category

LINE_BREAKS = "\n\u2028\u2029"
MAY_BREAK = "\u00ad\u200b\u2060\ufeff"  # what only says where a line may break, or may not


def in_words(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B %Y}"


def printable(text: str) -> str:
    """The text without control characters, which no printer shows: a space in place of each, but a line break
    stays one. Nor with what says where a word may break: in the text of a PDF it would part the letters."""
    if text.isprintable():  # nearly all are, and this is told at once
        return text
    return "".join(printed(character) for character in text)


def printed(character: str) -> str:
    if character in LINE_BREAKS:
        return "\n"
    if character in MAY_BREAK:
        return ""
    return " " if category(character) in ("Cc", "Cs", "Cn") else character
