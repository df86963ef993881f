"""A process that parses replays, and the handle that outlives it.

A parser can do worse than raise: abort, segfault, never return. So it runs in a
process of its own that is fed one path at a time; when it dies or does not answer,
exactly that file is to blame, and a new process reads the next one. The process is
started as a plain Python program rather than through `multiprocessing`, which would
import the caller's main script, and JAX with it, into every worker.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from jaxbench.data.game import Game
from jaxbench.errors import InputError, printable

Parser = Callable[[Path], Game]

_PROGRAM = "from jaxbench.data.replay_worker import serve; serve()"
_READY = "ready"
_STARTING_SECONDS = 60.0
_ENDING_SECONDS = 5.0


class Rejection(NamedTuple):
    """Why a replay cannot be used; `final` when its bytes alone are the cause."""

    reason: str
    final: bool


def resolve(parser: str) -> Parser:
    """Returns the function that "package.module:name" names."""
    module, _, name = parser.partition(":")
    return getattr(importlib.import_module(module), name)


def attempt(parser: Parser, path: Path) -> Game | Rejection:
    """Parses one file; any failure that is an exception becomes a `Rejection`."""
    try:
        return parser(path)
    except InputError as error:
        return Rejection(
            str(error).removeprefix(f"{printable(path.name)}: "), final=True
        )
    except OSError as error:
        return Rejection(f"cannot be opened: {error.strerror or error}", final=False)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Rejection(f"the reader failed ({text[:160]})", final=False)


def serve() -> None:
    """The worker's main: paths in on stdin, games or rejections out on stdout."""
    replies = os.fdopen(os.dup(1), "wb")
    # Whatever else prints must not get between the replies.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    requests = sys.stdin.buffer
    try:
        parser = resolve(pickle.load(requests))
        _send(replies, _READY)
    except Exception as error:
        _send(replies, f"{type(error).__name__}: {error}")
        return
    while True:
        try:
            path = pickle.load(requests)
        except (EOFError, KeyboardInterrupt):
            return
        _send(replies, attempt(parser, path))


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process that is ending by itself, and ends one that is not."""
    try:
        return process.wait(timeout=_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _send(stream: IO[bytes], value: object) -> None:
    pickle.dump(value, stream, protocol=5)
    stream.flush()


class Worker:
    """Parses files one after another in a process that is replaced when it dies."""

    def __init__(self, parser: str, seconds: float) -> None:
        """Starts nothing yet; `seconds` is the longest a single file may take."""
        self._parser = parser
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0
        self._closed = False
        self._lock = threading.Lock()

    def read(self, path: Path) -> Game | Rejection:
        """Parses one file, starting the process first where there is none.

        A process that dies after it has read other files may have been hurt by
        them, so the file gets a second, fresh one before it is blamed.

        Raises:
          InputError: the process cannot start, so no file can be read.
        """
        while True:
            process = self._running()
            reply, expired = self._ask(process, path, self._seconds)
            if not isinstance(reply, EOFError):
                self._served += 1
                return reply
            code = _exit_code(process)
            if expired or not self._served or self._closed:
                break
        if expired:
            reason = f"no answer from the parser within {self._seconds:g} s"
        elif code < 0:
            names = {number.value: number.name for number in signal.Signals}
            name = names.get(-code, f"signal {-code}")
            reason = f"the parser crashed ({name})"
        else:
            reason = f"the parser ended its process (exit code {code})"
        return Rejection(reason, final=False)

    def close(self) -> None:
        """Ends the process, from any thread, also while a file is being read."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise RuntimeError("the worker is closed")
            if self._process is not None and self._process.poll() is None:
                return self._process
            if self._process is not None:
                self._end(self._process)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A panic writes its backtrace there; the reply carries its message.
                stderr=subprocess.DEVNULL,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "OPENBLAS_NUM_THREADS": "1",
                },
            )
            self._served = 0
            process = self._process
        reply, _ = self._ask(process, self._parser, _STARTING_SECONDS)
        if reply != _READY:
            raise InputError(
                f"replays cannot be read: the process for {self._parser} does not "
                f"start ({reply})"
            )
        return process

    def _ask(
        self, process: subprocess.Popen[bytes], value: object, seconds: float
    ) -> tuple[Any, bool]:
        """Returns the reply, or EOFError when there is none, and whether time ran
        out. A process that was told to stop never serves another file."""
        assert process.stdin is not None and process.stdout is not None
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            _send(process.stdin, value)
            reply = pickle.load(process.stdout)
        except Exception as error:
            # The pipe broke, or the reply did in the middle.
            reply = EOFError(f"it ended without an answer: {error}")
        finally:
            timer.cancel()
            timer.join()
        if expired.is_set():
            process.wait()
        return reply, expired.is_set()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout)):
            try:
                stream.close()
            except OSError:
                # A half-sent request has nowhere to go once the process is gone.
                continue
