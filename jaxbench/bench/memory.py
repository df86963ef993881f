"""Chooses before training how to compute 1..n runs so that they fit the memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxbench.training.programs import Programs

GB = 1e9


@dataclasses.dataclass(frozen=True)
class Plan:
    """How runs are computed so that they fit the memory, and what was tried before.

    Attributes:
      limit_bytes: what one device may use; None where it is not known.
      limit_is: what sets the limit, in words: "this machine".
      tried: {"copies", "remat", "micro_batches", "predicted_bytes"} of each stage
        compiled, copies being the runs that train at a time; the last one is what was
        chosen if it fits.
      programs: the chosen programs, or None when nothing fits.
    """

    limit_bytes: int | None
    limit_is: str
    tried: tuple[dict[str, Any], ...]
    programs: Programs | None

    def facts(self) -> dict[str, Any]:
        """The part of a result's `memory`."""
        return {
            "limit_bytes": self.limit_bytes,
            "remat": self.tried[-1]["remat"],
            "micro_batches": self.tried[-1]["micro_batches"],
            "tried": list(self.tried),
        }

    def refusal(self) -> str:
        """Why nothing fits, with the numbers: one line."""
        assert self.limit_bytes is not None
        least = min(self.tried, key=lambda stage: stage["predicted_bytes"])
        first = self.tried[0]
        return (
            f"needs {gigabytes(first['predicted_bytes'])} as configured and "
            f"{gigabytes(least['predicted_bytes'])} at the least (remat, "
            f"{least['micro_batches']} micro-batches), above the "
            f"{gigabytes(self.limit_bytes)} of {self.limit_is}; lower model.width or "
            "train.batch_size, or raise the limit"
        )


def fit(
    compile_at: Callable[[int, bool, int], Programs],
    *,
    runs: int,
    remat: bool,
    batch_size: int,
    devices: int,
    limit_gb: float,
) -> Plan:
    """Compiles runs, again with less memory if they will not fit, until they do.

    As configured; then half as many runs at a time, until it is one; then with blocks
    recomputed in the backward pass; then in 2, 4, 8, ... micro-batches of the same
    effective batch.

    Args:
      compile_at: `(runs, remat, micro_batches) -> Programs`.
      runs: how many there are.
      remat: what the config asks for.
      batch_size: examples of one update.
      devices: how many share a batch of a single run.
      limit_gb: most memory of one device, in 10^9 bytes; 0 for what the device has.
    """
    limit, limit_is = memory_limit(limit_gb)
    tried: list[dict[str, Any]] = []
    for stage in stages(runs, remat, batch_size, devices):
        programs = compile_at(*stage)
        predicted = programs.predicted_bytes
        told = dict(zip(("copies", "remat", "micro_batches"), stage, strict=True))
        tried.append(told | {"predicted_bytes": predicted})
        if limit is None or predicted <= limit:
            return Plan(limit, limit_is, tuple(tried), programs)
    return Plan(limit, limit_is, tuple(tried), None)


def stages(
    runs: int, remat: bool, batch_size: int, devices: int
) -> Iterator[tuple[int, bool, int]]:
    """What to try, in order: (runs at a time, remat, micro-batches)."""
    while runs > 1:
        yield runs, remat, 1
        runs = -(-runs // 2)
    yield 1, remat, 1
    if not remat:
        yield 1, True, 1
    parts = 2
    while batch_size % parts == 0 and (batch_size // parts) % devices == 0:
        yield 1, True, parts
        parts *= 2


def memory_limit(limit_gb: float) -> tuple[int | None, str]:
    """Bytes one device may use, and where that comes from, in words.

    `limit_gb` is in 10^9 bytes; 0 for what the device has.
    """
    if limit_gb:
        return int(limit_gb * GB), "the given limit"
    return device_memory()


def device_memory() -> tuple[int | None, str]:
    """Bytes one device has for a run, and its name in words.

    Of a GPU, what XLA's allocator may hold; of a CPU, the machine's memory or what the
    process's control group allows of it.
    """
    device = jax.local_devices()[0]
    statistics = device.memory_stats()
    if statistics and statistics.get("bytes_limit"):
        return int(statistics["bytes_limit"]), f"the {device.device_kind}"
    known = [n for n in (_physical_bytes(), _control_group_bytes()) if n]
    return (min(known) if known else None), "this machine"


def gigabytes(count: int) -> str:
    """Bytes as text: "2.50 GB", "77.00 MB"."""
    return f"{count / GB:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _physical_bytes() -> int | None:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group_bytes() -> int | None:
    for path in (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ):
        text = _text(path).strip()
        if text.isdigit():
            return int(text)
    return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
