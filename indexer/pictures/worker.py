"""Decoding in processes of their own: whatever a file does to a decoder, it costs that file and nothing else."""

from __future__ import annotations

import atexit
import hashlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from queue import Empty, LifoQueue
from types import TracebackType
from typing import Any, TypeVar

from indexer.errors import ImageRejected, IndexerError
from indexer.pictures.decode import Decoded, DecodeLimits, decode, keep_memory
from indexer.pictures.plugins import declared_size
from indexer.pictures.preprocess import Inputs

TOO_SLOW = "it takes longer than"
"""How the reason of a file begins whose decoding was ended."""
READ_SECONDS = 120
"""A slow network drive may take that long for a large file; a dead one takes for ever."""
START_SECONDS = 60
STOP_SECONDS = 5
SLICES = 10
"""In which a limit passes."""
SMALL_BYTES = 200_000
"""Files up to here are not opened before they are decoded, to see how many pixels they have."""
SMALL_PIXELS = 2_000_000
"""Pictures up to here have the seconds of any: to grant them more costs a message to the owner, .2 ms."""

Result = TypeVar("Result")
Decode = Callable[..., Decoded]
"""A function like `decode.decode`, at the top level of its module."""


@dataclass(frozen=True)
class _Job:
    """The arguments that a worker is started with."""

    inputs: Inputs
    limits: DecodeLimits
    decode: Decode
    nice: int


@dataclass(frozen=True)
class _Patience:
    """A worker tells that what it has begun may take so long."""

    seconds: float


class WorkerFailed(IndexerError):
    """A decoding process does not even start, which is no file's fault."""


class WorkerDied(Exception):
    """The process ended, or took too long and was ended; the text is the reason for the report."""


class _Ended(WorkerDied):
    """The process ended by itself."""


class WorkerGone(WorkerDied):
    """The process may have ended before it had the file: the kernel took it, say, and the next file is not to blame."""


class Worker:
    """One decoding process, as its owner sees it. Not thread-safe. It imports neither torch nor FAISS."""

    def __init__(self, job: _Job) -> None:
        context = _context()
        self._limits = job.limits
        try:
            self._here, there = context.Pipe()
            self._process = context.Process(target=_work, args=(there, job), daemon=True, name="lookalike-decoder")
            self._process.start()
        except (OSError, EOFError) as error:  # too many processes, or open files: not to be taken for the file's error
            why = getattr(error, "strerror", None) or "the fork server ended"
            raise WorkerFailed(f"No decoding process can be started: {why}. Try --workers 1.") from error
        there.close()  # so that its end is seen here
        atexit.register(self._process.kill)  # it ignores the SIGTERM by which Python ends children, and waits for them
        try:
            self._hear(START_SECONDS)
        except WorkerDied as error:
            self.close()
            raise WorkerFailed(f"A decoding process does not start ({_how(self._process.exitcode)}).") from error

    def load(self, path: str, wanted: Callable[[str], bool]) -> tuple[str, Decoded | None]:
        """Read a file; decode it if `wanted` says so of its id. Returns the id, and what was decoded.

        Raises ImageRejected and OSError as the file deserves, WorkerDied where the worker is of no more use.
        """
        try:
            self._tell(path)
            image_id: str = self._hear(READ_SECONDS)
        except _Ended as error:
            raise WorkerGone(str(error)) from error
        needed = wanted(image_id)
        self._tell(needed)
        if not needed:
            return image_id, None
        decoded: Decoded = self._hear(self._limits.seconds)
        return image_id, decoded

    def run(self, function: Callable[..., Result], data: bytes, arguments: Mapping[str, Any]) -> Result:
        """`function(data, limits=..., **arguments)` in the process: a function at the top level of its module.

        Raises what it raises, and WorkerDied where the worker is of no more use.
        """
        try:
            self._tell((function, data, arguments))
            answer: Result = self._hear(self._limits.seconds)
        except _Ended as error:  # it may have been about to end before it had this
            raise WorkerGone(str(error)) from error
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._here.close()
        self._process.kill()
        atexit.unregister(self._process.kill)
        self._process.join(STOP_SECONDS)

    def _tell(self, message: object) -> None:
        try:
            self._here.send(message)
        except OSError as error:
            raise self._died() from error

    def _hear(self, seconds: float) -> Any:
        try:
            # in slices: while all of this is suspended (Ctrl-Z), no more than one of them passes
            if not any(self._here.poll(seconds / SLICES) for _ in range(SLICES)):
                raise WorkerDied(f"{TOO_SLOW} {seconds:.0f} seconds")
            answer = self._here.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(answer, _Patience):
            return self._hear(answer.seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _died(self) -> _Ended:
        self._process.join(STOP_SECONDS)
        return _Ended(f"decoding it crashed the decoder ({_how(self._process.exitcode)})")


class Workers:
    """A pool of workers: one for each thread that uses it at once. Thread-safe; a worker that dies is replaced."""

    def __init__(self, inputs: Inputs, limits: DecodeLimits, decoder: Decode = decode, *, nice: int = 0) -> None:
        """decoder: what a worker calls; another one only in tests. nice: by how much others on these cores come first,
        as `os.nice` has it.
        """
        self._job = _Job(inputs, limits, decoder, nice)
        self._idle: LifoQueue[Worker] = LifoQueue()  # who has just worked has what it needs in the processor's cache
        self.replaced = 0
        """How many were of no more use before they were closed."""

    def start(self, count: int) -> None:
        """Start `count` workers before the first is needed. Raises WorkerFailed."""
        for _ in range(count):
            self._idle.put(self._started())

    def load(self, path: str, wanted: Callable[[str], bool]) -> tuple[str, Decoded | None]:
        """Call `Worker.load` of an idle worker; a file that ends it is ImageRejected. Raises WorkerFailed too."""
        return self._with_worker(lambda worker: worker.load(path, wanted))

    def run(self, function: Callable[..., Result], data: bytes, **arguments: Any) -> Result:
        """Call `Worker.run` of an idle worker; data that ends it is ImageRejected. Raises WorkerFailed too."""
        return self._with_worker(lambda worker: worker.run(function, data, arguments))

    def _with_worker(self, work: Callable[[Worker], Result]) -> Result:
        try:
            with self._borrowed() as worker:
                return work(worker)
        except WorkerGone:
            try:
                with self._borrowed(fresh=True) as worker:  # others that were idle may be gone too
                    return work(worker)
            except WorkerGone as error:  # a second time: it is the file after all
                raise ImageRejected(str(error)) from error

    @contextmanager
    def _borrowed(self, *, fresh: bool = False) -> Iterator[Worker]:
        worker = self._started() if fresh else self._taken()
        try:
            yield worker
        except (ImageRejected, OSError):
            self._idle.put(worker)
            raise
        except BaseException as error:
            worker.close()
            self.replaced += 1
            if isinstance(error, WorkerDied) and not isinstance(error, WorkerGone):
                raise ImageRejected(str(error)) from error
            raise
        self._idle.put(worker)

    def _taken(self) -> Worker:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._started()

    def _started(self) -> Worker:
        try:
            return Worker(self._job)
        except WorkerFailed:
            return Worker(self._job)  # Ctrl-C ends a process that has not yet learnt to ignore it

    def close(self) -> None:
        """End all that are not in use."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _context() -> SpawnContext | ForkServerContext:
    """How workers are started. On Linux by a fork server, which imports this module once and forks in milliseconds.

    It has no threads that a fork would lose. Elsewhere each worker imports all: system libraries there may not survive
    a fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work(there: Connection, job: _Job) -> None:
    """A worker's life: one file after the other, until its owner is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the owner decides
        signal.signal(number, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries write there what is wrong with a file
    _limit_memory(job.limits.max_memory)
    if hasattr(os, "nice"):  # not on Windows
        os.nice(job.nice)
    keep_memory()
    with suppress(EOFError, OSError):
        there.send("ready")
        while True:
            _serve(there, job)


def _serve(there: Connection, job: _Job) -> None:
    asked = there.recv()
    if isinstance(asked, str):
        _load(there, job, asked)
        return
    function, data, arguments = asked
    _ask_for_patience(there, job.limits, data)
    there.send(_outcome(lambda: function(data, limits=job.limits, **arguments)))


def _ask_for_patience(there: Connection, limits: DecodeLimits, data: bytes) -> None:
    """Tell the owner how long a large picture may take: a slow machine is not the picture's fault."""
    if len(data) > SMALL_BYTES and limits.seconds_per_megapixel:
        size = declared_size(data)
        if size[0] * size[1] > SMALL_PIXELS:
            there.send(_Patience(limits.seconds_for(size)))


def _load(there: Connection, job: _Job, path: str) -> None:
    try:
        data = Path(path).read_bytes()
    except (OSError, MemoryError) as error:
        there.send(error if isinstance(error, OSError) else ImageRejected("it is larger than the memory"))
        return
    there.send(hashlib.sha256(data).hexdigest())
    if there.recv():
        _ask_for_patience(there, job.limits, data)
        there.send(_outcome(lambda: job.decode(data, job.inputs, limits=job.limits)))


def _outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except ImageRejected as error:
        return ImageRejected(str(error))  # without its cause, which may not be fit for a pipe
    except MemoryError:
        return ImageRejected("decoding it needs more memory than there is")


def _limit_memory(allowed: int) -> None:
    """Bound what this process may take beyond what it has: a MemoryError is one file's, the kernel's choice is not."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * os.sysconf("SC_PAGESIZE") + allowed
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    except (ImportError, OSError, ValueError):  # not Linux
        return


def _how(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    with suppress(ValueError):
        return signal.Signals(-exit_code).name
    return f"signal {-exit_code}"
