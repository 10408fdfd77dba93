"""Files against the catalog: what is new, changed, unchanged or gone under a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace

from indexer.errors import SourceMissing
from indexer.folders import NO_SUCH_FILE, NOT_A_FILE, Entry, scan
from indexer.omissions import REASONS
from indexer.pipeline import failure
from indexer.reached import Reached, is_below
from indexer.report import TOO_MANY_LABELS, BuildOptions, BuildReport, Progress
from indexer.sources import Source, folders_above, gone, unplugged_folders
from search import journal
from search.catalog.lookup import KnownLocation
from search.errors import AnnotationInvalid
from search.index import Index
from search.types import Failure, Location
from search.writer import Writer

LOOKUP = 500
"""Files compared with the catalog in one query."""
MAX_PRUNED_SHARE, MIN_PRUNE_QUESTION = 0.5, 20
"""Share of a source's images that `--prune` drops unasked at once, and how few may always go."""


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
        self._reached: dict[Source, Reached] = {}

    def changed(self, source: Source) -> tuple[list[Location], int]:
        """The files that must be read, about 300 bytes each, and how many files may be images."""
        work: list[Location] = []
        chunk: list[Location] = []
        seen = candidates = 0
        choice = replace(self._options.choice, skip=frozenset({self._index.path.resolve()}))
        reached = self._reached[source] = Reached()
        for entry in scan(source, choice):
            seen += 1
            reached.note(entry)
            if isinstance(entry, Location):
                candidates += 1
                chunk.append(entry)
            else:
                self._pass_over(entry, source)
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
        back = [path for path, found in known.items() if found.missing]
        if back and self._writer is not None:
            with self._writer.transaction() as transaction:
                transaction.mark_missing(root, back, missing=False)
        failed = {failed.path: failed for failed in self._index.catalog.failures(root, paths)}
        for location in chunk:
            earlier = failed.get(location.path)
            again = self._options.retry_failed or self._options.reread or (earlier and earlier.reason in REASONS)
            if earlier and _same_file(earlier, location) and not again:
                self._report.fail(earlier)
                continue
            before = known.get(location.path)
            if before is None or not _same_file(before.location, location) or earlier or self._options.reread:
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
                    try:
                        transaction.annotate(found.image_id, labels=self._options.folder_labels(found.location))
                    except AnnotationInvalid:
                        self._report.fail(failure(found.location, TOO_MANY_LABELS))

    def check_not_unplugged(self, source: Source, candidates: int) -> None:
        """Raise SourceMissing where `--prune` would drop all of a source that has no images any more."""
        if (
            self._options.prune
            and not self._options.prune_all
            and not candidates
            and source.paths is None
            and not self._stopped()
        ):
            known = next(self._index.catalog.paths_under(str(source.root), source.prefix), None)
            if known is not None:
                raise SourceMissing(
                    f"{source.root / source.prefix} holds no images, but the index knows some there. Is a drive not "
                    "connected? Nothing was pruned. If they are gone for good: --prune-all."
                )

    def _pass_over(self, entry: Entry, source: Source) -> None:
        self._report.pass_over(entry)
        if not isinstance(entry, Failure) or self._writer is None:
            return
        if source.paths is None or entry.reason not in (NOT_A_FILE, NO_SUCH_FILE):  # wrong lines of a list
            with self._writer.transaction() as transaction:
                transaction.fail(entry)

    def _note_gone(self, source: Source, foreseen: Set[tuple[str, str]]) -> None:
        """Count files of a list that are gone, and that the index knows. foreseen: as in `note_missing`."""
        root = str(source.root)
        absent = [path for path in sorted(self._reached[source].failed) if gone(root, path)]
        for paths in _chunks(absent):
            known = self._index.catalog.known(root, paths)
            missing = [path for path in known if known[path].image_id is not None and (root, path) not in foreseen]
            self._report.missing += len(missing)
            if self._writer is not None:
                with self._writer.transaction() as transaction:
                    for path in paths:
                        transaction.clear_failure(root, path)
                    transaction.mark_missing(root, missing, missing=True)

    def note_missing(self, source: Source, foreseen: Set[tuple[str, str]]) -> None:
        """Count or, with `--prune`, drop what the index knows under a folder and its scan did not come to any more.

        foreseen: roots and paths from which a dry run would have moved files away.
        """
        if source.paths is not None:
            self._note_gone(source, foreseen)
            return
        root, prune, reached = str(source.root), self._options.prune, self._reached[source]
        known = list(self._index.catalog.paths_under(root, source.prefix))
        unseen = [path for path in known if path not in reached.files and (root, path) not in foreseen]
        absent = {path for path in unseen if gone(root, path)}
        excluded = {
            path for path in unseen if not (path in absent or path in reached.failed or is_below(path, reached.unread))
        }
        missing = absent | excluded
        barred = [
            path for path in self._index.catalog.paths_under(root, source.prefix, barred=True) if gone(root, path)
        ]
        kept: set[str] = set()
        if not self._options.prune_all:
            barred = [path for path in barred if not is_below(path, reached.unread)]
            folders = tuple(sorted(unplugged_folders(source, [*absent, *barred])))
            barred = [path for path in barred if not path.startswith(folders)]  # its drive may bring it back, edited
            kept = self._perhaps_wanted(source, folders, known, absent, excluded) if prune else kept
        stale = [
            failed.path
            for failed in self._index.catalog.failures(root)
            if failed.path.startswith(source.prefix)
            and not (failed.path in reached.files or failed.path in reached.failed)
            and not is_below(failed.path, reached.unread)
        ]
        dropped = missing - kept if prune else set()
        self._report.removed += len(dropped)
        self._report.missing += len(missing) - len(dropped)
        self._report.excluded += len(excluded - dropped)
        moved = journal.moved(self._index.path / journal.FOLDER) if absent - dropped else {}
        self._report.let_go.update(moved[root, path] for path in absent - dropped if (root, path) in moved)
        if self._writer is None:
            return
        with self._writer.transaction() as transaction:
            for path in stale:
                transaction.clear_failure(root, path)
            for paths in _chunks([*barred, *dropped]):
                transaction.forget_paths(root, paths)
            for paths in _chunks(sorted(missing - dropped)):
                transaction.mark_missing(root, paths, missing=True)

    def _perhaps_wanted(
        self, source: Source, folders: Sequence[str], known: Sequence[str], absent: Set[str], excluded: Set[str]
    ) -> set[str]:
        """Those of the missing files that `--prune` must not drop unasked, listed in the report by their folders.

        folders: of `unplugged_folders`. More than half of a source's images may be on a drive, too. So may be what was
        behind a link, which the scan has listed where it leads nowhere now.
        """
        reached = self._reached[source]
        kept = {path for path in absent if is_below(path, reached.unread)}
        for folder in folders:
            here = {path for path in absent if path.startswith(folder)} - kept
            if here:
                self._keep(source, folder, len(here), "it is gone, or holds no files any more")
                kept |= here
        rest = absent - kept
        if len(rest) > MAX_PRUNED_SHARE * len(known) and len(rest) >= MIN_PRUNE_QUESTION:
            self._keep(source, source.prefix, len(rest), f"{len(rest):,} of its {len(known):,} files are gone")
            kept |= rest
        linked = [path for path in excluded if is_below(path, reached.links)]
        for link, count in sorted(Counter(_link_above(path, reached.links) for path in linked).items()):
            why = f"it is a link, and links are not followed. Its {count:,} images stay, but are not found"
            self._fail(source, link, f"{why}. Add --follow-links, or drop them with --prune-all")
        return kept | {*linked}

    def _keep(self, source: Source, folder: str, count: int, why: str) -> None:
        self._fail(
            source,
            folder or ".",
            f"{why}. Is a drive not connected? Its {count:,} images were kept. If they are gone for good, add "
            "--prune-all, or use lookalike forget-root",
        )

    def _fail(self, source: Source, folder: str, reason: str) -> None:
        self._report.fail(Failure(root=str(source.root), path=folder, mtime_ns=0, size=0, reason=f"folder: {reason}"))


def _link_above(path: str, links: Set[str]) -> str:
    return next(folder for folder in folders_above(path) if folder in links)


def _chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), LOOKUP):
        yield paths[start : start + LOOKUP]


def _same_file(one: Location | Failure, other: Location) -> bool:
    return one.mtime_ns == other.mtime_ns and one.size == other.size
