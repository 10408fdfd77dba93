"""Filling a served index's spaces in a process of its own, which gets what the server leaves of the cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from api import logs
from api.logs import LogFormat
from indexer.encoders.encoder import SpaceRequest
from indexer.errors import IndexerError
from indexer.fill import Fill, FillReport
from indexer.index_encoder import load_index_encoder
from indexer.new_space import space_to_add
from indexer.pictures.worker import WorkerFailed
from indexer.progress import Quiet
from search.catalog.spaces import Spaces
from search.errors import IndexLocked, SearchError
from search.index import Index
from search.types import Space

NICE = 19
"""Searches come first: of a core that both want, the kernel gives this process a hundredth."""
LOCKED_SECONDS = 5.0
"""Between two tries while another process writes for long: a build."""
STOP_SECONDS = 20
"""In which a filling that is stopped commits what is in flight; then it is ended."""

LOG = logging.getLogger("lookalike")


def new_space(there: Spaces, request: SpaceRequest) -> Space:
    """`indexer.new_space.space_to_add` in a process of its own: it imports torch, for which searches would wait.

    Raises as it does, and WorkerFailed where the process ends before it answers.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_step_back) as pool:
            return pool.submit(space_to_add, there, request).result()
    except BrokenProcessPool as error:
        raise WorkerFailed("The process that looks a model up ended before it answered. Try again.") from error


def _step_back() -> None:
    """Let everything else on these cores come first."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(NICE)


class Filling:
    """Fills one index while it is served, if it is asked to. Stopped anywhere, it goes on when it is asked again."""

    def __init__(self, path: Path, log_format: LogFormat) -> None:
        """log_format: of what the process says."""
        self._path = path
        self._log_format = log_format
        self._changing = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._waiting: threading.Thread | None = None
        self._again = False
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether a process fills the index now."""
        process = self._process
        return process is not None and process.is_alive()

    def start(self) -> None:
        """Fill every space that is not complete, beside everything else. Where that is under way, it is done once more
        afterwards: it may have looked for spaces for the last time.

        Nothing after `close`: Python would wait for the process at the end of the server.
        """
        with self._changing:
            if self.running:
                self._again = True
            elif not self._closed:
                self._begin()

    def _begin(self) -> None:
        self._again = False
        context = multiprocessing.get_context("spawn")  # not daemonic: it has decoding processes of its own
        arguments = (self._path, os.getpid(), self._log_format)
        process = context.Process(target=fill_index, args=arguments, name="lookalike-fill")
        process.start()
        self._process = process
        self._waiting = threading.Thread(target=self._wait, args=(process,), name="lookalike-fill", daemon=True)
        self._waiting.start()

    def _wait(self, process: multiprocessing.process.BaseProcess) -> None:
        process.join()
        with self._changing:
            if self._again and not self._closed and process is self._process:  # not one that was started since
                self._begin()

    def close(self) -> None:
        """Stop it: what is in flight is committed."""
        with self._changing:
            self._closed = True
            process, waiting = self._process, self._waiting
        if process is None or waiting is None:
            return
        process.terminate()
        waiting.join(STOP_SECONDS)
        if waiting.is_alive():
            process.kill()
            waiting.join()


def fill_index(path: Path, server: int, log_format: LogFormat) -> None:
    """Fill an index until its spaces are complete, SIGTERM comes, or the server is gone. server: its process's id."""
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole group; the server decides
    _step_back()

    def stopped() -> bool:
        return asked.is_set() or os.getppid() != server

    logs.install(log_format)
    try:
        with Index.open(path, writable=True) as index:
            _fill_patiently(index, stopped)
    except (SearchError, IndexerError) as error:
        LOG.error("the spaces of %s are not filled: %s", path, error)


def _fill_patiently(index: Index, stopped: Callable[[], bool]) -> None:
    while not stopped():
        try:
            report = fill(index, stopped)
            if report.skipped:
                text = "%d images of %s stay without a vector: no file of theirs can be read"
                LOG.warning(text, len(report.skipped), index.path)
            return
        except IndexLocked:
            time.sleep(LOCKED_SECONDS)


def fill(index: Index, stopped: Callable[[], bool]) -> FillReport:
    """Fill an open index, with images and spaces that are added meanwhile, and publish it unless that was stopped.

    Raises SearchError, IndexerError.
    """
    run = Fill(
        index,
        lambda lacking: load_index_encoder(index, lacking, warn=LOG.warning, throughput=True),
        workers=1,
        progress=Quiet(),  # the index itself says how far it is
        stopped=stopped,
    )
    while True:
        report = run.run()
        if report.interrupted:  # the next server publishes when it starts
            return report
        index.publish()
        if not run.is_behind():
            return report
