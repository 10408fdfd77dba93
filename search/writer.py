"""The one writer of an index: whoever has one holds the index's lock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from search.catalog.space_changes import CHUNK
from search.catalog.transaction import Transaction
from search.errors import UnknownImage
from search.generations.kinds import check_kinds
from search.journal import FOLDER, GROUPS, strike, strike_groups
from search.types import ImageRecord, JsonObject, Space

if TYPE_CHECKING:
    from search.index import Index


class Writer:
    """Changes to an index, by the one process that may make them. `Index.writer` gives it, and takes the lock."""

    def __init__(self, index: Index) -> None:
        """Only for `Index.writer`."""
        self.index = index

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction on the catalog, visible to every later search of this process once the block has ended.

        Raises StorageFailed, IndexMoved.
        """
        with self.index.one_transaction, self.index.catalog.writing() as transaction:
            yield transaction  # searches catch up by themselves; a build never searches, and holds no vectors

    def remove(self, image_ids: Iterable[str], *, erase: bool = False) -> int:
        """Remove images and keep their content away from later builds. Returns how many there were.

        Uploaded files of theirs are deleted too. erase: their paths are forgotten, in the journals of runs over
        duplicates too, and so is what names them: decisions, boards, watches. After `Index.compact` only the content's
        hash is left. Raises RunUnfinished, IndexDamaged.
        """
        ids, root = list(image_ids), str(self.index.uploads)
        if erase:  # before the commit: where this ends early, to erase again finds them still
            strike(self.index.path / FOLDER, frozenset(ids))
            strike_groups(self.index.path / GROUPS, frozenset(ids), self.index.catalog.rowids)
        with self.transaction() as transaction:
            uploads = transaction.paths_of(ids, root)
            removed = transaction.remove(ids, erase=erase)
            for start in range(0, len(uploads), CHUNK):
                transaction.forget_paths(root, uploads[start : start + CHUNK])
        # After the commit: a file without a row is litter, which `compact` takes away; the reverse is a loss.
        gone, cache = set(ids), self.index.thumbnails
        small = (path for folder in {name[:2] for name in gone} for path in (cache / folder).glob("*.jpg"))
        files = [self.index.uploads / name for name in uploads]
        for path in (*files, *(path for path in small if path.name.partition("-")[0] in gone)):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return removed

    def set_not_duplicates(self, image_ids: Sequence[str]) -> int:
        """Remember that images are not duplicates of each other, also once they are removed, and come back.

        An id given twice: that its copies are wanted. Returns how many pairs are new. Raises UnknownImage.
        """
        with self.transaction() as transaction:
            for image_id in image_ids:
                if transaction.rowid(image_id) is None:
                    raise UnknownImage("The index has no image with this id.")
            return transaction.set_not_duplicates(image_ids)

    def clear_not_duplicates(self, image_ids: Sequence[str]) -> int:
        """Forget that images are not duplicates of each other; of a single one, of any other.

        Returns how many pairs there were.
        """
        with self.transaction() as transaction:
            return transaction.clear_not_duplicates(image_ids)

    def describe(
        self, image_id: str, *, labels: Sequence[str] | None = None, metadata: JsonObject | None = None
    ) -> ImageRecord:
        """Replace an image's labels, metadata, or both. Returns it as it is now. Raises UnknownImage."""
        self.index.catalog.rowid(image_id)
        with self.transaction() as transaction:
            transaction.describe(image_id, labels=labels, metadata=metadata)
        return self.index.image(image_id)

    def rewrite_words(self) -> None:
        """Write the words by which images are found from scratch, from what the catalog knows of them."""
        with self.transaction() as transaction:
            transaction.rewrite_words()
            transaction.forget_unused_words()

    def add_space(self, space: Space) -> Space:
        """Add an empty space, which is complete where there are no images. Returns it as it is now.

        Of `space`, name, recipe, encoding, storage and transform count. Raises SpaceExists, PolicyInvalid.
        """
        check_kinds([space])
        with self.transaction() as transaction:
            transaction.add_space(space)
        return self.index.space(space.name)

    def drop_space(self, name: str) -> None:
        """Drop a space: nobody finds it from now on. Raises UnknownSpace, SpaceNeeded.

        Its vectors stay until `Index.sweep_dropped`, to be called without the lock, so that others can write.
        """
        with self.transaction() as transaction:
            transaction.drop_space(name)

    def set_default(self, name: str, *, force: bool = False) -> None:
        """Make a space the default. force: also an incomplete one. Raises UnknownSpace, SpaceIncomplete."""
        with self.transaction() as transaction:
            transaction.set_default(name, force=force)

    def rename_model(self, weights_sha256: str, name: str) -> None:
        """Note that the model of these weights is found under another name now."""
        with self.transaction() as transaction:
            transaction.rename_model(weights_sha256, name)
