"""The command `explain`: which patches of a hit match which of the query's picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.shown import checked_id, meant, numbers
from search.console import Json, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api.serving.explaining import Explained, Source
    from api.serving.timing import Timing
    from indexer.explain import Match
    from indexer.pictures.decode import Box
    from search.index import Index
    from search.types import Space


def explain(
    directory: Annotated[Path, typer.Argument(metavar="INDEX", help="The index.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A picture, or the id of an indexed one.")],
    hit: Annotated[str, typer.Argument(metavar="HIT_ID", help="The id of the hit, as `search --json` says it.")],
    space: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the index's default.")] = None,
    box: Annotated[str | None, typer.Option(metavar="X,Y,W,H", help="Look at this part only, in pixels.")] = None,
    matches: Annotated[int, typer.Option(min=0, max=64, help="How many matches to list at most.")] = 8,
    out: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Draw both pictures, matches in equal colours.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show why an image is a hit: which parts of it look like which of the query."""
    from indexer.pictures.sheet import is_drawable

    hit_id = checked_id(hit, "HIT_ID")
    part = None if box is None else numbers(box)
    other = None if meant(query).picture is not None else checked_id(query, "QUERY")
    if part is not None and other is not None:
        raise typer.BadParameter("Only a picture can have a box.", param_hint="--box")
    if out is not None and not (out.parent.is_dir() and is_drawable(out)):
        raise typer.BadParameter("Name a .png or .jpg file in a folder that is there.", param_hint="--out")
    from api.http.explain_schemas import ExplainAnswer
    from api.serving.timing import Timing
    from search.index import Index  # imports faiss and sqlalchemy: not for --help

    began, timing = time.perf_counter(), Timing()
    with Index.open(directory) as index:
        pictures = _pictures(index, query, other, hit_id, index.space(space))
        explained = _explained(index, pictures, index.space(space), part, matches, timing)
    timing.total = time.perf_counter() - began
    if out is not None:
        _draw(explained, pictures, out)
    if as_json:
        print_json(ExplainAnswer.of(explained, timing).model_dump() | ({} if out is None else {"out": str(out)}))
    else:
        _show(explained.explanation.matches)
        if out is not None:
            say(f"Drawn: {out}")


@dataclass(frozen=True)
class _Picture:
    """A picture's bytes, where they came from, and its name for people."""

    data: bytes
    source: Source
    name: str


def _pictures(index: Index, query: str, other: str | None, hit: str, space: Space) -> tuple[_Picture, _Picture]:
    """The query's picture, and the hit's. Raises SourceMissing, UnknownImage, FileGone."""
    from indexer.errors import SourceMissing
    from indexer.sources import as_on_disk

    size = space.recipe.preprocessing.size
    if other is not None:
        return _indexed(index, other, size), _indexed(index, hit, size)
    try:
        data = as_on_disk(Path(query)).read_bytes()
    except OSError as error:
        raise SourceMissing(f"{query} cannot be read: {error.strerror}.") from error
    return _Picture(data, "image", query), _indexed(index, hit, size)


def _indexed(index: Index, image_id: str, at_least: int) -> _Picture:
    from api.errors import FileGone
    from api.serving.pictures import kept_thumbnail, open_original

    name = next(iter(index.image(image_id).paths), image_id)
    try:
        with open_original(index, image_id).file as file:
            return _Picture(file.read(), "file", name)
    except FileGone:
        small = kept_thumbnail(index, image_id, at_least)
        if small is None:
            raise
        return _Picture(small, "thumbnail", name)


def _explained(
    index: Index,
    pictures: tuple[_Picture, _Picture],
    space: Space,
    part: Box | None,
    matches: int,
    timing: Timing,
) -> Explained:
    from api.serving.explaining import Explained
    from indexer.encoders.patches import PatchEncoder
    from indexer.errors import ImageRejected
    from indexer.explain import explain as explain_pictures
    from indexer.pictures.decode import DecodeLimits, decode

    encoder = PatchEncoder(space, index.models)
    began, decoded = time.perf_counter(), []
    for picture, box in zip(pictures, (part, None), strict=True):
        try:
            decoded.append(decode(picture.data, (encoder.preprocessing,), limits=DecodeLimits(), box=box))
        except ImageRejected as error:
            raise ImageRejected(f"{picture.name} cannot be used: {error}.") from error
    timing.decode = time.perf_counter() - began
    explanation = explain_pictures(encoder, decoded[0], decoded[1], box=part, most=matches)
    timing.encode = time.perf_counter() - began - timing.decode
    return Explained(
        space=space, explanation=explanation, query_source=pictures[0].source, hit_source=pictures[1].source
    )


def _draw(explained: Explained, pictures: tuple[_Picture, _Picture], out: Path) -> None:
    from indexer.pictures.matched import Pane, draw_matches
    from indexer.pictures.sheet import Picture
    from search.errors import StorageFailed

    found = explained.explanation
    panes = [
        Pane(
            picture=Picture(data=picture.data, heading=heading, caption=picture.name),
            grid=side.grid,
            clearness=side.clearness.tolist(),
        )
        for picture, heading, side in zip(pictures, ("query", "hit"), (found.query, found.hit), strict=True)
    ]
    try:
        draw_matches(panes[0], panes[1], [(match.query_box, match.hit_box) for match in found.matches], out)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageFailed(
            f"{out} cannot be written: {reason}. Name a .png or .jpg file in a folder that is there."
        ) from error


def _show(matches: Sequence[Match]) -> None:
    """A line a match: where it is in each picture, in percent from its left and upper edge."""
    for number, match in enumerate(matches, start=1):
        query, hit = (_place(box) for box in (match.query_box, match.hit_box))
        say(f"{number:>2}  {query} -> {hit}  cosine {match.cosine:.2f}, margin {match.margin:.2f}")
    if not matches:
        say("No part of one picture is clearly like one of the other, and nothing else there.")


def _place(box: Box) -> str:
    x, y, width, height = box
    return f"{x + width / 2:4.0%} right {y + height / 2:4.0%} down"
