"""Parses many replays, in processes that a crash of the parser cannot leave."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxbench.data.game import Game
from jaxbench.data.replay_worker import Rejection, Worker

# The longest a single file may take; a 20-minute recording takes 0.2 s.
FILE_SECONDS = 60.0

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
      workers: processes; 0 chooses one for every 32 MB, as far as there are cores.
      finished: called with the number and the result of each file, in any order.

    Raises:
      InputError: the worker processes cannot start.
    """
    if not files:
        return
    amount = sum(size for _, _, size in files)
    count = workers or min(cores(), max(1, math.ceil(amount / _BYTES_PER_WORKER)))
    count = min(count, len(files))
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
