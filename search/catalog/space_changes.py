"""Changes to the spaces of a catalog: added, filled, made the default and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import numpy as np
from sqlalchemy import Connection, bindparam, delete, exists, func, select, text, update
from sqlalchemy.dialects.sqlite import insert

from search.calibration import Calibration
from search.catalog.lookup import Lookup
from search.catalog.schema import embeddings, images, spaces, state
from search.catalog.spaces import CALIBRATIONS, read_calibrations
from search.errors import (
    RecipeMismatch,
    SpaceExists,
    SpaceIncomplete,
    SpaceNeeded,
    SpaceOfRegions,
    SpaceUnfit,
    UnknownSpace,
)
from search.recipe import Recipe, Storage, TransformSpec
from search.types import Space, Vector
from search.vectors import to_blob

CHUNK = 500
"""Images looked for by one statement."""
ADD_EMBEDDING = embeddings.insert()
_DELETE_EMBEDDING = delete(embeddings).where(embeddings.c.embedding == bindparam("number"))
_NEXT_SEQ = text("UPDATE state SET value = value + :count WHERE key = 'seq' RETURNING value")


class SpaceRow(NamedTuple):
    """A space as changes need to know it."""

    number: int
    name: str
    shape: tuple[int, ...]
    storage: Storage
    added_seq: int | None
    complete_seq: int | None
    of_words: bool

    @property
    def complete(self) -> bool:
        return self.complete_seq is not None


class Tuned(NamedTuple):
    """What tuning changes: the space that was the default, and the one that takes its place once it is complete.

    added_seq: of the chosen one, which tells it from another one of its name. under_way: it is not the default yet.
    """

    former: str
    chosen: str
    added_seq: int | None = None
    under_way: bool = False


class SpaceChanges(Lookup):
    """The part of a write transaction that changes spaces."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._spaces = self._read_spaces()

    def add_space(self, space: Space) -> int:
        """Add an empty space, complete where there are no images. Returns its `added_seq`. Raises SpaceExists.

        Of `space`, name, recipe, encoding, storage and transform count.
        """
        for row in self._connection.execute(select(spaces).where(spaces.c.dropped == 0)):
            if row.name == space.name:
                raise SpaceExists(f"The index has a space {space.name} already.")
            held = Recipe.from_json(row.recipe), TransformSpec.from_json(row.transform)
            if held == (space.recipe, space.transform):
                raise SpaceExists(f"The index has this space already: it is called {row.name}.")
        count = self._connection.execute(select(func.count()).select_from(images)).scalar_one()
        seq = self._next_seq()
        values = {**space_row(space), "added_seq": seq, "complete_seq": None if count else seq, "missing": count}
        self._connection.execute(spaces.insert().values(values))
        self._spaces = self._read_spaces()
        return seq

    def fill(self, space: Space, vectors: Mapping[str, Vector]) -> int:
        """Add the vectors of images that are there, by id, to a space that is not complete; with the last, it is.

        Images that have one, or are gone, are left out. Returns how many were added. Raises UnknownSpace, also where
        another space has its name by now, RecipeMismatch where a vector is of another length.
        """
        here = self._spaces.get(space.name)
        if here is None or here.added_seq != space.added_seq:
            raise UnknownSpace(f"The index has no space {space.name} any more.")
        if here.complete or not vectors:
            return 0
        held = exists().where(embeddings.c.image_rowid == images.c.rowid, embeddings.c.space_id == here.number)
        ids: list[str] = list(vectors)
        found: list[Any] = []
        for start in range(0, len(ids), CHUNK):
            query = select(images.c.rowid, images.c.id).where(images.c.id.in_(ids[start : start + CHUNK]), ~held)
            found += self._connection.execute(query.order_by(images.c.rowid)).all()
        if found:
            first = self._next_seq(len(found)) - len(found) + 1
            rows = [embedding_row(row.rowid, here, vectors[row.id], seq) for seq, row in enumerate(found, start=first)]
            self._connection.execute(ADD_EMBEDDING, rows)
            self._change_missing(space.name, -len(found))
        return len(found)

    def drop_space(self, name: str) -> None:
        """Drop a space: nobody finds it from now on. `Index.sweep_dropped` deletes its vectors.

        Raises UnknownSpace, SpaceNeeded (it is the default, or the last).
        """
        number = self._space(name).number
        if len(self._spaces) == 1:
            raise SpaceNeeded(f"{name} is the only space of the index. Add another one first.")
        if name == self.default_space():
            raise SpaceNeeded(f"{name} is the default space. Make another one the default first.")
        # The name is free from now on: it is nobody's but this row's.
        values = {"dropped": 1, "name": f"{name} dropped {self._next_seq()}"}
        self._connection.execute(update(spaces).where(spaces.c.space == number).values(values))
        self._spaces = self._read_spaces()

    def delete_dropped(self, number: int, after: int, limit: int) -> int | None:
        """Delete the vectors of up to `limit` images after the rowid `after` in a dropped space, by its number.

        Returns where to go on; None where nothing is left.
        """
        here = (embeddings.c.space_id == number) & (embeddings.c.image_rowid > after)
        query = select(embeddings.c.embedding, embeddings.c.image_rowid).where(here)
        rows = self._connection.execute(query.order_by(embeddings.c.image_rowid).limit(limit)).all()
        if rows:
            self._connection.execute(_DELETE_EMBEDDING, [{"number": row.embedding} for row in rows])
            return cast("int", rows[-1].image_rowid)
        # Its row stays, so that its number is never another's; to look for references to it would take minutes.
        self._connection.execute(update(spaces).where(spaces.c.space == number).values(dropped=2))
        return None

    def default_space(self) -> str:
        """The name of the default space."""
        here = select(state.c.value).where(state.c.key == "default_space")
        name: str = self._connection.execute(here).scalar_one()
        return name

    def set_default(self, name: str, *, force: bool = False) -> None:
        """Make a space the default. force: also where it is not complete.

        Raises UnknownSpace, SpaceIncomplete, SpaceUnfit (it is of words), SpaceOfRegions.
        """
        if self._space(name).of_words:
            raise SpaceUnfit(
                f"{name} is a space of words: it says what pictures show, not how they look. Searches by words use it "
                "without being the default. Choose another space."
            )
        if len(self._space(name).shape) > 1:
            raise SpaceOfRegions.refused(name, "The default of an index")
        if not self._space(name).complete and not force:
            raise SpaceIncomplete(f"{name} is not complete: searches in it would not find every image. Fill it first.")
        if name != self.default_space():
            self._set("default_space", name)
            self._next_seq()

    def set_tuned(self, tuned: Tuned | None) -> None:
        """Note which space tuning puts in the place of which, so that it can go on, and be undone; None: neither."""
        self._set("tuned", None if tuned is None else tuned._asdict())

    def set_calibration(self, space: Space, calibration: Calibration | None) -> None:
        """Store a space's calibration; None removes it. Raises UnknownSpace."""
        there = {(name, one.added_seq) for name, one in self._spaces.items()}
        if space.identity not in there:
            raise UnknownSpace(f"{space.name} was dropped meanwhile.")
        others = there - {space.identity}
        kept = {key: one for key, one in read_calibrations(self._connection).items() if key in others}
        if calibration is not None:
            kept[space.identity] = calibration
        values = [{"space": key[0], "added_seq": key[1], "calibration": one.to_json()} for key, one in kept.items()]
        self._set(CALIBRATIONS, values)

    def _space(self, name: str) -> SpaceRow:
        if name not in self._spaces:
            raise UnknownSpace(f"The index has no such space. It has: {', '.join(self._spaces)}.")
        return self._spaces[name]

    def _read_spaces(self) -> dict[str, SpaceRow]:
        query = select(spaces).where(spaces.c.dropped == 0).order_by(spaces.c.space)
        return {
            row.name: SpaceRow(
                row.space,
                row.name,
                Recipe.from_json(row.recipe).shape,
                row.storage,
                row.added_seq,
                row.complete_seq,
                row.recipe.get("words") is not None,
            )
            for row in self._connection.execute(query)
        }

    def _usable(self, vectors: Mapping[str, Vector], made_for: Iterable[Space] | None) -> Mapping[str, Vector]:
        if made_for is None:
            unknown = vectors.keys() - self._spaces.keys()
            if unknown:
                raise UnknownSpace(f"The index has no space {', '.join(sorted(unknown))}.")
            return vectors
        there = {(name, space.added_seq) for name, space in self._spaces.items()}
        return {space.name: vectors[space.name] for space in made_for if space.identity in there}

    def _change_missing(self, name: str, by: int) -> None:
        """Count the images that lack a vector in a space that is not complete: with the last of them, it is."""
        space = self._spaces[name]
        here = update(spaces).where(spaces.c.space == space.number)
        more = here.values(missing=spaces.c.missing + by).returning(spaces.c.missing)
        if self._connection.execute(more).scalar_one() == 0:
            self._connection.execute(here.values(complete_seq=self._next_seq()))
            self._spaces = self._read_spaces()

    def _set(self, key: str, value: object) -> None:
        entry = insert(state).values(key=key, value=value)
        self._connection.execute(entry.on_conflict_do_update(index_elements=["key"], set_={"value": value}))

    def _next_seq(self, count: int = 1) -> int:
        """Take so many numbers; returns the last of them."""
        seq: int = self._connection.execute(_NEXT_SEQ, {"count": count}).scalar_one()
        return seq

    def _without(self, space: SpaceRow, found: Sequence[Any]) -> int:
        """How many of these rows of images have no vector in a space."""
        held = 0
        for start in range(0, len(found), CHUNK):
            rowids = [row.rowid for row in found[start : start + CHUNK]]
            here = (embeddings.c.space_id == space.number) & embeddings.c.image_rowid.in_(rowids)
            held += self._connection.execute(select(func.count()).select_from(embeddings).where(here)).scalar_one()
        return len(found) - held


def space_row(space: Space) -> dict[str, Any]:
    """The columns of a space that are stored as they are."""
    return {
        "name": space.name,
        "recipe": space.recipe.to_json(),
        "encoding": asdict(space.encoding),
        "storage": space.storage,
        "transform": space.transform.to_json(),
    }


def embedding_row(rowid: int, space: SpaceRow, vector: Vector, seq: int | None) -> dict[str, Any]:
    """A row of `embeddings`. Raises RecipeMismatch where the vector is not one of the space's length."""
    if np.shape(vector) != space.shape:
        wanted = f"{space.shape[0]} numbers" if len(space.shape) == 1 else f"the shape {space.shape}"
        raise RecipeMismatch(f"A vector in {space.name} has {wanted}, not the shape {np.shape(vector)}.")
    blob, crc32 = to_blob(vector, space.storage)
    return {"image_rowid": rowid, "space_id": space.number, "vector": blob, "crc32": crc32, "seq": seq}
