"""Batching: one thread owns the encoder and takes what is queued, so that waiting clients share a forward pass."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from indexer.encoder import Encoder

Vectors = tuple[NDArray[np.float32], ...]
"""One image's embeddings: one (dim,) float32 a space."""
Job = tuple[NDArray[np.uint8], "Future[Vectors]"]


class QueueFull(Exception):
    """More images wait than the queue takes."""


class Batcher:
    """Feeds an encoder from many threads. It waits for nothing: a free encoder takes whatever is there."""

    def __init__(self, encoder: Encoder, *, max_waiting: int) -> None:
        """max_waiting: images that may be queued; further ones are refused at once."""
        self._encoder = encoder
        self._queue: queue.Queue[Job | None] = queue.Queue(maxsize=max_waiting)
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def submit(self, pixels: NDArray[np.uint8]) -> Future[Vectors]:
        """Queue one image ((size, size, 3) uint8). The future resolves or fails. Raises QueueFull."""
        future: Future[Vectors] = Future()
        try:
            self._queue.put_nowait((pixels, future))
        except queue.Full as error:
            raise QueueFull from error
        return future

    @property
    def alive(self) -> bool:
        """Whether the encoder's thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            jobs = [first]
            closing = False
            while len(jobs) < self._encoder.batch_size and not closing:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    closing = True
                else:
                    jobs.append(job)
            self._encode([job for job in jobs if job[1].set_running_or_notify_cancel()])
            if closing:
                return

    def _encode(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        try:
            spaces = self._encoder.encode(np.stack([pixels for pixels, _ in jobs]))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0][1].set_exception(error)
            else:
                for job in jobs:  # one bad image must not fail its neighbours
                    self._encode([job])
            return
        for row, (_, future) in enumerate(jobs):
            # Copies: whoever keeps one embedding must not keep its whole batch.
            future.set_result(tuple(vectors[row].copy() for vectors in spaces))
