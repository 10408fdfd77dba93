"""One search from the command line: asked of an index on disk, or of a server, answered in the same JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike_client import Client, LookalikeError, Unauthorized

from api.errors import ServerFailed
from indexer.encoders.load import encoder_for
from indexer.errors import ImageRejected, SourceMissing
from indexer.pictures.decode import DecodeLimits, decode
from indexer.pictures.sheet import CELL, Picture, draw_sheet
from search.errors import StorageFailed
from search.filters import parse_filter, parse_short
from search.index import Index
from search.types import Query, QueryPart


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the user asked on the command line: an image file or an id, and how to look."""

    image: Path | None
    id: str | None
    k: int
    min_score: float | None
    filter: str | None
    space: str | None
    box: tuple[float, float, float, float] | None


def ask_index(path: Path, question: Question) -> dict[str, Any]:
    """Answer from an index on disk, loading its encoder where the question is a picture. The HTTP answer's form."""
    began = time.perf_counter()
    took = {"decode": 0.0, "encode": 0.0, "search": 0.0}
    with Index.open(path) as index:
        space = index.space(question.space)
        part = QueryPart(id=question.id)
        if question.image is not None:
            data = _read(question.image)
            start = time.perf_counter()
            try:
                decoded = decode(data, space.recipe.preprocessing, limits=DecodeLimits(), box=question.box)
            except ImageRejected as error:
                raise ImageRejected(f"{question.image} cannot be used: {error}.") from error
            took["decode"] = time.perf_counter() - start
            encoder = encoder_for([space], index.models)
            start = time.perf_counter()
            part = QueryPart(vector=encoder.encode(decoded.pixels[None])[0][0])
            took["encode"] = time.perf_counter() - start
        start = time.perf_counter()
        chosen = None if question.filter is None else parse_filter(parse_short(question.filter))
        hits = index.search(
            Query(parts=[part], k=question.k, min_score=question.min_score, filter=chosen, space=space.name)
        )
        took["search"] = time.perf_counter() - start
    took["total"] = time.perf_counter() - began
    return {
        "hits": [
            {
                "id": hit.id,
                "score": hit.score,
                "path": hit.path,
                "paths": list(hit.paths),
                "labels": list(hit.labels),
                "metadata": dict(hit.metadata),
                "width": hit.width,
                "height": hit.height,
            }
            for hit in hits
        ],
        "space": space.name,
        "took_ms": {stage: round(1000 * seconds, 3) for stage, seconds in took.items()},
    }


def ask_server(url: str, api_key: str | None, question: Question) -> dict[str, Any]:
    """Ask a server. Raises ServerFailed with its own words."""
    chosen = None if question.filter is None else parse_short(question.filter)
    data = None if question.image is None else _read(question.image)
    try:
        with Client(url, api_key=api_key) as client:
            answer = client.search(
                data,
                id=question.id,
                k=question.k,
                min_score=question.min_score,
                filter=chosen,
                space=question.space,
                box=question.box,
            )
    except Unauthorized as error:
        raise ServerFailed(f"{url} wants a key, or another one: --api-key KEY, or LOOKALIKE_API_KEY.") from error
    except (LookalikeError, ValueError) as error:  # ValueError: an address or a key that cannot be one
        text = str(error).replace("base_url", "--server")
        raise ServerFailed(text if url in text else f"{url}: {text}") from error
    return answer.to_json()


Fetch = Callable[[str], bytes | None]
"""An indexed picture's bytes by its id; None where it cannot be had."""


@contextmanager
def pictures_of_index(path: Path) -> Iterator[Fetch]:
    """The pictures of an index on this machine: the files themselves."""
    with Index.open(path) as index:
        yield lambda image_id: _first_readable(index.image(image_id).paths)


@contextmanager
def pictures_of_server(url: str, api_key: str | None) -> Iterator[Fetch]:
    """The pictures of a server, whose files are not on this machine: its thumbnails."""
    with Client(url, api_key=api_key) as client:

        def fetch(image_id: str) -> bytes | None:
            try:
                return client.thumbnail(image_id, size=CELL)
            except LookalikeError:
                return None

        yield fetch


def draw(question: Question, answer: Mapping[str, Any], out: Path, fetch: Fetch) -> None:
    """Draw query and hits as a contact sheet. Raises StorageFailed where it cannot be written."""
    query_data = fetch(question.id or "") if question.image is None else _read(question.image)
    name = "an indexed image" if question.image is None else question.image.name
    hits = [
        Picture(data=fetch(hit["id"]), heading=f"{hit['score']:.3f}", caption=hit["path"] or hit["id"])
        for hit in answer["hits"]
    ]
    try:
        draw_sheet(Picture(data=query_data, heading="query", caption=name), hits, out)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageFailed(f"The sheet {out} cannot be written: {reason}. Name another file, .png or .jpg.") from error


def _first_readable(paths: Iterable[str]) -> bytes | None:
    for path in paths:
        try:
            return Path(path).read_bytes()
        except OSError:
            continue
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceMissing(f"{path} cannot be read: {error.strerror}.") from error
