"""Proving an index: that what is stored is what was stored, and that what is searched is what is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import Integer, and_, cast, func, select, true, union_all

from search.catalog.catalog import NEWEST, Changes
from search.catalog.fulltext import out_of_step
from search.catalog.schema import board_items, decisions, embeddings, images, labels, questions, spaces, state, watches
from search.errors import GenerationDamaged, IndexDamaged, SearchError
from search.generations.ann import NEIGHBOURS
from search.generations.generation import Generation, SpaceSnapshot, load
from search.generations.recall import kth_scores, recalls
from search.index import Index
from search.journal import FOLDER, read
from search.sqlite import checksums
from search.types import Space
from search.vectors import BLOB_DTYPES, intact, vector_ids

ASKED = 200
"""Stored vectors whose neighbours are looked for, to see what a graph finds."""
LOOKS = 5
"""How often a generation that seems wrong is looked at again, while the index changes."""
UNIT = 1e-3
"""How far from one a vector's length may be: in bf16 models too it is computed in float64."""
TRANSFORM_ROUNDING = 1e-6
"""How far a number of a transformed vector may be from what the catalog's gives: processors round differently."""
RESTORE = "Restore the index from a backup, or move its folder away and build it again."
COMPACT = "Run: lookalike compact. It writes them again."
PUBLISH = "A build publishes one while it runs. Where none does, run: lookalike rebuild. No image is read again."
REBUILD = "Run: lookalike rebuild. No image is read again, and nothing is lost."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong, and what to do about it."""

    problem: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Remark(Finding):
    """Something that is not wrong, and could be better."""


@dataclass(kw_only=True)
class Verification:
    """The result of verifying. `recall`: by space, what its graph found of the true ten nearest."""

    images: int = 0
    vectors: int = 0
    files: int = 0
    recall: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


def verify(index: Index) -> Verification:
    """Check an index through and through. It may be searched meanwhile; changes are seen or not.

    Everything is read: the catalog, every vector, every file of the current generation, journals of runs over
    duplicates. An index opened `unchecked` may be damaged.
    """
    result = Verification()
    for check in (_pages, _catalog, _boards, _words, _uploads, _models, _generation, _journals):
        try:
            for finding in check(index, result):
                if isinstance(finding, Remark):
                    result.remarks.append(finding)
                else:
                    result.findings.append(finding)
        except SearchError as error:
            problem, _, advice = str(error).partition(". ")
            result.findings.append(Finding(problem=problem.rstrip("."), advice=advice or RESTORE))
    return result


def _pages(index: Index, _: Verification) -> Iterator[Finding]:
    if not checksums.intact(index.catalog.path):
        yield Finding(problem="the checksums of the catalog are missing or damaged", advice=COMPACT)
    index.catalog.check()


def _catalog(index: Index, result: Verification) -> Iterator[Finding]:
    with index.catalog.reading() as connection:
        problems = connection.exec_driver_sql("PRAGMA integrity_check(5)").scalars().all()
        for problem in problems:
            if problem != "ok":
                yield Finding(problem=f"the catalog is damaged: {problem}", advice=RESTORE)
        if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            yield Finding(problem="the catalog has locations or vectors of images that are not in it", advice=RESTORE)
        result.images = connection.execute(select(func.count()).select_from(images)).scalar_one()
        malformed = images.c.id.op("NOT GLOB")("[0-9a-f]" * 64)
        if count := connection.execute(select(func.count()).where(malformed)).scalar_one():
            yield Finding(problem=f"{count:,} images have an id that is not a SHA-256", advice=RESTORE)
        ids = (column.op("GLOB")("[0-9a-f]" * 64) for column in (decisions.c.one, decisions.c.other))
        if count := connection.execute(
            select(func.count()).where(~and_(*ids, decisions.c.one <= decisions.c.other))
        ).scalar_one():
            pairs = "pair of images is" if count == 1 else "pairs of images are"
            yield Finding(problem=f"{count:,} stored {pairs} malformed", advice=RESTORE)
        of_images = select(func.sum(func.json_array_length(images.c.labels)))
        for_filters = select(func.count()).select_from(select(labels.c.label, labels.c.image).distinct().subquery())
        if (connection.execute(of_images).scalar() or 0) != connection.execute(for_filters).scalar():
            yield Finding(problem="filters by label see other labels than the images have", advice=RESTORE)
    for space in index.spaces:
        yield from _vectors(index, space, result)


def _boards(index: Index, _: Verification) -> Iterator[Finding]:
    """Foreign keys are checked with all others."""
    is_id = func.coalesce(board_items.c.image.op("GLOB")("[0-9a-f]" * 64), true())
    one = board_items.c.image.is_(None) != board_items.c.question.is_(None)
    owned = union_all(*(select(table.c.question) for table in (board_items, watches))).subquery()
    owners = select(func.count()).where(owned.c.question == questions.c.question).scalar_subquery()
    seq = select(cast(state.c.value, Integer)).where(state.c.key == "seq").scalar_subquery()
    checks = {
        "items of boards are malformed": select(func.count()).select_from(board_items).where(~and_(is_id, one)),
        "saved questions are malformed": select(func.count())
        .select_from(questions)
        .where((owners != 1) | (func.json_type(questions.c.body, "$.parts") != "array")),
        "watches have seen what is not there": select(func.count())
        .select_from(watches)
        .where(watches.c.seen_seq > seq),
    }
    with index.catalog.reading() as connection:
        for problem, query in checks.items():
            if count := connection.execute(query).scalar_one():
                yield Finding(problem=f"{count:,} {problem}", advice=RESTORE)


def _words(index: Index, _: Verification) -> Iterator[Finding]:
    wrong = 0
    after: int | None = 0
    try:
        while after is not None:
            with index.catalog.reading() as connection:
                more, after = out_of_step(connection, after)
            wrong += more
    except IndexDamaged as error:
        yield Finding(problem=f"words cannot be looked up ({error.__cause__})", advice=REBUILD)
    if wrong:
        yield Finding(problem=f"{wrong:,} images are not found by their words", advice=REBUILD)


def _vectors(index: Index, space: Space, result: Verification) -> Iterator[Finding]:
    damaged = crooked = count = 0
    dtype = BLOB_DTYPES[space.storage]
    last = -1
    here = (
        select(embeddings.c.image_rowid, embeddings.c.vector, embeddings.c.crc32)
        .join(spaces, spaces.c.space == embeddings.c.space_id)
        .where(spaces.c.name == space.name)
        .order_by(embeddings.c.image_rowid)
        .limit(4096)
    )
    while True:
        with index.catalog.reading() as connection:
            rows = connection.execute(here.where(embeddings.c.image_rowid > last)).all()
        if not rows:
            break
        last = rows[-1].image_rowid
        count += len(rows)
        size = dtype.itemsize * space.recipe.count * space.recipe.dim
        good = [row.vector for row in rows if intact(row.vector, row.crc32) and len(row.vector) == size]
        damaged += len(rows) - len(good)
        stored = np.frombuffer(b"".join(good), dtype).reshape(-1, space.recipe.dim)
        lengths = np.linalg.norm(stored.astype(np.float64), axis=1)
        crooked += int((~(np.abs(lengths - 1) < UNIT)).sum())
    result.vectors += count
    if damaged:
        yield Finding(problem=f"{damaged:,} vectors of {space.name} are not what was stored", advice=RESTORE)
    if crooked:
        yield Finding(problem=f"{crooked:,} vectors of {space.name} do not have unit length", advice=RESTORE)
    of_image = select(embeddings.c.embedding).join(spaces, spaces.c.space == embeddings.c.space_id)
    of_image = of_image.where(spaces.c.name == space.name, embeddings.c.image_rowid == images.c.rowid)
    with index.catalog.reading() as connection:
        missing = select(func.count()).select_from(images).where(~of_image.correlate(images).exists())
        bare = connection.execute(missing).scalar_one()
        row = connection.execute(select(spaces).where(spaces.c.name == space.name)).first()
        late = select(func.count()).select_from(embeddings).join(images, images.c.rowid == embeddings.c.image_rowid)
        wrong = 0
        if row is not None:  # else it was dropped meanwhile
            early = embeddings.c.seq.is_(None)
            if row.complete_seq is not None:
                early = early & (images.c.seq <= row.complete_seq)
                early = early | (embeddings.c.seq.is_not(None) & (images.c.seq > row.complete_seq))
            wrong = connection.execute(late.where(embeddings.c.space_id == row.space, early)).scalar_one()
    if row is None:
        return
    if bare and row.complete_seq is not None:
        yield Finding(problem=f"{bare:,} images have no vector in {space.name}", advice=RESTORE)
    elif bare != row.missing:
        problem = f"{bare:,} images have no vector in {space.name}, and {row.missing:,} are said to have none"
        yield Finding(problem=problem, advice=RESTORE)
    elif bare:
        problem = f"{space.name} is not complete: {bare:,} images have no vector in it"
        yield Remark(problem=problem, advice=f"Run: lookalike spaces {index.path} add {space.name}")
    if wrong:
        yield Finding(problem=f"{wrong:,} vectors of {space.name} are not where searches look", advice=RESTORE)


def _uploads(index: Index, result: Verification) -> Iterator[Finding]:
    for name, image_id in index.catalog.uploaded():
        path = index.uploads / name
        result.files += 1
        try:
            digest = _sha256(path)
        except OSError:
            yield Finding(problem=f"{path} is missing", advice="Add the picture again, or remove it from the index.")
            continue
        if digest != image_id:
            yield Finding(problem=f"{path} is damaged", advice="Remove it from the index, and add the picture again.")


def _models(index: Index, result: Verification) -> Iterator[Finding]:
    for name in {space.encoding.model for space in index.spaces if space.encoding.model}:
        folder = index.models / name
        try:
            hashes = json.loads((folder / "manifest.json").read_bytes())
            damaged = [file for file in hashes if _sha256(folder / file) != hashes[file]]
        except (OSError, ValueError, TypeError):
            damaged = ["manifest.json"]
        result.files += 1
        if damaged:
            yield Finding(problem=f"the encoder {folder} is damaged ({', '.join(damaged)})", advice=RESTORE)

    for space in index.spaces:
        words = space.recipe.words
        head = None if words is None else index.models / words.kept_as
        if words is not None and head is not None and head.exists():  # else it is the package's own
            result.files += 1
            if _sha256(head) != words.head_sha256:
                yield Finding(problem=f"{head}, of {space.name}, is damaged", advice=RESTORE)


def _generation(index: Index, result: Verification) -> Iterator[Finding]:
    for _ in range(LOOKS):
        before = index.catalog.changes(since=NEWEST)
        findings = list(_current(index, before, result))
        after = index.catalog.changes(since=NEWEST)
        if not findings or (before.seq, before.generation) == (after.seq, after.generation):
            break  # else it may be different only because it was read while it changed
    yield from findings


def _current(index: Index, state: Changes, result: Verification) -> Iterator[Finding]:
    if state.generation is None:
        if result.images:
            yield Remark(problem="there is no generation yet: every search reads the catalog", advice=PUBLISH)
        return
    folder = index.generations / state.generation
    try:
        generation = load(folder)
    except GenerationDamaged as error:
        if isinstance(error.__cause__, FileNotFoundError) and not folder.exists():
            yield Remark(problem=f"generation {folder.name} is gone: searches read more of the catalog", advice=PUBLISH)
        else:
            yield Finding(problem=str(error).rstrip("."), advice=REBUILD)
        return
    result.files += len(generation.files)
    if not generation.belongs_to(state):
        yield Finding(problem=f"generation {generation.name} was made from another catalog", advice=REBUILD)
        return
    for space in index.spaces:
        held = generation.of(space)
        if held is not None:
            yield from _published(index, space, held, generation, result)
        elif space.added_seq is None or space.added_seq <= generation.applied_seq:
            yield Finding(problem=f"generation {generation.name} lacks {space.name}", advice=REBUILD)
        else:
            problem = f"{space.name} is newer than generation {generation.name}: every search reads the catalog"
            yield Remark(problem=problem, advice=PUBLISH)


def _published(
    index: Index, space: Space, held: SpaceSnapshot, generation: Generation, result: Verification
) -> Iterator[Finding]:
    different = seen = 0
    allowed = 0 if held.transform.kind == "identity" else TRANSFORM_ROUNDING
    try:
        for rowids, block in index.catalog.all_vectors(space, upto=generation.applied_seq):
            positions = held.positions(rowids)
            seen += len(positions)
            if len(positions) == len(rowids):
                apart = np.abs(held.vectors[held.nodes(positions)] - held.transform.apply(block)).max(axis=1)
                different += int((apart > allowed).sum())
            else:
                different += len(rowids) - len(positions)
    except IndexDamaged:  # told already
        return
    removed = index.catalog.changes(since=NEWEST, removed_since=generation.clean_seq).removed
    left = len(held.rowids) - len(held.positions(vector_ids(removed, held.count)))
    if different:
        yield Finding(problem=f"{different:,} vectors of {space.name} are not the catalog's", advice=REBUILD)
    if left != seen:
        yield Finding(
            problem=f"{space.name} holds {left:,} images, and the catalog {seen:,} of its time", advice=REBUILD
        )
    if held.graph is not None:
        share = result.recall[space.name] = _recall(held)
        if share < float(held.facts["search"]["min_recall"]) - 0.02:
            yield Finding(problem=f"the graph of {space.name} finds only {share:.1%}", advice=REBUILD)


def _recall(space: SpaceSnapshot) -> float:
    """The recall of a graph for vectors that are in it: a little more than of new ones."""
    assert space.graph is not None
    chosen = np.random.default_rng(0).choice(len(space.vectors), min(ASKED, len(space.vectors)), replace=False)
    queries = np.array(space.vectors[np.sort(chosen)])
    least = kth_scores(space.vectors, queries, NEIGHBOURS)
    return float(recalls(space.graph, space.vectors, queries, space.ef, least, NEIGHBOURS).mean())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _journals(index: Index, _: Verification) -> Iterator[Finding]:
    for path in sorted((index.path / FOLDER).glob("*.jsonl")):
        read(path)
    yield from ()
