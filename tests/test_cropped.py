"""The build says how many pictures its geometry crops by more than half: what is at their borders is not found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import recipe, run_cli
from PIL import Image

from indexer.pictures.preprocess import kept_share
from search.recipe import Preprocessing
from search.types import ImageFacts


def preprocessing(geometry: str, resize: int = 256, size: int = 224) -> Preprocessing:
    return Preprocessing(
        geometry=geometry,  # type: ignore[arg-type]
        resize=resize,
        size=size,
        resample=3,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


@pytest.mark.parametrize(
    ("size", "geometry", "share"),
    [
        ((256, 256), "crop", 0.766),
        ((6_000, 4_000), "crop", 0.510),
        ((1_920, 1_080), "crop", 0.431),
        ((1_080, 2_400), "crop", 0.345),
        ((2_000, 400), "crop", 0.153),
        ((2_000, 400), "pad", 1.0),
        ((2_000, 400), "square", 0.766),
    ],
)
def test_the_share_of_a_picture_that_is_looked_at(size: tuple[int, int], geometry: str, share: float) -> None:
    facts = ImageFacts(width=size[0], height=size[1], format="png", bytes=1)
    made_of = replace(recipe(), preprocessing=preprocessing(geometry))
    assert kept_share(facts, made_of) == pytest.approx(share, abs=0.001)


@pytest.mark.slow
def test_a_build_warns_of_pictures_that_are_cropped_by_more_than_half(tmp_path: Path) -> None:
    from checkpoints import save  # imports torch

    checkpoint = save("dinov2", tmp_path / "model")  # which crops, as the packaged one does
    (tmp_path / "p").mkdir()
    for number, size in enumerate([(500, 100), (100, 220), (300, 300), (280, 300)]):
        Image.effect_noise(size, 50 + number).convert("RGB").save(tmp_path / "p" / f"{number}.png")
    arguments = ("build", tmp_path / "p", "--model", checkpoint, "--index")
    answer = json.loads(run_cli(*arguments, tmp_path / "i.index", "--json").stdout)
    assert answer["cropped"] == 2
    said = run_cli(*arguments, tmp_path / "j.index")
    assert "2 images are so wide or tall that the model sees less than half of each" in said.stderr
    assert "--pad" in said.stderr
    again = run_cli(*arguments, tmp_path / "j.index")
    assert "wide" not in again.stderr, "it was told when they came"
    whole = run_cli(*arguments, tmp_path / "k.index", "--pad")
    assert "wide" not in whole.stderr
