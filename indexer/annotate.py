"""Attach a `--metadata` file's labels and metadata to the images that it names."""

from __future__ import annotations

from collections.abc import Sequence

from indexer.metadata import Annotation
from indexer.report import TOO_MANY_LABELS, BuildOptions, BuildReport
from indexer.sources import Source
from search.catalog.transaction import Transaction
from search.catalog.typed import TypedPaths
from search.errors import AnnotationInvalid
from search.types import Failure


def annotate(
    transaction: Transaction,
    options: BuildOptions,
    sources: Sequence[Source],
    roots: Sequence[str],
    report: BuildReport,
) -> None:
    """Attach the options' annotations. A line about an image that is not there is listed in the report as failed.

    roots: of the index. Paths may be relative to a source or its root, or absolute.
    """
    places = [(str(source.root), prefix) for source in sources for prefix in dict.fromkeys((source.prefix, ""))]
    typed = TypedPaths(transaction, roots, inside=places)
    said: dict[str, set[str]] = {}
    for annotation in options.annotations:
        image_id = _image(annotation, typed)
        if image_id is None or transaction.rowid(image_id) is None:
            named = annotation.path or annotation.id or ""
            reason = "named by --metadata, but not in the index"
            report.fail(Failure(root=places[0][0], path=named, mtime_ns=0, size=0, reason=reason))
            continue
        try:
            transaction.annotate(image_id, labels=annotation.labels or (), metadata=annotation.metadata)
        except AnnotationInvalid:
            named = annotation.path or annotation.id or ""
            report.fail(Failure(root=places[0][0], path=named, mtime_ns=0, size=0, reason=TOO_MANY_LABELS))
            continue
        if annotation.labels is not None:
            said.setdefault(image_id, set()).update(annotation.labels)
    if options.replace_labels:
        for image_id, labels in said.items():
            of_folders = {
                label for location in transaction.locations_of(image_id) for label in options.folder_labels(location)
            }
            transaction.annotate(image_id, without=set(transaction.labels(image_id)) - labels - of_folders)


def _image(annotation: Annotation, typed: TypedPaths) -> str | None:
    """The image that a line names: by its path, or else by its id."""
    found = () if annotation.path is None else typed.find(annotation.path)
    return next((known.image_id for known in found if known.image_id is not None), annotation.id)
