"""Requests: each call of the HTTP interface as a value, built without sending anything and with no waiting."""
# ruff: noqa: A002  (id and filter are the interface's own words)

from __future__ import annotations

import json
import operator
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar, cast, get_args, get_type_hints
from urllib.parse import quote

import httpx

from lookalike_client import _answers
from lookalike_client._images import ImageInput, image_bytes, is_image
from lookalike_client._models import Aspect, Image, ImageMap, IndexInfo, Part, SearchResult, SpaceInfo
from lookalike_client._prompt import read_prompt

Answer = TypeVar("Answer")
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Answer]):
    """One call: what to send, and how to read a successful answer.

    Nearly every call may be sent again after a failure, because doing it twice leaves the server as doing it once does:
    searches and reads change nothing, an added image's id is its content's hash, PATCH sets what it names, DELETE ends
    in absence. Only the answer of a second DELETE differs: `absence_is_success` marks it. What would be there twice is
    marked by `once`: it is sent again only where the server cannot have done it.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], Answer]
    params: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    form: Mapping[str, str | list[str]] | None = None
    upload: tuple[str, bytes] | None = None
    absence_is_success: bool = False
    once: bool = False

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """A new request. Raises ValueError or TypeError where its values are no JSON."""
        files = None
        if self.upload is not None:
            name, data = self.upload
            files = {"image": (name, data, "application/octet-stream")}
        return http.build_request(
            self.method, self.path, params=self.params, json=self.json, data=self.form, files=files
        )


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of every kind of search, under the server's names. None and False are not sent."""

    k: int = 10
    offset: int = 0
    min_score: float | None = None
    max_fmr: float | Literal["auto"] | None = None
    filter: Mapping[str, Any] | None = None
    space: str | None = None
    index: str | None = None
    fold: bool = False
    turns: bool = False
    rerank: bool = False

    def to_json(self) -> dict[str, Any]:
        """The options that are given, as members of a JSON body."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {
            name: _plain(value, _OPTION_TYPES[name])
            for name, value in values.items()
            if value is not None and value is not False
        }

    def to_text(self) -> dict[str, str]:
        """The same as form fields or query parameters."""
        return {name: value if isinstance(value, str) else _dump(value) for name, value in self.to_json().items()}


_OPTION_TYPES = get_type_hints(SearchOptions)


def _plain(value: Any, kind: Any) -> Any:
    """A number as JSON can hold it: numpy's too."""
    if kind is int:
        return operator.index(value)
    return float(value) if float in get_args(kind) and not isinstance(value, str) else value


def search(
    *,
    options: SearchOptions,
    image: ImageInput | None = None,
    text: str | None = None,
    id: str | None = None,
    vector: Sequence[float] | None = None,
    parts: Sequence[Part] | None = None,
    aspects: Sequence[Aspect] | None = None,
    prompt: str | None = None,
    combine: Literal["sum", "best"] = "sum",
    box: Box | None = None,
) -> Call[SearchResult]:
    """A search by exactly one of image, text, id, vector, parts, aspects, prompt."""
    asked = {"image": image, "text": text, "id": id, "vector": vector, "parts": parts, "aspects": aspects}
    named = [*given({**asked, "prompt": prompt})]
    if len(named) != 1:
        raise TypeError(
            "A search takes exactly one of image, text, id, vector, parts, aspects and prompt; found "
            f"{' and '.join(named) or 'none'}."
        )
    if box is not None and image is None:
        raise TypeError("`box` belongs to `image`; a Part with an image has a box of its own.")
    if image is not None:
        form: dict[str, str | list[str]] = {**options.to_text()}
        if box is not None:
            form["box"] = ",".join(f"{value:.10g}" for value in _box(box))
        # Named plainly: what the file is called here is nobody's business there.
        return Call(
            method="POST",
            path="/v1/search/image",
            form=form,
            upload=("image", image_bytes(image)),
            parse=_answers.search_result,
        )
    if prompt is not None:
        paths = {part.value for part in read_prompt(prompt).paths}
        body: dict[str, Any] = {"prompt": prompt}
        if paths:
            body["images"] = {path: _base64(path) for path in sorted(paths)}
    elif aspects is not None:
        body = {"aspects": [_aspect(aspect) for aspect in aspects]}
    else:
        one = parts if parts is not None else [Part(text=text, id=id, vector=vector)]
        body = {"parts": [json_part(part) for part in one]}
    if combine != "sum":
        body["combine"] = combine
    return Call(method="POST", path="/v1/search", json={**body, **options.to_json()}, parse=_answers.search_result)


def similar(id: str, *, options: SearchOptions) -> Call[SearchResult]:
    """A search by an indexed image."""
    return Call(method="GET", path=f"{image_path(id)}/similar", params=options.to_text(), parse=_answers.search_result)


def add(
    image: ImageInput,
    *,
    labels: Iterable[str],
    metadata: Mapping[str, Any] | None,
    index: str | None,
    name: str | None = None,
) -> Call[Image]:
    """Add an image."""
    form: dict[str, str | list[str]] = {"labels": _labels(labels)}
    if metadata is not None:
        form["metadata"] = _dump(metadata)
    if index is not None:
        form["index"] = index
    upload = (name or "image", image_bytes(image))
    return Call(method="POST", path="/v1/images", form=form, upload=upload, parse=_answers.image)


def get(id: str, *, index: str | None) -> Call[Image]:
    """Read an image's record."""
    return Call(method="GET", path=image_path(id), params=given({"index": index}), parse=_answers.image)


def update(
    id: str, *, labels: Iterable[str] | None, metadata: Mapping[str, Any] | None, index: str | None
) -> Call[Image]:
    """Change an image's labels and metadata."""
    body = {"labels": None if labels is None else _labels(labels), "metadata": metadata}
    return Call(
        method="PATCH", path=image_path(id), params=given({"index": index}), json=given(body), parse=_answers.image
    )


def delete(id: str, *, index: str | None) -> Call[None]:
    """Remove an image."""
    return Call(
        method="DELETE",
        path=image_path(id),
        params=given({"index": index}),
        parse=_answers.nothing,
        absence_is_success=True,
    )


def images(
    *,
    cursor: str | None,
    page_size: int,
    filter: Mapping[str, Any] | None,
    index: str | None,
) -> Call[_answers.Page]:
    """One page of images."""
    params = given({"cursor": cursor, "limit": str(operator.index(page_size)), "index": index})
    if filter is not None:
        params["filter"] = json.dumps(filter)
    return Call(method="GET", path="/v1/images", params=params, parse=_answers.page)


def embed(
    images: ImageInput | Iterable[ImageInput], *, space: str | None, index: str | None
) -> Call[list[list[float]]]:
    """Embed images."""
    several = [images] if is_image(images) else images
    texts = [_base64(image) for image in cast("Iterable[ImageInput]", several)]
    return Call(
        method="POST",
        path="/v1/embed",
        json=given({"input": texts, "space": space, "index": index}),
        parse=lambda response: _answers.embeddings(response, count=len(texts)),
    )


def image_map(*, space: str | None, index: str | None) -> Call[ImageMap]:
    """A space in two dimensions."""
    return Call(method="GET", path="/v1/map", params=given({"space": space, "index": index}), parse=_answers.image_map)


def duplicates(*, tier: str, cursor: str | None, page_size: int, index: str | None) -> Call[_answers.DuplicatePage]:
    """One page of groups of duplicates."""
    params = given({"tier": tier, "cursor": cursor, "limit": str(operator.index(page_size)), "index": index})
    return Call(method="GET", path="/v1/duplicates", params=params, parse=_answers.duplicates)


def decide(images: Iterable[str], *, decision: str, index: str | None) -> Call[None]:
    """Call images not duplicates, or take that back."""
    return Call(
        method="POST",
        path="/v1/duplicates/decisions",
        params=given({"index": index}),
        json={"images": [*images], "decision": decision},
        parse=_answers.decision,
    )


def indexes() -> Call[list[IndexInfo]]:
    """List what is served."""
    return Call(method="GET", path="/v1/indexes", parse=_answers.indexes)


def spaces(index: str) -> Call[list[SpaceInfo]]:
    """The spaces of an index."""
    return Call(method="GET", path=_spaces_path(index), parse=_answers.spaces)


def add_space(
    layers: int | Iterable[int], *, pooling: str | None, transform: str | None, own: Mapping[str, bool], index: str
) -> Call[SpaceInfo]:
    """Add a space, or go on filling it."""
    several = layers if isinstance(layers, Iterable) else [layers]
    body: dict[str, Any] = {"layers": [operator.index(layer) for layer in several]}
    if pooling is not None:
        body["pooling"] = pooling
    if transform is not None:
        body["transform"] = transform
    body |= {name: True for name, wanted in own.items() if wanted}
    return Call(method="POST", path=_spaces_path(index), json=body, parse=_answers.space)


def set_default_space(name: str, *, force: bool, index: str) -> Call[SpaceInfo]:
    """Make a space the default."""
    body = {"default": True, "force": bool(force)}
    return Call(method="PATCH", path=_spaces_path(index, name), json=body, parse=_answers.space)


def drop_space(name: str, *, index: str) -> Call[None]:
    """Drop a space."""
    return Call(method="DELETE", path=_spaces_path(index, name), parse=_answers.nothing, absence_is_success=True)


def _spaces_path(index: str, *name: str) -> str:
    return "/".join(["/v1/indexes", *(quote(part, safe="") for part in (index, "spaces", *name))])


def thumbnail(id: str, *, size: int, index: str | None) -> Call[bytes]:
    """A small JPEG of an image."""
    params = given({"size": str(operator.index(size)), "index": index})
    return Call(method="GET", path=f"{image_path(id)}/thumbnail", params=params, parse=_answers.picture)


def file(id: str, *, index: str | None) -> Call[bytes]:
    """An image's original file."""
    params = given({"index": index})
    return Call(method="GET", path=f"{image_path(id)}/file", params=params, parse=_answers.picture)


def ready() -> Call[bool]:
    """Whether searches are answered."""
    return Call(method="GET", path="/readyz", parse=_answers.ready)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def image_path(id: str) -> str:
    """The path of an image. Raises ValueError."""
    if not id:
        raise ValueError("An id is 64 hexadecimal digits; found an empty string.")
    # Dots too: as `..` they would climb out of /v1/images before the server sees them.
    return f"/v1/images/{quote(id, safe='').replace('.', '%2E')}"


def _labels(labels: Iterable[str]) -> list[str]:
    if isinstance(labels, str):
        raise TypeError(f"`labels` is a sequence of labels: [{labels!r}], not {labels!r}.")
    return list(labels)


def _box(box: Box) -> Box:
    x, y, width, height = (float(value) for value in box)
    return x, y, width, height


def _base64(image: ImageInput) -> str:
    return b64encode(image_bytes(image)).decode("ascii")


def _aspect(aspect: Aspect) -> dict[str, Any]:
    parts = [json_part(part) for part in aspect.parts]
    return given({"space": aspect.space, "parts": parts, "weight": float(aspect.weight)})


def json_part(part: Part) -> dict[str, Any]:
    """A part as JSON."""
    if not isinstance(part, Part):
        raise TypeError(f"`parts` is a sequence of Part, not of {type(part).__qualname__}.")
    values = {
        "image": None if part.image is None else _base64(part.image),
        "text": part.text,
        "id": part.id,
        "vector": None if part.vector is None else [float(value) for value in part.vector],
        "searched": True if part.searched else None,
        "weight": float(part.weight),
        "box": None if part.box is None else list(_box(part.box)),
    }
    return given(values)
