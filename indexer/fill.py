"""Filling: images that are known get their vectors in spaces that are not complete, from the files they came from, or
from what another space holds of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np

from indexer.embedder import Embedder
from indexer.encoders.encoder import Encoder
from indexer.encoders.words import load_head
from indexer.errors import ImageRejected
from indexer.pictures.decode import PIXEL_BYTES, DecodeLimits
from indexer.pictures.preprocess import Inputs, inputs_of
from indexer.pictures.worker import Workers
from indexer.pipeline import DECODED_AHEAD, Decoded, ordered_map
from indexer.report import Progress
from search.errors import UnknownSpace
from search.index import Index
from search.lock import PATIENCE
from search.types import Location, Space
from search.vectors import normalise

LOOKED_UP = 500
"""Images without a vector that are read from the catalog at once."""
MIN_PUBLISH = 5_000
"""Vectors that are worth a generation on the way."""
MIN_SECONDS = 60
"""For each picture: all have been decoded before, by a build that may have given them more time than others do."""

SpaceIdentity = tuple[str, int | None]
"""`Space.identity`."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """An image that could not be given its vectors, one of its files, and why."""

    id: str
    path: str
    reason: str


@dataclass(kw_only=True)
class FillReport:
    """The report of a filling: images, each in all spaces that lacked it."""

    filled: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0


class Fill:
    """One run over the spaces of an index that are not complete. It can be stopped anywhere; another one goes on.

    Each batch is one transaction, for which the index's lock is taken: others can write in between.
    """

    def __init__(
        self,
        index: Index,
        encoder: Callable[[Sequence[Space]], Encoder],
        *,
        workers: int,
        progress: Progress,
        stopped: Callable[[], bool],
        roots: Collection[str] | None = None,
        max_seconds: float | None = None,
        nice: int = 0,
        inputs: Inputs | None = None,
        only: SpaceIdentity | None = None,
    ) -> None:
        """encoder: loads that of some spaces, or of more; not called where nothing is to be filled. roots: only files
        below these; None: all. max_seconds: for a picture, where a build gives them more than MIN_SECONDS. nice: by
        how much others on these cores come before decoding. inputs: what the encoder takes; None: what those spaces
        need that it is loaded for. only: of all spaces, this one.
        """
        self._index = index
        self._load = encoder
        self._workers = workers
        self._progress = progress
        self._stopped = stopped
        self._roots = roots
        self._max_seconds = max_seconds or 0
        self._nice = nice
        self._inputs = inputs
        self._only = only
        self._report = FillReport()
        self._spaces: list[Space] = []
        self._begun: set[SpaceIdentity] = set()
        self._after = 0
        self._expected = 0

    def run(self) -> FillReport:
        """Fill every space that is not complete, as far as the files are there. Called again, it goes on with images
        that were added since; where there are other spaces, it and its report begin again. Raises SearchError,
        IndexerError.
        """
        began, lacking = time.perf_counter(), self._incomplete()
        if lacking.keys() - self._begun:
            self._report, self._after = FillReport(), 0
        report, self._spaces, self._begun = self._report, list(lacking.values()), set(lacking)
        if self._spaces:
            self._fill()
        report.interrupted = self._stopped()
        report.seconds = time.perf_counter() - began
        return report

    def is_behind(self) -> bool:
        """Whether images that lack a vector, or spaces that do, were added since this run last looked, and it was not
        stopped.
        """
        return self._has_late_images() or (not self._stopped() and bool(self._incomplete().keys() - self._begun))

    def _incomplete(self) -> dict[SpaceIdentity, Space]:
        lacking = {space.identity: space for space in self._index.spaces if not space.complete}
        return {one: space for one, space in lacking.items() if self._only in (None, one)}

    def _fill(self) -> None:
        infos = self._index.catalog.space_infos()
        self._expected = max(info.images - info.count for info in infos if self._only in (None, info.space.identity))
        self._progress.start(self._expected)
        limits = _limits(self._index, self._max_seconds)
        encoders: list[Encoder] = []

        def encoder() -> Encoder:
            if not encoders:
                encoders.append(self._load(self._spaces))
            return encoders[0]

        for space in self._spaces.copy():
            self._derive(space)
        embedder = Embedder(encoder, lambda _: None)
        inputs = self._inputs or inputs_of(space.recipe for space in self._spaces)
        with Workers(inputs, limits, nice=self._nice) as workers:
            self._pass(workers, embedder, encoder)
            while self._has_late_images():  # added while the last ones were embedded
                self._pass(workers, embedder, encoder)

    def _derive(self, space: Space) -> None:
        """Fill a space of words from one that holds its network's features, without a look at the files."""
        source = features_in(self._index.spaces, space)
        if source is None:
            return
        head = load_head(space.recipe, self._index.models)
        after, own = 0, source.recipe.dim - space.recipe.source.dim
        counts = len(self._spaces) == 1  # else each image is counted when its files are read
        filled = published = 0
        while not self._stopped():
            found = self._index.catalog.without_vectors([space], after, LOOKED_UP)
            if not found:
                return
            after = found[-1][0]
            stored = self._index.catalog.stored(source, [image_id for _, image_id in found])
            if not stored:
                continue
            vectors = head(normalise(np.stack([vector[own:] for vector in stored.values()])))
            try:
                with self._index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
                    filled += transaction.fill(space, dict(zip(stored, vectors, strict=True)))
            except UnknownSpace:  # dropped meanwhile
                self._spaces.remove(space)
                return
            if counts:
                self._report.filled = filled
                self._progress.done(len(stored))
            if filled - published >= max(published, MIN_PUBLISH):
                self._index.publish()
                published = filled

    def _pass(self, workers: Workers, embedder: Embedder, encoder: Callable[[], Encoder]) -> None:
        batch, published = list[Decoded](), self._report.filled
        with closing(
            ordered_map(
                lambda known: self._decoded(workers, *known),
                self._lacking(),
                workers=self._workers,
                ahead=DECODED_AHEAD,
            )
        ) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Skipped):
                    self._skip(outcome)
                elif outcome is not None:
                    batch.append(outcome)
                if batch and len(batch) >= encoder().batch_size:
                    self._commit(batch, embedder)
                    batch = []
                if self._report.filled - published >= max(published, MIN_PUBLISH):
                    self._index.publish()
                    published = self._report.filled
            self._commit(batch, embedder)

    def _has_late_images(self) -> bool:
        spaces = [] if self._stopped() else self._spaces
        return bool(spaces and self._index.catalog.without_vectors(spaces, self._after, 1))

    def _lacking(self) -> Iterator[tuple[str, list[Location]]]:
        """The images that lack a vector, with their files; those too that are added meanwhile."""
        while self._spaces and not self._stopped():
            found = self._index.catalog.without_vectors(self._spaces, self._after, LOOKED_UP)
            if not found:
                return
            for rowid, image_id in found:
                if self._stopped() or not self._spaces:
                    return
                self._after, self._expected = rowid, self._expected - 1
                if self._expected < 0:  # it was added since
                    self._progress.start(1)
                with self._index.catalog.lookup() as lookup:
                    locations = lookup.locations_of(image_id)
                yield image_id, [here for here in locations if self._roots is None or here.root in self._roots]

    def _decoded(self, workers: Workers, image_id: str, locations: Sequence[Location]) -> Decoded | Skipped | None:
        """An image from the first of its files that is still what it was; None where none of them is wanted."""
        skipped = None
        for location in locations:
            try:
                found, decoded = workers.load(location.absolute, image_id.__eq__)
                if decoded is not None:
                    return Decoded(location=location, id=found, facts=decoded.facts, pixels=decoded.pixels)
                reason = "the file has changed"
            except ImageRejected as error:
                reason = str(error)
            except OSError as error:
                reason = error.strerror or "cannot be read"
            skipped = skipped or Skipped(id=image_id, path=location.absolute, reason=reason)
        if skipped is None and self._roots is None:
            return Skipped(id=image_id, path="", reason="no file of it is known")
        return skipped

    def _commit(self, batch: Sequence[Decoded], embedder: Embedder) -> None:
        if not batch:
            return
        embedded = embedder.embed({image.id: image for image in batch}, len(batch))
        with self._index.writer(timeout=PATIENCE) as writer, writer.transaction() as transaction:
            filled = 0
            for space in list(self._spaces):
                vectors = {name: image.vectors[space.name] for name, image in embedded.images.items()}
                try:
                    filled = max(filled, transaction.fill(space, vectors))
                except UnknownSpace:  # dropped meanwhile: nobody wants it filled any more
                    self._spaces.remove(space)
        self._report.filled += filled
        for image in batch:
            if image.id in embedded.failed:
                self._skip(Skipped(id=image.id, path=image.location.absolute, reason=embedded.failed[image.id]))
        self._progress.done(len(embedded.images))

    def _skip(self, skipped: Skipped) -> None:
        with self._index.catalog.lookup() as lookup:
            if lookup.rowid(skipped.id) is not None:  # not removed meanwhile, with its file
                self._report.skipped.append(skipped)
        self._progress.done(1)


def features_in(spaces: Sequence[Space], words: Space) -> Space | None:
    """The space whose vectors hold, or end with, the features that a space of words is made of; None where there is
    none, or where it is not of words."""
    if words.recipe.words is None:
        return None
    features = words.recipe.source
    held = (one for one in spaces if one.complete and one.recipe.words is None)
    return next((one for one in held if features in (one.recipe, one.recipe.companion)), None)


def _limits(index: Index, seconds: float) -> DecodeLimits:
    """Limits that no image of an index is over: builds may have raised theirs."""
    limits, (pixels, side, size) = DecodeLimits(), index.catalog.largest()
    most = max(limits.max_pixels, pixels, side, -(-size // PIXEL_BYTES))
    return limits.raised(max_pixels=most, max_seconds=max(seconds, MIN_SECONDS))
