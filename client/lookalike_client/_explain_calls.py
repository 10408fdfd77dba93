"""Requests for explanations, as values."""

from __future__ import annotations

import operator

from lookalike_client._answers import read_answer
from lookalike_client._calls import Box, Call, given, image_path, json_part
from lookalike_client._explain_models import Explanation
from lookalike_client._images import ImageInput
from lookalike_client._models import Part


def explain(
    hit: str,
    image: ImageInput | None,
    *,
    id: str | None,  # noqa: A002
    box: Box | None,
    space: str | None,
    matches: int,
    index: str | None,
) -> Call[Explanation]:
    """A hit, compared with exactly one of an image and an indexed image."""
    if (image is None) == (id is None):
        raise TypeError(f"A hit is explained to exactly one of image and id; found {'none' if id is None else 'both'}.")
    path = f"{image_path(hit)}/explain"
    if image is None:
        if box is not None:
            raise TypeError("`box` belongs to `image`.")
        params = given({"with": id, "space": space, "matches": str(operator.index(matches)), "index": index})
        return Call(method="GET", path=path, params=params, parse=lambda one: read_answer(Explanation, one))
    part = json_part(Part(image=image, box=box))
    del part["weight"]
    body = {**part, **given({"space": space, "matches": operator.index(matches), "index": index})}
    return Call(method="POST", path=path, json=body, parse=lambda one: read_answer(Explanation, one))
