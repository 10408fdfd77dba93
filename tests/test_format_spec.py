"""A second reader of an index, written from docs/format.md alone, finds what the first one finds."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import image_id, new_image, recipe, vectors
from numpy.typing import NDArray

from search.catalog.schema import APPLICATION_ID, SCHEMA_VERSION, tables
from search.generations.generation import FORMAT
from search.index import Index
from search.recipe import TransformSpec
from search.types import Encoding, Query, QueryPart, Space

MakeIndex = Callable[..., Index]
PAGE = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


Transform = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def whitening(file: bytes) -> Transform:
    """A whitening, by the specification, from its safetensors file."""
    length = int.from_bytes(file[:8], "little")
    header, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    arrays = {}
    for name, facts in header.items():
        start, end = facts["data_offsets"]
        assert facts["dtype"] == "F32"
        arrays[name] = np.frombuffer(data[start:end], "<f4").reshape(facts["shape"]).astype("<f8")

    def transform(vector: NDArray[np.float32]) -> NDArray[np.float32]:
        parts, start = [], 0
        for number, weight in enumerate(arrays["weights"]):
            end = start + len(arrays[f"mean{number}"])
            part = vector[start:end].astype("<f8") - arrays[f"mean{number}"]
            start = end
            for direction, scale in zip(arrays[f"directions{number}"], arrays[f"scales{number}"], strict=True):
                part = part - (1 - scale) * (part @ direction) * direction
            parts.append(weight * part / np.linalg.norm(part))
        joined = arrays["projection"] @ np.concatenate(parts)
        return (joined / np.linalg.norm(joined)).astype("<f4")

    return transform


class Reader:
    """An index, by the specification. It imports nothing of Lookalike."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._catalog = sqlite3.connect(f"file:{path}/catalog.sqlite?mode=ro", uri=True)
        assert self._value("PRAGMA application_id") == 0x4C4B414C
        assert self._value("PRAGMA user_version") == 8
        rows = self._catalog.execute("SELECT key, value FROM state")
        self._state = {key: json.loads(str(value)) for key, value in rows}

    def _value(self, statement: str) -> Any:
        return self._catalog.execute(statement).fetchone()[0]

    def damaged_pages(self) -> set[int]:
        """Pages that are not what their checksums say."""
        data = (self._path / "catalog.sqlite.sums").read_bytes()
        assert data[:8] == b"LKSUMS1\n"
        acknowledged, crc = struct.unpack_from("<QI", data, 8)
        assert crc == zlib.crc32(struct.pack("<Q", acknowledged))
        assert self._state["commits"] >= acknowledged
        size, pages, moving, crc = struct.unpack_from("<IIII", data, 20)
        assert crc == zlib.crc32(data[36:], zlib.crc32(data[20:32]))
        sums = np.frombuffer(data, "<u4", pages, 36)
        excused = set(np.frombuffer(data, "<u4", moving, 36 + 4 * pages).tolist())
        database = (self._path / "catalog.sqlite").read_bytes()
        found = [zlib.crc32(database[number * size : (number + 1) * size]) for number in range(pages)]
        return set((np.flatnonzero(np.array(found) != sums) + 1).tolist()) - excused

    def generation(self, space: str) -> tuple[int, int, NDArray[np.int64], NDArray[np.float32], Transform]:
        """Applied and clean `seq`, rowids and vectors of the current generation, and its transform."""
        folder = self._path / "generations" / self._state["generation"]
        manifest = json.loads((folder / "manifest.json").read_text())
        digest = manifest.pop("sha256")
        assert digest == hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        assert digest == self._state["generations"][folder.name]
        assert manifest["catalog"] == self._state["catalog"]
        for name, facts in manifest["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()[: facts["bytes"]]).hexdigest() == facts["sha256"]
        (added,) = self._catalog.execute("SELECT added_seq FROM spaces WHERE name = ?", (space,)).fetchone()
        facts = manifest["spaces"].get(space)
        if facts is None or facts.get("added_seq") != added:
            return 0, manifest["clean_seq"], np.empty(0, "<i8"), np.empty((0, 0), "<f4"), np.asarray
        rowids = np.fromfile(folder / f"{space}.rowids", "<i8")
        transform: Transform = np.asarray
        if facts["transform"] != {"kind": "identity"}:
            assert facts["transform"]["kind"] == "whitening"
            transform = whitening((folder / f"{space}.transform").read_bytes())
        vectors = np.fromfile(folder / f"{space}.vectors", "<f4", facts["distinct"] * facts["dim"])
        vectors = vectors.reshape(facts["distinct"], facts["dim"])
        if facts["distinct"] < facts["count"]:
            vectors = vectors[np.fromfile(folder / f"{space}.groups", "<i4", facts["count"])]
        return manifest["applied_seq"], manifest["clean_seq"], rowids, vectors, transform

    def search(self, space: str, query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
        """The k nearest images: their ids and cosines."""
        applied, clean, rowids, vectors, transform = self.generation(space)
        (storage,) = self._catalog.execute("SELECT storage FROM spaces WHERE name = ?", (space,)).fetchone()
        known = dict(zip(rowids.tolist(), vectors, strict=True))
        newer = self._catalog.execute(
            "SELECT image_rowid, vector, crc32 FROM embeddings JOIN spaces ON space = space_id "
            "JOIN images ON images.rowid = image_rowid WHERE name = ? AND coalesce(embeddings.seq, images.seq) > ?",
            (space, applied),
        )
        for rowid, blob, crc in newer:
            assert zlib.crc32(blob) == crc
            stored = np.frombuffer(blob, {"float32": "<f4", "float16": "<f2"}[storage]).astype("<f8")
            known[rowid] = transform((stored / np.linalg.norm(stored)).astype("<f4"))
        query = transform(query)
        for (rowid,) in self._catalog.execute("SELECT rowid FROM tombstones WHERE seq > ?", (clean,)):
            known.pop(rowid, None)
        ids = dict(self._catalog.execute("SELECT rowid, id FROM images"))
        found = sorted((-float(vector @ query), ids[rowid]) for rowid, vector in known.items())
        return [(image, -score) for score, image in found[:k]]


def test_a_reader_written_from_the_specification_finds_the_same(make_index: MakeIndex) -> None:
    data = vectors(130)
    data[40:60] = data[7]  # copies
    index = make_index(data[:120])
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number in range(120, 130):
                transaction.add(new_image(number, data[number]))
        writer.remove([image_id(3), image_id(125)])
    index.catalog.checkpoint(wait=5)
    compared(index, "layer2")


def compared(index: Index, space: str) -> None:
    reader = Reader(index.path)
    assert reader.damaged_pages() == set()
    for query in vectors(10, seed=3):
        hits = index.search(Query(parts=[QueryPart(vector=query)], k=20, space=space))
        found = reader.search(space, query, 20)
        assert [image for image, _ in found] == [hit.id for hit in hits]
        assert np.allclose([score for _, score in found], [hit.score for hit in hits], atol=1e-6)


def test_that_reader_finds_the_same_after_whitening(tmp_path: Path) -> None:
    data = vectors(90)
    transform = TransformSpec(kind="whitening", floor=0.03, companion_weight=0.8, max_dim=20)
    made_of = replace(recipe(), companion=recipe(dim=12))
    space = Space(name="white", recipe=made_of, encoding=Encoding(), storage="float16", transform=transform)
    with Index.create(tmp_path / "white.index", [space]) as index, index.writer() as writer:
        for numbers in (range(80), range(80, 90)):
            with writer.transaction() as transaction:
                for number in numbers:
                    transaction.add(replace(new_image(number, data[number]), vectors={"white": data[number]}))
            if numbers.start == 0:
                index.publish()
        index.catalog.checkpoint(wait=5)
        compared(index, "white")


def test_that_reader_finds_the_same_in_spaces_that_came_later(make_index: MakeIndex) -> None:
    index = make_index(vectors(60))
    late = {image_id(number): vector for number, vector in enumerate(vectors(60, seed=9))}
    with index.writer() as writer:
        for turn in range(2):  # the second has the name of one that was published, and dropped
            space = writer.add_space(Space(name="layer1", recipe=recipe(1, weights="ab"[turn]), encoding=Encoding()))
            for start in (0, 20):
                chosen = dict(list(late.items())[start : start + 20])
                with writer.transaction() as transaction:
                    transaction.fill(space, chosen)
                if start == 0:
                    compared(index, "layer1")
                    index.publish()
                compared(index, "layer1")
            if turn == 0:
                writer.drop_space("layer1")
        writer.remove([image_id(3)])
    index.catalog.checkpoint(wait=5)
    compared(index, "layer1")
    compared(index, "layer2")


def test_the_specification_names_every_table_column_and_version() -> None:
    for table in tables.sorted_tables:
        section = re.split(r"\n##+ ", PAGE.split(f"### `{table.name}`")[1])[0]
        if table.name != "state":
            missing = [column.name for column in table.columns if f"`{column.name}`" not in section]
            assert missing == [], table.name
    assert f"| `PRAGMA user_version` | {SCHEMA_VERSION} |" in PAGE
    assert f"0x{APPLICATION_ID:08X}" in PAGE
    assert f"| `format` in its manifest | {FORMAT} |" in PAGE
