"""How text is compared: the same on every server, whatever its locale."""

from unicodedata import normalize

SEPARATOR = "\uffff"  # a noncharacter, which `folded` never yields: no search term matches across two fields


def folded(value: str) -> str:
    """NFC and casefold, so that `É` finds `é` and a decomposed `é` as well."""
    return normalize("NFC", normalize("NFC", value).casefold()).replace(SEPARATOR, "\ufffd")


def sort_key(name: str) -> str:
    return folded(name.strip())


def search_key(*fields: str | None) -> str:
    return SEPARATOR.join(folded(field) for field in fields if field)


def substring_pattern(term: str) -> str:
    """A LIKE pattern that matches `term` literally anywhere; `%`, `_` and `\\` mean themselves."""
    escaped = folded(term).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def trimmed(email: str) -> str:
    """Without the white space around it that forms and people leave there; other blanks are no e-mail's."""
    return email.strip(" \t\r\n")
