"""Promises of `verify`: a whole index is called whole, and every kind of damage is found and named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import image_id, run_cli, vectors

from search.generations.generation import manifest_digest
from search.generations.policy import Policy
from search.index import Index
from search.upkeep.verify import Verification, verify

MakeIndex = Callable[..., Index]


def check(path: Path) -> Verification:
    with Index.open(path, unchecked=True) as index:
        return verify(index)


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path / "catalog.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_whole_index_is_called_whole(make_index: MakeIndex) -> None:
    index = make_index(vectors(400), policy=Policy(exact_search_bytes=10_000))
    with index.writer() as writer:
        writer.remove([image_id(3)])
    result = check(index.path)
    assert result.findings == []
    assert (result.images, result.vectors) == (399, 399)
    assert result.recall["layer2"] > 0.9


def flip_a_vector(path: Path) -> None:
    execute(path, "UPDATE embeddings SET vector = zeroblob(length(vector)) WHERE image_rowid = 3")


def bend_a_vector(path: Path) -> None:
    blob = np.full(32, 0.5, "<f4").tobytes()
    execute(path, f"UPDATE embeddings SET vector = x'{blob.hex()}', crc32 = {zlib.crc32(blob)} WHERE image_rowid = 3")


def lose_a_vector(path: Path) -> None:
    execute(path, "DELETE FROM embeddings WHERE image_rowid = 3")


def lose_an_image(path: Path) -> None:
    execute(path, "DELETE FROM images WHERE rowid = 3")


def spoil_an_id(path: Path) -> None:
    execute(path, "UPDATE images SET id = 'x' WHERE rowid = 3")


def flip_a_byte_of_the_vectors(path: Path) -> None:
    file = path / "generations" / "000001" / "layer2.vectors"
    data = bytearray(file.read_bytes())
    data[77] ^= 1
    file.write_bytes(data)


def publish_another_vector(path: Path) -> None:
    """What a fault in our own code would be: hashes that are right, over vectors that are not the catalog's."""
    folder = path / "generations" / "000001"
    data = bytearray((folder / "layer2.vectors").read_bytes())
    data[:128] = np.eye(1, 32, dtype="<f4").tobytes()
    (folder / "layer2.vectors").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"]["layer2.vectors"]["sha256"] = hashlib.sha256(data).hexdigest()
    digest = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))
    execute(path, f"UPDATE state SET value = '{json.dumps({'000001': digest})}' WHERE key = 'generations'")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_vector, "not what was stored"),
        (bend_a_vector, "unit length"),
        (lose_a_vector, "have no vector"),
        (lose_an_image, "of images that are not in it"),
        (spoil_an_id, "not a SHA-256"),
        (flip_a_byte_of_the_vectors, "not what its manifest says"),
        (publish_another_vector, "are not the catalog's"),
    ],
)
def test_every_kind_of_damage_is_named(make_index: MakeIndex, damage: Callable[[Path], None], words: str) -> None:
    index = make_index(vectors(50))
    index.close()
    damage(index.path)
    result = check(index.path)
    assert any(words in finding.problem for finding in result.findings), result.findings
    run_cli("verify", index.path, check=65)


def test_a_damaged_generation_is_mended_by_what_verify_advises(make_index: MakeIndex) -> None:
    index = make_index(vectors(50))
    index.close()
    flip_a_byte_of_the_vectors(index.path)
    (finding,) = check(index.path).findings
    assert "lookalike rebuild" in finding.advice
    run_cli("rebuild", index.path)
    assert check(index.path).findings == []
    run_cli("verify", index.path)


@pytest.mark.parametrize(("publish", "words"), [(False, "no generation yet"), (True, "generation 000001 is gone")])
def test_an_index_without_a_generation_is_whole_and_told_how_to_get_one(
    make_index: MakeIndex, publish: bool, words: str
) -> None:
    index = make_index(vectors(50), publish=publish)
    index.close()
    shutil.rmtree(index.path / "generations", ignore_errors=True)
    told = json.loads(run_cli("verify", index.path, "--json").stdout)
    assert told["findings"] == []
    (remark,) = told["remarks"]
    assert words in remark["problem"]
    shown = run_cli("verify", index.path)
    assert "as it was stored" in shown.stdout
    assert "lookalike rebuild" in shown.stderr
    run_cli("rebuild", index.path)
    result = check(index.path)
    assert (result.findings, result.remarks) == ([], [])


def test_a_missing_upload_is_found(make_index: MakeIndex) -> None:
    index = make_index(vectors(5))
    index.close()
    execute(
        index.path,
        f"UPDATE locations SET root = '{index.uploads}', path = 'ab/x.jpg' WHERE image = 2",
    )
    problems = [finding.problem for finding in check(index.path).findings]
    assert any("ab/x.jpg is missing" in problem for problem in problems)


def test_a_space_whose_vectors_are_all_damaged_is_told(make_index: MakeIndex) -> None:
    """It ended with an internal error."""
    index = make_index(vectors(3))
    path = index.path
    index.close()
    with contextlib.closing(sqlite3.connect(path / "catalog.sqlite")) as connection:
        connection.execute("UPDATE embeddings SET crc32 = crc32 + 1")
        connection.commit()
    (path / "catalog.sqlite.sums").unlink()
    with Index.open(path) as opened:
        assert any("3 vectors of layer2 are not what was stored" in one.problem for one in verify(opened).findings)
