"""What words of names and labels mean: a vector of each, kept in the catalog, and the images that have such words.

Vectors come from a sentence encoder, which this package does not know: whoever has it loaded learns words that are new.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select

from search.catalog.hits import PRESENT
from search.catalog.lookup import Lookup
from search.catalog.schema import meanings
from search.sqlite.store import Store
from search.types import Vector

MAX_LEARNED = 200_000
"""Words whose meanings are kept, of one head: 150 MB. A million names of products have some 100,000."""
LONGEST = 40
"""Letters of a word that means something, at most."""
NEAREST = 8
"""Words, the first, that are looked for before the others among allowed images."""
SKIPPED = frozenset({"avif", "bmp", "gif", "heic", "jpeg", "jpg", "jxl", "png", "svg", "tif", "tiff", "webp"})
"""Ends of file names, which are stored as words."""

_UNLEARNED = """
SELECT term FROM words_known WHERE col IN ('title', 'name') AND term NOT GLOB '*[0-9]*'
    AND length(term) <= :longest
    AND term NOT IN (SELECT value FROM json_each(:skipped))
    AND term NOT IN (SELECT word FROM meanings WHERE head = :head)
GROUP BY term ORDER BY sum(doc) DESC, term LIMIT :most
"""
_HAVING = """
SELECT rowid, title, name FROM words WHERE words MATCH :expression {among} ORDER BY rowid DESC LIMIT :most
"""
_AMONG = "AND +rowid IN (SELECT value FROM json_each(:among))"
_FORGET = "DELETE FROM meanings WHERE word NOT IN (SELECT term FROM words_known)"


class Learned(NamedTuple):
    """The number of the last word that was learned; the words, and what they mean, vectors (n, dim) float32."""

    last: int
    words: tuple[str, ...]
    vectors: Vector


class StoredMeanings(Store):
    """Reads of the meanings in a catalog."""

    def unlearned(self, head: str, most: int) -> list[str]:
        """Words of labels, captions and names of files whose meaning a head's encoder was not asked for, up to `most`,
        the most frequent first. It reads all of the vocabulary: a second of a million images."""
        with self.reading() as connection:
            there = connection.execute(select(func.count()).where(meanings.c.head == head)).scalar_one()
            asking = {
                "head": head,
                "skipped": json.dumps([*SKIPPED]),
                "most": max(0, min(most, MAX_LEARNED - there)),
                "longest": LONGEST,
            }
            return [*connection.exec_driver_sql(_UNLEARNED, asking).scalars()]

    def learned(self, head: str, after: int = 0) -> Learned:
        """The meanings of a head's words with a number greater than `after`."""
        wanted = select(meanings.c.number, meanings.c.word, meanings.c.vector)
        wanted = wanted.where(meanings.c.head == head, meanings.c.number > after).order_by(meanings.c.number)
        with self.reading() as connection:
            rows = connection.execute(wanted).all()
        vectors = np.array([np.frombuffer(row.vector, dtype=np.float16) for row in rows], dtype=np.float32)
        return Learned(rows[-1].number if rows else after, tuple(row.word for row in rows), vectors)

    def having(self, words: Sequence[str], most: int, allowed: NDArray[np.int64] | None) -> dict[int, tuple[str, ...]]:
        """Up to `most` images with any of these words in labels, captions or names of files, those with the first words
        first, by rowid: their own words. Only those of which a file is there.

        allowed: rowids, ascending ((n,) int64), of images that may be found. Raises IndexDamaged, StorageFailed.
        """
        found: dict[int, tuple[str, ...]] = {}
        among = {} if allowed is None else {"among": json.dumps(allowed.tolist())}
        statement = _HAVING.format(among=_AMONG if among else "")
        # Of allowed images all are read for each statement: words share one.
        sought = [[word] for word in words] if allowed is None else [words[:NEAREST], words]
        with self.reading() as connection:
            for some in sought:
                if len(found) >= most or not some:
                    break
                any_of = " OR ".join(f'"{word}"' for word in some)
                asking = {"expression": f"{{title name}} : ({any_of})", "most": most, **among}
                rows = connection.exec_driver_sql(statement, asking).all()
                new = {rowid: _own(title, name) for rowid, title, name in rows if rowid not in found}
                here = {row[0] for row in connection.exec_driver_sql(PRESENT, {"rowids": json.dumps([*new])})}
                found |= {rowid: own for rowid, own in new.items() if rowid in here}
        return found


class MeaningChanges(Lookup):
    """The part of a write transaction that holds meanings."""

    def learn(self, head: str, words: Sequence[str], vectors: Vector) -> None:
        """Keep what words mean by a head's encoder: vectors (n, dim) float32 of unit length."""
        add = insert(meanings).prefix_with("OR IGNORE")
        rows = [
            {"head": head, "word": word, "vector": vector.astype(np.float16).tobytes()}
            for word, vector in zip(words, vectors, strict=True)
        ]
        if rows:
            self._connection.execute(add, rows)

    def unlearn(self, heads: Sequence[str]) -> None:
        """Forget what words mean by other heads than these."""
        self._connection.execute(delete(meanings).where(meanings.c.head.not_in(heads)))

    def forget_unused_words(self) -> None:
        """Forget words that no image has any more."""
        self._connection.exec_driver_sql(_FORGET)


def _own(title: str, name: str) -> tuple[str, ...]:
    """An image's words, each once, without those that are others run together: `red bicycle redbicycle`."""
    tokens = f"{title} {name}".split()
    kept = []
    for number, token in enumerate(tokens):
        joined = False
        whole = ""
        for one in reversed(tokens[max(0, number - 6) : number]):
            whole = one + whole
            if len(whole) >= len(token):
                joined = whole == token and one != token
                break
        if not joined:
            kept.append(token)
    return tuple(dict.fromkeys(kept))
