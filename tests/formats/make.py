"""Write a small index in today's format: `python tests/formats/make.py`.

Run it once for every format that is released, and commit `schema-N.zip` and `schema-N.json`: later versions must open
the index and answer the same. A format that is there already is left alone.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from conftest import image_id, new_image, recipe, vectors  # noqa: E402

from search.catalog.schema import SCHEMA_VERSION  # noqa: E402
from search.catalog.watches import Match  # noqa: E402
from search.feedback import Marks, TaughtQuestion  # noqa: E402
from search.filters import parse_filter  # noqa: E402
from search.generations.policy import Policy  # noqa: E402
from search.index import Index  # noqa: E402
from search.recipe import TransformSpec  # noqa: E402
from search.types import Encoding, Failure, JsonObject, Query, QueryPart, Space  # noqa: E402

COUNT, DIM = 300, 8
SPACES = ("layer2", "layer3", "layer2-whitened")
WHITENING = TransformSpec(kind="whitening", floor=0.03, max_dim=6)
FILTERS: tuple[JsonObject | None, ...] = (None, {"label": "odd"}, {"width": {"gte": 100}, "path": {"glob": "3/*"}})


def ask(index: Index) -> list[list[object]]:
    """The ten hits of every query, in every space: id, score to six decimals, labels, paths."""
    answers: list[list[object]] = []
    for space in (one.name for one in index.spaces):
        for filter_ in FILTERS:
            for vector in vectors(5, dim=DIM, seed=7):
                chosen = None if filter_ is None else parse_filter(filter_)
                hits = index.search(Query(parts=[QueryPart(vector=vector)], space=space, filter=chosen))
                answers.append([[hit.id, round(hit.score, 6), list(hit.labels), list(hit.paths)] for hit in hits])
    return answers


def main() -> None:
    """Make the index, ask it, and archive both."""
    archive = HERE / f"schema-{SCHEMA_VERSION}"
    if archive.with_suffix(".zip").exists():
        raise SystemExit(f"{archive}.zip is there already: this format was released.")
    with tempfile.TemporaryDirectory() as work:
        spaces = [
            Space(name=name, recipe=recipe(layer=number, dim=DIM), encoding=Encoding())
            for name, number in zip(SPACES, (2, 3, 2), strict=True)
        ]
        spaces[2] = replace(spaces[2], storage="float16", transform=WHITENING)
        with Index.create(Path(work, "i.index"), spaces, policy=Policy(exact_search_bytes=0)) as index:
            fill(index)
            index.refresh()
            answers = ask(index)
        (index.path / "lock").unlink(missing_ok=True)
        shutil.make_archive(str(archive), "zip", work)
    archive.with_suffix(".json").write_text(json.dumps(answers) + "\n", encoding="utf-8")


def fill(index: Index) -> None:
    """Most images in a generation with graphs, ten newer, three removed, a failure."""
    data = vectors(COUNT, dim=DIM)
    with index.writer() as writer:
        with writer.transaction() as transaction:
            for number in range(COUNT - 10):
                transaction.add(new_image(number, data[number], spaces=SPACES))
        index.publish()
        with writer.transaction() as transaction:
            for number in range(COUNT - 10, COUNT):
                transaction.add(new_image(number, data[number], spaces=SPACES))
            transaction.fail(Failure(root="/photos", path="broken.png", mtime_ns=1, size=2, reason="damaged"))
        writer.set_not_duplicates([image_id(1), image_id(200)])
        with writer.transaction() as transaction:
            question = TaughtQuestion(space="layer2", parts=(QueryPart(id=image_id(5)),))
            session = transaction.start_session(question, "taught")
            transaction.add_round(session, session, Marks(more=(image_id(6), image_id(200)), less=(image_id(7),)))
            board = transaction.add_board("Spring")
            item, _ = transaction.add_image_item(board, image_id(200), "the blue one")
            transaction.add_question_item(board, "like it", {"parts": [{"id": image_id(2)}]})
            transaction.add_comment(board, item, "Ada", "yes")
            transaction.add_vote(board, item, "Ada")
            expires = "2040-01-01T00:00:00+00:00"
            transaction.add_share(board, "guests", "token", may_comment=True, may_vote=True, expires_at=expires)
            body = {"parts": [{"id": image_id(2)}], "min_score": 0.5}
            watch = transaction.add_watch("new", body, url="https://example.com/", form="json", secret="secret")
            transaction.learn("b" * 64, ["even", "odd"], vectors(2, dim=DIM))
            transaction.note_matches(watch, [[Match(image_id(2), 0.75, None)]], seen_seq=COUNT)
        writer.remove([image_id(3), image_id(200), image_id(COUNT - 1)])


if __name__ == "__main__":
    main()
