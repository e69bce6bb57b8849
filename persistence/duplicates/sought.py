"""By what a chart is looked for that may be of a person who is about to get one, and by which keys the
database finds it."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from itertools import combinations, permutations
from typing import NamedTuple

from persistence.postgres.folding import fold, sort_key, trigrams, trim_email
from persistence.postgres.latin import latin

BETWEEN_WORDS = re.compile(r"[\s\-'.,;:/()\"]+")
MAX_WORDS = 6  # of a name, the longest
MAX_PARTS = 6  # of a name that is taken apart
MIN_HALVED = 6  # letters of a word that is taken apart, so that each half has a trigram
MAX_ORDERED = 3  # words of a name that is looked for in every order
MIN_DIGITS = 5  # of a phone
LOCAL_DIGITS = 7  # those of a phone that every way of writing it has
MIN_LOCAL_PART = 5  # letters of an e-mail that are looked for without its domain
# How much it says that a chart has all the trigrams of a probe: those of the whole name, e-mail or phone;
# those of a name without one part, and without two. An e-mail or a phone outweighs many who share a name.
CONTACT, WHOLE, BUT_ONE, BUT_TWO = 1000, 100, 5, 1

Parts = list[list[str]]  # of each word


class Sought(NamedTuple):
    """Whom a chart is looked for: None, or empty, where it is not known."""

    name: str
    born: date | None
    email: str
    phone: str

    @property
    def is_nobody(self) -> bool:
        return not (self.name.strip() or self.born or self.email.strip() or self.phone.strip())


class Probe(NamedTuple):
    """Trigrams that a chart has all of, if it is one of the wanted."""

    trigrams: frozenset[int]
    weight: int


def probes_of(sought: Sought) -> list[Probe]:
    """Each set of trigrams once, with its largest weight."""
    found: dict[frozenset[int], int] = {}
    for probe in all_probes(sought):
        found[probe.trigrams] = max(probe.weight, found.get(probe.trigrams, 0))
    return [Probe(trigrams, weight) for trigrams, weight in found.items() if trigrams]


def all_probes(sought: Sought) -> Iterator[Probe]:
    for spelling in spellings(sought.name):
        yield from probes_of_name(spelling)
    yield Probe(trigrams_of([email_key(sought.email)]), CONTACT)
    digits = digits_of(sought.phone)
    if len(digits) >= MIN_DIGITS:
        yield Probe(trigrams_of([digits[-LOCAL_DIGITS:]]), CONTACT)


def spellings(name: str) -> set[str]:
    """As it was typed, and in Latin letters."""
    return {fold(name), latin(name)}


def probes_of_name(name: str) -> Iterator[Probe]:
    """What is left of the name without any one of its parts, and without any two: where a typing error is in
    these, the rest of the name is as it was, in whatever order its words are."""
    parts = parts_of(words_of(name))
    places = [(word, part) for word, those in enumerate(parts) for part in range(len(those))]
    yield Probe(trigrams_of(kept(parts)), WHOLE)
    for number, weight in ((1, BUT_ONE), (2, BUT_TWO)):
        for left_out in combinations(places, number):
            rest = trigrams_of(kept(parts, left_out))
            if len(rest) > 1:  # one alone is in too many names
                yield Probe(rest, weight)


def words_of(name: str) -> list[str]:
    """The longest words of a folded name, in their order."""
    words = [word for word in BETWEEN_WORDS.split(name) if word]
    longest = sorted(words, key=len, reverse=True)[:MAX_WORDS]
    return [word for word in words if word in longest][:MAX_WORDS]


def parts_of(words: list[str]) -> Parts:
    """Words as they are, or their halves if there are few."""
    if len(words) * 2 > MAX_PARTS:
        return [[word] for word in words]
    return [halves(word) if len(word) >= MIN_HALVED else [word] for word in words]


def halves(word: str) -> list[str]:
    middle = len(word) // 2
    return [word[:middle], word[middle:]]


def kept(parts: Parts, left_out: Iterable[tuple[int, int]] = ()) -> Iterator[str]:
    """The words that are whole, and the parts of the others."""
    gone = set(left_out)
    for word, those in enumerate(parts):
        rest = [part for place, part in enumerate(those) if (word, place) not in gone]
        if len(rest) == len(those):
            yield "".join(those)
        else:
            yield from rest


def trigrams_of(texts: Iterable[str]) -> frozenset[int]:
    return frozenset(trigram for text in texts for trigram in trigrams(text))


def whole_names(name: str) -> list[frozenset[int]]:
    """The trigrams of the whole name, in each spelling."""
    found = {trigrams_of(words_of(spelling)) for spelling in spellings(name)}
    return [trigrams for trigrams in found if trigrams]


def parts_alone(name: str) -> list[frozenset[int]]:
    """The trigrams of each part of the name: a chart with another date of birth that looks like the one
    that is looked for has those of one part at least."""
    found = {
        trigrams_of([part])
        for spelling in spellings(name)
        for those in parts_of(words_of(spelling))
        for part in those
    }
    return [trigrams for trigrams in found if trigrams]


def orders_of(name: str) -> list[str]:
    """The name as charts are sorted by it, its words in every order if they are few."""
    key = sort_key(name)
    words = key.split()
    if len(words) > MAX_ORDERED:
        return [key]
    return [" ".join(order) for order in permutations(words)] if words else []


def email_key(email: str) -> str:
    """Without its domain, which many have, where the rest says enough."""
    folded = fold(trim_email(email))
    local, at, _ = folded.rpartition("@")
    return local + at if len(local) >= MIN_LOCAL_PART else folded


def digits_of(phone: str) -> str:
    """Without what a country's own way of writing puts before them."""
    return re.sub("[^0-9]", "", fold(phone)).lstrip("0")


def dates_like(born: date) -> set[date]:
    """The date, and those that a slip of the pen makes of it: another digit, two that changed places, the
    day taken for the month, the day before or after."""
    text = born.isoformat().replace("-", "")
    written = {text[:4] + text[6:] + text[4:6]}
    for place, digit in enumerate(text[1:], 1):  # the millennium is always right
        written |= {text[:place] + other + text[place + 1 :] for other in "0123456789"}
        written.add(text[:place] + text[place + 1 : place + 2] + digit + text[place + 2 :])
    dates = {born}
    for one in written:
        with suppress(ValueError):  # no such day
            dates.add(date(int(one[:4]), int(one[4:6]), int(one[6:])))
    for days in (-1, 1):
        with suppress(OverflowError):  # the first day of the calendar, or the last
            dates.add(born + timedelta(days=days))
    return dates
