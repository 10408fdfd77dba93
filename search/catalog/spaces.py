"""The spaces of a catalog, and the embeddings in them: which there are, and what each got when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, exists, false, func, or_, select

from search.calibration import Calibration
from search.catalog.hits import STORED, WITH_INDEX, Stored
from search.catalog.schema import embeddings, images, spaces, state
from search.errors import IndexDamaged
from search.recipe import Recipe, TransformSpec
from search.sqlite.store import Store
from search.types import Encoding, Space, SpaceInfo, Vector
from search.vectors import from_blobs, intact, vector_ids

CHUNK = 500
"""Values in one SQL `IN`: large enough to hide the round trip, far below SQLite's limit of 32,766."""
CALIBRATIONS = "calibrations"
"""The key in `state` of a list: of each calibrated space its name, `added_seq` and `calibration`."""
VECTOR_CHUNK = 4_096
"""Embeddings read at once while a generation is built: 6 MB of 384-d vectors."""


SpaceIdentity = tuple[str, int | None]
"""As `Space.identity`."""
Calibrations = Mapping[SpaceIdentity, Calibration]


class Spaces(NamedTuple):
    """The spaces that there are, in the order in which they were added, and the name of the default."""

    there: tuple[Space, ...]
    default: str

    @property
    def of_default(self) -> Space:
        """The default space."""
        return next(space for space in self.there if space.name == self.default)


class StoredSpaces(Store):
    """Reads of a catalog's spaces."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        super().__init__(path, writable=writable)
        self._spaces: tuple[int, Spaces] | None = None
        """The spaces at a version of the catalog."""
        self._calibrations: tuple[int, Calibrations] | None = None

    def spaces(self) -> Spaces:
        """All spaces, in the order in which they were added. Costs microseconds where nothing has changed."""
        version = self.version()
        if self._spaces is None or self._spaces[0] != version:
            with self.reading() as connection:
                self._spaces = version, Spaces(read_spaces(connection), read_default(connection))
        return self._spaces[1]

    def calibrations(self) -> Calibrations:
        """Those of spaces that have one. Costs microseconds where nothing has changed."""
        version = self.version()
        if self._calibrations is None or self._calibrations[0] != version:
            with self.reading() as connection:
                self._calibrations = version, read_calibrations(connection)
        return self._calibrations[1]

    def space_infos(self) -> tuple[SpaceInfo, ...]:
        """All spaces with the number of images each holds."""
        with self.reading() as connection:
            total = connection.execute(select(func.count()).select_from(images)).scalar_one()
            missing = dict(connection.execute(select(spaces.c.name, spaces.c.missing)).all())
            default = read_default(connection)
            return tuple(
                SpaceInfo(space=space, count=total - missing[space.name], images=total, default=space.name == default)
                for space in read_spaces(connection)
            )

    def dropped(self) -> list[int]:
        """The numbers of dropped spaces of which vectors may be left."""
        with self.reading() as connection:
            return list(connection.execute(select(spaces.c.space).where(spaces.c.dropped == 1)).scalars())

    def vectors(self, space: Space, rowids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Embeddings of these images in one space: the rowids found, ascending, and their vectors (n, dim) float32.

        Raises IndexDamaged where a vector's checksum is wrong.
        """
        found: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
        vectors: list[NDArray[np.float32]] = [np.empty((0, space.recipe.dim), dtype=np.float32)]
        with self.reading() as connection:
            for chunk in chunks(np.sort(rowids), CHUNK):
                here = embeddings.c.image_rowid.in_(chunk.tolist())
                rows = connection.execute(_embeddings_of(space).where(here).order_by(embeddings.c.image_rowid))
                ids, block = self._checked(rows.all(), space)
                found.append(ids)
                vectors.append(block)
        return np.concatenate(found), np.concatenate(vectors)

    def all_vectors(
        self, space: Space, upto: int, since: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Every embedding that a space got after `since` and at or before the seq `upto`: each image once.

        First those that came later than their images, then those that came with them, ascending. In chunks of rowids
        and their (n, dim) float32 vectors. Raises IndexDamaged where a checksum is wrong.
        """
        if space.complete_seq != 0:
            yield from self._late_vectors(space, upto, since)
        if space.complete_seq is None:
            return
        since = max(since, space.complete_seq)
        with self.reading() as connection:
            first = connection.execute(select(func.min(images.c.rowid)).where(images.c.seq > since)).scalar()
        if first is None:
            return
        last = first - 1
        seq = images.c.seq + 0  # not by the index of `seq`: it would sort everything for each chunk
        query = (
            _embeddings_of(space)
            .join(images, images.c.rowid == embeddings.c.image_rowid)
            .where(seq > since, seq <= upto)
            .order_by(embeddings.c.image_rowid)
            .limit(VECTOR_CHUNK)
        )
        while True:
            with self.reading() as connection:
                rows = connection.execute(query.where(embeddings.c.image_rowid > last)).all()
            if not rows:
                return
            rowids, block = self._checked(rows, space)
            last = rows[-1].image_rowid
            yield rowids, block

    def _late_vectors(
        self, space: Space, upto: int, since: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        query = _embeddings_of(space).order_by(embeddings.c.seq).limit(VECTOR_CHUNK)
        while True:
            with self.reading() as connection:
                rows = connection.execute(query.where(embeddings.c.seq > since, embeddings.c.seq <= upto)).all()
            if not rows:
                return
            yield self._checked(rows, space)
            since = rows[-1].seq

    def members(self, space: Space, upto: int) -> NDArray[np.int64]:
        """The rowids of the images that had a vector in a space at the seq `upto`, as `all_vectors` has them."""
        with self.reading() as connection:
            return _members(connection, space, since=0, upto=upto)

    def without_vectors(self, wanted: Sequence[Space], after: int, limit: int) -> list[tuple[int, str]]:
        """Rowids and ids of up to `limit` images after the rowid `after` that lack a vector in one of these spaces."""
        named = {space.identity for space in wanted}
        with self.reading() as connection:
            rows = connection.execute(select(spaces.c.space, spaces.c.name, spaces.c.added_seq)).all()
            numbers = [row.space for row in rows if (row.name, row.added_seq) in named]
            lacking = [
                ~exists(
                    select(1)
                    .where(embeddings.c.image_rowid == images.c.rowid, embeddings.c.space_id == number)
                    .correlate(images)
                )
                for number in numbers
            ]
            query = (
                select(images.c.rowid, images.c.id)
                .where(images.c.rowid > after, or_(false(), *lacking))
                .order_by(images.c.rowid)
                .limit(limit)
            )
            return [(row.rowid, row.id) for row in connection.execute(query)]

    def _checked(self, rows: Sequence[Any], space: Space) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        for row in rows:
            if not intact(row.vector, row.crc32):
                raise IndexDamaged(
                    f"The stored vector of image {row.image_rowid} in {self.path} does not match its checksum. "
                    "Restore the index from a backup, or move its folder away and build it again."
                )
        try:
            recipe = space.recipe
            block = from_blobs([row.vector for row in rows], recipe.dim, space.storage, recipe.count)
        except ValueError as error:
            raise IndexDamaged(f"{self.path}: {error}. Restore the index from a backup.") from error
        return vector_ids(np.fromiter((row.image_rowid for row in rows), dtype=np.int64), recipe.count), block

    def stored(self, space: Space, ids: Iterable[str]) -> dict[str, Vector]:
        """The embeddings in one space of those of these ids that are images, (dim,) float32 each: of the whole images.

        Raises IndexDamaged where a vector's checksum is wrong.
        """
        rows = self._asked(STORED, space=space.name, added_seq=_seq(space), ids=[*ids])
        _, block = self._checked([Stored(*row[1:]) for row in rows], space)
        return {row[0]: block[number * space.recipe.count] for number, row in enumerate(rows)}

    def _asked(self, statement: str, **parameters: str | int | list[Any]) -> list[Any]:
        """The rows of a statement's text; none, without asking, where an array among its parameters is empty."""
        if not all(parameters.values()):
            return []
        values = {name: json.dumps(value) if isinstance(value, list) else value for name, value in parameters.items()}
        return self.rows(statement, values)


def read_spaces(connection: Connection) -> tuple[Space, ...]:
    query = select(spaces).where(spaces.c.dropped == 0).order_by(spaces.c.space)
    return tuple(
        Space(
            name=row.name,
            recipe=Recipe.from_json(row.recipe),
            encoding=Encoding(**row.encoding),
            storage=row.storage,
            transform=TransformSpec.from_json(row.transform),
            added_seq=row.added_seq,
            complete_seq=row.complete_seq,
        )
        for row in connection.execute(query)
    )


def read_default(connection: Connection) -> str:
    name: str = connection.execute(select(state.c.value).where(state.c.key == "default_space")).scalar_one()
    return name


def read_calibrations(connection: Connection) -> dict[SpaceIdentity, Calibration]:
    """The calibrations of all spaces that have one."""
    stored = connection.execute(select(state.c.value).where(state.c.key == CALIBRATIONS)).scalar() or []
    return {(one["space"], one["added_seq"]): Calibration.from_json(one["calibration"]) for one in stored}


def added_rowids(connection: Connection, there: Sequence[Space], since: int) -> dict[str, NDArray[np.int64]]:
    """The rowids of the images that got a vector in each space after a seq, by its name."""
    with_vectors = [space for space in there if space.complete_seq is not None and space.complete_seq <= since]
    added = {space.name: _members(connection, space, since) for space in there if space not in with_vectors}
    if with_vectors:  # all the same, but for what came late to one of them: nothing after it was complete
        new = _added_images(connection, since, None)
        added |= {space.name: new for space in with_vectors}
    return added


def _members(connection: Connection, space: Space, since: int, upto: int | None = None) -> NDArray[np.int64]:
    found = [np.empty(0, dtype=np.int64)]
    if space.complete_seq != 0:
        late = select(embeddings.c.image_rowid).where(embeddings.c.seq > since, _number_of(space))
        late = late if upto is None else late.where(embeddings.c.seq <= upto)
        found.append(np.fromiter(connection.execute(late).scalars(), dtype=np.int64))
    if space.complete_seq is not None:
        found.append(_added_images(connection, max(since, space.complete_seq), upto))
    return np.concatenate(found)


def _added_images(connection: Connection, since: int, upto: int | None) -> NDArray[np.int64]:
    # not in order: SQLite would rather read a million images in it than sort the few that are new
    query = select(images.c.rowid).where(images.c.seq > since)
    query = query if upto is None else query.where(images.c.seq <= upto)
    return np.sort(np.fromiter(connection.execute(query).scalars(), dtype=np.int64))


def _number_of(space: Space) -> Any:
    """Whether an embedding is one of this space, and of none that had its name before."""
    here = select(spaces.c.space).where(
        spaces.c.name == space.name, spaces.c.added_seq.is_not_distinct_from(space.added_seq)
    )
    return embeddings.c.space_id == here.where(spaces.c.dropped == 0).scalar_subquery()


def _embeddings_of(space: Space) -> Any:
    columns = (embeddings.c.image_rowid, embeddings.c.vector, embeddings.c.crc32, embeddings.c.seq)
    return select(*columns).where(_number_of(space))


def _seq(space: Space) -> int:
    return WITH_INDEX if space.added_seq is None else space.added_seq


def chunks(items: Any, size: int) -> Iterator[Any]:
    """The items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
