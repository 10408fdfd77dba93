"""Changes to the catalog. All of a transaction's reach the disk together, or none does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import bindparam, delete, exists, func, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert

from search.catalog.annotations import MAX_LABELS
from search.catalog.fulltext import WordChanges
from search.catalog.meanings import MeaningChanges
from search.catalog.mentions import MentionChanges
from search.catalog.schema import embeddings, failures, images, label_rows, locations, spaces, tombstones
from search.catalog.schema import labels as labels_table
from search.catalog.space_changes import ADD_EMBEDDING, CHUNK, SpaceChanges, embedding_row
from search.errors import AnnotationInvalid, VectorsMissing
from search.types import Encoding, Failure, JsonObject, Location, NewImage, Space

# Statements of which a build runs one for each image are made once: making one takes longer than running it.
_ADD_IMAGE, _ADD_LABEL = images.insert(), labels_table.insert()
_DELETE_LABELS = delete(labels_table).where(labels_table.c.image == bindparam("image_rowid"))
_DELETE_EMBEDDINGS = delete(embeddings).where(embeddings.c.image_rowid == bindparam("image_rowid"))
_PHASH = select(images.c.phash).where(images.c.rowid == bindparam("image_rowid")).scalar_subquery()
_UNLINK_LOCATIONS = (
    update(locations)
    .where(locations.c.image == bindparam("image_rowid"))
    .values(image=None, missing_since=None, removed_phash=_PHASH)
)
_CLEAR_FAILURES = delete(failures).where(
    tuple_(failures.c.root, failures.c.path).in_(
        select(locations.c.root, locations.c.path).where(locations.c.image == bindparam("image_rowid"))
    )
)
_DELETE_LOCATIONS = delete(locations).where(locations.c.image == bindparam("image_rowid"))
_DELETE_IMAGE = delete(images).where(images.c.rowid == bindparam("image_rowid"))
_ADD_TOMBSTONE = tombstones.insert()
_LIFT_TOMBSTONE = (
    update(tombstones).where(tombstones.c.id == bindparam("image_id"), tombstones.c.barred == 1).values(barred=0)
)
_NEW_LOCATION = insert(locations)
_SET_LOCATION = _NEW_LOCATION.on_conflict_do_update(
    index_elements=["root", "path"],
    set_={
        name: _NEW_LOCATION.excluded[name] for name in ("mtime_ns", "size", "image", "missing_since", "removed_phash")
    },
)
_CLEAR_FAILURE = delete(failures).where(
    failures.c.root == bindparam("in_root"), failures.c.path == bindparam("in_path")
)


class Transaction(SpaceChanges, MentionChanges, MeaningChanges, WordChanges):
    """A write transaction of a catalog, open while `Catalog.writing` is. Its lookups see its own changes."""

    def add(self, image: NewImage, *, made_for: Iterable[Space] | None = None) -> bool:
        """Add an image with its embeddings, or, where its content is known, just the location and the labels.

        made_for: the spaces that the vectors were computed for: those of others that have their names by now are left
        out. Returns whether the image is new. Adding the same image again changes nothing. Raises VectorsMissing where
        that of a complete space is missing, UnknownSpace where there is no such space, and none was `made_for`,
        RecipeMismatch where a vector is of another length.
        """
        rowid = self.rowid(image.id)
        if rowid is not None:
            self.locate(image.id, image.location)
            self.annotate(image.id, labels=image.labels, metadata=image.metadata)
            return False
        vectors = self._usable(image.vectors, made_for)
        lacking = [name for name, space in self._spaces.items() if space.complete and name not in vectors]
        if lacking:
            raise VectorsMissing(
                f"An image needs a vector for each complete space; {', '.join(lacking)} lacks its own."
            )
        facts = dict(vars(image.facts))  # not `asdict`, which copies deeply: a twentieth of the time
        latitude, longitude = facts.pop("gps") or (None, None)
        values = {
            "id": image.id,
            **facts,
            "latitude": latitude,
            "longitude": longitude,
            "labels": sorted(set(image.labels)),
            "metadata": dict(image.metadata),
            "seq": self._next_seq(),
        }
        inserted = self._connection.execute(_ADD_IMAGE, values)
        rowid = cast("tuple[int]", inserted.inserted_primary_key)[0]
        rows = []
        for name, space in self._spaces.items():
            if name in vectors:
                seq = None if space.complete else self._next_seq()
                rows.append(embedding_row(rowid, space, vectors[name], seq))
            else:
                self._change_missing(name, +1)
        if rows:
            self._connection.execute(ADD_EMBEDDING, rows)
        self._label(rowid, values["labels"])
        self._connection.execute(_LIFT_TOMBSTONE, {"image_id": image.id})
        self._locate(rowid, image.location)
        return True

    def locate(self, image_id: str, location: Location) -> None:
        """Record that a known image was seen here, and no longer what this file held before."""
        rowid = self.rowid(image_id)
        assert rowid is not None, "only a known image can be located"
        self._locate(rowid, location)

    def _locate(self, rowid: int | None, location: Location, removed_phash: int | None = None) -> None:
        values = {"image": rowid, "missing_since": None, "removed_phash": removed_phash}
        self._connection.execute(_SET_LOCATION, {**vars(location), **values})
        self.clear_failure(location.root, location.path)

    def locate_removed(self, location: Location, phash: int | None = None) -> None:
        """Record that this file holds a content which the user removed: it stays away, and is not read again.

        phash: the perceptual hash of the image, to recognise it after an edit of the file.
        """
        self._locate(None, location, phash)

    def move(self, old: Location, new: Location) -> None:
        """Record that a file was renamed: same content, new path."""
        here = (locations.c.root == old.root) & (locations.c.path == old.path)
        image = self._connection.execute(select(locations.c.image).where(here)).scalar()
        self._connection.execute(delete(locations).where(here))
        self._locate(image, new)

    def mark_missing(self, root: str, paths: Sequence[str], *, missing: bool) -> None:
        """Note that files are gone from the disk, or there again. Images without any file are not hits."""
        since = datetime.now(UTC).isoformat(timespec="seconds") if missing else None
        changes = locations.c.missing_since.is_(None) == missing
        here = (locations.c.root == root) & locations.c.path.in_(paths) & changes
        self._connection.execute(update(locations).where(here).values(missing_since=since))

    def forget_root(self, root: str, prefix: str) -> int:
        """Forget all locations and failures under a root that begin with `prefix`, in Unicode's composed form.

        Returns how many files. `remove_unlocated` then removes the images that were nowhere else; their content may
        come back.
        """
        forgotten: set[str] = set()
        for table in (failures, locations):
            path = table.c.path if prefix.isascii() else func.composed(table.c.path)
            here = (table.c.root == root) & (func.substr(path, 1, len(prefix)) == prefix)
            forgotten.update(self._connection.execute(delete(table).where(here).returning(table.c.path)).scalars())
        return len(forgotten)

    def forget_paths(self, root: str, paths: Sequence[str]) -> None:
        """Drop locations that are gone from the disk. `remove_unlocated` then drops the images that went with them."""
        here = (locations.c.root == root) & locations.c.path.in_(paths)
        self._connection.execute(delete(locations).where(here))

    def forget_path(self, location: Location) -> None:
        """Forget a file whose content was removed before: where it lies, and whether it failed since."""
        self.forget_paths(location.root, [location.path])
        self.clear_failure(location.root, location.path)

    def remove(self, image_ids: Iterable[str], *, erase: bool = False) -> int:
        """Remove images for good: later builds leave their content alone. Returns how many there were.

        erase: their paths, and all mentions of them, are forgotten too; nothing but the content's hash is kept, to know
        it again.
        """
        ids, removed = list(dict.fromkeys(image_ids)), 0
        for image_id in ids if erase else ():
            self.forget_mentions(image_id)
        for start in range(0, len(ids), CHUNK):
            here = images.c.id.in_(ids[start : start + CHUNK])
            found = self._connection.execute(select(images.c.rowid, images.c.id).where(here)).all()
            if found:
                for statement in (_CLEAR_FAILURES, _DELETE_LOCATIONS) if erase else (_UNLINK_LOCATIONS,):
                    self._connection.execute(statement, [{"image_rowid": row.rowid} for row in found])
                self._delete(found, barred=True)
            removed += len(found)
        return removed

    def paths_of(self, image_ids: Sequence[str], root: str) -> list[str]:
        """The paths of these images under a root."""
        paths: list[str] = []
        for start in range(0, len(image_ids), CHUNK):
            query = (
                select(locations.c.path)
                .join(images, images.c.rowid == locations.c.image)
                .where(locations.c.root == root, images.c.id.in_(image_ids[start : start + CHUNK]))
            )
            paths += self._connection.execute(query).scalars()
        return paths

    def annotate(
        self,
        image_id: str,
        *,
        labels: Iterable[str] = (),
        metadata: JsonObject | None = None,
        without: Iterable[str] = (),
    ) -> bool:
        """Add labels and metadata to an image and take the labels `without` away. Returns whether anything changed.

        Raises AnnotationInvalid where it would then have more labels than an image may, and more than before.
        """
        row = self._connection.execute(select(images).where(images.c.id == image_id)).first()
        assert row is not None, "only a known image can be annotated"
        old = row._mapping["metadata"]
        new_labels = sorted((set(row.labels) - set(without)) | set(labels))
        new_metadata = {**old, **(metadata or {})}
        if new_labels == row.labels and new_metadata == old:
            return False
        if len(new_labels) > max(MAX_LABELS, len(row.labels)):
            raise AnnotationInvalid(f"An image has at most {MAX_LABELS:,} labels, with those that it has already.")
        self.describe(image_id, labels=new_labels, metadata=new_metadata)
        return True

    def describe(
        self, image_id: str, *, labels: Sequence[str] | None = None, metadata: JsonObject | None = None
    ) -> None:
        """Replace an image's labels, its metadata, or both."""
        values: dict[str, Any] = {}
        if labels is not None:
            values["labels"] = sorted(set(labels))
        if metadata is not None:
            values["metadata"] = dict(metadata)
        if values:
            self._connection.execute(update(images).where(images.c.id == image_id).values(**values))
        rowid = self.rowid(image_id)
        if labels is not None and rowid is not None:
            self._connection.execute(_DELETE_LABELS, {"image_rowid": rowid})
            self._label(rowid, values["labels"])

    def _label(self, rowid: int, labels: Sequence[str]) -> None:
        if labels:
            self._connection.execute(_ADD_LABEL, label_rows(rowid, labels))

    def fail(self, failure: Failure) -> None:
        """Record a file that could not be indexed. What the index already holds of it stays."""
        self.clear_failure(failure.root, failure.path)
        self._connection.execute(
            failures.insert().values(**asdict(failure), when=datetime.now(UTC).isoformat(timespec="seconds"))
        )

    def clear_failure(self, root: str, path: str) -> None:
        """Forget that a file failed."""
        self._connection.execute(_CLEAR_FAILURE, {"in_root": root, "in_path": path})

    def change_root(self, old: str, new: str, prefix: str) -> None:
        """Re-root everything seen under `old`, a folder inside `new`: `prefix` (`2024/`) goes before each path.

        A file that was seen under both roots keeps what is known of it under `new`, unless that was removed.
        """
        if (old, prefix) == (new, ""):
            return
        moving = locations.alias()
        moved = select(prefix + moving.c.path).where(moving.c.root == old, moving.c.image.is_not(None))
        removed = (locations.c.root == new) & locations.c.image.is_(None)
        self._connection.execute(delete(locations).where(removed, locations.c.path.in_(moved)))
        held = exists().where(
            locations.c.root == new, locations.c.path == prefix + failures.c.path, locations.c.image.is_not(None)
        )
        self._connection.execute(delete(failures).where(failures.c.root == old, held))  # it was read since, or before
        self._connection.execute(delete(failures).where(failures.c.root == new, failures.c.path.in_(moved)))
        for table in (locations, failures):
            known = table.alias()
            twice = exists().where(known.c.root == new, known.c.path == prefix + table.c.path)
            self._connection.execute(delete(table).where(table.c.root == old, twice))
            there: dict[str, Any] = {"root": new, "path": prefix + table.c.path}
            if table is locations:
                there["missing_since"] = None  # until a build looks there
            self._connection.execute(update(table).where(table.c.root == old).values(there))

    def taken(self, old: str, new: str, prefix: str) -> tuple[int, str] | None:
        """How many files of `old` would come to lie where another image is known, and one of them; None for none."""
        known = locations.alias()
        clash = (
            select(known.c.path)
            .join(locations, locations.c.root == old)
            .where(known.c.root == new, known.c.path == prefix + locations.c.path, known.c.image != locations.c.image)
        )
        paths = self._connection.execute(clash).scalars().all()
        return (len(paths), paths[0]) if paths else None

    def set_encoding(self, space: str, encoding: Encoding) -> None:
        """Fix how a space's embeddings are computed: once, before the first of them is stored."""
        self._connection.execute(update(spaces).where(spaces.c.name == space).values(encoding=asdict(encoding)))

    def rename_model(self, weights_sha256: str, name: str) -> None:
        """Change what every recipe of these weights calls its model: they, and so its identity, stay the same."""
        self._change_recipes(weights_sha256, "model", name)

    def set_config_sha256(self, weights_sha256: str, digest: str | None) -> None:
        """Note the hash of a model's configuration in its recipes: once, for an index made before it was kept."""
        self._change_recipes(weights_sha256, "config_sha256", digest)

    def _change_recipes(self, weights_sha256: str, key: str, value: str | None) -> None:
        for row in self._connection.execute(select(spaces)).all():
            if row.recipe["weights_sha256"] != weights_sha256:
                continue
            recipe = {**row.recipe, key: value}
            self._connection.execute(update(spaces).where(spaces.c.space == row.space).values(recipe=recipe))

    def set_generation(self, name: str, digests: Mapping[str, str]) -> None:
        """Make a published generation the one that readers open. digests: of its manifest, and of those kept."""
        self._set("generation", name)
        self._set("generations", dict(digests))

    def set_min_recall(self, share: float) -> None:
        """Fix the share of the true ten nearest that later generations must find."""
        self._set("min_recall", share)

    def set_uploads(self, root: str) -> None:
        """Note where images added over HTTP lie now."""
        self._set("uploads", root)

    def remove_unlocated(self) -> int:
        """Drop the images that are nowhere any more, but not for good. Returns how many there were.

        Apart from the changes that leave them so: of two files that swapped names, each is nowhere for a moment.
        """
        nowhere = ~exists(select(1).where(locations.c.image == images.c.rowid).correlate(images))
        found = self._connection.execute(select(images.c.rowid, images.c.id).where(nowhere)).all()
        self._delete(found, barred=False)
        return len(found)

    def _delete(self, found: Sequence[Any], *, barred: bool) -> None:
        """found: rows with a `rowid` and an `id`."""
        if not found:
            return
        bare = {name: self._without(space, found) for name, space in self._spaces.items() if not space.complete}
        for statement in (_DELETE_EMBEDDINGS, _DELETE_LABELS, _DELETE_IMAGE):
            self._connection.execute(statement, [{"image_rowid": row.rowid} for row in found])
        for name, count in bare.items():
            if count:
                self._change_missing(name, -count)
        first = self._next_seq(len(found)) - len(found) + 1
        self._connection.execute(
            _ADD_TOMBSTONE,
            [
                {
                    "seq": seq,
                    "rowid": row.rowid,
                    "id": row.id,
                    "barred": int(barred),
                }
                for seq, row in enumerate(found, start=first)
            ],
        )
