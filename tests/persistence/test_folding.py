"""How names are fold (contract, "Paging and search"): all spellings of a text alike, tried on all of
Unicode."""

from collections.abc import Callable
from unicodedata import category, combining, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.postgres.folding import FORMAT_MARK, GAPS, fold, search_key, search_words, sort_key
from persistence.postgres.folding_tables import APOSTROPHES

BLOCK = 512


def nfc(text: str) -> str:
    return normalize("NFC", text)


def nfd(text: str) -> str:
    return normalize("NFD", text)


def is_made(one: str) -> bool:
    """Of others, but for the syllables of Hangul, which are 11,172 of a kind."""
    return normalize("NFKD", one) != one and not "\uac00" < one <= "\ud7a3"


SPELLINGS: list[Callable[[str], str]] = [
    str.upper, str.lower, str.title, str.casefold, nfd,
    lambda text: nfd(text).upper(), lambda text: nfd(text).lower(),
    lambda text: nfc(nfc(text).upper()), lambda text: nfd(nfc(text).upper()).lower(),
]  # fmt: skip

CHANGING = [
    one
    for one in map(chr, range(0x110000))
    if one.lower() != one or one.upper() != one or combining(one) or category(one)[0] == "M" or is_made(one)
]


def require_alike(texts: list[str]) -> None:
    together = "\n".join(texts)
    expected = fold(together)
    assert fold(expected) == expected
    for spelling in SPELLINGS:
        spelled = spelling(together)
        if spelled != together and fold(spelled) != expected:
            assert [text for text in texts if fold(spelling(text)) != fold(text)] == []


@pytest.mark.slow
def test_every_character_is_folded_alike_in_all_its_spellings() -> None:
    for first in range(0, 0x110000, BLOCK):
        require_alike([nfc(chr(code)) for code in range(first, first + BLOCK)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "context", ["a{}", "{}\u0301", "\u03b1{}\u0345", "i{}\u0307", "\u1fb3{}", "\u304b{}", "\u0391\u03a3{}"]
)
def test_characters_that_folding_changes_fold_alike_beside_others(context: str) -> None:
    assert len(CHANGING) > 10_000
    for first in range(0, len(CHANGING), BLOCK):
        require_alike([nfc(context.format(one)) for one in CHANGING[first : first + BLOCK]])


@given(st.text())
def test_every_text_is_folded_alike_in_all_its_spellings(text: str) -> None:
    text = nfc(text)
    for spelling in SPELLINGS:
        assert fold(spelling(text)) == fold(text)
    assert fold(fold(text)) == fold(text)
    assert FORMAT_MARK not in fold(text)


@pytest.mark.parametrize(
    ("alike", "plain"),
    [
        (["\u00c9mile", "e\u0301MILE", "\uff25mile"], "emile"),
        (["\u0141ukasz", "\u0142ukasz", "LUKASZ"], "lukasz"),
        (["I\u015eIK", "\u0131\u015f\u0131k", "isik", "\u0130\u015f\u0130k"], "isik"),
        (["Stra\u00dfe", "STRA\u1e9eE", "STRASSE"], "strasse"),
        (["\u00d8rsted", "\u00f8rsted"], "orsted"),
        (["\u00c6gir \u0152uvre", "aegir oeuvre"], "aegir oeuvre"),
        (["\u00de\u00f3r\u00f0ur", "th\u00f3rdur"], "thordur"),
        (["\u0110or\u0111e \u0126a\u0127", "dorde hah"], "dorde hah"),
        (["\u03a3\u03a6\u039f\u03a3", "\u03c3\u03c6\u03cc\u03c2"], "\u03c3\u03c6\u03bf\u03c3"),
        (["\u1fb3", "\u0391\u0399", "\u03b1\u0345"], "\u03b1\u03b9"),
        (["\u0401\u043b\u043a\u0430", "\u0435\u043b\u043a\u0430"], "\u0435\u043b\u043a\u0430"),
        (["\u01c5emal", "\u01c4EMAL", "D\u017demal"], "dzemal"),
        (["\u0149", "'n"], "'n"),
        (["\u0661\u0662\u0663", "\uff11\uff12\uff13"], "123"),
        (["\u0645\u064f\u062d\u0645\u0651\u062f", "\u0645\u062d\u0645\u062f"], "\u0645\u062d\u0645\u062f"),
        (["a\u2010b", "a\u2013b", "a-b"], "a-b"),
        (["ma\u00adry", "ma\u200bry"], "mary"),
        ([f"o{apostrophe}brien" for apostrophe in APOSTROPHES], "o'brien"),
    ],
)  # fmt: skip
def test_spellings_that_people_take_for_the_same_fold_alike(alike: list[str], plain: str) -> None:
    assert {fold(text) for text in alike} == {plain}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u304b", "\u304c"),  # ka and ga
        ("\u0915", "\u0915\u093f"),  # ka and ki in Devanagari
        ("\u0e01", "\u0e01\u0e34"),  # the same in Thai
        ("\uac00", "\uac01"),
        ("a", "\u0430"),  # Latin and Cyrillic
        ("u", "ue"),
    ],
)
def test_marks_that_make_another_letter_are_kept(one: str, other: str) -> None:
    """Marks that make another letter."""
    assert fold(one) != fold(other)


def test_half_width_kana_are_the_full_ones() -> None:
    assert fold("\uff76\uff9e") == fold("\u304c".replace("\u304c", "\u30ac")) == "\u30ac"


@given(st.text(), st.text(), st.text())
def test_a_part_of_a_field_is_found(before: str, word: str, after: str) -> None:
    """Whatever the words of a search are: each stands in what is searched, where the search is one of the
    fields, and none reaches over two of them."""
    stored = search_key(before, word, after)
    assert all(found in stored for found in search_words(word))
    assert all(" " not in found and FORMAT_MARK not in found for found in search_words(word))


def test_a_search_is_split_into_folded_words() -> None:
    assert search_words("  Zola,\u3000\u00c9mile  zol ") == ["emile", "zola"]
    assert search_words("(555) 123-4567") == ["1234567", "555"]
    assert search_words("+1.5 a-1 +") == ["+15", "a-1"]
    assert search_words(", \u200b") == []
    assert search_key("Ann", None, "", "+1 (2) 3").split(" ", 1)[1] == "ann +1 (2) 3 +123"
    assert GAPS.sub("", "a 1 - 2 b") == "a 12 b"


def test_a_key_fits_into_an_index() -> None:
    """U+FDFA alone is 18 characters when it is spelled out."""
    assert len(sort_key("\ufdfa" * 255).encode()) < 2600
