"""What counts as alike: labels of an index's images, by folder, label, metadata, kept feedback or a file."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from analysis.errors import LabelsInvalid
from search.errors import UnknownSession
from search.index import Index
from search.types import ImageRecord

PAGE = 1_000
"""Images read from the catalog at once."""
PAIRS = ("query", "relevant")
"""Columns of a file of pairs."""
MARKS = "marks"
"""The source of labels that is kept feedback."""


@dataclass(frozen=True, kw_only=True)
class Relevance:
    """Which images are relevant to which: two that share a class. Images without one are left out.

    classes: by image id. pairs: by the id of a query, the images relevant to it, instead of classes: then all images
    of the index are ranked. against: by the id of a query, images that are not; then nothing is known of all others,
    and images that neither names are left out.
    """

    classes: Mapping[str, frozenset[str]]
    pairs: Mapping[str, frozenset[str]] | None = None
    against: Mapping[str, frozenset[str]] | None = None

    @property
    def one_class(self) -> bool:
        """Whether all images share one class: then everything is right."""
        return self.pairs is None and len(set(self.classes.values())) == 1

    def alike(self, query: str, image: str) -> bool:
        """Whether an image is relevant to a query."""
        if self.pairs is not None:
            return image in self.pairs.get(query, ())
        return bool(self.classes.get(query, frozenset()) & self.classes.get(image, frozenset()))

    def ranks(self) -> Callable[[str], bool]:
        """Whether an image takes part, by its id."""
        if self.pairs is None:
            return self.classes.__contains__
        if self.against is None:
            return lambda _: True
        return {*self.pairs}.union(*self.pairs.values(), *self.against.values()).__contains__

    def judges(self, query: str, image: str) -> bool:
        """Whether it is known of an image that it is relevant to a query, or that it is not."""
        return self.against is None or self.alike(query, image) or image in self.against.get(query, ())


def relevance(index: Index, source: str) -> Relevance:
    """Read labels. source: `folder`, `label`, `metadata.KEY`, `marks`, or the path of a CSV file with the columns
    `query` and `relevant`, of paths or ids. Raises LabelsInvalid."""
    if source == MARKS:
        return _from_marks(index)
    if source in ("folder", "label") or source.startswith("metadata."):
        return Relevance(classes=classes(records(index), source))
    if not Path(source).is_file():
        raise LabelsInvalid(
            f"There is no file {source}. Take labels from: folder, label, metadata.KEY, marks, or a CSV file with the "
            f"columns {' and '.join(PAIRS)}."
        )
    return _from_file(index, Path(source))


def records(index: Index) -> Iterator[ImageRecord]:
    """Every image of an index."""
    after: int | None = 0
    while after is not None:
        page, after = index.catalog.page(after, PAGE)
        yield from page


def classes(images: Iterable[ImageRecord], source: str) -> dict[str, frozenset[str]]:
    """The classes of images by id, without images that have none. source: `folder` (from the folder that all are in),
    `label` or `metadata.KEY`."""
    if source == "folder":
        folders = {one.id: [str(Path(path).parent) for path in one.paths] for one in images}
        shared = os.path.commonpath([folder for held in folders.values() for folder in held] or ["/"])
        found = {name: frozenset(os.path.relpath(one, shared) for one in held) for name, held in folders.items()}
    elif source == "label":
        found = {one.id: frozenset(one.labels) for one in images}
    else:
        found = {one.id: _values(one, source.removeprefix("metadata.")) for one in images}
    return {name: held for name, held in found.items() if held}


def _values(record: ImageRecord, key: str) -> frozenset[str]:
    value = record.metadata.get(key)
    if value is None:
        return frozenset()
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset([str(value)])


def _from_marks(index: Index) -> Relevance:
    """Images that are `more` in one session are alike, and `less` ones are not like these, as the newest rounds say.

    An indexed image that a session begins with is one of the former. Two that are alike to one user are alike.
    """
    pairs: defaultdict[str, set[str]] = defaultdict(set)
    against: defaultdict[str, set[str]] = defaultdict(set)
    for one in index.catalog.sessions():
        with suppress(UnknownSession):  # forgotten meanwhile
            session = index.catalog.session(one.id)
            marks, parts = session.marks(), session.question.parts
            begun = [part.id for part in parts if part.id is not None and part.weight > 0] if len(parts) == 1 else []
            wanted = {*marks.more, *begun} - {*marks.less}
            for query in wanted:
                pairs[query] |= wanted - {query}
                against[query] |= {*marks.less}
    if not pairs:
        raise LabelsInvalid("No feedback is kept in this index. Give some: lookalike teach INDEX --name NAME --more ID")
    return Relevance(
        classes={},
        pairs={query: frozenset(held) for query, held in pairs.items()},
        against={query: frozenset(held - pairs[query]) for query, held in against.items()},
    )


def _from_file(index: Index, path: Path) -> Relevance:
    by_path: dict[str, str] = {}
    for record in records(index):
        by_path[record.id] = record.id
        by_path |= dict.fromkeys(record.paths, record.id)
    pairs: defaultdict[str, set[str]] = defaultdict(set)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or not set(PAIRS) <= set(reader.fieldnames):
                raise LabelsInvalid(f"{path} needs a first line with the columns {' and '.join(PAIRS)}.")
            for number, row in enumerate(reader, start=2):
                named = [str(row[column] or "").strip() for column in PAIRS]
                found = [by_path.get(name) or by_path.get(str(Path(path.parent, name).absolute())) for name in named]
                if None in found:
                    raise LabelsInvalid(
                        f"{path}, line {number}: {named[found.index(None)]!r} is not in the index. Name images by "
                        "their id, or by the path that a build read."
                    )
                query, relevant = map(str, found)
                if query != relevant:
                    pairs[query].add(relevant)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelsInvalid(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return Relevance(classes={}, pairs={query: frozenset(held) for query, held in pairs.items()})
