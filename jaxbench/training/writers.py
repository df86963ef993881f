"""Where metrics go: one JSON line per record, and TensorBoard."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxbench.training.records import flatten, json_line, read_metrics


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Lets tensorboardX load without torch, which it takes along where it is found.

    That is seconds at the start of each run, for tensors that nobody logs here.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


with _without_torch():
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog


class MetricWriter:
    """Appends records to `metrics.jsonl` and mirrors them as TensorBoard scalars.

    Args:
      folder: the run folder.
      resume_step: records of later steps are dropped first: they belong to updates
        that the restored checkpoint does not contain. None starts afresh.
      due: whether that step is validated anew: a record of it is dropped, too.
    """

    def __init__(
        self, folder: Path, *, resume_step: int | None = None, due: bool = False
    ):
        self.path = folder / "metrics.jsonl"
        kept = [] if resume_step is None else read_metrics(self.path)
        kept = [r for r in kept if resume_step is not None and r["step"] <= resume_step]
        if due:
            again = (resume_step, "validation")
            kept = [r for r in kept if (r["step"], r["split"]) != again]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(json_line(record) for record in kept))
        partial.replace(self.path)
        self._file = self.path.open("a")
        # tensorboardX's SummaryWriter writes in a thread; on a full disk the thread
        # dies and the next scalar waits for it for ever. Its events writer raises.
        self._events = EventsWriter(str(folder / "events"))
        self._folder = folder
        if resume_step is not None:
            # TensorBoard then hides what an earlier process wrote past this step.
            start = SessionLog(status=SessionLog.START)
            self._write_event(Event(session_log=start, step=resume_step + 1))

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Records `metrics` of `split` after `step` updates."""
        self._file.write(json_line({"step": step, "split": split, **metrics}))
        self._file.flush()
        for name, value in metrics.items():
            scalar = summary.scalar(f"{split}/{name}", value)
            self._write_event(Event(summary=scalar, step=step))
        self._events.flush()

    def hyperparameters(
        self, config: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Writes the flattened config and final metrics for TensorBoard's HPARAMS."""
        flat = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in flatten(config).items()
        }
        final = {f"final/{k}": float(v) for k, v in metrics.items() if math.isfinite(v)}
        session = self._folder / "hparams"
        session.mkdir(exist_ok=True)
        events = EventsWriter(str(session / "events"))
        scalars = [summary.scalar(name, value) for name, value in final.items()]
        for part in (*summary.hparams(flat, final), *scalars):
            events.write_event(Event(summary=part, wall_time=time.time()))
        events.close()

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()

    def _write_event(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)
