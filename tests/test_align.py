"""Alignment: an index learns from its own captions which words fit its images, or says that they teach nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import new_image, recipe, vectors
from test_words_changes import words_space

from analysis.aligning.cli import ALIGNED, keep
from analysis.aligning.cli import align as align_command
from analysis.aligning.learn import MIN_CAPTIONS, align, captions_of
from analysis.errors import AlignmentUseless, CaptionsInvalid
from indexer.encoders.aligned import AlignedHead, read_aligned, tensors_of
from indexer.encoders.encoder import SpaceRequest
from indexer.encoders.recipes import spaces_for
from indexer.encoders.words import is_known, load_head, load_text_encoder, packaged_centre, spaces_of_words
from indexer.models import PACKAGED, locate
from indexer.progress import Quiet
from indexer.renewal import renew_words
from search.generations.whitening import Part
from search.index import Index
from search.types import Encoding, NewImage, Space
from search.upkeep.verify import verify
from search.vectors import normalise

COUNT, DIM, SENTENCE = 150, 24, 384
KINDS = [f"kind number {number}" for number in range(COUNT)]


def of_kind(number: int, image: int) -> NewImage:
    return new_image(image, vectors(COUNT, DIM, seed=1)[number], spaces=["layer2"])


def sentences(texts: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Sentences whose embeddings are a linear map of what images of their kind look like."""
    turn = np.random.default_rng(2).normal(size=(DIM, SENTENCE)).astype(np.float32)
    looks = vectors(COUNT, DIM, seed=1)[[int(text.rpartition(" ")[2]) for text in texts]]
    return normalise(normalise(looks @ turn) + packaged_centre())


@pytest.fixture
def album(tmp_path: Path) -> Path:
    space = Space(name="layer2", recipe=recipe(2, dim=DIM), encoding=Encoding())
    with Index.create(tmp_path / "album.index", [space]) as index, index.writer() as writer:
        with writer.transaction() as transaction:
            for number, text in enumerate(KINDS):
                transaction.add(of_kind(number, number))
                transaction.annotate(new_image(number, vectors(1, DIM)[0]).id, metadata={"caption": text})
        index.publish()
    return tmp_path / "album.index"


def test_captions_teach_words_for_images_without_one(album: Path) -> None:
    with Index.open(album, writable=True) as index:
        captions = captions_of(index)
        assert len(captions) == COUNT
        found = align(index, captions, sentences, tell=lambda _: None)
        assert found.found > 0.5 > found.found_before
        report = keep(index, found, progress=Quiet(), stopped=lambda: False)
        assert report.filled == COUNT
        space = index.space(ALIGNED)
        assert space.complete
        assert spaces_of_words(index.spaces)[0].name == ALIGNED
        assert is_known(space.recipe, index.models)
        image = new_image(3, vectors(1, DIM)[0]).id
        features = index.vector(image, index.space("layer2"))
        head = load_head(space.recipe, index.models)
        np.testing.assert_allclose(head(features[None])[0], index.vector(image, space), atol=2e-3)

        class Sentences:
            def encode(self, texts: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
                return sentences(texts)

        (asked,) = load_text_encoder(space.recipe, index.models, Sentences()).encode([captions[image]])
        nearest, _ = index.nearest(asked[None], 5, space=ALIGNED)
        assert index.catalog.rowid(image) in nearest[0].tolist()
        assert not verify(index).findings


@pytest.mark.parametrize("tower", [False, True])
def test_it_is_said_which_space_searches_by_words_use_then(
    album: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tower: bool
) -> None:
    class Sentences:
        encode = staticmethod(sentences)

    monkeypatch.setattr("indexer.encoders.words.load_sentences", Sentences)
    if tower:
        told = Space(name="clip-words", recipe=replace(recipe(dim=8), text_sha256="f" * 64), encoding=Encoding())
        with Index.open(album, writable=True) as index, index.writer() as writer:
            told = writer.add_space(told)
            records, _ = index.catalog.page(0, COUNT)
            with writer.transaction() as transaction:
                transaction.fill(told, {record.id: vectors(1, 8)[0] for record in records})
    align_command(album, captions=None, as_json=False)
    said = capsys.readouterr().out
    assert ("Searches by words use clip-words still" in said) is tower
    assert ("Searches by words use words-aligned now" in said) is not tower


def test_to_align_again_replaces_what_was_learned(album: Path) -> None:
    with Index.open(album, writable=True) as index:
        captions = captions_of(index)
        for part in (captions, dict(sorted(captions.items())[:100])):
            found = align(index, part, sentences, tell=lambda _: None)
            keep(index, found, progress=Quiet(), stopped=lambda: False)
        assert [space.name for space in index.spaces] == ["layer2", ALIGNED]
        assert len(list(index.models.glob("words-*"))) == 1


def test_captions_that_teach_nothing_change_nothing(album: Path) -> None:
    def noise(texts: Sequence[str]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return vectors(len(texts), SENTENCE, seed=9)

    with Index.open(album) as index, pytest.raises(AlignmentUseless, match="nothing was changed"):
        align(index, captions_of(index), noise, tell=lambda _: None)


def test_a_damaged_head_is_found(album: Path) -> None:
    with Index.open(album, writable=True) as index:
        found = align(index, captions_of(index), sentences, tell=lambda _: None)
        keep(index, found, progress=Quiet(), stopped=lambda: False)
        (head,) = index.models.glob("words-*")
        head.write_bytes(head.read_bytes()[:-1] + b"x")
        assert not is_known(index.space(ALIGNED).recipe, index.models)
        assert any("is damaged" in finding.problem for finding in verify(index).findings)


def test_captions_are_read_from_a_file(album: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": new_image(number, vectors(1, DIM)[0]).id, "words": f"said {number}"})
        for number in range(MIN_CAPTIONS)
    ]
    file = tmp_path / "captions.jsonl"
    file.write_text("\n".join(lines))
    with Index.open(album) as index:
        captions = captions_of(index, file)
        assert captions[new_image(7, vectors(1, DIM)[0]).id] == "said 7"
        file.write_text("\n".join(lines[:10]))
        with pytest.raises(CaptionsInvalid, match="10 have a caption"):
            captions_of(index, file)


def test_a_head_survives_its_file() -> None:
    rng = np.random.default_rng(0)
    parts = tuple(
        Part(
            mean=rng.normal(size=dim), directions=np.linalg.qr(rng.normal(size=(dim, 2)))[0].T, scales=scales, weight=w
        )
        for dim, scales, w in ((6, np.array([0.5, 0.25]), 1.0), (4, np.array([0.1, 0.9]), 1.7))
    )

    def recognition(
        features: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return normalise(features[:, :3])

    numbers = rng.normal(size=(11, 3)).astype(np.float32)
    head = AlignedHead(parts=parts, mean=numbers[:10, 0], map=numbers[:10], recognition=recognition, share=0.5)
    read = read_aligned(tensors_of(head), [6, 4], recognition)
    made = normalise(rng.normal(size=(5, 10)))
    np.testing.assert_allclose(read(made), head(made), atol=2e-3)
    half = normalise(made[:, -4:])[:, :3]
    alone = AlignedHead(parts=parts, mean=numbers[:10, 0], map=numbers[:10], recognition=None, share=1.0)(made)
    np.testing.assert_allclose(head(made), normalise(0.5 * normalise(half) + 0.5 * alone), atol=1e-5)


def test_a_space_of_style_beside_is_no_classifier(tmp_path: Path) -> None:
    (style,) = spaces_for(locate(PACKAGED.name), [SpaceRequest(style=True)], Encoding())
    looks, styles = vectors(COUNT, DIM, seed=1), vectors(COUNT, style.recipe.dim, seed=5)
    both = [Space(name="layer2", recipe=recipe(2, dim=DIM), encoding=Encoding()), style]
    with Index.create(tmp_path / "album.index", both) as index:
        with index.writer() as writer, writer.transaction() as transaction:
            for number, text in enumerate(KINDS):
                image = new_image(number, looks[number], spaces=["layer2"])
                transaction.add(replace(image, vectors={"layer2": looks[number], style.name: styles[number]}))
                transaction.annotate(image.id, metadata={"caption": text})
        told: list[str] = []
        found = align(index, captions_of(index), sentences, tell=told.append)
    assert [line.partition(":")[0] for line in told] == ["layer2", "style"]
    assert found.space.name == "layer2"


def test_words_of_another_version_are_replaced_beside_what_captions_taught(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.renewal.space_to_add", lambda *_: words_space())
    with Index.open(album, writable=True) as index:
        with index.writer() as writer:
            writer.add_space(words_space("0" * 64))
        found = align(index, captions_of(index), sentences, tell=lambda _: None)
        keep(index, found, progress=Quiet(), stopped=lambda: False)
        taught = index.space(ALIGNED)
        with index.writer() as writer:
            renew_words(index, writer, warn=lambda _: None)
        assert index.space("words").same_as(words_space())
        assert index.space(ALIGNED).identity == taught.identity
        with index.writer() as writer, writer.transaction() as transaction:
            records, _ = index.catalog.page(0, COUNT)
            transaction.fill(index.space("words"), {record.id: vectors(1, SENTENCE)[0] for record in records})
        assert [space.name for space in spaces_of_words(index.spaces)] == [ALIGNED, "words"], "it is the newer one"
