"""Tells the user which programs are compiling, and for how long."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# Nothing is said of what takes no longer than this.
QUIET_SECONDS = 5.0


class Compilation:
    """Says which programs are compiling, for how long, and what they took last time.

    The seconds are kept beside the compilation cache, where there is one.

    Args:
      kind: names runs whose programs take equally long to compile.
      say: prints a line.
      every: seconds between two lines.
    """

    def __init__(self, kind: str, say: Callable[[str], None], *, every: float = 15.0):
        self._kind, self._say, self._every = kind, say, every
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
        self._memory = Path(cache) / "compile_seconds.json" if cache else None
        self._before = self._read().get(kind, {})
        self._running: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def reported(self) -> Iterator[Compilation]:
        """Reports all that compiles inside; remembers what took longest so far."""
        ended = threading.Event()
        teller = threading.Thread(target=self._tell, args=(ended,), daemon=True)
        teller.start()
        try:
            yield self
        finally:
            ended.set()
            teller.join()
        self._remember()

    @contextlib.contextmanager
    def program(self, name: str) -> Iterator[None]:
        """Times one program; several may compile at once."""
        start = self._running[name] = time.monotonic()
        try:
            yield
        finally:
            self._running.pop(name, None)
            self.seconds[name] = time.monotonic() - start

    def _tell(self, ended: threading.Event) -> None:
        wait = QUIET_SECONDS
        while not ended.wait(wait):
            wait = self._every
            now = time.monotonic()
            told = [
                f"{name} for {now - since:.0f} s{self._last(name)}"
                for name, since in dict(self._running).items()
            ]
            if told:
                self._say("compiling " + ", ".join(told))

    def _last(self, name: str) -> str:
        known = self._before.get(name)
        return f" ({known:.0f} s last time)" if known is not None else ""

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            return json.loads(self._memory.read_text()) if self._memory else {}
        except (OSError, ValueError):
            return {}

    def _remember(self) -> None:
        """Keeps what compiled; a program that was found in the cache took no time."""
        compiled = {k: s for k, s in self.seconds.items() if s > QUIET_SECONDS}
        if self._memory is None or not compiled:
            return
        known = self._read()
        known[self._kind] = known.get(self._kind, {}) | compiled
        beside = self._memory.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(known))
            beside.replace(self._memory)
