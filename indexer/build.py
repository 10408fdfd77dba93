"""A build: bring an index up to date with its sources, embedding only what is new."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from indexer.annotate import annotate
from indexer.comparison import LOOKUP, Comparison
from indexer.embedder import Embedded, Embedder
from indexer.encoders.checked import sample_first
from indexer.encoders.encoder import Encoder
from indexer.fill import Fill
from indexer.omissions import REASONS
from indexer.pictures.decode import DecodeLimits
from indexer.pictures.preprocess import inputs_of, kept_share
from indexer.pictures.worker import Workers
from indexer.pipeline import DECODED_AHEAD, Decoded, Loader, Outcome, Recognised, failure, ordered_map
from indexer.report import TOO_MANY_LABELS, BuildOptions, BuildReport, Incomplete, Progress
from indexer.sources import Source, renamed_away
from search.catalog.lookup import Content, KnownLocation, Lookup
from search.catalog.transaction import Transaction
from search.errors import AnnotationInvalid
from search.index import Index
from search.types import Failure, Location, NewImage
from search.writer import Writer

MAX_EDITED_BITS = 6
"""Bits, of 64 of the perceptual hash, that an edit in place may change; another picture changes about half of them."""
MIN_PUBLISH = 5_000
"""A build publishes on the way once the index has doubled, but not below this: smaller ones are read in a second."""


class Build:
    """One run over one index."""

    def __init__(
        self,
        index: Index,
        writer: Writer | None,
        encoder: Callable[[], Encoder],
        options: BuildOptions,
        progress: Progress,
        stopped: Callable[[], bool],
        began: float,
    ) -> None:
        """writer: of this index; None for a dry run, which changes nothing.

        encoder: loads it on the first call; a build that embeds nothing never pays for that.
        began: `time.perf_counter()` when the command began, so that loading the model counts as start-up.
        """
        self._index = index
        self._inputs = inputs_of(space.recipe for space in index.spaces)
        self._dry_run = writer is None
        self._open_writer = writer
        self._load_encoder = encoder
        self._options = options
        self._progress = progress
        self._stopped = stopped
        self._report = BuildReport()
        self._comparison = Comparison(index, writer, options, self._report, progress, stopped)
        self._foreseen: set[tuple[str, str]] = set()
        """Roots and paths from which a dry run would have moved files away."""
        self._vanished: dict[str, list[Location]] = {}
        """For contents that were met: earlier paths that are gone, as far as no file has taken their place."""
        self._began = began
        self._first_decode = 0.0
        self._last_commit = 0.0
        self._published = index.catalog.counts()[0]
        self._embedded_at_publish = 0
        self._not_embedded: dict[str, str] = {}
        self._embedder = Embedder(encoder, self._is_startup)

    def run(self, sources: Sequence[Source]) -> BuildReport:
        """Scan, embed what is new, note what is gone, publish. Raises SourceMissing, SearchError, IndexerError.

        Interrupted (`stopped`), what is in flight is committed, and the rest left for the next build.
        """
        if not self._dry_run:
            self._prepare(sources)
        work: list[Location] = []
        for source in sources:
            changed, candidates = self._comparison.changed(source)
            self._comparison.check_not_unplugged(source, candidates)
            work += changed
        self._progress.start(len(work))
        self._embed_and_commit(work if self._published else sample_first(work))
        for source in sources:
            if not self._stopped():
                self._comparison.note_missing(source, self._foreseen)
        if self._options.annotations and not self._dry_run and not self._stopped():
            with self._writer.transaction() as transaction:
                annotate(transaction, self._options, sources, self._index.catalog.roots(), self._report)
        report = self._report
        report.interrupted = self._stopped()
        if not self._dry_run and not report.interrupted:
            with self._writer.transaction() as transaction:
                transaction.remove_unlocated()
            self._fill(sources)
            self._publish()
            report.interrupted = self._stopped()
        report.failed.sort(key=lambda failed: (failed.root, failed.path))
        report.seconds = time.perf_counter() - self._began
        if report.embedded:
            report.images_per_second = report.embedded / (self._last_commit - self._first_decode)
        return report

    @property
    def _writer(self) -> Writer:
        assert self._open_writer is not None, "a dry run changes nothing"
        return self._open_writer

    def _prepare(self, sources: Sequence[Source]) -> None:
        roots = [root for root in self._index.catalog.roots(failed=True) if root != str(self._index.uploads)]
        named = {source.root for source in sources if source.holds_files()}
        with self._writer.transaction() as transaction:
            if self._options.min_recall is not None:
                transaction.set_min_recall(self._options.min_recall)
            for root in map(
                Path, roots
            ):  # photos/2024 was built before, photos is now: the files there are the same files
                around = next((above for above in reversed(root.parents) if above in named), None)
                if around is not None:
                    transaction.change_root(str(root), str(around), f"{root.relative_to(around).as_posix()}/")

    def _fill(self, sources: Sequence[Source]) -> None:
        """Give images of these sources that were known before their vectors in spaces that are not complete."""
        roots = {str(source.root) for source in sources}
        fill = Fill(
            self._index,
            lambda _: self._encoder(),
            workers=self._options.workers,
            progress=self._progress,
            stopped=self._stopped,
            roots=roots,
            max_seconds=self._options.max_seconds,
            inputs=self._inputs,
        )
        self._report.filled = fill.run().filled

    def _embed_and_commit(self, work: Sequence[Location]) -> None:
        """Bring these files into the index. While one batch is written, the next is in the encoder."""
        limits = DecodeLimits().raised(max_pixels=self._options.max_pixels, max_seconds=self._options.max_seconds)
        with (
            Workers(self._inputs, limits) as workers,
            ThreadPoolExecutor(1, thread_name_prefix="encode") as encoding,
            closing(self._batches(work, Loader(workers, self._needs_no_decoding, limits))) as batches,
        ):
            before: tuple[list[Outcome], Future[Embedded]] | None = None
            in_flight: dict[str, Decoded] = {}
            for batch in batches:
                in_flight = self._fresh(batch, in_flight)
                under_way = batch, encoding.submit(self._embedder.embed, in_flight, len(work))
                if before is not None:
                    self._commit(*before)
                before = under_way
            if before is not None:
                self._commit(*before)

    def _batches(self, work: Iterable[Location], loader: Loader) -> Generator[list[Outcome]]:
        """Outcomes in groups that hold at most one encoder batch of new images each.

        The encoder is loaded here, with the first new image: in one place, and as start-up.
        """
        self._first_decode = self._first_decode or time.perf_counter()
        self._report.startup_seconds = self._report.startup_seconds or self._first_decode - self._began
        batch: list[Outcome] = []
        new = size = 0
        for outcome in ordered_map(
            loader, self._until_stopped(work), workers=self._options.workers, ahead=DECODED_AHEAD
        ):
            batch.append(outcome)
            if isinstance(outcome, Decoded):
                new += 1
                size = self._encoder().batch_size
            if (new and new >= size) or len(batch) >= max(LOOKUP, size):
                yield batch
                batch, new = [], 0
        if batch:
            yield batch

    def _encoder(self) -> Encoder:
        """The encoder. Loading it counts as start-up, although decoding has begun by then."""
        began = time.perf_counter()
        encoder = self._load_encoder()
        self._is_startup(time.perf_counter() - began)
        return encoder

    def _is_startup(self, seconds: float) -> None:
        self._first_decode += seconds
        self._report.startup_seconds += seconds

    def _needs_no_decoding(self, image_id: str) -> bool:
        if self._dry_run:
            return True
        with self._index.catalog.lookup() as lookup:
            content = lookup.content(image_id)
        return content.rowid is not None or self._stays_away(content)

    def _stays_away(self, content: Content) -> bool:
        return content.barred and not self._options.readd

    def _until_stopped(self, work: Iterable[Location]) -> Iterator[Location]:
        for location in work:
            if self._stopped():
                return
            yield location

    def _commit(self, batch: Sequence[Outcome], embedding: Future[Embedded]) -> None:
        """Record everything about a batch in one transaction, once its new images are embedded."""
        embedded = embedding.result()
        self._not_embedded |= embedded.failed
        if self._dry_run:
            with self._index.catalog.lookup() as lookup:
                for outcome in batch:
                    if isinstance(outcome, Failure):
                        self._report.fail(outcome)
                    else:
                        old = self._count(outcome, lookup.content(outcome.id), lookup)
                        self._foreseen |= {(old.root, old.path)} if old is not None else set()
            self._progress.done(len(batch))
            return
        with self._writer.transaction() as transaction:
            for outcome in batch:
                if not isinstance(outcome, Failure) and outcome.id in self._not_embedded:
                    outcome = failure(outcome.location, self._not_embedded[outcome.id])
                self._record(outcome, transaction, embedded.images)
        self._report.embedded += len(embedded.images)
        self._last_commit = time.perf_counter()
        self._progress.done(len(batch))
        self._publish_if_doubled()

    def _fresh(self, batch: Sequence[Outcome], in_flight: Mapping[str, Decoded]) -> dict[str, Decoded]:
        """The batch's new images by id, each once; not those that are in the encoder or have been added meanwhile."""
        fresh: dict[str, Decoded] = {}
        with self._index.catalog.lookup() as lookup:
            for outcome in batch:
                if isinstance(outcome, Decoded) and outcome.id not in in_flight and lookup.rowid(outcome.id) is None:
                    fresh.setdefault(outcome.id, outcome)
        return fresh

    def _record(self, outcome: Outcome, transaction: Transaction, images: dict[str, NewImage]) -> None:
        if isinstance(outcome, Failure):
            self._report.fail(outcome)
            transaction.fail(outcome)
            if outcome.reason in REASONS:  # no picture, so no failure that an index remembers
                transaction.clear_failure(outcome.root, outcome.path)
            return
        content = transaction.content(outcome.id)
        before = transaction.known(outcome.location.root, outcome.location.path)
        if self._is_barred_edit(outcome, before):
            self._report.ignored += 1
            transaction.locate_removed(outcome.location, _phash(outcome, before))
            return
        old = self._count(outcome, content, transaction)
        if self._stays_away(content):
            transaction.locate_removed(outcome.location, _phash(outcome, before))
        else:
            labels = self._options.folder_labels(outcome.location)
            if isinstance(outcome, Decoded) and outcome.missing is not None:
                self._report.incomplete.append(Incomplete(location=outcome.location, missing=outcome.missing))
            if content.rowid is None:
                self._vanished[outcome.id] = []
                image = replace(images[outcome.id], location=outcome.location, labels=labels)
                self._report.cropped += kept_share(image.facts, self._index.space().recipe) < 0.5
                edited = _edited(before, image.facts.phash, transaction)
                if before is not None and edited is not None:
                    image = replace(image, labels=(*labels, *before.labels), metadata=transaction.metadata(edited))
                transaction.add(image)
                return
            edited = _edited(before, transaction.phash(outcome.id), transaction)
            if old is not None:
                transaction.move(old, outcome.location)
            else:
                transaction.locate(outcome.id, outcome.location)
            try:
                if before is not None and edited is not None and edited != outcome.id:  # a copy of it was met before
                    given = {**transaction.metadata(edited), **transaction.metadata(outcome.id)}
                    transaction.annotate(outcome.id, labels=before.labels, metadata=given)
                transaction.annotate(outcome.id, labels=labels, without=self._options.folder_labels(old) if old else ())
            except AnnotationInvalid:
                self._report.fail(failure(outcome.location, TOO_MANY_LABELS))

    def _is_barred_edit(self, outcome: Decoded | Recognised, before: KnownLocation | None) -> bool:
        """Whether a file that holds a removed image was edited, its pixels being the same."""
        if before is None or before.image_id is not None or self._options.readd or not isinstance(outcome, Decoded):
            return False
        return before.removed_phash is not None and before.removed_phash == outcome.facts.phash

    def _count(self, outcome: Decoded | Recognised, content: Content, lookup: Lookup) -> Location | None:
        """Count what becomes of a file; where it was renamed, the location it had before."""
        report = self._report
        if self._stays_away(content):
            report.ignored += 1
            return None
        here = outcome.location
        before = lookup.known(here.root, here.path)
        if before is not None and before.image_id == outcome.id:
            report.unchanged += 1  # touched, or copied over itself
            return None
        old = self._renamed(outcome, lookup) if content.rowid is not None else None
        if before is not None and before.image_id is not None:
            report.updated += 1
        elif old is not None:
            report.moved += 1
        else:
            report.added += 1
            report.copies += content.rowid is not None
        return old

    def _renamed(self, outcome: Decoded | Recognised, lookup: Lookup) -> Location | None:
        """The path that this file had before, where it was renamed. Each is found once.

        All paths of a content are looked for on the disk only once a build: thousands of files may share it.
        """
        if outcome.id not in self._vanished:
            earlier = lookup.locations_of(outcome.id)
            self._vanished[outcome.id] = [old for old in earlier if renamed_away(old, outcome.location)]
        left = self._vanished[outcome.id]
        return left.pop(0) if left else None

    def _publish_if_doubled(self) -> None:
        if self._report.embedded - self._embedded_at_publish >= max(self._published, MIN_PUBLISH):
            self._publish()

    def _publish(self) -> None:
        began = time.perf_counter()
        self._index.publish()
        self._published = self._index.catalog.counts()[0]
        self._embedded_at_publish = self._report.embedded
        self._report.publish_seconds += time.perf_counter() - began


def _phash(outcome: Decoded | Recognised, before: KnownLocation | None) -> int | None:
    """The perceptual hash of a removed image: of the file as it is, or as it was known where it was not decoded."""
    if isinstance(outcome, Decoded):
        return outcome.facts.phash
    return None if before is None else before.removed_phash


def _edited(before: KnownLocation | None, phash: int | None, lookup: Lookup) -> str | None:
    """The image that a file held before, where the file still shows the same: it was rated, or retouched."""
    old = None if before is None or before.image_id is None else lookup.phash(before.image_id)
    if before is None or old is None or phash is None:
        return None
    return before.image_id if ((old ^ phash) & (2**64 - 1)).bit_count() <= MAX_EDITED_BITS else None
