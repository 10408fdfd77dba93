"""Files against the catalog: what is new, changed, unchanged or gone under a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace

from indexer.errors import SourceMissing
from indexer.folders import Entry, scan
from indexer.report import BuildOptions, BuildReport, Progress
from indexer.sources import Source, gone
from search.catalog.lookup import KnownLocation
from search.index import Index
from search.types import Failure, Location
from search.writer import Writer

LOOKUP = 500
"""Files compared with the catalog in one query."""


class Comparison:
    """Compares sources with what an index knows of them, and counts in a build's report what needs no more work."""

    def __init__(
        self,
        index: Index,
        writer: Writer | None,
        options: BuildOptions,
        report: BuildReport,
        progress: Progress,
        stopped: Callable[[], bool],
    ) -> None:
        """writer: of this index; None for a dry run, which changes nothing."""
        self._index = index
        self._writer = writer
        self._options = options
        self._report = report
        self._progress = progress
        self._stopped = stopped

    def changed(self, source: Source) -> tuple[list[Location], int]:
        """The files that must be read, about 300 bytes each, and how many files may be images."""
        work: list[Location] = []
        chunk: list[Location] = []
        seen = candidates = 0
        choice = replace(self._options.choice, skip=frozenset({self._index.path.resolve()}))
        for entry in scan(source, choice):
            seen += 1
            if isinstance(entry, Location):
                candidates += 1
                chunk.append(entry)
            else:
                self._pass_over(entry)
            if len(chunk) == LOOKUP:
                work += self._not_unchanged(chunk)
                chunk = []
                self._progress.found(seen)
            if self._stopped():
                return [], candidates
        work += self._not_unchanged(chunk)
        self._progress.found(seen)
        return work, candidates

    def _not_unchanged(self, chunk: Sequence[Location]) -> Iterator[Location]:
        if not chunk:
            return
        root, paths = chunk[0].root, [location.path for location in chunk]
        known = self._index.catalog.known(root, paths)
        unlabelled: list[KnownLocation] = []
        failed = {failed.path: failed for failed in self._index.catalog.failures(root, paths)}
        for location in chunk:
            earlier = failed.get(location.path)
            if earlier and _same_file(earlier, location) and not self._options.retry_failed:
                self._report.fail(earlier)
                continue
            before = known.get(location.path)
            if before is None or not _same_file(before.location, location) or earlier:
                yield location
            elif before.image_id is not None:
                self._report.unchanged += 1
                if not set(self._options.folder_labels(location)) <= set(before.labels):
                    unlabelled.append(before)
            elif self._options.readd:
                yield location
            else:
                self._report.ignored += 1  # removed by the user, and staying away
        if unlabelled and self._writer is not None:  # built without --label-from-folder before
            with self._writer.transaction() as transaction:
                for found in unlabelled:
                    assert found.image_id is not None
                    transaction.annotate(found.image_id, labels=self._options.folder_labels(found.location))

    def check_not_unplugged(self, source: Source, candidates: int) -> None:
        """Raise SourceMissing where `--prune` would drop all of a source that has no images any more."""
        if self._options.prune and not candidates and source.paths is None and not self._stopped():
            known = next(self._index.catalog.paths_under(str(source.root), source.prefix), None)
            if known is not None:
                raise SourceMissing(
                    f"{source.root / source.prefix} holds no images, but the index knows some there. Is a drive not "
                    "connected? Nothing was pruned. To drop them all the same, use: lookalike remove."
                )

    def _pass_over(self, entry: Entry) -> None:
        self._report.pass_over(entry)
        if isinstance(entry, Failure) and self._writer is not None:
            with self._writer.transaction() as transaction:
                transaction.fail(entry)

    def note_missing(self, source: Source, foreseen: Set[tuple[str, str]]) -> None:
        """Count or, with `--prune`, drop what the index knows under a folder and the disk has no more.

        foreseen: roots and paths from which a dry run would have moved files away.
        """
        root = str(source.root)
        known = self._index.catalog.paths_under(root, source.prefix)
        missing = [path for path in known if (root, path) not in foreseen and gone(root, path)]
        barred = [
            path for path in self._index.catalog.paths_under(root, source.prefix, barred=True) if gone(root, path)
        ]
        stale = [
            failed.path
            for failed in self._index.catalog.failures(root)
            if failed.path.startswith(source.prefix) and gone(root, failed.path)
        ]
        prune = self._options.prune
        self._report.removed += len(missing) if prune else 0
        self._report.missing += 0 if prune else len(missing)
        if self._writer is None:
            return
        with self._writer.transaction() as transaction:
            for path in stale:
                transaction.clear_failure(root, path)
            forgotten = [*barred, *(missing if prune else ())]
            for start in range(0, len(forgotten), LOOKUP):
                transaction.forget_paths(root, forgotten[start : start + LOOKUP])


def _same_file(one: Location | Failure, other: Location) -> bool:
    return one.mtime_ns == other.mtime_ns and one.size == other.size
