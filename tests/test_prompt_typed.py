"""Promises of what is typed behind `lookalike search`: prompts that begin with a dash, cuts that hide, drawn words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import image_id, vectors
from PIL import Image
from typer.testing import CliRunner, Result

from api.cli import app
from indexer.pictures.sheet import Picture, draw_sheet
from search.index import Index

ONE, TWO, THREE = (image_id(number)[:12] for number in (1, 2, 3))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["search", *(str(one) for one in arguments)])


@pytest.fixture
def index(make_index: Callable[..., Index]) -> Path:
    return make_index(vectors(300)).path


def ids(ended: Result) -> list[str]:
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return [hit["id"] for hit in json.loads(ended.stdout)["hits"]]


@pytest.mark.parametrize("dashed", [f"--no id:{ONE} id:{TWO}", f"- id:{ONE} + id:{TWO}", f"-id:{ONE}  id:{TWO}"])
def test_a_quoted_prompt_may_begin_with_a_dash(index: Path, dashed: str) -> None:
    straight = f"id:{TWO} - {'0.5:' if '--no' in dashed else ''}id:{ONE}"
    wanted = ids(run(straight, "--index", index, "--json", "-k", "5"))
    assert len(wanted) == 5
    for order in ((dashed, "--index", index), ("--index", index, dashed), ("--index", index, "--", dashed)):
        assert ids(run(*("--json", "-k", "5"), *order)) == wanted


def test_a_style_first_is_a_prompt_and_not_an_option(index: Path) -> None:
    ended = run(f"--style id:{ONE} --sw 300", "--index", index)
    assert "No such option" not in str(ended.exception) + ended.output
    assert "no space of style" in ended.output


def test_options_whose_values_have_white_space_stay_options(index: Path) -> None:
    plain = ids(run(f"id:{ONE}", "--index", index, "--json", "--filter", "label=- not there"))
    assert plain == ids(run(f"id:{ONE}", "--index", index, "--json", "--filter=label=not there")) == []
    slip = run("--inx", index, f"id:{ONE}")
    assert slip.exit_code != 0
    assert "--inx" in str(slip.exception) + slip.output


def test_a_prompt_that_only_pushes_away_says_so(index: Path) -> None:
    ended = run(f"--no id:{ONE}", "--index", index)
    assert ended.exit_code == 0
    assert "only what is not wanted" in ended.stderr
    assert "only what is not wanted" not in run(f"id:{TWO} --no id:{ONE}", "--index", index).stderr


@pytest.fixture
def labelled(make_index: Callable[..., Index]) -> Path:
    """With false-match rates; the image 5 is far from the image 1."""
    index = make_index(vectors(300))
    with index.writer() as writer:
        writer.describe(image_id(5), labels=("receipts",))
    index.publish()
    return index.path


def test_a_cut_that_hides_all_that_a_filter_matches_is_named(labelled: Path) -> None:
    asked = ("--id", image_id(1), "--index", labelled, "--max-fmr", "0.0001", "--filter")
    hidden = run(*asked, "label=receipts")
    assert hidden.stdout == "No image matches.\n"
    assert "Images match the filter, but --max-fmr 0.0001 leaves all of them out" in hidden.stderr
    assert "--max-fmr 1 shows them" in hidden.stderr
    assert run(*asked, "label=nothing").stderr == ""
    assert image_id(5) in ids(run(*asked, "label=receipts", "--max-fmr", "1", "--json"))


def test_a_sheet_draws_the_words_that_were_asked(tmp_path: Path) -> None:
    drawn = []
    for name, words in (("one", "a red bicycle in the snow, and a very long sentence behind it"), ("two", None)):
        out = tmp_path / f"{name}.png"
        draw_sheet(Picture(data=None, heading="query", caption="", words=words), [], out)
        with Image.open(out) as sheet:
            cell = sheet.convert("L").crop((20, 20, 190, 190))
            drawn.append(sum(cell.histogram()[:100]))
    assert drawn[0] > 300, "black letters"
    assert drawn[1] == 0, "grey ones, which say that the file is gone"
