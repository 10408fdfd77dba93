"""Names as people type them and as terminals show them, beside names as file systems and cameras write them."""

from __future__ import annotations

import re
from unicodedata import is_normalized, normalize


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS gives decomposed file names, keyboards composed ones."""
    return name if name.isascii() or is_normalized("NFC", name) else normalize("NFC", name)


def is_text(name: str) -> bool:
    """Whether a name is valid Unicode: one of bytes that are not UTF-8 holds lone surrogates."""
    return name.isascii() or not any("\ud800" <= character <= "\udfff" for character in name)


def folded(name: str) -> str:
    """A name without regard to case and composition, for comparing (Unicode's canonical caseless matching)."""
    return name.lower() if name.isascii() else normalize("NFC", normalize("NFD", name).casefold())


UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls that a terminal obeys, line ends, marks that turn the direction of what follows, and lone surrogates."""


def escaped(name: str) -> str:
    """A name on one line that no terminal obeys: `\\x1b`, `\\n`, `\\u202e`. Not for programs."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), name)
