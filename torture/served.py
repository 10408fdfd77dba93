"""A server to attack: an index of numbered images and a fake encoder behind the real edge, in a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import uvicorn
from numpy.typing import NDArray

from api import logs
from api.http.access import Keys, read_keys
from api.http.app import create_app
from api.http.protocol import HTTPProtocol
from api.serving.service import Service
from api.settings import Settings
from indexer.encoders.encoder import Precision
from indexer.pictures.preprocess import inputs_of
from search.index import Index
from search.recipe import Recipe
from search.vectors import normalise
from torture.world import DIM, POLICY, SPACE, create, image_id, take

KEY = "tortured"
TOKEN = "guest"
"""Of a link to board 1."""
IMAGES = 60


class FakeEncoder:
    """Embeds by the hash of the pixels. broken: fails on every third picture."""

    names = (SPACE,)
    backend = "torch"
    precision: Precision = "fp32"
    batch_size = 8

    def __init__(self, recipes: tuple[Recipe, ...], broken: bool) -> None:
        self.recipes = recipes
        self.inputs = inputs_of(recipes)
        self._broken = broken

    def prepare(self, pixels: NDArray[np.uint8], remaining: int) -> None:
        """As `Encoder`: nothing."""

    def encode(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """As `Encoder`."""
        seeds = [int.from_bytes(hashlib.sha256(one.tobytes()).digest()[:8], "big") for one in pixels]
        if self._broken and any(seed % 3 == 0 for seed in seeds):
            raise RuntimeError("broken")
        return [normalise(np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]))]

    def per_core(self) -> Sequence[FakeEncoder]:
        """As `Encoder`: itself, which any number of threads may call."""
        return self, self


@contextlib.contextmanager
def served(
    folder: Path, *, broken: bool = False, key: str | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address and the process of a running server. broken: its encoder fails now and then, and knows no facts."""
    words = [sys.executable, "-m", "torture.served", str(folder / "served.index"), str(int(broken)), key or ""]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def _fill_board(index: Index) -> None:
    """Board 1 with two images, a question, a comment and a link."""
    with index.writer() as writer, writer.transaction() as transaction:
        board = transaction.add_board("one")
        for number in (0, 1):
            item, _ = transaction.add_image_item(board, image_id(number))
        transaction.add_question_item(board, "like it", {"parts": [{"id": image_id(2)}]})
        transaction.add_comment(board, item, "Ada", "yes")
        until = "2100-01-01T00:00:00+00:00"
        transaction.add_share(board, "guests", TOKEN, may_comment=True, may_vote=True, expires_at=until)
        body = {"parts": [{"id": image_id(2)}], "min_score": 0.5}
        transaction.add_watch("more", body, url="https://example.com/", form="json", secret="secret")


def main() -> None:
    """Serve until SIGTERM; the address is the first line."""
    path, broken, key = Path(sys.argv[1]), sys.argv[2] == "1", sys.argv[3]
    logs.install("text")
    create(path)
    with contextlib.ExitStack() as stack:
        if broken:
            stack.enter_context(mock.patch.object(Index, "info", side_effect=RuntimeError("broken")))
        index = stack.enter_context(Index.open(path, writable=True, policy=POLICY))
        take(index, "add", list(range(IMAGES)))
        take(index, "publish", [])
        _fill_board(index)
        settings, keys = Settings(), Keys(read_keys([key] if key else []))
        service = Service("served", index, FakeEncoder(tuple(one.recipe for one in index.spaces), broken), settings)
        app = create_app({"served": service}, settings, keys)
        config = uvicorn.Config(app, port=0, http=HTTPProtocol, ws="none", log_config=None)
        listener = config.bind_socket()
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])
        service.close()


if __name__ == "__main__":
    main()
