"""A client's connections to one server: each call sent, and sent again where that is safe.

`_connection.py` is made of `_async_connection.py`: change this one, and run `python client/generate.py`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx

from lookalike_client._attempts import Attempts
from lookalike_client._calls import Answer, Call
from lookalike_client._many import sleep_async
from lookalike_client._server import checked_url, headers, shown


class AsyncConnection:
    """What a client is built on: the client says what the arguments are."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = 30.0,
        retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if retries < 0:
            raise ValueError(f"retries is 0 or more; found {retries}.")
        url = checked_url(base_url)
        self._server = shown(url)
        self._retries = retries
        self._sleep = sleep_async
        self._http = httpx.AsyncClient(base_url=url, headers=headers(api_key), timeout=timeout, transport=transport)

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server!r})"

    async def _run(self, call: Call[Answer], *, retries: int | None = None) -> Answer:
        attempts = Attempts(call, retries=self._retries if retries is None else retries, server=self._server)
        while True:
            request = call.request(self._http)
            try:
                response = await self._http.send(request)
            except httpx.HTTPError as failure:
                wait = attempts.after_failure(failure)
            else:
                again = attempts.after_answer(response)
                if again is None:
                    return attempts.answer(response)
                wait = again
            await self._sleep(wait)
