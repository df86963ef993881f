"""SIGTERM and SIGINT end a command with an exit code and one line.

From the first line of its `main` on; a run that trains, or a suite with runs, is inside
`stop.StopSignals` as well, which takes over until all is saved. Imports no jax.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGTERM, signal.SIGINT)
# Exit code of a command that was interrupted, whichever signal it was.
INTERRUPTED = 128 + signal.SIGTERM
# From a signal until the process is ended from outside of what it hangs in. Compilers
# do not look at signals, and a callback may lose an exception.
GRACE_SECONDS = 2.0


class Interrupted(BaseException):
    """A signal asked a command to end that had nothing to save."""


def interruptible(name: str, command: Callable[[], int], *, leaves: bool) -> int:
    """Calls `command`; SIGTERM and SIGINT end it with `INTERRUPTED`, without traceback.

    The signal raises `Interrupted` in the main thread, so that files and child
    processes are cleaned up. Where that does not end it within `GRACE_SECONDS`, the
    process exits all the same. A second signal kills as usual.

    Args:
      name: of the command, for the line that is printed; "" prints none.
      command: returns an exit code.
      leaves: whether the process ends with the command: after a signal it then does not
        wait for threads that still compile.
    """
    if threading.current_thread() is not threading.main_thread():
        return command()
    try:
        with _ending(name):
            return command()
    except Interrupted as end:
        _tell(name, str(end))
        if leaves:
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED


@contextlib.contextmanager
def _ending(name: str) -> Iterator[None]:
    """Raises `Interrupted` at a signal; a thread sees to it that this is the end."""
    asked, ended = threading.Event(), threading.Event()
    source, target = os.pipe()
    os.set_blocking(target, False)
    before = {number: signal.getsignal(number) for number in NUMBERS}
    hook = sys.unraisablehook

    def receive(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(signal.Signals(number).name)

    def unheard(unraisable: Any) -> None:
        # Raised in a callback, from where it goes nowhere: the thread ends the process.
        if not isinstance(unraisable.exc_value, Interrupted):
            hook(unraisable)

    def watch() -> None:
        while received := os.read(source, 1):
            # The signals of a run that trains are for `StopSignals`.
            mine = asked.is_set() or signal.getsignal(received[0]) is receive
            if mine and not ended.wait(GRACE_SECONDS):
                _tell(name, signal.Signals(received[0]).name)
                os._exit(INTERRUPTED)

    for number in NUMBERS:
        signal.signal(number, receive)
    sys.unraisablehook = unheard
    # The interpreter writes a signal's number there when it comes, whatever it does.
    woken = signal.set_wakeup_fd(target, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(woken)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(target)
        watcher.join()
        os.close(source)


def _tell(name: str, signal_name: str) -> None:
    # A progress bar may have hidden the cursor.
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""
    line = f"{name}: interrupted by {signal_name}; run the same command again\n"
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(shown + (line if name else ""))
        sys.stderr.flush()
