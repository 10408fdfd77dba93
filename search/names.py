"""Names as people type them, beside names as file systems and cameras write them."""

from __future__ import annotations

from unicodedata import is_normalized, normalize


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS gives decomposed file names, keyboards composed ones."""
    return name if name.isascii() or is_normalized("NFC", name) else normalize("NFC", name)


def folded(name: str) -> str:
    """A name without regard to case and composition, for comparing (Unicode's canonical caseless matching)."""
    return name.lower() if name.isascii() else normalize("NFC", normalize("NFD", name).casefold())
