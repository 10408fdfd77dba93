"""Results as notebooks show them: small pictures with their scores."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

SIZE = 160
AT_ONCE = 8
TIMEOUT = 10.0


class Pictures:
    """Fetches thumbnails from the server that a result came from, in threads: a notebook runs an event loop already.

    It has the key, and so it does not go along when a result is pickled.
    """

    def __init__(self, http: httpx.Client | httpx.AsyncClient, index: str | None) -> None:
        self._url = http.base_url
        self._headers = dict(http.headers)
        self._params: dict[str, str] = {"size": str(SIZE)} | ({} if index is None else {"index": index})

    def __call__(self, ids: Sequence[str]) -> list[bytes | None]:
        """Thumbnails by id; None where there is none."""
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=TIMEOUT) as http:

            def one(image_id: str) -> bytes | None:
                try:
                    response = http.get(f"/v1/images/{image_id}/thumbnail", params=self._params)
                except httpx.HTTPError:
                    return None
                return response.content if response.is_success else None

            with ThreadPoolExecutor(AT_ONCE) as pool:
                return list(pool.map(one, ids))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def gallery(
    hits: Sequence[Any], name_of: Callable[[Any], str], pictures: Callable[[Sequence[str]], list[bytes | None]]
) -> str:
    """Hits as HTML: thumbnails in a row that wraps, each with its score and name."""
    cells = []
    for hit, picture in zip(hits, pictures([hit.id for hit in hits]), strict=True):
        name = html.escape(name_of(hit))
        shown = "no picture"
        if picture is not None:
            shown = (
                f'<img src="data:image/jpeg;base64,{b64encode(picture).decode()}" alt="{name}" style="max-width:100%">'
            )
        labels, style = html.escape(", ".join(hit.labels)), f"width:{SIZE}px;margin:4px;display:inline-block"
        cells.append(
            f'<figure style="{style};vertical-align:top" title="{labels}">{shown}'
            f'<figcaption style="overflow-wrap:anywhere">{hit.score:.3f} {name}</figcaption></figure>'
        )
    return f"<div>{''.join(cells)}</div>"
