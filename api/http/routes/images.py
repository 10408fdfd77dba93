"""The images of an index: list, read, change, delete, add, and their pictures by id."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from fastapi import Path as PathParameter

from api.http import problems
from api.http.files import content_disposition, is_known, sent
from api.http.routes import AS_YOU_HAVE_IT, CheckedRoute, Chosen, InAddress, answers, choose
from api.http.schemas import ImageAnswer, ImageId, ImagePatch, ImagesAnswer
from api.serving.questions import Name, read_json
from search.filters import parse_filter, parse_short

router = APIRouter(prefix="/v1/images", tags=["images"], route_class=CheckedRoute)
Id = Annotated[ImageId, PathParameter(description="SHA-256 of the image file.")]
FOREVER = "private, max-age=31536000, immutable"
"""An id names a content: what it leads to never changes."""


@router.get("", responses=answers(404))
async def list_images(
    service: Chosen,
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$", description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    filter: Annotated[  # noqa: A002
        str | None, Query(description="Only these, as of a search: `label=cat,width>=1000`, or the JSON object.")
    ] = None,
) -> ImagesAnswer:
    """All images, or those that a filter lets through, a page at a time, in the order they were added."""
    only = [] if filter is None else [parse_filter(parse_short(filter))]
    records, more = await service.read(lambda index: index.catalog.page(int(cursor or 0), limit, *only))
    return ImagesAnswer(
        images=[ImageAnswer.of(record) for record in records], next_cursor=None if more is None else str(more)
    )


@router.post("", status_code=201, responses=answers(404, 413, 415, 507) | {200: {"model": ImageAnswer}})
async def add_image(
    request: Request,
    response: Response,
    image: Annotated[UploadFile, File(description="The image file.")],
    labels: Annotated[list[str] | None, Form()] = None,
    metadata: Annotated[str | None, Form(description='A JSON object, e.g. {"price": 12.5}.')] = None,
    index: Annotated[Name | None, Form()] = None,
    in_address: InAddress = None,
) -> ImageAnswer:
    """Add an image; it is found by the next search. 201 if it is new, 200 if the index had it."""
    service = choose(request, index, in_address)
    record, new = await service.add(await image.read(), labels or [], _object(metadata))
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/v1/images/{record.id}"
    return ImageAnswer.of(record)


@router.get("/{id}", responses=answers(404))
async def read_image(service: Chosen, id: Id) -> ImageAnswer:  # noqa: A002
    """Everything known of an image."""
    return ImageAnswer.of(await service.read(lambda index: index.image(id)))


@router.patch("/{id}", responses=answers(404, 413, 507))
async def change_image(service: Chosen, id: Id, body: ImagePatch) -> ImageAnswer:  # noqa: A002
    """Change labels and metadata."""
    return ImageAnswer.of(await service.change(id, body.labels, body.metadata))


@router.delete("/{id}", status_code=204, responses=answers(404, 507))
async def delete_image(service: Chosen, id: Id) -> None:  # noqa: A002
    """Remove an image from the index. Builds leave it out from now on; its file stays, unless it was uploaded."""
    await service.delete(id)


@router.get(
    "/{id}/thumbnail",
    responses=answers(404) | {200: {"content": {"image/jpeg": {}}}} | AS_YOU_HAVE_IT,
    response_class=Response,
)
async def thumbnail(
    request: Request,
    service: Chosen,
    id: Id,  # noqa: A002
    size: Annotated[int, Query(ge=16, le=1_024)] = 256,
) -> Response:
    """A small JPEG that fits in size x size pixels."""
    headers = {"Cache-Control": FOREVER, "ETag": f'"{id}-{size}"'}
    if is_known(request, headers["ETag"]):
        await service.read(lambda index: index.catalog.rowid(id))
        return Response(status_code=304, headers=headers)
    return Response(await service.pictures.thumbnail(id, size), media_type="image/jpeg", headers=headers)


@router.get(
    "/{id}/file",
    responses=answers(404, 416)
    | {200: {"content": {"image/*": {}}}, 206: {"description": "The range that was asked for."}}
    | AS_YOU_HAVE_IT,
    response_class=Response,
)
async def file(request: Request, service: Chosen, id: Id) -> Response:  # noqa: A002
    """The original file, or the range of its bytes that the header Range names."""
    headers = {"Cache-Control": FOREVER, "ETag": f'"{id}"'}
    if is_known(request, headers["ETag"]):
        await service.read(lambda index: index.catalog.rowid(id))
        return Response(status_code=304, headers=headers)
    original = await service.pictures.original(id)
    headers["Content-Disposition"] = content_disposition(original.name)
    return sent(
        request,
        original.file,
        headers,
        f"image/{original.format}" if original.format.isalnum() else "application/octet-stream",
    )


def _object(text: str | None) -> dict[str, object]:
    if not text:
        return {}
    try:
        value = read_json(text)
    except (ValueError, RecursionError) as error:
        raise problems.malformed('`metadata` is not JSON. Send an object such as {"price": 12.5}.') from error
    if not isinstance(value, dict):
        raise problems.invalid('`metadata` is a JSON object, such as {"price": 12.5}.')
    return value
