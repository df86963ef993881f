"""Deals out GPUs and CPU cores to the runs of a suite, without touching them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence


def visible_gpus(platform: str) -> tuple[str, ...]:
    """GPUs by the names CUDA_VISIBLE_DEVICES knows; none where runs use the CPU.

    Args:
      platform: the config's `xla.platform`.
    """
    if "cpu" in (platform, os.environ.get("JAX_PLATFORMS", "")):
        return ()
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        listed = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        return tuple(name.strip() for name in listed if name.strip())
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(listed)


def slots(jobs: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Environment variables of each of `jobs` places, for the runs started in it.

    GPUs are dealt out in turn. Places on a CPU get their cores from `core_share`.
    """
    if not gpus:
        return [{} for _ in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]


def core_share(place: int, jobs: int, cores: Sequence[int]) -> set[int]:
    """The cores of one place: an equal share, so that runs do not slow each other.

    With more places than cores some places share one.
    """
    if jobs >= len(cores):
        return {cores[place % len(cores)]}
    return set(cores[place::jobs])


def oom_kills() -> int:
    """How many processes the kernel has killed for memory, in this control group or,
    where that is not known, on this machine."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            with open(path) as file:
                fields: Mapping[str, str] = dict(line.split(None, 1) for line in file)
        except (OSError, ValueError):
            continue
        if "oom_kill" in fields:
            return int(fields["oom_kill"])
    return 0
