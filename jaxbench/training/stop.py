"""Lets a signal end a run at its next dispatch, with everything saved."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StoppedError(Exception):
    """Somebody asked to stop in the midst of a part of a run; the message says who."""


class StopSignals:
    """Turns SIGTERM and SIGINT into a reason to stop at the next dispatch.

    Used as a context manager; a second signal kills as usual. Only the main thread
    of a process may install signal handlers.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def reason(self) -> str | None:
        """Why to stop, or None."""
        return self._reason

    def check(self) -> None:
        """Raises StoppedError where there is a reason to stop."""
        if (reason := self.reason()) is not None:
            raise StoppedError(reason)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._reason = f"{name} received; run the same command again to go on"
        signal.signal(number, signal.SIG_DFL)
