"""Names in Latin letters, so that one that was written in another script is found by them, and the other way
round."""

import re

from persistence.postgres.folding import MAX_KEY_LENGTH, fold, trigrams

NEXT_SYLLABLE = re.compile(r"(?<=[a-z])(?=[A-Z])")  # of what has no blanks between them: `WangWei`
SOFT_SIGNS = re.compile(r"['`]")  # `Natal'ya`, which nobody writes
WORD = re.compile(r"[a-z0-9]+")


def latin(name: str) -> str:
    """The name without case and accents, in the letters a to z as far as a table of Unicode can say it."""
    folded = fold(name)
    if folded.isascii():
        return folded
    from anyascii import anyascii  # loaded by who needs it: few clinics have names in other scripts

    spelled = NEXT_SYLLABLE.sub(" ", SOFT_SIGNS.sub("", anyascii(folded)))
    return spelled.lower()[:MAX_KEY_LENGTH]


def latin_trigrams(name: str) -> list[int] | None:
    """Of each word of the name in Latin letters; None where `search_text` has them already."""
    if fold(name).isascii():
        return None
    return sorted({trigram for word in WORD.findall(latin(name)) for trigram in trigrams(word)})
