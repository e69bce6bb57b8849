"""How much two names are alike, from 0 to 1, in whatever script, spelling and order they are."""

import re
from typing import NamedTuple

from persistence.duplicates.sought import MAX_WORDS
from persistence.postgres.latin import WORD, latin

MIN_WORD, MIN_NAME = 0.8, 0.8  # less is another
INITIAL = 0.8  # of a word and its first letter
AS_SOUNDED = 0.95  # of words that are written in two ways; other words are less alike by as much
LEFT_OVER = 0.25  # what a letter that only one of two names has counts, of one that both have
# What languages write for about the same sound.
SOUNDS = (
    ("sch", "sh"), ("tch", "ch"), ("ph", "f"), ("th", "t"), ("kh", "h"), ("ck", "k"), ("qu", "kv"),
    ("x", "ks"), ("ae", "a"), ("oe", "o"), ("ue", "u"),
)  # fmt: skip
LETTERS = str.maketrans("cjywz", "kiivs")
REPEATED = re.compile(r"(.)\1+")


class Word(NamedTuple):
    """`sounded`: the same of spellings that sound alike."""

    spelled: str
    sounded: str


def words_of(name: str) -> list[Word]:
    """In Latin letters, without apostrophes: `O'Brien` is `Obrien`. The first of them, because the time of a
    comparison grows with their square."""
    spelled = WORD.findall(latin(name).replace("'", ""))[:MAX_WORDS]
    return [Word(word, sounded(word)) for word in spelled]


def sounded(word: str) -> str:
    for written, sound in SOUNDS:
        word = word.replace(written, sound)
    return REPEATED.sub(r"\1", word.translate(LETTERS))


def compare_names(one: list[Word], other: list[Word]) -> float:
    """Word by word, in whatever order; or as one word, where only the blanks differ."""
    from rapidfuzz.distance import OSA  # loaded by who needs it: it takes longer than a request

    together = OSA.normalized_similarity(*("".join(word.spelled for word in name) for name in (one, other)))
    alike = max(compare_words(one, other), together)
    return alike if alike >= MIN_NAME else 0


def compare_words(one: list[Word], other: list[Word]) -> float:
    """Pairs of words, the most alike first, until one name has no more. A letter of a word that is left over
    counts less than one of a pair: a middle name may be there or not."""
    pairs = sorted(
        ((compare_word(a, b), i, j) for i, a in enumerate(one) for j, b in enumerate(other)), reverse=True
    )
    free_here, free_there = set(range(len(one))), set(range(len(other)))
    alike = paired = 0.0
    for similarity, i, j in pairs:
        if i in free_here and j in free_there:
            free_here.remove(i)
            free_there.remove(j)
            letters = len(one[i].spelled) + len(other[j].spelled)
            alike += similarity * letters
            paired += letters
    left_over = [one[i] for i in free_here] + [other[j] for j in free_there]
    whole = paired + LEFT_OVER * sum(len(word.spelled) for word in left_over)
    return alike / whole if whole else 0


def compare_word(one: Word, other: Word) -> float:
    from rapidfuzz.distance import JaroWinkler  # as above

    if min(len(one.spelled), len(other.spelled)) == 1 and one.spelled[0] == other.spelled[0]:
        return 1 if one == other else INITIAL
    similarity = max(
        JaroWinkler.similarity(one.spelled, other.spelled),
        AS_SOUNDED * JaroWinkler.similarity(one.sounded, other.sounded),
    )
    return similarity if similarity >= MIN_WORD else 0
