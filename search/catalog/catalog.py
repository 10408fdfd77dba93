"""The catalog: an index's only source of truth, and what it can be asked. `transaction` writes, `store` is the file."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, func, select

from search.catalog.conditions import sql_condition
from search.catalog.decisions import NotDuplicates, read_decisions
from search.catalog.feedback import StoredFeedback
from search.catalog.fulltext import StoredWords, create_words, write_words
from search.catalog.hits import ENTRIES, HASHES, HIT_PATHS, IDS, PATH_COUNTS, PRESENT, RECORDS, ROWIDS, Entry, HitFacts
from search.catalog.lookup import KnownLocation, Lookup, known_location
from search.catalog.meanings import StoredMeanings
from search.catalog.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    failures,
    images,
    locations,
    spaces,
    state,
    tables,
    tombstones,
)
from search.catalog.space_changes import Tuned, space_row
from search.catalog.spaces import StoredSpaces, added_rowids, read_spaces
from search.catalog.transaction import Transaction
from search.errors import UnknownImage
from search.filters import Filter
from search.types import Failure, ImageFacts, ImageRecord, Space, absolute

UPLOADS = "uploads"
"""The folder in an index for images added over HTTP."""
NEWEST = 2**62
"""A `seq` that no catalog reaches: asks for the state without any change."""
MIN_RECALL = 0.95
"""Share of the true ten nearest that a generation must find, if no other is set."""
PATH_CHUNK = 4_096
"""Paths read at once."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes after a `seq`: vectors added and still there, images removed, and the newest `seq`.

    `spaces` are those that there are at this `seq`, `default` the name of one of them, `added` the rowids of the images
    that got a vector in each, by its name. `catalog` is this catalog's own name among all catalogs, `generation` the
    one that readers open, `digests` those of the manifests that it published last, by generation; None: of an older
    Lookalike's.
    """

    catalog: str
    seq: int
    generation: str | None
    digests: Mapping[str, str] | None
    spaces: tuple[Space, ...]
    default: str
    added: Mapping[str, NDArray[np.int64]]
    removed: NDArray[np.int64]


class Catalog(StoredSpaces, StoredWords, StoredMeanings, StoredFeedback):
    """One open catalog, and what it can be asked. Safe to use from several threads."""

    application_id = APPLICATION_ID
    schema_version = SCHEMA_VERSION
    commits_sql = "SELECT max(value) FROM state WHERE key = 'commits'"
    count_commit_sql = (
        "INSERT INTO state VALUES ('commits', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value"
    )

    @classmethod
    def create(cls, path: Path, new_spaces: Sequence[Space]) -> Self:
        """Make a new catalog with these spaces, the first of them the default. Raises IndexExists, StorageFailed."""

        def fill(connection: Connection) -> None:
            tables.create_all(connection)
            create_words(connection)
            connection.execute(spaces.insert(), [{**space_row(space), "complete_seq": 0} for space in new_spaces])
            home = str(path.parent.resolve() / UPLOADS)
            values = {"catalog": uuid.uuid4().hex, "seq": 0, "generation": None, "uploads": home}
            values["default_space"] = new_spaces[0].name
            connection.execute(state.insert(), [{"key": key, "value": value} for key, value in values.items()])

        return cls.create_file(path, fill)

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """A write transaction: committed, and on the disk, when the block ends; rolled back if it raises.

        Only in the process that holds the index's lock. Raises StorageFailed, IndexLocked, IndexMoved.
        """
        with self.writing_connection() as connection:
            yield Transaction(connection)
            write_words(connection)

    def counts(self) -> tuple[int, int, int]:
        """How many images, locations and failures there are."""
        with self.reading() as connection:
            return (
                connection.execute(select(func.count()).select_from(images)).scalar_one(),
                connection.execute(select(func.count(locations.c.image))).scalar_one(),
                connection.execute(select(func.count()).select_from(failures)).scalar_one(),
            )

    def largest(self) -> tuple[int, int, int]:
        """The most pixels, the longest side in pixels and the most bytes that an image has; zeros without any."""
        longest = func.max(func.max(images.c.width), func.max(images.c.height))
        most = func.max(images.c.width * images.c.height), longest, func.max(images.c.bytes)
        with self.reading() as connection:
            pixels, side, size = connection.execute(select(*most)).one()
        return int(pixels or 0), int(side or 0), int(size or 0)

    def _state(self, key: str) -> Any:
        with self.reading() as connection:
            return connection.execute(select(state.c.value).where(state.c.key == key)).scalar()

    def min_recall(self) -> float:
        """The share of the true ten nearest that a generation must find."""
        stored = self._state("min_recall")
        return MIN_RECALL if stored is None else float(stored)

    def tuned(self) -> Tuned | None:
        """What tuning changed last, or is about to; None where that was nothing, or it was undone."""
        return None if (stored := self._state("tuned")) is None else Tuned(**stored)

    def uploads(self) -> str | None:
        """The root of images added over HTTP, as it was when the index was last written to; None: of an older one."""
        stored: str | None = self._state("uploads")
        return stored

    def changes(self, since: int, removed_since: int | None = None) -> Changes:
        """Read the changes after the seq `since`, read in one transaction.

        removed_since: another seq for what was removed.
        """
        from_seq = since if removed_since is None else removed_since
        with self.reading() as connection:
            values = dict(connection.execute(select(state.c.key, state.c.value)).all())
            there = read_spaces(connection)
            removed = connection.execute(select(tombstones.c.rowid).where(tombstones.c.seq > from_seq))
            return Changes(
                catalog=values["catalog"],
                seq=values["seq"],
                generation=values["generation"],
                digests=values.get("generations"),
                spaces=there,
                default=values["default_space"],
                added=added_rowids(connection, there, since),
                removed=np.fromiter(removed.scalars(), dtype=np.int64),
            )

    def matching(self, tree: Filter) -> NDArray[np.int64]:
        """The rowids of all images that match a filter, ascending ((n,) int64)."""
        condition = sql_condition(tree)
        with self.reading() as connection:  # as one text: to fetch half a million rows takes three times as long
            listed = connection.execute(select(func.group_concat(images.c.rowid)).where(condition)).scalar()
        return np.sort(np.fromstring(listed or "", dtype=np.int64, sep=","))

    def rowid(self, image_id: str) -> int:
        """The rowid of an image. Raises UnknownImage."""
        with self.reading() as connection:
            found = connection.execute(select(images.c.rowid).where(images.c.id == image_id)).scalar()
        if found is None:
            raise UnknownImage("The index has no image with this id.")
        return int(found)

    @contextmanager
    def lookup(self) -> Iterator[Lookup]:
        """Single facts about images and locations, all from one state of the catalog."""
        with self.reading() as connection:
            yield Lookup(connection)

    def records(self, rowids: Iterable[int]) -> dict[int, ImageRecord]:
        """Everything known of these images, in one read transaction. Unknown rowids are left out."""
        wanted = list(rowids)
        if not wanted:
            return {}
        with self.reading() as connection:
            rows = connection.execute(RECORDS, {"rowids": json.dumps(wanted)}).all()
        return {row.rowid: _record(row) for row in rows}

    def entries(self, rowids: Iterable[int]) -> dict[int, Entry]:
        """Entries of these images for hits, by rowid. Unknown rowids are left out."""
        entries = {}
        rows = self._asked(ENTRIES, rowids=[*rowids])
        # Parsed as one document: a call of the parser takes longer than what it reads here.
        documents = json.loads("[" + ",".join([f"[{row[4]},{row[5]},{row[6]}]" for row in rows]) + "]")
        for (rowid, image_id, width, height, *_), (labels, metadata, places) in zip(rows, documents, strict=True):
            facts = HitFacts(
                id=image_id,
                width=width,
                height=height,
                labels=tuple(labels),
                metadata=metadata,
                paths=tuple([absolute(root, path) for root, path, _ in places]),
                path_count=len(places),
            )
            entries[rowid] = Entry(facts, present=not places or bool(places[0][2]))
        crowded = [rowid for rowid, entry in entries.items() if entry.facts["path_count"] == HIT_PATHS]
        for rowid, count in self._asked(PATH_COUNTS, rowids=crowded):
            entries[rowid].facts["path_count"] = count
        return entries

    def ids(self, rowids: Iterable[int]) -> dict[int, str]:
        """The ids of these images by rowid. Unknown rowids are left out."""
        return dict(self._asked(IDS, rowids=[*rowids]))

    def present(self, rowids: Iterable[int]) -> set[int]:
        """Those of these images of which a file was there when a build last looked, or that never had any."""
        return {rowid for (rowid,) in self._asked(PRESENT, rowids=[*rowids])}

    def hashes(self, rowids: Iterable[int]) -> dict[int, tuple[str, bool, int | None]]:
        """The ids of these images by rowid, whether a file is there, and its phash. Unknown ones are left out."""
        return {
            rowid: (image_id, bool(present), phash)
            for rowid, image_id, present, phash in self._asked(HASHES, rowids=[*rowids])
        }

    def rowids_by_id(self) -> NDArray[np.int64]:
        """The rowids of all images in the order of their ids, (n,) int64."""
        with self.reading() as connection:
            return np.fromiter(connection.execute(select(images.c.rowid).order_by(images.c.id)).scalars(), np.int64)

    def rowids(self, ids: Iterable[str]) -> dict[str, int]:
        """The rowids of those of these ids that are images."""
        return dict(self._asked(ROWIDS, ids=[*ids]))

    def ids_beginning(self, prefix: str, limit: int) -> list[str]:
        """Up to `limit` ids that begin so, ascending. prefix: hexadecimal digits, lower case."""
        with self.reading() as connection:
            here = images.c.id.between(prefix, prefix + "g")  # which no digit comes after
            query = select(images.c.id).where(here).order_by(images.c.id).limit(limit)
            return [*connection.execute(query).scalars()]

    def page(self, after: int, limit: int, *matching: Filter) -> tuple[list[ImageRecord], int | None]:
        """Matching images as they were added: up to `limit` of those after the rowid `after`, and where to go on."""
        with self.reading() as connection:
            query = select(images.c.rowid).where(images.c.rowid > after, *map(sql_condition, matching))
            rowids = list(connection.execute(query.order_by(images.c.rowid).limit(limit + 1)).scalars())
        records = self.records(rowids[:limit])
        more = rowids[limit - 1] if len(rowids) > limit else None
        return [records[rowid] for rowid in rowids[:limit] if rowid in records], more

    def with_copies(self, after: int, limit: int) -> list[int]:
        """The rowids of up to `limit` images of several files after the rowid `after`, ascending."""
        here = select(locations.c.image).where(locations.c.image > after).group_by(locations.c.image)
        with self.reading() as connection:
            query = here.having(func.count() > 1).order_by(locations.c.image).limit(limit)
            return [*connection.execute(query).scalars()]

    def roots(self, *, failed: bool = False) -> list[str]:
        """Every root under which an image was seen; failed: or a file that could not be indexed."""
        queries = [select(table.c.root).distinct() for table in (locations, failures)[: 1 + failed]]
        with self.reading() as connection:
            return sorted({root for query in queries for root in connection.execute(query).scalars()})

    def known(self, root: str, paths: Sequence[str]) -> dict[str, KnownLocation]:
        """Known locations of these paths under a root, by path."""
        with self.reading() as connection:
            query = (
                select(locations, images.c.id.label("image_id"), images.c.labels)
                .outerjoin(images, images.c.rowid == locations.c.image)
                .where(locations.c.root == root, locations.c.path.in_(paths))
            )
            return {row.path: known_location(row) for row in connection.execute(query)}

    def uploaded(self) -> list[tuple[str, str]]:
        """The path below the index's `uploads`, and the image's id, of everything added over HTTP."""
        root = self.uploads() or str(self.path.parent.resolve() / UPLOADS)
        query = select(locations.c.path, images.c.id).join(images, images.c.rowid == locations.c.image)
        with self.reading() as connection:
            return [(row.path, row.id) for row in connection.execute(query.where(locations.c.root == root))]

    def paths_under(self, root: str, prefix: str, *, barred: bool = False) -> Iterator[str]:
        """Every known path under a root that begins with `prefix` and leads to an image, ascending.

        barred: those that lead to what the user removed instead.
        """
        last = ""
        while True:
            with self.reading() as connection:
                query = (
                    select(locations.c.path)
                    .where(locations.c.root == root, locations.c.path > last, locations.c.image.is_(None) == barred)
                    .where(func.substr(locations.c.path, 1, len(prefix)) == prefix)
                    .order_by(locations.c.path)
                    .limit(PATH_CHUNK)
                )
                paths = list(connection.execute(query).scalars())
            if not paths:
                return
            yield from paths
            last = paths[-1]

    def decisions(self, ids: Iterable[str] | None = None) -> list[NotDuplicates]:
        """Pairs of images that are not duplicates, the oldest decision first; also of images that were removed.

        ids: only pairs that name one of these images.
        """
        with self.reading() as connection:
            return read_decisions(connection, ids)

    def failures(self, root: str | None = None, paths: Sequence[str] | None = None) -> list[Failure]:
        """Files that could not be indexed, by path: all, those under a root, or those of these paths."""
        query = select(failures).order_by(failures.c.root, failures.c.path)
        if root is not None:
            query = query.where(failures.c.root == root)
        if paths is not None:
            query = query.where(failures.c.path.in_(paths))
        with self.reading() as connection:
            return [
                Failure(root=row.root, path=row.path, mtime_ns=row.mtime_ns, size=row.size, reason=row.reason)
                for row in connection.execute(query)
            ]


def _paths(places: str) -> tuple[str, ...]:
    return tuple(absolute(root, path) for root, path, _ in json.loads(places))


def _record(row: Row[Any]) -> ImageRecord:
    return ImageRecord(
        id=row.id,
        facts=ImageFacts(
            width=row.width,
            height=row.height,
            format=row.format,
            bytes=row.bytes,
            taken_at=row.taken_at,
            camera=row.camera,
            gps=None if row.latitude is None else (row.latitude, row.longitude),
            phash=row.phash,
        ),
        paths=_paths(row.places),
        path_count=row.path_count,
        missing=not row.present,
        labels=tuple(row.labels),
        metadata=row._mapping["metadata"],
    )
