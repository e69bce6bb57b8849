"""How much a chart is like the one that is looked for, from 0 to 1."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from persistence.duplicates.names import compare_names, words_of
from persistence.duplicates.sought import LOCAL_DIGITS, MIN_DIGITS, Sought, dates_like, digits_of
from persistence.patients import SummaryRow
from persistence.postgres.folding import fold, trim_email

MIN_EMAIL = 0.9  # less is another
SLIP_OF_THE_PEN = 0.8  # of a date
OTHER_DOMAIN, SAME_LOCAL_DIGITS = 0.5, 0.7
MIN_LOCAL_PART = 6  # letters of an e-mail that say something without its domain
MIN_SCORE = 0.2


class MatchedField(StrEnum):
    NAME = "name"
    DATE_OF_BIRTH = "dateOfBirth"
    EMAIL = "email"
    PHONE = "phone"


# What a field that is alike counts, and one that is not: people move and change their number, but rarely
# their name, and never their birthday.
ALIKE = {
    MatchedField.NAME: 5.0,
    MatchedField.DATE_OF_BIRTH: 3.0,
    MatchedField.EMAIL: 3.0,
    MatchedField.PHONE: 3.0,
}
UNLIKE = {**ALIKE, MatchedField.EMAIL: 0.5, MatchedField.PHONE: 0.5}


class Likeness(NamedTuple):
    row: SummaryRow
    score: float
    matched: list[MatchedField]


class Comparison:
    """Compares charts with what is looked for, which is prepared once."""

    def __init__(self, sought: Sought) -> None:
        self.words = words_of(sought.name)
        self.born = sought.born
        self.dates = dates_like(sought.born) if sought.born else set()
        self.email = fold(trim_email(sought.email))
        self.phone = digits_of(sought.phone)

    def with_chart(self, row: SummaryRow) -> Likeness | None:
        """None where they are not alike. A birthday speaks only for somebody with such a name, or if nothing
        else was asked for: in a large clinic several people share it."""
        found = {field: alike for field, alike in self.fields_of(row).items() if alike is not None}
        matched = [field for field, alike in found.items() if alike]
        if matched == [MatchedField.DATE_OF_BIRTH] and len(found) > 1:
            return None
        most = sum(ALIKE[field] if alike else UNLIKE[field] for field, alike in found.items())
        score = sum(ALIKE[field] * alike for field, alike in found.items()) / most if most else 0
        return Likeness(row, round(score, 2), matched) if score >= MIN_SCORE else None

    def fields_of(self, row: SummaryRow) -> dict[MatchedField, float | None]:
        """How alike each of them is; None where nothing was asked for."""
        return {
            MatchedField.NAME: compare_names(self.words, words_of(row.name)) if self.words else None,
            MatchedField.DATE_OF_BIRTH: self.compare_dates(row) if self.born else None,
            MatchedField.EMAIL: compare_emails(self.email, fold(row.email)) if self.email else None,
            MatchedField.PHONE: compare_phones(self.phone, digits_of(row.phone)) if self.phone else None,
        }

    def compare_dates(self, row: SummaryRow) -> float:
        if row.date_of_birth == self.born:
            return 1
        return SLIP_OF_THE_PEN if row.date_of_birth in self.dates else 0


def most_alike(sought: Sought, rows: Sequence[SummaryRow], limit: int) -> list[Likeness]:
    """The best first; equals by name, then id."""
    comparison = Comparison(sought)
    found = [likeness for row in rows if (likeness := comparison.with_chart(row))]
    return sorted(found, key=lambda one: (-one.score, one.row.name, one.row.id))[:limit]


def compare_emails(one: str, other: str) -> float:
    from rapidfuzz.distance import OSA  # loaded by who needs it: it takes longer than a request

    alike = OSA.normalized_similarity(one, other)
    if alike >= MIN_EMAIL:
        return alike
    local, _, _ = one.rpartition("@")
    return OTHER_DOMAIN if len(local) >= MIN_LOCAL_PART and other.startswith(f"{local}@") else 0


def compare_phones(one: str, other: str) -> float:
    """Equal but for the country's code, or the area's."""
    shorter, longer = sorted((one, other), key=len)
    if len(shorter) >= MIN_DIGITS and longer.endswith(shorter):
        return 1
    local = shorter[-LOCAL_DIGITS:]
    return SAME_LOCAL_DIGITS if len(local) == LOCAL_DIGITS and longer.endswith(local) else 0
