"""The server process: opens indexes, loads encoders, binds, serves, and closes everything again."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from api import logs
from api.errors import CannotServe
from api.http.access import Keys, is_loopback, read_keys
from api.http.app import create_app
from api.http.protocol import MAX_CONNECTIONS, HTTPProtocol
from api.serving.embedding import warm_up
from api.serving.service import Service
from api.serving.words import Sentences
from api.settings import Settings
from indexer.index_encoder import installed_spaces, load_index_encoder
from indexer.renewal import is_renewable, renew_words
from search.index import Index

LOG = logging.getLogger("lookalike")
SWITCH_SECONDS = 0.0002
"""How long a stage's thread may keep the interpreter from the event loop, which asks for it after each system call."""
KEEP_ALIVE_SECONDS = 10
"""Without a request. Proxies that keep connections longer meet closed ones, and try again."""


def run(directories: Sequence[Path], settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve these indexes until SIGINT or SIGTERM. Raises SearchError, IndexerError, CannotServe before it starts."""
    entries = [] if settings.api_key is None else settings.api_key.split()
    secret = None if settings.session_secret is None else settings.session_secret.encode()
    keys = Keys(read_keys(entries, settings.api_key_file), secret=secret)
    if not keys and not is_loopback(settings.host):
        raise CannotServe(
            f"{settings.host} can be reached from other machines. Give a key with --api-key or LOOKALIKE_API_KEY, or "
            "stay on 127.0.0.1."
        )
    _allow_files(2 * MAX_CONNECTIONS)
    listener = _bind(settings.host, settings.port)
    logs.install(settings.log_format)
    with open_services(directories, settings) as services:
        config = uvicorn.Config(
            create_app(services, settings, keys),
            http=HTTPProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            root_path=settings.root_path,
            forwarded_allow_ips=settings.forwarded_allow_ips,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
        listener.listen(config.backlog)  # before the address is told: who reads it may connect at once
        port = listener.getsockname()[1]
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(settings.host, settings.host)  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        for service in services.values():
            announce(f"Serving {service.name}: {service.index.catalog.counts()[0]:,} images")
        announce(f"Open http://{shown}:{port} in a browser; the API is described at http://{shown}:{port}/docs")
        # What is there now stays: looking through all of torch for garbage again and again took a seventh of the time.
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_SECONDS)
        server = uvicorn.Server(config)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn drains on the first signal, then raises it again under the handler it found: end with 0, not -15
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        server.run(sockets=[listener])


@contextmanager
def open_services(directories: Sequence[Path], settings: Settings) -> Iterator[dict[str, Service]]:
    """Open indexes and load their encoders; the name of each is its folder's, without `.index`. Closes them at the end.

    Also where one of them cannot be opened: the process would not end while another's publication is waited for.
    """
    services: dict[str, Service] = {}
    sentences = Sentences()
    with ExitStack() as closing:
        for directory in directories:
            name = directory.resolve().name.removesuffix(".index")
            if name in services:
                raise CannotServe(f"Two indexes are called {name}. Rename the folder of one.")
            # Writable: images can be added over HTTP. The lock is taken for each write only.
            index = Index.open(directory, writable=True)
            index.refresh()  # loads the generation now, not in the first search
            renewed = is_renewable(index)
            if renewed:
                with index.writer() as writer:
                    renew_words(index, writer, warn=LOG.warning)
            spaces = installed_spaces(index, warn=LOG.warning)
            encoder = load_index_encoder(index, spaces, warn=LOG.warning)
            warm_up(encoder)
            services[name] = Service(name, index, encoder, settings, sentences=sentences)
            closing.callback(services[name].close)
            if renewed:
                services[name].filling.start()
        if any(space.recipe.words is not None for one in services.values() for space in one.index.spaces):
            sentences.load_soon()
            for one in services.values():
                one.learning.start()
        yield services


def _allow_files(count: int) -> None:
    """Open so many at once, where this process may."""
    try:
        import resource
    except ImportError:  # not on Windows, where there is no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
