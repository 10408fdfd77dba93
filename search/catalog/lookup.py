"""Single facts that builds ask of the catalog, the same inside a write transaction and outside one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, exists, func, select

from search.catalog.schema import images, locations, tombstones
from search.types import JsonObject, Location

# Statements of which a build runs one for each image are made once: making one takes longer than running it.
_ROWID = select(images.c.rowid).where(images.c.id == bindparam("image_id"))
_CONTENT = select(
    _ROWID.scalar_subquery(),
    exists().where(tombstones.c.id == bindparam("image_id"), tombstones.c.barred == 1),
)
_KNOWN = (
    select(locations, images.c.id.label("image_id"), images.c.labels)
    .outerjoin(images, images.c.rowid == locations.c.image)
    .where(locations.c.root == bindparam("root"), locations.c.path == bindparam("path"))
)


class Content(NamedTuple):
    """A content as the catalog knows it: its rowid where it is an image, and whether the user removed it for good."""

    rowid: int | None
    barred: bool


@dataclass(frozen=True, kw_only=True)
class KnownLocation:
    """A location as a build meets it again. `image_id` is None where the user removed this content.

    `missing`: the last build that looked found no file there. `removed_phash`: of the removed image, where it is known.
    """

    location: Location
    image_id: str | None
    labels: tuple[str, ...]
    missing: bool
    removed_phash: int | None


class Lookup:
    """Questions about one image or one location, answered from an open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def rowid(self, image_id: str) -> int | None:
        """The rowid of an image, None if there is none."""
        return self._connection.execute(_ROWID, {"image_id": image_id}).scalar()

    def content(self, image_id: str) -> Content:
        """Look up the content with this hash, image or not."""
        rowid, barred = self._connection.execute(_CONTENT, {"image_id": image_id}).one()
        return Content(rowid, bool(barred))

    def known(self, root: str, path: str) -> KnownLocation | None:
        """Look up a path; None if the catalog has never seen it."""
        row = self._connection.execute(_KNOWN, {"root": root, "path": path}).first()
        return None if row is None else known_location(row)

    def labels(self, image_id: str) -> tuple[str, ...]:
        """The labels of an image; none for an unknown one."""
        return tuple(self._connection.execute(select(images.c.labels).where(images.c.id == image_id)).scalar() or ())

    def decomposed(self, root: str) -> dict[str, str]:
        """The paths under a root that are not in Unicode's composed form, by that form. Reads all paths of the root."""
        form = func.composed(locations.c.path)
        query = select(form, locations.c.path).where(
            locations.c.root == root, locations.c.path.op("GLOB")("*[^ -~]*"), form != locations.c.path
        )
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def phash(self, image_id: str) -> int | None:
        """The perceptual hash of an image; None where it has none, or is not known."""
        return self._connection.execute(select(images.c.phash).where(images.c.id == image_id)).scalar()

    def metadata(self, image_id: str) -> JsonObject:
        """The metadata of an image; empty for an unknown one."""
        return self._connection.execute(select(images.c.metadata).where(images.c.id == image_id)).scalar() or {}

    def bytes_there(self) -> int:
        """The size of all files that show images, and that the last build found."""
        there = locations.c.image.is_not(None) & locations.c.missing_since.is_(None)
        return int(
            self._connection.execute(select(func.coalesce(func.sum(locations.c.size), 0)).where(there)).scalar_one()
        )

    def locations_of(self, image_id: str) -> list[Location]:
        """Where an image was seen, oldest first; empty for an unknown one."""
        query = (
            select(locations)
            .join(images, images.c.rowid == locations.c.image)
            .where(images.c.id == image_id)
            .order_by(locations.c.location)
        )
        return [location_of(row) for row in self._connection.execute(query)]


def known_location(row: Row[Any]) -> KnownLocation:
    """A row of `locations` joined with its image's `id` (as `image_id`) and `labels`."""
    return KnownLocation(
        location=location_of(row),
        image_id=row.image_id,
        labels=tuple(row.labels or ()),
        missing=row.missing_since is not None,
        removed_phash=row.removed_phash,
    )


def location_of(row: Row[Any]) -> Location:
    """A row of `locations` as a Location."""
    return Location(root=row.root, path=row.path, mtime_ns=row.mtime_ns, size=row.size)
