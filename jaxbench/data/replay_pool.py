"""Parses many replays, in this process or in several others."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxbench.data.game import Game
from jaxbench.data.replay_worker import Rejection, Worker, attempt, resolve

# The longest a single file may take; a 20-minute recording takes 0.2 s.
FILE_SECONDS = 60.0

# Up to so much is parsed in this process: it takes less time than starting another.
IN_PROCESS_BYTES = 8_000_000
_BYTES_PER_WORKER = 32_000_000

Finished = Callable[[int, Game | Rejection], None]


def cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_all(
    parser: str,
    files: Sequence[tuple[int, Path, int]],
    workers: int,
    finished: Finished,
) -> None:
    """Parses files and hands over each result, in the calling thread.

    Args:
      parser: "module:function" of `Path -> Game`.
      files: number, path and size in bytes of each.
      workers: processes; 0 chooses, and parses up to 8 MB right here, where a
        crash of the parser is a crash of the caller.
      finished: called with the number and the result of each file, in any order.

    Raises:
      InputError: the worker processes cannot start.
    """
    amount = sum(size for _, _, size in files)
    if not files:
        return
    if workers or amount > IN_PROCESS_BYTES:
        count = workers or min(cores(), math.ceil(amount / _BYTES_PER_WORKER))
        _parse_in_processes(parser, files, min(count, len(files)), finished)
        return
    here = resolve(parser)
    for number, path, _ in files:
        with _quiet_stderr():
            result = attempt(here, path)
        finished(number, result)


def _parse_in_processes(
    parser: str,
    files: Sequence[tuple[int, Path, int]],
    count: int,
    finished: Finished,
) -> None:
    todo: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()
    for number, path, _ in files:
        todo.put((number, path))
    done: queue.SimpleQueue[tuple[int, Game | Rejection | Exception]]
    done = queue.SimpleQueue()
    stop = threading.Event()

    def feed(worker: Worker) -> None:
        while not stop.is_set():
            try:
                number, path = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, worker.read(path)))
            except Exception as error:
                # Raised again below, in the thread of the caller.
                done.put((number, error))
                return

    pool = [Worker(parser, FILE_SECONDS) for _ in range(count)]
    threads = [threading.Thread(target=feed, args=(it,), daemon=True) for it in pool]
    try:
        for thread in threads:
            thread.start()
        for _ in files:
            number, result = done.get()
            if isinstance(result, Exception):
                raise result
            finished(number, result)
    finally:
        stop.set()
        for worker in pool:
            worker.close()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Drops what the parser's runtime writes to file descriptor 2 when it panics."""
    try:
        kept = os.dup(2)
    except OSError:
        # There is no such descriptor, so nothing can be written to it.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
