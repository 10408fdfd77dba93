"""The client: every call of the HTTP interface as a method.

`_client.py` is made of `_async_client.py`: change this one, and run `python client/generate.py`.
"""
# ruff: noqa: A002  (id and filter are the interface's own words)

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from lookalike_client import _calls
from lookalike_client._async_nouns import AsyncNouns
from lookalike_client._calls import Box, Call, SearchOptions
from lookalike_client._errors import APIError, ConnectionFailed, TimedOut
from lookalike_client._images import ImageInput
from lookalike_client._many import Outcome, Progress, apart_async, run_many_async
from lookalike_client._models import Aspect, DuplicateGroup, Image, ImageMap, IndexInfo, Part, SearchResult, SpaceInfo
from lookalike_client._notebook import Pictures


class AsyncClient(AsyncNouns):
    """A Lookalike server. Close the client after use, or use it in a `with` block: connections are kept and used again.

    Any number of threads may share a `Client`, any number of tasks of one event loop an `AsyncClient`.

    base_url: the server's address, with the path where a proxy puts it under one. api_key: sent as
    `Authorization: Bearer`; nothing is read from the environment. timeout: seconds without any progress of connecting,
    sending or receiving (not of a whole call), or an `httpx.Timeout`. retries: how often a call is repeated after a
    refused or broken connection or a 503, and three times as often after a 429; the wait before it grows from up to
    0.5 s to up to 8 s, on top of what the server asks for (`Retry-After`), 30 s at most. Timeouts are not repeated.
    transport: what carries the requests instead of the network, for tests.

    An image is a path, the bytes of an image file, a binary file object (read once, from where it stands), a
    `PIL.Image.Image`, or a numpy array: uint8, (height, width), (height, width, 3) RGB or (height, width, 4) RGBA. The
    last two are sent as PNG; where there is a file, pass the file: it is smaller, and only its bytes have its id.

    Where an index can be named and is not, it is the server's first; where a space can, it is the index's default.

    Every method raises LookalikeError's children for what the server, or the way to it, does (NotFound for an id, space
    or index that it does not know), and OSError, TypeError or ValueError for what is wrong with an argument. Raises
    ValueError itself for a base_url, api_key or retries that cannot be meant.
    """

    async def search(
        self,
        image: ImageInput | None = None,
        *,
        text: str | None = None,
        id: str | None = None,
        vector: Sequence[float] | None = None,
        parts: Sequence[Part] | None = None,
        aspects: Sequence[Aspect] | None = None,
        prompt: str | None = None,
        combine: Literal["sum", "best"] = "sum",
        k: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        max_fmr: float | Literal["auto"] | None = None,
        filter: Mapping[str, Any] | None = None,
        space: str | None = None,
        index: str | None = None,
        box: Box | None = None,
        fold: bool = False,
        turns: bool = False,
        rerank: bool = False,
    ) -> SearchResult:
        """The `k` nearest images after the first `offset`, of exactly one of an image, words, the id of an indexed
        image, an embedding ((dim,) numbers), weighted parts, aspects, each with parts and a space of its own, or a
        prompt such as `red bicycle::2 beach --no people`, whose paths are read here.

        combine: `sum`: a score is of all parts and aspects together; `best`: of the part that is nearest, and what is
        nearer to a part of negative weight is no hit.
        text: looked for in labels, metadata and names, and in what images show where the index has a space of words. An
        image that is asked for by id is not among its own hits. min_score: leave out hits below this score, -1..1.
        max_fmr: leave out hits with a higher false-match rate; "auto": above what 20 images reach by chance, but
            for near copies.
        filter: which images may be hits, e.g. `{"label": "cat", "width": {"gte": 1000}}`; k images are found whenever k
        match. box: x, y, width, height in pixels of the upright `image`; only this part is looked at. fold: near-equal
        images are one hit, with its `copies`. turns: ask in all eight orientations; an image's best score counts.
        rerank: in a space of regions, look where the image, or that of `id`, lies in the ten best hits, and order them
            by how alike it is there (`Hit.match`).

        Raises UnsupportedImage or Unprocessable (the image is none, or cannot be decoded), TooLarge, NotFound,
        Unprocessable (a filter or a vector that cannot be meant); TypeError for none or two of the seven;
        PromptInvalid.
        """
        options = SearchOptions(
            k=k,
            offset=offset,
            min_score=min_score,
            max_fmr=max_fmr,
            filter=filter,
            space=space,
            index=index,
            fold=fold,
            turns=turns,
            rerank=rerank,
        )
        one = {"image": image, "text": text, "id": id, "vector": vector, "parts": parts}
        many = {"aspects": aspects, "prompt": prompt, "combine": combine, "box": box}
        call = await apart_async(_calls.search, options=options, **one, **many)
        return await self._found(call, index)

    async def search_many(
        self,
        images: Iterable[ImageInput],
        *,
        concurrency: int = 8,
        progress: Progress = False,
        k: int = 10,
        min_score: float | None = None,
        max_fmr: float | Literal["auto"] | None = None,
        filter: Mapping[str, Any] | None = None,
        space: str | None = None,
        index: str | None = None,
        fold: bool = False,
        turns: bool = False,
        rerank: bool = False,
    ) -> AsyncIterator[Outcome[ImageInput, SearchResult]]:
        """`search` for each of many images, so many at once, as Outcomes in their order while you iterate.

        An image that fails is an Outcome with an `error`, and costs the others nothing. images: read when needed.
        progress: True for a bar (it needs tqdm), or a function that is told how many are done.
        Raises ValueError for a concurrency below 1, ImportError for a bar without tqdm.
        """
        flags = {"fold": fold, "turns": turns, "rerank": rerank}
        options = SearchOptions(
            k=k, min_score=min_score, max_fmr=max_fmr, filter=filter, space=space, index=index, **flags
        )

        async def search(image: ImageInput) -> SearchResult:
            call = await apart_async(_calls.search, image=image, options=options)
            return await self._found(call, index)

        async for outcome in run_many_async(search, images, concurrency, progress):
            yield outcome

    async def similar(
        self,
        id: str,
        *,
        k: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        max_fmr: float | Literal["auto"] | None = None,
        filter: Mapping[str, Any] | None = None,
        space: str | None = None,
        index: str | None = None,
        fold: bool = False,
    ) -> SearchResult:
        """The nearest images of an indexed one, itself left out: `search(id=...)` as a GET, which a proxy may cache.

        Raises NotFound.
        """
        options = SearchOptions(
            k=k, offset=offset, min_score=min_score, max_fmr=max_fmr, filter=filter, space=space, index=index, fold=fold
        )
        return await self._found(_calls.similar(id, options=options), index)

    async def add(
        self,
        image: ImageInput,
        *,
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        index: str | None = None,
        name: str | None = None,
    ) -> Image:
        """Add an image; the next search finds it, and it is on the server's disk when this returns.

        Adding the same bytes again is harmless: the id is their SHA-256. metadata: what JSON can hold. name: the file
        name to send with the upload; none of the caller's own is sent.

        Raises UnsupportedImage, Unprocessable, TooLarge, Forbidden, Unavailable (another process keeps writing to the
        index), DiskFull.
        """
        return await self._run(
            await apart_async(_calls.add, image, labels=labels, metadata=metadata, index=index, name=name)
        )

    async def add_many(
        self,
        images: Iterable[ImageInput],
        *,
        concurrency: int = 4,
        progress: Progress = False,
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        index: str | None = None,
    ) -> AsyncIterator[Outcome[ImageInput, Image]]:
        """`add` for each of many images, as `search_many` does it. labels, metadata: of all of them."""
        kept = list(labels)

        async def add(image: ImageInput) -> Image:
            return await self._run(await apart_async(_calls.add, image, labels=kept, metadata=metadata, index=index))

        async for outcome in run_many_async(add, images, concurrency, progress):
            yield outcome

    async def get(self, id: str, index: str | None = None) -> Image:
        """Everything the server knows of an image. Raises NotFound."""
        return await self._run(_calls.get(id, index=index))

    async def update(
        self,
        id: str,
        *,
        labels: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        index: str | None = None,
    ) -> Image:
        """Change an image; returns it as it is then. What is None stays.

        labels: replace all labels; `[]` removes them. metadata: merged into what is there (RFC 7396): a value replaces
        a key's value, None removes the key. Raises NotFound, Unprocessable, Forbidden, Unavailable, DiskFull.
        """
        return await self._run(_calls.update(id, labels=labels, metadata=metadata, index=index))

    async def delete(self, id: str, index: str | None = None) -> None:
        """Remove an image from the index. Raises NotFound, Forbidden, Unavailable, DiskFull."""
        await self._run(_calls.delete(id, index=index))

    async def images(
        self, *, filter: Mapping[str, Any] | None = None, page_size: int = 100, index: str | None = None
    ) -> AsyncIterator[Image]:
        """All images that a filter lets through, as they were added, read `page_size` at a time while you iterate."""
        cursor = None
        while True:
            page = await self._run(_calls.images(cursor=cursor, page_size=page_size, filter=filter, index=index))
            for image in page.images:
                yield image
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def duplicates(
        self, tier: str = "bytes", *, page_size: int = 50, index: str | None = None
    ) -> AsyncIterator[DuplicateGroup]:
        """Groups of duplicates of a kind, read from the server `page_size` at a time while you iterate.

        tier: `bytes`, as they are now; `pixels`, `photo`, `moment` or `alike`, as `lookalike dups` found them last.
        Raises NotFound, also where it never looked for this kind, Unprocessable.
        """
        cursor = None
        while True:
            page = await self._run(_calls.duplicates(tier=tier, cursor=cursor, page_size=page_size, index=index))
            for group in page.groups:
                yield group
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def decide(
        self,
        images: Iterable[str],
        decision: Literal["not-duplicates", "undecided"] = "not-duplicates",
        index: str | None = None,
    ) -> None:
        """Remember, by their ids, that images are not duplicates of each other, also after later builds; `undecided`
        takes that back. An id given twice: all of its copies are wanted.

        Raises NotFound, Unprocessable, Forbidden, Unavailable, DiskFull.
        """
        await self._run(_calls.decide(images, decision=decision, index=index))

    async def embed(
        self, images: ImageInput | Iterable[ImageInput], *, space: str | None = None, index: str | None = None
    ) -> list[list[float]]:
        """Embeddings of one or several images, in their order, each (dim,) of unit length; a list of one for one image.

        They travel in one request, of which the server limits the number (1..64) and the size. Raises UnsupportedImage,
        Unprocessable, TooLarge, NotFound.
        """
        return await self._run(await apart_async(_calls.embed, images, space=space, index=index))

    async def map(self, *, space: str | None = None, index: str | None = None) -> ImageMap:
        """The map of a space in two dimensions, as `lookalike map` made it last. Raises NotFound, also without one."""
        return await self._run(_calls.image_map(space=space, index=index))

    async def indexes(self) -> list[IndexInfo]:
        """The served indexes; the first is the default."""
        return await self._run(_calls.indexes())

    async def spaces(self, index: str | None = None) -> list[SpaceInfo]:
        """The spaces of an index, and how far they are. Raises NotFound."""
        return await self._run(_calls.spaces(await self._index_name(index)))

    async def add_space(
        self,
        layers: int | Iterable[int] = (),
        *,
        pooling: str | None = None,
        transform: str | None = None,
        style: bool = False,
        regions: bool = False,
        index: str | None = None,
    ) -> SpaceInfo:
        """Add a space of these layers of the index's model, and let the server fill it from the files while it is used.

        Returns at once: `spaces` says how far it is. Adding it again is harmless, and goes on where filling stopped.
        layers: one, or several that are one space; negative ones count from the end. pooling: `cls`, `mean`,
        `gem`, `cls+mean`, `cls+gem`, `mean+std` or `pooler`. transform: `whiten`, or `none`. style: the space of style,
        regions: that of parts of images, each instead of layers. Raises Unprocessable (not offered), Conflict,
        Forbidden, Unavailable, NotFound.
        """
        name = await self._index_name(index)
        own = {"style": style, "regions": regions}
        return await self._run(_calls.add_space(layers, pooling=pooling, transform=transform, own=own, index=name))

    async def set_default_space(self, name: str, *, force: bool = False, index: str | None = None) -> SpaceInfo:
        """Make a space the one where searches look that name none. force: also where images are missing in it.

        Raises Conflict (it is not complete), NotFound, Forbidden, Unavailable.
        """
        return await self._run(_calls.set_default_space(name, force=force, index=await self._index_name(index)))

    async def drop_space(self, name: str, index: str | None = None) -> None:
        """Drop a space with its vectors. Raises Conflict (it is the default), NotFound, Forbidden, Unavailable."""
        await self._run(_calls.drop_space(name, index=await self._index_name(index)))

    async def _index_name(self, index: str | None) -> str:
        """The name that an address needs: the given one, or the server's first."""
        return index if index is not None else (await self.indexes())[0].name

    async def thumbnail(self, id: str, *, size: int = 256, index: str | None = None) -> bytes:
        """A JPEG that fits into `size` x `size` pixels. Raises NotFound, also where the image's file is gone."""
        return await self._run(_calls.thumbnail(id, size=size, index=index))

    async def file(self, id: str, index: str | None = None) -> bytes:
        """The image file itself, whose SHA-256 is the id. Raises NotFound, also where the file is gone."""
        return await self._run(_calls.file(id, index=index))

    async def ready(self) -> bool:
        """Whether searches are answered now. A server that cannot be reached is not ready; nothing is repeated.

        Raises APIError (4xx) or ProtocolError where something else than a Lookalike server answers.
        """
        try:
            return await self._run(_calls.ready(), retries=0)
        except (ConnectionFailed, TimedOut):
            return False
        except APIError as error:
            if error.status >= 500:
                return False
            raise

    async def _found(self, call: Call[SearchResult], index: str | None) -> SearchResult:
        return replace(await self._run(call), _pictures=Pictures(self._http, index))
