"""The server process: opens indexes, loads encoders, binds, serves, and closes everything again."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import uvicorn

from api.app import create_app
from api.service import Service
from api.settings import Settings
from indexer.encoder import encoder_for
from search.errors import SearchError
from search.index import Index


class CannotServe(SearchError):
    """The server cannot start as it was asked to; the text says what to change."""


def run(directories: Sequence[Path], settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve these indexes until SIGINT or SIGTERM. Raises SearchError, IndexerError, CannotServe before it starts."""
    if settings.api_key is None and not _is_loopback(settings.host):
        raise CannotServe(
            f"{settings.host} can be reached from other machines. Give a key with --api-key or LOOKALIKE_API_KEY, or "
            "stay on 127.0.0.1."
        )
    listener = _bind(settings.host, settings.port)
    with open_services(directories, settings) as services:
        config = uvicorn.Config(create_app(services, settings), log_level="warning", server_header=False)
        listener.listen(config.backlog)  # before the address is told: who reads it may connect at once
        port = listener.getsockname()[1]
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(settings.host, settings.host)  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        for service in services.values():
            announce(f"Serving {service.name}: {service.index.catalog.counts()[0]:,} images")
        announce(f"Open http://{shown}:{port} in a browser; the API is described at http://{shown}:{port}/docs")
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn drains on the first signal, then raises it again under the handler it found: end with 0, not -15
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def open_services(directories: Sequence[Path], settings: Settings) -> Iterator[dict[str, Service]]:
    """Open indexes and load their encoders; the name of each is its folder's, without `.index`. Closes them at the end.

    Also where one of them cannot be opened: the process would not end while another's publication is waited for.
    """
    services: dict[str, Service] = {}
    with ExitStack() as closing:
        for directory in directories:
            name = directory.resolve().name.removesuffix(".index")
            if name in services:
                raise CannotServe(f"Two indexes are called {name}. Rename the folder of one.")
            # Writable: images can be added over HTTP. The lock is taken for each write only.
            index = Index.open(directory, writable=True)
            index.refresh()  # loads the generation now, not in the first search
            encoder = encoder_for(index.spaces, index.models)
            size = index.spaces[0].recipe.preprocessing.size
            encoder.encode(np.full((1, size, size, 3), 127, dtype=np.uint8))  # the first pass is slow: not a client's
            services[name] = Service(name, index, encoder, settings)
            closing.callback(services[name].close)
        yield services


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise CannotServe(f"Cannot listen on {host}:{port}: {reason}. Choose another with --port.") from error
    return listener
