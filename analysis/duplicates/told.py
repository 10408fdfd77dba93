"""What the index is told of a run: labels and metadata that come to the images that stay, and where files are now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from analysis.duplicates.files import facts_of
from analysis.duplicates.plan import Step
from analysis.duplicates.runs import Merge, Run
from search.catalog.transaction import Transaction
from search.journal import Journal
from search.types import Location
from search.writer import Writer

NOTHING = object()


def merge(writer: Writer, journal: Journal, run: Run) -> None:
    """Give images that stay the labels and metadata of those that are to go. Their own values come first.

    Before any file goes: a build drops an image that has no file left, and what it had.
    """
    for kept, images in _sources(run).items():
        with writer.transaction() as transaction:
            if transaction.rowid(kept) is None:
                continue
            if kept not in run.merged:
                new = _merged(transaction, kept, [*images])
                if new == Merge(labels=(), metadata={}, other={}):
                    continue
                run.merged[kept] = new
                note = {"labels": list(new.labels), "metadata": new.metadata, "other": new.other}
                journal.note({"merge": kept, **note})
            new = run.merged[kept]
            transaction.annotate(kept, labels=new.labels, metadata={**new.metadata, **transaction.metadata(kept)})


def _sources(run: Run) -> dict[str, dict[str, None]]:
    """Images that are to go, by the image that stays for them, in the order of the steps."""
    sources: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for step in run.taken(set(range(len(run.steps)))):
        if step.image != step.kept_image:
            sources[step.kept_image][step.image] = None
    return sources


def _merged(transaction: Transaction, kept: str, images: Sequence[str]) -> Merge:
    """What an image is to get from others. Of two that have a value for one key, the first gives it."""
    own, labels, metadata, other = transaction.metadata(kept), set[str](), dict[str, Any](), dict[str, Any]()
    for image in images:
        labels |= set(transaction.labels(image))
        for key, value in transaction.metadata(image).items():
            if key not in own:
                metadata.setdefault(key, value)
            if {**metadata, **own}[key] != value:
                other.setdefault(image, {})[key] = value
    return Merge(labels=tuple(sorted(labels - set(transaction.labels(kept)))), metadata=metadata, other=other)


def unmerge(writer: Writer, journal: Journal, run: Run) -> None:
    """Take back what `merge` added, from images that stay for no file that went.

    Only what nobody has changed since, and what an image that it came from still has: a build may have dropped that.
    """
    sources = _sources(run)
    for kept in set(run.merged) - {step.kept_image for step in run.taken(run.gone)}:
        old = run.merged.pop(kept)
        with writer.transaction() as transaction:
            if transaction.rowid(kept) is not None:
                held = {label for image in sources.get(kept, ()) for label in transaction.labels(image)}
                values = [transaction.metadata(image) for image in sources.get(kept, ())]
                left = {
                    key: value
                    for key, value in transaction.metadata(kept).items()
                    if old.metadata.get(key, NOTHING) != value or all(one.get(key, NOTHING) != value for one in values)
                }
                labels = set(transaction.labels(kept)) - (held & set(old.labels))
                transaction.describe(kept, labels=sorted(labels), metadata=left)
        journal.note({"unmerge": kept})


def tell(writer: Writer, run: Run) -> None:
    """Tell the index where the files of a run are now. An image that is nowhere else is missing: no search shows it.

    What came back is told only where the file is there as it was, and its root is one still: a build finds the rest.
    """
    if run.request.action == "reflink":
        return
    gone: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    roots = writer.index.catalog.roots()
    with writer.transaction() as transaction:
        for number in sorted(run.done):
            step = run.steps[number]
            if step is None or transaction.rowid(step.image) is None:  # removed since
                continue
            known = transaction.known(step.root, step.path)
            here = Location(root=step.root, path=step.path, mtime_ns=step.facts.mtime_ns, size=step.facts.size)
            if number in run.undone:
                if step.root in roots and _is_back(step):
                    transaction.locate(step.image, here)
            elif known is None or known.image_id != step.image:  # a build has been there since
                continue
            elif run.request.action == "hardlink":
                transaction.locate(step.image, replace(here, mtime_ns=step.kept_mtime_ns))
            else:
                gone[step.image].add((step.root, step.path))
        for image, places in gone.items():
            _let_go_of(transaction, image, places)


def _is_back(step: Step) -> bool:
    """Whether a file is there again, and nobody has written to it since."""
    with suppress(OSError):
        facts = facts_of(step.file)
        return (facts.size, facts.mtime_ns) == (step.facts.size, step.facts.mtime_ns)
    return False


def _let_go_of(transaction: Transaction, image: str, places: set[tuple[str, str]]) -> None:
    """Forget where an image was, as long as it is somewhere else; else note that it is missing."""
    others = {(location.root, location.path) for location in transaction.locations_of(image)} - places
    known = [transaction.known(root, path) for root, path in others]
    elsewhere = any(one is not None and not one.missing for one in known)
    for root, path in places:
        if elsewhere:
            transaction.forget_paths(root, [path])
        else:
            transaction.mark_missing(root, [path], missing=True)
