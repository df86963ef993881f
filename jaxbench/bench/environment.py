"""The environment a run's process must have before its XLA backend starts.

Nothing here imports jax or numpy: allocator, thread and cache settings bind when those
libraries load, so whoever starts a run sets them first (`run.py` for itself, a suite
for its children).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxbench.errors import InputError, nearest

ALLOCATORS = ("default", "platform", "bfc", "cuda_async", "vmm")


def xla_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """Translates the config's `xla` section into environment variables.

    Args:
      settings: `platform` ("" for the best one there is), `allocator`, `preallocate`,
        `memory_fraction` (0 for XLA's own), `compilation_cache` (a folder, "" for
        none), `flags` (appended to XLA_FLAGS).

    Returns:
      Variables to export. CPU backends ignore the allocator's.

    Raises:
      InputError: an allocator XLA does not know, or a fraction outside [0, 1].
    """
    allocator = settings["allocator"]
    if allocator not in ALLOCATORS:
        raise InputError(
            f"xla.allocator={allocator!r} is unknown; nearest: "
            f"{nearest(allocator, ALLOCATORS)}"
        )
    fraction = settings["memory_fraction"]
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"xla.memory_fraction={fraction} must lie in [0, 1]")

    variables = {
        "XLA_PYTHON_CLIENT_ALLOCATOR": allocator,
        "XLA_PYTHON_CLIENT_PREALLOCATE": str(bool(settings["preallocate"])).lower(),
        # With two BLAS threads on two cores, LAPACK's QR (orthogonal initialisers)
        # takes five times as long as with one.
        "OPENBLAS_NUM_THREADS": "1",
        # The log lines of XLA's C++ start-up are not for users.
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    }
    if fraction:
        variables["XLA_CLIENT_MEM_FRACTION"] = str(fraction)
    if settings["platform"]:
        variables["JAX_PLATFORMS"] = settings["platform"]
    if settings["compilation_cache"]:
        cache = Path(settings["compilation_cache"]).expanduser()
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            # By default programs that compile in under a second are not kept, and
            # most of a small model's programs do.
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    if settings["flags"]:
        inherited = os.environ.get("XLA_FLAGS", "")
        variables["XLA_FLAGS"] = f"{inherited} {settings['flags']}".strip()
    return variables


def apply_environment(variables: Mapping[str, str]) -> None:
    """Exports `variables` into this process.

    A variable the user has already set keeps its value.

    Raises:
      RuntimeError: jax is loaded already, so they would come too late.
    """
    import sys

    if "jax" in sys.modules:
        raise RuntimeError("XLA's settings must be exported before jax is imported")
    merged = merged_environment(variables, os.environ)
    for name in variables:
        if name in merged:
            os.environ[name] = merged[name]
        else:
            os.environ.pop(name, None)


def merged_environment(
    variables: Mapping[str, str], inherited: Mapping[str, str]
) -> dict[str, str]:
    """`inherited` with `variables` where the user has set nothing.

    XLA_FLAGS alone are those of `variables`, which has the user's among them.
    """
    merged = {**variables, **inherited}
    if "XLA_FLAGS" in variables:
        merged["XLA_FLAGS"] = variables["XLA_FLAGS"]
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" in merged:
        # The old name next to the new one is an error in jaxlib.
        merged.pop("XLA_CLIENT_MEM_FRACTION", None)
    return merged
