"""The words that the catalog knows of each image, in an FTS5 table of their own: kept in step, and searched.

Triggers of plain SQL note which images a change concerns, whoever makes it. Before a transaction ends, the words of
these images are written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from search.catalog.hits import PRESENT
from search.catalog.lookup import Lookup
from search.catalog.words import MAX_ASKED, asked, shares, stored
from search.errors import IndexDamaged
from search.sqlite.store import Store
from search.types import JsonObject

COLUMNS = ("title", "name", "other")
"""Labels and what metadata says an image shows; names of files; names of folders, and the rest of the metadata."""
WEIGHTS = (10.0, 5.0, 1.0)
"""Of the columns, in BM25."""
TITLE_KEYS = frozenset({"alt", "caption", "description", "headline", "keywords", "subject", "tags", "title"})
"""Keys of metadata, in any case, that say what an image shows."""
MAX_PATHS = 1_000
"""Files of one image whose names are stored, the first seen first: one placeholder may lie in thousands of folders."""
CHUNK = 500
"""Images whose words are held in memory at once."""
MAX_RANKED = 10_000
"""Images that meet a query and are ranked, the newest: each takes 2 microseconds, and a common word has a million."""
ASKED_SHARE = 50
"""Images of which one is looked for by its own words, to prove the table: some 2 ms of a million images."""
_NEWEST = 2**62
_UPLOADED = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}\..+")
"""Paths of images added over HTTP: a hash is no word."""

_VOCABULARY = "CREATE VIRTUAL TABLE IF NOT EXISTS words_known USING fts5vocab(words, col)"
_TABLE = f"CREATE VIRTUAL TABLE words USING fts5({', '.join(COLUMNS)}, tokenize = 'ascii')"
# Not OR IGNORE: what the statement says of conflicts counts in its triggers.
_NOTE = """
INSERT INTO words_due (image) SELECT {0} WHERE {0} IS NOT NULL AND {0} NOT IN (SELECT image FROM words_due);
"""
_TRIGGERS = (
    ("image_added", "AFTER INSERT ON images", "new.rowid"),
    ("image_changed", "AFTER UPDATE OF labels, metadata ON images", "new.rowid"),
    ("image_removed", "AFTER DELETE ON images", "old.rowid"),
    ("location_added", "AFTER INSERT ON locations", "new.image"),
    (
        "location_changed",
        "AFTER UPDATE OF image, path ON locations WHEN new.image IS NOT old.image OR new.path IS NOT old.path",
        "old.image",
        "new.image",
    ),
    ("location_removed", "AFTER DELETE ON locations", "old.image"),
)
_FACTS = f"""
SELECT chosen.image, images.labels, images.metadata, (
    SELECT json_group_array(path) FROM (
        SELECT path FROM locations WHERE locations.image = chosen.image ORDER BY location LIMIT {MAX_PATHS}
    )
) FROM ({{chosen}}) AS chosen LEFT JOIN images ON images.rowid = chosen.image ORDER BY chosen.image
"""
_DUE = _FACTS.format(chosen=f"SELECT image FROM words_due ORDER BY image LIMIT {CHUNK}")
_PAGE = _FACTS.format(chosen=f"SELECT rowid AS image FROM images WHERE rowid > :after ORDER BY rowid LIMIT {CHUNK}")
_WRITE = f"REPLACE INTO words (rowid, {', '.join(COLUMNS)}) VALUES (?, ?, ?, ?)"
_HELD = f"SELECT rowid, {', '.join(COLUMNS)} FROM words WHERE rowid > ? AND rowid <= ?"
_TEXTS = f"SELECT rowid, {', '.join(COLUMNS)} FROM words WHERE rowid IN (SELECT value FROM json_each(?))"
_FINDS = "SELECT count(*) FROM words WHERE words MATCH ? AND rowid = ?"
_COUNT = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {MAX_RANKED + 1})"
_RANKED = f"""
SELECT rowid, score FROM (
    SELECT rowid, -bm25(words, {", ".join(map(str, WEIGHTS))}) AS score FROM words
    WHERE words MATCH :expression AND rowid < :before ORDER BY rowid DESC LIMIT :most
) ORDER BY score DESC, rowid
"""
# `+`: not one look into the table for each allowed image, of which each takes as long as the whole search.
_AMONG = "AND +rowid IN (SELECT value FROM json_each(:among))"
_RANKED_AMONG = _RANKED.replace("AND rowid < :before", f"AND rowid < :before {_AMONG}")


def create_words(connection: Connection) -> None:
    """Make the table of words, and the triggers that say which images it has to be told of."""
    connection.exec_driver_sql(_TABLE)
    create_vocabulary(connection)
    for name, when, *concerned in _TRIGGERS:
        notes = " ".join(_NOTE.format(column) for column in concerned)
        connection.exec_driver_sql(f"CREATE TRIGGER words_{name} {when} BEGIN {notes} END")


def create_vocabulary(connection: Connection) -> None:
    """Make the table that says which words there are, where there is none."""
    connection.exec_driver_sql(_VOCABULARY)


def write_words(connection: Connection) -> None:
    """Write the words of all images that changed since they were last written. In the transaction of the change."""
    while rows := connection.exec_driver_sql(_DUE).all():
        gone = [(row[0],) for row in rows if row[1] is None]
        here = [(row[0], *_document(row)) for row in rows if row[1] is not None]
        if gone:
            connection.exec_driver_sql("DELETE FROM words WHERE rowid = ?", gone)
        if here:
            connection.exec_driver_sql(_WRITE, here)
        connection.exec_driver_sql("DELETE FROM words_due WHERE image <= ?", (rows[-1][0],))


def write_all_words(connection: Connection) -> None:
    """Write the table of words from scratch: words of what was removed stay in its segments otherwise."""
    connection.exec_driver_sql("DROP TABLE words")
    connection.exec_driver_sql(_TABLE)
    connection.exec_driver_sql("DELETE FROM words_due")
    connection.exec_driver_sql("INSERT INTO words_due SELECT rowid FROM images")
    write_words(connection)


def _document(row: Sequence[Any]) -> tuple[str, str, str]:
    """A row of `_FACTS` as the columns of the table of words."""
    labels, metadata, paths = (json.loads(value) for value in row[1:4])
    return document(labels, metadata, paths)


def document(labels: Sequence[str], metadata: JsonObject, paths: Sequence[str]) -> tuple[str, str, str]:
    """What the table of words holds of an image, a column each. paths: below their roots."""
    named = [path.rpartition("/") for path in paths if not _UPLOADED.fullmatch(path)]
    said = {key: [*strings(value)] for key, value in metadata.items()}
    titles = [text for key, texts in said.items() if key.casefold() in TITLE_KEYS for text in texts]
    others = [text for key, texts in said.items() if key.casefold() not in TITLE_KEYS for text in texts]
    folders = dict.fromkeys(part for folder, _, _ in named for part in folder.split("/"))
    return (
        stored([*labels, *titles]),
        stored([*dict.fromkeys(name for _, _, name in named)]),
        stored([*folders, *others]),
    )


def strings(value: Any) -> Iterator[str]:
    """All strings in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


class WordChanges(Lookup):
    """The part of a write transaction that writes words by itself: all other changes leave it to the commit."""

    def rewrite_words(self) -> None:
        """Write the words of all images from scratch: nothing is left of what was removed."""
        write_all_words(self._connection)


class StoredWords(Store):
    """Reads of the words in a catalog."""

    def find_words(self, text: str, limit: int, allowed: NDArray[np.int64] | None = None) -> list[tuple[int, float]]:
        """Up to `limit` images found by the words of a text, as rowids and scores (BM25: the larger, the better).

        Images that have all the words come first, then those that have all but small ones, as `a` and `of`, then those
        that have some; each by score, ties by rowid. Only those are found of which a file is there. allowed: rowids,
        ascending ((n,) int64), of images that may be found. Raises IndexDamaged, StorageFailed.
        """
        try:
            with self.reading() as connection:
                return _found(connection, text, limit, allowed)
        except IndexDamaged as error:
            raise IndexDamaged(
                f"Words cannot be looked up in {self.path} ({error.__cause__}). lookalike verify says what to do."
            ) from error

    def words_shares(self, text: str, rowids: Sequence[int]) -> NDArray[np.float32]:
        """How much of a text's words each image has, 0..1, (n,): see `words.shares`.

        Raises IndexDamaged, StorageFailed.
        """
        held: dict[int, str] = {}
        with self.reading() as connection:
            for start in range(0, len(rowids), CHUNK):
                asking = (json.dumps(rowids[start : start + CHUNK]),)
                held |= {row[0]: " ".join(row[1:]) for row in connection.exec_driver_sql(_TEXTS, asking)}
        return np.array(shares(text, [held.get(rowid, "") for rowid in rowids]), dtype=np.float32)


def _found(connection: Connection, text: str, limit: int, allowed: NDArray[np.int64] | None) -> list[tuple[int, float]]:
    terms = asked(text)
    found: dict[int, float] = {}
    if terms and limit > 0:
        large = [term for term in terms if not term.small] or terms
        for chosen in (terms, large):
            _collect(connection, " AND ".join(term.every for term in chosen), limit, allowed, found)
        if len(found) < limit:
            some = _rarest(connection, [term.some for term in terms])
            _collect(connection, " OR ".join(some), limit, allowed, found)
    return list(found.items())


def _rarest(connection: Connection, terms: Sequence[str]) -> list[str]:
    """Of expressions of FTS5 those that few images meet: so many that MAX_RANKED do together, and one at least."""
    counted = [connection.exec_driver_sql(_COUNT, (term,)).scalar_one() for term in terms]
    chosen: list[str] = []
    total = 0
    for count, number in sorted((count, number) for number, count in enumerate(counted)):
        total += count
        if chosen and total > MAX_RANKED:
            break
        chosen.append(terms[number])
    return chosen


def _collect(
    connection: Connection, expression: str, limit: int, allowed: NDArray[np.int64] | None, found: dict[int, float]
) -> None:
    """Add to `found` the best images that meet an expression of FTS5, until there are `limit`."""
    among = None if allowed is None else json.dumps(allowed.tolist())
    before: int | None = _NEWEST
    while before is not None and len(found) < limit:
        asking = {"expression": expression, "before": before, "most": MAX_RANKED, "among": among}
        rows = connection.exec_driver_sql(_RANKED if among is None else _RANKED_AMONG, asking).all()
        before = min(rowid for rowid, _ in rows) if len(rows) == MAX_RANKED else None
        for start in range(0, len(rows), CHUNK):
            scores = {rowid: score for rowid, score in rows[start : start + CHUNK] if rowid not in found}
            there = {row[0] for row in connection.exec_driver_sql(PRESENT, {"rowids": json.dumps([*scores])})}
            present = [(rowid, score) for rowid, score in scores.items() if rowid in there]
            found.update(present[: limit - len(found)])
            if len(found) >= limit:
                break


def out_of_step(connection: Connection, after: int) -> tuple[int, int | None]:
    """How many of the next CHUNK images after the rowid `after` are found by other words than they should be.

    Returns where to go on too, None after the last. Words of all of them are compared; of one in ASKED_SHARE, all words
    are looked for.
    """
    rows = connection.exec_driver_sql(_PAGE, {"after": after}).all()
    last = rows[-1][0] if rows else None
    held = {rowid: tuple(texts) for rowid, *texts in connection.exec_driver_sql(_HELD, (after, last or _NEWEST))}
    wrong = 0
    for number, row in enumerate(rows):
        try:
            texts = _document(row)
        except ValueError:  # a damaged page, which others tell of
            held.pop(row[0], None)
            wrong += 1
            continue
        if held.pop(row[0], None) != texts:
            wrong += 1
        elif number % ASKED_SHARE == 0:
            own = list(dict.fromkeys(" ".join(texts).split()))[:MAX_ASKED]
            query = " ".join(f'"{word}"' for word in own)
            wrong += bool(own) and not connection.exec_driver_sql(_FINDS, (query, row[0])).scalar_one()
    return wrong + len(held), last
