"""How names, e-mails and phones are compared: the same on every server, whatever its locale.

What is stored and what is searched for go through `fold`, so it must yield the same for every spelling of a
text: upper case, lower case, NFC and NFD (tests/persistence/test_folding.py tries all of Unicode).
"""

import re
from typing import TypedDict
from unicodedata import category, combining, decimal, normalize

from persistence.postgres.folding_tables import ACCENTS, ALIKE

# Before what this release stores; what an older one stores begins otherwise, and is folded otherwise too.
# A noncharacter, which `fold` never yields.
FORMAT_MARK = "\uffff"
SEPARATORS = re.compile(r"[\s,\u060c\u3001]+")  # white space and commas, the Arabic and the ideographic too
# What people write between the digits of a phone number. Dashes of every kind are `-` once folded.
BETWEEN = r"[\s./()\[\]{}-]"
GAPS = re.compile(rf"(?<=[0-9+]){BETWEEN}+(?=[0-9+])")
NUMBER = re.compile(rf"(?:{BETWEEN}|\+)*[0-9](?:{BETWEEN}|[0-9+])*")
MAX_KEY_LENGTH = 600  # characters, of 4 bytes at most: an index entry has 2,704


def fold(value: str) -> str:
    """Without case, accents, width and the kinds of apostrophes, dashes and blanks; letters that Unicode does
    not decompose in their plain spelling."""
    if value.isascii():
        return value.lower().replace("`", "'")
    before = ""
    while before != value:
        before, value = value, fold_once(value)
    return value


def fold_once(value: str) -> str:
    alike = normalize("NFC", value).translate(ALIKE)
    spelled = normalize("NFKD", alike).casefold().translate(ALIKE)
    return normalize("NFC", without_accents(normalize("NFKD", spelled)))


def without_accents(decomposed: str) -> str:
    """An accent is a mark of the alphabets; a vowel of Devanagari or the voicing of a kana stays: it makes
    another letter. But none stays on a letter that has case: where an iota below (U+0345) stands among
    several marks depends on the normal form, and in upper case it is a letter."""
    kept: list[str] = []
    has_case = False
    for character in decomposed:
        kind = category(character)
        if combining(character) or kind in ("Mn", "Me"):
            if has_case or character in ACCENTS:
                continue
        elif kind == "Cf":  # nobody sees it
            continue
        elif kind == "Nd":
            character = str(decimal(character))
            has_case = False
        else:
            has_case = character != character.upper()
        kept.append(character)
    return "".join(kept)


def sort_key(name: str) -> str:
    return " ".join(fold(name).split())[:MAX_KEY_LENGTH]


def search_key(*fields: str | None) -> str:
    """What words are looked for in: the fields, and those again, without the gaps, in which digits have any.
    A blank keeps them apart, which no word contains."""
    given = [field for field in fields if field]
    texts = [" ".join(fold(field).split()) for field in given]
    texts += [whole for text in texts if (whole := GAPS.sub("", text)) != text]
    # Instances of the release before 0010, until all are replaced, look for NFC and casefold. No word of ours
    # is found in that which is not in `texts` too.
    older = [normalize("NFC", normalize("NFC", field).casefold()) for field in given]
    together = " ".join(texts)
    return " ".join(
        [FORMAT_MARK, *texts, *(text.replace(FORMAT_MARK, "") for text in older if text not in together)]
    )


class Keys(TypedDict):
    """The columns by which a chart or an account is found and sorted."""

    sort_name: str
    search_text: str


def keys_of(name: str, email: str, phone: str | None) -> Keys:
    return Keys(sort_name=sort_key(name), search_text=search_key(name, email, phone))


def search_words(search: str) -> list[str]:
    """The words of a search as `search_key` has them, the longest first, without those that are part of
    another. A word of digits loses what is between them: `(555)` is in `555 123` as it is in `(555)`."""
    words: list[str] = []
    for word in sorted(map(without_gaps, SEPARATORS.split(fold(search))), key=len, reverse=True):
        if not any(word in longer for longer in words):
            words.append(word)
    return [word for word in words if word]


def without_gaps(word: str) -> str:
    return re.sub(BETWEEN, "", word) if NUMBER.fullmatch(word) else word


def substring_pattern(word: str) -> str:
    """A LIKE pattern that matches `word` literally anywhere; `%`, `_` and `\\` mean themselves."""
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def trigrams(word: str) -> list[int]:
    """Every three characters in a row, numbered as the trigger of migration 0010 does it."""
    codes = [ord(character) for character in word]
    return [to_int32(a << 20 ^ b << 10 ^ c) for a, b, c in zip(codes, codes[1:], codes[2:], strict=False)]


def to_int32(number: int) -> int:
    """The low 32 bits, as PostgreSQL's integer has them."""
    low = number & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


def trim_email(email: str) -> str:
    """Without the white space around it that forms and people leave there; other blanks are no e-mail's."""
    return email.strip(" \t\r\n")
