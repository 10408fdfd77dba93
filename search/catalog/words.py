"""Text as words: how names and sentences are split before they are stored, and before they are looked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple
from unicodedata import category, normalize

MAX_CHARACTERS, MAX_ASKED = 4_096, 64
"""Of a text that is asked for, and words taken from it: more say nothing new, and each costs a look into the table."""
MAX_WORD = 256
"""Characters of a word that is asked for: of a script without spaces, a whole line is one."""
MIN_PREFIX = 3
"""Letters of a last word from which on longer words are found too: one or two begin too many words."""
ENDINGS = "s|es|x|en|er"
"""Of plurals. With one, a word of fewer than MIN_CUT letters is the same: `cars` is a `car`, and `card` is not."""
MIN_CUT = 5
"""Letters of a word from which on the last may differ, and more may follow: `penguins` finds `penguin`, in any language
whose words change at their end. By figures (docs/relevance.md) as good as stems, which are of one language."""
_WITHOUT = re.compile("[\u00ad\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u064b-\u0652\u0670\u200c\u200d\ufe00-\ufe0f]")
"""Accents, vowel points that are rarely written, and marks that nobody sees. Vowel signs of other scripts stay."""
_BASE = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
"""Letters that Unicode does not take apart, as people type them without their accents."""
_UNSPACED = tuple(
    range(first, last + 1)
    for first, last in (
        (0x0E00, 0x0EFF),  # Thai, Lao
        (0x1000, 0x109F),  # Burmese
        (0x1780, 0x17FF),  # Khmer
        (0x3005, 0x3007),  # Chinese and Japanese, and their kana
        (0x3040, 0x30FF),
        (0x31F0, 0x31FF),
        (0x3400, 0x9FFF),
        (0xAC00, 0xD7A3),  # Korean: particles follow a word without a space
        (0xF900, 0xFAFF),
        (0x20000, 0x3FFFF),
    )
)
_RUN, _PARTS = re.compile("[Aa0]+|c+"), re.compile("A+(?!a)|A?a+|0+")
"""In a text's shape: words, or characters without spaces; and the parts of `redBicycle02`."""


class _Shapes(dict[int, str]):
    """What each character is: `A` upper case, `a` another letter, `0` a digit, `c` of a script without spaces."""

    def __missing__(self, code: int) -> str:
        kind = category(chr(code))
        shape = {"Lu": "A", "Lt": "A"}.get(kind, {"L": "a", "M": "a", "N": "0"}.get(kind[0], " "))
        if shape != " " and any(code in script for script in _UNSPACED):
            shape = "c"
        self[code] = shape
        return shape


_SHAPES = _Shapes()


class Word(NamedTuple):
    """A word in lower case without accents, and the parts of which a name runs it together; () where it has none.

    Of a script without spaces: `whole` has a space after each character, `parts` are pairs of neighbours.
    """

    whole: str
    parts: tuple[str, ...] = ()


def words(text: str) -> Iterator[Word]:
    """The words of a text. `redBicycle_02` has two: `redbicycle` of `red` and `bicycle`, and `02`."""
    if not text.isascii():
        text = normalize("NFC", _WITHOUT.sub("", normalize("NFKD", text)))
    shape = text.translate(_SHAPES)
    for run in _RUN.finditer(shape):
        start, end = run.span()
        if shape[start] == "c":
            pairs = [f"{text[at]} {text[at + 1]}" for at in range(start, end - 1)] if end - start > 2 else ()
            yield Word(" ".join(text[start:end]), tuple(pairs))
        else:
            parts = [_lower(text[slice(*part.span())]) for part in _PARTS.finditer(shape, start, end)]
            yield Word(_lower(text[start:end]), tuple(parts) if len(parts) > 1 else ())


def _lower(word: str) -> str:
    return word.lower() if word.isascii() else word.casefold().translate(_BASE)


def stored(texts: Iterator[str] | list[str]) -> str:
    """Texts as the table of words holds them: words and their parts, each followed by a space."""
    return " ".join(token for text in texts for word in words(text) for token in _tokens(word))


def _tokens(word: Word) -> tuple[str, ...]:
    return (*word.parts, word.whole) if word.parts and " " not in word.whole else (word.whole,)


class Term(NamedTuple):
    """Two expressions of FTS5 for a word, which an image meets wholly, or in part; and whether it has few letters."""

    every: str
    some: str
    small: bool


def asked(text: str) -> list[Term]:
    """What to look for: a term for each word of a text.

    Neighbours are looked for run together, too: `guinea fowl` finds `guineafowl.png`. No character of the text has a
    meaning to FTS5: words are letters and digits in quotes.
    """
    found = [Word(one.whole[:MAX_WORD], one.parts[:MAX_ASKED]) for one in words(text[:MAX_CHARACTERS])]
    found = list(dict.fromkeys(found))[:MAX_ASKED]
    joined = [one.whole + other.whole for one, other in pairwise(found)]
    return [
        _expressions(word, joined[max(0, number - 1) : number + 1], last=number == len(found) - 1)
        for number, word in enumerate(found)
    ]


def shares(text: str, held: Sequence[str]) -> list[float]:
    """How much of a text's words each image has, 0..1, by their letters; those of two, as `of`, only where no word has
    more. A single one may be what is looked for: `the letter d`.

    held: of each image, as `stored` gives it. Words that no image has count half at most of all letters.
    """
    found = list(dict.fromkeys(words(text[:MAX_CHARACTERS])))[:MAX_ASKED]
    joined = [one.whole + other.whole for one, other in pairwise(found)]
    letters = [len(word.whole) for word in found]
    if not all(_is_small(word) for word in found):
        letters = [0 if _is_small(word) and size > 1 else size for word, size in zip(found, letters, strict=True)]
    has = [[0.0] * len(found) for _ in held]
    for number, word in enumerate(found):
        one = word.whole
        begins = f" {one[:-1]}" if one.isalpha() and len(one) >= MIN_CUT else f" {one} "
        wanted = [begins, *(f" {both} " for both in joined[max(0, number - 1) : number + 1])]
        longer = re.compile(rf" {re.escape(one)}(?:{ENDINGS}) ") if MIN_PREFIX <= len(one) < MIN_CUT else None
        for row, texts in enumerate(held):
            spaced = f" {texts} "
            if any(piece in spaced for piece in wanted) or (longer is not None and longer.search(spaced)):
                has[row][number] = letters[number]
            elif word.parts:
                has[row][number] = letters[number] * sum(f" {part}" in spaced for part in word.parts) / len(word.parts)
    known = sum(size for number, size in enumerate(letters) if any(row[number] for row in has))
    whole = max(known, sum(letters) / 2)
    return [sum(row) / whole if whole else 0.0 for row in has]


def _expressions(word: Word, joined: Sequence[str], *, last: bool) -> Term:
    """joined: the word with the one before, and with the one after."""
    one = word.whole
    wholes = [f'"{whole}"' for whole in (one, *(whole for whole in joined if " " not in whole))]
    # Beside the word itself, which counts by its own score too: it comes before longer ones.
    if one.isalpha() and len(one) >= MIN_CUT:
        wholes.append(f'"{one[:-1]}" *')
    elif last and " " not in one and len(one) >= MIN_PREFIX:
        wholes.append(f'"{one}" *')
    parts = [f'"{part}"' for part in word.parts]
    every = [*wholes, f"({' AND '.join(parts)})"] if parts else wholes
    return Term(f"({' OR '.join(every)})", f"({' OR '.join([*wholes, *parts])})", _is_small(word))


def _is_small(word: Word) -> bool:
    """Whether a word is like `a` and `of`: it has few letters, and says little."""
    return len(word.whole) < MIN_PREFIX and word.whole.isalpha() and word.whole.isascii()
